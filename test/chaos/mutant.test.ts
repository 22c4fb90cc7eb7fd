import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { withoutBegin } from '../../chaos/world.ts';
import { connectRedis } from '../../src/redis/connections.ts';
import { startTestRedis } from '../support/redis.ts';
import { askToBegin, BEGIN_SCRIPT, seed } from '../workers/support.ts';

test('whoever asks the mutant may send, whatever was sent before; the script that it mutates refuses', async () => {
  await using server = await startTestRedis();
  const redis = connectRedis({ url: server.url }, 'worker', { name: 'test', onError: () => {} });
  try {
    const begin = readFileSync(BEGIN_SCRIPT, 'utf8');
    const told = async (script: string, id: string, token: string): Promise<unknown> =>
      (await askToBegin(redis, id, token, script))[0];
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
