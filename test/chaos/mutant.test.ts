import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { withoutBegin } from '../../chaos/world.ts';
import { partitionKeys } from '../../src/producers/job.ts';
import { connectRedis } from '../../src/redis/connections.ts';
import { startTestRedis } from '../support/redis.ts';
import { seed } from '../workers/support.ts';

test('whoever asks the mutant may send, whatever was sent before; the script that it mutates refuses', async () => {
  await using server = await startTestRedis();
  const redis = connectRedis({ url: server.url }, 'worker', { name: 'test', onError: () => {} });
  try {
    const source = (file: string): string => readFileSync(new URL(`../../src/${file}`, import.meta.url), 'utf8');
    const begin = source('workers/begin.lua');
    const { due, rate, heartbeat, epoch, workers, breaker, slowed, prefix, record } = partitionKeys('cepta');
    const told = async (script: string, id: string, token: string): Promise<string> => {
      const keys = [due, rate, heartbeat('me'), epoch, workers, breaker, slowed, record(id)];
      const args = [prefix, 'me', 4_000, 12_000, 10, 1_000, 3, 6_000, '', '', id, token];
      const whole = [source('redis/server.lua'), source('redis/each.lua'), script].join('\n');
      return JSON.parse(String(await redis.eval(whole, keys.length, ...keys, ...args)))[0][0];
    };
    for (const [script, second, another] of [
      [begin, 'in_flight', 'attempt_in_flight'],
      [withoutBegin(begin), 'begun', 'begun'],
    ] as const) {
      await redis.flushall();
      const [id, ofSamePayment] = [await seed(redis, { reference: 'TX1' }), await seed(redis, { reference: 'TX1' })];
      expect(await told(script, id, 'one')).toBe('begun');
      expect(await told(script, id, 'another')).toBe(second);
      expect(await told(script, ofSamePayment, 'a third')).toBe(another);
    }
  } finally {
    redis.disconnect();
  }
});
