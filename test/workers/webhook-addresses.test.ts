/** The service as it is put together: which webhooks of its configuration it opens a connection for. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Queue } from 'bullmq';
import { expect, test, vi } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { newKey, writeKeySet } from '../../src/key-files.ts';
import { startService } from '../../src/main.ts';
import { webhookQueueName, webhookQueuePrefix } from '../../src/producers/job.ts';
import { connectRedis } from '../../src/redis/connections.ts';
import { WEBHOOK_JOB_OPTIONS } from '../../src/workers/webhooks.ts';
import { behaviours, startProviderServer } from '../support/provider-server.ts';
import { startTestRedis } from '../support/redis.ts';

test('a webhook is posted where the configuration allows it, and nowhere else that is not public', async () => {
  await using server = await startTestRedis();
  await using receiver = await startProviderServer(behaviours.says200);
  const TLS_HANDSHAKE = 22;
  receiver.onConnection((socket) => socket.once('data', ([first]) => first === TLS_HANDSHAKE && socket.destroy()));
  const folder = mkdtempSync(join(tmpdir(), 'otp-webhooks-'));
  writeKeySet(join(folder, 'keys.json'), { keys: [await newKey('otp')] });
  const urls = {
    'names-this-machine': receiver.url,
    'is-allowed': `https://0.0.0.0:${receiver.port}`,
    'is-not-allowed': 'https://169.254.169.254/latest/meta-data',
  };
  const data = {
    redis: { url: server.url },
    console: { port: 0 },
    sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json' },
    providers: { cepta: { baseUrl: 'http://127.0.0.1:9', credentials: { secretKey: 'key', merchantId: 'M-1' } } },
    clients: Object.keys(urls).map((id) => ({ id, apiKey: `api-key-of-${id}` })),
    results: {
      webhooks: Object.entries(urls).map(([client, url]) => ({
        client,
        url,
        secret: 'whsec_YSBzZWNyZXQgb2YgMjQgYnl0ZXMgLi4u',
      })),
      webhookAllow: ['0.0.0.0'],
    },
  };
  const config = loadConfig({ data, baseDir: folder, environment: {} });
  const service = await startService(config, { roles: ['worker'], logTo: join(folder, 'service.log') });
  const redis = connectRedis(server.url, 'producer', { onError: () => {} });
  const queues = Object.keys(urls).map(
    (client) => new Queue(webhookQueueName(client), { connection: redis, prefix: webhookQueuePrefix(client) }),
  );
  try {
    const jobs = await Promise.all(
      queues.map((queue) => queue.add('result', { id: 'result.1' }, { ...WEBHOOK_JOB_OPTIONS, jobId: 'result.1' })),
    );
    const whyNot = async () =>
      await Promise.all(queues.map(async (queue, index) => (await queue.getJob(jobs[index]?.id ?? ''))?.failedReason));
    await vi.waitUntil(async () => (await whyNot()).filter((reason) => reason).length === 2, { timeout: 10_000 });
    await receiver.arrived(1);
    // The receiver speaks no TLS, which only somebody can tell who was let through to it.
    expect(await whyNot()).toEqual([undefined, expect.not.stringContaining('ADDRESS_REFUSED'), 'ADDRESS_REFUSED']);
    expect(receiver.connections).toBeGreaterThanOrEqual(2);
    expect(receiver.requests.map(({ method }) => method)).toEqual(['POST']);
  } finally {
    await service.close();
    await Promise.all(queues.map((queue) => queue.close()));
    redis.disconnect();
    rmSync(folder, { recursive: true, force: true });
  }
});
