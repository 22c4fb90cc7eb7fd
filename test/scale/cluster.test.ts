/** The whole service on a real Cluster of three masters and three replicas. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { startTestCluster, type TestCluster } from '../support/servers.ts';
import { startHouse } from './house.ts';
import { doctor, journey } from './journey.ts';

const world = {} as { cluster: TestCluster; sandbox: Sandbox };

beforeAll(async () => {
  [world.cluster, world.sandbox] = await Promise.all([startTestCluster(), startSandbox({ settleAfterMs: 0 })]);
});

afterAll(async () => {
  await world.sandbox?.[Symbol.asyncDispose]();
  await world.cluster?.[Symbol.asyncDispose]();
});

test('every part of the service works, with partitions on different masters and no command across slots', async () => {
  const { cluster, sandbox } = world;
  await using house = await startHouse(cluster.settings, sandbox);
  await journey(house);

  const masters = Object.keys(sandbox.providers).map(async (name) => (await cluster.masterOf(`{otp-${name}}`)).port);
  expect(new Set(await Promise.all(masters)).size).toBeGreaterThan(1);
  // A client that had lost its way would be told so again and again.
  // ERR: this server is older than CLIENT SETINFO, which every connection says of itself; NOSCRIPT: a script's first time.
  const { ERR: _, NOSCRIPT = 0, ...others } = await cluster.errors();
  expect(others).toEqual({});
  expect(NOSCRIPT).toBeLessThan(100);
  expect(house.errors()).toEqual([]);

  const found = await doctor(house);
  expect(found.filter(({ level }) => level === 'fault')).toEqual([]);
  expect(found).toContainEqual(expect.objectContaining({ about: 'redis.version', level: 'ok' }));
});
