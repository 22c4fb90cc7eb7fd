/**
 * Runs targets: shares the time among them, derives every case from the seed, and says of each failure how to see it
 * again. Case k of a target is the same whatever else runs and however long it may.
 */
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { printed, type Target, type TargetName } from './target.ts';

export interface Failure {
  readonly target: TargetName;
  /** The smallest case that fails in the same way, as far as it was looked for. */
  readonly case: unknown;
  readonly says: string;
  /** Number of the first case of its batch; null for one of the sweep or of the corpus. */
  readonly from: number | null;
  readonly batch: number;
}

export interface Figures {
  readonly target: TargetName;
  cases: number;
  ms: number;
  /** What became of the cases. */
  readonly outcomes: Map<string, number>;
  readonly failures: Failure[];
}

export interface RunSettings {
  readonly seed: number;
  /** Whichever comes first; one of them is given. */
  readonly seconds?: number | undefined;
  /** For each target. */
  readonly cases?: number | undefined;
  /** Cases that are passed over: those of whole batches. */
  readonly skip?: number | undefined;
  /** False: without what is tried in full. */
  readonly sweep?: boolean | undefined;
  /** False: a failing case is left as it came. */
  readonly shrink?: boolean | undefined;
  /** Shares of the time; 1 where none is given. */
  readonly shares?: Readonly<Partial<Record<TargetName, number>>>;
  readonly onProgress?: (figures: readonly Figures[]) => void;
  readonly stop?: () => boolean;
}

/** A target that fails again and again is left alone after so many different failures. */
const MOST_FAILURES = 5;

export async function run(targets: readonly Target[], settings: RunSettings): Promise<Figures[]> {
  const { seconds = Number.POSITIVE_INFINITY, cases = Number.POSITIVE_INFINITY, skip = 0, shares = {} } = settings;
  const lanes = targets.map((target) => ({
    target,
    share: shares[target.name] ?? 1,
    next: skip,
    sweep: settings.sweep === false ? null : (target.sweep?.()[Symbol.iterator]() ?? null),
    figures: { target: target.name, cases: 0, ms: 0, outcomes: new Map(), failures: [] } as Figures,
  }));
  const figures = lanes.map((lane) => lane.figures);
  const stray: unknown[] = [];
  const onStray = (error: unknown): void => void stray.push(error);
  process.on('uncaughtException', onStray);
  process.on('unhandledRejection', onStray);
  const endsAt = performance.now() + seconds * 1_000;
  try {
    for (;;) {
      const open = lanes.filter(({ next, sweep, figures: own }) => {
        return (next - skip < cases || sweep !== null) && own.failures.length < MOST_FAILURES;
      });
      // Whoever has had least of its share is next.
      const [lane] = open.sort((one, other) => one.figures.ms / one.share - other.figures.ms / other.share);
      if (lane === undefined || performance.now() >= endsAt || settings.stop?.()) return figures;
      const { target, figures: own } = lane;
      const startedAt = performance.now();
      const before = own.failures.length;
      const from = lane.sweep === null ? lane.next : null;
      if (lane.sweep !== null) {
        if (!(await sweep(lane.sweep, target, own))) lane.sweep = null;
      } else {
        // Cases are numbered in batches, so that none depends on how many are asked for; only the last one is cut.
        const size = Math.min(target.batch, cases - (lane.next - skip));
        await batch(target, settings, lane.next, size, own);
        lane.next += target.batch;
      }
      own.ms += performance.now() - startedAt;
      for (const error of stray.splice(0)) {
        if (own.failures.length > before) continue; // the same, told once
        fail(own, target, null, `nobody caught this: ${printed(error)}`, from);
      }
      settings.onProgress?.(figures);
    }
  } finally {
    process.off('uncaughtException', onStray);
    process.off('unhandledRejection', onStray);
  }
}

/** One case that was kept; null when all is well, else what is wrong. */
export async function replay(target: Target, given: unknown): Promise<string | null> {
  try {
    await target.check(given);
    return null;
  } catch (error) {
    return reasonOf(error);
  }
}

/** The next of what is tried in full; false when that was all. */
async function sweep(left: Iterator<unknown>, target: Target, figures: Figures): Promise<boolean> {
  for (let count = 0; count < target.batch; count += 1) {
    const { done, value: given } = left.next();
    if (done) return false;
    figures.cases += 1;
    try {
      tally(figures, await target.check(given));
    } catch (error) {
      fail(figures, target, given, reasonOf(error), null);
    }
  }
  return true;
}

async function batch(
  target: Target,
  { seed, shrink = true }: RunSettings,
  from: number,
  size: number,
  figures: Figures,
): Promise<void> {
  const property = fc.asyncProperty(target.cases, async (given) => {
    figures.cases += 1;
    tally(figures, await target.check(given));
  });
  const result = await fc.check(property, {
    seed: seedOf(seed, target.name, from),
    numRuns: size,
    endOnFailure: !shrink,
    // Shrinking tries cases too; it must not take for ever where each needs a server.
    interruptAfterTimeLimit: 60_000,
    markInterruptAsFailure: false,
  });
  if (result.counterexample === null || result.counterexample === undefined) return;
  fail(figures, target, result.counterexample[0], reasonOf(result.errorInstance), from);
}

function tally(figures: Figures, outcome: string): void {
  figures.outcomes.set(outcome, (figures.outcomes.get(outcome) ?? 0) + 1);
}

function fail(figures: Figures, target: Target, given: unknown, says: string, from: number | null): void {
  const known = figures.failures.some((failure) => failure.says === says);
  if (!known) figures.failures.push({ target: target.name, case: given, says, from, batch: target.batch });
}

function reasonOf(error: unknown): string {
  if (error instanceof Error && error.name === 'Condemned') return error.message;
  return `it threw ${printed(error)}`;
}

function seedOf(seed: number, name: string, from: number): number {
  return createHash('sha256').update(`${seed} ${name} ${from}`).digest().readInt32LE();
}
