import { namesOf } from '../producers/job.ts';
import type { RedisConnection } from '../redis/connections.ts';

/**
 * A partition that was renamed or taken out of the configuration while it still has verifications that are not final, or results
 * that are not published, would leave them without a worker, silently. Throws, naming it and the counts; a partition that is
 * empty is forgotten.
 */
export async function refuseForgottenPartitions(redis: RedisConnection, configured: readonly string[]): Promise<void> {
  const { knownPartitions, partitionKeys } = namesOf(redis);
  const forgotten: string[] = [];
  for (const name of await redis.smembers(knownPartitions)) {
    if (configured.includes(name)) continue;
    const { due, outbox } = partitionKeys(name);
    const [unfinished, unpublished] = await Promise.all([redis.zcard(due), redis.xlen(outbox)]);
    if (unfinished > 0) forgotten.push(`${name} (${unfinished} not final)`);
    else if (unpublished > 0) forgotten.push(`${name} (${unpublished} results not published)`);
    else await redis.srem(knownPartitions, name);
  }
  if (forgotten.length > 0) {
    throw new Error(
      `providers: verifications wait in partitions that are not configured any more: ${forgotten.join(', ')}; ` +
        'put them back until nothing is left',
    );
  }
  if (configured.length > 0) await redis.sadd(knownPartitions, ...configured);
}
