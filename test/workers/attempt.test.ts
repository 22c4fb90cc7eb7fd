/** The spine on a real journal and a real wire, without a queue: what it must not do when things overlap or throw. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EventBus } from '../../src/events.ts';
import { Opener, Sealer } from '../../src/producers/sealing.ts';
import { cepta } from '../../src/providers/cepta.ts';
import type { BoundOperation, BoundProvider } from '../../src/providers/provider.ts';
import { type AttemptDependencies, attempt, inquire } from '../../src/workers/attempt.ts';
import type { Journal } from '../../src/workers/journal.ts';
import { Sessions, type Tokens } from '../../src/workers/sessions.ts';
import { Transport } from '../../src/workers/transport.ts';
import { bodyFor, type Pipeline, startPipeline } from '../support/pipeline.ts';
import { type Behaviour, behaviours, type ProviderServer, startProviderServer } from '../support/provider-server.ts';
import { journalOf } from './support.ts';

const ACCEPTED = { status: true, data: { responseCode: '00' } };
const WRONG_CODE = { status: false, data: { responseCode: '01', errors: [{ errorCode: 'INVALID_OTP' }] } };

let pipeline: Pipeline;
let server: ProviderServer;
let bound: BoundProvider;

beforeAll(async () => {
  server = await startProviderServer(behaviours.isSilent);
  const entry = { baseUrl: server.url, credentials: { secretKey: 'key' } };
  pipeline = await startPipeline({ cepta: entry }, { workers: false });
  bound = cepta.bind({
    baseUrl: server.url,
    credentials: cepta.credentials.parse(entry.credentials),
    options: cepta.options.parse({}),
  });
});

afterAll(async () => {
  await pipeline[Symbol.asyncDispose]();
  await server.close();
});

interface Spine extends AsyncDisposable {
  readonly deps: AttemptDependencies;
  readonly journal: Journal;
  readonly seen: { name: string; payload: unknown }[];
}

async function startSpine(given: Partial<AttemptDependencies> = {}, timeoutMs = 2_000): Promise<Spine> {
  const events = new EventBus();
  const seen: { name: string; payload: unknown }[] = [];
  const emit = events.emit.bind(events);
  events.emit = (name, payload) => {
    seen.push({ name, payload });
    emit(name, payload);
  };
  const sealer = await Sealer.create(pipeline.keySet);
  const opener = await Opener.create(pipeline.keySet);
  const transport = new Transport({ baseUrl: server.url, connections: 10, timeoutMs });
  const journal = journalOf(pipeline, { timeoutMs }, randomUUID(), events);
  const provider = given.provider ?? bound;
  const deps: AttemptDependencies = {
    partition: 'cepta',
    provider,
    journal,
    transport,
    sessions: new Sessions({
      partition: 'cepta',
      account: 'test',
      provider,
      transport,
      redis: pipeline.redis,
      keys: journal.keys,
      sealer,
      opener,
      events,
    }),
    opener,
    events,
    sealDetails: async (_, details) => await sealer.seal(details),
    slowDown: async () => {},
    published: () => {},
    ...given,
  };
  return { deps, journal, seen, [Symbol.asyncDispose]: () => transport.close() };
}

/** The same provider with one thing about its verify changed. */
function withVerify(change: (verify: BoundOperation) => Partial<BoundOperation>): BoundProvider {
  const verify = bound.operations.verify as BoundOperation;
  return { ...bound, operations: { ...bound.operations, verify: { ...verify, ...change(verify) } } };
}

/** Needs a token before each attempt, which `tokens` gives. */
function withTokens(tokens: () => Promise<Tokens>): Pick<AttemptDependencies, 'provider' | 'sessions'> {
  const provider: BoundProvider = {
    ...withVerify(() => ({ tokens: () => ['token'] })),
    tokens: {
      token: { needs: [], cacheKey: () => '', buildRequest: () => ({}) as never, interpret: () => ({}) as never },
    },
  };
  return { provider, sessions: { tokens, drop: async () => {} } as unknown as Sessions };
}

const unavailable: Tokens = { kind: 'unavailable', code: 'TOKEN_ECONNREFUSED', remediable: true };
const enqueue = async (): Promise<string> => await pipeline.enqueue(bodyFor('cepta', '123456'));
const held: Behaviour = () => {};

describe('one attempt', () => {
  test('submits the code, reads the answer and says what comes next', async () => {
    await using spine = await startSpine();
    server.behave(behaviours.saysJson(200, WRONG_CODE));
    const id = await enqueue();
    const before = server.requests.length;
    expect(await attempt(id, spine.deps)).toEqual({ do: 'finish' });
    expect(await pipeline.read(id)).toMatchObject({ state: 'settled', otp: 'rejected', reason: 'wrong_code' });
    expect(server.requests.slice(before).map(({ body }) => JSON.parse(body).otp)).toEqual(['123456']);
  });

  test('of an accepted code schedules its inquiry', async () => {
    await using spine = await startSpine();
    server.behave(behaviours.saysJson(200, ACCEPTED));
    const id = await enqueue();
    expect(await attempt(id, spine.deps)).toMatchObject({ do: 'inquire' });
    expect(await attempt(id, spine.deps)).toMatchObject({ do: 'inquire' });
    expect(spine.seen).toContainEqual({
      name: 'resend:prevented',
      payload: { id, partition: 'cepta', because: 'awaiting' },
    });
  });

  test('of an id that nobody has journaled does nothing', async () => {
    await using spine = await startSpine();
    expect(await attempt(`cepta_${'0'.repeat(32)}`, spine.deps)).toEqual({ do: 'finish' });
  });

  test('run five times at once submits once', async () => {
    await using spine = await startSpine();
    const before = server.requests.length;
    server.behave((socket, request) => setTimeout(() => behaviours.saysJson(200, WRONG_CODE)(socket, request), 30));
    const id = await enqueue();
    await Promise.all(Array.from({ length: 5 }, () => attempt(id, spine.deps)));
    expect(server.requests.length - before).toBe(1);
    expect(await pipeline.read(id)).toMatchObject({ state: 'settled', history: expect.any(Array) });
  });
});

describe('a second run of the same job', () => {
  test('that finds no token takes nothing back from a submission on its way', async () => {
    await using other = await startSpine();
    server.behave(held);
    const before = server.requests.length;
    const id = await enqueue();
    let inFlight: Promise<unknown> = Promise.resolve();
    // Between the look at the queued record and the verdict, the other run begins and submits.
    await using spine = await startSpine({
      ...withTokens(async () => unavailable),
      journal: withRead(journalOf(pipeline), async () => {
        inFlight = attempt(id, other.deps);
        await server.arrived(before + 1);
      }),
    });
    expect(await attempt(id, spine.deps)).toEqual({ do: 'finish' });
    expect(await pipeline.read(id)).toMatchObject({ state: 'sending' });
    expect(await attempt(id, other.deps)).toEqual({ do: 'finish' });
    expect(server.requests.length - before).toBe(1);
    for (const socket of server.sockets) socket.write('HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n');
    await inFlight;
    expect(await pipeline.read(id)).toMatchObject({ state: 'awaiting', otp: 'unknown' });
  });

  test('that finds no token takes nothing back from a code accepted meanwhile', async () => {
    await using other = await startSpine();
    server.behave(behaviours.saysJson(200, ACCEPTED));
    const id = await enqueue();
    await using spine = await startSpine({
      ...withTokens(async () => unavailable),
      journal: withRead(journalOf(pipeline), async () => void (await attempt(id, other.deps))),
    });
    await attempt(id, spine.deps);
    expect(await pipeline.read(id)).toMatchObject({ state: 'awaiting', otp: 'accepted', transaction: 'pending' });
  });

  test('that finds no token leaves what is queued to wait', async () => {
    await using spine = await startSpine(withTokens(async () => unavailable));
    const id = await enqueue();
    expect(await attempt(id, spine.deps)).toMatchObject({ do: 'later' });
    expect(await pipeline.read(id)).toMatchObject({ state: 'queued', sequence: 0 });
  });

  test('whose token is refused for good settles what is queued', async () => {
    await using spine = await startSpine(withTokens(async () => ({ ...unavailable, remediable: false })));
    const id = await enqueue();
    expect(await attempt(id, spine.deps)).toEqual({ do: 'finish' });
    expect(await pipeline.read(id)).toMatchObject({ state: 'settled', otp: 'not_submitted', reason: 'misconfigured' });
  });
});

describe('what throws', () => {
  test('while the request is built leaves nothing behind: not submitted, nothing on the wire', async () => {
    const fail = (): never => {
      throw new Error('no');
    };
    await using spine = await startSpine({ provider: withVerify(() => ({ buildRequest: fail })) });
    const before = server.requests.length;
    const id = await enqueue();
    expect(await attempt(id, spine.deps)).toEqual({ do: 'finish' });
    expect(await pipeline.read(id)).toMatchObject({
      otp: 'not_submitted',
      reason: 'misconfigured',
      transaction: 'pending',
    });
    expect(server.requests.length).toBe(before);
  });

  test('while the answer is read makes it unknown, and the spine goes on', async () => {
    const fail = (): never => {
      throw new Error('no');
    };
    await using spine = await startSpine({ provider: withVerify(() => ({ interpret: fail })) });
    server.behave(behaviours.saysJson(200, ACCEPTED));
    const id = await enqueue();
    expect(await attempt(id, spine.deps)).toMatchObject({ do: 'inquire' });
    expect(await pipeline.read(id)).toMatchObject({ state: 'awaiting', otp: 'unknown', reason: 'unexpected_answer' });
  });

  test('while an inquiry is read proves nothing, and it is asked again', async () => {
    const inquiry = {
      ...(bound.inquiry as NonNullable<BoundProvider['inquiry']>),
      interpret: (): never => {
        throw new Error('no');
      },
    };
    await using spine = await startSpine({ provider: { ...bound, inquiry } });
    server.behave(behaviours.saysJson(200, ACCEPTED));
    const id = await enqueue();
    await attempt(id, spine.deps);
    expect(await inquire(id, 60_000, spine.deps)).toMatchObject({ do: 'inquire' });
    expect(await pipeline.read(id)).toMatchObject({ state: 'awaiting', otp: 'accepted' });
  });

  test('while the details are sealed does not cost the answer', async () => {
    await using spine = await startSpine({
      sealDetails: async () => {
        throw new Error('no key');
      },
    });
    const paidToken = { status: true, data: { responseCode: '00', token: 'T' } };
    server.behave(behaviours.saysJson(200, paidToken));
    const id = await enqueue();
    expect(await attempt(id, spine.deps)).toMatchObject({ do: 'inquire' });
    expect(await pipeline.read(id)).toMatchObject({ state: 'awaiting', otp: 'accepted', sequence: 1 });
    expect(spine.seen.map(({ name }) => name)).toContain('machinery:failed');
  });
});

describe('a code that nobody here can open', () => {
  test('waits for the worker that can, until its deadline', async () => {
    const { generateSealingKey } = await import('../../src/producers/sealing.ts');
    const opener = await Opener.create({ keys: [await generateSealingKey('another')] } as never);
    await using spine = await startSpine({ opener });
    const before = server.requests.length;
    const id = await enqueue();
    expect(await attempt(id, spine.deps)).toMatchObject({ do: 'later' });
    expect(await pipeline.read(id)).toMatchObject({ state: 'queued' });
    expect(spine.seen.map(({ name }) => name)).toContain('seal:unopened');
    expect(server.requests.length).toBe(before);
  });

  test('because it was sealed for another verification is never sent', async () => {
    await using spine = await startSpine();
    const before = server.requests.length;
    const [mine, other] = [await enqueue(), await enqueue()];
    const stolen = await pipeline.redis.hget(spine.journal.keys.record(other), 'code');
    await pipeline.redis.hset(spine.journal.keys.record(mine), 'code', stolen ?? '');
    await attempt(mine, spine.deps);
    expect(server.requests.length).toBe(before);
    expect(await pipeline.read(mine)).toMatchObject({ state: 'queued' });
  });
});

/** The same journal, whose `read` gives what it read before `meanwhile` happened. */
function withRead(journal: Journal, meanwhile: () => Promise<void>): Journal {
  const read = journal.read.bind(journal);
  journal.read = async (id) => {
    const record = await read(id);
    await meanwhile();
    return record;
  };
  return journal;
}
