/**
 * What dashboards are about: an intake and a worker in processes of their own, before the simulated providers and a
 * receiver of webhooks, and a Prometheus with the committed rules that scrapes both. Only how often it looks is changed, and how
 * long an alert waits.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse, stringify } from 'yaml';
import { connectRedis } from '../../src/redis/connections.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { bodyFor } from '../support/pipeline.ts';
import { startTestRedis } from '../support/redis.ts';
import { install, type ServiceProcess, serve } from '../support/service.ts';
import type { Labels } from './dashboards.ts';

const committed = fileURLToPath(new URL('../../ops/prometheus', import.meta.url));
const KEYS = { shop: 'api-key-of-the-shop-in-the-test', hasty: 'api-key-of-a-client-in-a-hurry' } as const;
/** Long enough that no inquiry or delivery comes a second time while somebody counts. */
const LATER_SECONDS = 3_600;

export interface Sample {
  readonly labels: Labels;
  readonly value: number;
}

export interface Series {
  readonly labels: Labels;
  /** Unix seconds, and what it was. */
  readonly points: readonly (readonly [number, number])[];
}

export interface WorldOptions {
  readonly scrapeMs: number;
  /** From the accepted code to the end of the payment. */
  readonly settleAfterMs?: number;
  /** How long each provider takes to answer. */
  readonly answerDelayMs?: number;
  readonly inquiryDelaysMs?: readonly number[];
}

export interface World extends AsyncDisposable {
  readonly sandbox: Sandbox;
  readonly redisUrl: string;
  /** Requests to the intake that were answered so, by status; callbacks are in the sandbox's ledger. */
  readonly answered: ReadonlyMap<string, number>;
  /** What the endpoint of the shop answered, by status. */
  readonly hooked: ReadonlyMap<string, number>;
  /** Hands a code in. @returns the status of the answer */
  submit(provider: string, otp: string, given?: Submission): Promise<number>;
  /** At the console. @returns the status of the answer */
  login(password: string): Promise<number>;
  now(query: string): Promise<Sample[]>;
  over(query: string, from: number, to: number, stepSeconds: number): Promise<Series[]>;
}

export interface Submission {
  readonly client?: keyof typeof KEYS;
  readonly key?: string;
  readonly params?: Record<string, unknown>;
}

export async function startWorld(prometheus: string, options: WorldOptions): Promise<World> {
  const closers: (() => unknown)[] = [];
  const close = async (): Promise<void> => {
    for (const each of closers.splice(0).toReversed()) await each();
  };
  const closedLater = <Part extends AsyncDisposable>(part: Part): Part => {
    closers.push(() => part[Symbol.asyncDispose]());
    return part;
  };
  try {
    const redis = closedLater(await startTestRedis({ appendonly: true }));
    const admin = connectRedis(redis.url, 'producer', { onError: () => {} });
    closers.push(() => admin.disconnect());
    await admin.config('SET', 'maxmemory', '64mb');

    const { settleAfterMs = 0, answerDelayMs = 0, inquiryDelaysMs = [100, 200, LATER_SECONDS * 1_000] } = options;
    const sandbox = closedLater(await startSandbox({ settleAfterMs, answerDelayMs }));
    const { cepta, beqelal, 'lipa-later': lipaLater } = sandbox.providers;
    const wrong = { ...lipaLater.credentials, clientId: 'nobody', clientSecret: 'not the secret' };
    const hook = await startHook();
    closers.push(hook.close);
    const installation = closedLater(
      await install({
        redis: { url: redis.url },
        clients: [
          { id: 'shop', apiKey: KEYS.shop },
          { id: 'hasty', apiKey: KEYS.hasty, rateLimit: { max: 1, perMs: 60_000 } },
        ],
        results: {
          webhooks: [{ client: 'shop', url: hook.url, secret: `whsec_${randomBytes(32).toString('base64')}` }],
        },
        providers: {
          cepta: { ...cepta, inquiryRateLimit: { max: 50 }, inquiry: { delaysMs: inquiryDelaysMs } },
          beqelal,
          'lipa-later': lipaLater,
          'lipa-later-misconfigured': { ...lipaLater, adapter: 'lipa-later', credentials: wrong },
        },
      }),
    );
    // One after the other: the first of them makes the key of `details`, which the other reads.
    const intake = closedLater(await serve(installation.file, 'intake'));
    const worker = closedLater(await serve(installation.file, 'worker,console'));
    for (const provider of ['beqelal', 'cepta'] as const)
      sandbox.setCallback(provider, `${intake.intakeUrl}/v1/callbacks/${provider}`);
    const watching = await startPrometheus(prometheus, [intake, worker], options.scrapeMs);
    closers.push(watching.close);

    const answered = new Map<string, number>();
    return {
      sandbox,
      redisUrl: redis.url,
      answered,
      hooked: hook.answered,
      submit: async (provider, otp, { client = 'shop', key = KEYS[client], params = {} } = {}) => {
        const { status } = await fetch(`${intake.intakeUrl}/v1/verifications`, {
          method: 'POST',
          headers: {
            authorization: `Bearer ${key}`,
            'content-type': 'application/json',
            'idempotency-key': randomUUID(),
          },
          body: JSON.stringify({ ...bodyOf(provider, otp, params), provider }),
        });
        count(answered, String(status));
        return status;
      },
      login: async (password) => {
        const authorization = `Basic ${Buffer.from(`ops:${password}`).toString('base64')}`;
        const { status } = await fetch(worker.consoleUrl, { headers: { authorization } });
        return status;
      },
      now: watching.now,
      over: watching.over,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

let phones = 0;

/** With a phone of its own for each verification at LipaLater, which has no other reference. */
function bodyOf(provider: string, otp: string, given: Record<string, unknown>): Record<string, unknown> {
  if (!provider.startsWith('lipa-later')) return bodyFor(provider, otp, given);
  phones += 1;
  return bodyFor('lipa-later', otp, { phone_number: `+2547${String(10_000_000 + phones)}`, ...given });
}

function count(counts: Map<string, number>, word: string): void {
  counts.set(word, (counts.get(word) ?? 0) + 1);
}

/** An endpoint that takes every result but those for a person: these it wants an hour later. */
async function startHook() {
  const answered = new Map<string, number>();
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += chunk));
    request.on('end', () => {
      const status = JSON.parse(body).type.endsWith('.review') ? 503 : 204;
      count(answered, String(status));
      response.writeHead(status, status === 503 ? { 'retry-after': String(LATER_SECONDS) } : {}).end();
    });
  });
  await new Promise<void>((listens) => server.listen(0, '127.0.0.1', listens));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/results`,
    answered,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

async function startPrometheus(program: string, targets: readonly ServiceProcess[], scrapeMs: number) {
  const folder = mkdtempSync(join(tmpdir(), 'otp-dashboards-'));
  mkdirSync(join(folder, 'rules'));
  for (const name of readdirSync(join(committed, 'rules'))) {
    const rules = parse(readFileSync(join(committed, 'rules', name), 'utf8'));
    for (const group of rules.groups) for (const rule of group.rules) if ('for' in rule) rule.for = '0s';
    writeFileSync(join(folder, 'rules', name), stringify(rules));
  }
  const settings = parse(readFileSync(join(committed, 'prometheus.yml'), 'utf8'));
  settings.global = { scrape_interval: `${scrapeMs}ms`, scrape_timeout: `${scrapeMs}ms`, evaluation_interval: '500ms' };
  delete settings.alerting;
  const [{ job_name }] = settings.scrape_configs;
  const hosts = targets.map(({ consoleUrl }) => new URL(consoleUrl).host);
  settings.scrape_configs = [{ job_name, static_configs: [{ targets: hosts }] }];
  writeFileSync(join(folder, 'prometheus.yml'), stringify(settings));

  const child = spawn(
    program,
    [
      `--config.file=${join(folder, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(folder, 'series')}`,
      '--web.listen-address=127.0.0.1:0',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const ended = new Promise<void>((done) => child.once('exit', () => done()));
  const url = await listensAt(child);

  const ask = async <Result>(path: string, query: string, rest: string): Promise<Result[]> => {
    const response = await fetch(`${url}/api/v1/${path}?query=${encodeURIComponent(query)}${rest}`);
    const { status, error, data } = (await response.json()) as Answer<Result>;
    if (status !== 'success') throw new Error(`${error}: ${query}`);
    return data.result;
  };
  return {
    now: async (query: string): Promise<Sample[]> => {
      const found = await ask<{ metric: Labels; value: [number, string] }>('query', query, '');
      return found.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
    },
    over: async (query: string, from: number, to: number, stepSeconds: number): Promise<Series[]> => {
      const range = `&start=${from}&end=${to}&step=${stepSeconds}`;
      const found = await ask<{ metric: Labels; values: [number, string][] }>('query_range', query, range);
      return found.map(({ metric, values }) => ({
        labels: metric,
        points: values.map(([at, value]) => [at, Number(value)] as const),
      }));
    },
    close: async () => {
      child.kill('SIGKILL');
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

interface Answer<Result> {
  readonly status: string;
  readonly error?: string;
  readonly data: { readonly result: Result[] };
}

/** It takes a free port and says in its log which. */
async function listensAt(child: ChildProcess): Promise<string> {
  let said = '';
  return await new Promise((found, failed) => {
    child.once('exit', (code) => failed(new Error(`Prometheus ended with ${code}:\n${said}`)));
    child.stderr?.on('data', (chunk) => {
      said += chunk;
      const [, address] = /address=(127\.0\.0\.1:[1-9]\d*)/.exec(said) ?? [];
      if (address !== undefined) found(`http://${address}`);
    });
  });
}
