/** Webhooks over real sockets: signed, at least once, and each receiver for itself. */
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Queue } from 'bullmq';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { EventBus, type Events } from '../../src/events.ts';
import { webhookQueueName, webhookQueuePrefix } from '../../src/producers/job.ts';
import type { ResultEvent } from '../../src/producers/result.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { Secret } from '../../src/secret.ts';
import { signatureOf, WEBHOOK_DELAYS_MS, WEBHOOK_JOB_OPTIONS, WebhookSender } from '../../src/workers/webhooks.ts';
import { startReceiver } from '../sandbox/receiver.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { install, otp } from '../support/service.ts';

let server: TestRedis;
let redis: RedisConnection;
const open: { close(): Promise<unknown> }[] = [];
const WITHIN_10_S = { timeout: 10_000, interval: 5 };
const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';

beforeAll(async () => {
  server = await startTestRedis();
  redis = connectRedis(server.url, 'worker', { onError: () => {} });
});
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close();
});
afterAll(async () => {
  redis.disconnect();
  await server[Symbol.asyncDispose]();
});

type Ended = Events['webhook:ended'];

async function alwaysAnswering(status: number, headers: Record<string, string>): Promise<string> {
  const receiver = createServer((request, response) => {
    request.resume().on('end', () => response.writeHead(status, headers).end());
  });
  await new Promise<void>((ready) => receiver.listen(0, '127.0.0.1', ready));
  open.push({
    close: async () => {
      receiver.closeAllConnections();
      receiver.close();
    },
  });
  return `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/hook`;
}

let clients = 0;
function deliveryTo(url: string, { timeoutMs = 5_000, delaysMs = [20], stalledIntervalMs = 200 } = {}) {
  clients += 1;
  const client = `shop-${clients}`;
  const ended: Ended[] = [];
  const events = new EventBus();
  events.on('webhook:ended', (one) => ended.push(one));
  const queue = new Queue<ResultEvent>(webhookQueueName(client), {
    connection: redis,
    prefix: webhookQueuePrefix(client),
  });
  const sender = (): WebhookSender => {
    const made = new WebhookSender(
      { client, url, secret: new Secret(SECRET) },
      { redis, events, connect: {}, timeoutMs, delaysMs, stalledIntervalMs },
    );
    open.push(made);
    made.start();
    return made;
  };
  open.push(queue);
  const put = async (sequence: number): Promise<void> => {
    const event = { ...EVENT, id: `${EVENT.subject}.${sequence}` };
    await queue.add(event.type, event, { ...WEBHOOK_JOB_OPTIONS, attempts: delaysMs.length + 1, jobId: event.id });
  };
  return { client, ended, queue, sender, put };
}

const EVENT = {
  specversion: '1.0',
  id: 'cepta_019f0000000000000000000000000001.1',
  source: '/otp/cepta',
  type: 'otp.verification.settled',
  subject: 'cepta_019f0000000000000000000000000001',
  time: '2026-11-22T01:00:00.000Z',
  client: 'shop',
  datacontenttype: 'application/json',
  data: { otp: 'accepted', transaction: 'succeeded' },
} as unknown as ResultEvent;

describe('a delivery', () => {
  test('is the result as a CloudEvent, signed over its id, its time and its bytes', async () => {
    await using receiver = await startReceiver();
    const { put, sender, ended } = deliveryTo(receiver.url);
    await put(1);
    sender();
    const [letter] = await receiver.came(1);
    expect(letter?.json).toEqual(EVENT);
    const headers = (letter?.headers ?? {}) as Record<string, string>;
    expect(headers['content-type']).toBe('application/cloudevents+json; charset=utf-8');
    expect(headers['webhook-id']).toBe(EVENT.id);
    expect(Math.abs(Number(headers['webhook-timestamp']) - Date.now() / 1_000)).toBeLessThan(10);
    // As the standard's text has it, with nothing of ours.
    const key = Buffer.from(SECRET.slice(6), 'base64');
    const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${letter?.text}`;
    expect(headers['webhook-signature']).toBe(`v1,${createHmac('sha256', key).update(signed).digest('base64')}`);
    await vi.waitFor(() => expect(ended).toMatchObject([{ outcome: 'delivered', attempt: 1, detail: '200' }]), 10_000);
  });

  test('that is refused comes again with the same id, and a new time under its signature', async () => {
    await using receiver = await startReceiver((_, index) => (index === 0 ? 500 : 204));
    const { put, sender, ended } = deliveryTo(receiver.url, { delaysMs: [1_500] });
    await put(1);
    sender();
    const [first, second] = await receiver.came(2);
    expect(second?.headers['webhook-id']).toBe(first?.headers['webhook-id']);
    expect(second?.headers['webhook-timestamp']).not.toBe(first?.headers['webhook-timestamp']);
    expect(second?.headers['webhook-signature']).not.toBe(first?.headers['webhook-signature']);
    await vi.waitFor(() => expect(ended.map(({ outcome }) => outcome)).toEqual(['failed', 'delivered']), 10_000);
  });

  test('follows no redirect', async () => {
    await using elsewhere = await startReceiver();
    const url = await alwaysAnswering(307, { location: elsewhere.url });
    const { put, sender, ended } = deliveryTo(url);
    await put(1);
    sender();
    await vi.waitFor(() => expect(ended.map(({ outcome }) => outcome)).toEqual(['failed', 'given_up']), WITHIN_10_S);
    expect(elsewhere.received).toEqual([]);
  });

  test('that was never taken stays among the failed, to be replayed with all its tries', async () => {
    await using receiver = await startReceiver((_, index) => (index < 3 ? 500 : 200));
    const { client, put, sender, queue, ended } = deliveryTo(receiver.url);
    await using installation = await install({
      redis: { url: server.url },
      clients: [{ id: client, apiKey: 'api-key-of-the-shop-in-the-test' }],
      providers: { cepta: { baseUrl: 'https://cepta.example', credentials: { secretKey: 'key' } } },
      results: { webhooks: [{ client, url: receiver.url, secret: SECRET }] },
    });
    await put(1);
    sender();
    await vi.waitFor(async () => expect(await queue.getFailedCount()).toBe(1), WITHIN_10_S);
    expect(ended.at(-1)?.outcome).toBe('given_up');
    const replay = await otp(['webhooks', 'replay', client, '--config', installation.file, '--json']);
    expect(replay).toMatchObject({ code: 0, output: `${JSON.stringify({ client, replayed: 1 })}\n` });
    await receiver.came(4);
    await vi.waitFor(() => expect(ended.at(-1)?.outcome).toBe('delivered'), WITHIN_10_S);
    expect(ended.slice(2)).toMatchObject([
      { outcome: 'failed', attempt: 1 },
      { outcome: 'delivered', attempt: 2 },
    ]);
  });

  test('in the hands of a process that died is made by the next one', async () => {
    let answer = (_: number): void => {};
    const held = new Promise<number>((resolve) => {
      answer = resolve;
    });
    await using receiver = await startReceiver((_, index) => (index === 0 ? held : 200));
    const { put, queue, ended, sender } = deliveryTo(receiver.url);
    await put(1);
    sender();
    await receiver.came(1);
    // As a killed process leaves it: active, and its lock gone.
    await redis.del(queue.toKey(`${EVENT.id}:lock`));
    sender();
    await receiver.came(2);
    await vi.waitFor(() => expect(ended.some(({ outcome }) => outcome === 'delivered')).toBe(true), WITHIN_10_S);
    answer(200);
  });
});

describe('a receiver', () => {
  test('that answers 410 gets nothing more until somebody says so', async () => {
    await using receiver = await startReceiver((_, index) => (index === 0 ? 410 : 200));
    const { put, sender, queue, ended } = deliveryTo(receiver.url);
    await put(1);
    sender();
    await vi.waitFor(async () => expect(await queue.isPaused()).toBe(true), WITHIN_10_S);
    expect(ended).toMatchObject([{ outcome: 'gone' }]);
    await put(2);
    await put(3);
    expect(receiver.received).toHaveLength(1);
    await queue.resume();
    await receiver.came(3);
    expect(await queue.getFailedCount()).toBe(1);
  });

  test('that says when to come again is obeyed', async () => {
    const url = await alwaysAnswering(503, { 'retry-after': '120' });
    const { put, sender, queue, ended } = deliveryTo(url);
    await put(1);
    sender();
    await vi.waitFor(async () => expect(await queue.getDelayedCount()).toBe(1), WITHIN_10_S);
    expect(ended).toMatchObject([{ outcome: 'failed', detail: '503' }]);
    expect((await queue.getJob(`${EVENT.subject}.1`))?.delay).toBeGreaterThanOrEqual(119_000);
  });

  test('that never answers delays nobody else', async () => {
    await using silent = await startReceiver(() => new Promise<number>(() => {}));
    await using lively = await startReceiver();
    const slow = deliveryTo(silent.url, { timeoutMs: 400 });
    const quick = deliveryTo(lively.url);
    for (let sequence = 1; sequence <= 30; sequence += 1) {
      await slow.put(sequence);
      await quick.put(sequence);
    }
    slow.sender();
    quick.sender();
    await lively.came(30);
    await vi.waitFor(() => expect(slow.ended.some(({ detail }) => detail === 'TIMEOUT')).toBe(true), WITHIN_10_S);
    expect(slow.ended.every(({ outcome }) => outcome !== 'delivered')).toBe(true);
  });
});

test('tries go on for three days, the first of them within five seconds', () => {
  const hours = WEBHOOK_DELAYS_MS.reduce((sum, delay) => sum + delay, 0) / 3_600_000;
  expect(hours).toBeGreaterThan(72);
  expect(hours).toBeLessThan(75);
  expect(WEBHOOK_DELAYS_MS[0]).toBeLessThan(5_000);
});

/** The example of the standard's own libraries: https://github.com/standard-webhooks/standard-webhooks */
test('a signature is the one that the libraries of Standard Webhooks make', () => {
  const key = Buffer.from('MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'base64');
  expect(signatureOf(key, 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330', '{"test": 2432232314}')).toBe(
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
  );
});
