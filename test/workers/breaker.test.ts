/** The breaker of a partition with two workers, on a real Redis, in front of providers that are down, fail and come back. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Events } from '../../src/events.ts';
import { partitionKeys } from '../../src/producers/job.ts';
import type { Outcome } from '../../src/providers/provider.ts';
import { type Sandbox, type SandboxProvider, startSandbox } from '../../src/sandbox/index.ts';
import type { BreakerSettings } from '../../src/workers/breaker-policy.ts';
import { bodyFor, type PartitionEntry, type Pipeline, startPipeline } from '../support/pipeline.ts';
import { type Behaviour, behaviours, type ProviderServer, startProviderServer } from '../support/provider-server.ts';
import { BEST_OF_THREE } from '../support/timing.ts';
import { expectSetsToAgree, journalOf, seed } from './support.ts';

const BREAKER: BreakerSettings = {
  ...{ enabled: true, failures: 3, share: 0.5, windowMs: 60_000, openMs: 200, maxOpenMs: 500, rampMs: 4_000 },
};
const RATE = { max: 20, perMs: 200 };
let sandbox: Sandbox;
const open: AsyncDisposable[] = [];

beforeAll(async () => {
  sandbox = await startSandbox({ settleAfterMs: 0 });
});

afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one[Symbol.asyncDispose]();
});

afterAll(async () => {
  await sandbox.close();
});

type Settings = NonNullable<PartitionEntry['settings']>;

/** Two workers of one partition, as two processes have them: nothing in common but Redis. */
async function startPair(name: SandboxProvider, baseUrl = sandbox.providers[name].baseUrl, settings: Settings = {}) {
  const entry = {
    ...sandbox.providers[name],
    baseUrl,
    settings: { breaker: BREAKER, rateLimit: RATE, timeoutMs: 1_000, inquiry: SELDOM, ...settings },
  };
  const one = await startPipeline({ [name]: entry });
  open.push(one);
  const other = await startPipeline({ [name]: entry }, { server: one.server, keySet: one.keySet });
  open.push(other);
  const told = <Name extends keyof Events>(event: Name): Events[Name][] =>
    [one, other].flatMap(({ seen }) =>
      seen.filter(({ name }) => name === event).map(({ payload }) => payload as Events[Name]),
    );
  return { one, other, told, keys: partitionKeys(name) };
}

const SELDOM = { delaysMs: [60_000], giveUpAfterMs: 3_600_000 };

async function startServer(behaviour: Behaviour): Promise<ProviderServer> {
  const server = await startProviderServer(behaviour);
  open.push(server);
  return server;
}

const enqueueMany = async (pipeline: Pipeline, name: SandboxProvider, count: number): Promise<string[]> =>
  await Promise.all(Array.from({ length: count }, async () => await pipeline.enqueue(bodyFor(name, '123456'))));

const stateOf = async ({ redis }: Pipeline, name: string): Promise<string | null> =>
  await redis.hget(partitionKeys(name).breaker, 'state');
const until = { timeout: 8_000, interval: 10 };
const CEPTA_PAID = { status: true, message: 'ok', data: { status: 'SUCCESSFUL', transactionRef: 'x' } };
const isInquiry = ({ path }: { path: string }): boolean => path.includes('confirm-status');

test(
  'a provider that is down stops both workers; when it is back, the backlog is worked off at a rate that grows',
  BEST_OF_THREE,
  async () => {
    const { one, other, told } = await startPair('beqelal');
    await sandbox.takeDown('beqelal');
    const ids = await enqueueMany(one, 'beqelal', 40);
    await expect.poll(async () => await stateOf(one, 'beqelal'), until).toBe('open');
    await expect.poll(() => told('breaker:probed').length, until).toBeGreaterThan(1);
    const rows = told('breaker:opened').map(({ row }) => row);
    expect(new Set(rows).size, 'each opening is told by one of the two').toBe(rows.length);
    const begunWhileDown = told('attempt:begun').length;
    await expect.poll(() => told('breaker:probed').length, until).toBeGreaterThan(2);
    expect(told('attempt:begun')).toHaveLength(begunWhileDown);
    expect(told('breaker:probed').every(({ by, answered }) => by === 'connection' && !answered)).toBe(true);

    const from = sandbox.ledger.entries.length;
    await sandbox.bringUp('beqelal');
    for (const id of ids) expect(await one.final(id, 20_000)).toMatchObject({ otp: 'accepted' });
    expect(await stateOf(other, 'beqelal')).toBe('closed');
    expect(told('breaker:half-opened')).toHaveLength(1);
    expect(told('breaker:closed')).toEqual([{ partition: 'beqelal', afterMs: expect.any(Number) }]);
    expect(told('machinery:failed')).toEqual([]);

    const received = sandbox.ledger.entries
      .slice(from)
      .filter(({ event, provider }) => provider === 'beqelal' && event === 'code_received');
    expect(new Set(received.map(({ reference }) => reference)).size).toBe(40);
    expect(received).toHaveLength(40);
    const times = received.map(({ at }) => Date.parse(at));
    expect(mostWithin(times, RATE.perMs)).toBeLessThanOrEqual(RATE.max * 1.1);
    // The first answered, then a tenth of the rate and growing: nothing like the twenty that the rate allows.
    expect(times.filter((at) => at < (times[1] ?? 0) + RATE.perMs).length).toBeLessThanOrEqual(0.6 * RATE.max);
    await expectSetsToAgree(one.redis, 'beqelal');
  },
);

const mostWithin = (times: readonly number[], windowMs: number): number =>
  Math.max(...times.map((from) => times.filter((at) => at >= from && at < from + windowMs).length));

describe('a provider that fails with 503', () => {
  test('is asked no more than the probes ask, then sent one verification at a time until one is answered', async () => {
    const server = await startServer(behaviours.says(503));
    // Inquiries are due at once: while it is open they are asked as probes alone.
    const { one, other, told } = await startPair('cepta', server.url, {
      concurrency: 2,
      inquiry: { delaysMs: [1], giveUpAfterMs: 3_600_000 },
    });
    // Counted when it happens: a look from outside may come when the breaker has moved on.
    const begun = (): number => told('attempt:begun').length;
    const asked = (): number => server.requests.filter(isInquiry).length;
    const atProbe: { begun: number; asked: number }[] = [];
    const atOpening: number[] = [];
    const held: (() => void)[] = [];
    for (const { events } of [one, other]) {
      events.on('breaker:probed', () => atProbe.push({ begun: begun(), asked: asked() }));
      events.on('breaker:opened', ({ row }) => {
        atOpening.push(begun());
        if (row !== 3) return;
        server.behave((socket, request) => {
          if (isInquiry(request)) behaviours.saysJson(200, CEPTA_PAID)(socket, request);
          else held.push(() => behaviours.saysJson(200, { status: true, message: 'ok', data: {} })(socket, request));
        });
      });
    }
    const ids = await enqueueMany(one, 'cepta', 12);
    await expect.poll(() => atOpening.length, until).toBe(3);
    const [first, second] = atProbe;
    // Each of the two workers had two under way when it opened.
    const submitted = first?.begun ?? 0;
    expect(submitted).toBeLessThanOrEqual(BREAKER.failures + 3);
    expect(told('breaker:probed').find(({ by }) => by === 'inquiry')).toMatchObject({ answered: false, code: '503' });
    expect(second, 'nothing else is sent or asked while it is open').toEqual(first);
    // An inquiry that is broken alone keeps nobody waiting: every second probe goes without, and a connection it gets.
    expect(told('breaker:probed').find(({ by }) => by === 'connection')).toMatchObject({ answered: true });

    // Half open: a single one went, and it failed.
    expect(atOpening[2]).toBe(submitted + 1);
    expect(told('breaker:opened').find(({ row }) => row === 3)).toMatchObject({ because: '503', again: true });

    await expect.poll(() => held.length, until).toBe(1);
    expect(begun()).toBe(submitted + 2);
    expect(await stateOf(one, 'cepta')).toBe('half_open');
    server.behave((socket, request) =>
      isInquiry(request)
        ? behaviours.saysJson(200, CEPTA_PAID)(socket, request)
        : behaviours.saysJson(200, { status: true, message: 'ok', data: {} })(socket, request),
    );
    held[0]?.();
    await expect.poll(async () => await stateOf(one, 'cepta'), until).toBe('closed');
    await expect.poll(begun, until).toBe(12);
    await expect.poll(() => server.requests.filter((request) => !isInquiry(request)).length, until).toBe(12);
    expect(new Set(told('attempt:begun').map(({ id }) => id))).toEqual(new Set(ids));
  });
});

test('a provider that takes codes and is silent opens it too: every code given to it would be unknown', async () => {
  const server = await startServer(behaviours.isSilent);
  const { one, told } = await startPair('beqelal', server.url, { timeoutMs: 300, concurrency: 2 });
  await enqueueMany(one, 'beqelal', 12);
  await expect.poll(() => told('breaker:opened')[0], until).toMatchObject({ because: 'TIMEOUT', row: 1 });
  expect(told('attempt:begun').length).toBeLessThanOrEqual(BREAKER.failures + 4);
});

test('a provider that issues tokens is probed with one', async () => {
  const server = await startServer(behaviours.says(503));
  const { one, told } = await startPair('lipa-later', server.url, { concurrency: 2 });
  await enqueueMany(one, 'lipa-later', 1);
  await expect.poll(() => told('breaker:opened')[0], until).toMatchObject({ because: 'TOKEN_HTTP_503' });
  await expect
    .poll(() => told('breaker:probed')[0], until)
    .toEqual({
      ...{ partition: 'lipa-later', by: 'token', answered: false, code: 'TOKEN_HTTP_503' },
    });
  expect(server.requests.every(({ path }) => path.includes('token'))).toBe(true);
  expect(told('attempt:begun')).toEqual([]);
});

test('switched off, it holds nothing, and what an earlier one left behind holds nothing', async () => {
  const { one, told } = await startPair('beqelal', undefined, { breaker: { ...BREAKER, enabled: false } });
  await one.redis.hset(partitionKeys('beqelal').breaker, { state: 'open', until: String(Date.now() + 60_000) });
  await one.queue('beqelal').rateLimit(60_000);
  await one.restartWorkers();
  await sandbox.takeDown('beqelal');
  const ids = await enqueueMany(one, 'beqelal', 6);
  await expect.poll(() => told('call:ended').length, until).toBeGreaterThan(8);
  expect(await one.redis.exists(partitionKeys('beqelal').breaker)).toBe(0);
  await sandbox.bringUp('beqelal');
  for (const id of ids) expect(await one.final(id)).toMatchObject({ otp: 'accepted' });
});

describe('in the journal', () => {
  const seal = async (): Promise<string> => 'sealed';
  const halfOpen = { state: 'half_open', version: 'v', since: '1', troubleSince: '1', until: '0', row: '1' };

  async function startJournals() {
    const pipeline = await startPipeline({ cepta: sandbox.providers.cepta }, { workers: false });
    open.push(pipeline);
    const journals = ['a', 'b'].map((worker) => journalOf(pipeline, { breaker: BREAKER }, worker));
    return { ...pipeline, journals, keys: partitionKeys('cepta') };
  }

  test('open, nothing begins and nothing is asked but by the probe; codes still die at their deadline', async () => {
    const { redis, journals, keys } = await startJournals();
    const [journal] = journals;
    const [id, dying] = [await seed(redis), await seed(redis, { lifetimeMs: 1 })];
    await redis.hset(keys.breaker, { ...halfOpen, state: 'open', until: String(Date.now() + 30_000) });
    expect(await journal?.begin(id)).toMatchObject({ is: 'later', because: 'held' });
    await expect
      .poll(async () => await journal?.begin(dying), until)
      .toMatchObject({ is: 'evidence', evidence: { from: 'deadline' } });

    await redis.hset(keys.record(id), { state: 'awaiting', nextInquiryAt: '1' });
    expect(await journal?.ask(id, 0)).toMatchObject({ is: 'later' });
    expect(await journal?.ask(id, 0, true)).toMatchObject({ is: 'ask' });
  });

  test('half open, whoever is on trial is alone until his outcome is written, whatever it is', async () => {
    const { redis, journals, keys } = await startJournals();
    const [first, second] = [await seed(redis), await seed(redis)];
    await redis.hset(keys.breaker, halfOpen);
    const begun = await journals[0]?.begin(first);
    expect(begun).toMatchObject({ is: 'begun' });
    expect(await journals[1]?.begin(second)).toMatchObject({ is: 'later', because: 'held' });
    if (begun?.is !== 'begun') throw new Error('not begun');
    // Its worker died: nothing is known of the provider, and the next one is on trial.
    const { heard } = (await journals[1]?.apply(begun.record, { from: 'owner_dead' }, {}, seal)) ?? {};
    expect(heard).toBeNull();
    expect(await journals[1]?.begin(second)).toMatchObject({ is: 'begun' });
    expect(await redis.hget(keys.breaker, 'trial')).toBe(second);
  });

  test('half open, nobody goes between a trial that failed and the opening that follows from it', async () => {
    const { redis, journals, keys } = await startJournals();
    const [first, second] = [await seed(redis), await seed(redis)];
    await redis.hset(keys.breaker, halfOpen);
    const begun = await journals[0]?.begin(first);
    if (begun?.is !== 'begun') throw new Error('not begun');
    const { heard } = (await journals[0]?.apply(begun.record, { from: 'lost', code: 'TIMEOUT' }, {}, seal)) ?? {};
    expect(heard).toMatchObject({ health: 'failed', trial: true });
    expect(await journals[1]?.begin(second)).toMatchObject({ is: 'later', because: 'held' });

    // Its worker died before it could open the breaker: that keeps the others waiting no longer than the trial itself.
    await redis.hset(keys.breaker, { trialUntil: '1' });
    expect(await journals[1]?.begin(second)).toMatchObject({ is: 'begun' });
  });

  test('half open, a token that cannot be had opens it again: without one nobody gets as far as a trial', async () => {
    const { redis, journals, keys } = await startJournals();
    const record = await journals[0]?.read(await seed(redis));
    if (!record) throw new Error('not there');
    await redis.hset(keys.breaker, halfOpen);
    const evidence = { from: 'not_sent', code: 'TOKEN_HTTP_503', remediable: true, atProvider: true } as const;
    const { heard } = (await journals[0]?.apply(record, evidence, {}, seal)) ?? {};
    expect(heard).toMatchObject({
      health: 'failed',
      trial: true,
      code: 'TOKEN_HTTP_503',
      breaker: { is: 'half_open' },
    });
  });

  test('a note in the history of the one on trial does not end its trial', async () => {
    const { redis, journals, keys } = await startJournals();
    const id = await seed(redis);
    await redis.hset(keys.breaker, halfOpen);
    const begun = await journals[0]?.begin(id);
    if (begun?.is !== 'begun') throw new Error('not begun');
    const callback = { from: 'callback', finding: { kind: 'pending', providerCode: 'P' }, receivedAt: 1 } as const;
    await journals[0]?.apply(begun.record, callback, {}, seal);
    expect(await redis.hget(keys.breaker, 'trial')).toBe(id);
  });

  test('closed of late, the rate begins at a tenth', async () => {
    const { redis, keys, ...pipeline } = await startJournals();
    const ramped = journalOf(pipeline && { redis }, {
      breaker: { ...BREAKER, rampMs: 3_600_000 },
      rateLimit: { max: 20, perMs: 60_000 },
    });
    await redis.hset(keys.breaker, { ...halfOpen, state: 'closed', since: String(Date.now()) });
    const begun: string[] = [];
    for (let count = 0; count < 6; count += 1) begun.push((await ramped.begin(await seed(redis))).is);
    expect(begun).toEqual(['begun', 'begun', 'begun', 'later', 'later', 'later']);
  });

  test('what the provider said of its limit holds for every worker, and a shorter word does not shorten it', async () => {
    const { redis, journals } = await startJournals();
    const throttle = async (id: string, retryAfterMs: number): Promise<void> => {
      const begun = await journals[0]?.begin(id);
      if (begun?.is !== 'begun') throw new Error('not begun');
      const outcome: Outcome = {
        ...{ kind: 'refused', cause: 'throttled', remedy: { do: 'wait' }, providerCode: '429' },
        retryAfterMs,
      };
      await journals[0]?.apply(begun.record, { from: 'answer', outcome }, { status: 429 }, seal);
    };
    const ids = await Promise.all(Array.from({ length: 3 }, () => seed(redis)));
    const told = Date.now() + 30_000;
    await throttle(ids[0] as string, 30_000);
    const held = await journals[1]?.begin(ids[1] as string);
    expect(held).toMatchObject({ is: 'later', because: 'rate_limited' });
    expect(held?.is === 'later' ? held.at : 0).toBeGreaterThanOrEqual(told - 5);
    const inquired = await seed(redis);
    await redis.hset(partitionKeys('cepta').record(inquired), { state: 'awaiting', nextInquiryAt: '1' });
    expect(await journals[1]?.ask(inquired, 0), 'inquiries have a budget of their own').toMatchObject({ is: 'ask' });
  });
});
