import { Queue } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { createResultsConsumer, type ResultEvent, type ResultsConsumerOptions } from '../../src/index.ts';
import { RESULT_JOB_OPTIONS, resultsPrefix } from '../../src/producers/job.ts';
import { readRecord, type VerificationRecord } from '../../src/producers/record.ts';
import { resultEventOf } from '../../src/producers/result.ts';
import { Sealer } from '../../src/producers/sealing.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { CANARY, eventually, sealingKeys } from './world.ts';

const ID = 'demo_0123456789abcdef0123456789abcdef';
const QUEUE = 'otp-results';

interface Bundle extends AsyncDisposable {
  readonly server: TestRedis;
  readonly redis: RedisConnection;
  readonly queue: Queue;
  publish(sequence: number, more?: { id?: string; details?: string; options?: object }): Promise<void>;
}

async function setup(): Promise<Bundle> {
  const server = await startTestRedis();
  const redis = connectRedis(server.url, 'worker', { onError: () => {} });
  const queue = new Queue(QUEUE, { connection: redis, prefix: resultsPrefix(QUEUE) });
  return {
    server,
    redis,
    queue,
    publish: async (sequence, { id = ID, details, options = {} } = {}) => {
      const event = resultEventOf(recordOf(id, sequence, details), 'otp.verification.settled', 'shop', true);
      // Fast retries, so that nobody waits for them here.
      const backoff = { type: 'fixed', delay: 10 };
      await queue.add(event.type, event, { ...RESULT_JOB_OPTIONS, backoff, jobId: event.id, ...options });
    },
    [Symbol.asyncDispose]: async () => {
      await queue.close();
      redis.disconnect();
      await server[Symbol.asyncDispose]();
    },
  };
}

function recordOf(id: string, sequence: number, details?: string): VerificationRecord {
  const record = readRecord(id, 'demo', {
    state: 'settled',
    sequence: String(sequence),
    operation: 'verify',
    client: 'shop',
    reference: 'TX-1',
    createdAt: '1795291200000',
    updatedAt: '1795291201000',
    expiresAt: '1795291500000',
    head: '{"metadata":{},"amount":null,"plainParams":{}}',
    history: '1795291200000 accepted\n',
    standing: '["accepted","succeeded",null,"none",null,null]',
    ...(details === undefined ? {} : { details }),
  });
  if (!record) throw new Error('it has a state');
  return record;
}

/** A consumer that notes what it handles. */
function consume(world: Bundle, more: Partial<ResultsConsumerOptions> = {}) {
  const handled: ResultEvent[] = [];
  const errors: Error[] = [];
  const consumer = createResultsConsumer({
    redis: world.server.url,
    handler: async (result) => {
      handled.push(result);
    },
    onError: (error) => errors.push(error),
    ...more,
  });
  return { consumer, handled, errors, sequences: () => handled.map(({ data }) => data.sequence) };
}

const drained = async (world: Bundle): Promise<boolean> => {
  const counts = await world.queue.getJobCounts('wait', 'active', 'delayed');
  return Object.values(counts).every((count) => count === 0);
};

describe('createResultsConsumer', () => {
  it('hands over each result as it was published', async () => {
    await using world = await setup();
    const { consumer, handled } = consume(world);
    await using _ = consumer;
    await world.publish(1);
    await eventually(() => handled.length === 1);
    expect(handled[0]).toEqual({
      specversion: '1.0',
      id: `${ID}.1`,
      source: '/otp/demo',
      type: 'otp.verification.settled',
      subject: ID,
      time: '2026-11-21T20:00:01.000Z',
      client: 'shop',
      datacontenttype: 'application/json',
      data: expect.objectContaining({ id: ID, provider: 'demo', sequence: 1, final: true, otp: 'accepted' }),
    });
    expect(handled[0]?.data).not.toHaveProperty('history');
  });

  it.each([
    ['retentionMs', Number.POSITIVE_INFINITY],
    ['retentionMs', 2.7 * 24 * 3_600_000],
    ['concurrency', 0],
  ])('refuses a %s of %d at once, with which each result would fail after it was handled', async (name, value) => {
    await using world = await setup();
    expect(() => consume(world, { [name]: value })).toThrow(`${name} must be a positive integer`);
  });

  it('drops repeats and what is older than what was handled', async () => {
    await using world = await setup();
    const { consumer, sequences } = consume(world);
    await using _ = consumer;
    await world.publish(2);
    await eventually(() => sequences().length === 1);
    await eventually(async () => await drained(world));
    for (const sequence of [1, 2, 3]) await world.publish(sequence);
    await eventually(async () => (await drained(world)) && sequences().length >= 2);
    expect(sequences()).toEqual([2, 3]);
    expect(await world.redis.get(`{${QUEUE}}:handled:${ID}`)).toBe('3');
    const ttl = await world.redis.pttl(`{${QUEUE}}:handled:${ID}`);
    expect(ttl).toBeGreaterThan(259_000_000);
    expect(ttl).toBeLessThanOrEqual(259_200_000);
  });

  it('remembers over its own end', async () => {
    await using world = await setup();
    const first = consume(world, { retentionMs: 60_000 });
    await world.publish(1);
    await eventually(() => first.handled.length === 1);
    await first.consumer.close();
    expect(await world.redis.pttl(`{${QUEUE}}:handled:${ID}`)).toBeLessThanOrEqual(60_000);
    await world.publish(1);
    const second = consume(world);
    await using _ = second.consumer;
    await eventually(async () => await drained(world));
    expect(second.handled).toEqual([]);
  });

  it('brings a result again until the handler resolves, and only then counts it as handled', async () => {
    await using world = await setup();
    let tries = 0;
    const { consumer, errors } = consume(world, {
      handler: async () => {
        tries += 1;
        expect(await world.redis.get(`{${QUEUE}}:handled:${ID}`)).toBeNull();
        if (tries < 3) throw new TypeError(`not yet: ${CANARY}`);
      },
    });
    await using _ = consumer;
    await world.publish(1);
    await eventually(async () => (await world.redis.get(`{${QUEUE}}:handled:${ID}`)) === '1');
    expect(tries).toBe(3);
    expect(errors.map(({ message }) => message)).toEqual([`not yet: ${CANARY}`, `not yet: ${CANARY}`]);
  });

  it('leaves a result that no handler could take in the failed set, without the handler’s words', async () => {
    await using world = await setup();
    const { consumer } = consume(world, {
      handler: async () => {
        throw new TypeError(CANARY);
      },
    });
    await using _ = consumer;
    await world.publish(1, { options: { attempts: 2 } });
    await eventually(async () => (await world.queue.getFailedCount()) === 1);
    const [job] = await world.queue.getFailed();
    expect(job).toMatchObject({ id: `${ID}.1`, attemptsMade: 2, failedReason: 'the handler failed: TypeError' });
    expect(JSON.stringify(job)).not.toContain(CANARY);
  });

  it('sets aside what is no result, and goes on', async () => {
    await using world = await setup();
    const { consumer, errors, sequences } = consume(world);
    await using _ = consumer;
    const good = resultEventOf(recordOf(ID, 1), 'otp.verification.settled', 'shop', false);
    const strangers = [{ hello: CANARY }, null, 'text', { ...good, id: 'another.7' }, { ...good, type: CANARY }];
    for (const stranger of strangers) await world.queue.add('strange', stranger, { attempts: 5 });
    await world.publish(1);
    await eventually(async () => (await world.queue.getFailedCount()) === strangers.length);
    await eventually(() => sequences().length === 1);
    for (const job of await world.queue.getFailed()) {
      expect(job.attemptsMade).toBe(1);
      expect(job.failedReason).toMatch(/^this is no result: /);
      expect(job.failedReason).not.toContain(CANARY);
    }
    expect(errors).toHaveLength(strangers.length);
  });

  it('hands a result over again when a consumer died before it had remembered it', async () => {
    await using world = await setup();
    const stalledAfterMs = 400;
    let begun = false;
    const dying = consume(world, {
      stalledAfterMs,
      handler: async () => {
        begun = true;
        await new Promise(() => {}); // it has done its work, and dies before it can say so
      },
    });
    await world.publish(1);
    await eventually(() => begun);
    await dying.consumer.close(true);
    const next = consume(world, { stalledAfterMs });
    await using _ = next.consumer;
    await eventually(() => next.handled.length === 1);
    expect(next.sequences()).toEqual([1]);
  });

  it('handles the revisions of one verification one after the other, those of others side by side', async () => {
    await using world = await setup();
    const running = new Map<string, number>();
    let together = 0;
    let most = 0;
    const ids = [1, 2, 3].map((digit) => `demo_${String(digit).repeat(32)}`);
    for (const sequence of [1, 2, 3]) for (const id of ids) await world.publish(sequence, { id });
    const { consumer } = consume(world, {
      handler: async ({ subject }) => {
        running.set(subject, (running.get(subject) ?? 0) + 1);
        expect(running.get(subject)).toBe(1);
        together += 1;
        most = Math.max(most, together);
        await new Promise((resume) => setTimeout(resume, 20));
        together -= 1;
        running.set(subject, 0);
      },
    });
    await using _ = consumer;
    await eventually(async () => (await drained(world)) && together === 0);
    expect(most).toBeGreaterThan(1);
    expect(await world.queue.getFailedCount()).toBe(0);
  });

  it('opens details with the client’s private key, and hands them over sealed without it', async () => {
    await using world = await setup();
    const keys = await sealingKeys('shop-1');
    const details = await (await Sealer.create(keys)).seal({ token: 'T-1' });
    await world.publish(1, { details });
    const without = consume(world);
    await eventually(() => without.handled.length === 1);
    await without.consumer.close();
    expect(without.handled[0]?.data.details).toBe(details);

    await world.publish(2, { details });
    const opened = consume(world, { openDetailsWith: keys.keys[0] });
    await using _ = opened.consumer;
    await eventually(() => opened.handled.length === 1);
    expect(opened.handled[0]?.data.details).toEqual({ token: 'T-1' });
  });

  it('leaves details that its key does not open in the failed set', async () => {
    await using world = await setup();
    const details = await (await Sealer.create(await sealingKeys('old'))).seal({ token: 'T-1' });
    const { consumer, handled } = consume(world, { openDetailsWith: await sealingKeys('new') });
    await using _ = consumer;
    await world.publish(1, { details, options: { attempts: 2 } });
    await eventually(async () => (await world.queue.getFailedCount()) === 1);
    expect((await world.queue.getFailed())[0]?.failedReason).toBe('no key with kid old');
    expect(handled).toEqual([]);
  });

  it('reads a queue of the client’s own, in a slot of its own', async () => {
    await using world = await setup();
    const name = 'otp-results-shop';
    const own = new Queue(name, { connection: world.redis, prefix: resultsPrefix(name) });
    const { consumer, handled } = consume(world, { queue: name });
    await using _ = consumer;
    await own.add('x', resultEventOf(recordOf(ID, 1), 'otp.verification.settled', 'shop', false), RESULT_JOB_OPTIONS);
    await eventually(() => handled.length === 1);
    await eventually(async () => (await world.redis.get(`{${name}}:handled:${ID}`)) === '1');
    await own.close();
  });

  it('goes on by itself after Redis was away', async () => {
    await using world = await setup();
    const { consumer, sequences } = consume(world);
    await using _ = consumer;
    await world.publish(1);
    await eventually(() => sequences().length === 1);
    await world.server.kill();
    await world.server.start();
    await world.publish(2);
    await eventually(() => sequences().includes(2), 10_000);
  });

  it.each([{ kty: 'OKP' }, { kty: 'OKP', crv: 'X25519', x: 'abc', kid: 'public' }, 'key'])(
    'refuses a key that is no private key of the right kind',
    (openDetailsWith) => {
      const options = { redis: 'redis://127.0.0.1:1', handler: async () => {}, openDetailsWith };
      expect(() => createResultsConsumer(options)).toThrow('openDetailsWith must be a private JWK');
    },
  );
});

describe('resultEventOf', () => {
  it('has details for a client with a results key alone', () => {
    const record = recordOf(ID, 3, 'a.b.c.d.e');
    expect(resultEventOf(record, 'otp.verification.review', 'shop', true).data.details).toBe('a.b.c.d.e');
    expect(resultEventOf(record, 'otp.verification.review', 'shop', false).data).not.toHaveProperty('details');
    expect(() => resultEventOf(record, 'otp.verification.lost', 'shop', false)).toThrow('a result must be one of');
  });
});
