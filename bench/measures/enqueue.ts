/** How many verifications does one process put in through the library in a second, against as many plain jobs? */
import { join } from 'node:path';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { createProducer } from '../../dist/index.js';
import { startTestRedis } from '../../test/support/redis.ts';
import { install } from '../../test/support/service.ts';
import { jobOf } from '../pipelines/job.ts';
import { CLIENT, REUSE } from '../pipelines/ours.ts';
import { Cleanup } from '../support/cleanup.ts';

const IN_FLIGHT = 200;

export type EnqueueWay = 'raw' | 'reused' | 'fresh';

/** Verifications a second. `fresh`: an ephemeral key for each, as the library does it unless it is told otherwise. */
export async function enqueueOnce(way: EnqueueWay, seconds: number): Promise<number> {
  const cleanup = new Cleanup();
  try {
    const server = cleanup.use(await startTestRedis({ appendonly: true }));
    let submit: (reference: string) => Promise<unknown>;
    if (way === 'raw') {
      const connection = new Redis(server.url, { maxRetriesPerRequest: null });
      cleanup.defer(() => connection.disconnect());
      const queue = new Queue('raw', { connection });
      submit = async (reference) => await queue.add('verify', jobOf(reference));
    } else {
      const installation = cleanup.use(await install({}));
      const producer = createProducer({
        client: CLIENT,
        redis: server.url,
        sealingKeys: join(installation.folder, 'keys.json'),
        partitions: { cepta: {} },
        timeLimitMs: 60_000,
        ...(way === 'reused' ? { reuseEphemeralKey: REUSE } : {}),
      });
      cleanup.use(producer);
      submit = async (transactionRef) => {
        const params = { transactionRef, paymentId: 'PAY12345XYZ', md: 'merchant_data' };
        await producer.enqueue({ provider: 'cepta', otp: '012345', params }, { idempotencyKey: transactionRef });
      };
    }
    let count = 0;
    const run = async (forSeconds: number): Promise<number> => {
      const [before, endsAt] = [count, performance.now() + forSeconds * 1_000];
      const loop = async (): Promise<void> => {
        while (performance.now() < endsAt) {
          count += 1;
          await submit(`TX${count}`);
        }
      };
      await Promise.all(Array.from({ length: IN_FLIGHT }, loop));
      return count - before;
    };
    await run(seconds); // until the compiler has seen it all
    return (await run(seconds)) / seconds;
  } finally {
    await cleanup.run();
  }
}
