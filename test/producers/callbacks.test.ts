import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { Events } from '../../src/events.ts';
import { callbackJobId, callbackQueues, openCallback } from '../../src/producers/callbacks.ts';
import { callbackJobSchema, partitionKeys } from '../../src/producers/job.ts';
import { Opener } from '../../src/producers/sealing.ts';
import { providers } from '../../src/providers/index.ts';
import type { BoundCallback } from '../../src/providers/provider.ts';
import type { connectRedis } from '../../src/redis/connections.ts';
import { loadFixture } from '../providers/fixture.ts';
import type { TestRedisOptions } from '../support/redis.ts';
import { BEST_OF_THREE } from '../support/timing.ts';
import { CANARY, eventually, type Reply, startWorld, type World } from './world.ts';

const SECRET = 'callback-secret-of-the-test';
const DURABLE = { appendonly: true, appendfsync: 'always' } as const;

function bind(adapter: string, credentials: Record<string, unknown>, options: unknown = {}): BoundCallback | null {
  const provider = providers[adapter];
  return (
    provider?.bind({
      baseUrl: 'https://provider.example',
      credentials: provider.credentials.parse(credentials),
      options: provider.options.parse(options),
    }).callback ?? null
  );
}

const CEPTA = { secretKey: 'key', merchantId: 'M-1' };
const CEPTA_HASH = createHash('sha512').update('key | M-1').digest('hex');
const TAKING = new Map(
  Object.entries({
    'hello-clever': bind('hello-clever', { appId: 'a', secretKey: 'k', callbackSecret: SECRET }),
    beqelal: bind('beqelal', { appId: 'a', apiKey: 'k', callbackSecret: SECRET }),
    'beqelal-odd': bind('beqelal', { appId: 'a', apiKey: 'k', callbackSecret: 'a/b ü?#' }),
    'beqelal-mute': bind('beqelal', { appId: 'a', apiKey: 'k' }),
    'lipa-later': bind('lipa-later', { clientId: 'c', clientSecret: 's' }),
    cepta: bind('cepta', CEPTA),
    ayoconnect: bind('ayoconnect', { ...loadFixture('ayoconnect').credentials, callbackToken: SECRET }),
  }),
);

interface Entrance extends AsyncDisposable {
  readonly world: World;
  readonly events: (Events['callback:received'] | Events['callback:refused'])[];
  post(path: string, raw: string | Buffer, headers?: Record<string, string>): Promise<Reply>;
  queue(partition: string): ReturnType<ReturnType<typeof callbackQueues>['queue']>;
}

async function startEntrance(redisOptions: TestRedisOptions = {}, timeLimitMs = 1_000): Promise<Entrance> {
  let queues: ReturnType<typeof callbackQueues> | null = null;
  const queue = (partition: string) => {
    if (!queues) throw new Error('not started');
    return queues.queue(partition);
  };
  const world = await startWorld({
    redisOptions,
    timeLimitMs,
    callbacks: { of: (partition) => TAKING.get(partition) ?? null, queue },
  });
  queues = callbackQueues(world.redis);
  const events: Entrance['events'] = [];
  world.events.on('callback:received', (one) => events.push(one));
  world.events.on('callback:refused', (one) => events.push(one));
  return {
    world,
    events,
    queue,
    post: async (path, raw, headers = {}) =>
      await world.call({ path: `/v1/callbacks/${path}`, raw, headers, apiKey: null }),
    [Symbol.asyncDispose]: async () => {
      await queues?.close();
      await world[Symbol.asyncDispose]();
    },
  };
}

function expectProblem(reply: Reply, status: number, name: string): void {
  expect(reply.status, reply.text).toBe(status);
  expect(reply.headers['content-type']).toBe('application/problem+json');
  expect(reply.body).toMatchObject({ status, type: `urn:otp-pipeline:problem:${name}` });
  expect(reply.text + JSON.stringify(reply.headers)).not.toContain(CANARY);
  expect(reply.text + JSON.stringify(reply.headers)).not.toContain(SECRET);
}

const BODY = JSON.stringify({ reference: 'R-1', status: 'PROCESSED', phone: CANARY });

describe('POST /v1/callbacks/{partition}', () => {
  it('stores a callback, sealed, before it answers', async () => {
    await using entrance = await startEntrance();
    const reply = await entrance.post(`beqelal/${SECRET}`, BODY);
    expect(reply).toMatchObject({ status: 200, text: '{}' });
    expect(reply.headers['content-type']).toBe('application/json');

    const [job] = await entrance.queue('beqelal').getWaiting();
    expect(job?.id).toBe(callbackJobId('beqelal', Buffer.from(BODY)));
    expect(job?.id).toMatch(/^callback-[0-9a-f]{32}$/);
    const data = callbackJobSchema.parse(job?.data);
    expect(Math.abs(Date.now() - data.receivedAt)).toBeLessThan(5_000);
    const opener = await Opener.create(entrance.world.keySet);
    expect(await openCallback(opener, data.sealed, 'beqelal')).toBe(BODY);
    await expect(openCallback(opener, data.sealed, 'cepta')).rejects.toThrow('another partition');
    expect(entrance.events).toEqual([{ partition: 'beqelal', repeated: false }]);
  });

  it('stands in the slot of its partition', () => {
    expect(partitionKeys('beqelal')).toMatchObject({ callbackQueue: 'otp-beqelal-callback', prefix: '{otp-beqelal}' });
    expect(partitionKeys('beqelal').alias('S-1')).toBe('{otp-beqelal}:alias:S-1');
  });

  it('answers Ayoconnect in its own words', async () => {
    await using entrance = await startEntrance();
    const reply = await entrance.post('ayoconnect', '{}', { authorization: `Bearer ${SECRET}` });
    expect(reply).toMatchObject({
      status: 200,
      text: '{"responseCode":"2000000","responseMessage":"Successful"}',
    });
  });

  it('takes any content type, or none, and any bytes', async () => {
    await using entrance = await startEntrance();
    const bodies: [string | Buffer, string][] = [
      ['{"reference":"R-1"}', 'application/json'],
      ['{"reference":"R-2"}', 'text/plain; charset=iso-8859-1'],
      ['reference=R-3', 'application/x-www-form-urlencoded'],
      [Buffer.from([0xff, 0x00, 0xfe]), 'application/octet-stream'],
      ['{"reference":"R-4"}', ''],
      ['', ''],
    ];
    for (const [body, type] of bodies) {
      const reply = await entrance.post(`beqelal/${SECRET}`, body, { 'content-type': type });
      expect(reply.status, `${type} ${reply.text}`).toBe(200);
    }
    expect(await entrance.queue('beqelal').count()).toBe(bodies.length);
  });

  it('takes a secret that needs escaping in an address', async () => {
    await using entrance = await startEntrance();
    const path = `beqelal-odd/${encodeURIComponent('a/b ü?#')}`;
    expect((await entrance.post(path, BODY)).status).toBe(200);
    expectProblem(await entrance.post('beqelal-odd/a', BODY), 401, 'unauthorized');
  });

  it('refuses a proof that is missing or wrong, and keeps nothing', async () => {
    await using entrance = await startEntrance();
    const wrong: [string, Record<string, string>][] = [
      ['beqelal', {}],
      ['beqelal/', {}],
      [`beqelal/${SECRET}x`, {}],
      [`beqelal/${SECRET.slice(1)}`, {}],
      ['beqelal', { authorization: SECRET }],
      ['hello-clever', {}],
      ['hello-clever', { authorization: `Bearer ${SECRET}` }],
      [`hello-clever/${SECRET}`, {}],
      ['cepta', {}],
      ['cepta', { 'hash-key': CEPTA_HASH.replace(/.$/, (last) => (last === '0' ? '1' : '0')) }],
    ];
    for (const [path, headers] of wrong) {
      expectProblem(await entrance.post(path, BODY, headers), 401, 'unauthorized');
    }
    expect(entrance.events).toHaveLength(wrong.length);
    expect(entrance.events.every((event) => !('repeated' in event))).toBe(true);
    expect(await entrance.world.redis.keys('*callback*')).toEqual([]);
    expect((await entrance.post('hello-clever', BODY, { authorization: SECRET })).status).toBe(200);
    expect((await entrance.post('cepta', BODY, { 'hash-key': CEPTA_HASH })).status).toBe(200);
  });

  it('knows no partition but those that can prove a callback', async () => {
    await using entrance = await startEntrance();
    for (const partition of ['nobody', 'lipa-later', 'beqelal-mute', '__proto__', 'a%2Fb', '%ff', '']) {
      expectProblem(await entrance.post(`${partition}${partition ? `/${SECRET}` : ''}`, BODY), 404, 'not-found');
    }
    expectProblem(await entrance.post(`beqelal/${SECRET}/more`, BODY), 404, 'not-found');
    const read = await entrance.world.call({ method: 'GET', path: `/v1/callbacks/beqelal/${SECRET}` });
    expectProblem(read, 405, 'method-not-allowed');
    expect(read.headers.allow).toBe('POST');
  });

  it('takes 64 KiB and no more, and nothing that is compressed', async () => {
    await using entrance = await startEntrance();
    expect((await entrance.post(`beqelal/${SECRET}`, Buffer.alloc(64 * 1024, 'x'))).status).toBe(200);
    expectProblem(await entrance.post(`beqelal/${SECRET}`, Buffer.alloc(64 * 1024 + 1, 'x')), 413, 'body-too-large');
    const zipped = await entrance.post(`beqelal/${SECRET}`, gzipSync(BODY), { 'content-encoding': 'gzip' });
    expectProblem(zipped, 415, 'unsupported-media-type');
    expect(await entrance.queue('beqelal').count()).toBe(1);
  });

  it('keeps one of many equal ones, and answers them all', async () => {
    await using entrance = await startEntrance();
    const replies = await Promise.all(Array.from({ length: 20 }, () => entrance.post(`beqelal/${SECRET}`, BODY)));
    expect(replies.map(({ status }) => status)).toEqual(Array(20).fill(200));
    expect(await entrance.queue('beqelal').count()).toBe(1);
    await entrance.post(`beqelal/${SECRET}`, BODY);
    expect(entrance.events.at(-1)).toEqual({ partition: 'beqelal', repeated: true });
    await entrance.post(`beqelal/${SECRET}`, `${BODY} `);
    expect(await entrance.queue('beqelal').count()).toBe(2);
  });

  it('looks again at one that was set aside when the provider says it again', async () => {
    await using entrance = await startEntrance();
    await entrance.post(`beqelal/${SECRET}`, BODY);
    const [job] = await entrance.queue('beqelal').getWaiting();
    if (!job) throw new Error('it was stored');
    const { redis } = entrance.world;
    const key = (name: string): string => entrance.queue('beqelal').toKey(name);
    await redis
      .multi()
      .lrem(key('wait'), 0, String(job.id))
      .zadd(key('failed'), Date.now(), String(job.id))
      .hset(key(String(job.id)), { finishedOn: Date.now(), failedReason: 'set aside' })
      .exec();
    expect((await entrance.post(`beqelal/${SECRET}`, BODY)).status).toBe(200);
    expect(await entrance.queue('beqelal').getFailedCount()).toBe(0);
    expect(await entrance.queue('beqelal').count()).toBe(1);
  });

  it('tells the provider to come again when too many wait, but still knows a repeated one', async () => {
    await using entrance = await startEntrance();
    await entrance.post(`beqelal/${SECRET}`, BODY);
    const pipeline = entrance.world.redis.pipeline();
    for (let index = 0; index < 10_000; index += 1) {
      pipeline.rpush(entrance.queue('beqelal').toKey('wait'), `filler-${index}`);
    }
    await pipeline.exec();
    const full = await entrance.post(`beqelal/${SECRET}`, '{"reference":"R-2"}');
    expectProblem(full, 503, 'unavailable');
    expect(full.headers['retry-after']).toBe('60');
    expect((await entrance.post(`beqelal/${SECRET}`, BODY)).status).toBe(200);
  });

  it('says 503 while Redis is away, so that the provider says it again', async () => {
    await using entrance = await startEntrance(DURABLE);
    await entrance.post(`beqelal/${SECRET}`, BODY);
    await entrance.world.server.kill();
    await eventually(() => entrance.world.redis.status !== 'ready');
    const away = await entrance.post(`beqelal/${SECRET}`, '{"reference":"R-2"}');
    expectProblem(away, 503, 'unavailable');
    expect(away.headers['retry-after']).toBe('1');
    // Forgeries are told so all the same.
    expectProblem(await entrance.post('beqelal/wrong', BODY), 401, 'unauthorized');

    await entrance.world.server.start();
    await eventually(() => entrance.world.redis.status === 'ready');
    expect((await entrance.post(`beqelal/${SECRET}`, '{"reference":"R-2"}')).status).toBe(200);
    expect(await entrance.queue('beqelal').count()).toBe(2);
  });

  it('waits no longer than its limit for a Redis that hangs', BEST_OF_THREE, async () => {
    await using entrance = await startEntrance({}, 300);
    await entrance.post(`beqelal/${SECRET}`, BODY);
    entrance.world.server.freeze();
    const began = performance.now();
    expectProblem(await entrance.post(`beqelal/${SECRET}`, '{"reference":"R-2"}'), 503, 'unavailable');
    expect(performance.now() - began).toBeLessThan(1_000);
    entrance.world.server.thaw();
  });

  it('has lost none of those that it answered with 200 when Redis dies at any moment', async () => {
    await using entrance = await startEntrance(DURABLE);
    const stored: string[] = [];
    let posting = true;
    const provider = async (name: number): Promise<void> => {
      for (let index = 0; posting; index += 1) {
        const body = JSON.stringify({ reference: `R-${name}-${index}` });
        const reply = await entrance.post(`beqelal/${SECRET}`, body);
        if (reply.status === 200) stored.push(callbackJobId('beqelal', Buffer.from(body)));
        else expect(reply.status).toBe(503);
      }
    };
    const callers = Promise.all([1, 2, 3, 4].map(provider));
    for (let round = 1; round <= 3; round += 1) {
      await eventually(() => stored.length >= round * 40);
      await entrance.world.server.kill(); // right after the latest 200
      await entrance.world.server.start();
      await eventually(() => entrance.world.redis.status === 'ready');
    }
    posting = false;
    await callers;
    const kept = new Set((await entrance.queue('beqelal').getWaiting(0, -1)).map(({ id }) => id));
    expect(stored.filter((id) => !kept.has(id))).toEqual([]);
  });

  it('leaves no word of a callback, and no secret, readable in Redis or in what is told', async () => {
    await using entrance = await startEntrance();
    const told: unknown[] = [];
    for (const name of ['callback:received', 'callback:refused', 'machinery:failed', 'intake:answered'] as const) {
      entrance.world.events.on(name, (payload) => told.push(payload));
    }
    await entrance.post(`beqelal/${SECRET}`, BODY);
    await entrance.post('hello-clever', BODY, { authorization: SECRET });
    await entrance.post(`beqelal/${SECRET}`, `{"reference": ${CANARY}`);
    await entrance.post('hello-clever', BODY, { authorization: CANARY });
    const seen = [JSON.stringify(told), ...(await everythingIn(entrance.world.redis))];
    expect(seen.some((text) => text.includes('sealed'))).toBe(true);
    for (const text of seen) {
      for (const secret of [CANARY, SECRET, CEPTA_HASH]) expect(text).not.toContain(secret);
    }
  });
});

/** Every key of the server with its value, as text. */
async function everythingIn(redis: ReturnType<typeof connectRedis>): Promise<string[]> {
  return await Promise.all(
    (await redis.keys('*')).map(async (key) => {
      const type = await redis.type(key);
      const value =
        type === 'string'
          ? await redis.get(key)
          : type === 'hash'
            ? await redis.hgetall(key)
            : type === 'list'
              ? await redis.lrange(key, 0, -1)
              : type === 'set'
                ? await redis.smembers(key)
                : type === 'zset'
                  ? await redis.zrange(key, '0', '-1')
                  : await redis.xrange(key, '-', '+');
      return `${key} ${JSON.stringify(value)}`;
    }),
  );
}
