/**
 * The journal's record of one verification: one Redis hash in the partition's slot, apart from the BullMQ job, because a
 * job can be retried, duplicated or removed by anyone with a board. Scripts change it; this file only reads it and
 * shows it as the resource that clients see.
 *
 *   queued -> sending -> queued (provably not sent) | awaiting (accepted and pending, or unknown) | settled
 */
import type { Amount, NextStep, Operation, Params, Reason } from '../providers/provider.ts';

export type State = 'queued' | 'sending' | 'awaiting' | 'settled';
export type OtpOutcome = 'accepted' | 'rejected' | 'not_submitted' | 'unknown';
export type TransactionOutcome = 'succeeded' | 'failed' | 'pending' | 'unknown' | 'none';

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
  /** Compact JWE; null as soon as the code can no longer be sent. */
  readonly sealedCode: string | null;
  /** Keyed hash of the code; tells "the same code again" without telling the code. */
  readonly codePrint: string;
  readonly claimKey: string;
  readonly state: State;
  /** Raised by every change; a change is applied only to the revision it was decided on. */
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

export type RawRecord = Readonly<Record<string, string>>;

export function readRecord(id: string, partition: string, raw: RawRecord): VerificationRecord | null {
  if (raw.state === undefined) return null;
  const number = (field: string): number => Number(raw[field] ?? 0);
  const text = (field: string): string | null => raw[field] ?? null;
  const head = JSON.parse(raw.head ?? '{}') as Pick<VerificationRecord, 'metadata' | 'amount' | 'plainParams'>;
  return {
    id,
    partition,
    operation: raw.operation as Operation,
    client: raw.client ?? '',
    reference: raw.reference ?? '',
    createdAt: number('createdAt'),
    updatedAt: number('updatedAt'),
    expiresAt: number('expiresAt'),
    metadata: head.metadata,
    amount: head.amount,
    plainParams: head.plainParams,
    sealedCode: text('code'),
    codePrint: raw.codePrint ?? '',
    claimKey: raw.claim ?? '',
    state: raw.state as State,
    revision: number('revision'),
    sequence: number('sequence'),
    final: raw.final === '1',
    attempts: number('attempts'),
    attemptsUsed: number('used'),
    refusals: number('refusals'),
    notSent: number('notSent'),
    token: text('token'),
    owner: text('owner'),
    beganAt: number('beganAt'),
    inFlightUntil: number('inFlightUntil'),
    notBefore: number('notBefore'),
    standing:
      raw.otp === undefined
        ? null
        : {
            otp: raw.otp as OtpOutcome,
            transaction: raw.transaction as TransactionOutcome,
            reason: text('reason') as Reason | null,
            nextStep: raw.nextStep as NextStep,
            providerCode: text('providerCode'),
          },
    attemptsRemaining: raw.attemptsRemaining === undefined ? null : number('attemptsRemaining'),
    needsReview: raw.needsReview === '1',
    hinted: raw.hinted === '1',
    awaitingSince: number('awaitingSince'),
    inquiries: number('inquiries'),
    nextInquiryAt: number('nextInquiryAt'),
    notPaidAt: number('notPaidAt'),
    identifiers: JSON.parse(raw.identifiers ?? '[]') as string[],
    sealedDetails: text('details'),
    history: readHistory(raw.history),
  };
}

/** History is kept as JSON lines, so that a script appends without parsing. */
function readHistory(lines: string | undefined): HistoryEntry[] {
  return (lines ?? '')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as HistoryEntry);
}

/** The verification as clients, consoles and results show it. Times are ISO 8601 in UTC. */
export interface VerificationResource {
  id: string;
  provider: string;
  operation: Operation;
  reference: string;
  state: State;
  sequence: number;
  final: boolean;
  otp: OtpOutcome | null;
  transaction: TransactionOutcome | null;
  reason: Reason | null;
  nextStep: NextStep | null;
  attemptsRemaining: number | null;
  needsReview: boolean;
  providerCode: string | null;
  createdAt: string;
  updatedAt: string;
  expiresAt: string;
  amount?: Amount;
  metadata: Readonly<Record<string, unknown>>;
  /** An object, or a compact JWE where the client has a results key. Absent when the provider gave none. */
  details?: unknown;
  history?: { at: string; event: string; attempt?: number; [fact: string]: unknown }[];
}

export function resourceOf(record: VerificationRecord): VerificationResource {
  const { standing } = record;
  return {
    id: record.id,
    provider: record.partition,
    operation: record.operation,
    reference: record.reference,
    state: record.state,
    sequence: record.sequence,
    final: record.final,
    otp: standing?.otp ?? null,
    transaction: standing?.transaction ?? null,
    reason: standing?.reason ?? null,
    nextStep: standing?.nextStep ?? null,
    attemptsRemaining: record.attemptsRemaining,
    needsReview: record.needsReview,
    providerCode: standing?.providerCode ?? null,
    createdAt: isoTime(record.createdAt),
    updatedAt: isoTime(record.updatedAt),
    expiresAt: isoTime(record.expiresAt),
    ...(record.amount ? { amount: record.amount } : {}),
    metadata: record.metadata,
    history: record.history.map((entry) => ({ ...entry, at: isoTime(entry.at) })),
  };
}

/** The verification as it was accepted: the same answer, however often the same request is repeated. */
export function acceptedResourceOf(record: VerificationRecord): VerificationResource {
  return {
    ...resourceOf({
      ...record,
      state: 'queued',
      sequence: 0,
      final: false,
      standing: null,
      attemptsRemaining: null,
      needsReview: false,
      updatedAt: record.createdAt,
    }),
    history: [{ at: isoTime(record.createdAt), event: 'accepted' }],
  };
}

export function isoTime(unixMs: number): string {
  return new Date(unixMs).toISOString();
}
