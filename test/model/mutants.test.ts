/**
 * Does the model see anything? Each of these makes the product wrong in one place, and some rule must break within few
 * events. Each also says which rule broke; another one may break first, but it must be one of those named.
 */
import { afterEach, expect, test, vi } from 'vitest';
import type * as Decide from '../../src/workers/decide.ts';
import type { Evidence, Policy, Situation, Verdict } from '../../src/workers/decide.ts';
import { explore } from './explore.ts';
import { breaker, callback, inquiry, rollback } from './models.ts';
import { INVARIANTS } from './oracle.ts';
import type { Mutate } from './seam.ts';
import type { Model } from './step.ts';

type Policing = (evidence: Evidence, situation: Situation, policy: Policy) => Verdict;

/** What stands between the journal and the policy; a mock is hoisted, so it looks here each time. */
const wrong = vi.hoisted(() => ({ policy: null as ((right: Policing) => Policing) | null }));

vi.mock('../../src/workers/decide.ts', async (original) => {
  const real = await original<typeof Decide>();
  const decide: Policing = (...given) => (wrong.policy?.(real.decide) ?? real.decide)(...given);
  return { ...real, decide };
});

afterEach(() => {
  wrong.policy = null;
});

interface Mutant {
  readonly name: string;
  readonly model: Model;
  readonly depth: number;
  readonly caughtBy: readonly (keyof typeof INVARIANTS)[];
  /** What is changed in the scripts: each text must be there, once or more. */
  readonly scripts?: readonly (readonly [string, string])[];
  readonly policy?: (right: Policing) => Policing;
}

const STALE = 'if isAnother then';
const REFUSED = 'if refuse then';
const OTHER_SERVER = `if isRecovering then return { 'recovering', now } end`;
const OWNER_DEAD = `return { 'owner_dead', now, record }`;

const mutants: readonly Mutant[] = [
  {
    name: 'a: begin grants whoever asks',
    model: inquiry,
    depth: 4,
    caughtBy: ['once'],
    scripts: [
      [`if state == 'settled' then return { 'settled', now } end`, `state = 'queued'`],
      [REFUSED, 'if false then'],
    ],
  },
  {
    name: 'a2: an open breaker holds nothing back',
    model: breaker,
    depth: 4,
    caughtBy: ['breaker'],
    scripts: [[`if breaker[1] == 'open' then`, 'if false then']],
  },
  {
    name: 'b: what is settled is settled again',
    model: callback,
    depth: 4,
    caughtBy: ['final'],
    scripts: [[STALE, `if isAnother and redis.call('HGET', record, 'state') ~= 'settled' then`]],
    policy: (right) => (evidence, situation, policy) => {
      if (situation.state !== 'settled') return right(evidence, situation, policy);
      const verdict = right(evidence, { ...situation, state: 'awaiting', overtaken: false }, policy);
      return verdict.do === 'settle' ? verdict : right(evidence, situation, policy);
    },
  },
  {
    name: 'c: what a dead worker was sending is queued again',
    model: inquiry,
    depth: 4,
    caughtBy: ['once'],
    scripts: [[OWNER_DEAD, '']],
  },
  {
    name: 'd: another server is taken for the same one',
    model: rollback('same'),
    depth: 5,
    caughtBy: ['once'],
    scripts: [[OTHER_SERVER, '']],
  },
  {
    name: 'e: an early proof of no payment is believed',
    model: inquiry,
    depth: 5,
    caughtBy: ['proof'],
    policy: (right) => (evidence, situation, policy) =>
      evidence.from === 'inquiry' && evidence.finding.kind === 'not_paid'
        ? right(evidence, { ...situation, inFlightUntil: 0 }, policy)
        : right(evidence, situation, policy),
  },
  {
    name: 'f: what was not sent is given back to the budget, and the transaction stays held',
    model: inquiry,
    depth: 4,
    caughtBy: ['holder'],
    scripts: [[`gone[#gone + 1] = 'holder'`, '']],
  },
  {
    name: 'g: what was not sent still counts',
    model: inquiry,
    depth: 4,
    caughtBy: ['budget'],
    scripts: [[`if change.refund > 0 then`, 'if false then']],
  },
  {
    name: 'h: the sealed code stays',
    model: inquiry,
    depth: 4,
    caughtBy: ['code'],
    scripts: [
      [
        `if #change.clear > 0 then redis.call('HDEL', record, unpack(change.clear)) end`,
        `for _, field in ipairs(change.clear) do if field ~= 'code' then redis.call('HDEL', record, field) end end`,
      ],
    ],
  },
  {
    name: 'i: what awaits proof is due at no time',
    model: inquiry,
    depth: 4,
    caughtBy: ['nextStep'],
    scripts: [[`elseif change.dueAt ~= 'as it is' then redis.call('ZADD', KEYS[1], change.dueAt, id) end`, 'end']],
  },
  {
    name: 'j: a result is said and not counted',
    model: inquiry,
    depth: 4,
    caughtBy: ['sequence'],
    scripts: [
      [
        `redis.call('HSET', record, unpack(set))`,
        `redis.call('HSET', record, unpack(set)) redis.call('HSET', record, 'sequence', 0)`,
      ],
    ],
  },
  {
    name: 'k: a payment proved after a final no is passed over',
    model: callback,
    depth: 4,
    caughtBy: ['contradiction'],
    policy: (right) => (evidence, situation, policy) => {
      const verdict = right(evidence, situation, policy);
      return verdict.do === 'contradict' ? { do: 'nothing' } : verdict;
    },
  },
  {
    name: 'l: a change is written whatever has happened since it was decided',
    model: inquiry,
    depth: 4,
    caughtBy: ['code', 'final', 'sequence', 'nextStep'],
    scripts: [[STALE, 'if false then']],
  },
  {
    name: 'm: silence is failure',
    model: inquiry,
    depth: 4,
    caughtBy: ['proof'],
    policy: (right) => (evidence, situation, policy) =>
      evidence.from === 'lost' && situation.state === 'sending'
        ? {
            do: 'settle',
            standing: {
              ...{ otp: 'unknown', transaction: 'failed', reason: 'no_answer' },
              ...{ nextStep: 'new_transaction', providerCode: null },
            },
            attemptsRemaining: 1,
            code: 'used',
          }
        : right(evidence, situation, policy),
  },
];

test.each(mutants)(
  'the model catches $name',
  async ({ name, model, depth, caughtBy, scripts = [], policy }) => {
    const changed = new Set<string>();
    const mutate: Mutate = (source) => {
      let text = source;
      for (const [from, to] of scripts) {
        if (!text.includes(from)) continue;
        changed.add(from);
        text = text.replace(from, to);
      }
      return text;
    };
    wrong.policy = policy ?? null;
    const found = await explore(model, { depth, states: 30_000, forMs: 60_000 }, { mutate });
    expect([...changed].sort(), 'every text that is changed is there').toEqual(scripts.map(([from]) => from).sort());
    expect(found.violation, `${name} lives on in ${found.states} states`).not.toBeNull();
    console.log(`${name}\n  ${found.violation?.report.split('\nRedis:')[0]?.replaceAll('\n', '\n  ')}`);
    expect(caughtBy.map((rule) => INVARIANTS[rule])).toContain(found.violation?.invariant);
  },
  90_000,
);
