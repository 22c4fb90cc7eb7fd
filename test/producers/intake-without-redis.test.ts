import { expect, it } from 'vitest';
import { BEST_OF_THREE } from '../support/timing.ts';
import { demoRequest, eventually, startWorld } from './world.ts';

const DURABLE = { appendonly: true, appendfsync: 'always' } as const;

it('says 503 while Redis is away, and the same key gives one answer once it is back', BEST_OF_THREE, async () => {
  await using world = await startWorld({ redisOptions: DURABLE });
  const before = await world.post(demoRequest(), 'k-0');
  await world.server.kill();
  await eventually(() => world.redis.status !== 'ready');

  const began = performance.now();
  const away = await world.post(demoRequest(), 'k-1');
  expect(performance.now() - began).toBeLessThan(1_000);
  expect(away.status).toBe(503);
  expect(away.headers['retry-after']).toBe('1');
  expect(away.body).toMatchObject({ type: 'urn:otp-pipeline:problem:unavailable' });
  expect(away.body.detail).toContain('not known whether the request was accepted');
  expect(away.body.detail).toContain('same Idempotency-Key');
  const unread = await world.get(String(before.body.id), { prefer: 'wait=20' });
  expect(unread).toMatchObject({ status: 503, headers: { 'retry-after': '1' } });

  await world.server.start();
  await eventually(() => world.redis.status === 'ready');
  const replies = await Promise.all([1, 2, 3].map(() => world.post(demoRequest(), 'k-1')));
  const accepted = [...replies, await world.post(demoRequest(), 'k-1')].filter(({ status }) => status === 202);
  expect(new Set(accepted.map(({ text }) => text)).size).toBe(1);
  expect((await world.post(demoRequest(), 'k-0')).text).toBe(before.text);
  expect(await world.redis.keys('{otp-demo}:v:*')).toHaveLength(2);
  expect(await world.jobs()).toBe(2);
});

it('gives one verification for a key however often Redis is killed while it is being accepted', async () => {
  await using world = await startWorld({ redisOptions: DURABLE });
  const keys = Array.from({ length: 20 }, (_, index) => `k-${index}`);
  let posting = true;
  const caller = async (key: string): Promise<string> => {
    for (;;) {
      const reply = await world.post(demoRequest(), key);
      if (reply.status === 202) return String(reply.body.id);
      expect([409, 503]).toContain(reply.status);
      // A claim that was left half-way is taken over after ten seconds; here it ages at once.
      if (reply.status === 409 && !posting) await ageClaims(world);
      await new Promise((resume) => setTimeout(resume, 20));
    }
  };
  const callers = Promise.all(keys.map(caller));
  for (let round = 0; round < 2; round += 1) {
    await world.server.kill();
    await world.server.start();
    await eventually(() => world.redis.status === 'ready');
  }
  posting = false;
  const ids = await callers;
  expect(new Set(ids).size).toBe(keys.length);
  expect(await world.redis.keys('{otp-demo}:v:*')).toHaveLength(keys.length);
  expect(await world.jobs()).toBe(keys.length);
});

it(
  'waits no longer than its limit for a Redis that hangs, and what hung makes no second verification',
  BEST_OF_THREE,
  async () => {
    await using world = await startWorld({ timeLimitMs: 300 });
    await world.post(demoRequest(), 'k-0'); // everything is connected
    world.server.freeze();
    const began = performance.now();
    const hung = await world.post(demoRequest(), 'k-1');
    expect(hung.status).toBe(503);
    expect(performance.now() - began).toBeLessThan(1_000);
    world.server.thaw();
    await eventually(async () => (await world.post(demoRequest(), 'k-1')).status === 202);
    expect(await world.jobs()).toBe(2);
  },
);

it('gives up on a hung Redis in less than five seconds when nothing else is said', BEST_OF_THREE, async () => {
  await using world = await startWorld();
  await world.post(demoRequest(), 'k-0');
  world.server.freeze();
  const began = performance.now();
  expect((await world.post(demoRequest(), 'k-1', { prefer: 'wait=30' })).status).toBe(503);
  expect(performance.now() - began).toBeLessThan(5_000);
  world.server.thaw();
});

it('answers whoever waits although Redis goes away meanwhile: the verification is accepted', async () => {
  await using world = await startWorld({ redisOptions: DURABLE });
  const reply = world.post(demoRequest(), 'k-1', { prefer: 'wait=2' });
  await eventually(async () => (await world.jobs()) === 1);
  await new Promise((resume) => setTimeout(resume, 50));
  await world.server.kill();
  expect(await reply).toMatchObject({ status: 202, body: { state: 'queued' } });
});

async function ageClaims(world: Awaited<ReturnType<typeof startWorld>>): Promise<void> {
  for (const claim of await world.redis.keys('{idem-shop}:*')) {
    if (await world.redis.hexists(claim, 'at')) await world.redis.hset(claim, 'at', Date.now() - 10_001);
  }
}
