/** The raw pipeline, and the same with features put on top naively, behind the face that the measures know. */
import { createCipheriv, randomBytes } from 'node:crypto';
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { startTestRedis } from '../../test/support/redis.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type StubReport, start } from '../support/parts.ts';
import { environmentOf, jobOf, type RawJob } from './job.ts';
import { CONSUMED_AT_ONCE, type House, type Pipeline, type Setting } from './pipeline.ts';

export const RAW_QUEUE = 'raw';
export const RAW_RESULTS = 'raw-results';
export const RAW_KEY = Buffer.alloc(32, 7);

const AT_ONCE = 250;

export const raw: Pipeline = { name: 'raw BullMQ', open: async (setting) => await openRaw(setting, 'none') };
export const naive: Pipeline = {
  name: 'BullMQ, features added naively',
  open: async (setting) => await openRaw(setting, 'naive'),
};

async function openRaw(setting: Setting, features: 'none' | 'naive'): Promise<House> {
  const { delayMs, concurrency, connections = concurrency, keepCompleted = 0 } = setting;
  const cleanup = new Cleanup();
  const server = cleanup.use(await startTestRedis({ appendonly: true }));
  const stub = cleanup.use(await start('support/stub.ts', { STUB_DELAY_MS: String(delayMs) }));
  const connection = new Redis(server.url, { maxRetriesPerRequest: null });
  cleanup.defer(() => connection.disconnect());
  const queue = new Queue<RawJob>(RAW_QUEUE, { connection });
  const newJob = (reference: string): RawJob => jobOf(reference, features === 'naive' ? seal('012345') : undefined);
  return {
    async fill(count) {
      for (let from = 0; from < count; from += AT_ONCE) {
        const jobs = Array.from({ length: Math.min(AT_ONCE, count - from) }, (_, index) => ({
          name: 'verify',
          data: newJob(`TX${from + index}`),
        }));
        await queue.addBulk(jobs);
      }
    },
    async submit(reference) {
      await queue.add('verify', newJob(reference));
    },
    startWorker: async () =>
      cleanup.use(
        await start('pipelines/raw-worker.ts', {
          ...environmentOf({
            store: server.url,
            provider: `http://127.0.0.1:${stub.ready.port}`,
            concurrency,
            connections,
          }),
          RAW_FEATURES: features,
          RAW_KEEP: String(keepCompleted),
          ...(features === 'naive' ? { RAW_LOG: `${server.dataDir}/worker.log` } : {}),
        }),
      ),
    results: async () => await connection.llen(`bull:${RAW_RESULTS}:wait`),
    async consume(onResult) {
      const consumer = new Worker<{ transactionRef: string }>(
        RAW_RESULTS,
        async ({ data }) => onResult(data.transactionRef),
        { connection, concurrency: CONSUMED_AT_ONCE, removeOnComplete: { count: 0 } },
      );
      cleanup.defer(async () => await consumer.close());
      await consumer.waitUntilReady();
    },
    store: server.url,
    storePids: () => [server.pid],
    stub: async () => await stub.ask<StubReport>('report'),
    stubPid: stub.pid,
    [Symbol.asyncDispose]: async () => await cleanup.run(),
  };
}

function seal(code: string): string {
  const iv = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', RAW_KEY, iv);
  const text = Buffer.concat([cipher.update(code), cipher.final()]);
  return Buffer.concat([iv, cipher.getAuthTag(), text]).toString('base64');
}
