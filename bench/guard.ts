/**
 * Has this project become slower than it was? Ours and raw in one run, in turns: throughput with a provider that answers at
 * once, and the p99 at 2,000 a second. Fails where even the best round lies beyond what holds by now. What docs/benchmarks.md
 * asks for is told beside it: as it comes within reach, the bounds here move there. Under 90 seconds.
 */
import { openLoopOnce } from './measures/latency.ts';
import { throughputOnce } from './measures/throughput.ts';
import { ours } from './pipelines/ours.ts';
import { raw } from './pipelines/raw.ts';
import { quantile } from './support/measure.ts';

interface Bound {
  readonly asked: number;
  readonly holds: number;
}

/** Against raw; at least. */
const THROUGHPUT: Bound = { asked: 0.85, holds: 0.28 };
/** Against raw; at most. A machine that does not carry 2,000 a second has a queue that grows, so this one is wide. */
const P99: Bound = { asked: 0.5, holds: 80 };
/** What the noise of a machine that others use may take away. */
const MARGIN = 0.2;
const ROUNDS = 3;

export async function guard(): Promise<boolean> {
  const throughputs: number[] = [];
  const latencies: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const plan = { setting: { delayMs: 0, concurrency: 100 }, count: 8_000 };
    const [plain, own] = [await throughputOnce(raw, plan), await throughputOnce(ours, plan)];
    throughputs.push(own.perSecond / plain.perSecond);
    const load = { perSecond: 2_000, warmSeconds: 2, seconds: 2 };
    const [plainly, safely] = [await openLoopOnce(raw, load), await openLoopOnce(ours, load)];
    latencies.push(quantile(safely.ms, 0.99) / quantile(plainly.ms, 0.99));
  }
  const [throughput, p99] = [Math.max(...throughputs), Math.min(...latencies)];
  const told = (values: readonly number[]): string => values.map((value) => value.toPrecision(3)).join(', ');
  console.log(
    `throughput against raw: ${told(throughputs)} x; at least ${THROUGHPUT.holds} less ${MARGIN * 100} %, asked ${THROUGHPUT.asked}`,
  );
  console.log(
    `p99 at 2,000/s against raw: ${told(latencies)} x; at most ${P99.holds} and ${MARGIN * 100} %, asked ${P99.asked}`,
  );
  return throughput >= THROUGHPUT.holds * (1 - MARGIN) && p99 <= P99.holds * (1 + MARGIN);
}
