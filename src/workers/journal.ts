/**
 * The journal of one partition. Two scripts change it: `begin` grants the right to send, `apply` writes what was decided.
 * A change is applied only to the revision it was decided on; whoever lost that race is given the record as it is now
 * and decides again. So evidence may come in any order, from any process, and meets only here.
 */
import { asError, EventBus } from '../events.ts';
import { readBreaker } from '../producers/breaker-state.ts';
import { namesOf, newAttemptToken, type PartitionKeys } from '../producers/job.ts';
import {
  NewerFormatError,
  type RawRecord,
  RecordError,
  readRecord,
  type State,
  type VerificationRecord,
} from '../producers/record.ts';
import { hasFailover } from '../redis/cluster.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { ReplicatedWrites } from '../redis/replication.ts';
import { hashIn, Script } from '../redis/script.ts';
import { type Answered, answersIn, jsonFor, Together } from '../redis/together.ts';
import type { Heard } from './breaker.ts';
import { type AttemptOutcome, type BreakerSettings, type Health, OUTCOMES_KEPT } from './breaker-policy.ts';
import {
  type Application,
  applicationOf,
  type Change,
  changeOf,
  codeUseIn,
  eventOf,
  type Facts,
  IN_FLIGHT_GRACE_MS,
  overtaken,
  situationOf,
  snapshotOf,
  versionOf,
} from './change.ts';
import { decide, type Evidence, type Policy, type Verdict } from './decide.ts';
import { HEARTBEAT_LIFE_MS, type Witness, type WitnessSettings } from './witness.ts';

/** Half of the workers' lockDuration: headers leave within it or not at all. */
export const SEND_WITHIN_MS = 4_000;

const hashFunctions = new URL('../redis/hash.lua', import.meta.url);
const sharedFiles = [
  new URL('../redis/server.lua', import.meta.url),
  hashFunctions,
  new URL('../redis/each.lua', import.meta.url),
];
const beginScript = Script.fromFiles(...sharedFiles, new URL('./begin.lua', import.meta.url));
const applyScript = Script.fromFiles(...sharedFiles, new URL('./apply.lua', import.meta.url));
const askScript = Script.fromFiles(hashFunctions, new URL('./ask.lua', import.meta.url));
const keptScript = Script.fromFiles(new URL('./kept.lua', import.meta.url));

/** Whoever meets a journal that is recovering comes back after this. */
export const RECOVERING_AGAIN_MS = 1_000;

export interface JournalSettings extends WitnessSettings {
  readonly policy: Omit<Policy, 'canInquire'> & { canInquire(record: VerificationRecord): boolean };
  readonly rateLimit: { readonly max: number; readonly perMs: number };
  readonly inquiryRateLimit: { readonly max: number; readonly perMs: number };
  readonly timeoutMs: number;
  /** Without one nothing is held back because of what attempts said of the provider. */
  readonly breaker?: BreakerSettings;
  readonly retentionMs: number;
  readonly waitMs?: number;
}

export type Beginning =
  | {
      readonly is: 'begun';
      readonly record: VerificationRecord;
      /** On this process's monotonic clock (`performance.now()`): headers that have not left by then stay. */
      readonly sendBefore: number;
    }
  /** `heldUntil`: nobody else gets past before then either; 0 where that is not so. */
  | {
      readonly is: 'later';
      readonly at: number;
      readonly because: 'rate_limited' | 'not_yet' | 'held' | 'recovering';
      readonly heldUntil: number;
    }
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
  /** Null: the journal is recovering, or another server's: what believes that nothing was sent must wait, or is void. */
  readonly verdict: Verdict | null;
  readonly before: VerificationRecord;
  readonly published: Published | null;
  /** For the breaker, where the attempt failed or was on trial. */
  readonly heard: Heard | null;
}

/** A result as it stands in the outbox. */
export interface Published {
  readonly entryId: string;
  readonly type: string;
  /** The record as of this result, without its history. */
  readonly record: VerificationRecord;
}

type SealDetails = (client: string, details: unknown) => Promise<string>;

export class Journal {
  readonly keys: PartitionKeys;
  /** Of the worker that writes in it. */
  readonly witness: Witness;
  readonly #redis: RedisConnection;
  readonly #settings: JournalSettings;
  readonly #events: EventBus;
  readonly #replicated: ReplicatedWrites;
  /**
   * For an attempt, as begin handed it out, the server that was first asked to have it tried again, as last told. Another
   * worker may have begun the next one there, so that nothing was sent can be said of it on no other server.
   */
  readonly #retryAskedOf = new WeakMap<VerificationRecord, string>();
  readonly #beginnings = new Together<string, Begun>(async (ids) => await this.#tellBeginnings(ids));
  readonly #applications = new Together<Applying, AppliedReply>(async (all) => await this.#tellApplications(all));

  constructor(redis: RedisConnection, settings: JournalSettings, witness: Witness, events: EventBus = new EventBus()) {
    this.keys = namesOf(redis).partitionKeys(settings.partition);
    this.witness = witness;
    this.#redis = redis;
    this.#settings = settings;
    this.#events = events;
    this.#replicated = new ReplicatedWrites({
      redis,
      waitMs: settings.waitMs,
      onError: (error) =>
        events.emit('machinery:failed', { where: `replicated writes of ${settings.partition}`, error }),
    });
  }

  /** The time by the clock of Redis, to within a round trip. */
  now(): number {
    return this.witness.now();
  }

  /** @throws NewerFormatError, and nothing was begun */
  async begin(id: string): Promise<Beginning> {
    const asked = performance.now();
    const { reply, replicas, wanted } = await this.#beginnings.ask(id);
    const [outcome, now, third, fourth] = reply;
    this.witness.sawClock(now);
    switch (outcome) {
      case 'recovering':
        return { is: 'later', at: now + RECOVERING_AGAIN_MS, because: 'recovering', heldUntil: 0 };
      case 'begun': {
        const raw = fourth as RawRecord;
        this.witness.remember(id, raw);
        if (replicas < wanted) {
          this.#events.emit('replicas:missed', { partition: this.#settings.partition, of: 'begin', wanted, replicas });
          const evidence = { from: 'not_sent', code: 'NOT_REPLICATED', remediable: true } as const;
          return { is: 'evidence', evidence, record: this.#record(id, raw) };
        }
        // Counted from before the question was put, so the limit on our clock is never later than the one on Redis's.
        return { is: 'begun', record: this.#record(id, raw), sendBefore: asked + (Number(third) - now) };
      }
      case 'rate_limited':
        return { is: 'later', at: Number(third), because: outcome, heldUntil: Number(fourth) };
      case 'held':
        return { is: 'later', at: Number(third), because: outcome, heldUntil: Number(third) };
      case 'not_yet':
        return { is: 'later', at: Number(third), because: outcome, heldUntil: 0 };
      case 'deadline_passed':
        return { is: 'evidence', evidence: { from: 'deadline' }, record: this.#record(id, third as RawRecord) };
      case 'owner_dead':
        return { is: 'evidence', evidence: { from: 'owner_dead' }, record: this.#record(id, third as RawRecord) };
      case 'attempt_in_flight':
      case 'already_used':
      case 'budget_spent': {
        const [transaction, ownedBy] = fourth as ['pending' | 'unknown' | 'succeeded' | 'failed', string];
        return {
          is: 'evidence',
          evidence: { from: 'reference', reason: outcome, transaction, ownedBy },
          record: this.#record(id, third as RawRecord),
        };
      }
      case 'awaiting':
        return { is: 'awaiting', nextInquiryAt: Number(third) };
      case 'newer':
        throw new NewerFormatError(id);
      case 'in_flight':
      case 'settled':
      case 'missing':
        return { is: outcome };
      default:
        throw new Error(`begin.lua answered with an outcome that the journal does not know: ${outcome}`);
    }
  }

  async #tellBeginnings(ids: readonly string[]): Promise<readonly Answered<Begun>[]> {
    const { rateLimit, timeoutMs, policy, breaker } = this.#settings;
    const { due, rate, epoch, workers, slowed } = this.keys;
    const heartbeat = this.keys.heartbeat(this.witness.worker);
    const { reply, replicas, wanted } = await this.#written(
      beginScript,
      [due, rate, heartbeat, epoch, workers, this.keys.breaker, slowed, ...ids.map((id) => this.keys.record(id))],
      [
        this.keys.prefix,
        this.witness.worker,
        SEND_WITHIN_MS,
        timeoutMs + IN_FLIGHT_GRACE_MS,
        rateLimit.max,
        rateLimit.perMs,
        policy.maxAttempts,
        HEARTBEAT_LIFE_MS,
        this.witness.toldServer ?? '',
        breaker?.enabled ? breaker.rampMs : '',
        ...ids.flatMap((id) => [id, newAttemptToken()]),
      ],
    );
    return answersIn<BeginReply>(reply).map((answer) =>
      answer instanceof Error ? answer : { reply: answer, replicas, wanted },
    );
  }

  /**
   * Which of these results may be said: where another server may take over, those that stand in the outbox still, and that
   * replicas have where they are waited for. What a failover forgets must not be said, for it may be decided once more and
   * otherwise. Null: too few replicas have them yet.
   */
  async kept(entryIds: readonly string[]): Promise<readonly string[] | null> {
    if (!hasFailover(this.#redis) && this.witness.wantedReplicas === 0) return entryIds;
    const { partition } = this.#settings;
    const args = [HEARTBEAT_LIFE_MS, ...entryIds];
    const heartbeat = this.keys.heartbeat(this.witness.worker);
    const { reply, replicas, wanted } = await this.#written(keptScript, [this.keys.outbox, heartbeat], args);
    if (replicas >= wanted) return reply as string[];
    this.#events.emit('replicas:missed', { partition, of: 'results', wanted, replicas });
    return null;
  }

  async #written(
    script: Script,
    keys: string[],
    args: (string | number)[],
  ): Promise<{ reply: unknown; replicas: number; wanted: number }> {
    const wanted = this.witness.wantedReplicas;
    return { ...(await this.#replicated.run(script, keys, args, wanted)), wanted };
  }

  /** `probe`: asked on behalf of the breaker, so also while it is open. */
  async ask(id: string, graceMs: number, probe = false): Promise<Asking> {
    const { max, perMs } = this.#settings.inquiryRateLimit;
    const heldByBreaker = this.#settings.breaker?.enabled && !probe;
    const [outcome, now, third] = (await askScript.run(
      this.#redis,
      [this.keys.record(id), this.keys.inquiryRate, this.keys.breaker, this.keys.inquirySlowed],
      [max, perMs, graceMs, heldByBreaker ? '1' : ''],
    )) as [string, number, unknown];
    this.witness.sawClock(now);
    if (outcome === 'ask') return { is: 'ask', record: this.#record(id, JSON.parse(String(third))), askedAt: now };
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
    const { due, awaiting, review } = this.keys;
    await Promise.all([due, awaiting, review].map((set) => this.#redis.zrem(set, id)));
  }

  /** A contradicted record is final, so nothing is due for it: when its retention is over, the list of reviews forgets it. */
  async forgetExpiredReviews(): Promise<void> {
    for (const id of await this.#redis.zrangebyscore(this.keys.review, '-inf', '+inf')) {
      if ((await this.#redis.exists(this.keys.record(id))) === 0) await this.forget(id);
    }
  }

  /** True for one caller per tick over all workers: the sweep is one worker's at a time. */
  async mayOneSweep(tickMs: number): Promise<boolean> {
    return (await this.#redis.set(this.keys.sweep, this.witness.worker, 'PX', tickMs, 'NX')) === 'OK';
  }

  /** Lets go of what it has opened itself. */
  close(): void {
    this.#replicated.close();
  }

  /** Every verification that is not final, as far as this server knows. */
  async unfinished(): Promise<string[]> {
    return await this.#redis.zrangebyscore(this.keys.due, '-inf', '+inf');
  }

  /**
   * False where begin would have refused this one since before anything was lost: what a server still knows is the
   * beginning of what happened, and a transaction that was proved, or a budget that nobody can give back any more, stays so.
   * What was written back since then is the end of what happened, and what was proved on the new server (`since`, in Unix ms)
   * came after it: before that this one may have had its turn.
   */
  async couldHaveBegun({ reference, codePrint, id }: VerificationRecord, since: number): Promise<boolean> {
    if (codePrint === '') return true;
    const [used, left, code, holder, writtenBack, provedBy] = await this.#redis.hmget(
      this.keys.transaction(reference),
      ...['used', 'left', `code:${codePrint}`, 'holder', 'writtenBack', 'provedBy'],
    );
    const wasBefore = async (other: string): Promise<boolean> =>
      Number((await this.#redis.hget(this.keys.record(other), 'updatedAt')) ?? 0) < since;
    const sameCode = code ? codeUseIn(code) : null;
    if (sameCode?.outcome && sameCode.id !== id && (await wasBefore(sameCode.id))) return false;
    if (writtenBack) return true;
    if (left === '0' || (!holder && Number(used ?? 0) >= this.#settings.policy.maxAttempts)) return false;
    return !(provedBy && (await wasBefore(provedBy)));
  }

  /** See Situation: asked only where it is not known what became of the code, and proof of money may have come. */
  async #isContested(record: VerificationRecord, evidence: Evidence): Promise<boolean> {
    if (record.state !== 'awaiting' || record.standing?.otp !== 'unknown') return false;
    if (evidence.from !== 'inquiry' && evidence.from !== 'callback' && evidence.from !== 'operator') return false;
    const known = await this.#redis.hgetall(this.keys.transaction(record.reference));
    return Object.entries(known).some(([field, value]) => mayBeAnother(field, value, record.id));
  }

  async ownerLives(record: VerificationRecord): Promise<boolean> {
    return record.owner !== null && (await this.#redis.exists(this.keys.heartbeat(record.owner))) === 1;
  }

  /**
   * Decides on the evidence and writes the verdict, again and again until it meets the revision it was decided on.
   * `seal` seals the provider's details for the client; it is called only when there are any.
   */
  async apply(record: VerificationRecord, evidence: Evidence, facts: Facts, seal: SealDetails): Promise<Applied> {
    let before = record;
    const random = Math.random();
    const ofKnownAttempt = this.witness.underway(record);
    const asked = (verdict: Verdict): void => {
      if (ofKnownAttempt) ofKnownAttempt.isOutcomeAsked = true;
      const { toldServer } = this.witness;
      if (verdict.do === 'retry' && toldServer !== null && !this.#retryAskedOf.has(record))
        this.#retryAskedOf.set(record, toldServer);
    };
    const said = (verdict: Verdict): void => {
      if (ofKnownAttempt === null) return;
      asked(verdict);
      ofKnownAttempt.settledAt = performance.now();
      ofKnownAttempt.verdict = verdict.do;
      ofKnownAttempt.settleAgain = async () => await this.apply(record, evidence, facts, seal);
    };
    let writtenBack = false;
    for (;;) {
      const contested = await this.#isContested(before, evidence);
      const situation = situationOf(before, evidence, overtaken(record, before), contested, this.now(), random);
      const { policy } = this.#settings;
      const verdict = decide(evidence, situation, { ...policy, canInquire: policy.canInquire(before) });
      if (verdict.do === 'nothing') {
        said(verdict);
        return { verdict, before, published: null, heard: null };
      }
      const sealedDetails = await this.#sealed(verdict, before, seal);
      const change = changeOf(verdict, before, situation, evidence, facts, { ...this.#settings, sealedDetails });
      const snapshot = change.publish === '' ? null : snapshotOf(change, before);
      const asking = this.#applications.ask({
        application: applicationOf(change, before, this.#expectedServer(record, change)),
        snapshot,
        keys: [
          this.keys.record(before.id),
          this.keys.transaction(before.reference),
          evidence.from === 'inquiry' ? this.keys.inquirySlowed : this.keys.slowed,
        ],
      });
      const [applied, now, current, ...ofBreaker] = await asking.catch((error: unknown) => {
        asked(verdict); // it may stand there all the same
        throw error;
      });
      this.witness.sawClock(now);
      if (applied === FENCED) return { verdict: null, before, published: null, heard: null };
      if (applied === APPLIED) {
        said(verdict);
        this.#tell(verdict, before, evidence);
        const published =
          snapshot && publishedAs(change.publish, before, { ...snapshot, updatedAt: String(now) }, String(current));
        const heard =
          change.health === '' || ofBreaker.length === 0
            ? null
            : readHeard(change.health, codeIn(evidence, facts), now, before.state, ofBreaker);
        return { verdict, before, published, heard };
      }
      const moved = readRecord(before.id, this.#settings.partition, current as RawRecord);
      if (ofKnownAttempt && !writtenBack && (moved === null || moved.attempts < record.attempts)) {
        // The server has lost the beginning of this very attempt: it is written back before its outcome is. Once: what
        // is final by now stays as it is, and the outcome is compared with it.
        await this.witness.writeBack(record.id, ofKnownAttempt);
        writtenBack = true;
        before = record;
        continue;
      }
      if (moved === null) {
        said({ do: 'nothing' });
        return { verdict: { do: 'nothing' }, before, published: null, heard: null }; // its retention is over
      }
      // It is not the revision that was decided on, and reads the same: deciding again would never end.
      if (versionOf(moved) === versionOf(before))
        throw new RecordError(before.id, 'revision', 'a number as scripts write it');
      before = moved;
    }
  }

  /**
   * The server that was first asked to have this attempt followed by another; where it is only now, the one that was told
   * all that this worker knows. Null: any.
   */
  #expectedServer(record: VerificationRecord, { fence }: Change): string | null {
    return this.#retryAskedOf.get(record) ?? (fence === 'in_time' ? this.witness.toldServer : null);
  }

  async #tellApplications(all: readonly Applying[]): Promise<readonly Answered<AppliedReply>[]> {
    const { due, outbox, awaiting, review, epoch, breaker, breakerOutcomes } = this.keys;
    const reply = await applyScript.run(
      this.#redis,
      [due, outbox, awaiting, review, epoch, breaker, breakerOutcomes, ...all.flatMap(({ keys }) => keys)],
      [
        this.witness.worker,
        OUTCOMES_KEPT,
        this.#settings.breaker?.windowMs ?? 1,
        jsonFor(all.map(({ application }) => application)),
        ...all.map(({ snapshot }) => (snapshot === null ? '' : JSON.stringify(snapshot))),
      ],
    );
    return answersIn<AppliedReply>(reply);
  }

  /** Null when there are none, or when they cannot be sealed: the answer counts, what it told besides may be missing. */
  async #sealed(verdict: Verdict, { client, id }: VerificationRecord, seal: SealDetails): Promise<string | null> {
    if (!('details' in verdict) || verdict.details === undefined) return null;
    try {
      return await seal(client, verdict.details);
    } catch (error) {
      this.#events.emit('machinery:failed', { where: `sealing the details of ${id}`, error: asError(error) });
      return null;
    }
  }

  #tell(verdict: Verdict, before: VerificationRecord, evidence: Evidence): void {
    const { id, partition, operation, traceparent, attempts: attempt } = before;
    if (verdict.do === 'nothing' || verdict.do === 'note' || verdict.do === 'end_review') return;
    if (verdict.do === 'contradict') {
      this.#events.emit('proof:contradicted', { id, partition, was: verdict.was, now: verdict.now });
      return;
    }
    const standing = verdict.do === 'retry' ? null : verdict.standing;
    this.#events.emit('verification:moved', {
      id,
      traceparent,
      partition,
      operation,
      attempt,
      state: verdict.do === 'retry' ? 'queued' : verdict.do === 'await' ? 'awaiting' : 'settled',
      final: verdict.do === 'settle',
      otp: standing?.otp ?? null,
      transaction: standing?.transaction ?? null,
      reason: standing?.reason ?? null,
      needsReview: verdict.do === 'await' && (verdict.publish === 'review' || before.needsReview),
      because: eventOf(evidence),
    });
  }

  #record(id: string, raw: RawRecord): VerificationRecord {
    const record = readRecord(id, this.#settings.partition, raw);
    if (record === null) throw new Error(`the journal's record of ${id} has no state`);
    return record;
  }
}

/** What begin.lua says of one, and how far replicas have it. */
interface Begun {
  readonly reply: BeginReply;
  readonly replicas: number;
  readonly wanted: number;
}

type BeginReply = readonly [outcome: string, now: number, third?: unknown, fourth?: unknown];

/** A change on its way to apply.lua. */
interface Applying {
  readonly application: Application;
  /** The record to publish, if any. */
  readonly snapshot: RawRecord | null;
  readonly keys: readonly [record: string, transaction: string, slowed: string];
}

type AppliedReply = readonly [applied: number, now: number, current: unknown, ...ofBreaker: unknown[]];

function publishedAs(
  type: string,
  { id, partition }: VerificationRecord,
  raw: RawRecord,
  entryId: string,
): Published | null {
  const record = readRecord(id, partition, raw);
  return record && { entryId, type, record };
}

/** Does this field of a transaction name another verification than `id` whose code may have moved its money? */
function mayBeAnother(field: string, value: string, id: string): boolean {
  if (field === 'holder' || field === 'provedBy') return value !== '' && value !== id;
  if (field === 'next') return value.split(' ').some((other) => other !== id);
  if (!field.startsWith('code:')) return false;
  const code = codeUseIn(value);
  return code.id !== id && code.outcome !== 'rejected' && code.outcome !== 'not_submitted';
}

/**
 * What apply.lua says for the breaker. What failed before it could begin, for want of a token, is no attempt from earlier:
 * half open, it is as good as one on trial.
 */
function readHeard(health: Health, code: string, now: number, state: State, told: readonly unknown[]): Heard {
  const [breaker, outcomes, trial] = told as [readonly string[], readonly string[], number];
  return {
    ...{ health, code, now, trial: trial === 1 || state === 'queued', breaker: readBreaker(hashIn(breaker)) },
    outcomes: outcomes.map((text): AttemptOutcome => {
      const [word, at] = text.split(' ');
      return { health: word === 'failed' ? 'failed' : 'good', at: Number(at) };
    }),
  };
}

/** What a person is told of a failure: the status of an answer, else an error's code. */
function codeIn(evidence: Evidence, { status }: Facts): string {
  if (typeof status === 'number') return String(status);
  return evidence.from === 'not_sent' || evidence.from === 'lost' ? evidence.code : '';
}

/** What apply.lua answers first. */
const APPLIED = 1;
const FENCED = 2;
