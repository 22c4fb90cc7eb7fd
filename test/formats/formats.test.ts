/**
 * What an earlier version left in Redis is read and carried on, and what a later version left there is left alone. v1.json was
 * written by write.ts; a version that writes another format adds a sample of its own and keeps this one.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { expect, test } from 'vitest';
import { partitionKeys, resultsPrefix } from '../../src/producers/job.ts';
import type { ResultEvent } from '../../src/producers/result.ts';
import { answer, type ProviderServer, startProviderServer } from '../support/provider-server.ts';
import { startTestRedis } from '../support/redis.ts';
import { install, type ServiceProcess, serve } from '../support/service.ts';
import { ANSWERS, configuration, post, read } from './stage.ts';

interface Sample {
  readonly writtenAt: number;
  readonly keySets: Readonly<Record<string, unknown>>;
  readonly commands: readonly (readonly (string | number)[])[];
}

const SAMPLE = JSON.parse(readFileSync(new URL('./v1.json', import.meta.url), 'utf8')) as Sample;
const keys = partitionKeys('cepta');

/** As it was, but for the time: what was to happen in a minute then is to happen in a minute from now. */
async function restore(redis: Redis): Promise<Map<string, string>> {
  const later = Date.now() - SAMPLE.writtenAt;
  const text = JSON.stringify(SAMPLE.commands)
    // Times in ms, also as the score of a priority queue's delayed job (ms times 4096).
    .replace(/(?<![0-9a-fA-F.])1[789]\d{11}(?!\d)/g, (time) => String(Number(time) + later));
  for (const [command, ...args] of JSON.parse(text) as [string, ...(string | number)[]][])
    await redis.call(command, ...args);
  const ids = new Map<string, string>();
  for (const key of await redis.keys(keys.record('*'))) {
    ids.set((await redis.hget(key, 'reference')) ?? '', key.slice(keys.record('').length));
  }
  return ids;
}

async function startWorld() {
  const server = await startTestRedis();
  const provider = await startProviderServer((socket, { method, path }) => {
    const reference = new URL(path, 'http://provider').searchParams.get('TransactionRef') ?? '';
    socket.write(method === 'GET' ? ANSWERS.paid(reference) : ANSWERS.wrongCode);
  });
  const endpoint = await startProviderServer((socket) => void socket.write(answer(200)));
  const installation = await install(configuration(server.url, provider.url, endpoint.url));
  for (const [name, keySet] of Object.entries(SAMPLE.keySets)) {
    writeFileSync(join(installation.folder, name), JSON.stringify(keySet), { mode: 0o600 });
  }
  const redis = new Redis(server.url);
  return {
    ...{ server, provider, endpoint, installation, redis },
    [Symbol.asyncDispose]: async () => {
      redis.disconnect();
      await installation[Symbol.asyncDispose]();
      await Promise.all([provider.close(), endpoint.close()]);
      await server[Symbol.asyncDispose]();
    },
  };
}

test('what version 1 left is carried on: nothing is lost, and nothing that was sent is sent again', async () => {
  await using world = await startWorld();
  const ids = await restore(world.redis);
  expect([...ids.keys()].sort()).toEqual(['TX-AWAITING', 'TX-DECIDED', 'TX-QUEUED', 'TX-SENDING', 'TX-SETTLED']);
  await using service = await serve(world.installation.file, 'intake,worker');
  const is = async (reference: string) => (await read(service, ids.get(reference) ?? '')).resource;

  expect(await is('TX-SETTLED')).toMatchObject({ otp: 'rejected', final: true, sequence: 1 });
  await until(async () => (await is('TX-QUEUED')).final);
  expect(await is('TX-QUEUED')).toMatchObject({ otp: 'rejected', reason: 'wrong_code', attemptsRemaining: 2 });
  // Its callback lay in the queue: the provider is asked, and says that it is paid.
  await until(async () => (await is('TX-AWAITING')).final);
  expect(await is('TX-AWAITING')).toMatchObject({ otp: 'accepted', transaction: 'succeeded', sequence: 2 });
  await until(async () => (await is('TX-SENDING')).state === 'awaiting');
  expect(await is('TX-SENDING')).toMatchObject({ otp: 'unknown', reason: 'no_answer', sequence: 1 });
  expect(submitted(world.provider)).toEqual(['TX-QUEUED']);

  // The keys of version 1 name what they named.
  expect(await post(service, 'TX-SETTLED')).toBe(ids.get('TX-SETTLED'));

  const results = new Queue('otp-results', {
    connection: { url: world.server.url },
    prefix: resultsPrefix('otp-results'),
  });
  try {
    const published = async (): Promise<string[]> =>
      (await results.getJobs(['wait'])).map(
        ({ data }) => `${(data as ResultEvent).data.reference} ${data.data.sequence}`,
      );
    const expected = ['TX-AWAITING 1', 'TX-AWAITING 2', 'TX-DECIDED 1', 'TX-QUEUED 1', 'TX-SENDING 1', 'TX-SETTLED 1'];
    await until(async () => (await published()).length === expected.length);
    expect((await published()).sort()).toEqual(expected);
    // The endpoint refused the first two of them when they were new.
    const told = (): string[] => world.endpoint.requests.map(({ body }) => JSON.parse(body).id).sort();
    await until(async () => new Set(told()).size === expected.length);
  } finally {
    await results.close();
  }
}, 60_000);

test('what a later version left is left alone, and said, and its own worker carries it on', async () => {
  await using world = await startWorld();
  const ids = await restore(world.redis);
  const record = keys.record(ids.get('TX-QUEUED') ?? '');
  await world.redis.hset(record, 'v', '2');
  const before = await world.redis.hgetall(record);
  await using service = await serve(world.installation.file, 'intake,worker');

  await until(async () => service.output().includes('of a newer version: left alone'));
  await carriesOnOthers(service, 'TX-OTHER');
  expect(await world.redis.hgetall(record)).toEqual(before);
  expect(submitted(world.provider)).toEqual(['TX-OTHER']);
  expect((await read(service, ids.get('TX-QUEUED') ?? '')).status).toBe(503);
  expect(await metric(service, 'otp_newer_formats_total{provider="cepta"}')).toBeGreaterThan(0);

  await world.redis.hset(record, 'v', '1'); // as its own version would read it
  await until(async () => (await read(service, ids.get('TX-QUEUED') ?? '')).resource.final);
}, 60_000);

test('a job of a later version waits for its worker, among the others and not among the failed', async () => {
  await using world = await startWorld();
  const ids = await restore(world.redis);
  const id = ids.get('TX-QUEUED') ?? '';
  const job = `${keys.prefix}:${keys.queue}:${id}`;
  await world.redis.hset(job, 'data', JSON.stringify({ v: 2, id, words: 'of tomorrow' }));
  await using service = await serve(world.installation.file, 'intake,worker');

  await until(async () => (await world.redis.zscore(`${keys.prefix}:${keys.queue}:delayed`, id)) !== null);
  await carriesOnOthers(service, 'TX-OTHER');
  expect(await world.redis.zscore(`${keys.prefix}:${keys.queue}:failed`, id)).toBeNull();
  expect((await read(service, id)).resource.state).toBe('queued');
  await world.redis.hset(job, 'data', JSON.stringify({ v: 1, id }));
  await until(async () => (await read(service, id)).resource.final);
  expect(submitted(world.provider).sort()).toEqual(['TX-OTHER', 'TX-QUEUED']);
}, 60_000);

async function carriesOnOthers(service: ServiceProcess, reference: string): Promise<void> {
  const id = await post(service, reference);
  await until(async () => (await read(service, id)).resource.final);
}

const submitted = ({ requests }: ProviderServer): string[] =>
  requests.filter(({ method }) => method === 'POST').map(({ body }) => JSON.parse(body).transactionRef);

async function metric({ consoleUrl }: ServiceProcess, name: string): Promise<number> {
  const text = await (await fetch(`${consoleUrl}/metrics`)).text();
  return Number(
    text
      .split('\n')
      .find((line) => line.startsWith(name))
      ?.split(' ')[1] ?? 0,
  );
}

async function until(is: () => Promise<boolean>, withinMs = 25_000): Promise<void> {
  const giveUpAt = performance.now() + withinMs;
  while (!(await is())) {
    if (performance.now() > giveUpAt) throw new Error(`not within ${withinMs} ms`);
    await delay(20);
  }
}
