/**
 * Names and shapes that producers and workers share: ids, queues, keys, the job. Every key of a partition carries the
 * partition's hash tag, so a partition lives in one slot and nothing assumes that two partitions share one.
 *
 * Keys belong to an installation, and several may share one Redis: whoever makes a key asks `namesOf` with the connection
 * that will carry it (or with the configuration's `redis`). The names of queues are the same in every installation.
 */
import { hash } from 'node:crypto';
import { v7 as uuidv7 } from 'uuid';
import { z } from 'zod';
import { freshBytes } from './fresh-bytes.ts';

/** The job carries no data of the verification: that lives in the journal, which no board can retry or edit. */
export const jobSchema = z.strictObject({ v: z.literal(1), id: z.string() });
export type VerificationJob = z.infer<typeof jobSchema>;

/**
 * A job of a later version of this service: `v` is a higher number than any known here, and it goes by a name that only we
 * give: its verification's, or that of a callback. Anyone else's is none of ours, whatever it says.
 */
export function isNewerJob(jobId: string, data: unknown): boolean {
  if (typeof data !== 'object' || data === null || !('v' in data)) return false;
  const isOurs = jobId.startsWith('callback-') || ('id' in data && data.id === jobId && partitionOf(jobId) !== null);
  return isOurs && Number.isSafeInteger(data.v) && Number(data.v) > 1;
}

/** A callback's body holds a customer's data, so it is sealed like a code. `receivedAt` in Unix ms by the clock of Redis. */
export const callbackJobSchema = z.strictObject({ v: z.literal(1), receivedAt: z.int(), sealed: z.string() });
export type CallbackJob = z.infer<typeof callbackJobSchema>;

export const RESULTS_QUEUE = 'otp-results';

/** `cepta_019f…`: the partition, then 32 hex characters that sort by time. It says where the verification lives. */
export function newVerificationId(partition: string): string {
  return `${partition}_${uuidv7({ random: freshBytes(16) }).replaceAll('-', '')}`;
}

/** The partition an id names, or null when it is no id of ours. */
export function partitionOf(id: string): string | null {
  return /^([a-z0-9][a-z0-9-]{0,39})_[0-9a-f]{32}$/.exec(id)?.[1] ?? null;
}

export function newAttemptToken(): string {
  return freshBytes(16).toString('hex');
}

export interface PartitionQueueNames {
  readonly queue: string;
  readonly inquiryQueue: string;
  /** What the provider reported by itself, until somebody has read it. */
  readonly callbackQueue: string;
}

export function queueNames(partition: string): PartitionQueueNames {
  return {
    queue: `otp-${partition}`,
    inquiryQueue: `otp-${partition}-inquiry`,
    callbackQueue: `otp-${partition}-callback`,
  };
}

/** The queue of what a client's own endpoint is to be told. */
export function webhookQueueName(client: string): string {
  return `otp-webhook-${client}`;
}

export interface PartitionKeys extends PartitionQueueNames {
  /** BullMQ's prefix, and the beginning of every other key of the partition. */
  readonly prefix: string;
  /** Every verification that is not final, with the time at which something must have happened. */
  readonly due: string;
  /** Those that await proof, with the time since when. */
  readonly awaiting: string;
  /** Those that wait for a person, with the time since when. */
  readonly review: string;
  /** Results that have been decided and not yet forwarded: a stream. */
  readonly outbox: string;
  readonly rate: string;
  readonly inquiryRate: string;
  /** Until when submissions are held back because the provider said so. */
  readonly slowed: string;
  readonly inquirySlowed: string;
  /** How the breaker stands: a hash, see breaker-policy.ts. */
  readonly breaker: string;
  /** What the last attempts said of the provider, newest first. */
  readonly breakerOutcomes: string;
  readonly sweep: string;
  /** Which server the journal was last known to be whole on, and since when it has been seen. */
  readonly epoch: string;
  /** Who has written back what it knew, after the server has changed. */
  readonly asserted: string;
  /** What persons have settled or asked for: a stream that outlives the records. */
  readonly audit: string;
  /** Workers by their last beat; one that ended in order is not among them. */
  readonly workers: string;
  record(id: string): string;
  /**
   * All that is known of one transaction of the provider: `of:<id>` whose each of its verifications is; and who holds it
   * (`holder`; `last`, who last did; `next`, who will), what was submitted (`used`, `left` by the provider's word,
   * `code:<print>` as `<id>[ <outcome>]`) and what was proved (`transaction`, `provedBy`).
   */
  transaction(reference: string): string;
  /** Holds the reference of the transaction that the provider also calls by this name. */
  alias(identifier: string): string;
  heartbeat(worker: string): string;
  token(call: string, cacheKey: string): string;
}

/** What one installation calls its keys. Those of two with different prefixes have nothing in common. */
export interface Names {
  partitionKeys(partition: string): PartitionKeys;
  /** BullMQ's prefix for a results queue: a hash tag of its own, so results need not live where partitions live. */
  resultsPrefix(queue: string): string;
  /** BullMQ's prefix for `webhookQueueName(client)`: a slot of its own. */
  webhookQueuePrefix(client: string): string;
  claimKey(client: string, idempotencyKey: string): string;
  /** When a client's latest verifications were let in; in the slot of its claims. */
  clientRateKey(client: string): string;
  /** Where published revisions are announced to waiting callers, as `<id>.<sequence>`. */
  readonly publishedChannel: string;
  /** Names of the partitions that workers have served here. */
  readonly knownPartitions: string;
}

/** Of the installation that this connection, or this `redis` of a configuration, belongs to. */
export function namesOf(installation: { readonly namePrefix?: string | undefined } | undefined): Names {
  const { namePrefix } = installation ?? {};
  let names = known.get(namePrefix);
  if (!names) {
    names = namesWith(namePrefix);
    known.set(namePrefix, names);
  }
  return names;
}

/** They are asked for with every verification. */
const known = new Map<string | undefined, Names>();

/** Any id that is asked for names a partition, so whoever asks could fill the memory. */
const MOST_PARTITIONS = 1_000;

function namesWith(namePrefix: string | undefined): Names {
  const own = (name: string): string => (namePrefix === undefined ? name : `${namePrefix}-${name}`);
  const tag = (name: string): string => `{${own(name)}}`;
  const partitions = new Map<string, PartitionKeys>();
  return {
    partitionKeys(partition) {
      const made = partitions.get(partition);
      if (made) return made;
      if (partitions.size >= MOST_PARTITIONS) partitions.clear();
      const keys = keysOf(partition, tag(`otp-${partition}`));
      partitions.set(partition, keys);
      return keys;
    },
    resultsPrefix: tag,
    webhookQueuePrefix: (client) => tag(webhookQueueName(client)),
    // 132 bits of SHA-256: two keys of one client do not meet in it.
    claimKey: (client, idempotencyKey) =>
      `${tag(`idem-${client}`)}:${hash('sha256', idempotencyKey, 'base64url').slice(0, 22)}`,
    clientRateKey: (client) => `${tag(`idem-${client}`)}:rate`,
    publishedChannel: own('otp-published'),
    knownPartitions: own('otp-partitions'),
  };
}

function keysOf(partition: string, prefix: string): PartitionKeys {
  return {
    ...queueNames(partition),
    prefix,
    due: `${prefix}:due`,
    awaiting: `${prefix}:awaiting`,
    review: `${prefix}:review`,
    outbox: `${prefix}:outbox`,
    rate: `${prefix}:rate`,
    inquiryRate: `${prefix}:inquiry-rate`,
    slowed: `${prefix}:slowed`,
    inquirySlowed: `${prefix}:inquiry-slowed`,
    breaker: `${prefix}:breaker`,
    breakerOutcomes: `${prefix}:breaker-outcomes`,
    sweep: `${prefix}:sweep`,
    audit: `${prefix}:audit`,
    epoch: `${prefix}:epoch`,
    asserted: `${prefix}:epoch-asserted`,
    workers: `${prefix}:workers`,
    record: (id) => `${prefix}:v:${id}`,
    transaction: (reference) => `${prefix}:ref:${reference}`,
    alias: (identifier) => `${prefix}:alias:${identifier}`,
    heartbeat: (worker) => `${prefix}:worker:${worker}`,
    token: (call, cacheKey) => `${prefix}:token:${call}:${cacheKey}`,
  };
}

/**
 * Of an installation without a prefix: for tests and the house's own tools. Nothing in `src/` imports these, which
 * test/architecture.test.ts holds, for a key that was made so would be another installation's.
 */
export const { partitionKeys, resultsPrefix, webhookQueuePrefix, claimKey, clientRateKey } = namesOf(undefined);
export const PUBLISHED_CHANNEL = namesOf(undefined).publishedChannel;

/**
 * BullMQ puts a job that comes back from a delay behind the whole backlog, unless jobs have priorities: then those that
 * were in hand before come first (the lower the sooner).
 */
const FRESH_PRIORITY = 2;
export const AGAIN_PRIORITY = 1;
/** Options are kept with each job, so all that is the same for all of them is said by the worker. */
export const VERIFICATION_JOB_OPTIONS = { priority: FRESH_PRIORITY } as const;

/** Options of a result: a consumer's failing handler is retried for some minutes, then the result stays visible as failed. */
export const RESULT_JOB_OPTIONS = {
  attempts: 10,
  backoff: { type: 'exponential', delay: 500 },
  removeOnComplete: true,
  removeOnFail: { age: 7 * 24 * 3600 },
  stackTraceLimit: 1,
} as const;
