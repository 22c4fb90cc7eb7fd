// Hands one code to the queues and waits for the outcome. Node 20.19 or later, with the package otp-pipeline.
//
//   node enqueue.mjs ORDER TRANSACTION_REF CODE
//
// OTP_REDIS_URL is the service's Redis, OTP_API_KEY the key of this client, OTP_PUBLIC_KEYS the file that
// `otp keys public` made. OTP_CLIENT is the client's id.
import { setTimeout as sleep } from 'node:timers/promises';
import { AcceptanceUnknownError, AcceptInProgressError, createProducer } from 'otp-pipeline';

const { OTP_CLIENT, OTP_API_KEY, OTP_REDIS_URL, OTP_PUBLIC_KEYS } = process.env;
const [order, transactionRef, code] = process.argv.slice(2);
const giveUpAt = Date.now() + 60_000;

// One for the whole program, made when it starts: it holds a connection.
const producer = createProducer({
  client: { id: OTP_CLIENT, apiKey: OTP_API_KEY },
  redis: OTP_REDIS_URL,
  sealingKeys: OTP_PUBLIC_KEYS,
  partitions: { cepta: {} },
});

/** Redis may have been away: with the same key the request may be repeated, and gives the one answer. */
async function enqueue(request, options) {
  for (;;) {
    try {
      return await producer.enqueue(request, options);
    } catch (error) {
      const mayBeRepeated = error instanceof AcceptanceUnknownError || error instanceof AcceptInProgressError;
      if (!mayBeRepeated || Date.now() > giveUpAt) throw error;
      await sleep(1_000);
    }
  }
}

// One key for each code that a customer typed: a repeat is the same verification, another code is another one.
const { id } = await enqueue(
  {
    provider: 'cepta',
    otp: code,
    params: { transactionRef, paymentId: `PAY-${order}`, md: 'merchant_data' },
    metadata: { order },
  },
  { idempotencyKey: `${order}-${transactionRef}-1` },
);

// The results queue tells the program, results.mjs; whoever waits at the checkout looks, a few times a second.
let verification = await producer.read(id);
while (!verification?.final && Date.now() < giveUpAt) {
  await sleep(250);
  verification = await producer.read(id);
}
console.log(order, verification?.otp, verification?.transaction, verification?.nextStep);
await producer.close();
