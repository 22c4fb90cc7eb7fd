import { createHash, createHmac } from 'node:crypto';
import { expect, test } from 'vitest';
import { type Sandbox, type SandboxOptions, type SandboxProvider, startSandbox } from '../../src/sandbox/index.ts';
import { type Receiver, startReceiver } from './receiver.ts';
import { ayoconnect, beqelal, call, cepta, credential, freshReference, helloClever, id32, privateKey } from './wire.ts';

const reporting = ['hello-clever', 'ayoconnect', 'beqelal', 'cepta'] as const satisfies SandboxProvider[];

const started = (receiver: Receiver | undefined, options: SandboxOptions = {}) =>
  startSandbox({
    ayoconnectPrivateKey: privateKey,
    settleAfterMs: 0,
    callbackRetryMs: [1, 1, 1],
    ...(receiver ? { callbacks: Object.fromEntries(reporting.map((name) => [name, { url: receiver.url }])) } : {}),
    ...options,
  });

/** Submits a code wherever it is wanted. */
async function submit(sandbox: Sandbox, provider: SandboxProvider, reference: string, code: string, more = {}) {
  const entry = sandbox.providers[provider];
  if (provider === 'hello-clever') return call(entry.baseUrl, helloClever.confirm(entry, reference, code));
  if (provider === 'beqelal') return call(entry.baseUrl, beqelal.authorize(entry, reference, Number(code)));
  if (provider === 'cepta') return call(entry.baseUrl, cepta.validate(entry, reference, code));
  const tokens = await ayoconnect.freshTokens(entry);
  return call(entry.baseUrl, ayoconnect.verify(entry, tokens, reference, code, more));
}

/** Until the ledger has so many answers to callbacks of this reference. */
async function answered(sandbox: Sandbox, provider: SandboxProvider, reference: string, count: number) {
  for (;;) {
    const own = sandbox.ledger.find({ provider, reference }).filter(({ event }) => event === 'callback_answered');
    if (own.length >= count) return own;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const sha512 = (text: string) => createHash('sha512').update(text).digest('hex');

test('Hello Clever reports with the authorization it was given, and only what was received or came back', async () => {
  await using receiver = await startReceiver();
  await using sandbox = await started(receiver);
  await submit(sandbox, 'hello-clever', 'FAILS1', '500001');
  await submit(sandbox, 'hello-clever', 'PAID1', '123456');
  await receiver.came(1);
  await submit(sandbox, 'hello-clever', 'BACK1', '500008');
  const [paid, back] = await receiver.came(2);
  expect(paid).toMatchObject({
    method: 'POST',
    path: '/v1/callbacks/here',
    headers: {
      'content-type': 'application/json',
      authorization: credential(sandbox.providers['hello-clever'], 'callbackSecret'),
    },
    json: { uuid: 'PAID1', status: 'received', currency: 'GHS', amount: 100, total: 100, paid_amount: 100 },
  });
  expect(back?.json).toMatchObject({ uuid: 'BACK1', status: 'return_received' });
  expect(receiver.received).toHaveLength(2);
});

test('Ayoconnect reports payments and unbindings with a bearer token, and repeats until a 2xx', async () => {
  await using receiver = await startReceiver((_, index) => (index < 2 ? 500 : 202));
  await using sandbox = await started(receiver);
  const [paid, failed, unbound] = [id32(), id32(), id32()];
  const entry = sandbox.providers.ayoconnect;
  await submit(sandbox, 'ayoconnect', paid, '123456');
  const attempts = await answered(sandbox, 'ayoconnect', paid, 3);
  expect(attempts.map(({ attempt, acknowledged, detail }) => [attempt, acknowledged, detail])).toEqual([
    [1, false, '500'],
    [2, false, '500'],
    [3, true, '202'],
  ]);
  expect(new Set(receiver.received.map(({ text }) => text)).size).toBe(1);
  const sent = ayoconnect.verify(entry, { b2b: '', b2b2c: '' }, paid, '123456');
  expect(receiver.received[0]).toMatchObject({
    path: '/v1/callbacks/here',
    headers: { authorization: `Bearer ${credential(entry, 'callbackToken')}` },
    json: {
      originalReferenceNo: paid,
      originalPartnerReferenceNo: JSON.parse(sent.body).originalPartnerReferenceNo,
      latestTransactionStatus: 'SUCCESS',
      additionalInfo: { 'X-External-ID': sent.headers['x-external-id'], responseCode: '2005400', flow: 'DIRECT_DEBIT' },
    },
  });
  await submit(sandbox, 'ayoconnect', failed, '500001');
  await receiver.came(4);
  await submit(sandbox, 'ayoconnect', unbound, '123456', { action: 'unbinding' });
  const [, , , no, gone] = await receiver.came(5);
  expect(no?.json).toMatchObject({ latestTransactionStatus: 'FAILED', additionalInfo: { responseCode: '4035405' } });
  expect(gone?.json).toMatchObject({
    originalReferenceNo: unbound,
    latestTransactionStatus: 'SUCCESS',
    additionalInfo: { responseCode: '2000900', flow: 'UNBIND_ACCOUNT' },
  });
  await answered(sandbox, 'ayoconnect', unbound, 1);
  expect(sandbox.ledger.expected('ayoconnect', unbound)).toMatchObject({ transaction: 'succeeded', certain: false });
  expect(sandbox.ledger.transaction('ayoconnect', unbound).charges).toBe(0);
});

test('Beqelal reports the transaction object, to a path that ends in the secret', async () => {
  await using receiver = await startReceiver();
  await using sandbox = await started(receiver);
  const reply = await submit(sandbox, 'beqelal', 'BEQ1', '123456');
  await submit(sandbox, 'beqelal', 'BEQ2', '400005');
  const [done, failed] = await receiver.came(2);
  const secret = credential(sandbox.providers.beqelal, 'callbackSecret');
  expect(done).toMatchObject({
    path: `/v1/callbacks/here/${secret}`,
    json: { id: reply.json.id, reference: 'BEQ1', status: 'PROCESSED', amount: '100.00', total_amount: '102.00' },
  });
  expect(failed?.json).toMatchObject({ reference: 'BEQ2', status: 'FAILED' });
});

test('Beqelal can sign the raw body instead, and name nothing but its id', async () => {
  await using receiver = await startReceiver();
  const hmac = { header: 'X-Beqelal-Signature', algorithm: 'sha256' };
  await using sandbox = await started(receiver, { beqelalCallback: { reference: false, hmac } });
  expect(sandbox.providers.beqelal.options).toEqual({ otpEncoding: 'auto', callbackHmac: hmac });
  const reply = await submit(sandbox, 'beqelal', 'BEQ1', '123456');
  const [letter] = await receiver.came(1);
  const key = credential(sandbox.providers.beqelal, 'callbackSecret');
  expect(letter?.path).toBe('/v1/callbacks/here');
  expect(letter?.headers['x-beqelal-signature']).toBe(
    createHmac('sha256', key)
      .update(letter?.text ?? '')
      .digest('hex'),
  );
  expect(letter?.json.id).toBe(reply.json.id);
  expect(letter?.json).not.toHaveProperty('reference');
});

test.each(['', ' | '] as const)(
  "Cepta's hash-key with '%s' between, the reference in all its places",
  async (separator) => {
    await using receiver = await startReceiver();
    await using sandbox = await started(receiver, { ceptaCallback: { shape: 'rotating', separator } });
    const entry = sandbox.providers.cepta;
    for (let index = 1; index <= 6; index += 1) {
      await submit(sandbox, 'cepta', `TX${index}`, '123456');
      await receiver.came(index);
    }
    const where = receiver.received.map(({ json }) =>
      Object.keys({ ...json, ...json.data }).find((name) => /^transactionRef/i.test(name)),
    );
    const spellings = ['transactionReference', 'transactionRef', 'TransactionRef'];
    expect(where).toEqual([...spellings, ...spellings]);
    expect(receiver.received.map(({ json }) => 'data' in json)).toEqual([true, true, true, false, false, false]);
    for (const [index, { headers, json }] of receiver.received.entries()) {
      expect(headers['hash-key']).toBe(
        sha512(`${credential(entry, 'secretKey')}${separator}${credential(entry, 'merchantId')}`),
      );
      expect(Object.values(json.data ?? json)).toContain(`TX${index + 1}`);
      expect(json.data ?? json).toMatchObject({ status: 'Completed', amount: 100, responseCode: '00' });
    }
  },
);

test('a callback is in the ledger before it goes out, after the answer of the call that ended the payment', async () => {
  const seen: string[][] = [];
  await using receiver = await startReceiver(() => {
    seen.push(sandbox.ledger.entries.map(({ call: name, event }) => `${name} ${event}`));
    return 200;
  });
  await using sandbox = await started(receiver);
  await submit(sandbox, 'beqelal', 'ORDER1', '123456');
  await answered(sandbox, 'beqelal', 'ORDER1', 1);
  expect(seen[0]?.slice(-2)).toEqual(['verify answered', 'callback callback_sent']);
  expect(sandbox.ledger.entries.at(-1)).toMatchObject({
    event: 'callback_answered',
    says: 'paid',
    attempt: 1,
    acknowledged: true,
    detail: '200',
  });
});

test('a receiver that is not there is in the ledger too, and where nothing is known nothing is repeated', async () => {
  await using sandbox = await started(undefined);
  const gone = await startReceiver();
  await gone[Symbol.asyncDispose]();
  sandbox.setCallback('cepta', gone.url);
  sandbox.setCallback('hello-clever', gone.url);
  await submit(sandbox, 'cepta', 'NOBODY1', '123456');
  await submit(sandbox, 'hello-clever', 'NOBODY2', '123456');
  const clever = await answered(sandbox, 'hello-clever', 'NOBODY2', 4); // once, and after each of the three pauses
  expect(clever.map(({ detail }) => detail)).toEqual(Array(4).fill('ECONNREFUSED'));
  expect(await answered(sandbox, 'cepta', 'NOBODY1', 1)).toHaveLength(1);
});

test('the control server says where callbacks go', async () => {
  await using receiver = await startReceiver();
  await using sandbox = await started(undefined);
  const post = (body: unknown) =>
    call(sandbox.control.url, { method: 'POST', path: '/callbacks', headers: {}, body: JSON.stringify(body) });
  await submit(sandbox, 'cepta', 'BEFORE', '123456');
  expect((await post({ provider: 'cepta', url: receiver.url })).json).toEqual({ cepta: receiver.url });
  await submit(sandbox, 'cepta', 'MEANWHILE', '123456');
  await receiver.came(1);
  expect((await post({ provider: 'cepta', url: '' })).json).toEqual({});
  await submit(sandbox, 'cepta', 'AFTER', '123456');
  expect(receiver.received.map(({ json }) => json.data.transactionReference)).toEqual(['MEANWHILE']);
  expect(sandbox.ledger.find({ provider: 'cepta', reference: 'AFTER' }).at(-1)?.event).toBe('answered');
  for (const wrong of [
    { provider: 'lipa-later', url: receiver.url },
    { provider: 'cepta', url: 'x' },
    { url: '' },
    {},
  ]) {
    expect((await post(wrong)).status).toBe(400);
  }
  const nowhere = { 'lipa-later': { url: receiver.url } };
  await expect(startSandbox({ ayoconnectPrivateKey: privateKey, callbacks: nowhere })).rejects.toThrow(/lipa-later/);
});

test('callbacks go wrong by magic value', async () => {
  await using receiver = await startReceiver();
  await using sandbox = await started(receiver);
  const letters = async (provider: SandboxProvider, code: string, count: number) => {
    const reference = freshReference(provider);
    const from = receiver.received.length;
    await submit(sandbox, provider, reference, code);
    await answered(sandbox, provider, reference, count);
    return { reference, letters: receiver.received.slice(from), ledger: sandbox.ledger.find({ provider, reference }) };
  };
  for (const provider of reporting) {
    const twice = await letters(provider, '820002', 3);
    expect(twice.letters.map(({ text }) => text)).toEqual(Array(3).fill(twice.letters[0]?.text));

    const stray = await letters(provider, '820005', 2);
    expect(stray.letters.filter(({ text }) => text.includes(stray.reference))).toHaveLength(1);
    const [strange] = stray.ledger.filter(({ names }) => names !== undefined);
    expect(stray.letters.some(({ text }) => text.includes(strange?.names ?? '-'))).toBe(true);

    const right = await letters(provider, '123456', 1);
    const forged = await letters(provider, '820006', 1);
    const proof = ({ path, headers }: (typeof forged.letters)[0]) =>
      `${path} ${headers.authorization} ${headers['hash-key']}`;
    expect(forged.letters.map(proof)).not.toEqual(right.letters.map(proof));
    expect(forged.ledger.at(-1)).toMatchObject({ trick: 'wrong_secret' });
  }
  const status = async (provider: SandboxProvider, code: string) => {
    const [letter] = (await letters(provider, code, 1)).letters;
    return letter?.json.latestTransactionStatus ?? letter?.json.data?.status ?? letter?.json.status;
  };
  expect(await status('hello-clever', '820003')).toBe('return_received');
  expect(await status('hello-clever', '820004')).toBe('received');
  expect(await status('ayoconnect', '820003')).toBe('FAILED');
  expect(await status('ayoconnect', '820004')).toBe('SUCCESS');
  expect(await status('cepta', '820003')).toBe('failed');
  expect(await status('cepta', '820004')).toBe('Completed');
  expect(await status('beqelal', '820003')).toBe('FAILED');
  expect(await status('beqelal', '820009')).toBe('PROCESSED');

  expect((await letters('hello-clever', '820007', 1)).letters[0]?.json).toMatchObject({ amount: '100', total: '100' });
  expect((await letters('beqelal', '820007', 1)).letters[0]?.json).toMatchObject({ amount: 100, total_amount: 102 });
  const withheld = await letters('cepta', '820008', 0);
  await letters('cepta', '123456', 1);
  expect(withheld.ledger.map(({ event }) => event)).not.toContain('callback_sent');
  expect(receiver.received.some(({ text }) => text.includes(withheld.reference))).toBe(false);
});

test.each([0, 20])('callback_first holds the answer until its callback was answered, settled in %i ms', async (ms) => {
  const order: string[] = [];
  await using receiver = await startReceiver(() => {
    order.push('callback');
    return 200;
  });
  await using sandbox = await started(receiver, { settleAfterMs: ms });
  for (const provider of reporting) {
    expect((await submit(sandbox, provider, freshReference(provider), '820001')).status).toBe(200);
    order.push('answer');
  }
  expect(order).toEqual(reporting.flatMap(() => ['callback', 'answer']));
});

test('a lost answer of Beqelal is settled by an acknowledged callback, surely only where the amount is known', async () => {
  let status = 200;
  await using receiver = await startReceiver(() => status);
  await using sandbox = await started(receiver);
  const outcome = async (code: string, amountsAgree: boolean) => {
    const reference = freshReference('beqelal');
    await submit(sandbox, 'beqelal', reference, code);
    if (code !== '800008') await answered(sandbox, 'beqelal', reference, 1);
    const { otp, transaction, certain } = sandbox.ledger.expected('beqelal', reference, 'verify', { amountsAgree });
    return [otp, transaction, certain];
  };
  expect(await outcome('800002', false)).toEqual(['accepted', 'succeeded', false]);
  expect(await outcome('800002', true)).toEqual(['accepted', 'succeeded', true]);
  expect(await outcome('800016', true)).toEqual(['unknown', 'failed', false]);
  expect(await outcome('800008', true)).toEqual(['unknown', 'unknown', true]); // a wrong code ends no payment
  expect(await outcome('123456', true)).toEqual(['accepted', 'succeeded', true]);
  expect(await outcome('820003', true)).toEqual(['accepted', 'succeeded', false]);
  expect(await outcome('820006', true)).toEqual(['accepted', 'succeeded', true]); // a forged one says nothing
  status = 503;
  expect(await outcome('800002', true)).toEqual(['unknown', 'unknown', true]);
});

test('a client that gives up before a late answer knows nothing of it, and the callback goes out all the same', async () => {
  await using receiver = await startReceiver();
  await using sandbox = await started(receiver, { slowMs: 60_000 });
  const entry = sandbox.providers.beqelal;
  const giveUp = new AbortController();
  const reply = call(entry.baseUrl, beqelal.authorize(entry, 'LATE1', 800015), giveUp.signal);
  while (sandbox.ledger.transaction('beqelal', 'LATE1').charges === 0) await new Promise(setImmediate);
  giveUp.abort();
  await reply;
  await answered(sandbox, 'beqelal', 'LATE1', 1);
  const events = sandbox.ledger.find({ provider: 'beqelal', reference: 'LATE1' }).map(({ event }) => event);
  expect(events.slice(-4)).toEqual(['answered', 'undelivered', 'callback_sent', 'callback_answered']);
  const outcome = sandbox.ledger.expected('beqelal', 'LATE1', 'verify', { amountsAgree: true });
  expect(outcome).toMatchObject({
    otp: 'accepted',
    transaction: 'succeeded',
    because: expect.stringMatching(/no readable/),
  });
});
