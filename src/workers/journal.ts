/**
 * The journal of one partition. Two scripts change it: `begin` grants the right to send, `apply` writes what was decided.
 * A change is applied only to the revision it was decided on; whoever lost that race is given the record as it is now
 * and decides again. So evidence may come in any order, from any process, and meets only here.
 */
import { asError, EventBus } from '../events.ts';
import { JOB_SEEN_WITHIN_MS } from '../producers/accept.ts';
import { newAttemptToken, type PartitionKeys, partitionKeys } from '../producers/job.ts';
import { type HistoryEntry, readRecord, type VerificationRecord } from '../producers/record.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { Script } from '../redis/script.ts';
import { decide, type Evidence, type Policy, type Situation, type Verdict } from './decide.ts';

/** A worker whose heartbeat is older than this is dead to the others; its attempts become unknown, never sent again. */
export const HEARTBEAT_LIFE_MS = 6_000;
/** After the time-out an answer may still be on its way to us for so long. */
const IN_FLIGHT_GRACE_MS = 10_000;
/** An inquiry job is looked for by the sweeper when it is this late. */
const INQUIRY_SEEN_WITHIN_MS = 5_000;
/** Half of the workers' lockDuration: headers leave within it or not at all. */
export const SEND_WITHIN_MS = 4_000;

const beginScript = Script.fromFiles(new URL('./begin.lua', import.meta.url));
const applyScript = Script.fromFiles(new URL('./apply.lua', import.meta.url));
const askScript = Script.fromFiles(new URL('./ask.lua', import.meta.url));

export interface JournalSettings {
  readonly partition: string;
  readonly policy: Omit<Policy, 'canInquire'> & { canInquire(record: VerificationRecord): boolean };
  readonly rateLimit: { readonly max: number; readonly perMs: number };
  readonly inquiryRateLimit: { readonly max: number; readonly perMs: number };
  readonly timeoutMs: number;
  readonly retentionMs: number;
}

export type Beginning =
  | {
      readonly is: 'begun';
      readonly record: VerificationRecord;
      /** On this process's monotonic clock (`performance.now()`): headers that have not left by then stay. */
      readonly sendBefore: number;
    }
  | { readonly is: 'later'; readonly at: number; readonly because: 'rate_limited' | 'not_yet' }
  /** Begin refused; the evidence says why, and must be applied to `record`. */
  | { readonly is: 'evidence'; readonly evidence: Evidence; readonly record: VerificationRecord }
  | { readonly is: 'awaiting'; readonly nextInquiryAt: number }
  | { readonly is: 'in_flight' | 'settled' | 'missing' };

export type Asking =
  | { readonly is: 'ask'; readonly record: VerificationRecord; readonly askedAt: number }
  | { readonly is: 'later'; readonly at: number }
  | { readonly is: 'idle' };

/** What was written: the verdict that held, and the record it was decided on. */
export interface Applied {
  readonly verdict: Verdict;
  readonly before: VerificationRecord;
  readonly published: string | null;
}

/** What the evidence adds to the history, in words without a customer's data. */
export type Facts = Readonly<Record<string, string | number | boolean | null>>;

export class Journal {
  readonly keys: PartitionKeys;
  readonly #redis: RedisConnection;
  readonly #settings: JournalSettings;
  readonly #worker: string;
  readonly #events: EventBus;
  /** Redis's clock minus ours, as last seen; deadlines are always judged by Redis. */
  #clockOffsetMs = 0;

  constructor(redis: RedisConnection, settings: JournalSettings, worker: string, events: EventBus = new EventBus()) {
    this.keys = partitionKeys(settings.partition);
    this.#redis = redis;
    this.#settings = settings;
    this.#worker = worker;
    this.#events = events;
  }

  /** The time by the clock of Redis, to within a round trip. */
  now(): number {
    return Math.round(Date.now() + this.#clockOffsetMs);
  }

  async begin(id: string): Promise<Beginning> {
    const { rateLimit, timeoutMs, policy } = this.#settings;
    const asked = performance.now();
    const reply = (await beginScript.run(
      this.#redis,
      [this.keys.record(id), this.keys.due, this.keys.rate, this.keys.heartbeat(this.#worker)],
      [
        this.keys.prefix,
        id,
        newAttemptToken(),
        this.#worker,
        SEND_WITHIN_MS,
        timeoutMs + IN_FLIGHT_GRACE_MS,
        rateLimit.max,
        rateLimit.perMs,
        policy.maxAttempts,
        HEARTBEAT_LIFE_MS,
      ],
    )) as [string, number, ...unknown[]];
    const [outcome, now, third, fourth] = reply;
    this.#sawClock(now);
    switch (outcome) {
      case 'begun':
        // Counted from before the question was put, so the limit on our clock is never later than the one on Redis's.
        return { is: 'begun', record: this.#record(id, fourth), sendBefore: asked + (Number(third) - now) };
      case 'rate_limited':
      case 'not_yet':
        return { is: 'later', at: Number(third), because: outcome };
      case 'deadline_passed':
        return { is: 'evidence', evidence: { from: 'deadline' }, record: this.#record(id, third) };
      case 'owner_dead':
        return { is: 'evidence', evidence: { from: 'owner_dead' }, record: this.#record(id, third) };
      case 'attempt_in_flight':
      case 'already_used':
      case 'budget_spent': {
        const [transaction, ownedBy] = fourth as ['pending' | 'unknown' | 'succeeded' | 'failed', string];
        return {
          is: 'evidence',
          evidence: { from: 'reference', reason: outcome, transaction, ownedBy },
          record: this.#record(id, third),
        };
      }
      case 'awaiting':
        return { is: 'awaiting', nextInquiryAt: Number(third) };
      case 'in_flight':
      case 'settled':
      case 'missing':
        return { is: outcome };
      default:
        throw new Error(`begin.lua answered with an outcome that the journal does not know: ${outcome}`);
    }
  }

  async ask(id: string, graceMs: number): Promise<Asking> {
    const { max, perMs } = this.#settings.inquiryRateLimit;
    const [outcome, now, third] = (await askScript.run(
      this.#redis,
      [this.keys.record(id), this.keys.inquiryRate],
      [max, perMs, graceMs],
    )) as [string, number, unknown];
    this.#sawClock(now);
    if (outcome === 'ask') return { is: 'ask', record: this.#record(id, third), askedAt: now };
    if (outcome === 'idle') return { is: 'idle' };
    return { is: 'later', at: Number(third) };
  }

  async read(id: string): Promise<VerificationRecord | null> {
    return readRecord(id, this.#settings.partition, await this.#redis.hgetall(this.keys.record(id)));
  }

  /** Ids of verifications for which something should have happened by now, most overdue first. */
  async overdue(limit: number): Promise<string[]> {
    return await this.#redis.zrangebyscore(this.keys.due, '-inf', this.now(), 'LIMIT', 0, limit);
  }

  /** Nothing changed but the time at which to look again. Never brings back what is settled. */
  async lookAgain(id: string, at: number): Promise<void> {
    await this.#redis.zadd(this.keys.due, 'XX', at, id);
  }

  /** Nothing more is due for it: it is settled, or its record is gone. */
  async forget(id: string): Promise<void> {
    await this.#redis.zrem(this.keys.due, id);
  }

  /** True for one caller per tick over all workers: the sweep is one worker's at a time. */
  async mayOneSweep(tickMs: number): Promise<boolean> {
    return (await this.#redis.set(this.keys.sweep, this.#worker, 'PX', tickMs, 'NX')) === 'OK';
  }

  /** Says that this worker lives, and learns the time: a sweep must not judge deadlines by a clock of its own. */
  async beat(): Promise<void> {
    const replies = await this.#redis
      .multi()
      .set(this.keys.heartbeat(this.#worker), '1', 'PX', HEARTBEAT_LIFE_MS)
      .time()
      .exec();
    const [seconds, microseconds] = (replies?.[1]?.[1] ?? []) as (string | number)[];
    if (seconds !== undefined) this.#sawClock(Number(seconds) * 1_000 + Math.floor(Number(microseconds) / 1_000));
  }

  async ownerLives(record: VerificationRecord): Promise<boolean> {
    return record.owner !== null && (await this.#redis.exists(this.keys.heartbeat(record.owner))) === 1;
  }

  /**
   * Decides on the evidence and writes the verdict, again and again until it meets the revision it was decided on.
   * `seal` seals the provider's details for the client; it is called only when there are any.
   */
  async apply(
    record: VerificationRecord,
    evidence: Evidence,
    facts: Facts,
    seal: (client: string, details: unknown) => Promise<string>,
  ): Promise<Applied> {
    let before = record;
    const random = Math.random();
    for (;;) {
      const situation = situationOf(before, evidence, overtaken(record, before), this.now(), random);
      const { policy } = this.#settings;
      const verdict = decide(evidence, situation, { ...policy, canInquire: policy.canInquire(before) });
      if (verdict.do === 'nothing') return { verdict, before, published: null };
      const change = await this.#changeOf(verdict, before, situation, evidence, facts, seal);
      const [applied, now, current] = (await applyScript.run(
        this.#redis,
        [
          this.keys.record(before.id),
          this.keys.due,
          this.keys.outbox,
          this.keys.transaction(before.reference),
          this.keys.awaiting,
          this.keys.review,
        ],
        [before.id, before.revision, JSON.stringify(change)],
      )) as [number, number, unknown];
      this.#sawClock(now);
      if (applied === 1) {
        this.#tell(verdict, before, evidence);
        return { verdict, before, published: change.publish === '' ? null : change.publish };
      }
      const moved = readRecord(before.id, this.#settings.partition, asObject(current));
      if (moved === null) return { verdict: { do: 'nothing' }, before, published: null }; // its retention is over
      before = moved;
    }
  }

  async #changeOf(
    verdict: Exclude<Verdict, { do: 'nothing' }>,
    before: VerificationRecord,
    situation: Situation,
    evidence: Evidence,
    facts: Facts,
    seal: (client: string, details: unknown) => Promise<string>,
  ): Promise<Change> {
    const { now } = situation;
    const { retentionMs, policy } = this.#settings;
    const begun = before.state === 'sending' || before.state === 'awaiting';
    const change: Change = {
      set: {},
      clear: ['token', 'owner', 'notBefore'],
      dueAt: 0,
      publish: '',
      retentionMs,
      history: '',
      reference: { set: {}, clear: [], refund: 0, release: false, forget: false },
    };
    const entry: Record<string, unknown> = { at: now, event: eventOf(evidence) };
    if (begun) entry.attempt = before.attempts;
    Object.assign(entry, facts);

    const codeField = `code:${before.codePrint}`;
    const giveBack = (): void => {
      if (!situation.takesCode) return;
      change.reference.release = true;
      if (!begun) return;
      change.reference.refund = 1;
      change.reference.clear.push(codeField);
    };

    switch (verdict.do) {
      case 'contradict':
        change.set.needsReview = '1';
        change.clear = [];
        entry.contradicts = verdict.was;
        break;
      case 'retry': {
        const at = now + verdict.inMs;
        change.set.state = 'queued';
        change.set.notBefore = String(at);
        change.set[verdict.because === 'refused' ? 'refusals' : 'notSent'] = String(
          (verdict.because === 'refused' ? before.refusals : before.notSent) + 1,
        );
        change.clear = ['token', 'owner'];
        change.dueAt = Math.min(before.expiresAt, at + JOB_SEEN_WITHIN_MS);
        entry.againAt = new Date(at).toISOString();
        giveBack();
        break;
      }
      case 'await': {
        const arrived = before.state !== 'awaiting' || before.standing?.otp !== verdict.standing.otp;
        if (arrived) change.set.awaitingSince = String(now);
        change.set.state = 'awaiting';
        change.clear.push('code');
        // The provider itself has answered: nothing of this attempt is on its way any more. A lost answer, or one
        // that a proxy may have given, says no such thing.
        if (evidence.from === 'answer' && verdict.standing.otp === 'accepted') change.set.inFlightUntil = String(now);
        change.set.inquiries = String(arrived ? 0 : situation.inquiries);
        if (verdict.inquireInMs === null) {
          change.clear.push('nextInquiryAt');
          const since = arrived ? now : before.awaitingSince;
          const giveUpAt = since + policy.inquiry.giveUpAfterMs;
          change.dueAt = giveUpAt > now ? giveUpAt : now + policy.inquiry.giveUpAfterMs;
        } else {
          const at = now + verdict.inquireInMs;
          change.set.nextInquiryAt = String(at);
          change.dueAt = at + INQUIRY_SEEN_WITHIN_MS;
          entry.inquiryAt = new Date(at).toISOString();
        }
        if (verdict.proof === 'not_paid_once') change.set.notPaidAt = String(now);
        if (verdict.proof === 'none') change.clear.push('notPaidAt');
        if (verdict.publish === 'review') change.set.needsReview = '1';
        if (verdict.publish !== null) change.publish = `otp.verification.${verdict.publish}`;
        if (situation.takesCode && verdict.standing.otp === 'accepted') {
          change.reference.set[codeField] = JSON.stringify({ id: before.id, outcome: 'accepted' });
        }
        break;
      }
      case 'settle': {
        change.set.state = 'settled';
        change.set.final = '1';
        change.clear.push('code', 'nextInquiryAt', 'needsReview');
        change.publish = 'otp.verification.settled';
        if (verdict.code === 'untouched') {
          giveBack();
        } else if (situation.takesCode) {
          change.reference.release = true;
          change.reference.set[codeField] = JSON.stringify({ id: before.id, outcome: verdict.standing.otp });
          const { transaction } = verdict.standing;
          if (transaction === 'succeeded' || transaction === 'failed') {
            change.reference.set.transaction = transaction;
            change.reference.set.provedBy = before.id;
          }
        } else if (verdict.standing.otp === 'accepted') {
          change.reference.forget = true; // a new code is on its way: what the old one used up is over
        }
        if (evidence.from === 'reference' && evidence.ownedBy !== '') entry.ownedBy = evidence.ownedBy;
        break;
      }
    }

    if (verdict.do === 'settle' || verdict.do === 'await') {
      const { standing } = verdict;
      change.set.otp = standing.otp;
      change.set.transaction = standing.transaction;
      change.set.nextStep = standing.nextStep;
      setOrClear(change, 'reason', standing.reason);
      setOrClear(change, 'providerCode', standing.providerCode);
      setOrClear(change, 'attemptsRemaining', verdict.attemptsRemaining);
      if (verdict.providersWord !== undefined) change.reference.set.remaining = String(verdict.providersWord);
      if (verdict.identifiers !== undefined) change.set.identifiers = JSON.stringify(verdict.identifiers);
      if (verdict.details !== undefined) {
        try {
          change.set.details = await seal(before.client, verdict.details);
        } catch (error) {
          // The answer counts; what it told besides may be missing, its outcome may not.
          this.#events.emit('machinery:failed', {
            where: `sealing the details of ${before.id}`,
            error: asError(error),
          });
        }
      }
      entry.otp = standing.otp;
      entry.transaction = standing.transaction;
      if (standing.reason !== null) entry.reason = standing.reason;
    }
    change.history = `${JSON.stringify(entry satisfies Record<string, unknown> as HistoryEntry)}\n`;
    return change;
  }

  #tell(verdict: Verdict, before: VerificationRecord, evidence: Evidence): void {
    const { id, partition, operation } = before;
    if (verdict.do === 'nothing') return;
    if (verdict.do === 'contradict') {
      this.#events.emit('proof:contradicted', { id, partition, was: verdict.was, now: verdict.now });
      return;
    }
    const standing = verdict.do === 'retry' ? null : verdict.standing;
    this.#events.emit('verification:moved', {
      id,
      partition,
      operation,
      state: verdict.do === 'retry' ? 'queued' : verdict.do === 'await' ? 'awaiting' : 'settled',
      final: verdict.do === 'settle',
      otp: standing?.otp ?? null,
      transaction: standing?.transaction ?? null,
      reason: standing?.reason ?? null,
      needsReview: verdict.do === 'await' && (verdict.publish === 'review' || before.needsReview),
      because: eventOf(evidence),
    });
  }

  #record(id: string, reply: unknown): VerificationRecord {
    const record = readRecord(id, this.#settings.partition, asObject(reply));
    if (record === null) throw new Error(`the journal's record of ${id} has no state`);
    return record;
  }

  #sawClock(redisNowMs: number): void {
    this.#clockOffsetMs = redisNowMs - Date.now();
  }
}

/** As apply.lua reads it; every value is text, as the hash will hold it. */
interface Change {
  set: Record<string, string>;
  clear: string[];
  /** 0: nothing more is due. */
  dueAt: number;
  publish: string;
  retentionMs: number;
  history: string;
  reference: { set: Record<string, string>; clear: string[]; refund: number; release: boolean; forget: boolean };
}

function setOrClear(change: Change, field: string, value: string | number | null): void {
  if (value === null) change.clear.push(field);
  else change.set[field] = String(value);
}

/**
 * Has the record left the point that the evidence speaks of? Evidence from the queue (no token, a deadline) speaks of no
 * attempt at all, evidence from a submission of that very attempt. Without this, whoever loses a race could take a
 * submission that is on its way for one that never left.
 */
function overtaken(spokenOf: VerificationRecord, now: VerificationRecord): boolean {
  switch (spokenOf.state) {
    case 'queued':
      return now.state !== 'queued';
    case 'sending':
      return (
        now.state === 'queued' || now.attempts !== spokenOf.attempts || (now.token ?? spokenOf.token) !== spokenOf.token
      );
    case 'awaiting':
    case 'settled':
      return false;
  }
  return spokenOf.state satisfies never;
}

function situationOf(
  record: VerificationRecord,
  evidence: Evidence,
  overtaken: boolean,
  now: number,
  random: number,
): Situation {
  return {
    state: record.state,
    now,
    deadline: record.expiresAt,
    takesCode: record.codePrint !== '',
    attemptsUsed: record.attemptsUsed,
    refusals: record.refusals,
    notSent: record.notSent,
    standing: record.standing,
    amount: record.amount,
    inFlightUntil: record.inFlightUntil,
    awaitingSince: record.awaitingSince,
    inquiries: record.inquiries + (evidence.from === 'inquiry' ? 1 : 0),
    notPaidAt: record.notPaidAt,
    needsReview: record.needsReview,
    overtaken,
    random,
  };
}

function eventOf(evidence: Evidence): string {
  switch (evidence.from) {
    case 'answer':
      return 'answered';
    case 'inquiry':
      return 'inquired';
    case 'deadline':
      return 'deadline_passed';
    case 'reference':
      return evidence.reason;
    case 'not_sent':
    case 'lost':
    case 'owner_dead':
    case 'patience_over':
      return evidence.from;
  }
  return evidence satisfies never;
}

/** HGETALL inside a script comes back as a flat list. */
function asObject(reply: unknown): Record<string, string> {
  const flat = reply as string[];
  const object: Record<string, string> = {};
  for (let index = 0; index + 1 < flat.length; index += 2) object[flat[index] as string] = flat[index + 1] as string;
  return object;
}
