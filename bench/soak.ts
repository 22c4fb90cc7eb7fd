/**
 * Does anything grow? An intake and a worker process under half of their load for a long time, records kept for a minute
 * only, so that all that may go has gone many times over: the objects that both hold with nothing under way, before and
 * after; meanwhile their heaps after a forced collection, and the memory of Redis, with their slopes.
 *
 *   npm run soak -- --minutes 30 --rate 100
 */
import { randomUUID } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import { Pool } from 'undici';
import { createResultsConsumer } from '../dist/index.js';
import { startTestRedis } from '../test/support/redis.ts';
import { install } from '../test/support/service.ts';
import { CLIENT } from './pipelines/ours.ts';
import { keep, machine, rounded } from './report.ts';
import { Cleanup } from './support/cleanup.ts';
import { drawLines, type Line } from './support/lines.ts';
import { offer } from './support/offer.ts';
import { inProject, writeMeasured } from './support/page.ts';
import { type StubReport, start } from './support/parts.ts';
import { postVerification } from './support/post.ts';
import { Progress } from './support/progress.ts';
import { type Slope, slopeOf } from './support/slope.ts';
import { type Heap, watched } from './support/watched.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    rate: { type: 'string', default: '100' },
    retention: { type: 'string', default: '60' },
  },
});
const MINUTES = Number(values.minutes);
const RATE = Number(values.rate);
const RETENTION_MS = Number(values.retention) * 1_000;
const EVERY_MS = Math.max(2_000, Math.min(10_000, MINUTES * 1_000));
const MIB = 2 ** 20;
/** What is loaded when it is first needed has been needed then. */
const WARM_S = Math.min(60, MINUTES * 20);
/** Connections that nobody uses have gone then, and what is remembered for a moment is forgotten. */
const QUIET_MS = 25_000;
const FLAT_WITHIN = 0.01;

interface Run {
  readonly accepted: number;
  readonly refused: number;
  readonly complete: boolean;
  readonly leftBytes: number;
  readonly objects: readonly Objects[];
}

/** Bytes, with nothing under way, when it was warm and at the end. */
interface Objects {
  readonly role: string;
  readonly before: number;
  readonly after: number;
}

interface Sample {
  readonly at: number;
  readonly intake: Heap;
  readonly worker: Heap;
  readonly redisBytes: number;
  readonly retained: number;
  readonly load: number;
}

async function soak(): Promise<boolean> {
  const cleanup = new Cleanup();
  try {
    const server = cleanup.use(await startTestRedis({ appendonly: true }));
    const stub = cleanup.use(await start('support/stub.ts', { STUB_DELAY_MS: '50' }));
    const installation = cleanup.use(
      await install({
        redis: { url: server.url },
        clients: [CLIENT],
        log: { level: 'warn' },
        journal: { retentionMs: RETENTION_MS },
        providers: {
          cepta: {
            baseUrl: `http://127.0.0.1:${stub.ready.port}`,
            credentials: { secretKey: 'secret' },
            rateLimit: { max: 2 * RATE, perMs: 1_000 },
          },
        },
      }),
    );
    const intake = cleanup.use(await watched(installation, 'intake'));
    const worker = cleanup.use(await watched(installation, 'worker'));
    let results = 0;
    cleanup.use(
      createResultsConsumer({
        redis: server.url,
        retentionMs: RETENTION_MS,
        handler: async () => {
          results += 1;
        },
      }),
    );
    const redis = new Redis(server.url);
    cleanup.defer(() => redis.disconnect());
    const pool = new Pool(intake.ready.intakeUrl, { connections: 64 });
    cleanup.defer(async () => await pool.destroy());
    await delay(3_000);
    const emptyBytes = await usedBytes(redis);

    let accepted = 0;
    let refused = 0;
    const ask = async (): Promise<void> => {
      const reference = `TX${randomUUID().slice(0, 13)}`;
      const { status } = await postVerification(pool, reference, {
        ...{ provider: 'cepta', otp: '012345' },
        params: { transactionRef: reference, paymentId: 'PAY12345XYZ', md: 'merchant_data' },
        amount: { value: '100.00', currency: 'NGN' },
        metadata: { orderId: reference },
      });
      if (status === 202) accepted += 1;
      else refused += 1;
    };
    const untilQuiet = async (): Promise<StubReport> => {
      const giveUpAt = performance.now() + 30_000;
      while (results < accepted && performance.now() < giveUpAt) await delay(200);
      await delay(QUIET_MS);
      return await stub.ask<StubReport>('report');
    };
    const objectsOf = async () => [await intake.objects(), await worker.objects()] as const;
    await offer(RATE, WARM_S, ask);
    await untilQuiet();
    const objectsBefore = await objectsOf();

    const samples: Sample[] = [];
    const progress = new Progress(Math.round((MINUTES * 60_000) / EVERY_MS));
    const beganAt = performance.now();
    const ended = new AbortController();
    const sampling = (async () => {
      while (!ended.signal.aborted) {
        const at = (performance.now() - beganAt) / 1_000;
        const [ofIntake, ofWorker, redisBytes] = [await intake.heap(), await worker.heap(), await usedBytes(redis)];
        const retained = await countOf(redis, '{otp-cepta}:v:*');
        samples.push({ at, intake: ofIntake, worker: ofWorker, redisBytes, retained, load: loadavg()[0] ?? 0 });
        const heaps = `heap ${rounded(ofIntake.heapUsed / MIB)} and ${rounded(ofWorker.heapUsed / MIB)} MiB`;
        progress.step(`${accepted} accepted, ${results} results, ${heaps}, Redis ${rounded(redisBytes / MIB)} MiB`);
        await delay(EVERY_MS, undefined, { signal: ended.signal }).catch(() => {});
      }
    })();
    await offer(RATE, MINUTES * 60, ask);
    ended.abort();
    await sampling;
    progress.end();
    const { received, distinct } = await untilQuiet();
    const objectsAfter = await objectsOf();
    // One that was answered by 503 may have been accepted as well: nobody knows, and it is submitted once or not at all.
    const complete = results === received && received === distinct && received >= accepted;
    const unsure = received - accepted <= refused;
    console.log(
      `${accepted} accepted, ${refused} not, ${received} submitted (${distinct} distinct), ${results} results`,
    );
    return await tell(samples, emptyBytes, {
      accepted,
      refused,
      complete: complete && unsure,
      leftBytes: await leftBehind(redis),
      objects: [
        { role: 'intake', before: objectsBefore[0], after: objectsAfter[0] },
        { role: 'worker', before: objectsBefore[1], after: objectsAfter[1] },
      ],
    });
  } finally {
    await cleanup.run();
  }
}

async function tell(all: readonly Sample[], emptyBytes: number, run: Run): Promise<boolean> {
  // What is compiled, and what is kept for the retention and as long again, is there after this; before it all things grow.
  const warmSeconds = Math.min(MINUTES * 20, (2 * RETENTION_MS) / 1_000 + 60);
  const samples = all.filter(({ at }) => at >= warmSeconds);
  const perHour = (of: (sample: Sample) => number): Slope => {
    const { slope, error } = slopeOf(samples.map((sample) => [sample.at, of(sample)] as const));
    return { slope: (slope * 3_600) / MIB, error: (error * 3_600) / MIB };
  };
  const rowOf = (name: string, of: (sample: Sample) => number): Row => {
    const values = samples.map(of);
    const { slope, error } = perHour(of);
    return { name, least: Math.min(...values) / MIB, most: Math.max(...values) / MIB, slope, error };
  };
  /** The least of each minute: what is under way at the moment of a sample is no leak. */
  const floorOf = (of: (sample: Sample) => number) => (sample: Sample) =>
    Math.min(...samples.filter(({ at }) => Math.floor(at / 60) === Math.floor(sample.at / 60)).map(of));
  const heaps = (['intake', 'worker'] as const).map((role) =>
    rowOf(
      `${role}, heap after a forced collection, least of each minute`,
      floorOf(({ [role]: heap }) => heap.heapUsed),
    ),
  );
  const residents = (['intake', 'worker'] as const).map((role) =>
    rowOf(`${role}, resident set`, ({ [role]: heap }) => heap.rss),
  );
  const ofRedis = rowOf('Redis, used memory', ({ redisBytes }) => redisBytes);
  const mean = (of: (sample: Sample) => number): number =>
    samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length;
  // Beside the records there are the idempotency keys of as many that have gone.
  const perThousand = ((mean(({ redisBytes }) => redisBytes) - emptyBytes) / mean(({ retained }) => retained)) * 1_000;
  const growth = (ofRedis.slope * MIB) / (3_600 * RATE);
  const retained = samples.map((sample) => sample.retained);
  const command = `npm run soak -- --minutes ${MINUTES} --rate ${RATE}`;
  const loads = all.map(({ load }) => load).toSorted((a, b) => a - b);
  const lines = [
    `Measured ${new Date().toISOString().slice(0, 10)} by \`${command}\` on ${machine()}; the load of the machine was`,
    `${rounded(loads[Math.floor(loads.length / 2)] ?? 0)} in the median. ${run.accepted} verifications were accepted, and ` +
      (run.complete ? 'each was submitted once and has one result' : 'not each was submitted once with one result') +
      `; ${run.refused} requests were not answered by 202.`,
    `Slopes are of ${samples.length} samples from ${rounded(warmSeconds)} s on, with their standard error.`,
    '',
    '| objects, with nothing under way | before | after | |',
    '| --- | --- | --- | --- |',
    ...run.objects.map((objects) => {
      const [before, after] = [objects.before, objects.after].map((bytes) => `${Math.round(bytes / 1_024)} KiB`);
      return `| ${objects.role} | ${before} | ${after} | ${isFlat(objects) ? 'flat' : 'grows'} |`;
    }),
    '',
    '| under load | least | most | MiB an hour |',
    '| --- | --- | --- | --- |',
    ...[...heaps, ...residents, ofRedis].map(toldOf),
    '',
    `The journal held ${Math.min(...retained)} to ${Math.max(...retained)} records at a time, of ${run.accepted} that were made.`,
    `Redis memory per 1,000 verifications retained: **${rounded(perThousand / MIB)} MiB**, with everything that belongs to them, and`,
    `the idempotency keys of as many that have gone: a key is kept for as long again ([retention](retention.md)), and is`,
    `${rounded(run.leftBytes)} bytes by \`MEMORY USAGE\`, which leaves out what its time to live takes. Redis grew by ${rounded(growth)} bytes for each`,
    'verification.',
    '',
    '![Heaps and memory over time](images/soak.svg)',
  ];
  console.log(lines.join('\n'));
  const line = (name: string, of: (sample: Sample) => number): Line => ({
    name,
    points: all.map((sample) => [rounded(sample.at), of(sample)] as const),
  });
  mkdirSync(inProject('docs/images'), { recursive: true });
  writeFileSync(
    inProject('docs/images/soak.svg'),
    drawLines({
      title: `${MINUTES} minutes at ${RATE} verifications a second, kept for ${RETENTION_MS / 1_000} s`,
      seconds: MINUTES * 60,
      panels: [
        {
          title: 'Heap after a forced collection',
          unit: 'MiB',
          lines: [
            line('intake', ({ intake }) => rounded(intake.heapUsed / MIB)),
            line('worker', ({ worker }) => rounded(worker.heapUsed / MIB)),
          ],
        },
        {
          title: 'Redis, used memory',
          unit: 'MiB',
          lines: [line('Redis', ({ redisBytes }) => rounded(redisBytes / MIB))],
        },
        { title: 'Records in the journal', unit: 'count', lines: [line('records', ({ retained }) => retained)] },
      ],
    }),
  );
  writeMeasured('docs/soak.md', lines);
  const passed = run.complete && run.objects.every(isFlat);
  const what = `growth of the heap over ${MINUTES} minutes at half load, with nothing under way: intake, worker`;
  const measured = run.objects.map(({ before, after }) => `${((after / before - 1) * 100).toFixed(2)} %`).join(', ');
  const row = { what, measured, atLeast: 'none', aim: '', verdict: passed ? 'at least' : 'missed' } as const;
  await keep(command, { soak: { rows: [row], charts: [], raw: run } });
  return passed;
}

interface Row extends Slope {
  readonly name: string;
  readonly least: number;
  readonly most: number;
}

function isFlat({ before, after }: Objects): boolean {
  return after <= before * (1 + FLAT_WITHIN);
}

function toldOf({ name, least, most, slope, error }: Row): string {
  return `| ${name} | ${rounded(least)} MiB | ${rounded(most)} MiB | ${rounded(slope)} ± ${rounded(error)} |`;
}

async function usedBytes(redis: Redis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]);
}

async function countOf(redis: Redis, match: string): Promise<number> {
  let count = 0;
  let cursor = '0';
  do {
    const [next, keys] = await redis.scan(cursor, 'MATCH', match, 'COUNT', 5_000);
    cursor = next;
    count += keys.length;
  } while (cursor !== '0');
  return count;
}

/** Bytes that a verification leaves in Redis for a day after its record is gone, in the mean of some: its idempotency key. */
async function leftBehind(redis: Redis): Promise<number> {
  const [, keys] = await redis.scan('0', 'MATCH', '{idem-*}:*', 'COUNT', 2_000);
  const sizes = await Promise.all(keys.slice(0, 200).map(async (key) => Number(await redis.memory('USAGE', key))));
  return sizes.reduce((sum, size) => sum + size, 0) / sizes.length;
}

process.exitCode = (await soak()) ? 0 : 1;
process.exit();
