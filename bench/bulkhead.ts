/**
 * Does a provider that hangs slow another one down? `npx tsx bench/bulkhead.ts [rounds]`: one built worker process with
 * two partitions. One provider takes every code and is silent until the time-out, with as many codes on their way as the
 * partition may have (`concurrency`), all the time, its breaker off; the other one answers at once and gets a steady flow.
 * Rounds without and with the hanging one take turns, A B A B; printed are the medians of the rounds, from acceptance to
 * the final result by the clock of Redis. Exits 1 when the p99 with it is more than 20 % above that without.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import Table from 'cli-table3';
import { partitionKeys } from '../src/producers/job.ts';
import { startSandbox } from '../src/sandbox/index.ts';
import { bodyFor, type Pipeline, startPipeline } from '../test/support/pipeline.ts';
import { behaviours, startProviderServer } from '../test/support/provider-server.ts';
import { startTestRedis } from '../test/support/redis.ts';
import { install, serve } from '../test/support/service.ts';

const ROUNDS = Number(process.argv[2] ?? 7);
const CODES = 300;
const PER_SECOND = 80;
const CONCURRENCY = 50;
const TIMEOUT_MS = 5_000;
const MOST = 1.2;

async function flow(pipeline: Pipeline): Promise<number[]> {
  const startedAt = performance.now();
  const ids: string[] = [];
  for (let code = 0; code < CODES; code += 1) {
    const waitMs = startedAt + (code * 1_000) / PER_SECOND - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    ids.push(await pipeline.enqueue(bodyFor('beqelal', '123456')));
  }
  const took: number[] = [];
  for (const id of ids) {
    await pipeline.final(id, 30_000);
    const key = partitionKeys('beqelal').record(id);
    const [createdAt, updatedAt] = await pipeline.redis.hmget(key, 'createdAt', 'updatedAt');
    took.push(Number(updatedAt) - Number(createdAt));
  }
  return took.sort((a, b) => a - b);
}

const quantile = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
const median = (values: readonly number[]): number =>
  quantile(
    [...values].sort((a, b) => a - b),
    0.5,
  );

await using redis = await startTestRedis();
await using sandbox = await startSandbox({ settleAfterMs: 0, answerDelayMs: 20 });
await using silent = await startProviderServer(behaviours.isSilent);
const { baseUrl, credentials, options } = sandbox.providers.beqelal;
const entries = {
  beqelal: { baseUrl, credentials, options },
  'hello-clever': { ...sandbox.providers['hello-clever'], baseUrl: silent.url },
};
await using installation = await install({
  redis: { url: redis.url },
  providers: {
    beqelal: { ...entries.beqelal, rateLimit: { max: 400, perMs: 1_000 } },
    'hello-clever': {
      ...entries['hello-clever'],
      ...{ rateLimit: { max: 1_000, perMs: 1_000 }, concurrency: CONCURRENCY, timeoutMs: TIMEOUT_MS },
      ...{ breaker: { enabled: false }, inquiry: { delaysMs: [600_000] } },
    },
  },
});
const keySet = JSON.parse(readFileSync(join(installation.folder, 'keys.json'), 'utf8'));
await using pipeline = await startPipeline(entries, { workers: false, server: redis, keySet });
await using _worker = await serve(installation.file, 'worker');
await flow(pipeline); // warm

const rounds: Record<'alone' | 'beside', number[][]> = { alone: [], beside: [] };
for (let round = 0; round < ROUNDS; round += 1) {
  rounds.alone.push(await flow(pipeline));
  // As many on their way as may be, and more that wait, for as long as the other one is measured.
  const arrivedBefore = silent.requests.length;
  const seconds = CODES / PER_SECOND + TIMEOUT_MS / 1_000;
  const many = Math.ceil((seconds * 1_000) / TIMEOUT_MS) * CONCURRENCY;
  const later = new Date(Date.now() + seconds * 1_000).toISOString();
  for (let made = 0; made < many; made += 1) {
    await pipeline.enqueue({ ...bodyFor('hello-clever', '123456'), expiresAt: later });
  }
  await silent.arrived(arrivedBefore + CONCURRENCY);
  rounds.beside.push(await flow(pipeline));
  console.error(
    `round ${round + 1}: ${[rounds.alone, rounds.beside].map((of) => quantile(of.at(-1) ?? [], 0.99)).join(' ')}`,
  );
  while (
    silent.sockets.size > 0 ||
    (await pipeline.queue('hello-clever').getJobCountByTypes('prioritized', 'active')) > 0
  ) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
const table = new Table({
  head: [`median of ${ROUNDS} rounds of ${CODES}, ms`, 'p50', 'p99'],
  colAligns: ['left', 'right', 'right'],
});
const of = (name: keyof typeof rounds, share: number): number =>
  median(rounds[name].map((took) => quantile(took, share)));
table.push(['alone', of('alone', 0.5), of('alone', 0.99)]);
table.push([`beside ${CONCURRENCY} that hang`, of('beside', 0.5), of('beside', 0.99)]);
console.log(table.toString());
const ratio = of('beside', 0.99) / of('alone', 0.99);
const pairs = rounds.alone.map((took, round) => quantile(rounds.beside[round] ?? [], 0.99) / quantile(took, 0.99));
console.log(
  `p99: ${(100 * (ratio - 1)).toFixed(1)} %; median of the ratios of each pair of rounds: ${median(pairs).toFixed(2)}`,
);
for (const name of ['alone', 'beside'] as const)
  console.log(`${name}, each p99: ${rounds[name].map((took) => quantile(took, 0.99)).join(' ')}`);
if (ratio > MOST) process.exitCode = 1;
