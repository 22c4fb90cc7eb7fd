import { request } from 'node:https';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { describe, expect, it } from 'vitest';
import { HTTP_LIMITS, openPort, portWarning, StartError } from '../../src/main-http.ts';
import { unreadAnswer } from '../../src/producers/guard.ts';
import { selfSigned } from '../support/self-signed.ts';
import { demoRequest, eventually, SHOP, startWorld, type World } from './world.ts';

const AUTHORIZATION = `Authorization: Bearer ${SHOP.apiKey.reveal()}`;
const POST = ['POST /v1/verifications HTTP/1.1', 'Host: x', AUTHORIZATION, 'Content-Type: application/json'];

/** A connection on which the test writes what it likes, when it likes. */
interface Line extends AsyncDisposable {
  readonly socket: Socket;
  readonly heard: () => string;
  readonly closed: Promise<void>;
  say(...lines: string[]): void;
}

function call(url: string): Line {
  const { hostname, port } = new URL(url);
  const socket = connect({ port: Number(port), host: hostname, allowHalfOpen: true });
  let heard = '';
  socket.on('data', (chunk) => {
    heard += chunk;
  });
  const closed = new Promise<void>((resolve) => {
    // Either end of a server's goodbye: it ends its half, or it resets.
    socket.on('end', resolve).on('error', () => resolve());
    socket.on('close', () => resolve());
  });
  return {
    socket,
    heard: () => heard,
    closed,
    say: (...lines) => void socket.write(lines.join('\r\n')),
    [Symbol.asyncDispose]: async () => void socket.destroy(),
  };
}

/** That the one answer is a problem with every header that an answer has, and that the connection ends with it. */
async function expectProblem(line: Line, status: number, name: string): Promise<void> {
  await line.closed;
  const [head = '', body = '', ...more] = line.heard().split('\r\n\r\n');
  expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  expect(more).toEqual([]);
  for (const header of [
    'Content-Type: application/problem\\+json',
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
    'X-Content-Type-Options: nosniff',
    'Referrer-Policy: no-referrer',
    'Cache-Control: no-store',
    'X-Request-Id: [0-9a-f-]{36}',
    'Connection: close',
    `Content-Length: ${Buffer.byteLength(body)}`,
  ]) {
    expect(head).toMatch(new RegExp(`\r\n${header}(\r\n|$)`, 'i'));
  }
  expect(JSON.parse(body)).toMatchObject({ status, type: `urn:otp-pipeline:problem:${name}` });
}

const statuses = (world: World): number[] => world.answered.map(({ status }) => status);

describe('a slow request', () => {
  it('has so long for its headers, however steadily they drip', async () => {
    await using world = await startWorld({ limits: { headersMs: 300, requestMs: 600 } });
    await using silent = call(world.url);
    await using mute = call(world.url);
    await using dripping = call(world.url);
    dripping.say(...POST, '');
    const drip = setInterval(() => dripping.say('X-A: b', ''), 20);
    silent.say('GET /v1/verif');
    const began = performance.now();
    try {
      await expectProblem(silent, 408, 'request-timeout');
      await expectProblem(mute, 408, 'request-timeout');
      await expectProblem(dripping, 408, 'request-timeout');
    } finally {
      clearInterval(drip);
    }
    expect(performance.now() - began).toBeGreaterThan(200);
    expect(world.answered).toEqual(Array(3).fill({ status: 408, durationMs: null }));
  });

  it('has so long for its body, however steadily it drips, and nothing is kept of it', async () => {
    await using world = await startWorld({ bodyTimeLimitMs: 300 });
    await using line = call(world.url);
    line.say(...POST, 'Idempotency-Key: k', 'Content-Length: 5000', '', '{');
    const drip = setInterval(() => line.say(' '), 20);
    try {
      await expectProblem(line, 408, 'request-timeout');
    } finally {
      clearInterval(drip);
    }
    expect(statuses(world)).toEqual([408]);
    expect(world.failed).toEqual([]);
    expect(await world.redis.keys('*')).toEqual([]);
  });

  it('that was answered before its end may not go on for ever', async () => {
    await using world = await startWorld({ limits: { lingerMs: 200 } });
    await using line = call(world.url);
    line.say('POST /v1/verifications HTTP/1.1', 'Host: x', 'Transfer-Encoding: chunked', '', '1', 'x', '');
    const drip = setInterval(() => line.say('1', 'x', ''), 20);
    try {
      await line.closed;
    } finally {
      clearInterval(drip);
    }
    expect(line.heard()).toMatch(/^HTTP\/1\.1 401 /);
    expect(statuses(world)).toEqual([401]);
  });

  it('is none when it waits for its answer, as it was asked to', async () => {
    await using world = await startWorld({ limits: { headersMs: 200, requestMs: 200, idleMs: 200 } });
    const reply = await world.post(demoRequest(), 'k-1', { prefer: 'wait=1' });
    expect(reply).toMatchObject({ status: 202, headers: { 'preference-applied': 'wait=1' } });
  });

  it('is not waited for on a connection for ever: it is closed without a word', async () => {
    await using world = await startWorld({ limits: { idleMs: 200 } });
    await using line = call(world.url);
    line.say('GET /nowhere HTTP/1.1', 'Host: x', '', '');
    await line.closed;
    expect(line.heard().match(/HTTP\/1\.1/g)).toHaveLength(1);
    expect(statuses(world)).toEqual([404]);
  });
});

describe('what is no request', () => {
  const NONE: readonly (readonly [what: string, lines: readonly string[], status: number, name: string])[] = [
    ['words', ['hello there', '', ''], 400, 'malformed-request'],
    ['a version that nobody speaks', ['GET / HTTP/9.9', 'Host: x', '', ''], 400, 'malformed-request'],
    ['a header with a space in its name', ['GET / HTTP/1.1', 'Host: x', 'A b: c', '', ''], 400, 'malformed-request'],
    ['no host', ['GET / HTTP/1.1', '', ''], 400, 'malformed-request'],
    ['two lengths', [...POST, 'Content-Length: 1', 'Content-Length: 2', '', '{'], 400, 'malformed-request'],
    [
      'a length and chunks',
      [...POST, 'Content-Length: 5', 'Transfer-Encoding: chunked', '', '0', '', ''],
      400,
      'malformed-request',
    ],
    [
      'a chunk without a size',
      [...POST, 'Idempotency-Key: k', 'Transfer-Encoding: chunked', '', 'zz', ''],
      400,
      'malformed-request',
    ],
    [
      'endless extensions of a chunk',
      [...POST, 'Idempotency-Key: k', 'Transfer-Encoding: chunked', '', `1;${'a'.repeat(20_000)}`],
      413,
      'body-too-large',
    ],
    [
      'a header of 20 KB',
      ['GET / HTTP/1.1', 'Host: x', `X-A: ${'a'.repeat(20_000)}`, '', ''],
      431,
      'headers-too-large',
    ],
    ['an address of 20 KB', [`GET /${'a'.repeat(20_000)} HTTP/1.1`, 'Host: x', '', ''], 431, 'headers-too-large'],
    [
      '101 headers',
      ['GET / HTTP/1.1', 'Host: x', ...Array.from({ length: 100 }, (_, n) => `X-${n}: y`), '', ''],
      431,
      'headers-too-large',
    ],
  ];

  it('is answered as everything is', async () => {
    await using world = await startWorld({ limits: { lingerMs: 200 } });
    for (const [what, lines, status, name] of NONE) {
      await using line = call(world.url);
      const before = world.answered.length;
      line.say(...lines);
      await expectProblem(line, status, name);
      await eventually(() => world.answered.length === before + 1);
      // Where the body broke off, the request had begun, and ended without its answer.
      expect([what, [status, 499].includes(Number(statuses(world).at(-1)))]).toEqual([what, true]);
    }
    expect(world.failed).toEqual([]);
  });

  it('gets no answer that could be taken for that of a request before it', async () => {
    await using world = await startWorld();
    await using line = call(world.url);
    const raw = JSON.stringify(demoRequest());
    line.say(...POST, 'Idempotency-Key: k', 'Prefer: wait=20', `Content-Length: ${raw.length}`, '', raw);
    await eventually(async () => (await world.jobs()) === 1);
    line.say('no request at all', '', '');
    await line.closed;
    expect(line.heard()).toBe('');
  });

  it('is neither an expectation that nobody knows nor HTTP/1.0 without a host', async () => {
    await using world = await startWorld();
    await using line = call(world.url);
    line.say('GET /nowhere HTTP/1.1', 'Host: x', 'Expect: miracles', '', '');
    await eventually(() => line.heard().endsWith('}'));
    expect(line.heard()).toMatch(/^HTTP\/1\.1 404 /);
    line.say('GET /nowhere HTTP/1.0', '', '');
    await line.closed;
    expect(line.heard().match(/HTTP\/1\.1 404 /g)).toHaveLength(2);
  });
});

describe('TLS', () => {
  it('carries everything, asks for it to stay so, and is 1.2 at least', async () => {
    using certificate = selfSigned();
    await using world = await startWorld({ tls: certificate });
    expect(world.url).toMatch(/^https:/);
    const { port } = new URL(world.url);
    const reply = await new Promise<{ status: number | undefined; headers: NodeJS.Dict<string | string[]> }>(
      (resolve, reject) => {
        const headers = { authorization: `Bearer ${SHOP.apiKey.reveal()}` };
        const options = { host: '127.0.0.1', port, path: '/v1/verifications/x', ca: certificate.pem, headers };
        const sent = request(options, (response) => {
          response.resume().on('end', () => resolve({ status: response.statusCode, headers: response.headers }));
        });
        sent.on('error', reject).end();
      },
    );
    expect(reply.status).toBe(404);
    expect(reply.headers['strict-transport-security']).toBe('max-age=31536000');

    const versions = ['TLSv1.3', 'TLSv1.2', 'TLSv1.1'] as const;
    const spoken = await Promise.all(versions.map((version) => handshake(Number(port), certificate.pem, version)));
    expect(spoken).toEqual(['TLSv1.3', 'TLSv1.2', null]);
  });

  it('is what a request without it does not get through', async () => {
    using certificate = selfSigned();
    await using world = await startWorld({ tls: certificate });
    await using line = call(world.url);
    line.say(...POST, '', '');
    await line.closed;
    expect(line.heard()).not.toContain('HTTP/');
    expect(world.answered).toEqual([]);
  });

  it('answers what is no request over TLS too', async () => {
    using certificate = selfSigned();
    await using world = await startWorld({ tls: certificate });
    const socket = connectTls({ host: '127.0.0.1', port: Number(new URL(world.url).port), ca: certificate.pem });
    let heard = '';
    socket.on('data', (chunk) => {
      heard += chunk;
    });
    socket.write('nonsense\r\n\r\n');
    await new Promise((resolve) => socket.once('end', resolve));
    expect(heard).toMatch(/^HTTP\/1\.1 400 /);
    expect(heard).toContain('Strict-Transport-Security: max-age=31536000');
  });

  it('must have a certificate and the key of that certificate, or nothing starts', async () => {
    using certificate = selfSigned();
    using other = selfSigned();
    const open = (certFile: string, keyFile: string) =>
      openPort('console', { host: '127.0.0.1', port: 0, tls: { certFile, keyFile } }, SITE);
    for (const [certFile, keyFile] of [
      [certificate.certFile, other.keyFile],
      [certificate.keyFile, certificate.certFile],
      [certificate.certFile, '/nowhere/key.pem'],
    ] as const) {
      const fault = await open(certFile, keyFile).catch((error: unknown) => error);
      expect(fault).toBeInstanceOf(StartError);
      expect((fault as Error).message).toMatch(
        /^console\.tls: .* must be a certificate and its private key \([A-Z0-9_]+\)$/,
      );
    }
  });

  it('is missed, in words that name the keys, where others can reach the port', () => {
    const tls = { certFile: 'a', keyFile: 'b' };
    for (const host of ['127.0.0.1', '127.8.9.1', '::1', 'localhost']) {
      expect(portWarning('intake', { host, port: 1 })).toBeNull();
    }
    for (const host of ['0.0.0.0', '::', '10.0.0.1', 'otp.example', '127.0.0.1.example']) {
      expect(portWarning('intake', { host, port: 1, tls })).toBeNull();
      expect(portWarning('intake', { host, port: 1 })).toMatch(/^intake\.host: .*API keys.* intake\.tls\.certFile/);
      expect(portWarning('console', { host, port: 1 })).toMatch(/^console\.host: .*passwords.* console\.tls\.certFile/);
    }
  });
});

const SITE = { app: () => {}, unread: unreadAnswer };

it('a port that is taken is a fault that names its key', async () => {
  await using first = await opened();
  const taken = openPort('intake', { host: '127.0.0.1', port: first.port }, SITE);
  await expect(taken).rejects.toThrow(`intake.port: cannot listen on 127.0.0.1:${first.port} (EADDRINUSE)`);
  expect(HTTP_LIMITS).toMatchObject({ headersMs: 10_000, requestMs: 25_000, headersBytes: 16_384, headersCount: 100 });
});

async function opened(): Promise<AsyncDisposable & { port: number }> {
  const port = await openPort('intake', { host: '127.0.0.1', port: 0 }, SITE);
  return { port: Number(new URL(port.url).port), [Symbol.asyncDispose]: () => port.close(0) };
}

/** The version that was agreed on, or null. */
async function handshake(port: number, ca: string, version: 'TLSv1.3' | 'TLSv1.2' | 'TLSv1.1'): Promise<string | null> {
  // Level 0, or our own side would refuse the old one.
  const options = { minVersion: version, maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0' } as const;
  const socket = connectTls({ host: '127.0.0.1', port, ca, ...options });
  return await new Promise((resolve) => {
    socket.once('secureConnect', () => resolve(socket.getProtocol())).once('error', () => resolve(null));
  }).then((protocol) => {
    socket.destroy();
    return protocol as string | null;
  });
}
