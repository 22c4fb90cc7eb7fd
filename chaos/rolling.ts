/**
 * A release rolled out: each of four workers is told to end by SIGTERM and started again, one after the other, while
 * verifications go through all five providers. Nothing may be lost, nothing submitted twice: the money ledger judges.
 * Told is how long the worst result took during each restart.
 *
 *   npm run rolling -- --seed 7
 */
import { randomInt } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command, InvalidArgumentError } from 'commander';
import type { ResultEvent } from '../src/producers/result.ts';
import { caseOf, drain, untilPublished, untilSettled, wireEntryOf } from './harness.ts';
import { judge, VIOLATIONS, type WireEntry } from './judge.ts';
import { idOf, Load } from './load.ts';
import { PROVIDERS, planOf } from './plan.ts';
import { World } from './world.ts';

interface Options {
  readonly seed: number;
  readonly rate: number;
  readonly rounds: number;
}

const WORKERS = 4;
const QUIET_MS = 3_000;
/** Long enough for the slowest machine; the load ends with the restarts. */
const LONGEST_MS = 600_000;
/** So that some attempts are always in flight when their worker is told to end. */
const PROVIDER_FAULTS = 'slow=1:400';
const DATA = fileURLToPath(new URL('../.data/rolling/', import.meta.url));

interface Restart {
  readonly name: string;
  readonly fromMs: number;
  readonly leftMs: number;
  readonly readyMs: number;
}

async function rolling({ seed, rate, rounds }: Options): Promise<number> {
  console.log(`rolling: seed ${seed}, ${WORKERS} workers, ${rounds} rounds, ${rate}/s`);
  const folder = join(DATA, String(seed));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { stories } = planOf({ seed, durationMs: LONGEST_MS, ratePerSecond: rate, workers: WORKERS });
  const references = new Map(stories.map(({ provider, reference }) => [`${provider} ${reference}`, reference]));
  const wire: WireEntry[] = [];
  const world = await World.start({
    folder,
    workers: WORKERS,
    mutant: null,
    providerFaults: PROVIDER_FAULTS,
    onProviderRequest: (provider, text, atMs) => {
      const entry = wireEntryOf(provider, text, atMs, references);
      if (entry) wire.push(entry);
    },
  });
  const lag = monitorEventLoopDelay({ resolution: 10 });
  lag.enable();
  const results: ResultEvent[] = [];
  const firstResultAt = new Map<string, number>();
  const consumer = drain(world.redisUrl, (result) => {
    results.push(result);
    if (!firstResultAt.has(result.subject)) firstResultAt.set(result.subject, Date.now());
  });
  const load = new Load(world.intakeUrl);
  const enough = new AbortController();
  const never = new AbortController().signal;
  let failed = true;
  try {
    for (const provider of PROVIDERS) {
      await world.control('/callbacks', { provider, url: `${world.intakeUrl}/v1/callbacks/${provider}` });
    }
    const running = load.run(stories, enough.signal);
    const restarts: Restart[] = [];
    const quietFrom = Date.now();
    await delay(QUIET_MS);
    for (let round = 0; round < rounds; round += 1) {
      for (const worker of world.workers) {
        await world.metrics.read(worker);
        const fromMs = Date.now();
        await worker.kill('SIGTERM');
        const leftMs = Date.now();
        await worker.start();
        restarts.push({ name: worker.name, fromMs, leftMs, readyMs: Date.now() });
        await delay(500);
      }
    }
    await delay(QUIET_MS);
    enough.abort();
    await running;
    await world.control('/faults', { spec: '' });
    await untilSettled(world, load, () => {}, never);
    await untilPublished(load, () => results, never);
    await delay(1_500);
    await world.readMetrics();
    const wireLagMs = Math.ceil(lag.max / 1e6) + 250;
    const violations = judge({
      cases: load.enquiries.map(caseOf),
      ledger: world.ledger(),
      results,
      wire,
      sendsAfterDeadline: world.metrics.sum('otp_sends_after_deadline_total'),
      wireLagMs,
      networkDelayMs: 1_000 + wireLagMs,
    });
    const worstBetween = (fromMs: number, untilMs: number): string => {
      const took = load.enquiries.flatMap((enquiry) => {
        const [first] = enquiry.posts;
        const heardAt = firstResultAt.get(idOf(enquiry) ?? '');
        if (first === undefined || heardAt === undefined || first.atMs < fromMs || first.atMs >= untilMs) return [];
        return [heardAt - first.atMs];
      });
      const sorted = took.sort((a, b) => a - b);
      const told = (ms: number | undefined): string => (ms === undefined ? '-' : `${(ms / 1_000).toFixed(1)} s`);
      return `${told(sorted[Math.floor(sorted.length / 2)])} / ${told(sorted.at(-1))}`;
    };
    const table = new Table({
      head: ['restart', 'gone after', 'ready after', 'first result, median / worst'],
      style: { head: [], border: [], compact: true },
    });
    const [first] = restarts;
    table.push(['none yet', '', '', worstBetween(quietFrom, first?.fromMs ?? quietFrom)]);
    for (const { name, fromMs, leftMs, readyMs } of restarts) {
      const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`;
      table.push([name, seconds(leftMs - fromMs), seconds(readyMs - fromMs), worstBetween(fromMs - 1_000, readyMs)]);
    }
    console.log(table.toString());
    for (const { kind, says, provider, reference, id } of violations.slice(0, 10)) {
      console.log(`rolling: ${VIOLATIONS[kind]}: ${provider} ${reference} ${id}: ${says}`);
    }
    const ownerless = load.enquiries.filter(({ resource }) =>
      resource?.history?.some(({ event }) => event === 'owner_dead'),
    ).length;
    console.log(
      `rolling: ${load.enquiries.length} verifications, ${wire.length} submissions, ${restarts.length} restarts, ` +
        `${ownerless} attempts were left behind by a worker; ${violations.length} violations`,
    );
    failed = violations.length > 0 || ownerless > 0;
    return failed ? 1 : 0;
  } finally {
    lag.disable();
    await load.close();
    await world.close();
    await consumer.close();
    if (failed) console.log(`rolling: everything is kept in ${folder}`);
    else rmSync(folder, { recursive: true, force: true });
  }
}

const within = (low: number, high: number) => (text: string) => {
  const number = Number(text);
  if (Number.isInteger(number) && number >= low && number <= high) return number;
  throw new InvalidArgumentError(`must be a whole number from ${low} to ${high}.`);
};

const program = new Command('rolling')
  .description('Restarts each of four workers in turn under load, as a release is rolled out.')
  .option('--seed <seed>', 'what is submitted; random without it', within(0, 4_294_967_295))
  .option('--rate <count>', 'new verifications in a second', within(1, 100), 30)
  .option('--rounds <count>', 'how often each worker is restarted', within(1, 20), 1)
  .action(async (given: Omit<Options, 'seed'> & { seed?: number }) => {
    process.exitCode = await rolling({ ...given, seed: given.seed ?? randomInt(1, 1_000_000_000) });
  });

await program.parseAsync();
process.exit();
