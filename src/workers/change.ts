/**
 * What a verdict means for the record, the transaction, the due set and the outbox: one change, which apply.lua writes in
 * one step or not at all. Pure.
 */
import { JOB_SEEN_WITHIN_MS } from '../producers/accept.ts';
import {
  headText,
  historyLine,
  type OtpOutcome,
  type RawRecord,
  standingText,
  type VerificationRecord,
} from '../producers/record.ts';
import { type BreakerSettings, type Health, healthOf } from './breaker-policy.ts';
import type { Evidence, Policy, Situation, Verdict } from './decide.ts';

/** After the time-out an answer may still be on its way to us for so long. */
export const IN_FLIGHT_GRACE_MS = 10_000;
/** An inquiry job is looked for by the sweeper when it is this late. */
const INQUIRY_SEEN_WITHIN_MS = 5_000;
/** More than a record ever has. */
const REVISIONS_PASSED_OVER = 1_000;
/** What the history says of a code that nobody had the key for. */
const SET_ASIDE = 'set_aside';

/** What the evidence adds to the history, in words without a customer's data. */
export type Facts = Readonly<Record<string, string | number | boolean | null>>;

export interface ChangeSettings {
  readonly retentionMs: number;
  readonly policy: Pick<Policy, 'inquiry'>;
  readonly timeoutMs: number;
  readonly breaker?: BreakerSettings;
  /** What the provider told besides, sealed for the client; null when it told nothing. */
  readonly sealedDetails: string | null;
}

/** Every value is text, as the hash will hold it. */
export interface Change {
  set: Record<string, string>;
  clear: string[];
  /** When something more is due; or the record's place in the due set. */
  dueAt: number | 'none' | 'as it is';
  /** Type of the result to publish, or ''. */
  publish: string;
  retentionMs: number;
  /**
   * Whether it believes that nothing was sent. Of what is queued that holds only while the journal is `whole`. That an
   * attempt may be followed by another holds on another server only if it is said `in_time`: before the journal is looked
   * through for what was lost, or by a worker that has told that server all it knows. And that the last attempt was not sent
   * either ends it only `if_untried`: where it was to be tried again before, it was perhaps tried, and that may be lost.
   */
  fence: 'none' | 'whole' | 'in_time' | 'if_untried';
  history: string;
  /** What this says of the provider, for its breaker; '' for nothing. */
  health: Health | '';
  /** No other submission (or inquiry) for so long, by the provider's own word; 0 without one. */
  slowDownMs: number;
  reference: {
    set: Record<string, string>;
    clear: string[];
    refund: number;
    release: boolean;
    forget: boolean;
    /** An attempt that nobody saw may be on its way: no other one may begin for this transaction. */
    hold: boolean;
  };
}

function statusIn({ status }: Facts): number | null {
  return typeof status === 'number' ? status : null;
}

/** What a transaction knows of a code: whose it was, and how it ended if that is known. */
function codeUse(id: string, outcome?: OtpOutcome): string {
  return outcome === undefined ? id : `${id} ${outcome}`;
}

export function codeUseIn(text: string): { readonly id: string; readonly outcome: string | null } {
  const [id = '', outcome = null] = text.split(' ');
  return { id, outcome };
}

/**
 * Has the record left the point that the evidence speaks of? Evidence from the queue (no token, a deadline) speaks of no
 * attempt at all, evidence from a submission of that very attempt. Without this, whoever loses a race could take a
 * submission that is on its way for one that never left.
 */
export function overtaken(spokenOf: VerificationRecord, now: VerificationRecord): boolean {
  switch (spokenOf.state) {
    case 'queued':
      return now.state !== 'queued';
    case 'sending':
      return (
        now.state === 'queued' || now.attempts !== spokenOf.attempts || (now.token ?? spokenOf.token) !== spokenOf.token
      );
    case 'awaiting':
    case 'settled':
      return false;
  }
  return spokenOf.state satisfies never;
}

export function situationOf(
  record: VerificationRecord,
  evidence: Evidence,
  overtaken: boolean,
  contested: boolean,
  now: number,
  random: number,
): Situation {
  return {
    state: record.state,
    now,
    deadline: record.expiresAt,
    takesCode: record.codePrint !== '',
    attemptsUsed: record.attemptsUsed,
    refusals: record.refusals,
    notSent: record.notSent,
    standing: record.standing,
    amount: record.amount,
    inFlightUntil: record.inFlightUntil,
    awaitingSince: record.awaitingSince,
    inquiries: record.inquiries + (evidence.from === 'inquiry' ? 1 : 0),
    notPaidAt: record.notPaidAt,
    needsReview: record.needsReview,
    resolvedAs: resolvedAs(record),
    isToBeAsked: record.nextInquiryAt > 0,
    attemptsRemaining: record.attemptsRemaining,
    hinted: record.hinted,
    setAside: record.history.at(-1)?.event === SET_ASIDE,
    overtaken,
    contested,
    random,
  };
}

function resolvedAs({ history }: VerificationRecord): Situation['resolvedAs'] {
  const as = history.findLast(({ event }) => event === 'resolved')?.as;
  return as === 'succeeded' || as === 'failed' ? as : null;
}

export function eventOf(evidence: Evidence): string {
  switch (evidence.from) {
    case 'answer':
      return 'answered';
    case 'inquiry':
      return 'inquired';
    case 'callback':
      return 'called_back';
    case 'nudge':
      return 'asked_to_inquire';
    case 'operator':
      return 'resolved';
    case 'rolled_back':
      return 'rolled_back';
    case 'deadline':
      return 'deadline_passed';
    case 'no_key':
      return SET_ASIDE;
    case 'reference':
      return evidence.reason;
    case 'not_sent':
    case 'lost':
    case 'owner_dead':
    case 'patience_over':
      return evidence.from;
  }
  return evidence satisfies never;
}

function fenceOf(verdict: Verdict, { state }: VerificationRecord, { from }: Evidence): Change['fence'] {
  if (state === 'queued') return from === 'rolled_back' ? 'none' : 'whole';
  if (verdict.do === 'retry') return 'in_time';
  return verdict.do === 'settle' && verdict.standing.otp === 'not_submitted' ? 'if_untried' : 'none';
}

export function changeOf(
  verdict: Exclude<Verdict, { do: 'nothing' }>,
  before: VerificationRecord,
  situation: Situation,
  evidence: Evidence,
  facts: Facts,
  { retentionMs, policy, timeoutMs, breaker, sealedDetails }: ChangeSettings,
): Change {
  const { now } = situation;
  const begun = before.state === 'sending' || before.state === 'awaiting';
  const change: Change = {
    set: { revision: String(before.revision + 1) },
    clear: ['token', 'owner', 'notBefore'],
    dueAt: 'none',
    publish: '',
    retentionMs,
    fence: fenceOf(verdict, before, evidence),
    history: '',
    health: breaker?.enabled ? (healthOf(evidence, statusIn(facts)) ?? '') : '',
    slowDownMs: 'slowDownMs' in verdict ? Math.ceil(verdict.slowDownMs ?? 0) : 0,
    reference: { set: {}, clear: [], refund: 0, release: false, forget: false, hold: false },
  };
  const told: Record<string, unknown> = { ...facts };
  if (evidence.from === 'operator') told.as = evidence.as;
  // A worker that is away may hold the next numbers, from a history that was lost: none of them may fit again.
  if (evidence.from === 'rolled_back' || evidence.from === 'owner_dead') {
    change.set.revision = String(before.revision + REVISIONS_PASSED_OVER);
  }

  const codeField = `code:${before.codePrint}`;
  const giveBack = (): void => {
    if (!situation.takesCode) return;
    change.reference.release = true;
    if (!begun) return;
    change.reference.refund = 1;
    change.reference.clear.push(codeField);
  };

  switch (verdict.do) {
    case 'contradict':
      change.set.needsReview = '1';
      change.clear = [];
      change.publish = before.needsReview ? '' : 'otp.verification.review';
      told.contradicts = verdict.was;
      break;
    case 'end_review':
      change.clear = ['needsReview'];
      break;
    case 'note':
      change.clear = [];
      change.dueAt = 'as it is';
      if (before.state !== 'settled') change.set.hinted = '1';
      break;
    case 'retry': {
      const at = now + verdict.inMs;
      change.set.state = 'queued';
      change.set.notBefore = String(at);
      change.set[verdict.because === 'refused' ? 'refusals' : 'notSent'] = String(
        (verdict.because === 'refused' ? before.refusals : before.notSent) + 1,
      );
      change.clear = ['token', 'owner'];
      change.dueAt = Math.min(before.expiresAt, at + JOB_SEEN_WITHIN_MS);
      told.againAt = new Date(at).toISOString();
      giveBack();
      break;
    }
    case 'await': {
      change.clear.push('hinted');
      const arrived = before.state !== 'awaiting' || before.standing?.otp !== verdict.standing.otp;
      if (arrived) change.set.awaitingSince = String(now);
      change.set.state = 'awaiting';
      change.clear.push('code');
      // The provider itself has answered: nothing of this attempt is on its way any more. A lost answer, or one
      // that a proxy may have given, says no such thing.
      if (evidence.from === 'answer' && verdict.standing.otp === 'accepted') change.set.inFlightUntil = String(now);
      change.set.inquiries = String(arrived ? 0 : situation.inquiries);
      if (verdict.inquireInMs === null) {
        change.clear.push('nextInquiryAt');
        const since = arrived ? now : before.awaitingSince;
        const giveUpAt = since + policy.inquiry.giveUpAfterMs;
        change.dueAt = giveUpAt > now ? giveUpAt : now + policy.inquiry.giveUpAfterMs;
      } else {
        const at = now + verdict.inquireInMs;
        change.set.nextInquiryAt = String(at);
        change.dueAt = at + INQUIRY_SEEN_WITHIN_MS;
        told.inquiryAt = new Date(at).toISOString();
      }
      if (evidence.from === 'rolled_back' && before.state === 'queued') {
        change.set.inFlightUntil = String(now + timeoutMs + IN_FLIGHT_GRACE_MS);
        change.reference.hold = situation.takesCode;
        if (situation.takesCode) change.reference.set[codeField] = codeUse(before.id);
      }
      if (verdict.proof === 'not_paid_once') change.set.notPaidAt = String(now);
      if (verdict.proof === 'none') change.clear.push('notPaidAt');
      if (verdict.publish === 'review') change.set.needsReview = '1';
      if (verdict.publish !== null) change.publish = `otp.verification.${verdict.publish}`;
      if (situation.takesCode && verdict.standing.otp === 'accepted') {
        change.reference.set[codeField] = codeUse(before.id, 'accepted');
      }
      break;
    }
    case 'settle': {
      change.set.state = 'settled';
      // The code's print stays with the transaction, and the claim goes with the result to whoever ends it.
      change.clear.push('code', 'codePrint', 'claim', 'nextInquiryAt', 'needsReview');
      change.publish = 'otp.verification.settled';
      change.reference.release = true;
      if (verdict.code === 'untouched') {
        giveBack();
      } else if (situation.takesCode) {
        change.reference.set[codeField] = codeUse(before.id, verdict.standing.otp);
        const { transaction } = verdict.standing;
        if (transaction === 'succeeded' || transaction === 'failed') {
          change.reference.set.transaction = transaction;
          change.reference.set.provedBy = before.id;
        }
      } else if (verdict.standing.otp === 'accepted') {
        change.reference.forget = true; // a new code is on its way: what the old one used up is over
      }
      if (evidence.from === 'reference' && evidence.ownedBy !== '') told.ownedBy = evidence.ownedBy;
      break;
    }
    default:
      verdict satisfies never;
  }

  if (verdict.do === 'settle' || verdict.do === 'await') {
    const { standing } = verdict;
    change.set.standing = standingText(standing, verdict.attemptsRemaining);
    if (verdict.providersWord !== undefined) change.reference.set.left = String(verdict.providersWord);
    if (verdict.identifiers !== undefined) change.set.identifiers = JSON.stringify(verdict.identifiers);
    if (sealedDetails !== null) change.set.details = sealedDetails;
    told.otp = standing.otp;
    told.transaction = standing.transaction;
    if (standing.reason !== null) told.reason = standing.reason;
  }
  if (change.publish !== '') change.set.sequence = String(before.sequence + 1);
  change.history = historyLine(now, eventOf(evidence), begun ? before.attempts : null, told);
  return change;
}

/** Two histories may count the same revision, after a failover; they have not written it in the same millisecond. */
export function versionOf({ revision, updatedAt }: VerificationRecord): string {
  return `${revision} ${updatedAt}`;
}

/** A change as apply.lua takes it. */
export interface Application {
  readonly id: string;
  /** Of the record that it was decided on. */
  readonly version: string;
  readonly fence: Change['fence'];
  /** The server by which the fence is judged, as the journal knows it. Absent where any will do. */
  readonly server?: string;
  readonly set: Readonly<Record<string, string>>;
  readonly clear: readonly string[];
  /** A line. */
  readonly history: string;
  /** The record ends after `retentionMs`; its transaction not before the deadline of the code, in Unix ms. */
  readonly ends: boolean;
  readonly retentionMs: number;
  readonly deadline: number;
  readonly dueAt: Change['dueAt'];
  /** Awaiting since. */
  readonly awaiting: string | 'out' | 'as it is';
  readonly review: 'in' | 'out' | 'as it is';
  /** Absent where nothing of it changes. */
  readonly transaction?: Change['reference'];
  /** The type of the result, or ''. */
  readonly publish: string;
  readonly slowDownMs: number;
  readonly health: Health | '';
  /** An attempt was under way, and is over. */
  readonly endsAttempt: boolean;
}

export function applicationOf(change: Change, before: VerificationRecord, server: string | null): Application {
  const { set, clear, reference, dueAt, fence, history, health, publish, retentionMs, slowDownMs } = change;
  const state = set.state ?? before.state;
  const isInReview = set.needsReview === '1' || (before.needsReview && !clear.includes('needsReview'));
  return {
    id: before.id,
    version: versionOf(before),
    ...{ fence, set, clear, history, health, publish, dueAt, retentionMs, slowDownMs },
    ...(server === null ? {} : { server }),
    ends: set.state === 'settled',
    deadline: before.expiresAt,
    awaiting:
      state === 'awaiting'
        ? (set.awaitingSince ?? String(before.awaitingSince))
        : before.state === 'awaiting'
          ? 'out'
          : 'as it is',
    review: isInReview ? 'in' : before.needsReview ? 'out' : 'as it is',
    ...(touches(reference) ? { transaction: reference } : {}),
    endsAttempt: before.state === 'sending' && state !== 'sending',
  };
}

function touches({ set, release, forget, hold }: Change['reference']): boolean {
  return release || forget || hold || Object.keys(set).length > 0;
}

/** What a result is made of, as the record will hold it when the change is written; but for the time of the writing. */
export function snapshotOf({ set, clear }: Change, before: VerificationRecord): RawRecord {
  const { metadata, amount, traceparent, standing } = before;
  const snapshot: Record<string, string> = {
    sequence: set.sequence ?? String(before.sequence),
    operation: before.operation,
    client: before.client,
    reference: before.reference,
    createdAt: String(before.createdAt),
    expiresAt: String(before.expiresAt),
    head: headText({ metadata, amount, traceparent }),
    claim: before.claimKey,
    state: set.state ?? before.state,
  };
  const take = (field: string, was: string | null): void => {
    const is = set[field] ?? (clear.includes(field) ? null : was);
    if (is !== null) snapshot[field] = is;
  };
  take('standing', standing && standingText(standing, before.attemptsRemaining));
  take('needsReview', before.needsReview ? '1' : null);
  take('details', before.sealedDetails);
  return snapshot;
}
