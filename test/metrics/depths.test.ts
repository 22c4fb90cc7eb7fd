import { Queue } from 'bullmq';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { collectDepths, DepthReader, watchingQueue } from '../../src/metrics/depths.ts';
import { newVerificationId, partitionKeys } from '../../src/producers/job.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

const keys = partitionKeys('cepta');
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
    expect(found.get('otp_scrape_incomplete')).toBe(0);
  });

  it('counts jobs, what awaits proof and what waits for a person, and says how old the oldest is', async () => {
    const now = Date.now();
    const ids = [newVerificationId('cepta'), newVerificationId('cepta')] as const;
    await producer.add('verify', { v: 1, id: ids[0] }, { jobId: ids[0], timestamp: now - 60_000 });
    await producer.add('verify', { v: 1, id: ids[1] }, { jobId: ids[1], timestamp: now - 5_000 });
    await producer.add('verify', { v: 1, id: 'later' }, { delay: 60_000 });
    await redis.zadd(keys.awaiting, now - 7_000, ids[0], now - 90_000, ids[1]);
    await redis.zadd(keys.review, now - 1_000, ids[1]);

    const found = await samples(scraped());
    expect(found.get('otp_queue_jobs{queue="otp-cepta",state="waiting"}')).toBe(2);
    expect(found.get('otp_queue_jobs{queue="otp-cepta",state="delayed"}')).toBe(1);
    expect(found.get('otp_queue_oldest_job_age_seconds{queue="otp-cepta"}')).toBeCloseTo(60, -1);
    expect(found.get('otp_unresolved{provider="cepta"}')).toBe(2);
    expect(found.get('otp_unresolved_oldest_age_seconds{provider="cepta"}')).toBeCloseTo(90, -1);
    expect(found.get('otp_needs_review{provider="cepta"}')).toBe(1);
    expect([...found.keys()].join()).not.toContain(ids[0]);
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

  it('answers when Redis is stopped, without old values, without asking again, and recovers', async () => {
    const reader = new DepthReader({ redis, queues: [watching], partitions: [{ name: 'cepta', keys }] });
    const registry = new Registry();
    collectDepths(registry, reader);
    server.freeze();
    try {
      const began = performance.now();
      const found = await samples(registry);
      expect(performance.now() - began).toBeLessThan(1_900);
      expect([...found]).toEqual([['otp_scrape_incomplete', 1]]);
    } finally {
      server.thaw();
    }
    await expect.poll(async () => (await reader.read()).complete, { timeout: 5_000 }).toBe(true);
    expect((await samples(registry)).get('otp_scrape_incomplete')).toBe(0);
  });

  it('answers at once when Redis is gone', async () => {
    await server.kill();
    try {
      const began = performance.now();
      const found = await samples(scraped());
      expect(performance.now() - began).toBeLessThan(1_900);
      expect([...found]).toEqual([['otp_scrape_incomplete', 1]]);
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
