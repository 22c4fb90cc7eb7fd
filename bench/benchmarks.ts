/** What is measured, how often, and what is asked of it. */
import { backlogPlan } from './measures/backlog.ts';
import { type EnqueueWay, enqueueOnce } from './measures/enqueue.ts';
import { type IntakeRound, intakeOnce } from './measures/intake.ts';
import { idle, openLoop } from './measures/latency.ts';
import { memoryOnce } from './measures/memory.ts';
import { idleThroughHttp } from './measures/overhead.ts';
import { type Profile, plainObject, profileOnce, redisTable, threadTable } from './measures/profile.ts';
import { startupOnce } from './measures/startup.ts';
import {
  type ComparisonPlan,
  type Throughput,
  type ThroughputRound,
  throughput,
  throughputOnce,
} from './measures/throughput.ts';
import { beeQueue } from './pipelines/bee-queue.ts';
import { ours } from './pipelines/ours.ts';
import type { Pipeline, Setting } from './pipelines/pipeline.ts';
import { graphileWorker, pgBoss } from './pipelines/postgres.ts';
import { naive, raw } from './pipelines/raw.ts';
import { type Bars, type Outcome, type Row, spreadOf, told } from './report.ts';
import { quantile } from './support/measure.ts';
import type { Progress } from './support/progress.ts';

export type Scale = 'full' | 'quick';

export interface Benchmark {
  steps(scale: Scale): number;
  run(scale: Scale, progress: Progress): Promise<Outcome>;
}

/** Concurrencies of which each pipeline is given its best. */
const SWEEP = [50, 100, 200] as const;
/** What is tried besides with the raw pipelines. */
const [FEW_CONNECTIONS, SOME_KEPT] = [25, 1_000] as const;
const ROUNDS = { full: 3, quick: 1 } as const;
const COUNT = { full: 24_000, quick: 8_000 } as const;
const SWEEP_COUNT = { full: 8_000, quick: 4_000 } as const;
const SLOW = { delayMs: 50, concurrency: 500 } as const;
const AT_ONCE = { delayMs: 0, concurrency: 100 } as const;

export const BENCHMARKS: Readonly<Record<string, Benchmark>> = {
  throughput: {
    steps: (scale) => 3 * SWEEP.length + 2 * 2 + 3 * ROUNDS[scale],
    run: async (scale, progress) => {
      const best = new Map<Pipeline, Setting>();
      for (const each of [raw, ours, naive]) best.set(each, await bestSetting(each, scale, progress));
      const plan: ComparisonPlan = {
        settingOf: (pipeline) => best.get(pipeline) ?? AT_ONCE,
        ...{ count: COUNT[scale], rounds: ROUNDS[scale] },
      };
      const measured = await throughput([raw, ours, naive], plan, progress);
      const rate = (of: Pipeline): number[] => figures(measured, of, ({ perSecond }) => perSecond);
      return {
        rows: [
          atLeast(
            'throughput of one worker process, provider at once, against raw BullMQ',
            ratios(rate(ours), rate(raw)),
            0.85,
            1.1,
          ),
          atLeast(
            'the same, against raw BullMQ with the features added naively',
            ratios(rate(ours), rate(naive)),
            1.2,
            1.6,
          ),
          atMost(
            'processor time of the worker for each verification, against raw',
            ratios(
              figures(measured, ours, ({ workerCpu }) => workerCpu),
              figures(measured, raw, ({ workerCpu }) => workerCpu),
            ),
            1.25,
            1,
          ),
          plain(
            'the most memory that our worker process took',
            told(
              figures(measured, ours, ({ workerMib }) => workerMib),
              ' MiB',
            ),
          ),
        ],
        charts: [
          bars('bench-throughput.svg', 'Verifications a second, provider answers at once, each at its best', measured),
        ],
        raw: {
          best: Object.fromEntries([...best].map(([{ name }, setting]) => [name, setting])),
          ...Object.fromEntries(measured),
        },
      };
    },
  },

  'slow-provider': {
    steps: (scale) => 2 * ROUNDS[scale],
    run: async (scale, progress) => {
      const plan = { settingOf: () => SLOW, count: COUNT[scale], rounds: ROUNDS[scale] };
      const measured = await throughput([raw, ours], plan, progress);
      const rate = (of: Pipeline): number[] => figures(measured, of, ({ perSecond }) => perSecond);
      return {
        rows: [
          atLeast(
            'throughput, provider answers in 50 ms, 500 in flight, against raw',
            ratios(rate(ours), rate(raw)),
            1,
            1.2,
          ),
        ],
        charts: [
          bars('bench-slow-provider.svg', 'Verifications a second, provider answers in 50 ms, 500 in flight', measured),
        ],
        raw: Object.fromEntries(measured),
      };
    },
  },

  others: {
    steps: (scale) => 5 * ROUNDS[scale],
    run: async (scale, progress) => {
      const plan = { settingOf: () => AT_ONCE, count: COUNT[scale] / 4, rounds: ROUNDS[scale] };
      const measured = await throughput([ours, raw, beeQueue, pgBoss, graphileWorker], plan, progress);
      const row = (of: Pipeline): Row => ({
        what: `throughput of ${of.name}, plain, on the same work`,
        measured: told(
          figures(measured, of, ({ perSecond }) => perSecond),
          '/s',
        ),
        ...{ atLeast: 'told', aim: '', verdict: 'told' },
      });
      return {
        rows: [ours, raw, beeQueue, pgBoss, graphileWorker].map(row),
        charts: [
          bars('bench-others.svg', 'Verifications a second, the same work on other queues, short runs', measured),
        ],
        raw: Object.fromEntries(measured),
      };
    },
  },

  latency: {
    steps: (scale) => 2 * ROUNDS[scale],
    run: async (scale, progress) => {
      const plan = { perSecond: 2_000, warmSeconds: 4, seconds: scale === 'full' ? 8 : 4, rounds: ROUNDS[scale] };
      const measured = await openLoop([raw, ours], plan, progress);
      const at = (of: Pipeline, share: number): number[] =>
        (measured.get(of.name) ?? []).map(({ ms }) => quantile(ms, share));
      const cpuOf = (of: Pipeline): number[] => (measured.get(of.name) ?? []).map(({ cpuMicros }) => cpuMicros);
      const chart: Bars = {
        ...{ file: 'bench-latency.svg', title: 'From enqueue to result at 2,000 a second', unit: 'ms' },
        bars: [ours, raw].flatMap((of) =>
          ([0.5, 0.99] as const).map((share) => ({ name: `${of.name}, p${share * 100}`, ...spreadOf(at(of, share)) })),
        ),
      };
      return {
        rows: [
          atMost(
            'p99 from enqueue to result at 2,000 a second, against raw',
            ratios(at(ours, 0.99), at(raw, 0.99)),
            0.5,
            0.2,
          ),
          plain('the same in milliseconds: ours', told(at(ours, 0.99), ' ms')),
          plain('the same in milliseconds: raw', told(at(raw, 0.99), ' ms')),
          plain(
            'processor time of all of them for each at 2,000 a second: ours, raw',
            `${told(cpuOf(ours), ' µs')}, ${told(cpuOf(raw), ' µs')}`,
          ),
        ],
        charts: [chart],
        raw: Object.fromEntries(
          [ours, raw].map((of) => [
            of.name,
            { p50: at(of, 0.5), p90: at(of, 0.9), p99: at(of, 0.99), cpuMicros: cpuOf(of) },
          ]),
        ),
      };
    },
  },

  overhead: {
    steps: () => 3,
    run: async (scale, progress) => {
      const count = scale === 'full' ? 2_000 : 400;
      progress.step('one at a time: ours');
      const library = await idle(ours, count);
      progress.step('one at a time: raw');
      const plainly = await idle(raw, count);
      progress.step('one at a time: through HTTP');
      const http = await idleThroughHttp(count);
      const [p50, p99] = [(of: number[]) => [quantile(of, 0.5)], (of: number[]) => [quantile(of, 0.99)]];
      return {
        rows: [
          atMost('one at a time, through the library: p50', p50(library), 2.5, 1.5, ' ms'),
          atMost('one at a time, through the library: p99', p99(library), 8, 8, ' ms'),
          plain('the same of raw BullMQ: p50 and p99', `${told(p50(plainly), ' ms')}, ${told(p99(plainly), ' ms')}`),
          atMost('one at a time, through HTTP with Prefer: wait: p50', p50(http), 5, 3, ' ms'),
          atMost('one at a time, through HTTP with Prefer: wait: p99', p99(http), 15, 15, ' ms'),
        ],
        charts: [],
        raw: Object.fromEntries(
          Object.entries({ library, raw: plainly, http }).map(([name, ms]) => [
            name,
            [0.5, 0.9, 0.99].map((share) => quantile(ms, share)),
          ]),
        ),
      };
    },
  },

  intake: {
    steps: (scale) => 2 * ROUNDS[scale],
    run: async (scale, progress) => {
      const plan = { warmSeconds: 5, seconds: scale === 'full' ? 8 : 4, perSecond: 1_250 };
      const [reused, fresh]: [IntakeRound[], IntakeRound[]] = [[], []];
      for (let round = 0; round < ROUNDS[scale]; round += 1) {
        progress.step(`intake, ephemeral key reused, round ${round + 1}`);
        reused.push(await intakeOnce({ ...plan, reuse: true }));
        progress.step(`intake, ephemeral key fresh, round ${round + 1}`);
        fresh.push(await intakeOnce({ ...plan, reuse: false }));
      }
      const accepted = (rounds: readonly IntakeRound[]): number[] =>
        rounds.map(({ acceptedPerSecond }) => acceptedPerSecond);
      const micros = (rounds: readonly IntakeRound[]): number[] => rounds.map(({ cpuMicros }) => cpuMicros);
      const p99 = (rounds: readonly IntakeRound[]): number[] =>
        rounds.map(({ latenciesMs }) => quantile(latenciesMs, 0.99));
      const memory = [...reused, ...fresh].map(({ memoryMib }) => memoryMib);
      return {
        rows: [
          atLeast(
            'intake, one process: accepted a second (ephemeral key reused)',
            accepted(reused),
            2_500,
            5_000,
            '/s',
          ),
          plain('the same with a fresh ephemeral key', told(accepted(fresh), '/s')),
          atMost('intake: p99 of the 202 at 1,250 a second (reused)', p99(reused), 25, 25, ' ms'),
          plain('the same with a fresh ephemeral key', told(p99(fresh), ' ms')),
          plain(
            'intake: processor time of each, reused and fresh',
            `${told(micros(reused), ' µs')}, ${told(micros(fresh), ' µs')}`,
          ),
          plain('intake: the most memory that its process took', told(memory, ' MiB')),
        ],
        charts: [],
        raw: Object.fromEntries(
          Object.entries({ reused, fresh }).map(([name, rounds]) => [
            name,
            {
              accepted: accepted(rounds),
              cpuMicros: micros(rounds),
              redisCpuMicros: rounds.map(({ redisCpuMicros }) => redisCpuMicros),
              p99: p99(rounds),
              foreignCores: rounds.map(({ foreignCores }) => foreignCores),
            },
          ]),
        ),
      };
    },
  },

  enqueue: {
    steps: (scale) => 3 * ROUNDS[scale],
    run: async (scale, progress) => {
      const seconds = scale === 'full' ? 4 : 2;
      const measured: Record<EnqueueWay, number[]> = { raw: [], reused: [], fresh: [] };
      for (let round = 0; round < ROUNDS[scale]; round += 1) {
        for (const way of ['raw', 'reused', 'fresh'] as const) {
          progress.step(`enqueue, ${way}, round ${round + 1}`);
          measured[way].push(await enqueueOnce(way, seconds));
        }
      }
      return {
        rows: [
          atLeast('library enqueue, one process, ephemeral key reused', measured.reused, 12_000, 25_000, '/s'),
          plain('the same with a fresh ephemeral key', told(measured.fresh, '/s')),
          plain('queue.add of raw BullMQ, for comparison', told(measured.raw, '/s')),
        ],
        charts: [],
        raw: measured,
      };
    },
  },

  memory: {
    steps: () => 1,
    run: async (scale, progress) => {
      progress.step('memory');
      const { waiting, settled, handled, left } = await memoryOnce(scale === 'full' ? 20_000 : 5_000);
      return {
        rows: [
          atMost('Redis memory for each waiting verification', [waiting / 1_000], 2.5, 1.6, ' KB'),
          atMost('Redis memory for each settled and retained verification', [settled / 1_000], 1.5, 0.8, ' KB'),
          plain('of that, the idempotency key, which stays after its retention', told([left], ' B')),
          plain('Redis memory for what a consumer has handled, each', told([handled], ' B')),
        ],
        charts: [],
        raw: { waitingBytes: waiting, settledBytes: settled, handledBytes: handled, leftBytes: left },
      };
    },
  },

  backlog: {
    steps: (scale) => 2 * ROUNDS[scale],
    run: async (scale, progress) => {
      const behind = scale === 'full' ? 1_000_000 : 100_000;
      const plan = { setting: AT_ONCE, count: COUNT[scale] / 2 };
      const [empty, long]: [ThroughputRound[], ThroughputRound[]] = [[], []];
      for (let round = 0; round < ROUNDS[scale]; round += 1) {
        progress.step(`nothing behind, round ${round + 1}`);
        empty.push(await throughputOnce(ours, plan));
        progress.step(`${behind.toLocaleString('en')} behind, round ${round + 1}`);
        long.push(await throughputOnce(ours, { ...plan, ...backlogPlan(behind) }));
      }
      const rates = (rounds: readonly ThroughputRound[]): number[] => rounds.map(({ perSecond }) => perSecond);
      const what = `throughput with ${behind.toLocaleString('en')} waiting against an empty queue`;
      return {
        rows: [atLeast(what, ratios(rates(long), rates(empty)), 0.9, 1)],
        charts: [],
        raw: { empty, long },
      };
    },
  },

  processes: {
    steps: (scale) => 2 * ROUNDS[scale],
    run: async (scale, progress) => {
      const plan = { setting: AT_ONCE, count: COUNT[scale] / 2 };
      const [one, two]: [ThroughputRound[], ThroughputRound[]] = [[], []];
      for (let round = 0; round < ROUNDS[scale]; round += 1) {
        progress.step(`one worker process, round ${round + 1}`);
        one.push(await throughputOnce(ours, plan));
        progress.step(`two worker processes, round ${round + 1}`);
        two.push(await throughputOnce(ours, { ...plan, workers: 2 }));
      }
      const rates = (rounds: readonly ThroughputRound[]): number[] => rounds.map(({ perSecond }) => perSecond);
      return {
        rows: [
          plain(
            'two worker processes against one, with Redis and the provider on the same machine',
            told(ratios(rates(two), rates(one)), ' x'),
          ),
        ],
        charts: [],
        raw: { one, two },
      };
    },
  },

  profile: {
    steps: () => 2,
    run: async (scale, progress) => {
      const profiled = async (of: Pipeline): Promise<Profile> => {
        progress.step(`profile of ${of.name}`);
        return await profileOnce(of, COUNT[scale]);
      };
      const [plainly, safely] = [await profiled(raw), await profiled(ours)];
      const share = ({ utilisation }: Profile): string => `${Math.round(100 * utilisation)} %`;
      return {
        rows: [
          plain(
            "how much of the time the worker's thread is at work: ours and raw",
            `${share(safely)}, ${share(plainly)}`,
          ),
        ],
        tables: [threadTable(safely, plainly), redisTable(safely, plainly)],
        charts: [],
        raw: { ours: plainObject(safely), raw: plainObject(plainly) },
      };
    },
  },

  startup: {
    steps: () => 1,
    run: async (scale, progress) => {
      progress.step('otp serve');
      const starts: { readonly seconds: number; readonly memoryMib: number }[] = [];
      for (let round = 0; round < (scale === 'full' ? 7 : 3); round += 1) starts.push(await startupOnce());
      const [seconds, memoryMib] = [starts.map((one) => one.seconds), starts.map((one) => one.memoryMib)];
      return {
        rows: [
          atMost('time from `otp serve` to ready', seconds, 1, 0.5, ' s'),
          plain('memory of a process with all roles, just started', told(memoryMib, ' MiB')),
        ],
        charts: [],
        raw: { seconds, memoryMib },
      };
    },
  },
};

/** The best concurrency, and with it the best of what else could be set. */
async function bestSetting(pipeline: Pipeline, scale: Scale, progress: Progress): Promise<Setting> {
  let best: { readonly setting: Setting; readonly perSecond: number } | null = null;
  const attempt = async (setting: Setting, as: string): Promise<void> => {
    progress.step(`${pipeline.name}, ${as}`);
    const { perSecond } = await throughputOnce(pipeline, { setting, count: SWEEP_COUNT[scale] });
    if (best === null || perSecond > best.perSecond) best = { setting, perSecond };
  };
  const bestSoFar = (): Setting => best?.setting ?? AT_ONCE;
  for (const concurrency of SWEEP) await attempt({ delayMs: 0, concurrency }, `${concurrency} at a time`);
  if (pipeline !== ours) {
    await attempt({ ...bestSoFar(), connections: FEW_CONNECTIONS }, `${FEW_CONNECTIONS} connections`);
    await attempt({ ...bestSoFar(), keepCompleted: SOME_KEPT }, `${SOME_KEPT} completed jobs kept`);
  }
  return bestSoFar();
}

function figures(measured: Throughput, of: Pipeline, figure: (round: ThroughputRound) => number): number[] {
  return (measured.get(of.name) ?? []).map(figure);
}

/** Of each round with its neighbour: what slows the machine for a while slows both. */
export function ratios(of: readonly number[], against: readonly number[]): number[] {
  return of.map((value, index) => value / (against[index] ?? Number.NaN));
}

function bars(file: string, title: string, measured: Throughput): Bars {
  return {
    ...{ file, title, unit: '/s' },
    bars: [...measured].map(([name, rounds]) => ({ name, ...spreadOf(rounds.map(({ perSecond }) => perSecond)) })),
  };
}

function atLeast(what: string, values: readonly number[], least: number, aim: number, unit = ' x'): Row {
  const { median } = spreadOf(values);
  const verdict = median >= aim ? 'aim' : median >= least ? 'at least' : 'missed';
  return { what, measured: told(values, unit), atLeast: `${least}${unit}`, aim: `${aim}${unit}`, verdict };
}

function atMost(what: string, values: readonly number[], most: number, aim: number, unit = ' x'): Row {
  const { median } = spreadOf(values);
  const verdict = median <= aim ? 'aim' : median <= most ? 'at least' : 'missed';
  return { what, measured: told(values, unit), atLeast: `${most}${unit}`, aim: `${aim}${unit}`, verdict };
}

function plain(what: string, measured: string): Row {
  return { what, measured, atLeast: 'told', aim: '', verdict: 'told' };
}
