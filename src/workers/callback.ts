/**
 * What a provider reported by itself, brought to the verification that it is about. A callback is a hint: what it is
 * worth is decided where all evidence is, in decide.ts. Nothing that one says, or that stands in its queue, stops the
 * worker; worker.ts alone tells BullMQ what comes next.
 */
import type { EventBus } from '../events.ts';
import { openCallback } from '../producers/callbacks.ts';
import { type CallbackJob, callbackJobSchema } from '../producers/job.ts';
import type { VerificationRecord } from '../producers/record.ts';
import { type Opener, SealError } from '../producers/sealing.ts';
import type { BoundProvider, CallbackReading, Finding } from '../providers/provider.ts';
import type { RedisConnection } from '../redis/connections.ts';
import type { Next } from './attempt.ts';
import type { Facts } from './change.ts';
import type { Evidence } from './decide.ts';
import type { Journal } from './journal.ts';

export interface CallbackDependencies {
  readonly partition: string;
  readonly provider: BoundProvider;
  readonly journal: Journal;
  readonly redis: RedisConnection;
  readonly opener: Opener;
  readonly events: EventBus;
  conclude(record: VerificationRecord, evidence: Evidence, facts: Facts): Promise<Next>;
  /** An inquiry is on its way at this moment. It was put before the callback was read, so it may not know of it. */
  isBeingAsked(id: string): Promise<boolean>;
}

/** What the queue must do next. `at` in Unix ms by the clock of Redis. */
export type Delivered =
  | { readonly do: 'finish' }
  | { readonly do: 'later'; readonly at: number }
  /** At once: a callback is worth it, whatever the schedule says. */
  | { readonly do: 'inquire'; readonly id: string }
  /** Nobody can do anything with it: among the failed jobs a person sees it. */
  | { readonly do: 'set_aside'; readonly because: string };

/** A callback may come before the verification that it is about has been begun. */
const LOOK_AGAIN_MS = [2_000, 5_000, 15_000, 60_000, 300_000] as const;
const GIVE_UP_AFTER_MS = 24 * 3600 * 1_000;
/** While an attempt is under way, one note of a callback is enough. */
const UNDER_WAY_AGAIN_MS = 3_000;
const BEING_ASKED_AGAIN_MS = 1_000;

/** @param tries how often it has been taken from the queue, this time included. */
export async function deliver(job: { data: unknown; tries: number }, deps: CallbackDependencies): Promise<Delivered> {
  const { partition, journal, events } = deps;
  const parsed = callbackJobSchema.safeParse(job.data);
  if (!parsed.success) return unreadable('its data is not that of a callback', 0, deps);
  const { receivedAt } = parsed.data;
  const ageMs = Math.max(0, journal.now() - receivedAt);
  const again: Delivered | null =
    ageMs < GIVE_UP_AFTER_MS
      ? { do: 'later', at: journal.now() + (LOOK_AGAIN_MS[job.tries - 1] ?? LOOK_AGAIN_MS[4]) }
      : null;

  const body = await open(parsed.data, deps);
  if (body === null) return again ?? unreadable('no key opens it', ageMs, deps); // another worker may hold the key
  const reading = readSafely(body, deps.provider);
  if (reading === null) return unreadable('its body cannot be read, or names no transaction', ageMs, deps);

  let record = await find(reading.references, deps);
  if (record === null) {
    if (again !== null) return again;
    events.emit('callback:unmatched', { partition, ageMs });
    return { do: 'set_aside', because: 'it names no transaction of ours, a day after it came' };
  }
  const { finding, providerCode } = reading;
  const told = new Set<string>();
  // After Redis has lost what it was told, more than one of a transaction may wait for its proof.
  do {
    const next = await bring(reading, record, receivedAt, job.tries, deps);
    if (next.do === 'later') return next;
    if (told.size === 0) {
      events.emit('callback:matched', { id: record.id, partition, found: finding.kind, providerCode });
    }
    if (next.do === 'inquire') return { do: 'inquire', id: record.id };
    told.add(record.id);
    record = await find(reading.references, deps);
  } while (record?.state === 'awaiting' && !told.has(record.id));
  return { do: 'finish' };
}

async function bring(
  { finding: said, providerCode }: CallbackReading,
  record: VerificationRecord,
  receivedAt: number,
  tries: number,
  { journal, provider, conclude, isBeingAsked }: CallbackDependencies,
): Promise<Next> {
  const subject = { reference: record.reference, params: record.plainParams };
  const canInquire = provider.inquiry?.applies(subject) ?? false;
  if (record.hinted && (record.state === 'queued' || record.state === 'sending')) {
    return canInquire ? { do: 'finish' } : { do: 'later', at: journal.now() + UNDER_WAY_AGAIN_MS };
  }
  if (canInquire && record.state === 'awaiting' && (await isBeingAsked(record.id))) {
    return { do: 'later', at: journal.now() + BEING_ASKED_AGAIN_MS };
  }
  // What was said before the attempt began was said of an earlier one, or of none: it cannot tell that this one failed.
  const finding: Finding =
    said.kind === 'not_paid' && receivedAt < record.beganAt
      ? { kind: 'nothing', documented: true, providerCode }
      : said;
  // Brought again, it counts as of now: in all the time since nothing has come that says otherwise.
  const evidence: Evidence = { from: 'callback', finding, receivedAt: tries === 1 ? receivedAt : journal.now() };
  return await conclude(record, evidence, { found: finding.kind, code: providerCode });
}

/** The verification that holds the transaction, or the last that did; null when none of the names is known. */
async function find(
  references: readonly string[],
  { journal, redis }: CallbackDependencies,
): Promise<VerificationRecord | null> {
  const { keys } = journal;
  for (const named of references) {
    for (const reference of [named, await redis.get(keys.alias(named))]) {
      if (reference === null) continue;
      const [holder, last] = await redis.hmget(keys.transaction(reference), 'holder', 'last');
      const id = holder ?? last ?? null;
      const record = id === null ? null : await journal.read(id);
      if (record !== null) return record;
    }
  }
  return null;
}

async function open(
  { sealed }: CallbackJob,
  { opener, partition, events }: CallbackDependencies,
): Promise<string | null> {
  try {
    return await openCallback(opener, sealed, partition);
  } catch (error) {
    const fault = error instanceof SealError ? error.message : 'not a SealError';
    events.emit('machinery:failed', { where: `callbacks of ${partition}`, error: new Error(fault) });
    return null;
  }
}

/** A body that a provider's reading stumbles over says nothing. Its text goes nowhere, not even into an error. */
function readSafely(body: string, { callback }: BoundProvider): CallbackReading | null {
  try {
    return callback?.read(body) ?? null;
  } catch {
    return null;
  }
}

function unreadable(because: string, ageMs: number, { events, partition }: CallbackDependencies): Delivered {
  events.emit('callback:unreadable', { partition, ageMs });
  return { do: 'set_aside', because };
}
