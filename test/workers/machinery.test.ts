/** Around the spine: results on their way out, the sweep over what is overdue, and the gate in front of the queue. */
import { randomUUID } from 'node:crypto';
import { Queue } from 'bullmq';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { EventBus } from '../../src/events.ts';
import {
  PUBLISHED_CHANNEL,
  partitionKeys,
  resultsPrefix,
  webhookQueueName,
  webhookQueuePrefix,
} from '../../src/producers/job.ts';
import { duplicateOf } from '../../src/redis/cluster.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import type { Evidence } from '../../src/workers/decide.ts';
import { Forwarder, type ForwarderDependencies } from '../../src/workers/forwarder.ts';
import type { Published } from '../../src/workers/journal.ts';
import { Sweeper } from '../../src/workers/sweeper.ts';
import { coarseGate, scheduleInquiry } from '../../src/workers/worker.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { journalOf, seed } from './support.ts';

let server: TestRedis;
let redis: RedisConnection;
const keys = partitionKeys('cepta');
const queues = new Map<string, Queue>();

beforeAll(async () => {
  server = await startTestRedis();
  redis = connectRedis(server.url, 'worker', { onError: () => {} });
});

afterEach(async () => {
  await redis.flushall();
});

afterAll(async () => {
  await Promise.all([...queues.values()].map((queue) => queue.close()));
  redis.disconnect();
  await server[Symbol.asyncDispose]();
});

const seal = async (): Promise<string> => 'sealed';
const DEADLINE: Evidence = { from: 'deadline' };
const WITHIN_5_S = { timeout: 5_000, interval: 10 };

function queueOf(name: string, prefix = resultsPrefix(name)): Queue {
  const queue = queues.get(name) ?? new Queue(name, { connection: redis, prefix, skipWaitingForReady: true });
  queues.set(name, queue);
  return queue;
}

function forwarderOf(given: Partial<ForwarderDependencies> = {}): {
  forwarder: Forwarder;
  seen: { name: string; payload: unknown }[];
} {
  const events = new EventBus();
  const seen: { name: string; payload: unknown }[] = [];
  for (const name of ['result:published', 'machinery:failed'] as const)
    events.on(name, (payload) => seen.push({ name, payload }));
  const forwarder = new Forwarder({
    partition: 'cepta',
    keys,
    redis,
    now: Date.now,
    kept: async (entryIds) => entryIds,
    retentionMs: 60_000,
    events,
    client: () => ({ sealedToClient: false, hasWebhook: false }),
    resultsQueue: queueOf,
    webhookQueue: (client) => queueOf(webhookQueueName(client), webhookQueuePrefix(client)),
    ...given,
  });
  return { forwarder, seen };
}

/** So many settled verifications, whose results stand in the outbox. */
async function settle(count: number, worker = 'gone'): Promise<string[]> {
  const journal = journalOf({ redis }, {}, worker);
  const ids = await Promise.all(Array.from({ length: count }, () => seed(redis)));
  for (const id of ids) {
    const record = await journal.read(id);
    if (record) await journal.apply(record, DEADLINE, {}, seal);
  }
  return ids;
}

const published = async (queue = 'otp-results'): Promise<string[]> =>
  (await queueOf(queue).getJobs(['waiting'])).map((job) => job.id ?? '').sort();
const resultIds = (ids: readonly string[]): string[] => ids.map((id) => `${id}.1`).sort();

describe('a result', () => {
  test('goes from the outbox to the results queue once, and is then gone from the outbox', async () => {
    const ids = await settle(3);
    const { forwarder, seen } = forwarderOf();
    forwarder.start();
    await forwarder.close();
    expect(await published()).toEqual(resultIds(ids));
    expect(await redis.xlen(keys.outbox)).toBe(0);
    expect(seen.map(({ name }) => name)).toEqual(Array.from({ length: 3 }, () => 'result:published'));
    expect(seen[0]?.payload).toMatchObject({ sequence: 1, sinceAcceptedMs: expect.any(Number) });
  });

  test('of many, more than one batch, all arrive', async () => {
    const ids = await settle(450);
    const { forwarder } = forwarderOf();
    forwarder.start();
    await forwarder.close();
    expect(await published()).toEqual(resultIds(ids));
  });

  test('is told to those who wait for it', async () => {
    const listener = duplicateOf(redis, {});
    const heard: string[] = [];
    await listener.subscribe(PUBLISHED_CHANNEL);
    listener.on('message', (_, message) => heard.push(message));
    const [id] = await settle(1);
    const { forwarder } = forwarderOf();
    forwarder.start();
    await vi.waitUntil(() => heard.length > 0, WITHIN_5_S);
    await forwarder.close();
    expect(heard).toEqual([`${id}.1`]);
    listener.disconnect();
  });

  test('goes to the queue of its client where it has one, and nowhere else', async () => {
    const ids = await settle(2);
    const { forwarder } = forwarderOf({
      client: () => ({ resultsQueue: 'shop-results', sealedToClient: false, hasWebhook: false }),
    });
    forwarder.start();
    await forwarder.close();
    expect(await published('shop-results')).toEqual(resultIds(ids));
    expect(await published()).toEqual([]);
  });

  test('of a client with a webhook goes to its queue as well', async () => {
    const ids = await settle(2);
    const { forwarder } = forwarderOf({ client: () => ({ sealedToClient: false, hasWebhook: true }) });
    forwarder.start();
    await forwarder.close();
    expect(await published()).toEqual(resultIds(ids));
    const { client } = (await journalOf({ redis }).read(ids[0] ?? '')) ?? { client: '' };
    const waiting = await queueOf(webhookQueueName(client), webhookQueuePrefix(client)).getJobs(['waiting']);
    expect(waiting.map(({ data }) => data.id).sort()).toEqual(resultIds(ids));
  });

  test('is left to the worker that has it in hand while that lives, and not for longer', async () => {
    const [living, dying, gone] = [await settle(2, 'living'), await settle(2, 'dying'), await settle(2)];
    await redis.set(keys.heartbeat('living'), '1');
    await redis.set(keys.heartbeat('dying'), '1');
    const { forwarder: first } = forwarderOf();
    first.start();
    await first.close();
    expect(await published()).toEqual(resultIds(gone));

    await redis.del(keys.heartbeat('dying'));
    const { forwarder: second } = forwarderOf();
    second.start();
    await vi.waitUntil(async () => (await redis.xlen(keys.outbox)) === 2, WITHIN_5_S);
    expect(await published()).toEqual(resultIds([...gone, ...dying]));
    await second.close();

    // It lives and does not get rid of them.
    const { forwarder: third } = forwarderOf({ abandonedMs: 0 });
    third.start();
    await third.close();
    expect(await published()).toEqual(resultIds([...gone, ...dying, ...living]));
    expect(await redis.xlen(keys.outbox)).toBe(0);
  });

  test('goes out without being read again by whoever has decided it', async () => {
    const journal = journalOf({ redis }, {}, 'living');
    await redis.set(keys.heartbeat('living'), '1');
    const { forwarder } = forwarderOf();
    const ids = await Promise.all([1, 2, 3].map(async () => await seed(redis)));
    for (const id of ids) {
      const record = await journal.read(id);
      const applied = record && (await journal.apply(record, DEADLINE, {}, seal));
      if (applied?.published) forwarder.published(applied.published);
    }
    await forwarder.close();
    expect(await published()).toEqual(resultIds(ids));
    expect(await redis.xlen(keys.outbox)).toBe(0);
    const [job] = await queueOf('otp-results').getJobs(['waiting']);
    expect(job?.data.data).toMatchObject({ otp: 'not_submitted', reason: 'deadline_passed', sequence: 1, final: true });
  });

  test('goes out at once also when it is decided in the very moment in which the ones before are through', async () => {
    const journal = journalOf({ redis }, {}, 'living');
    await redis.set(keys.heartbeat('living'), '1');
    const decided = async (): Promise<Published> => {
      const record = await journal.read(await seed(redis));
      const applied = record && (await journal.apply(record, DEADLINE, {}, seal));
      if (!applied?.published) throw new Error('nothing was decided');
      return applied.published;
    };
    const events = new EventBus();
    const { forwarder } = forwarderOf({ events });
    // So many steps of the event loop's inner queue after the first is through the second one comes.
    for (let steps = 0; steps < 20; steps += 1) {
      const [first, second] = [await decided(), await decided()];
      const later = async ({ id }: { readonly id: string }): Promise<void> => {
        if (id !== first.record.id) return;
        for (let step = 0; step < steps; step += 1) await null;
        forwarder.published(second);
      };
      events.on('result:published', later);
      forwarder.published(first);
      await vi.waitUntil(async () => (await redis.xlen(keys.outbox)) === 0, { timeout: 2_000, interval: 5 });
      events.off('result:published', later);
    }
    await forwarder.close();
  });

  test('that was published and not taken out is repeated under the same id, so that the queue drops it', async () => {
    const ids = await settle(2);
    const { forwarder: first } = forwarderOf();
    const entries = await redis.xrange(keys.outbox, '-', '+');
    first.start();
    await first.close();
    for (const [, fields] of entries) await redis.xadd(keys.outbox, '*', ...fields);
    const { forwarder: second } = forwarderOf();
    second.start();
    await second.close();
    expect(await published()).toEqual(resultIds(ids));
  });

  test('that cannot be delivered stays, is told, and arrives once it can', async () => {
    let broken = true;
    const ids = await settle(1);
    const { forwarder, seen } = forwarderOf({
      abandonedMs: 0,
      resultsQueue: (name) => {
        if (broken) throw new Error('no such queue');
        return queueOf(name);
      },
    });
    forwarder.start();
    await vi.waitUntil(() => seen.some(({ name }) => name === 'machinery:failed'), WITHIN_5_S);
    expect(await redis.xlen(keys.outbox)).toBe(1);
    await forwarder.close();
    broken = false;
    const { forwarder: next } = forwarderOf({ abandonedMs: 0 });
    next.start();
    await next.close();
    expect(await published()).toEqual(resultIds(ids));
  });

  test('of one client whose queue is broken holds back no other', async () => {
    const [broken, sound] = [await settle(1), await settle(2)];
    const { forwarder, seen } = forwarderOf({
      client: (id) => ({
        resultsQueue: id === 'broken' ? 'broken-results' : 'otp-results',
        sealedToClient: false,
        hasWebhook: false,
      }),
      resultsQueue: (name) => {
        if (name === 'broken-results') throw new Error('no such queue');
        return queueOf(name);
      },
    });
    // The first entry becomes another client's.
    const [[entryId, fields]] = (await redis.xrange(keys.outbox, '-', '+', 'COUNT', 1)) as [[string, string[]]];
    await redis.xdel(keys.outbox, entryId);
    await redis.xadd(keys.outbox, '*', ...fields.map((field) => field.replace('"client":"shop"', '"client":"broken"')));
    forwarder.start();
    await forwarder.close();
    expect(await published()).toEqual(resultIds(sound));
    expect(seen.filter(({ name }) => name === 'machinery:failed').length).toBeGreaterThan(0);
    expect(broken).toHaveLength(1);
    expect(await redis.xlen(keys.outbox)).toBe(1);
  });

  test('that nobody can read is told and holds back no other', async () => {
    const before = await settle(1);
    await redis.xadd(keys.outbox, '*', 'something', 'else');
    const after = await settle(1);
    const { forwarder, seen } = forwarderOf();
    forwarder.start();
    await forwarder.close();
    expect(await published()).toEqual(resultIds([...before, ...after]));
    expect(seen.filter(({ name }) => name === 'machinery:failed')).toHaveLength(1);
  });
});

describe('the sweep', () => {
  test('asks for a person when proof is overdue, also where questions are held back, which are put later all the same', async () => {
    const { sweeper, journal } = sweeperOf();
    const id = await seed(redis, { codePrint: '' });
    const begun = await journal.begin(id);
    if (begun.is !== 'begun') throw new Error(`begin said ${begun.is}`);
    await journal.apply(begun.record, { from: 'lost', code: 'ECONNRESET' }, {}, seal);
    await redis.hset(keys.record(id), 'awaitingSince', '1');
    await overdue([id]);
    sweeper.start();
    await vi.waitUntil(async () => (await journal.read(id))?.needsReview === true, 10_000);
    await sweeper.close();
    expect((await journal.read(id))?.nextInquiryAt).toBeGreaterThan(0);
  });

  const sweeperOf = (given: { now?: () => void } = {}) => {
    const events = new EventBus();
    const seen: { name: string; payload: unknown }[] = [];
    for (const name of ['machinery:failed', 'job:recreated'] as const)
      events.on(name, (payload) => seen.push({ name, payload }));
    const journal = journalOf({ redis }, {}, randomUUID());
    const sweeper = new Sweeper({
      partition: 'cepta',
      journal,
      verifications: queueOf(keys.queue, keys.prefix),
      inquiries: queueOf(keys.inquiryQueue, keys.prefix),
      events,
      giveUpAfterMs: 3_600_000,
      beat: async () => (await journal.witness.beat()).is === 'open',
      conclude: async (record, evidence) => {
        given.now?.();
        await journal.apply(record, evidence, {}, seal);
      },
    });
    return { sweeper, journal, seen };
  };
  const overdue = async (ids: readonly string[]): Promise<void> => {
    for (const id of ids) await redis.zadd(keys.due, 1, id);
  };

  test('looks at each where something should have happened, and does it', async () => {
    const { sweeper, journal, seen } = sweeperOf();
    const begun = async (evidence?: Evidence): Promise<string> => {
      const id = await seed(redis);
      const beginning = await journal.begin(id);
      if (beginning.is === 'begun' && evidence) await journal.apply(beginning.record, evidence, {}, seal);
      return id;
    };
    const dead = await seed(redis, { lifetimeMs: 0 });
    const jobless = await seed(redis);
    const alive = await begun();
    const ownerless = await begun();
    await redis.hset(keys.record(ownerless), 'owner', 'gone');
    const unasked = await begun({ from: 'lost', code: 'X' });
    const impatient = await begun({ from: 'lost', code: 'X' });
    await redis.hdel(keys.record(impatient), 'nextInquiryAt');
    const reviewed = await begun({ from: 'lost', code: 'X' });
    await redis.hset(keys.record(reviewed), 'needsReview', '1');
    await redis.hdel(keys.record(reviewed), 'nextInquiryAt');
    const forgotten = await seed(redis);
    await redis.del(keys.record(forgotten));
    await overdue([dead, jobless, alive, ownerless, unasked, impatient, reviewed, forgotten]);

    sweeper.start();
    await vi.waitUntil(async () => (await journal.overdue(10)).length === 0, WITHIN_5_S);
    await sweeper.close();

    const of = async (id: string) => await journal.read(id);
    expect(await of(dead)).toMatchObject({ state: 'settled', standing: { reason: 'deadline_passed' } });
    expect(await of(jobless)).toMatchObject({ state: 'queued' });
    expect(await queueOf(keys.queue).getJob(jobless)).toMatchObject({ data: { v: 1, id: jobless } });
    expect(await of(alive)).toMatchObject({ state: 'sending' });
    expect(await of(ownerless)).toMatchObject({ state: 'awaiting', standing: { otp: 'unknown' } });
    expect(await of(unasked)).toMatchObject({ state: 'awaiting', sequence: 1 });
    expect(await queueOf(keys.inquiryQueue).getJob(unasked)).toMatchObject({ data: { v: 1, id: unasked } });
    expect(await of(impatient)).toMatchObject({ state: 'awaiting', needsReview: true, sequence: 2 });
    expect(await of(reviewed)).toMatchObject({ state: 'awaiting', sequence: 1 });
    expect(await redis.zscore(keys.due, forgotten)).toBeNull();
    expect(seen.map(({ name }) => name)).toEqual(['job:recreated', 'job:recreated']);
  });

  test('calls an attempt unknown that can no longer be in flight, although its owner lives', async () => {
    const { sweeper, journal } = sweeperOf();
    const id = await seed(redis);
    await journal.begin(id);
    await redis.hset(keys.record(id), 'inFlightUntil', 1);
    await overdue([id]);
    sweeper.start();
    await vi.waitUntil(async () => (await journal.read(id))?.state === 'awaiting', WITHIN_5_S);
    await sweeper.close();
  });

  test('leaves alone a job that waits its turn, and takes back one that lies among the failed', async () => {
    const { sweeper, journal, seen } = sweeperOf();
    const queue = queueOf(keys.queue, keys.prefix);
    const [waiting, failed] = [await seed(redis), await seed(redis)];
    const options = { attempts: 1, backoff: 0 };
    await queue.add('verify', { v: 1, id: failed }, { ...options, jobId: failed });
    const { Worker } = await import('bullmq');
    const worker = new Worker(keys.queue, async () => Promise.reject(new Error('no')), {
      connection: redis,
      prefix: keys.prefix,
    });
    await vi.waitUntil(async () => (await queue.getFailedCount()) === 1, WITHIN_5_S);
    await worker.close();
    await queue.add('verify', { v: 1, id: waiting }, { jobId: waiting });
    await overdue([waiting, failed]);
    sweeper.start();
    await vi.waitUntil(async () => (await journal.overdue(10)).length === 0, WITHIN_5_S);
    await sweeper.close();
    expect(await queue.getFailedCount()).toBe(0);
    expect(await queue.getJobCountByTypes('waiting', 'prioritized')).toBe(2);
    expect(seen.map(({ payload }) => (payload as { id: string }).id)).toEqual([failed]);
  });

  test('goes on behind a record that cannot be read, and tells of it', async () => {
    const { sweeper, journal, seen } = sweeperOf();
    const [broken, strange, sound] = [await seed(redis), 'cepta_strange', await seed(redis, { lifetimeMs: 0 })];
    await redis.hset(keys.record(broken), 'head', '{');
    await redis.set(keys.record(strange), 'no hash');
    await redis.zadd(keys.due, 1, broken, 1, strange, 2, sound);
    sweeper.start();
    await vi.waitUntil(async () => (await journal.read(sound))?.state === 'settled', WITHIN_5_S);
    await sweeper.close();
    expect(seen.filter(({ name }) => name === 'machinery:failed').length).toBeGreaterThanOrEqual(2);
    // They stay where a person finds them, and are not looked at in every round.
    expect(await journal.overdue(10)).toEqual([]);
    expect(await redis.zrange(keys.due, '0', '-1')).toEqual(expect.arrayContaining([broken, strange]));
    await redis.del(keys.record(broken), keys.record(strange));
  });

  test('is made by one of several workers at a time', async () => {
    const journals = Array.from({ length: 10 }, () => journalOf({ redis }));
    const may = await Promise.all(journals.map((journal) => journal.mayOneSweep(500)));
    expect(may.filter(Boolean)).toHaveLength(1);
  });
});

describe('the gate in front of the queue', () => {
  test('lets through a little more than the exact rate, in short windows', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5_000 }), fc.integer({ min: 100, max: 60_000 }), (max, perMs) => {
        const gate = coarseGate({ max, perMs });
        expect(gate.max).toBeGreaterThanOrEqual(1);
        const [exact, through] = [max / perMs, gate.max / gate.duration];
        expect(through).toBeGreaterThanOrEqual(exact * 1.24);
        expect(gate.duration).toBeLessThanOrEqual(Math.max(1, (100 + perMs / max) / 1.25));
      }),
    );
  });
});

describe('an inquiry that is scheduled again', () => {
  test('while its time comes is left to run, and nothing fails', async () => {
    const id = await seed(redis);
    const queue = queueOf(keys.inquiryQueue, keys.prefix);
    await scheduleInquiry(queue, id, 60_000);
    const getJob = queue.getJob.bind(queue);
    const promotedMeanwhile = vi.spyOn(queue, 'getJob').mockImplementation(async (jobId) => {
      const job = await getJob(jobId);
      const isDelayed = job?.isDelayed.bind(job);
      if (job && isDelayed) {
        job.isDelayed = async () => {
          const was = await isDelayed();
          if (was) await job.promote();
          return was;
        };
      }
      return job;
    });
    await scheduleInquiry(queue, id, 1_000);
    promotedMeanwhile.mockRestore();
    expect(await (await queue.getJob(id))?.getState()).toBe('waiting');
  });

  test('for sooner comes sooner', async () => {
    const id = await seed(redis);
    const queue = queueOf(keys.inquiryQueue, keys.prefix);
    await scheduleInquiry(queue, id, 60_000);
    await scheduleInquiry(queue, id, 5_000);
    expect((await queue.getJob(id))?.delay).toBe(5_000);
  });
});
