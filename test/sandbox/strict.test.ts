import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Sandbox, type SandboxProvider, startSandbox } from '../../src/sandbox/index.ts';
import {
  ayoconnect,
  beqelal,
  call,
  cepta,
  helloClever,
  id32,
  jakarta,
  lipaLater,
  privateKey,
  type Tokens,
  type Wire,
} from './wire.ts';

let plainly: Sandbox;
let signing: Sandbox;
let tokens: { lipa: string; ayo: Tokens };
beforeAll(async () => {
  [plainly, signing] = await Promise.all([
    startSandbox({ ayoconnectPrivateKey: privateKey, settleAfterMs: 0 }),
    startSandbox({ ayoconnectPrivateKey: privateKey, settleAfterMs: 0, ceptaAuthScheme: 'hmac' }),
  ]);
  tokens = {
    lipa: await lipaLater.freshToken(plainly.providers['lipa-later']),
    ayo: await ayoconnect.freshTokens(plainly.providers.ayoconnect),
  };
});
afterAll(async () => {
  for (const sandbox of [plainly, signing]) {
    // Over all the refused requests of this file: no code came through, no money moved.
    expect(sandbox.ledger.entries.filter(({ event }) => event === 'code_received' || event === 'charged')).toEqual([]);
    await sandbox.close();
  }
});

/** The same text with one character changed into another that HTTP and JSON would let pass. */
const flipped = (text: string, at: number) => {
  const other = text[at] === '7' ? '8' : '7';
  return text.slice(0, at) + other + text.slice(at + 1);
};
const everyFlip = (text: string) => Array.from(text, (_, at) => flipped(text, at));
const withHeader = (wire: Wire, name: string, value: string): Wire => ({
  ...wire,
  headers: { ...wire.headers, [name]: value },
});
const without = (wire: Wire, name: string): Wire => {
  const { [name]: _, ...headers } = wire.headers;
  return { ...wire, headers };
};
const withField = (wire: Wire, name: string, value: unknown): Wire => ({
  ...wire,
  body: JSON.stringify({ ...JSON.parse(wire.body), [name]: value }),
});

async function expectRefused(sandbox: Sandbox, provider: SandboxProvider, wires: readonly Wire[]) {
  expect(wires.length).toBeGreaterThan(0);
  const { baseUrl } = sandbox.providers[provider];
  const refusals = () => sandbox.ledger.find({ provider }).filter(({ event }) => event === 'refused').length;
  const before = refusals();
  const replies = await Promise.all(wires.map((wire) => call(baseUrl, wire)));
  for (const [at, reply] of replies.entries()) {
    expect(reply.status, `${JSON.stringify(wires[at])} was answered with ${reply.text}`).toBeGreaterThanOrEqual(400);
    expect(reply.status).toBeLessThan(500);
  }
  expect(refusals() - before).toBe(wires.length);
}

/** Every byte of the header wrong in turn, and the header missing. */
const headerFaults = (wire: Wire, ...names: string[]): Wire[] =>
  names.flatMap((name) => [
    ...everyFlip(wire.headers[name] ?? '').map((value) => withHeader(wire, name, value)),
    without(wire, name),
  ]);
const contentTypes = (wire: Wire) =>
  ['text/plain', 'application/jsom', 'application/json; charset=latin1'].map((it) =>
    withHeader(wire, 'content-type', it),
  );
/** For fields that no signature covers: a character outside the field's alphabet, other types, nothing at all. */
const fieldFaults = (wire: Wire, ...names: string[]): Wire[] =>
  names.flatMap((name) => {
    const value = String(JSON.parse(wire.body)[name]);
    return [`!${value.slice(1)}`, `${value.slice(0, -1)}\u0001`, '', null, true, ['x'], undefined].map((wrong) =>
      withField(wire, name, wrong),
    );
  });
const bodyFaults = (wire: Wire) => [
  { ...wire, body: wire.body.slice(0, -1) },
  { ...wire, body: `[${wire.body}]` },
  { ...wire, body: '' },
  withField(wire, 'stranger', 'x'),
];
const pathFaults = (wire: Wire) => [
  { ...wire, path: `${wire.path}/` },
  { ...wire, method: wire.method === 'GET' ? 'POST' : 'GET', body: '' } as Wire,
];

describe('Hello Clever refuses', () => {
  test('a confirmation with one thing wrong', async () => {
    const good = helloClever.confirm(plainly.providers['hello-clever'], 'APU221YS', '123456');
    await expectRefused(plainly, 'hello-clever', [
      ...headerFaults(good, 'app-id', 'secret-key', 'accept'),
      withHeader(good, 'secret-key', good.headers['app-id'] ?? ''),
      ...contentTypes(good),
      ...fieldFaults(good, 'uuid', 'code'),
      withField(good, 'code', 123456),
      withField(good, 'code', '123'),
      ...bodyFaults(good),
      ...pathFaults(good),
    ]);
  });
  test('an inquiry with one thing wrong', async () => {
    const good = helloClever.detail(plainly.providers['hello-clever'], 'APU221YS');
    await expectRefused(plainly, 'hello-clever', [
      ...headerFaults(good, 'app-id', 'secret-key'),
      { ...good, path: good.path.replace('uuid', 'uuie') },
      { ...good, path: `${good.path}&x=1` },
      { ...good, path: '/api/v2/payins/detail' },
    ]);
  });
});

describe('LipaLater refuses', () => {
  test('a token call with one thing wrong', async () => {
    const entry = plainly.providers['lipa-later'];
    const good = lipaLater.token(entry);
    const form = (name: string, value: string) => {
      const fields = new URLSearchParams(good.body);
      fields.set(name, value);
      return { ...good, body: fields.toString() };
    };
    await expectRefused(plainly, 'lipa-later', [
      ...['grant_type', 'client_id', 'client_secret', 'scope'].flatMap((name) =>
        everyFlip(new URLSearchParams(good.body).get(name) ?? '').map((value) => form(name, value)),
      ),
      form('stranger', 'x'),
      { ...good, body: JSON.stringify(Object.fromEntries(new URLSearchParams(good.body))) },
      withHeader(good, 'content-type', 'application/json'),
    ]);
  });
  test('a send or verify with one thing wrong', async () => {
    const newcomer = { first_name: 'A', last_name: 'B', country_code: 'KE', date_of_birth: '11/08/1990' };
    const send = lipaLater.send(tokens.lipa, '+254712345678', newcomer);
    const verify = lipaLater.verify(tokens.lipa, '+254712345678', '123456');
    for (const good of [send, verify]) {
      await expectRefused(plainly, 'lipa-later', [
        ...headerFaults(good, 'authorization'),
        ...contentTypes(good),
        ...fieldFaults(good, 'id_number', 'phone_number'),
        ...bodyFaults(good),
        ...pathFaults(good),
      ]);
    }
    await expectRefused(plainly, 'lipa-later', [
      ...fieldFaults(verify, 'item_value', 'otp'),
      withField(verify, 'item_value', 20000),
      withField(verify, 'otp', 123456),
      ...Object.keys(newcomer).map((name) => withField(send, name, undefined)),
      withField(send, 'country_code', 'Kenya'),
      withField(send, 'date_of_birth', '1990-08-11'),
    ]);
  });
});

describe('Ayoconnect refuses', () => {
  const entryOf = () => plainly.providers.ayoconnect;
  const stale = () => jakarta(Date.now() - 301_000);
  const early = () => jakarta(Date.now() + 360_000);

  test('a token call with one thing wrong', async () => {
    const entry = entryOf();
    for (const good of [ayoconnect.b2b(entry), ayoconnect.b2b2c(entry, tokens.ayo.b2b)]) {
      await expectRefused(plainly, 'ayoconnect', [
        ...headerFaults(good, 'x-timestamp', 'x-client-key', 'x-signature'),
        ...contentTypes(good),
        ...fieldFaults(good, 'grantType'),
        withField(good, 'additionalInfo', { merchantId: 'OTHER1' }),
        withField(good, 'additionalInfo', 'x'),
        { ...good, body: '' },
      ]);
    }
    const customer = ayoconnect.b2b2c(entry, tokens.ayo.b2b);
    await expectRefused(plainly, 'ayoconnect', [
      ...headerFaults(customer, 'authorization'),
      withHeader(customer, 'authorization', `Bearer ${tokens.ayo.b2b2c}`),
      ...fieldFaults(customer, 'authCode', 'additionalInfo'),
      ayoconnect.b2b(entry, stale()),
      ayoconnect.b2b(entry, early()),
      ayoconnect.b2b2c(entry, tokens.ayo.b2b, id32(), stale()),
      ayoconnect.b2b(entry, new Date().toISOString()),
      ayoconnect.b2b(entry, new Date().toISOString().replace(/\.\d+Z/, 'Z')),
    ]);
  });

  test('a verification with one byte wrong in any header or anywhere in the body', async () => {
    const entry = entryOf();
    const reference = id32();
    // A refused submission makes the flow known without a code coming through.
    expect((await call(entry.baseUrl, ayoconnect.verify(entry, tokens.ayo, reference, '600001'))).status).toBe(401);
    const good = ayoconnect.verify(entry, tokens.ayo, reference, '123456');
    await expectRefused(plainly, 'ayoconnect', [
      ...headerFaults(
        good,
        'authorization',
        'authorization-customer',
        'x-timestamp',
        'x-signature',
        'x-partner-id',
        'x-external-id',
        'channel-id',
      ),
      ...contentTypes(good),
      ...everyFlip(good.body).map((body) => ({ ...good, body })),
      { ...good, body: good.body.slice(0, -1) },
      withHeader(good, 'x-signature', (good.headers['x-signature'] ?? '').toUpperCase()),
      withHeader(good, 'authorization', `Bearer ${tokens.ayo.b2b2c}`),
      withHeader(good, 'authorization', tokens.ayo.b2b),
      { ...good, path: `${good.path}?x=1` },
      ...pathFaults(good),
    ]);
  });

  test('a well signed verification whose fields or time are wrong', async () => {
    const entry = entryOf();
    const path = '/dd/api/v3.0/otp-verification';
    const signed = (body: object, timestamp?: string, externalId = 'e'.repeat(32)) =>
      ayoconnect.signed(entry, path, tokens.ayo, JSON.stringify(body), externalId, timestamp);
    const good = ayoconnect.verifyBody(entry, id32(), '123456');
    const names = Object.keys(good) as (keyof typeof good)[];
    await expectRefused(plainly, 'ayoconnect', [
      ...names.flatMap((name) =>
        [undefined, null, 7, '', `${good[name]}x`].map((it) => signed({ ...good, [name]: it })),
      ),
      signed({ ...good, action: 'Payment' }),
      signed({ ...good, otp: '12345' }),
      signed({ ...good, merchantId: 'OTHER1' }),
      signed({ ...good, additionalInfo: [] }),
      ...[stale(), early(), new Date().toISOString(), 'yesterday'].map((it) => signed(good, it)),
      signed(good, undefined, 'e'.repeat(31)),
      signed(good, undefined, `${'e'.repeat(31)}-`),
      ayoconnect.signed(entry, path, tokens.ayo, JSON.stringify(good), 'e'.repeat(32), undefined, 'base64'),
    ]);
    const codes = plainly.ledger.find({ provider: 'ayoconnect' }).flatMap(({ detail }) => detail ?? []);
    expect(codes).toContain('X-TIMESTAMP more than five minutes off');
  });

  test('a status question with one thing wrong', async () => {
    const entry = entryOf();
    const reference = id32();
    const good = ayoconnect.status(entry, tokens.ayo, reference);
    const signed = (body: object) =>
      ayoconnect.signed(entry, '/dd/api/v3.0/debit/status', tokens.ayo, JSON.stringify(body), 'e'.repeat(32));
    const body = { merchantId: entry.credentials.merchantId, serviceCode: '54', originalReferenceNo: reference };
    await expectRefused(plainly, 'ayoconnect', [
      ...headerFaults(good, 'authorization', 'x-timestamp', 'x-signature', 'x-partner-id', 'channel-id'),
      ...everyFlip(good.body).map((it) => ({ ...good, body: it })),
      without(good, 'x-external-id'),
      signed({ ...body, serviceCode: '04' }),
      signed({ ...body, merchantId: 'OTHER1' }),
      signed({ ...body, originalReferenceNo: 'short' }),
    ]);
  });
});

describe('Beqelal refuses', () => {
  test('an authorization with one thing wrong', async () => {
    const entry = plainly.providers.beqelal;
    const good = beqelal.authorize(entry, '2CU210EXT4', 657894);
    await expectRefused(plainly, 'beqelal', [
      ...headerFaults(good, 'app-id', 'api-key'),
      ...contentTypes(good),
      ...fieldFaults(good, 'reference', 'otp'),
      // 12345 is 012345 without its zero; as text only a code with a leading zero may come.
      ...[12345, 1234567, 123456.5, -123456, 0, '657894', '12345', '0123456', '01234x'].map((otp) =>
        withField(good, 'otp', otp),
      ),
      ...bodyFaults(good),
      ...pathFaults(good),
    ]);
  });
});

describe('Cepta refuses', () => {
  test('under the secret scheme, calls with one thing wrong', async () => {
    const entry = plainly.providers.cepta;
    const good = cepta.validate(entry, 'TX12345ABC', '123456');
    const status = cepta.status(entry, 'TX12345ABC');
    await expectRefused(plainly, 'cepta', [
      ...headerFaults(good, 'authorization'),
      withHeader(good, 'authorization', `Bearer ${entry.credentials.secretKey}`),
      cepta.sign(entry, good),
      ...contentTypes(good),
      ...fieldFaults(good, 'otp', 'transactionRef'),
      withField(good, 'otp', 123456),
      ...['paymentId', 'md'].flatMap((name) => [7, '', 'a\u0001'].map((it) => withField(good, name, it))),
      ...bodyFaults(good),
      ...pathFaults(good),
      ...headerFaults(status, 'authorization'),
      { ...status, path: status.path.replace('TransactionRef', 'transactionRef') },
      { ...status, path: '/api/v1/pay/confirm-status' },
    ]);
  });
  test('under the signed scheme, calls with one byte wrong anywhere', async () => {
    const entry = signing.providers.cepta;
    const bare = cepta.validate(entry, 'TX12345ABC', '123456');
    const good = cepta.sign(entry, bare);
    const status = cepta.sign(entry, cepta.status(entry, 'TX12345ABC'));
    const now = Math.floor(Date.now() / 1000);
    const headers = ['x-access-key', 'x-access-ts', 'x-access-signature'];
    await expectRefused(signing, 'cepta', [
      ...headerFaults(good, ...headers),
      ...everyFlip(good.body).map((body) => ({ ...good, body })),
      withHeader(good, 'x-access-signature', (good.headers['x-access-signature'] ?? '').toUpperCase()),
      cepta.sign(entry, bare, now - 301),
      cepta.sign(entry, bare, now + 360),
      cepta.sign(entry, bare, now * 1000),
      bare,
      withHeader(good, 'authorization', entry.credentials.secretKey ?? ''),
      ...headerFaults(status, ...headers),
      { ...status, path: flipped(status.path, status.path.length - 1) },
      // Signed without its query, as one public client does it; the pages say the query is signed.
      { ...cepta.sign(entry, { ...status, path: '/api/v1/pay/confirm-status' }), path: status.path },
    ]);
  });
});
