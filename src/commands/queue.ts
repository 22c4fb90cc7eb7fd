import { Queue } from '../bullmq.ts';
import type { RedisConnection } from '../redis/connections.ts';

/** A queue for as long as `work` takes; its settings stay as they are. */
export async function withQueue(
  redis: RedisConnection,
  { name, prefix }: { readonly name: string; readonly prefix: string },
  work: (queue: Queue) => Promise<void>,
): Promise<void> {
  const queue = new Queue(name, { connection: redis, prefix, skipMetasUpdate: true });
  try {
    await work(queue);
  } finally {
    await queue.close();
  }
}
