/** One point of the model: what stands in Redis, what each worker has in hand and in mind, and what the oracle knows. */
import type { VerificationRecord } from '../../src/producers/record.ts';
import type { Evidence } from '../../src/workers/decide.ts';
import type { Side } from './events.ts';
import type { Content, Of, OutboxEntry } from './lane.ts';
import type { Oracle } from './oracle.ts';

/** The right to send, as a worker was given it; what became of it is not known yet. */
export interface Held {
  readonly worker: Side;
  readonly of: Of;
  readonly attempt: number;
  readonly record: VerificationRecord;
}

/** Evidence that somebody has and has not written down yet. `attempt` 0: it is not about a submission. */
export interface Undelivered extends Omit<Held, 'worker'> {
  readonly evidence: Evidence;
}

/** What a worker did that its memory is made of, and what Redis said to it; rehearsed, it has that memory again. */
export type Memory = { readonly at: number; readonly replies: readonly unknown[] } & (
  | { readonly do: 'begin'; readonly id: string }
  | { readonly do: 'apply'; readonly record: VerificationRecord; readonly evidence: Evidence }
  | { readonly do: 'beat' }
  | { readonly do: 'assert' }
);

export interface WorkerState {
  readonly name: string;
  readonly stalled: boolean;
  readonly memory: readonly Memory[];
  readonly lastBeat: number;
}

export interface State {
  readonly content: Content;
  readonly clock: number;
  readonly server: string;
  readonly serverStartedAt: number;
  readonly workers: readonly [WorkerState, WorkerState];
  readonly held: readonly Held[];
  readonly undelivered: readonly Undelivered[];
  readonly lastAnswer: (Held & Undelivered) | null;
  readonly outbox: readonly OutboxEntry[];
  readonly oracle: Oracle;
  /** Null where Redis never loses anything. */
  readonly rollback: {
    readonly saved: { readonly content: Content; readonly outbox: readonly OutboxEntry[] } | null;
    /** How often it has been lost. */
    readonly times: number;
    readonly recovering: boolean;
  } | null;
}
