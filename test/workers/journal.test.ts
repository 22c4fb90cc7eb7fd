/** The journal's scripts on a real Redis: who may send, what is written down, and that everything agrees afterwards. */
import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { EventBus } from '../../src/events.ts';
import { partitionKeys } from '../../src/producers/job.ts';
import type { VerificationRecord } from '../../src/producers/record.ts';
import type { Outcome } from '../../src/providers/provider.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import type { Evidence } from '../../src/workers/decide.ts';
import { type Journal, SEND_WITHIN_MS } from '../../src/workers/journal.ts';
import { HEARTBEAT_LIFE_MS } from '../../src/workers/witness.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { askToBegin, expectSetsToAgree, journalOf, outboxOf, seed } from './support.ts';

let server: TestRedis;
let redis: RedisConnection;
const keys = partitionKeys('cepta');

beforeAll(async () => {
  server = await startTestRedis();
  redis = connectRedis(server.url, 'worker', { onError: () => {} });
});

afterAll(async () => {
  redis.disconnect();
  await server[Symbol.asyncDispose]();
});

afterEach(async () => {
  await expectSetsToAgree(redis);
  await redis.flushall();
});

const seal = async (_: string, details: unknown): Promise<string> => `sealed ${JSON.stringify(details)}`;
const answer = (outcome: Outcome): Evidence => ({ from: 'answer', outcome });
const PENDING = answer({ kind: 'accepted', transaction: 'pending', providerCode: '00' });
const SUCCEEDED = answer({ kind: 'accepted', transaction: 'succeeded', providerCode: 'PAID' });
const WRONG = answer({ kind: 'rejected', reason: 'wrong_code', transaction: 'pending', providerCode: 'INVALID_OTP' });
const REFUSED = answer({ kind: 'refused', cause: 'request', remedy: { do: 'none' }, providerCode: '400' });
const NEW_STAMP = answer({ kind: 'refused', cause: 'credentials', remedy: { do: 'new_stamp' }, providerCode: '401' });
const LOST: Evidence = { from: 'lost', code: 'ECONNRESET' };
const NOT_SENT: Evidence = { from: 'not_sent', code: 'ECONNREFUSED', remediable: true };
const CANNOT: Evidence = { from: 'not_sent', code: 'CANNOT_BUILD', remediable: false };
const found = (kind: 'paid' | 'not_paid' | 'pending' | 'untouched', askedAt: number): Evidence => ({
  from: 'inquiry',
  finding: { kind, providerCode: kind },
  askedAt,
});

const apply = async (journal: Journal, record: VerificationRecord, evidence: Evidence) =>
  await journal.apply(record, evidence, {}, seal);

/** Begins and must be granted. */
async function begin(journal: Journal, id: string): Promise<VerificationRecord> {
  const beginning = await journal.begin(id);
  if (beginning.is !== 'begun') throw new Error(`begin said ${JSON.stringify(beginning)}`);
  return beginning.record;
}

/** Begins and, when begin refuses, writes down why. */
async function beginOrConclude(journal: Journal, id: string): Promise<VerificationRecord> {
  const beginning = await journal.begin(id);
  if (beginning.is === 'evidence') await apply(journal, beginning.record, beginning.evidence);
  return await read(journal, id);
}

async function read(journal: Journal, id: string): Promise<VerificationRecord> {
  const record = await journal.read(id);
  if (record === null) throw new Error(`no record ${id}`);
  return record;
}

/** A code that was submitted and ended so. */
async function submitted(
  journal: Journal,
  evidence: Evidence,
  given: Parameters<typeof seed>[1] = {},
): Promise<string> {
  const id = await seed(redis, given);
  await apply(journal, await begin(journal, id), evidence);
  return id;
}

const outbox = async (): Promise<Record<string, string>[]> => await outboxOf(redis);

const usedOf = async (reference: string): Promise<number> =>
  Number((await redis.hget(keys.transaction(reference), 'used')) ?? 0);

/** All that a transaction knows, but for whose its verifications are. */
const attemptsKnownOf = async (reference: string): Promise<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(await redis.hgetall(keys.transaction(reference))).filter(([field]) => !field.startsWith('of:')),
  );

describe('the right to send', () => {
  test('is granted once, however many ask at once in however many processes', async () => {
    const journals = Array.from({ length: 5 }, () => journalOf({ redis }));
    const id = await seed(redis);
    const asked = Array.from({ length: 50 }, (_, index) => journals[index % 5]?.begin(id));
    const granted = (await Promise.all(asked)).map((beginning) => beginning?.is);
    expect(granted.filter((is) => is === 'begun')).toHaveLength(1);
    expect(granted.filter((is) => is === 'in_flight')).toHaveLength(49);
    expect(await read(journals[0] as Journal, id)).toMatchObject({
      state: 'sending',
      attempts: 1,
      attemptsUsed: 1,
      revision: 2,
    });
  });

  test('comes with the whole record, a random token, an owner and the time until which headers may leave', async () => {
    const worker = randomUUID();
    const journal = journalOf({ redis }, {}, worker);
    const id = await seed(redis);
    const before = performance.now();
    const beginning = await journal.begin(id);
    if (beginning.is !== 'begun') throw new Error(beginning.is);
    expect(beginning.record).toMatchObject({ sealedCode: 'sealed', state: 'sending', owner: worker, attempts: 1 });
    expect(beginning.record.token).toMatch(/^[0-9a-f]{32}$/);
    expect(beginning.sendBefore).toBeGreaterThanOrEqual(before + SEND_WITHIN_MS);
    expect(beginning.sendBefore).toBeLessThanOrEqual(performance.now() + SEND_WITHIN_MS);
    expect(beginning.record.inFlightUntil).toBe(beginning.record.beganAt + 2_000 + 10_000);
  });

  test('ends with the code', async () => {
    const journal = journalOf({ redis });
    const id = await seed(redis, { lifetimeMs: 1_000 });
    const asked = performance.now();
    const beginning = await journal.begin(id);
    if (beginning.is !== 'begun') throw new Error(beginning.is);
    expect(beginning.sendBefore).toBeLessThanOrEqual(performance.now() + 1_000);
    expect(beginning.sendBefore).toBeGreaterThan(asked);
  });

  test('hands the record out as it stands in Redis, whatever text is in it', async () => {
    const control = String.fromCharCode(0, 7, 10, 31, 127, 0x2028);
    const id = await seed(redis, { reference: `ref/"\\${control}é😀`, codePrint: 'a/b"c' });
    const begun = await begin(journalOf({ redis }), id);
    expect(begun).toEqual(await journalOf({ redis }).read(id));
    expect(begun.reference).toContain(control);
  });

  test('is told again to the one who holds it: an asking may be repeated when its answer was lost with the connection', async () => {
    const id = await seed(redis);
    const ask = async (token: string): Promise<unknown[]> => await askToBegin(redis, id, token);
    const first = await ask('mine');
    const second = await ask('mine');
    expect([first[0], second[0]]).toEqual(['begun', 'begun']);
    expect(second[2]).toBe(first[2]); // the very same last moment, not a later one
    expect((await ask('of another'))[0]).toBe('in_flight');
    expect(await read(journalOf({ redis }), id)).toMatchObject({ attempts: 1, attemptsUsed: 1, revision: 2 });
    expect(await redis.llen(keys.rate)).toBe(1);
  });

  test('is refused for what nobody has journaled', async () => {
    expect(await journalOf({ redis }).begin('cepta_x')).toEqual({ is: 'missing' });
  });

  test('is refused once settled or awaiting, for ever', async () => {
    const journal = journalOf({ redis });
    const settled = await submitted(journal, WRONG);
    const awaiting = await submitted(journal, LOST);
    expect(await journal.begin(settled)).toEqual({ is: 'settled' });
    expect(await journal.begin(awaiting)).toMatchObject({ is: 'awaiting', nextInquiryAt: expect.any(Number) });
  });

  test('is refused at the deadline, and the dead code is destroyed', async () => {
    const journal = journalOf({ redis });
    const id = await seed(redis, { lifetimeMs: 0 });
    expect(await journal.begin(id)).toMatchObject({ is: 'evidence', evidence: { from: 'deadline' } });
    const record = await beginOrConclude(journal, id);
    expect(record).toMatchObject({
      state: 'settled',
      sealedCode: null,
      attempts: 0,
      standing: { otp: 'not_submitted', transaction: 'pending' },
    });
  });

  test('waits for the time that was set after it did not leave', async () => {
    const journal = journalOf({ redis });
    const id = await submitted(journal, NOT_SENT);
    const { notBefore } = await read(journal, id);
    expect(await journal.begin(id)).toEqual({ is: 'later', at: notBefore, because: 'not_yet', heldUntil: 0 });
    await redis.hset(keys.record(id), 'notBefore', 1);
    expect(await begin(journal, id)).toMatchObject({ attempts: 2, attemptsUsed: 1, notSent: 1 });
  });
});

describe('an owner', () => {
  test('is believed alive for as long as its heartbeat, and dead without it', async () => {
    const [one, other] = [journalOf({ redis }, {}, 'one'), journalOf({ redis }, {}, 'other')];
    const id = await seed(redis);
    await begin(one, id);
    expect(await redis.pttl(keys.heartbeat('one'))).toBeGreaterThan(HEARTBEAT_LIFE_MS - 1_000);
    expect(await other.begin(id)).toEqual({ is: 'in_flight' });
    expect(await other.ownerLives(await read(other, id))).toBe(true);

    await redis.del(keys.heartbeat('one'));
    const beginning = await other.begin(id);
    expect(beginning).toMatchObject({ is: 'evidence', evidence: { from: 'owner_dead' } });
    expect(await other.ownerLives(await read(other, id))).toBe(false);
    const record = await beginOrConclude(other, id);
    expect(record).toMatchObject({ state: 'awaiting', standing: { otp: 'unknown', reason: 'no_answer' }, attempts: 1 });
  });

  test('that was called dead may still bring its answer', async () => {
    const [one, other] = [journalOf({ redis }, {}, 'one'), journalOf({ redis }, {}, 'other')];
    const id = await seed(redis);
    const begun = await begin(one, id);
    await redis.del(keys.heartbeat('one'));
    await beginOrConclude(other, id);
    await apply(one, begun, SUCCEEDED);
    expect(await read(one, id)).toMatchObject({ state: 'settled', sequence: 2, standing: { otp: 'accepted' } });
    expect((await outbox()).map(({ sequence, type }) => [sequence, type])).toEqual([
      ['1', 'otp.verification.awaiting'],
      ['2', 'otp.verification.settled'],
    ]);
  });

  test('that was called dead and proves that nothing left settles as not submitted: the code is gone by then', async () => {
    const journal = journalOf({ redis }, {}, 'one');
    const reference = randomUUID();
    const id = await seed(redis, { reference });
    const begun = await begin(journal, id);
    await redis.del(keys.heartbeat('one'));
    await beginOrConclude(journal, id);
    await apply(journal, begun, NOT_SENT);
    expect(await read(journal, id)).toMatchObject({ state: 'settled', standing: { otp: 'not_submitted' } });
    expect(await usedOf(reference)).toBe(0);
  });
});

describe('a second verification of one transaction', () => {
  const reference = 'TX1';
  const second = async (journal: Journal, codePrint: string): Promise<VerificationRecord> =>
    await beginOrConclude(journal, await seed(redis, { reference, codePrint }));

  test.each(['the same code', 'another code'])('with %s waits for nobody while the first is sending', async (code) => {
    const journal = journalOf({ redis });
    const first = await seed(redis, { reference, codePrint: 'the same code' });
    await begin(journal, first);
    const record = await second(journal, code);
    expect(record.standing).toMatchObject({
      otp: 'not_submitted',
      transaction: 'unknown',
      reason: 'attempt_in_flight',
      nextStep: 'wait',
    });
    expect(record.history.at(-1)).toMatchObject({ event: 'attempt_in_flight', ownedBy: first });
    expect(await redis.hget(keys.transaction(reference), 'holder')).toBe(first);
  });

  test('with another code waits for nobody while the first is unknown or accepted and unpaid', async () => {
    const journal = journalOf({ redis });
    for (const evidence of [LOST, PENDING]) {
      await submitted(journal, evidence, { reference, codePrint: 'one' });
      expect((await second(journal, 'other')).standing).toMatchObject({
        reason: 'attempt_in_flight',
        transaction: 'unknown',
      });
      await redis.del(keys.transaction(reference));
    }
  });

  test('with the same code is told so once the first has an outcome', async () => {
    const journal = journalOf({ redis });
    const first = await submitted(journal, WRONG, { reference });
    const record = await second(journal, 'print');
    expect(record.standing).toMatchObject({
      otp: 'not_submitted',
      reason: 'already_used',
      transaction: 'pending',
      nextStep: 'reenter_code',
    });
    expect(record.history.at(-1)).toMatchObject({ ownedBy: first });
    expect(await usedOf(reference)).toBe(1);
  });

  test('with the same code is told what is unproved of an accepted one', async () => {
    const journal = journalOf({ redis });
    await submitted(journal, PENDING, { reference });
    expect((await second(journal, 'print')).standing).toMatchObject({
      reason: 'already_used',
      transaction: 'unknown',
      nextStep: 'wait',
    });
  });

  test('with any code is told what is proved of a paid or a failed one', async () => {
    const journal = journalOf({ redis });
    const paid = await submitted(journal, SUCCEEDED, { reference });
    const record = await second(journal, 'other');
    expect(record.standing).toMatchObject({ reason: 'already_used', transaction: 'succeeded', nextStep: 'none' });
    expect(record.history.at(-1)).toMatchObject({ ownedBy: paid });

    const declined = answer({ kind: 'rejected', reason: 'declined', transaction: 'failed', providerCode: '51' });
    await submitted(journal, declined, { reference: 'TX2' });
    const after = await beginOrConclude(journal, await seed(redis, { reference: 'TX2', codePrint: 'other' }));
    expect(after.standing).toMatchObject({
      otp: 'not_submitted',
      reason: 'already_used',
      transaction: 'failed',
      nextStep: 'new_transaction',
    });
  });

  test('with another code after each refusal is a new attempt, until the budget is spent', async () => {
    const journal = journalOf({ redis });
    const remaining: (number | null)[] = [];
    for (const codePrint of ['one', 'two', 'three']) {
      const id = await submitted(journal, WRONG, { reference, codePrint });
      remaining.push((await read(journal, id)).attemptsRemaining);
    }
    expect(remaining).toEqual([2, 1, 0]);
    const record = await second(journal, 'four');
    expect(record.standing).toMatchObject({
      otp: 'not_submitted',
      reason: 'budget_spent',
      transaction: 'pending',
      nextStep: 'new_transaction',
    });
    expect(record).toMatchObject({ attempts: 0, attemptsRemaining: 0 });
  });

  test('counts unknown submissions against the budget, and neither refusals nor what did not leave', async () => {
    const journal = journalOf({ redis });
    for (const evidence of [REFUSED, CANNOT]) await submitted(journal, evidence, { reference, codePrint: 'one' });
    expect(await usedOf(reference)).toBe(0);
    const id = await submitted(journal, LOST, { reference, codePrint: 'one' });
    expect(await usedOf(reference)).toBe(1);
    expect(await read(journal, id)).toMatchObject({ attemptsRemaining: 2 });
  });

  test('is refused when the provider itself said that no try is left', async () => {
    const journal = journalOf({ redis });
    const last = answer({
      kind: 'rejected',
      reason: 'wrong_code',
      transaction: 'pending',
      providerCode: 'X',
      attemptsRemaining: 0,
    });
    await submitted(journal, last, { reference, codePrint: 'one' });
    expect((await second(journal, 'other')).standing).toMatchObject({ reason: 'budget_spent' });
  });

  test('may take over while the first waits to be sent again, and the first is then told so', async () => {
    const journal = journalOf({ redis });
    const first = await submitted(journal, NOT_SENT, { reference, codePrint: 'one' });
    const other = await seed(redis, { reference, codePrint: 'one' });
    await begin(journal, other);
    await redis.hset(keys.record(first), 'notBefore', 1);
    expect((await beginOrConclude(journal, first)).standing).toMatchObject({ reason: 'attempt_in_flight' });
    expect(await redis.hget(keys.transaction(reference), 'holder')).toBe(other);
    expect(await usedOf(reference)).toBe(1);
  });

  test('may retype a code that the provider never consumed, with the whole budget', async () => {
    const journal = journalOf({ redis });
    const id = await submitted(journal, LOST, { reference });
    await redis.hset(keys.record(id), 'inFlightUntil', 1);
    await apply(journal, await read(journal, id), found('untouched', journal.now()));
    expect(await read(journal, id)).toMatchObject({
      attemptsRemaining: 3,
      standing: { otp: 'unknown', transaction: 'pending', nextStep: 'reenter_code' },
    });
    expect(await usedOf(reference)).toBe(0);
    expect(await begin(journal, await seed(redis, { reference }))).toMatchObject({ attemptsUsed: 1 });
  });

  test('keeps the transaction for as long as it is held, and for the retention after that', async () => {
    const journal = journalOf({ redis }, { retentionMs: 60_000 });
    const id = await seed(redis, { reference });
    const begun = await begin(journal, id);
    expect(await redis.pttl(keys.transaction(reference))).toBe(-1);
    await apply(journal, begun, WRONG);
    expect(await redis.pttl(keys.transaction(reference))).toBeGreaterThan(50_000);
    await begin(journal, await seed(redis, { reference, codePrint: 'other' }));
    expect(await redis.pttl(keys.transaction(reference))).toBe(-1);
  });

  test('remembers what was submitted until its code is dead, however soon its record is forgotten', async () => {
    const forgetful = journalOf({ redis }, { retentionMs: 1 });
    const id = await submitted(forgetful, WRONG, { reference, lifetimeMs: 60_000 });
    await vi.waitUntil(async () => (await redis.exists(keys.record(id))) === 0);
    expect(await redis.pttl(keys.transaction(reference))).toBeGreaterThan(50_000);
    const again = await beginOrConclude(journalOf({ redis }), await seed(redis, { reference }));
    expect(again.standing).toMatchObject({ otp: 'not_submitted', reason: 'already_used' });
  });

  test('remembers it also when another code of the transaction, with a shorter life, has ended since', async () => {
    const forgetful = journalOf({ redis }, { retentionMs: 1 });
    await submitted(forgetful, WRONG, { reference, codePrint: 'long', lifetimeMs: 60_000 });
    await submitted(forgetful, WRONG, { reference, codePrint: 'short', lifetimeMs: 5_000 });
    expect(await redis.pttl(keys.transaction(reference))).toBeGreaterThan(50_000);
    const beginning = await forgetful.begin(await seed(redis, { reference, codePrint: 'dead', lifetimeMs: 0 }));
    if (beginning.is !== 'evidence') throw new Error(`begin said ${beginning.is}`);
    await apply(forgetful, beginning.record, beginning.evidence);
    expect(await redis.pttl(keys.transaction(reference))).toBeGreaterThan(50_000);
    const again = await beginOrConclude(journalOf({ redis }), await seed(redis, { reference, codePrint: 'long' }));
    expect(again.standing).toMatchObject({ otp: 'not_submitted', reason: 'already_used' });
  });

  test('is not submitted once more where its record was forgotten and is made anew', async () => {
    const forgetful = journalOf({ redis }, { retentionMs: 1 });
    const id = await submitted(forgetful, WRONG, { reference, lifetimeMs: 60_000 });
    await vi.waitUntil(async () => (await redis.exists(keys.record(id))) === 0);
    const again = await beginOrConclude(journalOf({ redis }), await seed(redis, { reference, id }));
    expect(again.standing).toMatchObject({ otp: 'not_submitted', reason: 'already_used' });
  });
});

describe('where no money moves', () => {
  const policy = { effect: 'none' as const, canInquire: () => false };

  test('a lost answer ends at once and blocks no other code', async () => {
    const journal = journalOf({ redis }, { policy });
    const id = await submitted(journal, LOST, { reference: 'P', codePrint: 'one' });
    expect(await read(journal, id)).toMatchObject({
      state: 'settled',
      standing: { otp: 'unknown', transaction: 'none', nextStep: 'request_new_code' },
    });
    expect(await begin(journal, await seed(redis, { reference: 'P', codePrint: 'two' }))).toMatchObject({
      attemptsUsed: 2,
    });
  });

  test('a code sent anew renews the budget, and a submission on its way meanwhile gives back no more than its own', async () => {
    const journal = journalOf({ redis }, { policy });
    const sendCode = { kind: 'accepted', transaction: 'none', providerCode: '200' } as const;
    await submitted(journal, WRONG_LIPA, { reference: 'P', codePrint: 'zero' });
    const verify = await begin(journal, await seed(redis, { reference: 'P', codePrint: 'one' }));
    const { id } = verify;
    await submitted(journal, answer(sendCode), { reference: 'P', codePrint: '', operation: 'send' });
    expect(await attemptsKnownOf('P')).toEqual({ holder: id, last: id, used: '1', 'code:one': id });
    // The old code once more, by somebody who has not seen the new one yet, while the first is on its way.
    const again = await beginOrConclude(journal, await seed(redis, { reference: 'P', codePrint: 'one' }));
    expect(again.standing).toMatchObject({ otp: 'not_submitted', reason: 'attempt_in_flight' });
    await apply(journal, verify, CANNOT);
    expect(await usedOf('P')).toBe(0);
    for (const codePrint of ['two', 'three', 'four'])
      await submitted(journal, WRONG_LIPA, { reference: 'P', codePrint });
    expect(
      (await beginOrConclude(journal, await seed(redis, { reference: 'P', codePrint: 'five' }))).standing,
    ).toMatchObject({
      reason: 'budget_spent',
      nextStep: 'request_new_code',
    });
  });

  const WRONG_LIPA = answer({ kind: 'rejected', reason: null, transaction: 'none', providerCode: '400' });
});

test('a transaction ends in time unless an attempt holds it, whoever else is accepted meanwhile', async () => {
  const journal = journalOf({ redis });
  const leftMs = async (): Promise<number> => await redis.pttl(keys.transaction('LIFE'));
  const days = 24 * 3_600_000;
  const record = await begin(journal, await seed(redis, { reference: 'LIFE', codePrint: 'one' }));
  expect(await leftMs()).toBe(-1);
  await seed(redis, { reference: 'LIFE', codePrint: 'two' });
  expect(await leftMs()).toBe(-1);
  await apply(journal, record, WRONG);
  expect(await leftMs()).toBeGreaterThan(0);
  expect(await leftMs()).toBeLessThanOrEqual(3_600_000); // the journal's retention here
  await seed(redis, { reference: 'LIFE', codePrint: 'three' });
  expect(await leftMs()).toBeGreaterThan(6 * days);
});

describe('what is decided', () => {
  test('is written once, when two who know different things meet', async () => {
    const [one, other] = [journalOf({ redis }), journalOf({ redis })];
    for (let round = 0; round < 20; round += 1) {
      const id = await seed(redis);
      const record = await begin(one, id);
      const applied = await Promise.all([apply(one, record, WRONG), apply(other, record, LOST)]);
      const final = await read(one, id);
      expect(final).toMatchObject({ state: 'settled', standing: { otp: 'rejected', reason: 'wrong_code' } });
      const entries = (await outbox()).filter((entry) => entry.id === id);
      expect(entries.map(({ sequence }) => sequence)).toEqual(entries.length === 1 ? ['1'] : ['1', '2']);
      expect(final.sequence).toBe(entries.length);
      expect(applied.filter(({ published }) => published !== null)).toHaveLength(entries.length);
      expect(entries.filter(({ state }) => state === 'settled')).toHaveLength(1);
    }
  });

  test('by twenty at once with the same proof is one result', async () => {
    const journal = journalOf({ redis });
    const id = await submitted(journal, PENDING);
    const record = await read(journal, id);
    await Promise.all(
      Array.from({ length: 20 }, () => apply(journalOf({ redis }), record, found('paid', journal.now()))),
    );
    expect(await read(journal, id)).toMatchObject({ sequence: 2, standing: { transaction: 'succeeded' } });
    expect(await outbox()).toHaveLength(2);
  });

  test('again, because the first writing was not heard of, changes nothing that has gone on', async () => {
    const journal = journalOf({ redis });
    for (const evidence of [NOT_SENT, NEW_STAMP]) {
      const id = await seed(redis);
      const first = await begin(journal, id);
      await apply(journal, first, evidence);
      await apply(journal, first, evidence);
      expect(await read(journal, id)).toMatchObject({ state: 'queued', sequence: 0 });
      await redis.hset(keys.record(id), 'notBefore', 1);
      await begin(journal, id);
      await apply(journal, first, evidence); // and now the second attempt is on its way
      await apply(journal, first, { from: 'owner_dead' });
      expect(await read(journal, id)).toMatchObject({ state: 'sending', attempts: 2 });
      expect((await journal.begin(id)).is).toBe('in_flight');
    }
  });

  test('from two questions put at the same time is one proof of no payment', async () => {
    const journal = journalOf({ redis });
    const id = await submitted(journal, PENDING);
    await redis.hset(keys.record(id), 'nextInquiryAt', 1, 'inFlightUntil', 1);
    const [one, other] = await Promise.all([journal.ask(id, 0), journal.ask(id, 0)]);
    if (one?.is !== 'ask' || other?.is !== 'ask') throw new Error('not asked');
    await apply(journal, one.record, found('not_paid', one.askedAt));
    await apply(journal, other.record, found('not_paid', other.askedAt));
    expect(await read(journal, id)).toMatchObject({ state: 'awaiting', notPaidAt: expect.any(Number) });

    // A third, out of turn, is no second proof either; one at its time is.
    await redis.hset(keys.record(id), 'nextInquiryAt', 1);
    const early = await journal.ask(id, 0);
    if (early.is !== 'ask') throw new Error('not asked');
    await apply(journal, early.record, found('not_paid', early.askedAt));
    expect(await read(journal, id)).toMatchObject({ state: 'awaiting' });

    await redis.hset(keys.record(id), 'nextInquiryAt', 1, 'notPaidAt', journal.now() - 30_000);
    const next = await journal.ask(id, 0);
    if (next.is !== 'ask') throw new Error('not asked');
    await apply(journal, next.record, found('not_paid', next.askedAt));
    expect(await read(journal, id)).toMatchObject({
      state: 'settled',
      standing: { otp: 'accepted', transaction: 'failed', reason: 'declined' },
    });
  });

  test('of no payment does not add up over a pending in between', async () => {
    const journal = journalOf({ redis });
    const id = await submitted(journal, PENDING);
    for (const kind of ['not_paid', 'pending', 'not_paid'] as const) {
      const record = await read(journal, id);
      await apply(journal, record, found(kind, Math.max(record.notPaidAt + 30_000, record.inFlightUntil) + 1));
    }
    expect(await read(journal, id)).toMatchObject({ state: 'awaiting', inquiries: 3 });
  });

  test('destroys the sealed code in the same step, whatever it is, except where it may be sent again', async () => {
    const journal = journalOf({ redis });
    for (const evidence of [PENDING, SUCCEEDED, WRONG, REFUSED, LOST, CANNOT, { from: 'owner_dead' } as const]) {
      const id = await submitted(journal, evidence);
      expect(await redis.hexists(keys.record(id), 'code'), JSON.stringify(evidence)).toBe(0);
    }
    for (const evidence of [NOT_SENT, NEW_STAMP]) {
      const id = await submitted(journal, evidence);
      expect(await redis.hget(keys.record(id), 'code')).toBe('sealed');
    }
    const dead = await seed(redis, { lifetimeMs: 0 });
    await beginOrConclude(journal, dead);
    const blocked = await seed(redis, { reference: 'R', codePrint: 'other' });
    await submitted(journal, LOST, { reference: 'R' });
    await beginOrConclude(journal, blocked);
    expect(await redis.hexists(keys.record(dead), 'code')).toBe(0);
    expect(await redis.hexists(keys.record(blocked), 'code')).toBe(0);
  });

  test('is published with exactly these fields, as they were at that moment', async () => {
    const journal = journalOf({ redis });
    const id = await seed(redis, { reference: 'TX9' });
    const details = { token: 'T' };
    await apply(
      journal,
      await begin(journal, id),
      answer({ kind: 'accepted', transaction: 'pending', providerCode: '00', details, identifiers: ['B-1'] }),
    );
    const [awaiting] = await outbox();
    const record = await read(journal, id);
    expect(awaiting).toEqual({
      id,
      type: 'otp.verification.awaiting',
      at: String(record.updatedAt),
      by: expect.any(String),
      operation: 'verify',
      client: 'shop',
      reference: 'TX9',
      createdAt: String(record.createdAt),
      expiresAt: String(record.expiresAt),
      head: JSON.stringify({ metadata: { orderId: 'A-17' } }),
      claim: '{idem-shop}:claim',
      state: 'awaiting',
      sequence: '1',
      standing: '["accepted","pending",null,"wait","00",2]',
      details: 'sealed {"token":"T"}',
    });
    await apply(journal, record, found('paid', journal.now()));
    const [first, second] = await outbox();
    expect(first).toEqual(awaiting);
    expect(second).toMatchObject({
      id,
      sequence: '2',
      state: 'settled',
      standing: expect.stringContaining('"succeeded"'),
      claim: '{idem-shop}:claim',
      details: 'sealed {"token":"T"}',
    });
    expect(record.identifiers).toEqual(['B-1']);
  });

  test('after the end is written down as a contradiction, told as an event, and shown to a person once', async () => {
    const events = new EventBus();
    const cried: unknown[] = [];
    events.on('proof:contradicted', (payload) => cried.push(payload));
    const journal = journalOf({ redis }, {}, 'one', events);
    const declined = answer({ kind: 'rejected', reason: 'declined', transaction: 'failed', providerCode: '51' });
    const id = await submitted(journal, declined);
    for (const _ of [1, 2]) await apply(journal, await read(journal, id), found('paid', journal.now()));
    expect(await read(journal, id)).toMatchObject({
      state: 'settled',
      final: true,
      needsReview: true,
      sequence: 2,
      standing: { transaction: 'failed' },
    });
    expect((await outbox()).map(({ type }) => type)).toEqual(['otp.verification.settled', 'otp.verification.review']);
    expect(cried).toEqual([1, 2].map(() => ({ id, partition: 'cepta', was: 'failed', now: 'succeeded' })));
  });

  test("that contradicts the end waits until a person has looked, and is no news to that person's word", async () => {
    const journal = journalOf({ redis });
    const declined = answer({ kind: 'rejected', reason: 'declined', transaction: 'failed', providerCode: '51' });
    const id = await submitted(journal, declined);
    const paid = async () => await apply(journal, await read(journal, id), found('paid', journal.now()));
    await paid();
    expect(await redis.zscore(keys.review, id)).not.toBeNull();
    const kept = await redis.pttl(keys.record(id));

    const looked = await apply(journal, await read(journal, id), { from: 'operator', as: 'succeeded' });
    expect(looked).toMatchObject({ verdict: { do: 'end_review' }, published: null });
    expect(await redis.zscore(keys.review, id)).toBeNull();
    const record = await read(journal, id);
    expect(record).toMatchObject({ needsReview: false, sequence: 2, standing: { transaction: 'failed' } });
    expect(record.history.at(-1)).toMatchObject({ event: 'resolved', as: 'succeeded' });
    expect(await redis.pttl(keys.record(id))).toBeLessThanOrEqual(kept);
    expect(await paid()).toMatchObject({ verdict: { do: 'nothing' } });

    await apply(journal, await read(journal, id), { from: 'operator', as: 'failed' });
    expect((await read(journal, id)).revision).toBe(record.revision);
  });

  test('of a record whose retention is over is nothing', async () => {
    const id = await seed(redis);
    const record = await begin(journalOf({ redis }), id);
    await redis.del(keys.record(id));
    await redis.zrem(keys.due, id);
    // Whoever began it itself would write it back, see the tests of another server.
    expect(await apply(journalOf({ redis }), record, WRONG)).toMatchObject({
      verdict: { do: 'nothing' },
      published: null,
    });
    expect(await redis.exists(keys.record(id))).toBe(0);
  });

  test('finally gives the record its retention, and only then', async () => {
    const journal = journalOf({ redis }, { retentionMs: 60_000 });
    const awaiting = await submitted(journal, PENDING);
    const settled = await submitted(journal, WRONG);
    expect(await redis.pttl(keys.record(awaiting))).toBe(-1);
    expect(await redis.pttl(keys.record(settled))).toBeGreaterThan(50_000);
  });

  test('late puts the next look where something must have happened by then', async () => {
    const journal = journalOf({ redis });
    const dueOf = async (id: string): Promise<number> => Number(await redis.zscore(keys.due, id));
    const sending = await seed(redis);
    const { beganAt } = await begin(journal, sending);
    expect(await dueOf(sending)).toBe(beganAt + HEARTBEAT_LIFE_MS);
    const awaiting = await submitted(journal, LOST);
    expect(await dueOf(awaiting)).toBe((await read(journal, awaiting)).nextInquiryAt + 5_000);
    const again = await submitted(journal, NOT_SENT);
    expect(await dueOf(again)).toBe((await read(journal, again)).notBefore + 5_000);
    const short = await submitted(journal, NOT_SENT, { lifetimeMs: 3_000 });
    expect(await dueOf(short)).toBe((await read(journal, short)).expiresAt);
  });
});

describe('a question', () => {
  test('is put when its time has come, with a token of its own rate', async () => {
    const journal = journalOf({ redis }, { inquiryRateLimit: { max: 1, perMs: 10_000 } });
    const id = await submitted(journal, PENDING);
    const { nextInquiryAt } = await read(journal, id);
    expect(await journal.ask(id, 0)).toEqual({ is: 'later', at: nextInquiryAt });
    expect(await journal.ask(id, 10_000)).toMatchObject({ is: 'ask', record: { id } });
    const limited = await journal.ask(id, 10_000);
    expect(limited).toMatchObject({ is: 'later' });
    expect(limited.is === 'later' && limited.at).toBeGreaterThan(journal.now() + 9_000);
  });

  test('is not put about what is queued, sending, settled or gone, nor where none is due', async () => {
    const journal = journalOf({ redis });
    const sending = await seed(redis);
    await begin(journal, sending);
    const patient = await submitted(journalOf({ redis }, { policy: { canInquire: () => false } }), LOST);
    for (const id of [await seed(redis), sending, await submitted(journal, WRONG), 'cepta_x', patient]) {
      expect(await journal.ask(id, 60_000)).toEqual({ is: 'idle' });
    }
  });
});

describe('the clock', () => {
  afterEach(() => void vi.useRealTimers());

  test('is that of Redis, from the first heartbeat on, however wrong ours is', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 600_000 });
    const journal = journalOf({ redis });
    await journal.witness.beat();
    const [seconds, micros] = await redis.time();
    expect(Math.abs(journal.now() - (Number(seconds) * 1_000 + Number(micros) / 1_000))).toBeLessThan(1_000);
    const id = await seed(redis);
    expect(await journal.overdue(10)).toEqual([]);
    expect((await journal.begin(id)).is).toBe('begun');
  });
});

describe('the rate', () => {
  test('is never exceeded in any window, by five times as many as it lets through', async () => {
    const rateLimit = { max: 25, perMs: 200 };
    const forMs = 1_000;
    const journals = [journalOf({ redis }, { rateLimit }), journalOf({ redis }, { rateLimit })];
    const offered = (forMs / rateLimit.perMs) * rateLimit.max * 5;
    const ids = await Promise.all(Array.from({ length: offered }, () => seed(redis)));
    const end = performance.now() + forMs;
    const began = await Promise.all(
      ids.map(async (id, index) => {
        const journal = journals[index % 2] as Journal;
        while (performance.now() < end) {
          const beginning = await journal.begin(id);
          if (beginning.is === 'begun') return beginning.record.beganAt;
          if (beginning.is !== 'later') throw new Error(beginning.is);
          await new Promise((resolve) => setTimeout(resolve, Math.max(0, beginning.at - journal.now())));
        }
        return null;
      }),
    );
    const times = began.filter((at) => at !== null).sort((left, right) => left - right);
    for (let index = 0; index + rateLimit.max < times.length; index += 1) {
      const window = (times[index + rateLimit.max] as number) - (times[index] as number);
      expect(window, 'one begin more than max within less than perMs').toBeGreaterThanOrEqual(rateLimit.perMs);
    }
    // How much of it is used depends on how busy this machine is; the next test shows that none is withheld.
    expect(times.length).toBeGreaterThanOrEqual(rateLimit.max);
  });

  test('is used to the full under a backlog: who finds no token is told a time of its own, one interval apart', async () => {
    const rateLimit = { max: 25, perMs: 10_000 };
    const interval = rateLimit.perMs / rateLimit.max;
    /** By so much two that begin a window apart may arrive less apart. */
    const ON_THE_WAY_MS = 50;
    const journal = journalOf({ redis }, { rateLimit });
    const ids = await Promise.all(Array.from({ length: 125 }, () => seed(redis)));
    const begun = await Promise.all(ids.slice(0, 25).map((id) => begin(journal, id)));
    const first = Math.min(...begun.map(({ beganAt }) => beganAt));
    const told: number[] = [];
    for (const id of ids.slice(25)) {
      const beginning = await journal.begin(id);
      if (beginning.is !== 'later') throw new Error(beginning.is);
      told.push(beginning.at);
    }
    expect(told).toEqual(told.map((_, index) => first + rateLimit.perMs + ON_THE_WAY_MS + index * interval));
  });

  test('that is spent costs nothing: no attempt, no budget, no change', async () => {
    const journal = journalOf({ redis }, { rateLimit: { max: 1, perMs: 60_000 } });
    await begin(journal, await seed(redis));
    const id = await seed(redis, { reference: 'TX' });
    expect(await journal.begin(id)).toMatchObject({ is: 'later', because: 'rate_limited' });
    expect(await read(journal, id)).toMatchObject({ state: 'queued', attempts: 0, revision: 1 });
    expect(await attemptsKnownOf('TX')).toEqual({});
  });

  test('takes no token from a code that is dead or blocked', async () => {
    const journal = journalOf({ redis }, { rateLimit: { max: 1, perMs: 60_000 } });
    await beginOrConclude(journal, await seed(redis, { lifetimeMs: 0 }));
    expect(await redis.exists(keys.rate)).toBe(0);
  });
});

describe('whatever happens, in whatever order', () => {
  type Fate = 'not_sent' | 'refused' | 'lost' | 'accepted' | 'rejected';
  const evidenceOf: Record<Fate, Evidence> = {
    not_sent: NOT_SENT,
    refused: NEW_STAMP,
    lost: LOST,
    accepted: PENDING,
    rejected: WRONG,
  };
  const which = fc.nat({ max: 2 });
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('begin' as const),
        which,
        fate: fc.constantFrom<Fate>('not_sent', 'refused', 'lost', 'accepted', 'rejected'),
      }),
    },
    {
      weight: 5,
      arbitrary: fc.record({ do: fc.constant('deliver' as const), which: fc.nat({ max: 9 }), twice: fc.boolean() }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('die' as const), which }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('no_token' as const), which }) },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constant('ask' as const),
        which,
        kind: fc.constantFrom('paid' as const, 'not_paid' as const, 'pending' as const),
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('patience' as const), which }) },
  );

  test('a code reaches the provider once, results have no gap, and every set agrees with the records', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        await redis.flushall();
        const journal = journalOf({ redis }, {}, 'me');
        const codes = ['a', 'a', 'b'];
        const ids = await Promise.all(codes.map((codePrint) => seed(redis, { reference: 'TX', codePrint })));
        const underway: { record: VerificationRecord; evidence: Evidence }[] = [];
        const reached: string[] = [];
        const finals = new Map<string, string>();

        for (const taken of steps) {
          if (taken.do === 'deliver') {
            const index = taken.which % Math.max(1, underway.length);
            const one = underway[index];
            if (!one) continue;
            if (!taken.twice) underway.splice(index, 1);
            await apply(journal, one.record, one.evidence);
          } else {
            const id = ids[taken.which] as string;
            const record = await read(journal, id);
            await redis.hdel(keys.record(id), 'notBefore');
            switch (taken.do) {
              case 'begin': {
                const beginning = await journal.begin(id);
                if (beginning.is === 'evidence') underway.push(beginning);
                if (beginning.is !== 'begun') break;
                underway.push({ record: beginning.record, evidence: evidenceOf[taken.fate] });
                if (taken.fate !== 'not_sent' && taken.fate !== 'refused') reached.push(codes[taken.which] as string);
                break;
              }
              case 'die':
                await redis.del(keys.heartbeat('me'));
                await beginOrConclude(journal, id);
                await journal.witness.beat();
                break;
              case 'no_token':
                if (record.state === 'queued') underway.push({ record, evidence: NOT_SENT });
                break;
              case 'ask':
                underway.push({
                  record,
                  evidence: found(taken.kind, Math.max(record.inFlightUntil, record.notPaidAt + 30_000) + 1),
                });
                break;
              case 'patience':
                await apply(journal, record, { from: 'patience_over' });
            }
          }
          for (const id of ids) {
            const { final, standing } = await read(journal, id);
            if (!final) continue;
            expect(finals.get(id) ?? JSON.stringify(standing)).toBe(JSON.stringify(standing));
            finals.set(id, JSON.stringify(standing));
          }
        }

        expect(new Set(reached).size, 'the same code reached the provider twice').toBe(reached.length);
        await expectSetsToAgree(redis);
        const entries = await outbox();
        for (const id of ids) {
          const own = entries.filter((entry) => entry.id === id);
          expect(own.map(({ sequence }) => Number(sequence))).toEqual(own.map((_, index) => index + 1));
          expect((await read(journal, id)).sequence).toBe(own.length);
          expect(own.filter(({ type }) => type === 'otp.verification.settled')).toHaveLength(finals.has(id) ? 1 : 0);
        }
        expect(await usedOf('TX')).toBeGreaterThanOrEqual(0);
        const sendingNow = (await Promise.all(ids.map((id) => read(journal, id)))).filter(
          ({ state }) => state === 'sending',
        );
        expect(sendingNow.length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 60 },
    );
  }, 60_000);
});

describe('two verifications of one transaction that both may have been submitted', () => {
  const rolledBack: Evidence = { from: 'rolled_back', bounded: false };
  const paid = (askedAt: number): Evidence => ({
    from: 'inquiry',
    finding: { kind: 'paid', providerCode: 'P' },
    askedAt,
  });

  async function outcomes(count: number): Promise<string[]> {
    const journal = journalOf({ redis });
    const ids = [];
    for (let index = 0; index < count; index += 1) {
      ids.push(await seed(redis, { reference: `contested-${count}`, codePrint: `code-${index}` }));
    }
    const conclude = async (id: string, evidence: Evidence): Promise<void> => {
      const record = await journal.read(id);
      if (record) await journal.apply(record, evidence, {}, async () => '');
    };
    for (const id of ids) await conclude(id, rolledBack);
    for (const id of ids) await conclude(id, paid(journal.now() + 60_000));
    const records = await Promise.all(ids.map(async (id) => await journal.read(id)));
    return records.map((record) => `${record?.standing?.otp} / ${record?.standing?.transaction}`);
  }

  test('are both paid, and nobody says by which code', async () => {
    expect(await outcomes(2)).toEqual(['unknown / succeeded', 'unknown / succeeded']);
  });

  test.each([
    ['whose attempt was not sent, as far as anybody knows', rolledBack],
    ['whose worker is gone', { from: 'owner_dead' } as const],
  ])('one accepted by the provider, and one %s: only the first is accepted', async (which, evidence) => {
    const journal = journalOf({ redis });
    const [unsure, accepted] = [
      await seed(redis, { reference: 'contested', codePrint: 'code-1' }),
      await seed(redis, { reference: 'contested', codePrint: 'code-2' }),
    ];
    const sending = await begin(journal, unsure);
    const asItWas = await redis.dumpBuffer(keys.record(unsure));
    await apply(journal, sending, NOT_SENT);
    await apply(journal, await begin(journal, accepted), PENDING);
    // As a server knows it that has lost that it was not sent.
    if (which === 'whose worker is gone') await redis.restore(keys.record(unsure), 0, asItWas ?? '', 'REPLACE');
    await apply(journal, await read(journal, unsure), evidence);
    for (const id of [accepted, unsure]) await apply(journal, await read(journal, id), paid(journal.now() + 60_000));
    expect((await read(journal, accepted)).standing).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
    expect((await read(journal, unsure)).standing).toMatchObject({ otp: 'unknown', transaction: 'succeeded' });
  });

  test('one whose code was refused was not it', async () => {
    const journal = journalOf({ redis });
    const [refused, lost] = [
      await seed(redis, { reference: 'uncontested', codePrint: 'code-1' }),
      await seed(redis, { reference: 'uncontested', codePrint: 'code-2' }),
    ];
    await apply(journal, await begin(journal, refused), WRONG);
    await apply(journal, await begin(journal, lost), LOST);
    await apply(journal, await read(journal, lost), paid(journal.now() + 60_000));
    expect((await read(journal, lost)).standing).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
  });

  test('but a single one was it', async () => {
    expect(await outcomes(1)).toEqual(['accepted / succeeded']);
  });
});

test('what was decided on one of two histories that a failover has parted is decided anew on the other', async () => {
  const journal = journalOf({ redis });
  const id = await seed(redis, { reference: 'TX', codePrint: 'code' });
  const begun = await begin(journal, id);
  const other = await redis.dumpBuffer(keys.record(id));
  await apply(journal, begun, PENDING);
  const awaiting = await read(journal, id);

  // The server that took over knows it as begun, and by a hint, so that it counts as many revisions.
  await redis.restore(keys.record(id), 0, other, 'REPLACE');
  await redis.del(keys.outbox);
  await redis.zrem(keys.awaiting, id);
  await vi.waitUntil(() => journal.now() > awaiting.updatedAt, 10_000);
  await apply(journal, begun, {
    from: 'callback',
    finding: { kind: 'not_paid', providerCode: 'FAILED' },
    receivedAt: journal.now(),
  });
  const hinted = await read(journal, id);
  expect(hinted).toMatchObject({ revision: awaiting.revision, state: 'sending', sequence: 0 });

  await apply(journal, awaiting, found('paid', journal.now()));
  await apply(journal, begun, PENDING); // its worker says it again
  const published = await outboxOf(redis);
  expect(published.map(({ sequence }) => sequence)).toEqual(['1']);
  expect(await read(journal, id)).toMatchObject({ state: 'awaiting', sequence: 1 });
});
