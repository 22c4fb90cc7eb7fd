import { createHash, createHmac } from 'node:crypto';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { providers } from '../../src/providers/index.ts';
import type { BoundCallback, CallbackRequest } from '../../src/providers/provider.ts';
import { loadFixture } from './fixture.ts';

const SECRET = 'callback-secret-of-the-test';
const SECRET_KEY = 'secret-key-of-the-test';
const MERCHANT = 'M-0042';

/** What proves callbacks, per adapter; the rest of the credentials is the fixture's. */
const PROOFS: Record<string, Record<string, string>> = {
  'hello-clever': { callbackSecret: SECRET },
  ayoconnect: { callbackToken: SECRET },
  beqelal: { callbackSecret: SECRET },
  cepta: { secretKey: SECRET_KEY, merchantId: MERCHANT },
};

function bound(adapter: string, proof = PROOFS[adapter], options: Record<string, unknown> = {}): BoundCallback | null {
  const provider = providers[adapter];
  if (!provider) throw new Error(`no adapter ${adapter}`);
  const { callbackSecret: _, callbackToken: __, ...others } = loadFixture(adapter).credentials;
  const { merchantId, ...rest } = others;
  // At Ayoconnect the merchant id is who we are, at Cepta it is a part of the proof.
  const credentials = adapter === 'cepta' || merchantId === undefined ? rest : others;
  return provider.bind({
    baseUrl: 'https://provider.example',
    credentials: provider.credentials.parse({ ...credentials, ...proof }),
    options: provider.options.parse(options),
  }).callback;
}

function callbackOf(adapter: string, options: Record<string, unknown> = {}): BoundCallback {
  const callback = bound(adapter, PROOFS[adapter], options);
  if (!callback) throw new Error(`${adapter} takes no callbacks`);
  return callback;
}

const request = (given: Partial<CallbackRequest> = {}): CallbackRequest => ({
  headers: {},
  pathToken: null,
  rawBody: Buffer.from('{"any":"body"}'),
  ...given,
});
const withHeader = (name: string, value: string): CallbackRequest => request({ headers: { [name]: value } });

/** Every text that differs from `right` by one character, and what else somebody may try. */
function wrongOnes(right: string): string[] {
  const off = [...right].map((character, at) => {
    const other = character === 'x' ? 'y' : 'x';
    return `${right.slice(0, at)}${other}${right.slice(at + 1)}`;
  });
  return [...off, '', right.slice(1), right.slice(0, -1), `${right}x`, `x${right}`, right.toUpperCase(), ` ${right}`];
}

const sha512 = (text: string): string => createHash('sha512').update(text).digest('hex');

describe('who may report', () => {
  it('nobody, where the configuration has nothing to tell a forged callback by', () => {
    expect(bound('hello-clever', {})).toBeNull();
    expect(bound('ayoconnect', {})).toBeNull();
    expect(bound('beqelal', {})).toBeNull();
    expect(bound('cepta', { secretKey: SECRET_KEY })).toBeNull();
    const lipaLater = loadFixture('lipa-later').credentials as Record<string, string>;
    expect(bound('lipa-later', lipaLater)).toBeNull();
  });

  it('Hello Clever: who repeats the authorization header as it is', () => {
    const callback = callbackOf('hello-clever');
    const says = (value: string) => callback.authenticate(withHeader('authorization', value));
    expect(says(SECRET)).toBe(true);
    for (const wrong of [...wrongOnes(SECRET), `Bearer ${SECRET}`]) expect(says(wrong), wrong).toBe(false);
    expect(callback.authenticate(request())).toBe(false);
    expect(callback.authenticate(request({ pathToken: SECRET }))).toBe(false);
  });

  it('Hello Clever: also with a secret beyond ASCII, whose bytes Node shows one by one', () => {
    const secret = 'schlüssel-é';
    const callback = bound('hello-clever', { callbackSecret: secret });
    const onTheWire = Buffer.from(secret, 'utf8').toString('latin1');
    expect(callback?.authenticate(withHeader('authorization', onTheWire))).toBe(true);
  });

  it('Ayoconnect: who bears the token', () => {
    const callback = callbackOf('ayoconnect');
    const says = (value: string) => callback.authenticate(withHeader('authorization', value));
    expect(says(`Bearer ${SECRET}`)).toBe(true);
    expect(says(`bearer ${SECRET}`)).toBe(true);
    expect(says(`Bearer  ${SECRET}`)).toBe(true);
    for (const wrong of [`x Bearer ${SECRET}`, `Bearer ${SECRET}\nx`]) expect(says(wrong), wrong).toBe(false);
    for (const wrong of wrongOnes(SECRET).filter((one) => one.trim() !== SECRET)) {
      expect(says(`Bearer ${wrong}`), wrong).toBe(false);
    }
    for (const wrong of [SECRET, `Basic ${SECRET}`, 'Bearer', 'Bearer ']) expect(says(wrong), wrong).toBe(false);
    expect(callback.authenticate(request())).toBe(false);
    expect(callback.authenticate(request({ pathToken: SECRET }))).toBe(false);
  });

  it('Beqelal: who knows the end of the address', () => {
    const callback = callbackOf('beqelal');
    expect(callback.authenticate(request({ pathToken: SECRET }))).toBe(true);
    for (const pathToken of wrongOnes(SECRET)) {
      expect(callback.authenticate(request({ pathToken })), pathToken).toBe(false);
    }
    expect(callback.authenticate(request())).toBe(false);
    expect(callback.authenticate(withHeader('authorization', SECRET))).toBe(false);
  });

  it.each(['sha256', 'sha512', 'sha1'])('Beqelal: who signs the raw body, with %s', (algorithm) => {
    const callback = callbackOf('beqelal', { callbackHmac: { header: 'X-Signature', algorithm } });
    const rawBody = Buffer.from('{ "reference":"R-1",\n"status":"PROCESSED" }');
    const says = (signature: string, body = rawBody) =>
      callback.authenticate({ headers: { 'x-signature': signature }, pathToken: null, rawBody: body });
    const signature = createHmac(algorithm, SECRET).update(rawBody);
    const hex = signature.digest('hex');
    const base64 = Buffer.from(hex, 'hex').toString('base64');
    const named = [`${algorithm}=${hex}`, `${algorithm.toUpperCase()}=${hex}`];
    for (const right of [hex, hex.toUpperCase(), base64, ...named]) expect(says(right), right).toBe(true);
    for (const wrong of wrongOnes(hex).filter((one) => one !== hex.toUpperCase())) {
      expect(says(wrong), wrong).toBe(false);
    }
    for (const [at] of rawBody.entries()) {
      const changed = Buffer.from(rawBody);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(says(hex, changed)).toBe(false);
    }
    expect(says(createHmac(algorithm, `${SECRET}x`).update(rawBody).digest('hex'))).toBe(false);
    // The end of the address is no proof any more.
    expect(callback.authenticate(request({ pathToken: SECRET, rawBody }))).toBe(false);
  });

  it.each(['', ' | '])('Cepta: who knows the hash of both, with %o between them', (separator) => {
    const callback = callbackOf('cepta');
    const hash = sha512(`${SECRET_KEY}${separator}${MERCHANT}`);
    const says = (value: string) => callback.authenticate(withHeader('hash-key', value));
    expect(says(hash)).toBe(true);
    expect(says(hash.toUpperCase())).toBe(true);
    for (const wrong of wrongOnes(hash).filter((one) => one !== hash.toUpperCase())) {
      expect(says(wrong), wrong).toBe(false);
    }
    for (const other of ['|', ' |', '| ', ' ', '  |  ', ':']) {
      expect(says(sha512(`${SECRET_KEY}${other}${MERCHANT}`)), other).toBe(false);
    }
    expect(says(sha512(`${MERCHANT}${separator}${SECRET_KEY}`))).toBe(false);
    expect(callback.authenticate(request())).toBe(false);
  });

  it('by what other programs computed: sha512sum, and openssl dgst -hmac', () => {
    const hashes = [
      'b2f7a67019f8fa97c225b2eda31f7bac8866873a015d5a864382db8aab01a1ebf1adb28b61c600f4f0299e0ac3ab6f041d3b2b67f7603f6a88e18c47a93bf9a8',
      'e9a9937da7e29f881f7fe1c5fbe6e333b9b54c2e1fb26c8e7d0d7fa0e963d8e59bc0ad5236ead304a2ed2d977fd149319a5f7b58e7c6585b5ed9ecfc58c04d6c',
    ];
    for (const hash of hashes) expect(callbackOf('cepta').authenticate(withHeader('hash-key', hash))).toBe(true);
    const signed = {
      headers: { 'x-signature': '299a36d5ac3b4f73ac8083273f0a532b8088c7f65d103757593871222cd75224' },
      rawBody: Buffer.from('{"reference":"R-1"}'),
    };
    const callbackHmac = { header: 'x-signature', algorithm: 'sha256' };
    expect(callbackOf('beqelal', { callbackHmac }).authenticate(request(signed))).toBe(true);
  });
});

describe('what is reported', () => {
  const reads = (adapter: string, body: unknown) =>
    callbackOf(adapter).read(typeof body === 'string' ? body : JSON.stringify(body));

  it.each([
    ['received', { paid_amount: 100, total: '100.0' }, { kind: 'paid' }],
    ['received', { paid_amount: 99, total: 100 }, { kind: 'pending' }],
    ['received', {}, { kind: 'nothing', documented: false }],
    ['return_received', {}, { kind: 'not_paid' }],
    ['pending', {}, { kind: 'pending' }],
    ['completed', {}, { kind: 'nothing', documented: false }],
  ])('Hello Clever: %s %o', (status, more, finding) => {
    const reading = reads('hello-clever', { uuid: 'P-1', status, name: 'Ada', email: 'ada@example.com', ...more });
    expect(reading).toMatchObject({ references: ['P-1'], finding, providerCode: status });
  });

  it('Hello Clever: carries the amounts as the inquiry does', () => {
    const body = {
      uuid: 'P-1',
      status: 'received',
      currency: 'KES',
      amount: 99.5,
      total: '100.10',
      paid_amount: '100.10',
    };
    expect(reads('hello-clever', body)?.finding).toEqual({
      kind: 'paid',
      providerCode: 'received',
      amounts: [
        { value: '99.5', currency: 'KES' },
        { value: '100.10', currency: 'KES' },
      ],
    });
  });

  const ayoconnectReference = '0123456789abcdef0123456789abcdef';
  it.each([
    ['success', { kind: 'paid' }],
    ['SUCCESS', { kind: 'paid' }],
    ['00', { kind: 'paid' }],
    ['failed', { kind: 'not_paid' }],
    ['06', { kind: 'not_paid' }],
    ['processing', { kind: 'pending' }],
    ['04', { kind: 'nothing', documented: true }],
    ['UNBINDED', { kind: 'nothing', documented: false }],
  ])('Ayoconnect: %s', (latestTransactionStatus, finding) => {
    const body = {
      originalReferenceNo: ayoconnectReference,
      originalPartnerReferenceNo: 'f'.repeat(32),
      latestTransactionStatus,
      transactionStatusDesc: 'told to 0812345678',
      additionalInfo: { 'X-External-ID': 'e'.repeat(32), responseCode: '2000400', flow: 'DIRECT_DEBIT' },
    };
    expect(reads('ayoconnect', body)).toMatchObject({
      references: [ayoconnectReference],
      finding,
      providerCode: latestTransactionStatus,
    });
  });

  it('Ayoconnect: wants its own words in our answer', () => {
    expect(callbackOf('ayoconnect').acknowledgement).toEqual({
      responseCode: '2000000',
      responseMessage: 'Successful',
    });
    for (const adapter of ['hello-clever', 'beqelal', 'cepta']) expect(callbackOf(adapter).acknowledgement).toEqual({});
  });

  it.each([
    ['by its reference, then by its id', { reference: 'R-1', id: 'S-1' }, ['R-1', 'S-1']],
    ['by its id alone', { id: 'S-1' }, ['S-1']],
    ['once, where both are the same', { reference: 'R-1', id: 'R-1' }, ['R-1']],
    ['by a number, as it was written', '{"reference":10000000000000001,"status":"PROCESSED"}', ['10000000000000001']],
  ])('Beqelal: names its transaction %s', (_, names, references) => {
    expect(reads('beqelal', names)?.references).toEqual(references);
  });

  it.each([
    ['with both amounts', { amount: '100.00', total_amount: 102 }, [{ value: '100.00' }, { value: '102' }]],
    ['with one', { total_amount: '102.00' }, [{ value: '102.00' }]],
    ['with none', {}, []],
    ['with one that nobody can compare', { amount: '1,000' }, []],
  ])('Beqelal: paid or not, %s', (_, given, amounts) => {
    const body = { reference: 'R-1', phone: '251911111111', ...given };
    expect(reads('beqelal', { ...body, status: 'PROCESSED' })?.finding).toEqual({
      kind: 'paid',
      providerCode: 'PROCESSED',
      amounts,
    });
    expect(reads('beqelal', { ...body, status: 'FAILED' })?.finding).toEqual({
      kind: 'not_paid',
      providerCode: 'FAILED',
      amounts,
    });
  });

  it.each([
    ['another word', { status: 'REVERSED' }],
    ['no word', {}],
    ['a wrong code, which fails no payment', { status: 'FAILED', status_code: '450', message: 'INVALID_OTP' }],
    ['an error beside its word', { status: 'PROCESSED', error: { status_code: '500' } }],
  ])('Beqelal: %s proves nothing', (_, more) => {
    expect(reads('beqelal', { reference: 'R-1', ...more })?.finding).toMatchObject({ kind: 'nothing' });
  });

  it.each([
    { transactionRef: 'TX-1', status: 'Successful', amount: 100 },
    { TransactionRef: 'TX-1', status: 'Successful', amount: '100' },
    { transactionReference: 'TX-1', status: 'Successful', amount: 100 },
    { status: true, data: { transactionRef: 'TX-1', status: 'Successful', amount: 100 } },
    { status: true, data: { TransactionRef: 'TX-1', status: 'Successful', amount: 100 } },
    { event: 'x', data: { transactionReference: 'TX-1', status: 'Successful', amount: '100' } },
    { transactionRef: 'TX-1', data: { transactionReference: 'TX-1', status: 'Successful', amount: '100' } },
  ])('Cepta: names its transaction wherever it does %#', (body) => {
    expect(reads('cepta', body)).toEqual({
      references: ['TX-1'],
      finding: { kind: 'paid', providerCode: 'Successful', amounts: [{ value: '100' }] },
      providerCode: 'Successful',
    });
  });

  it.each([
    ['Paid', 'paid'],
    ['COMPLETED', 'paid'],
    ['success', 'paid'],
    ['failed', 'not_paid'],
    ['Reversed', 'not_paid'],
    ['Pending', 'pending'],
    ['Chargeback', 'nothing'],
  ])('Cepta: %s', (status, kind) => {
    expect(reads('cepta', { data: { transactionRef: 'TX-1', status } })).toMatchObject({ finding: { kind } });
  });

  it('Cepta: that its call worked is not that somebody paid', () => {
    expect(reads('cepta', { status: true, data: { transactionRef: 'TX-1' } })).toMatchObject({
      finding: { kind: 'nothing' },
      providerCode: 'UNREADABLE_STATUS',
    });
  });
});

describe.each(Object.keys(PROOFS))('%s', (adapter) => {
  it('takes nothing for a callback that names no transaction', () => {
    const names = ['uuid', 'originalReferenceNo', 'reference', 'id', 'transactionRef'];
    const bad = ['', 'x'.repeat(129), 'a\nb', 'a\u0000b', null, {}, [], true];
    const bodies = [
      ...['', '{', 'null', '[]', '"x"', '7', '<html></html>', '{}', '{"status":"PROCESSED"}'],
      ...names.flatMap((name) => bad.map((value) => JSON.stringify({ [name]: value, status: 'PROCESSED' }))),
    ];
    for (const body of bodies) expect(callbackOf(adapter).read(body), body).toBeNull();
  });

  test('nothing that comes makes it throw, and its word is always a short one', () => {
    const names = ['uuid', 'originalReferenceNo', 'reference', 'transactionRef'];
    const bodies = fc.oneof(
      fc.string(),
      fc.json(),
      fc
        .record({
          name: fc.constantFrom(...names),
          status: fc.oneof(fc.string(), fc.jsonValue()),
          amount: fc.jsonValue(),
          data: fc.jsonValue(),
        })
        .map(({ name, status, amount, data }) =>
          JSON.stringify({ [name]: 'R', status, latestTransactionStatus: status, amount, total_amount: amount, data }),
        ),
    );
    const callback = callbackOf(adapter);
    fc.assert(
      fc.property(bodies, (body) => {
        const reading = callback.read(body);
        if (reading === null) return;
        expect(reading.references.length).toBeGreaterThan(0);
        expect(reading.providerCode).toMatch(/^(\d\d|[A-Za-z][A-Za-z_]{1,63})$/);
      }),
      { numRuns: 300 },
    );
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom('authorization', 'hash-key'), fc.string()),
        fc.string(),
        (headers, end) => {
          expect(callback.authenticate({ headers, pathToken: end, rawBody: Buffer.from(end) })).toBe(false);
        },
      ),
    );
  });

  it('shows no secret to whoever looks at it', () => {
    const callback = callbackOf(adapter);
    const seen = inspect(callback, { depth: 10 }) + JSON.stringify(callback);
    expect(seen).not.toContain(SECRET);
    expect(seen).not.toContain(SECRET_KEY);
  });
});
