/** The breaker's whole policy, as tables: what opens it, for how long, what closes it, and what counts as a failure. */

import { describe, expect, test } from 'vitest';
import { type BreakerState, CLOSED, readBreaker } from '../../src/producers/breaker-state.ts';
import {
  type AttemptOutcome,
  type BreakerEvent,
  type BreakerSettings,
  type Health,
  healthOf,
  nextState,
  openForMs,
} from '../../src/workers/breaker-policy.ts';
import type { Evidence } from '../../src/workers/decide.ts';

const NOW = 1_000_000;
const SETTINGS: BreakerSettings = {
  ...{ enabled: true, failures: 3, share: 0.5, windowMs: 60_000, openMs: 5_000, maxOpenMs: 60_000, rampMs: 10_000 },
};

/** 'f' and 'g' for each outcome, newest first, a millisecond apart. */
const outcomes = (words: string, newestAt = NOW): AttemptOutcome[] =>
  [...words].map((word, index) => ({ health: word === 'f' ? 'failed' : 'good', at: newestAt - index }));
const failed = (words: string, newestAt = NOW): BreakerEvent => ({
  ...{ is: 'failed', trial: false, code: '503', outcomes: outcomes(words, newestAt) },
});
const state = (given: Partial<BreakerState>): BreakerState => ({ ...CLOSED, version: 'v', ...given });
const OPEN = state({ is: 'open', since: NOW - 5_000, troubleSince: NOW - 5_000, until: NOW, row: 1, because: '503' });
const HALF_OPEN = state({ is: 'half_open', since: NOW - 100, troubleSince: NOW - 9_000, row: 2, because: '503' });
const TRIAL_FAILED: BreakerEvent = { is: 'failed', trial: true, code: 'TIMEOUT', outcomes: outcomes('f') };

describe('closed, it opens', () => {
  const rows: [when: string, event: BreakerEvent, opens: boolean][] = [
    ['at so many failures', failed('fff'), true],
    ['not at fewer', failed('ff'), false],
    ['where they are half of the outcomes', failed('fgfgfg'), true],
    ['not where they are less', failed('fgfgfgg'), false],
    ['not where the rest of them is too old to count', failed('f', NOW), false],
    ['not because of failures from before the window', failed('fff', NOW - 60_001), false],
    ['not for an answer', { is: 'good', trial: false }, false],
    ['not for a probe', { is: 'probed', answered: false, code: 'ECONNREFUSED' }, false],
  ];
  test.each(rows)('%s', (_when, event, opens) => {
    const next = nextState(CLOSED, event, SETTINGS, NOW);
    if (!opens) return expect(next).toBeNull();
    expect(next).toEqual({
      ...{ is: 'open', since: NOW, troubleSince: NOW, until: NOW + 5_000, row: 1, because: '503' },
    });
  });

  test('for longer when it closed just now, for as long as at first when that was long ago', () => {
    const closed = (since: number): BreakerState => state({ is: 'closed', since, row: 2 });
    expect(nextState(closed(NOW - 60_000), failed('fff'), SETTINGS, NOW)).toMatchObject({
      row: 3,
      until: NOW + 20_000,
    });
    expect(nextState(closed(NOW - 60_001), failed('fff'), SETTINGS, NOW)).toMatchObject({ row: 1, until: NOW + 5_000 });
  });
});

describe('open', () => {
  test('an answered probe makes it half open', () => {
    const next = nextState(OPEN, { is: 'probed', answered: true, code: '200' }, SETTINGS, NOW);
    expect(next).toMatchObject({ is: 'half_open', since: NOW, troubleSince: OPEN.troubleSince, row: 1 });
  });

  test('a failed probe keeps it open, for twice as long, and says why', () => {
    const next = nextState(OPEN, { is: 'probed', answered: false, code: 'ECONNREFUSED' }, SETTINGS, NOW);
    expect(next).toMatchObject({
      ...{ is: 'open', row: 2, until: NOW + 10_000, because: 'ECONNREFUSED', troubleSince: OPEN.troubleSince },
    });
  });

  test.each([failed('fff'), { is: 'good', trial: false } as const])('attempts from before change nothing', (event) => {
    expect(nextState(OPEN, event, SETTINGS, NOW)).toBeNull();
  });
});

describe('half open', () => {
  test('the answer to the one on trial closes it', () => {
    expect(nextState(HALF_OPEN, { is: 'good', trial: true }, SETTINGS, NOW)).toMatchObject({
      ...{ is: 'closed', since: NOW, troubleSince: 0, row: 2 },
    });
  });

  test('the failure of the one on trial opens it, for twice as long', () => {
    expect(nextState(HALF_OPEN, TRIAL_FAILED, SETTINGS, NOW)).toMatchObject({
      ...{ is: 'open', row: 3, until: NOW + 20_000, because: 'TIMEOUT' },
    });
  });

  test.each([failed('fff'), { is: 'good', trial: false } as const])('attempts from before change nothing', (event) => {
    expect(nextState(HALF_OPEN, event, SETTINGS, NOW)).toBeNull();
  });
});

test.each([
  [1, 5_000],
  [2, 10_000],
  [3, 20_000],
  [4, 40_000],
  [5, 60_000],
  [1_000, 60_000],
])('opening %i in a row is for %i ms', (row, ms) => {
  expect(openForMs(row, SETTINGS)).toBe(ms);
});

describe('of the provider speaks', () => {
  const answer = (kind: string): Evidence => ({ from: 'answer', outcome: { kind } as never });
  const notSent: Evidence = { from: 'not_sent', code: 'ECONNREFUSED', remediable: true };
  const rows: [what: string, evidence: Evidence, status: number | null, health: Health | null][] = [
    ['an accepted code', answer('accepted'), 200, 'good'],
    ['a refused code: the provider works', answer('rejected'), 400, 'good'],
    ['our own credentials refused', answer('refused'), 401, 'good'],
    ['too many requests', answer('refused'), 429, 'good'],
    ['an answer nobody can read', answer('unknown'), 200, 'good'],
    ['an error of its own', answer('unknown'), 500, 'failed'],
    ['an error of its own, however it is documented', answer('refused'), 503, 'failed'],
    ['a connection that cannot be had', { ...notSent, atProvider: true }, null, 'failed'],
    ['no answer at all', { from: 'lost', code: 'TIMEOUT' }, null, 'failed'],
    ['not a request that we could not make', notSent, null, null],
    ['not a worker that died', { from: 'owner_dead' }, null, null],
    ['not a deadline', { from: 'deadline' }, null, null],
    ['not an inquiry', { from: 'inquiry', finding: { kind: 'pending' } as never, askedAt: 0 }, 503, null],
  ];
  test.each(rows)('%s', (_what, evidence, status, health) => {
    expect(healthOf(evidence, status)).toBe(health);
  });
});

test('what is not there, or no state of ours, reads as closed', () => {
  expect(readBreaker({})).toEqual(CLOSED);
  expect(readBreaker({ state: 'ajar' })).toEqual(CLOSED);
  expect(readBreaker({ probe: 'worker' })).toEqual(CLOSED);
});
