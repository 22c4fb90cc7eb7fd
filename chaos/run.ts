/**
 * The story of a chaos run: processes are started, verifications are driven through all five providers while things go
 * wrong by plan, everything is brought up again, and then the money ledger is the judge.
 *
 *   npm run chaos -- --minutes 5 --seed 42
 */
import { randomInt } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Command, Option } from 'commander';
import type { ResultEvent } from '../src/producers/result.ts';
import { connectRedis } from '../src/redis/connections.ts';
import { Faults, type Span } from './faults.ts';
import { caseOf, drain, freshFolder, leaveFolder, untilPublished, untilSettled, verdictOn, wireOf } from './harness.ts';
import { crossingOf, type WireEntry } from './judge.ts';
import { Load } from './load.ts';
import { numberFrom } from './number-option.ts';
import { LONGEST_DELAY_MS, type Plan, PROVIDERS, planOf } from './plan.ts';
import { Progress, printReport, type Recovery, type RunFigures } from './report.ts';
import { MUTANTS, type Mutant, World } from './world.ts';

interface Options {
  readonly minutes: number;
  readonly seed: number;
  readonly quick: boolean;
  readonly keep: boolean;
  readonly workers: number;
  readonly rate: number;
  readonly mutant: Mutant | null;
}

const QUICK_MS = 20_000;
const METRICS_EVERY_MS = 2_000;

async function chaos(options: Options): Promise<number> {
  const { seed, workers, rate, mutant } = options;
  const durationMs = options.quick ? QUICK_MS : options.minutes * 60_000;
  console.log(`chaos: seed ${seed}, ${Math.round(durationMs / 1_000)} s of trouble, ${workers} workers, ${rate}/s`);
  if (mutant !== null) console.log(`chaos: with the mutant ${mutant}, which must be condemned`);
  const plan = planOf({ seed, durationMs, ratePerSecond: rate, workers });

  const folder = freshFolder('chaos', String(seed));
  const startedAt = performance.now();
  const say = (text: string): void => {
    const line = `${new Date().toISOString()} ${text}\n`;
    appendFileSync(join(folder, 'chaos.log'), line);
  };

  const aborted = new AbortController();
  const onSignal = (): void => aborted.abort();
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);

  const { wire, onProviderRequest } = wireOf(plan.stories);
  const world = await World.start({ folder, workers, mutant, onProviderRequest });
  let failed = true;
  try {
    const figures = await tell(world, plan, { options, durationMs, startedAt, say, wire, signal: aborted.signal });
    if (figures === null) {
      console.log('chaos: interrupted; nothing was judged');
      return 1;
    }
    failed = figures.violations.length > 0;
    printReport(figures, { folder, repeat: repeatOf(options) });
    return failed ? 1 : 0;
  } finally {
    await world.close();
    leaveFolder('chaos', folder, failed || options.keep);
    process.removeListener('SIGINT', onSignal);
    process.removeListener('SIGTERM', onSignal);
  }
}

interface Telling {
  readonly options: Options;
  readonly durationMs: number;
  readonly startedAt: number;
  readonly say: (text: string) => void;
  readonly wire: readonly WireEntry[];
  readonly signal: AbortSignal;
}

/** Null when it was interrupted. */
async function tell(world: World, plan: Plan, telling: Telling): Promise<RunFigures | null> {
  const { durationMs, startedAt, say, wire, signal } = telling;
  const lag = monitorEventLoopDelay({ resolution: 10 });
  lag.enable();

  const redis = connectRedis(world.redisUrl, 'console', { onError: () => {}, name: 'chaos' });
  const results: ResultEvent[] = [];
  const firstResultAt = new Map<string, number>();
  const publishedInMs = new Map<string, number>();
  const consumer = drain(world.redisUrl, (result) => {
    results.push(result);
    if (!publishedInMs.has(result.id)) publishedInMs.set(result.id, Date.now() - Date.parse(result.time));
    if (!firstResultAt.has(result.subject)) firstResultAt.set(result.subject, Date.now());
  });
  const load = new Load(world.intakeUrl);
  for (const provider of PROVIDERS) {
    // LipaLater has no callbacks and says so.
    const url = `${world.intakeUrl}/v1/callbacks/${provider}`;
    say(`callbacks of ${provider}: ${await world.control('/callbacks', { provider, url })}`);
  }
  const faults = new Faults(world, redis, say);
  const metrics = setInterval(() => world.readMetrics(), METRICS_EVERY_MS);
  const progress = new Progress(() => ({
    phase,
    elapsedMs: performance.now() - begunAt,
    ofMs: durationMs,
    asked: load.enquiries.length,
    underway: load.underway,
    results: results.length,
    faults: [...faults.done.values()].reduce((sum, count) => sum + count, 0),
    open,
  }));
  let phase = 'trouble';
  let open: number | null = null;
  const begunAt = performance.now();
  say(`begins; started within ${Math.round(begunAt - startedAt)} ms`);
  try {
    await Promise.all([load.run(plan.stories, signal), faults.run(plan.faults, signal)]);
    if (signal.aborted) return null;

    phase = 'everything is up again, open ones end';
    say('all troubles are over');
    await Promise.all(world.services.map((service) => service.start()));
    const calmAt = performance.now();
    await untilSettled(
      world,
      load,
      (count) => {
        open = count;
      },
      signal,
    );
    if (signal.aborted) return null;
    const settledInMs = performance.now() - calmAt;

    phase = 'the last results come';
    await untilPublished(world, load, () => results, signal);

    const cases = load.enquiries.map(caseOf);
    const violations = verdictOn(world, { cases, results, wire, lag, networkDelayMs: LONGEST_DELAY_MS });
    const recoveries = faults.kills.flatMap(({ worker, atMs, inFlight }) =>
      inFlight.map((id): Recovery => {
        const heardAt = firstResultAt.get(id) ?? Number.NaN;
        return { worker, id, tookMs: heardAt - atMs, disturbed: disturbed(faults.spans, atMs, heardAt) };
      }),
    );
    const crossed = new Set(wire.map(crossingOf));
    const prevented = world.metrics.sum('otp_resends_prevented_total');
    const turnedAway = load.turnedAway;
    return {
      cases,
      posts: load.enquiries.flatMap(({ posts }) => posts),
      ledger: world.ledger(),
      results,
      violations,
      faults: faults.done,
      recoveries,
      publishedInMs: [...publishedInMs.values()],
      prevented,
      neverLeft: cases.filter((one) => one.resource?.otp === 'unknown' && !crossed.has(crossingOf(one))).length,
      turnedAway,
      settledInMs,
      durationMs,
      tookMs: performance.now() - startedAt,
      harnessLagMs: Math.round(lag.max / 1e6),
    };
  } finally {
    progress.end();
    clearInterval(metrics);
    lag.disable();
    await load.close();
    await faults.close();
    await consumer.close();
    redis.disconnect();
  }
}

/** Did something else stand between a kill and its result: Redis away, or the worker that had to notice? */
function disturbed(spans: readonly Span[], fromMs: number, untilMs: number): boolean {
  return spans.some(
    (span) =>
      span.fromMs < untilMs &&
      span.untilMs > fromMs &&
      ['kill_redis', 'redis_network', 'cut_clients', 'stop_worker', 'rolling_restart'].includes(span.kind),
  );
}

function repeatOf({ minutes, seed, quick, workers, rate, mutant }: Options): string {
  const parts = [quick ? '--quick' : `--minutes ${minutes}`, `--seed ${seed}`];
  if (workers !== DEFAULT_WORKERS) parts.push(`--workers ${workers}`);
  if (rate !== DEFAULT_RATE) parts.push(`--rate ${rate}`);
  if (mutant !== null) parts.push(`--mutant ${mutant}`);
  return `npm run chaos -- ${parts.join(' ')}`;
}

const DEFAULT_WORKERS = 3;
const DEFAULT_RATE = 30;

const program = new Command('chaos')
  .description('Drives verifications through all five sandboxed providers while processes, sockets and queues break.')
  .option('--minutes <minutes>', 'how long things go wrong', numberFrom(0.1, 60, { whole: false }), 1)
  .option('--seed <seed>', 'the plan; random without it', numberFrom(0, 4_294_967_295))
  .option('--quick', 'twenty seconds of trouble instead of minutes', false)
  .option('--workers <count>', 'worker processes', numberFrom(1, 8), DEFAULT_WORKERS)
  .option('--rate <count>', 'new verifications in a second', numberFrom(1, 100), DEFAULT_RATE)
  .option('--keep', 'keeps logs, append-only file and ledger also when nothing is wrong', false)
  .addOption(new Option('--mutant <name>', 'breaks the service on purpose, to see it condemned').choices(MUTANTS))
  .action(async (given: { seed?: number; mutant?: Mutant } & Omit<Options, 'seed' | 'mutant'>) => {
    const seed = given.seed ?? randomInt(1, 1_000_000_000);
    process.exitCode = await chaos({ ...given, seed, mutant: given.mutant ?? null });
  });

await program.parseAsync();
// A connection of BullMQ's that was cut in its last moment may go on looking for a server that is gone.
process.exit();
