/** What Redis keeps of a verification while it waits, and when it is settled and kept until its retention ends. */
import { Redis } from 'ioredis';
import { ours } from '../pipelines/ours.ts';

export interface MemoryUse {
  /** Bytes of each. */
  readonly waiting: number;
  readonly settled: number;
}

export async function memoryOnce(count: number): Promise<MemoryUse> {
  await using house = await ours.open({ delayMs: 0, concurrency: 100 });
  const redis = new Redis(house.store);
  try {
    await house.fill(1); // what is there once and for all
    const empty = await usedBytes(redis);
    await house.fill(count + 1);
    const waiting = ((await usedBytes(redis)) - empty) / count;
    let taken = 0;
    await house.consume(() => {
      taken += 1;
    });
    await house.startWorker();
    while (taken < count + 1 || (await house.results()) > 0) await new Promise((resolve) => setTimeout(resolve, 50));
    await redis.del('{otp-results}:otp-results:events', '{otp-cepta}:otp-cepta:events'); // bounded, whatever the number
    // A consumer remembers what it has handled for as long as it is told to; that is the client's, and counted apart.
    const handled = await redis.keys('{otp-results}:handled:*');
    if (handled.length > 0) await redis.del(...handled);
    return { waiting, settled: ((await usedBytes(redis)) - empty) / count };
  } finally {
    redis.disconnect();
  }
}

async function usedBytes(redis: Redis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]);
}
