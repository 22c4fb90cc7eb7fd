/** Records of the journal as the tests of the console need them, written as scripts write them. */
import { newVerificationId, partitionKeys } from '../../src/producers/job.ts';
import { type HistoryEntry, historyLine } from '../../src/producers/record.ts';
import type { RedisConnection } from '../../src/redis/connections.ts';

export interface Planted {
  readonly partition?: string;
  readonly id?: string;
  readonly client?: string;
  readonly reference?: string;
  /** In the list of reviews since then, in Unix ms; in none when not said. */
  readonly reviewSince?: number;
  readonly fields?: Readonly<Record<string, string>>;
  readonly history?: readonly HistoryEntry[];
}

/** One that awaits proof: it was sent and the answer was lost. */
export async function plant(
  redis: RedisConnection,
  { partition = 'cepta', id, client = 'shop', reference = 'TX1', reviewSince, fields = {}, history = [] }: Planted = {},
): Promise<string> {
  const keys = partitionKeys(partition);
  const verification = id ?? newVerificationId(partition);
  const now = Date.now();
  const acceptedAt = now - 60_000;
  const entries = [
    { at: acceptedAt, event: 'accepted' },
    { at: acceptedAt + 10, event: 'begun', attempt: 1 },
    { at: acceptedAt + 2_010, event: 'lost', attempt: 1, code: 'ECONNRESET' },
    ...history,
  ];
  await redis.hset(keys.record(verification), {
    state: 'awaiting',
    operation: 'verify',
    client,
    reference,
    createdAt: String(acceptedAt),
    updatedAt: String(acceptedAt + 2_010),
    expiresAt: String(acceptedAt + 300_000),
    revision: '3',
    sequence: '1',
    attempts: '1',
    used: '1',
    awaitingSince: String(acceptedAt + 2_010),
    standing: '["unknown","unknown","no_answer","wait",null,null]',
    head: JSON.stringify({ amount: { value: '100.00', currency: 'NGN' } }),
    history: entries.map(({ at, event, attempt = null, ...facts }) => historyLine(at, event, attempt, facts)).join(''),
    ...(reviewSince === undefined ? {} : { needsReview: '1' }),
    ...fields,
  });
  await redis.hset(keys.transaction(reference), `of:${verification}`, client);
  await redis.zadd(keys.awaiting, acceptedAt, verification);
  if (reviewSince !== undefined) await redis.zadd(keys.review, reviewSince, verification);
  return verification;
}

export const FINAL = { state: 'settled', standing: '["accepted","succeeded",null,"none",null,null]' };
