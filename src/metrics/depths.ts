/**
 * What stands in Redis at the moment of a scrape: queues, and verifications that await proof or a person. Nothing is
 * scanned, and nothing waits for long: what Redis does not say in time is left out, because an old number looks
 * like a true one.
 */
import type { Registry } from 'prom-client';
import { Queue } from '../bullmq.ts';
import type { BreakerState } from '../producers/breaker-state.ts';
import type { PartitionKeys } from '../producers/job.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { withinOr } from '../time-limit.ts';
import { collectServer, readServer, type ServerState } from './redis-server.ts';
import { declareGauge } from './registry.ts';

/** A busy scraper, several gauges of one scrape and a page that is reloaded share one reading. */
const CACHE_MS = 1_000;
/** Prometheus gives a whole scrape ten seconds; a stopped Redis may cost one of them. */
const LIMIT_MS = 1_000;

/** Workers beat every second; one that has not been heard of for so long is dead to the others. */
export const WORKER_SILENT_MS = 6_000;

export interface QueueDepth {
  readonly name: string;
  readonly paused: boolean;
  /** By BullMQ's own words: waiting, active, delayed, … */
  readonly jobs: Readonly<Record<string, number>>;
  readonly oldestJobAgeMs: number;
}

export interface PartitionDepth {
  readonly name: string;
  readonly unresolved: number;
  readonly oldestUnresolvedAgeMs: number;
  readonly needsReview: number;
  readonly oldestReviewAgeMs: number;
  /** For how long something should have happened to the one that is most overdue. */
  readonly overdueMs: number;
  /** How much of its life the code that is next in line has spent, 1 being all; 0 when none waits. */
  readonly codeLifeUsed: number;
  readonly workers: number;
  readonly breaker: BreakerDepth;
}

/** `forMs`: for how long it has not been closed. `probeInMs`: until the next probe; 0 when it is due, or not open. */
export interface BreakerDepth extends Pick<BreakerState, 'is' | 'because' | 'row'> {
  readonly forMs: number;
  readonly probeInMs: number;
}

export interface Depths {
  /** False when something did not answer in time and is missing here. */
  readonly complete: boolean;
  readonly queues: ReadonlyMap<string, QueueDepth>;
  readonly partitions: ReadonlyMap<string, PartitionDepth>;
  readonly server: ServerState | null;
}

export interface WatchedPartition {
  readonly name: string;
  readonly keys: Pick<PartitionKeys, 'awaiting' | 'review' | 'due' | 'workers' | 'queue' | 'record' | 'breaker'>;
}

export interface DepthReaderDependencies {
  /** Must fail fast: the `console` profile. */
  readonly redis: RedisConnection;
  /** Made by `watchingQueue`. */
  readonly queues: readonly Queue[];
  readonly partitions: readonly WatchedPartition[];
}

/**
 * A queue to look at. Without `skipMetasUpdate` it would set the queue's own settings back to BullMQ's defaults
 * (10 000 events kept, with whatever they hold); without `skipWaitingForReady` it would wait for Redis for ever.
 */
export function watchingQueue(
  name: string,
  prefix: string,
  connection: RedisConnection,
  onError: (error: Error) => void,
): Queue {
  const queue = new Queue(name, { connection, prefix, skipMetasUpdate: true, skipWaitingForReady: true });
  queue.on('error', onError);
  return queue;
}

interface Source {
  readonly key: string;
  read(now: Promise<number>, found: Found): Promise<void>;
}

interface Found {
  readonly queues: Map<string, QueueDepth>;
  readonly partitions: Map<string, PartitionDepth>;
  server: ServerState | null;
}

export class DepthReader {
  readonly #redis: RedisConnection;
  readonly #sources: readonly Source[];
  readonly #queueNames: readonly string[];
  readonly #partitionNames: readonly string[];
  /** Sources that still owe an answer to an earlier reading: not asked again, so that questions cannot pile up. */
  readonly #unanswered = new Set<string>();
  #reading: Promise<Depths> | null = null;
  #latest: { readonly depths: Depths; readonly readAt: number } | null = null;

  constructor({ redis, queues, partitions }: DepthReaderDependencies) {
    this.#redis = redis;
    this.#queueNames = queues.map(({ name }) => name);
    this.#partitionNames = partitions.map(({ name }) => name);
    this.#sources = [
      ...queues.map((queue) => ({
        key: `queue ${queue.qualifiedName}`,
        read: async (now: Promise<number>, found: Found) => {
          found.queues.set(queue.name, await readQueue(redis, queue, now));
        },
      })),
      ...partitions.map((partition) => ({
        key: `partition ${partition.name}`,
        read: async (now: Promise<number>, found: Found) => {
          const queue = queues.find(({ name }) => name === partition.keys.queue);
          found.partitions.set(partition.name, await readPartition(redis, partition, queue, now));
        },
      })),
      {
        key: 'server',
        read: async (_now: Promise<number>, found: Found) => {
          found.server = await readServer(redis);
        },
      },
    ];
  }

  /** Never rejects, and answers within a second. */
  async read(): Promise<Depths> {
    if (this.#latest !== null && performance.now() - this.#latest.readAt < CACHE_MS) return this.#latest.depths;
    this.#reading ??= this.#readAnew().finally(() => {
      this.#reading = null;
    });
    return await this.#reading;
  }

  async #readAnew(): Promise<Depths> {
    const found: Found = { queues: new Map(), partitions: new Map(), server: null };
    // One clock for every process that is scraped; a machine whose clock is wrong would see ages that nobody else sees.
    const now = this.#redis.time().then(([seconds, micros]) => Number(seconds) * 1_000 + Number(micros) / 1_000);
    now.catch(() => {}); // each source that needs it fails by it
    const asked = this.#sources.filter(({ key }) => !this.#unanswered.has(key));
    const answers = asked.map(async (source) => {
      this.#unanswered.add(source.key);
      try {
        await source.read(now, found);
      } catch {
        // Missing is all that a scrape can say of it; the connection's own listener has told why.
      } finally {
        this.#unanswered.delete(source.key);
      }
    });
    await withinOr(LIMIT_MS, Promise.all(answers), null);
    const answered = found.queues.size + found.partitions.size + (found.server === null ? 0 : 1);
    const depths = {
      complete: answered === this.#sources.length,
      // Copies, because a late answer must not change what has been shown; in order, because answers come in any.
      queues: inOrder(this.#queueNames, found.queues),
      partitions: inOrder(this.#partitionNames, found.partitions),
      server: found.server,
    };
    this.#latest = { depths, readAt: performance.now() };
    return depths;
  }
}

/** Declares the gauges that are read from Redis at scrape time. */
export function collectDepths(registry: Registry, reader: Pick<DepthReader, 'read'>): void {
  declareGauge(registry, 'queueJobs', async (gauge) => {
    const { queues } = await reader.read();
    gauge.reset();
    for (const { name, jobs } of queues.values()) {
      for (const [state, count] of Object.entries(jobs)) gauge.set({ queue: name, state }, count);
    }
  });
  declareGauge(registry, 'queueOldestJobAge', async (gauge) => {
    const { queues } = await reader.read();
    gauge.reset();
    for (const { name, oldestJobAgeMs } of queues.values()) gauge.set({ queue: name }, oldestJobAgeMs / 1_000);
  });
  declareGauge(registry, 'queuePaused', async (gauge) => {
    const { queues } = await reader.read();
    gauge.reset();
    for (const { name, paused } of queues.values()) gauge.set({ queue: name }, Number(paused));
  });
  const ofPartitions = (name: PartitionGauge, value: (depth: PartitionDepth) => number): void =>
    declareGauge(registry, name, async (gauge) => {
      const { partitions } = await reader.read();
      gauge.reset();
      for (const depth of partitions.values()) gauge.set({ provider: depth.name }, value(depth));
    });
  ofPartitions('unresolved', ({ unresolved }) => unresolved);
  ofPartitions('unresolvedOldestAge', ({ oldestUnresolvedAgeMs }) => oldestUnresolvedAgeMs / 1_000);
  ofPartitions('needsReview', ({ needsReview }) => needsReview);
  ofPartitions('needsReviewOldestAge', ({ oldestReviewAgeMs }) => oldestReviewAgeMs / 1_000);
  ofPartitions('overdue', ({ overdueMs }) => overdueMs / 1_000);
  ofPartitions('codeLifeUsed', ({ codeLifeUsed }) => codeLifeUsed);
  ofPartitions('workers', ({ workers }) => workers);
  ofPartitions('breakerOpen', ({ breaker }) => Number(breaker.is === 'open'));
  collectServer(registry, async () => (await reader.read()).server);
  declareGauge(registry, 'scrapeIncomplete', async (gauge) => {
    const { complete } = await reader.read();
    gauge.set(complete ? 0 : 1);
  });
}

type PartitionGauge =
  | 'unresolved'
  | 'unresolvedOldestAge'
  | 'needsReview'
  | 'needsReviewOldestAge'
  | 'overdue'
  | 'codeLifeUsed'
  | 'workers'
  | 'breakerOpen';

async function readQueue(redis: RedisConnection, queue: Queue, now: Promise<number>): Promise<QueueDepth> {
  const [jobs, paused, addedAt] = await Promise.all([
    queue.getJobCounts(),
    queue.isPaused(),
    oldestWaitingSince(redis, queue),
  ]);
  return { name: queue.name, jobs, paused, oldestJobAgeMs: ageOf(addedAt, await now) };
}

/** BullMQ puts in at the left of its wait list and takes from the right; jobs with a priority come after those without. */
async function nextInLine(redis: RedisConnection, queue: Queue): Promise<string | null> {
  const [waiting, [prioritized]] = await Promise.all([
    redis.lindex(queue.toKey('wait'), -1),
    redis.zrange(queue.toKey('prioritized'), '0', '0'),
  ]);
  return waiting ?? prioritized ?? null;
}

/** Null: none waits, or it was taken just now. */
async function oldestWaitingSince(redis: RedisConnection, queue: Queue): Promise<number | null> {
  const id = await nextInLine(redis, queue);
  const addedAt = id === null ? null : await redis.hget(queue.toKey(id), 'timestamp');
  return addedAt === null ? null : Number(addedAt);
}

async function readPartition(
  redis: RedisConnection,
  { name, keys }: WatchedPartition,
  queue: Queue | undefined,
  now: Promise<number>,
): Promise<PartitionDepth> {
  const [unresolved, needsReview, awaitingSince, reviewSince, dueAt, codeLifeUsed, workers, breaker] =
    await Promise.all([
      redis.zcard(keys.awaiting),
      redis.zcard(keys.review),
      lowestScore(redis, keys.awaiting),
      lowestScore(redis, keys.review),
      lowestScore(redis, keys.due),
      queue === undefined ? 0 : codeLifeUsedIn(redis, queue, keys, now),
      now.then((at) => redis.zcount(keys.workers, at - WORKER_SILENT_MS, '+inf')),
      redis.hmget(keys.breaker, 'state', 'because', 'row', 'troubleSince', 'until'),
    ]);
  const at = await now;
  return {
    name,
    unresolved,
    oldestUnresolvedAgeMs: ageOf(awaitingSince, at),
    needsReview,
    oldestReviewAgeMs: ageOf(reviewSince, at),
    overdueMs: ageOf(dueAt, at),
    codeLifeUsed,
    workers,
    breaker: breakerDepth(breaker, at),
  };
}

function breakerDepth([is, because, row, troubleSince, until]: readonly (string | null)[], now: number): BreakerDepth {
  if (is !== 'open' && is !== 'half_open') return { is: 'closed', because: '', row: 0, forMs: 0, probeInMs: 0 };
  return {
    ...{ is, because: because ?? '', row: Number(row ?? 0), forMs: ageOf(Number(troubleSince ?? now), now) },
    probeInMs: is === 'open' ? Math.max(0, Number(until ?? 0) - now) : 0,
  };
}

/** The one that is taken next, or the next that is to be tried again: whichever is nearer to its deadline. */
async function codeLifeUsedIn(
  redis: RedisConnection,
  queue: Queue,
  keys: WatchedPartition['keys'],
  now: Promise<number>,
): Promise<number> {
  const [next, [delayed]] = await Promise.all([
    nextInLine(redis, queue),
    redis.zrange(queue.toKey('delayed'), '0', '0'),
  ]);
  const used = [next, delayed].map(async (id) => {
    if (id === null || id === undefined) return 0;
    const [state, createdAt, expiresAt] = await redis.hmget(keys.record(id), 'state', 'createdAt', 'expiresAt');
    // A job whose code is dead already, or a stranger's, tells nothing of the codes that live.
    if (state !== 'queued' || !createdAt || !expiresAt) return 0;
    return ageOf(Number(createdAt), await now) / Math.max(1, Number(expiresAt) - Number(createdAt));
  });
  return Math.max(...(await Promise.all(used)));
}

async function lowestScore(redis: RedisConnection, set: string): Promise<number | null> {
  const [, score] = await redis.zrange(set, '0', '0', 'WITHSCORES');
  return score === undefined ? null : Number(score);
}

function ageOf(since: number | null, now: number): number {
  return since === null || !Number.isFinite(since) ? 0 : Math.max(0, now - since);
}

function inOrder<Value>(names: readonly string[], values: ReadonlyMap<string, Value>): Map<string, Value> {
  return new Map(
    names.flatMap((name): [string, Value][] => {
      const value = values.get(name);
      return value === undefined ? [] : [[name, value]];
    }),
  );
}
