/** The whole service on a real Cluster of three masters and three replicas. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { connectRedis } from '../../src/redis/connections.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { bodyFor } from '../support/pipeline.ts';
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
  // A busy machine may be late with the map of the slots, which is asked for again two seconds later.
  expect(house.errors().filter((error) => !error.endsWith(': timeout'))).toEqual([]);

  const found = await doctor(house);
  expect(found.filter(({ level }) => level === 'fault')).toEqual([]);
  expect(found).toContainEqual(expect.objectContaining({ about: 'redis.version', level: 'ok' }));
}, 60_000);

test('a master that dies is another server for its own partitions alone, and a code is received once all the same', async () => {
  const { cluster, sandbox } = world;
  await using house = await startHouse(cluster.settings, sandbox, { journal: { recoverMs: 300 } });
  const before = await house.verify(bodyFor('cepta', '123456'));
  const names = Object.keys(sandbox.providers);
  const master = await cluster.masterOf('{otp-cepta}');
  const here: string[] = [];
  for (const name of names) if ((await cluster.masterOf(`{otp-${name}}`)) === master) here.push(name);

  await master.kill();
  const body = bodyFor('cepta', '123456');
  const accepted = async (): Promise<{ id: string }> => await house.producer.enqueue(body, { idempotencyKey: 'after' });
  const { id } = await vi.waitFor(accepted, { timeout: 15_000, interval: 200 });
  expect(await house.until(id, ({ otp }) => otp !== null)).toMatchObject({ otp: 'accepted' });
  expect((await house.read(before.id)).resource.otp).toBe('accepted');

  // Each partition finds out by a beat of its own.
  const recoveries = names.map(
    (name) => `otp_journal_recoveries_total{provider="${name}",bounded="true"} ${here.includes(name) ? 1 : 0}`,
  );
  await vi.waitFor(
    async () => {
      const lines = (await house.page('/metrics')).text.split('\n');
      expect(lines).toEqual(expect.arrayContaining(recoveries));
    },
    { timeout: 15_000, interval: 200 },
  );
  const { reference } = (await house.read(id)).resource;
  const received = sandbox.ledger
    .find({ provider: 'cepta', reference })
    .filter(({ event }) => event === 'code_received');
  expect(received).toHaveLength(1);
}, 60_000);

test('a connection that is asked for while the Cluster is not whole stands when it is whole again', async () => {
  await using cluster = await startTestCluster({ replicas: 0, nodeTimeoutMs: 500 });
  const [one, another, left] = cluster.nodes;
  const redis = connectRedis(cluster.settings, 'worker', { onError: () => {} });
  await redis.ping();
  const ended = new Promise((resolve) => redis.once('end', resolve));
  redis.disconnect();
  await ended;

  await Promise.all([one?.kill(), another?.kill()]);
  const state = async (): Promise<string> => (await left?.redis.cluster('INFO')) ?? '';
  await vi.waitUntil(async () => (await state()).includes('cluster_state:fail'), 10_000);
  const turnedAway = new Promise((resolve) => redis.once('reconnecting', resolve));
  const connected = redis.connect();
  await turnedAway;
  await Promise.all([one?.start(), another?.start()]);
  await connected;
  expect(await redis.set('{tag}:key', 'value')).toBe('OK');
  redis.disconnect();
}, 60_000);
