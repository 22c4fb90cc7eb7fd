/** What differs between one server and a Cluster, for whoever holds a connection; it opens none by itself. */
import type { RedisOptions } from 'ioredis';
import type { RedisConnection } from './connections.ts';
import { Cluster, type Redis } from './ioredis.ts';

/**
 * The servers that take writes: one, or every master of a Cluster. Whatever is asked of a server and not of a key (INFO,
 * TIME, CONFIG) goes to each of them; put to a Cluster it would go to any node.
 */
export async function mastersOf(connection: RedisConnection): Promise<Redis[]> {
  if (!(connection instanceof Cluster)) return [connection];
  if (connection.nodes('master').length === 0 || connection.status !== 'ready') await connection.ping();
  return connection.nodes('master');
}

/** Whether another server may take the place of the one that holds a key. */
export function hasFailover(connection: RedisConnection): boolean {
  return connection instanceof Cluster || Boolean(connection.options.sentinels?.length);
}

/** `host:port` of a server, for people. */
export function addressOf({ options: { host, port } }: Redis): string {
  return `${host}:${port}`;
}

/** A connection of its own to the same place. */
export function duplicateOf(
  connection: RedisConnection,
  { enableOfflineQueue, ...options }: Omit<RedisOptions, 'replyMapping'>,
): RedisConnection {
  if (!(connection instanceof Cluster))
    return connection.duplicate({ enableOfflineQueue: enableOfflineQueue ?? true, ...options });
  // The queue of a Cluster is its own; its nodes always have one, for they connect when they are first needed.
  return connection.duplicate([], { enableOfflineQueue: enableOfflineQueue ?? true, redisOptions: options });
}
