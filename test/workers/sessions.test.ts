/** Provider tokens: how often one is asked for on the wire, who shares it, and how it lies in Redis. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { EventBus } from '../../src/events.ts';
import { partitionKeys } from '../../src/producers/job.ts';
import { generateSealingKey, Opener, Sealer, type SealingKeySet } from '../../src/producers/sealing.ts';
import { ayoconnect } from '../../src/providers/ayoconnect.ts';
import { lipaLater } from '../../src/providers/lipa-later.ts';
import type { BoundProvider, TokenCall } from '../../src/providers/provider.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { freePort } from '../../src/redis/process.ts';
import { type SessionDependencies, Sessions, type Tokens } from '../../src/workers/sessions.ts';
import { Transport } from '../../src/workers/transport.ts';
import { bind, loadFixture } from '../providers/fixture.ts';
import {
  answer,
  type Behaviour,
  behaviours,
  type ProviderServer,
  startProviderServer,
} from '../support/provider-server.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

const keys = partitionKeys('lipa-later');
let redisServer: TestRedis;
let redis: RedisConnection;
let keySet: SealingKeySet;
let server: ProviderServer;
const open: Transport[] = [];

/** `token-1`, `token-2` … */
const issuesTokens =
  (expiresIn: number): Behaviour =>
  (socket) =>
    void socket.write(
      answer(200, JSON.stringify({ access_token: `token-${server.requests.length}`, expires_in: expiresIn })),
    );

beforeAll(async () => {
  redisServer = await startTestRedis();
  redis = connectRedis(redisServer.url, 'worker', { onError: () => {} });
  keySet = { keys: [await generateSealingKey('one')] } as SealingKeySet;
});

beforeEach(async () => {
  server = await startProviderServer(issuesTokens(3_600));
});

afterEach(async () => {
  vi.useRealTimers();
  await Promise.all(open.splice(0).map((transport) => transport.close()));
  await server.close();
  await redis.flushall();
});

afterAll(async () => {
  redis.disconnect();
  await redisServer[Symbol.asyncDispose]();
});

function boundTo(baseUrl: string): BoundProvider {
  return lipaLater.bind({
    baseUrl,
    credentials: lipaLater.credentials.parse({ clientId: 'client', clientSecret: 'the secret of the client' }),
    options: lipaLater.options.parse({}),
  });
}

async function sessionsOf(given: Partial<SessionDependencies> = {}, baseUrl = server.url): Promise<Sessions> {
  const transport = new Transport({ baseUrl, connections: 5, timeoutMs: 2_000 });
  open.push(transport);
  return new Sessions({
    partition: 'lipa-later',
    account: 'account',
    provider: boundTo(baseUrl),
    transport,
    redis,
    keys,
    sealer: await Sealer.create(keySet),
    opener: await Opener.create(keySet),
    events: new EventBus(),
    ...given,
  });
}

const ask = async (sessions: Sessions): Promise<Tokens> => await sessions.tokens(['token'], null);
const textOfThe =
  (call: TokenCall) =>
  (tokens: Tokens): string | undefined =>
    tokens.kind === 'ready' ? tokens.tokens[call]?.reveal() : undefined;
const textOf = textOfThe('token');

async function everythingInRedis(): Promise<string> {
  const found = await redis.keys('*');
  const texts = await Promise.all(found.map(async (key) => `${key} ${(await redis.get(key)) ?? ''}`));
  return texts.join('\n');
}

describe('a token', () => {
  test('is asked for once by twenty who need it at once', async () => {
    const sessions = await sessionsOf();
    const tokens = await Promise.all(Array.from({ length: 20 }, () => ask(sessions)));
    expect(new Set(tokens.map(textOf))).toEqual(new Set(['token-1']));
    expect(server.requests).toHaveLength(1);
    expect(server.requests[0]?.body).toContain('grant_type=client_credentials');
  });

  test('is asked for once by two processes that need it at once', async () => {
    server.behave((socket, request) => setTimeout(() => issuesTokens(3_600)(socket, request), 50));
    const [one, other] = [await sessionsOf(), await sessionsOf()];
    const tokens = await Promise.all([one, other, one, other].map(ask));
    expect(tokens.map(textOf)).toEqual(['token-1', 'token-1', 'token-1', 'token-1']);
    expect(server.requests).toHaveLength(1);
  });

  test('is shared with a process that starts later', async () => {
    await ask(await sessionsOf());
    expect(textOf(await ask(await sessionsOf()))).toBe('token-1');
    expect(server.requests).toHaveLength(1);
  });

  test('is not shared with another account', async () => {
    await ask(await sessionsOf());
    expect(textOf(await ask(await sessionsOf({ account: 'another' })))).toBe('token-2');
  });

  test('stands in Redis only sealed, only as long as it lives, and with nothing else of the account', async () => {
    await ask(await sessionsOf());
    const everything = await everythingInRedis();
    expect(everything).toContain('{otp-lipa-later}:token:token:');
    for (const secret of ['token-1', 'the secret of the client', Buffer.from('token-1').toString('base64url')]) {
      expect(everything).not.toContain(secret);
    }
    const [key = ''] = await redis.keys('*:token:*');
    const life = await redis.pttl(key);
    expect(life).toBeGreaterThan(3_500_000);
    expect(life).toBeLessThanOrEqual(3_540_000);
  });

  test('that another key sealed is asked for anew', async () => {
    const another = { keys: [await generateSealingKey('two')] } as SealingKeySet;
    await ask(await sessionsOf());
    const sessions = await sessionsOf({ sealer: await Sealer.create(another), opener: await Opener.create(another) });
    expect(textOf(await ask(sessions))).toBe('token-2');
  });

  test.each([
    [3_600, 3_539, 3_541],
    [300, 269, 271],
  ])('that lives %i s is used after %i s and no more after %i s', async (expiresIn, used, over) => {
    vi.useFakeTimers({ toFake: ['Date'] });
    const startedAt = Date.now();
    server.behave(issuesTokens(expiresIn));
    const [known, shared] = [await sessionsOf(), await sessionsOf()];
    await ask(known);
    vi.setSystemTime(startedAt + used * 1_000);
    expect(textOf(await ask(known))).toBe('token-1');
    vi.setSystemTime(startedAt + over * 1_000);
    expect(textOf(await ask(shared))).toBe('token-2'); // the copy in Redis is as old
    expect(textOf(await ask(known))).toBe('token-2');
    expect(server.requests).toHaveLength(2);
  });
});

describe('a token that the provider refused', () => {
  test('is dropped here and in Redis, and asked for once more', async () => {
    const sessions = await sessionsOf();
    const tokens = await ask(sessions);
    if (tokens.kind !== 'ready') throw new Error(tokens.code);
    await sessions.drop(['token'], tokens.tokens);
    expect(await redis.keys('*:token:*')).toEqual([]);
    expect(textOf(await ask(sessions))).toBe('token-2');
    expect(server.requests).toHaveLength(2);
  });

  test('does not take a newer one along', async () => {
    const [one, other] = [await sessionsOf(), await sessionsOf()];
    const old = await ask(one);
    await ask(other);
    if (old.kind !== 'ready') throw new Error(old.code);
    await one.drop(['token'], old.tokens);
    expect(textOf(await ask(one))).toBe('token-2');
    await other.drop(['token'], old.tokens); // refused there as well, after the first has got a new one
    expect(textOf(await ask(other))).toBe('token-2');
    expect(textOf(await ask(await sessionsOf()))).toBe('token-2');
    expect(server.requests).toHaveLength(2);
  });

  test('by twenty calls at once is asked for once', async () => {
    const sessions = await sessionsOf();
    const tokens = await ask(sessions);
    if (tokens.kind !== 'ready') throw new Error(tokens.code);
    const renewed = await Promise.all(
      Array.from({ length: 20 }, async () => {
        await sessions.drop(['token'], tokens.tokens);
        return textOf(await ask(sessions));
      }),
    );
    expect(new Set(renewed)).toEqual(new Set(['token-2']));
    expect(server.requests).toHaveLength(2);
  });

  test('is not the business of a call that used none', async () => {
    const sessions = await sessionsOf();
    await ask(sessions);
    await sessions.drop(['token', 'b2bToken'], {});
    expect(textOf(await ask(sessions))).toBe('token-1');
  });
});

describe('a token that is asked for with another one', () => {
  const code = 'a0b1c2d3e4f5061728394a5b6c7d8e9f';
  const snap = (http: number, responseCode: string, more: Record<string, unknown> = {}): string =>
    answer(http, JSON.stringify({ responseCode, ...more }));
  const token = (text: string): Record<string, unknown> => ({ accessToken: text, expiresIn: 900 });
  const calledWith = (): string[] =>
    server.requests.map(({ path, headers }) => `${path.split('/').at(-1)} ${headers.authorization ?? ''}`.trim());

  /** Issues `b2b-1`, `b2b-2` …, and a customer's token to whoever presents the one that `isGood`. */
  const issues = (isGood: (bearer: string) => boolean): Behaviour => {
    let issued = 0;
    return (socket, { path, headers: { authorization = '' } }) => {
      if (path.endsWith('/b2b')) {
        issued += 1;
        socket.write(snap(200, '2007300', token(`b2b-${issued}`)));
      } else {
        socket.write(isGood(authorization) ? snap(200, '2007400', token('customer')) : snap(401, '4017401'));
      }
    };
  };
  const sessionsAt = async (given: Partial<SessionDependencies> = {}): Promise<Sessions> => {
    const provider = bind(ayoconnect, loadFixture('ayoconnect'), { baseUrl: server.url });
    return await sessionsOf({ provider, ...given });
  };
  const failuresOf = (events: EventBus): unknown[] => {
    const told: unknown[] = [];
    events.on('token:failed', ({ call, cause, code: said }) => told.push([call, cause, said]));
    return told;
  };

  test('is asked for once more with a new one, when that one has died before its time', async () => {
    const events = new EventBus();
    const failures = failuresOf(events);
    const sessions = await sessionsAt({ events });
    server.behave(issues((bearer) => bearer !== 'Bearer b2b-1'));
    await sessions.tokens(['b2bToken'], null);
    const tokens = await sessions.tokens(['b2bToken', 'b2b2cToken'], { authCode: code });
    expect(tokens).toMatchObject({ kind: 'ready' });
    expect(calledWith()).toEqual(['b2b', 'b2b2c Bearer b2b-1', 'b2b', 'b2b2c Bearer b2b-2']);
    expect(failures).toEqual([]);
    expect(textOfThe('b2bToken')(await (await sessionsAt()).tokens(['b2bToken'], null))).toBe('b2b-2');
  });

  test('is asked for twice at most: a new one that is refused as well is our own fault', async () => {
    const events = new EventBus();
    const failures = failuresOf(events);
    const sessions = await sessionsAt({ events });
    server.behave(issues(() => false));
    expect(await sessions.tokens(['b2bToken', 'b2b2cToken'], { authCode: code })).toEqual({
      ...{ kind: 'unavailable', code: 'TOKEN_4017401', remediable: false },
    });
    expect(calledWith()).toEqual(['b2b', 'b2b2c Bearer b2b-1', 'b2b', 'b2b2c Bearer b2b-2']);
    expect(failures).toEqual([['b2b2cToken', 'refused', 'TOKEN_4017401']]);
  });
});

describe('no token', () => {
  const rows: [why: string, behaviour: Behaviour, expected: Partial<Extract<Tokens, { kind: 'unavailable' }>>][] = [
    [
      'because our credentials are refused: asking again does not help',
      behaviours.saysJson(401, { title: 'no' }),
      { code: 'TOKEN_HTTP_401', remediable: false },
    ],
    [
      'because we ask too often: later, when it says so',
      behaviours.saysJson(429, { title: 'slow' }, { 'retry-after': '3' }),
      { code: 'TOKEN_HTTP_429', remediable: true, retryAfterMs: 3_000 },
    ],
    ['because the answer is unreadable', behaviours.says(200, '<html>'), { code: 'TOKEN_HTTP_200', remediable: true }],
    [
      'because the provider fails',
      behaviours.says(503),
      { code: 'TOKEN_HTTP_503', remediable: true, atProvider: true },
    ],
    ['because the answer is lost', behaviours.resets, { code: 'TOKEN_ECONNRESET', remediable: true, atProvider: true }],
  ];
  test.each(rows)('%s', async (_why, behaviour, expected) => {
    server.behave(behaviour);
    const sessions = await sessionsOf();
    const tokens = await Promise.all(Array.from({ length: 20 }, () => ask(sessions)));
    // One call failed, whoever waited for it: the breaker must not hear of it twenty times.
    const { atProvider: _once, ...toOthers } = expected;
    expect(tokens[0]).toEqual({ kind: 'unavailable', ...expected });
    for (const each of tokens.slice(1)) expect(each).toEqual({ kind: 'unavailable', ...toOthers });
    expect(server.requests).toHaveLength(1);
    // Nothing of it sticks: the next one who needs it asks anew and at once.
    server.behave(issuesTokens(3_600));
    expect(textOf(await ask(sessions))).toBe('token-2');
  });

  test('because the provider is down', async () => {
    const sessions = await sessionsOf({}, `http://127.0.0.1:${await freePort()}`);
    expect(await ask(sessions)).toEqual({
      ...{ kind: 'unavailable', code: 'TOKEN_ECONNREFUSED', remediable: true, atProvider: true },
    });
  });

  test('of a kind that the provider does not know', async () => {
    const sessions = await sessionsOf();
    expect(await sessions.tokens(['b2b2cToken'], null)).toEqual({
      kind: 'unavailable',
      code: 'NO_B2B2CTOKEN',
      remediable: false,
    });
    expect(server.requests).toEqual([]);
  });

  test('is told as an event, without a word of it', async () => {
    const events = new EventBus();
    const told: unknown[] = [];
    events.on('call:ended', (payload) => told.push(payload));
    await ask(await sessionsOf({ events }));
    expect(told).toEqual([
      {
        of: null,
        partition: 'lipa-later',
        call: 'token',
        wire: 'answered',
        durationMs: expect.any(Number),
        detail: '200',
      },
    ]);
  });
});
