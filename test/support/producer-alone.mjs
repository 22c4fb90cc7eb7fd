// A producer in a process of its own: enqueues one verification with the public keys in its working directory, takes what
// it sealed back out of Redis, and tries to open it with everything that it has. Prints the id and what came of each try.
import { readFileSync } from 'node:fs';
import { Redis } from 'ioredis';
import { compactDecrypt, importJWK } from 'jose';
import { createProducer } from 'otp-pipeline';
import { Opener } from '../../dist/producers/sealing.js';

const producer = createProducer({
  client: { id: 'shop', apiKey: 'api-key-of-the-shop-in-the-test' },
  redis: process.env.REDIS_URL,
  sealingKeys: 'public-keys.json',
  partitions: { cepta: {} },
});
const params = { transactionRef: 'TX1', paymentId: 'PAY1', md: 'data' };
const { id } = await producer.enqueue({ provider: 'cepta', otp: '246810', params }, { idempotencyKey: 'k' });
const redis = new Redis(process.env.REDIS_URL);
const sealed = await redis.hget(`{otp-cepta}:v:${id}`, 'code');

const keySet = JSON.parse(readFileSync('public-keys.json', 'utf8'));
const tried = async (open) =>
  await open().then(
    () => 'OPENED',
    (error) => error.message,
  );
const tries = {
  library: await tried(async () => await (await Opener.create(keySet)).open(sealed)),
  jose: await tried(async () => await compactDecrypt(sealed, await importJWK(keySet.keys[0], 'ECDH-ES'))),
};
console.log(JSON.stringify({ id, tries }));
redis.disconnect();
await producer.close();
