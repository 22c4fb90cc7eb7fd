import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { magicValues, type SandboxProvider, startSandbox } from '../../src/sandbox/index.ts';
import { beqelal, call, cepta, helloClever, privateKey, type Wire } from './wire.ts';

const get = (path: string): Wire => ({ method: 'GET', path, headers: {}, body: '' });
const post = (path: string, body: unknown): Wire => ({
  method: 'POST',
  path,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify(body),
});

/** The error code of a bare TCP connection, or 'open'. */
const knock = (url: string) =>
  new Promise<string>((resolve) => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve('open');
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'));
  });

async function until(wanted: () => Promise<boolean>): Promise<void> {
  while (!(await wanted())) await new Promise((resolve) => setImmediate(resolve));
}

test('what was decided is in the file before the client can know of it, even when no answer comes', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'sandbox-'));
  const ledgerFile = join(directory, 'ledger.jsonl');
  try {
    await using sandbox = await startSandbox({ ayoconnectPrivateKey: privateKey, settleAfterMs: 0, ledgerFile });
    const entry = sandbox.providers.cepta;
    const lines = () =>
      readFileSync(ledgerFile, 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line));
    const reply = await call(entry.baseUrl, cepta.validate(entry, 'LOST1', '800002'));
    expect(reply.lost).toBeDefined();
    expect(lines()).toEqual(sandbox.ledger.entries);
    expect(lines().map(({ event }) => event)).toEqual([
      'request',
      'code_received',
      'code_accepted',
      'charged',
      'answered',
    ]);
    expect(lines().at(-1)).toEqual({
      seq: 5,
      at: expect.stringMatching(/Z$/),
      provider: 'cepta',
      call: 'verify',
      reference: 'LOST1',
      event: 'answered',
      told: 'nothing',
      detail: 'reset',
    });
    await call(entry.baseUrl, cepta.validate(entry, 'LOST2', '600007'));
    expect(
      lines()
        .map(({ event }) => event)
        .slice(5),
    ).toEqual(['request', 'dropped', 'answered']);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('an answer is held back for answerDelayMs, its entries are not', async () => {
  await using sandbox = await startSandbox({
    ayoconnectPrivateKey: privateKey,
    settleAfterMs: 0,
    answerDelayMs: 60_000,
  });
  const entry = sandbox.providers.beqelal;
  const reply = call(entry.baseUrl, beqelal.authorize(entry, 'SLOW1', 123456));
  await until(async () => sandbox.ledger.transaction('beqelal', 'SLOW1').charges === 1);
  await sandbox.takeDown('beqelal');
  expect((await reply).lost).toBeDefined();
});

test('a provider taken down refuses connections, the others do not, and it comes back on its port', async () => {
  await using sandbox = await startSandbox({ ayoconnectPrivateKey: privateKey, settleAfterMs: 0 });
  const { cepta: down, beqelal: other } = sandbox.providers;
  const held = call(down.baseUrl, cepta.validate(down, 'HELD1', '800003'));
  await until(async () => sandbox.ledger.transaction('cepta', 'HELD1').charges === 1);
  await sandbox.takeDown('cepta');
  expect((await held).lost).toMatch(/ECONNRESET|UND_ERR_SOCKET/);
  expect(await knock(down.baseUrl)).toBe('ECONNREFUSED');
  expect((await call(down.baseUrl, cepta.validate(down, 'DOWN1', '123456'))).lost).toBe('ECONNREFUSED');
  expect(await knock(other.baseUrl)).toBe('open');
  expect(sandbox.ledger.transaction('cepta', 'DOWN1').state).toBe('untouched');
  expect(sandbox.ledger.expected('cepta', 'DOWN1')).toMatchObject({ otp: 'not_submitted', transaction: 'pending' });

  await Promise.all([sandbox.bringUp('cepta'), sandbox.bringUp('cepta')]);
  expect((await call(down.baseUrl, cepta.validate(down, 'DOWN1', '123456'))).status).toBe(200);

  await sandbox.takeDown('cepta', 20);
  expect(await knock(down.baseUrl)).toBe('ECONNREFUSED');
  await until(async () => (await knock(down.baseUrl)) === 'open');
});

test('the control server shows the ledger and steers the providers', async () => {
  await using sandbox = await startSandbox({ ayoconnectPrivateKey: privateKey, settleAfterMs: 0 });
  const { url } = sandbox.control;
  const ask = async (wire: Wire) => call(url, wire);
  expect((await ask(get('/healthz'))).json).toEqual({ status: 'ok' });
  expect((await ask(get('/providers'))).json).toEqual(sandbox.providers);

  const entry = sandbox.providers['hello-clever'];
  await call(entry.baseUrl, helloClever.confirm(entry, 'APU221YS', '400001'));
  await call(sandbox.providers.cepta.baseUrl, cepta.validate(sandbox.providers.cepta, 'TX1', '123456'));
  expect((await ask(get('/ledger'))).json.entries).toEqual(sandbox.ledger.entries);
  const one = await ask(get('/ledger?provider=hello-clever&reference=APU221YS'));
  expect(one.json).toMatchObject({
    entries: [
      { event: 'request' },
      { event: 'code_received', code: '400001' },
      { event: 'code_rejected' },
      { event: 'answered' },
    ],
    transaction: { requests: 1, codesReceived: ['400001'], charges: 0, state: 'awaiting_code' },
    expected: { otp: 'rejected', transaction: 'pending', certain: true },
  });
  expect((await ask(get('/ledger?provider=cepta'))).json.entries).toHaveLength(5);
  expect((await ask(get('/transactions'))).json.transactions).toMatchObject([
    { provider: 'hello-clever', expected: { otp: 'rejected' } },
    { provider: 'cepta', expected: { transaction: 'succeeded' } },
  ]);

  expect((await ask(post('/down', { provider: 'cepta' }))).json).toEqual({ provider: 'cepta', up: false });
  expect(await knock(sandbox.providers.cepta.baseUrl)).toBe('ECONNREFUSED');
  expect((await ask(post('/up', { provider: 'cepta' }))).json).toEqual({ provider: 'cepta', up: true });
  expect(await knock(sandbox.providers.cepta.baseUrl)).toBe('open');
  for (const wrong of [
    post('/down', { provider: 'nobody' }),
    post('/down', { provider: 'cepta', forMs: -1 }),
    get('/ledger?provider=x'),
  ]) {
    expect((await ask(wrong)).status).toBe(400);
  }
  expect((await ask(get('/nothing'))).status).toBe(404);
});

test('two sandboxes share nothing: other ports, other keys, other ledgers', async () => {
  await using first = await startSandbox({ settleAfterMs: 0 });
  await using second = await startSandbox({ settleAfterMs: 0 });
  const names = Object.keys(first.providers) as SandboxProvider[];
  expect(names).toEqual(['hello-clever', 'lipa-later', 'ayoconnect', 'beqelal', 'cepta']);
  for (const name of names) {
    expect(first.providers[name].baseUrl).not.toBe(second.providers[name].baseUrl);
    const values = Object.values(first.providers[name].credentials).filter((value) => value !== '95221');
    expect(Object.values(second.providers[name].credentials).filter((value) => values.includes(value))).toEqual([]);
  }
  const entry = second.providers.beqelal;
  expect((await call(entry.baseUrl, beqelal.authorize(first.providers.beqelal, 'R1', 123456))).status).toBe(401);
  expect(first.ledger.entries).toEqual([]);
});

test('a port that is taken fails the start and leaves nothing listening', async () => {
  await using sandbox = await startSandbox({ ayoconnectPrivateKey: privateKey });
  const taken = Number(new URL(sandbox.providers.cepta.baseUrl).port);
  await expect(startSandbox({ ayoconnectPrivateKey: privateKey, ports: { cepta: taken } })).rejects.toThrow(
    /EADDRINUSE/,
  );
});

test('nothing is left behind after close', async () => {
  const sandbox = await startSandbox({ ayoconnectPrivateKey: privateKey, settleAfterMs: 60_000 });
  const entry = sandbox.providers['hello-clever'];
  await call(entry.baseUrl, helloClever.confirm(entry, 'OPEN1', '123456'));
  await sandbox.takeDown('cepta', 60_000);
  await sandbox.close();
  await sandbox.close();
  for (const { baseUrl } of [...Object.values(sandbox.providers), { baseUrl: sandbox.control.url }]) {
    expect(await knock(baseUrl)).toBe('ECONNREFUSED');
  }
});

test('docs/sandbox.md lists every magic value with its name', () => {
  const page = readFileSync(new URL('../../docs/sandbox.md', import.meta.url), 'utf8');
  const rows = page.split('\n').filter((line) => line.startsWith('| `'));
  for (const { value, name, where, answers } of magicValues) {
    const row = rows.find((line) => line.startsWith(`| \`${value}\` | ${where} | ${name} |`));
    expect(row, `no row for ${value} ${name}`).toBeDefined();
    for (const [provider, answer] of Object.entries(answers)) expect(row).toContain(`${provider}: ${answer}`);
  }
  expect(
    rows.filter((line) => /^\| `[^`]+` \| (otp|phone_number|originalReferenceNo|authCode|reference) \|/.test(line)),
  ).toHaveLength(magicValues.length);
});
