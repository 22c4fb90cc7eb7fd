/**
 * The whole pipeline as users run it, built and in processes of its own at the finest log level, over the sandbox, with
 * two clients: one that has a results key and a queue of its own, one that has neither. Whatever is secret in its
 * configuration is a canary.
 */
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { stringify } from 'yaml';
import { newKey, writeKeySet } from '../../src/key-files.ts';
import { freePort } from '../../src/redis/process.ts';
import { type SandboxEntry, type SandboxProvider, sandboxProviders } from '../../src/sandbox/index.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { runCli } from '../support/service.ts';
import type { Canaries } from './canaries.ts';
import { type Gateway, startGateway } from './gateway.ts';
import { UNREACHABLE } from './journeys.ts';
import { Capture, Eavesdropper, makeReadable, type Part } from './places.ts';

/** A process of the pipeline, with all that it says. */
export interface Running {
  readonly child: ChildProcess;
  readonly capture: Capture;
  /** `kill -9` by default. */
  end(signal?: NodeJS.Signals): Promise<void>;
}

export interface Serving extends Running {
  readonly intakeUrl: string;
  readonly consoleUrl: string;
}

export interface Client {
  readonly id: string;
  readonly apiKey: string;
  readonly resultsKey: Awaited<ReturnType<typeof newKey>> | null;
  readonly resultsQueue: string;
}

export interface CommandOptions {
  readonly input?: string;
  readonly file?: string;
  readonly environment?: Record<string, string>;
}

export interface World extends AsyncDisposable {
  readonly redis: TestRedis;
  readonly commands: Eavesdropper;
  readonly folder: string;
  readonly configurationFile: string;
  readonly sealingKeys: { readonly keys: readonly Record<string, unknown>[] };
  readonly clients: readonly [withResultsKey: Client, without: Client];
  readonly sandbox: Running & { readonly controlUrl: string; readonly ledgerFile: string };
  readonly providers: Readonly<Record<SandboxProvider, SandboxEntry>>;
  readonly gateways: ReadonlyMap<SandboxProvider, Gateway>;
  /** As a browser sends it to the console. */
  readonly consoleAuthorization: string;
  /** Where traces are exported to, and what came there. */
  readonly collector: { readonly url: string; readonly received: readonly Part[] };
  serve(roles: string): Promise<Serving>;
  /** The `otp` command, under this configuration unless another is given. */
  otp(args: readonly string[], options?: CommandOptions): Running;
  /** Callbacks go to this intake from now on. */
  callbacksTo(intakeUrl: string): Promise<void>;
}

export async function startWorld(canaries: Canaries, meanings: ReadonlyMap<string, string>): Promise<World> {
  const closers: (() => unknown)[] = [];
  const close = async (): Promise<void> => {
    for (const step of closers.splice(0).reverse()) await step();
  };
  try {
    const folder = mkdtempSync(join(tmpdir(), 'otp-canary-'));
    closers.push(() => rmSync(folder, { recursive: true, force: true }));
    const redis = await startTestRedis({ appendonly: true });
    closers.push(() => redis[Symbol.asyncDispose]());
    canaries.add('password', 'the password of Redis', new URL(redis.url).password);
    await makeReadable(redis.url);
    const commands = new Eavesdropper();
    closers.push(() => commands[Symbol.asyncDispose]());
    await commands.listen(redis.url);
    const collector = await startListener(200);
    closers.push(collector.close);
    // A client's endpoint that takes nothing, and quotes what it was sent.
    const endpoint = await startListener(500);
    closers.push(endpoint.close);

    const run = (args: readonly string[], environment: Record<string, string> = {}): Running => {
      const child = runCli(args, environment);
      const ended = once(child, 'close');
      const end = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
        child.kill(signal);
        await ended;
      };
      closers.push(() => end());
      return { child, capture: new Capture(child), end };
    };

    const ledgerFile = join(folder, 'ledger.jsonl');
    const sandbox = run(['sandbox', '--json', '--ledger', ledgerFile, '--settle-after-ms', '150']);
    const { control, providers } = (await firstLine(sandbox)) as {
      control: { url: string };
      providers: Record<SandboxProvider, SandboxEntry>;
    };
    keepCredentials(canaries, providers);
    let callbacksUrl = '';
    const gateways = new Map<SandboxProvider, Gateway>();
    for (const provider of sandboxProviders) {
      const entry = providers[provider];
      const callbacks = (): string => callbacksUrl;
      const gateway = await startGateway({ provider, sandbox: entry, canaries, meanings, callbacks });
      closers.push(() => gateway[Symbol.asyncDispose]());
      gateways.set(provider, gateway);
    }

    const client = (id: string): { id: string; apiKey: string } => ({
      id,
      apiKey: canaries.token('API key', `the API key of ${id}`, 40),
    });
    const resultsKey = await newKey('details');
    canaries.jwkSet('the key of the results', { keys: [resultsKey] });
    const clients = [
      { ...client('shop'), resultsKey, resultsQueue: 'otp-results-shop' },
      { ...client('wallet'), resultsKey: null, resultsQueue: 'otp-results' },
    ] as const;
    const password = canaries.token('password', 'the password of the console');
    const webhookBytes = randomBytes(32);
    canaries.add('credential', 'the secret of the webhook', webhookBytes);
    const webhookSecret = canaries.add('credential', 'the same', `whsec_${webhookBytes.toString('base64')}`);
    const sealingKeys = { keys: [await newKey('otp')] };
    canaries.jwkSet('the key that opens codes', sealingKeys);
    writeKeySet(join(folder, 'keys.json'), sealingKeys);
    const configurationFile = join(folder, 'otp.yaml');
    writeFileSync(
      configurationFile,
      stringify({
        redis: { url: redis.url },
        intake: { port: 0 },
        console: { port: 0, users: [{ name: 'ops', password }] },
        clients: clients.map(({ id, apiKey, resultsKey: key, resultsQueue }) => {
          if (key === null) return { id, apiKey };
          const { kty, crv, x, kid } = key;
          return { id, apiKey, resultsKey: { kty, crv, x, kid }, resultsQueue };
        }),
        sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json' },
        journal: { recoverMs: 500 },
        tracing: {
          endpoint: `${collector.url}/v1/traces`,
          headers: { authorization: canaries.token('credential', 'the token of the collector') },
        },
        results: { webhooks: [{ client: 'wallet', url: `${endpoint.url}/results`, secret: webhookSecret }] },
        providers: {
          ...Object.fromEntries(
            sandboxProviders.map((name) => [
              name,
              { ...providers[name], baseUrl: gateways.get(name)?.url, ...IMPATIENT },
            ]),
          ),
          [UNREACHABLE]: {
            adapter: 'cepta',
            baseUrl: `http://127.0.0.1:${await freePort()}`,
            credentials: { secretKey: canaries.token('credential', 'the key for a provider that is away') },
          },
        },
      }),
    );

    // The exporter's own variable: what has ended is told at once, also by a worker that is about to be killed.
    const environment = { LOG_LEVEL: 'trace', OTEL_BSP_SCHEDULE_DELAY: '100' };
    return {
      redis,
      commands,
      folder,
      configurationFile,
      sealingKeys,
      clients,
      sandbox: { ...sandbox, controlUrl: control.url, ledgerFile },
      providers,
      gateways,
      consoleAuthorization: `Basic ${Buffer.from(`ops:${password}`).toString('base64')}`,
      collector,
      serve: async (roles) => {
        const running = run(['serve', '--config', configurationFile, '--roles', roles, '--json'], environment);
        const ready = (await firstLine(running, '{"ready":true')) as { intakeUrl: string; consoleUrl: string };
        canaries.jwkSet('the key that opens details', JSON.parse(readFileSync(join(folder, 'details.json'), 'utf8')));
        return { ...running, ...ready };
      },
      otp: (args, { input = '', file = configurationFile, environment: more = {} } = {}) => {
        const running = run(args, { OTP_CONFIG: file, LOG_LEVEL: 'trace', ...more });
        running.child.stdin?.on('error', () => {}); // it may have ended before it has read
        running.child.stdin?.end(input);
        return running;
      },
      callbacksTo: async (intakeUrl) => {
        callbacksUrl = `${intakeUrl}/v1/callbacks`;
        for (const [provider, { url }] of gateways) {
          if (provider === 'lipa-later') continue; // it sends none
          const body = JSON.stringify({ provider, url: `${url}/callback/${provider}` });
          const answer = await fetch(`${control.url}/callbacks`, { method: 'POST', body });
          if (answer.status !== 200) throw new Error(`the sandbox does not report to ${url}: ${await answer.text()}`);
        }
      },
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** So that all is over soon: a bank is given 30 s and asked again after 10. */
const IMPATIENT = {
  rateLimit: { max: 1_000, perMs: 1_000 },
  inquiryRateLimit: { max: 1_000, perMs: 1_000 },
  timeoutMs: 1_500,
  inquiry: { delaysMs: [200, 400, 800], giveUpAfterMs: 2_000 },
};

/** What the adapters call secret; ids of accounts are none. */
function keepCredentials(canaries: Canaries, providers: Record<SandboxProvider, SandboxEntry>): void {
  const secrets = ['secretKey', 'clientSecret', 'apiKey', 'callbackSecret', 'callbackToken'];
  for (const [provider, { credentials }] of Object.entries(providers)) {
    for (const name of secrets) {
      const value = credentials[name];
      if (value !== undefined) canaries.add('credential', `${name} of ${provider}`, value);
    }
    if (credentials.privateKey !== undefined) canaries.rsaKey(`the RSA key of ${provider}`, credentials.privateKey);
  }
}

/** The first line of JSON on its standard output that begins so. */
async function firstLine({ child, capture }: Running, beginning = '{'): Promise<unknown> {
  return await new Promise((found, failed) => {
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    lines.on('line', (line) => {
      if (line.startsWith(beginning)) found(JSON.parse(line));
    });
    child.once('exit', (code) => {
      const said = `${capture.text('stdout')}${capture.text('stderr')}`;
      failed(new Error(`${child.spawnargs.slice(2).join(' ')} ended with ${code}:\n${said}`));
    });
  });
}

/** Keeps what it is sent, and answers with the same. */
async function startListener(status: number): Promise<World['collector'] & { close: () => Promise<void> }> {
  const received: Part[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const bytes = Buffer.concat(chunks);
      received.push({ where: `${request.method} ${request.url}`, bytes });
      response.writeHead(status).end(bytes);
    });
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const close = async (): Promise<void> => {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, received, close };
}
