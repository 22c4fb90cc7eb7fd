/** What is enumerated: the three kinds of providers, and of what may happen to them one of a kind. */
import type { Alphabet } from './events.ts';
import type { World } from './oracle.ts';
import type { Model } from './step.ts';

const SCHEDULE = { maxAttempts: 2, delaysMs: [10_000, 30_000], giveUpAfterMs: 60_000 };
const worlds = {
  /** As at Cepta: money, and an inquiry that says what became of it. */
  inquiry: { name: 'money with inquiry', effect: 'money', canInquire: true, ...SCHEDULE },
  /** As at Beqelal: money, and only a callback or a person. */
  callback: { name: 'money without inquiry', effect: 'money', canInquire: false, ...SCHEDULE },
  /** As at LipaLater: a code is looked at, and no money moves. */
  noMoney: { name: 'no money', effect: 'none', canInquire: false, ...SCHEDULE },
} as const satisfies Record<string, World>;

const QUIET: Alphabet = {
  answers: [],
  findings: [],
  callbacks: [],
  seconds: ['same', 'other'],
  split: false,
  again: false,
  unheard: false,
  noToken: false,
  resolve: false,
  time: true,
  rollbacks: 0,
  breaker: false,
};

/**
 * Of each kind of event (an answer, a loss, a crash, a stall, a callback, an inquiry, a person's word, a worker that begins,
 * for the first time or once more) the words that matter most, and nothing that only time brings: so little that every
 * interleaving of seven of them and more is gone through with every test.
 */
export const eightKinds = (world: 'inquiry' | 'callback'): Model => ({
  world: worlds[world],
  alphabet: {
    ...QUIET,
    answers: ['pending', 'succeeded', 'wrong', 'lost', 'not_sent'],
    findings: world === 'inquiry' ? ['paid', 'not_paid'] : [],
    callbacks: world === 'inquiry' ? ['paid'] : ['paid', 'not_paid'],
    resolve: true,
    time: false,
  },
});

export const inquiry: Model = {
  world: worlds.inquiry,
  alphabet: {
    ...QUIET,
    answers: ['pending', 'succeeded', 'wrong', 'declined', 'refused', 'unknown', 'lost', 'not_sent'],
    findings: ['paid', 'not_paid', 'pending', 'untouched', 'nothing'],
    callbacks: ['paid', 'not_paid'],
    resolve: true,
  },
};

export const callback: Model = {
  world: worlds.callback,
  alphabet: {
    ...QUIET,
    answers: ['pending', 'succeeded', 'wrong', 'declined', 'refused', 'unknown', 'lost', 'not_sent'],
    callbacks: ['paid', 'not_paid', 'paid_less', 'paid_unsaid'],
    resolve: true,
  },
};

export const noMoney: Model = {
  world: worlds.noMoney,
  alphabet: {
    ...QUIET,
    answers: ['accepted', 'wrong_here', 'refused', 'unknown', 'lost', 'not_sent'],
    callbacks: ['paid'],
  },
};

/** Who reads and who writes are never at it at the same time: everything else comes between. */
export const races: Model = {
  world: worlds.inquiry,
  alphabet: {
    ...QUIET,
    answers: ['pending', 'wrong', 'refused', 'not_sent'],
    findings: ['paid', 'not_paid'],
    callbacks: ['paid'],
    seconds: ['same'],
    split: true,
    noToken: true,
  },
};

/** The provider is in trouble: the partition's breaker is opened, lets one through, is closed, at any time. */
export const breaker: Model = {
  world: worlds.inquiry,
  alphabet: { ...QUIET, answers: ['wrong', 'lost', 'not_sent'], findings: ['paid'], breaker: true },
};

/** Redis comes back as another server, without its last writes. */
export const rollback = (second: 'same' | 'other'): Model => ({
  world: worlds.inquiry,
  alphabet: { ...QUIET, answers: ['wrong', 'lost', 'not_sent'], seconds: [second], time: false, rollbacks: 1 },
});

/** Redis comes back as another server, in the middle of everything else. */
export const everythingRolledBack = (of: keyof typeof worlds): Model => {
  const { world, alphabet } = everything(of);
  return {
    world,
    alphabet: { ...alphabet, rollbacks: 2, split: false, again: false, unheard: true, breaker: false },
  };
};

/** Everything there is, for random runs. */
export const everything = (world: keyof typeof worlds): Model => ({
  world: worlds[world],
  alphabet: {
    ...QUIET,
    answers:
      world === 'noMoney'
        ? [
            'accepted',
            'wrong_here',
            'refused',
            'throttled',
            'refused_for_good',
            'unknown',
            'lost',
            'not_sent',
            'cannot_be_sent',
            'no_key',
          ]
        : [
            ...(['pending', 'pending_last', 'succeeded', 'succeeded_less', 'wrong', 'declined', 'refused'] as const),
            ...(['throttled', 'refused_for_good', 'unknown', 'lost', 'not_sent', 'cannot_be_sent'] as const),
            'no_key',
          ],
    findings: ['paid', 'paid_less', 'not_paid', 'pending', 'untouched', 'nothing'],
    callbacks: ['paid', 'paid_less', 'paid_unsaid', 'not_paid'],
    split: true,
    again: true,
    unheard: false,
    noToken: true,
    resolve: true,
    breaker: true,
  },
});
