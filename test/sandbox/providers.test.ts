import { expect, test } from 'vitest';
import { type Sandbox, type SandboxOptions, startSandbox } from '../../src/sandbox/index.ts';
import {
  ayoconnect,
  beqelal,
  call,
  cepta,
  helloClever,
  id32,
  inquiryWord,
  jakarta,
  lipaLater,
  privateKey,
  type Reply,
} from './wire.ts';

const started = (options: SandboxOptions = {}) =>
  startSandbox({ ayoconnectPrivateKey: privateKey, settleAfterMs: 0, ...options });

/** Asks until the answer is the wanted one. The test's own time limit ends it otherwise. */
async function until(ask: () => Promise<Reply>, wanted: (reply: Reply) => boolean): Promise<Reply> {
  for (;;) {
    const reply = await ask();
    if (wanted(reply)) return reply;
  }
}

const ledgerStory = (sandbox: Sandbox) => sandbox.ledger.entries.map(({ call: name, event }) => `${name} ${event}`);

test.concurrent('Hello Clever says Ok, and charges when the customer has approved', async () => {
  await using sandbox = await started({ settleAfterMs: 20 });
  const entry = sandbox.providers['hello-clever'];
  const reply = await call(entry.baseUrl, helloClever.confirm(entry, 'APU221YS', '123456'));
  expect([reply.status, reply.json]).toEqual([200, { status: 'Ok' }]);
  const ask = () => call(entry.baseUrl, helloClever.detail(entry, 'APU221YS'));
  const paid = await until(ask, ({ json }) => json.status !== 'pending');
  expect(paid.json).toMatchObject({
    uuid: 'APU221YS',
    status: 'received',
    currency: 'GHS',
    amount: 100,
    total: 100,
    paid_amount: 100,
    webhook_notification: { authorization_header: '****' },
  });
  const story = ledgerStory(sandbox);
  expect(story.slice(0, 4)).toEqual([
    'verify request',
    'verify code_received',
    'verify code_accepted',
    'verify answered',
  ]);
  expect(story.indexOf('verify charged')).toBeGreaterThan(3);
  expect(sandbox.ledger.expected('hello-clever', 'APU221YS')).toMatchObject({
    otp: 'accepted',
    transaction: 'succeeded',
    certain: true,
  });
});

test.concurrent('a payin nobody has confirmed is pending and not charged', async () => {
  await using sandbox = await started();
  const entry = sandbox.providers['hello-clever'];
  const reply = await call(entry.baseUrl, helloClever.detail(entry, 'UNSEEN01'));
  expect(reply.json).toMatchObject({ status: 'pending', paid_amount: 0 });
  expect(sandbox.ledger.transaction('hello-clever', 'UNSEEN01')).toMatchObject({
    requests: 0,
    inquiries: 1,
    charges: 0,
  });
});

test.concurrent('LipaLater gives a token, sends a code and verifies one, and moves no money', async () => {
  await using sandbox = await started();
  const entry = sandbox.providers['lipa-later'];
  const issued = await call(entry.baseUrl, lipaLater.token(entry));
  expect(issued.json).toEqual({
    access_token: expect.stringMatching(/^[0-9a-f]{64}$/),
    token_type: 'Bearer',
    expires_in: 7198,
    scope: 'read write',
    created_at: expect.any(Number),
  });
  const token = issued.json.access_token;
  const sent = await call(entry.baseUrl, lipaLater.send(token, '+254712345678'));
  expect(sent.json).toEqual({
    request_id: sent.headers['x-request-id'],
    apiVersion: '2.0',
    status: 200,
    data: 'OTP has been sent successfully',
  });
  const newcomer = { first_name: 'A', last_name: 'B', country_code: 'KE', date_of_birth: '11/08/1990' };
  expect((await call(entry.baseUrl, lipaLater.send(token, '254712345678', newcomer))).status).toBe(200);
  const verified = await call(entry.baseUrl, lipaLater.verify(token, '+254712345678', '123456'));
  expect(verified.json).toMatchObject({
    apiVersion: '2.0',
    status: 200,
    data: {
      id: expect.any(Number),
      credit_limit: expect.any(Number),
      credit_limit_status: 'limit_active',
      payment_terms: { principal_amount: expect.stringMatching(/^\d+\.\d\d$/) },
    },
  });
  expect(sandbox.ledger.transaction('lipa-later', '+254712345678')).toMatchObject({
    requests: 3,
    codesReceived: ['123456'],
    charges: 0,
  });
  for (const name of ['send', 'verify'] as const) {
    expect(sandbox.ledger.expected('lipa-later', '+254712345678', name)).toMatchObject({
      otp: 'accepted',
      transaction: 'none',
    });
  }
});

test.concurrent.each(['hex', 'base64'] as const)(
  'Ayoconnect takes %s signatures and pays in the end',
  async (encoding) => {
    await using sandbox = await started({ ayoconnectSignatureEncoding: encoding, settleAfterMs: 20 });
    const entry = sandbox.providers.ayoconnect;
    expect(entry.options).toEqual({ signatureEncoding: encoding });
    const issued = await call(entry.baseUrl, ayoconnect.b2b(entry));
    expect(issued.json).toEqual({
      responseCode: '2007300',
      responseMessage: 'Successful',
      tokenType: 'BearerToken',
      responseTime: expect.stringMatching(/^\d{14}$/),
      accessToken: expect.any(String),
      expiresIn: 3599,
    });
    const customer = await call(entry.baseUrl, ayoconnect.b2b2c(entry, issued.json.accessToken));
    expect(customer.json.responseCode).toBe('2007400');
    const tokens = { b2b: issued.json.accessToken, b2b2c: customer.json.accessToken };
    const reference = id32();
    // Spread over lines and in another order than the page prints: the hash is over the text without its whitespace.
    const body = ayoconnect.verifyBody(entry, reference, '012345', { additionalInfo: { note: 'two  spaces' } });
    const minified = JSON.stringify(Object.fromEntries(Object.entries(body).reverse()));
    const sign = (path: string, text: string, at = jakarta()) =>
      ayoconnect.signed(entry, `/dd/api/v3.0/${path}`, tokens, text, 'e'.repeat(32), at, encoding);
    const wire = { ...sign('otp-verification', minified), body: JSON.stringify(JSON.parse(minified), null, 2) };
    const verified = await call(entry.baseUrl, wire);
    expect([verified.status, verified.json]).toEqual([
      200,
      {
        responseCode: '2000400',
        responseMessage: 'Successful',
        originalReferenceNo: reference,
        originalPartnerReferenceNo: body.originalPartnerReferenceNo,
      },
    ]);
    const question = JSON.stringify({
      merchantId: entry.credentials.merchantId,
      serviceCode: '54',
      originalReferenceNo: reference,
    });
    const ask = () => call(entry.baseUrl, sign('debit/status', question));
    const paid = await until(ask, ({ json }) => json.latestTransactionStatus !== '03');
    expect(paid.json).toMatchObject({
      responseCode: '2005500',
      latestTransactionStatus: '00',
      transAmount: { value: '100.00', currency: 'IDR' },
    });
    expect(sandbox.ledger.transaction('ayoconnect', reference)).toMatchObject({
      codesReceived: ['012345'],
      charges: 1,
      chargedAmount: '100.00',
      state: 'paid',
    });
  },
);

test.concurrent('Ayoconnect awaits a code before one came, and an unbinding has no payment', async () => {
  await using sandbox = await started();
  const entry = sandbox.providers.ayoconnect;
  const tokens = await ayoconnect.freshTokens(entry);
  const [open, unbound] = [id32(), id32()];
  const status = async (reference: string) =>
    inquiryWord('ayoconnect', await call(entry.baseUrl, ayoconnect.status(entry, tokens, reference)));
  expect(await status(open)).toBe('PENDING_USER_VERIFICATION');
  const wire = ayoconnect.verify(entry, tokens, unbound, '123456', { action: 'unbinding' });
  expect((await call(entry.baseUrl, wire)).json.responseCode).toBe('2000400');
  expect(await status(unbound)).toBe('4045501');
  expect(sandbox.ledger.transaction('ayoconnect', unbound)).toMatchObject({ charges: 0 });
  expect(sandbox.ledger.expected('ayoconnect', unbound)).toMatchObject({ otp: 'accepted', transaction: 'pending' });
});

test.concurrent('Beqelal pays inside the call, for a number and for a string with a leading zero', async () => {
  await using sandbox = await started({ settleAfterMs: 60_000 });
  const entry = sandbox.providers.beqelal;
  for (const [reference, otp] of [
    ['2CU210EXT4', 657894],
    ['2CU210EXT5', '012345'],
  ] as const) {
    const { status, json } = await call(entry.baseUrl, beqelal.authorize(entry, reference, otp));
    expect(status).toBe(200);
    expect(json).toMatchObject({
      amount: '100.00',
      fee: '2.00',
      total_amount: '102.00',
      status: 'PROCESSED',
      status_code: 200,
      updated_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/),
    });
    expect(json.id).not.toBe(reference);
    expect(sandbox.ledger.transaction('beqelal', reference)).toMatchObject({
      codesReceived: [String(otp)],
      charges: 1,
      state: 'paid',
    });
  }
});

test.concurrent.each(['secret', 'hmac'] as const)(
  'Cepta validates under the %s scheme and confirms',
  async (scheme) => {
    await using sandbox = await started({ ceptaAuthScheme: scheme, settleAfterMs: 20 });
    const entry = sandbox.providers.cepta;
    expect(entry.options).toEqual({ authScheme: scheme, signQuery: true });
    const dressed =
      scheme === 'hmac' ? (wire: ReturnType<typeof cepta.status>) => cepta.sign(entry, wire) : <T>(it: T) => it;
    const reply = await call(entry.baseUrl, dressed(cepta.validate(entry, 'TX12345ABC', '123456')));
    expect(reply.headers['content-type']).toMatch(/^text\/plain/);
    expect(reply.json).toMatchObject({
      status: true,
      data: {
        amount: '100.00',
        transactionRef: 'TX12345ABC',
        responseCode: '00',
        otpRetryCount: 3,
        paymentId: 'PAY12345XYZ',
        errors: [],
      },
    });
    const ask = () => call(entry.baseUrl, dressed(cepta.status(entry, 'TX12345ABC')));
    const paid = await until(ask, ({ json }) => json.data.status !== 'pending');
    expect(paid.headers['content-type']).toMatch(/^text\/plain/);
    expect(paid.json).toMatchObject({
      status: true,
      data: { responseCode: '00', transactionReference: 'TX12345ABC', amount: 100, status: 'Completed' },
    });
  },
);

test.concurrent('a code submitted twice is charged twice, at every provider that charges', async () => {
  await using sandbox = await started();
  const { 'hello-clever': clever, beqelal: beq, cepta: cep } = sandbox.providers;
  for (const _ of [1, 2]) {
    await call(clever.baseUrl, helloClever.confirm(clever, 'TWICE', '123456'));
    await call(beq.baseUrl, beqelal.authorize(beq, 'TWICE', 123456));
    await call(cep.baseUrl, cepta.validate(cep, 'TWICE', '123456'));
  }
  for (const provider of ['hello-clever', 'beqelal', 'cepta'] as const) {
    expect(sandbox.ledger.transaction(provider, 'TWICE')).toMatchObject({
      codesReceived: ['123456', '123456'],
      charges: 2,
      chargedAmount: '200.00',
    });
  }
});

test("these tests' own signatures agree with examples they did not compute", () => {
  // The published example of https://docs.payments.of.ayoconnect.id: dummy values, hexadecimal.
  const ayo = { baseUrl: '', options: {}, credentials: { clientSecret: 'fceda4da-ae95-4d14-8cb6-eef392139a2c' } };
  const body =
    '{"partnerReferenceNo":"qic5taezfgta7yhn74u7cppr47wan027","authCode":"8ecx3bnfk9bu2o4y0z8ur8pfhH12eltF",' +
    '"merchantId":"AYOPOP"}';
  const tokens = { b2b: 'ed8f7f42a6d741fbb891bae654e81678', b2b2c: '' };
  const path = '/api/v2/registration-account-binding';
  expect(ayoconnect.signed(ayo, path, tokens, body, '', '2023-03-28T22:13:27+07:00').headers['x-signature']).toBe(
    '2e955289baf7f297dda75b830c00f15b81a71710c2d0a0bbdf5884ae15bf47bb46e627a0b25cff1c1da16c42682ec69945950a1b120b6be490a53b7d613cf7e4',
  );
  // Cepta prints none. `printf '%s' "$ts$method$path$body" | openssl dgst -sha256 -hmac example-secret` gives these.
  const cep = { baseUrl: '', options: {}, credentials: { secretKey: 'example-secret', accessKey: 'k' } };
  const signature = (wire: ReturnType<typeof cepta.status>) =>
    cepta.sign(cep, wire, 1732881747).headers['x-access-signature'];
  expect(signature(cepta.validate(cep, 'TX12345ABC', '123456'))).toBe(
    'de331adf3935cb42517090cd00c90b4044010008e9d95ff98dd15bce83d15210',
  );
  expect(signature(cepta.status(cep, 'exampleRef'))).toBe(
    '0a6f4dc25713f2f10e9d93c9e8b002c923ac919ad2eac5e68f72f022fef401a8',
  );
});
