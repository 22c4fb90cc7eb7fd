/**
 * Where providers report by themselves: proved, stored, then answered; carried out later by the workers. The order
 * matters: nothing is parsed before the proof holds, and no 200 leaves before Redis has the callback, because a provider
 * that has its 200 never says it again.
 */
import { createHash } from 'node:crypto';
import type { Queue } from 'bullmq';
import type { EventBus } from '../events.ts';
import type { BoundCallback, CallbackRequest } from '../providers/provider.ts';
import type { RedisConnection } from '../redis/connections.ts';
import type { Held } from '../redis/held.ts';
import type { CallbackJob } from './job.ts';
import { type PartitionQueues, partitionQueues } from './queues.ts';
import { type Opener, SealError, type Sealer } from './sealing.ts';

/** So many that nobody has read yet are more than any provider says by itself: the rest is told to come again. */
const MOST_WAITING = 10_000;

/** Gone when it is dealt with, kept for a week where nobody could deal with it. */
const CALLBACK_JOB_OPTIONS = {
  attempts: 1_000_000, // only our own machinery failing (Redis away) makes a job throw; it must come back
  backoff: { type: 'fixed', delay: 1_000 },
  removeOnComplete: true,
  removeOnFail: { age: 7 * 24 * 3600, count: 1_000 },
  stackTraceLimit: 1,
} as const;

/** The intake's side of callbacks. */
export interface CallbackEntrance {
  /** Null where the partition is unknown, or takes no callbacks. */
  of(partition: string): BoundCallback | null;
  /** On a connection that fails fast. */
  queue(partition: string): Queue<CallbackJob>;
}

export interface ReceiveDependencies {
  readonly redis: RedisConnection;
  readonly sealer: Sealer;
  readonly events: EventBus;
  readonly callbacks: CallbackEntrance;
  /** Where replicas are waited for: one that they have not is not acknowledged, and the provider says it again. */
  readonly held?: Pick<Held, 'during'> | undefined;
}

export type Receipt =
  | { readonly kind: 'stored'; readonly acknowledgement: Readonly<Record<string, unknown>> }
  | { readonly kind: 'refused' }
  /** Too many wait already; nothing was kept of this one. */
  | { readonly kind: 'full' };

/** @throws Redis errors when it is not known whether it was stored: the provider must repeat it, which is harmless. */
export async function receiveCallback(
  partition: string,
  callback: BoundCallback,
  request: CallbackRequest,
  { redis, sealer, events, callbacks, held }: ReceiveDependencies,
): Promise<Receipt> {
  if (!callback.authenticate(request)) {
    events.emit('callback:refused', { partition });
    return { kind: 'refused' };
  }
  const queue = callbacks.queue(partition);
  const jobId = callbackJobId(partition, request.rawBody);
  const [waiting, [addedAt, finishedOn], [seconds, microseconds]] = await Promise.all([
    queue.count(),
    redis.hmget(queue.toKey(jobId), 'timestamp', 'finishedOn') as Promise<[string | null, string | null]>,
    redis.time(),
  ]);
  const repeated = addedAt !== null && finishedOn === null;
  if (!repeated && waiting >= MOST_WAITING) return { kind: 'full' };
  // One that was set aside is worth another look when the provider says it again; left there, it would swallow this one.
  if (finishedOn !== null) await queue.remove(jobId);
  const receivedAt = Number(seconds) * 1_000 + Math.floor(Number(microseconds) / 1_000);
  const sealed = await sealer.seal({ partition, body: request.rawBody.toString('utf8') });
  const store = async (): Promise<unknown> =>
    await queue.add('callback', { v: 1, receivedAt, sealed }, { ...CALLBACK_JOB_OPTIONS, jobId });
  await (held ? held.during(queue.toKey('meta'), store) : store());
  events.emit('callback:received', { partition, repeated });
  return { kind: 'stored', acknowledgement: callback.acknowledgement };
}

/** The same callback of the same partition is the same job, while it is kept. */
export function callbackJobId(partition: string, rawBody: Buffer): string {
  const digest = createHash('sha256').update(partition).update('\0').update(rawBody).digest('hex');
  return `callback-${digest.slice(0, 32)}`;
}

/** The body of a stored callback. Throws SealError when no key opens it, or when it belongs to another partition. */
export async function openCallback(opener: Opener, sealed: string, partition: string): Promise<string> {
  const content = (await opener.open(sealed)) as { partition?: unknown; body?: unknown } | null;
  if (content?.partition !== partition || typeof content.body !== 'string') {
    throw new SealError('the sealed callback belongs to another partition, or is none');
  }
  return content.body;
}

/** The queues into which callbacks are put, on one connection of the `producer` profile. */
export function callbackQueues(connection: RedisConnection): PartitionQueues<CallbackJob> {
  return partitionQueues(connection, ({ callbackQueue }) => callbackQueue);
}
