/**
 * The journal of one partition. Two scripts change it: `begin` grants the right to send, `apply` writes what was decided.
 * A change is applied only to the revision it was decided on; whoever lost that race is given the record as it is now
 * and decides again. So evidence may come in any order, from any process, and meets only here.
 */

import { asError, EventBus } from '../events.ts';
import { readBreaker } from '../producers/breaker-state.ts';
import { namesOf, newAttemptToken, type PartitionKeys } from '../producers/job.ts';
import { NewerFormatError, RecordError, readRecord, type State, type VerificationRecord } from '../producers/record.ts';
import { hasFailover } from '../redis/cluster.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { ReplicatedWrites, WantedReplicas } from '../redis/replication.ts';
import { Script } from '../redis/script.ts';
import type { Heard } from './breaker.ts';
import type { AttemptOutcome, BreakerSettings, Health } from './breaker-policy.ts';
import {
  argumentsOf,
  type Change,
  changeOf,
  eventOf,
  type Facts,
  IN_FLIGHT_GRACE_MS,
  overtaken,
  situationOf,
  snapshotOf,
  versionOf,
} from './change.ts';
import { decide, type Evidence, type Policy, type Verdict } from './decide.ts';

/** A worker whose heartbeat is older than this is dead to the others; its attempts become unknown, never sent again. */
export const HEARTBEAT_LIFE_MS = 6_000;
/** Half of the workers' lockDuration: headers leave within it or not at all. */
export const SEND_WITHIN_MS = 4_000;

const serverFunction = new URL('../redis/server.lua', import.meta.url);
const beginScript = Script.fromFiles(serverFunction, new URL('./begin.lua', import.meta.url));
const applyScript = Script.fromFiles(serverFunction, new URL('./apply.lua', import.meta.url));
const beatScript = Script.fromFiles(
  serverFunction,
  new URL('../redis/replicas.lua', import.meta.url),
  new URL('./beat.lua', import.meta.url),
);
const openScript = Script.fromFiles(serverFunction, new URL('./open.lua', import.meta.url));
const askScript = Script.fromFiles(new URL('./ask.lua', import.meta.url));
const keptScript = Script.fromFiles(new URL('./kept.lua', import.meta.url));
const assertScript = Script.fromFiles(new URL('./assert.lua', import.meta.url));

/** How often a worker says that it lives; also how exactly the end of an old server is known. */
export const BEAT_MS = 1_000;
/** Whoever meets a journal that is recovering comes back after this. */
export const RECOVERING_AGAIN_MS = 1_000;

export interface JournalSettings {
  readonly partition: string;
  readonly policy: Omit<Policy, 'canInquire'> & { canInquire(record: VerificationRecord): boolean };
  readonly rateLimit: { readonly max: number; readonly perMs: number };
  readonly inquiryRateLimit: { readonly max: number; readonly perMs: number };
  readonly timeoutMs: number;
  /** Without one nothing is held back because of what attempts said of the provider. */
  readonly breaker?: BreakerSettings;
  readonly retentionMs: number;
  /** How much a server may have lost of its last writes when another one takes over. */
  readonly lossWindowMs: number;
  /** How long live workers are given to write back what they know. */
  readonly recoverMs: number;
  /** Replicas that must have the beginning of an attempt before its code is sent; `auto`: all that there are. */
  readonly waitReplicas?: number | 'auto';
  readonly waitMs?: number;
  readonly replicasGoneAfterMs?: number;
}

export type Beat =
  | { readonly is: 'open' }
  | {
      readonly is: 'recovering';
      /** Until then live workers may still assert. */
      readonly until: number;
      /** The last beat that this server knows of; 0 when it knows of none. */
      readonly lostFrom: number;
      readonly serverStartedAt: number;
      readonly server: string;
    };

/** An attempt of this process that the journal might come to forget. */
interface Known {
  /** The record as begin handed it out. */
  readonly fields: readonly string[];
  readonly attempts: number;
  /** When its outcome was written, on the monotonic clock; null while it is under way. */
  settledAt: number | null;
  /** What its outcome was. */
  verdict: Verdict['do'] | null;
  /** Writes the outcome down once more. */
  settleAgain: (() => Promise<unknown>) | null;
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
  /** Null: the journal is recovering, and what nothing was sent for must wait. */
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

export class Journal {
  readonly keys: PartitionKeys;
  readonly #redis: RedisConnection;
  readonly #settings: JournalSettings;
  readonly #worker: string;
  readonly #events: EventBus;
  /** Redis's clock minus ours, as last seen; deadlines are always judged by Redis. */
  #clockOffsetMs = 0;
  /** What this process has begun, and settled too lately to be sure that the server will remember. */
  readonly #known = new Map<string, Known>();
  /** The last beat that a server has acknowledged, by the clock of Redis; 0 before the first. */
  #lastBeat = 0;
  /** The server that answered the last beat, and the one that was told what this process knows; null before the first. */
  #server: string | null = null;
  #toldServer: string | null = null;
  readonly #replicated: ReplicatedWrites;
  readonly #wantedReplicas: WantedReplicas;
  /** As last told of. */
  #awaitedReplicas: number | null = null;

  constructor(redis: RedisConnection, settings: JournalSettings, worker: string, events: EventBus = new EventBus()) {
    this.keys = namesOf(redis).partitionKeys(settings.partition);
    this.#redis = redis;
    this.#settings = settings;
    this.#worker = worker;
    this.#events = events;
    this.#wantedReplicas = new WantedReplicas(settings.waitReplicas ?? 0, {
      goneAfterMs: settings.replicasGoneAfterMs,
    });
    this.#replicated = new ReplicatedWrites({
      redis,
      waitMs: settings.waitMs,
      onError: (error) =>
        events.emit('machinery:failed', { where: `replicated writes of ${settings.partition}`, error }),
    });
  }

  /** The time by the clock of Redis, to within a round trip. */
  now(): number {
    return Math.round(Date.now() + this.#clockOffsetMs);
  }

  /** @throws NewerFormatError, and nothing was begun */
  async begin(id: string): Promise<Beginning> {
    const { rateLimit, timeoutMs, policy, breaker } = this.#settings;
    const asked = performance.now();
    const { reply, replicas, wanted } = await this.#written(
      beginScript,
      [
        this.keys.record(id),
        this.keys.due,
        this.keys.rate,
        this.keys.heartbeat(this.#worker),
        this.keys.epoch,
        this.keys.workers,
        this.keys.breaker,
        this.keys.slowed,
      ],
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
        this.#toldServer ?? '',
        breaker?.enabled ? breaker.rampMs : '',
      ],
    );
    const [outcome, now, third, fourth] = reply as [string, number, ...unknown[]];
    this.#sawClock(now);
    switch (outcome) {
      case 'recovering':
        return { is: 'later', at: now + RECOVERING_AGAIN_MS, because: 'recovering', heldUntil: 0 };
      case 'begun':
        this.#remember(id, fourth as string[]);
        if (replicas < wanted) {
          this.#events.emit('replicas:missed', { partition: this.#settings.partition, of: 'begin', wanted, replicas });
          const evidence = { from: 'not_sent', code: 'NOT_REPLICATED', remediable: true } as const;
          return { is: 'evidence', evidence, record: this.#record(id, fourth) };
        }
        // Counted from before the question was put, so the limit on our clock is never later than the one on Redis's.
        return { is: 'begun', record: this.#record(id, fourth), sendBefore: asked + (Number(third) - now) };
      case 'rate_limited':
        return { is: 'later', at: Number(third), because: outcome, heldUntil: Number(fourth) };
      case 'held':
        return { is: 'later', at: Number(third), because: outcome, heldUntil: Number(third) };
      case 'not_yet':
        return { is: 'later', at: Number(third), because: outcome, heldUntil: 0 };
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

  /**
   * Which of these results may be said: where another server may take over, those that stand in the outbox still, and that
   * replicas have where they are waited for. What a failover forgets must not be said, for it may be decided once more and
   * otherwise. Null: too few replicas have them yet.
   */
  async kept(entryIds: readonly string[]): Promise<readonly string[] | null> {
    if (!hasFailover(this.#redis) && this.#wantedReplicas.count === 0) return entryIds;
    const { partition } = this.#settings;
    const args = [HEARTBEAT_LIFE_MS, ...entryIds];
    const heartbeat = this.keys.heartbeat(this.#worker);
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
    const wanted = this.#wantedReplicas.count;
    return { ...(await this.#replicated.run(script, keys, args, wanted)), wanted };
  }

  #sawReplicas(server: string, replicas: number): void {
    this.#wantedReplicas.saw(server, replicas);
    const awaited = this.#wantedReplicas.count;
    if (awaited === this.#awaitedReplicas) return;
    this.#awaitedReplicas = awaited;
    this.#events.emit('replicas:awaited', { partition: this.#settings.partition, replicas: awaited });
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
    return (await this.#redis.set(this.keys.sweep, this.#worker, 'PX', tickMs, 'NX')) === 'OK';
  }

  /** Says that this worker lives, and learns the time, and whether the journal is the one it knows. */
  async beat(): Promise<Beat> {
    const saidAt = performance.now();
    const [outcome, now, ...more] = (await beatScript.run(
      this.#redis,
      [this.keys.epoch, this.keys.workers, this.keys.heartbeat(this.#worker), this.keys.asserted],
      [this.#worker, HEARTBEAT_LIFE_MS, this.#settings.recoverMs, this.#toldServer ?? ''],
    )) as [string, number, ...unknown[]];
    this.#sawClock(now);
    if (outcome === 'open') {
      const [server, replicas] = more as [string, number];
      this.#sawReplicas(server, replicas);
      this.#lastBeat = now;
      this.#server = server;
      this.#toldServer ??= server;
      if (this.#toldServer === server) this.#forgetSettledBefore(saidAt - this.#settings.lossWindowMs);
      return { is: 'open' };
    }
    const [until, lostFrom, serverStartedAt, server, replicas] = more as [string, string, string, string, number];
    this.#sawReplicas(server, replicas);
    this.#server = server;
    return {
      is: 'recovering',
      until: Number(until),
      lostFrom: Number(lostFrom),
      serverStartedAt: Number(serverStartedAt),
      server,
    };
  }

  /** Ends in order: what this worker had begun is settled, and nobody need wonder about it. */
  async leave(): Promise<void> {
    // Redis may have come back without it in this very moment: then it is said again first.
    await this.beat();
    if (this.mustAssert) await this.assertKnown();
    await this.#redis.zrem(this.keys.workers, this.#worker);
    await this.#redis.del(this.keys.heartbeat(this.#worker));
  }

  /** Lets go of what it has opened itself. */
  close(): void {
    this.#replicated.close();
  }

  /** The server of the last beat has not heard from this process what it has begun. */
  get mustAssert(): boolean {
    return this.#toldServer !== this.#server;
  }

  /** Writes back every attempt that this process knows and the server may not, and says that it has. */
  async assertKnown(): Promise<void> {
    const server = this.#server;
    await Promise.all(
      [...this.#known].map(async ([id, known]) => {
        const found = await this.#assert(id, known);
        if (mustSayAgain(found, known)) await known.settleAgain?.();
      }),
    );
    await this.#redis.hset(this.keys.asserted, this.#worker, String(this.#lastBeat));
    this.#toldServer = server;
  }

  /** Every verification that is not final, as far as this server knows. */
  async unfinished(): Promise<string[]> {
    return await this.#redis.zrangebyscore(this.keys.due, '-inf', '+inf');
  }

  /**
   * False where begin would have refused this one since before anything was lost: what a server still knows is the
   * beginning of what happened, and a transaction that was proved, or a budget that was spent, stays so.
   */
  async couldHaveBegun({ reference, codePrint, id }: VerificationRecord): Promise<boolean> {
    if (codePrint === '') return true;
    const [transaction, used, remaining, code] = await this.#redis.hmget(
      this.keys.transaction(reference),
      ...['transaction', 'used', 'remaining', `code:${codePrint}`],
    );
    const sameCode = code ? (JSON.parse(code) as { id: string; outcome?: string }) : null;
    return !(
      transaction === 'succeeded' ||
      transaction === 'failed' ||
      Number(used ?? 0) >= this.#settings.policy.maxAttempts ||
      remaining === '0' ||
      (sameCode !== null && sameCode.id !== id && sameCode.outcome !== undefined)
    );
  }

  /**
   * What is known of the workers that lived on the old server: how far their own memory of beats reaches (0: nobody
   * is left who remembers), who has asserted, and whether one of them has not, so that nobody knows what it had begun.
   */
  async witnesses(lostFrom: number): Promise<{ lastBeat: number; present: Set<string>; missing: string[] }> {
    const { lossWindowMs } = this.#settings;
    const since = lostFrom - lossWindowMs - HEARTBEAT_LIFE_MS;
    const [lived, asserted] = await Promise.all([
      this.#redis.zrangebyscore(this.keys.workers, since, '+inf'),
      this.#redis.hgetall(this.keys.asserted),
    ]);
    return {
      lastBeat: Math.max(0, ...Object.values(asserted).map(Number)),
      present: new Set(Object.keys(asserted)),
      missing: lived.filter((worker) => asserted[worker] === undefined),
    };
  }

  /** True for one caller at a time; whoever was about to on an earlier server counts no more. */
  async mayOneRecover(forMs: number): Promise<boolean> {
    return (await this.#redis.set(this.#recoverer, this.#worker, 'PX', forMs, 'NX')) === 'OK';
  }

  /** The recovery has failed: the next one may try at once. */
  async giveUpRecovery(): Promise<void> {
    await this.#redis.del(this.#recoverer);
  }

  /** See Situation: asked only where it is not known what became of the code, and proof of money may have come. */
  async #isContested(record: VerificationRecord, evidence: Evidence): Promise<boolean> {
    if (record.state !== 'awaiting' || record.standing?.otp !== 'unknown') return false;
    if (evidence.from !== 'inquiry' && evidence.from !== 'callback' && evidence.from !== 'operator') return false;
    const known = await this.#redis.hgetall(this.keys.transaction(record.reference));
    return Object.entries(known).some(([field, value]) => mayBeAnother(field, value, record.id));
  }

  get #recoverer(): string {
    return `${this.keys.epoch}:recoverer:${this.#server}`;
  }

  /** Still at it: the lease is short, so that a recoverer that dies holds nobody up. */
  async keepRecovering(forMs: number): Promise<void> {
    await this.#redis.set(this.#recoverer, this.#worker, 'PX', forMs, 'XX');
  }

  /**
   * From now on the journal is known to be whole on this server: attempts may begin again. False when Redis is yet
   * another server by now.
   */
  async open(server: string, missing: readonly string[]): Promise<boolean> {
    const { epoch, workers, asserted } = this.keys;
    return (await openScript.run(this.#redis, [epoch, workers, asserted, this.#recoverer], [server, ...missing])) === 1;
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
    const known = this.#known.get(record.id);
    const ofKnownAttempt = record.state === 'sending' && known?.attempts === record.attempts ? known : null;
    const said = (verdict: Verdict): void => {
      if (ofKnownAttempt === null) return;
      ofKnownAttempt.settledAt = performance.now();
      ofKnownAttempt.verdict = verdict.do;
      ofKnownAttempt.settleAgain = async () => await this.apply(record, evidence, facts, seal);
    };
    let writtenBack = false;
    for (;;) {
      const situation = {
        ...situationOf(before, evidence, overtaken(record, before), this.now(), random),
        contested: await this.#isContested(before, evidence),
      };
      const { policy } = this.#settings;
      const verdict = decide(evidence, situation, { ...policy, canInquire: policy.canInquire(before) });
      if (verdict.do === 'nothing') {
        said(verdict);
        return { verdict, before, published: null, heard: null };
      }
      const sealedDetails = await this.#sealed(verdict, before, seal);
      const change = changeOf(verdict, before, situation, evidence, facts, { ...this.#settings, sealedDetails });
      const [applied, now, current, ...ofBreaker] = (await applyScript.run(
        this.#redis,
        [
          this.keys.record(before.id),
          this.keys.due,
          this.keys.outbox,
          this.keys.transaction(before.reference),
          this.keys.awaiting,
          this.keys.review,
          this.keys.epoch,
          this.keys.breaker,
          this.keys.breakerOutcomes,
          evidence.from === 'inquiry' ? this.keys.inquirySlowed : this.keys.slowed,
        ],
        argumentsOf(change, before, this.#worker),
      )) as [number, number, unknown, ...unknown[]];
      this.#sawClock(now);
      if (applied === RECOVERING) return { verdict: null, before, published: null, heard: null };
      if (applied === APPLIED) {
        said(verdict);
        this.#tell(verdict, before, evidence);
        const published = this.#publishedBy(change, before, now, String(current));
        const heard =
          change.health === '' || ofBreaker.length === 0
            ? null
            : readHeard(change.health, codeIn(evidence, facts), now, before.state, ofBreaker);
        return { verdict, before, published, heard };
      }
      const moved = readRecord(before.id, this.#settings.partition, asObject(current));
      if (ofKnownAttempt && !writtenBack && (moved === null || moved.attempts < record.attempts)) {
        // The server has lost the beginning of this very attempt: it is written back before its outcome is. Once: what
        // is final by now stays as it is, and the outcome is compared with it.
        await this.#assert(record.id, ofKnownAttempt);
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

  /** Null when there are none, or when they cannot be sealed: the answer counts, what it told besides may be missing. */
  async #sealed(
    verdict: Verdict,
    { client, id }: VerificationRecord,
    seal: (client: string, details: unknown) => Promise<string>,
  ): Promise<string | null> {
    if (!('details' in verdict) || verdict.details === undefined) return null;
    try {
      return await seal(client, verdict.details);
    } catch (error) {
      this.#events.emit('machinery:failed', { where: `sealing the details of ${id}`, error: asError(error) });
      return null;
    }
  }

  #publishedBy(change: Change, before: VerificationRecord, now: number, entryId: string): Published | null {
    if (change.publish === '') return null;
    const raw = { ...snapshotOf(change, before), updatedAt: String(now) };
    const record = readRecord(before.id, before.partition, raw);
    return record && { entryId, type: change.publish, record };
  }

  #tell(verdict: Verdict, before: VerificationRecord, evidence: Evidence): void {
    const { id, partition, operation, traceparent, attempts: attempt } = before;
    if (verdict.do === 'nothing' || verdict.do === 'note') return;
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

  async #assert(id: string, { fields, settledAt }: Known): Promise<Found> {
    const reference = asObject(fields).reference ?? '';
    const [wasLost, is] = (await assertScript.run(
      this.#redis,
      [this.keys.record(id), this.keys.due, this.keys.transaction(reference)],
      [id, String(this.now() + HEARTBEAT_LIFE_MS), settledAt === null ? '0' : '1', ...fields],
    )) as [number, Found['is']];
    return { wasLost: wasLost === 1, is };
  }

  #remember(id: string, fields: readonly string[]): void {
    const attempts = Number(asObject(fields).attempts ?? 0);
    this.#known.set(id, { fields, attempts, settledAt: null, verdict: null, settleAgain: null });
  }

  /** A beat that was acknowledged so much later proves that the server has these as well. */
  #forgetSettledBefore(time: number): void {
    for (const [id, { settledAt }] of this.#known) {
      if (settledAt !== null && settledAt < time) this.#known.delete(id);
    }
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

/** Does this field of a transaction name another verification than `id` whose code may have moved its money? */
function mayBeAnother(field: string, value: string, id: string): boolean {
  if (field === 'holder' || field === 'provedBy') return value !== '' && value !== id;
  if (field.startsWith('next:')) return field !== `next:${id}`;
  if (!field.startsWith('code:')) return false;
  const code = JSON.parse(value) as { id: string; outcome?: string };
  return code.id !== id && code.outcome !== 'rejected' && code.outcome !== 'not_submitted';
}

/**
 * What apply.lua says for the breaker. What failed before it could begin, for want of a token, is no attempt from earlier:
 * half open, it is as good as one on trial.
 */
function readHeard(health: Health, code: string, now: number, state: State, told: readonly unknown[]): Heard {
  const [breaker, outcomes, trial] = told as [readonly string[], readonly string[], number];
  return {
    ...{ health, code, now, trial: trial === 1 || state === 'queued', breaker: readBreaker(asObject(breaker)) },
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

/** What assert.lua found of an attempt. */
interface Found {
  readonly wasLost: boolean;
  readonly is: '' | State | 'overtaken';
}

/** Does the server lack the outcome of this attempt? What it has is not said a second time. */
function mustSayAgain({ wasLost, is }: Found, { verdict }: Known): boolean {
  // Since it was settled as not sent another worker may have begun a next one, of which nobody knows.
  if (wasLost) return !(is === 'awaiting' && verdict === 'retry');
  return is === 'sending' || (is === 'awaiting' && verdict === 'settle');
}

/** What apply.lua answers first. */
const APPLIED = 1;
const RECOVERING = 2;

/** HGETALL inside a script comes back as a flat list. */
function asObject(reply: unknown): Record<string, string> {
  const flat = reply as string[];
  const object: Record<string, string> = {};
  for (let index = 0; index + 1 < flat.length; index += 2) object[flat[index] as string] = flat[index + 1] as string;
  return object;
}
