import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import { Registry } from 'prom-client';
import { describe, expect, it, vi } from 'vitest';
import { createProducer } from '../../src/index.ts';
import { observe } from '../../src/metrics/observe.ts';
import { createMetrics } from '../../src/metrics/registry.ts';
import { claimKey, clientRateKey, partitionKeys } from '../../src/producers/job.ts';
import { Secret } from '../../src/secret.ts';
import { apiKeyHash, newApiKey } from '../../src/secret-hashes.ts';
import { demoRequest, eventually, KIOSK, type Reply, SETTLED, SHOP, startWorld, type World } from './world.ts';

const KEY = newApiKey();
const HASHED = { id: 'shop', apiKey: new Secret(apiKeyHash(KEY)) };

describe('an API key', () => {
  it('opens the door when only its hash is known, and the hash itself opens nothing', async () => {
    await using world = await startWorld({ clients: [HASHED] });
    expect((await world.call({ body: demoRequest(), key: 'k-1', apiKey: KEY })).status).toBe(202);
    for (const apiKey of [HASHED.apiKey.reveal(), HASHED.apiKey.reveal().slice(7), `${KEY}x`]) {
      expect((await world.call({ body: demoRequest(), key: 'k-1', apiKey })).status).toBe(401);
    }
  });

  it('is compared in constant time with that of every client, whichever it is', async () => {
    const clients = ['a', 'b', 'c', 'd'].map((id) => ({ id, apiKey: new Secret(`${id}-${KEY}`) }));
    await using world = await startWorld({ clients });
    const compared = vi.spyOn(crypto, 'timingSafeEqual');
    syncBuiltinESMExports();
    try {
      for (const [apiKey, status] of [
        [`a-${KEY}`, 404],
        [`d-${KEY}`, 404],
        ['x', 401],
        ['', 401],
      ] as const) {
        compared.mockClear();
        expect((await world.call({ method: 'GET', path: '/v1/verifications/x', apiKey })).status).toBe(status);
        expect(compared.mock.calls.map(([one, other]) => [one.byteLength, other.byteLength])).toEqual(
          clients.map(() => [32, 32]),
        );
      }
    } finally {
      compared.mockRestore();
      syncBuiltinESMExports();
    }
  });

  it('and its hash are one key: fingerprints and personal references are the same with either', async () => {
    await using world = await startWorld({ clients: [HASHED] });
    const options = {
      redis: world.server.url,
      sealingKeys: world.keySet,
      partitions: { kenya: { adapter: 'lipa-later' } },
    };
    await using plain = createProducer({ ...options, client: { id: 'shop', apiKey: KEY } });
    await using hashed = createProducer({ ...options, client: { id: 'shop', apiKey: HASHED.apiKey.reveal() } });
    const params = { id_number: '12345678', phone_number: '+254712345678' };
    const send = { provider: 'kenya', operation: 'send', params };
    const first = await plain.enqueue(send, { idempotencyKey: 'k-1' });
    expect(await hashed.enqueue(send, { idempotencyKey: 'k-1' })).toEqual({ id: first.id, repeated: true });
    const second = await hashed.enqueue(send, { idempotencyKey: 'k-2' });
    const references = await Promise.all([first, second].map(async ({ id }) => (await plain.read(id))?.reference));
    expect(references[0]).toBe(references[1]);

    // Keyed by the key: another one's fingerprint of the same body is another.
    await using other = createProducer({ ...options, client: { id: 'shop', apiKey: newApiKey() } });
    await expect(other.enqueue(send, { idempotencyKey: 'k-1' })).rejects.toThrow('used for another body');
    const verification = { ...demoRequest(), provider: 'demo' };
    await world.call({ body: verification, key: 'k-3', apiKey: KEY });
    const stored = JSON.stringify([
      await world.redis.hgetall(claimKey('shop', 'k-3')),
      await world.redis.hgetall(partitionKeys('kenya').record(first.id)),
    ]);
    expect(stored).not.toContain(KEY);
    expect(stored).not.toContain(apiKeyHash(KEY).slice(7));
  });
});

describe('the rate of a client', () => {
  it('is one over all intakes, counts what is new, and still answers repeats', async () => {
    const rateLimit = (client: string) => (client === 'shop' ? { max: 3, perMs: 60_000 } : null);
    await using world = await startWorld({ rateLimit });
    await using neighbour = await startWorld({ rateLimit, redis: world.redis, queue: world.queues.queue });
    const [first] = await Promise.all([
      world.post(demoRequest(), 'k-1'),
      neighbour.post(demoRequest(), 'k-2'),
      world.post(demoRequest(), 'k-3'),
    ]);
    expect(await world.jobs()).toBe(3);
    for (const one of [world, neighbour]) {
      const reply = await one.post(demoRequest(), 'k-4');
      expectLimited(reply, 'rate-limited');
      expect(Number(reply.headers['retry-after'])).toBeGreaterThan(50);
      expect(Number(reply.headers['retry-after'])).toBeLessThanOrEqual(60);
      expect(await world.redis.exists(claimKey('shop', 'k-4'))).toBe(0);
      expect((await one.post(demoRequest(), 'k-1')).text).toBe(first?.text);
      expect((await one.post(demoRequest({ otp: '999999' }), 'k-1')).status).toBe(422);
      const kiosk = { body: demoRequest({ provider: 'other' }), apiKey: KIOSK.apiKey.reveal() };
      expect((await one.call({ ...kiosk, key: `k-${one.url}` })).status).toBe(202);
    }
    expect(await world.jobs()).toBe(3);
    expect(await world.redis.pttl(clientRateKey('shop'))).toBeGreaterThan(0);
  });

  it('is that of a sliding window: room comes back as time passes, and no more than that', async () => {
    await using world = await startWorld({ rateLimit: () => ({ max: 2, perMs: 400 }) });
    const accepted: number[] = [];
    let number = 0;
    await eventually(async () => {
      const key = `k-${number++}`;
      const reply = await world.post(demoRequest(), key);
      if (reply.status === 202) accepted.push(Number(await world.redis.lindex(clientRateKey('shop'), -1)));
      else expectLimited(reply, 'rate-limited');
      return accepted.length === 6;
    });
    const windows = accepted.slice(2).map((at, index) => at - Number(accepted[index]));
    for (const window of windows) expect(window).toBeGreaterThanOrEqual(400);
  });
});

describe('what a client may have open', () => {
  it('is limited in each process, waiting callers among them, and is free again when they are answered', async () => {
    await using world = await startWorld({ clients: [{ ...SHOP, maxInFlight: 2 }, KIOSK] });
    const metrics = observed(world);
    const waiting = ['k-1', 'k-2'].map((key) => world.post(demoRequest(), key, { prefer: 'wait=20' }));
    await eventually(async () => (await world.jobs()) === 2);
    for (const reply of [await world.post(demoRequest(), 'k-3'), await world.get('demo_1')]) {
      expectLimited(reply, 'too-many-in-flight');
      expect(reply.headers['retry-after']).toBe('1');
    }
    expect(await world.jobs()).toBe(2);
    const kiosk = { body: demoRequest({ provider: 'other' }), key: 'k-1', apiKey: KIOSK.apiKey.reveal() };
    expect((await world.call(kiosk)).status).toBe(202);
    expect((await world.call({ body: {}, key: 'k', apiKey: 'nobody' })).status).toBe(401);

    for (const job of await world.queues.queue('demo').getPrioritized()) await world.publish(job.data.id, SETTLED);
    expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual([200, 200]);
    await eventually(async () => (await world.post(demoRequest(), 'k-3')).status === 202);
    expect(await metrics()).toContain('otp_intake_limited_total{client="shop",limit="in_flight"} 2');
    expect(await metrics()).toContain('otp_intake_limited_total{client="kiosk",limit="in_flight"} 0');
  });

  it('is given back by callers who went away', async () => {
    await using world = await startWorld({ clients: [{ ...SHOP, maxInFlight: 1 }] });
    const gone = new AbortController();
    const headers = { authorization: `Bearer ${SHOP.apiKey.reveal()}`, prefer: 'wait=20' };
    const { body } = await world.post(demoRequest(), 'k-1');
    const waiting = async (): Promise<void> => {
      // The looking below may have the one place before it.
      const url = `${world.url}/v1/verifications/${body.id}`;
      while ((await fetch(url, { headers, signal: gone.signal })).status === 429);
    };
    waiting().catch(() => {});
    await eventually(async () => (await world.get(String(body.id))).status === 429);
    gone.abort();
    await eventually(async () => (await world.get(String(body.id))).status === 200);
  });

  it('is counted as a limit beside the others', async () => {
    await using world = await startWorld({
      rateLimit: () => ({ max: 1, perMs: 60_000 }),
      turnAway: async ({ expiresAt }) => (expiresAt === null ? null : { retryAfterMs: 1 }),
    });
    const metrics = observed(world);
    await world.post(demoRequest(), 'k-1');
    await world.post(demoRequest(), 'k-2');
    await world.post(demoRequest({ expiresAt: new Date().toISOString() }), 'k-3');
    expect(await metrics()).toContain('otp_intake_limited_total{client="shop",limit="rate"} 1');
    expect(await metrics()).toContain('otp_intake_limited_total{client="shop",limit="backlog"} 1');
  });
});

function expectLimited(reply: Reply, name: string): void {
  expect(reply.body, reply.text).toMatchObject({ status: 429, type: `urn:otp-pipeline:problem:${name}` });
  expect(reply.status).toBe(429);
  expect(reply.headers['content-type']).toBe('application/problem+json');
}

function observed(world: World): () => Promise<string> {
  const registry = new Registry();
  observe(world.events, createMetrics(registry, { ofTheProcess: false }), { clients: ['shop', 'kiosk'] });
  return async () => await registry.metrics();
}
