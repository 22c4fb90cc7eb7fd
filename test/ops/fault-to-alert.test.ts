/**
 * From a fault to whoever is woken: a running service, a real Prometheus with the committed rules, a real Alertmanager with
 * the committed routes, and a receiver. Only what makes it quick is changed: how often is looked, and how long each
 * alert and each notification waits.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test, vi } from 'vitest';
import { parse, stringify } from 'yaml';
import { METRICS } from '../../src/metrics/registry.ts';
import { freePort } from '../../src/redis/process.ts';
import { startSandbox } from '../../src/sandbox/index.ts';
import { startTestRedis } from '../support/redis.ts';
import { install, type ServiceProcess, serve } from '../support/service.ts';
import { findTools, type Tools } from './tools.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const committed = join(root, 'ops/prometheus');
const WITHIN = { timeout: 30_000, interval: 100 };

/** Gauges that prom-client names like counters; every dashboard for Node knows them by these names. */
const NAMED_BY_PROM_CLIENT = /^nodejs_active_(handles|requests|resources)_total /;

/** What the alerts compare with, as the service of this test is configured. */
const WHEN_ALL_IS_WELL = [
  'otp_workers{provider="cepta"} 1',
  'otp_needs_review{provider="cepta"} 0',
  'otp_rate_limit_per_second{provider="cepta"} 20',
  'otp_inquiry_schedule_seconds{provider="cepta"} 60.1',
  'otp_inquiry_give_up_seconds{provider="beqelal"} 86400',
  'otp_queue_info{queue="otp-cepta",kind="verification"} 1',
  'otp_queue_info{queue="otp-results",kind="results"} 1',
  'otp_queue_paused{queue="otp-cepta-inquiry"} 0',
  'otp_jobs_recreated_total{queue="otp-cepta"} 0',
  'otp_redis_append_only 1',
  'otp_redis_replicas_wanted 0',
];

interface Told {
  readonly receiver: string;
  readonly alerts: readonly {
    readonly status: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
  }[];
}

/** Where both severities go; remembers what it was told. */
async function startReceiver() {
  const told: Told[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += chunk));
    request.on('end', () => {
      told.push(JSON.parse(body));
      response.end();
    });
  });
  await new Promise<void>((listens) => server.listen(0, '127.0.0.1', listens));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    /** The alerts of a receiver that are firing, by name. */
    firing: (receiver: string) =>
      told
        .filter((each) => each.receiver === receiver)
        .flatMap(({ alerts }) => alerts.filter(({ status }) => status === 'firing')),
    [Symbol.dispose]: () => void server.close(),
  };
}

/** A Prometheus that scrapes these processes and an Alertmanager that it tells, in a folder of their own. */
async function startWatching({ prometheus, alertmanager }: Tools, targets: readonly string[], receiverUrl: string) {
  const folder = mkdtempSync(join(tmpdir(), 'otp-watching-'));
  mkdirSync(join(folder, 'rules'));
  for (const name of readdirSync(join(committed, 'rules'))) {
    const rules = parse(readFileSync(join(committed, 'rules', name), 'utf8'));
    for (const group of rules.groups) for (const rule of group.rules) if ('for' in rule) rule.for = '2s';
    writeFileSync(join(folder, 'rules', name), stringify(rules));
  }
  const alerting = await freePort();
  const settings = parse(readFileSync(join(committed, 'prometheus.yml'), 'utf8'));
  settings.global = { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '500ms' };
  settings.alerting.alertmanagers[0].static_configs[0].targets = [`127.0.0.1:${alerting}`];
  const [{ job_name }] = settings.scrape_configs;
  settings.scrape_configs = [{ job_name, static_configs: [{ targets: targets.map((url) => new URL(url).host) }] }];
  writeFileSync(join(folder, 'prometheus.yml'), stringify(settings));

  const routes = parse(readFileSync(join(committed, 'alertmanager.yml'), 'utf8'));
  // A ticket still waits for the longer: until then a page for the same has been heard of.
  for (const route of routes.route.routes) Object.assign(route, { group_wait: '0s', group_interval: '1s' });
  Object.assign(routes.route, { group_wait: '2s', group_interval: '2s' });
  for (const receiver of routes.receivers) receiver.webhook_configs = [{ url: receiverUrl }];
  writeFileSync(join(folder, 'alertmanager.yml'), stringify(routes));

  const port = await freePort();
  const children = [
    start(alertmanager, [
      `--config.file=${join(folder, 'alertmanager.yml')}`,
      `--storage.path=${join(folder, 'alerts')}`,
      `--web.listen-address=127.0.0.1:${alerting}`,
      '--cluster.listen-address=',
    ]),
    start(prometheus, [
      `--config.file=${join(folder, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(folder, 'series')}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ]),
  ];
  const ask = async <Answer>(path: string): Promise<Answer> => {
    const response = await fetch(`http://127.0.0.1:${port}/api/v1/${path}`);
    return ((await response.json()) as { data: Answer }).data;
  };
  return {
    /** What a query comes to, as numbers. */
    values: async (query: string): Promise<number[]> => {
      const { result } = await ask<{ result: { value: [number, string] }[] }>(
        `query?query=${encodeURIComponent(query)}`,
      );
      return result.map(({ value }) => Number(value[1]));
    },
    /** Those that fire, and those that are about to. */
    alerts: async (): Promise<unknown[]> => (await ask<{ alerts: unknown[] }>('alerts')).alerts,
    said: () => children.map(({ output }) => output()).join('\n'),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(children.map(({ end }) => end()));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function start(command: string, args: readonly string[]) {
  const child: ChildProcess = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (output += chunk));
  const ended = new Promise<void>((done) => child.once('exit', () => done()));
  return {
    output: () => output,
    end: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

async function submit({ intakeUrl }: ServiceProcess, provider: string, params: Record<string, string>): Promise<void> {
  const response = await fetch(`${intakeUrl}/v1/verifications`, {
    method: 'POST',
    headers: {
      authorization: 'Bearer api-key-of-the-shop-in-the-test',
      'content-type': 'application/json',
      'idempotency-key': randomUUID(),
    },
    body: JSON.stringify({ provider, otp: '123456', params }),
  });
  expect(response.status).toBe(202);
}

/** One of each partition. */
async function customer(service: ServiceProcess): Promise<void> {
  const reference = randomUUID().replaceAll('-', '').slice(0, 12);
  await submit(service, 'cepta', { transactionRef: `TX${reference}`, paymentId: 'PAY1', md: 'merchant_data' });
  await submit(service, 'beqelal', { reference });
}

const tools = findTools('from a fault to an alert');
describe.skipIf(tools === null)('an operator', () => {
  test('is told of a provider that answers nothing, and of workers that are gone; and of nothing while all is well', async () => {
    await using redis = await startTestRedis({ appendonly: true });
    await using sandbox = await startSandbox({ settleAfterMs: 0 });
    const { cepta, beqelal } = sandbox.providers;
    const soon = { inquiry: { delaysMs: [100, 60_000] } };
    await using installation = await install({
      redis: { url: redis.url },
      providers: { cepta: { ...cepta, ...soon }, beqelal },
    });
    await using intake = await serve(installation.file, 'intake');
    await using worker = await serve(installation.file, 'worker');
    using receiver = await startReceiver();
    const targets = [intake.consoleUrl, worker.consoleUrl];
    await using watching = await startWatching(tools as Tools, targets, receiver.url);

    // All is well: customers of both providers get their results, and each rule has been looked at meanwhile.
    await vi.waitFor(async () => expect(await watching.values('up{job="otp"}')).toEqual([1, 1]), WITHIN);
    for (let count = 0; count < 4; count += 1) await customer(intake);
    await vi.waitFor(async () => {
      expect(await watching.values('sum(otp_results_published_total{type="settled"})')).toEqual([8]);
    }, WITHIN);
    await vi.waitFor(
      async () => expect(await watching.values('count_over_time(up{job="otp"}[1m]) >= 5')).toHaveLength(2),
      WITHIN,
    );
    expect(await watching.alerts()).toEqual([]);

    const scrape = await (await fetch(`${worker.consoleUrl}/metrics`)).text();
    const told = [...scrape.matchAll(/^# TYPE (otp_\w+) /gm)].map(([, name]) => name);
    expect(told.toSorted()).toEqual(
      Object.values(METRICS)
        .map(({ name }) => name)
        .toSorted(),
    );
    for (const sample of WHEN_ALL_IS_WELL) expect(scrape.split('\n')).toContain(sample);
    expect(lintOf(scrape).filter((finding) => !NAMED_BY_PROM_CLIENT.test(finding))).toEqual([]);

    // Every code is taken and charged, and no answer comes: at one of the two providers.
    sandbox.setFaults('commit_then_reset=1');
    for (let count = 0; count < 8; count += 1) {
      const reference = randomUUID().replaceAll('-', '').slice(0, 12);
      await submit(intake, 'cepta', { transactionRef: `TX${reference}`, paymentId: 'PAY1', md: 'merchant_data' });
    }
    const [unavailable] = await woken(receiver, 'OtpProviderUnavailable', ['cepta'], watching.said);
    expect(unavailable?.annotations.description).toMatch(/^\d\d.*% of the submissions to cepta/);
    expect(existsSync(join(root, unavailable?.annotations.runbook_url ?? ''))).toBe(true);

    await worker.kill('SIGKILL');
    await woken(receiver, 'OtpWorkersGone', ['beqelal', 'cepta'], watching.said);
    await woken(receiver, 'OtpTargetDown', [new URL(worker.consoleUrl).host], watching.said);
    // Nothing was sent twice, so nobody was told so; and tickets for the same fault woke nobody.
    const all = receiver.firing('page').map(({ labels }) => labels.alertname);
    expect(all).not.toContain('OtpSubmittedWithoutRight');
    expect(receiver.firing('ticket').map(({ labels }) => labels.alertname)).not.toContain('OtpProviderUnavailable');
  }, 120_000);
});

type Receiver = Awaited<ReturnType<typeof startReceiver>>;

/** What the pager was told under this name, once it was told of each of these and of nothing else. */
async function woken(receiver: Receiver, alertname: string, about: readonly string[], said: () => string) {
  const told = () => receiver.firing('page').filter(({ labels }) => labels.alertname === alertname);
  const abouts = () => new Set(told().map(({ labels }) => labels.provider ?? labels.instance));
  await vi.waitFor(() => expect(abouts(), said()).toEqual(new Set(about)), WITHIN);
  return told();
}

/** What promtool would have otherwise of a scrape. */
function lintOf(scrape: string): string[] {
  try {
    execFileSync((tools as Tools).promtool, ['check', 'metrics'], { input: scrape, stdio: 'pipe' });
    return [];
  } catch (error) {
    return String((error as { stderr: Buffer }).stderr)
      .split('\n')
      .filter((line) => line !== '');
  }
}
