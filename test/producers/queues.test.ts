import { expect, it } from 'vitest';
import { newVerificationId, VERIFICATION_JOB_OPTIONS } from '../../src/producers/job.ts';
import { producerQueues } from '../../src/producers/queues.ts';
import { connectRedis } from '../../src/redis/connections.ts';
import { BEST_OF_THREE } from '../support/timing.ts';
import { eventually, startWorld } from './world.ts';

it('has one queue for each partition, under the partition’s hash tag, and leaves the workers’ settings of it alone', async () => {
  await using world = await startWorld();
  await world.redis.hset('{otp-demo}:otp-demo:meta', 'opts.maxLenEvents', '100');
  const queue = world.queues.queue('demo');
  expect(world.queues.queue('demo')).toBe(queue);
  expect(world.queues.queue('other')).not.toBe(queue);
  const id = newVerificationId('demo');
  await queue.add('verify', { v: 1, id }, { ...VERIFICATION_JOB_OPTIONS, jobId: id });
  expect(await world.redis.exists(`{otp-demo}:otp-demo:${id}`)).toBe(1);
  expect(await world.redis.hgetall('{otp-demo}:otp-demo:meta')).toEqual({ 'opts.maxLenEvents': '100' });
});

it(
  'refuses at once while Redis is away, also from the very first word, and works when it is back',
  BEST_OF_THREE,
  async () => {
    await using world = await startWorld();
    const add = async (): Promise<unknown> => {
      const id = newVerificationId('demo');
      return await queues.queue('demo').add('verify', { v: 1, id }, { ...VERIFICATION_JOB_OPTIONS, jobId: id });
    };
    await world.server.stop();
    const redis = connectRedis(world.server.url, 'producer', { onError: () => {} });
    const queues = producerQueues(redis);
    for (const _ of [1, 2]) {
      const began = performance.now();
      await expect(add()).rejects.toThrow();
      expect(performance.now() - began).toBeLessThan(1_000);
    }
    await world.server.start();
    await eventually(() => redis.status === 'ready');
    await add();
    expect(await queues.queue('demo').count()).toBe(1);

    await world.server.kill();
    await eventually(() => redis.status !== 'ready');
    const began = performance.now();
    await expect(add()).rejects.toThrow();
    expect(performance.now() - began).toBeLessThan(200);
    redis.disconnect();
    await queues.close();
  },
);
