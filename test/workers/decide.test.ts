import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Standing } from '../../src/producers/record.ts';
import type { Finding, Outcome, Reason, ReportedAmount } from '../../src/providers/provider.ts';
import { decide, type Evidence, type Policy, type Situation, type Verdict } from '../../src/workers/decide.ts';

const NOW = 1_800_000_000_000;
const DEADLINE = NOW + 60_000;
const GIVE_UP_MS = 3_600_000;

const MONEY: Policy = {
  effect: 'money',
  canInquire: true,
  maxAttempts: 3,
  inquiry: { delaysMs: [10_000, 30_000, 60_000], giveUpAfterMs: GIVE_UP_MS },
};
/** Beqelal, and Ayoconnect's unbinding. */
const NO_INQUIRY: Policy = { ...MONEY, canInquire: false };
/** LipaLater. */
const NO_MONEY: Policy = { ...MONEY, effect: 'none', canInquire: false };

const standing = (
  otp: Standing['otp'],
  transaction: Standing['transaction'],
  given: Partial<Standing> = {},
): Standing => ({
  otp,
  transaction,
  reason: null,
  nextStep: 'wait',
  providerCode: null,
  ...given,
});
const UNKNOWN = standing('unknown', 'unknown', { reason: 'no_answer' });
const PENDING = standing('accepted', 'pending', { providerCode: 'Ok' });

const situation = (state: Situation['state'], given: Partial<Situation> = {}): Situation => ({
  state,
  now: NOW,
  deadline: DEADLINE,
  takesCode: true,
  attemptsUsed: state === 'queued' ? 0 : 1,
  refusals: 0,
  notSent: 0,
  standing: null,
  amount: null,
  inFlightUntil: state === 'queued' ? 0 : NOW + 12_000,
  awaitingSince: 0,
  inquiries: 0,
  notPaidAt: 0,
  needsReview: false,
  resolvedAs: null,
  attemptsRemaining: state === 'awaiting' ? 2 : null,
  hinted: false,
  isToBeAsked: false,
  overtaken: false,
  random: 0,
  ...given,
});
const queued = (given: Partial<Situation> = {}): Situation => situation('queued', given);
const sending = (given: Partial<Situation> = {}): Situation => situation('sending', given);
/** Asked once already, long after the attempt could still be in flight. */
const awaiting = (now: Standing, given: Partial<Situation> = {}): Situation =>
  situation('awaiting', {
    standing: now,
    awaitingSince: NOW - 20_000,
    inFlightUntil: NOW - 5_000,
    inquiries: 1,
    ...given,
  });
const settled = (now: Standing, given: Partial<Situation> = {}): Situation =>
  situation('settled', { standing: now, inFlightUntil: NOW - 5_000, ...given });

const answer = (outcome: Outcome): Evidence => ({ from: 'answer', outcome });
const accepted = (
  transaction: Extract<Outcome, { kind: 'accepted' }>['transaction'],
  given: Partial<Extract<Outcome, { kind: 'accepted' }>> = {},
): Evidence => answer({ kind: 'accepted', transaction, providerCode: 'yes', ...given });
const rejected = (
  reason: Reason | null,
  transaction: Extract<Outcome, { kind: 'rejected' }>['transaction'],
  given: Partial<Extract<Outcome, { kind: 'rejected' }>> = {},
): Evidence => answer({ kind: 'rejected', reason, transaction, providerCode: 'no', ...given });
const refused = (given: Partial<Extract<Outcome, { kind: 'refused' }>> = {}): Evidence =>
  answer({ kind: 'refused', cause: 'credentials', remedy: { do: 'new_stamp' }, providerCode: '401', ...given });
const throttled = (retryAfterMs?: number): Evidence =>
  refused({
    cause: 'throttled',
    remedy: { do: 'wait' },
    providerCode: '429',
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
const doubtful = (reason: Reason = 'unexpected_answer', slowDownMs?: number): Evidence =>
  answer({
    kind: 'unknown',
    reason,
    documented: false,
    providerCode: 'HTTP_500',
    ...(slowDownMs === undefined ? {} : { slowDownMs }),
  });
const notSent = (given: Partial<Extract<Evidence, { from: 'not_sent' }>> = {}): Evidence => ({
  from: 'not_sent',
  code: 'ECONNREFUSED',
  remediable: true,
  ...given,
});
const found = (finding: Finding, askedAt = NOW): Evidence => ({ from: 'inquiry', finding, askedAt });
const paid = (amounts?: readonly ReportedAmount[]): Finding => ({
  kind: 'paid',
  providerCode: 'paid',
  ...(amounts === undefined ? {} : { amounts }),
});
const NOT_PAID: Finding = { kind: 'not_paid', providerCode: 'failed' };
const UNTOUCHED: Finding = { kind: 'untouched', providerCode: 'waiting' };
const STILL_PENDING: Finding = { kind: 'pending', providerCode: 'pending' };
const NOTHING: Finding = { kind: 'nothing', documented: true, providerCode: null };

/** A verdict in one line, so that a table can be read. */
function inWords(verdict: Verdict): string {
  switch (verdict.do) {
    case 'nothing':
      return 'nothing';
    case 'contradict':
      return `contradict: was ${verdict.was}, now ${verdict.now}`;
    case 'end_review':
      return 'end the review';
    case 'note':
      return verdict.againAt === null ? 'note' : `note, again in ${verdict.againAt - NOW}`;
    case 'retry':
      return `retry in ${verdict.inMs}, ${verdict.because}`;
    case 'settle':
      return `settle ${words(verdict.standing)}, ${verdict.attemptsRemaining ?? 'no'} left, code ${verdict.code}`;
    case 'await': {
      const asked = verdict.inquireInMs === null ? 'do not ask' : `ask in ${verdict.inquireInMs}`;
      const first = verdict.proof === 'not_paid_once' ? ', first proof of no payment' : '';
      return `await ${words(verdict.standing)}, ${verdict.attemptsRemaining ?? 'no'} left, ${asked}, say ${verdict.publish ?? 'nothing'}${first}`;
    }
  }
  return verdict satisfies never;
}

function words({ otp, transaction, reason, nextStep }: Standing): string {
  return `${otp}/${transaction} ${reason ?? '-'} ${nextStep}`;
}

type Row = readonly [sentence: string, evidence: Evidence, situation: Situation, policy: Policy, verdict: string];

function holds(rows: readonly Row[]): void {
  test.each(rows)('%s', (_, evidence, now, policy, verdict) => {
    expect(inWords(decide(evidence, now, policy))).toBe(verdict);
  });
}

describe('an explicit yes', () => {
  holds([
    [
      'that is itself the payment settles',
      accepted('succeeded'),
      sending(),
      NO_INQUIRY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
    [
      'where no money moves settles with no transaction',
      accepted('none'),
      sending(),
      NO_MONEY,
      'settle accepted/none - none, 2 left, code used',
    ],
    [
      'to a send, which takes no code, counts no attempts',
      accepted('none'),
      sending({ takesCode: false, attemptsUsed: 0 }),
      NO_MONEY,
      'settle accepted/none - none, no left, code used',
    ],
    [
      'that leaves the payment open awaits it and is asked about',
      accepted('pending', { nextStep: 'approve_on_phone' }),
      sending(),
      MONEY,
      'await accepted/pending - approve_on_phone, 2 left, ask in 10000, say awaiting',
    ],
    [
      'that names no next step waits',
      accepted('pending'),
      sending(),
      MONEY,
      'await accepted/pending - wait, 2 left, ask in 10000, say awaiting',
    ],
    [
      'that cannot be asked about waits for a callback or a person',
      accepted('pending'),
      sending(),
      NO_INQUIRY,
      'await accepted/pending - wait, 2 left, do not ask, say awaiting',
    ],
    [
      'that comes late, after it was called unknown, counts and starts its own schedule',
      accepted('pending'),
      awaiting(UNKNOWN, { inquiries: 2 }),
      MONEY,
      'await accepted/pending - wait, 2 left, ask in 10000, say awaiting',
    ],
    [
      'with the payment in it that comes late ends the doubt',
      accepted('succeeded'),
      awaiting(UNKNOWN),
      NO_INQUIRY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
    [
      'after the deadline is still a yes',
      accepted('succeeded'),
      sending({ now: DEADLINE + 1 }),
      MONEY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
    [
      'counts even when the record has gone back to the queue meanwhile',
      accepted('succeeded'),
      queued({ overtaken: true, attemptsUsed: 1 }),
      MONEY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
  ]);

  test('hands on details, identifiers and how many codes the provider itself will take', () => {
    const verdict = decide(
      accepted('succeeded', { details: { token: 't' }, identifiers: ['B-1'], attemptsRemaining: 1 }),
      sending(),
      MONEY,
    );
    expect(verdict).toMatchObject({
      details: { token: 't' },
      identifiers: ['B-1'],
      providersWord: 1,
      attemptsRemaining: 1,
    });
  });

  test('hands on nothing that the answer does not say', () => {
    expect(decide(accepted('succeeded'), sending(), MONEY)).toStrictEqual({
      do: 'settle',
      standing: standing('accepted', 'succeeded', { nextStep: 'none', providerCode: 'yes' }),
      attemptsRemaining: 2,
      code: 'used',
    });
  });
});

describe('an explicit no', () => {
  holds([
    [
      'to a wrong code is final for this verification',
      rejected('wrong_code', 'pending'),
      sending(),
      MONEY,
      'settle rejected/pending wrong_code reenter_code, 2 left, code used',
    ],
    [
      'to the last code of our budget asks for a new transaction',
      rejected('wrong_code', 'pending'),
      sending({ attemptsUsed: 3 }),
      MONEY,
      'settle rejected/pending wrong_code new_transaction, 0 left, code used',
    ],
    [
      'after which the provider takes no code fails the transaction',
      rejected('wrong_code', 'failed'),
      sending(),
      MONEY,
      'settle rejected/failed wrong_code new_transaction, 0 left, code used',
    ],
    [
      'with fewer tries than ours believes the provider',
      rejected('wrong_code', 'pending', { attemptsRemaining: 1 }),
      sending(),
      MONEY,
      'settle rejected/pending wrong_code reenter_code, 1 left, code used',
    ],
    [
      'with more tries than ours keeps to our own',
      rejected('wrong_code', 'pending', { attemptsRemaining: 9 }),
      sending({ attemptsUsed: 2 }),
      MONEY,
      'settle rejected/pending wrong_code reenter_code, 1 left, code used',
    ],
    [
      'without a reason keeps it empty (Hello Clever 400)',
      rejected(null, 'pending'),
      sending(),
      MONEY,
      'settle rejected/pending - reenter_code, 2 left, code used',
    ],
    [
      'to an expired code asks for another',
      rejected('code_expired', 'pending'),
      sending(),
      MONEY,
      'settle rejected/pending code_expired request_new_code, 2 left, code used',
    ],
    [
      'to an unknown reference names the next step of the provider (Beqelal 442)',
      rejected('unknown_reference', 'failed', { nextStep: 'new_transaction' }),
      sending(),
      NO_INQUIRY,
      'settle rejected/failed unknown_reference new_transaction, 0 left, code used',
    ],
    [
      'by the bank ends the transaction',
      rejected('declined', 'failed'),
      sending(),
      MONEY,
      'settle rejected/failed declined new_transaction, 0 left, code used',
    ],
    [
      'where no money moves has no transaction',
      rejected(null, 'none'),
      sending(),
      NO_MONEY,
      'settle rejected/none - reenter_code, 2 left, code used',
    ],
    [
      'to the last code where no money moves asks for a new code',
      rejected(null, 'none'),
      sending({ attemptsUsed: 3 }),
      NO_MONEY,
      'settle rejected/none - request_new_code, 0 left, code used',
    ],
    [
      'by the lender is for a person',
      rejected('declined', 'none'),
      sending(),
      NO_MONEY,
      'settle rejected/none declined contact_support, 2 left, code used',
    ],
    [
      'to a send that is refused asks for a new one',
      rejected(null, 'none'),
      sending({ takesCode: false, attemptsUsed: 0 }),
      NO_MONEY,
      'settle rejected/none - request_new_code, no left, code used',
    ],
    [
      'that comes late ends the doubt about the only submission there was',
      rejected('wrong_code', 'pending'),
      awaiting(UNKNOWN),
      MONEY,
      'settle rejected/pending wrong_code reenter_code, 2 left, code used',
    ],
    [
      'counts even when the record has gone back to the queue meanwhile',
      rejected('wrong_code', 'pending'),
      queued({ overtaken: true, attemptsUsed: 1 }),
      MONEY,
      'settle rejected/pending wrong_code reenter_code, 2 left, code used',
    ],
  ]);

  test('hands on nothing that the answer does not say', () => {
    expect(decide(rejected('wrong_code', 'pending'), sending(), MONEY)).toStrictEqual({
      do: 'settle',
      standing: standing('rejected', 'pending', {
        reason: 'wrong_code',
        nextStep: 'reenter_code',
        providerCode: 'no',
      }),
      attemptsRemaining: 2,
      code: 'used',
    });
  });
});

describe('a documented refusal before the business layer', () => {
  const none = refused({ remedy: { do: 'none' } });
  holds([
    ['may be followed by one further submission', refused(), sending(), MONEY, 'retry in 0, refused'],
    [
      'is not followed by a second one',
      refused(),
      sending({ refusals: 1 }),
      MONEY,
      'settle not_submitted/pending misconfigured contact_support, no left, code untouched',
    ],
    [
      'that nothing could mend is not repeated',
      none,
      sending(),
      MONEY,
      'settle not_submitted/pending misconfigured contact_support, no left, code untouched',
    ],
    [
      'where no money moves has no transaction',
      none,
      sending(),
      NO_MONEY,
      'settle not_submitted/none misconfigured contact_support, no left, code untouched',
    ],
    [
      'at the deadline is not repeated',
      refused(),
      sending({ now: DEADLINE }),
      MONEY,
      'settle not_submitted/pending misconfigured contact_support, no left, code untouched',
    ],
    ['just before the deadline is repeated', refused(), sending({ now: DEADLINE - 1 }), MONEY, 'retry in 0, refused'],
    ['429 waits as long as it was told', throttled(7_000), sending(), MONEY, 'retry in 7000, refused'],
    ['429 without a time waits a little', throttled(), sending(), MONEY, 'retry in 250, refused'],
    [
      '429 that outlasts the deadline ends',
      throttled(60_000),
      sending(),
      MONEY,
      'settle not_submitted/pending provider_unavailable reenter_code, no left, code untouched',
    ],
    [
      '429 for the second time ends',
      throttled(),
      sending({ refusals: 1 }),
      MONEY,
      'settle not_submitted/pending provider_unavailable reenter_code, no left, code untouched',
    ],
    ['429 that just fits is waited for', throttled(59_999), sending(), MONEY, 'retry in 59999, refused'],
    [
      'that comes late, to an attempt called unknown, proves that nothing was submitted',
      refused(),
      awaiting(UNKNOWN),
      MONEY,
      'settle not_submitted/pending misconfigured contact_support, no left, code untouched',
    ],
    [
      'of an attempt that the record has left behind says nothing',
      refused(),
      sending({ overtaken: true }),
      MONEY,
      'nothing',
    ],
    ['of an attempt that is over says nothing', refused(), queued({ overtaken: true, refusals: 1 }), MONEY, 'nothing'],
  ]);

  test('429 slows the partition for as long as it was told', () => {
    expect(decide(throttled(7_000), sending(), MONEY)).toMatchObject({ slowDownMs: 7_000 });
    expect(decide(throttled(60_000), sending(), MONEY)).toMatchObject({ do: 'settle', slowDownMs: 60_000 });
    expect(decide(throttled(), sending(), MONEY)).toMatchObject({ slowDownMs: 250 });
  });

  test('of anything but a token drops none and slows nothing', () => {
    expect(decide(refused(), sending(), MONEY)).toStrictEqual({ do: 'retry', inMs: 0, because: 'refused' });
  });

  test('of a token drops that token, whether or not there is another try', () => {
    const stale = refused({ remedy: { do: 'new_token', tokens: ['b2bToken'] } });
    expect(decide(stale, sending(), MONEY)).toMatchObject({ do: 'retry', dropTokens: ['b2bToken'] });
    expect(decide(stale, sending({ refusals: 1 }), MONEY)).toMatchObject({ do: 'settle', dropTokens: ['b2bToken'] });
  });
});

describe('what provably did not leave', () => {
  const ended = 'settle not_submitted/pending provider_unavailable reenter_code, no left, code untouched';
  holds([
    ['is sent again', notSent(), sending(), MONEY, 'retry in 125, not_sent'],
    [
      'is sent again, the longer the more often it failed',
      notSent(),
      sending({ notSent: 3 }),
      MONEY,
      'retry in 1000, not_sent',
    ],
    ['waits as long as it was told', notSent({ retryAfterMs: 9_000 }), sending(), MONEY, 'retry in 9000, not_sent'],
    [
      'is sent again although a refusal came before',
      notSent(),
      sending({ refusals: 1 }),
      MONEY,
      'retry in 125, not_sent',
    ],
    ['ends when no further try fits before the deadline', notSent(), sending({ now: DEADLINE - 125 }), MONEY, ended],
    ['is tried when one just fits', notSent(), sending({ now: DEADLINE - 126 }), MONEY, 'retry in 125, not_sent'],
    ['ends when it was told to wait past the deadline', notSent({ retryAfterMs: 60_000 }), sending(), MONEY, ended],
    [
      'at the deadline is a dead code',
      notSent(),
      sending({ now: DEADLINE }),
      MONEY,
      'settle not_submitted/pending deadline_passed request_new_code, no left, code untouched',
    ],
    [
      'and cannot be mended is for a person',
      notSent({ remediable: false }),
      sending(),
      MONEY,
      'settle not_submitted/pending misconfigured contact_support, no left, code untouched',
    ],
    ['for want of a token waits in the queue', notSent(), queued(), MONEY, 'retry in 125, not_sent'],
    [
      'although it was called unknown: its code is gone, so it ends as not submitted',
      notSent(),
      awaiting(UNKNOWN),
      MONEY,
      ended,
    ],
    [
      'where no money moves has no transaction',
      notSent({ remediable: false }),
      sending(),
      NO_MONEY,
      'settle not_submitted/none misconfigured contact_support, no left, code untouched',
    ],
    [
      'says nothing of a later attempt, which may be on its way',
      notSent(),
      sending({ overtaken: true }),
      MONEY,
      'nothing',
    ],
    [
      'says nothing of an attempt that was accepted meanwhile',
      notSent(),
      awaiting(PENDING, { overtaken: true }),
      MONEY,
      'nothing',
    ],
  ]);
});

describe('an attempt without an answer', () => {
  const lost: Evidence = { from: 'lost', code: 'ECONNRESET' };
  const dead: Evidence = { from: 'owner_dead' };
  const doubt = 'await unknown/unknown no_answer wait, 2 left, ask in 10000, say awaiting';
  const lipa = 'settle unknown/none no_answer request_new_code, 2 left, code used';
  holds([
    ['that was lost is unknown and asked about', lost, sending(), MONEY, doubt],
    ['whose worker is gone is unknown and asked about', dead, sending(), MONEY, doubt],
    [
      'that cannot be asked about waits',
      lost,
      sending(),
      NO_INQUIRY,
      'await unknown/unknown no_answer wait, 2 left, do not ask, say awaiting',
    ],
    ['where no money moves ends at once: there is nothing to prove', lost, sending(), NO_MONEY, lipa],
    ['where no money moves ends at once when its worker is gone', dead, sending(), NO_MONEY, lipa],
    [
      'to a send, which takes no code, ends at once',
      lost,
      sending({ takesCode: false, attemptsUsed: 0 }),
      NO_MONEY,
      'settle unknown/none no_answer request_new_code, no left, code used',
    ],
    [
      'that was the last of the budget leaves none',
      lost,
      sending({ attemptsUsed: 3 }),
      MONEY,
      'await unknown/unknown no_answer wait, 0 left, ask in 10000, say awaiting',
    ],
    ['long after the deadline is unknown all the same', lost, sending({ now: DEADLINE + 1 }), MONEY, doubt],
    ['becomes no more unknown', lost, awaiting(UNKNOWN), MONEY, 'nothing'],
    ['takes nothing back from a yes', lost, awaiting(PENDING), MONEY, 'nothing'],
    ['is not said of a record that waits in the queue', dead, queued(), MONEY, 'nothing'],
    ['is not said of a later attempt', lost, sending({ overtaken: true }), MONEY, 'nothing'],
    ['is not said of a later attempt whose owner lives', dead, sending({ overtaken: true }), MONEY, 'nothing'],
    [
      'is answered in words that prove nothing',
      doubtful(),
      sending(),
      MONEY,
      'await unknown/unknown unexpected_answer wait, 2 left, ask in 10000, say awaiting',
    ],
    [
      'is answered with a reason that proves nothing',
      doubtful('declined'),
      sending(),
      MONEY,
      'await unknown/unknown declined wait, 2 left, ask in 10000, say awaiting',
    ],
    [
      'is answered in words that prove nothing where no money moves',
      doubtful(),
      sending(),
      NO_MONEY,
      'settle unknown/none unexpected_answer request_new_code, 2 left, code used',
    ],
    ['is answered late in words that prove nothing', doubtful(), awaiting(UNKNOWN), MONEY, 'nothing'],
    [
      'goes straight to a person when the first question would come too late',
      lost,
      sending(),
      { ...MONEY, inquiry: { delaysMs: [10_000], giveUpAfterMs: 5_000 } },
      'await unknown/unknown no_answer wait, 2 left, do not ask, say review',
    ],
  ]);

  test('a 429 that nobody documents proves nothing and slows the partition all the same', () => {
    const verdict = decide(doubtful('unexpected_answer', 4_000), sending(), MONEY);
    expect(verdict).toMatchObject({ do: 'await', standing: { otp: 'unknown' }, slowDownMs: 4_000 });
  });

  test('words that prove nothing slow nothing by themselves', () => {
    expect(decide(doubtful(), sending(), MONEY)).toStrictEqual({
      do: 'await',
      standing: standing('unknown', 'unknown', { reason: 'unexpected_answer', providerCode: 'HTTP_500' }),
      attemptsRemaining: 2,
      inquireInMs: 10_000,
      publish: 'awaiting',
      proof: 'none',
    });
  });
});

describe('a code for which the key is missing', () => {
  const noKey: Evidence = { from: 'no_key' };
  const never = 'settle not_submitted/pending misconfigured contact_support, no left, code untouched';
  holds([
    ['is set aside for a moment', noKey, queued(), MONEY, 'retry in 125, not_sent'],
    ['is set aside the longer the more often', noKey, queued({ notSent: 3 }), MONEY, 'retry in 1000, not_sent'],
    [
      'is looked for every ten seconds at least',
      noKey,
      queued({ notSent: 50, random: 0.9 }),
      MONEY,
      'retry in 10000, not_sent',
    ],
    [
      'is looked for a last time at its deadline',
      noKey,
      queued({ now: DEADLINE - 50 }),
      MONEY,
      'retry in 50, not_sent',
    ],
    ['is looked for as long as it lives', noKey, queued({ now: DEADLINE - 1 }), MONEY, 'retry in 1, not_sent'],
    ['is for a person at the deadline', noKey, queued({ now: DEADLINE }), MONEY, never],
    ['is for a person when it has gone out of hand meanwhile', noKey, awaiting(UNKNOWN), MONEY, never],
    [
      'is for a person when the deadline finds it set aside',
      { from: 'deadline' },
      queued({ setAside: true }),
      MONEY,
      never,
    ],
    [
      'where no money moves has no transaction',
      noKey,
      queued({ now: DEADLINE }),
      NO_MONEY,
      'settle not_submitted/none misconfigured contact_support, no left, code untouched',
    ],
    ['says nothing of a later attempt', noKey, sending({ overtaken: true }), MONEY, 'nothing'],
  ]);
});

describe('a Redis that has lost its last writes', () => {
  const lost: Evidence = { from: 'rolled_back', bounded: true };
  const lostMuch: Evidence = { from: 'rolled_back', bounded: false };
  holds([
    [
      'may have forgotten a submission: what waits in the queue is not sent, but asked about',
      lost,
      queued({ attemptsUsed: 1 }),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, ask in 10000, say awaiting',
    ],
    [
      'makes of an attempt on its way one that is asked about',
      lost,
      sending(),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, ask in 10000, say awaiting',
    ],
    [
      'and nobody can say how many: a person is called besides',
      lostMuch,
      sending(),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, ask in 10000, say review',
    ],
    ['says nothing new of what is asked about already', lost, awaiting(UNKNOWN), MONEY, 'nothing'],
    [
      'and nobody can say how many: a person is called to what is asked about already',
      lostMuch,
      awaiting(PENDING),
      MONEY,
      'await accepted/pending - wait, 2 left, ask in 30000, say review',
    ],
    [
      'and nobody can say how many: a person is called only once',
      lostMuch,
      awaiting(UNKNOWN, { needsReview: true }),
      MONEY,
      'nothing',
    ],
    [
      'counts for a record that has gone on meanwhile as well',
      lost,
      sending({ overtaken: true }),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, ask in 10000, say awaiting',
    ],
    ['opens nothing that is final', lostMuch, settled(standing('unknown', 'failed')), MONEY, 'nothing'],
  ]);

  test('ends it where no money moves, and calls nobody: there is nothing to prove', () => {
    expect(decide(lostMuch, sending(), NO_MONEY)).toStrictEqual({
      do: 'settle',
      standing: standing('unknown', 'none', { reason: 'no_answer', nextStep: 'request_new_code' }),
      attemptsRemaining: 2,
      code: 'used',
    });
  });
});

describe('before anything was submitted', () => {
  const deadline: Evidence = { from: 'deadline' };
  const reference = (
    reason: 'attempt_in_flight' | 'already_used' | 'budget_spent',
    transaction: 'pending' | 'unknown' | 'succeeded' | 'failed',
  ): Evidence => ({ from: 'reference', reason, transaction, ownedBy: 'cepta_1' });
  holds([
    [
      'a dead code is not sent',
      deadline,
      queued(),
      MONEY,
      'settle not_submitted/pending deadline_passed request_new_code, no left, code untouched',
    ],
    [
      'a dead code where no money moves has no transaction',
      deadline,
      queued(),
      NO_MONEY,
      'settle not_submitted/none deadline_passed request_new_code, no left, code untouched',
    ],
    ['the deadline says nothing of an attempt on its way', deadline, sending(), MONEY, 'nothing'],
    ['the deadline says nothing of what awaits proof', deadline, awaiting(UNKNOWN), MONEY, 'nothing'],
    [
      'another attempt in flight makes it wait',
      reference('attempt_in_flight', 'unknown'),
      queued(),
      MONEY,
      'settle not_submitted/unknown attempt_in_flight wait, no left, code untouched',
    ],
    [
      'another attempt in flight where no money moves',
      reference('attempt_in_flight', 'unknown'),
      queued(),
      NO_MONEY,
      'settle not_submitted/none attempt_in_flight wait, no left, code untouched',
    ],
    [
      'a code refused before may be another',
      reference('already_used', 'pending'),
      queued(),
      MONEY,
      'settle not_submitted/pending already_used reenter_code, no left, code untouched',
    ],
    [
      'a code used before on a paid transaction needs nothing',
      reference('already_used', 'succeeded'),
      queued(),
      MONEY,
      'settle not_submitted/succeeded already_used none, no left, code untouched',
    ],
    [
      'a code used before on a failed one needs a new one',
      reference('already_used', 'failed'),
      queued(),
      MONEY,
      'settle not_submitted/failed already_used new_transaction, no left, code untouched',
    ],
    [
      'a code used before and unproved waits',
      reference('already_used', 'unknown'),
      queued(),
      MONEY,
      'settle not_submitted/unknown already_used wait, no left, code untouched',
    ],
    [
      'a spent budget needs a new transaction',
      reference('budget_spent', 'pending'),
      queued(),
      MONEY,
      'settle not_submitted/pending budget_spent new_transaction, 0 left, code untouched',
    ],
    [
      'a spent budget where no money moves needs a new code',
      reference('budget_spent', 'pending'),
      queued(),
      NO_MONEY,
      'settle not_submitted/none budget_spent request_new_code, 0 left, code untouched',
    ],
    [
      'another attempt in flight where no money moves and nothing is in doubt',
      reference('attempt_in_flight', 'pending'),
      queued(),
      NO_MONEY,
      'settle not_submitted/none attempt_in_flight reenter_code, no left, code untouched',
    ],
    ['the deadline says nothing of a record that has gone on', deadline, queued({ overtaken: true }), MONEY, 'nothing'],
    [
      'the reference says nothing of a record that has gone on',
      reference('budget_spent', 'pending'),
      queued({ overtaken: true }),
      MONEY,
      'nothing',
    ],
    [
      'the reference says nothing of an attempt that got through',
      reference('attempt_in_flight', 'unknown'),
      sending(),
      MONEY,
      'nothing',
    ],
  ]);
});

describe('an inquiry', () => {
  const asked = (given: Partial<Situation> = {}, now = UNKNOWN): Situation => awaiting(now, given);
  const again = 'await unknown/unknown no_answer wait, 2 left, ask in 30000, say nothing';
  const late = 'await unknown/unknown no_answer wait, 2 left, ask in 60000, say nothing';
  const early = NOW - 5_000; // the last moment at which the attempt could still be in flight
  holds([
    [
      'that finds the payment settles',
      found(paid()),
      asked(),
      MONEY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
    [
      'that finds the payment counts while the attempt is in flight',
      found(paid(), early),
      asked(),
      MONEY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
    [
      'that finds the payment of an accepted code settles',
      found(paid()),
      asked({}, PENDING),
      MONEY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
    [
      'that finds the payment after a proof of none settles',
      found(paid()),
      asked({ inquiries: 2, notPaidAt: NOW - 30_000 }),
      MONEY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
    ['that finds no payment too early is a hint', found(NOT_PAID, early), asked(), MONEY, again],
    [
      'that finds no payment too early is a hint for ever',
      found(NOT_PAID, early),
      asked({ notPaidAt: NOW - 6_000 }),
      MONEY,
      again,
    ],
    [
      'that finds no payment once is counted',
      found(NOT_PAID, early + 1),
      asked(),
      MONEY,
      `${again}, first proof of no payment`,
    ],
    [
      'that finds no payment twice ends it, the code staying unknown',
      found(NOT_PAID),
      asked({ inquiries: 2, notPaidAt: NOW - 30_000 }),
      MONEY,
      'settle unknown/failed no_answer new_transaction, 0 left, code used',
    ],
    [
      'that finds no payment twice fails an accepted code as declined',
      found(NOT_PAID),
      asked({ inquiries: 2, notPaidAt: NOW - 30_000 }, PENDING),
      MONEY,
      'settle accepted/failed declined new_transaction, 0 left, code used',
    ],
    [
      'that was begun before the first proof was counted is no second one',
      found(NOT_PAID, NOW - 30_000),
      asked({ inquiries: 2, notPaidAt: NOW - 30_000, inFlightUntil: NOW - 40_000 }),
      MONEY,
      late,
    ],
    [
      'that was put out of turn soon after the first proof is no second one',
      found(NOT_PAID, NOW - 101),
      asked({ inquiries: 2, notPaidAt: NOW - 30_000 }),
      MONEY,
      late,
    ],
    [
      'that was put at its time after the first proof, or a moment early, is a second one',
      found(NOT_PAID, NOW - 100),
      asked({ inquiries: 2, notPaidAt: NOW - 30_000 }),
      MONEY,
      'settle unknown/failed no_answer new_transaction, 0 left, code used',
    ],
    ['that finds it pending asks again', found(STILL_PENDING), asked(), MONEY, again],
    ['that finds nothing asks again', found(NOTHING), asked(), MONEY, again],
    [
      'that finds the code untouched gives it back',
      found(UNTOUCHED),
      asked(),
      MONEY,
      'settle unknown/pending no_answer reenter_code, 3 left, code untouched',
    ],
    ['that finds the code untouched too early proves nothing', found(UNTOUCHED, early), asked(), MONEY, again],
    [
      'that finds an accepted code untouched proves nothing',
      found(UNTOUCHED),
      asked({}, PENDING),
      MONEY,
      'await accepted/pending - wait, 2 left, ask in 30000, say nothing',
    ],
    [
      'repeats its last delay',
      found(STILL_PENDING),
      asked({ inquiries: 50 }),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, ask in 60000, say nothing',
    ],
    [
      'that would come after the patience is not made: a person is asked, once',
      found(STILL_PENDING),
      asked({ inquiries: 50, awaitingSince: NOW - GIVE_UP_MS + 59_999 }),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, do not ask, say review',
    ],
    [
      'that just fits into the patience is made',
      found(STILL_PENDING),
      asked({ inquiries: 50, awaitingSince: NOW - GIVE_UP_MS + 60_000 }),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, ask in 60000, say nothing',
    ],
    [
      'after the review was asked for says no more',
      found(STILL_PENDING),
      asked({ inquiries: 50, awaitingSince: NOW - GIVE_UP_MS, needsReview: true }),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, do not ask, say nothing',
    ],
    ['says nothing of a record in the queue', found(paid()), queued(), MONEY, 'nothing'],
    ['says nothing of a record that is sending', found(NOT_PAID), sending(), MONEY, 'nothing'],
    [
      'says nothing of a record that is sending again, whatever was said of it before',
      found(paid()),
      sending({ standing: UNKNOWN }),
      MONEY,
      'nothing',
    ],
    [
      'that finds the payment counts although the record has gone on',
      found(paid()),
      asked({ overtaken: true }),
      MONEY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
    [
      'late in the schedule needs the last delay between its two proofs',
      found(NOT_PAID, NOW - 101),
      asked({ inquiries: 50, notPaidAt: NOW - 60_000 }),
      MONEY,
      late,
    ],
    [
      'is not brought forward by a callback that came long ago',
      found(STILL_PENDING),
      asked({ hinted: true }),
      MONEY,
      again,
    ],
  ]);

  test('that finds the payment hands on what it tells besides', () => {
    const told: Finding = { kind: 'paid', providerCode: 'paid', details: { token: 't' } };
    expect(decide(found(told), asked(), MONEY)).toMatchObject({ do: 'settle', details: { token: 't' } });
  });

  test('that finds nothing slows nothing and drops no token', () => {
    expect(decide(found(NOTHING), asked(), MONEY)).toStrictEqual({
      do: 'await',
      standing: UNKNOWN,
      attemptsRemaining: 2,
      inquireInMs: 30_000,
      publish: null,
      proof: 'as_before',
    });
  });

  test('that finds something other than no payment breaks the row: the two proofs must follow each other', () => {
    const counted = awaiting(UNKNOWN, { notPaidAt: NOW - 1_000 });
    expect(decide(found(STILL_PENDING), counted, MONEY)).toMatchObject({ do: 'await', proof: 'none' });
    expect(decide(found(UNTOUCHED), awaiting(PENDING, { notPaidAt: NOW - 1_000 }), MONEY)).toMatchObject({
      proof: 'none',
    });
    expect(decide(accepted('pending'), counted, MONEY)).toMatchObject({ do: 'await', proof: 'none' });
    expect(decide(found(NOTHING), counted, MONEY)).toMatchObject({ do: 'await', proof: 'as_before' });
    expect(decide({ from: 'patience_over' }, counted, MONEY)).toMatchObject({ do: 'await', proof: 'as_before' });
  });

  test('that is throttled or whose token is stale says so', () => {
    const finding: Finding = { ...NOTHING, slowDownMs: 3_000, staleTokens: ['b2bToken'] };
    expect(decide(found(finding), awaiting(UNKNOWN), MONEY)).toMatchObject({
      slowDownMs: 3_000,
      dropTokens: ['b2bToken'],
    });
  });
});

describe('the end of patience', () => {
  const over: Evidence = { from: 'patience_over' };

  test('puts a question that was held back all the same', () => {
    const verdict = decide(over, awaiting(UNKNOWN, { isToBeAsked: true }), MONEY);
    expect(verdict).toMatchObject({ do: 'await', publish: 'review', inquireInMs: MONEY.inquiry.delaysMs.at(-1) });
  });

  holds([
    [
      'asks for a person',
      over,
      awaiting(UNKNOWN),
      NO_INQUIRY,
      'await unknown/unknown no_answer wait, 2 left, do not ask, say review',
    ],
    [
      'asks for a person about an accepted code',
      over,
      awaiting(PENDING),
      MONEY,
      'await accepted/pending - wait, 2 left, do not ask, say review',
    ],
    ['asks only once', over, awaiting(UNKNOWN, { needsReview: true }), NO_INQUIRY, 'nothing'],
    ['is not for what is queued', over, queued(), MONEY, 'nothing'],
    ['is not for what is sending', over, sending(), MONEY, 'nothing'],
    ['is not for a record that has gone on', over, awaiting(UNKNOWN, { overtaken: true }), MONEY, 'nothing'],
  ]);
});

describe('a callback', () => {
  const asked = { value: '100', currency: 'ETB' };
  const called = (finding: Finding, receivedAt = NOW): Evidence => ({ from: 'callback', finding, receivedAt });
  const review = 'await unknown/unknown no_answer wait, 2 left, do not ask, say review';
  const paidAs = (value: string): Finding => paid([{ value }]);
  const failedAs = (value: string): Finding => ({ ...NOT_PAID, amounts: [{ value }] });
  holds([
    [
      'is a reason to ask now where there is an inquiry, and believed in nothing',
      called(paidAs('100')),
      awaiting(PENDING, { amount: asked }),
      MONEY,
      'await accepted/pending - wait, 2 left, ask in 0, say nothing',
    ],
    [
      'of no payment is a reason to ask now',
      called(NOT_PAID),
      awaiting(UNKNOWN, { inquiries: 2, notPaidAt: NOW - 30_000 }),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, ask in 0, say nothing',
    ],
    [
      'is asked about after it had been given up as well',
      called(paidAs('100')),
      awaiting(UNKNOWN, { needsReview: true, awaitingSince: NOW - 2 * GIVE_UP_MS }),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, ask in 0, say nothing',
    ],
    ['that comes before the answer is noted', called(paidAs('100')), sending(), MONEY, 'note'],
    [
      'that comes before the answer where nothing can be asked is brought again',
      called(paidAs('100')),
      sending(),
      NO_INQUIRY,
      'note, again in 3000',
    ],
    [
      'with the same amount settles where nothing can be asked',
      called(paidAs('100.00')),
      awaiting(UNKNOWN, { amount: asked }),
      NO_INQUIRY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
    [
      'with another amount is for a person',
      called(paidAs('150')),
      awaiting(UNKNOWN, { amount: asked }),
      NO_INQUIRY,
      'await unknown/unknown amount_mismatch contact_support, 2 left, do not ask, say review',
    ],
    [
      'of a verification without an amount is for a person',
      called(paidAs('100')),
      awaiting(UNKNOWN),
      NO_INQUIRY,
      review,
    ],
    ['without an amount is for a person', called(paid()), awaiting(UNKNOWN, { amount: asked }), NO_INQUIRY, review],
    [
      'without an amount asks for a person only once',
      called(paid()),
      awaiting(UNKNOWN, { amount: asked, needsReview: true }),
      NO_INQUIRY,
      'await unknown/unknown no_answer wait, 2 left, do not ask, say nothing',
    ],
    [
      'of no payment ends it where nothing can be asked',
      called(failedAs('100')),
      awaiting(UNKNOWN, { amount: asked }),
      NO_INQUIRY,
      'settle unknown/failed no_answer new_transaction, 0 left, code used',
    ],
    [
      'of no payment while the attempt may be in flight is brought again when it cannot',
      called(failedAs('100'), NOW),
      awaiting(UNKNOWN, { amount: asked, inFlightUntil: NOW + 2_000 }),
      NO_INQUIRY,
      'note, again in 2001',
    ],
    [
      'of no payment in the last moment at which the attempt may be in flight is brought again',
      called(failedAs('100'), NOW),
      awaiting(UNKNOWN, { amount: asked, inFlightUntil: NOW }),
      NO_INQUIRY,
      'note, again in 1',
    ],
    [
      'is a reason to ask now although the record has gone on',
      called(paidAs('100')),
      awaiting(PENDING, { amount: asked, overtaken: true }),
      MONEY,
      'await accepted/pending - wait, 2 left, ask in 0, say nothing',
    ],
    ['that proves nothing is noted', called(STILL_PENDING), awaiting(UNKNOWN, { amount: asked }), NO_INQUIRY, 'note'],
    [
      'of payment after a final "failed" is cried out',
      called(paidAs('100')),
      settled(standing('unknown', 'failed')),
      NO_INQUIRY,
      'contradict: was failed, now succeeded',
    ],
    [
      'of what is final already says nothing',
      called(paidAs('100')),
      settled(standing('accepted', 'succeeded')),
      MONEY,
      'nothing',
    ],
  ]);

  test('that came before the answer brings the first question forward', () => {
    const verdict = decide(accepted('pending'), sending({ hinted: true }), MONEY);
    expect(inWords(verdict)).toBe('await accepted/pending - wait, 2 left, ask in 0, say awaiting');
    const doubt = decide({ from: 'lost', code: 'X' }, sending({ hinted: true }), MONEY);
    expect(inWords(doubt)).toBe('await unknown/unknown no_answer wait, 2 left, ask in 0, say awaiting');
  });
});

describe('a person', () => {
  const says = (as: 'succeeded' | 'failed'): Evidence => ({ from: 'operator', as });
  const nudge: Evidence = { from: 'nudge' };
  holds([
    [
      'who settles it as paid ends the doubt',
      says('succeeded'),
      awaiting(UNKNOWN),
      MONEY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
    [
      'who settles it as unpaid ends the doubt',
      says('failed'),
      awaiting(UNKNOWN, { needsReview: true }),
      MONEY,
      'settle unknown/failed no_answer new_transaction, 0 left, code used',
    ],
    [
      'who settles an accepted one as unpaid calls it declined',
      says('failed'),
      awaiting(PENDING),
      MONEY,
      'settle accepted/failed declined new_transaction, 0 left, code used',
    ],
    ['overwrites nothing that is final', says('succeeded'), settled(standing('unknown', 'failed')), MONEY, 'nothing'],
    ['settles nothing that waits in the queue', says('succeeded'), queued(), MONEY, 'nothing'],
    ['settles nothing that is on its way', says('failed'), sending(), MONEY, 'nothing'],
    [
      'may have it asked now',
      nudge,
      awaiting(UNKNOWN),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, ask in 0, say nothing',
    ],
    [
      'may have it asked now after it was given up',
      nudge,
      awaiting(UNKNOWN, { needsReview: true, awaitingSince: 1 }),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, ask in 0, say nothing',
    ],
    ['cannot have it asked where nothing can be asked', nudge, awaiting(UNKNOWN), NO_INQUIRY, 'nothing'],
    ['has nothing asked that is not awaited', nudge, sending(), MONEY, 'nothing'],
    [
      'may have it asked now although the record has gone on',
      nudge,
      awaiting(UNKNOWN, { overtaken: true }),
      MONEY,
      'await unknown/unknown no_answer wait, 2 left, ask in 0, say nothing',
    ],
    [
      'who settles it ends the doubt although the record has gone on',
      says('succeeded'),
      awaiting(UNKNOWN, { overtaken: true }),
      MONEY,
      'settle accepted/succeeded - none, 2 left, code used',
    ],
  ]);

  test.each(['succeeded', 'failed'] as const)("who settles it as %s leaves the provider's own word", (as) => {
    const code = (now: Standing) => decide(says(as), awaiting(now), MONEY);
    expect(code(PENDING)).toMatchObject({ standing: { providerCode: 'Ok' } });
    expect(code(UNKNOWN)).toMatchObject({ standing: { providerCode: 'RESOLVED_BY_OPERATOR' } });
  });
});

describe('amounts', () => {
  const asked = { value: '100', currency: 'NGN' };
  const mismatch = 'await unknown/unknown amount_mismatch contact_support, 2 left, do not ask, say review';
  const success = 'settle accepted/succeeded - none, 2 left, code used';

  test.each([
    ['100', '100.0', true],
    ['100', '100.00', true],
    ['100.00', '100', true],
    ['100', '0100.000', true],
    ['100', '00100', true],
    ['100.10', '100.01', false],
    ['0.10', '.10', false],
    ['100', '10.00', false],
    ['100', '1000', false],
    ['100', '100.01', false],
    ['100', '99.999999999999999999', false],
    ['9007199254740993', '9007199254740992', false],
    ['0', '0.00', true],
    ['100', '1e2', false],
    ['100', '-100', false],
    ['100', '100,00', false],
    ['100', '', false],
    ['100', 'NaN', false],
    ['1,000', '1,000', false],
  ])('%s asked and %s reported: equal is %s', (value, reported, equal) => {
    const now = awaiting(PENDING, { amount: { value, currency: 'NGN' } });
    expect(inWords(decide(found(paid([{ value: reported }])), now, MONEY))).toBe(equal ? success : mismatch);
  });

  test('that differs hands on what the inquiry tells besides', () => {
    const told: Finding = { kind: 'paid', providerCode: 'paid', amounts: [{ value: '150' }], details: { token: 't' } };
    const verdict = decide(found(told), awaiting(PENDING, { amount: asked }), MONEY);
    expect(inWords(verdict)).toBe(mismatch);
    expect(verdict).toMatchObject({ details: { token: 't' } });
  });

  test.each([
    ['that the code was wrong', rejected('wrong_code', 'pending')],
    ['that the code was right', accepted('pending')],
    ['that the payment failed', rejected('declined', 'failed')],
    ['that it was not let in', refused()],
    ['that it never left', notSent()],
    ['that there was no key', { from: 'no_key' } as const],
  ])('that differs is not forgotten when its own worker says late %s', (_what, late) => {
    const said = standing('unknown', 'unknown', { reason: 'amount_mismatch' });
    const now = awaiting(said, { amount: asked, needsReview: true });
    expect(decide(late, now, MONEY)).toEqual({ do: 'note', againAt: null });
  });

  test.each([
    ['by an inquiry', found(NOT_PAID), MONEY, {}],
    ['by a second inquiry', found(NOT_PAID), MONEY, { notPaidAt: NOW - 60_000 }],
    [
      'by a callback',
      { from: 'callback', finding: { ...NOT_PAID, amounts: [{ value: '100' }] }, receivedAt: NOW },
      NO_INQUIRY,
      {},
    ],
  ] as const)(
    'that differs is not called unpaid %s: that is one word against another',
    (_how, evidence, policy, given) => {
      const said = standing('unknown', 'unknown', { reason: 'amount_mismatch' });
      const verdict = decide(evidence, awaiting(said, { amount: asked, needsReview: true, ...given }), policy);
      expect(['await', 'note']).toContain(verdict.do);
      expect(verdict).not.toMatchObject({ proof: 'not_paid_once' });
    },
  );

  test('that differs is settled by an answer that says the amount that was asked for', () => {
    const said = standing('unknown', 'unknown', { reason: 'amount_mismatch' });
    const now = awaiting(said, { amount: asked, needsReview: true });
    expect(inWords(decide(accepted('succeeded', { amounts: [{ value: '100' }] }), now, MONEY))).toBe(success);
  });

  test('that differs again stays as it was said first', () => {
    const said = standing('unknown', 'unknown', { reason: 'amount_mismatch', providerCode: 'first' });
    const now = awaiting(said, { amount: asked, needsReview: true, attemptsRemaining: 1 });
    expect(decide(found(paid([{ value: '150' }])), now, MONEY)).toMatchObject({ standing: said, attemptsRemaining: 1 });
  });

  holds([
    [
      'is not compared where no money moves',
      accepted('none', { amounts: [{ value: '150' }] }),
      sending({ amount: asked }),
      NO_MONEY,
      'settle accepted/none - none, 2 left, code used',
    ],
    [
      'none asked for: whatever is reported is not contradicted',
      found(paid([{ value: '7' }])),
      awaiting(PENDING),
      MONEY,
      success,
    ],
    ['none reported contradicts none', found(paid([])), awaiting(PENDING, { amount: asked }), MONEY, success],
    ['none named at all contradicts none', found(paid()), awaiting(PENDING, { amount: asked }), MONEY, success],
    [
      'one of several that agrees is enough',
      found(paid([{ value: '98.50' }, { value: '100.00' }])),
      awaiting(PENDING, { amount: asked }),
      MONEY,
      success,
    ],
    [
      'of the same figure in another currency differs',
      found(paid([{ value: '100', currency: 'USD' }])),
      awaiting(PENDING, { amount: asked }),
      MONEY,
      mismatch,
    ],
    [
      'of the same figure and currency agrees',
      found(paid([{ value: '100', currency: 'NGN' }])),
      awaiting(PENDING, { amount: asked }),
      MONEY,
      success,
    ],
    [
      'that differs in the answer itself is for a person',
      accepted('succeeded', { amounts: [{ value: '150' }] }),
      sending({ amount: asked }),
      MONEY,
      mismatch,
    ],
    [
      'that agrees in the answer itself settles',
      accepted('succeeded', { amounts: [{ value: '100' }] }),
      sending({ amount: asked }),
      MONEY,
      success,
    ],
    [
      'that differs again asks no second person',
      found(paid([{ value: '150' }])),
      awaiting(standing('unknown', 'unknown', { reason: 'amount_mismatch', nextStep: 'contact_support' }), {
        amount: asked,
        needsReview: true,
      }),
      MONEY,
      'await unknown/unknown amount_mismatch contact_support, 2 left, do not ask, say nothing',
    ],
    [
      'that differs is said, also of one that a person looks at for another reason',
      found(paid([{ value: '150' }])),
      awaiting(UNKNOWN, { amount: asked, needsReview: true }),
      MONEY,
      'await unknown/unknown amount_mismatch contact_support, 2 left, do not ask, say review',
    ],
  ]);
});

describe('a final record', () => {
  const succeeded = standing('accepted', 'succeeded', { nextStep: 'none' });
  const failed = standing('unknown', 'failed', { nextStep: 'new_transaction' });
  const alarm = 'contradict: was failed, now succeeded';
  holds([
    ['that failed and was paid after all is cried out', found(paid()), settled(failed), MONEY, alarm],
    ['that failed and was paid by a late answer is cried out', accepted('succeeded'), settled(failed), MONEY, alarm],
    [
      'that succeeded and is proved unpaid is cried out',
      found(NOT_PAID),
      settled(succeeded),
      MONEY,
      'contradict: was succeeded, now failed',
    ],
    [
      'that succeeded is not doubted by a question put too early',
      found(NOT_PAID, NOW - 5_000),
      settled(succeeded),
      MONEY,
      'nothing',
    ],
    [
      'that is in review leaves it when a person has looked, and stays as it was said',
      { from: 'operator', as: 'succeeded' },
      settled(failed, { needsReview: true }),
      MONEY,
      'end the review',
    ],
    [
      'that a person has looked at is not cried out for what that person has said',
      found(paid()),
      settled(failed, { resolvedAs: 'succeeded' }),
      MONEY,
      'nothing',
    ],
    [
      'that a person has called failed is cried out when it was paid after all',
      found(paid()),
      settled(failed, { resolvedAs: 'failed' }),
      MONEY,
      alarm,
    ],
    ['that succeeded hears of it again', found(paid()), settled(succeeded), MONEY, 'nothing'],
    ['that failed hears of it again', found(NOT_PAID), settled(failed), MONEY, 'nothing'],
    ['takes no late no', rejected('wrong_code', 'pending'), settled(succeeded), MONEY, 'nothing'],
    ['takes no late doubt', { from: 'lost', code: 'X' }, settled(succeeded), MONEY, 'nothing'],
    ['is not sent again', notSent(), settled(failed), MONEY, 'nothing'],
    ['passes no deadline', { from: 'deadline' }, settled(succeeded), MONEY, 'nothing'],
    ['is not given up', { from: 'patience_over' }, settled(succeeded), MONEY, 'nothing'],
    ['is not pending again', found(STILL_PENDING), settled(failed), MONEY, 'nothing'],
    ['is not untouched again', found(UNTOUCHED), settled(failed), MONEY, 'nothing'],
    ['that failed hears of a code that was taken', accepted('pending'), settled(failed), MONEY, 'nothing'],
    [
      'that succeeded is not doubted by a payment still pending',
      found(STILL_PENDING),
      settled(succeeded),
      MONEY,
      'nothing',
    ],
    [
      'that succeeded is not doubted by a callback, which proves nothing',
      { from: 'callback', finding: NOT_PAID, receivedAt: NOW },
      settled(succeeded),
      MONEY,
      'nothing',
    ],
    [
      'that failed is not cried out by a callback of no payment',
      { from: 'callback', finding: NOT_PAID, receivedAt: NOW },
      settled(failed),
      MONEY,
      'nothing',
    ],
    [
      'of a refused code is no contradiction to no payment',
      found(NOT_PAID),
      settled(standing('rejected', 'pending')),
      MONEY,
      'nothing',
    ],
    [
      'of a refused code is cried out when it was paid after all',
      found(paid()),
      settled(standing('rejected', 'pending')),
      MONEY,
      'contradict: was pending, now succeeded',
    ],
    [
      'without a transaction is contradicted by nothing',
      found(paid()),
      settled(standing('accepted', 'none')),
      MONEY,
      'nothing',
    ],
  ]);
});

describe('whatever comes, in whatever order', () => {
  const amounts = fc.option(fc.constantFrom<readonly ReportedAmount[]>([{ value: '100' }], [{ value: '150' }], []), {
    nil: undefined,
  });
  const outcome: fc.Arbitrary<Evidence> = fc.oneof(
    fc
      .record({ transaction: fc.constantFrom('succeeded' as const, 'pending' as const, 'none' as const), amounts })
      .map(({ transaction, amounts }) => accepted(transaction, amounts === undefined ? {} : { amounts })),
    fc.constantFrom('pending' as const, 'failed' as const).map((transaction) => rejected('wrong_code', transaction)),
    fc.constantFrom(refused(), refused({ remedy: { do: 'none' } }), throttled(), throttled(5_000), throttled(90_000)),
    fc.constantFrom(doubtful(), doubtful('declined'), doubtful('unexpected_answer', 1_000)),
  );
  const finding = fc.constantFrom<Finding>(
    paid(),
    paid([{ value: '150' }]),
    NOT_PAID,
    UNTOUCHED,
    STILL_PENDING,
    NOTHING,
  );
  const evidence: fc.Arbitrary<Evidence> = fc.oneof(
    outcome,
    fc.record({
      from: fc.constant('inquiry' as const),
      finding,
      askedAt: fc.integer({ min: NOW - 20_000, max: NOW + 90_000 }),
    }),
    fc.record({ from: fc.constant('callback' as const), finding, receivedAt: fc.constant(NOW + 30_000) }),
    fc.constantFrom<Evidence>(
      notSent(),
      notSent({ remediable: false }),
      { from: 'nudge' },
      { from: 'lost', code: 'ECONNRESET' },
      { from: 'owner_dead' },
      { from: 'deadline' },
      { from: 'patience_over' },
      { from: 'reference', reason: 'attempt_in_flight', transaction: 'unknown', ownedBy: 'x' },
    ),
  );
  const arrival = fc.record({
    evidence,
    afterMs: fc.integer({ min: 0, max: 20_000 }),
    overtaken: fc.boolean(),
    begins: fc.boolean(),
  });

  test('nothing is turned once settled, failed by one question, repeated at its deadline or accepted without a yes', () => {
    fc.assert(
      fc.property(
        fc.array(arrival, { minLength: 1, maxLength: 30 }),
        fc.constantFrom(MONEY, NO_INQUIRY, NO_MONEY),
        fc.option(fc.constant({ value: '100', currency: 'NGN' }), { nil: null }),
        (arrivals, policy, amount) => {
          let now = queued({ amount });
          let [yes, proofsInARow, submissions] = [false, 0, 0];
          for (const { evidence, afterMs, overtaken, begins } of arrivals) {
            now = { ...now, now: now.now + afterMs };
            // What begin does: a queued record whose code is alive may be submitted.
            if (begins && now.state === 'queued' && now.now < now.deadline) {
              submissions += 1;
              now = { ...now, state: 'sending', attemptsUsed: now.attemptsUsed + 1, inFlightUntil: now.now + 12_000 };
            }
            const stale = overtaken && (now.state === 'queued' || now.state === 'sending');
            if (evidence.from === 'answer' && evidence.outcome.kind === 'accepted') yes = true;
            if ((evidence.from === 'inquiry' || evidence.from === 'callback') && evidence.finding.kind === 'paid')
              yes = true;
            const verdict = decide(evidence, { ...now, overtaken: stale }, policy);

            if (now.state === 'settled') expect(['nothing', 'contradict']).toContain(verdict.do);
            if (verdict.do === 'retry') {
              expect(now.now + verdict.inMs).toBeLessThan(now.deadline);
              expect(['queued', 'sending']).toContain(now.state);
              expect(
                evidence.from === 'not_sent' || (evidence.from === 'answer' && evidence.outcome.kind === 'refused'),
              ).toBe(true);
              expect(stale).toBe(false);
              now = {
                ...now,
                state: 'queued',
                attemptsUsed: Math.max(0, now.attemptsUsed - (now.state === 'sending' ? 1 : 0)),
                [verdict.because === 'refused' ? 'refusals' : 'notSent']:
                  (verdict.because === 'refused' ? now.refusals : now.notSent) + 1,
              };
              expect(now.refusals).toBeLessThanOrEqual(1);
            }
            if (verdict.do !== 'await' && verdict.do !== 'settle') continue;
            const { otp, transaction } = verdict.standing;
            if (otp === 'accepted') expect(yes).toBe(true);
            if (transaction === 'succeeded') expect(otp === 'accepted' || evidence.from === 'reference').toBe(true);
            if (
              policy.effect === 'none' &&
              verdict.do === 'settle' &&
              evidence.from !== 'inquiry' &&
              otp !== 'accepted'
            ) {
              expect(transaction).toBe('none');
            }
            if (evidence.from === 'inquiry') {
              const counts = evidence.finding.kind === 'not_paid' && evidence.askedAt > now.inFlightUntil;
              if (transaction === 'failed' && verdict.do === 'settle') {
                expect(counts).toBe(true);
                expect(proofsInARow).toBe(1);
                expect(evidence.askedAt).toBeGreaterThan(now.notPaidAt);
              }
              if (verdict.do === 'await' && verdict.proof === 'not_paid_once') proofsInARow = 1;
            }
            if (verdict.do === 'await') {
              if (verdict.proof === 'none') proofsInARow = 0;
              // A person who has been asked is asked again only when there is something else to say.
              if (verdict.publish === 'review' && now.needsReview)
                expect(verdict.standing.reason).not.toBe(now.standing?.reason);
              expect(now.state === 'queued' && evidence.from !== 'answer').toBe(false);
            }
            now = {
              ...now,
              state: verdict.do === 'settle' ? 'settled' : 'awaiting',
              standing: verdict.standing,
              awaitingSince: now.state === 'awaiting' ? now.awaitingSince : now.now,
              needsReview: now.needsReview || (verdict.do === 'await' && verdict.publish === 'review'),
              notPaidAt:
                verdict.do !== 'await' || verdict.proof === 'as_before'
                  ? now.notPaidAt
                  : verdict.proof === 'none'
                    ? 0
                    : now.now,
              inquiries: now.inquiries + (evidence.from === 'inquiry' ? 1 : 0),
            };
          }
          expect(submissions).toBeLessThanOrEqual(1 + now.notSent + now.refusals);
        },
      ),
      { numRuns: 2_000 },
    );
  });
});

describe('what is proved of the money and not of the code', () => {
  const paid: Evidence = { from: 'inquiry', finding: { kind: 'paid', providerCode: 'PAID' }, askedAt: NOW + 20_000 };

  test('is not said of the code, where another one of the transaction may have been submitted', () => {
    const verdict = decide(paid, situation('awaiting', { standing: UNKNOWN, contested: true }), MONEY);
    expect(verdict).toMatchObject({ do: 'settle', standing: { otp: 'unknown', transaction: 'succeeded' } });
  });

  test('settles nothing where another amount was paid', () => {
    const mismatch = standing('unknown', 'unknown', { reason: 'amount_mismatch' });
    const untouched: Evidence = { from: 'inquiry', finding: UNTOUCHED, askedAt: NOW + 20_000 };
    expect(decide(untouched, situation('awaiting', { standing: mismatch }), MONEY)).toMatchObject({ do: 'await' });
  });
});
