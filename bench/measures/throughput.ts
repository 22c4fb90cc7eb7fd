/**
 * A backlog is there, a worker process starts, and is measured from when it has warmed up to when the last result is
 * published. Pipelines take turns, A B C A B C; each run has servers of its own. A run counts only when the provider has
 * received each code once and as many results are published.
 */
import type { House, Pipeline, Setting } from '../pipelines/pipeline.ts';
import { cpuSecondsOf, machineCpuSeconds, type Part, peakMemoryOf } from '../support/parts.ts';
import type { Progress } from '../support/progress.ts';

/** The first part of a run, in which the compiler is still at it, does not count. */
const WARM_SHARE = 0.5;
const LONGEST_MS = 180_000;

export interface ThroughputRound {
  readonly perSecond: number;
  /** Seconds of processor time of the workers, and of the store, for each 1,000 verifications. */
  readonly workerCpu: number;
  readonly storeCpu: number;
  /** The most that a worker process has had resident. */
  readonly workerMib: number;
  /** Cores that were at somebody else's work meanwhile. */
  readonly foreignCores: number;
}

export interface Plan {
  readonly setting: Setting;
  readonly count: number;
  readonly workers?: number;
  /** Stands in the queue behind what is measured. */
  readonly behind?: (house: House) => Promise<void>;
}

export type Throughput = ReadonlyMap<string, readonly ThroughputRound[]>;

export interface ComparisonPlan {
  settingOf(pipeline: Pipeline): Setting;
  readonly count: number;
  readonly rounds: number;
}

export async function throughput(
  pipelines: readonly Pipeline[],
  { settingOf, count, rounds }: ComparisonPlan,
  progress: Progress,
): Promise<Throughput> {
  const measured = new Map<string, ThroughputRound[]>(pipelines.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const pipeline of pipelines) {
      progress.step(`${pipeline.name}, round ${round + 1} of ${rounds}`);
      measured.get(pipeline.name)?.push(await throughputOnce(pipeline, { setting: settingOf(pipeline), count }));
    }
  }
  return measured;
}

interface Moment {
  readonly at: number;
  readonly results: number;
  readonly workerCpu: number;
  readonly storeCpu: number;
  readonly ownCpu: number;
  readonly workerMib: number;
  readonly machineCpu: number;
}

export async function throughputOnce(
  pipeline: Pipeline,
  { setting, count, workers = 1, behind }: Plan,
): Promise<ThroughputRound> {
  await using house = await pipeline.open(setting);
  await house.fill(count);
  await behind?.(house);
  const parts: Part[] = [];
  for (let started = 0; started < workers; started += 1) parts.push(await house.startWorker());

  const giveUpAt = performance.now() + LONGEST_MS;
  let first: Moment | null = null;
  for (;;) {
    const now = await momentOf(house, parts);
    if (first === null && now.results >= count * WARM_SHARE) first = now;
    if (now.results >= count) {
      await demandOnce(pipeline, house, count, now.results);
      return between(first ?? now, now);
    }
    if (performance.now() > giveUpAt) throw new Error(`${pipeline.name} has published ${now.results} of ${count}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function momentOf(house: House, parts: readonly Part[]): Promise<Moment> {
  const results = await house.results();
  const workerCpu = sum(parts.map(({ pid }) => cpuSecondsOf(pid)));
  const storeCpu = sum(house.storePids().map(cpuSecondsOf));
  const { user, system } = process.cpuUsage();
  const ownCpu = workerCpu + storeCpu + cpuSecondsOf(house.stubPid) + (user + system) / 1e6;
  const workerMib = Math.max(...parts.map(({ pid }) => peakMemoryOf(pid)));
  return { at: performance.now(), results, workerCpu, storeCpu, ownCpu, workerMib, machineCpu: machineCpuSeconds() };
}

function between(first: Moment, last: Moment): ThroughputRound {
  const [verifications, seconds] = [last.results - first.results, (last.at - first.at) / 1_000];
  return {
    perSecond: verifications / seconds,
    workerCpu: ((last.workerCpu - first.workerCpu) * 1_000) / verifications,
    storeCpu: ((last.storeCpu - first.storeCpu) * 1_000) / verifications,
    workerMib: last.workerMib,
    foreignCores: Math.max(0, (last.machineCpu - first.machineCpu - (last.ownCpu - first.ownCpu)) / seconds),
  };
}

async function demandOnce({ name }: Pipeline, house: House, count: number, results: number): Promise<void> {
  const { received, distinct } = await house.stub();
  if (received === count && distinct === count && results === count) return;
  throw new Error(
    `${name}: the run does not count: ${count} verifications, ${received} received by the provider, ` +
      `${distinct} of them different, ${results} results`,
  );
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
