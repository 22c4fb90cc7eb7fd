/**
 * The examples of examples/ as their readers run them: each in its own folder, with its language's runtime alone, against
 * `otp serve` in another process. Each waits for its outcome, and sees its webhook once although the receiver was killed.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { startSandbox } from '../../src/sandbox/index.ts';
import { signatureOf } from '../../src/workers/webhooks.ts';
import { startTestRedis } from '../support/redis.ts';
import { install, runCli, serve } from '../support/service.ts';

const run = promisify(execFile);
const folderOf = (name: string): string => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));

interface Example {
  readonly name: string;
  readonly runtime: string;
  enqueue(args: readonly string[]): readonly string[];
  receive(port: number, inbox: string): { args: readonly string[]; env?: Record<string, string> };
}

const EXAMPLES: readonly Example[] = [
  {
    name: 'python',
    runtime: 'python3',
    enqueue: (args) => ['enqueue.py', ...args],
    receive: (port, inbox) => ({ args: ['receiver.py', String(port), inbox] }),
  },
  {
    name: 'php',
    runtime: 'php',
    enqueue: (args) => ['enqueue.php', ...args],
    receive: (port, inbox) => ({ args: ['-S', `127.0.0.1:${port}`, 'receiver.php'], env: { INBOX: inbox } }),
  },
  {
    name: 'ruby',
    runtime: 'ruby',
    enqueue: (args) => ['enqueue.rb', ...args],
    receive: (port, inbox) => ({ args: ['receiver.rb', String(port), inbox] }),
  },
  {
    name: 'node',
    runtime: process.execPath,
    enqueue: (args) => ['enqueue.cjs', ...args],
    receive: (port, inbox) => ({ args: ['receiver.cjs', String(port), inbox] }),
  },
];

const isThere = ({ runtime }: Example): boolean => spawnSync(runtime, ['--version']).status === 0;
const secretOf = (name: string): string => `whsec_${Buffer.from(`the webhook secret of ${name}`).toString('base64')}`;
const apiKeyOf = (name: string): string => `the-api-key-of-the-${name}-example`;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  const { port } = server.address() as AddressInfo;
  await new Promise((closed) => server.close(closed));
  return port;
}

const open: AsyncDisposable[] = [];
function opened<T extends AsyncDisposable>(resource: T): T {
  open.unshift(resource);
  return resource;
}
const ports = new Map<string, number>();
let intakeUrl: string;
let configuration: string;

beforeAll(async () => {
  const redis = opened(await startTestRedis());
  const sandbox = opened(await startSandbox({ settleAfterMs: 0 }));
  for (const { name } of EXAMPLES) ports.set(name, await freePort());
  const { baseUrl, credentials } = sandbox.providers.cepta;
  const installation = opened(
    await install({
      redis: { url: redis.url },
      clients: EXAMPLES.map(({ name }) => ({ id: name, apiKey: apiKeyOf(name) })),
      providers: { cepta: { baseUrl, credentials, inquiry: { delaysMs: [300] } } },
      results: {
        webhooks: EXAMPLES.map(({ name }) => ({
          client: name,
          url: `http://127.0.0.1:${ports.get(name)}/otp-results`,
          secret: secretOf(name),
        })),
      },
    }),
  );
  configuration = installation.file;
  const service = opened(await serve(installation.file, 'intake,worker,console'));
  intakeUrl = service.intakeUrl;
}, 60_000);
afterAll(async () => {
  for (const resource of open) await resource[Symbol.asyncDispose]();
});

/** A receiver in a process of its own, and every line that it printed about a result. */
async function startReceiver(example: Example, inbox: string) {
  const port = ports.get(example.name) ?? 0;
  const { args, env } = example.receive(port, inbox);
  const child: ChildProcess = spawn(example.runtime, args, {
    cwd: folderOf(example.name),
    env: {
      PATH: process.env.PATH ?? '',
      HOME: process.env.HOME ?? '',
      OTP_WEBHOOK_SECRET: secretOf(example.name),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const told: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    if (!stream) continue;
    createInterface({ input: stream }).on('line', (line) => {
      const [result] = /cepta_[0-9a-f]{32} otp\..*/.exec(line) ?? [];
      if (result) told.push(result);
    });
  }
  const url = `http://127.0.0.1:${port}/otp-results`;
  await vi.waitFor(async () => await fetch(url, { method: 'POST', body: '{}' }), { timeout: 15_000, interval: 50 });
  const kill = async (): Promise<void> => {
    const ended = new Promise((done) => child.once('exit', done));
    child.kill('SIGKILL');
    await ended;
  };
  return { url, told, kill };
}

for (const example of EXAMPLES) {
  const { name } = example;
  const there = isThere(example);
  if (!there && process.env.CI)
    throw new Error(`${example.runtime} is not installed; scripts/install-runtimes.sh does it`);
  if (!there) console.warn(`SKIPPED: the ${name} example, because ${example.runtime} is not installed`);

  describe.skipIf(!there)(`the ${name} example`, { concurrent: true }, () => {
    test('enqueues, learns the outcome, and sees its webhook once although the receiver was killed', async ({
      expect,
    }) => {
      const inbox = mkdtempSync(join(tmpdir(), `otp-inbox-${name}-`));
      const before = await startReceiver(example, inbox);
      await before.kill(); // the first tries meet nobody

      const args = [`ORDER-${name}`, `TX-${name.toUpperCase()}`, '012345'];
      const enqueued = await run(example.runtime, example.enqueue(args), {
        cwd: folderOf(name),
        env: {
          PATH: process.env.PATH ?? '',
          HOME: process.env.HOME ?? '',
          OTP_URL: intakeUrl,
          OTP_API_KEY: apiKeyOf(name),
        },
        timeout: 30_000,
      });
      expect(enqueued.stdout.trim()).toBe(`ORDER-${name} accepted succeeded none`);

      const receiver = await startReceiver(example, inbox);
      const results = (): string[] => readdirSync(inbox).filter((file) => file.endsWith('.json'));
      await vi.waitFor(() => expect(results()).toHaveLength(2), { timeout: 25_000, interval: 100 });
      const last = JSON.parse(readFileSync(join(inbox, results().sort().at(-1) ?? ''), 'utf8'));
      expect(last).toMatchObject({ type: 'otp.verification.settled', data: { transaction: 'succeeded' } });

      const again = await post(receiver.url, name, last.id, JSON.stringify(last));
      expect(again).toBe(204);
      expect(await post(receiver.url, 'somebody-else', last.id, JSON.stringify(last))).toBe(401);
      await vi.waitFor(() => expect(receiver.told).toHaveLength(2));
      expect(new Set([...before.told, ...receiver.told]).size).toBe(before.told.length + receiver.told.length);
      await receiver.kill();
      rmSync(inbox, { recursive: true });
    }, 60_000);
  });
}

async function post(url: string, name: string, id: string, body: string): Promise<number> {
  const timestamp = String(Math.floor(Date.now() / 1_000));
  const key = Buffer.from(secretOf(name).slice('whsec_'.length), 'base64');
  const headers = {
    'webhook-id': id,
    'webhook-timestamp': timestamp,
    'webhook-signature': signatureOf(key, id, timestamp, body),
  };
  return (await fetch(url, { method: 'POST', body, headers })).status;
}

test('an operator sees what is owed to an endpoint', async () => {
  const child = runCli(['webhooks', 'list', '--config', configuration, '--json']);
  let output = '';
  child.stdout?.on('data', (chunk) => {
    output += chunk;
  });
  expect(await new Promise((done) => child.once('exit', done))).toBe(0);
  const [first] = output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(first).toMatchObject({ client: 'python', enabled: true, failed: 0 });
});
