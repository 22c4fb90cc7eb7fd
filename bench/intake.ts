/**
 * How many verifications does one intake process accept in a second, and how long does a caller wait for the 202?
 * `npx tsx bench/intake.ts [seconds]`: the built service in a process of its own, before a Redis that keeps an append-only
 * file; this process asks. First as fast as the intake answers (closed loop, 64 requests at a time), then at fixed rates
 * (open loop: a request is due at its time, whether others were answered or not, and is counted from that time). The two
 * ways of sealing take turns, A B A B, and each number is the median of the rounds.
 */
import { randomUUID } from 'node:crypto';
import { cpus } from 'node:os';
import Table from 'cli-table3';
import { Pool } from 'undici';
import { partitionKeys } from '../src/producers/job.ts';
import { connectRedis } from '../src/redis/connections.ts';
import { startTestRedis } from '../test/support/redis.ts';
import { install, type ServiceProcess, serve } from '../test/support/service.ts';

const SECONDS = Number(process.argv[2] ?? 5);
const WARM_SECONDS = 5;
const ROUNDS = Number(process.argv[3] ?? 3);
const IN_FLIGHT = 64;
const RATES = [600, 1_250];
const API_KEY = 'api-key-of-the-benchmark-that-nobody-guesses';
const WAYS = { 'a new ephemeral key each (default)': {}, 'reused ephemeral key': { reuseEphemeralKey: {} } } as const;

interface Round {
  readonly perSecond: number;
  /** Of the intake's process for each accepted verification; says more than the clock on a machine that others use. */
  readonly cpuMicros: number;
  readonly latenciesMs: readonly (readonly number[])[];
}

let count = 0;
let pool: Pool;

async function enqueue(): Promise<void> {
  count += 1;
  const answer = await pool.request({
    path: '/v1/verifications',
    method: 'POST',
    headers: {
      authorization: `Bearer ${API_KEY}`,
      'content-type': 'application/json',
      'idempotency-key': randomUUID(),
    },
    body: JSON.stringify({
      provider: 'cepta',
      otp: '012345',
      params: { transactionRef: `TX${count}`, paymentId: 'PAY1', md: 'merchant_data' },
      amount: { value: '100.00', currency: 'NGN' },
      metadata: { orderId: `A-${count}` },
    }),
  });
  const text = await answer.body.text();
  if (answer.statusCode !== 202) throw new Error(`the intake answered ${answer.statusCode}: ${text}`);
}

async function cpuSeconds({ consoleUrl }: ServiceProcess): Promise<number> {
  const text = await (await fetch(`${consoleUrl}/metrics`)).text();
  return Number(/^process_cpu_seconds_total (\S+)/m.exec(text)?.[1]);
}

/** Accepted in a second, when the next request follows each answer. */
async function closedLoop(seconds: number): Promise<number> {
  const before = count;
  const endsAt = performance.now() + seconds * 1_000;
  const ask = async (): Promise<void> => {
    while (performance.now() < endsAt) await enqueue();
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, ask));
  return (count - before) / seconds;
}

/** Milliseconds from the time at which each request was due to its answer. */
async function openLoop(rate: number): Promise<number[]> {
  const latenciesMs: number[] = [];
  const startsAt = performance.now();
  const asked: Promise<void>[] = [];
  const total = rate * SECONDS;
  while (asked.length < total) {
    const due = Math.min(total, Math.floor(((performance.now() - startsAt) / 1_000) * rate));
    while (asked.length < due) {
      const dueAt = startsAt + (asked.length / rate) * 1_000;
      asked.push(enqueue().then(() => void latenciesMs.push(performance.now() - dueAt)));
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(asked);
  return latenciesMs;
}

async function round(sealing: Record<string, unknown>): Promise<Round> {
  await using server = await startTestRedis({ appendonly: true });
  await using installation = await install({
    redis: { url: server.url },
    clients: [{ id: 'bench', apiKey: API_KEY, maxInFlight: 100_000 }],
    sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json', ...sealing },
    providers: {
      // No worker runs, and no rate turns anybody away.
      cepta: {
        baseUrl: 'http://127.0.0.1:9',
        credentials: { secretKey: 'key' },
        rateLimit: { max: 1_000_000, perMs: 1_000 },
      },
    },
    log: { level: 'info' },
  });
  await using service: ServiceProcess = await serve(installation.file, 'intake');
  pool = new Pool(service.intakeUrl, { connections: IN_FLIGHT, pipelining: 1 });
  try {
    const before = count;
    await closedLoop(WARM_SECONDS); // until the compiler has seen it all
    const [cpuBefore, countBefore] = [await cpuSeconds(service), count];
    const perSecond = await closedLoop(SECONDS);
    const cpuMicros = (((await cpuSeconds(service)) - cpuBefore) * 1e6) / (count - countBefore);
    const latenciesMs: number[][] = [];
    for (const rate of RATES) latenciesMs.push(await openLoop(rate));
    const redis = connectRedis(server.url, 'worker', { onError: () => {} });
    const kept = await redis.zcard(partitionKeys('cepta').due);
    redis.disconnect();
    if (kept !== count - before) throw new Error(`${count - before} were accepted, and the journal has ${kept}`);
    return { perSecond, cpuMicros, latenciesMs };
  } finally {
    await pool.close();
  }
}

const percentile = (values: readonly number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? Number.NaN;
const median = (values: readonly number[]): number => percentile(values, 0.5);
const spread = (values: readonly number[], digits = 1): string =>
  `${median(values).toFixed(digits)} (${Math.min(...values).toFixed(digits)}–${Math.max(...values).toFixed(digits)})`;

const rounds = new Map<string, Round[]>(Object.keys(WAYS).map((way) => [way, []]));
for (let index = 0; index < ROUNDS; index += 1) {
  for (const [way, sealing] of Object.entries(WAYS)) {
    process.stderr.write(`round ${index + 1} of ${ROUNDS}: ${way}\n`);
    rounds.get(way)?.push(await round(sealing));
  }
}

console.log(
  `${cpus().length} × ${cpus()[0]?.model}, Node ${process.version}; median (min–max) of ${ROUNDS} rounds of ${SECONDS} s\n`,
);
const table = new Table({
  style: { head: [], border: [] },
  head: [
    'sealing',
    'accepted a second',
    'µs of CPU each',
    ...RATES.flatMap((rate) => [`p50 at ${rate}/s, ms`, `p99 at ${rate}/s, ms`]),
  ],
});
for (const [way, measured] of rounds) {
  const at = (index: number, share: number): string =>
    spread(measured.map(({ latenciesMs }) => percentile(latenciesMs[index] ?? [], share)));
  table.push([
    way,
    spread(
      measured.map(({ perSecond }) => perSecond),
      0,
    ),
    spread(
      measured.map(({ cpuMicros }) => cpuMicros),
      0,
    ),
    ...RATES.flatMap((_, index) => [at(index, 0.5), at(index, 0.99)]),
  ]);
}
console.log(table.toString());
