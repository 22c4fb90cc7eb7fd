/** What a caller asks for, parsed once at the door. Faults name the field and what was expected, never a value. */
import { z } from 'zod';
import { type Amount, OPERATIONS, type Operation, type Params, type Provider } from '../providers/provider.ts';
import { Secret } from '../secret.ts';
import { amountSchema, metadataSchema } from './resource-schema.ts';

/** What a producer knows of a partition: no credentials. */
export interface PartitionProfile {
  readonly name: string;
  readonly definition: Pick<Provider, 'adapter' | 'operations'>;
  /** Deadline of a code when the request gives none. */
  readonly otpLifetimeMs: number;
  /** Nobody new is let in who would wait longer than this; without it, only who would wait past the deadline is not. */
  readonly maxQueueMs?: number;
}

export interface VerificationRequest {
  readonly partition: PartitionProfile;
  readonly operation: Operation;
  readonly otp: Secret<string> | null;
  readonly params: Params;
  readonly amount: Amount | null;
  /** Unix ms, or null for the partition's `otpLifetimeMs`. */
  readonly expiresAt: number | null;
  readonly metadata: Readonly<Record<string, unknown>>;
  /** W3C Trace Context of whoever asks, handed back with every result; no part of what makes a request the same. */
  readonly traceparent: string | null;
}

/** `field` is a path into the request body (`params.uuid`); `problem` says what was expected. */
export interface FieldFault {
  readonly field: string;
  readonly problem: string;
}

export class InvalidRequestError extends Error {
  override readonly name = 'InvalidRequestError';
  readonly faults: readonly FieldFault[];

  constructor(faults: readonly FieldFault[]) {
    super(`the request does not fit: ${faults.map(({ field, problem }) => `${field}: ${problem}`).join('; ')}`);
    this.faults = faults;
  }
}

const METADATA_MAX_BYTES = 4_096;
const DEEPEST = 32;
const IDEMPOTENCY_KEY = /^[!-~]{1,255}$/;

/** What every request has; `params` are the provider's own, judged by the operation's schema. */
export const requestSchema = z.strictObject({
  provider: z.string(),
  operation: z.enum(OPERATIONS).default('verify'),
  otp: z
    .string()
    .regex(/^[0-9A-Za-z]{4,10}$/, 'must be a string of 4 to 10 characters of 0-9, A-Z, a-z')
    .optional(),
  params: z.record(z.string(), z.unknown()),
  amount: amountSchema.optional(),
  expiresAt: z.iso.datetime({ offset: true }).optional(),
  metadata: metadataSchema
    .refine(
      (metadata) => Buffer.byteLength(JSON.stringify(metadata)) <= METADATA_MAX_BYTES,
      `must be at most ${METADATA_MAX_BYTES} bytes of JSON`,
    )
    .default({}),
});

/**
 * @throws InvalidRequestError with every fault at once.
 * The partition need not be allowed to the caller: that is asked after the request is known to be well-formed.
 */
export function parseRequest(body: unknown, partitions: ReadonlyMap<string, PartitionProfile>): VerificationRequest {
  // Before anything that walks the body by calling itself.
  if (isDeeperThan(body, DEEPEST)) {
    throw new InvalidRequestError([{ field: '(body)', problem: `must not be nested deeper than ${DEEPEST} levels` }]);
  }
  // A schema would pass over it in silence, and what was asked for would not be what is kept.
  if (names(body, '__proto__')) {
    throw new InvalidRequestError([{ field: '(body)', problem: 'must have no member that is named __proto__' }]);
  }
  const faults: FieldFault[] = [];
  const parsed = requestSchema.safeParse(body);
  if (!parsed.success) faults.push(...faultsOf(parsed.error, []));

  // The params are checked even when other fields are faulty, so that one answer names everything.
  const loose = (body ?? {}) as { provider?: unknown; operation?: unknown; params?: unknown; otp?: unknown };
  const partition = typeof loose.provider === 'string' ? partitions.get(loose.provider) : undefined;
  if (typeof loose.provider === 'string' && !partition) {
    faults.push({ field: 'provider', problem: `must name a partition: ${[...partitions.keys()].join(', ')}` });
  }
  const operationName = loose.operation === undefined ? 'verify' : loose.operation;
  // Only a word of ours is looked up: `constructor` would find what every object has.
  const known = OPERATIONS.includes(operationName as Operation);
  const operation = known ? partition?.definition.operations[operationName as Operation] : undefined;
  if (partition && !operation && known) {
    faults.push({
      field: 'operation',
      problem: `${partition.name} offers only ${Object.keys(partition.definition.operations).join(', ')}`,
    });
  }
  let params: Params = {};
  if (operation) {
    const given = operation.params.safeParse(loose.params ?? {});
    if (given.success) params = given.data;
    else if (typeof loose.params === 'object' && loose.params !== null)
      faults.push(...faultsOf(given.error, ['params']));
    if (operation.takesOtp && loose.otp === undefined) faults.push({ field: 'otp', problem: 'is required' });
    if (!operation.takesOtp && loose.otp !== undefined) {
      faults.push({ field: 'otp', problem: `must be absent: ${String(operationName)} takes no code` });
    }
  }
  if (faults.length > 0 || !parsed.success || !partition || !operation) throw new InvalidRequestError(faults);

  const { otp, amount, expiresAt, metadata } = parsed.data;
  return {
    partition,
    operation: parsed.data.operation,
    otp: otp === undefined ? null : new Secret(otp),
    params,
    amount: amount ?? null,
    expiresAt: expiresAt === undefined ? null : Date.parse(expiresAt),
    metadata,
    traceparent: null,
  };
}

/** Version 00 of https://www.w3.org/TR/trace-context/; anything else is passed over, as that standard asks. */
export function traceparentIn(header: string | undefined): string | null {
  const valid = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;
  return header !== undefined && valid.test(header) ? header : null;
}

/** What is wrong with an idempotency key, or null. */
export function idempotencyKeyProblem(key: unknown): string | null {
  if (key === undefined || key === '') return 'is required';
  if (typeof key === 'string' && IDEMPOTENCY_KEY.test(key)) return null;
  return 'must be 1 to 255 visible ASCII characters without spaces';
}

function isDeeperThan(value: unknown, levels: number): boolean {
  if (levels < 0) return true;
  if (typeof value !== 'object' || value === null) return false;
  for (const name in value) if (isDeeperThan(value[name as keyof typeof value], levels - 1)) return true;
  return false;
}

/** Whether anything in it has a member of that name; only for what is known to be nested a few levels deep. */
function names(value: unknown, name: string): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Object.hasOwn(value, name) || Object.values(value).some((inner) => names(inner, name));
}

/** A code may have lost its place and stand where a name should: only what looks like a name is repeated. */
export function shown(name: string): string {
  return /^[A-Za-z][A-Za-z_-]{0,63}$/.test(name) ? name : `(a name of ${name.length} characters)`;
}

/** zod's messages say what was expected and the type that came, never the value; enum and regex issues are reworded for that. */
function faultsOf(error: z.ZodError, at: readonly string[]): FieldFault[] {
  return error.issues.flatMap((issue) => {
    const field = [...at, ...issue.path.map(String)].join('.') || '(body)';
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => ({
        field: [...at, ...issue.path.map(String), shown(key)].join('.'),
        problem: 'is not a known field',
      }));
    }
    const missing = issue.code === 'invalid_type' && issue.message.includes('received undefined');
    return [{ field, problem: missing ? 'is required' : issue.message }];
  });
}
