import type { RedisConnection } from '../redis/connections.ts';
import { hashIn } from '../redis/script.ts';
import { namesOf, partitionOf } from './job.ts';
import { type RawRecord, readRecord, type VerificationRecord } from './record.ts';

const PAGE_SIZE = 50;
const SCANNED_AT_ONCE = 1_000;

/** A client's verifications of one provider transaction, oldest first. */
export interface Page {
  readonly records: readonly VerificationRecord[];
  /** The last id of this page where another one follows, else null. */
  readonly next: string | null;
}

/** @param after an id, from which on the page goes; '' for the first page */
export async function readByReference(
  redis: RedisConnection,
  {
    partition,
    client,
    references,
    after,
  }: {
    readonly partition: string;
    readonly client: string;
    readonly references: readonly string[];
    readonly after: string;
  },
): Promise<Page> {
  const found = await Promise.all(references.map(async (reference) => idsOf(redis, partition, client, reference)));
  const ids = found
    .flat()
    .filter((id) => id > after)
    .sort(); // ids sort by time
  const shown = ids.slice(0, PAGE_SIZE);
  const records = await Promise.all(shown.map(async (id) => await readVerification(redis, id)));
  return {
    // What is past its retention is no longer there to be shown.
    records: records.filter((record): record is VerificationRecord => record?.client === client),
    next: ids.length > PAGE_SIZE ? (shown.at(-1) ?? null) : null,
  };
}

/** What the transaction knows of a client's verifications; of one that many have asked for, bit by bit. */
async function idsOf(redis: RedisConnection, partition: string, client: string, reference: string): Promise<string[]> {
  const { transaction } = namesOf(redis).partitionKeys(partition);
  const ids = new Set<string>(); // a scan may name one twice
  let cursor = '0';
  do {
    const [next, found] = await redis.hscan(transaction(reference), cursor, 'MATCH', 'of:*', 'COUNT', SCANNED_AT_ONCE);
    for (const [field, whose] of Object.entries(hashIn(found)))
      if (whose === client) ids.add(field.slice('of:'.length));
    cursor = next;
  } while (cursor !== '0');
  return [...ids];
}

/** The journal's record, or null when the id is none of ours or its retention is over. */
export async function readVerification(redis: RedisConnection, id: string): Promise<VerificationRecord | null> {
  const partition = partitionOf(id);
  if (partition === null) return null;
  const raw = await redis.hgetall(namesOf(redis).partitionKeys(partition).record(id));
  return readRecord(id, partition, raw as RawRecord);
}
