/** What may happen, and when; and what a provider may say. */
import type { Finding, Outcome } from '../../src/providers/provider.ts';
import type { Of } from './lane.ts';
import { AMOUNT, type World } from './oracle.ts';
import type { State } from './state.ts';

export type Side = 0 | 1;

export type Event =
  /** A second verification of the same transaction is accepted. */
  | { readonly do: 'accept'; readonly code: 'same' | 'other' }
  /** Any job of any queue, put back or replayed: a worker begins. */
  | { readonly do: 'begin'; readonly worker: Side; readonly of: Of }
  /** What became of a submission, told by the worker that made it, whenever. */
  | {
      readonly do: 'answer';
      readonly of: Of;
      readonly attempt: number;
      readonly as: Answer;
      /** It is written down, and the worker does not hear of that. */
      readonly unheard?: true;
    }
  /** The same once more, because the worker did not hear that it was written. */
  | { readonly do: 'again' }
  /** The worker is gone, and with it all it knew; another process takes its place. */
  | { readonly do: 'crash'; readonly worker: Side }
  /** The worker is not heard of, but goes on. */
  | { readonly do: 'stall'; readonly worker: Side }
  | { readonly do: 'callback'; readonly of: Of; readonly as: CallbackWord; readonly late?: true }
  | { readonly do: 'inquiry'; readonly of: Of; readonly as: FindingWord; readonly late?: true }
  | { readonly do: 'resolve'; readonly of: Of; readonly as: 'succeeded' | 'failed' }
  /** There is no token for the provider, so a job could not even begin. */
  | { readonly do: 'no_token'; readonly of: Of }
  /** What was read or decided before, by whoever it was, is written down now. */
  | { readonly do: 'deliver'; readonly which: number }
  /** The codes' deadlines pass, and nobody has looked yet. */
  | { readonly do: 'deadline' }
  /** The sweeper, at the next time at which it has anything to do. */
  | { readonly do: 'sweep'; readonly worker: Side }
  /** Seconds in which nothing happens but that workers say that they live. */
  | { readonly do: 'wait' }
  /** As of now everything is safe on the disk. */
  | { readonly do: 'save' }
  /** Redis comes back as it was on the disk, as another server. */
  | { readonly do: 'rollback' }
  /** A worker that lives beats. */
  | { readonly do: 'beat'; readonly worker: Side }
  /** The provider is in trouble, or out of it: the partition's breaker is moved. */
  | { readonly do: 'breaker'; readonly is: 'closed' | 'open' | 'half_open' }
  /** Time passes until live workers have had their chance to write back what they know; they beat. */
  | { readonly do: 'recover' };

export type Answer = keyof typeof ANSWERS;
type Said =
  | { readonly outcome: Outcome }
  | { readonly lost: true }
  | { readonly notSent: boolean }
  | { readonly noKey: true };

const yes = (transaction: 'succeeded' | 'pending' | 'none', more: object = {}): Said => ({
  outcome: { kind: 'accepted', transaction, providerCode: 'YES', ...more },
});
const no = (transaction: 'pending' | 'failed' | 'none'): Said => ({
  outcome: {
    kind: 'rejected',
    reason: transaction === 'failed' ? 'declined' : 'wrong_code',
    transaction,
    providerCode: 'NO',
  },
});

export const ANSWERS = {
  pending: yes('pending'),
  pending_last: yes('pending', { attemptsRemaining: 0 }),
  succeeded: yes('succeeded'),
  succeeded_less: yes('succeeded', { amounts: [{ ...AMOUNT, value: '99.00' }] }),
  accepted: yes('none'),
  wrong: no('pending'),
  wrong_here: no('none'),
  declined: no('failed'),
  refused: { outcome: { kind: 'refused', cause: 'credentials', remedy: { do: 'new_stamp' }, providerCode: '401' } },
  throttled: { outcome: { kind: 'refused', cause: 'throttled', remedy: { do: 'wait' }, providerCode: '429' } },
  refused_for_good: { outcome: { kind: 'refused', cause: 'request', remedy: { do: 'none' }, providerCode: '400' } },
  unknown: { outcome: { kind: 'unknown', reason: 'unexpected_answer', documented: false, providerCode: '500' } },
  lost: { lost: true },
  not_sent: { notSent: true },
  cannot_be_sent: { notSent: false },
  /** Who began it cannot open the code. */
  no_key: { noKey: true },
} as const satisfies Record<string, Said>;

export const FINDINGS = {
  paid: { kind: 'paid', providerCode: 'PAID', amounts: [AMOUNT] },
  paid_less: { kind: 'paid', providerCode: 'PAID', amounts: [{ ...AMOUNT, value: '99.00' }] },
  not_paid: { kind: 'not_paid', providerCode: 'FAILED', amounts: [AMOUNT] },
  pending: { kind: 'pending', providerCode: 'PENDING' },
  untouched: { kind: 'untouched', providerCode: 'WAITING' },
  nothing: { kind: 'nothing', documented: true, providerCode: null },
  /** A callback that names no amount. */
  paid_unsaid: { kind: 'paid', providerCode: 'PAID' },
} as const satisfies Record<string, Finding>;
export type FindingWord = Exclude<keyof typeof FINDINGS, 'paid_unsaid'>;
export type CallbackWord = 'paid' | 'not_paid' | 'paid_less' | 'paid_unsaid';

/** What is tried of all that may happen. The whole of it is for random runs; enumerating takes one of a kind. */
export interface Alphabet {
  readonly answers: readonly Answer[];
  readonly findings: readonly FindingWord[];
  readonly callbacks: readonly CallbackWord[];
  readonly seconds: readonly ('same' | 'other')[];
  /** Whoever reads and whoever writes are not at it at the same time: others come between. */
  readonly split: boolean;
  readonly again: boolean;
  readonly unheard: boolean;
  readonly noToken: boolean;
  readonly resolve: boolean;
  readonly time: boolean;
  /** How often Redis may lose its last writes. */
  readonly rollbacks: number;
  readonly breaker: boolean;
}

/** Everything that may happen next. Of two workers that have nothing in hand only the first is moved. */
export function eventsAt(state: State, world: World, alphabet: Alphabet): Event[] {
  const events: Event[] = [];
  const { content, clock, rollback } = state;
  const busy = (side: Side): boolean =>
    state.held.some(({ worker }) => worker === side) || state.lastAnswer?.worker === side;
  // Who has nothing in hand has nothing to lose, unless Redis has: then it remembers.
  const matters = (side: Side): boolean => busy(side) || rollback !== null;
  // Whether a worker is heard of is asked only of the owner of what is being sent; after a rollback of all.
  const isMissed = (side: Side): boolean =>
    rollback !== null ||
    content.records.some((record) => record?.state === 'sending' && record.owner === state.workers[side].name);
  const asleep = (side: Side): boolean => isMissed(side) && state.workers[side].stalled;
  const sides: readonly Side[] = matters(0) || matters(1) ? [0, 1] : [0];
  const awake: Side = asleep(0) && !asleep(1) ? 1 : 0;
  const recovering = rollback?.recovering === true;

  if (content.records[1] === null && rollback === null) {
    for (const code of alphabet.seconds) events.push({ do: 'accept', code });
  }
  for (const of of [0, 1] as const) {
    const record = content.records[of];
    if (record === null) continue;
    const waits = record.state === 'queued' || record.state === 'sending';
    for (const worker of waits ? sides : [awake]) events.push({ do: 'begin', worker, of });
    if (record.state === 'queued') {
      if (alphabet.noToken) events.push({ do: 'no_token', of });
      continue;
    }
    for (const as of alphabet.callbacks) {
      // Where it is only a reason to ask, and where nothing waits for it yet, it matters little what it says.
      const hint = record.state === 'sending' || (world.canInquire && record.state === 'awaiting');
      if (hint && as !== 'paid') continue;
      events.push({ do: 'callback', of, as });
      const early = record.state !== 'settled' && clock <= Number(record.inFlightUntil ?? 0);
      if (as === 'not_paid' && early && alphabet.time) events.push({ do: 'callback', of, as, late: true });
    }
    const isInReview = record.state === 'settled' && record.needsReview === '1';
    if (alphabet.resolve && (record.state === 'awaiting' || isInReview)) {
      events.push({ do: 'resolve', of, as: 'succeeded' }, { do: 'resolve', of, as: 'failed' });
    }
    if (record.state !== 'awaiting') continue;
    const askAt = Math.max(clock, Number(record.nextInquiryAt ?? 0));
    if (Number(record.nextInquiryAt ?? 0) === 0 || recovering) continue;
    for (const as of alphabet.findings) {
      events.push({ do: 'inquiry', of, as });
      const matters = as === 'not_paid' || as === 'untouched';
      if (matters && askAt <= Number(record.inFlightUntil)) events.push({ do: 'inquiry', of, as, late: true });
    }
  }
  for (const { of, attempt } of state.held) {
    for (const as of alphabet.answers) {
      events.push({ do: 'answer', of, attempt, as });
      if (alphabet.unheard && state.lastAnswer === null) events.push({ do: 'answer', of, attempt, as, unheard: true });
    }
  }
  for (const worker of [0, 1] as const) {
    if (busy(worker)) events.push({ do: 'crash', worker });
    if (busy(worker) && isMissed(worker) && !asleep(worker)) events.push({ do: 'stall', worker });
  }
  for (const which of state.undelivered.keys()) events.push({ do: 'deliver', which });
  if (state.lastAnswer !== null) events.push({ do: 'again' });
  if (alphabet.time) {
    if (content.records.some((record) => record && isOpen(record.state) && Number(record.expiresAt) > clock)) {
      events.push({ do: 'deadline' });
    }
    if (sweepAt(state) !== null && !recovering) {
      // Who sweeps is heard of again; of two that are awake it matters not which.
      for (const worker of asleep(0) && asleep(1) ? sides : [awake]) events.push({ do: 'sweep', worker });
    }
  }
  if (alphabet.breaker) {
    const now = content.breaker.state ?? 'closed';
    for (const is of ['closed', 'open', 'half_open'] as const) if (is !== now) events.push({ do: 'breaker', is });
  }
  if (rollback) {
    const { saved, times } = rollback;
    if (times < alphabet.rollbacks) {
      events.push({ do: 'save' }, { do: 'wait' });
      if (saved !== null) events.push({ do: 'rollback' });
    }
    if (recovering) events.push({ do: 'recover' });
    for (const worker of [0, 1] as const) {
      if (recovering || state.workers[worker].stalled) events.push({ do: 'beat', worker });
    }
  }
  return events;
}

const isOpen = (state: string | undefined): boolean => state === 'queued' || state === 'sending';

/** When the sweeper next has more to do than to look: null when it has nothing. */
export function sweepAt({ content, clock }: State): number | null {
  const times = content.records.flatMap((record) => {
    if (record === null) return [];
    switch (record.state) {
      case 'queued':
        return [Number(record.expiresAt)];
      case 'sending': {
        const alive = content.alive.includes(record.owner ?? '');
        return [alive ? Number(record.inFlightUntil) + 1 : Number(record.beganAt) + 6_000];
      }
      case 'awaiting': {
        if (Number(record.nextInquiryAt ?? 0) > 0 || record.needsReview === '1') return [];
        return Object.entries(content.due).flatMap(([id, at]) =>
          content.records.indexOf(record) + 1 === Number(id.at(-1)) ? [Number(at)] : [],
        );
      }
      default:
        return [];
    }
  });
  return times.length === 0 ? null : Math.max(clock, Math.min(...times));
}

/** As a trace says it. */
export function told(event: Event): string {
  const { do: does, ...more } = event;
  const facts = Object.entries(more).map(([name, value]) => {
    if (name === 'of') return `verification ${Number(value) + 1}`;
    if (name === 'worker') return `worker ${Number(value) + 1}`;
    if (name === 'attempt') return `attempt ${value}`;
    return value === true ? name : String(value);
  });
  return [does, ...facts].join(' ');
}
