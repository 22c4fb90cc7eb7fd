import { connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { demoRequest, KIOSK, SHOP, startWorld, type World } from './world.ts';

const HEADERS = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
  'x-request-id': expect.stringMatching(/^[0-9a-f-]{36}$/),
};

describe('every answer', () => {
  it('has what keeps a browser from making anything of it, and an id of its own', async () => {
    await using world = await startWorld({
      clients: [SHOP, { ...KIOSK, maxInFlight: 0 }],
      rateLimit: () => ({ max: 1, perMs: 60_000 }),
    });
    const accepted = await world.post(demoRequest(), 'k-1');
    const replies = [
      accepted,
      await world.get(String(accepted.body.id)),
      await world.post({}, 'k'),
      await world.call({ method: 'GET', path: '/%zz' }),
      await world.call({ method: 'PUT' }),
      await world.call({ body: demoRequest(), key: 'k', apiKey: 'nobody' }),
      await world.call({ body: demoRequest(), key: 'k', apiKey: KIOSK.apiKey.reveal() }),
      await world.post(demoRequest(), 'k-2'),
      await world.post(demoRequest({ otp: '999999' }), 'k-1'),
      await world.call({ raw: '{', key: 'k' }),
      await world.call({ raw: 'x'.repeat(70_000), key: 'k' }),
      await world.call({ raw: '{}', key: 'k', headers: { 'content-type': 'text/plain' } }),
    ];
    expect(replies.map(({ status }) => status)).toEqual([202, 200, 400, 404, 405, 401, 429, 429, 422, 400, 413, 415]);
    for (const { headers } of replies) {
      expect(headers).toMatchObject(HEADERS);
      expect(headers).not.toHaveProperty('strict-transport-security');
    }
    expect(new Set(replies.map(({ headers }) => headers['x-request-id'])).size).toBe(replies.length);
  });

  it('tells no more of a fault of ours than its id, by which the log tells the rest', async () => {
    const partitions = new Map();
    partitions.get = () => {
      throw new Error('canary in /srv/otp/intake.ts');
    };
    await using world = await startWorld({ partitions });
    const reply = await world.post(demoRequest(), 'k-1');
    expect(reply).toMatchObject({ status: 500, headers: HEADERS });
    expect(reply.body).toEqual({
      type: 'urn:otp-pipeline:problem:internal-error',
      title: 'Something here failed',
      status: 500,
      detail: expect.stringContaining('same Idempotency-Key'),
    });
    expect(reply.text).not.toMatch(/canary|intake\.ts|\n/);
    expect(world.failed).toEqual([
      {
        where: 'intake',
        error: expect.objectContaining({ message: 'canary in /srv/otp/intake.ts' }),
        requestId: reply.headers['x-request-id'],
      },
    ]);
  });
});

describe('a body', () => {
  it('is JSON by its one media type, with no parameter but the charset that JSON has anyway', async () => {
    await using world = await startWorld();
    const refused = [
      'application/json; charset=utf-16',
      'application/json; charset=utf-8; charset=utf-16',
      'application/json; charset=latin1',
      'application/json; version=2',
      'application/json, text/plain',
      'application/json;',
      'text/json',
    ];
    const taken = ['application/json', 'Application/JSON ; Charset="utf-8"', 'application/json;charset=UTF-8'];
    const raw = JSON.stringify(demoRequest());
    for (const [index, type] of [...refused, ...taken].entries()) {
      const reply = await world.call({ raw, key: `k-${index}`, headers: { 'content-type': type } });
      expect([type, reply.status]).toEqual([type, index < refused.length ? 415 : 202]);
    }
  });

  it('is UTF-8 to the letter: nothing is guessed of a reference that is not', async () => {
    await using world = await startWorld();
    const body = (reference: Buffer): Buffer =>
      Buffer.concat([
        Buffer.from('{"provider":"demo","otp":"123456","params":{"reference":"'),
        reference,
        Buffer.from('"}}'),
      ]);
    for (const [index, bytes] of [[0xff], [0xe9], [0xc0, 0xaf], [0xed, 0xa0, 0x80]].entries()) {
      const reply = await world.call({ raw: body(Buffer.from(bytes)), key: `k-${index}` });
      expect(reply).toMatchObject({ status: 400, body: { type: 'urn:otp-pipeline:problem:malformed-json' } });
    }
    const reply = await world.call({ raw: body(Buffer.from('é')), key: 'k' });
    expect(reply).toMatchObject({ status: 202, body: { reference: 'é' } });
  });

  it('is nested 32 levels deep at most', async () => {
    await using world = await startWorld();
    const nested = (levels: number): unknown => (levels === 0 ? 1 : { a: nested(levels - 1) });
    const withLevels = (levels: number): object => demoRequest({ metadata: nested(levels - 1) });
    expect((await world.post(withLevels(32), 'k-32')).status).toBe(202);
    const deeper = await world.post(withLevels(33), 'k-33');
    expect(deeper).toMatchObject({
      status: 400,
      body: { errors: [{ field: '(body)', problem: 'must not be nested deeper than 32 levels' }] },
    });
  });

  it('is not read at all when it says that it is too large', async () => {
    await using world = await startWorld();
    const said = await spoken(world, [
      ...['POST /v1/verifications HTTP/1.1', 'Host: x', `Authorization: Bearer ${SHOP.apiKey.reveal()}`],
      ...['Content-Type: application/json', 'Idempotency-Key: k', 'Content-Length: 65537', '', '{'],
    ]);
    expect(said).toMatch(/^HTTP\/1\.1 413 /);
  });
});

describe('a header that may be there once', () => {
  it('is refused when it is there twice, whichever of the two is right', async () => {
    await using world = await startWorld();
    const raw = JSON.stringify(demoRequest());
    const headers = {
      Authorization: `Bearer ${SHOP.apiKey.reveal()}`,
      'Content-Type': 'application/json',
      'Idempotency-Key': 'k',
    };
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
    for (const name of Object.keys(headers)) {
      for (const twice of [
        [...lines, `${name.toLowerCase()}: other`],
        [`${name}: other`, ...lines],
      ]) {
        const end = [`Content-Length: ${raw.length}`, 'Connection: close', '', raw];
        const said = await spoken(world, ['POST /v1/verifications HTTP/1.1', 'Host: x', ...twice, ...end]);
        expect(said).toMatch(/^HTTP\/1\.1 400 /);
        expect(said).toContain(`"errors":[{"field":"${name}","problem":"must be given once"}]`);
      }
    }
    expect(await world.jobs()).toBe(0);
  });
});

/** What a server says to these lines before it is silent for a while, or closes. */
async function spoken(world: World, lines: readonly string[]): Promise<string> {
  const { hostname, port } = new URL(world.url);
  const socket = connect(Number(port), hostname);
  socket.write(lines.join('\r\n'));
  return await new Promise((resolve, reject) => {
    let text = '';
    socket.on('error', reject).on('data', (chunk) => {
      text += chunk;
      const [head = '', body = ''] = text.split('\r\n\r\n');
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? Number.NaN);
      if (body.length < length || Number.isNaN(length)) return;
      socket.destroy();
      resolve(text);
    });
    socket.on('close', () => resolve(text));
  });
}
