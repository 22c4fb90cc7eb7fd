/**
 * A real results consumer on a real Redis, into whose queue strangers put what they like: the handler is given results
 * and nothing else, what is none lies among the failed jobs, and the results behind it are handled as before.
 */
import { randomUUID } from 'node:crypto';
import { Queue } from 'bullmq';
import fc from 'fast-check';
import { createResultsConsumer } from '../../../src/index.ts';
import { RESULT_JOB_OPTIONS, RESULTS_QUEUE, resultsPrefix } from '../../../src/producers/job.ts';
import { RESULT_TYPES, type ResultEvent } from '../../../src/producers/result.ts';
import { generateSealingKey, Sealer } from '../../../src/producers/sealing.ts';
import { connectRedis } from '../../../src/redis/connections.ts';
import { startTestRedis } from '../../support/redis.ts';
import { mutatedJson, mutateText, seldom, type TextMutation, textMutation } from '../mutate.ts';
import { demand, demandNoLeak, printed, type Target } from '../target.ts';
import { isResult, RESULT } from './journal-records.ts';

const CANARY = 'c4n4ry-of-the-customer-0815';

interface ResultsCase {
  /** `{id}` in them stands for a verification of this case; `details` for some that were sealed to the consumer's key. */
  readonly events: readonly string[];
  /** What becomes of the sealed details. */
  readonly garbledDetails: TextMutation | null;
}

export interface ResultsSubject {
  /** Tests put a consumer in its place that believes everything. */
  consume: typeof createResultsConsumer;
}

const ID = '{id}';
const GOOD = { ...RESULT, id: `${ID}.2`, subject: ID, data: { ...RESULT.data, id: ID } };
const eventTexts = mutatedJson(
  [JSON.stringify(GOOD), JSON.stringify({ ...GOOD, data: { ...GOOD.data, details: '{details}' } })],
  {
    tokens: [...RESULT_TYPES, `${ID}.1`, `${ID}.2`, ID, '/otp/cepta'].map((word) => JSON.stringify(word)),
    names: ['id', 'subject', 'data', 'sequence', 'type'],
    canaries: [CANARY],
  },
).filter((text) => text.length < 20_000 && isJson(text));

export async function strangeResults(
  subject: ResultsSubject = { consume: createResultsConsumer },
): Promise<Target<ResultsCase>> {
  const server = await startTestRedis();
  const redis = connectRedis(server.url, 'worker', { onError: () => {} });
  const queue = new Queue(RESULTS_QUEUE, { connection: redis, prefix: resultsPrefix(RESULTS_QUEUE) });
  queue.on('error', () => {});
  const key = await generateSealingKey('results-1');
  const sealer = await Sealer.create({ keys: [key as never] });
  const handled: ResultEvent[] = [];
  const errors: Error[] = [];
  const consumer = subject.consume({
    redis: server.url,
    handler: async (result) => void handled.push(result),
    openDetailsWith: key,
    onError: (error) => errors.push(error),
  });

  const put = async (data: unknown, jobId: string): Promise<string | undefined> =>
    (await queue.add('otp.verification.settled', data, { ...RESULT_JOB_OPTIONS, jobId })).id;

  return {
    name: 'strange-results',
    batch: 10,
    cases: fc.record({
      events: fc.array(eventTexts, { minLength: 1, maxLength: 10 }),
      garbledDetails: seldom(textMutation, 3),
    }),
    async check({ events, garbledDetails }) {
      handled.length = 0;
      errors.length = 0;
      const id = `cepta_${randomUUID().replaceAll('-', '')}`;
      const sealed = await sealer.seal({ limit: CANARY });
      const details = garbledDetails === null ? sealed : mutateText(sealed, garbledDetails);
      const texts = events.map((text) => text.replaceAll(ID, id).replaceAll('"{details}"', JSON.stringify(details)));
      const jobs = await Promise.all(texts.map(async (text) => await put(JSON.parse(text), randomUUID())));
      const probe = `cepta_${randomUUID().replaceAll('-', '')}`;
      await put(
        { ...RESULT, id: `${probe}.1`, subject: probe, data: { ...RESULT.data, id: probe, sequence: 1 } },
        `${probe}.1`,
      );

      const arrived = await eventually(async () => handled.some(({ subject: of }) => of === probe));
      demand(arrived, 'the consumer is stopped: a good result was not handled');
      for (const [index, text] of texts.entries()) {
        const data: unknown = JSON.parse(text);
        const isOne = typeof data === 'object' && data !== null && isResult(data as Record<string, unknown>);
        if (isOne) continue;
        const failed = await eventually(async () => (await queue.getJobState(String(jobs[index]))) === 'failed');
        demand(failed, `what is no result is ${await queue.getJobState(String(jobs[index]))}`);
      }
      for (const event of handled) {
        demand(isResult(event as unknown as Record<string, unknown>), 'the handler was given what is no result');
        const isOpen = JSON.stringify(event.data.details) === JSON.stringify({ limit: CANARY });
        demand(details === sealed || event.subject !== id || !isOpen, 'altered details were opened');
      }
      for (const error of errors) demandNoLeak('an error', printed(error), [CANARY]);
      return handled.length > 1 ? 'results among strangers' : 'strangers only';
    },
    async close() {
      await consumer.close(true);
      await queue.close();
      redis.disconnect();
      await server[Symbol.asyncDispose]();
    },
  };
}

const PATIENCE_MS = 15_000;

async function eventually(is: () => Promise<boolean>): Promise<boolean> {
  const giveUpAt = performance.now() + PATIENCE_MS;
  while (!(await is())) {
    if (performance.now() > giveUpAt) return false;
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
  return true;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
