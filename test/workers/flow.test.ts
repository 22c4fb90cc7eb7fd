/** The whole way of a verification, through all five providers of the sandbox, judged by the ledger of what they saw. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { VerificationResource } from '../../src/producers/resource.ts';
import {
  type Sandbox,
  type SandboxProvider,
  sandboxProviders,
  startSandbox,
  type TransactionView,
} from '../../src/sandbox/index.ts';
import { bodyFor, type Pipeline, startPipeline } from '../support/pipeline.ts';
import { expectSetsToAgree, journalOf } from './support.ts';

const MAX_ATTEMPTS = 2;
/** So long that a busy machine does not turn an answer into a lost one. */
const TIMEOUT_MS = 5_000;
let sandbox: Sandbox;
let pipeline: Pipeline;

beforeAll(async () => {
  sandbox = await startSandbox({ settleAfterMs: 50 });
  pipeline = await startPipeline(
    Object.fromEntries(
      sandboxProviders.map((name) => [
        name,
        { ...sandbox.providers[name], settings: { maxAttempts: MAX_ATTEMPTS, timeoutMs: TIMEOUT_MS } },
      ]),
    ),
  );
});

afterAll(async () => {
  for (const partition of sandboxProviders) await expectSetsToAgree(pipeline.redis, partition);
  await pipeline[Symbol.asyncDispose]();
  await sandbox.close();
});

interface Case {
  readonly id: string;
  readonly provider: SandboxProvider;
  /** What the provider calls the transaction. */
  readonly reference: string;
  readonly params: Record<string, unknown>;
}

const REFERENCE_PARAM: Record<SandboxProvider, string> = {
  'hello-clever': 'uuid',
  'lipa-later': 'phone_number',
  ayoconnect: 'originalReferenceNo',
  beqelal: 'reference',
  cepta: 'transactionRef',
};
let phones = 10_000_000;

async function enqueue(
  provider: SandboxProvider,
  otp: string,
  given: { readonly params?: Record<string, unknown>; readonly [field: string]: unknown } = {},
): Promise<Case> {
  phones += 1;
  const { params: repeated, ...fields } = given;
  const body = bodyFor(
    provider,
    otp,
    repeated ?? (provider === 'lipa-later' ? { phone_number: `+2547${phones}` } : {}),
  );
  const params = body.params as Record<string, unknown>;
  const id = await pipeline.enqueue({ ...body, ...fields });
  return { id, provider, reference: String(params[REFERENCE_PARAM[provider]]), params };
}

const seenBy = ({ provider, reference }: Case): TransactionView => sandbox.ledger.transaction(provider, reference);

/** The final resource; its results are complete, and its words are those that the ledger demands where it is certain. */
async function ended(one: Case): Promise<VerificationResource> {
  const resource = await pipeline.final(one.id, 18_000);
  await resultsOf(resource);
  const expected = sandbox.ledger.expected(one.provider, one.reference);
  if (expected.certain && resource.otp !== 'not_submitted') {
    expect({ otp: resource.otp, transaction: resource.transaction }, expected.because).toEqual({
      otp: expected.otp,
      transaction: expected.transaction,
    });
  }
  expect(seenBy(one).charges).toBeLessThanOrEqual(1);
  return resource;
}

/** Every revision was published, none beyond, and one of them is final when the verification is. */
async function resultsOf({ id, sequence, final }: VerificationResource): Promise<Result[]> {
  const numbers = Array.from({ length: sequence }, (_, index) => index + 1);
  const results = await Promise.all(
    numbers.map(async (number) => await vi.waitUntil(async () => await pipeline.result(`${id}.${number}`), WITHIN_5_S)),
  );
  expect(results.map(({ data }) => data.sequence)).toEqual(numbers);
  expect(results.map(({ data }) => data.final)).toEqual(numbers.map((number) => final && number === sequence));
  expect(await pipeline.result(`${id}.${sequence + 1}`)).toBeNull();
  return results;
}

type Result = NonNullable<Awaited<ReturnType<Pipeline['result']>>>;
const WITHIN_5_S = { timeout: 5_000, interval: 10 };

const all = async <T>(
  work: (provider: SandboxProvider) => Promise<T>,
  providers: readonly SandboxProvider[] = sandboxProviders,
): Promise<T[]> => await Promise.all(providers.map(work));
const eventsOf = (name: string) => pipeline.seen.filter((event) => event.name === name).map(({ payload }) => payload);
const PAYING: readonly SandboxProvider[] = ['hello-clever', 'ayoconnect', 'beqelal', 'cepta'];
const ASKED: readonly SandboxProvider[] = ['hello-clever', 'ayoconnect', 'cepta'];
const ofMoney = (provider: SandboxProvider, otherwise: string): string =>
  provider === 'lipa-later' ? 'none' : otherwise;

describe('a right code', () => {
  test.each(sandboxProviders)('at %s is accepted, paid once, received once', async (provider) => {
    const one = await enqueue(provider, '123456');
    const resource = await ended(one);
    expect(resource).toMatchObject({
      state: 'settled',
      otp: 'accepted',
      transaction: ofMoney(provider, 'succeeded'),
      nextStep: 'none',
      needsReview: false,
    });
    expect(seenBy(one)).toMatchObject({
      codesReceived: ['123456'],
      requests: 1,
      charges: provider === 'lipa-later' ? 0 : 1,
    });
    const types = (await resultsOf(resource)).map(({ type }) => type.split('.').at(-1)).sort();
    expect(types).toEqual(ASKED.includes(provider) ? ['awaiting', 'settled'] : ['settled']);
  });

  test('keeps its leading zero', async () => {
    await all(async (provider) => {
      const one = await enqueue(provider, '012345');
      await ended(one);
      expect(seenBy(one).codesReceived).toEqual(['012345']);
    });
  });

  test('of sixty at once is received once each', async () => {
    const cases = await Promise.all(
      Array.from({ length: 60 }, (_, index) => enqueue(sandboxProviders[index % 5] as SandboxProvider, '123456')),
    );
    for (const one of cases) {
      expect(await ended(one)).toMatchObject({ otp: 'accepted' });
      expect(seenBy(one)).toMatchObject({ codesReceived: ['123456'], requests: 1 });
    }
  });
});

describe('a refused code', () => {
  test.each(sandboxProviders)(
    'at %s is final, and another one is taken until the budget is spent',
    async (provider) => {
      const first = await enqueue(provider, '400001');
      expect(await ended(first)).toMatchObject({
        otp: 'rejected',
        transaction: ofMoney(provider, 'pending'),
        attemptsRemaining: 1,
      });

      const again = await enqueue(provider, '400001', { params: first.params });
      expect(await ended(again)).toMatchObject({ otp: 'not_submitted', reason: 'already_used' });

      const other =
        provider === 'cepta'
          ? '400007'
          : provider === 'hello-clever' || provider === 'ayoconnect'
            ? '400002'
            : '400003';
      const second = await enqueue(provider, other, { params: first.params });
      expect(await ended(second)).toMatchObject({ otp: 'rejected', attemptsRemaining: 0 });

      const third = await enqueue(provider, '123456', { params: first.params });
      expect(await ended(third)).toMatchObject({
        otp: 'not_submitted',
        reason: 'budget_spent',
        nextStep: provider === 'lipa-later' ? 'request_new_code' : 'new_transaction',
      });
      expect(seenBy(first)).toMatchObject({ codesReceived: ['400001', other], requests: 2, charges: 0 });
    },
  );

  test('at LipaLater is forgotten once a new one has been sent', async () => {
    const first = await enqueue('lipa-later', '400001');
    await ended(first);
    await ended(await enqueue('lipa-later', '400003', { params: first.params }));
    const { item_value: _, ...sendParams } = first.params;
    const body = { ...bodyFor('lipa-later', ''), otp: undefined, operation: 'send', params: sendParams };
    const sending = await pipeline.final(await pipeline.enqueue(JSON.parse(JSON.stringify(body))));
    expect(sending).toMatchObject({ operation: 'send', otp: 'accepted', transaction: 'none', attemptsRemaining: null });
    expect(await ended(await enqueue('lipa-later', '123456', { params: first.params }))).toMatchObject({
      otp: 'accepted',
    });
  });
});

describe('a code that is dead', () => {
  test.each([
    ['a second ago', () => new Date(Date.now() - 1_000)],
    ['at the first moment of Unix time', () => new Date(0)],
  ])('since %s is never sent', async (_, deadline) => {
    const expiresAt = deadline().toISOString();
    await all(async (provider) => {
      const one = await enqueue(provider, '123456', { expiresAt });
      expect(await ended(one)).toMatchObject({
        otp: 'not_submitted',
        transaction: ofMoney(provider, 'pending'),
        reason: 'deadline_passed',
        nextStep: 'request_new_code',
        sequence: 1,
      });
      expect(seenBy(one)).toMatchObject({ requests: 0, state: 'untouched' });
    });
  });

  test('while the queue is paused is settled at its deadline all the same', async () => {
    const queue = pipeline.queue('cepta');
    await queue.pause();
    try {
      const one = await enqueue('cepta', '123456', { expiresAt: new Date(Date.now() + 300).toISOString() });
      expect(await ended(one)).toMatchObject({ otp: 'not_submitted', reason: 'deadline_passed' });
      expect(await queue.isPaused()).toBe(true);
      await queue.resume();
      expect(await ended(await enqueue('cepta', '123456'))).toMatchObject({ otp: 'accepted' });
      expect(seenBy(one).requests).toBe(0);
    } finally {
      await queue.resume();
    }
  });
});

describe('a provider that is down', () => {
  test('and comes back receives the code once', async () => {
    await all(async (provider) => await sandbox.takeDown(provider));
    const cases = await all(async (provider) => await enqueue(provider, '123456'));
    try {
      for (const { id } of cases) {
        await pipeline.until(id, ({ history }) => history?.some(({ event }) => event === 'not_sent') ?? false);
        expect(await pipeline.read(id)).toMatchObject({ sequence: 0, otp: null, transaction: null });
      }
    } finally {
      await all(async (provider) => await sandbox.bringUp(provider));
    }
    for (const one of cases) {
      expect(await ended(one)).toMatchObject({ otp: 'accepted', attemptsRemaining: MAX_ATTEMPTS - 1 });
      expect(seenBy(one)).toMatchObject({ codesReceived: ['123456'], requests: 1 });
    }
  });

  test('for longer than the code lives is told as unavailable, before the deadline and without a submission', async () => {
    await all(async (provider) => await sandbox.takeDown(provider));
    try {
      const expiresAt = new Date(Date.now() + 700).toISOString();
      await all(async (provider) => {
        const one = await enqueue(provider, '123456', { expiresAt });
        const resource = await ended(one);
        expect(resource).toMatchObject({ otp: 'not_submitted', transaction: ofMoney(provider, 'pending') });
        expect(['provider_unavailable', 'deadline_passed']).toContain(resource.reason);
        expect(seenBy(one).requests).toBe(0);
      });
    } finally {
      await all(async (provider) => await sandbox.bringUp(provider));
    }
  });
});

describe('a refusal before the business layer', () => {
  test('429 with Retry-After once is waited for, slows the partition, and the code is received once', async () => {
    await all(
      async (provider) => {
        const startedAt = Date.now();
        const one = await enqueue(provider, '600003');
        expect(await ended(one)).toMatchObject({ otp: 'accepted', attemptsRemaining: MAX_ATTEMPTS - 1 });
        expect(Date.now() - startedAt).toBeGreaterThanOrEqual(1_000);
        expect(seenBy(one)).toMatchObject({ codesReceived: ['600003'], requests: 2 });
        expect(eventsOf('partition:slowed')).toContainEqual({
          partition: provider,
          queue: `otp-${provider}`,
          forMs: 1_000,
        });
      },
      ['lipa-later', 'ayoconnect', 'cepta'],
    );
  });

  test('429 that the provider does not document is unknown and never sent again', async () => {
    await all(
      async (provider) => {
        const one = await enqueue(provider, '600003');
        const resource = await pipeline.until(one.id, ({ state }) => state === 'awaiting');
        expect(resource).toMatchObject({
          otp: 'unknown',
          transaction: 'unknown',
          reason: 'unexpected_answer',
          nextStep: 'wait',
        });
        expect(seenBy(one)).toMatchObject({ requests: 1 });
      },
      ['hello-clever', 'beqelal'],
    );
  });

  test.each<[SandboxProvider, string, string]>([
    ['lipa-later', '600004', 'token'],
    ['ayoconnect', '600004', 'b2bToken'],
    ['ayoconnect', '600005', 'b2b2cToken'],
  ])('of a token at %s (%s) is answered with a new %s', async (provider, otp, call) => {
    const issued = () =>
      sandbox.ledger.find({ provider }).filter(({ event, call: of }) => event === 'token_issued' && of === call).length;
    const before = issued();
    const one = await enqueue(provider, otp);
    expect(await ended(one)).toMatchObject({ otp: 'accepted', transaction: ofMoney(provider, 'succeeded') });
    expect(seenBy(one)).toMatchObject({ codesReceived: [otp], requests: 2 });
    expect(issued() - before).toBeGreaterThanOrEqual(1);
  });

  test('of credentials, every time, ends without a code received, after one further submission at most', async () => {
    await all(async (provider) => {
      const one = await enqueue(provider, '600001');
      expect(await ended(one)).toMatchObject({
        otp: 'not_submitted',
        transaction: ofMoney(provider, 'pending'),
        reason: 'misconfigured',
        nextStep: 'contact_support',
      });
      expect(seenBy(one)).toMatchObject({ codesReceived: [], charges: 0 });
      expect(seenBy(one).requests).toBeLessThanOrEqual(2);
    });
  });
});

describe('a lost answer', () => {
  test.each([
    ['800001', 'a gateway says 502'],
    ['800002', 'the connection is reset'],
    ['800003', 'nothing comes'],
    ['800004', 'the answer breaks off'],
    ['800005', 'the answer is half a JSON'],
    ['800006', 'the answer is a strange word'],
  ])('to %s (%s) never sends the code again; the inquiry finds the one payment', async (otp) => {
    await all(async (provider) => {
      const one = await enqueue(
        provider,
        otp,
        PAYING.includes(provider) ? { amount: { value: '100.0', currency: currencyOf[provider] } } : {},
      );
      if (provider === 'beqelal') {
        const resource = await pipeline.until(one.id, ({ state }) => state === 'awaiting');
        expect(resource).toMatchObject({ otp: 'unknown', transaction: 'unknown', final: false });
        const again = await enqueue(provider, '123456', { params: one.params });
        expect(await ended(again)).toMatchObject({
          reason: 'attempt_in_flight',
          transaction: 'unknown',
          nextStep: 'wait',
        });
      } else if (provider === 'lipa-later') {
        expect(await ended(one)).toMatchObject({
          otp: 'unknown',
          transaction: 'none',
          nextStep: 'request_new_code',
          sequence: 1,
        });
      } else {
        expect(await ended(one)).toMatchObject({
          otp: 'accepted',
          transaction: 'succeeded',
          sequence: 2,
          reason: null,
        });
      }
      expect(seenBy(one)).toMatchObject({
        codesReceived: [otp],
        requests: 1,
        charges: provider === 'lipa-later' ? 0 : 1,
      });
    });
  });
});

const currencyOf: Record<SandboxProvider, string> = {
  'hello-clever': 'GHS',
  'lipa-later': 'KES',
  ayoconnect: 'IDR',
  beqelal: 'ETB',
  cepta: 'NGN',
};

describe('an accepted code', () => {
  test('whose payment fails ends as failed, after two questions', async () => {
    await all(async (provider) => {
      const one = await enqueue(provider, '500001');
      expect(await ended(one)).toMatchObject({
        otp: 'accepted',
        transaction: 'failed',
        reason: 'declined',
        nextStep: 'new_transaction',
      });
      expect(seenBy(one).inquiries).toBeGreaterThanOrEqual(2);
      expect(seenBy(one)).toMatchObject({ charges: 0, codesReceived: ['500001'] });
    }, ASKED);
  });

  test('whose payment is of another amount is for a person, once', async () => {
    await all(async (provider) => {
      const one = await enqueue(provider, '500003', { amount: { value: '100', currency: currencyOf[provider] } });
      const resource = await pipeline.until(one.id, ({ needsReview }) => needsReview);
      expect(resource).toMatchObject({
        state: 'awaiting',
        final: false,
        otp: 'unknown',
        transaction: 'unknown',
        reason: 'amount_mismatch',
        nextStep: 'contact_support',
      });
      const results = await resultsOf(resource);
      expect(results.filter(({ type }) => type === 'otp.verification.review')).toHaveLength(1);
    }, PAYING);
  });

  test('whose first question fails or is throttled is asked about again', async () => {
    await all(async (provider) => {
      for (const otp of ['500006', '500007']) {
        const one = await enqueue(provider, otp);
        expect(await ended(one)).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
        expect(seenBy(one)).toMatchObject({ charges: 1, codesReceived: [otp] });
      }
    }, ASKED);
  });
});

describe('a queue that anybody may write into', () => {
  test('sets aside what is not ours, visibly, and goes on', async () => {
    const queue = pipeline.queue('beqelal');
    const malformed = [
      {},
      { v: 1 },
      { v: 1, id: 7 },
      { v: 1, id: 'beqelal' },
      { v: 1, id: `beqelal_${'0'.repeat(31)}` },
      { v: 1, id: `cepta_${'0'.repeat(32)}` },
      { v: 2, id: `beqelal_${'0'.repeat(32)}` },
      { v: 1, id: `beqelal_${'0'.repeat(32)}`, otp: '424242' },
      ['v', 'id'],
      'text',
      7,
      null,
    ];
    const names = ['verify', '__default__', 'otp:beqelal', 'constructor', 'repeat'];
    for (const [index, data] of malformed.entries()) {
      await queue.add(names[index % names.length] as string, data as never, {
        attempts: 5,
        jobId: `stranger-${index}`,
      });
    }
    const one = await enqueue('beqelal', '123456');
    expect(await ended(one)).toMatchObject({ otp: 'accepted' });
    await expect.poll(async () => await queue.getFailedCount()).toBe(malformed.length);
    const events = eventsOf('job:malformed') as { queue: string; jobId: string; fault: string }[];
    expect(events).toHaveLength(malformed.length);
    expect(new Set(events.map(({ jobId }) => jobId)).size).toBe(malformed.length);
    expect(JSON.stringify(events)).not.toContain('424242');
    for (const job of await queue.getFailed())
      expect(job).toMatchObject({ attemptsMade: 1, failedReason: expect.stringMatching(/^not a job of this queue/) });
  });

  test('finishes a job whose verification nobody has journaled', async () => {
    const queue = pipeline.queue('cepta');
    const id = `cepta_${randomUUID().replaceAll('-', '')}`;
    await queue.add('verify', { v: 1, id }, { jobId: id, removeOnComplete: true });
    await expect.poll(async () => await queue.getJob(id)).toBeUndefined();
  });

  test('submits once, however often and under whatever names the job is added', async () => {
    await all(async (provider) => {
      const queue = pipeline.queue(provider);
      const one = await enqueue(provider, '123456');
      const data = { v: 1, id: one.id } as const;
      await Promise.all(
        Array.from({ length: 10 }, (_, index) =>
          queue.add(`copy ${index}`, data, { jobId: `copy-${index}-of-${one.id}` }),
        ),
      );
      expect(await ended(one)).toMatchObject({ otp: 'accepted' });
      await queue.add('verify', data, { jobId: one.id });
      await queue.add('verify', data, { priority: 1 });
      await expect
        .poll(async () => await queue.getJobCountByTypes('waiting', 'active', 'prioritized', 'delayed'))
        .toBe(0);
      expect(seenBy(one)).toMatchObject({ codesReceived: ['123456'], requests: 1 });
      expect((await pipeline.read(one.id)).history?.filter(({ event }) => event === 'begun')).toHaveLength(1);
    });
    expect(eventsOf('resend:prevented').length).toBeGreaterThan(0);
  });

  test('whose job is lost with everything else is filled again, and every code is received once', async () => {
    const queue = pipeline.queue('hello-clever');
    await queue.pause();
    const cases = await Promise.all(Array.from({ length: 5 }, () => enqueue('hello-clever', '123456')));
    await queue.obliterate({ force: true });
    expect(await queue.getJobCountByTypes('waiting', 'prioritized', 'delayed', 'active')).toBe(0);
    await queue.resume();
    const journal = journalOf(pipeline);
    const { due } = pipeline.workers.get('hello-clever')?.journal.keys ?? journal.keys;
    for (const { id } of cases) await pipeline.redis.zadd(due, 'XX', 1, id); // what five seconds would do
    for (const one of cases) {
      expect(await ended(one)).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
      expect(seenBy(one)).toMatchObject({ codesReceived: ['123456'], requests: 1, charges: 1 });
    }
    expect(eventsOf('job:recreated').length).toBeGreaterThanOrEqual(5);
  });
});

describe('a worker that is gone', () => {
  test('in the middle of an attempt leaves it unknown; nobody sends the code again', async () => {
    const queue = pipeline.queue('cepta');
    await queue.pause();
    const one = await enqueue('cepta', '123456');
    const gone = journalOf(pipeline, {}, 'gone');
    expect((await gone.begin(one.id)).is).toBe('begun');
    await pipeline.redis.del(gone.keys.heartbeat('gone'));
    await pipeline.redis.zadd(gone.keys.due, 'XX', 1, one.id); // what the heartbeat's life would do
    await queue.resume();
    const resource = await pipeline.until(one.id, ({ state }) => state === 'awaiting');
    expect(resource).toMatchObject({ otp: 'unknown', transaction: 'unknown', reason: 'no_answer', nextStep: 'wait' });
    await expect
      .poll(async () => await queue.getJobCountByTypes('waiting', 'prioritized', 'active', 'delayed'))
      .toBe(0);
    expect(seenBy(one).codesReceived).toEqual([]);
  });

  test('in good order while fifty are under way costs none of them', async () => {
    const cases = await Promise.all(
      Array.from({ length: 50 }, (_, index) => enqueue(sandboxProviders[index % 5] as SandboxProvider, '123456')),
    );
    await pipeline.restartWorkers();
    for (const one of cases) {
      expect(await ended(one)).toMatchObject({ otp: 'accepted' });
      expect(seenBy(one)).toMatchObject({ codesReceived: ['123456'], requests: 1 });
    }
  });
});

describe('over all of it', () => {
  test('no code left late, no machinery failed, and each code was received once by its transaction', () => {
    expect(eventsOf('send:late')).toEqual([]);
    expect(eventsOf('machinery:failed')).toEqual([]);
    expect(eventsOf('proof:contradicted')).toEqual([]);
    for (const { codesReceived, charges, reference } of sandbox.ledger.transactions()) {
      expect(charges, reference).toBeLessThanOrEqual(1);
      expect(new Set(codesReceived).size, reference).toBe(codesReceived.length);
    }
  });
});
