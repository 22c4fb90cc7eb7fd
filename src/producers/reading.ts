import type { RedisConnection } from '../redis/connections.ts';
import { partitionKeys, partitionOf } from './job.ts';
import { type RawRecord, readRecord, type VerificationRecord } from './record.ts';

/** The journal's record, or null when the id is none of ours or its retention is over. */
export async function readVerification(redis: RedisConnection, id: string): Promise<VerificationRecord | null> {
  const partition = partitionOf(id);
  if (partition === null) return null;
  const raw = await redis.hgetall(partitionKeys(partition).record(id));
  return readRecord(id, partition, raw as RawRecord);
}
