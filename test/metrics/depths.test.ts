import { Queue } from 'bullmq';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { collectDepths, DepthReader, WORKER_SILENT_MS, watchingQueue } from '../../src/metrics/depths.ts';
import { newVerificationId, partitionKeys, VERIFICATION_JOB_OPTIONS } from '../../src/producers/job.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { HEARTBEAT_LIFE_MS } from '../../src/workers/witness.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { BEST_OF_THREE } from '../support/timing.ts';

const keys = partitionKeys('cepta');
/** What a scrape says when Redis says nothing. */
const NOTHING_BUT = [
  ['otp_redis_up', 0],
  ['otp_scrape_incomplete', 1],
];
let server: TestRedis;
let redis: RedisConnection;
let producer: Queue;
let watching: Queue;

beforeAll(async () => {
  server = await startTestRedis();
  redis = connectRedis(server.url, 'console', { onError: () => {} });
  producer = new Queue(keys.queue, {
    prefix: keys.prefix,
    connection: { url: server.url },
    streams: { events: { maxLen: 7 } },
  });
  producer.on('error', () => {});
  watching = watchingQueue(keys.queue, keys.prefix, redis, () => {});
  await producer.waitUntilReady();
});

afterAll(async () => {
  await Promise.all([producer.close(), watching.close()]);
  redis.disconnect();
  await server[Symbol.asyncDispose]();
});

/** A reader of its own has nothing cached. */
function scraped(): Registry {
  const registry = new Registry();
  collectDepths(registry, new DepthReader({ redis, queues: [watching], partitions: [{ name: 'cepta', keys }] }));
  return registry;
}

async function samples(registry: Registry): Promise<Map<string, number>> {
  const lines = (await registry.metrics()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  );
}

describe('depths at scrape time', () => {
  it('says 0 of an empty pipeline', async () => {
    const found = await samples(scraped());
    expect(found.get('otp_queue_jobs{queue="otp-cepta",state="waiting"}')).toBe(0);
    expect(found.get('otp_queue_oldest_job_age_seconds{queue="otp-cepta"}')).toBe(0);
    expect(found.get('otp_unresolved{provider="cepta"}')).toBe(0);
    expect(found.get('otp_unresolved_oldest_age_seconds{provider="cepta"}')).toBe(0);
    expect(found.get('otp_needs_review{provider="cepta"}')).toBe(0);
    expect(found.get('otp_needs_review_oldest_age_seconds{provider="cepta"}')).toBe(0);
    expect(found.get('otp_overdue_seconds{provider="cepta"}')).toBe(0);
    expect(found.get('otp_queue_code_life_used_ratio{provider="cepta"}')).toBe(0);
    expect(found.get('otp_workers{provider="cepta"}')).toBe(0);
    expect(found.get('otp_queue_paused{queue="otp-cepta"}')).toBe(0);
    expect(found.get('otp_scrape_incomplete')).toBe(0);
  });

  it('counts jobs, what awaits proof and what waits for a person, and says how old the oldest is', async () => {
    const now = Date.now();
    const ids = [newVerificationId('cepta'), newVerificationId('cepta')] as const;
    await producer.add('verify', { v: 1, id: ids[0] }, { jobId: ids[0], timestamp: now - 60_000 });
    await producer.add('verify', { v: 1, id: ids[1] }, { jobId: ids[1], timestamp: now - 5_000 });
    await producer.add('verify', { v: 1, id: 'later' }, { delay: 60_000 });
    await redis.zadd(keys.awaiting, now - 7_000, ids[0], now - 90_000, ids[1]);
    await redis.zadd(keys.review, now - 40_000, ids[1]);

    const found = await samples(scraped());
    expect(found.get('otp_queue_jobs{queue="otp-cepta",state="waiting"}')).toBe(2);
    expect(found.get('otp_queue_jobs{queue="otp-cepta",state="delayed"}')).toBe(1);
    expect(found.get('otp_queue_oldest_job_age_seconds{queue="otp-cepta"}')).toBeCloseTo(60, -1);
    expect(found.get('otp_unresolved{provider="cepta"}')).toBe(2);
    expect(found.get('otp_unresolved_oldest_age_seconds{provider="cepta"}')).toBeCloseTo(90, -1);
    expect(found.get('otp_needs_review{provider="cepta"}')).toBe(1);
    expect(found.get('otp_needs_review_oldest_age_seconds{provider="cepta"}')).toBeCloseTo(40, -1);
    expect([...found.keys()].join()).not.toContain(ids[0]);
    await redis.del(keys.awaiting, keys.review);
    await producer.drain(true);
  });

  it('says how near to its deadline the code is that is next in line, and how late whoever looks after the rest', async () => {
    const now = Date.now();
    const [waits, isTriedAgain, isDead] = [1, 2, 3].map(() => newVerificationId('cepta')) as [string, string, string];
    const record = { state: 'queued', createdAt: now - 60_000, expiresAt: now + 180_000 };
    await redis.hset(keys.record(waits), record);
    await redis.hset(keys.record(isTriedAgain), { ...record, createdAt: now - 180_000, expiresAt: now + 60_000 });
    await redis.hset(keys.record(isDead), {
      ...record,
      state: 'settled',
      createdAt: now - 900_000,
      expiresAt: now - 1,
    });
    await redis.zadd(keys.due, now - 42_000, waits, now + 60_000, isTriedAgain);
    const lifeUsed = async () => (await samples(scraped())).get('otp_queue_code_life_used_ratio{provider="cepta"}');

    await producer.add('verify', { v: 1, id: waits }, { jobId: waits });
    expect(await lifeUsed()).toBeCloseTo(0.25, 1);
    await producer.add('verify', { v: 1, id: isTriedAgain }, { jobId: isTriedAgain, delay: 30_000 });
    expect(await lifeUsed()).toBeCloseTo(0.75, 1);
    await producer.remove(waits);
    await producer.remove(isTriedAgain);
    await producer.add('verify', { v: 1, id: isDead }, { jobId: isDead });
    await producer.add('verify', { v: 1, id: 'a stranger' }, { jobId: 'a-stranger', delay: 1_000 });
    expect(await lifeUsed()).toBe(0);
    expect((await samples(scraped())).get('otp_overdue_seconds{provider="cepta"}')).toBeCloseTo(42, -1);
    await redis.del(keys.due, ...[waits, isTriedAgain, isDead].map(keys.record));
  });

  it('says that the breaker is open, and not that it is half open or closed', async () => {
    const open = async () => (await samples(scraped())).get('otp_breaker_open{provider="cepta"}');
    expect(await open()).toBe(0);
    await redis.hset(keys.breaker, { state: 'open', until: Date.now() + 9_000 });
    expect(await open()).toBe(1);
    await redis.hset(keys.breaker, { state: 'half_open' });
    expect(await open()).toBe(0);
    await redis.hset(keys.breaker, { state: 'closed' });
    expect(await open()).toBe(0);
    await redis.del(keys.breaker);
  });

  it('finds the next in line among jobs with a priority, as verifications have one', async () => {
    await producer.drain(true);
    const id = newVerificationId('cepta');
    const now = Date.now();
    await redis.hset(keys.record(id), { state: 'queued', createdAt: now - 60_000, expiresAt: now + 60_000 });
    await producer.add(
      'verify',
      { v: 1, id: 'x' },
      { ...VERIFICATION_JOB_OPTIONS, jobId: 'x', timestamp: now - 1_000 },
    );
    await producer.add(
      'verify',
      { v: 1, id },
      { ...VERIFICATION_JOB_OPTIONS, jobId: id, timestamp: now - 60_000, priority: 1 },
    );
    const found = await samples(scraped());
    expect(found.get('otp_queue_oldest_job_age_seconds{queue="otp-cepta"}')).toBeCloseTo(60, -1);
    expect(found.get('otp_queue_code_life_used_ratio{provider="cepta"}')).toBeCloseTo(0.5, 1);
    await producer.drain(true);
    await redis.del(keys.record(id));
  });

  it('counts the workers that live, and no longer than they are alive to each other', async () => {
    expect(WORKER_SILENT_MS).toBe(HEARTBEAT_LIFE_MS);
    const now = Date.now();
    await redis.zadd(keys.workers, now, 'lives', now - 1_000, 'lives-too', now - WORKER_SILENT_MS - 1_000, 'has-died');
    expect((await samples(scraped())).get('otp_workers{provider="cepta"}')).toBe(2);
    await redis.del(keys.workers);
  });

  it('says that a queue is paused, until it goes on', async () => {
    const paused = async () => (await samples(scraped())).get('otp_queue_paused{queue="otp-cepta"}');
    await producer.pause();
    expect(await paused()).toBe(1);
    await producer.resume();
    expect(await paused()).toBe(0);
  });

  it('says how the server is', async () => {
    const said = async (name: string) => (await samples(scraped())).get(name);
    await redis.config('SET', 'maxmemory', '100mb');
    await redis.config('SET', 'maxmemory-policy', 'noeviction');
    await redis.config('SET', 'appendonly', 'no');
    const found = await samples(scraped());
    expect(found.get('otp_redis_up')).toBe(1);
    expect(found.get('otp_redis_memory_limit_bytes')).toBe(100 * 2 ** 20);
    expect(found.get('otp_redis_memory_used_bytes')).toBeGreaterThan(100_000);
    expect(found.get('otp_redis_noeviction')).toBe(1);
    expect(found.get('otp_redis_append_only')).toBe(0);
    expect(found.get('otp_redis_last_append_ok')).toBe(1);
    expect(found.get('otp_redis_last_save_ok')).toBe(1);
    expect(found.get('otp_redis_master')).toBe(1);
    expect(found.get('otp_redis_replicas')).toBe(0);

    await redis.config('SET', 'maxmemory-policy', 'allkeys-lru');
    await redis.config('SET', 'appendonly', 'yes');
    expect(await said('otp_redis_noeviction')).toBe(0);
    expect(await said('otp_redis_append_only')).toBe(1);
    await redis.config('SET', 'maxmemory-policy', 'noeviction');
    await redis.config('SET', 'maxmemory', '0');
    await redis.config('SET', 'appendonly', 'no');
  });

  it('knows a replica, which refuses every write', async () => {
    await using replica = await startTestRedis();
    const connection = connectRedis(replica.url, 'console', { onError: () => {} });
    const { hostname, port, password } = new URL(server.url);
    await connection.config('SET', 'masterauth', decodeURIComponent(password));
    await connection.replicaof(hostname, port);
    const registry = new Registry();
    collectDepths(registry, new DepthReader({ redis: connection, queues: [], partitions: [] }));
    expect((await samples(registry)).get('otp_redis_master')).toBe(0);
    await expect.poll(async () => (await samples(scraped())).get('otp_redis_replicas'), { timeout: 10_000 }).toBe(1);
    connection.disconnect();
  });

  it("leaves the settings of the producer's queue alone", async () => {
    await samples(scraped());
    expect(await redis.hget(producer.toKey('meta'), 'opts.maxLenEvents')).toBe('7');
  });

  it('reads once for scrapes that come together or within a second', async () => {
    const registry = scraped();
    const before = await readingsOf(redis);
    await Promise.all([registry.metrics(), registry.metrics()]);
    await registry.metrics();
    const calls = (await readingsOf(redis)) - before;
    expect(calls).toBe(1);
  });

  it(
    'answers when Redis is stopped, without old values, without asking again, and recovers',
    BEST_OF_THREE,
    async () => {
      const reader = new DepthReader({ redis, queues: [watching], partitions: [{ name: 'cepta', keys }] });
      const registry = new Registry();
      collectDepths(registry, reader);
      server.freeze();
      try {
        const began = performance.now();
        const found = await samples(registry);
        expect(performance.now() - began).toBeLessThan(1_900);
        expect([...found]).toEqual(NOTHING_BUT);
      } finally {
        server.thaw();
      }
      await expect.poll(async () => (await reader.read()).complete, { timeout: 5_000 }).toBe(true);
      expect((await samples(registry)).get('otp_scrape_incomplete')).toBe(0);
    },
  );

  it('answers at once when Redis is gone', BEST_OF_THREE, async () => {
    await server.kill();
    try {
      const began = performance.now();
      const found = await samples(scraped());
      expect(performance.now() - began).toBeLessThan(1_900);
      expect([...found]).toEqual(NOTHING_BUT);
      expect((await new DepthReader({ redis, queues: [], partitions: [] }).read()).complete).toBe(false);
    } finally {
      await server.start();
    }
    await expect.poll(async () => (await samples(scraped())).get('otp_scrape_incomplete'), { timeout: 5_000 }).toBe(0);
  });
});

/** Each reading asks for the time once. */
async function readingsOf(connection: RedisConnection): Promise<number> {
  return Number(/cmdstat_time:calls=(\d+)/.exec(await connection.info('commandstats'))?.[1] ?? 0);
}
