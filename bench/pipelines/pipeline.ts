/** What every pipeline of the comparison can do, so that each is measured by the same hands. */
import type { Part, StubReport } from '../support/parts.ts';

export interface Setting {
  /** What the provider takes for an answer. */
  readonly delayMs: number;
  /** Calls to the provider at a time, in one worker process. */
  readonly concurrency: number;
  /** Of the raw pipelines, connections to the provider; as many as calls without it. */
  readonly connections?: number;
  /** Of the raw pipelines, completed jobs that the queue keeps; none without it. */
  readonly keepCompleted?: number;
}

/** A pipeline with servers of its own and nothing in it yet. */
export interface House extends AsyncDisposable {
  /** Puts so many verifications in, as fast as it can be done; nobody works on them yet. */
  fill(count: number): Promise<void>;
  /** Puts one in, and is done when the producer may forget it. */
  submit(reference: string): Promise<void>;
  startWorker(): Promise<Part>;
  /** Published and not taken by anybody. */
  results(): Promise<number>;
  /** Takes results in this process from now on, and tells of each when its handler is called. */
  consume(onResult: (reference: string) => void): Promise<void>;
  /** Where the store is reached: Redis, or PostgreSQL. */
  readonly store: string;
  /** Processes of the store, with all that it has started. */
  storePids(): number[];
  /** What the provider has received. */
  stub(): Promise<StubReport>;
  readonly stubPid: number;
}

/** Results that a consumer has in hand at a time: with ten, as it comes, one of ours falls behind at 2,000 a second. */
export const CONSUMED_AT_ONCE = 50;

export interface Pipeline {
  readonly name: string;
  open(setting: Setting): Promise<House>;
}
