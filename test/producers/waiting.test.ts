import { expect, it } from 'vitest';
import { EventBus } from '../../src/events.ts';
import { PUBLISHED_CHANNEL } from '../../src/producers/job.ts';
import { Waiting } from '../../src/producers/waiting.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { BEST_OF_THREE } from '../support/timing.ts';

const ID = 'demo_0123456789abcdef0123456789abcdef';

interface Bundle extends AsyncDisposable {
  readonly server: TestRedis;
  readonly redis: RedisConnection;
  readonly waiting: Waiting;
}

async function setup(): Promise<Bundle> {
  const server = await startTestRedis();
  const redis = connectRedis(server.url, 'producer', { onError: () => {} });
  const waiting = new Waiting(redis, new EventBus());
  // Woken by the subscription's own beginning: from here on only messages wake anybody.
  let reads = 0;
  const read = async (): Promise<number> => {
    reads += 1;
    return reads;
  };
  await waiting.until('first', read, (count) => count === 2, { limitMs: 10_000 });
  return {
    server,
    redis,
    waiting,
    [Symbol.asyncDispose]: async () => {
      await waiting.close();
      redis.disconnect();
      await server[Symbol.asyncDispose]();
    },
  };
}

it('wakes every caller of an id, and nobody else', async () => {
  await using world = await setup();
  let sequence = 0;
  let readsOfOther = 0;
  const read = async (): Promise<number> => sequence;
  const waiters = [1, 2, 3].map(() => world.waiting.until(ID, read, (now) => now >= 1, { limitMs: 10_000 }));
  const readOther = async (): Promise<number> => {
    readsOfOther += 1;
    return 0;
  };
  const other = world.waiting.until('demo_other', readOther, () => false, { limitMs: 300 });
  sequence = 1;
  await world.redis.publish(PUBLISHED_CHANNEL, `${ID}.1`);
  expect(await Promise.all(waiters)).toEqual([1, 1, 1]);
  expect(readsOfOther).toBe(1); // at the beginning, and again only at the limit
  expect(await other).toBe(0);
});

it('loses nothing that is published between the reading and the waiting', BEST_OF_THREE, async () => {
  await using world = await setup();
  let sequence = 0;
  const read = async (): Promise<number> => {
    const seen = sequence;
    if (seen === 0) {
      // The revision and its message come after this read has been answered and before its caller waits.
      sequence = 1;
      await world.redis.publish(PUBLISHED_CHANNEL, `${ID}.1`);
      await world.redis.ping();
    }
    return seen;
  };
  const began = performance.now();
  expect(await world.waiting.until(ID, read, (now) => now === 1, { limitMs: 10_000 })).toBe(1);
  expect(performance.now() - began).toBeLessThan(2_000);
});

it('reads once more at the limit, so a lost message costs time and not truth', async () => {
  await using world = await setup();
  let reads = 0;
  const read = async (): Promise<number> => {
    reads += 1;
    return reads;
  };
  expect(await world.waiting.until(ID, read, (now) => now === 2, { limitMs: 50 })).toBe(2);
});

it('looks again when the subscription is renewed, because it was deaf in between', BEST_OF_THREE, async () => {
  await using world = await setup();
  let sequence = 0;
  const waiter = world.waiting.until(
    ID,
    async () => sequence,
    (now) => now === 1,
    { limitMs: 10_000 },
  );
  await world.server.kill();
  sequence = 1;
  await world.server.start();
  const began = performance.now();
  expect(await waiter).toBe(1);
  expect(performance.now() - began).toBeLessThan(5_000);
});

it('closing wakes everybody; a caller who has gone waits no more', async () => {
  await using world = await setup();
  const gone = new AbortController();
  const limits = { limitMs: 10_000 };
  const left = world.waiting.until(
    ID,
    async () => 'left',
    () => false,
    { ...limits, signal: gone.signal },
  );
  gone.abort();
  expect(await left).toBe('left');
  const woken = world.waiting.until(
    ID,
    async () => 'woken',
    () => false,
    limits,
  );
  await world.waiting.close();
  expect(await woken).toBe('woken');
  expect(
    await world.waiting.until(
      ID,
      async () => 'late',
      () => false,
      limits,
    ),
  ).toBe('late');
});

it('hands on what the reading throws', async () => {
  await using world = await setup();
  const fails = async (): Promise<never> => {
    throw new Error('away');
  };
  await expect(world.waiting.until(ID, fails, () => true, { limitMs: 10_000 })).rejects.toThrow('away');
});
