import BeeQueue from 'bee-queue';
import { BEE_QUEUE, BEE_RESULTS } from './bee-queue.ts';
import { callerOf, type RawJob, ready, settingsFromEnvironment } from './job.ts';

const { store, provider, concurrency } = settingsFromEnvironment();
const call = callerOf(provider, concurrency);
const settings = { redis: { url: store } as object, getEvents: false, sendEvents: false };
const results = new BeeQueue(BEE_RESULTS, { ...settings, isWorker: false });
const queue = new BeeQueue<RawJob>(BEE_QUEUE, { ...settings, removeOnSuccess: true });
queue.process(concurrency, async ({ data }) => {
  const answer = await call(JSON.stringify(data), { authorization: 'key' });
  await results.createJob({ transactionRef: data.transactionRef, answer }).save();
});
await queue.ready();
ready();
