/** What docs/idempotency.md says of a key, as far as no other test shows it; and that its table names tests that are there. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, vi } from 'vitest';
import { accept } from '../../src/producers/accept.ts';
import { type ClaimMade, claimDone, claimIt, claimsEnd } from '../../src/producers/claim.ts';
import { claimKey, partitionKeys } from '../../src/producers/job.ts';
import type { Sealer } from '../../src/producers/sealing.ts';
import { bodyFor, CLIENT, startPipeline } from '../support/pipeline.ts';
import { behaviours, startProviderServer } from '../support/provider-server.ts';
import { demoRequest, SHOP, startWorld } from './world.ts';

const read = (path: string): string => readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), 'utf8');

const WRONG_CODE = { status: false, data: { errors: [{ errorCode: 'INVALID_OTP' }] } };

describe('an idempotency key', () => {
  it('says when to come again while the first is being accepted', async () => {
    await using world = await startWorld();
    const claim = claimKey(SHOP.id, 'k-1');
    await world.post(demoRequest(), 'k-1');
    await world.redis.hset(claim, 'at', Date.now());
    expect(await world.post(demoRequest(), 'k-1')).toMatchObject({ status: 409, headers: { 'retry-after': '1' } });
  });

  it('is not used up by a request that was refused', async () => {
    let backlogged = true;
    await using world = await startWorld({ turnAway: async () => (backlogged ? { retryAfterMs: 1_000 } : null) });
    expect((await world.call({ body: demoRequest(), key: 'k-1', apiKey: 'a wrong one' })).status).toBe(401);
    expect((await world.post(demoRequest({ otp: '1' }), 'k-1')).status).toBe(400);
    expect((await world.post(demoRequest(), 'k-1')).status).toBe(429);
    backlogged = false;
    expect((await world.post(demoRequest({ metadata: { another: 'body' } }), 'k-1')).status).toBe(202);
  });

  it('stands in Redis as a hash', async () => {
    await using world = await startWorld();
    await world.post(demoRequest(), 'order-17-of-somebody');
    const keys = await world.redis.keys('*');
    expect(keys).toContain(claimKey(SHOP.id, 'order-17-of-somebody'));
    expect(keys.join()).not.toContain('order-17-of-somebody');
    const claim = await world.redis.hgetall(claimKey(SHOP.id, 'order-17-of-somebody'));
    expect(JSON.stringify(claim)).not.toContain('order-17-of-somebody');
  });

  it('ends in time also when its verification was over before its acceptance had said that it is complete', async () => {
    await using world = await startWorld();
    const claimed = async (name: string): Promise<ClaimMade> => {
      const claim = { key: claimKey(SHOP.id, name), id: `demo_${name}` };
      await claimIt({ ...claim, client: SHOP.id, fingerprint: 'print', rate: null }, world);
      return claim;
    };
    const gone = { key: claimKey(SHOP.id, 'gone'), id: 'demo_gone' };
    const [quick, slow] = [await claimed('quick'), await claimed('slow')];
    const DAYS = 24 * 3_600_000;
    await claimsEnd([quick, gone], 2 * DAYS, world.redis);
    await Promise.all([quick, slow, gone].map((claim) => claimDone({ ...claim, client: SHOP.id }, world.redis)));
    expect(await world.redis.pttl(quick.key)).toBeGreaterThan(2 * DAYS);
    expect(await world.redis.pttl(slow.key)).toBe(-1);
    await claimsEnd([slow], 60_000, world.redis);
    expect(await world.redis.pttl(slow.key)).toBeGreaterThan(60_000);
    expect(await world.redis.pttl(slow.key)).toBeLessThanOrEqual(2 * 60_000);
    expect(await world.redis.exists(gone.key)).toBe(0);
  });

  it('is kept until its verification is final, and then for the retention and a day', async () => {
    const retentionMs = 3 * 24 * 3_600_000;
    await using provider = await startProviderServer(behaviours.saysJson(200, WRONG_CODE));
    await using pipeline = await startPipeline({
      cepta: { baseUrl: provider.url, credentials: { secretKey: 'key' }, settings: { retentionMs } },
    });
    const claim = claimKey(CLIENT.id, 'k-1');
    const queue = pipeline.queue('cepta');
    await queue.pause();
    const id = await pipeline.enqueue(bodyFor('cepta', '123456'), 'k-1');
    expect(await pipeline.redis.pttl(claim)).toBe(-1);
    await queue.resume();
    await pipeline.final(id);
    await vi.waitUntil(async () => (await pipeline.redis.pttl(claim)) > 0, 10_000);
    const leftMs = await pipeline.redis.pttl(claim);
    expect(leftMs).toBeGreaterThan(retentionMs + 24 * 3_600_000 - 60_000);
    expect(leftMs).toBeLessThanOrEqual(retentionMs + 24 * 3_600_000);
  });

  it('is done with its verification, also when the process that accepted it died before its last word', async () => {
    await using provider = await startProviderServer(behaviours.saysJson(200, WRONG_CODE));
    await using pipeline = await startPipeline({
      cepta: { baseUrl: provider.url, credentials: { secretKey: 'key' } },
    });
    const claim = claimKey(CLIENT.id, 'k-1');
    const body = bodyFor('cepta', '123456', { transactionRef: 'TX-17' });
    const id = await pipeline.enqueue(body, 'k-1');
    await pipeline.final(id);
    await vi.waitUntil(async () => (await pipeline.redis.pttl(claim)) > 0, 10_000);
    await pipeline.redis.hset(claim, 'at', '0');
    // The retention is over, and the life of the key is not.
    const { record, transaction } = partitionKeys('cepta');
    const forgotten = [record(id), transaction('TX-17')];
    expect(await pipeline.redis.del(forgotten)).toBe(2);
    expect(await pipeline.enqueue(body, 'k-1')).toBe(id);
    expect(await pipeline.redis.exists(forgotten)).toBe(0);
    expect(provider.requests).toHaveLength(1);
  });

  it('is left alone by a process that was stopped so long that another one has carried it out', async () => {
    await using provider = await startProviderServer(behaviours.saysJson(200, WRONG_CODE));
    await using pipeline = await startPipeline({
      cepta: { baseUrl: provider.url, credentials: { secretKey: 'key' } },
    });
    const { record, transaction } = partitionKeys('cepta');
    const claim = claimKey(CLIENT.id, 'k-1');
    const body = bodyFor('cepta', '123456', { transactionRef: 'TX-17' });
    let id = '';
    const { sealer } = pipeline.accepting;
    const stopped = Object.create(sealer) as Sealer;
    stopped.seal = async (content) => {
      await pipeline.redis.hincrby(claim, 'at', -10_000);
      id = await pipeline.enqueue(body, 'k-1');
      await pipeline.final(id);
      await pipeline.redis.del(record(id), transaction('TX-17'));
      vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 10_000 });
      return await sealer.seal(content);
    };
    try {
      const accepting = accept(CLIENT, 'k-1', body, { ...pipeline.accepting, sealer: stopped });
      await expect(accepting).rejects.toThrow('is too old');
    } finally {
      vi.useRealTimers();
    }
    expect(await pipeline.redis.exists(record(id))).toBe(0);
    expect(provider.requests).toHaveLength(1);
  });

  it('gives no new life to a code whose acceptance died days ago', async () => {
    await using provider = await startProviderServer(behaviours.saysJson(200, WRONG_CODE));
    await using pipeline = await startPipeline({
      cepta: { baseUrl: provider.url, credentials: { secretKey: 'key' } },
    });
    const body = bodyFor('cepta', '123456');
    const dying = Object.create(pipeline.accepting.sealer) as Sealer;
    dying.seal = async () => {
      throw new Error('the process dies');
    };
    await expect(accept(CLIENT, 'k-1', body, { ...pipeline.accepting, sealer: dying })).rejects.toThrow('dies');
    await pipeline.redis.hincrby(claimKey(CLIENT.id, 'k-1'), 'at', -6 * 24 * 3_600_000);
    const id = await pipeline.enqueue(body, 'k-1');
    expect(await pipeline.final(id)).toMatchObject({ otp: 'not_submitted', reason: 'deadline_passed' });
    expect(provider.requests).toHaveLength(0);
  });

  it('lives as long as its verification awaits proof, also where its acceptance died before its last word', async () => {
    await using provider = await startProviderServer(behaviours.saysJson(500, {}));
    await using pipeline = await startPipeline({
      cepta: { baseUrl: provider.url, credentials: { secretKey: 'key' } },
    });
    const claim = claimKey(CLIENT.id, 'k-1');
    const queue = pipeline.queue('cepta');
    await queue.pause();
    const id = await pipeline.enqueue(bodyFor('cepta', '123456'), 'k-1');
    await pipeline.redis.hset(claim, 'at', Date.now());
    await pipeline.redis.pexpire(claim, 60_000);
    await queue.resume();
    await pipeline.until(id, ({ state }) => state === 'awaiting');
    await vi.waitUntil(async () => (await pipeline.redis.pttl(claim)) === -1, 10_000);
  });

  it('is not said to be done by who claimed it long ago for another verification', async () => {
    await using world = await startWorld();
    const claim = { key: claimKey(SHOP.id, 'k-1'), client: SHOP.id, fingerprint: 'print', rate: null };
    await claimIt({ ...claim, id: 'demo_first' }, world);
    await world.redis.del(claim.key);
    await claimIt({ ...claim, id: 'demo_second' }, world);
    await claimDone({ ...claim, id: 'demo_first' }, world.redis);
    await claimsEnd([{ ...claim, id: 'demo_first' }], 1_000, world.redis);
    expect(await claimIt({ ...claim, id: 'demo_third' }, world)).toEqual(['in_progress', 'demo_second']);
    expect(await world.redis.hget(claim.key, 'ended')).toBeNull();
  });

  it('is free when it is forgotten, and a dead code is not sent all the same', async () => {
    await using provider = await startProviderServer(behaviours.saysJson(200, {}));
    await using pipeline = await startPipeline({
      cepta: { baseUrl: provider.url, credentials: { secretKey: 'key' } },
    });
    const body = { ...bodyFor('cepta', '123456'), expiresAt: '2026-01-01T00:00:00Z' };
    const first = await pipeline.enqueue(body, 'k-1');
    await pipeline.final(first);
    await pipeline.redis.del(claimKey(CLIENT.id, 'k-1'), partitionKeys('cepta').record(first));
    const second = await pipeline.enqueue(body, 'k-1');
    expect(second).not.toBe(first);
    expect(await pipeline.final(second)).toMatchObject({ otp: 'not_submitted', reason: 'deadline_passed' });
    expect(provider.requests).toHaveLength(0);
  });
});

describe('docs/idempotency.md', () => {
  const rows = [...read('docs/idempotency.md').matchAll(/^\| [^|]+ \| `(test\/\S+)` \| ([^|]+) \|$/gm)];

  it('names tests that are there', () => {
    expect(rows.length).toBeGreaterThan(20);
    const missing = rows.filter(([, file = '', behaviour = '']) => !read(file).includes(behaviour.trim()));
    expect(missing.map(([row]) => row)).toEqual([]);
  });

  it('has an answer for every problem that a repeat can meet', () => {
    const page = read('docs/idempotency.md');
    for (const name of ['idempotency-mismatch', 'in-progress', 'gone', 'unavailable'])
      expect(page).toContain(`\`${name}\``);
  });
});
