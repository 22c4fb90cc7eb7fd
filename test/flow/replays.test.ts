/**
 * What anyone with a board, a script or a backup can do to the queues: retry, promote, duplicate, add again, delete,
 * restore. A job carries no right to send: the ledger of the sandbox says that none of it sent a code twice, and
 * whatever lost its job still comes to its end.
 */
import { randomUUID } from 'node:crypto';
import { type Job, type Queue, UnrecoverableError, Worker } from 'bullmq';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { partitionKeys, VERIFICATION_JOB_OPTIONS, type VerificationJob } from '../../src/producers/job.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { type Sandbox, startSandbox, type TransactionView } from '../../src/sandbox/index.ts';
import { bodyFor, type PartitionEntry, type Pipeline, startPipeline } from '../support/pipeline.ts';
import { startProviderServer } from '../support/provider-server.ts';
import { expectSetsToAgree } from '../workers/support.ts';

const SOON = { timeout: 30_000, interval: 20 };
const WITHIN_MS = 30_000;
const RIGHT = '123456';
/** Accepted, and held back for as long as the sandbox is slow. */
const SLOW = '800015';
/** Accepted, and the payment waits for ever. */
const WAITS = '500002';
const SLOW_MS = 2_500;
/** Some of it waits for the sweeper, which looks for a job after five seconds. */
const SLOWLY = { timeout: 60_000 };
const keys = partitionKeys('cepta');

let sandbox: Sandbox;

beforeAll(async () => {
  sandbox = await startSandbox({ settleAfterMs: 0, slowMs: SLOW_MS });
});

afterAll(async () => {
  await sandbox.close();
});

interface Case {
  readonly id: string;
  readonly reference: string;
}

class World implements AsyncDisposable {
  readonly pipeline: Pipeline;
  readonly queue: Queue<VerificationJob>;

  private constructor(pipeline: Pipeline) {
    this.pipeline = pipeline;
    this.queue = pipeline.queue('cepta');
  }

  static async start({ workers = true, baseUrl }: { workers?: boolean; baseUrl?: string } = {}): Promise<World> {
    const entry: PartitionEntry = {
      ...sandbox.providers.cepta,
      ...(baseUrl === undefined ? {} : { baseUrl }),
      settings: { timeoutMs: 10_000 },
    };
    return new World(await startPipeline({ cepta: entry }, { workers }));
  }

  async enqueue(otp: string): Promise<Case> {
    const reference = `TX${randomUUID().slice(0, 8)}`;
    return { id: await this.pipeline.enqueue(bodyFor('cepta', otp, { transactionRef: reference })), reference };
  }

  async job(id: string): Promise<Job<VerificationJob>> {
    const job = await this.queue.getJob(id);
    if (!job) throw new Error(`no job ${id}`);
    return job;
  }

  /** The same work under other names. */
  async duplicate(id: string, times: number): Promise<void> {
    const jobs = Array.from({ length: times }, () => ({
      name: 'verify',
      data: { v: 1, id } as const,
      opts: VERIFICATION_JOB_OPTIONS,
    }));
    await this.queue.addBulk(jobs);
  }

  /** How often a worker has met a job that it had no right to send for. */
  prevented(id: string, because?: string): number {
    return this.pipeline.seen.filter(({ name, payload }) => {
      if (name !== 'resend:prevented') return false;
      const told = payload as { id: string; because: string };
      return told.id === id && (because === undefined || told.because === because);
    }).length;
  }

  begun(id: string): number {
    const begun = this.pipeline.seen.filter(({ name }) => name === 'attempt:begun');
    return begun.filter(({ payload }) => (payload as { id?: string }).id === id).length;
  }

  /** The end of them: paid by one submission each, told once, and every queue empty. */
  async expectPaidOnce(...cases: Case[]): Promise<VerificationResource[]> {
    const resources = await Promise.all(cases.map(({ id }) => this.pipeline.final(id, WITHIN_MS)));
    await this.drained();
    for (const [index, { id, reference }] of cases.entries()) {
      const resource = resources[index];
      expect(resource).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
      expect(seenBy(reference)).toMatchObject({ requests: 1, codesReceived: [expect.any(String)], charges: 1 });
      await vi.waitUntil(async () => await this.pipeline.result(`${id}.${resource?.sequence}`), SOON);
      const finals = (await this.pipeline.results()).filter(({ data }) => data.id === id && data.final);
      expect(finals).toHaveLength(1);
      expect(await this.pipeline.read(id)).toEqual(resource);
    }
    await expectSetsToAgree(this.pipeline.redis);
    return resources;
  }

  /** Every job has been taken up, and none is left. */
  async drained(): Promise<void> {
    await vi.waitUntil(async () => {
      const counts = await this.queue.getJobCounts('waiting', 'active', 'delayed', 'prioritized', 'failed');
      return Object.values(counts).every((count) => count === 0);
    }, SOON);
  }

  /** BullMQ's own keys of the partition, of its inquiries as well; nothing of the journal. */
  async queueKeys(): Promise<string[]> {
    const { redis } = this.pipeline;
    const names = await Promise.all(
      [keys.queue, keys.inquiryQueue].map((name) => redis.keys(`${keys.prefix}:${name}:*`)),
    );
    return names.flat();
  }

  async dumpQueues(): Promise<[string, Buffer][]> {
    const { redis } = this.pipeline;
    return await Promise.all(
      (await this.queueKeys()).map(async (key): Promise<[string, Buffer]> => {
        const dump = await redis.dumpBuffer(key);
        if (dump === null) throw new Error(`no key ${key}`);
        return [key, dump];
      }),
    );
  }

  /** As they were, and nothing of what came since. */
  async restoreQueues(dump: readonly [string, Buffer][]): Promise<void> {
    const restoring = this.pipeline.redis.multi().del(...(await this.queueKeys()));
    for (const [key, value] of dump) restoring.restore(key, 0, value);
    await restoring.exec();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pipeline[Symbol.asyncDispose]();
  }
}

const seenBy = (reference: string): TransactionView => sandbox.ledger.transaction('cepta', reference);

describe.concurrent('a job', SLOWLY, () => {
  test('that somebody has made fail and retries, again and again, sends once', async () => {
    await using world = await World.start({ workers: false });
    const one = await world.enqueue(RIGHT);
    const { redis } = world.pipeline;
    const failing = new Worker(
      keys.queue,
      async () => {
        throw new UnrecoverableError('made to fail');
      },
      { connection: redis, prefix: keys.prefix },
    );
    await vi.waitUntil(async () => await (await world.job(one.id)).isFailed(), SOON);
    await (await world.job(one.id)).retry();
    await vi.waitUntil(async () => await (await world.job(one.id)).isFailed(), SOON);
    await failing.close();
    const failed = await world.queue.getJob(one.id);
    await failed?.retry();
    await world.pipeline.restartWorkers();
    await world.expectPaidOnce(one);

    // Retried once more as it was: it is there again, and the verification has long been settled.
    await world.queue.add('verify', { v: 1, id: one.id }, { ...VERIFICATION_JOB_OPTIONS, jobId: one.id });
    await vi.waitUntil(() => world.prevented(one.id, 'settled') > 0, SOON);
    await world.expectPaidOnce(one);
  });

  test('that lies among the failed is taken up by itself', async () => {
    await using world = await World.start({ workers: false });
    const one = await world.enqueue(RIGHT);
    const failing = new Worker(
      keys.queue,
      async () => {
        throw new UnrecoverableError('made to fail');
      },
      { connection: world.pipeline.redis, prefix: keys.prefix },
    );
    await vi.waitUntil(async () => await (await world.job(one.id)).isFailed(), SOON);
    await failing.close();
    await world.pipeline.restartWorkers();
    await world.expectPaidOnce(one);
    expect(world.pipeline.seen.filter(({ name }) => name === 'job:recreated')).not.toHaveLength(0);
  });

  test('that is promoted before its time waits all the same', async () => {
    // Nobody listens there yet: it provably does not leave, and is to be tried again later.
    await using nobody = await startProviderServer(() => {});
    await nobody.close();
    await using world = await World.start({ baseUrl: nobody.url });
    const { id } = await world.enqueue(RIGHT);
    const { pipeline } = world;
    // The pauses grow with every failure: from the third one on there is time for somebody's fingers.
    await pipeline.until(id, ({ history }) => (history ?? []).filter(({ event }) => event === 'not_sent').length >= 4);
    const recordKey = keys.record(id);
    let promoted = 0;
    for (let tries = 0; promoted === 0 && tries < 50; tries += 1) {
      const notBefore = Number(await pipeline.redis.hget(recordKey, 'notBefore'));
      const begun = world.begun(id);
      if (notBefore - Date.now() < 300) {
        await vi.waitUntil(() => world.begun(id) > begun, SOON);
        continue;
      }
      const job = await world.job(id);
      if (!(await job.isDelayed())) continue;
      await job.promote();
      await vi.waitUntil(async () => await (await world.job(id)).isDelayed(), { timeout: 5_000, interval: 5 });
      // Taken up at once, sent back at once: no attempt was begun before its time.
      if (Date.now() < notBefore) expect(world.begun(id)).toBe(begun);
      promoted += 1;
    }
    expect(promoted).toBe(1);
    const times = (await pipeline.read(id)).history ?? [];
    const begins = times.filter(({ event }) => event === 'begun').map(({ at }) => Date.parse(at));
    const agains = times.flatMap(({ againAt }) => (typeof againAt === 'string' ? [Date.parse(againAt)] : []));
    for (const [index, again] of agains.entries()) {
      const next = begins[index + 1];
      if (next !== undefined) expect(next).toBeGreaterThanOrEqual(again);
    }
  });

  test('that was duplicated by hand, many times and under other names, sends once', async () => {
    await using world = await World.start({ workers: false });
    const one = await world.enqueue(RIGHT);
    await world.duplicate(one.id, 30);
    await world.pipeline.restartWorkers();
    await world.expectPaidOnce(one);
    expect(world.prevented(one.id)).toBe(30);
    expect(world.begun(one.id)).toBe(1);
  });

  test('that is duplicated while the code is on its way sends once', async () => {
    await using world = await World.start();
    const one = await world.enqueue(SLOW);
    await vi.waitUntil(() => seenBy(one.reference).charges === 1, SOON);
    await world.duplicate(one.id, 10);
    await vi.waitUntil(() => world.prevented(one.id, 'in_flight') === 10, { timeout: SLOW_MS, interval: 5 });
    await world.expectPaidOnce(one);
  });

  test('that is duplicated while the payment awaits proof asks again, and sends once', async () => {
    await using world = await World.start();
    const one = await world.enqueue(WAITS);
    await world.pipeline.until(one.id, ({ state }) => state === 'awaiting', WITHIN_MS);
    await world.duplicate(one.id, 10);
    await vi.waitUntil(() => world.prevented(one.id, 'awaiting') === 10, SOON);
    await world.drained();
    expect(seenBy(one.reference)).toMatchObject({ requests: 1, codesReceived: [WAITS] });
    expect(await world.pipeline.read(one.id)).toMatchObject({ state: 'awaiting', otp: 'accepted' });
  });

  test('that is added again under its own id, after it was removed, sends nothing', async () => {
    await using world = await World.start();
    const one = await world.enqueue(RIGHT);
    await world.expectPaidOnce(one);
    expect(await world.queue.getJob(one.id)).toBeUndefined();
    for (let times = 1; times <= 3; times += 1) {
      await world.queue.add('verify', { v: 1, id: one.id }, { ...VERIFICATION_JOB_OPTIONS, jobId: one.id });
      await vi.waitUntil(() => world.prevented(one.id, 'settled') === times, SOON);
    }
    await world.expectPaidOnce(one);
  });

  test('of a verification that nobody has accepted sends nothing', async () => {
    await using world = await World.start();
    await world.queue.add(
      'verify',
      { v: 1, id: `cepta_${randomUUID().replaceAll('-', '')}` },
      VERIFICATION_JOB_OPTIONS,
    );
    await world.drained();
    expect(world.pipeline.seen.filter(({ name }) => name === 'attempt:begun')).toEqual([]);
  });
});

describe.concurrent('all keys of the queues deleted', SLOWLY, () => {
  test('while the job waited: it is put back, and sent once', async () => {
    await using world = await World.start({ workers: false });
    const cases = await Promise.all(Array.from({ length: 5 }, () => world.enqueue(RIGHT)));
    await world.pipeline.redis.del(...(await world.queueKeys()));
    await world.pipeline.restartWorkers();
    await world.expectPaidOnce(...cases);
  });

  test('under a running worker, while the code was on its way: its answer counts, and it is sent once', async () => {
    await using world = await World.start();
    const one = await world.enqueue(SLOW);
    await vi.waitUntil(() => seenBy(one.reference).charges === 1, SOON);
    await world.pipeline.redis.del(...(await world.queueKeys()));
    await world.expectPaidOnce(one);
  });

  test('under a running worker, while proof was awaited: the inquiry is scheduled again', async () => {
    await using world = await World.start();
    const one = await world.enqueue(WAITS);
    await world.pipeline.until(one.id, ({ state }) => state === 'awaiting', WITHIN_MS);
    await vi.waitUntil(() => seenBy(one.reference).inquiries > 0, SOON);
    // Between two inquiries, or with one under way: in either case the next one has no job any more.
    await world.pipeline.redis.del(...(await world.queueKeys()));
    const asked = seenBy(one.reference).inquiries;
    await vi.waitUntil(() => seenBy(one.reference).inquiries > asked + 2, SOON);
    expect(seenBy(one.reference)).toMatchObject({ requests: 1, codesReceived: [WAITS] });
  });
});

describe.concurrent('the queues from an old dump', SLOWLY, () => {
  test('taken while the job waited, restored after it was settled: nothing is sent again', async () => {
    await using world = await World.start({ workers: false });
    const cases = await Promise.all(Array.from({ length: 5 }, () => world.enqueue(RIGHT)));
    const dump = await world.dumpQueues();
    expect(dump.length).toBeGreaterThan(5);
    await world.pipeline.restartWorkers();
    const resources = await world.expectPaidOnce(...cases);

    await world.restoreQueues(dump);
    await vi.waitUntil(() => cases.every(({ id }) => world.prevented(id, 'settled') > 0), SOON);
    expect(await world.expectPaidOnce(...cases)).toEqual(resources);
  });

  test('taken while the job waited, restored while the code is on its way: nothing is sent again', async () => {
    await using world = await World.start({ workers: false });
    const one = await world.enqueue(SLOW);
    const dump = await world.dumpQueues();
    await world.pipeline.restartWorkers();
    await vi.waitUntil(() => seenBy(one.reference).charges === 1, SOON);
    await world.restoreQueues(dump);
    await vi.waitUntil(() => world.prevented(one.id) > 0, SOON);
    await world.expectPaidOnce(one);
  });
});
