/**
 * Pure: when a partition stops submitting because its provider is in trouble, for how long, and how it begins again.
 *
 *   closed --(enough failures, and a large enough share)--> open --(a probe is answered)--> half open
 *   half open: one verification at a time --(answered)--> closed, at a rate that grows --(failed)--> open, for longer
 *
 * A probe is never a customer's code. What counts as a failure is said by `healthOf`.
 */
import { type BreakerState, CLOSED } from '../producers/breaker-state.ts';
import type { Evidence } from './decide.ts';

export interface BreakerSettings {
  readonly enabled: boolean;
  /** It opens at so many failures … */
  readonly failures: number;
  /** … that are at least this share of the outcomes … */
  readonly share: number;
  /** … of so long, and of the last OUTCOMES_KEPT. */
  readonly windowMs: number;
  /** The wait before the first probe; it doubles with every opening in a row, up to `maxOpenMs`. */
  readonly openMs: number;
  readonly maxOpenMs: number;
  /** After it has closed, the rate grows from a tenth to the whole in this time. */
  readonly rampMs: number;
}

/** A hundred are enough to know a share, at any rate. apply.lua keeps no more. */
export const OUTCOMES_KEPT = 100;

/** What an attempt said of the provider's health. */
export type Health = 'good' | 'failed';

export interface AttemptOutcome {
  readonly health: Health;
  readonly at: number;
}

export type BreakerEvent =
  /** `outcomes`: the last ones of the partition, this one included. `trial`: the one verification that was let through. */
  | {
      readonly is: 'failed';
      readonly trial: boolean;
      readonly code: string;
      readonly outcomes: readonly AttemptOutcome[];
    }
  | { readonly is: 'good'; readonly trial: boolean }
  | { readonly is: 'probed'; readonly answered: boolean; readonly code: string };

/** The state that follows, without its version; null when nothing changes. `now` by the clock of Redis. */
export function nextState(
  state: BreakerState,
  event: BreakerEvent,
  settings: BreakerSettings,
  now: number,
): Omit<BreakerState, 'version'> | null {
  const open = (row: number, because: string): Omit<BreakerState, 'version'> => ({
    is: 'open',
    since: now,
    troubleSince: state.is === 'closed' ? now : state.troubleSince,
    until: now + openForMs(row, settings),
    row,
    because,
  });
  switch (state.is) {
    case 'closed': {
      if (event.is !== 'failed' || !tooMany(event.outcomes, settings, now)) return null;
      const soonAgain = state.row > 0 && now - state.since <= settings.windowMs;
      return open(soonAgain ? state.row + 1 : 1, event.code);
    }
    case 'open':
      if (event.is !== 'probed') return null; // an attempt from before it opened
      return event.answered ? { ...state, is: 'half_open', since: now, until: 0 } : open(state.row + 1, event.code);
    case 'half_open':
      if (event.is === 'probed' || !event.trial) return null;
      if (event.is === 'failed') return open(state.row + 1, event.code);
      return { ...CLOSED, since: now, row: state.row };
  }
  return state.is satisfies never;
}

/** 1 for the first opening in a row. */
export function openForMs(row: number, { openMs, maxOpenMs }: BreakerSettings): number {
  return Math.min(maxOpenMs, openMs * 2 ** Math.min(row - 1, 30));
}

function tooMany(
  outcomes: readonly AttemptOutcome[],
  { failures, share, windowMs }: BreakerSettings,
  now: number,
): boolean {
  const recent = outcomes.filter(({ at }) => at > now - windowMs);
  const failed = recent.filter(({ health }) => health === 'failed').length;
  return failed >= failures && failed >= share * recent.length;
}

/**
 * What became known of an attempt, as a word about the provider; null when it says nothing of it.
 *
 * A refused code is an answer: the provider works. A call without an answer (`lost`) is the worst failure of all: its
 * code is spent, its customer waits, and every further one would share that fate, so a provider that hangs opens the
 * breaker like one that is down.
 */
export function healthOf(evidence: Evidence, status: number | null): Health | null {
  switch (evidence.from) {
    case 'answer':
      return status !== null && status >= 500 ? 'failed' : 'good';
    case 'not_sent':
      return evidence.atProvider === true ? 'failed' : null;
    case 'lost':
      return 'failed';
    case 'owner_dead':
    case 'no_key':
    case 'patience_over':
    case 'deadline':
    case 'rolled_back':
    case 'reference':
    case 'inquiry':
    case 'callback':
    case 'nudge':
    case 'operator':
      return null;
  }
  return evidence satisfies never;
}
