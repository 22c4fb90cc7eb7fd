/**
 * Jobs that BullMQ stumbles over: their data or options are no JSON, their counters no numbers, they repeat as none of
 * ours does, or nothing is left of them but an id. Its own scripts fail in the middle and leave such a job among the
 * active ones, from where it comes back for ever; each time a good job behind it may wait for seconds, because the mark
 * by which workers are woken is used up (tested in test/fuzz). So they are taken out of its way.
 */
import type { RedisConnection } from '../redis/connections.ts';
import { Script } from '../redis/script.ts';

const setAside = Script.fromFiles(new URL('./unreadable.lua', import.meta.url));

/** Ids of the jobs that were set aside, among the queue's failed ones. `base`: prefix and name of the queue, `p:name`. */
export async function setAsideUnreadable(redis: RedisConnection, base: string, reason: string): Promise<string[]> {
  const found: string[] = [];
  for (const id of await redis.lrange(`${base}:active`, 0, -1)) {
    const job = `${base}:${id}`;
    if (await isReadable(redis, job)) continue;
    const keys = [`${base}:active`, `${base}:failed`, job, `${job}:lock`, `${base}:marker`];
    if ((await setAside.run(redis, keys, [id, reason, Date.now()])) === 1) found.push(id);
  }
  return found;
}

async function isReadable(redis: RedisConnection, job: string): Promise<boolean> {
  try {
    const [name, data, options, repeats, ...counters] = await redis.hmget(
      job,
      ...['name', 'data', 'opts', 'rjk', 'ats', 'atm', 'stc'],
    );
    JSON.parse(data ?? '{}');
    const parsed: unknown = JSON.parse(options ?? '{}');
    return (
      typeof name === 'string' &&
      typeof parsed === 'object' &&
      parsed !== null &&
      repeats === null &&
      counters.every((count) => count === null || /^\d{1,15}$/.test(count))
    );
  } catch (error) {
    // Its key holds something else than a hash, or a text in it is no JSON. Anything else is Redis being away.
    if (error instanceof SyntaxError || (error instanceof Error && error.message.startsWith('WRONGTYPE'))) return false;
    throw error;
  }
}
