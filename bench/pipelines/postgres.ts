/** The two queues that live in PostgreSQL, each as its own page says that it is fastest. */
import { readdirSync, readFileSync } from 'node:fs';
import { makeWorkerUtils } from 'graphile-worker';
import PgBoss from 'pg-boss';
import { startTestPostgres } from '../../test/outbox/postgres.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type StubReport, start } from '../support/parts.ts';
import { environmentOf, jobOf, type RawJob } from './job.ts';
import type { House, Pipeline, Setting } from './pipeline.ts';

export const VERIFY = 'verify';
export const RESULTS = 'results';
const AT_ONCE = 500;

interface Engine {
  readonly worker: string;
  fill(jobs: readonly RawJob[]): Promise<void>;
  close(): Promise<void>;
  readonly countResults: string;
}

export const pgBoss: Pipeline = {
  name: 'pg-boss',
  open: async (setting) =>
    await open(setting, async (url) => {
      const boss = new PgBoss({ connectionString: url, supervise: false, schedule: false });
      boss.on('error', () => {});
      await boss.start();
      await boss.createQueue(VERIFY);
      await boss.createQueue(RESULTS);
      return {
        worker: 'pipelines/pg-boss-worker.ts',
        fill: async (jobs) => await boss.insert(jobs.map((data) => ({ name: VERIFY, data }))),
        close: async () => await boss.stop({ graceful: false, close: true }),
        countResults: `select count(*)::int as count from pgboss.job where name = '${RESULTS}'`,
      };
    }),
};

export const graphileWorker: Pipeline = {
  name: 'graphile-worker',
  open: async (setting) =>
    await open(setting, async (url) => {
      const utils = await makeWorkerUtils({ connectionString: url });
      await utils.migrate();
      return {
        worker: 'pipelines/graphile-worker-worker.ts',
        fill: async (jobs) => void (await utils.addJobs(jobs.map((payload) => ({ identifier: VERIFY, payload })))),
        close: async () => await utils.release(),
        countResults: `select count(*)::int as count from graphile_worker.jobs where task_identifier = '${RESULTS}'`,
      };
    }),
};

async function open({ delayMs, concurrency }: Setting, engineOf: (url: string) => Promise<Engine>): Promise<House> {
  const cleanup = new Cleanup();
  const server = cleanup.use(await startTestPostgres());
  const stub = cleanup.use(await start('support/stub.ts', { STUB_DELAY_MS: String(delayMs) }));
  const engine = await engineOf(server.url);
  cleanup.defer(async () => await engine.close());
  return {
    async fill(count) {
      for (let from = 0; from < count; from += AT_ONCE) {
        const size = Math.min(AT_ONCE, count - from);
        await engine.fill(Array.from({ length: size }, (_, index) => jobOf(`TX${from + index}`)));
      }
    },
    submit: async (reference) => await engine.fill([jobOf(reference)]),
    startWorker: async () =>
      cleanup.use(
        await start(
          engine.worker,
          environmentOf({ store: server.url, provider: `http://127.0.0.1:${stub.ready.port}`, concurrency }),
        ),
      ),
    results: async () => Number((await server.client.query(engine.countResults)).rows[0].count),
    consume: () => Promise.reject(new Error('its latency is not compared')),
    store: server.url,
    storePids: postgresPids,
    stub: async () => await stub.ask<StubReport>('report'),
    stubPid: stub.pid,
    [Symbol.asyncDispose]: async () => await cleanup.run(),
  };
}

/** A server of PostgreSQL is a process for each connection. */
function postgresPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'postgres';
      } catch {
        return false; // it has ended meanwhile
      }
    });
}
