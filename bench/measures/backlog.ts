/**
 * A long backlog behind what is worked off. What stands there has the same shape and size in Redis as what the library puts
 * in, and is written in bulk: nobody gets to it, so nobody notices that it cannot be opened.
 */
import { Redis } from 'ioredis';
import type { House } from '../pipelines/pipeline.ts';

const AT_ONCE = 5_000;

/** Copies the last verification that was put in, its record, its job and what leads to it, so many times. */
const COPY = `
local record, due, jobs, job, transaction = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local from, count, deadline = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local score = string.format('%.0f', redis.call('ZRANGE', jobs, -1, -1, 'WITHSCORES')[2] + 1) -- behind the last one
local fields, options = redis.call('HGETALL', record), redis.call('HGETALL', job)
local prefix, jobPrefix = string.sub(record, 1, -33), string.sub(job, 1, -33)
for index = from, from + count - 1 do
  local hex = string.format('%032x', index)
  redis.call('HSET', prefix .. hex, unpack(fields))
  redis.call('ZADD', due, deadline, 'cepta_' .. hex)
  redis.call('HSET', jobPrefix .. hex, unpack(options))
  redis.call('ZADD', jobs, score, 'cepta_' .. hex)
  redis.call('HSET', transaction .. hex, 'of:cepta_' .. hex, 'bench')
end
`;

async function putBehind(house: House, count: number): Promise<void> {
  const redis = new Redis(house.store);
  try {
    const [id] = await redis.zrange('{otp-cepta}:due', '0', '0');
    const keys = [
      `{otp-cepta}:v:${id}`,
      '{otp-cepta}:due',
      '{otp-cepta}:otp-cepta:prioritized',
      `{otp-cepta}:otp-cepta:${id}`,
      '{otp-cepta}:ref:',
    ];
    const deadline = Date.now() + 3_600_000;
    for (let from = 0; from < count; from += AT_ONCE) {
      await redis.eval(COPY, keys.length, ...keys, from, Math.min(AT_ONCE, count - from), deadline);
    }
  } finally {
    redis.disconnect();
  }
}

/** For a measure of throughput: so many more stand behind those that count. */
export function backlogPlan(count: number): { behind: (house: House) => Promise<void> } {
  return { behind: async (house) => await putBehind(house, count) };
}
