/**
 * A release rolled out: each of four workers is told to end by SIGTERM and started again, one after the other, while
 * verifications go through all five providers. Nothing may be lost, nothing submitted twice: the money ledger judges.
 * Told is how long the worst result took during each restart.
 *
 *   npm run rolling -- --seed 7
 */
import { randomInt } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import Table from 'cli-table3';
import { Command } from 'commander';
import type { ResultEvent } from '../src/producers/result.ts';
import {
  caseOf,
  drain,
  freshFolder,
  leaveFolder,
  tellViolations,
  untilPublished,
  untilSettled,
  verdictOn,
  wireOf,
} from './harness.ts';
import { idOf, Load } from './load.ts';
import { numberFrom } from './number-option.ts';
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

interface Restart {
  readonly name: string;
  readonly fromMs: number;
  readonly leftMs: number;
  readonly readyMs: number;
}

async function rolling({ seed, rate, rounds }: Options): Promise<number> {
  console.log(`rolling: seed ${seed}, ${WORKERS} workers, ${rounds} rounds, ${rate}/s`);
  const folder = freshFolder('rolling', String(seed));
  const { stories } = planOf({ seed, durationMs: LONGEST_MS, ratePerSecond: rate, workers: WORKERS });
  const { wire, onProviderRequest } = wireOf(stories);
  const world = await World.start({
    folder,
    workers: WORKERS,
    mutant: null,
    providerFaults: PROVIDER_FAULTS,
    onProviderRequest,
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
    await untilPublished(world, load, () => results, never);
    const violations = verdictOn(world, { cases: load.enquiries.map(caseOf), results, wire, lag });
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
    tellViolations('rolling', violations);
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
    leaveFolder('rolling', folder, failed);
  }
}

const program = new Command('rolling')
  .description('Restarts each of four workers in turn under load, as a release is rolled out.')
  .option('--seed <seed>', 'what is submitted; random without it', numberFrom(0, 4_294_967_295))
  .option('--rate <count>', 'new verifications in a second', numberFrom(1, 100), 30)
  .option('--rounds <count>', 'how often each worker is restarted', numberFrom(1, 20), 1)
  .action(async (given: Omit<Options, 'seed'> & { seed?: number }) => {
    process.exitCode = await rolling({ ...given, seed: given.seed ?? randomInt(1, 1_000_000_000) });
  });

await program.parseAsync();
process.exit();
