/** A verification as clients, consoles and results see it, made of the journal's record. */
import type { Amount, NextStep, Operation, Reason } from '../providers/provider.ts';
import type { OtpOutcome, State, TransactionOutcome, VerificationRecord } from './record.ts';

/** Times are ISO 8601 in UTC. */
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
  return { ...dataOf(record), history: record.history.map((entry) => ({ ...entry, at: isoTime(entry.at) })) };
}

/** All of it but its history: what a result carries. */
export function dataOf(record: VerificationRecord): Omit<VerificationResource, 'history'> {
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
