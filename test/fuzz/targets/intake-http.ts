/**
 * The intake over real sockets, on a real Redis: requests whose method, path, headers, framing and body are not what
 * they should be, and bytes that are no request. Never a 500, always the documented words, and a 202 only for a request.
 */
import fc from 'fast-check';
import type { Events } from '../../../src/events.ts';
import { type CallbackEntrance, callbackQueues } from '../../../src/producers/callbacks.ts';
import { Secret } from '../../../src/secret.ts';
import { startWorld, type World } from '../../producers/world.ts';
import {
  anyBytes,
  anyText,
  mutateText,
  seldom,
  type TextMutation,
  textMutation,
  twistedText,
  words,
} from '../mutate.ts';
import { GATE_SECRETS, type Gate, gates } from '../oracles/proofs.ts';
import { isIdempotencyKey, isRequest } from '../oracles/requests.ts';
import { Condemned, demand, demandNoLeak, printed, type Target } from '../target.ts';
import { type RawAnswer, WireClient } from '../wire-client.ts';
import { callbackBody } from './callback-bodies.ts';
import { callbackOf, proofCases } from './callback-proofs.ts';
import { OTP_CANARY, PROFILES, REQUESTS, requestTexts, TEXT_CANARY } from './intake-requests.ts';

/** `{id}` in a path stands for a verification that exists. Texts have one character a byte. */
interface HttpCase {
  readonly method: string;
  readonly path: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: string;
  readonly framing: 'length' | 'chunked' | 'none' | 'too_short' | 'too_long' | 'both';
  /** Applied to the whole request as it would be sent. */
  readonly garbled: readonly TextMutation[];
}

export interface HttpSubject {
  /** Bytes in, answers out, as the intake gives them. Tests put a liar in between. */
  answered(answers: RawAnswer[]): RawAnswer[];
}

const SHOP_KEY = 'key-of-the-shop-6a1f5c2e90';
const KIOSK_KEY = 'key-of-the-kiosk-77d0b3e41a';
const KIOSK_PROVIDERS = ['beqelal'];

export async function intakeHttp(subject: HttpSubject = { answered: (answers) => answers }): Promise<Target<HttpCase>> {
  const world = await startIntake();
  const client = new WireClient(Number(new URL(world.url).port));
  const answeredWith500: Events['intake:answered'][] = [];
  world.events.on('intake:answered', (one) => {
    if (one.status === 500) answeredWith500.push(one);
  });
  const first = await world.post(REQUESTS[7], 'first', { authorization: `Bearer ${SHOP_KEY}` });
  const existing = String(first.body.id);

  return {
    name: 'intake-http',
    batch: 100,
    cases: fc.oneof(
      { weight: 5, arbitrary: enqueueCases },
      { weight: 2, arbitrary: callbackCases },
      { weight: 2, arbitrary: otherCases },
    ),
    async check(given) {
      const request = { ...given, path: given.path.replace('{id}', existing) };
      const bytes = bytesOf(request);
      const end = given.garbled.length > 0 || !['length', 'chunked'].includes(given.framing) || mayEnd(given);
      const answers = subject.answered(await client.send(bytes, { end, method: given.method }));
      // Waiting was ended on purpose, perhaps before its connection stood.
      for (const { error, where } of world.failed.splice(0).filter(({ where }) => where !== 'waiting callers')) {
        demandNoLeak('an event', `${where} ${printed(error)}`, secretsIn(bytes));
        throw new Condemned(`something failed inside: ${where}: ${printed(error)}`);
      }
      demand(answeredWith500.splice(0).length === 0, 'a 500 was counted');
      if (answers.length === 0) {
        demand(end, 'a whole request was not answered');
        return 'not answered';
      }
      for (const answer of answers) judge(request, answer, bytes);
      if (given.garbled.length === 0) demandRight(request, answers[0] as RawAnswer);
      return answers.map(({ status }) => status).join(' ');
    },
    async close() {
      client.close();
      await world[Symbol.asyncDispose]();
    },
  };
}

async function startIntake(): Promise<World> {
  let queues: ReturnType<typeof callbackQueues> | null = null;
  const bound = new Map(Object.entries(gates).map(([name, gate]) => [name, callbackOf(gate)]));
  const callbacks: CallbackEntrance = {
    of: (partition) => bound.get(partition) ?? null,
    queue: (partition) => {
      if (!queues) throw new Error('not started');
      return queues.queue(partition);
    },
  };
  const world = await startWorld({
    partitions: PROFILES,
    clients: [
      { id: 'shop', apiKey: new Secret(SHOP_KEY) },
      { id: 'kiosk', apiKey: new Secret(KIOSK_KEY), providers: KIOSK_PROVIDERS },
    ],
    callbacks,
    timeLimitMs: 10_000,
  });
  queues = callbackQueues(world.redis);
  // Nobody waits for an outcome that no worker will bring.
  await world.waiting.close();
  const dispose = world[Symbol.asyncDispose].bind(world);
  return Object.assign(world, {
    [Symbol.asyncDispose]: async () => {
      await queues?.close();
      await dispose();
    },
  });
}

// ---- cases ----------------------------------------------------------------------------------------------------------

/** With halves of characters mended: an address can hold none. */
const wellFormed = (text: string): string => Buffer.from(text, 'utf8').toString('utf8');
const utf8 = (text: string): string => Buffer.from(text, 'utf8').toString('latin1');
/** What may stand in a header of a request that can be read at all. */
const headerValue = (text: string): string => text.replace(/[^\t\x20-\x7e\x80-\xff]/g, '?');

const framing = fc.oneof(
  { weight: 12, arbitrary: fc.constant('length' as const) },
  { weight: 2, arbitrary: fc.constant('chunked' as const) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('none' as const, 'too_short' as const, 'too_long' as const, 'both' as const),
  },
);

const garbled = fc.oneof(
  { weight: 9, arbitrary: fc.constant<TextMutation[]>([]) },
  { weight: 1, arbitrary: fc.array(textMutation, { minLength: 1, maxLength: 3 }) },
);

const someOddHeaders = fc.array(
  fc.tuple(
    fc.constantFrom(
      ...words('Prefer Content-Encoding Expect Accept X-Forwarded-For X-HTTP-Method-Override Range Cookie'),
      ...words('Authorization Content-Type Idempotency-Key Upgrade Connection If-None-Match TE __proto__'),
    ),
    fc.oneof(
      fc.constantFrom('wait=5', 'wait=0', 'wait=1e9', 'wait="3", respond-async', 'wait=-1', 'respond-async', 'wait'),
      fc.constantFrom(
        'gzip',
        'identity',
        'br, gzip',
        '100-continue',
        'nonsense',
        '*',
        'bytes=0-1',
        'websocket',
        'DELETE',
      ),
      fc.constantFrom(`Bearer ${SHOP_KEY}`, 'application/json', 'close', 'keep-alive', '"a"', TEXT_CANARY, ''),
      anyBytes(30).map(headerValue),
    ),
  ),
  { minLength: 1, maxLength: 2 },
);
const oddHeaders = fc.oneof(
  { weight: 2, arbitrary: fc.constant<[string, string][]>([]) },
  { weight: 1, arbitrary: someOddHeaders },
);

const authorization = fc.oneof(
  { weight: 12, arbitrary: fc.constant(`Bearer ${SHOP_KEY}`) },
  { weight: 2, arbitrary: fc.constantFrom(`Bearer ${KIOSK_KEY}`, `bearer  ${SHOP_KEY} `, `BEARER ${SHOP_KEY}`) },
  {
    weight: 2,
    arbitrary: fc.oneof(
      twistedText(`Bearer ${SHOP_KEY}`).map((text) => headerValue(utf8(text)).slice(0, 4_000)),
      fc.constantFrom(`Basic ${SHOP_KEY}`, SHOP_KEY, `Bearer ${TEXT_CANARY}`, 'Bearer', 'Bearer null', ''),
    ),
  },
);
const contentType = fc.oneof(
  { weight: 12, arbitrary: fc.constant('application/json') },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      ...[
        'application/json; charset=utf-8',
        'APPLICATION/JSON',
        'application/json;charset="utf-8"',
        'application/json; charset=utf-16',
      ],
      ...[
        'application/json; charset=latin1',
        'text/json',
        'application/problem+json',
        'text/plain',
        '',
        'application/json, text/html',
      ],
      ...['application/x-www-form-urlencoded', 'application/jsonx', 'application/json; boundary=x', TEXT_CANARY],
    ),
  },
);
const idempotencyKey = fc.oneof(
  { weight: 6, arbitrary: fc.uuid() },
  { weight: 3, arbitrary: fc.constantFrom('one', 'two', 'three') },
  {
    weight: 1,
    arbitrary: fc.oneof(
      fc.constantFrom('', ' ', 'a b', 'a'.repeat(255), 'a'.repeat(256), 'ü', TEXT_CANARY, '\t'),
      anyBytes(40).map(headerValue),
    ),
  },
);

const jsonBody = fc.oneof(
  { weight: 8, arbitrary: requestTexts.map(utf8) },
  { weight: 5, arbitrary: fc.constantFrom(...REQUESTS).map((request) => utf8(JSON.stringify(request))) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(...REQUESTS).chain((request) => {
      const text = JSON.stringify(request);
      return fc.constantFrom(
        ...[`\ufeff${text}`, ` ${text}\r\n`, `${text}${text}`, `[${text}]`, `)]}',\n${text}`, `${text}\u0000`].map(
          utf8,
        ),
        ...[Buffer.from(text, 'utf16le'), Buffer.from(`\ufeff${text}`, 'utf16le'), Buffer.from(text, 'latin1')].map(
          latin1,
        ),
        // Not UTF-8: a lone continuation byte, an overlong slash, a surrogate as bytes.
        ...['\x80', '\xc0\xaf', '\xed\xa0\x80', '\xff'].map((bytes) =>
          utf8(text).replace('"otp"', `"${bytes}":1,"otp"`),
        ),
        utf8(JSON.stringify({ ...request, metadata: { fill: 'x'.repeat(66_000) } })),
        utf8(`{"metadata":${'['.repeat(30_000)}${']'.repeat(30_000)}}`),
      );
    }),
  },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes).toString('latin1')) },
);

function latin1(bytes: Buffer): string {
  return bytes.toString('latin1');
}

const enqueueCases: fc.Arbitrary<HttpCase> = fc
  .record({
    authorization,
    contentType,
    idempotencyKey,
    odd: oddHeaders,
    drop: seldom(fc.nat({ max: 2 }), 12),
    body: jsonBody,
    framing,
    garbled,
  })
  .map(({ authorization, contentType, idempotencyKey, odd, drop, body, framing, garbled }) => {
    const headers: (readonly [string, string])[] = [
      ['Authorization', authorization],
      ['Content-Type', contentType],
      ['Idempotency-Key', idempotencyKey],
    ];
    const kept = headers.filter((_, index) => index !== drop);
    return { method: 'POST', path: '/v1/verifications', headers: [...kept, ...odd], body, framing, garbled };
  });

const callbackCases: fc.Arbitrary<HttpCase> = fc.constantFrom(...Object.keys(gates)).chain((name) =>
  fc
    .record({
      proof: proofCases(fc.constant(name)),
      // The proof of the garbled body, or that of another one.
      own: seldom(callbackBody((gates[name] as Gate).adapter).map(utf8), 2),
      odd: oddHeaders,
      framing,
      garbled,
      elsewhere: seldom(fc.constantFrom('lipa-later', 'nobody', '__proto__', TEXT_CANARY, '%00', '..%2f..'), 12),
    })
    .map(({ proof, own, odd, framing, garbled, elsewhere }) => {
      const right = own === null ? null : (gates[name] as Gate).prove(Buffer.from(own, 'latin1'));
      const { headers, pathToken } = right ?? proof;
      const token = pathToken === null ? '' : `/${encodeURIComponent(wellFormed(pathToken))}`;
      const given = Object.entries(headers).map(([header, value]) => [header, headerValue(value)] as const);
      return {
        method: 'POST',
        path: `/v1/callbacks/${elsewhere ?? name}${token}`,
        headers: [...given, ...odd],
        body: own ?? proof.body,
        framing,
        garbled,
      };
    }),
);

const otherCases: fc.Arbitrary<HttpCase> = fc.record({
  method: fc.constantFrom(...words('GET GET GET HEAD PUT DELETE PATCH OPTIONS POST TRACE PROPFIND')),
  path: fc.oneof(
    fc.constantFrom(
      '/v1/verifications/{id}',
      '/v1/verifications/{id}?after=0',
      '/v1/verifications/{id}/',
      '/v1/verifications',
    ),
    fc
      .oneof(anyBytes(20), fc.constantFrom('-1', '1e3', '99999999999', '0&after=1', '[]=1', TEXT_CANARY))
      .map((text) => `/v1/verifications/{id}?after=${encodeURIComponent(text)}`),
    fc
      .oneof(
        anyText(20).map((text) => encodeURIComponent(wellFormed(text))),
        fc.constantFrom(
          `cepta_${'0'.repeat(32)}`,
          `nobody_${'a'.repeat(32)}`,
          `__proto___${'0'.repeat(32)}`,
          '%ff',
          '%',
          '%e0%a4%a',
          '..',
          'x'.repeat(9_000),
        ),
      )
      .map((id) => `/v1/verifications/${id}`),
    fc.constantFrom(
      ...words('/ * // /v1 /v1/verifications/../verifications /V1/VERIFICATIONS /v1/callbacks /v1/callbacks/cepta'),
    ),
    fc.constantFrom(
      'http://elsewhere.example/v1/verifications',
      '/v1/verifications#x',
      '/v1%2fverifications',
      `/${TEXT_CANARY}`,
      '/.env',
    ),
  ),
  headers: fc
    .record({ authorization, odd: oddHeaders, with: fc.boolean() })
    .map(({ authorization, odd, with: has }) => [...(has ? [['Authorization', authorization] as const] : []), ...odd]),
  body: fc.oneof({ weight: 4, arbitrary: fc.constant('') }, { weight: 1, arbitrary: jsonBody }),
  framing,
  garbled,
});

function bytesOf({ method, path, headers, body, framing, garbled }: HttpCase): Buffer {
  const lines = [
    `${method} ${path} HTTP/1.1`,
    'Host: 127.0.0.1',
    ...headers.map(([name, value]) => `${name}: ${value}`),
  ];
  const length = Buffer.byteLength(body, 'latin1');
  const chunked = `${length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
  let content = body;
  switch (framing) {
    case 'length':
      lines.push(`Content-Length: ${length}`);
      break;
    case 'too_short':
      lines.push(`Content-Length: ${Math.max(0, length - 3)}`);
      break;
    case 'too_long':
      lines.push(`Content-Length: ${length + 3}`);
      break;
    case 'chunked':
      lines.push('Transfer-Encoding: chunked');
      content = length === 0 ? '0\r\n\r\n' : chunked;
      break;
    case 'both':
      lines.push(`Content-Length: ${length}`, 'Transfer-Encoding: chunked');
      content = length === 0 ? '0\r\n\r\n' : chunked;
      break;
    case 'none':
      break;
    default:
      framing satisfies never;
  }
  const text = `${lines.join('\r\n')}\r\n\r\n${content}`;
  // A mutation may write any character; what is sent has eight bits of each.
  return Buffer.from(garbled.reduce(mutateText, text), 'latin1');
}

/** A connection that the request itself, or what is wrong with it, may end: then nothing is lost when it is closed. */
function mayEnd({ headers, body, path }: HttpCase): boolean {
  return (
    headers.some(([name]) => /^(connection|upgrade|expect|te)$/i.test(name)) ||
    body.length > 60_000 ||
    path.length > 4_000
  );
}

// ---- verdicts -------------------------------------------------------------------------------------------------------

const PROBLEMS: Readonly<Record<string, number>> = {
  ...{ 'malformed-request': 400, 'malformed-json': 400, 'invalid-request': 400, unauthorized: 401 },
  ...{ 'partition-not-allowed': 403, 'not-found': 404, 'method-not-allowed': 405, 'request-timeout': 408 },
  ...{ 'in-progress': 409, gone: 410, 'body-too-large': 413, 'unsupported-media-type': 415 },
  ...{ 'idempotency-mismatch': 422, 'headers-too-large': 431, unavailable: 503 },
};

/** What holds for every answer to whatever bytes. */
function judge({ method }: HttpCase, { status, headers, head, body }: RawAnswer, sent: Buffer): void {
  demand(status !== 500, `a 500: ${body}`);
  demand(status !== 503, `a 503 although Redis is there: ${body}`);
  demand(headers['cache-control'] === 'no-store', `a ${status} without Cache-Control`);
  demand(/^[0-9a-f-]{36}$/.test(headers['x-request-id'] ?? ''), `a ${status} without an X-Request-Id`);
  if (status === 200 || status === 202) {
    demand(headers['content-type'] === 'application/json', `a ${status} of the type ${headers['content-type']}`);
    return;
  }
  demand(headers['content-type'] === 'application/problem+json', `a ${status} of the type ${headers['content-type']}`);
  demandNoLeak(`a ${status}`, `${head}\n${body}`, secretsIn(sent));
  if (method === 'HEAD') return;
  const problem = parsed(body);
  demand(problem !== null, `a ${status} whose body is no JSON object`);
  const [, name = ''] = /^urn:otp-pipeline:problem:([a-z-]+)$/.exec(String(problem.type)) ?? [];
  demand(
    PROBLEMS[name] === status && problem.status === status,
    `a ${status} that says ${problem.type} ${problem.status}`,
  );
  demand(typeof problem.title === 'string' && typeof problem.detail === 'string', `a ${status} without words`);
  const known = ['type', 'title', 'status', 'detail', 'errors'];
  demand(
    Object.keys(problem).every((member) => known.includes(member)),
    `a ${status} with members that nobody documents`,
  );
  const { errors = [] } = problem;
  demand(Array.isArray(errors) && errors.every(isFault), `a ${status} whose errors are none`);
}

const isFault = (one: unknown): boolean => {
  const { field, problem, ...more } = one as Record<string, unknown>;
  return typeof field === 'string' && field !== '' && typeof problem === 'string' && Object.keys(more).length === 0;
};

function parsed(body: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

/** Keys and codes, as far as they were sent; and what proves callbacks, sent or not. */
function secretsIn(sent: Buffer): string[] {
  const text = sent.toString('latin1');
  return [OTP_CANARY, TEXT_CANARY, SHOP_KEY, KIOSK_KEY].filter((one) => text.includes(one)).concat(GATE_SECRETS);
}

/** What the very request must have been answered, as far as that can be said without doing the intake's work again. */
function demandRight(request: HttpCase, { status, headers, body }: RawAnswer): void {
  const { method, path } = request;
  if (status === 202 || (status === 200 && method === 'POST' && path === '/v1/verifications')) {
    demandAccepted(request, headers, body);
    return;
  }
  if (status === 200 && path.startsWith('/v1/callbacks/')) {
    demand(isProvedCallback(request), 'a callback was taken without its proof');
    return;
  }
  if (status === 200) {
    demand(method === 'GET' || method === 'HEAD', `a 200 to ${method}`);
    demand(isAuthorized(request, SHOP_KEY), 'a verification was shown to nobody of ours');
    return;
  }
  if (isGoodRequest(request))
    demand([409, 410, 422].includes(status), `a good request was answered ${status}: ${body}`);
}

function demandAccepted(request: HttpCase, headers: RawAnswer['headers'], body: string): void {
  demand(isGoodRequest(request), 'accepted, and it is no good request');
  const resource = parsed(body) ?? {};
  demand(headers.location === `/v1/verifications/${resource.id}`, 'accepted without the right Location');
  const { metadata, amount, reference, ...rest } = resource;
  demandNoLeak('what was accepted', JSON.stringify(rest), [OTP_CANARY]);
  const asked = askedIn(request) as Record<string, unknown>;
  demand(resource.provider === asked.provider, 'accepted for another provider');
  demand(JSON.stringify(metadata) === JSON.stringify(asked.metadata ?? {}), 'the metadata is not what was given');
}

function valuesOf({ headers }: HttpCase, name: string): string[] {
  return headers
    .filter(([given]) => given.toLowerCase() === name)
    .map(([, value]) => value.replace(/^[ \t]+|[ \t]+$/g, ''));
}

function isAuthorized(request: HttpCase, ...keys: readonly string[]): boolean {
  const [value = '', ...more] = valuesOf(request, 'authorization');
  const [scheme = '', key = '', ...rest] = value.split(/ +/);
  return more.length === 0 && scheme.toLowerCase() === 'bearer' && rest.length === 0 && keys.includes(key);
}

function isGoodRequest(request: HttpCase): boolean {
  const { method, path, framing, body } = request;
  if (method !== 'POST' || path !== '/v1/verifications') return false;
  if (framing !== 'length' && framing !== 'chunked') return false;
  const [type = '', ...types] = valuesOf(request, 'content-type');
  const [key = '', ...keys] = valuesOf(request, 'idempotency-key');
  if (types.length + keys.length > 0 || !isIdempotencyKey(key)) return false;
  if (!/^application\/json(;[ ]?charset="?utf-8"?)?$/i.test(type)) return false;
  if (!valuesOf(request, 'content-encoding').every((encoding) => /^(identity)?$/i.test(encoding))) return false;
  if (!isAuthorized(request, SHOP_KEY, KIOSK_KEY) || Buffer.byteLength(body, 'latin1') > 64 * 1024) return false;
  const bytes = Buffer.from(body, 'latin1');
  const text = bytes.toString('utf8');
  if (!Buffer.from(text, 'utf8').equals(bytes)) return false;
  try {
    const asked = askedIn(request);
    if (!isRequest(asked)) return false;
    return isAuthorized(request, SHOP_KEY) || KIOSK_PROVIDERS.includes((asked as { provider: string }).provider);
  } catch {
    return false;
  }
}

/** RFC 8259 lets a parser pass over a byte order mark. */
function askedIn({ body }: HttpCase): unknown {
  return JSON.parse(
    Buffer.from(body, 'latin1')
      .toString('utf8')
      .replace(/^\ufeff/, ''),
  );
}

function isProvedCallback(request: HttpCase): boolean {
  const [, name = '', token] = /^\/v1\/callbacks\/([^/?]+)(?:\/([^/?]*))?$/.exec(request.path) ?? [];
  const gate = gates[decodeURIComponent(name)];
  if (!gate) return false;
  const names = [...new Set(request.headers.map(([header]) => header.toLowerCase()))];
  // Of two Authorization headers Node keeps the first; of two others it joins the values.
  const headers = Object.fromEntries(
    names.map((header) => {
      const values = valuesOf(request, header);
      return [header, (header === 'authorization' ? values[0] : values.join(', ')) ?? ''];
    }),
  );
  const pathToken = token === undefined ? null : decodeURIComponent(token);
  return gate.isProved({ headers, pathToken, rawBody: Buffer.from(request.body, 'latin1') });
}
