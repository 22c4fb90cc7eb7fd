/** What is waited for before a code is sent, where Redis has replicas: `journal.waitReplicas`. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { expect, test, vi } from 'vitest';
import type { Events } from '../../src/events.ts';
import { bodyFor, type Pipeline, startPipeline } from '../support/pipeline.ts';
import { behaviours, type ProviderServer, startProviderServer } from '../support/provider-server.ts';
import type { TestRedis } from '../support/redis.ts';
import { startTestReplicas, type TestReplicas } from '../support/servers.ts';

interface House extends AsyncDisposable {
  readonly servers: TestReplicas;
  readonly provider: ProviderServer;
  readonly pipeline: Pipeline;
  seen<Name extends 'replicas:missed' | 'replicas:awaited'>(name: Name): Events[Name][];
}

async function startHouse(
  settings: {
    waitReplicas: number | 'auto';
    waitMs: number;
    replicasGoneAfterMs?: number;
  },
  given?: TestReplicas,
  port?: number,
): Promise<House> {
  const servers = given ?? (await startTestReplicas());
  const provider = await startProviderServer(behaviours.says200);
  const entry = { baseUrl: provider.url, credentials: { appId: 'id', apiKey: 'key' } };
  const pipeline = await startPipeline(
    { beqelal: { ...entry, settings } },
    { server: { url: port === undefined ? servers.url : servers.url.replace(/:\d+$/, `:${port}`) } as TestRedis },
  );
  return {
    servers,
    provider,
    pipeline,
    seen: (name) => pipeline.seen.filter((each) => each.name === name).map(({ payload }) => payload as never),
    [Symbol.asyncDispose]: async () => {
      for (const replica of servers.replicas) replica.thaw();
      await pipeline[Symbol.asyncDispose]();
      await provider.close();
      if (!given) await servers[Symbol.asyncDispose]();
    },
  };
}

/** Its first word: what the provider says here is unreadable, so it is unknown. */
const told = async ({ pipeline }: House, id: string): Promise<unknown> =>
  await pipeline.until(id, ({ state }) => state === 'awaiting', 15_000);

const missed = (house: House, of: 'begin' | 'results'): number =>
  house.seen('replicas:missed').filter((each) => each.of === of).length;

test('a code leaves when a replica has the record of it, and many that begin together wait once', async () => {
  await using house = await startHouse({ waitReplicas: 'auto', waitMs: 5_000 });
  const { pipeline, provider, servers } = house;
  await vi.waitUntil(() => house.seen('replicas:awaited').at(-1)?.replicas === 1, { timeout: 10_000 });
  const ids = await Promise.all(Array.from({ length: 20 }, () => pipeline.enqueue(bodyFor('beqelal', '123456'))));
  for (const id of ids) await told(house, id);
  expect(provider.requests).toHaveLength(ids.length);
  expect(house.seen('replicas:missed')).toEqual([]);
  const stats = await servers.master.redis.info('commandstats');
  const waits = Number(/cmdstat_wait:calls=(\d+)/.exec(stats)?.[1]);
  expect(waits).toBeGreaterThan(0);
  expect(waits).toBeLessThan(2 * ids.length);
});

test('while no replica has it a code stays here, and it leaves when one has', async () => {
  await using house = await startHouse({ waitReplicas: 1, waitMs: 100 });
  const { pipeline, provider, servers } = house;
  for (const replica of servers.replicas) replica.freeze();
  const id = await pipeline.enqueue(bodyFor('beqelal', '123456'));
  await vi.waitUntil(() => missed(house, 'begin') >= 2, { timeout: 10_000 });
  expect(provider.requests).toHaveLength(0);
  expect(await pipeline.read(id)).toMatchObject({ otp: null, sequence: 0 });

  for (const replica of servers.replicas) replica.thaw();
  await told(house, id);
  expect(provider.requests).toHaveLength(1);
  const { history = [] } = await pipeline.read(id);
  expect(history.find(({ event }) => event === 'not_sent' || event === 'retry')).toBeDefined();
});

test('a connection that breaks before its answers come has proved nothing: the code stays here', async () => {
  await using servers = await startTestReplicas();
  await using line = await lineThatLosesAnAnswer(servers.master.port);
  await using house = await startHouse({ waitReplicas: 1, waitMs: 300 }, servers, line.port);
  await told(house, await house.pipeline.enqueue(bodyFor('beqelal', '123456'))); // from now on the server has the scripts
  for (const replica of servers.replicas) replica.freeze();
  line.loseNext();
  await house.pipeline.enqueue(bodyFor('beqelal', '123456'));
  // What was begun is asked for once more on a new connection, which has written nothing before.
  await vi.waitUntil(() => line.lost && missed(house, 'begin') > 0, { timeout: 10_000 });
  expect(house.provider.requests).toHaveLength(1);
  for (const replica of servers.replicas) replica.thaw();
});

/** To this server, but when it is told to the next answer to a WAIT is lost, and with it the connection. */
async function lineThatLosesAnAnswer(
  to: number,
): Promise<AsyncDisposable & { readonly port: number; readonly lost: boolean; loseNext(): void }> {
  let loses = false;
  let lost = false;
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect({ host: '127.0.0.1', port: to });
    let deaf = false;
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        near.destroy();
        far.destroy();
      });
    }
    near.on('data', (chunk) => {
      if (loses && !lost && /\r\nwait\r\n/i.test(chunk.toString('latin1'))) {
        lost = true;
        deaf = true;
        setTimeout(() => near.destroy(), 100); // once the server has begun it
      }
      far.write(chunk);
    });
    far.on('data', (chunk) => deaf || near.write(chunk));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    loseNext: () => {
      loses = true;
    },
    get lost() {
      return lost;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((closed) => server.close(closed));
    },
  };
}

test('a result that no replica has is not said, and is when one has it', async () => {
  await using house = await startHouse({ waitReplicas: 1, waitMs: 1_500 });
  const { pipeline, provider, servers } = house;
  provider.behave((socket) => {
    for (const replica of servers.replicas) replica.freeze();
    socket.resetAndDestroy();
  });
  const id = await pipeline.enqueue(bodyFor('beqelal', '123456'));
  await vi.waitUntil(() => missed(house, 'results') > 1, { timeout: 10_000 });
  expect(await pipeline.result(`${id}.1`)).toBeNull();
  expect(missed(house, 'begin')).toBe(0);
  for (const replica of servers.replicas) replica.thaw();
  await vi.waitUntil(async () => (await pipeline.result(`${id}.1`)) !== null, { timeout: 10_000 });
});

test('auto holds codes back when the replicas go, and goes on without them when they stay away', {
  timeout: 60_000,
}, async () => {
  await using house = await startHouse({ waitReplicas: 'auto', waitMs: 100, replicasGoneAfterMs: 500 });
  const { pipeline, provider, servers } = house;
  await vi.waitUntil(() => house.seen('replicas:awaited').at(-1)?.replicas === 1, { timeout: 10_000 });
  for (const replica of servers.replicas) replica.freeze();
  const id = await pipeline.enqueue(bodyFor('beqelal', '123456'));
  await vi.waitUntil(() => missed(house, 'begin') > 0, { timeout: 10_000 });
  expect(provider.requests).toHaveLength(0);
  await told(house, id);
  await vi.waitUntil(() => house.seen('replicas:awaited').at(-1)?.replicas === 0, { timeout: 10_000 });
  expect(house.seen('replicas:awaited').map(({ replicas }) => replicas)).toEqual(
    [0, 1, 0].slice(-house.seen('replicas:awaited').length),
  );

  for (const replica of servers.replicas) replica.thaw();
  await vi.waitUntil(() => house.seen('replicas:awaited').at(-1)?.replicas === 1, { timeout: 10_000 });
});

test('auto sends no code while one of two replicas has left: it may be the one that takes the place', {
  timeout: 60_000,
}, async () => {
  await using servers = await startTestReplicas(2);
  await using house = await startHouse({ waitReplicas: 'auto', waitMs: 100, replicasGoneAfterMs: 60_000 }, servers);
  const { pipeline, provider } = house;
  await vi.waitUntil(() => house.seen('replicas:awaited').at(-1)?.replicas === 2, { timeout: 10_000 });
  const [leaving] = servers.replicas;
  const { host = '', port = 0 } = servers.master.redis.options;
  await leaving?.redis.replicaof('NO', 'ONE'); // what a sentinel tells it first; the others still follow the old one
  await pipeline.enqueue(bodyFor('beqelal', '123456'));
  await vi.waitUntil(() => missed(house, 'begin') > 1, { timeout: 10_000 });
  expect(provider.requests).toHaveLength(0);

  await leaving?.redis.replicaof(host, port);
  await vi.waitUntil(() => provider.requests.length === 1, { timeout: 20_000 });
});
