/** What in Redis can be opened by one key alone: asked before that key is destroyed. */
import type { RedisConnection } from '../redis/connections.ts';
import { callbackQueues } from './callbacks.ts';
import { namesOf } from './job.ts';
import { kidOf } from './sealing.ts';

export interface SealedTo {
  /** Codes that may yet be sent. */
  readonly codes: number;
  /** Callbacks that nobody has read, those that were set aside included. */
  readonly callbacks: number;
}

const PAGE = 1_000;
const STATES = ['waiting', 'prioritized', 'delayed', 'active', 'failed'] as const;

/** Provider tokens are sealed too, but a worker that cannot open one asks for another. */
export async function sealedTo(kid: string, partitions: readonly string[], redis: RedisConnection): Promise<SealedTo> {
  const queues = callbackQueues(redis);
  let [codes, callbacks] = [0, 0];
  try {
    for (const partition of partitions) {
      codes += await countCodes(kid, partition, redis);
      const queue = queues.queue(partition);
      for (const state of STATES) {
        for (let from = 0; ; from += PAGE) {
          const jobs = await queue.getJobs(state, from, from + PAGE - 1);
          callbacks += jobs.filter((job) => kidOf(String(job?.data?.sealed)) === kid).length;
          if (jobs.length < PAGE) break;
        }
      }
    }
    return { codes, callbacks };
  } finally {
    await queues.close();
  }
}

/** Every record that is not final stands in the due set. */
async function countCodes(kid: string, partition: string, redis: RedisConnection): Promise<number> {
  const keys = namesOf(redis).partitionKeys(partition);
  const counted = new Set<string>(); // a scan may name one twice
  let cursor = '0';
  do {
    const [next, found] = await redis.zscan(keys.due, cursor, 'COUNT', PAGE);
    const ids = found.filter((_, index) => index % 2 === 0);
    const codes = await Promise.all(ids.map((id) => redis.hget(keys.record(id), 'code')));
    ids.forEach((id, index) => {
      const code = codes[index];
      if (code && kidOf(code) === kid) counted.add(id);
    });
    cursor = next;
  } while (cursor !== '0');
  return counted.size;
}
