import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { Script } from '../../src/redis/script.ts';
import { answersIn, jsonFor, Together } from '../../src/redis/together.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

let server: TestRedis;
let redis: RedisConnection;

beforeAll(async () => {
  server = await startTestRedis();
  redis = connectRedis({ url: server.url }, 'producer', { name: 'test', onError: () => {} });
});

afterAll(async () => {
  redis.disconnect();
  await server[Symbol.asyncDispose]();
});

/** Adds to a number under each key, and says what it comes to. */
function counters(): { ask(key: string): Promise<number>; readonly told: readonly (readonly string[])[] } {
  const told: (readonly string[])[] = [];
  const together = new Together<string, number>(async (keys) => {
    told.push(keys);
    return answersIn(await countScript.run(redis, [...keys], []));
  });
  return { ask: async (key) => await together.ask(key), told };
}

const countScript = Script.fromFiles(
  new URL('../../src/redis/each.lua', import.meta.url),
  new URL('./count-each.lua', import.meta.url),
);

describe('what is asked of a script in one turn of the event loop', () => {
  test('goes as one command, and each is answered by itself, in order', async () => {
    const { ask, told } = counters();
    await expect(Promise.all(['a', 'b', 'a'].map(ask))).resolves.toEqual([1, 1, 2]);
    await expect(ask('b')).resolves.toBe(2);
    expect(told).toEqual([['a', 'b', 'a'], ['b']]);
  });

  test('goes as several commands where it is much', async () => {
    const { ask, told } = counters();
    await expect(Promise.all(Array.from({ length: 40 }, () => ask('many')))).resolves.toEqual(
      Array.from({ length: 40 }, (_, index) => index + 1),
    );
    expect(told.map((keys) => keys.length)).toEqual([16, 16, 8]);
  });

  test('fails for the one whose key is not what it should be, and for nobody else', async () => {
    await redis.lpush('a list', 'x');
    const { ask } = counters();
    const [before, refused, after] = await Promise.allSettled(['c', 'a list', 'd'].map(ask));
    expect([before, after]).toEqual([
      { status: 'fulfilled', value: 1 },
      { status: 'fulfilled', value: 1 },
    ]);
    expect(refused).toMatchObject({ status: 'rejected', reason: { name: 'ReplyError' } });
    expect(String((refused as PromiseRejectedResult).reason)).toContain('WRONGTYPE');
  });

  test('fails for all of them where Redis refuses everybody', async () => {
    const { ask } = counters();
    await redis.config('SET', 'maxmemory', '1');
    try {
      const outcomes = await Promise.allSettled(['e', 'f'].map(ask));
      expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
      expect(String((outcomes[1] as PromiseRejectedResult).reason)).toMatch(/OOM/);
    } finally {
      await redis.config('SET', 'maxmemory', '0');
    }
    await redis.config('SET', 'min-replicas-to-write', '1');
    try {
      const outcomes = await Promise.allSettled(['e', 'f'].map(ask));
      expect(outcomes.map((one) => String((one as PromiseRejectedResult).reason))).toEqual(
        Array.from({ length: 2 }, () => expect.stringContaining('NOREPLICAS')),
      );
    } finally {
      await redis.config('SET', 'min-replicas-to-write', '0');
    }
    expect(await redis.exists('e', 'f')).toBe(0);
  });

  test('is on its way when that is said: what is sent then comes behind it', async () => {
    const order: string[] = [];
    const together = new Together<string, true>(async (names) => {
      order.push(`told ${names.join(' ')}`);
      await redis.ping();
      order.push('answered');
      return names.map(() => true);
    });
    const answer = together.ask('a');
    await together.left;
    order.push('left');
    await answer;
    expect(order).toEqual(['told a', 'left', 'answered']);
  });
});

test('what is no text of Unicode reaches a script as it reaches Redis in any other argument', async () => {
  const [half, pair] = ['\ud83d', '😀'];
  const text = jsonFor([`a${half}b`, pair, '\\ud800']);
  const told = await redis.eval('return cjson.decode(ARGV[1])', 0, text);
  expect(told).toEqual([await redis.eval('return ARGV[1]', 0, `a${half}b`), pair, '\\ud800']);
});
