import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { type FaultPlan, faultPlan } from '../../src/sandbox/fault-plan.ts';
import {
  FaultSpecError,
  magicValues,
  type PlanFaultName,
  planFaults,
  type Sandbox,
  type SandboxOptions,
  type SandboxProvider,
  startSandbox,
} from '../../src/sandbox/index.ts';
import { startReceiver } from './receiver.ts';
import {
  ayoconnect,
  call,
  cepta,
  freshReference,
  helloClever,
  id32,
  jakarta,
  lipaLater,
  privateKey,
  type Reply,
  submitter,
} from './wire.ts';

const started = (faults: string, options: SandboxOptions = {}) =>
  startSandbox({ ayoconnectPrivateKey: privateKey, settleAfterMs: 0, faults, ...options });

const at = async (sandbox: Sandbox, provider: SandboxProvider) => {
  const { 'lipa-later': lipa, ayoconnect: ayo } = sandbox.providers;
  const tokens = {
    lipa: provider === 'lipa-later' ? await lipaLater.freshToken(lipa) : '',
    ayo: provider === 'ayoconnect' ? await ayoconnect.freshTokens(ayo) : { b2b: '', b2b2c: '' },
  };
  return submitter(provider, sandbox.providers[provider], tokens);
};

const faultsOf = (sandbox: Sandbox, reference?: string) =>
  sandbox.ledger.entries.flatMap((entry) =>
    entry.event === 'fault' && (reference === undefined || entry.reference === reference) ? [entry.detail] : [],
  );
const soon = () => new Promise<void>((resolve) => setImmediate(resolve));

test('the same seed and the same requests give the same faults, in whatever order they come', async () => {
  const spec = 'commit_then_reset=0.2,html_502=0.2,busy_503=0.2,slow=0.3:1';
  const references = Array.from({ length: 12 }, (_, index) => `SAME${index}`);
  const run = async (order: readonly string[], seed: number) => {
    await using sandbox = await started(spec, { seed });
    const entry = sandbox.providers.cepta;
    await Promise.all(
      order.map(async (reference) => {
        await call(entry.baseUrl, cepta.validate(entry, reference, '123456'));
        await call(entry.baseUrl, cepta.status(entry, reference));
      }),
    );
    return references.map((reference) => faultsOf(sandbox, reference));
  };
  const first = await run(references, 7);
  expect(new Set(first.flat())).toEqual(new Set(['commit_then_reset', 'html_502', 'busy_503', 'slow']));
  expect(await run(references, 7)).toEqual(first);
  expect(await run(references.toReversed(), 7)).toEqual(first);
  expect(await run(references, 8)).not.toEqual(first);
});

test('probabilities come out, at most one fault a place', () => {
  const plan = faultPlan('commit_then_reset=0.05,html_502=0.02,half_json@cepta=0.9', 3);
  const share = (drawn: FaultPlan, name: PlanFaultName, provider: SandboxProvider) => {
    let hits = 0;
    for (let index = 0; index < 5000; index += 1) {
      if (drawn.draw('answer', provider, 'verify', `R${index}`)?.name === name) hits += 1;
    }
    return hits / 5000;
  };
  expect(Math.abs(share(plan, 'commit_then_reset', 'beqelal') - 0.05)).toBeLessThan(0.01);
  expect(Math.abs(share(plan, 'html_502', 'cepta') - 0.02)).toBeLessThan(0.01);
  expect(Math.abs(share(plan, 'half_json', 'cepta') - 0.9)).toBeLessThan(0.01);
  expect(share(plan, 'half_json', 'beqelal')).toBe(0);
  expect(plan.draw('door', 'cepta', 'verify', 'R1')).toBeUndefined();
});

test.each([
  ['nonsense=0.1', /no fault 'nonsense'; there are reset_unread/],
  ['html_502', /'html_502' is not name=probability/],
  ['html_502=1.5', /from 0 to 1/],
  ['html_502=-0.1', /from 0 to 1/],
  ['html_502=1.1.1', /from 0 to 1/],
  ['html_502=0.1:20', /takes no value/],
  ['slow=0.1:1.1.1', /must be a number/],
  ['html_502@nobody=0.1', /'@nobody' is no provider and no call/],
  ['html_502=0.6,half_json=0.6', /add up to more than 1 \(verify at hello-clever\)/],
  ['clock_skew@cepta=30', /number of seconds/],
])('%s is refused', async (spec, message) => {
  expect(() => faultPlan(spec)).toThrow(message);
  expect(() => faultPlan(spec)).toThrow(FaultSpecError);
});

test('what excludes each other by scope may add up to more', () => {
  expect(faultPlan('html_502@cepta=0.6, half_json@beqelal=0.6,').spec).toContain('@cepta');
  expect(() => faultPlan('', 0.5)).toThrow(/whole number/);
});

/** What each fault of the answer leaves of Cepta's: the status (0 for none), and whether JSON can be read from it. */
const spoilt: Record<string, [status: number, readable: boolean]> = {
  commit_then_reset: [0, false],
  commit_then_silence: [0, false],
  commit_then_503: [503, false],
  html_502: [502, false],
  html_200: [200, false],
  half_answer: [0, false],
  half_json: [200, false],
  other_content_type: [200, true],
  swapped_types: [200, true],
  null_object: [200, true],
};
const namesAt = (place: string) =>
  (Object.keys(planFaults) as PlanFaultName[]).filter((name) => planFaults[name].place === place);

test('every fault of the answer charges, and spoils verification and inquiry alike', async () => {
  await using sandbox = await started('');
  const entry = sandbox.providers.cepta;
  for (const name of namesAt('answer')) {
    const reference = freshReference('cepta');
    const asked = async (wire: ReturnType<typeof cepta.status>): Promise<Reply> => {
      const giveUp = new AbortController();
      const answered = () => sandbox.ledger.entries.filter(({ event }) => event === 'answered').length;
      const before = answered();
      const reply = call(entry.baseUrl, wire, giveUp.signal);
      if (name === 'commit_then_silence') {
        while (answered() === before) await soon();
        giveUp.abort();
      }
      return reply;
    };
    sandbox.setFaults(`${name}=1`);
    for (const wire of [cepta.validate(entry, reference, '123456'), cepta.status(entry, reference)]) {
      const { status, json } = await asked(wire);
      expect([name, status, json !== undefined]).toEqual([name, ...(spoilt[name] ?? [])]);
    }
    expect(faultsOf(sandbox, reference)).toEqual([name, name]);
    expect(sandbox.ledger.transaction('cepta', reference)).toMatchObject({ charges: 1, codesReceived: ['123456'] });
    expect(sandbox.ledger.expected('cepta', reference)).toMatchObject({
      otp: 'accepted',
      transaction: 'succeeded',
      certain: true,
    });
  }
});

test('an inquiry that could not be read has said nothing', async () => {
  await using sandbox = await started('');
  const ayo = await at(sandbox, 'ayoconnect');
  const reference = id32();
  await ayo.verify(reference, '400003');
  const expected = () => sandbox.ledger.expected('ayoconnect', reference).transaction;
  for (const fault of ['html_502=1', 'commit_then_reset=1', 'swapped_types=1']) {
    sandbox.setFaults(fault);
    await ayo.inquire(reference);
    expect(expected()).toBe('pending');
  }
  sandbox.setFaults('');
  await ayo.inquire(reference);
  expect(expected()).toBe('failed');
});

test('reset_unread and busy_503 meet every call before anything of it is looked at', async () => {
  await using sandbox = await started('reset_unread=1');
  const wrongKeys = { ...sandbox.providers['hello-clever'], credentials: {} };
  const { 'hello-clever': entry, 'lipa-later': lipa } = sandbox.providers;
  for (const keys of [entry, wrongKeys]) {
    expect((await call(entry.baseUrl, helloClever.confirm(keys, 'UNREAD', '123456'))).lost).toBeDefined();
  }
  expect((await call(lipa.baseUrl, lipaLater.token(lipa))).lost).toBeDefined();
  sandbox.setFaults('busy_503=1');
  const busy = await call(entry.baseUrl, helloClever.confirm(entry, 'UNREAD', '123456'));
  expect([busy.status, busy.text, busy.headers['retry-after']]).toEqual([503, '', '1']);
  expect(sandbox.ledger.transaction('hello-clever', 'UNREAD')).toMatchObject({
    requests: 3,
    codesReceived: [],
    charges: 0,
  });
  expect(sandbox.ledger.expected('hello-clever', 'UNREAD')).toMatchObject({ otp: 'unknown', transaction: 'unknown' });
  expect(sandbox.ledger.entries.filter(({ event }) => event === 'dropped')).toHaveLength(3);
});

test('a storm is met by everybody at that provider, whatever they call, and by nobody else', async () => {
  await using sandbox = await started('');
  const [ayo, clever] = [await at(sandbox, 'ayoconnect'), await at(sandbox, 'hello-clever')];
  const entry = sandbox.providers.ayoconnect;
  sandbox.setFaults('storm_429@ayoconnect=1:90000');
  const reference = id32();
  expect((await ayo.verify(reference, '123456')).json.responseCode).toBe('4290400');
  const inquiry = await ayo.inquire(reference);
  expect([inquiry.status, inquiry.json.responseCode]).toEqual([429, '4295500']);
  expect(Number(inquiry.headers['retry-after'])).toBeGreaterThan(80);
  expect((await call(entry.baseUrl, ayoconnect.b2b(entry))).json.responseCode).toBe('4297300');
  expect((await clever.verify('CALM1', '123456')).status).toBe(200);
  sandbox.setFaults('');
  expect((await ayo.verify(reference, '123456')).status).toBe(200);
  expect(sandbox.ledger.transaction('ayoconnect', reference)).toMatchObject({ requests: 2, charges: 1 });
});

test('the magic value begins a storm for everybody, and is accepted afterwards', async () => {
  await using sandbox = await started('');
  for (const provider of ['hello-clever', 'lipa-later', 'ayoconnect', 'beqelal', 'cepta'] as const) {
    const { verify } = await at(sandbox, provider);
    const [cloudy, other] = [freshReference(provider), freshReference(provider)];
    const first = await verify(cloudy, '600009');
    expect([first.status, first.headers['retry-after']]).toEqual([429, '1']);
    expect((await verify(other, '123456')).status).toBe(429);
    sandbox.setFaults(''); // ends the storm
    expect((await verify(other, '123456')).status).toBe(200);
    expect((await verify(cloudy, '600009')).status).toBe(200);
    expect(sandbox.ledger.transaction(provider, cloudy).codesReceived).toEqual(['600009']);
  }
});

test('a token expires under its calls, and the next one is good', async () => {
  await using sandbox = await started('');
  const verified = async (provider: SandboxProvider, spec: string) => {
    const { verify } = await at(sandbox, provider);
    sandbox.setFaults(spec);
    const refused = await verify(freshReference(provider), '123456');
    sandbox.setFaults('');
    const again = await verify(freshReference(provider), '123456'); // the token stays expired for everybody
    const renewed = await (await at(sandbox, provider)).verify(freshReference(provider), '123456');
    return [refused.status, refused.json.responseCode, again.status, renewed.status];
  };
  expect(await verified('lipa-later', 'token_expired=1')).toEqual([401, undefined, 401, 200]);
  expect(await verified('ayoconnect', 'token_expired=1')).toEqual([401, '4010401', 401, 200]);
  expect(await verified('ayoconnect', 'customer_token_expired=1')).toEqual([401, '4010402', 401, 200]);
  expect(faultsOf(sandbox)).toEqual(['token_expired', 'token_expired', 'customer_token_expired']);
  sandbox.setFaults('token_expired=1');
  expect((await (await at(sandbox, 'cepta')).verify('NOTOKEN', '123456')).status).toBe(200);
});

test.each([400, -400])('a clock %i s off shows in Date, and refuses who goes by the right time', async (seconds) => {
  await using sandbox = await started('', { ceptaAuthScheme: 'hmac' });
  const { ayoconnect: ayo, cepta: hmac } = sandbox.providers;
  const signed = (ts?: number) => call(hmac.baseUrl, cepta.sign(hmac, cepta.status(hmac, 'SKEW1'), ts));
  expect((await signed()).status).toBe(200);
  sandbox.setFaults(`clock_skew=${seconds}`);
  const refused = await call(ayo.baseUrl, ayoconnect.b2b(ayo));
  expect([refused.status, refused.json.responseCode]).toEqual([401, '4017300']);
  const off = Date.parse(String(refused.headers.date)) - Date.now();
  expect(Math.abs(off - seconds * 1000)).toBeLessThan(5000);
  expect((await call(ayo.baseUrl, ayoconnect.b2b(ayo, jakarta(Date.now() + off)))).status).toBe(200);
  expect((await signed()).status).toBe(401);
  expect((await signed(Math.floor((Date.now() + off) / 1000))).status).toBe(200);
});

test('a slow answer is late, and decided before', async () => {
  await using sandbox = await started('slow=1:40');
  const entry = sandbox.providers.cepta;
  const from = performance.now();
  expect((await call(entry.baseUrl, cepta.validate(entry, 'SLOW1', '123456'))).status).toBe(200);
  expect(performance.now() - from).toBeGreaterThan(38); // a timer may be a millisecond early
});

test('callbacks go wrong by plan, and the ledger says how', async () => {
  await using receiver = await startReceiver();
  await using sandbox = await started('', { callbacks: { cepta: { url: receiver.url } } });
  const { verify } = await at(sandbox, 'cepta');
  const counts: Record<string, number[]> = {};
  for (const name of [...namesAt('callback'), 'callback_first'] as PlanFaultName[]) {
    sandbox.setFaults(`${name}=1`, 4);
    for (const reference of Array.from({ length: 6 }, (_, index) => `${name}${index}`)) {
      await verify(reference, '123456');
      const own = () => sandbox.ledger.find({ provider: 'cepta', reference }).map(({ event }) => event);
      const of = (event: string) => own().filter((it) => it === event).length;
      // The answer has gone, so the faults of its callback were drawn and the callbacks written down.
      while (of('callback_answered') < of('callback_sent') || !own().includes('fault')) await soon();
      expect(faultsOf(sandbox, reference)).toEqual([name]);
      counts[name] = [...(counts[name] ?? []), of('callback_sent')];
    }
  }
  const always = (count: number) => Array(6).fill(count);
  const { duplicate_callback: duplicates = [], ...others } = counts;
  expect(new Set(duplicates)).toEqual(new Set([2, 3]));
  expect(others).toEqual({
    contradictory_callback: always(1),
    stray_callback: always(2),
    forged_callback: always(1),
    misspelled_callback: always(1),
    withheld_callback: always(0),
    callback_first: always(1),
  });
});

test('the control server changes the plan, sums up, and finds what must not be', async () => {
  await using sandbox = await started('html_502=1', { seed: 9 });
  const post = (body: unknown) =>
    call(sandbox.control.url, { method: 'POST', path: '/faults', headers: {}, body: JSON.stringify(body) });
  const get = (path: string) => call(sandbox.control.url, { method: 'GET', path, headers: {}, body: '' });
  expect((await get('/faults')).json).toEqual({ spec: 'html_502=1', seed: 9 });
  const beqelal = await at(sandbox, 'beqelal');
  expect((await beqelal.verify('SUM1', '123456')).status).toBe(502);
  expect((await post({ spec: 'busy_503=1', seed: 2 })).json).toEqual({ spec: 'busy_503=1', seed: 2 });
  expect((await beqelal.verify('SUM2', '123456')).status).toBe(503);
  for (const wrong of [{ spec: 'nonsense=1' }, { spec: 'slow=1', seed: 0.5 }, { spec: 'slow=1', seed: '1' }, {}]) {
    expect((await post(wrong)).status).toBe(400);
  }
  expect((await get('/faults')).json.spec).toBe('busy_503=1');
  expect((await post({ spec: '' })).json).toEqual({ spec: '', seed: 1 });
  expect((await beqelal.verify('SUM3', '123456')).status).toBe(200);

  const rows = async (query = '') => {
    const { text, headers } = await get(`/ledger/summary${query}`);
    expect(headers['content-type']).toBe('application/x-ndjson');
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line));
  };
  expect(await rows()).toEqual([...sandbox.ledger.summary()]);
  expect(await rows('?amountsAgree=true')).toMatchObject([
    { provider: 'beqelal', reference: 'SUM1', codesReceived: ['123456'], charges: 1, state: 'paid' },
    { reference: 'SUM2', codesReceived: [], charges: 0, expected: { otp: 'unknown', transaction: 'unknown' } },
    { reference: 'SUM3', charges: 1, expected: { otp: 'accepted', transaction: 'succeeded', certain: true } },
  ]);
  expect((await get('/invariants')).json).toEqual({ doubleCharges: [], codesReceivedTwice: [] });
  await beqelal.verify('SUM3', '123456');
  await beqelal.verify('SUM2', '400001');
  await beqelal.verify('SUM2', '400001');
  expect((await get('/invariants')).json).toEqual({
    doubleCharges: [{ provider: 'beqelal', reference: 'SUM3', charges: 2, chargedAmount: '200.00' }],
    codesReceivedTwice: [
      { provider: 'beqelal', reference: 'SUM2', code: '400001', times: 2 },
      { provider: 'beqelal', reference: 'SUM3', code: '123456', times: 2 },
    ],
  });
});

test('docs/sandbox.md lists every fault of a plan as it is', () => {
  const page = readFileSync(new URL('../../docs/sandbox.md', import.meta.url), 'utf8');
  const rows = page.split('\n').filter((line) => /^\| `\w+` \| (door|answer|time|callback|clock) \|/.test(line));
  const known = new Set(magicValues.map(({ value }) => value));
  for (const [name, fault] of Object.entries(planFaults)) {
    const { place, wire, money, magic } = fault;
    const codes = magic.length === 0 ? 'none' : magic.map((value) => `\`${value}\``).join(', ');
    const value = 'value' in fault ? `${fault.value.means} (${fault.value.default})` : '';
    expect(rows).toContain(`| \`${name}\` | ${place} | ${wire} | ${money} | ${codes} | ${value} |`);
    for (const code of magic) expect(known, `${name} names ${code}`).toContain(code);
  }
  expect(rows).toHaveLength(Object.keys(planFaults).length);
});
