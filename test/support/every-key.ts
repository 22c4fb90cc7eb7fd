import type { RedisConnection } from '../../src/redis/connections.ts';

export interface StoredKey {
  readonly key: string;
  readonly type: string;
  /** -1: it lives until it is deleted. */
  readonly ttlMs: number;
  /** Everything in it, as JSON. */
  readonly content: string;
}

/** All that a server holds, readable: a dump would be compressed. */
export async function everyKey(redis: RedisConnection): Promise<StoredKey[]> {
  const keys = new Set<string>();
  let cursor = '0';
  do {
    const [next, found] = await redis.scan(cursor, 'COUNT', 1_000);
    for (const key of found) keys.add(key);
    cursor = next;
  } while (cursor !== '0');
  const read = await Promise.all(
    [...keys].map(async (key) => {
      const [type, ttlMs] = [await redis.type(key), await redis.pttl(key)];
      return { key, type, ttlMs, content: JSON.stringify(await contentOf(redis, key, type)) };
    }),
  );
  return read.filter(({ ttlMs }) => ttlMs !== -2).sort((a, b) => a.key.localeCompare(b.key)); // -2: gone meanwhile
}

async function contentOf(redis: RedisConnection, key: string, type: string): Promise<unknown> {
  switch (type) {
    case 'string':
      return await redis.get(key);
    case 'hash':
      return await redis.hgetall(key);
    case 'list':
      return await redis.lrange(key, 0, -1);
    case 'set':
      return await redis.smembers(key);
    case 'zset':
      return await redis.zrange(key, '0', '-1');
    case 'stream':
      return await redis.xrange(key, '-', '+');
    default:
      return null;
  }
}
