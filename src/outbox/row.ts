/**
 * A row of the outbox: made by the program that has the code, admitted by a relay that could not open it. All that
 * acceptance makes of the code in the clear (the seal, the print, the fingerprint, the id) is made before the row is written.
 */
import { z } from 'zod';
import { type Draft, draftOf, fingerprintOf } from '../producers/accept.ts';
import { newVerificationId, partitionOf } from '../producers/job.ts';
import { asJson, knowledgeOf, type ProducerOptions } from '../producers/producer.ts';
import { InvalidRequestError, idempotencyKeyProblem, parseRequest, traceparentIn } from '../producers/request.ts';
import { kidOf, Sealer } from '../producers/sealing.ts';
import { OPERATIONS } from '../providers/provider.ts';

/** As for `createProducer`, without a Redis: the row needs none. */
export type OutboxSealerOptions = Pick<ProducerOptions, 'client' | 'sealingKeys' | 'partitions'>;

export interface OutboxOptions {
  /** 1 to 255 visible ASCII characters; once in the table for each client. */
  readonly idempotencyKey: string;
  /** Rows of one payment are relayed in the order of their ids. */
  readonly payment: string;
  /** W3C Trace Context of the caller, handed back with every result. */
  readonly traceparent?: string;
}

/** The columns of a new row. */
export interface OutboxRow {
  readonly client: string;
  readonly idempotencyKey: string;
  readonly payment: string;
  /** Readable; `request.id` is the id that the verification will have. */
  readonly request: OutboxRequest;
  readonly sealed: string;
}

export interface OutboxSealer {
  /**
   * Asks nobody and opens no connection, so it may be called within a transaction.
   * The deadline of the code runs from now on, however long the row waits.
   * @throws InvalidRequestError
   */
  sealForOutbox(body: unknown, options: OutboxOptions): Promise<OutboxRow>;
}

/** https://tc39.es/ecma262/#sec-time-values-and-time-range */
const LAST_DATE_MS = 8_640_000_000_000_000;

const outboxRequestSchema = z.strictObject({
  v: z.literal(1),
  id: z.string(),
  provider: z.string(),
  operation: z.enum(OPERATIONS),
  reference: z.string().min(1),
  plainParams: z.record(z.string(), z.unknown()),
  amount: z.strictObject({ value: z.string(), currency: z.string() }).nullable(),
  metadata: z.record(z.string(), z.unknown()),
  /** Unix ms. */
  expiresAt: z.int().min(0).max(LAST_DATE_MS),
  /** Keyed hashes: of the whole request, and of the code. */
  fingerprint: z.string().min(1),
  codePrint: z.string(),
  traceparent: z.string().optional(),
});
export type OutboxRequest = z.infer<typeof outboxRequestSchema>;

export function outboxSealerOf(options: OutboxSealerOptions): OutboxSealer {
  const { client, partitions, keySet } = knowledgeOf(options, 'createOutboxSealer');
  const sealer = Sealer.create(keySet);
  sealer.catch(() => {}); // told by the first row
  return {
    async sealForOutbox(body, { idempotencyKey, payment, traceparent }) {
      const keyProblem = idempotencyKeyProblem(idempotencyKey);
      if (keyProblem !== null) throw new InvalidRequestError([{ field: 'idempotencyKey', problem: keyProblem }]);
      if (typeof payment !== 'string' || payment === '') {
        throw new InvalidRequestError([{ field: 'payment', problem: 'must be a text that names the payment' }]);
      }
      const json = asJson(body);
      const request = parseRequest(json, partitions);
      if (!isStorable(request.metadata)) {
        const problem = 'must have no U+0000 and no half of a surrogate pair, which a jsonb column refuses';
        throw new InvalidRequestError([{ field: 'metadata', problem }]);
      }
      const { name: provider, otpLifetimeMs } = request.partition;
      const expiresAt = request.expiresAt ?? Date.now() + otpLifetimeMs;
      const draft = await draftOf(
        client,
        newVerificationId(provider),
        { ...request, traceparent: traceparentIn(traceparent) },
        await sealer,
      );
      const { sealed, id, operation, reference, head, codePrint } = draft;
      const fingerprint = fingerprintOf(client, json);
      return {
        ...{ client: client.id, idempotencyKey, payment, sealed },
        request: { v: 1, id, provider, operation, reference, ...head, expiresAt, fingerprint, codePrint },
      };
    },
  };
}

function isStorable(value: unknown): boolean {
  if (typeof value === 'string') return !value.includes('\u0000') && Buffer.from(value).toString() === value;
  if (typeof value !== 'object' || value === null) return true;
  return Object.entries(value).every(([name, inner]) => isStorable(name) && isStorable(inner));
}

/** A row as it stands in the table. */
export interface StoredRow {
  /** A bigint, which comes as text. */
  readonly id: string;
  readonly client: string;
  readonly idempotency_key: string;
  readonly request: unknown;
  readonly sealed: string;
}

/** What a row asks for, or why it can never be relayed, naming the column or the configuration key. */
export function draftIn(
  row: StoredRow,
): { readonly draft: Draft; readonly fingerprint: string } | { readonly problem: string } {
  const parsed = outboxRequestSchema.safeParse(row.request);
  if (!parsed.success) {
    const where = parsed.error.issues.map(({ path }) => ['request', ...path].join('.'));
    return { problem: `${[...new Set(where)].join(', ')}: is not what sealForOutbox makes` };
  }
  const keyProblem = idempotencyKeyProblem(row.idempotency_key);
  if (keyProblem !== null) return { problem: `idempotency_key: ${keyProblem}` };
  // A program that writes rows by itself may have put the code there as it is: it goes no further.
  if (kidOf(row.sealed) === null) return { problem: 'sealed: is no compact JWE with a kid' };
  const { v: _, provider, fingerprint, metadata, amount, plainParams, traceparent, ...request } = parsed.data;
  if (partitionOf(request.id) !== provider) return { problem: 'request.id: is no id of request.provider' };
  const head = { metadata, amount, plainParams, ...(traceparent === undefined ? {} : { traceparent }) };
  // The lifetime is in expiresAt already.
  const draft = { ...request, partition: provider, client: row.client, otpLifetimeMs: 0, head, sealed: row.sealed };
  return { draft, fingerprint };
}
