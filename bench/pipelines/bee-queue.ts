import BeeQueue from 'bee-queue';
import { startTestRedis } from '../../test/support/redis.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type StubReport, start } from '../support/parts.ts';
import { environmentOf, jobOf } from './job.ts';
import type { House, Pipeline, Setting } from './pipeline.ts';

export const BEE_QUEUE = 'verify';
export const BEE_RESULTS = 'results';
const AT_ONCE = 250;

export const beeQueue: Pipeline = { name: 'bee-queue', open };

async function open({ delayMs, concurrency }: Setting): Promise<House> {
  const cleanup = new Cleanup();
  const server = cleanup.use(await startTestRedis({ appendonly: true }));
  const stub = cleanup.use(await start('support/stub.ts', { STUB_DELAY_MS: String(delayMs) }));
  const settings = { redis: { url: server.url } as object, isWorker: false, getEvents: false, sendEvents: false };
  const [queue, results] = [new BeeQueue(BEE_QUEUE, settings), new BeeQueue(BEE_RESULTS, settings)];
  cleanup.defer(async () => await Promise.all([queue.close(), results.close()]));
  const submit = async (reference: string): Promise<void> => {
    await queue.createJob(jobOf(reference)).save();
  };
  return {
    async fill(count) {
      for (let from = 0; from < count; from += AT_ONCE) {
        const size = Math.min(AT_ONCE, count - from);
        await Promise.all(Array.from({ length: size }, (_, index) => submit(`TX${from + index}`)));
      }
    },
    submit,
    startWorker: async () =>
      cleanup.use(
        await start(
          'pipelines/bee-queue-worker.ts',
          environmentOf({ store: server.url, provider: `http://127.0.0.1:${stub.ready.port}`, concurrency }),
        ),
      ),
    results: async () => (await results.checkHealth()).waiting,
    consume: () => Promise.reject(new Error('its latency is not compared')),
    store: server.url,
    storePids: () => [server.pid],
    stub: async () => await stub.ask<StubReport>('report'),
    stubPid: stub.pid,
    [Symbol.asyncDispose]: async () => await cleanup.run(),
  };
}
