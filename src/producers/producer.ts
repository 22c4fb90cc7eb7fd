/**
 * The library's way in: the same acceptance as the HTTP intake's, in the caller's own process. It holds the public half
 * of the sealing keys, so it cannot open what it has sealed.
 */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { EventBus } from '../events.ts';
import { providers } from '../providers/index.ts';
import type { connectRedis, RedisSettings } from '../redis/connections.ts';
import { Held } from '../redis/held.ts';
import { Secret } from '../secret.ts';
import { within } from '../time-limit.ts';
import { type Acceptance, type AcceptingClient, acceptParsed } from './accept.ts';
import { producerQueues } from './queues.ts';
import { readVerification } from './reading.ts';
import {
  InvalidRequestError,
  idempotencyKeyProblem,
  type PartitionProfile,
  parseRequest,
  shown,
  traceparentIn,
} from './request.ts';
import { resourceOf, type VerificationResource } from './resource.ts';
import { publicKeySet, Sealer, type SealingKeySet, sealingKeySetSchema } from './sealing.ts';

export interface ProducerOptions {
  /** As it stands in the service's configuration, or its hash: idempotency fingerprints are made with that. */
  readonly client: { readonly id: string; readonly apiKey: string };
  readonly redis: string | RedisSettings;
  /** The service's JWK set or the path of its file; the public half is enough, and no other is kept. */
  readonly sealingKeys: unknown;
  /**
   * One ephemeral key for many sealed texts costs a small part of the CPU time of a fresh one each; what it costs in
   * secrecy is in docs/decisions/0006. `forMs` at most an hour, `messages` at most 2^20. Off by default.
   */
  readonly reuseEphemeralKey?: { readonly forMs: number; readonly messages: number };
  /** As the service knows them; `adapter` defaults to the partition's name, `otpLifetimeMs` to 300000. */
  readonly partitions: Readonly<Record<string, { readonly adapter?: string; readonly otpLifetimeMs?: number }>>;
  /** As the service's `journal.waitReplicas` and `journal.waitMs`; `auto` and 200 by default. */
  readonly waitReplicas?: number | 'auto';
  readonly waitMs?: number;
  /** After this a Redis that has not answered counts as away; 1000 by default. */
  readonly timeLimitMs?: number;
  /** Faults of the connection, which mends itself; they are not told otherwise. */
  readonly onError?: (error: Error) => void;
}

export interface Enqueued {
  readonly id: string;
  /** This key had already been accepted: the id is that of the first time. */
  readonly repeated: boolean;
}

export interface EnqueueOptions {
  /** 1 to 255 visible ASCII characters. */
  readonly idempotencyKey: string;
  /** W3C Trace Context of the caller, handed back with every result. */
  readonly traceparent?: string;
}

export interface Producer {
  /**
   * @throws InvalidRequestError, IdempotencyMismatchError, AcceptInProgressError, AcceptanceUnknownError
   * @example
   * const { id } = await producer.enqueue(
   *   { provider: 'cepta', otp: '012345', params: { transactionRef: 'TX12345ABC', paymentId: 'PAY1', md: 'data' } },
   *   { idempotencyKey: 'order-17-code-1' },
   * );
   */
  enqueue(body: unknown, options: EnqueueOptions): Promise<Enqueued>;
  /**
   * The verification as it stands, or null when this client has none of that id. `details` stay sealed: to the client's
   * results key, or to the service's own, which GET opens.
   */
  read(id: string): Promise<VerificationResource | null>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The key was used for another body. A new request needs a new key. */
export class IdempotencyMismatchError extends Error {
  override readonly name = 'IdempotencyMismatchError';
}

/** The same key with the same body is being accepted by somebody else; repeated a little later it gives that answer. */
export class AcceptInProgressError extends Error {
  override readonly name = 'AcceptInProgressError';
}

/** Redis is away or does not answer: it may or may not be accepted, and the same key repeated gives the one answer. */
export class AcceptanceUnknownError extends Error {
  override readonly name = 'AcceptanceUnknownError';
}

const TIME_LIMIT_MS = 1_000;

/** Ten years: what comes out is still a date. */
const LONGEST_LIFETIME_MS = 315_360_000_000;
/** A longer timer would end at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

const optionsSchema = z.looseObject({
  client: z.looseObject({ id: z.string().min(1), apiKey: z.string().min(1) }),
  partitions: z.record(
    z.string().regex(/^[a-z0-9][a-z0-9-]{0,39}$/, 'must be 1 to 40 of a-z, 0-9 and -'),
    z.strictObject({
      adapter: z.string().optional(),
      otpLifetimeMs: z.int().positive().max(LONGEST_LIFETIME_MS).optional(),
    }),
  ),
  timeLimitMs: z.int().positive().max(LONGEST_TIMER_MS).optional(),
  reuseEphemeralKey: z
    .strictObject({
      forMs: z.int().min(1).max(3_600_000),
      messages: z
        .int()
        .min(1)
        .max(2 ** 20),
    })
    .optional(),
});

/** Everything that can be wrong with the options is said here, before a connection is opened. */
export function producerOf(options: ProducerOptions, connect: typeof connectRedis): Producer {
  const { client, partitions, keySet } = knowledgeOf(options, 'createProducer');
  const { timeLimitMs = TIME_LIMIT_MS, onError = () => {} } = options;

  const redis = connect(options.redis, 'producer', { onError, name: 'otp-producer' });
  const queues = producerQueues(redis);
  const { waitReplicas = 'auto', waitMs } = options;
  const held = new Held({ redis, waitReplicas, waitMs, onError });
  const sealer = Sealer.create(keySet, { reuseEphemeralKey: options.reuseEphemeralKey });
  sealer.catch(() => {}); // told by the first enqueue
  const events = new EventBus(); // nobody listens
  let closing: Promise<void> | null = null;

  async function enqueue(body: unknown, { idempotencyKey, traceparent }: EnqueueOptions): Promise<Enqueued> {
    const keyProblem = idempotencyKeyProblem(idempotencyKey);
    if (keyProblem !== null) throw new InvalidRequestError([{ field: 'idempotencyKey', problem: keyProblem }]);
    const json = asJson(body);
    const request = { ...parseRequest(json, partitions), traceparent: traceparentIn(traceparent) };
    const accepting = acceptParsed(client, idempotencyKey, json, request, {
      redis,
      sealer: await sealer,
      events,
      partitions,
      queue: queues.queue,
      held,
    });
    const acceptance = await within(timeLimitMs, accepting).catch((error: unknown): never => {
      if (error instanceof InvalidRequestError) throw error;
      throw new AcceptanceUnknownError(
        'Redis is away or does not answer, so it is not known whether the verification was accepted; ' +
          'repeating it with the same idempotencyKey is safe and gives the one answer',
        { cause: error },
      );
    });
    return enqueuedOf(acceptance);
  }

  async function read(id: string): Promise<VerificationResource | null> {
    const record = await within(timeLimitMs, readVerification(redis, id));
    if (record?.client !== client.id) return null;
    return { ...resourceOf(record), ...(record.sealedDetails === null ? {} : { details: record.sealedDetails }) };
  }

  async function end(): Promise<void> {
    // What is on its way gets its answer; a Redis that is away gets no further wait.
    await within(timeLimitMs, Promise.all([queues.close(), redis.quit()])).catch(() => {});
    held.close();
    redis.disconnect();
  }
  const close = (): Promise<void> => {
    closing ??= end();
    return closing;
  };
  return { enqueue, read, close, [Symbol.asyncDispose]: close };
}

function enqueuedOf(acceptance: Acceptance): Enqueued {
  switch (acceptance.kind) {
    case 'accepted':
      return { id: acceptance.id, repeated: acceptance.repeated };
    case 'mismatch':
      throw new IdempotencyMismatchError('the idempotencyKey was used for another body: a new request needs a new one');
    case 'in_progress':
      throw new AcceptInProgressError(
        'the same request is being accepted right now: repeat it with the same idempotencyKey',
      );
    case 'backlogged':
    case 'limited':
      throw new Error('the library turns nothing away, so it was given somebody else’s answer');
  }
  return acceptance satisfies never;
}

/** What it takes to make a verification of a request, without a connection to anything. */
export interface ProducerKnowledge {
  readonly client: AcceptingClient;
  readonly partitions: ReadonlyMap<string, PartitionProfile>;
  /** Without any private part. */
  readonly keySet: SealingKeySet;
}

/** @throws Error that begins with the name of the function that was given the options */
export function knowledgeOf(
  options: Pick<ProducerOptions, 'client' | 'sealingKeys' | 'partitions'>,
  givenTo: string,
): ProducerKnowledge {
  const checked = optionsSchema.safeParse(options);
  if (!checked.success) throw new Error(`${givenTo}: ${faultsIn(checked.error)}`);
  return {
    client: { id: options.client.id, apiKey: new Secret(options.client.apiKey) },
    partitions: profilesOf(options.partitions, givenTo),
    keySet: readKeySet(options.sealingKeys, givenTo),
  };
}

/** What HTTP would have carried, without undefined and with dates as text: one body is one request, either way in. */
export function asJson(body: unknown): unknown {
  try {
    return JSON.parse(JSON.stringify(body) ?? 'null');
  } catch {
    throw new InvalidRequestError([{ field: '(body)', problem: 'must be what JSON can say' }]);
  }
}

function profilesOf(partitions: ProducerOptions['partitions'], givenTo: string): ReadonlyMap<string, PartitionProfile> {
  return new Map(
    Object.entries(partitions).map(([name, { adapter = name, otpLifetimeMs = 300_000 }]) => {
      const definition = Object.hasOwn(providers, adapter) ? providers[adapter] : undefined;
      if (!definition) {
        const known = Object.keys(providers).join(', ');
        throw new Error(`${givenTo}: partitions.${name}.adapter must be one of ${known}`);
      }
      return [name, { name, definition, otpLifetimeMs }];
    }),
  );
}

function readKeySet(given: unknown, givenTo: string): SealingKeySet {
  const parsed = sealingKeySetSchema.safeParse(typeof given === 'string' ? readJsonFile(given, givenTo) : given);
  if (parsed.success) return publicKeySet(parsed.data);
  throw new Error(`${givenTo}: sealingKeys must be a JWK set of X25519 keys: ${faultsIn(parsed.error)}`);
}

function readJsonFile(path: string, givenTo: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    // The cause of a parser may quote the file, and the file may hold private keys.
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'it is no JSON';
    throw new Error(`${givenTo}: the file of sealingKeys cannot be read: ${code}`);
  }
}

/** Paths and expectations, never a value. */
function faultsIn(error: z.ZodError): string {
  const faults = error.issues.map((issue) => {
    const path = issue.path.map((part) => (typeof part === 'number' ? part : shown(String(part))));
    const fault = issue.code === 'unrecognized_keys' ? 'has a key that is not known' : issue.message;
    return `${path.join('.') || 'options'}: ${fault}`;
  });
  return faults.join('; ');
}
