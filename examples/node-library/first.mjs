import { createProducer, createResultsConsumer } from 'otp-pipeline';

const redis = process.env.OTP_REDIS_URL;
const producer = createProducer({
  client: { id: 'shop', apiKey: process.env.SHOP_API_KEY },
  redis,
  sealingKeys: 'public-keys.json', // made by `npx otp keys public > public-keys.json`; it opens nothing
  partitions: { cepta: {} },
});
const { id } = await producer.enqueue(
  {
    provider: 'cepta',
    otp: '012345',
    params: { transactionRef: 'TX67890DEF', paymentId: 'PAY67890UVW', md: 'merchant_data' },
  },
  { idempotencyKey: 'order-18-code-1' },
);

const consumer = createResultsConsumer({
  redis,
  handler: async ({ subject, data }) => {
    console.log(subject, data.otp, data.transaction, data.final ? 'final' : 'awaiting proof');
    if (subject === id && data.final) setImmediate(() => Promise.all([consumer.close(), producer.close()]));
  },
});
