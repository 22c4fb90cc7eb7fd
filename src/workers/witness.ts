/**
 * One worker as a witness of its partition's journal. It says with every beat that it lives, and learns by it what the
 * server is: its time, its replicas, and whether the journal is known to be whole on it. It remembers which attempts it has
 * begun, because a server that takes the place of another may have forgotten the last of them: then it writes them back.
 */
import type { EventBus } from '../events.ts';
import { namesOf, type PartitionKeys } from '../producers/job.ts';
import type { RawRecord, State, VerificationRecord } from '../producers/record.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { WantedReplicas } from '../redis/replication.ts';
import { Script } from '../redis/script.ts';
import type { Verdict } from './decide.ts';

/** A worker whose heartbeat is older than this is dead to the others; its attempts become unknown, never sent again. */
export const HEARTBEAT_LIFE_MS = 6_000;
/** How often a worker says that it lives; also how exactly the end of an old server is known. */
export const BEAT_MS = 1_000;

const serverFunction = new URL('../redis/server.lua', import.meta.url);
const beatScript = Script.fromFiles(
  serverFunction,
  new URL('../redis/replicas.lua', import.meta.url),
  new URL('./beat.lua', import.meta.url),
);
const openScript = Script.fromFiles(serverFunction, new URL('./open.lua', import.meta.url));
const assertScript = Script.fromFiles(new URL('./assert.lua', import.meta.url));

export interface WitnessSettings {
  readonly partition: string;
  /** How much a server may have lost of its last writes when another one takes over. */
  readonly lossWindowMs: number;
  /** How long live workers are given to write back what they know. */
  readonly recoverMs: number;
  /** Replicas that must have the beginning of an attempt before its code is sent; `auto`: all that there are. */
  readonly waitReplicas?: number | 'auto';
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
export interface Known {
  /** The record as begin handed it out. */
  readonly fields: RawRecord;
  readonly attempts: number;
  /** When its outcome was written, on the monotonic clock; null while it is under way. */
  settledAt: number | null;
  /** What its outcome was. */
  verdict: Verdict['do'] | null;
  /** A server was asked to write its outcome down, whether or not it answered: another attempt may have followed it. */
  isOutcomeAsked: boolean;
  /** Writes the outcome down once more. */
  settleAgain: (() => Promise<unknown>) | null;
}

export class Witness {
  readonly worker: string;
  readonly #redis: RedisConnection;
  readonly #keys: PartitionKeys;
  readonly #settings: WitnessSettings;
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
  readonly #wantedReplicas: WantedReplicas;
  /** As last told of. */
  #awaitedReplicas: number | null = null;

  constructor(redis: RedisConnection, settings: WitnessSettings, worker: string, events: EventBus) {
    this.worker = worker;
    this.#redis = redis;
    this.#keys = namesOf(redis).partitionKeys(settings.partition);
    this.#settings = settings;
    this.#events = events;
    this.#wantedReplicas = new WantedReplicas(settings.waitReplicas ?? 0, {
      goneAfterMs: settings.replicasGoneAfterMs,
    });
  }

  /** The time by the clock of Redis, to within a round trip. */
  now(): number {
    return Math.round(Date.now() + this.#clockOffsetMs);
  }

  sawClock(redisNowMs: number): void {
    this.#clockOffsetMs = redisNowMs - Date.now();
  }

  /** How many replicas must have what was written. */
  get wantedReplicas(): number {
    return this.#wantedReplicas.count;
  }

  /** The server that was told what this process knows; null before the first beat. */
  get toldServer(): string | null {
    return this.#toldServer;
  }

  /** Says that this worker lives, and learns the time, and whether the journal is the one it knows. */
  async beat(): Promise<Beat> {
    const saidAt = performance.now();
    const { epoch, workers, asserted } = this.#keys;
    const [outcome, now, ...more] = (await beatScript.run(
      this.#redis,
      [epoch, workers, this.#keys.heartbeat(this.worker), asserted],
      [this.worker, HEARTBEAT_LIFE_MS, this.#settings.recoverMs, this.#toldServer ?? ''],
    )) as [string, number, ...unknown[]];
    this.sawClock(now);
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
    await this.#redis.zrem(this.#keys.workers, this.worker);
    await this.#redis.del(this.#keys.heartbeat(this.worker));
  }

  /** As begin handed it out. */
  remember(id: string, fields: RawRecord): void {
    this.#known.set(id, {
      fields,
      attempts: Number(fields.attempts ?? 0),
      settledAt: null,
      verdict: null,
      isOutcomeAsked: false,
      settleAgain: null,
    });
  }

  /** The attempt that this record is in the middle of, if it is this process's own. */
  underway({ id, state, attempts }: VerificationRecord): Known | null {
    const known = this.#known.get(id);
    return state === 'sending' && known?.attempts === attempts ? known : null;
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
        const found = await this.writeBack(id, known);
        if (mustSayAgain(found, known)) await known.settleAgain?.();
      }),
    );
    await this.#redis.hset(this.#keys.asserted, this.worker, String(this.#lastBeat));
    this.#toldServer = server;
  }

  /** The beginning of one attempt, where the server has lost it. */
  async writeBack(id: string, { fields, verdict, isOutcomeAsked }: Known): Promise<Found> {
    const reference = fields.reference ?? '';
    // One that was to be tried again is unresolved until that could be said again.
    const stage = !isOutcomeAsked ? 'under way' : verdict === 'settle' ? 'over' : 'unresolved';
    const [wasLost, is] = (await assertScript.run(
      this.#redis,
      [this.#keys.record(id), this.#keys.due, this.#keys.transaction(reference)],
      [id, String(this.now() + HEARTBEAT_LIFE_MS), stage, ...Object.entries(fields).flat()],
    )) as [number, Found['is']];
    return { wasLost: wasLost === 1, is };
  }

  /**
   * What is known of the workers that lived on the old server: how far their own memory of beats reaches (0: nobody
   * is left who remembers), who has asserted, and whether one of them has not, so that nobody knows what it had begun.
   */
  async others(lostFrom: number): Promise<{ lastBeat: number; present: Set<string>; missing: string[] }> {
    const since = lostFrom - this.#settings.lossWindowMs - HEARTBEAT_LIFE_MS;
    const [lived, asserted] = await Promise.all([
      this.#redis.zrangebyscore(this.#keys.workers, since, '+inf'),
      this.#redis.hgetall(this.#keys.asserted),
    ]);
    return {
      lastBeat: Math.max(0, ...Object.values(asserted).map(Number)),
      present: new Set(Object.keys(asserted)),
      missing: lived.filter((worker) => asserted[worker] === undefined),
    };
  }

  /** True for one caller at a time; whoever was about to on an earlier server counts no more. */
  async mayOneRecover(forMs: number): Promise<boolean> {
    return (await this.#redis.set(this.#recoverer, this.worker, 'PX', forMs, 'NX')) === 'OK';
  }

  /** Still at it: the lease is short, so that a recoverer that dies holds nobody up. */
  async keepRecovering(forMs: number): Promise<void> {
    await this.#redis.set(this.#recoverer, this.worker, 'PX', forMs, 'XX');
  }

  /** The recovery has failed: the next one may try at once. */
  async giveUpRecovery(): Promise<void> {
    await this.#redis.del(this.#recoverer);
  }

  /**
   * From now on the journal is known to be whole on this server: attempts may begin again. False when Redis is yet
   * another server by now.
   */
  async open(server: string, missing: readonly string[]): Promise<boolean> {
    const { epoch, workers, asserted } = this.#keys;
    return (await openScript.run(this.#redis, [epoch, workers, asserted, this.#recoverer], [server, ...missing])) === 1;
  }

  get #recoverer(): string {
    return `${this.#keys.epoch}:recoverer:${this.#server}`;
  }

  #sawReplicas(server: string, replicas: number): void {
    this.#wantedReplicas.saw(server, replicas);
    const awaited = this.#wantedReplicas.count;
    if (awaited === this.#awaitedReplicas) return;
    this.#awaitedReplicas = awaited;
    this.#events.emit('replicas:awaited', { partition: this.#settings.partition, replicas: awaited });
  }

  /** A beat that was acknowledged so much later proves that the server has these as well. */
  #forgetSettledBefore(time: number): void {
    for (const [id, { settledAt }] of this.#known) {
      if (settledAt !== null && settledAt < time) this.#known.delete(id);
    }
  }
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
