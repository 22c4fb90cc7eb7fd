/**
 * What happens, said sideways: typed `noun:verb` events that metrics and logs listen to. No payload carries a code,
 * a customer's data or a secret. A listener that throws harms nobody but itself.
 */
import type { Call, Operation, Reason, TokenCall } from './providers/provider.ts';

export interface Events {
  /** The HTTP intake answered a request. No duration: what came could not be read as one. */
  'intake:answered': { status: number; durationMs: number | null };
  /** A client was told to come later: it brings more than it may, has too much open, or its partition has a backlog. */
  'intake:limited': { client: string; limit: 'rate' | 'in_flight' | 'backlog' };
  /** Somebody gave a name and a password to the console. `user` only where the configuration names it. */
  'console:login': { outcome: 'accepted' | 'refused' | 'throttled'; address: string; user: string | null };
  /** The HTTP intake has accepted a verification for the first time. Traces as in Traced; `received` came from the caller. */
  'intake:accepted': Traced & { partition: string; received: string | null; durationMs: number };
  /** A verification is in the journal for the first time (a repeated idempotency key does not say it again). */
  'verification:accepted': Traced & { partition: string; operation: Operation };
  /** An attempt holds the right to send. `queueWaitMs` counts from acceptance. */
  'attempt:begun': Traced & { partition: string; operation: Operation; attempt: number; queueWaitMs: number };
  /** A call to a provider ended, in one of the three ways in which a call can end. `detail` is a status or an error code. */
  'call:ended': {
    /** Null where it was made for no verification alone: a token. */
    of: Traced | null;
    partition: string;
    call: Call;
    wire: Wire;
    durationMs: number;
    detail: string;
  };
  /** What a provider's clock said when it answered, in Unix ms; a Date header has whole seconds. */
  'clock:told': { partition: string; at: number };
  /** A provider's token was asked for and not had. `refused`: asking again will not help, our credentials are not taken. */
  'token:failed': { partition: string; call: TokenCall; cause: 'refused' | 'unavailable'; code: string };
  /** An answer that the provider's documents do not know. */
  'answer:unexpected': { id: string; partition: string; call: Call; providerCode: string | null };
  /** The record of a verification changed state. */
  'verification:moved': Traced & {
    partition: string;
    operation: Operation;
    /** The latest one; 0 before the first. */
    attempt: number;
    state: 'queued' | 'awaiting' | 'settled';
    final: boolean;
    otp: string | null;
    transaction: string | null;
    reason: Reason | null;
    needsReview: boolean;
    /** Why it moved, in the words of the history. */
    because: string;
  };
  /** Two proofs disagree, or payment was proved after a final `failed`: a person must look now. */
  'proof:contradicted': { id: string; partition: string; was: string; now: string };
  /** A result went to its queue for the first time. `sinceAcceptedMs` only with the first result of a verification. */
  'result:published': Traced & {
    partition: string;
    queue: string;
    type: string;
    sequence: number;
    sinceAcceptedMs: number | null;
    /** From the decision. */
    sinceDecidedMs: number;
  };
  /** A try to tell a client's endpoint ended; `given_up` was the last one, `gone` switched the endpoint off. */
  'webhook:ended': Traced & {
    client: string;
    resultId: string;
    attempt: number;
    outcome: WebhookOutcome;
    durationMs: number;
    detail: string;
  };
  /** The partition is slowed for a while, because the provider said so. */
  'partition:slowed': { partition: string; queue: string; forMs: number };
  /**
   * The partition's breaker is open: nothing is submitted for `forMs`, then a probe is made. `row` counts openings in a
   * row; `again`: it was open or half open before. `because`: a status or an error code. Told by one process of all.
   */
  'breaker:opened': { partition: string; because: string; row: number; forMs: number; again: boolean };
  'breaker:probed': {
    partition: string;
    by: 'inquiry' | 'token' | 'connection';
    answered: boolean;
    code: string;
  };
  /** The provider answers again: one verification at a time is let through until one is answered. */
  'breaker:half-opened': { partition: string; afterMs: number };
  /** One verification was answered; the rate grows from here. `afterMs`: for how long it was not closed. */
  'breaker:closed': { partition: string; afterMs: number };
  /** A submission that a queue without a journal would have repeated did not happen. */
  'resend:prevented': { id: string; partition: string; because: 'settled' | 'awaiting' | 'in_flight' | 'owner_dead' };
  /** Must never happen: headers left after the code's deadline. */
  'send:late': { id: string; partition: string };
  /**
   * Redis was another server than before, and the journal is whole again: `missing` workers did not say what they had begun,
   * so `suspected` verifications are unknown now; not `bounded`: nobody can say how much was lost, and a person must look.
   */
  'journal:recovered': { partition: string; bounded: boolean; missing: number; suspected: number };
  /** How many replicas must have the beginning of an attempt before its code is sent, at the start and when it changes. */
  'replicas:awaited': { partition: string; replicas: number };
  /** Too few replicas had it in time: the beginning of an attempt, which was handed back unsent, or results, which wait. */
  'replicas:missed': { partition: string; of: 'begin' | 'results'; wanted: number; replicas: number };
  /** An authentic callback is stored. `repeated`: the same one waits already. */
  'callback:received': { partition: string; repeated: boolean };
  /** A callback came with a proof that is missing or wrong; nothing was kept of it. */
  'callback:refused': { partition: string };
  /** A callback was about this verification, and what it says is in its history or has come too late to matter. */
  'callback:matched': { id: string; partition: string; found: string; providerCode: string };
  /** A callback names no transaction of ours after a day of looking; it was set aside among the failed jobs. */
  'callback:unmatched': { partition: string; ageMs: number };
  /** An authentic callback that cannot be read; it was set aside among the failed jobs. */
  'callback:unreadable': { partition: string; ageMs: number };
  /** Someone else's job stood in one of our queues; it was set aside. */
  'job:malformed': { queue: string; jobId: string; fault: string };
  /** A later version of this service has written it; it waits for a worker of that version. */
  'format:newer': { partition: string; fault: string };
  /** The sweeper put back a job that was gone from its queue. */
  'job:recreated': { id: string; queue: string };
  /** No key opens this verification's sealed code: it waits for the key or for its deadline. */
  'seal:unopened': { id: string; partition: string; fault: string };
  /** Something in the machinery failed and will be tried again: Redis, a queue, a listener. */
  'machinery:failed': { where: string; error: Error; requestId?: string };
}

/** Which verification, and the W3C Trace Context that its acceptance stands in; null where it came without one. */
export interface Traced {
  readonly id: string;
  readonly traceparent: string | null;
}

export type WebhookOutcome = 'delivered' | 'failed' | 'given_up' | 'gone';
export type Wire = 'answered' | 'not_sent' | 'lost';
export type EventName = keyof Events;

type Listener<Name extends EventName> = (payload: Events[Name]) => void;

export class EventBus {
  /** Replaced as a whole when it changes, so that whoever is going through it is not disturbed. */
  readonly #listeners: { [Name in EventName]?: readonly Listener<Name>[] } = {};

  on<Name extends EventName>(name: Name, listener: Listener<Name>): void {
    const others: readonly Listener<Name>[] = this.#listeners[name] ?? [];
    Object.assign(this.#listeners, { [name]: [...others, listener] });
  }

  off<Name extends EventName>(name: Name, listener: Listener<Name>): void {
    const others: readonly Listener<Name>[] = this.#listeners[name] ?? [];
    Object.assign(this.#listeners, { [name]: others.filter((other) => other !== listener) });
  }

  /** Never throws: each listener is called on its own, and its fault becomes `machinery:failed`. */
  emit<Name extends EventName>(name: Name, payload: Events[Name]): void {
    const listeners: readonly Listener<Name>[] | undefined = this.#listeners[name];
    if (listeners === undefined) return;
    for (const listener of listeners) {
      try {
        listener(payload);
      } catch (error) {
        if (name !== 'machinery:failed') {
          this.emit('machinery:failed', { where: `listener of ${name}`, error: asError(error) });
        }
      }
    }
  }
}

/** Whatever was thrown, as an Error; what was no Error is kept as its cause. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error('something that is no Error was thrown', { cause: thrown });
}

/** An error's code, never its message: a message may quote what was sent, or an address with a token in it. */
export function errorCodeOf(error: unknown): string {
  if (error instanceof DOMException && error.name === 'TimeoutError') return 'TIMEOUT';
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (typeof code === 'string' && code !== '') return code;
  return error instanceof AggregateError && error.errors.length > 0 ? errorCodeOf(error.errors[0]) : 'UNNAMED_ERROR';
}
