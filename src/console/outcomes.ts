/**
 * What providers have answered lately, over all workers: each worker process counts by the minute and adds its counts to
 * those in Redis every few seconds. To look at, no more: what Redis does not take in time is lost, and metrics have it.
 */
import { asError, type EventBus, type Events } from '../events.ts';
import { namesOf } from '../producers/job.ts';
import type { RedisConnection } from '../redis/connections.ts';

export const OUTCOMES = ['accepted', 'rejected', 'not_submitted', 'unknown'] as const;
export type Outcome = (typeof OUTCOMES)[number];
export type OutcomeCounts = Readonly<Record<Outcome, number>>;

/** This minute and the four before it. */
export const OUTCOME_MINUTES = 5;
const KEPT_SECONDS = 900;
const FLUSH_MS = 2_000;
const MINUTE_MS = 60_000;

/** What an attempt came to. What became known later, by inquiry or by a person, is no answer to it. */
const OF_AN_ATTEMPT = ['answered', 'lost', 'owner_dead', 'rolled_back'];

export interface OutcomeCounterDependencies {
  /** Waits for Redis or not; a failure costs the counts of some seconds. */
  readonly redis: RedisConnection;
  readonly events: EventBus;
}

export class OutcomeCounter {
  readonly #deps: OutcomeCounterDependencies;
  readonly #listener = (moved: Events['verification:moved']): void => this.#count(moved);
  readonly #timer: NodeJS.Timeout;
  /** By key, since the last flush. */
  #counts = new Map<string, Map<Outcome, number>>();

  constructor(deps: OutcomeCounterDependencies) {
    this.#deps = deps;
    deps.events.on('verification:moved', this.#listener);
    this.#timer = setInterval(() => void this.#flush(), FLUSH_MS).unref();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#deps.events.off('verification:moved', this.#listener);
    await this.#flush();
  }

  #count({ partition, otp, final, because }: Events['verification:moved']): void {
    const outcome = OUTCOMES.find((word) => word === otp);
    if (outcome === undefined) return;
    if (!OF_AN_ATTEMPT.includes(because) && !(final && outcome === 'not_submitted')) return;
    const key = outcomesKey(this.#deps.redis, partition, Date.now());
    const counts = this.#counts.get(key) ?? new Map<Outcome, number>();
    this.#counts.set(key, counts.set(outcome, (counts.get(outcome) ?? 0) + 1));
  }

  async #flush(): Promise<void> {
    const counted = this.#counts;
    this.#counts = new Map();
    const additions = [...counted].flatMap(([key, counts]) => [
      ...[...counts].map(async ([outcome, count]) => await this.#deps.redis.hincrby(key, outcome, count)),
      this.#deps.redis.expire(key, KEPT_SECONDS),
    ]);
    await Promise.all(additions).catch((error: unknown) =>
      this.#deps.events.emit('machinery:failed', { where: 'counting outcomes', error: asError(error) }),
    );
  }
}

export async function readOutcomes(redis: RedisConnection, partition: string, nowMs: number): Promise<OutcomeCounts> {
  const minutes = Array.from({ length: OUTCOME_MINUTES }, (_, ago) =>
    outcomesKey(redis, partition, nowMs - ago * MINUTE_MS),
  );
  const read = await Promise.all(minutes.map(async (key) => await redis.hmget(key, ...OUTCOMES)));
  const sums = OUTCOMES.map((outcome, place) => [
    outcome,
    read.reduce((sum, counts) => sum + Number(counts[place] ?? 0), 0),
  ]);
  return Object.fromEntries(sums) as OutcomeCounts;
}

/** By the clock of whoever counts; a skew of seconds moves little between two of five minutes. */
function outcomesKey(redis: RedisConnection, partition: string, atMs: number): string {
  return `${namesOf(redis).partitionKeys(partition).prefix}:outcomes:${Math.floor(atMs / MINUTE_MS)}`;
}
