/**
 * The examples of examples/ as their readers run them: each in its own folder, with its language's runtime alone, against
 * `otp serve` in another process. Each waits for its outcome, and sees each result once although its receiver was killed.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Queue } from 'bullmq';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { resultsPrefix } from '../../src/producers/job.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { freePort } from '../../src/redis/process.ts';
import { startSandbox } from '../../src/sandbox/index.ts';
import { signatureOf } from '../../src/workers/webhooks.ts';
import { startTestRedis } from '../support/redis.ts';
import { install, otp, serve } from '../support/service.ts';

const run = promisify(execFile);
const folderOf = (name: string): string => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));

interface Example {
  readonly name: string;
  readonly runtime: string;
  /** What has to be installed for it, when that is not the runtime itself. */
  readonly needs?: string;
  enqueue(args: readonly string[]): readonly string[];
  /** Webhooks over HTTP, or the client's own results queue; curl receives nothing. */
  readonly receives: 'webhooks' | 'queue' | null;
  receive?(port: number, inbox: string): { args: readonly string[]; env?: Record<string, string> };
}

const EXAMPLES: readonly Example[] = [
  {
    name: 'python',
    runtime: 'python3',
    enqueue: (args) => ['enqueue.py', ...args],
    receives: 'webhooks',
    receive: (port, inbox) => ({ args: ['receiver.py', String(port), inbox] }),
  },
  {
    name: 'php',
    runtime: 'php',
    enqueue: (args) => ['enqueue.php', ...args],
    receives: 'webhooks',
    receive: (port, inbox) => ({ args: ['-S', `127.0.0.1:${port}`, 'receiver.php'], env: { INBOX: inbox } }),
  },
  {
    name: 'ruby',
    runtime: 'ruby',
    enqueue: (args) => ['enqueue.rb', ...args],
    receives: 'webhooks',
    receive: (port, inbox) => ({ args: ['receiver.rb', String(port), inbox] }),
  },
  {
    name: 'node',
    runtime: process.execPath,
    enqueue: (args) => ['enqueue.cjs', ...args],
    receives: 'webhooks',
    receive: (port, inbox) => ({ args: ['receiver.cjs', String(port), inbox] }),
  },
  {
    name: 'java',
    runtime: 'java',
    needs: 'javac', // a runtime alone runs no source
    enqueue: (args) => ['Enqueue.java', ...args],
    receives: 'webhooks',
    receive: (port, inbox) => ({ args: ['Receiver.java', String(port), inbox] }),
  },
  {
    name: 'node-library',
    runtime: process.execPath,
    enqueue: (args) => ['enqueue.mjs', ...args],
    receives: 'queue',
    receive: (_port, inbox) => ({ args: ['results.mjs', inbox] }),
  },
  {
    name: 'curl',
    runtime: 'sh',
    needs: 'curl',
    enqueue: (args) => ['enqueue.sh', ...args],
    receives: null,
  },
];

const isThere = ({ runtime, needs = runtime }: Example): boolean => spawnSync(needs, ['--version']).status === 0;
const secretOf = (name: string): string => `whsec_${Buffer.from(`the webhook secret of ${name}`).toString('base64')}`;
const apiKeyOf = (name: string): string => `the-api-key-of-the-${name}-example`;
const resultsQueueOf = (name: string): string => `otp-results-${name}`;

const open: AsyncDisposable[] = [];
function opened<T extends AsyncDisposable>(resource: T): T {
  open.unshift(resource);
  return resource;
}
const ports = new Map<string, number>();
let intakeUrl: string;
let configuration: string;
/** What every example finds in its environment; each takes what it needs. */
let environment: (name: string) => Record<string, string>;
let resultsQueue: Queue;
let connection: RedisConnection;

beforeAll(async () => {
  const redis = opened(await startTestRedis());
  const sandbox = opened(await startSandbox({ settleAfterMs: 0 }));
  for (const { name } of EXAMPLES) ports.set(name, await freePort());
  const { baseUrl, credentials } = sandbox.providers.cepta;
  const installation = opened(
    await install({
      redis: { url: redis.url },
      clients: EXAMPLES.map(({ name, receives }) => ({
        id: name,
        apiKey: apiKeyOf(name),
        ...(receives === 'queue' ? { resultsQueue: resultsQueueOf(name) } : {}),
      })),
      providers: { cepta: { baseUrl, credentials, inquiry: { delaysMs: [300] } } },
      results: {
        webhooks: EXAMPLES.filter(({ receives }) => receives === 'webhooks').map(({ name }) => ({
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
  const proxy = opened(await startProxy());

  const publicKeys = join(installation.folder, 'public-keys.json');
  writeFileSync(publicKeys, await printedBy(['keys', 'public', '--config', configuration]));
  environment = (name) => ({
    PATH: process.env.PATH ?? '',
    HOME: process.env.HOME ?? '',
    OTP_URL: proxy.url,
    OTP_API_KEY: apiKeyOf(name),
    OTP_WEBHOOK_SECRET: secretOf(name),
    OTP_CLIENT: name,
    OTP_REDIS_URL: redis.url,
    OTP_PUBLIC_KEYS: publicKeys,
    OTP_RESULTS_QUEUE: resultsQueueOf(name),
  });
  connection = connectRedis(redis.url, 'worker', { onError: () => {} });
  const queue = resultsQueueOf('node-library');
  resultsQueue = new Queue(queue, { prefix: resultsPrefix(queue), connection, skipMetasUpdate: true });
  open.unshift({
    [Symbol.asyncDispose]: async () => {
      await resultsQueue.close();
      connection.disconnect();
    },
  });
}, 60_000);
afterAll(async () => {
  for (const resource of open) await resource[Symbol.asyncDispose]();
});

/** Before the intake: the first request of each client arrives there, and the client hears that it took too long. */
async function startProxy(): Promise<{ url: string } & AsyncDisposable> {
  const known = new Set<string | undefined>();
  const server = createServer((asked, told) => {
    const { method = '', url = '', headers } = asked;
    const isFirst = method === 'POST' && !known.has(headers.authorization);
    known.add(headers.authorization);
    const forwarded = request(`${intakeUrl}${url}`, { method, headers }, (answer) => {
      const { statusCode = 500, headers: said } = isFirst
        ? { statusCode: 504, headers: { 'content-type': 'text/html' } }
        : answer;
      told.writeHead(statusCode, said);
      if (isFirst) answer.resume().on('end', () => told.end('<h1>504 Gateway Time-out</h1>'));
      else answer.pipe(told);
    });
    forwarded.on('error', () => told.destroy());
    asked.pipe(forwarded);
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}

/** A receiver in a process of its own, and every line that it printed about a result. */
async function startReceiver({ name, runtime, receives, receive }: Example, inbox: string) {
  const port = ports.get(name) ?? 0;
  const { args, env } = receive?.(port, inbox) ?? { args: [] };
  const child: ChildProcess = spawn(runtime, args, {
    cwd: folderOf(name),
    env: { ...environment(name), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const told: string[] = [];
  let isWaiting = false;
  for (const stream of [child.stdout, child.stderr]) {
    if (!stream) continue;
    createInterface({ input: stream }).on('line', (line) => {
      if (line.startsWith('waiting for results')) isWaiting = true;
      const [result] = /cepta_[0-9a-f]{32} otp\..*/.exec(line) ?? [];
      if (result) told.push(result);
    });
  }
  const url = `http://127.0.0.1:${port}/otp-results`;
  const ready =
    receives === 'queue'
      ? () => expect(isWaiting).toBe(true)
      : async () => await fetch(url, { method: 'POST', body: '{}' });
  await vi.waitFor(ready, { timeout: 50_000, interval: 50 });
  const kill = async (): Promise<void> => {
    const ended = new Promise((done) => child.once('exit', done));
    child.kill('SIGKILL');
    await ended;
  };
  return { url, told, kill };
}

async function enqueueBy(example: Example): Promise<string> {
  const { name, runtime } = example;
  const args = example.enqueue([`ORDER-${name}`, `TX-${name.toUpperCase()}`, '012345']);
  const { stdout } = await run(runtime, args, { cwd: folderOf(name), env: environment(name), timeout: 40_000 });
  return stdout.trim();
}

for (const example of EXAMPLES) {
  const { name, receives, needs = example.runtime } = example;
  const there = isThere(example);
  if (!there && process.env.CI) throw new Error(`${needs} is not installed; scripts/install-runtimes.sh does it`);
  if (!there) console.warn(`SKIPPED: the ${name} example, because ${needs} is not installed`);

  describe.skipIf(!there)(`the ${name} example`, { concurrent: true }, () => {
    if (receives === null) {
      test('enqueues, learns the outcome, and lists what became of the transaction', async ({ expect }) => {
        expect(await enqueueBy(example)).toBe(`ORDER-${name} accepted succeeded none`);
        const again = await enqueueBy(example);
        expect(again).toBe(`ORDER-${name} accepted succeeded none`);
        const { stdout } = await run(example.runtime, ['list.sh', `TX-${name.toUpperCase()}`], {
          cwd: folderOf(name),
          env: environment(name),
        });
        expect(JSON.parse(stdout)).toMatchObject({
          verifications: [{ metadata: { order: `ORDER-${name}` }, transaction: 'succeeded' }],
          next: null,
        });
      }, 60_000);
      return;
    }

    test('enqueues, learns the outcome, and sees each result once although its receiver was killed', async ({
      expect,
    }) => {
      const inbox = mkdtempSync(join(tmpdir(), `otp-inbox-${name}-`));
      const before = await startReceiver(example, inbox);
      await before.kill(); // the first tries meet nobody

      expect(await enqueueBy(example)).toBe(`ORDER-${name} accepted succeeded none`);

      const receiver = await startReceiver(example, inbox);
      const results = (): string[] => readdirSync(inbox).filter((file) => file.endsWith('.json'));
      // After the tries at 4 s and 19 s, which a receiver that starts slowly may miss, the next is a minute later.
      await vi.waitFor(() => expect(results()).toHaveLength(2), { timeout: 110_000, interval: 100 });
      const last = JSON.parse(readFileSync(join(inbox, results().sort().at(-1) ?? ''), 'utf8'));
      expect(last).toMatchObject({ type: 'otp.verification.settled', data: { transaction: 'succeeded' } });

      if (receives === 'webhooks') {
        expect(await post(receiver.url, name, last.id, JSON.stringify(last))).toBe(204);
        expect(await post(receiver.url, 'somebody-else', last.id, JSON.stringify(last))).toBe(401);
      } else {
        // As if it had died between the effect and the remembering of it.
        await connection.del(`${resultsPrefix(resultsQueue.name)}:handled:${last.subject}`);
        const repeat = await resultsQueue.add(last.type, last, { removeOnComplete: false });
        await vi.waitFor(async () => expect(await repeat.isCompleted()).toBe(true), { timeout: 10_000 });
      }
      await vi.waitFor(() => expect(receiver.told).toHaveLength(2), 10_000);
      expect(new Set([...before.told, ...receiver.told]).size).toBe(before.told.length + receiver.told.length);
      await receiver.kill();
      rmSync(inbox, { recursive: true });
    }, 180_000);
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
  const [first] = (await printedBy(['webhooks', 'list', '--config', configuration, '--json']))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(first).toMatchObject({ client: 'python', enabled: true, failed: 0 });
});

async function printedBy(args: readonly string[]): Promise<string> {
  const { code, output, faults } = await otp(args);
  expect(code, faults).toBe(0);
  return output;
}
