/** What one partition has done in its last moments, beside what the metrics read: submissions, and what they came to. */
import { namesOf } from '../producers/job.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { withinOr } from '../time-limit.ts';
import { type OutcomeCounts, readOutcomes } from './outcomes.ts';

export interface RateLimit {
  readonly max: number;
  readonly perMs: number;
}

export interface WatchedPartition {
  readonly name: string;
  readonly rateLimit: RateLimit;
}

export interface Activity {
  /** Submissions begun within the latest `perMs`, at most `rateLimit.max`. */
  readonly rateUsed: number;
  readonly rateLimit: RateLimit;
  readonly outcomes: OutcomeCounts;
}

const LIMIT_MS = 1_000;

/** By partition; one that Redis says nothing of in time is missing. */
export async function readActivity(
  redis: RedisConnection,
  partitions: readonly WatchedPartition[],
): Promise<ReadonlyMap<string, Activity>> {
  const found = new Map<string, Activity>();
  const reading = partitions.map(async ({ name, rateLimit }) => {
    const [seconds, micros] = await redis.time();
    const now = Number(seconds) * 1_000 + Number(micros) / 1_000;
    const [rateUsed, outcomes] = await Promise.all([
      begunSince(redis, namesOf(redis).partitionKeys(name).rate, now - rateLimit.perMs, rateLimit.max),
      readOutcomes(redis, name, now),
    ]);
    found.set(name, { rateUsed, rateLimit, outcomes });
  });
  await withinOr(LIMIT_MS, Promise.allSettled(reading), null);
  return new Map(found);
}

/** Looked for by halves: the list is the times of the latest begins, newest first, and may be long. */
async function begunSince(redis: RedisConnection, log: string, since: number, max: number): Promise<number> {
  let [within, without] = [0, Math.min(max, await redis.llen(log))];
  while (within < without) {
    const middle = Math.floor((within + without) / 2);
    if (Number((await redis.lindex(log, middle)) ?? 0) > since) within = middle + 1;
    else without = middle;
  }
  return within;
}
