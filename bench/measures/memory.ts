/** What Redis keeps of a verification while it waits, when it is settled and kept until its retention ends, and after that. */
import { Redis } from 'ioredis';
import { ours } from '../pipelines/ours.ts';

export interface MemoryUse {
  /** Bytes of each. */
  readonly waiting: number;
  readonly settled: number;
  /** What its consumer remembers of its result. */
  readonly handled: number;
  /** When its retention is over: the idempotency key. */
  readonly left: number;
}

export async function memoryOnce(count: number): Promise<MemoryUse> {
  await using house = await ours.open({ delayMs: 0, concurrency: 100 });
  const redis = new Redis(house.store);
  try {
    await house.fill(1); // what is there once and for all
    const empty = await usedBytes(redis);
    await house.fill(count + 1);
    const eachUsedBytes = async (): Promise<number> => ((await usedBytes(redis)) - empty) / count;
    const forget = async (pattern: string): Promise<void> => {
      const keys = await redis.keys(pattern);
      for (let from = 0; from < keys.length; from += 1_000) await redis.del(...keys.slice(from, from + 1_000));
    };
    const waiting = await eachUsedBytes();
    let taken = 0;
    await house.consume(() => {
      taken += 1;
    });
    await house.startWorker();
    while (taken < count + 1 || (await house.results()) > 0) await new Promise((resolve) => setTimeout(resolve, 50));
    await redis.del('{otp-results}:otp-results:events', '{otp-cepta}:otp-cepta:events'); // bounded, whatever the number
    const all = await eachUsedBytes();
    // A consumer remembers what it has handled for as long as it is told to; that is the client's, and counted apart.
    await forget('{otp-results}:handled:*');
    const settled = await eachUsedBytes();
    await forget('{otp-cepta}:v:*');
    await forget('{otp-cepta}:ref:*');
    const withKeys = await settledDown(eachUsedBytes);
    await forget('{idem-*}:*');
    return { waiting, settled, handled: all - settled, left: withKeys - (await settledDown(eachUsedBytes)) };
  } finally {
    redis.disconnect();
  }
}

const SETTLES_WITHIN_MS = 300;

/** Redis makes its tables smaller little by little when keys have gone. */
async function settledDown(reading: () => Promise<number>): Promise<number> {
  for (let before = await reading(); ; ) {
    await new Promise((resolve) => setTimeout(resolve, SETTLES_WITHIN_MS));
    const now = await reading();
    if (now >= before - 1) return now;
    before = now;
  }
}

async function usedBytes(redis: Redis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]);
}
