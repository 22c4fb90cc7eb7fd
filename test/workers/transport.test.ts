/** The transport on real sockets that misbehave. What it says of a call is held against what was seen on the wire. */
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import type { TLSSocket } from 'node:tls';
import { request } from 'undici';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { providers } from '../../src/providers/index.ts';
import type { HttpRequest, Provider } from '../../src/providers/provider.ts';
import { freePort } from '../../src/redis/process.ts';
import { Secret } from '../../src/secret.ts';
import { connector } from '../../src/workers/connecting.ts';
import { type Reply, Transport, type TransportSettings } from '../../src/workers/transport.ts';
import { bind, build, loadFixture, type RequestCase, stampOf } from '../providers/fixture.ts';
import { authority, hasOpenssl } from '../support/certificates.ts';
import { answer, type Behaviour, behaviours, startBlackHole, startProviderServer } from '../support/provider-server.ts';
import { BEST_OF_THREE } from '../support/timing.ts';
import { tunnels } from '../support/tunnel.ts';

const open = new Set<Transport>();

function transportTo(baseUrl: string, settings: Partial<TransportSettings> = {}): Transport {
  const transport = new Transport({ baseUrl, connections: 10, timeoutMs: 3_000, ...settings });
  open.add(transport);
  return transport;
}

afterEach(async () => {
  await Promise.all([...open].map((transport) => transport.close()));
  open.clear();
});

const post = (baseUrl: string, path = '/verify', body = '{"otp":"123456"}'): HttpRequest => ({
  method: 'POST',
  url: `${baseUrl}${path}`,
  headers: { 'Content-Type': 'application/json', 'X-Signature': 'abc=' },
  body,
});

const [ours, theirs] = [authority('the one that the configuration names'), authority('one that nobody named')];
const HERE = 'IP:127.0.0.1';

/** Short where it is waited for; so long elsewhere that a busy machine does not come into it. */
const timeoutFor = (code: RegExp): number => (code.source === '^TIMEOUT$' ? 400 : 5_000);

describe('an answer', () => {
  test('comes back whole, and the request goes out byte for byte', async () => {
    await using server = await startProviderServer(
      behaviours.says(403, '{"naïve":"ü"}', { 'X-Thing': 'A', 'Retry-After': '7' }),
    );
    const sentAfter = performance.now();
    const reply = await transportTo(server.url).send(post(server.url, '/a/b?c=d%20e', '{"otp":"0123","name":"Åse"}'));
    expect(reply).toMatchObject({ kind: 'answered', response: { status: 403, body: '{"naïve":"ü"}' } });
    if (reply.kind !== 'answered') return;
    expect(reply.response.headers).toMatchObject({ 'x-thing': 'A', 'retry-after': '7' });
    expect(reply.sentAt).toBeGreaterThanOrEqual(sentAfter);
    expect(reply.sentAt).toBeLessThanOrEqual(performance.now());
    expect(server.requests).toHaveLength(1);
    expect(server.requests[0]).toMatchObject({
      method: 'POST',
      path: '/a/b?c=d%20e',
      body: '{"otp":"0123","name":"Åse"}',
    });
    expect(server.requests[0]?.headers).toMatchObject({ 'content-type': 'application/json', 'x-signature': 'abc=' });
  });

  test('to a request without a body is an answer too', async () => {
    await using server = await startProviderServer(behaviours.says200);
    const asking: HttpRequest = { method: 'GET', url: `${server.url}/status?id=1`, headers: {} };
    expect(await transportTo(server.url).send(asking)).toMatchObject({
      kind: 'answered',
      response: { body: '/status?id=1' },
    });
    expect(server.requests[0]).toMatchObject({ method: 'GET', body: '' });
  });

  test.each([500, 502, 401, 204, 304, 479, 999])('with status %i is an answer', async (status) => {
    await using server = await startProviderServer(behaviours.says(status));
    expect(await transportTo(server.url).send(post(server.url))).toMatchObject({
      kind: 'answered',
      response: { status },
    });
  });

  test.each([301, 302, 303, 307, 308])('%i is an answer, and where it points is not visited', async (status) => {
    await using elsewhere = await startProviderServer(behaviours.says200);
    await using server = await startProviderServer((socket, request) =>
      behaviours.says(status, '', { location: request.path === '/near' ? '/second' : `${elsewhere.url}/third` })(
        socket,
        request,
      ),
    );
    const transport = transportTo(server.url);
    for (const path of ['/near', '/far']) {
      expect(await transport.send(post(server.url, path))).toMatchObject({ kind: 'answered', response: { status } });
    }
    expect(server.requests.map(({ path }) => path)).toEqual(['/near', '/far']);
    expect(elsewhere.connections).toBe(0);
  });

  test('is whole up to 1 MiB, and beyond that none', async () => {
    await using server = await startProviderServer((socket, request) =>
      behaviours.says(200, 'x'.repeat(1_048_576 + Number(request.path.slice(1))))(socket, request),
    );
    const transport = transportTo(server.url);
    const whole = await transport.send(post(server.url, '/0'));
    expect(whole.kind === 'answered' && whole.response.body.length).toBe(1_048_576);
    expect(await transport.send(post(server.url, '/1'))).toMatchObject({ kind: 'lost', code: 'RESPONSE_TOO_LARGE' });
  });

  test('is the final one, whatever was announced before it', async () => {
    await using server = await startProviderServer((socket) => {
      socket.write('HTTP/1.1 102 Processing\r\nx-early: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n');
      socket.write(answer(200, 'final', { 'x-late': '1' }));
    });
    const reply = await transportTo(server.url).send(post(server.url));
    expect(reply).toMatchObject({
      kind: 'answered',
      response: { status: 200, body: 'final', headers: { 'x-late': '1' } },
    });
    expect(reply.kind === 'answered' && reply.response.headers['x-early']).toBeUndefined();
  });

  test('in chunks, and one that ends with the connection, is whole', async () => {
    await using server = await startProviderServer((socket, { path }) => {
      if (path === '/chunked')
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n');
      else socket.end('HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcde');
    });
    const transport = transportTo(server.url);
    for (const path of ['/chunked', '/to-the-end']) {
      expect(await transport.send(post(server.url, path))).toMatchObject({
        kind: 'answered',
        response: { body: 'abcde' },
      });
    }
  });
});

describe('provably not sent', () => {
  test('because the connection is refused', async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    expect(await transportTo(url).send(post(url))).toEqual({ kind: 'not_sent', code: 'ECONNREFUSED' });
  });

  test('because the name cannot be resolved', async () => {
    const url = 'http://no-such-host.invalid';
    const reply = await transportTo(url).send(post(url));
    expect(reply).toEqual({ kind: 'not_sent', code: expect.stringMatching(/^(ENOTFOUND|EAI_AGAIN)$/) });
  });

  test('because the other side speaks no TLS', async () => {
    await using server = await startProviderServer(behaviours.says200);
    server.onConnection((socket) => void socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    const url = server.url.replace('http:', 'https:');
    expect(await transportTo(url).send(post(url))).toMatchObject({ kind: 'not_sent' });
  });

  test('because the connection never comes to be: not within the time-out, not before the right to send is over', async () => {
    await using hole = await startBlackHole();
    const transport = transportTo(hole.url, { timeoutMs: 400 });
    const replies = await Promise.all([
      transport.send(post(hole.url)),
      transport.send(post(hole.url), performance.now() + 150),
      transport.send(post(hole.url), performance.now() - 1),
    ]);
    expect(replies).toEqual([
      { kind: 'not_sent', code: 'TIMEOUT' },
      { kind: 'not_sent', code: 'SEND_BEFORE_PASSED' },
      { kind: 'not_sent', code: 'SEND_BEFORE_PASSED' },
    ]);
  });

  test('because connecting takes too long', BEST_OF_THREE, async () => {
    await using hole = await startBlackHole();
    const startedAt = performance.now();
    expect(await transportTo(hole.url, { timeoutMs: 30_000 }).send(post(hole.url))).toEqual({
      kind: 'not_sent',
      code: 'UND_ERR_CONNECT_TIMEOUT',
    });
    expect(performance.now() - startedAt).toBeLessThan(9_000);
  });

  test('because the right to send was over before it began: nothing is on the wire', async () => {
    await using server = await startProviderServer(behaviours.says200);
    const transport = transportTo(server.url);
    await transport.send(post(server.url, '/warm')); // a socket stands ready, so nothing else could hold it back
    const before = server.bytes;
    for (const sendBefore of [0, performance.now() - 1_000, performance.now()]) {
      expect(await transport.send(post(server.url), sendBefore)).toEqual({
        kind: 'not_sent',
        code: 'SEND_BEFORE_PASSED',
      });
    }
    expect(await transport.send(post(server.url, '/after'))).toMatchObject({ kind: 'answered' });
    expect(server.requests.map(({ path }) => path)).toEqual(['/warm', '/after']);
    expect(server.bytes - before).toBe(server.requests.at(-1)?.raw.length);
  });

  test('because the right to send passed while it waited for a socket', async () => {
    await using server = await startProviderServer(behaviours.isSilent);
    const transport = transportTo(server.url, { connections: 1, timeoutMs: 600 });
    const first = transport.send(post(server.url, '/first'));
    await server.arrived(1);
    const second = await transport.send(post(server.url, '/second'), performance.now() + 50);
    expect(second).toEqual({ kind: 'not_sent', code: 'SEND_BEFORE_PASSED' });
    expect(await first).toMatchObject({ kind: 'lost', code: 'TIMEOUT' });
    // The socket is free again, and what was given up does not leave after all.
    server.behave(behaviours.says200);
    expect(await transport.send(post(server.url, '/third'))).toMatchObject({ kind: 'answered' });
    expect(server.requests.map(({ path }) => path)).toEqual(['/first', '/third']);
  });

  test('because the process slept over the right to send while the connection came to be', async () => {
    await using server = await startProviderServer(behaviours.says200);
    const reply = transportTo(server.url).send(post(server.url), performance.now() + 30);
    const wake = performance.now() + 80;
    while (performance.now() < wake); // no timer could fire here; the check at the moment of writing has to
    expect(await reply).toEqual({ kind: 'not_sent', code: 'SEND_BEFORE_PASSED' });
    expect(server.requests).toEqual([]);
  });

  test('because it was to go to another origin', async () => {
    await using other = await startProviderServer(behaviours.says200);
    await using server = await startProviderServer(behaviours.says200);
    const transport = transportTo(server.url);
    for (const url of [
      other.url,
      server.url.replace('http:', 'https:'),
      server.url.replace('127.0.0.1', 'localhost'),
      `${server.url}@${new URL(other.url).host}`,
      `${server.url}0`,
      `//${new URL(other.url).host}`,
    ]) {
      expect(await transport.send(post(url))).toEqual({ kind: 'not_sent', code: 'FOREIGN_ORIGIN' });
    }
    expect(await transport.send(post('no address at all'))).toEqual({ kind: 'not_sent', code: 'FOREIGN_ORIGIN' });
    expect([other.connections, server.connections]).toEqual([0, 0]);
  });

  test('because its headers name another host, whose certificate would then be asked for', async () => {
    await using server = await startProviderServer(behaviours.says200);
    for (const name of ['Host', 'host', 'HOST']) {
      const elsewhere = { ...post(server.url), headers: { [name]: 'provider.example' } };
      expect(await transportTo(server.url).send(elsewhere)).toEqual({ kind: 'not_sent', code: 'FOREIGN_ORIGIN' });
    }
    expect(server.connections).toBe(0);
  });

  test('because a header could not be written', async () => {
    await using server = await startProviderServer(behaviours.says200);
    const request = { ...post(server.url), headers: { 'X-Bad': 'a\r\nX-Injected: b' } };
    expect(await transportTo(server.url).send(request)).toMatchObject({
      kind: 'not_sent',
      code: 'UND_ERR_INVALID_ARG',
    });
    expect(server.requests).toEqual([]);
  });

  test('because the transport is closed', async () => {
    await using server = await startProviderServer(behaviours.says200);
    const transport = transportTo(server.url);
    await transport.close();
    expect(await transport.send(post(server.url))).toMatchObject({ kind: 'not_sent' });
    expect(server.connections).toBe(0);
  });
});

describe('lost: it may have left, and nothing answers', () => {
  const rows: [how: string, behaviour: Behaviour, code: RegExp][] = [
    ['the connection is closed after reading', behaviours.closes, /^UND_ERR_SOCKET$/],
    ['the connection is reset after reading', behaviours.resets, /^ECONNRESET$/],
    ['nothing comes', behaviours.isSilent, /^TIMEOUT$/],
    [
      'headers come, then nothing',
      (socket) => void socket.write('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n'),
      /^TIMEOUT$/,
    ],
    [
      'a 100 comes that nobody asked for, which the client does not take',
      (socket) => void socket.write(`HTTP/1.1 100 Continue\r\n\r\n${answer(200)}`),
      /^UND_ERR_SOCKET$/,
    ],
    [
      'an announcement comes, then nothing',
      (socket) => void socket.write('HTTP/1.1 103 Early Hints\r\n\r\n'),
      /^TIMEOUT$/,
    ],
    [
      'half of the body comes, then the end',
      (socket) => void socket.end(answer(200, '{"status":true}').slice(0, -7)),
      /^UND_ERR_/,
    ],
    [
      'half of the body comes, then nothing',
      (socket) => void socket.write(answer(200, '{"status":true}').slice(0, -7)),
      /^TIMEOUT$/,
    ],
    [
      'half of the chunks come, then the end',
      (socket) => void socket.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n'),
      /^(UND_ERR_|HPE_)/,
    ],
    [
      'the body drips without end',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
        const drip = setInterval(() => (socket.destroyed ? clearInterval(drip) : socket.write('1\r\nx\r\n')), 20);
      },
      /^TIMEOUT$/,
    ],
    [
      'the body has no end and comes fast',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
        const chunk = `4000\r\n${'x'.repeat(0x4000)}\r\n`;
        const pour = (): void => {
          while (!socket.destroyed && socket.write(chunk));
        };
        socket.on('drain', pour);
        pour();
      },
      /^RESPONSE_TOO_LARGE$/,
    ],
    [
      'something comes that is no HTTP',
      (socket) => void socket.write('SSH-2.0-OpenSSH_9.6\r\n'),
      /^(HPE_|UNNAMED_ERROR)/,
    ],
    [
      'the headers drip without end',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\nx: ');
        const drip = setInterval(() => (socket.destroyed ? clearInterval(drip) : socket.write('y')), 20);
      },
      /^TIMEOUT$/,
    ],
    [
      'there are more headers than anyone needs',
      (socket) => void socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 0\r\n${'x: y\r\n'.repeat(9_000)}\r\n`),
      /^(UND_ERR_HEADERS_OVERFLOW|HPE_HEADER_OVERFLOW)$/,
    ],
    [
      'there are more trailers than anyone needs',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n');
        socket.write(`${'x: y\r\n'.repeat(9_000)}\r\n`);
      },
      /^(UND_ERR_HEADERS_OVERFLOW|HPE_HEADER_OVERFLOW)$/,
    ],
    [
      'headers come that have no end',
      (socket) => void socket.write(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}`),
      /^(UND_ERR_HEADERS_OVERFLOW|HPE_HEADER_OVERFLOW)$/,
    ],
    [
      'another protocol is offered',
      (socket) => void socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n'),
      /^(UND_ERR_|HPE_)/,
    ],
  ];
  test.each(rows)('when %s', async (_, behaviour, code) => {
    await using server = await startProviderServer(behaviour);
    const reply = await transportTo(server.url, { timeoutMs: timeoutFor(code) }).send(post(server.url));
    expect(reply).toEqual({ kind: 'lost', code: expect.stringMatching(code), sentAt: expect.any(Number) });
    expect(server.requests).toHaveLength(1);
  });

  test('when a connection is closed as soon as it stands', async () => {
    await using server = await startProviderServer(behaviours.says200);
    server.onConnection((socket) => socket.destroy());
    const reply = await transportTo(server.url, { timeoutMs: 1_000 }).send(post(server.url));
    // Nothing was read, but the headers were handed to a socket: that proves nothing either way.
    expect(reply.kind).not.toBe('answered');
    expect(server.requests).toEqual([]);
  });

  test('when the server dies with the answer in its hands, and the next call is not mixed up with it', async () => {
    await using server = await startProviderServer((socket, { path }) => {
      if (path === '/dies') socket.resetAndDestroy();
      else socket.write(answer(200, path));
    });
    const transport = transportTo(server.url);
    const replies = await Promise.all(
      ['/dies', '/lives', '/dies', '/lives'].map((path) => transport.send(post(server.url, path))),
    );
    expect(replies.map(({ kind }) => kind)).toEqual(['lost', 'answered', 'lost', 'answered']);
    expect(server.requests).toHaveLength(4);
  });

  test('when the transport is closed under it', async () => {
    await using server = await startProviderServer(behaviours.isSilent);
    const transport = transportTo(server.url);
    const reply = transport.send(post(server.url));
    await server.arrived(1);
    await transport.close();
    expect(await reply).toMatchObject({ kind: 'lost' });
  });
});

describe('on the wire', () => {
  const answered = new WeakSet<object>();

  test('stands exactly one request per call, however many calls run at once', async () => {
    await using server = await startProviderServer(behaviours.says200);
    const transport = transportTo(server.url, { connections: 7 });
    const paths = Array.from({ length: 200 }, (_, index) => `/call/${index}`);
    const replies = await Promise.all(paths.map((path) => transport.send(post(server.url, path))));
    expect(replies.map((reply) => reply.kind === 'answered' && reply.response.body)).toEqual(paths);
    expect(server.requests.map(({ path }) => path).sort()).toEqual([...paths].sort());
    expect(server.connections).toBeLessThanOrEqual(7);
  });

  test.each<[how: string, behaviour: Behaviour]>([
    ['closed behind an answer that promised to keep it open', (socket, { path }) => void socket.end(answer(200, path))],
    [
      'reset a moment after its answer',
      (socket, { path }) => {
        socket.write(answer(200, path));
        setImmediate(() => socket.resetAndDestroy());
      },
    ],
    [
      'closed as soon as the next request arrives',
      (socket, { path }) => {
        if (answered.has(socket)) socket.destroy();
        else socket.write(answer(200, path));
        answered.add(socket);
      },
    ],
  ])('stands at most one request per call when the kept socket was %s', async (_, behaviour) => {
    await using server = await startProviderServer(behaviour);
    const transport = transportTo(server.url, { connections: 2, timeoutMs: 1_000 });
    const kinds = new Map<string, string>();
    for (let round = 0; round < 40; round += 1) {
      const paths = [`/${round}/a`, `/${round}/b`];
      const replies = await Promise.all(paths.map((path) => transport.send(post(server.url, path))));
      for (const [index, reply] of replies.entries()) kinds.set(paths[index] as string, reply.kind);
      if (round % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    const seen = server.requests.map(({ path }) => path);
    expect(new Set(seen).size).toBe(seen.length);
    for (const [path, kind] of kinds) {
      if (kind === 'answered') expect(seen).toContain(path);
      if (kind === 'not_sent') expect(seen).not.toContain(path);
    }
  });

  test('two calls at once do not take each other for sent', async () => {
    await using server = await startProviderServer(behaviours.resets);
    const deadUrl = `http://127.0.0.1:${await freePort()}`;
    const [alive, dead] = [transportTo(server.url), transportTo(deadUrl)];
    for (let round = 0; round < 20; round += 1) {
      const sends = [
        () => alive.send(post(server.url)),
        () => dead.send(post(deadUrl)),
        () => alive.send(post(server.url), 0),
      ];
      const order = round % 2 === 0 ? [0, 1, 2] : [2, 1, 0];
      const replies = await Promise.all(order.map(async (index) => ({ index, reply: await sends[index]?.() })));
      const kindOf = (wanted: number): string | undefined => replies.find(({ index }) => index === wanted)?.reply?.kind;
      expect([kindOf(0), kindOf(1), kindOf(2)]).toEqual(['lost', 'not_sent', 'not_sent']);
    }
    expect(server.requests).toHaveLength(20);
  });

  test('another client in the same process does not make an unsent call look sent', async () => {
    await using server = await startProviderServer(behaviours.says200);
    await using hole = await startBlackHole();
    const waiting = transportTo(hole.url, { timeoutMs: 300 }).send(post(hole.url));
    await Promise.all(Array.from({ length: 5 }, () => fetch(`${server.url}/fetched`)));
    expect(await waiting).toEqual({ kind: 'not_sent', code: 'TIMEOUT' });
  });

  test('another client in the same process does not make a sent call look sent later', async () => {
    await using server = await startProviderServer((socket, request) => {
      if (request.path === '/fetched') behaviours.says200(socket, request);
    });
    const waiting = transportTo(server.url, { timeoutMs: 300 }).send(post(server.url));
    await server.arrived(1);
    const arrivedAt = performance.now();
    await Promise.all([fetch(`${server.url}/fetched`), request(`${server.url}/fetched`)]);
    const reply = await waiting;
    expect(reply).toMatchObject({ kind: 'lost', code: 'TIMEOUT' });
    expect(reply.kind === 'lost' && reply.sentAt).toBeLessThan(arrivedAt);
  });

  test(
    'a call takes its whole time-out from the call on, and a slow answer within it is an answer',
    BEST_OF_THREE,
    async () => {
      await using server = await startProviderServer((socket, { path }) => {
        setTimeout(() => !socket.destroyed && socket.write(answer(200)), path === '/slow' ? 150 : 900);
      });
      const transport = transportTo(server.url, { timeoutMs: 450 });
      const startedAt = performance.now();
      const [slow, tooSlow] = await Promise.all(
        ['/slow', '/too-slow'].map((path) => transport.send(post(server.url, path))),
      );
      expect([slow?.kind, tooSlow?.kind]).toEqual(['answered', 'lost']);
      expect(performance.now() - startedAt).toBeLessThan(880);
    },
  );

  test('an error is told by its code, never by a message that may quote what was sent', async () => {
    const server = createServer((socket) => socket.resetAndDestroy());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const url = `http://127.0.0.1:${port}`;
    const reply = await transportTo(url).send(post(url, '/verify', '{"otp":"424242"}'));
    expect(JSON.stringify(reply)).toMatch(/"code":"[A-Z_]+"/);
    expect(JSON.stringify(reply)).not.toContain('424242');
    await new Promise((resolve) => server.close(resolve));
  });
});

describe.skipIf(!hasOpenssl)('over TLS', () => {
  const issued = ours.issue('provider', HERE);

  test('an authority that the configuration names vouches for the provider, and no other does', async () => {
    await using server = await startProviderServer(behaviours.says200, { tls: issued });
    const byOurs = transportTo(server.url, { tls: { ca: ours.cert } });
    expect(await byOurs.send(post(server.url))).toMatchObject({ kind: 'answered' });
    for (const settings of [{}, { tls: { ca: theirs.cert } }]) {
      const reply = await transportTo(server.url, settings).send(post(server.url));
      expect(reply).toEqual({ kind: 'not_sent', code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' });
    }
    expect(server.requests).toHaveLength(1);
  });

  test('a certificate for another name is refused', async () => {
    const tls = ours.issue('127.0.0.1', 'DNS:provider.example,IP:127.0.0.2');
    await using server = await startProviderServer(behaviours.says200, { tls });
    const reply = await transportTo(server.url, { tls: { ca: ours.cert } }).send(post(server.url));
    expect(reply).toEqual({ kind: 'not_sent', code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
    expect(server.requests).toEqual([]);
  });

  test('the provider is shown our certificate where it asks for one', async () => {
    const tls = { ...issued, ca: ours.cert, requestCert: true, rejectUnauthorized: true };
    await using server = await startProviderServer(behaviours.says200, { tls });
    const shown: unknown[] = [];
    server.onConnection((socket) => shown.push((socket as TLSSocket).getPeerCertificate().subject.CN));
    const client = { ca: ours.cert, ...ours.issue('the client', 'DNS:client') };
    expect(await transportTo(server.url, { tls: client }).send(post(server.url))).toMatchObject({ kind: 'answered' });
    expect(shown).toEqual(['the client']);

    for (const other of [{ ca: client.ca }, { ...client, ...theirs.issue('the client', 'DNS:client') }]) {
      const reply = await transportTo(server.url, { tls: other }).send(post(server.url));
      // In TLS 1.3 a client has spoken before it hears that it is not wanted: no proof, although nothing was read.
      expect(reply.kind).not.toBe('answered');
    }
    expect(server.requests).toHaveLength(1);
  });

  test('1.2 is enough', async () => {
    const tls = { ...issued, maxVersion: 'TLSv1.2' };
    await using server = await startProviderServer(behaviours.says200, { tls });
    const reply = await transportTo(server.url, { tls: { ca: ours.cert } }).send(post(server.url));
    expect(reply).toMatchObject({ kind: 'answered' });
  });

  test('a handshake that nobody answers is given up with the call', async () => {
    await using server = await startProviderServer(behaviours.isSilent);
    const url = server.url.replace('http:', 'https:');
    const reply = await transportTo(url, { timeoutMs: 300 }).send(post(url));
    expect(reply).toEqual({ kind: 'not_sent', code: 'TIMEOUT' });
  });
});

const source = (name: string) => JSON.stringify(new URL(`../../src/workers/${name}`, import.meta.url).href);

describe.skipIf(!hasOpenssl)('in an environment that would have everything allowed', () => {
  let replies: Record<'stranger' | 'old' | 'wide' | 'plain', Reply>;
  let trusting: Record<'stranger' | 'old' | 'wide', number>;
  let posted: Record<'stranger' | 'old', string>;
  let seen: { proxied: number; arrived: number };

  beforeAll(async () => {
    const [tls, untrusted] = [ours.issue('provider', HERE), theirs.issue('provider', HERE)];
    const oldest = { ...tls, minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' };
    await using stranger = await startProviderServer(behaviours.says200, { tls: untrusted });
    await using old = await startProviderServer(behaviours.says200, { tls: oldest });
    await using wide = await startProviderServer(behaviours.says(200, '', { x: 'y'.repeat(60_000) }), { tls });
    await using plain = await startProviderServer(behaviours.says200);
    await using proxy = await startProviderServer(behaviours.says200);
    const urls = { stranger: stranger.url, old: old.url, wide: wide.url, plain: plain.url };
    const lines = `
      import { get } from 'node:https';
      import { Pool } from 'undici';
      import { AddressGuard } from ${source('public-address.ts')};
      import { Transport } from ${source('transport.ts')};
      const [urls, ca] = ${JSON.stringify([urls, ours.cert])};
      const ask = async (url) => {
        const transport = new Transport({ baseUrl: url, connections: 1, timeoutMs: 8000, tls: { ca } });
        const reply = await transport.send({ method: 'POST', url: url + '/verify', headers: {}, body: '{}' });
        await transport.close();
        return reply;
      };
      const post = async (url) => {
        const connect = new AddressGuard({ allow: ['127.0.0.1'] }).connector();
        const pool = new Pool(url, { connect });
        const outcome = await pool.request({ path: '/', method: 'POST' }).then(() => 'posted', ({ code }) => code);
        await pool.destroy();
        return outcome;
      };
      const trust = (url) => new Promise((done, failed) =>
        get(url, { agent: false }, (answer) => done(answer.resume().statusCode)).on('error', failed));
      const all = async (work, names) =>
        Object.fromEntries(await Promise.all(names.map(async (name) => [name, await work(urls[name])])));
      const replies = await all(ask, ['stranger', 'old', 'wide', 'plain']);
      const trusting = await all(trust, ['stranger', 'old', 'wide']);
      console.log(JSON.stringify({ replies, trusting, posted: await all(post, ['stranger', 'old']) }));`;
    const weak = ['--tls-min-v1.0', '--tls-cipher-list=DEFAULT@SECLEVEL=0', '--max-http-header-size=1000000'];
    const proxied = ['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'all_proxy'];
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', lines], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: {
        PATH: process.env.PATH,
        NODE_TLS_REJECT_UNAUTHORIZED: '0',
        NODE_NO_WARNINGS: '1',
        NODE_OPTIONS: weak.join(' '),
        NODE_USE_ENV_PROXY: '1',
        ...Object.fromEntries(proxied.map((name) => [name, proxy.url])),
      },
    });
    ({ replies, trusting, posted } = JSON.parse(await text(child.stdout)));
    seen = { proxied: proxy.connections, arrived: plain.requests.length };
  });

  test('a certificate that nobody vouches for is refused all the same', () => {
    expect(replies.stranger).toEqual({ kind: 'not_sent', code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' });
    expect(trusting.stranger).toBe(200);
  });

  test('a provider that speaks no TLS above 1.1 is refused all the same', () => {
    expect(replies.old).toEqual({ kind: 'not_sent', code: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION' });
    expect(trusting.old).toBe(200);
  });

  test('neither is posted to by a webhook', () => {
    expect(posted).toEqual({
      stranger: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
      old: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
    });
  });

  test('headers of 60 KB are too large all the same', () => {
    expect(replies.wide).toMatchObject({ kind: 'lost', code: 'UND_ERR_HEADERS_OVERFLOW' });
    expect(trusting.wide).toBe(200);
  });

  test('no call goes through the proxy that it names', () => {
    expect(replies.plain).toMatchObject({ kind: 'answered' });
    expect(seen).toEqual({ proxied: 0, arrived: 1 });
  });
});

describe.skipIf(!hasOpenssl)('through a proxy that the configuration names', () => {
  const tls = ours.issue('provider', HERE);
  const proxyOf = (url: string): Secret<string> => new Secret(url);

  test('the proxy learns the host, and TLS hides the rest from it', async () => {
    const overheard: Buffer[] = [];
    await using server = await startProviderServer(behaviours.says200, { tls });
    await using proxy = await startProviderServer(tunnels(overheard));
    const url = proxy.url.replace('//', '//us%40er:p%3Aw@');
    const transport = transportTo(server.url, { proxy: proxyOf(url), tls: { ca: ours.cert }, connections: 1 });
    for (const path of ['/first', '/second']) {
      expect(await transport.send(post(server.url, path))).toMatchObject({
        kind: 'answered',
        response: { body: path },
      });
    }
    expect(server.requests.map(({ path }) => path)).toEqual(['/first', '/second']);
    expect(server.requests[0]?.raw).not.toMatch(/proxy-/i);
    expect(proxy.requests.map(({ method, path }) => `${method} ${path}`)).toEqual([`CONNECT 127.0.0.1:${server.port}`]);
    expect(proxy.requests[0]?.headers['proxy-authorization']).toBe(`Basic ${btoa('us@er:p:w')}`);
    expect(proxy.requests[0]?.raw).not.toContain('123456');
    expect(Buffer.concat(overheard).length).toBeGreaterThan(500);
    expect(Buffer.concat(overheard).toString('latin1')).not.toMatch(/123456|verify|first/);
  });

  const rows: [how: string, behaviour: Behaviour, code: RegExp][] = [
    ['the proxy wants a password', behaviours.says(407), /^PROXY_ANSWERED_407$/],
    ['the proxy cannot reach the provider', behaviours.says(502), /^PROXY_ANSWERED_502$/],
    ['the proxy closes', behaviours.closes, /^ECONNRESET$/],
    ['the proxy resets', behaviours.resets, /^ECONNRESET$/],
    ['the proxy is silent', behaviours.isSilent, /^TIMEOUT$/],
    ['the proxy is none', (socket) => void socket.write('SSH-2.0-OpenSSH_9.6\r\n'), /^HPE_/],
    ['the proxy closes the tunnel', (socket) => void socket.end('HTTP/1.1 200 OK\r\n\r\n'), /^ECONNRESET$/],
    ['the proxy talks into it', (socket) => void socket.write('HTTP/1.1 200 OK\r\n\r\n220 hello'), /^PROXY_SPOKE$/],
    [
      'what is behind the proxy speaks no TLS',
      (socket) => {
        socket.removeAllListeners('data').once('data', () => socket.write(answer(200, 'x')));
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
      },
      /^ERR_SSL_/,
    ],
  ];
  test.each(rows)('not sent: %s', async (_, behaviour, code) => {
    await using proxy = await startProviderServer(behaviour);
    const transport = transportTo('https://127.0.0.1:1', { proxy: proxyOf(proxy.url), timeoutMs: timeoutFor(code) });
    const reply = await transport.send(post('https://127.0.0.1:1'));
    expect(reply).toEqual({ kind: 'not_sent', code: expect.stringMatching(code) });
    expect(proxy.connections).toBe(1);
  });

  test('not sent: nobody listens where the proxy should be', async () => {
    const proxy = proxyOf(`http://127.0.0.1:${await freePort()}`);
    const reply = await transportTo('https://127.0.0.1:1', { proxy }).send(post('https://127.0.0.1:1'));
    expect(reply).toEqual({ kind: 'not_sent', code: 'ECONNREFUSED' });
  });

  test('not sent: the tunnel leads to somebody else', async () => {
    await using server = await startProviderServer(behaviours.says200, { tls: theirs.issue('provider', HERE) });
    await using proxy = await startProviderServer(tunnels());
    const transport = transportTo(server.url, { proxy: proxyOf(proxy.url), tls: { ca: ours.cert } });
    const reply = await transport.send(post(server.url));
    expect(reply).toEqual({ kind: 'not_sent', code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' });
    expect(server.requests).toEqual([]);
  });

  test('not sent: our own certificate cannot be read', async () => {
    await using proxy = await startProviderServer(tunnels());
    await using server = await startProviderServer(behaviours.says200, { tls });
    const transport = transportTo(server.url, {
      proxy: proxyOf(proxy.url),
      tls: { ca: ours.cert, cert: 'x', key: 'x' },
    });
    expect(await transport.send(post(server.url))).toEqual({ kind: 'not_sent', code: expect.stringMatching(/^ERR_/) });
    expect(server.requests).toEqual([]);
  });

  test('not sent: without TLS the proxy would read the code', async () => {
    await using server = await startProviderServer(behaviours.says200);
    await using proxy = await startProviderServer(tunnels());
    const reply = await transportTo(server.url, { proxy: proxyOf(proxy.url) }).send(post(server.url));
    expect(reply).toEqual({ kind: 'not_sent', code: 'PROXY_NEEDS_TLS' });
    expect([proxy.connections, server.connections]).toEqual([0, 0]);
  });

  test('lost: the tunnel breaks behind the request', async () => {
    await using server = await startProviderServer(behaviours.closes, { tls });
    await using proxy = await startProviderServer(tunnels());
    const transport = transportTo(server.url, { proxy: proxyOf(proxy.url), tls: { ca: ours.cert } });
    expect(await transport.send(post(server.url))).toMatchObject({ kind: 'lost' });
    expect(server.requests).toHaveLength(1);
  });

  test('a tunnel that does not come is not waited for', async () => {
    await using proxy = await startProviderServer(behaviours.isSilent);
    const connecting = connector({ timeoutMs: 100, proxy: proxyOf(proxy.url) });
    const to = { protocol: 'https:', hostname: '127.0.0.1', port: '1' };
    const error = await new Promise((resolve) => connecting(to, (...[failed]) => resolve(failed)));
    expect(error).toMatchObject({ code: 'PROXY_TIMEOUT' });
  });
});

describe.each(Object.entries(providers))('what comes from outside moves no call: %s', (adapter, provider: Provider) => {
  const fixture = loadFixture(adapter);
  const bound = bind(provider, fixture);

  test.each([301, 302, 303, 307, 308])('an acceptance with status %i is none', (status) => {
    const accepted = fixture.responses.filter(({ scenario }) => scenario === 'accepted');
    expect(accepted).not.toEqual([]);
    for (const { operation, response } of accepted) {
      const headers = { ...response.headers, location: 'https://elsewhere.example/' };
      const outcome = bound.operations[operation]?.interpret({ ...response, status, headers }, 'a reference');
      expect(outcome?.kind).toBe('unknown');
    }
  });

  test.each([
    'https://169.254.169.254/',
    '//169.254.169.254/',
    '@169.254.169.254/',
    '/../../../admin?x=',
    '..%2f..%2fadmin#',
    '\\\\169.254.169.254\\',
  ])('a client that writes %s wherever it may', (hostile) => {
    const texts = (params: object | null | undefined): Record<string, unknown> =>
      Object.fromEntries(
        Object.entries(params ?? {}).map(([name, value]) => [name, typeof value === 'string' ? hostile : value]),
      );
    const placeOf = (given: RequestCase): string[] => {
      const { origin, pathname, hash } = new URL(build(bound, given, stampOf(fixture)).url);
      return [origin, pathname, hash];
    };
    const calls = fixture.requests.flatMap((given) => {
      const subject = { reference: hostile, params: texts(given.subject?.params) };
      const written = { ...given, params: texts(given.params), subject };
      if (given.call === 'inquiry') return [{ given, written }];
      if (given.call !== 'verify' && given.call !== 'send') return [];
      return bound.operations[given.call]?.params.safeParse(written.params).success ? [{ given, written }] : [];
    });
    for (const { given, written } of calls) expect(placeOf(written)).toEqual(placeOf(given));
    if (bound.inquiry) expect(calls).not.toEqual([]);
  });
});
