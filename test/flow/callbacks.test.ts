/** Callbacks all the way: over HTTP into the intake, through the queue, to the verification that they are about. */
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Registry } from 'prom-client';
import { describe, expect, test, vi } from 'vitest';
import { observe } from '../../src/metrics/observe.ts';
import { createMetrics } from '../../src/metrics/registry.ts';
import { callbackQueues } from '../../src/producers/callbacks.ts';
import { createIntake } from '../../src/producers/intake.ts';
import { partitionKeys } from '../../src/producers/job.ts';
import type { VerificationRecord } from '../../src/producers/record.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { Sealer } from '../../src/producers/sealing.ts';
import { Waiting } from '../../src/producers/waiting.ts';
import { providers } from '../../src/providers/index.ts';
import { connectRedis } from '../../src/redis/connections.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { everyKey } from '../support/every-key.ts';
import { bodyFor, CLIENT, type PartitionEntry, type Pipeline, startPipeline } from '../support/pipeline.ts';
import { type Behaviour, behaviours, type ProviderServer, startProviderServer } from '../support/provider-server.ts';
import { journalOf } from '../workers/support.ts';

const SECRET = 'callback-secret-of-the-test';
const CEPTA_HASH = createHash('sha512').update('keyM-1').digest('hex');
/** In what the provider says of its customer; nobody may read it where it is kept. */
const CANARY = '251-CANARY-PHONE';
/** So far away that what happens sooner happened because of a callback. */
const FAR_AWAY = { delaysMs: [600_000], giveUpAfterMs: 3_600_000 };

interface House extends AsyncDisposable {
  readonly pipeline: Pipeline;
  readonly url: string;
  /** Posts a callback and gives the status of the answer. */
  report(path: string, body: unknown, headers?: Record<string, string>): Promise<number>;
  queue(partition: string): ReturnType<ReturnType<typeof callbackQueues>['queue']>;
}

/** A pipeline, and before it an intake that takes its callbacks. */
async function startHouse(entries: Record<string, PartitionEntry>): Promise<House> {
  const pipeline = await startPipeline(entries);
  const redis = connectRedis(pipeline.server.url, 'producer', { onError: () => {} });
  const queues = callbackQueues(redis);
  const waiting = new Waiting(redis, pipeline.events);
  const bound = new Map(
    Object.entries(entries).map(([name, { adapter = name, baseUrl, credentials, options }]) => {
      const provider = providers[adapter];
      if (!provider) throw new Error(`no adapter ${adapter}`);
      const context = {
        baseUrl,
        credentials: provider.credentials.parse(credentials),
        options: provider.options.parse(options ?? {}),
      };
      return [name, provider.bind(context).callback] as const;
    }),
  );
  const intake = createIntake({
    ...pipeline.accepting,
    redis,
    sealer: await Sealer.create(pipeline.keySet),
    clients: [CLIENT],
    waiting,
    callbacks: { of: (partition) => bound.get(partition) ?? null, queue: queues.queue },
  });
  const http = createServer(intake).listen(0, '127.0.0.1');
  await once(http, 'listening');
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/v1/callbacks`;
  return {
    pipeline,
    url,
    queue: queues.queue,
    report: async (path, body, headers = {}) => {
      const text = typeof body === 'string' ? body : JSON.stringify(body);
      return (await fetch(`${url}/${path}`, { method: 'POST', headers, body: text })).status;
    },
    [Symbol.asyncDispose]: async () => {
      http.closeAllConnections();
      await new Promise((closed) => http.close(closed));
      await waiting.close();
      await queues.close();
      redis.disconnect();
      await pipeline[Symbol.asyncDispose]();
    },
  };
}

interface BeqelalHouse extends House {
  readonly server: ProviderServer;
  /** A verification of which the answer is lost, when it awaits its proof; and its reference. */
  lost(amount?: string): Promise<{ id: string; reference: string }>;
  says(body: Record<string, unknown>): Promise<number>;
}

async function startBeqelal(behaviour: Behaviour = behaviours.resets): Promise<BeqelalHouse> {
  const server = await startProviderServer(behaviour);
  const house = await startHouse({
    beqelal: { baseUrl: server.url, credentials: { appId: 'a', apiKey: 'k', callbackSecret: SECRET } },
  });
  return {
    ...house,
    server,
    lost: async (amount) => {
      const reference = randomUUID().slice(0, 10);
      const id = await house.pipeline.enqueue(beqelalBody(reference, amount));
      await house.pipeline.until(id, ({ state }) => state === 'awaiting');
      return { id, reference };
    },
    says: async (body) => await house.report(`beqelal/${SECRET}`, { phone: CANARY, account_no: CANARY, ...body }),
    [Symbol.asyncDispose]: async () => {
      await house[Symbol.asyncDispose]();
      await server.close();
    },
  };
}

function beqelalBody(reference: string, amount?: string): Record<string, unknown> {
  const body = bodyFor('beqelal', '123456', { reference });
  return amount === undefined ? body : { ...body, amount: { value: amount, currency: 'ETB' } };
}

const historyOf = ({ history = [] }: VerificationResource): string[] => history.map(({ event }) => event);
const matched = ({ pipeline }: House): number => pipeline.seen.filter(({ name }) => name === 'callback:matched').length;
const until = async (is: () => boolean | Promise<boolean>): Promise<void> => {
  await vi.waitUntil(is, { timeout: 15_000, interval: 20 });
};

describe('a provider without an inquiry: Beqelal', () => {
  test('an equal amount settles what was lost, and the history says on what proof', async () => {
    await using house = await startBeqelal();
    const { id, reference } = await house.lost('100.00');
    expect(await house.says({ reference, status: 'PROCESSED', amount: '100', total_amount: 102 })).toBe(200);
    const resource = await house.pipeline.final(id);
    expect(resource).toMatchObject({ otp: 'accepted', transaction: 'succeeded', reason: null, needsReview: false });
    expect(resource.history?.at(-1)).toMatchObject({
      event: 'called_back',
      attempt: 1,
      found: 'paid',
      code: 'PROCESSED',
      otp: 'accepted',
      transaction: 'succeeded',
    });
    expect(house.server.requests).toHaveLength(1);
    await until(async () => (await house.queue('beqelal').count()) === 0);
    expect(matched(house)).toBe(1);
  });

  test('what Redis has lost may leave two to wait for one proof: it settles both', async () => {
    await using house = await startBeqelal();
    const { pipeline } = house;
    const { id, reference } = await house.lost('100.00');
    await pipeline.queue('beqelal').pause();
    const another = await pipeline.enqueue({ ...beqelalBody(reference, '100.00'), otp: '654321' });
    const journal = journalOf(pipeline, { partition: 'beqelal', policy: { canInquire: () => false } });
    const record = (await journal.read(another)) as VerificationRecord;
    await journal.apply(record, { from: 'rolled_back', bounded: true }, {}, async () => '');
    await house.says({ reference, status: 'PROCESSED', amount: '100' });
    for (const each of [id, another]) {
      expect(await pipeline.final(each)).toMatchObject({ otp: 'unknown', transaction: 'succeeded' });
    }
    await until(() => matched(house) === 1);
  });

  test('the total counts as the amount too', async () => {
    await using house = await startBeqelal();
    const { id, reference } = await house.lost('102.00');
    await house.says({ reference, status: 'PROCESSED', amount: '100.00', total_amount: '102.0' });
    expect(await house.pipeline.final(id)).toMatchObject({ transaction: 'succeeded' });
  });

  test('another amount is for a person', async () => {
    await using house = await startBeqelal();
    const { id, reference } = await house.lost('100.00');
    await house.says({ reference, status: 'PROCESSED', amount: '90.00', total_amount: '92.00' });
    const resource = await house.pipeline.until(id, ({ needsReview }) => needsReview);
    expect(resource).toMatchObject({
      state: 'awaiting',
      final: false,
      otp: 'unknown',
      transaction: 'unknown',
      reason: 'amount_mismatch',
    });
  });

  test.each([
    ['the verification', undefined, { amount: '100.00' }],
    ['the callback', '100.00', {}],
    ['the callback, legibly,', '100.00', { amount: 'a hundred' }],
  ])('without an amount in %s a person decides', async (_, asked, told) => {
    await using house = await startBeqelal();
    const { id, reference } = await house.lost(asked);
    await house.says({ reference, status: 'PROCESSED', ...told });
    const resource = await house.pipeline.until(id, ({ needsReview }) => needsReview);
    expect(resource).toMatchObject({ state: 'awaiting', final: false, transaction: 'unknown' });
    expect(resource.history?.at(-1)).toMatchObject({ event: 'called_back', found: 'paid' });
  });

  test('"failed" counts when the attempt can no longer be on its way, and not before', async () => {
    await using house = await startBeqelal();
    const { id, reference } = await house.lost('100.00');
    const record = partitionKeys('beqelal').record(id);
    const inFlightUntil = Date.now() + 1_500; // as if its time-out were short
    await house.pipeline.redis.hset(record, 'inFlightUntil', inFlightUntil);
    await house.says({ reference, status: 'FAILED', amount: '100.00' });
    const noted = await house.pipeline.until(id, (resource) => historyOf(resource).includes('called_back'));
    expect(noted).toMatchObject({ state: 'awaiting', transaction: 'unknown' });
    const resource = await house.pipeline.final(id);
    expect(Date.parse(resource.updatedAt)).toBeGreaterThan(inFlightUntil);
    expect(resource).toMatchObject({ otp: 'unknown', transaction: 'failed' });
    expect(historyOf(resource).filter((event) => event === 'called_back')).toHaveLength(2);
  });

  test('"failed" that was said before the attempt began says nothing of it', async () => {
    await using house = await startBeqelal();
    const reference = randomUUID().slice(0, 10);
    await house.says({ reference, status: 'FAILED', amount: '100.00' });
    const id = await house.pipeline.enqueue(beqelalBody(reference, '100.00'));
    await house.pipeline.until(id, ({ state }) => state === 'awaiting');
    await house.pipeline.redis.hset(partitionKeys('beqelal').record(id), 'inFlightUntil', Date.now());
    await until(() => matched(house) === 1);
    const resource = await house.pipeline.read(id);
    expect(resource).toMatchObject({ state: 'awaiting', transaction: 'unknown' });
    expect(resource.history?.at(-1)).toMatchObject({ event: 'called_back', found: 'nothing', code: 'FAILED' });
  });

  test('one for a reference that is not known yet is brought when it is', async () => {
    await using house = await startBeqelal();
    const reference = randomUUID().slice(0, 10);
    await house.says({ reference, status: 'PROCESSED', amount: '100.00' });
    await until(async () => (await house.queue('beqelal').getDelayedCount()) === 1);
    const id = await house.pipeline.enqueue(beqelalBody(reference, '100.00'));
    expect(await house.pipeline.final(id)).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
    expect(house.server.requests).toHaveLength(1);
  });

  test('before the answer: noted once, and the answer has the word', async () => {
    const held: Parameters<Behaviour>[0][] = [];
    await using house = await startBeqelal((socket) => void held.push(socket));
    const reference = randomUUID().slice(0, 10);
    const id = await house.pipeline.enqueue(beqelalBody(reference, '100.00'));
    await house.server.arrived(1);
    await house.says({ reference, status: 'PROCESSED', amount: '100.00' });
    const noted = await house.pipeline.until(id, (resource) => historyOf(resource).includes('called_back'));
    expect(noted).toMatchObject({ state: 'sending', otp: null });
    const [socket] = held;
    if (!socket) throw new Error('it has arrived');
    behaviours.saysJson(200, { status: 'PROCESSED', amount: '100.00' })(socket, undefined as never);
    const resource = await house.pipeline.final(id);
    expect(historyOf(resource)).toEqual(['accepted', 'begun', 'called_back', 'answered']);
    await until(async () => (await house.queue('beqelal').count()) === 0);
    expect(await house.pipeline.read(id)).toEqual(resource);
  });

  test('before an answer that never comes: brought again, and then it settles', async () => {
    const held: Parameters<Behaviour>[0][] = [];
    await using house = await startBeqelal((socket) => void held.push(socket));
    const reference = randomUUID().slice(0, 10);
    const id = await house.pipeline.enqueue(beqelalBody(reference, '100.00'));
    await house.server.arrived(1);
    await house.says({ reference, status: 'PROCESSED', amount: '100.00' });
    await house.pipeline.until(id, (resource) => historyOf(resource).includes('called_back'));
    held[0]?.resetAndDestroy();
    const resource = await house.pipeline.final(id);
    expect(resource).toMatchObject({ otp: 'accepted', transaction: 'succeeded', sequence: 2 });
    expect(historyOf(resource)).toEqual(['accepted', 'begun', 'called_back', 'lost', 'called_back']);
  });

  test('twice, or once more when all is settled: one result', async () => {
    await using house = await startBeqelal();
    const { id, reference } = await house.lost('100.00');
    const told = { reference, status: 'PROCESSED', amount: '100.00' };
    await Promise.all([told, told, { ...told, updated_at: 'later' }].map((body) => house.says(body)));
    const resource = await house.pipeline.final(id);
    await house.says(told);
    await house.says({ ...told, updated_at: 'much later' });
    await until(async () => (await house.queue('beqelal').count()) === 0);
    expect(await house.pipeline.read(id)).toEqual(resource);
    expect(resource.sequence).toBe(2);
    expect(await house.queue('beqelal').getFailedCount()).toBe(0);
  });

  test('"paid" after a final "failed" is told at once and overwrites nothing', async () => {
    await using house = await startBeqelal(behaviours.saysJson(200, { status: 'FAILED' }));
    const reference = randomUUID().slice(0, 10);
    const id = await house.pipeline.enqueue(beqelalBody(reference, '100.00'));
    await house.pipeline.final(id);
    await house.says({ reference, status: 'PROCESSED', amount: '100.00' });
    const resource = await house.pipeline.until(id, ({ needsReview }) => needsReview);
    expect(resource).toMatchObject({ state: 'settled', final: true, transaction: 'failed' });
    expect(house.pipeline.seen).toContainEqual({
      name: 'proof:contradicted',
      payload: { id, partition: 'beqelal', was: 'failed', now: 'succeeded' },
    });
  });

  test('by the id that an earlier answer gave', async () => {
    const answer = { status: 'PROCESSED', id: 'S-4711', amount: '90.00' };
    await using house = await startBeqelal(behaviours.saysJson(200, answer));
    const reference = randomUUID().slice(0, 10);
    const id = await house.pipeline.enqueue(beqelalBody(reference, '100.00'));
    await house.pipeline.until(id, ({ reason }) => reason === 'amount_mismatch');
    await until(async () => (await house.pipeline.redis.get(partitionKeys('beqelal').alias('S-4711'))) === reference);
    expect(await house.pipeline.redis.pttl(partitionKeys('beqelal').alias('S-4711'))).toBeGreaterThan(0);
    await house.says({ id: 'S-4711', status: 'PROCESSED', amount: '90.00' });
    const resource = await house.pipeline.until(id, (one) => historyOf(one).includes('called_back'));
    expect(resource).toMatchObject({ state: 'awaiting', reason: 'amount_mismatch' });
  });

  test('a wrong secret changes nothing', async () => {
    await using house = await startBeqelal();
    const { id, reference } = await house.lost('100.00');
    const before = await house.pipeline.read(id);
    const told = { reference, status: 'PROCESSED', amount: '100.00' };
    expect(await house.report('beqelal', told)).toBe(401);
    expect(await house.report(`beqelal/${SECRET}x`, told)).toBe(401);
    expect(await house.report('beqelal', told, { authorization: SECRET })).toBe(401);
    expect(await house.queue('beqelal').count()).toBe(0);
    // One that is authentic, and about another, passes through the same queue after them.
    const other = await house.lost('100.00');
    await house.says({ reference: other.reference, status: 'PROCESSED', amount: '100.00' });
    await house.pipeline.final(other.id);
    expect(await house.pipeline.read(id)).toEqual(before);
  });

  test('what cannot be read, or is none, is set aside and stops nothing', async () => {
    await using house = await startBeqelal();
    const { id, reference } = await house.lost('100.00');
    for (const body of ['', '{"reference":', '[]', '{"status":"PROCESSED"}', `{"phone":"${CANARY}"`]) {
      expect(await house.report(`beqelal/${SECRET}`, body)).toBe(200);
    }
    await house.queue('beqelal').add('callback', { v: 1, id: CANARY } as never);
    await until(async () => (await house.queue('beqelal').getFailedCount()) === 6);
    await house.says({ reference, status: 'PROCESSED', amount: '100.00' });
    await house.pipeline.final(id);
    expect(house.pipeline.seen.filter(({ name }) => name === 'callback:unreadable')).toHaveLength(6);
    const reasons = (await house.queue('beqelal').getFailed()).map(({ failedReason }) => failedReason);
    expect(new Set(reasons)).toEqual(
      new Set([
        'the callback was set aside: its body cannot be read, or names no transaction',
        'the callback was set aside: its data is not that of a callback',
      ]),
    );
  });

  test('one that no key opens is kept for the worker that has it; for nobody after a day', async () => {
    await using house = await startBeqelal();
    const day = 24 * 3600 * 1_000;
    const queue = house.queue('beqelal');
    await queue.add('callback', { v: 1, receivedAt: Date.now(), sealed: 'no.such.text' }, { jobId: 'young' });
    await queue.add('callback', { v: 1, receivedAt: Date.now() - day, sealed: 'no.such.text' }, { jobId: 'old' });
    await until(async () => (await queue.getFailedCount()) === 1 && (await queue.getDelayedCount()) === 1);
    expect((await queue.getFailed())[0]).toMatchObject({ id: 'old' });
  });

  test('one that is about nobody for a day is set aside, and said', async () => {
    await using house = await startBeqelal();
    const sealer = await Sealer.create(house.pipeline.keySet);
    const sealed = await sealer.seal({ partition: 'beqelal', body: '{"reference":"R-nobody"}' });
    const receivedAt = Date.now() - 24 * 3600 * 1_000;
    await house.queue('beqelal').add('callback', { v: 1, receivedAt, sealed });
    await until(async () => (await house.queue('beqelal').getFailedCount()) === 1);
    expect(house.pipeline.seen.filter(({ name }) => name === 'callback:unmatched')).toEqual([
      { name: 'callback:unmatched', payload: { partition: 'beqelal', ageMs: expect.any(Number) } },
    ]);
  });

  test('each is counted by what became of it', async () => {
    await using house = await startBeqelal();
    const registry = new Registry();
    observe(house.pipeline.events, createMetrics(registry, { ofTheProcess: false }));
    const { id, reference } = await house.lost('100.00');
    for (const told of ['R-nobody', 'R-nobody', reference]) {
      await house.says({ reference: told, status: 'PROCESSED', amount: '100.00' });
    }
    await house.report(`beqelal/${SECRET}`, '{');
    await house.report('beqelal/wrong', '{}');
    await house.pipeline.final(id);
    await until(() => matched(house) === 1);
    await until(async () => (await house.queue('beqelal').getFailedCount()) === 1);
    const counted = [...(await registry.metrics()).matchAll(/^otp_callbacks_total\{.*outcome="(\w+)"\} (\d+)$/gm)];
    expect(Object.fromEntries(counted.map(([, outcome, count]) => [outcome, count]))).toEqual({
      matched: '1',
      duplicate: '1',
      unreadable: '1',
      refused: '1',
    });
  });

  test('no word of a callback and no secret can be read in Redis or in what is told', async () => {
    await using house = await startBeqelal();
    const { id, reference } = await house.lost('100.00');
    await house.says({ reference: 'R-nobody', status: 'PROCESSED' }); // waits in the queue
    await house.report(`beqelal/${SECRET}`, `{"${CANARY}`); // set aside
    await house.says({ reference, status: 'PROCESSED', amount: '100.00' });
    await house.pipeline.final(id);
    await until(async () => (await house.queue('beqelal').getDelayedCount()) === 1);
    await until(async () => (await house.queue('beqelal').getFailedCount()) === 1);
    const { redis } = house.pipeline;
    const seen = [JSON.stringify(house.pipeline.seen)];
    for (const { key, content } of await everyKey(redis)) seen.push(`${key} ${content}`);
    expect(seen.some((text) => text.includes('"sealed\\"'))).toBe(true);
    for (const text of seen) {
      for (const secret of [CANARY, SECRET]) expect(text).not.toContain(secret);
    }
  });
});

describe('a provider with an inquiry: the callback is the reason to ask, and the inquiry decides', () => {
  const ACCEPTED = { status: true, data: { responseCode: '00' } };

  interface CeptaHouse extends House {
    readonly server: ProviderServer;
    /** What the inquiry says from now on. */
    status: string;
    says(reference: string, status: string, more?: Record<string, unknown>): Promise<number>;
  }

  async function startCepta(verify: Behaviour = behaviours.saysJson(200, ACCEPTED)): Promise<CeptaHouse> {
    const words = { status: 'pending' };
    const server = await startProviderServer((socket, request) => {
      if (request.method === 'POST') return verify(socket, request);
      const transactionReference = new URL(request.path, 'http://x').searchParams.get('TransactionRef');
      const data = { transactionReference, status: words.status, amount: 100 };
      behaviours.saysJson(200, { status: true, data })(socket, request);
    });
    const house = await startHouse({
      cepta: {
        baseUrl: server.url,
        credentials: { secretKey: 'key', merchantId: 'M-1' },
        settings: { inquiry: FAR_AWAY },
      },
    });
    return {
      ...house,
      server,
      get status() {
        return words.status;
      },
      set status(word) {
        words.status = word;
      },
      says: async (reference, status, more = {}) =>
        await house.report(
          'cepta',
          { data: { transactionRef: reference, status, ...more } },
          { 'hash-key': CEPTA_HASH },
        ),
      [Symbol.asyncDispose]: async () => {
        await house[Symbol.asyncDispose]();
        await server.close();
      },
    };
  }

  const begin = async (house: House): Promise<{ id: string; reference: string }> => {
    const body = bodyFor('cepta', '123456');
    return {
      id: await house.pipeline.enqueue(body),
      reference: String((body.params as { transactionRef: string }).transactionRef),
    };
  };
  const inquiries = ({ server }: CeptaHouse): number => server.requests.filter(({ method }) => method === 'GET').length;

  test('after the answer: an inquiry that was ten minutes away is made at once', async () => {
    await using house = await startCepta();
    const { id, reference } = await begin(house);
    await house.pipeline.until(id, ({ state }) => state === 'awaiting');
    house.status = 'Successful';
    expect(await house.says(reference, 'Successful')).toBe(200);
    const resource = await house.pipeline.final(id);
    expect(resource).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
    expect(historyOf(resource)).toEqual(['accepted', 'begun', 'answered', 'called_back', 'inquired']);
    expect(inquiries(house)).toBe(1);
  });

  test('before the answer: remembered, and asked as soon as the answer is in', async () => {
    const held: Parameters<Behaviour>[0][] = [];
    await using house = await startCepta((socket) => void held.push(socket));
    const { id, reference } = await begin(house);
    await house.server.arrived(1);
    house.status = 'Paid';
    await Promise.all([house.says(reference, 'Paid'), house.says(reference, 'Paid', { event: 'again' })]);
    await until(() => matched(house) === 2);
    expect(inquiries(house)).toBe(0);
    const [socket] = held;
    if (!socket) throw new Error('it has arrived');
    behaviours.saysJson(200, ACCEPTED)(socket, undefined as never);
    const resource = await house.pipeline.final(id);
    expect(resource).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
    expect(historyOf(resource).at(-1)).toBe('inquired');
  });

  test.each([
    ['failed', 'Successful', 'succeeded'],
    ['Chargeback', 'Successful', 'succeeded'],
  ])('it says %s, the inquiry says %s: %s', async (said, inquired, transaction) => {
    await using house = await startCepta(behaviours.resets);
    const { id, reference } = await begin(house);
    await house.pipeline.until(id, ({ state }) => state === 'awaiting');
    house.status = inquired;
    await house.says(reference, said);
    expect(await house.pipeline.final(id)).toMatchObject({ transaction });
  });

  test('"paid" that the inquiry does not confirm settles nothing', async () => {
    await using house = await startCepta();
    const { id, reference } = await begin(house);
    await house.pipeline.until(id, ({ state }) => state === 'awaiting');
    await house.says(reference, 'Successful', { amount: 100 });
    const resource = await house.pipeline.until(id, (one) => historyOf(one).includes('inquired'));
    expect(resource).toMatchObject({ state: 'awaiting', final: false, transaction: 'pending' });
    // And the next one is a reason to ask again.
    house.status = 'Completed';
    await house.says(reference, 'Successful', { amount: 100, again: true });
    expect(await house.pipeline.final(id)).toMatchObject({ transaction: 'succeeded' });
    expect(inquiries(house)).toBe(2);
  });

  test('while an inquiry is on its way: another one follows, because that one may not know', async () => {
    const server = await startProviderServer(behaviours.isSilent);
    const held: Parameters<Behaviour>[0][] = [];
    let status = 'pending';
    const says = (socket: Parameters<Behaviour>[0], path: string): void => {
      const transactionReference = new URL(path, 'http://x').searchParams.get('TransactionRef');
      behaviours.saysJson(200, { status: true, data: { transactionReference, status } })(socket, undefined as never);
    };
    server.behave((socket, { method, path }) => {
      if (method === 'POST') return behaviours.saysJson(200, ACCEPTED)(socket, undefined as never);
      if (held.length === 0) return void held.push(socket);
      says(socket, path);
    });
    await using house = await startHouse({
      cepta: {
        baseUrl: server.url,
        credentials: { secretKey: 'key', merchantId: 'M-1' },
        settings: { inquiry: { delaysMs: [50, 600_000], giveUpAfterMs: 3_600_000 }, timeoutMs: 10_000 },
      },
    });
    const { id, reference } = await begin(house);
    await server.arrived(2);
    await house.report('cepta', { transactionRef: reference, status: 'Paid' }, { 'hash-key': CEPTA_HASH });
    await until(async () => (await house.queue('cepta').getDelayedCount()) === 1);
    const [socket] = held;
    if (!socket) throw new Error('it has arrived');
    says(socket, server.requests[1]?.path ?? '');
    status = 'Paid';
    expect(await house.pipeline.final(id)).toMatchObject({ transaction: 'succeeded' });
    await server.close();
  });
});

describe('what the sandbox reports by itself', () => {
  async function startAgainst(sandbox: Sandbox): Promise<House> {
    const names = ['hello-clever', 'ayoconnect', 'beqelal', 'cepta'] as const;
    const house = await startHouse(
      Object.fromEntries(
        names.map((name) => [name, { ...sandbox.providers[name], settings: { inquiry: FAR_AWAY, timeoutMs: 5_000 } }]),
      ),
    );
    for (const name of names) sandbox.setCallback(name, `${house.url}/${name}`);
    return house;
  }

  test('brings each provider to its end, long before the first inquiry is due', async () => {
    await using sandbox = await startSandbox({ settleAfterMs: 100, ceptaCallback: { separator: ' | ' } });
    await using house = await startAgainst(sandbox);
    const ids = await Promise.all(
      ['hello-clever', 'ayoconnect', 'cepta', 'beqelal'].map((name) => house.pipeline.enqueue(bodyFor(name, '123456'))),
    );
    for (const id of ids) expect(await house.pipeline.final(id), id).toMatchObject({ transaction: 'succeeded' });
    await until(() => matched(house) >= 4);
    expect(house.pipeline.seen.filter(({ name }) => name === 'callback:refused')).toEqual([]);
    expect(house.pipeline.seen.filter(({ name }) => name === 'callback:unreadable')).toEqual([]);
  });
});
