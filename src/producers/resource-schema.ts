/** What clients are shown, as schemas: for the API's own description, and for whoever checks what came. */
import { z } from 'zod';
import { NEXT_STEPS, OPERATIONS, REASONS } from '../providers/provider.ts';
import type { VerificationResource } from './resource.ts';

const time = z.iso.datetime().describe('ISO 8601, in UTC');

export const amountSchema = z
  .strictObject({
    value: z
      .string()
      .regex(/^\d{1,15}(\.\d{1,8})?$/, 'must be a decimal string such as "100.00"')
      .describe('a decimal string, never a float'),
    currency: z
      .string()
      .regex(/^[A-Z]{3}$/, 'must be an ISO 4217 code such as "NGN"')
      .describe('ISO 4217'),
  })
  .describe('What the provider reports must equal it before anything counts as succeeded');

export const metadataSchema = z
  .record(z.string(), z.unknown())
  .describe("The client's own, handed back as it came; at most 4096 bytes of JSON, and never a secret");

/** The verification as every answer, result and webhook shows it. */
export const verificationResourceSchema = z.object({
  id: z.string().describe('Names the partition, then 32 hex characters that sort by time'),
  provider: z.string().describe('The partition'),
  operation: z.enum(OPERATIONS),
  reference: z
    .string()
    .describe("The provider's own reference of the transaction; a keyed hash where that is a person"),
  state: z
    .enum(['queued', 'sending', 'awaiting', 'settled'])
    .describe('`awaiting`: accepted and pending, or unknown; proof is being looked for'),
  sequence: z.int().min(0).describe('How many revisions were published; 0 before the first'),
  final: z.boolean().describe('Said once and never taken back'),
  otp: z
    .enum(['accepted', 'rejected', 'not_submitted', 'unknown'])
    .nullable()
    .describe('What became of the code; null while queued or sending'),
  transaction: z
    .enum(['succeeded', 'failed', 'pending', 'unknown', 'none'])
    .nullable()
    .describe('What became of the money; `none` where this operation moves none'),
  reason: z.enum(REASONS).nullable(),
  nextStep: z.enum(NEXT_STEPS).nullable().describe('What the customer or the shop should do now'),
  attemptsRemaining: z.int().min(0).nullable(),
  needsReview: z.boolean().describe('A person has to look'),
  providerCode: z.string().nullable().describe("The provider's own word"),
  createdAt: time,
  updatedAt: time,
  expiresAt: time.describe('The deadline of the code: it is not sent at or after it'),
  amount: amountSchema.optional(),
  metadata: metadataSchema,
  details: z
    .unknown()
    .optional()
    .describe('What else the provider said, for its client alone: an object, or a compact JWE to its results key'),
  history: z.array(z.looseObject({ at: time, event: z.string(), attempt: z.int().min(1).optional() })).optional(),
});

/** The two must not drift apart: this does not compile when they do. */
type Same<A, B> = [A, B] extends [B, A] ? true : never;
type Plain<T> = { -readonly [K in keyof T]: T[K] };
const agree: Same<
  Omit<z.infer<typeof verificationResourceSchema>, 'amount' | 'details' | 'history' | 'metadata'>,
  Plain<Omit<VerificationResource, 'amount' | 'details' | 'history' | 'metadata'>>
> = true;
void agree;
