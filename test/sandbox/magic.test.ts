import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { magicValues, type Sandbox, type SandboxProvider, startSandbox } from '../../src/sandbox/index.ts';
import {
  ayoconnect,
  call,
  freshReference,
  inquiryWord,
  lipaLater,
  privateKey,
  type Reply,
  submitter,
  type Tokens,
} from './wire.ts';

/** The answer's status (or how it was lost), a text in it, codes received, charges, and how it must end. */
type Row = [status: number | 'lost' | 'silent' | 'cut', text: string, received: number, charges: number, ends: string];

const clever = 'hello-clever';
const lipa = 'lipa-later';
const ayo = 'ayoconnect';

const rows: Record<string, Partial<Record<SandboxProvider, Row>>> = {
  wrong_code: {
    [clever]: [400, '"errors"', 1, 0, 'rejected/pending'],
    [lipa]: [400, '"status":"400"', 1, 0, 'rejected/none'],
    [ayo]: [404, '4040415', 1, 0, 'rejected/pending'],
    beqelal: [400, '"status_code":"450","message":"INVALID_OTP"', 1, 0, 'rejected/pending'],
    cepta: [200, '"otpRetryCount":2,"paymentId":"","errors":[{"errorCode":"INVALID_OTP"', 1, 0, 'rejected/pending'],
  },
  expired_code: {
    [clever]: [400, '', 1, 0, 'rejected/pending'],
    [ayo]: [403, '4030412', 1, 0, 'rejected/pending'],
  },
  attempts_used_up: {
    [clever]: [400, '"errors"', 1, 0, 'rejected/failed'],
    [lipa]: [400, '"title"', 1, 0, 'rejected/none'],
    [ayo]: [403, '4030405', 1, 0, 'rejected/pending'],
    beqelal: [400, '"450"', 1, 0, 'rejected/failed'],
    cepta: [200, '"otpRetryCount":0', 1, 0, 'rejected/failed'],
  },
  unknown_reference: {
    [lipa]: [404, '"status":"404"', 1, 0, 'rejected/none'],
    [ayo]: [404, '4040401', 1, 0, 'rejected/pending'],
    beqelal: [400, '"status_code":"442","message":"TRANSACTION_NOT_FOUND"', 1, 0, 'rejected/failed'],
    cepta: [404, 'TRANSACTION_NOT_FOUND', 1, 0, 'rejected/failed'],
  },
  declined: {
    [lipa]: [403, 'You do not have enough credit', 1, 0, 'rejected/none'],
    [ayo]: [403, '4030414', 1, 0, 'rejected/pending'],
    beqelal: [200, '"status":"FAILED","status_code":200', 1, 0, 'rejected/failed'],
    cepta: [200, '"responseCode":"51"', 1, 0, 'unknown/failed'],
  },
  server_error: {
    [clever]: [500, 'INTERNAL_SERVER_ERROR', 1, 0, 'unknown/unknown'],
    [lipa]: [500, '"status":"500"', 1, 0, 'unknown/none'],
    [ayo]: [500, '5000400', 1, 0, 'unknown/pending'],
    beqelal: [500, '"error"', 1, 0, 'unknown/unknown'],
    cepta: [500, 'INTERNAL_SERVER_ERROR', 1, 0, 'unknown/unknown'],
  },
  wrong_code_as_403: { cepta: [403, 'INVALID_OTP', 1, 0, 'rejected/pending'] },
  invalid_request: {
    [lipa]: [400, '"reason":"has already been taken"', 1, 0, 'rejected/none'],
    cepta: [400, 'INVALID_REQUEST', 1, 0, 'rejected/pending'],
  },
  request_failed: { [lipa]: [402, '"status":"402"', 1, 0, 'rejected/none'] },
  bad_gateway: gateway(502),
  unavailable: gateway(503),
  gateway_timeout: { ...gateway(504), [ayo]: [504, '5040400', 1, 0, 'unknown/pending'] },
  payment_fails: asked('accepted/failed', 0),
  payment_waits: asked('accepted/pending', 0),
  other_amount: { ...asked('accepted/unknown', 1), beqelal: [200, '"amount":"150.00"', 1, 1, 'accepted/unknown'] },
  underpaid: { [clever]: [200, 'Ok', 1, 1, 'accepted/pending'] },
  no_amount: { [ayo]: [200, '2000400', 1, 1, 'accepted/succeeded'] },
  inquiry_fails_once: asked('accepted/succeeded', 1),
  inquiry_limited_once: asked('accepted/succeeded', 1),
  payment_reversed: {
    [clever]: [200, 'Ok', 1, 1, 'accepted/failed'],
    cepta: [200, '"00"', 1, 1, 'accepted/failed'],
  },
  credentials_refused: {
    [clever]: [401, '{"errors":{"code":"REQUIRE_LOGIN","message":"Not Authorised"}}', 0, 0, 'not_submitted/pending'],
    [lipa]: [401, '"status":"401"', 0, 0, 'not_submitted/none'],
    [ayo]: [401, '4010400', 0, 0, 'not_submitted/pending'],
    beqelal: [479, '"status_code":"479","message":"UNAUTHORIZED_IP_ACCESS"', 0, 0, 'not_submitted/pending'],
    cepta: [401, 'UNAUTHORIZED', 0, 0, 'not_submitted/pending'],
  },
  refused_once: {
    [clever]: [401, 'REQUIRE_LOGIN', 0, 0, 'not_submitted/pending'],
    [ayo]: [401, '4010400', 0, 0, 'not_submitted/pending'],
    beqelal: [479, '479', 0, 0, 'not_submitted/pending'],
    cepta: [401, 'UNAUTHORIZED', 0, 0, 'not_submitted/pending'],
  },
  rate_limited_once: {
    [clever]: [429, 'errors', 0, 0, 'unknown/unknown'],
    [lipa]: [429, '"429"', 0, 0, 'not_submitted/none'],
    [ayo]: [429, '4290400', 0, 0, 'not_submitted/pending'],
    beqelal: [429, 'error', 0, 0, 'unknown/unknown'],
    cepta: [429, 'TOO_MANY_REQUESTS', 0, 0, 'not_submitted/pending'],
  },
  token_expired: {
    [lipa]: [401, '"401"', 0, 0, 'not_submitted/none'],
    [ayo]: [401, '4010401', 0, 0, 'not_submitted/pending'],
  },
  customer_token_expired: { [ayo]: [401, '4010402', 0, 0, 'not_submitted/pending'] },
  app_refused: { beqelal: [401, '"message":"UNAUTHORIZED"', 0, 0, 'not_submitted/pending'] },
  reset_unseen: {
    [clever]: ['lost', '', 0, 0, 'unknown/unknown'],
    [lipa]: ['lost', '', 0, 0, 'unknown/none'],
    [ayo]: ['lost', '', 0, 0, 'unknown/pending'],
    beqelal: ['lost', '', 0, 0, 'unknown/unknown'],
    cepta: ['lost', '', 0, 0, 'unknown/unknown'],
  },
  committed_then_html_502: committed(502, '<html>'),
  committed_then_reset: committed('lost', ''),
  committed_then_silence: committed('silent', ''),
  committed_then_half_answer: committed('lost', ''),
  committed_then_cut_json: committed('cut', '{'),
  committed_then_strange_word: {
    [clever]: [200, 'Queued', 1, 1, 'accepted/succeeded'],
    [lipa]: [200, '"status":299', 1, 0, 'unknown/none'],
    [ayo]: [200, '2000477', 1, 1, 'accepted/succeeded'],
    beqelal: [200, 'PONDERING', 1, 1, 'unknown/unknown'],
    cepta: [200, '"77"', 1, 1, 'accepted/succeeded'],
  },
  lost_and_payment_fails: lost('unknown/failed'),
  lost_wrong_code: {
    ...lost('unknown/unknown'),
    [ayo]: ['lost', '', 1, 0, 'unknown/pending'],
    [lipa]: ['lost', '', 1, 0, 'unknown/none'],
    beqelal: ['lost', '', 1, 0, 'unknown/unknown'],
  },
  lost_and_payment_waits: lost('unknown/unknown'),
  busy_once: {
    [clever]: [503, '', 0, 0, 'unknown/unknown'],
    [lipa]: [503, '', 0, 0, 'unknown/none'],
    [ayo]: [503, '', 0, 0, 'unknown/pending'],
    beqelal: [503, '', 0, 0, 'unknown/unknown'],
    cepta: [503, '', 0, 0, 'unknown/unknown'],
  },
  committed_then_503: committed(503, ''),
  committed_then_html_200: committed(200, '<html>'),
  committed_then_other_content_type: {
    ...committed(200, ''),
    [lipa]: [200, '"apiVersion"', 1, 0, 'accepted/none'],
    beqelal: [200, 'PROCESSED', 1, 1, 'accepted/succeeded'],
  },
  committed_then_swapped_types: {
    [clever]: [200, '{"status":"Ok"}', 1, 1, 'accepted/succeeded'],
    [lipa]: [200, '"principal_amount":20000', 1, 0, 'accepted/none'],
    [ayo]: [200, '"responseCode":2000400', 1, 1, 'accepted/succeeded'],
    beqelal: [200, '"amount":100,"fee":2,', 1, 1, 'accepted/succeeded'],
    cepta: [200, '"otpRetryCount":"3"', 1, 1, 'accepted/succeeded'],
  },
  committed_then_null_object: {
    ...committed(200, 'null'),
    [lipa]: [200, '"data":null', 1, 0, 'accepted/none'],
    cepta: [200, '"data":null', 1, 1, 'accepted/succeeded'],
  },
  slow_answer: { ...usual(), [lipa]: [200, '"apiVersion"', 1, 0, 'accepted/none'] },
  lost_and_declined: { beqelal: ['lost', '', 1, 0, 'unknown/unknown'] },
  callback_first: usual(),
  duplicate_callbacks: usual(),
  contradictory_callback: usual(),
  contradictory_callback_after_failure: asked('accepted/failed', 0),
  stray_callback: usual(),
  forged_callback: usual(),
  misspelled_callback: usual(),
  withheld_callback: usual(),
  contradictory_callback_after_decline: { beqelal: [200, '"FAILED"', 1, 0, 'rejected/failed'] },
};

function usual(): Partial<Record<SandboxProvider, Row>> {
  return { ...asked('accepted/succeeded', 1), beqelal: [200, 'PROCESSED', 1, 1, 'accepted/succeeded'] };
}

function gateway(status: number): Partial<Record<SandboxProvider, Row>> {
  const row: Row = [status, '', 1, 0, 'unknown/unknown'];
  return {
    [clever]: row,
    [lipa]: [status, `"status":"${status}"`, 1, 0, 'unknown/none'],
    [ayo]: [status, '', 1, 0, 'unknown/pending'],
    beqelal: row,
    cepta: row,
  };
}

function asked(ends: string, charges: number): Partial<Record<SandboxProvider, Row>> {
  return {
    [clever]: [200, '{"status":"Ok"}', 1, charges, ends],
    [ayo]: [200, '2000400', 1, charges, ends],
    cepta: [200, '"responseCode":"00"', 1, charges, ends],
  };
}

function committed(status: Row[0], text: string): Partial<Record<SandboxProvider, Row>> {
  const row: Row = [status, text, 1, 1, 'accepted/succeeded'];
  return {
    [clever]: row,
    [lipa]: [status, text, 1, 0, 'unknown/none'],
    [ayo]: row,
    beqelal: [status, text, 1, 1, 'unknown/unknown'],
    cepta: row,
  };
}

function lost(ends: string): Partial<Record<SandboxProvider, Row>> {
  const row: Row = ['lost', '', 1, 0, ends];
  return { [clever]: row, [ayo]: row, cepta: row };
}

let sandbox: Sandbox;
let tokens: { lipa: string; ayo: Tokens };
beforeAll(async () => {
  sandbox = await startSandbox({ ayoconnectPrivateKey: privateKey, settleAfterMs: 0, slowMs: 20 });
  tokens = {
    lipa: await lipaLater.freshToken(sandbox.providers['lipa-later']),
    ayo: await ayoconnect.freshTokens(sandbox.providers.ayoconnect),
  };
});
afterAll(() => sandbox.close());

const soon = () => new Promise((resolve) => setImmediate(resolve));
const at = (provider: SandboxProvider) => submitter(provider, sandbox.providers[provider], tokens);
const ends = (provider: SandboxProvider, reference: string) => {
  const { otp, transaction } = sandbox.ledger.expected(provider, reference);
  return `${otp}/${transaction}`;
};

function expectAnswer(reply: Reply, [status, text]: Row) {
  if (status === 'lost') expect(reply.lost).toMatch(/ECONNRESET|UND_ERR_SOCKET|UND_ERR_ABORTED/);
  else if (status === 'silent') expect(reply.lost).toMatch(/AbortError|UND_ERR_ABORTED|20/);
  else if (status === 'cut') {
    expect(reply.status).toBe(200);
    expect(reply.json).toBeUndefined();
  } else expect([reply.status, reply.text]).toEqual([status, expect.stringContaining(text)]);
}

const plain = magicValues.filter(({ where, value }) => where === 'otp' && /^\d{6}$/.test(value));
const cases = (wanted: (magic: (typeof plain)[number]) => boolean) =>
  plain
    .filter(wanted)
    .flatMap((magic) => (Object.keys(magic.answers) as SandboxProvider[]).map((provider) => ({ magic, provider })));

describe('magic codes', () => {
  test('have values and names of their own', () => {
    expect(new Set(plain.map(({ value }) => value)).size).toBe(plain.length);
    expect(new Set(magicValues.map(({ where, value }) => `${where} ${value}`)).size).toBe(magicValues.length);
  });

  test.concurrent.each(
    // A storm is weather for everybody, and these tests share one sandbox: faults.test.ts has it.
    cases(({ inquiryWord: word, name }) => word === undefined && name !== 'storm_begins').map(
      (it) => [it.magic.name, it.provider, it] as const,
    ),
  )('%s at %s', async (name, provider, { magic }) => {
    const row = rows[name]?.[provider];
    if (!row) throw new Error(`no row for ${name} at ${provider}`);
    const reference = freshReference(provider);
    const giveUp = new AbortController();
    const reply = at(provider).verify(reference, magic.value, giveUp.signal);
    if (row[0] === 'silent') {
      // Once the ledger says that it was answered with silence, there is nothing to wait for.
      while (!sandbox.ledger.find({ provider, reference }).some(({ event }) => event === 'answered')) await soon();
      giveUp.abort();
    }
    expectAnswer(await reply, row);
    const transaction = sandbox.ledger.transaction(provider, reference);
    expect(transaction.codesReceived).toEqual(row[2] === 1 ? [magic.value] : []);
    expect(transaction.charges).toBe(row[3]);
    expect(ends(provider, reference)).toBe(row[4]);
  });

  test.concurrent.each(
    cases(({ inquiryWord: word }) => word !== undefined).map(
      (it) => [it.provider, it.magic.inquiryWord ?? '', it.magic.value] as const,
    ),
  )('at %s the inquiry says %s', async (provider, word, value) => {
    const reference = freshReference(provider);
    expect((await at(provider).verify(reference, value)).status).toBe(200);
    const first = await at(provider).inquire(reference);
    expect(inquiryWord(provider, first)).toBe(word);
    expect(inquiryWord(provider, await at(provider).inquire(reference))).toBe(word);
    expect(first.status).toBe(word === '4045501' ? 404 : 200);
  });

  test.each(['600002', '600003', '600008'])('%s refuses once and then takes the code', async (value) => {
    for (const { provider } of cases((magic) => magic.value === value)) {
      const reference = freshReference(provider);
      const refused = await at(provider).verify(reference, value);
      expect(refused.status).toBeGreaterThanOrEqual(400);
      if (value !== '600002') expect(refused.headers['retry-after']).toBe('1');
      expect((await at(provider).verify(reference, value)).status).toBe(200);
      expect(sandbox.ledger.transaction(provider, reference)).toMatchObject({ requests: 2, codesReceived: [value] });
    }
  });

  test.each([
    ['600004', 'lipa-later'],
    ['600004', 'ayoconnect'],
    ['600005', 'ayoconnect'],
  ] as const)('%s at %s refuses the same token again and takes another', async (value, provider) => {
    const reference = freshReference(provider);
    for (const _ of [1, 2]) expect((await at(provider).verify(reference, value)).status).toBe(401);
    const renewed = {
      lipa: await lipaLater.freshToken(sandbox.providers['lipa-later']),
      ayo: await ayoconnect.freshTokens(sandbox.providers.ayoconnect),
    };
    const again = submitter(provider, sandbox.providers[provider], renewed);
    expect((await again.verify(reference, value)).status).toBe(200);
    expect(sandbox.ledger.transaction(provider, reference).codesReceived).toEqual([value]);
  });

  test.each([
    ['500006', 500],
    ['500007', 429],
  ])('%s spoils the first inquiry only', async (value, status) => {
    for (const { provider } of cases((magic) => magic.value === value)) {
      const reference = freshReference(provider);
      await at(provider).verify(reference, value);
      const refused = await at(provider).inquire(reference);
      expect(refused.status).toBe(status);
      if (status === 429) expect(refused.headers['retry-after']).toBe('1');
      expect((await at(provider).inquire(reference)).status).toBe(200);
    }
  });

  test('amounts that differ stand in answers and inquiries', async () => {
    const reply = async (provider: SandboxProvider, value: string) => {
      const reference = freshReference(provider);
      const verified = await at(provider).verify(reference, value);
      return provider === 'beqelal' ? verified.json : (await at(provider).inquire(reference)).json;
    };
    expect(await reply('hello-clever', '500003')).toMatchObject({ amount: 150, total: 150, paid_amount: 150 });
    expect(await reply('hello-clever', '500004')).toMatchObject({ total: 100, paid_amount: 60, status: 'received' });
    expect(await reply('ayoconnect', '500003')).toMatchObject({ transAmount: { value: '150.00', currency: 'IDR' } });
    expect(await reply('ayoconnect', '500005')).not.toHaveProperty('transAmount');
    expect(await reply('beqelal', '500003')).toMatchObject({ amount: '150.00', status: 'PROCESSED' });
    expect(await reply('cepta', '500003')).toMatchObject({ data: { amount: 150 } });
  });

  test('three wrong codes end a reference, even for a right code', async () => {
    for (const provider of ['hello-clever', 'ayoconnect', 'beqelal', 'cepta'] as const) {
      const reference = freshReference(provider);
      const counts: unknown[] = [];
      for (const code of ['400001', '400001', '400001', '123456']) {
        const { status, json } = await at(provider).verify(reference, code);
        counts.push(json?.data?.otpRetryCount ?? json?.responseCode ?? status);
      }
      const wanted = { ayoconnect: ['4040415', '4040415', '4030405', '4030405'], cepta: [2, 1, 0, 0] };
      expect(counts).toEqual(provider in wanted ? wanted[provider as 'cepta'] : [400, 400, 400, 400]);
      expect(sandbox.ledger.transaction(provider, reference)).toMatchObject({ charges: 0, state: 'failed' });
      expect(sandbox.ledger.expected(provider, reference)).toMatchObject({ otp: 'rejected' });
    }
    const blocked = freshReference('ayoconnect');
    await at('ayoconnect').verify(blocked, '400003');
    expect(ends('ayoconnect', blocked)).toBe('rejected/pending');
    expect(inquiryWord('ayoconnect', await at('ayoconnect').inquire(blocked))).toBe('06');
    expect(ends('ayoconnect', blocked)).toBe('rejected/failed');
  });

  test('a value that names a provider is an ordinary code at the others', async () => {
    const reference = freshReference('hello-clever');
    await at('hello-clever').verify(reference, '400004');
    expect(ends('hello-clever', reference)).toBe('accepted/succeeded');
  });
});

describe('magic patterns', () => {
  test.concurrent.each([
    ['720000', 200, '2000400', 1, 'accepted/succeeded'],
    ['720200', 202, '2020400', 1, 'accepted/succeeded'],
    ['740002', 400, '4000402', 0, 'not_submitted/pending'],
    ['740104', 401, '4010404', 0, 'not_submitted/pending'],
    ['740301', 403, '4030401', 0, 'rejected/failed'],
    ['740312', 403, '4030412', 0, 'rejected/pending'],
    ['740400', 404, '4040400', 0, 'unknown/pending'],
    ['740415', 404, '4040415', 0, 'rejected/pending'],
    ['740900', 409, '4090400', 0, 'unknown/pending'],
    ['740901', 409, '4090401', 1, 'accepted/succeeded'],
    ['742900', 429, '4290400', 0, 'not_submitted/pending'],
    ['750002', 500, '5000402', 0, 'unknown/pending'],
    ['750400', 504, '5040400', 0, 'unknown/pending'],
    ['799999', 200, '2000400', 1, 'accepted/succeeded'],
  ] as const)('ayoconnect answers %s with HTTP %i and %s', async (code, status, responseCode, charges, outcome) => {
    const reference = freshReference('ayoconnect');
    const reply = await at('ayoconnect').verify(reference, code);
    expect([reply.status, reply.json.responseCode]).toEqual([status, responseCode]);
    expect(sandbox.ledger.transaction('ayoconnect', reference).charges).toBe(charges);
    if (code === '740301') await at('ayoconnect').inquire(reference);
    expect(ends('ayoconnect', reference)).toBe(outcome);
  });

  test.each([
    ['4045501', 404, 'accepted/failed'],
    ['5045500', 504, 'accepted/pending'],
    ['4295500', 429, 'accepted/pending'],
  ])('a reference ending in S%s gives that status answer', async (responseCode, status, outcome) => {
    const reference = `${freshReference('ayoconnect').slice(0, 24)}S${responseCode}`;
    expect((await at('ayoconnect').verify(reference, '123456')).json.responseCode).toBe('2000400');
    const reply = await at('ayoconnect').inquire(reference);
    expect([reply.status, reply.json.responseCode]).toEqual([status, responseCode]);
    expect(ends('ayoconnect', reference)).toBe(outcome);
  });

  test('an authCode ending in S4037400 gives no customer token', async () => {
    const entry = sandbox.providers.ayoconnect;
    const authCode = `${'a'.repeat(24)}S4037400`;
    const reply = await call(entry.baseUrl, ayoconnect.b2b2c(entry, tokens.ayo.b2b, authCode));
    expect([reply.status, reply.json.responseCode, reply.json.accessToken]).toEqual([403, '4037400', undefined]);
  });

  test('a reference can carry its amount', async () => {
    await at('cepta').verify('order-7-A12550Z', '123456');
    expect((await at('cepta').inquire('order-7-A12550Z')).json.data.amount).toBe(125.5);
    expect(sandbox.ledger.transaction('cepta', 'order-7-A12550Z').chargedAmount).toBe('125.50');
  });

  test.each([
    ['+254711777777', 200, '"data":{"message":"OTP has been sent successfully","otp":"'],
    ['+254711400006', 500, '"status":"500"'],
    ['+254711400008', 400, 'reason'],
    ['+254711600001', 401, '"401"'],
    ['+254711800001', 502, '<html>'],
    ['+254711800002', 0, ''],
  ])('LipaLater send to %s is answered with %i', async (phone, status, text) => {
    const { baseUrl } = sandbox.providers['lipa-later'];
    const reply = await call(baseUrl, lipaLater.send(tokens.lipa, phone));
    expect([reply.status, reply.text]).toEqual([status, expect.stringContaining(text)]);
    expect(sandbox.ledger.expected('lipa-later', phone, 'send').transaction).toBe('none');
  });
});
