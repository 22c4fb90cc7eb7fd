/** A published revision as its consumers receive it: one CloudEvents 1.0 object, in a results queue or a webhook. */
import { z } from 'zod';
import type { VerificationRecord } from './record.ts';
import { dataOf, isoTime, type VerificationResource } from './resource.ts';

export const RESULT_TYPES = [
  'otp.verification.awaiting',
  'otp.verification.settled',
  'otp.verification.review',
] as const;
export type ResultType = (typeof RESULT_TYPES)[number];

export interface ResultEvent {
  readonly specversion: '1.0';
  /** `<verification id>.<sequence>`: the same whenever the same revision is said again, and the job's id. */
  readonly id: string;
  /** `/otp/<partition>` */
  readonly source: string;
  readonly type: ResultType;
  /** The verification's id. */
  readonly subject: string;
  readonly time: string;
  /** Who enqueued the verification. */
  readonly client: string;
  readonly datacontenttype: 'application/json';
  /** The Distributed Tracing extension of CloudEvents: the trace of the request, where it came with one. */
  readonly traceparent?: string;
  /** `details`, where there are any, is a compact JWE to the client's results key, and absent without such a key. */
  readonly data: Omit<VerificationResource, 'history'>;
}

/**
 * `type` may come as the plain text of an outbox entry. `includeDetails` says that the client has a results key: only
 * then are the record's sealed details meant for it, and never in the open.
 */
export function resultEventOf(
  record: VerificationRecord,
  type: string,
  client: string,
  includeDetails: boolean,
): ResultEvent {
  if (!isResultType(type)) throw new Error(`a result must be one of ${RESULT_TYPES.join(', ')}`);
  const data = dataOf(record);
  return {
    specversion: '1.0',
    id: resultIdOf(record.id, record.sequence),
    source: `/otp/${record.partition}`,
    type,
    subject: record.id,
    time: isoTime(record.updatedAt),
    client,
    datacontenttype: 'application/json',
    ...(record.traceparent === null ? {} : { traceparent: record.traceparent }),
    data: includeDetails && record.sealedDetails !== null ? { ...data, details: record.sealedDetails } : data,
  };
}

/** `<verification id>.<sequence>`: the result's id, its job's id, and what is announced to waiting callers. */
function resultIdOf(id: string, sequence: number): string {
  return `${id}.${sequence}`;
}

function isResultType(type: string): type is ResultType {
  return (RESULT_TYPES as readonly string[]).includes(type);
}

/**
 * What a consumer relies on, checked before it is handed on; anything more is let through, so that a later version of
 * the service may add fields.
 */
export const resultEventSchema = z
  .looseObject({
    specversion: z.literal('1.0'),
    id: z.string().min(1),
    source: z.string().startsWith('/otp/'),
    type: z.enum(RESULT_TYPES),
    subject: z.string().min(1),
    time: z.iso.datetime(),
    client: z.string().min(1),
    data: z.looseObject({ id: z.string(), state: z.string(), sequence: z.int().min(1), final: z.boolean() }),
  })
  .refine(({ id, subject, data }) => data.id === subject && id === resultIdOf(subject, data.sequence), {
    path: ['id'],
    error: 'must be the subject, a dot and data.sequence',
  });
