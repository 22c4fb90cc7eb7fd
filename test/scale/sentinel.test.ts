/** The whole service on a master with two replicas, found through three real sentinels. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connectRedis } from '../../src/redis/connections.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { startTestSentinel, type TestSentinel } from '../support/servers.ts';
import { journalOf } from '../workers/support.ts';
import { startHouse } from './house.ts';
import { doctor, journey } from './journey.ts';

const world = {} as { sentinel: TestSentinel; sandbox: Sandbox };

beforeAll(async () => {
  [world.sentinel, world.sandbox] = await Promise.all([startTestSentinel(), startSandbox({ settleAfterMs: 0 })]);
});

afterAll(async () => {
  await world.sandbox?.[Symbol.asyncDispose]();
  await world.sentinel?.[Symbol.asyncDispose]();
});

test('every part of the service works on whichever server the sentinels name', async () => {
  const { sentinel, sandbox } = world;
  await using house = await startHouse(sentinel.settings, sandbox);
  await journey(house);
  const found = await doctor(house);
  expect(found.filter(({ level }) => level === 'fault')).toEqual([]);
  expect(found).toContainEqual(expect.objectContaining({ about: 'redis.version', level: 'ok' }));
  expect(house.errors()).toEqual([]);
});

test('a result that a failover has forgotten is not said, also while the new server has no replica to wait for', async () => {
  const redis = connectRedis(world.sentinel.settings, 'worker', { onError: () => {} });
  const journal = journalOf({ redis }, { waitReplicas: 0 });
  const stands = await redis.xadd(journal.keys.outbox, '*', 'id', 'cepta_1');
  expect(await journal.kept([String(stands), '1-1'])).toEqual([stands]);
  journal.close();
  redis.disconnect();
});
