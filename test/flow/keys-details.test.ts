/** What the provider told besides, through a whole service: who can read it, and where it is. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Queue } from 'bullmq';
import { request } from 'undici';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { createResultsConsumer, type ResultEvent } from '../../src/index.ts';
import { newKey, readKeySet, writeKeySet } from '../../src/key-files.ts';
import { type Service, startService } from '../../src/main.ts';
import { partitionKeys, RESULTS_QUEUE, resultsPrefix } from '../../src/producers/job.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { generateSealingKey, kidOf, Opener, type SealingKeySet } from '../../src/producers/sealing.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { bodyFor } from '../support/pipeline.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

const SEALED = { id: 'sealed', apiKey: 'api-key-of-the-client-with-a-key', queue: 'otp-results-sealed' };
const PLAIN = { id: 'plain', apiKey: 'api-key-of-the-client-without-one', queue: RESULTS_QUEUE };
/** LipaLater's sandbox says so of every customer. */
const DETAILS = { credit_limit: 50_000, available_limit: 42_500 };

const world = {} as {
  server: TestRedis;
  sandbox: Sandbox;
  folder: string;
  clientKeys: SealingKeySet;
  service: Service;
  redis: RedisConnection;
};

beforeAll(async () => {
  world.server = await startTestRedis();
  world.sandbox = await startSandbox({ settleAfterMs: 0 });
  world.folder = mkdtempSync(join(tmpdir(), 'otp-details-'));
  writeKeySet(join(world.folder, 'keys.json'), { keys: [await newKey('otp')] });
  world.clientKeys = { keys: [await generateSealingKey('client-1')] } as SealingKeySet;
  const [{ kty, crv, x, kid } = {}] = world.clientKeys.keys;
  const config = loadConfig({
    environment: {},
    baseDir: world.folder,
    data: {
      redis: { url: world.server.url },
      intake: { port: 0 },
      console: { port: 0 },
      clients: [
        { id: SEALED.id, apiKey: SEALED.apiKey, resultsKey: { kty, crv, x, kid }, resultsQueue: SEALED.queue },
        { id: PLAIN.id, apiKey: PLAIN.apiKey },
      ],
      sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json' },
      providers: { 'lipa-later': world.sandbox.providers['lipa-later'] },
      log: { level: 'silent' },
    },
  });
  world.service = await startService(config);
  world.redis = connectRedis(world.server.url, 'worker', { onError: () => {} });
});

afterAll(async () => {
  world.redis?.disconnect();
  await world.service?.close();
  await world.sandbox?.[Symbol.asyncDispose]();
  await world.server?.[Symbol.asyncDispose]();
  if (world.folder) rmSync(world.folder, { recursive: true, force: true });
});

test('a client with a results key has them as a JWE to it, in the result and by GET, and its consumer opens them', async () => {
  const { id, details } = await verified(SEALED);
  const opener = await Opener.create(world.clientKeys);
  expect(kidOf(String(details))).toBe('client-1');
  expect(await opener.open(String(details))).toMatchObject(DETAILS);
  expect((await resultIn(SEALED.queue, id)).data.details).toBe(details);

  const handled: ResultEvent[] = [];
  await using _ = createResultsConsumer({
    redis: world.server.url,
    queue: SEALED.queue,
    openDetailsWith: world.clientKeys.keys[0],
    handler: async (result) => {
      handled.push(result);
    },
  });
  await vi.waitUntil(() => handled.length > 0, { timeout: 5_000 });
  expect(handled[0]).toMatchObject({ subject: id, client: SEALED.id, data: { details: DETAILS } });
  expect((await getAs(PLAIN, id)).status).toBe(404);
}, 30_000);

test('a client without one has them by GET alone, kept under a key that opens no codes', async () => {
  const { id, details } = await verified(PLAIN);
  expect(details).toMatchObject(DETAILS);
  expect((await resultIn(PLAIN.queue, id)).data).not.toHaveProperty('details');
  expect((await getAs(SEALED, id)).status).toBe(404);

  const kept = (await world.redis.hget(partitionKeys('lipa-later').record(id), 'details')) ?? '';
  const codeKeys = readKeySet(join(world.folder, 'keys.json'), 'sealing.keyFile');
  const detailsKeys = readKeySet(join(world.folder, 'details.json'), 'sealing.detailsKeyFile');
  expect(kidOf(kept)).toBe(detailsKeys.keys[0]?.kid);
  await expect((await Opener.create(codeKeys)).open(kept)).rejects.toThrow('no key');
  expect(await (await Opener.create(detailsKeys)).open(kept)).toMatchObject(DETAILS);
}, 30_000);

type Client = typeof SEALED;

async function verified(client: Client): Promise<VerificationResource> {
  const response = await request(`${world.service.intakeUrl}/v1/verifications`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${client.apiKey}`,
      'content-type': 'application/json',
      'idempotency-key': 'one',
      prefer: 'wait=20',
    },
    body: JSON.stringify(bodyFor('lipa-later', '135790')),
  });
  const { id } = (await response.body.json()) as VerificationResource;
  const { status, resource } = await getAs(client, id);
  expect([status, resource.final, resource.otp]).toEqual([200, true, 'accepted']);
  return resource;
}

async function getAs(client: Client, id: string): Promise<{ status: number; resource: VerificationResource }> {
  const response = await request(`${world.service.intakeUrl}/v1/verifications/${id}`, {
    headers: { authorization: `Bearer ${client.apiKey}`, prefer: 'wait=20' },
  });
  return { status: response.statusCode, resource: (await response.body.json()) as VerificationResource };
}

async function resultIn(name: string, id: string): Promise<ResultEvent> {
  const queue = new Queue<ResultEvent>(name, { connection: world.redis, prefix: resultsPrefix(name) });
  try {
    return await vi.waitUntil(async () => (await queue.getJob(`${id}.1`))?.data, { timeout: 5_000 });
  } finally {
    await queue.close();
  }
}
