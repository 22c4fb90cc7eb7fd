import type { RedisConnection } from '../redis/connections.ts';
import { namesOf, partitionOf } from './job.ts';
import { type RawRecord, readRecord, type VerificationRecord } from './record.ts';

const PAGE_SIZE = 50;

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
  const { ofReference } = namesOf(redis).partitionKeys(partition);
  const from = after === '' ? '-' : `(${after}`;
  // Ids sort by time, and in a set of equal scores Redis sorts by id.
  const found = await Promise.all(
    references.map(async (reference) =>
      redis.zrange(ofReference(client, reference), from, '+', 'BYLEX', 'LIMIT', 0, PAGE_SIZE + 1),
    ),
  );
  const ids = found.flat().sort();
  const shown = ids.slice(0, PAGE_SIZE);
  const records = await Promise.all(shown.map(async (id) => await readVerification(redis, id)));
  return {
    // What is past its retention is no longer there to be shown.
    records: records.filter((record): record is VerificationRecord => record?.client === client),
    next: ids.length > PAGE_SIZE ? (shown.at(-1) ?? null) : null,
  };
}

/** The journal's record, or null when the id is none of ours or its retention is over. */
export async function readVerification(redis: RedisConnection, id: string): Promise<VerificationRecord | null> {
  const partition = partitionOf(id);
  if (partition === null) return null;
  const raw = await redis.hgetall(namesOf(redis).partitionKeys(partition).record(id));
  return readRecord(id, partition, raw as RawRecord);
}
