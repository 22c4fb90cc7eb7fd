/**
 * What a user writes in an afternoon: BullMQ, undici, a results queue. With `RAW_FEATURES=naive` the same with the features
 * of this project put on top one by one, where they come to mind: the code sealed, the request signed, the answer checked
 * by a schema, a mark in Redis before the call and after it, metrics, a line of log.
 */
import { createDecipheriv, createHmac } from 'node:crypto';
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { destination, pino } from 'pino';
import { Counter, Histogram } from 'prom-client';
import { z } from 'zod';
import { callerOf, type RawJob, ready, settingsFromEnvironment, VERIFY_PATH } from './job.ts';
import { RAW_KEY, RAW_QUEUE, RAW_RESULTS } from './raw.ts';

const { store, provider, concurrency, connections } = settingsFromEnvironment();
const { RAW_FEATURES = 'none', RAW_KEEP, RAW_LOG } = process.env;
const connection = new Redis(store, { maxRetriesPerRequest: null });
const results = new Queue(RAW_RESULTS, { connection });
const call = callerOf(provider, connections);

const plain = async (job: RawJob): Promise<unknown> => await call(JSON.stringify(job), { authorization: 'key' });

const answerSchema = z.object({
  status: z.boolean(),
  data: z
    .object({ errors: z.array(z.object({ errorCode: z.string() })).optional(), otpRetryCount: z.string().optional() })
    .optional(),
});
const log = RAW_LOG === undefined ? pino({ enabled: false }) : pino(destination({ dest: RAW_LOG, sync: true }));
const verifications = new Counter({ name: 'verifications_total', help: 'ended', labelNames: ['provider', 'outcome'] });
const seconds = new Histogram({ name: 'request_seconds', help: 'calls', labelNames: ['provider'] });

async function naive(job: RawJob): Promise<unknown> {
  const mark = `mark:${job.transactionRef}`;
  if ((await connection.set(mark, 'sending', 'PX', 86_400_000, 'NX')) === null) throw new Error('sent already');
  const body = JSON.stringify({ ...job, otp: open(job.otp) });
  const at = String(Math.floor(Date.now() / 1_000));
  const signature = createHmac('sha256', 'secret').update(`${at}POST${VERIFY_PATH}${body}`).digest('hex');
  const began = performance.now();
  const answer = answerSchema.parse(
    await call(body, { 'x-access-key': 'key', 'x-access-signature': signature, 'x-access-ts': at }),
  );
  seconds.observe({ provider: 'cepta' }, (performance.now() - began) / 1_000);
  verifications.inc({ provider: 'cepta', outcome: answer.status ? 'accepted' : 'rejected' });
  await connection.set(mark, JSON.stringify(answer), 'PX', 86_400_000);
  log.info({ transactionRef: job.transactionRef, status: answer.status }, 'settled');
  return answer;
}

function open(sealed: string): string {
  const bytes = Buffer.from(sealed, 'base64');
  const decipher = createDecipheriv('aes-256-gcm', RAW_KEY, bytes.subarray(0, 12));
  decipher.setAuthTag(bytes.subarray(12, 28));
  return Buffer.concat([decipher.update(bytes.subarray(28)), decipher.final()]).toString();
}

const verify = RAW_FEATURES === 'naive' ? naive : plain;
new Worker<RawJob>(
  RAW_QUEUE,
  async ({ data }) => {
    const answer = await verify(data);
    await results.add('result', { transactionRef: data.transactionRef, answer }, { removeOnComplete: true });
  },
  { connection, concurrency, removeOnComplete: { count: Number(RAW_KEEP) } },
);
ready();
