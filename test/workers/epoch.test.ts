/**
 * A journal that may have lost its last writes: who may still begin, who writes back what, and what becomes of the
 * rest. Every test has a Redis of its own, kills it, and cuts off its file what the test wants lost.
 */
import { randomUUID } from 'node:crypto';
import { describe, expect, test, vi } from 'vitest';
import { EventBus, type Events } from '../../src/events.ts';
import { partitionKeys } from '../../src/producers/job.ts';
import type { VerificationRecord } from '../../src/producers/record.ts';
import type { Outcome } from '../../src/providers/provider.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import type { Evidence } from '../../src/workers/decide.ts';
import { Epoch } from '../../src/workers/epoch.ts';
import type { Journal } from '../../src/workers/journal.ts';
import { BEAT_MS } from '../../src/workers/witness.ts';
import { loseWrites, position, startForgetfulRedis } from '../support/lost-writes.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { expectSetsToAgree, type JournalChanges, journalOf, outboxOf, type Seed, seed } from './support.ts';

const RECOVER_MS = 300;
/** A loss window that no slow machine outlasts between a position in the file and the end of the server. */
const AMPLE_MS = 10_000;
/** Whole seconds in the uptime, and a beat a second: so exactly are two servers told apart by their times. */
const APART_MS = 1_000 + BEAT_MS;
/** Servers are killed and started here, by five tests at a time. */
const SLOWLY = { timeout: 40_000 };
const keys = partitionKeys('cepta');

const seal = async (_: string, details: unknown): Promise<string> => `sealed ${JSON.stringify(details)}`;
const answer = (outcome: Outcome): Evidence => ({ from: 'answer', outcome });
const SUCCEEDED = answer({ kind: 'accepted', transaction: 'succeeded', providerCode: 'PAID' });
const PENDING = answer({ kind: 'accepted', transaction: 'pending', providerCode: '00' });
const WRONG = answer({ kind: 'rejected', reason: 'wrong_code', transaction: 'pending', providerCode: 'INVALID_OTP' });
const LOST: Evidence = { from: 'lost', code: 'ECONNRESET' };
const NOT_SENT = { from: 'not_sent', code: 'ECONNREFUSED', remediable: true } as const;
const paid = (askedAt: number): Evidence => ({
  from: 'inquiry',
  finding: { kind: 'paid', providerCode: 'P' },
  askedAt,
});

/** A worker as far as the journal knows one. It lives for as long as somebody beats for it. */
interface Actor {
  readonly name: string;
  readonly redis: RedisConnection;
  readonly journal: Journal;
  readonly epoch: Epoch;
  readonly recovered: Events['journal:recovered'][];
  /** What the recovery has called unknown, by this worker. */
  readonly suspected: string[];
}

class World implements AsyncDisposable {
  readonly server: TestRedis;
  readonly #connections: RedisConnection[] = [];
  /** Looks on; no worker. */
  readonly redis: RedisConnection;

  private constructor(server: TestRedis) {
    this.server = server;
    this.redis = this.connect(server);
  }

  static async start(): Promise<World> {
    return new World(await startForgetfulRedis());
  }

  connect(server: TestRedis): RedisConnection {
    const connection = connectRedis(server.url, 'worker', { onError: () => {} });
    this.#connections.push(connection);
    return connection;
  }

  worker(changes: JournalChanges = {}, name: string = randomUUID(), server = this.server): Actor {
    const redis = this.connect(server);
    const events = new EventBus();
    const settings = { recoverMs: RECOVER_MS, lossWindowMs: AMPLE_MS, ...changes };
    const journal = journalOf({ redis }, settings, name, events);
    const recovered: Events['journal:recovered'][] = [];
    events.on('journal:recovered', (payload) => recovered.push(payload));
    const suspected: string[] = [];
    const epoch = new Epoch({
      partition: 'cepta',
      journal,
      lossWindowMs: settings.lossWindowMs,
      events,
      conclude: async (record, evidence) => {
        const { verdict } = await journal.apply(record, evidence, {}, seal);
        if (verdict?.do === 'await') suspected.push(record.id);
      },
    });
    return { name, redis, journal, epoch, recovered, suspected };
  }

  async record(id: string, redis = this.redis): Promise<VerificationRecord> {
    const record = await journalOf({ redis }).read(id);
    if (record === null) throw new Error(`no record ${id}`);
    return record;
  }

  async outbox(redis = this.redis): Promise<string[]> {
    return (await outboxOf(redis)).map(
      ({ id, sequence, type = '', standing = '[]' }) =>
        `${id}.${sequence} ${type.replace('otp.verification.', '')} ${JSON.parse(standing)[0]}`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.#connections) connection.disconnect();
    await this.server[Symbol.asyncDispose]();
  }
}

async function begin({ journal }: Actor, id: string): Promise<VerificationRecord> {
  const beginning = await journal.begin(id);
  if (beginning.is !== 'begun') throw new Error(`begin said ${JSON.stringify(beginning)}`);
  return beginning.record;
}

const apply = async ({ journal }: Actor, record: VerificationRecord, evidence: Evidence) =>
  await journal.apply(record, evidence, {}, seal);

/** They beat, all of them, until the journal is open to each. */
async function open(...workers: Actor[]): Promise<void> {
  const beaten = async (): Promise<boolean> => {
    const open = await Promise.all(workers.map(({ epoch }) => epoch.beat()));
    return open.every(Boolean);
  };
  await vi.waitUntil(beaten, { timeout: 15_000, interval: 20 });
}

const accept = async (world: World, given: Seed = {}): Promise<string> => await seed(world.redis, given);

describe.concurrent('a journal on the server that it is known to be whole on', () => {
  test('is open at once when the partition is new, and stays so', async () => {
    await using world = await World.start();
    const worker = world.worker();
    expect(await worker.epoch.beat()).toBe(true);
    await begin(worker, await accept(world));
    expect(await worker.epoch.beat()).toBe(true);
    expect(worker.recovered).toEqual([]);
  });

  test('is open to a worker that comes later', async () => {
    await using world = await World.start();
    await open(world.worker());
    const other = world.worker();
    expect(await other.epoch.beat()).toBe(true);
    await begin(other, await accept(world));
  });
});

describe.concurrent('a journal on another server', SLOWLY, () => {
  test('begins nothing and calls nothing "not submitted" until it is open, and keeps what it has', async () => {
    await using world = await World.start();
    const worker = world.worker();
    await open(worker);
    const [queued, dead] = [await accept(world), await accept(world, { lifetimeMs: 1 })];
    const before = [await world.record(queued), await world.record(dead)];
    await world.server.kill();
    await world.server.start();

    expect(await worker.journal.begin(queued)).toMatchObject({ is: 'later', because: 'recovering' });
    expect(await worker.journal.begin(dead)).toMatchObject({ is: 'later', because: 'recovering' });
    const deadRecord = await world.record(dead);
    expect((await apply(worker, deadRecord, { from: 'deadline' })).verdict).toBeNull();
    expect((await apply(worker, deadRecord, NOT_SENT)).verdict).toBeNull();
    expect([await world.record(queued), await world.record(dead)]).toEqual(before);
  });

  test('waits its time, in which whoever lives may speak, and then opens with nothing lost', async () => {
    await using world = await World.start();
    const [one, other] = [world.worker({ recoverMs: 700 }), world.worker({ recoverMs: 700 })];
    await open(one, other);
    const [queued, underWay, done] = [await accept(world), await accept(world), await accept(world)];
    const begun = await begin(one, underWay);
    await apply(other, await begin(other, done), WRONG);
    const before = await Promise.all([queued, underWay, done].map((id) => world.record(id)));
    await world.server.kill();
    await world.server.start();

    const startedAt = performance.now();
    await open(one, other);
    expect(performance.now() - startedAt).toBeGreaterThan(700);
    expect([...one.recovered, ...other.recovered]).toEqual([
      { partition: 'cepta', bounded: true, missing: 0, suspected: 0 },
    ]);
    expect(await Promise.all([queued, underWay, done].map((id) => world.record(id)))).toEqual(before);
    await begin(other, queued);
    await apply(one, begun, SUCCEEDED);
    expect(await world.record(underWay)).toMatchObject({ attempts: 1, standing: { otp: 'accepted' } });
    await expectSetsToAgree(world.redis);
  });

  test('has nobody to wonder about when its workers ended in order', async () => {
    await using world = await World.start();
    const worker = world.worker();
    await open(worker);
    await apply(worker, await begin(worker, await accept(world)), WRONG);
    const queued = await accept(world);
    await worker.journal.witness.leave();
    await world.server.kill();
    await world.server.start();
    const next = world.worker();
    await open(next);
    expect(next.recovered).toEqual([{ partition: 'cepta', bounded: true, missing: 0, suspected: 0 }]);
    await begin(next, queued);
  });

  test('recovers anew when the server ends again in the middle of it, without waiting for who was about to', async () => {
    await using world = await World.start();
    const worker = world.worker({ recoverMs: 400 });
    await open(worker);
    const id = await accept(world);
    await world.server.kill();
    await world.server.start();
    expect(await worker.epoch.beat()).toBe(false);
    // The one that was about to recover dies with the server.
    expect(await worker.journal.witness.mayOneRecover(30_000)).toBe(true);
    await world.server.kill();
    await world.server.start();
    const startedAt = performance.now();
    await open(worker);
    expect(performance.now() - startedAt).toBeGreaterThan(400);
    await begin(worker, id);
  });
});

describe.concurrent('a worker that lives', SLOWLY, () => {
  test('writes back an attempt whose beginning was lost: nobody begins it again, and its answer counts', async () => {
    await using world = await World.start();
    const [one, other] = [world.worker(), world.worker()];
    await open(one, other);
    const reference = randomUUID();
    const id = await accept(world, { reference });
    const before = position(world.server);
    const begun = await begin(one, id);
    await loseWrites(world.server, before);
    expect(await world.record(id)).toMatchObject({ state: 'queued', attempts: 0 });

    await open(one, other);
    expect(await world.record(id)).toMatchObject({
      state: 'sending',
      token: begun.token,
      owner: one.name,
      attempts: 1,
      attemptsUsed: 1,
    });
    expect(await other.journal.begin(id)).toEqual({ is: 'in_flight' });
    const another = await accept(world, { reference, codePrint: 'another code' });
    expect(await other.journal.begin(another)).toMatchObject({
      evidence: { reason: 'attempt_in_flight', ownedBy: id },
    });
    expect(await world.redis.hget(keys.transaction(reference), 'used')).toBe('1');

    await apply(one, begun, WRONG);
    expect(await world.record(id)).toMatchObject({ state: 'settled', standing: { otp: 'rejected' } });
    expect(await world.outbox()).toEqual([`${id}.1 settled rejected`]);
    // Released, and its budget used once.
    expect((await begin(other, another)).attemptsUsed).toBe(2);
  });

  test('writes back an outcome that was lost together with the beginning', async () => {
    await using world = await World.start();
    const [one, other] = [world.worker(), world.worker()];
    await open(one, other);
    const id = await accept(world);
    const before = position(world.server);
    await apply(one, await begin(one, id), WRONG);
    await loseWrites(world.server, before);

    await open(one, other);
    expect(await world.record(id)).toMatchObject({ state: 'settled', sealedCode: null, standing: { otp: 'rejected' } });
    expect(await world.outbox()).toEqual([`${id}.1 settled rejected`]);
    expect(await other.journal.begin(id)).toEqual({ is: 'settled' });
    await expectSetsToAgree(world.redis);
  });

  test.each([
    ['a final one', WRONG, 'rejected'],
    ['an unfinished one', PENDING, 'accepted'],
    ['that nothing left', NOT_SENT, undefined],
  ] as const)('writes back an outcome that was lost alone: %s', async (_, evidence, otp) => {
    await using world = await World.start();
    const worker = world.worker();
    await open(worker);
    const id = await accept(world);
    const begun = await begin(worker, id);
    const before = position(world.server);
    await apply(worker, begun, evidence);
    const settled = await world.record(id);
    await loseWrites(world.server, before);
    expect(await world.record(id)).toMatchObject({ state: 'sending' });

    await open(worker);
    const record = await world.record(id);
    expect(record.standing?.otp).toBe(otp);
    expect(record).toMatchObject({ state: settled.state, sequence: settled.sequence, attempts: 1 });
    expect(record.history.map(({ event }) => event)).toEqual(settled.history.map(({ event }) => event));
    await expectSetsToAgree(world.redis);
  });

  test('says an outcome once when nothing of it was lost', async () => {
    await using world = await World.start();
    const worker = world.worker();
    await open(worker);
    const ids: string[] = [];
    for (const evidence of [WRONG, PENDING, LOST]) {
      const id = await accept(world);
      ids.push(id);
      await apply(worker, await begin(worker, id), evidence);
    }
    const before = await Promise.all(ids.map((id) => world.record(id)));
    await world.server.kill();
    await world.server.start();
    await open(worker);
    expect(await Promise.all(ids.map((id) => world.record(id)))).toEqual(before);
    expect(await world.outbox()).toHaveLength(3);
  });

  test('writes back even the acceptance, when that was lost as well', async () => {
    await using world = await World.start();
    const worker = world.worker();
    await open(worker);
    const before = position(world.server);
    const [underWay, settled] = [await accept(world), await accept(world)];
    const begun = await begin(worker, underWay);
    await apply(worker, await begin(worker, settled), WRONG);
    await loseWrites(world.server, before);
    expect(await world.redis.exists(keys.record(underWay), keys.record(settled))).toBe(0);

    await open(worker);
    expect(await world.record(underWay)).toMatchObject({ state: 'sending', sealedCode: 'sealed', attempts: 1 });
    expect(await world.record(settled)).toMatchObject({ state: 'settled', standing: { otp: 'rejected' } });
    await apply(worker, begun, SUCCEEDED);
    await expectSetsToAgree(world.redis);
  });

  test('brings its answer to a journal that has not heard of the attempt, without waiting for a beat', async () => {
    await using world = await World.start();
    const worker = world.worker();
    await open(worker);
    const id = await accept(world);
    const before = position(world.server);
    const begun = await begin(worker, id);
    await loseWrites(world.server, before);
    await apply(worker, begun, SUCCEEDED);
    expect(await world.record(id)).toMatchObject({ state: 'settled', attempts: 1, standing: { otp: 'accepted' } });
    await open(worker);
    expect(await world.outbox()).toEqual([`${id}.1 settled accepted`]);
  });

  test('writes back the second attempt over the first', async () => {
    await using world = await World.start();
    const [one, other] = [world.worker(), world.worker()];
    await open(one, other);
    const id = await accept(world);
    const first = await begin(one, id);
    const before = position(world.server);
    await apply(one, first, NOT_SENT);
    await world.redis.hset(keys.record(id), 'notBefore', 1);
    const second = await begin(other, id);
    await loseWrites(world.server, before);
    await open(one, other);
    expect(await world.record(id)).toMatchObject({ state: 'sending', token: second.token, attempts: 2 });
    await apply(other, second, SUCCEEDED);
    expect(await world.record(id)).toMatchObject({ state: 'settled', attempts: 2, attemptsUsed: 1 });
  });

  test('that was away all the while finds its attempt called unknown, and its answer is told under a new number', async () => {
    await using world = await World.start();
    const [away, other] = [world.worker(), world.worker()];
    await open(away, other);
    const [underWay, settled] = [await accept(world), await accept(world)];
    const before = position(world.server);
    const begun = await begin(away, underWay);
    await apply(away, await begin(away, settled), WRONG);
    await loseWrites(world.server, before);

    await open(other);
    expect(other.recovered).toEqual([{ partition: 'cepta', bounded: true, missing: 1, suspected: 2 }]);
    for (const id of [underWay, settled]) {
      expect(await world.record(id)).toMatchObject({ state: 'awaiting', sequence: 1, sealedCode: null });
    }
    // It is back, and the journal is open already.
    expect(await away.epoch.beat()).toBe(true);
    expect(await world.record(settled)).toMatchObject({ state: 'settled', sequence: 2, standing: { otp: 'rejected' } });
    await apply(away, begun, SUCCEEDED);
    expect(await world.record(underWay)).toMatchObject({
      state: 'settled',
      sequence: 2,
      attempts: 1,
      standing: { otp: 'accepted' },
    });
    expect((await world.record(underWay)).history.map(({ event }) => event)).toEqual([
      'accepted',
      'rolled_back',
      'begun',
      'answered',
    ]);
    expect(await world.outbox()).toEqual([
      ...[underWay, settled].sort().map((id) => `${id}.1 awaiting unknown`),
      `${settled}.2 settled rejected`,
      `${underWay}.2 settled accepted`,
    ]);
    await expectSetsToAgree(world.redis);
  });

  test.each([
    ['its answer', SUCCEEDED, { otp: 'accepted', transaction: 'succeeded' }],
    ['that nothing left', NOT_SENT, { otp: 'not_submitted', reason: 'provider_unavailable' }],
  ] as const)(
    'that was away brings %s to what was called unknown, before it has heard of that',
    async (_, evidence, is) => {
      await using world = await World.start();
      const [away, other] = [world.worker(), world.worker()];
      await open(away, other);
      const reference = randomUUID();
      const id = await accept(world, { reference });
      const before = position(world.server);
      const begun = await begin(away, id);
      await loseWrites(world.server, before);
      await open(other);
      expect(await world.record(id)).toMatchObject({ state: 'awaiting', sequence: 1 });
      await apply(away, begun, evidence);
      expect(await world.record(id)).toMatchObject({ state: 'settled', sequence: 2, attempts: 1, standing: is });
      expect(await world.redis.hexists(keys.transaction(reference), 'holder')).toBe(0);
      await expectSetsToAgree(world.redis);
    },
  );

  test('that ends in order says once more what Redis has just lost', async () => {
    await using world = await World.start();
    const [ends, other] = [world.worker(), world.worker()];
    await open(ends, other);
    const id = await accept(world);
    const before = position(world.server);
    await apply(ends, await begin(ends, id), WRONG);
    await loseWrites(world.server, before);
    await ends.journal.witness.leave();
    await open(other);
    expect(await world.record(id)).toMatchObject({ state: 'settled', standing: { otp: 'rejected' } });
    expect(other.recovered).toMatchObject([{ missing: 0, suspected: 0 }]);
  });

  test('overwrites nothing that was proved while it was away', async () => {
    await using world = await World.start();
    const [away, other] = [world.worker(), world.worker()];
    await open(away, other);
    const id = await accept(world);
    const before = position(world.server);
    const begun = await begin(away, id);
    await loseWrites(world.server, before);
    await open(other);
    await apply(other, await world.record(id), paid(other.journal.now()));
    const settled = await world.record(id);
    expect(settled).toMatchObject({ state: 'settled', standing: { transaction: 'succeeded' } });
    await open(away);
    await apply(away, begun, WRONG);
    expect(await world.record(id)).toEqual(settled);
  });

  test('does not bring back what its attempt changed nothing in, once that is past its retention', async () => {
    await using world = await World.start();
    const [slow, other] = [world.worker({ lossWindowMs: 0 }), world.worker({ lossWindowMs: 0 })];
    await open(slow, other);
    const id = await accept(world);
    const begun = await begin(slow, id);
    await world.redis.del(keys.heartbeat(slow.name));
    await apply(other, await world.record(id), { from: 'owner_dead' });
    await apply(other, await world.record(id), paid(other.journal.now()));
    await apply(slow, begun, LOST); // the record is final: this changes nothing
    await open(slow, other);
    await world.redis.del(keys.record(id)); // its retention is over
    await world.server.kill();
    await world.server.start();
    await open(slow, other);
    expect(await world.redis.exists(keys.record(id))).toBe(0);
    expect(await world.redis.zscore(keys.due, id)).toBeNull();
  });
});

describe.concurrent('a worker of which nothing is heard', SLOWLY, () => {
  test('may have begun what stands queued: that becomes unknown, holds its transaction, and is never sent', async () => {
    await using world = await World.start();
    const [gone, heir] = [world.worker(), world.worker()];
    await open(gone, heir);
    const reference = randomUUID();
    const id = await accept(world, { reference });
    const dies = await accept(world, { lifetimeMs: 1_500 });
    const before = position(world.server);
    await begin(gone, id);
    await begin(gone, dies);
    await loseWrites(world.server, before);
    // The code is dead by the time the journal opens: it may have been sent while it was not.
    const { expiresAt } = await world.record(dies);
    await vi.waitUntil(() => heir.journal.now() > expiresAt, { timeout: 10_000 });
    await open(heir);
    expect(heir.recovered).toEqual([{ partition: 'cepta', bounded: true, missing: 1, suspected: 2 }]);
    for (const each of [id, dies]) {
      expect(await world.record(each)).toMatchObject({
        state: 'awaiting',
        sealedCode: null,
        needsReview: false,
        standing: { otp: 'unknown', transaction: 'unknown', reason: 'no_answer' },
        sequence: 1,
        nextInquiryAt: expect.any(Number),
      });
      expect(await heir.journal.begin(each)).toMatchObject({ is: 'awaiting' });
    }
    const same = await accept(world, { reference });
    const another = await accept(world, { reference, codePrint: 'another code' });
    for (const each of [same, another]) {
      expect(await heir.journal.begin(each)).toMatchObject({
        evidence: { reason: 'attempt_in_flight', transaction: 'unknown', ownedBy: id },
      });
    }
    // Proof ends it, as it ends every unknown.
    await apply(heir, await world.record(id), paid(heir.journal.now()));
    expect(await world.record(id)).toMatchObject({ state: 'settled', standing: { transaction: 'succeeded' } });
    await expectSetsToAgree(world.redis);
  });

  test('cannot have begun what the new server accepted, what was not yet due, and what was dead before', async () => {
    await using world = await World.start();
    const [gone, heir] = [world.worker({ recoverMs: 2_500 }), world.worker({ recoverMs: 2_500 })];
    await open(gone, heir);
    const dead = await accept(world, { lifetimeMs: 0 });
    const waits = await accept(world);
    await world.redis.hset(keys.record(waits), 'notBefore', heir.journal.now() + 20_000);
    const stood = await accept(world);
    await vi.waitUntil(async () => heir.journal.now() > (await world.record(dead)).expiresAt + 2_500, {
      timeout: 5_000,
    });
    await open(gone, heir);
    await world.server.kill();
    await world.server.start();
    await heir.epoch.beat();
    const startedAt = heir.journal.now();
    await vi.waitUntil(() => heir.journal.now() > startedAt + APART_MS, { timeout: 5_000 });
    const accepted = await accept(world);

    await open(heir);
    expect(heir.suspected).toEqual([stood]);
    await begin(heir, accepted);
    expect(await heir.journal.begin(waits)).toMatchObject({ because: 'not_yet' });
    expect(await heir.journal.begin(dead)).toMatchObject({ evidence: { from: 'deadline' } });
  });

  test('may have begun what another one only now says again did not leave', async () => {
    await using world = await World.start();
    const [lives, gone] = [world.worker(), world.worker()];
    await open(lives, gone);
    const id = await accept(world);
    const first = await begin(lives, id);
    const before = position(world.server);
    await apply(lives, first, { ...NOT_SENT, retryAfterMs: 20_000 });
    await world.redis.hset(keys.record(id), 'notBefore', 1);
    await begin(gone, id); // and its code is on its way
    await loseWrites(world.server, before);
    await open(lives);
    const record = await world.record(id);
    expect(record).toMatchObject({ state: 'awaiting', standing: { otp: 'unknown' }, sealedCode: null });
  });

  test('may have begun what another one, back too late, would have given back to the queue', async () => {
    await using world = await World.start();
    const [lives, late, gone] = [world.worker(), world.worker(), world.worker()];
    await open(lives, late, gone);
    const id = await accept(world);
    const first = await begin(late, id);
    const before = position(world.server);
    await apply(late, first, NOT_SENT);
    await world.redis.hset(keys.record(id), 'notBefore', 1);
    await begin(gone, id); // and its code is on its way
    await loseWrites(world.server, before);
    await open(lives);
    await open(late);
    expect(await world.record(id)).toMatchObject({ state: 'sending', attempts: 1 });
    expect(await lives.journal.begin(id)).toMatchObject({ is: 'in_flight' });
  });

  test('has begun nothing that could be lost, where every write was on the disk before it was answered', async () => {
    await using world = await World.start();
    const [gone, heir] = [world.worker({ lossWindowMs: 0 }), world.worker({ lossWindowMs: 0 })];
    await open(gone, heir);
    const id = await accept(world);
    await world.server.kill();
    await world.server.start();
    await open(heir);
    expect(heir.recovered).toEqual([{ partition: 'cepta', bounded: true, missing: 1, suspected: 0 }]);
    await begin(heir, id);
  });

  test('is missed also when it came while the journal was recovering, and began as soon as it was open', async () => {
    await using world = await World.start();
    const first = world.worker();
    await open(first);
    await world.server.kill();
    await world.server.start();
    const gone = world.worker({ recoverMs: 2_000 });
    expect(await gone.epoch.beat()).toBe(false);
    await open(first);
    const id = await accept(world);
    const before = position(world.server);
    await begin(gone, id);
    await loseWrites(world.server, before);
    await open(first);
    expect(first.recovered).toMatchObject([{ missing: 0 }, { missing: 1, suspected: 1 }]);
    expect(await world.record(id)).toMatchObject({ state: 'awaiting' });
  });

  test('is not wondered about a second time', async () => {
    await using world = await World.start();
    const [gone, heir] = [world.worker(), world.worker()];
    await open(gone, heir);
    await world.server.kill();
    await world.server.start();
    await open(heir);
    expect(heir.recovered).toMatchObject([{ missing: 1 }]);
    const id = await accept(world);
    await world.server.kill();
    await world.server.start();
    await open(heir);
    expect(heir.recovered).toMatchObject([{ missing: 1 }, { missing: 0, suspected: 0 }]);
    await begin(heir, id);
  });

  test('may have begun what a replica that took over has not heard of, however long that one has been running', async () => {
    await using world = await World.start();
    await using replica = await startTestRedis();
    const onReplica = world.connect(replica);
    const { hostname, port, password } = new URL(world.server.url);
    await onReplica.config('SET', 'masterauth', password);
    await onReplica.replicaof(hostname, port);
    const gone = world.worker();
    await open(gone);
    await vi.waitUntil(async () => {
      const info = await onReplica.info();
      return /master_link_status:up/.test(info) && Number(/uptime_in_seconds:(\d+)/.exec(info)?.[1]) >= 4;
    }, 10_000);
    await open(gone);
    const id = await accept(world);
    await vi.waitUntil(async () => (await onReplica.exists(keys.record(id))) === 1, 10_000);
    await onReplica.replicaof('NO', 'ONE');
    await begin(gone, id); // acknowledged by the old primary alone
    await world.server.kill();

    const heir = world.worker({}, randomUUID(), replica);
    await open(heir);
    expect(heir.recovered).toMatchObject([{ bounded: true, missing: 1, suspected: 1 }]);
    expect(await world.record(id, onReplica)).toMatchObject({ state: 'awaiting', standing: { otp: 'unknown' } });
  });
});

describe.concurrent('a server that has lost more than can be told', SLOWLY, () => {
  const SMALL = { lossWindowMs: 300 };
  /** So long after the last beat that it cannot be the loss window. */
  const LONG_MS = SMALL.lossWindowMs + BEAT_MS + 1_000 + 1_000;

  test('leaves everything that is not final to a person, also what is past its deadline or awaited proof before', async () => {
    await using world = await World.start();
    const gone = world.worker(SMALL);
    await open(gone);
    const [queued, sending, awaiting, settled, dead] = [
      await accept(world),
      await accept(world),
      await accept(world),
      await accept(world),
      await accept(world, { lifetimeMs: 0 }),
    ];
    await begin(gone, sending);
    await apply(gone, await begin(gone, awaiting), LOST);
    await apply(gone, await begin(gone, settled), WRONG);
    const final = await world.record(settled);
    const lastBeat = gone.journal.now();
    await world.server.kill();
    await vi.waitUntil(() => Date.now() > lastBeat + LONG_MS, { timeout: 10_000 });
    await world.server.start();

    const heir = world.worker(SMALL);
    await open(heir);
    expect(heir.recovered).toEqual([{ partition: 'cepta', bounded: false, missing: 1, suspected: 4 }]);
    for (const id of [queued, sending, awaiting, dead]) {
      expect(await world.record(id), id).toMatchObject({
        state: 'awaiting',
        needsReview: true,
        sealedCode: null,
        standing: { otp: 'unknown' },
      });
      expect(await heir.journal.begin(id)).toMatchObject({ is: 'awaiting' });
    }
    expect(await world.record(settled)).toEqual(final);
    expect((await world.outbox()).filter((entry) => entry.includes('review'))).toHaveLength(4);
    await expectSetsToAgree(world.redis);
  });

  test('vouches for what it has accepted itself', async () => {
    await using world = await World.start();
    const changes = { ...SMALL, recoverMs: APART_MS + 1_000 };
    const gone = world.worker(changes);
    await open(gone);
    const old = await accept(world);
    const lastBeat = gone.journal.now();
    await world.server.kill();
    await vi.waitUntil(() => Date.now() > lastBeat + LONG_MS, { timeout: 10_000 });
    await world.server.start();
    const heir = world.worker(changes);
    await heir.epoch.beat();
    const startedAt = heir.journal.now();
    await vi.waitUntil(() => heir.journal.now() > startedAt + APART_MS, { timeout: 5_000 });
    const accepted = await accept(world);
    await open(heir);
    expect(heir.recovered).toMatchObject([{ bounded: false }]);
    expect(heir.suspected).toEqual([old]);
    await begin(heir, accepted);
  });

  test('leaves an attempt to the worker that has it in hand', async () => {
    await using world = await World.start();
    const worker = world.worker(SMALL);
    await open(worker);
    const [underWay, queued] = [await accept(world), await accept(world)];
    const before = position(world.server);
    // What was written in the meantime is lost, and the beats with it.
    const since = worker.journal.now();
    await vi.waitUntil(() => Date.now() > since + LONG_MS, { timeout: 10_000 });
    await worker.epoch.beat();
    const begun = await begin(worker, underWay);
    await loseWrites(world.server, before);
    await open(worker);
    expect(worker.recovered).toEqual([{ partition: 'cepta', bounded: false, missing: 0, suspected: 1 }]);
    expect(await world.record(queued)).toMatchObject({ state: 'awaiting', needsReview: true });
    expect(await world.record(underWay)).toMatchObject({ state: 'sending', token: begun.token });
    await apply(worker, begun, WRONG);
    expect(await world.record(underWay)).toMatchObject({ state: 'settled', needsReview: false });
  });
});

describe.concurrent('the recovery', SLOWLY, () => {
  test('is one worker’s, however many there are', async () => {
    await using world = await World.start();
    const gone = world.worker();
    const workers = Array.from({ length: 4 }, () => world.worker());
    await open(gone, ...workers);
    const ids = await Promise.all(Array.from({ length: 20 }, () => accept(world)));
    await world.server.kill();
    await world.server.start();
    await open(...workers);
    expect(workers.flatMap(({ recovered }) => recovered)).toEqual([
      { partition: 'cepta', bounded: true, missing: 1, suspected: 20 },
    ]);
    expect(await world.outbox()).toHaveLength(ids.length);
  });

  test('that fails is taken up again, and nothing begins before', async () => {
    await using world = await World.start();
    const [gone, heir] = [world.worker(), world.worker()];
    await open(gone, heir);
    const id = await accept(world);
    await world.server.kill();
    await world.server.start();
    const fails = vi.spyOn(heir.journal, 'unfinished').mockRejectedValueOnce(new Error('away'));
    await heir.epoch.beat();
    await vi.waitUntil(async () => {
      await heir.epoch.beat();
      return fails.mock.calls.length > 0;
    }, 10_000);
    expect(await heir.journal.begin(id)).toMatchObject({ because: 'recovering' });
    await open(heir);
    expect(heir.suspected).toEqual([id]);
  });

  test('is not kept from opening the partition by a record that nobody can read', async () => {
    await using world = await World.start();
    const [gone, heir] = [world.worker(), world.worker()];
    await open(gone, heir);
    const [broken, id] = [await accept(world), await accept(world)];
    await world.redis.hset(keys.record(broken), 'head', '{');
    await world.server.kill();
    await world.server.start();
    await open(heir);
    expect(heir.suspected).toEqual([id]);
  });

  test('on an empty server starts from nothing: what lives is written back, the rest is gone', async () => {
    await using world = await World.start();
    const [one, other] = [world.worker(), world.worker()];
    await open(one, other);
    const [underWay, queued] = [await accept(world), await accept(world)];
    const begun = await begin(one, underWay);
    await world.redis.flushall();
    await open(one, other);
    expect(await other.journal.begin(queued)).toEqual({ is: 'missing' });
    await apply(one, begun, WRONG);
    expect(await world.record(underWay)).toMatchObject({
      state: 'settled',
      attempts: 1,
      standing: { otp: 'rejected' },
    });
    await expectSetsToAgree(world.redis);
  });
});
