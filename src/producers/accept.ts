/**
 * The way in, the same for the library, the HTTP intake and the command line:
 * claim the idempotency key -> seal -> journal: queued, due -> job into the partition's queue -> mark the claim done.
 * Every step repeats harmlessly; whoever finds a claim older than ten seconds finishes it under the same id.
 */
import { createHmac, createSecretKey, hkdfSync, type KeyObject } from 'node:crypto';
import type { Queue } from 'bullmq';
import stringify from 'safe-stable-stringify';
import type { EventBus } from '../events.ts';
import type { Amount, Operation } from '../providers/provider.ts';
import type { RedisConnection } from '../redis/connections.ts';
import type { Held } from '../redis/held.ts';
import { Script } from '../redis/script.ts';
import { answersIn, jsonFor, type Together, togetherOf } from '../redis/together.ts';
import type { Secret } from '../secret.ts';
import { apiKeyDigest } from '../secret-hashes.ts';
import { claimDone, claimIt, type RateLimit, STALE_MS } from './claim.ts';
import { namesOf, newVerificationId, VERIFICATION_JOB_OPTIONS, type VerificationJob } from './job.ts';
import { headText, readRecord, type VerificationRecord } from './record.ts';
import { type PartitionProfile, parseRequest, type VerificationRequest } from './request.ts';
import { type Sealer, sealCode } from './sealing.ts';

/** A job that no worker has seen by then is looked for by the sweeper. */
export const JOB_SEEN_WITHIN_MS = 5_000;

export interface AcceptingClient {
  readonly id: string;
  /** Or its hash. Fingerprints are keyed with it: a plain hash of a six-digit code would be the code. */
  readonly apiKey: Secret<string>;
}

export type Acceptance =
  | {
      readonly kind: 'accepted';
      readonly id: string;
      readonly partition: string;
      readonly repeated: boolean;
      /** As it was written just now; null where it was there before. Made when it is asked for: the library never does. */
      record(): VerificationRecord | null;
    }
  /** The same key with the same body is being accepted right now by somebody else. */
  | { readonly kind: 'in_progress' }
  /** The key was used for another body. */
  | { readonly kind: 'mismatch' }
  /** New work that could not be carried out before its deadline; nothing was kept of it. */
  | { readonly kind: 'backlogged'; readonly retryAfterMs: number }
  /** More new work than the client may bring; nothing was kept of it. */
  | { readonly kind: 'limited'; readonly retryAfterMs: number };

export interface AcceptDependencies {
  readonly redis: RedisConnection;
  readonly sealer: Sealer;
  readonly events: EventBus;
  readonly partitions: ReadonlyMap<string, PartitionProfile>;
  /** The verification queue of a partition, on a connection that fails fast. */
  queue(partition: string): Queue<VerificationJob>;
  /** Where replicas are waited for. */
  readonly held?: Pick<Held, 'write' | 'demand' | 'during'> | undefined;
  /** Why new work is turned away, or null. A repeated key gets its answer all the same. */
  turnAway?(request: VerificationRequest): Promise<{ readonly retryAfterMs: number } | null>;
  /** What a client may bring of new work, over all processes that ask. Without it, or with null, as much as it likes. */
  rateLimit?(client: string): RateLimit | null;
}

/** Since the last verification of the transaction was accepted; its own records may be gone before. */
const FOUND_BY_REFERENCE_MS = 7 * 24 * 3600 * 1_000;

const acceptScript = Script.fromFiles(
  new URL('../redis/hash.lua', import.meta.url),
  new URL('../redis/each.lua', import.meta.url),
  new URL('./accept.lua', import.meta.url),
);

/**
 * @param body the request as parsed JSON; `idempotencyKey` 1 to 255 visible ASCII characters.
 * @throws InvalidRequestError when the body does not fit; Redis errors when it is not known whether it was accepted:
 * the same key repeated gives the one answer.
 */
export async function accept(
  client: AcceptingClient,
  idempotencyKey: string,
  body: unknown,
  deps: AcceptDependencies,
): Promise<Acceptance> {
  return await acceptParsed(client, idempotencyKey, body, parseRequest(body, deps.partitions), deps);
}

/** For a caller that has parsed the body already, to ask whether the partition is allowed and the backlog bearable. */
export async function acceptParsed(
  client: AcceptingClient,
  idempotencyKey: string,
  body: unknown,
  request: VerificationRequest,
  deps: AcceptDependencies,
): Promise<Acceptance> {
  const claim = namesOf(deps.redis).claimKey(client.id, idempotencyKey);
  const turnedAway = (await deps.turnAway?.(request)) ?? null;
  if (turnedAway !== null && (await deps.redis.exists(claim)) === 0) {
    return { kind: 'backlogged', retryAfterMs: turnedAway.retryAfterMs };
  }
  const fingerprint = fingerprintOf(client, body);
  const partition = request.partition.name;
  const rate = deps.rateLimit?.(client.id) ?? null;
  const isStale = after(STALE_MS);
  const proposal = { key: claim, client: client.id, fingerprint, id: newVerificationId(partition), rate };
  const claimed = await claimIt(proposal, deps);
  const [outcome, id] = claimed;
  switch (outcome) {
    case 'mismatch':
    case 'in_progress':
      return { kind: outcome };
    case 'limited':
      return { kind: 'limited', retryAfterMs: Number(id) };
    case 'done':
      return { kind: 'accepted', id, partition, repeated: true, record: noRecord };
    case 'new':
    case 'resume': {
      // The code is as old as the first claim for it.
      const expiresAt =
        request.expiresAt ?? (claimed[0] === 'resume' ? claimed[2] + request.partition.otpLifetimeMs : null);
      const draft = await draftOf(client, id, { ...request, expiresAt }, deps.sealer);
      const record = await journal({ claim, isStale }, draft, deps);
      return { kind: 'accepted', id, partition, repeated: outcome === 'resume', record };
    }
  }
  outcome satisfies never;
  throw new Error('claim.lua answered with an outcome that is none of its own');
}

/**
 * Everything that acceptance makes of a request in the clear: nothing in it tells the code or a person's data, so it may
 * be stored, and admitted by somebody who could open nothing of it.
 */
export interface Draft {
  readonly id: string;
  readonly partition: string;
  readonly operation: Operation;
  readonly client: string;
  /** Unix ms; null for the lifetime from now on. */
  readonly expiresAt: number | null;
  readonly otpLifetimeMs: number;
  readonly reference: string;
  readonly head: {
    readonly metadata: Readonly<Record<string, unknown>>;
    readonly amount: Amount | null;
    readonly plainParams: Readonly<Record<string, unknown>>;
    readonly traceparent?: string;
  };
  /** The code and the params, sealed together with this id and partition. */
  readonly sealed: string;
  readonly codePrint: string;
}

export async function draftOf(
  client: AcceptingClient,
  id: string,
  request: VerificationRequest,
  sealer: Sealer,
): Promise<Draft> {
  const { name: partition, definition, otpLifetimeMs } = request.partition;
  const operation = definition.operations[request.operation];
  if (!operation) throw new Error(`${partition} has no operation ${request.operation}`); // parseRequest has asked already
  const reference = operation.reference(request.params);
  const otp = request.otp?.reveal() ?? null;
  return {
    id,
    partition,
    operation: request.operation,
    client: client.id,
    expiresAt: request.expiresAt,
    otpLifetimeMs,
    reference: reference.personal ? personalReference(client.apiKey, reference.value) : reference.value,
    head: {
      metadata: request.metadata,
      amount: request.amount,
      plainParams: Object.fromEntries(operation.plainParams.map((name) => [name, request.params[name]])),
      ...(request.traceparent === null ? {} : { traceparent: request.traceparent }),
    },
    sealed: await sealCode(sealer, { id, partition, otp, params: request.params }),
    // Bound to the reference, so that equal codes of two customers do not look equal.
    codePrint: otp === null ? '' : keyedHash(client.apiKey, 'code', `${reference.value}|${otp}`),
  };
}

/** What tells the same request from another one under the same idempotency key. */
export function fingerprintOf(client: AcceptingClient, body: unknown): string {
  return keyedHash(client.apiKey, 'request', stringify(body) ?? '');
}

export type Admission =
  | Extract<Acceptance, { kind: 'accepted' | 'in_progress' | 'mismatch' }>
  /** The key was claimed for another id by an acceptance that never finished; only that one, repeated, can finish it. */
  | { readonly kind: 'unfinished'; readonly id: string };

/**
 * Accepts what was drafted elsewhere and before. The draft keeps its id over all repeats, so whoever admits it again, or at
 * the same time, does the same once more. A draft is never journaled under another id than the one inside of its seal.
 * @throws Redis errors when it is not known whether it was admitted.
 */
export async function admit(
  draft: Draft,
  idempotencyKey: string,
  fingerprint: string,
  deps: Pick<AcceptDependencies, 'redis' | 'events' | 'queue' | 'held'>,
): Promise<Admission> {
  const claim = namesOf(deps.redis).claimKey(draft.client, idempotencyKey);
  const proposal = { key: claim, client: draft.client, fingerprint, id: draft.id, rate: null };
  const isStale = after(STALE_MS);
  const [outcome, id] = await claimIt(proposal, deps);
  switch (outcome) {
    case 'mismatch':
    case 'in_progress':
      return { kind: outcome };
    case 'done':
      return { kind: 'accepted', id, partition: draft.partition, repeated: true, record: noRecord };
    case 'new': {
      const record = await journal({ claim, isStale }, draft, deps);
      return { kind: 'accepted', id, partition: draft.partition, repeated: false, record };
    }
    case 'resume': {
      const journaled = (await deps.redis.exists(namesOf(deps.redis).partitionKeys(draft.partition).record(id))) === 1;
      if (!journaled) return { kind: 'unfinished', id };
      return { kind: 'accepted', id, partition: draft.partition, repeated: true, record: noRecord };
    }
    case 'limited':
      throw new Error('a draft was limited, and there is no limit for drafts');
  }
  outcome satisfies never;
  throw new Error('claim.lua answered with an outcome that is none of its own');
}

const noRecord = (): null => null;

/** Whether so much time has passed, by either clock: one stands still while the machine sleeps, the other may be set. */
function after(ms: number): () => boolean {
  const [monotonic, wall] = [performance.now(), Date.now()];
  return () => Math.max(performance.now() - monotonic, Date.now() - wall) >= ms;
}

/** Gives the record if it is new. A verification that ends meanwhile ends its claim: see claim-done.lua. */
async function journal(
  { claim, isStale }: { readonly claim: string; isStale(): boolean },
  draft: Draft,
  deps: Pick<AcceptDependencies, 'redis' | 'events' | 'queue' | 'held'>,
): Promise<() => VerificationRecord | null> {
  const { id, partition, operation, client, reference } = draft;
  const { record } = namesOf(deps.redis).partitionKeys(partition);
  const fields = {
    v: '1',
    operation,
    client,
    reference,
    head: headText(draft.head),
    code: draft.sealed,
    codePrint: draft.codePrint,
    claim,
  };
  const records = newRecords(deps.redis, partition);
  // A process that was stopped meanwhile: another one may have carried it out under the same id, so long ago that it is forgotten.
  if (isStale()) throw new Error('the claim on the idempotency key is too old: somebody else may have taken it over');
  const journaling = records.ask({ id, lifetimeMs: draft.otpLifetimeMs, expiresAt: draft.expiresAt, fields });
  // They leave together, the record first. A server that has not met the script yet is told it first, for then the job
  // would be there before its record, and that is a job of nothing.
  await (accepting.has(deps.redis) ? records.left : journaling);
  const adding = deps.queue(partition).add(operation, { v: 1, id }, { ...VERIFICATION_JOB_OPTIONS, jobId: id });
  const [times] = await Promise.all([journaling, adding]);
  markAccepting(deps.redis);
  await deps.held?.demand([record(id)]);
  await claimDone({ key: claim, id, client }, deps.redis);
  if (times === false) return noRecord;
  const [now, expiresAt] = times;
  const traceparent = draft.head.traceparent ?? null;
  deps.events.emit('verification:accepted', { id, traceparent, partition, operation });
  const ofNow = { createdAt: now, updatedAt: now, expiresAt };
  return () => readRecord(id, partition, { ...fields, ...ofNow, state: 'queued', revision: '1' });
}

/** A record as acceptance creates it. */
export interface NewRecord {
  readonly id: string;
  readonly lifetimeMs: number;
  /** Unix ms; null for the lifetime from now on. */
  readonly expiresAt: number | null;
  /** All that acceptance knows of it, but for its times and its state. */
  readonly fields: Readonly<Record<string, string>> & { readonly client: string; readonly reference: string };
}

/** By the clock of Redis, in Unix ms as text; false where the record is there already. */
type Times = readonly [now: string, expiresAt: string] | false;

/** Where records of a partition are created, over one connection. */
export function newRecords(redis: RedisConnection, partition: string): Together<NewRecord, Times> {
  return togetherOf(redis, `records of ${partition}`, async (all) => {
    const { record, due, transaction } = namesOf(redis).partitionKeys(partition);
    const keys = all.flatMap(({ id, fields }) => [record(id), transaction(fields.reference)]);
    const items = all.map(({ id, lifetimeMs, expiresAt, fields }) => [id, lifetimeMs, expiresAt ?? false, fields]);
    const args = [JOB_SEEN_WITHIN_MS, FOUND_BY_REFERENCE_MS, jsonFor(items)];
    return answersIn(await acceptScript.run(redis, [due, ...keys], args));
  });
}

/**
 * Connections over which this process has accepted since they were made: their server has the script. Another node of a
 * Cluster may lack it; what it is told first then waits for the sweeper to miss its job.
 */
const accepting = new WeakSet<RedisConnection>();

function markAccepting(redis: RedisConnection): void {
  if (accepting.has(redis)) return;
  accepting.add(redis);
  redis.once('close', () => accepting.delete(redis));
}

/** What stands for a reference that is a person: the same for the same client, and telling nothing. */
export function personalReference(apiKey: Secret<string>, value: string): string {
  return keyedHash(apiKey, 'reference', value);
}

type Purpose = 'request' | 'code' | 'reference';

/**
 * HMAC-SHA256 in base64url, under a key of its own per purpose. 96 bits are kept, with each verification three times: they tell
 * one client's requests under one key, codes of one transaction, and persons apart.
 */
function keyedHash(apiKey: Secret<string>, purpose: Purpose, text: string): string {
  const keys = derivedKeys.get(apiKey) ?? derive(apiKey);
  return createHmac('sha256', keys[purpose]).update(text).digest('base64url').slice(0, 16);
}

/** A client's keys are derived once, from the hash of its API key (RFC 5869), and kept for as long as that is. */
const derivedKeys = new WeakMap<Secret<string>, Record<Purpose, KeyObject>>();

function derive(apiKey: Secret<string>): Record<Purpose, KeyObject> {
  const digest = apiKeyDigest(apiKey.reveal());
  const keyFor = (purpose: Purpose): KeyObject =>
    createSecretKey(Buffer.from(hkdfSync('sha256', digest, '', `otp-pipeline ${purpose}`, 32)));
  const keys = { request: keyFor('request'), code: keyFor('code'), reference: keyFor('reference') };
  derivedKeys.set(apiKey, keys);
  return keys;
}
