/** From the moment at which a verification was due to be put in, to the moment at which its result is in a handler's hands. */
import type { House, Pipeline } from '../pipelines/pipeline.ts';
import { offer } from '../support/offer.ts';
import { cpuSecondsOf } from '../support/parts.ts';
import type { Progress } from '../support/progress.ts';

export interface LatencyPlan {
  /** Verifications a second, each due at its time whether others have ended or not. */
  readonly perSecond: number;
  readonly warmSeconds: number;
  readonly seconds: number;
  readonly rounds: number;
}

const CONCURRENCY = 100;
const LAST_ONE_MS = 30_000;

export interface LatencyRound {
  /** Of each verification. */
  readonly ms: readonly number[];
  /** Of each verification in the mean: of the worker, the store, the provider, and the process that puts in and takes out. */
  readonly cpuMicros: number;
}

/** By pipeline. */
export async function openLoop(
  pipelines: readonly Pipeline[],
  plan: LatencyPlan,
  progress: Progress,
): Promise<ReadonlyMap<string, readonly LatencyRound[]>> {
  const rounds = new Map<string, LatencyRound[]>(pipelines.map(({ name }) => [name, []]));
  for (let round = 0; round < plan.rounds; round += 1) {
    for (const pipeline of pipelines) {
      progress.step(`${pipeline.name} at ${plan.perSecond}/s, round ${round + 1} of ${plan.rounds}`);
      rounds.get(pipeline.name)?.push(await openLoopOnce(pipeline, plan));
    }
  }
  return rounds;
}

export async function openLoopOnce(
  pipeline: Pipeline,
  { perSecond, warmSeconds, seconds }: Omit<LatencyPlan, 'rounds'>,
): Promise<LatencyRound> {
  await using house = await pipeline.open({ delayMs: 0, concurrency: CONCURRENCY });
  const flow = await flowOf(house);
  const worker = await house.startWorker();
  await flow.run('W', perSecond, warmSeconds);
  const everybody = [worker.pid, ...house.storePids(), house.stubPid, process.pid];
  const cpuSeconds = (): number => everybody.reduce((sum, pid) => sum + cpuSecondsOf(pid), 0);
  const before = cpuSeconds();
  const ms = await flow.run('TX', perSecond, seconds);
  return { ms, cpuMicros: ((cpuSeconds() - before) * 1e6) / ms.length };
}

/** One at a time, with nothing else going on. */
export async function idle(pipeline: Pipeline, count: number): Promise<number[]> {
  await using house = await pipeline.open({ delayMs: 0, concurrency: CONCURRENCY });
  const flow = await flowOf(house);
  await house.startWorker();
  const latencies: number[] = [];
  for (let index = 0; index < count * 2; index += 1) {
    const ms = await flow.one(`TX${index}`);
    if (index >= count) latencies.push(ms); // the first half is for the compiler
  }
  return latencies;
}

interface Flow {
  run(prefix: string, perSecond: number, seconds: number): Promise<number[]>;
  one(reference: string): Promise<number>;
}

async function flowOf(house: House): Promise<Flow> {
  const arrivals = new Map<string, (at: number) => void>();
  await house.consume((reference) => arrivals.get(reference)?.(performance.now()));
  const arrivalOf = async (reference: string): Promise<number> => {
    const arrived = new Promise<number>((resolve, reject) => {
      const lost = setTimeout(() => reject(new Error(`no result of ${reference}`)), LAST_ONE_MS);
      arrivals.set(reference, (at) => {
        clearTimeout(lost);
        resolve(at);
      });
    });
    const at = await arrived;
    arrivals.delete(reference);
    return at;
  };
  const submitted = async (reference: string, dueAt: number): Promise<number> => {
    const [at] = await Promise.all([arrivalOf(reference), house.submit(reference)]);
    return at - dueAt;
  };
  return {
    one: async (reference) => await submitted(reference, performance.now()),
    run: async (prefix, perSecond, seconds) => {
      const latencies: number[] = [];
      let count = 0;
      await offer(perSecond, seconds, async (dueAt) => {
        latencies.push(await submitted(`${prefix}${count++}`, dueAt));
      });
      return latencies;
    },
  };
}
