// Takes results from the client's queue, each exactly once. Node 20.19 or later, with the package otp-pipeline.
//
//   node results.mjs INBOX
//
// OTP_RESULTS_QUEUE is the client's `resultsQueue` of the configuration; every result becomes a file in INBOX.
import { randomBytes } from 'node:crypto';
import { linkSync, mkdirSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createResultsConsumer } from 'otp-pipeline';

const { OTP_REDIS_URL, OTP_RESULTS_QUEUE = 'otp-results' } = process.env;
const [inbox] = process.argv.slice(2);

/** The effect and the memory of it in one step; in a shop, one transaction of its database. False: it was there. */
function keep(result) {
  const temporary = join(inbox, `.${result.id}.${randomBytes(8).toString('hex')}`);
  writeFileSync(temporary, JSON.stringify(result));
  try {
    linkSync(temporary, join(inbox, `${result.id}.json`));
    return true;
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  } finally {
    unlinkSync(temporary);
  }
}

mkdirSync(inbox, { recursive: true });
const consumer = createResultsConsumer({
  redis: OTP_REDIS_URL,
  queue: OTP_RESULTS_QUEUE,
  // When it rejects, the result comes again; ten times, and then it lies among the failed of the queue.
  handler: async (result) => {
    if (keep(result)) console.log(result.subject, result.type, result.data.otp, result.data.transaction);
  },
  onError: (error) => console.error(error.name, error.code ?? ''),
});
console.log(`waiting for results of ${OTP_RESULTS_QUEUE}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => consumer.close());
