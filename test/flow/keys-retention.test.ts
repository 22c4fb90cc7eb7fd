/** docs/retention.md is true: no key that it does not name, and a time to live wherever it promises one. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Queue, UnrecoverableError, Worker } from 'bullmq';
import { request } from 'undici';
import { describe, expect, test, vi } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { EventBus } from '../../src/events.ts';
import { createResultsConsumer } from '../../src/index.ts';
import { newKey, writeKeySet } from '../../src/key-files.ts';
import { startService } from '../../src/main.ts';
import { accept } from '../../src/producers/accept.ts';
import {
  claimKey,
  partitionKeys,
  RESULTS_QUEUE,
  resultsPrefix,
  type VerificationJob,
  webhookQueueName,
  webhookQueuePrefix,
} from '../../src/producers/job.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { startSandbox } from '../../src/sandbox/index.ts';
import { Retention, type RetentionSettings } from '../../src/workers/retention.ts';
import { everyKey, type StoredKey } from '../support/every-key.ts';
import { bodyFor, CLIENT, startPipeline } from '../support/pipeline.ts';
import { behaviours, startProviderServer } from '../support/provider-server.ts';
import { startTestRedis } from '../support/redis.ts';

interface Line {
  readonly key: string;
  readonly pattern: RegExp;
  readonly livesFor: 'a time' | 'bounded';
}

/** The lines of the page's tables, in their order: the first that fits a key is its line. */
const lines: readonly Line[] = readFileSync(new URL('../../docs/retention.md', import.meta.url), 'utf8')
  .split('\n')
  .map((line) => line.split('|').map((cell) => cell.trim()))
  .filter(([, key]) => key?.startsWith('`'))
  .map(([, key = '', , kept = '']) => {
    const name = key.replaceAll('`', '');
    const pattern = name.replace(/[{}.*+?]/g, '\\$&').replace(/<[^>]+>/g, '[^:]+');
    if (!kept.startsWith('bounded: ') && !kept.includes('a time to live')) throw new Error(`how long is ${key} kept?`);
    return {
      key: name,
      pattern: new RegExp(`^${pattern}$`),
      livesFor: kept.startsWith('bounded') ? 'bounded' : 'a time',
    };
  });

const lineOf = (key: string): Line | undefined => lines.find(({ pattern }) => pattern.test(key));

/** What contradicts the page, for a server on which every verification is final. */
const faultsIn = (keys: readonly StoredKey[]): string[] =>
  keys.flatMap(({ key, ttlMs }) => {
    const line = lineOf(key);
    if (line === undefined) return [`${key}: no line names it`];
    return line.livesFor === 'a time' && ttlMs < 0 ? [`${key}: lives for ever, ${line.key} does not`] : [];
  });

const SHOP_KEY = 'api-key-of-the-shop-that-nobody-guesses';

describe('a service with a short retention', () => {
  test('keeps no key for ever that the page does not name', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'otp-retention-'));
    writeKeySet(join(folder, 'keys.json'), { keys: [await newKey('otp')] });
    await using server = await startTestRedis();
    await using sandbox = await startSandbox({ settleAfterMs: 0 });
    const told: string[] = [];
    const receiver = createServer((message, answer) => {
      told.push(String(message.headers['webhook-id']));
      message.resume().once('end', () => answer.writeHead(204).end());
    }).listen(0, '127.0.0.1');
    await once(receiver, 'listening');
    const redis = connectRedis(server.url, 'worker', { onError: () => {} });
    const config = loadConfig({
      environment: {},
      baseDir: folder,
      data: {
        redis: { url: server.url },
        intake: { port: 0 },
        console: { port: 0 },
        clients: [{ id: 'shop', apiKey: SHOP_KEY, rateLimit: { max: 1_000, perMs: 1_000 } }],
        sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json' },
        results: {
          webhooks: [
            {
              client: 'shop',
              url: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`,
              secret: `whsec_${Buffer.from('a secret of the tests, of 32 bytes').toString('base64')}`,
            },
          ],
        },
        journal: { retentionMs: 2_500 },
        providers: Object.fromEntries(
          Object.entries(sandbox.providers).map(([name, entry]) => [
            name,
            // What was submitted is remembered for as long as its code may be alive.
            { ...entry, otpLifetimeMs: 6_000, inquiry: { delaysMs: [50, 100] } },
          ]),
        ),
        log: { level: 'silent' },
      },
    });
    const service = await startService(config);
    const handled: string[] = [];
    const consumer = createResultsConsumer({
      redis: server.url,
      handler: async ({ id }) => {
        handled.push(id);
      },
    });
    try {
      const phone = { phone_number: '+254712345678' };
      const sent = { id_number: '12345678', ...phone };
      const ended = await Promise.all([
        post(service.intakeUrl, bodyFor('hello-clever', '246810')),
        post(service.intakeUrl, bodyFor('hello-clever', '800002')), // lost, and found by inquiry
        post(service.intakeUrl, bodyFor('cepta', '400001')),
        post(service.intakeUrl, bodyFor('cepta', '246810')),
        post(service.intakeUrl, bodyFor('ayoconnect', '975310')),
        post(service.intakeUrl, bodyFor('beqelal', '012345')),
        post(service.intakeUrl, bodyFor('lipa-later', '135790')),
        post(service.intakeUrl, { provider: 'lipa-later', operation: 'send', params: sent }),
        post(service.intakeUrl, { ...bodyFor('cepta', '246810'), expiresAt: new Date(Date.now() + 1).toISOString() }),
      ]);
      for (const { final } of ended) expect(final).toBe(true);
      const published = ended.reduce((sum, { sequence }) => sum + sequence, 0);
      await vi.waitUntil(() => handled.length >= published && new Set(told).size >= published, { timeout: 20_000 });

      const keys = await everyKey(redis);
      expect(faultsIn(keys)).toEqual([]);
      // And the run was one that shows something: what a verification leaves behind was there.
      const seen = new Set(keys.map(({ key }) => lineOf(key)?.key));
      for (const family of ['v:<id>', 'ref:<reference>', 'token:<call>:<account>:<whose>', 'worker:<name>']) {
        expect(seen).toContain(`{otp-<partition>}:${family}`);
      }
      for (const family of ['{idem-<client>}:<hash>', '{<results>}:handled:<id>']) expect(seen).toContain(family);

      await vi.waitUntil(async () => (await redis.keys('*}:v:*')).length === 0, { timeout: 20_000 });
      await vi.waitUntil(async () => (await redis.keys('*}:ref:*')).length === 0, { timeout: 20_000 });
      const left = (await everyKey(redis)).filter(({ ttlMs }) => ttlMs < 0);
      const families = [...new Set(left.map(({ key }) => lineOf(key)?.key))].sort();
      const bounded = ['meta', 'id', 'events', 'marker'].map((name) => `{<slot>}:<queue>:${name}`);
      const ofPartition = ['epoch', 'outbox', 'workers'].map((name) => `{otp-<partition>}:${name}`);
      const allowed = [...bounded, ...ofPartition, 'otp-partitions'];
      expect(families.filter((family) => !allowed.includes(family ?? ''))).toEqual([]);
      for (const { key, content } of left.filter(({ key }) => key.endsWith(':outbox')))
        expect([key, content]).toEqual([key, '[]']);
    } finally {
      await consumer.close();
      await service.close();
      redis.disconnect();
      receiver.close();
      rmSync(folder, { recursive: true, force: true });
    }
  }, 60_000);
});

describe('nothing is left behind for ever', () => {
  const WRONG_CODE = { status: false, data: { errors: [{ errorCode: 'INVALID_OTP' }] } };
  const ANSWERS = {
    token: { access_token: 'token', expires_in: 3_600 },
    sent: { status: 200, data: 'sent' },
    verified: { status: 200, data: { id: 7 } },
  };

  test('by a code that is answered after a new one was sent to the same customer', async () => {
    const held: (() => void)[] = [];
    await using server = await startProviderServer((socket, sent) => {
      const say = (body: unknown): void => behaviours.saysJson(200, body)(socket, sent);
      if (sent.path.includes('token')) say(ANSWERS.token);
      else if (sent.path.includes('send')) say(ANSWERS.sent);
      else held.push(() => say(ANSWERS.verified));
    });
    await using pipeline = await startPipeline({
      'lipa-later': { baseUrl: server.url, credentials: { clientId: 'c', clientSecret: 's' } },
    });
    const verify = bodyFor('lipa-later', '135790');
    const { id_number, phone_number } = verify.params as Record<string, string>;
    const first = await pipeline.enqueue(verify);
    await vi.waitUntil(() => held.length === 1, 10_000);
    const again = { provider: 'lipa-later', operation: 'send', params: { id_number, phone_number } };
    expect(await pipeline.final(await pipeline.enqueue(again))).toMatchObject({ otp: 'accepted' });
    held[0]?.();
    expect(await pipeline.final(first)).toMatchObject({ otp: 'accepted' });
    const references = (await everyKey(pipeline.redis)).filter(({ key }) => key.includes(':ref:'));
    expect(references.filter(({ ttlMs }) => ttlMs < 0)).toEqual([]);
  }, 30_000);

  test('by a verification that ends before its acceptance does', async () => {
    await using server = await startProviderServer(behaviours.saysJson(200, WRONG_CODE));
    await using pipeline = await startPipeline({ cepta: { baseUrl: server.url, credentials: { secretKey: 'key' } } });
    const queue = (partition: string): Queue<VerificationJob> => {
      const real = pipeline.queue(partition);
      const slow = Object.create(real) as Queue<VerificationJob>;
      slow.add = async (...given) => {
        const job = await real.add(...given);
        await pipeline.final(job.data.id);
        await vi.waitUntil(async () => (await pipeline.result(`${job.data.id}.1`)) !== null, 10_000);
        await vi.waitUntil(async () => (await pipeline.redis.pttl(claimKey(CLIENT.id, 'a-key'))) > 0, 10_000);
        return job;
      };
      return slow;
    };
    const acceptance = await accept(CLIENT, 'a-key', bodyFor('cepta', '123456'), { ...pipeline.accepting, queue });
    expect(acceptance.kind).toBe('accepted');
    expect(faultsIn(await everyKey(pipeline.redis)).filter((fault) => fault.startsWith('{idem-'))).toEqual([]);
  }, 30_000);

  test('by the repeat of an acceptance that died, when its verification has ended', async () => {
    await using server = await startProviderServer(behaviours.saysJson(200, WRONG_CODE));
    await using pipeline = await startPipeline({ cepta: { baseUrl: server.url, credentials: { secretKey: 'key' } } });
    const body = bodyFor('cepta', '123456');
    const id = await pipeline.enqueue(body, 'the-same-key');
    await pipeline.final(id);
    const claim = claimKey(CLIENT.id, 'the-same-key');
    await vi.waitUntil(async () => (await pipeline.redis.pttl(claim)) > 0, 10_000);
    // As it stands when the process that accepted it died before its last word.
    await pipeline.redis.hset(claim, 'at', '0');
    expect(await pipeline.enqueue(body, 'the-same-key')).toBe(id);
    expect(await pipeline.redis.pttl(claim)).toBeGreaterThan(0);
  }, 30_000);
});

describe('what nobody lets go of by itself', () => {
  const DAY_MS = 24 * 3_600_000;
  const SETTINGS: RetentionSettings = { resultsMs: DAY_MS, failedJobsMs: DAY_MS, auditMs: DAY_MS, lossWindowMs: 0 };
  const keys = partitionKeys('cepta');

  async function retain(redis: RedisConnection, settings: Partial<RetentionSettings> = {}): Promise<void> {
    const failed: unknown[] = [];
    const events = new EventBus();
    events.on('machinery:failed', (fault) => failed.push(fault));
    const deps = { redis, events, partitions: ['cepta'], resultsQueues: [RESULTS_QUEUE], webhookClients: ['shop'] };
    const retention = new Retention({ ...SETTINGS, ...settings }, deps);
    retention.start();
    await retention.close();
    expect(failed).toEqual([]);
  }

  test('results that nobody fetched, and jobs that were set aside, go after their time', async () => {
    await using pipeline = await startPipeline({}, { workers: false });
    const { redis } = pipeline;
    const results = new Queue(RESULTS_QUEUE, { connection: redis, prefix: resultsPrefix(RESULTS_QUEUE) });
    const old = { timestamp: Date.now() - 2 * DAY_MS };
    await results.add('old', {}, old);
    await results.add('old, for later', {}, { ...old, delay: 10 * DAY_MS });
    await results.add('new', {});
    const webhooks = new Queue(webhookQueueName('shop'), { connection: redis, prefix: webhookQueuePrefix('shop') });
    await webhooks.pause(); // as after a 410
    await webhooks.add('old', {}, old);
    await webhooks.add('old, to be tried again', {}, { ...old, delay: 1_000 });
    await webhooks.add('new', {});
    const callbacks = new Queue(keys.callbackQueue, { connection: redis, prefix: keys.prefix });
    const worker = new Worker(keys.callbackQueue, async () => Promise.reject(new UnrecoverableError('unreadable')), {
      ...{ connection: redis, prefix: keys.prefix },
    });
    await callbacks.add('set aside', {});
    await vi.waitUntil(async () => (await callbacks.getFailedCount()) === 1, { timeout: 5_000 });
    await worker.close();

    await retain(redis);
    for (const queue of [results, webhooks]) expect((await queue.getJobs()).map(({ name }) => name)).toEqual(['new']);
    expect(await callbacks.getFailedCount()).toBe(1);
    await vi.waitUntil(async () => {
      await retain(redis, { failedJobsMs: 1 });
      return (await callbacks.getFailedCount()) === 0;
    }, 10_000);
    expect(await redis.keys(`${keys.prefix}:${keys.callbackQueue}:1`)).toEqual([]);
    await Promise.all([results.close(), webhooks.close(), callbacks.close()]);
  }, 30_000);

  test('workers that died go after a day, those that were there when Redis was last seen do not', async () => {
    await using pipeline = await startPipeline({}, { workers: false });
    const { redis } = pipeline;
    const seenAt = Date.now() - 5 * DAY_MS; // Redis has been away since
    await redis.hset(keys.epoch, { server: 'before', seenAt });
    await redis.zadd(keys.workers, seenAt - 2 * DAY_MS, 'long gone', seenAt - 1_000, 'may have begun something');
    await redis.xadd(keys.audit, `${Date.now() - 2 * DAY_MS}-0`, 'id', 'then');
    await redis.xadd(keys.audit, '*', 'id', 'now');

    await retain(redis);
    expect(await redis.zrange(keys.workers, '0', '-1')).toEqual(['may have begun something']);
    expect((await redis.xrange(keys.audit, '-', '+')).map(([, fields]) => fields)).toEqual([['id', 'now']]);
  }, 30_000);
});

async function post(intakeUrl: string | null, body: Record<string, unknown>): Promise<VerificationResource> {
  const headers = { authorization: `Bearer ${SHOP_KEY}`, 'content-type': 'application/json' };
  const accepted = await request(`${intakeUrl}/v1/verifications`, {
    method: 'POST',
    headers: { ...headers, 'idempotency-key': randomUUID(), prefer: 'wait=20' },
    body: JSON.stringify(body),
  });
  let resource = (await accepted.body.json()) as VerificationResource;
  for (let rounds = 0; !resource.final && rounds < 5; rounds += 1) {
    const later = await request(`${intakeUrl}/v1/verifications/${resource.id}?after=${resource.sequence}`, {
      headers: { ...headers, prefer: 'wait=20' },
    });
    resource = (await later.body.json()) as VerificationResource;
  }
  return resource;
}
