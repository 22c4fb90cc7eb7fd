/**
 * The drills of docs/operations.md, as they are done in staging: processes that are killed, commands, the intake, and what
 * the money ledger of the sandbox and the scrapes say afterwards.
 */
import { randomUUID } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { request } from 'undici';
import { describe, expect, test, vi } from 'vitest';
import { createResultsConsumer, type ResultEvent } from '../../src/index.ts';
import { newKey, writeKeySet } from '../../src/key-files.ts';
import { partitionKeys } from '../../src/producers/job.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { type RedisProcess, startRedisProcess } from '../../src/redis/process.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { startTestRedis } from '../support/redis.ts';
import { startTestSentinel } from '../support/servers.ts';
import { type Installation, install, otp, type ServiceProcess, serve } from '../support/service.ts';
import { BEST_OF_THREE } from '../support/timing.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const SOON = { timeout: 30_000, interval: 50 };
const RIGHT = '123456';
/** Taken and charged, and nothing is answered. */
const SILENT = '800003';
/** Taken and charged, and answered 503. */
const CHARGED_THEN_503 = '800010';
/** Taken, and pending for ever. */
const PENDING = '500002';
const keys = partitionKeys('cepta');

const DRILLS: Record<string, (sandbox: Sandbox) => Promise<void>> = {
  'a worker dies': async (sandbox) => {
    await using redis = await startTestRedis();
    await using installation = await installed(sandbox, redis.url, {
      timeoutMs: 30_000,
      inquiry: { delaysMs: [8_000] },
    });
    await using intake = await serve(installation.file, 'intake');
    await using worker = await serve(installation.file, 'worker');
    const reference = newReference();
    const { id } = await enqueue(intake, { otp: SILENT, reference });
    await vi.waitUntil(() => ledgerOf(sandbox, reference).charges === 1, SOON);

    await worker.kill('SIGKILL');
    const killedAt = performance.now();
    await using successor = await serve(installation.file, 'worker');
    await vi.waitUntil(async () => (await shown(installation, id)).otp === 'unknown', SOON);
    expect(performance.now() - killedAt).toBeLessThan(10_000);
    await alertSees(
      'OtpWorkerDiedSending',
      successor,
      'otp_unknown_outcomes_total{provider="cepta",because="owner_dead"} 1',
    );

    const last = await ended(intake, id);
    expect(last).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
    expect(last.history?.at(-1)?.event).toBe('inquired');
    expect(ledgerOf(sandbox, reference)).toMatchObject({ requests: 1, charges: 1 });
  },

  'all workers die': async (sandbox) => {
    await using redis = await startTestRedis();
    await using installation = await installed(sandbox, redis.url);
    await using intake = await serve(installation.file, 'intake');
    {
      await using worker = await serve(installation.file, 'worker');
      await worker.kill('SIGTERM');
    }
    const reference = newReference();
    const expiresAt = Date.now() + 5_000;
    const { id } = await enqueue(intake, { otp: RIGHT, reference, expiresAt: new Date(expiresAt).toISOString() });
    await alertSees('OtpWorkersGone', intake, 'otp_workers{provider="cepta"} 0');
    await vi.waitUntil(() => Date.now() > expiresAt, SOON);

    await using _ = await serve(installation.file, 'worker');
    expect(await ended(intake, id)).toMatchObject({ otp: 'not_submitted', reason: 'deadline_passed' });
    expect(ledgerOf(sandbox, reference).requests).toBe(0);
  },

  'Redis stops': async (sandbox) => {
    await using redis = await startTestRedis({ appendonly: true });
    await using installation = await installed(sandbox, redis.url);
    await using intake = await serve(installation.file, 'intake');
    await using worker = await serve(installation.file, 'worker');
    const one = { otp: RIGHT, reference: newReference() };
    const key = randomUUID();
    await redis.stop();

    const refused = await post(intake, one, key);
    expect(refused.statusCode).toBe(503);
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);
    for (const process of [intake, worker]) {
      expect((await request(`${process.consoleUrl}/readyz`)).statusCode).toBe(503);
      expect((await request(`${process.consoleUrl}/healthz`)).statusCode).toBe(200);
      await alertSees('OtpRedisDown', process, 'otp_redis_up 0');
    }

    const startedAt = Date.now();
    await redis.start();
    const { id } = await enqueue(intake, one, key);
    const last = await ended(intake, id);
    expect(last).toMatchObject({ otp: 'accepted' });
    const begunAt = last.history?.find(({ event }) => event === 'begun')?.at ?? '';
    expect(Date.parse(begunAt) - startedAt).toBeGreaterThanOrEqual(5_000);
    expect((await enqueue(intake, one, key)).id).toBe(id);
    expect(ledgerOf(sandbox, one.reference).requests).toBe(1);
  },

  failover: async (sandbox) => {
    await using sentinel = await startTestSentinel();
    await using installation = await installed(sandbox, sentinel.settings);
    await using intake = await serve(installation.file, 'intake');
    await using worker = await serve(installation.file, 'worker');
    const before = await enqueue(intake, { otp: RIGHT, reference: newReference() });
    await ended(intake, before.id);

    await sentinel.failover();
    const failedOverAt = performance.now();
    const after = await enqueue(intake, { otp: RIGHT, reference: newReference() });
    expect(performance.now() - failedOverAt).toBeLessThan(15_000);
    expect(await ended(intake, after.id)).toMatchObject({ otp: 'accepted' });
    await sees(worker, 'otp_journal_recoveries_total{provider="cepta",bounded="true"} 1');
  },

  'the provider is down': async (sandbox) => {
    await using redis = await startTestRedis();
    await using installation = await installed(sandbox, redis.url);
    await using intake = await serve(installation.file, 'intake');
    await using worker = await serve(installation.file, 'worker');
    await tell(sandbox, 'down');
    const references = Array.from({ length: 10 }, newReference);
    const accepted = await Promise.all(references.map((reference) => enqueue(intake, { otp: RIGHT, reference })));
    await alertSees('OtpBreakerOpen', worker, 'otp_breaker_open{provider="cepta"} 1');
    const stories = await Promise.all(accepted.map(({ id }) => read(intake, id)));
    const events = stories.flatMap(({ history }) => history ?? []).map(({ event }) => event);
    expect(new Set(events)).toEqual(new Set(['accepted', 'begun', 'not_sent']));
    expect(events.filter((event) => event === 'not_sent').length).toBeGreaterThanOrEqual(5);
    expect(stories.filter(({ otp }) => otp === 'unknown')).toEqual([]);

    await tell(sandbox, 'up');
    await sees(worker, 'otp_breaker_open{provider="cepta"} 0', 60_000);
    for (const { id } of accepted) expect(await ended(intake, id, 60_000)).toMatchObject({ otp: 'accepted' });
    for (const reference of references) expect(ledgerOf(sandbox, reference)).toMatchObject({ requests: 1, charges: 1 });
  },

  'the provider fails after taking the code': async (sandbox) => {
    await using redis = await startTestRedis();
    await using installation = await installed(sandbox, redis.url, { inquiry: { delaysMs: [2_000] } });
    await using intake = await serve(installation.file, 'intake');
    await using _ = await serve(installation.file, 'worker');
    const references = Array.from({ length: 4 }, newReference);
    const accepted = await Promise.all(
      references.map((reference) => enqueue(intake, { otp: CHARGED_THEN_503, reference })),
    );
    for (const { id } of accepted) {
      const last = await ended(intake, id);
      expect(last).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
      expect(last.history?.map(({ event }) => event)).toEqual(['accepted', 'begun', 'answered', 'inquired']);
      expect(last.history?.[2]).toMatchObject({ status: 503, otp: 'unknown' });
    }
    for (const reference of references) expect(ledgerOf(sandbox, reference)).toMatchObject({ requests: 1, charges: 1 });
  },

  'an old dump': async (sandbox) => {
    await using server = await startRestorable();
    await using installation = await installed(sandbox, server.url, { inquiry: { delaysMs: [60_000] } });
    const intake = await serve(installation.file, 'intake');
    const worker = await serve(installation.file, 'worker');
    const pending = await enqueue(intake, { otp: PENDING, reference: newReference() });
    await vi.waitUntil(async () => (await read(intake, pending.id)).sequence === 1, SOON);
    const queue = new Queue(keys.queue, { connection: { url: server.url }, prefix: keys.prefix });
    await queue.pause();
    const queuedThen = newReference();
    const queued = await enqueue(intake, { otp: RIGHT, reference: queuedThen });
    await server.backUp();
    const backedUpAt = Date.now();
    await queue.resume();
    await queue.close();
    const forgotten = newReference();
    await enqueue(intake, { otp: RIGHT, reference: forgotten });
    await vi.waitUntil(() => [queuedThen, forgotten].every((each) => ledgerOf(sandbox, each).charges === 1), SOON);

    for (const process of [worker, intake]) await process.kill('SIGTERM');
    // Longer ago than journal.lossWindowMs, and than what nobody can tell of two servers' clocks.
    await vi.waitUntil(() => Date.now() - backedUpAt > 6_000, SOON);
    await server.restore();
    await using successor = await serve(installation.file, 'worker');
    for (const { id } of [pending, queued]) {
      await vi.waitUntil(async () => (await shown(installation, id)).needsReview, SOON);
    }
    expect(await shown(installation, queued.id)).toMatchObject({ otp: 'unknown' });
    await alertSees(
      'OtpJournalRolledBack',
      successor,
      'otp_journal_recoveries_total{provider="cepta",bounded="false"} 1',
    );
    expect(successor.output()).toContain('Redis was another server; the journal is whole again');

    for (const { id } of [pending, queued]) {
      const evidence = ['--as', 'succeeded', '--evidence', 'bank statement, line 4', '--by', 'ada'];
      const resolved = await otp(['resolve', id, ...evidence, '--config', installation.file]);
      expect(resolved).toMatchObject({ code: 0, faults: '' });
      expect(await shown(installation, id)).toMatchObject({ final: true, transaction: 'succeeded' });
    }
    for (const each of [queuedThen, forgotten])
      expect(ledgerOf(sandbox, each)).toMatchObject({ requests: 1, charges: 1 });
  },

  'a worker without its key': async (sandbox) => {
    await using redis = await startTestRedis();
    await using installation = await installed(sandbox, redis.url);
    await using astray = await installed(sandbox, redis.url);
    rmSync(join(astray.folder, 'keys.json'));
    writeKeySet(join(astray.folder, 'keys.json'), { keys: [{ ...(await newKey('otp')), kid: 'of-another-set' }] });
    await using intake = await serve(installation.file, 'intake');
    await using without = await serve(astray.file, 'worker');
    const references: string[] = [];
    const ids: string[] = [];
    const more = async (count: number): Promise<void> => {
      for (const reference of Array.from({ length: count }, newReference)) {
        references.push(reference);
        ids.push((await enqueue(intake, { otp: RIGHT, reference })).id);
      }
    };
    await more(1);
    await alertSees('OtpSealsUnopened', without, /^otp_seals_unopened_total\{provider="cepta"\} [1-9]/m);
    await using _ = await serve(installation.file, 'worker');
    await more(9);
    for (const id of ids) expect(await ended(intake, id)).toMatchObject({ otp: 'accepted' });
    for (const reference of references) expect(ledgerOf(sandbox, reference)).toMatchObject({ requests: 1, charges: 1 });
  },

  'nobody drains results': async (sandbox) => {
    await using redis = await startTestRedis();
    await using installation = await installed(sandbox, redis.url);
    await using intake = await serve(installation.file, 'intake');
    await using _ = await serve(installation.file, 'worker');
    const heard = new Map<string, ResultEvent>();
    const consume = () =>
      createResultsConsumer({
        redis: { url: redis.url },
        handler: async (result) => void heard.set(result.subject, result),
        onError: () => {},
      });
    await consume().close();

    const first = await enqueue(intake, { otp: RIGHT, reference: newReference() });
    await ended(intake, first.id);
    await alertSees('OtpResultsNotDrained', intake, /^otp_queue_oldest_job_age_seconds\{queue="otp-results"\} [1-9]/m);
    const second = await enqueue(intake, { otp: RIGHT, reference: newReference() });
    expect(await ended(intake, second.id)).toMatchObject({ otp: 'accepted' });
    const consumer = consume();
    await vi.waitUntil(() => [first, second].every(({ id }) => heard.get(id)?.data.final), SOON);
    await consumer.close();
  },
};

test('each drill of the page is done here', () => {
  const page = readFileSync(join(root, 'docs/operations.md'), 'utf8');
  const [, table = ''] = page.split('| drill | do | must be seen |\n');
  const [rows = ''] = table.split('\n\n');
  const named = rows
    .split('\n')
    .slice(1)
    .map((row) => row.split('|')[1]?.trim());
  expect(named).toEqual(Object.keys(DRILLS));
});

describe.concurrent('what must be seen is seen', () => {
  for (const [name, drill] of Object.entries(DRILLS)) {
    test(`when ${name}`, { ...BEST_OF_THREE, timeout: 120_000 }, async () => {
      await using sandbox = await startSandbox({ settleAfterMs: 0 });
      await drill(sandbox);
      const { doubleCharges, codesReceivedTwice } = sandbox.ledger.invariants();
      expect([...doubleCharges, ...codesReceivedTwice]).toEqual([]);
    });
  }
});

async function installed(
  sandbox: Sandbox,
  redis: string | Record<string, unknown>,
  cepta: Record<string, unknown> = {},
): Promise<Installation> {
  return await install({
    redis: typeof redis === 'string' ? { url: redis } : redis,
    providers: { cepta: { ...sandbox.providers.cepta, inquiry: { delaysMs: [200, 60_000] }, ...cepta } },
  });
}

interface Wanted {
  readonly otp: string;
  readonly reference: string;
  readonly expiresAt?: string;
}

const newReference = (): string => `TX${randomUUID().slice(0, 8)}`;
const ledgerOf = (sandbox: Sandbox, reference: string) => sandbox.ledger.transaction('cepta', reference);
const CALLER = { authorization: 'Bearer api-key-of-the-shop-in-the-test' };

async function post({ intakeUrl }: ServiceProcess, { reference, ...rest }: Wanted, key: string) {
  const body = { provider: 'cepta', params: { transactionRef: reference, paymentId: 'PAY1', md: 'data' }, ...rest };
  const answer = await request(`${intakeUrl}/v1/verifications`, {
    method: 'POST',
    headers: { ...CALLER, 'content-type': 'application/json', 'idempotency-key': key },
    body: JSON.stringify(body),
  });
  return { ...answer, said: (await answer.body.json()) as VerificationResource };
}

/** As a shop does it: 503 and 409 are repeated with the same key. */
async function enqueue(intake: ServiceProcess, wanted: Wanted, key = randomUUID()): Promise<VerificationResource> {
  return await vi.waitFor(async () => {
    const { statusCode, said } = await post(intake, wanted, key);
    if (statusCode !== 202 && statusCode !== 200) throw new Error(`answered ${statusCode}: ${JSON.stringify(said)}`);
    return said;
  }, SOON);
}

async function read({ intakeUrl }: ServiceProcess, id: string): Promise<VerificationResource> {
  const answer = await request(`${intakeUrl}/v1/verifications/${id}`, { headers: CALLER });
  return (await answer.body.json()) as VerificationResource;
}

/** What `otp show` says of it. */
async function shown({ file }: Installation, id: string): Promise<VerificationResource> {
  const { output, faults } = await otp(['show', id, '--config', file, '--json']);
  expect(faults).toBe('');
  return JSON.parse(output);
}

async function ended(intake: ServiceProcess, id: string, timeout = 30_000): Promise<VerificationResource> {
  return await vi.waitFor(
    async () => {
      const last = await read(intake, id);
      if (!last.final) throw new Error(`not final: ${JSON.stringify(last)}`);
      return last;
    },
    { timeout, interval: 200 },
  );
}

async function sees({ consoleUrl }: ServiceProcess, sample: string | RegExp, timeout = 30_000): Promise<void> {
  await vi.waitFor(
    async () => {
      const scrape = await (await request(`${consoleUrl}/metrics`)).body.text();
      if (typeof sample === 'string') expect(scrape.split('\n')).toContain(sample);
      else expect(scrape).toMatch(sample);
    },
    { timeout, interval: 200 },
  );
}

const rules = readdirSync(join(root, 'ops/prometheus/rules')).map((name) =>
  readFileSync(join(root, 'ops/prometheus/rules', name), 'utf8'),
);

/** A process tells the series that an alert of this name looks at, with what makes it fire (test/ops/alerts.test.ts). */
async function alertSees(alert: string, process: ServiceProcess, sample: string | RegExp): Promise<void> {
  const [, rule = ''] = rules.map((text) => text.split(`alert: ${alert}\n`)).find((parts) => parts.length > 1) ?? [];
  const [expression = ''] = rule.split('labels:');
  const series = /otp_\w+/.exec(String(sample))?.[0] ?? '';
  expect(expression.replaceAll('otp:', 'otp_'), alert).toContain(series);
  await sees(process, sample);
}

async function tell({ control }: Sandbox, what: 'down' | 'up'): Promise<void> {
  const answer = await request(`${control.url}/${what}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ provider: 'cepta' }),
  });
  expect(answer.statusCode).toBe(200);
}

/** A Redis with an append-only file, which is backed up and restored in the steps of the page. */
async function startRestorable() {
  const folder = mkdtempSync(join(tmpdir(), 'otp-drill-'));
  const [data, backup] = [join(folder, 'data'), join(folder, 'backup.rdb')];
  mkdirSync(data);
  let server: RedisProcess = await startRedisProcess({ dir: data, appendonly: true });
  const { url, port, password } = server;
  const startAgain = async (appendonly: boolean): Promise<void> => {
    server = await startRedisProcess({ dir: data, port, password, appendonly });
  };
  const asked = async <Answer>(ask: (redis: Redis) => Promise<Answer>): Promise<Answer> => {
    const redis = new Redis(url);
    try {
      return await ask(redis);
    } finally {
      redis.disconnect();
    }
  };
  const untilSaid = async (redis: Redis, ...lines: readonly string[]): Promise<void> =>
    await vi.waitFor(async () => {
      const said = (await redis.info('persistence')).split('\r\n');
      expect(said).toEqual(expect.arrayContaining([...lines]));
    }, SOON);
  return {
    url,
    backUp: async () => {
      await asked(async (redis) => {
        await redis.bgsave();
        await untilSaid(redis, 'rdb_bgsave_in_progress:0', 'rdb_last_bgsave_status:ok');
      });
      copyFileSync(join(data, 'dump.rdb'), backup);
    },
    restore: async () => {
      await server.stop();
      renameSync(data, join(folder, 'evidence'));
      mkdirSync(data);
      copyFileSync(backup, join(data, 'dump.rdb'));
      await startAgain(false);
      const loaded = await asked(async (redis) => {
        await redis.config('SET', 'appendonly', 'yes');
        await untilSaid(redis, 'aof_rewrite_in_progress:0', 'aof_last_bgrewrite_status:ok');
        return await redis.dbsize();
      });
      await server.stop();
      await startAgain(true);
      expect(await asked(async (redis) => await redis.dbsize())).toBe(loaded);
    },
    [Symbol.asyncDispose]: async () => {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
