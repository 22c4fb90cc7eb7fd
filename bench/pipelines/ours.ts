/** This project as it runs in production: the built service as a worker, its library in the place of the producer. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import { createProducer, createResultsConsumer, type Producer } from '../../dist/index.js';
import { startTestRedis } from '../../test/support/redis.ts';
import { type Installation, install } from '../../test/support/service.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type Part, type StubReport, start } from '../support/parts.ts';
import { CONSUMED_AT_ONCE, type House, type Pipeline, type Setting } from './pipeline.ts';

export const CLIENT = { id: 'bench', apiKey: 'api-key-of-the-benchmark-that-nobody-guesses' };
const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const AT_ONCE = 500;
/** A limit that binds nobody: what is measured is the machinery. */
export const UNLIMITED = { max: 1_000_000, perMs: 1_000 };
export const REUSE = { forMs: 60_000, messages: 2 ** 20 };

export const ours: Pipeline = { name: 'otp-pipeline', open };

async function open({ delayMs, concurrency }: Setting): Promise<House> {
  const cleanup = new Cleanup();
  const server = cleanup.use(await startTestRedis({ appendonly: true }));
  const stub = cleanup.use(await start('support/stub.ts', { STUB_DELAY_MS: String(delayMs) }));
  const installation = cleanup.use(
    await installOurs(server.url, `http://127.0.0.1:${stub.ready.port}`, { concurrency, otpLifetimeMs: 3_600_000 }),
  );
  const producer: Producer = createProducer({
    client: CLIENT,
    redis: server.url,
    sealingKeys: join(installation.folder, 'keys.json'),
    reuseEphemeralKey: REUSE,
    partitions: { cepta: { otpLifetimeMs: 3_600_000 } },
    timeLimitMs: 60_000,
  });
  cleanup.use(producer);
  const connection = new Redis(server.url);
  cleanup.defer(() => connection.disconnect());
  const submit = async (transactionRef: string): Promise<void> => {
    const params = { transactionRef, paymentId: 'PAY12345XYZ', md: 'merchant_data' };
    await producer.enqueue({ provider: 'cepta', otp: '012345', params }, { idempotencyKey: transactionRef });
  };
  return {
    async fill(count) {
      for (let from = 0; from < count; from += AT_ONCE) {
        const size = Math.min(AT_ONCE, count - from);
        await Promise.all(Array.from({ length: size }, (_, index) => submit(`TX${from + index}`)));
      }
    },
    submit,
    startWorker: async () => cleanup.use(await startService(installation, 'worker')),
    results: async () => await connection.llen('{otp-results}:otp-results:wait'),
    async consume(onResult) {
      const consumer = createResultsConsumer({
        redis: server.url,
        handler: async ({ data }) => onResult(data.reference),
        concurrency: CONSUMED_AT_ONCE,
      });
      cleanup.use(consumer);
    },
    store: server.url,
    storePids: () => [server.pid],
    stub: async () => await stub.ask<StubReport>('report'),
    stubPid: stub.pid,
    [Symbol.asyncDispose]: async () => await cleanup.run(),
  };
}

/** One partition, with everything on as in production and a rate that binds nobody. */
export async function installOurs(
  redisUrl: string,
  baseUrl: string,
  partition: Readonly<Record<string, unknown>> = {},
): Promise<Installation> {
  return await install({
    redis: { url: redisUrl },
    clients: [CLIENT],
    sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json', reuseEphemeralKey: REUSE },
    providers: {
      cepta: {
        baseUrl,
        credentials: { secretKey: 'secret', accessKey: 'key' },
        options: { authScheme: 'hmac' },
        rateLimit: UNLIMITED,
        ...partition,
      },
    },
  });
}

/** `otp serve` in a process of its own, its log in a file; it is ready when that says so. */
export async function startService({ folder, file }: Installation, roles: string): Promise<Part> {
  const path = join(folder, `${roles}-${randomUUID()}.log`);
  const log = openSync(path, 'a');
  const child = spawn(CLI, ['serve', '--config', file, '--roles', roles, '--json'], {
    stdio: ['ignore', log, log],
  });
  const end = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  };
  for (;;) {
    const [, line] = /^(\{"ready":true.*)$/m.exec(readFileSync(path, 'utf8')) ?? [];
    if (line !== undefined) {
      return {
        ...{ pid: child.pid as number, ready: JSON.parse(line) as Record<string, unknown>, end },
        ask: () => Promise.reject(new Error('the service is asked by HTTP')),
        [Symbol.asyncDispose]: end,
      };
    }
    if (child.exitCode !== null) throw new Error(`otp serve ended with ${child.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
