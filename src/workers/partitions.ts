import { namesOf } from '../producers/job.ts';
import type { RedisConnection } from '../redis/connections.ts';

/**
 * A partition that was renamed or taken out of the configuration while it still has verifications that are not final
 * would leave them without a worker, silently. Throws, naming it and the count; a partition that is empty is forgotten.
 */
export async function refuseForgottenPartitions(redis: RedisConnection, configured: readonly string[]): Promise<void> {
  const { knownPartitions, partitionKeys } = namesOf(redis);
  const forgotten: string[] = [];
  for (const name of await redis.smembers(knownPartitions)) {
    if (configured.includes(name)) continue;
    const unfinished = await redis.zcard(partitionKeys(name).due);
    if (unfinished > 0) forgotten.push(`${name} (${unfinished} not final)`);
    else await redis.srem(knownPartitions, name);
  }
  if (forgotten.length > 0) {
    throw new Error(
      `providers: verifications wait in partitions that are not configured any more: ${forgotten.join(', ')}; ` +
        'put them back until their verifications are final',
    );
  }
  if (configured.length > 0) await redis.sadd(knownPartitions, ...configured);
}
