/**
 * A provider that answers with garbled bytes, over a real socket and through the real transport: whatever comes back,
 * the request had arrived, so it is answered or lost and never "not sent"; and only an answer whose bytes have the words
 * is taken for a yes.
 */
import fc from 'fast-check';
import { providers } from '../../../src/providers/index.ts';
import { Transport } from '../../../src/workers/transport.ts';
import { bind, loadFixture } from '../../providers/fixture.ts';
import { startProviderServer, type WireRequest } from '../../support/provider-server.ts';
import { anyBytes, mutatedOneOf, mutateText, seldom, textMutation } from '../mutate.ts';
import { oracles } from '../oracles/providers.ts';
import { demand, demandNoLeak, type Target } from '../target.ts';
import { CANARY } from './provider-answers.ts';

interface WireCase {
  readonly adapter: string;
  /** Everything that the provider writes; one character a byte. */
  readonly bytes: string;
  /** Written in so many pieces. */
  readonly pieces: number;
  readonly afterwards: 'close' | 'reset' | 'keep';
}

export interface WireSubject {
  send(transport: Transport, request: Parameters<Transport['send']>[0]): ReturnType<Transport['send']>;
}

const TIMEOUT_MS = 150;

const REASONS = ['OK', 'Bad Request', '', 'ü', 'x'.repeat(200)];
const CALM_LINES = [
  'Content-Type: application/json',
  'Content-Type: text/html',
  'Set-Cookie: a=b',
  'Retry-After: 5',
  `X-Canary: ${CANARY}`,
];
const ODD_LINES = [
  ...['Transfer-Encoding: chunked', 'Transfer-Encoding: gzip, chunked', 'Connection: close', 'Content-Encoding: gzip'],
  ...[
    'Content-Length: 5',
    'Content-Length: -1',
    'Content-Length: 99999',
    'Location: http://127.0.0.1:1/',
    'X: ü',
    ' folded: yes',
  ],
  ...['nameless', ': x', 'X-Long: '.padEnd(20_000, 'x'), 'Upgrade: websocket', 'Trailer: X', '__proto__: x'],
];

export async function providerWire(
  subject: WireSubject = { send: (transport, request) => transport.send(request) },
): Promise<Target<WireCase>> {
  const scripts = new Map<string, WireCase>();
  const provider = await startProviderServer((socket, { path }) => {
    const given = scripts.get(path);
    if (given === undefined) return void socket.destroy();
    const bytes = Buffer.from(given.bytes, 'latin1');
    const size = Math.max(1, Math.ceil(bytes.length / given.pieces));
    for (let at = 0; at < bytes.length; at += size) socket.write(bytes.subarray(at, at + size));
    if (given.afterwards === 'close') socket.end();
    else if (given.afterwards === 'reset') setImmediate(() => socket.resetAndDestroy());
  });
  const transport = new Transport({ baseUrl: provider.url, connections: 10, timeoutMs: TIMEOUT_MS });
  const bound = new Map(
    Object.entries(providers).map(([adapter, definition]) => {
      const fixture = loadFixture(adapter);
      const reference = fixture.requests.find(({ call }) => call === 'verify')?.reference?.value ?? '';
      return [adapter, { provider: bind(definition, fixture), reference }] as const;
    }),
  );
  let number = 0;

  return {
    name: 'provider-wire',
    batch: 100,
    cases: fc.oneof(...Object.keys(providers).map(casesOf)),
    async check(given) {
      const { adapter, bytes } = given;
      const path = `/${++number}`;
      scripts.set(path, given);
      const before = provider.requests.length;
      const reply = await subject.send(transport, {
        method: 'POST',
        url: `${provider.url}${path}`,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ otp: CANARY }),
      });
      scripts.delete(path);
      const arrived = (provider.requests as WireRequest[])
        .splice(before)
        .filter((request) => request.path === path).length;
      demand(arrived <= 1, `${arrived} requests of one call crossed the wire`);
      switch (reply.kind) {
        case 'not_sent':
          demand(arrived === 0, `called not sent (${reply.code}), and it had arrived`);
          return 'not_sent';
        case 'lost':
          demand(/^[A-Z0-9_]{1,64}$/.test(reply.code), 'lost, by a code that is no word');
          return `lost ${reply.code}`;
        case 'answered': {
          const { response } = reply;
          demand(response.status >= 200 && response.status <= 999, `answered with the status ${response.status}`);
          demand(bytes.includes(String(response.status)), 'answered with a status that nobody sent');
          const { provider: own, reference } = bound.get(adapter) ?? (bound.values().next().value as never);
          const outcome = own.operations.verify?.interpret(response, reference);
          demandNoLeak('providerCode', String(outcome?.providerCode), [CANARY]);
          if (outcome?.kind === 'accepted') {
            const allowed = oracles[adapter]?.answer('verify', response, reference, {});
            demand(allowed?.accepted === true, `${adapter}: accepted, and the words for it do not stand there`);
          }
          return `answered, ${outcome?.kind}`;
        }
      }
      return reply satisfies never;
    },
    async close() {
      await transport.close();
      await provider.close();
    },
  };
}

function casesOf(adapter: string): fc.Arbitrary<WireCase> {
  const responses = loadFixture(adapter).responses.filter(({ operation }) => operation === 'verify');
  const good = fc
    .record({
      document: mutatedOneOf(
        responses.map(({ response }) => response.body),
        { canaries: [CANARY] },
      ).filter(({ text }) => text.length < 20_000),
      version: seldom(fc.constantFrom('HTTP/1.0', 'HTTP/2', 'http/1.1', 'ICY'), 10).map(
        (version) => version ?? 'HTTP/1.1',
      ),
      reason: fc.constantFrom(...REASONS),
      headers: fc.tuple(seldom(fc.constantFrom(...CALM_LINES), 2), seldom(fc.constantFrom(...ODD_LINES), 4)),
      framing: fc.constantFrom(
        'length' as const,
        'length' as const,
        'length' as const,
        'chunked' as const,
        'none' as const,
        'wrong' as const,
      ),
      interim: seldom(
        fc.constantFrom(
          'HTTP/1.1 100 Continue\r\n\r\n',
          'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n',
          'HTTP/1.1 101 Switching Protocols\r\n\r\n',
        ),
        10,
      ),
      again: seldom(fc.constant('HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"Ok"}'), 15),
      encoding: fc.constantFrom(
        'utf8' as const,
        'utf8' as const,
        'utf8' as const,
        'utf16le' as const,
        'latin1' as const,
      ),
    })
    .map(({ document, version, reason, headers, framing, interim, again, encoding }) => {
      const status = responses[document.from]?.response.status ?? 200;
      const body = Buffer.from(document.text, encoding).toString('latin1');
      const chunked = `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
      const frame = {
        length: [`Content-Length: ${body.length}`, body],
        wrong: [`Content-Length: ${Math.max(0, body.length - 7)}`, body],
        chunked: ['Transfer-Encoding: chunked', body === '' ? '0\r\n\r\n' : chunked],
        none: ['X-Nothing: said', body],
      }[framing];
      const lines = [`${version} ${status} ${reason}`, ...headers.filter((line) => line !== null), frame[0]];
      const head = lines.map((line) => Buffer.from(String(line), 'utf8').toString('latin1'));
      return `${interim ?? ''}${head.join('\r\n')}\r\n\r\n${frame[1]}${again ?? ''}`;
    });
  const bytes = fc.oneof(
    { weight: 6, arbitrary: good },
    {
      weight: 3,
      arbitrary: fc
        .tuple(good, fc.array(textMutation, { minLength: 1, maxLength: 3 }))
        .map(([text, mutations]) => mutations.reduce(mutateText, text)),
    },
    { weight: 1, arbitrary: anyBytes(80) },
  );
  return fc
    .record({
      bytes,
      pieces: fc.constantFrom(1, 1, 2, 7),
      afterwards: fc.constantFrom('close' as const, 'close' as const, 'reset' as const, 'keep' as const),
    })
    .map(({ bytes, ...rest }) => ({ adapter, bytes: Buffer.from(bytes, 'latin1').toString('latin1'), ...rest }));
}
