/** A verification is accepted when as many replicas as wanted have it: no failover forgets what was answered. */
import { expect, test, vi } from 'vitest';
import { createProducer, type Producer } from '../../src/index.ts';
import { newKey } from '../../src/key-files.ts';
import { claimKey, partitionKeys } from '../../src/producers/job.ts';
import { connectRedis } from '../../src/redis/connections.ts';
import { Held } from '../../src/redis/held.ts';
import { startTestReplicas, type TestReplicas } from '../support/servers.ts';

const CLIENT = { id: 'shop', apiKey: 'api-key-of-the-shop-in-the-test' };
const BODY = { provider: 'cepta', otp: '012345', params: { transactionRef: 'TX1', paymentId: 'P', md: 'm' } };

async function producerOf({ url }: TestReplicas, waitReplicas?: number | 'auto'): Promise<Producer> {
  return createProducer({
    ...{ client: CLIENT, redis: url, partitions: { cepta: {} }, waitMs: 2_000, timeLimitMs: 8_000 },
    sealingKeys: { keys: [await newKey('otp')] },
    ...(waitReplicas === undefined ? {} : { waitReplicas }),
  });
}

/** Whoever has just begun to follow answers late for once; and the master says of it what `auto` goes by. */
async function untilFollowed({ master: { redis } }: TestReplicas): Promise<void> {
  const isFollowed = async (): Promise<boolean> => {
    await redis.set('written', '1');
    return (await redis.wait(1, 1_000)) === 1 && /state=online,[^\n]*lag=[01]\b/.test(await redis.info('replication'));
  };
  await vi.waitUntil(async () => await isFollowed().catch(() => false), 10_000);
}

test.each(['auto', 1] as const)('with waitReplicas %s', async (waitReplicas) => {
  await using servers = await startTestReplicas();
  await untilFollowed(servers);
  await using producer = await producerOf(servers, waitReplicas);
  const first = await producer.enqueue(BODY, { idempotencyKey: 'k-1' });
  const [replica] = servers.replicas;
  expect(await replica?.redis.exists(partitionKeys('cepta').record(first.id))).toBe(1);

  replica?.freeze();
  const second = { ...BODY, params: { ...BODY.params, transactionRef: 'TX2' } };
  await expect(producer.enqueue(second, { idempotencyKey: 'k-2' })).rejects.toMatchObject({
    name: 'AcceptanceUnknownError',
  });
  expect(await servers.master.redis.hget(claimKey('shop', 'k-2'), 'at')).not.toBeNull();

  // The same key gives the one answer, once a replica has it.
  replica?.thaw();
  await servers.master.redis.hset(claimKey('shop', 'k-2'), 'at', Date.now() - 10_001);
  const { id } = await vi.waitFor(async () => await producer.enqueue(second, { idempotencyKey: 'k-2' }), 10_000);
  expect(await servers.master.redis.hget(claimKey('shop', 'k-2'), 'id')).toBe(id);
  expect(await servers.master.redis.zcard(partitionKeys('cepta').due)).toBe(2);
  expect(await replica?.redis.exists(partitionKeys('cepta').record(id))).toBe(1);
});

test('a claim of which it is not known that replicas have it is none, and nothing is journaled under it', async () => {
  await using servers = await startTestReplicas();
  await untilFollowed(servers);
  await using producer = await producerOf(servers, 1);
  await producer.enqueue(BODY, { idempotencyKey: 'k-1' });
  const { redis } = servers.master;

  servers.replicas[0]?.freeze();
  const enqueued = producer.enqueue(BODY, { idempotencyKey: 'k-2' });
  enqueued.catch(() => {});
  await vi.waitUntil(async () => (await redis.exists(claimKey('shop', 'k-2'))) === 1, 10_000);
  const clients = String(await redis.call('CLIENT', 'LIST')).split('\n');
  for (const client of clients.filter((line) => line.includes('name=otp-replicated'))) {
    await redis.call('CLIENT', 'KILL', 'ID', /id=(\d+)/.exec(client)?.[1] ?? '');
  }

  await expect(enqueued).rejects.toMatchObject({ name: 'AcceptanceUnknownError' });
  expect(await redis.zcard(partitionKeys('cepta').due)).toBe(1);
});

test('where there are none, auto waits for none', async () => {
  await using servers = await startTestReplicas(0);
  await using producer = await producerOf(servers);
  await producer.enqueue(BODY, { idempotencyKey: 'k-1' });
  expect(await servers.master.redis.info('commandstats')).not.toContain('cmdstat_wait:');
});

test('what was refused because Redis is away is not said once more when it is back', async () => {
  await using servers = await startTestReplicas();
  const redis = connectRedis(servers.url, 'producer', { onError: () => {} });
  const held = new Held({ redis, waitReplicas: 1, waitMs: 10_000, onError: () => {} });
  await untilFollowed(servers);
  await servers.master.redis.set('{tag}:key', 'kept');
  await held.demand(['{tag}:key']);

  await servers.master.kill();
  await expect(held.demand(['{tag}:key'])).rejects.toThrow();
  await servers.master.start();
  await untilFollowed(servers);
  await held.demand(['{tag}:key']);
  const scripts = await servers.master.redis.info('commandstats');
  expect(Number(/cmdstat_evalsha:calls=(\d+)/.exec(scripts)?.[1])).toBe(1);
  held.close();
  redis.disconnect();
});
