/**
 * The whole policy, pure: what is known (evidence) and how things stand (situation) give a verdict.
 *
 * - Only an explicit yes is accepted, only an explicit no is rejected; everything else that may have left is unknown.
 * - What provably did not leave may be sent again before the deadline; a documented refusal before the business layer
 *   once more at most.
 * - Unknown ends by proof. Payment counts whenever it is proved; no payment only when asked late enough, and twice.
 *
 * A "no" is always the answer to the only submission of its transaction that can still matter: while one is sending or
 * unknown, begin lets no other pass, so an "already used" can never be the echo of our own first success.
 */

import type { Standing, State } from '../producers/record.ts';
import type { Amount, Finding, NextStep, Outcome, Reason, ReportedAmount, TokenCall } from '../providers/provider.ts';
import { backoffMs } from './backoff.ts';

/** Timers of two machines never agree to the millisecond: a scheduled question may be put this much early. */
const ASKED_EARLY_MS = 100;

/** A code for which the key is missing is tried again this much later at the latest: the key may have come. */
const KEY_AGAIN_MS = 10_000;

/** A callback that came before the answer, at a provider without an inquiry, is brought again this much later. */
const CALLBACK_AGAIN_MS = 3_000;

/** Something that became known about one attempt, or about the money. */
export type Evidence =
  | { readonly from: 'answer'; readonly outcome: Outcome }
  /** Proved: no header of the submission was handed to a socket. `code` is an error code, never a message. */
  | {
      readonly from: 'not_sent';
      readonly code: string;
      readonly remediable: boolean;
      readonly retryAfterMs?: number;
      /** It was the provider that kept it from leaving, not we: it cannot be reached, or gives no token. */
      readonly atProvider?: boolean;
    }
  /** This worker has not the key to which the code is sealed. Another may, or it may yet come. */
  | { readonly from: 'no_key' }
  | { readonly from: 'lost'; readonly code: string }
  /** The worker that held the right to send is gone without a word. */
  | { readonly from: 'owner_dead' }
  /** Nothing that could bring proof has come within `giveUpAfterMs`. */
  | { readonly from: 'patience_over' }
  | { readonly from: 'deadline' }
  /**
   * Redis has lost its last writes, and with them perhaps the beginning of an attempt. `bounded` false: nobody can say how
   * much it has lost, so a person must look.
   */
  | { readonly from: 'rolled_back'; readonly bounded: boolean }
  /** The transaction's own record does not allow another submission. */
  | {
      readonly from: 'reference';
      readonly reason: Extract<Reason, 'attempt_in_flight' | 'already_used' | 'budget_spent'>;
      readonly transaction: 'pending' | 'unknown' | 'succeeded' | 'failed';
      /** The verification that owns it, '' when none does. */
      readonly ownedBy: string;
    }
  /** `askedAt`: when the inquiry began, by the clock of Redis. */
  | { readonly from: 'inquiry'; readonly finding: Finding; readonly askedAt: number }
  /** An authentic callback. Where an inquiry exists it is only the reason to ask now. */
  | { readonly from: 'callback'; readonly finding: Finding; readonly receivedAt: number }
  /** A person asks to ask now. */
  | { readonly from: 'nudge' }
  /** A person settles it, or has looked at two proofs that disagree; the evidence stands in the history. */
  | { readonly from: 'operator'; readonly as: 'succeeded' | 'failed' };

export interface Policy {
  /** `none`: no money moves, so nothing needs proof. */
  readonly effect: 'money' | 'none';
  readonly canInquire: boolean;
  readonly maxAttempts: number;
  readonly inquiry: { readonly delaysMs: readonly number[]; readonly giveUpAfterMs: number };
}

export interface Situation {
  readonly state: State;
  readonly now: number;
  readonly deadline: number;
  readonly takesCode: boolean;
  /** Submissions that count against the transaction's budget, the latest included. */
  readonly attemptsUsed: number;
  readonly refusals: number;
  readonly notSent: number;
  readonly standing: Standing | null;
  readonly amount: Amount | null;
  readonly inFlightUntil: number;
  readonly awaitingSince: number;
  readonly inquiries: number;
  readonly notPaidAt: number;
  readonly needsReview: boolean;
  /** What a person has said became of the money. */
  readonly resolvedAs: 'succeeded' | 'failed' | null;
  /** An inquiry is scheduled that was not made yet. */
  readonly isToBeAsked: boolean;
  /** As last published. */
  readonly attemptsRemaining: number | null;
  /** A callback has come while the attempt was still under way: the inquiry need not wait for its schedule. */
  readonly hinted: boolean;
  /**
   * It may have been submitted, nobody knows; and another verification of the same transaction may be the one that was.
   * Only after Redis has lost what it was told.
   */
  readonly contested?: boolean;
  /** The last that became known of it: nobody who had it in hand had the key. */
  readonly setAside?: boolean;
  /**
   * The record has left the point that the evidence speaks of: another attempt is under way, or none any more. Then
   * only a yes or a no still says something of it.
   */
  readonly overtaken: boolean;
  readonly random: number;
}

interface Consequences {
  /** The partition takes no new job for so long. */
  readonly slowDownMs?: number;
  readonly dropTokens?: readonly TokenCall[];
  /** How many more codes the provider itself says it will take. */
  readonly providersWord?: number;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly identifiers?: readonly string[];
}

export type Verdict = Consequences &
  (
    | {
        readonly do: 'settle';
        readonly standing: Standing;
        readonly attemptsRemaining: number | null;
        /** Whether the submission counts against the budget; a code that was not consumed may be typed again. */
        readonly code: 'used' | 'untouched';
      }
    | {
        readonly do: 'await';
        readonly standing: Standing;
        readonly attemptsRemaining: number | null;
        /** Null: nothing can be asked; a callback or a person must bring the proof. */
        readonly inquireInMs: number | null;
        readonly publish: 'awaiting' | 'review' | null;
        /**
         * What is counted of proofs of no payment from now on: a first one, so that the next will be final; none, because
         * something else was heard in between; or as many as before.
         */
        readonly proof: 'not_paid_once' | 'none' | 'as_before';
      }
    | { readonly do: 'retry'; readonly inMs: number; readonly because: 'not_sent' | 'refused' }
    /** Written into the history, and nothing else. `againAt`: bring the same evidence again then. */
    | { readonly do: 'note'; readonly againAt: number | null }
    /** The record is final and this changes nothing; or the evidence is for a state that has passed. */
    | { readonly do: 'nothing' }
    | { readonly do: 'contradict'; readonly was: string; readonly now: string }
    /** A person has looked at what contradicts: it waits for nobody any more, and what was said stays. */
    | { readonly do: 'end_review' }
  );

export function decide(evidence: Evidence, situation: Situation, policy: Policy): Verdict {
  if (situation.state === 'settled') return afterFinal(evidence, situation);
  if (situation.overtaken && !staysTrue(evidence)) return { do: 'nothing' };
  // What was last said of a record that awaits proof; of any other nothing can be asked.
  const awaited = situation.state === 'awaiting' ? situation.standing : null;
  if (awaited?.reason === 'amount_mismatch' && isLateWordOnTheCode(evidence)) return { do: 'note', againAt: null };
  switch (evidence.from) {
    case 'answer':
      return onAnswer(evidence.outcome, situation, policy);
    case 'not_sent':
      return onNotSent(evidence, situation, policy);
    case 'no_key':
      return onNoKey(situation, policy);
    case 'lost':
    case 'owner_dead':
      // An attempt that was called unknown already becomes no more unknown.
      return situation.state === 'sending' ? unknown('no_answer', null, situation, policy) : { do: 'nothing' };
    case 'deadline':
      if (situation.state !== 'queued') return { do: 'nothing' };
      if (situation.setAside) return neverOpened(situation, policy);
      return notSubmitted('deadline_passed', 'pending', 'request_new_code', situation, policy);
    case 'reference':
      if (situation.state !== 'queued') return { do: 'nothing' };
      return notSubmitted(
        evidence.reason,
        evidence.transaction,
        nextStepAtReference(evidence, policy),
        situation,
        policy,
      );
    case 'rolled_back':
      return onRolledBack(evidence.bounded, situation, policy);
    case 'patience_over':
      if (awaited === null || situation.needsReview) return { do: 'nothing' };
      return { ...review(awaited, situation, policy), ...stillToBeAsked(situation, policy) };
    case 'inquiry':
      // A record that is sending or queued again learns nothing from an old question.
      if (awaited === null) return { do: 'nothing' };
      return onFinding(evidence.finding, evidence.askedAt, awaited, situation, policy);
    case 'callback':
      return onCallback(evidence, awaited, situation, policy);
    case 'nudge':
      if (awaited === null || !policy.canInquire) return { do: 'nothing' };
      return askNow(awaited, situation, policy);
    case 'operator':
      if (awaited === null) return { do: 'nothing' };
      return onOperator(evidence.as, awaited, situation);
  }
  return evidence satisfies never;
}

function onAnswer(outcome: Outcome, situation: Situation, policy: Policy): Verdict {
  switch (outcome.kind) {
    case 'accepted': {
      const { providerCode } = outcome;
      const found = consequencesOf(outcome);
      if (outcome.transaction === 'pending') {
        return {
          do: 'await',
          standing: {
            otp: 'accepted',
            transaction: 'pending',
            reason: null,
            nextStep: outcome.nextStep ?? 'wait',
            providerCode,
          },
          attemptsRemaining: remaining(situation, policy, outcome.attemptsRemaining),
          ...nextInquiry(situation, policy, 'awaiting'),
          proof: 'none',
          ...found,
        };
      }
      if (outcome.transaction === 'succeeded' && !amountAgrees(situation.amount, outcome.amounts)) {
        return amountMismatch(providerCode, situation, policy, found);
      }
      return {
        do: 'settle',
        standing: {
          otp: 'accepted',
          transaction: outcome.transaction,
          reason: null,
          nextStep: outcome.nextStep ?? 'none',
          providerCode,
        },
        attemptsRemaining: remaining(situation, policy, outcome.attemptsRemaining),
        code: 'used',
        ...found,
      };
    }
    case 'rejected': {
      const attemptsRemaining =
        outcome.transaction === 'failed' ? 0 : remaining(situation, policy, outcome.attemptsRemaining);
      const anotherCode = (attemptsRemaining ?? 0) > 0;
      return {
        do: 'settle',
        standing: {
          otp: 'rejected',
          transaction: policy.effect === 'none' ? 'none' : outcome.transaction,
          reason: outcome.reason,
          nextStep: outcome.nextStep ?? nextStepAfterRefusal(outcome.reason, anotherCode, policy),
          providerCode: outcome.providerCode,
        },
        attemptsRemaining,
        code: 'used',
        ...consequencesOf(outcome),
      };
    }
    case 'refused':
      return onRefused(outcome, situation, policy);
    case 'unknown':
      if (situation.state !== 'sending') return { do: 'nothing' };
      return {
        ...unknown(outcome.reason, outcome.providerCode, situation, policy),
        ...(outcome.slowDownMs === undefined ? {} : { slowDownMs: outcome.slowDownMs }),
      };
  }
  return outcome satisfies never;
}

/** Documented, from before the business layer: at most one further submission, and only if it could go better. */
function onRefused(outcome: Extract<Outcome, { kind: 'refused' }>, situation: Situation, policy: Policy): Verdict {
  const throttled = outcome.cause === 'throttled';
  const waitMs = outcome.remedy.do === 'wait' ? Math.max(outcome.retryAfterMs ?? 0, backoffMs(2, situation.random)) : 0;
  const consequences: Consequences = {
    ...(throttled ? { slowDownMs: outcome.retryAfterMs ?? waitMs } : {}),
    ...(outcome.remedy.do === 'new_token' ? { dropTokens: outcome.remedy.tokens } : {}),
  };
  const mendable = situation.state === 'sending' && outcome.remedy.do !== 'none' && situation.refusals === 0;
  if (mendable && situation.now + waitMs < situation.deadline) {
    return { do: 'retry', inMs: waitMs, because: 'refused', ...consequences };
  }
  const reason: Reason = throttled ? 'provider_unavailable' : 'misconfigured';
  return {
    ...notSubmitted(
      reason,
      'pending',
      throttled ? 'reenter_code' : 'contact_support',
      situation,
      policy,
      outcome.providerCode,
    ),
    ...consequences,
  };
}

function onNotSent(evidence: Extract<Evidence, { from: 'not_sent' }>, situation: Situation, policy: Policy): Verdict {
  const end = (reason: Reason, nextStep: NextStep): Verdict =>
    notSubmitted(reason, 'pending', nextStep, situation, policy);
  // It was called unknown meanwhile and its code destroyed; now it is proved that it never left.
  if (situation.state === 'awaiting') return end('provider_unavailable', 'reenter_code');
  if (situation.now >= situation.deadline) return end('deadline_passed', 'request_new_code');
  if (!evidence.remediable) return end('misconfigured', 'contact_support');
  const inMs = Math.max(evidence.retryAfterMs ?? 0, backoffMs(situation.notSent + 1, situation.random));
  if (situation.now + inMs < situation.deadline) return { do: 'retry', inMs, because: 'not_sent' };
  return end('provider_unavailable', 'reenter_code');
}

/** Set aside: tried again and again, and said each time, until a worker with the key has it in hand or the code is dead. */
function onNoKey(situation: Situation, policy: Policy): Verdict {
  const leftMs = situation.deadline - situation.now;
  if (situation.state === 'awaiting' || leftMs <= 0) return neverOpened(situation, policy);
  const inMs = Math.min(backoffMs(situation.notSent + 1, situation.random), KEY_AGAIN_MS, leftMs);
  return { do: 'retry', inMs, because: 'not_sent' };
}

function neverOpened(situation: Situation, policy: Policy): Verdict {
  return notSubmitted('misconfigured', 'pending', 'contact_support', situation, policy);
}

function onFinding(
  finding: Finding,
  askedAt: number,
  standing: Standing,
  situation: Situation,
  policy: Policy,
): Verdict {
  const lateEnough = askedAt > situation.inFlightUntil;
  // Where another amount was paid, "not paid" is one word against another: a person is asked to look.
  const isDisputed = standing.reason === 'amount_mismatch';
  switch (finding.kind) {
    case 'paid':
      if (amountAgrees(situation.amount, finding.amounts)) return paid(finding, situation);
      return amountMismatch(
        finding.providerCode,
        situation,
        policy,
        finding.details ? { details: finding.details } : {},
      );
    case 'not_paid':
      if (!lateEnough || isDisputed) return askAgain(standing, situation, policy);
      if (situation.notPaidAt === 0) return { ...askAgain(standing, situation, policy), proof: 'not_paid_once' };
      // Two questions put at the same time, or the second one out of turn, are one proof.
      if (askedAt < situation.notPaidAt + spacingMs(situation, policy)) return askAgain(standing, situation, policy);
      return notPaid(finding.providerCode, standing);
    case 'untouched':
      // Asked too early, or after an explicit yes, it proves nothing: the provider may not have got round to it.
      if (!lateEnough || standing.otp !== 'unknown' || isDisputed)
        return { ...askAgain(standing, situation, policy), proof: 'none' };
      return {
        do: 'settle',
        standing: {
          otp: 'unknown',
          transaction: 'pending',
          reason: standing.reason,
          nextStep: 'reenter_code',
          providerCode: finding.providerCode,
        },
        attemptsRemaining: remaining({ ...situation, attemptsUsed: situation.attemptsUsed - 1 }, policy),
        code: 'untouched',
      };
    case 'pending':
      return { ...askAgain(standing, situation, policy), proof: 'none' };
    case 'nothing':
      return {
        ...askAgain(standing, situation, policy),
        ...(finding.slowDownMs === undefined ? {} : { slowDownMs: finding.slowDownMs }),
        ...(finding.staleTokens === undefined ? {} : { dropTokens: finding.staleTokens }),
      };
  }
  return finding satisfies never;
}

/**
 * A callback is a hint: where an inquiry exists, the inquiry decides. Where none exists, it settles only if both it and
 * the verification say an amount, and the same one; whatever it says without that is for a person to judge.
 */
function onCallback(
  { finding, receivedAt }: Extract<Evidence, { from: 'callback' }>,
  standing: Standing | null,
  situation: Situation,
  policy: Policy,
): Verdict {
  if (standing === null) {
    return { do: 'note', againAt: policy.canInquire ? null : situation.now + CALLBACK_AGAIN_MS };
  }
  if (policy.canInquire) return askNow(standing, situation, policy);
  if (finding.kind !== 'paid' && finding.kind !== 'not_paid') return { do: 'note', againAt: null };

  const amounts = finding.amounts ?? [];
  if (situation.amount === null || amounts.length === 0) return review(standing, situation, policy);
  if (!amountAgrees(situation.amount, amounts)) return amountMismatch(finding.providerCode, situation, policy, {});
  if (finding.kind === 'paid') return paid(finding, situation);
  if (standing.reason === 'amount_mismatch') return { do: 'note', againAt: null };
  if (receivedAt <= situation.inFlightUntil) return { do: 'note', againAt: situation.inFlightUntil + 1 };
  return notPaid(finding.providerCode, standing);
}

/** It may have been sent although the record does not say so: never "not submitted", and never sent again. */
function onRolledBack(bounded: boolean, situation: Situation, policy: Policy): Verdict {
  const { state, standing } = situation;
  if (state === 'awaiting') {
    if (bounded || standing === null || situation.needsReview) return { do: 'nothing' };
    return { ...askAgain(standing, situation, policy), publish: 'review' };
  }
  const verdict = unknown('no_answer', null, situation, policy);
  return verdict.do === 'await' && !bounded ? { ...verdict, publish: 'review' } : verdict;
}

/** A person's word, with evidence, is proof like any other: it ends an unknown and overwrites nothing that is final. */
function onOperator(as: 'succeeded' | 'failed', standing: Standing, situation: Situation): Verdict {
  const providerCode = standing.providerCode ?? 'RESOLVED_BY_OPERATOR';
  if (as === 'succeeded') return paid({ providerCode }, situation);
  return notPaid(providerCode, standing);
}

function paid(
  { providerCode, details }: Pick<Extract<Finding, { kind: 'paid' }>, 'providerCode' | 'details'>,
  situation: Situation,
): Verdict {
  return {
    do: 'settle',
    standing: {
      // The money is proved. Whose code it was is not, where another one may have been it.
      otp: situation.contested ? 'unknown' : 'accepted',
      transaction: 'succeeded',
      reason: null,
      nextStep: 'none',
      providerCode,
    },
    attemptsRemaining: situation.attemptsRemaining,
    code: 'used',
    ...(details ? { details } : {}),
  };
}

/** What the code was found to be stays as it was found: proof that no money moved says nothing of it. */
function notPaid(providerCode: string, standing: Standing): Verdict {
  return {
    do: 'settle',
    standing: {
      otp: standing.otp,
      transaction: 'failed',
      reason: standing.otp === 'accepted' ? 'declined' : standing.reason,
      nextStep: 'new_transaction',
      providerCode,
    },
    attemptsRemaining: 0,
    code: 'used',
  };
}

/** It may have left and no answer proves what became of it. Where no money moves there is nothing to prove. */
function unknown(reason: Reason, providerCode: string | null, situation: Situation, policy: Policy): Verdict {
  if (policy.effect === 'none') {
    return {
      do: 'settle',
      standing: { otp: 'unknown', transaction: 'none', reason, nextStep: 'request_new_code', providerCode },
      attemptsRemaining: remaining(situation, policy),
      code: 'used',
    };
  }
  return {
    do: 'await',
    standing: { otp: 'unknown', transaction: 'unknown', reason, nextStep: 'wait', providerCode },
    attemptsRemaining: remaining(situation, policy),
    ...nextInquiry(situation, policy, 'awaiting'),
    proof: 'none',
  };
}

function notSubmitted(
  reason: Reason,
  transaction: 'pending' | 'unknown' | 'succeeded' | 'failed',
  nextStep: NextStep,
  situation: Situation,
  policy: Policy,
  providerCode: string | null = null,
): Verdict {
  return {
    do: 'settle',
    standing: {
      otp: 'not_submitted',
      transaction: policy.effect === 'none' ? 'none' : transaction,
      reason,
      nextStep,
      providerCode,
    },
    // Nothing was submitted, so this one does not count.
    attemptsRemaining: situation.takesCode && reason === 'budget_spent' ? 0 : null,
    code: 'untouched',
  };
}

function amountMismatch(providerCode: string, situation: Situation, policy: Policy, found: Consequences): Verdict {
  const standing: Standing = {
    otp: 'unknown',
    transaction: 'unknown',
    reason: 'amount_mismatch',
    nextStep: 'contact_support',
    providerCode,
  };
  // Once said it stays as it was said: another code for the same thing is no news.
  const said = situation.needsReview && situation.standing?.reason === standing.reason ? situation.standing : null;
  return {
    do: 'await',
    standing: said ?? standing,
    attemptsRemaining: said ? situation.attemptsRemaining : remaining(situation, policy),
    inquireInMs: null,
    publish: said ? null : 'review',
    proof: 'none',
    ...found,
  };
}

/** The next inquiry of the schedule, or, when there has been enough of it, a person. */
function askAgain(standing: Standing, situation: Situation, policy: Policy): Extract<Verdict, { do: 'await' }> {
  return {
    do: 'await',
    standing,
    attemptsRemaining: situation.attemptsRemaining,
    ...nextInquiry(situation, policy, null),
    proof: 'as_before',
  };
}

/** How long after a first proof of no payment the schedule puts the next question; one may come a little early. */
function spacingMs({ inquiries }: Situation, { inquiry: { delaysMs } }: Policy): number {
  const delayMs = delaysMs[Math.min(Math.max(0, inquiries - 1), delaysMs.length - 1)] ?? 0;
  return Math.max(1, delayMs - ASKED_EARLY_MS);
}

/** Out of turn: the schedule goes on from there. Also after it was given up. */
function askNow(standing: Standing, situation: Situation, policy: Policy): Extract<Verdict, { do: 'await' }> {
  return { ...askAgain(standing, situation, policy), inquireInMs: 0, publish: null };
}

/** Nothing here can settle it: a person must look. */
function review(standing: Standing, situation: Situation, policy: Policy): Extract<Verdict, { do: 'await' }> {
  return {
    ...askAgain(standing, situation, policy),
    inquireInMs: null,
    publish: situation.needsReview ? null : 'review',
  };
}

/** A question that was held back for so long, by a breaker or by the provider's own word, is put all the same. */
function stillToBeAsked(
  { isToBeAsked }: Situation,
  { canInquire, inquiry: { delaysMs } }: Policy,
): { inquireInMs?: number } {
  return canInquire && isToBeAsked ? { inquireInMs: delaysMs.at(-1) ?? 0 } : {};
}

function nextInquiry(
  situation: Situation,
  policy: Policy,
  publish: 'awaiting' | null,
): { inquireInMs: number | null; publish: 'awaiting' | 'review' | null } {
  if (!policy.canInquire) return { inquireInMs: null, publish };
  const { delaysMs, giveUpAfterMs } = policy.inquiry;
  const asked = publish === null ? situation.inquiries : 0;
  const scheduledMs = delaysMs[Math.min(asked, delaysMs.length - 1)] ?? giveUpAfterMs;
  const inMs = publish === 'awaiting' && situation.hinted ? 0 : scheduledMs;
  const since = publish === null ? situation.awaitingSince : situation.now;
  if (situation.now + inMs <= since + giveUpAfterMs) return { inquireInMs: inMs, publish };
  return { inquireInMs: null, publish: situation.needsReview ? null : 'review' };
}

/**
 * A final record changes no more. But money that moved although the client was told that it had not, or the reverse, must
 * be seen at once: after a `rejected` or a `not_submitted` no less than after a `failed`.
 */
function afterFinal(evidence: Evidence, situation: Situation): Verdict {
  if (evidence.from === 'operator') return { do: situation.needsReview ? 'end_review' : 'nothing' };
  const was = situation.standing?.transaction ?? 'none';
  const proved = moneyProvedBy(evidence, situation);
  if (proved === null || proved === was || was === 'none') return { do: 'nothing' };
  if (proved === 'failed' && was !== 'succeeded') return { do: 'nothing' };
  if (proved === situation.resolvedAs) return { do: 'nothing' }; // a person knows, and has told the client
  return { do: 'contradict', was, now: proved };
}

/** What this evidence by itself says of the money, if anything. */
function moneyProvedBy(evidence: Evidence, { inFlightUntil }: Situation): 'succeeded' | 'failed' | null {
  switch (evidence.from) {
    case 'answer': {
      const { outcome } = evidence;
      return outcome.kind === 'accepted' && outcome.transaction === 'succeeded' ? 'succeeded' : null;
    }
    case 'callback':
      return evidence.finding.kind === 'paid' ? 'succeeded' : null;
    case 'inquiry':
      if (evidence.finding.kind === 'paid') return 'succeeded';
      // Asked earlier it is a hint, and no hint contradicts a payment.
      return evidence.finding.kind === 'not_paid' && evidence.askedAt > inFlightUntil ? 'failed' : null;
    default:
      return null;
  }
}

/** Where another amount was paid a person is asked to look, and what becomes known of the code alone does not end that. */
function isLateWordOnTheCode(evidence: Evidence): boolean {
  if (evidence.from !== 'answer') return evidence.from === 'not_sent' || evidence.from === 'no_key';
  return !(evidence.outcome.kind === 'accepted' && evidence.outcome.transaction === 'succeeded');
}

function staysTrue(evidence: Evidence): boolean {
  switch (evidence.from) {
    case 'answer':
      return evidence.outcome.kind === 'accepted' || evidence.outcome.kind === 'rejected';
    case 'callback':
    case 'inquiry':
    case 'nudge':
    case 'operator':
    case 'rolled_back':
      return true;
    case 'not_sent':
    case 'no_key':
    case 'lost':
    case 'owner_dead':
    case 'patience_over':
    case 'deadline':
    case 'reference':
      return false;
  }
  return evidence satisfies never;
}

/** What the client may still try, by the provider's own word where it says one; null where no code is taken. */
function remaining(situation: Situation, policy: Policy, providersWord?: number): number | null {
  if (!situation.takesCode) return null;
  const own = Math.max(0, policy.maxAttempts - situation.attemptsUsed);
  return providersWord === undefined ? own : Math.min(own, providersWord);
}

function nextStepAfterRefusal(reason: Reason | null, anotherCode: boolean, policy: Policy): NextStep {
  if (reason === 'declined') return policy.effect === 'none' ? 'contact_support' : 'new_transaction';
  if (policy.effect === 'none') return anotherCode ? 'reenter_code' : 'request_new_code';
  if (!anotherCode) return 'new_transaction';
  return reason === 'code_expired' ? 'request_new_code' : 'reenter_code';
}

function nextStepAtReference(
  { reason, transaction }: Extract<Evidence, { from: 'reference' }>,
  policy: Policy,
): NextStep {
  if (transaction === 'unknown') return 'wait';
  if (transaction === 'succeeded') return 'none';
  if (policy.effect === 'none' && reason === 'budget_spent') return 'request_new_code';
  if (transaction === 'failed' || reason === 'budget_spent') return 'new_transaction';
  return 'reenter_code';
}

function consequencesOf(outcome: Extract<Outcome, { kind: 'accepted' | 'rejected' }>): Consequences {
  return {
    ...(outcome.attemptsRemaining === undefined ? {} : { providersWord: outcome.attemptsRemaining }),
    ...(outcome.identifiers === undefined ? {} : { identifiers: outcome.identifiers }),
    ...(outcome.kind === 'accepted' && outcome.details !== undefined ? { details: outcome.details } : {}),
  };
}

/** True when nothing contradicts: no amount was asked for, none is reported, or one that is reported equals it. */
function amountAgrees(asked: Amount | null, reported: readonly ReportedAmount[] | undefined): boolean {
  if (asked === null || reported === undefined || reported.length === 0) return true;
  return reported.some(
    ({ value, currency }) => sameDecimal(value, asked.value) && (currency === undefined || currency === asked.currency),
  );
}

/** "100", "100.0" and "100.00" are one amount; compared as text, because a float would lose cents. */
function sameDecimal(one: string, other: string): boolean {
  const normal = (text: string): string | null => {
    const match = /^\s*(\d+)(?:\.(\d+))?\s*$/.exec(text);
    return match ? `${(match[1] ?? '').replace(/^0+(?=\d)/, '')}.${(match[2] ?? '').replace(/0+$/, '')}` : null;
  };
  const left = normal(one);
  return left !== null && left === normal(other);
}
