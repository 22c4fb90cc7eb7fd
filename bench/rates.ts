/**
 * Does the provider ever see more than the configured rate, and is the rate used while there is a backlog?
 * `npx tsx bench/rates.ts [seconds]`: 1, 2 and 4 built worker processes before a long backlog, each on a fresh Redis that
 * keeps an append-only file, and the simulated provider, whose own timestamps judge. For each it prints how many requests
 * stood in the sliding windows of the rate (one window begins with each request), as a histogram in tenths of the rate,
 * the fullest window, and how much of the rate was used. Exits 1 when a window holds more than 110 % of the rate, or
 * less than 90 % of it was used; windows of less than a second are not judged.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import Table from 'cli-table3';
import { startSandbox } from '../src/sandbox/index.ts';
import { bodyFor, startPipeline } from '../test/support/pipeline.ts';
import { startTestRedis } from '../test/support/redis.ts';
import { install, serve } from '../test/support/service.ts';

const SECONDS = Number(process.argv[2] ?? 10);
const PROCESSES = [1, 2, 4];
const RATES = process.env.ONLY
  ? [JSON.parse(process.env.ONLY) as { max: number; perMs: number }]
  : [
      { max: 5, perMs: 1_000 },
      { max: 20, perMs: 1_000 },
      { max: 100, perMs: 1_000 },
      { max: 10, perMs: 100 },
    ];
const MOST = 1.1;
const LEAST = 0.9;
/** Shorter ones are shown and not judged: they are no longer than what a busy machine delays. */
const JUDGED_FROM_MS = 1_000;

type Rate = (typeof RATES)[number];

interface Seen {
  readonly windows: readonly number[];
  readonly used: number;
}

async function measure(rate: Rate, processes: number): Promise<Seen> {
  await using redis = await startTestRedis();
  await using sandbox = await startSandbox({ settleAfterMs: 0 });
  const { baseUrl, credentials, options } = sandbox.providers.beqelal;
  await using installation = await install({
    redis: { url: redis.url },
    providers: { beqelal: { baseUrl, credentials, options, rateLimit: rate, otpLifetimeMs: 600_000 } },
  });
  const keySet = JSON.parse(readFileSync(join(installation.folder, 'keys.json'), 'utf8'));
  await using pipeline = await startPipeline(
    { beqelal: { baseUrl, credentials, options } },
    { workers: false, server: redis, keySet },
  );
  const forMs = SECONDS * 1_000;
  const backlog = Math.ceil((1.3 * rate.max * (forMs + rate.perMs)) / rate.perMs);
  for (let made = 0; made < backlog; made += 50) {
    const some = Array.from({ length: Math.min(50, backlog - made) }, () => bodyFor('beqelal', '123456'));
    await Promise.all(some.map(async (body) => await pipeline.enqueue({ ...body, expiresAt: LATER })));
  }
  const workers = [];
  for (let count = 0; count < processes; count += 1) workers.push(await serve(installation.file, 'worker'));
  try {
    const times = (): number[] =>
      sandbox.ledger.entries.filter(({ event }) => event === 'request').map(({ at }) => Date.parse(at));
    for (;;) {
      const [first] = times();
      if (first !== undefined && Date.now() > first + forMs + rate.perMs) break;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const seen = times().sort((a, b) => a - b);
    const from = seen[0] as number;
    const windows = seen
      .filter((at) => at < from + forMs)
      .map((start) => seen.filter((at) => at >= start && at < start + rate.perMs).length);
    return { windows, used: (windows.length * rate.perMs) / (rate.max * forMs) };
  } finally {
    for (const worker of workers) await worker[Symbol.asyncDispose]();
  }
}

const LATER = new Date(Date.now() + 24 * 3_600_000).toISOString();
const table = new Table({
  head: [
    'rate',
    'processes',
    'fullest',
    'used',
    ...['<50', '<60', '<70', '<80', '<90', '<100', '100', '>100'].map((word) => `${word} %`),
  ],
  colAligns: ['left', ...Array.from({ length: 11 }, () => 'right' as const)],
});
let ok = true;
for (const rate of RATES) {
  for (const processes of PROCESSES) {
    const { windows, used } = await measure(rate, processes);
    const fullest = Math.max(...windows) / rate.max;
    if (rate.perMs >= JUDGED_FROM_MS) ok &&= fullest <= MOST && used >= LEAST;
    const shares = windows.map((count) => count / rate.max);
    const between = (from: number, to: number): number => shares.filter((share) => share >= from && share < to).length;
    const bins = [
      [0, 0.5],
      [0.5, 0.6],
      [0.6, 0.7],
      [0.7, 0.8],
      [0.8, 0.9],
      [0.9, 1],
      [1, 1.000001],
      [1.000001, 9],
    ];
    const percent = (share: number): string => `${Math.round(100 * share)} %`;
    const row = [
      `${rate.max} / ${rate.perMs} ms`,
      processes,
      percent(fullest),
      percent(used),
      ...bins.map(([from, to]) => between(from ?? 0, to ?? 0)),
    ];
    table.push(row);
    console.error(row.join('  '));
  }
}
console.log(table.toString());
if (!ok) process.exitCode = 1;
