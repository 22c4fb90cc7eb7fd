import { Queue } from '../bullmq.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { namesOf, type PartitionKeys, type VerificationJob } from './job.ts';

export interface PartitionQueues<Data> {
  /** The queue of a partition; made when it is first asked for, without a word to Redis. */
  queue(partition: string): Queue<Data>;
  /** Lets go of the queues; the connection stays open, it belongs to whoever made it. */
  close(): Promise<void>;
}

export type ProducerQueues = PartitionQueues<VerificationJob>;

/** The queues into which verifications are put, all on one connection of the `producer` profile. */
export function producerQueues(connection: RedisConnection): ProducerQueues {
  return partitionQueues(connection, ({ queue }) => queue);
}

/** One queue of each partition, by the name that `nameOf` picks; they fail fast. */
export function partitionQueues<Data>(
  connection: RedisConnection,
  nameOf: (keys: PartitionKeys) => string,
): PartitionQueues<Data> {
  const queues = new Map<string, Queue<Data>>();
  return {
    queue(partition) {
      const known = queues.get(partition);
      if (known) return known;
      const keys = namesOf(connection).partitionKeys(partition);
      const queue = new Queue<Data>(nameOf(keys), {
        prefix: keys.prefix,
        connection,
        // Without this `add()` stays pending for as long as Redis is away, whatever the connection says.
        skipWaitingForReady: true,
        // A queue that meets no Redis when it asks for the version would refuse everything for ever after.
        skipVersionCheck: true,
        // The workers' settings of the queue stand in its meta hash, and the last one to write it wins.
        skipMetasUpdate: true,
      });
      // Faults of the connection are told once, by its owner; without a listener BullMQ prints them all again.
      queue.on('error', () => {});
      queues.set(partition, queue);
      return queue;
    },
    async close() {
      await Promise.all([...queues.values()].map((queue) => queue.close()));
      queues.clear();
    },
  };
}
