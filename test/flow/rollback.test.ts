/**
 * Redis dies and comes back without its last writes, with those of long ago, or empty. Its journal says "queued" of
 * codes that were sent; the ledger of the sandbox, which forgets nothing, says whether one was sent again. What the
 * recovery does in detail is shown in test/workers/epoch.test.ts.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { readKeySet } from '../../src/key-files.ts';
import { partitionKeys } from '../../src/producers/job.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { type Sandbox, startSandbox, type TransactionView } from '../../src/sandbox/index.ts';
import {
  copyOf,
  killLosing,
  loseWrites,
  type Position,
  position,
  putBack,
  startForgetfulRedis,
} from '../support/lost-writes.ts';
import { bodyFor, type Pipeline, startPipeline } from '../support/pipeline.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { type Installation, install, type ServiceProcess, serve } from '../support/service.ts';
import { expectSetsToAgree } from '../workers/support.ts';

const SOON = { timeout: 30_000, interval: 20 };
const WITHIN_MS = 30_000;
const RIGHT = '123456';
const WRONG = '400001';
/** Accepted and charged, and held back for as long as the sandbox is slow. */
const SLOW = '800015';
/** Accepted and charged, and never answered. */
const SILENT = '800003';
const SLOW_MS = 2_000;
/** The uptime of a server is known in whole seconds. */
const UPTIME_MS = 3_000;
/** A loss window that no slow machine outlasts between a position in the file and the end of the server. */
const AMPLE_MS = 30_000;
const keys = partitionKeys('cepta');

let sandbox: Sandbox;

beforeAll(async () => {
  // The queues of the tests say there what the tests do to their Redis.
  vi.spyOn(console, 'error').mockImplementation(() => {});
  sandbox = await startSandbox({ settleAfterMs: 0, slowMs: SLOW_MS });
});

afterAll(async () => {
  expect(sandbox.ledger.transactions().filter(({ codesReceived }) => codesReceived.length > 1)).toEqual([]);
  await sandbox.close();
});

const seenBy = ({ reference }: Case): TransactionView => sandbox.ledger.transaction('cepta', reference);
const wasSent = (one: Case): boolean => seenBy(one).codesReceived.length > 0;
const eventsOf = ({ history }: VerificationResource): string[] => (history ?? []).map(({ event }) => event);

interface Case {
  readonly id: string;
  readonly reference: string;
  readonly body: Record<string, unknown>;
  readonly key: string;
}

async function enqueue(pipeline: Pipeline, otp: string, given: Record<string, unknown> = {}): Promise<Case> {
  const reference = `TX${randomUUID().slice(0, 8)}`;
  const body = { ...bodyFor('cepta', otp, { transactionRef: reference }), ...given };
  const key = randomUUID();
  return { id: await pipeline.enqueue(body, key), reference, body, key };
}

describe.concurrent('a worker that outlives Redis', { timeout: 60_000 }, () => {
  class World implements AsyncDisposable {
    readonly server: TestRedis;
    readonly pipeline: Pipeline;

    private constructor(server: TestRedis, pipeline: Pipeline) {
      this.server = server;
      this.pipeline = pipeline;
    }

    static async start({
      appendfsync = 'always',
      timeoutMs = 20_000,
    }: {
      appendfsync?: 'always' | 'everysec';
      timeoutMs?: number;
    } = {}): Promise<World> {
      const server =
        appendfsync === 'always' ? await startForgetfulRedis() : await startTestRedis({ appendonly: true });
      const settings = { timeoutMs, recoverMs: 500, lossWindowMs: AMPLE_MS };
      const pipeline = await startPipeline({ cepta: { ...sandbox.providers.cepta, settings } }, { server });
      return new World(server, pipeline);
    }

    /** Accepted, and not begun before the queue is resumed. */
    async enqueuePaused(otp: string): Promise<{ one: Case; accepted: Position }> {
      await this.pipeline.queue('cepta').pause();
      const one = await enqueue(this.pipeline, otp);
      return { one, accepted: position(this.server) };
    }

    async resume(): Promise<void> {
      await this.pipeline.queue('cepta').resume();
    }

    /** Back to where the queue was paused, and everything since then forgotten. */
    async lose(since: Position): Promise<void> {
      await loseWrites(this.server, since);
      expect(await this.pipeline.queue('cepta').isPaused()).toBe(true);
    }

    /** Everything that still stands in the queue has been looked at, and the code was received once. */
    async expectSentOnce(one: Case): Promise<void> {
      await this.resume();
      await vi.waitUntil(async () => {
        const counts = await this.pipeline.queue('cepta').getJobCounts('waiting', 'prioritized', 'active', 'delayed');
        return Object.values(counts).every((count) => count === 0);
      }, SOON);
      expect(seenBy(one).requests).toBe(1);
      expect(seenBy(one).codesReceived).toHaveLength(1);
      await expectSetsToAgree(this.pipeline.redis);
    }

    async [Symbol.asyncDispose](): Promise<void> {
      await this.pipeline[Symbol.asyncDispose]();
      await this.server[Symbol.asyncDispose]();
    }
  }

  test('that loses nothing, in the midst of its work: everything ends, every code is received once', async () => {
    await using world = await World.start({ appendfsync: 'everysec' });
    const { pipeline, server } = world;
    const codes = Array.from({ length: 45 }, (_, index) => [RIGHT, WRONG, SLOW][index % 3] as string);
    const cases = await Promise.all(codes.map((otp) => enqueue(pipeline, otp)));
    // Redis holds its writes back while the disk is busy with the last ones: the acceptances are in the file.
    await vi.waitUntil(async () => (await pipeline.redis.info('persistence')).includes('aof_buffer_length:0'), SOON);
    await vi.waitUntil(() => cases.filter(wasSent).length > 10, SOON);
    await server.kill();
    await server.start();
    const resources = await Promise.all(cases.map(({ id }) => pipeline.final(id, WITHIN_MS)));
    for (const [index, { otp, transaction }] of resources.entries()) {
      expect({ otp, transaction }).toEqual(
        codes[index] === WRONG
          ? { otp: 'rejected', transaction: 'pending' }
          : { otp: 'accepted', transaction: 'succeeded' },
      );
    }
    for (const one of cases) expect(seenBy(one)).toMatchObject({ requests: 1 });
    expect(pipeline.seen.filter(({ name }) => name === 'journal:recovered').map(({ payload }) => payload)).toEqual([
      { partition: 'cepta', bounded: true, missing: 0, suspected: 0 },
    ]);
    await expectSetsToAgree(pipeline.redis);
  });

  test('that has lost the beginning: the answer comes to what was written back', async () => {
    await using world = await World.start();
    const { one, accepted } = await world.enqueuePaused(SLOW);
    await world.resume();
    await vi.waitUntil(() => wasSent(one), SOON);
    await world.lose(accepted);

    const final = await world.pipeline.final(one.id, WITHIN_MS);
    expect(final).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
    expect(eventsOf(final).slice(0, 3)).toEqual(['accepted', 'begun', 'answered']);
    await world.expectSentOnce(one);
  });

  test('that has lost the beginning of what is never answered: the inquiry settles it', async () => {
    await using world = await World.start({ timeoutMs: 3_000 });
    const { one, accepted } = await world.enqueuePaused(SILENT);
    await world.resume();
    await vi.waitUntil(() => wasSent(one), SOON);
    await world.lose(accepted);
    const final = await world.pipeline.final(one.id, WITHIN_MS);
    expect(final).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
    expect(eventsOf(final).slice(0, 4)).toEqual(['accepted', 'begun', 'lost', 'inquired']);
    await world.expectSentOnce(one);
  });

  test('that has lost the beginning and the end: the outcome is the same again', async () => {
    await using world = await World.start();
    const { one, accepted } = await world.enqueuePaused(WRONG);
    await world.resume();
    const before = await world.pipeline.final(one.id, WITHIN_MS);
    await world.lose(accepted);
    const final = await world.pipeline.final(one.id, WITHIN_MS);
    expect(final).toMatchObject({ otp: 'rejected', reason: 'wrong_code', sequence: before.sequence });
    await world.expectSentOnce(one);
  });

  test('that has lost even the acceptance: the verification is there, and its request may be repeated', async () => {
    await using world = await World.start();
    const { pipeline } = world;
    // The worker's first beat is on the disk.
    await vi.waitUntil(async () => (await pipeline.redis.exists(keys.epoch)) === 1, SOON);
    const before = position(world.server);
    const one = await enqueue(pipeline, SLOW);
    await vi.waitUntil(() => wasSent(one), SOON);
    await loseWrites(world.server, before);
    const repeated = await pipeline.enqueue(one.body, one.key);
    expect(repeated).not.toBe(one.id); // the key went with the acceptance
    await vi.waitUntil(async () => await pipeline.redis.exists(keys.record(one.id)), SOON);
    expect(await pipeline.final(one.id, WITHIN_MS)).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
    expect(await pipeline.final(repeated, WITHIN_MS)).toMatchObject({ otp: 'not_submitted' });
    await world.expectSentOnce(one);
  });

  test('that was emptied: what is on its way is answered, what was queued is gone and may be asked for again', async () => {
    await using world = await World.start();
    const { pipeline } = world;
    const underWay = await enqueue(pipeline, SLOW);
    await vi.waitUntil(() => wasSent(underWay), SOON);
    const { one: queued } = await world.enqueuePaused(RIGHT);
    await pipeline.redis.flushall();
    await vi.waitUntil(async () => await pipeline.redis.exists(keys.record(underWay.id)), SOON);
    expect(await pipeline.final(underWay.id, WITHIN_MS)).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
    await expect(pipeline.read(queued.id)).rejects.toThrow('no verification');
    expect(wasSent(queued)).toBe(false);
    const again = await pipeline.enqueue(queued.body, queued.key);
    expect(await pipeline.final(again, WITHIN_MS)).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
    await world.expectSentOnce(underWay);
    await world.expectSentOnce(queued);
  });
});

describe.concurrent('otp serve', { timeout: 90_000 }, () => {
  class House implements AsyncDisposable {
    readonly server: TestRedis;
    readonly installation: Installation;
    /** Accepts; has no worker. */
    readonly pipeline: Pipeline;
    readonly #workers: ServiceProcess[] = [];

    private constructor(server: TestRedis, installation: Installation, pipeline: Pipeline) {
      this.server = server;
      this.installation = installation;
      this.pipeline = pipeline;
    }

    static async start(journal: Record<string, unknown>): Promise<House> {
      const server = await startForgetfulRedis();
      const cepta = { ...sandbox.providers.cepta, timeoutMs: 20_000, concurrency: 3, inquiry: { delaysMs: [200] } };
      const installation = await install({ redis: { url: server.url }, providers: { cepta }, journal });
      const keySet = readKeySet(join(installation.folder, 'keys.json'), 'sealing.keyFile');
      const pipeline = await startPipeline({ cepta: sandbox.providers.cepta }, { workers: false, server, keySet });
      return new House(server, installation, pipeline);
    }

    async worker(): Promise<ServiceProcess> {
      const worker = await serve(this.installation.file, 'worker');
      this.#workers.push(worker);
      return worker;
    }

    async enqueueAll(codes: readonly string[], given: Record<string, unknown> = {}): Promise<Case[]> {
      return await Promise.all(codes.map((otp) => enqueue(this.pipeline, otp, given)));
    }

    async readAll(cases: readonly Case[]): Promise<VerificationResource[]> {
      return await Promise.all(cases.map(({ id }) => this.pipeline.read(id)));
    }

    /** The journal is open again, on the server that runs now. */
    async opened(): Promise<void> {
      const { redis } = this.pipeline;
      const id = /run_id:(\w+)/.exec(await redis.info('server'))?.[1] ?? '';
      await vi.waitUntil(async () => (await redis.hget(keys.epoch, 'server'))?.startsWith(id), SOON);
    }

    async [Symbol.asyncDispose](): Promise<void> {
      for (const worker of this.#workers) await worker[Symbol.asyncDispose]();
      await this.pipeline[Symbol.asyncDispose]();
      await this.installation[Symbol.asyncDispose]();
      await this.server[Symbol.asyncDispose]();
    }
  }

  test('of two workers one dies with Redis: what it may have sent is unknown until it is proved, and never sent again', async () => {
    await using house = await House.start({ lossWindowMs: AMPLE_MS, recoverMs: UPTIME_MS + 2_000 });
    const { pipeline, server } = house;
    const [victim] = await Promise.all([house.worker(), house.worker()]);
    const queue = pipeline.queue('cepta');
    await queue.pause();
    // Three at a time each: all of the first six are on their way, three of them in the worker that will die.
    const cases = await house.enqueueAll(Array.from({ length: 8 }, () => SLOW));
    const accepted = position(server);
    await queue.resume();
    await vi.waitUntil(() => cases.filter(wasSent).length === 6, SOON);
    const owners = await Promise.all(cases.map(({ id }) => pipeline.redis.hget(keys.record(id), 'owner')));
    expect(owners.filter((owner) => owner?.includes(`-${victim?.pid}-`))).toHaveLength(3);
    const sent = cases.filter(wasSent);
    const notSent = cases.filter((one) => !wasSent(one));
    await Promise.all([victim?.kill('SIGKILL'), killLosing(server, accepted)]);
    await server.start();
    expect(await queue.isPaused()).toBe(true);
    await queue.resume();
    // Late enough to be certainly this server's, and before the journal is open.
    await vi.waitUntil(async () => uptimeOf(await pipeline.redis.info('server')) >= UPTIME_MS, SOON);
    const [fresh] = (await house.enqueueAll([RIGHT])) as [Case];

    for (const one of sent) {
      const final = await pipeline.final(one.id, WITHIN_MS);
      expect(final).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
      expect(seenBy(one)).toMatchObject({ requests: 1, charges: 1 });
    }
    const told = await house.readAll(sent);
    expect(told.filter((resource) => eventsOf(resource).includes('rolled_back'))).toHaveLength(3);
    expect(told.filter((resource) => eventsOf(resource).includes('begun'))).toHaveLength(3);
    // Nobody lives who knows that these two had not been begun.
    for (const resource of await house.readAll(notSent)) {
      expect(resource).toMatchObject({ state: 'awaiting', otp: 'unknown', transaction: 'unknown', needsReview: false });
    }
    expect(notSent.map(wasSent)).toEqual([false, false]);
    expect(await pipeline.final(fresh.id, WITHIN_MS)).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
    expect(eventsOf(await pipeline.read(fresh.id))).not.toContain('rolled_back');
  });

  test('all workers die with Redis, for longer than the loss window: a person looks at everything that is not final', async () => {
    await using house = await House.start({ lossWindowMs: 300, recoverMs: 500 });
    const { pipeline, server } = house;
    const worker = await house.worker();
    const [done] = (await house.enqueueAll([WRONG])) as [Case];
    const final = await pipeline.final(done.id, WITHIN_MS);
    const queue = pipeline.queue('cepta');
    await queue.pause();
    const cases = await house.enqueueAll([SLOW, SLOW, SILENT, RIGHT]);
    const accepted = position(server);
    await queue.resume();
    await vi.waitUntil(() => cases.filter(wasSent).length === 3, SOON);
    await Promise.all([worker.kill('SIGKILL'), killLosing(server, accepted)]);
    const diedAt = Date.now();
    await vi.waitUntil(() => Date.now() > diedAt + 300 + UPTIME_MS, { timeout: 10_000 });
    await server.start();
    await queue.resume();
    await house.worker();

    await house.opened();
    for (const one of cases) {
      const resource = await pipeline.until(one.id, ({ state }) => state !== 'queued', WITHIN_MS);
      expect(eventsOf(resource).slice(0, 2)).toEqual(['accepted', 'rolled_back']);
      expect(resource.otp).not.toBe('not_submitted');
    }
    expect((await pipeline.results()).filter(({ type }) => type === 'otp.verification.review')).toHaveLength(4);
    // The inquiry proves what can be proved; the person is spared that.
    for (const one of cases.filter(wasSent)) {
      expect(await pipeline.final(one.id, WITHIN_MS)).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
      expect(seenBy(one).requests).toBe(1);
    }
    const [untouched] = cases.filter((one) => !wasSent(one)) as [Case];
    expect(await pipeline.read(untouched.id)).toMatchObject({ state: 'awaiting', otp: 'unknown', needsReview: true });
    expect(await pipeline.read(done.id)).toEqual(final);
  });

  test('an old copy is put back: nothing is sent, nothing is called not submitted, a person looks at all of it', async () => {
    await using house = await House.start({ lossWindowMs: 300, recoverMs: 500 });
    const { pipeline, server } = house;
    const worker = await house.worker();
    await vi.waitUntil(async () => await pipeline.redis.exists(keys.epoch), SOON);
    await pipeline.queue('cepta').pause();
    const expiresAt = new Date(Date.now() + 8_000).toISOString();
    const cases = await house.enqueueAll([RIGHT, WRONG, RIGHT]);
    const dying = await house.enqueueAll([RIGHT, WRONG], { expiresAt });
    using copy = copyOf(server);
    await pipeline.queue('cepta').resume();
    const settled = await Promise.all([...cases, ...dying].map(({ id }) => pipeline.final(id, WITHIN_MS)));
    expect(settled.map(({ otp }) => otp)).toEqual(['accepted', 'rejected', 'accepted', 'accepted', 'rejected']);
    const requests = [...cases, ...dying].map((one) => seenBy(one).requests);
    await worker.kill('SIGTERM');
    await server.stop();
    await vi.waitUntil(() => Date.now() > Date.parse(expiresAt), { timeout: 10_000 });
    putBack(server, copy);
    await server.start();
    await pipeline.queue('cepta').resume();
    await house.worker();

    await house.opened();
    for (const one of [...cases, ...dying]) {
      const resource = await pipeline.until(one.id, ({ state }) => state !== 'queued', WITHIN_MS);
      expect(eventsOf(resource).slice(0, 2)).toEqual(['accepted', 'rolled_back']);
      expect(resource.otp).not.toBe('not_submitted');
    }
    expect((await pipeline.results()).filter(({ type }) => type === 'otp.verification.review')).toHaveLength(5);
    for (const resource of await house.readAll([cases[1] as Case, dying[1] as Case])) {
      expect(resource).toMatchObject({ state: 'awaiting', otp: 'unknown', needsReview: true });
    }
    expect([...cases, ...dying].map((one) => seenBy(one).requests)).toEqual(requests);
  });
});

const uptimeOf = (info: string): number => Number(/uptime_in_seconds:(\d+)/.exec(info)?.[1]) * 1_000;
