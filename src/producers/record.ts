/**
 * The journal's record of one verification: one Redis hash in the partition's slot, apart from the BullMQ job, because a
 * job can be retried, duplicated or removed by anyone with a board. Scripts change it; this file reads it, and knows how
 * those of its fields are written that hold more than one thing.
 *
 *   queued -> sending -> queued (provably not sent) | awaiting (accepted and pending, or unknown) | settled
 */
import {
  type Amount,
  NEXT_STEPS,
  type NextStep,
  OPERATIONS,
  type Operation,
  type Params,
  REASONS,
  type Reason,
} from '../providers/provider.ts';

export const STATES = ['queued', 'sending', 'awaiting', 'settled'] as const;
export type State = (typeof STATES)[number];
const OTP_OUTCOMES = ['accepted', 'rejected', 'not_submitted', 'unknown'] as const;
export type OtpOutcome = (typeof OTP_OUTCOMES)[number];
const TRANSACTION_OUTCOMES = ['succeeded', 'failed', 'pending', 'unknown', 'none'] as const;
export type TransactionOutcome = (typeof TRANSACTION_OUTCOMES)[number];

/** What is known of a verification at the end of a step: the part of the resource that a verdict decides. */
export interface Standing {
  readonly otp: OtpOutcome;
  readonly transaction: TransactionOutcome;
  readonly reason: Reason | null;
  readonly nextStep: NextStep;
  readonly providerCode: string | null;
}

/** Times are Unix milliseconds by the clock of Redis. Fields that are absent in the hash read as null, 0 or false. */
export interface VerificationRecord {
  readonly id: string;
  readonly partition: string;
  readonly operation: Operation;
  readonly client: string;
  readonly reference: string;
  readonly createdAt: number;
  readonly updatedAt: number;
  /** The code's deadline: it is not sent at or after this time. */
  readonly expiresAt: number;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly amount: Amount | null;
  readonly plainParams: Params;
  /** W3C Trace Context of the request, where it came with one. */
  readonly traceparent: string | null;
  /** Compact JWE; null as soon as the code can no longer be sent. */
  readonly sealedCode: string | null;
  /** Keyed hash of the code; tells "the same code again" without telling the code. '' without a code, and once final. */
  readonly codePrint: string;
  /** Of the idempotency key; '' once final. */
  readonly claimKey: string;
  readonly state: State;
  /** Raised by every change; a change is applied only to the revision, of that time, it was decided on. */
  readonly revision: number;
  /** Published revisions. */
  readonly sequence: number;
  readonly final: boolean;
  /** Submissions begun; the number of the latest attempt. */
  readonly attempts: number;
  /** Submissions that count against the transaction's budget, as of the latest attempt and with it. */
  readonly attemptsUsed: number;
  /** Documented refusals before the business layer so far. */
  readonly refusals: number;
  /** Attempts in a row that provably did not leave. */
  readonly notSent: number;
  readonly token: string | null;
  readonly owner: string | null;
  readonly beganAt: number;
  /** Until then the latest attempt may still be on its way; an earlier proof of no payment is only a hint. */
  readonly inFlightUntil: number;
  readonly notBefore: number;
  readonly standing: Standing | null;
  readonly attemptsRemaining: number | null;
  readonly needsReview: boolean;
  /** A callback has come before the attempt had ended. */
  readonly hinted: boolean;
  readonly awaitingSince: number;
  readonly inquiries: number;
  /** 0: no inquiry is scheduled. */
  readonly nextInquiryAt: number;
  /** When a counted inquiry first proved that nothing was paid; a second one makes it final. */
  readonly notPaidAt: number;
  readonly identifiers: readonly string[];
  /** Compact JWE to the client's results key, or to the intake's details key. */
  readonly sealedDetails: string | null;
  readonly history: readonly HistoryEntry[];
}

export interface HistoryEntry {
  readonly at: number;
  readonly event: string;
  readonly attempt?: number;
  readonly [fact: string]: unknown;
}

/** In the field `v`. What changes the meaning of a field that is there already must raise it. */
const RECORD_FORMAT = '1';

export type RawRecord = Readonly<Record<string, string>>;

/** Somebody else has written into the journal, or has taken something out of it. */
export class RecordError extends Error {
  override readonly name: string = 'RecordError';

  /** Names the field and never what it holds, which may be a customer's. */
  constructor(id: string, field: string, expected: string) {
    super(`the record of ${id} cannot be read: its ${field} must be ${expected}`);
  }
}

/** A later version of this service wrote it: whoever does not know its words leaves it alone. */
export class NewerFormatError extends RecordError {
  override readonly name = 'NewerFormatError';

  constructor(id: string) {
    super(id, 'v', `${RECORD_FORMAT}, and a newer version has written it`);
  }
}

/** Null where there is none. @throws RecordError */
export function readRecord(id: string, partition: string, raw: RawRecord): VerificationRecord | null {
  if (raw.state === undefined) return null;
  // What stands in an outbox has none.
  if (raw.v !== undefined && raw.v !== RECORD_FORMAT) throw new NewerFormatError(id);
  const number = (field: string): number => {
    const value = Number(raw[field] ?? 0);
    if (isMeasure(value)) return value;
    throw new RecordError(id, field, 'a number');
  };
  const text = (field: string): string | null => raw[field] ?? null;
  const state = wordIn(id, 'state', STATES, raw.state);
  const { metadata = {}, amount = null, plainParams = {}, traceparent = null } = headIn(id, raw.head ?? '{}');
  const { standing, attemptsRemaining } = raw.standing === undefined ? UNDECIDED : standingIn(id, raw.standing);
  const identifiers = jsonIn(id, 'identifiers', raw.identifiers ?? '[]');
  if (!Array.isArray(identifiers) || identifiers.some((one) => typeof one !== 'string')) {
    throw new RecordError(id, 'identifiers', 'a list of texts');
  }
  return {
    id,
    partition,
    operation: wordIn(id, 'operation', OPERATIONS, raw.operation),
    client: raw.client ?? '',
    reference: raw.reference ?? '',
    createdAt: number('createdAt'),
    updatedAt: number('updatedAt'),
    expiresAt: number('expiresAt'),
    metadata,
    amount,
    plainParams,
    traceparent,
    sealedCode: text('code'),
    codePrint: raw.codePrint ?? '',
    claimKey: raw.claim ?? '',
    state,
    revision: number('revision'),
    sequence: number('sequence'),
    final: state === 'settled',
    attempts: number('attempts'),
    attemptsUsed: number('used'),
    refusals: number('refusals'),
    notSent: number('notSent'),
    token: text('token'),
    owner: text('owner'),
    beganAt: number('beganAt'),
    inFlightUntil: number('inFlightUntil'),
    notBefore: number('notBefore'),
    standing,
    attemptsRemaining,
    needsReview: raw.needsReview === '1',
    hinted: raw.hinted === '1',
    awaitingSince: number('awaitingSince'),
    inquiries: number('inquiries'),
    nextInquiryAt: number('nextInquiryAt'),
    notPaidAt: number('notPaidAt'),
    identifiers,
    sealedDetails: text('details'),
    history: historyIn(id, raw.history ?? ''),
  };
}

/** What a client has said besides, in the field `head`; what it left empty is not there. */
export interface Head {
  readonly metadata?: Readonly<Record<string, unknown>>;
  readonly amount?: Amount | null;
  readonly plainParams?: Readonly<Record<string, unknown>>;
  readonly traceparent?: string | null;
}

export function headText({ metadata = {}, amount, plainParams = {}, traceparent }: Head): string {
  const head: { -readonly [Name in keyof Head]: Head[Name] } = {};
  if (Object.keys(metadata).length > 0) head.metadata = metadata;
  if (amount) head.amount = amount;
  if (Object.keys(plainParams).length > 0) head.plainParams = plainParams;
  if (traceparent) head.traceparent = traceparent;
  return JSON.stringify(head);
}

function headIn(id: string, text: string): Head {
  const head = jsonIn(id, 'head', text);
  if (!isMapping(head)) throw new RecordError(id, 'head', 'a JSON object');
  const { metadata, amount, plainParams, traceparent = null } = head;
  if (metadata !== undefined && !isMapping(metadata)) throw new RecordError(id, 'head.metadata', 'a JSON object');
  if (plainParams !== undefined && !isMapping(plainParams))
    throw new RecordError(id, 'head.plainParams', 'a JSON object');
  if (!isTextOrNull(traceparent)) throw new RecordError(id, 'head.traceparent', 'a text');
  if (amount !== undefined && !isAmountOrNull(amount)) throw new RecordError(id, 'head.amount', 'an amount');
  return head;
}

/** The field `standing`: a list, because the names of its parts would take as much of Redis as what they say. */
export function standingText(standing: Standing, attemptsRemaining: number | null): string {
  const { otp, transaction, reason, nextStep, providerCode } = standing;
  return JSON.stringify([otp, transaction, reason, nextStep, providerCode, attemptsRemaining]);
}

type Decided = Pick<VerificationRecord, 'standing' | 'attemptsRemaining'>;
const UNDECIDED: Decided = { standing: null, attemptsRemaining: null };

function standingIn(id: string, text: string): Decided {
  const parts = jsonIn(id, 'standing', text);
  if (!Array.isArray(parts)) throw new RecordError(id, 'standing', 'a list');
  const [otp, transaction, reason, nextStep, providerCode = null, attemptsRemaining = null] = parts as unknown[];
  if (!isTextOrNull(providerCode)) throw new RecordError(id, 'standing.providerCode', 'a text');
  if (attemptsRemaining !== null && !isMeasure(attemptsRemaining))
    throw new RecordError(id, 'standing.attemptsRemaining', 'a number');
  return {
    standing: {
      otp: wordIn(id, 'standing.otp', OTP_OUTCOMES, otp),
      transaction: wordIn(id, 'standing.transaction', TRANSACTION_OUTCOMES, transaction),
      reason: reason === null ? null : wordIn(id, 'standing.reason', REASONS, reason),
      nextStep: wordIn(id, 'standing.nextStep', NEXT_STEPS, nextStep),
      providerCode,
    },
    attemptsRemaining,
  };
}

/** A line of the field `history`, to which scripts append without parsing. */
export function historyLine(
  at: number,
  event: string,
  attempt: number | null,
  facts: Readonly<Record<string, unknown>>,
): string {
  const told = JSON.stringify(facts);
  return `${at} ${event}${attempt === null ? '' : ` ${attempt}`}${told === '{}' ? '' : ` ${told}`}\n`;
}

/** `<Unix ms> <event>[ <attempt>][ <facts as JSON>]`, in which a person may have written U+2028. */
const HISTORY_LINE = /^(\d+) ([a-z_]+)(?: (\d+))?(?: (\{.*\}))?$/s;

function historyIn(id: string, text: string): HistoryEntry[] {
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.map((line) => {
    const [, time, event = '', attempt, json] = HISTORY_LINE.exec(line) ?? [];
    const at = Number(time);
    if (!isMeasure(at))
      throw new RecordError(id, 'history', 'lines of a time, an event, the attempt and facts in JSON');
    const entry = attempt === undefined ? { at, event } : { at, event, attempt: Number(attempt) };
    if (json === undefined) return entry;
    const facts = jsonIn(id, 'history', json) as Readonly<Record<string, unknown>>; // it stands in braces
    return { ...entry, ...facts, ...entry }; // no fact may pass for one of these
  });
}

function jsonIn(id: string, field: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new RecordError(id, field, 'JSON'); // the parser's own message would quote it
  }
}

function wordIn<Word extends string>(id: string, field: string, words: readonly Word[], given: unknown): Word {
  const found = words.find((one) => one === given);
  if (found !== undefined) return found;
  throw new RecordError(id, field, `one of ${words.join(', ')}`);
}

/** In Unix milliseconds, as far as a Date reaches (ECMAScript §21.4.1.1). */
const LATEST_TIME = 8.64e15;

function isMeasure(value: unknown): value is number {
  return typeof value === 'number' && Math.abs(value) <= LATEST_TIME;
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === 'string';
}

function isAmountOrNull(value: unknown): value is Amount | null {
  return value === null || (isMapping(value) && typeof value.value === 'string' && typeof value.currency === 'string');
}
