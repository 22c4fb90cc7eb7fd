/**
 * Writes what lies in Redis while a pipeline is at work, as commands that put it there again: `npx tsx test/formats/write.ts`.
 * To be run once for each format, with the last version that writes it; formats.test.ts says what is in it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import { partitionKeys } from '../../src/producers/job.ts';
import { connectRedis } from '../../src/redis/connections.ts';
import { startProviderServer } from '../support/provider-server.ts';
import { startTestRedis } from '../support/redis.ts';
import { install, serve } from '../support/service.ts';
import { journalOf } from '../workers/support.ts';
import { ANSWERS, configuration, post, report } from './stage.ts';

await using server = await startTestRedis();
const provider = await startProviderServer((socket, { body }) => {
  const { transactionRef = '' } = JSON.parse(body || '{}');
  if (transactionRef === 'TX-AWAITING') socket.resetAndDestroy();
  else if (transactionRef !== 'TX-SENDING') socket.write(ANSWERS.wrongCode);
});
const endpoint = await startProviderServer((socket) => void socket.write(ANSWERS.unavailable));
await using installation = await install(configuration(server.url, provider.url, endpoint.url));
const redis = new Redis(server.url);
const keys = partitionKeys('cepta');
const untilState = async (id: string, state: string): Promise<void> => {
  while ((await redis.hget(keys.record(id), 'state')) !== state) await delay(20);
};
{
  await using intake = await serve(installation.file, 'intake');
  await using worker = await serve(installation.file, 'worker');
  await untilState(await post(intake, 'TX-SETTLED'), 'settled');
  await untilState(await post(intake, 'TX-AWAITING'), 'awaiting');
  await untilState(await post(intake, 'TX-SENDING'), 'sending');
  while (endpoint.requests.length === 0) await delay(20);
  await worker.kill('SIGKILL');
  await post(intake, 'TX-QUEUED');
  await report(intake, 'TX-AWAITING');
  // As if a worker had died after it decided this one and before it published it: nobody has heard of it yet.
  const id = await post(intake, 'TX-DECIDED');
  const connection = connectRedis(server.url, 'worker', { onError: () => {} });
  const journal = journalOf({ redis: connection }, {}, 'a-worker-that-is-gone');
  const beginning = await journal.begin(id);
  if (beginning.is !== 'begun') throw new Error(`it is ${beginning.is}`);
  const outcome = {
    kind: 'rejected',
    reason: 'wrong_code',
    transaction: 'pending',
    providerCode: 'INVALID_OTP',
  } as const;
  await journal.apply(beginning.record, { from: 'answer', outcome }, {}, async () => '');
  connection.disconnect();
}
const found = (await redis.keys('*')).sort();
const commands: (string | number)[][] = [];
for (const key of found) {
  // Which server it was, and who was alive, is nothing that another one could go on with.
  if (/:(worker:|workers$|epoch|sweep$|turn$|meta$|marker$|events$|stalled)|:lock$/.test(key)) continue;
  const ttl = await redis.pttl(key);
  switch (await redis.type(key)) {
    case 'hash':
      commands.push(['HSET', key, ...Object.entries(await redis.hgetall(key)).flat()]);
      break;
    case 'zset': {
      const flat = await redis.zrange(key, '0', '-1', 'WITHSCORES');
      const pairs = flat.flatMap((member, index) => (index % 2 === 0 ? [flat[index + 1] as string, member] : []));
      commands.push(['ZADD', key, ...pairs]);
      break;
    }
    case 'list':
      commands.push(['RPUSH', key, ...(await redis.lrange(key, 0, -1))]);
      break;
    case 'string':
      commands.push(['SET', key, (await redis.get(key)) ?? '']);
      break;
    case 'stream':
      for (const [, fields] of await redis.xrange(key, '-', '+')) commands.push(['XADD', key, '*', ...fields]);
      break;
  }
  if (ttl > 0) commands.push(['PEXPIRE', key, ttl]);
}
const keySets = ['keys.json', 'details.json'].map((name) => [
  name,
  JSON.parse(readFileSync(join(installation.folder, name), 'utf8')),
]);
const sample = { writtenAt: Date.now(), keySets: Object.fromEntries(keySets), commands };
// A failed job has the trace of its error, and with it the folder in which the sample was written: of our own modules as an
// address, of CommonJS ones as a path.
const text = JSON.stringify(sample, null, 1).replaceAll(
  fileURLToPath(new URL('../../', import.meta.url)),
  '/otp-pipeline/',
);
writeFileSync(fileURLToPath(new URL('./v1.json', import.meta.url)), `${text}\n`);
redis.disconnect();
await provider.close();
await endpoint.close();
process.exit();
