import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { request } from 'undici';
import { expect, test } from 'vitest';
import { partitionKeys } from '../../src/producers/job.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { startSandbox } from '../../src/sandbox/index.ts';
import { startTestRedis } from '../support/redis.ts';
import { install, serve } from '../support/service.ts';

const RECOVERY_LIMIT_MS = 15_000;

test('a worker killed between send and answer: the code is on the wire once, and the inquiry proves the payment', async () => {
  await using redisServer = await startTestRedis();
  await using sandbox = await startSandbox({ settleAfterMs: 0 });
  await using installation = await install({
    redis: { url: redisServer.url },
    providers: {
      cepta: { ...sandbox.providers.cepta, timeoutMs: 30_000, inquiry: { delaysMs: [200] } },
    },
  });
  // Two workers, so that one is there to take over; a third process accepts and is not harmed.
  await using intake = await serve(installation.file, 'intake');
  await using one = await serve(installation.file, 'worker');
  await using other = await serve(installation.file, 'worker');
  const redis = new Redis(redisServer.url);

  try {
    const reference = `TX${randomUUID().slice(0, 8)}`;
    // 800003: the sandbox takes the code, charges, and never answers.
    const id = await post(intake.intakeUrl, {
      provider: 'cepta',
      otp: '800003',
      params: { transactionRef: reference, paymentId: 'PAY1', md: 'merchant_data' },
    });
    await until(() => sandbox.ledger.transaction('cepta', reference).charges === 1);
    const owner = await redis.hget(partitionKeys('cepta').record(id), 'owner');
    const victim = [one, other].find(({ pid }) => owner?.includes(`-${pid}-`));
    expect(victim, `the record names its owner, ${owner}`).toBeDefined();
    const killedAt = performance.now();
    await victim?.kill('SIGKILL');

    const awaiting = await get(intake.intakeUrl, id, 0, 20);
    const recoveredInMs = performance.now() - killedAt;
    expect(awaiting.sequence).toBeGreaterThanOrEqual(1);
    expect(recoveredInMs).toBeLessThan(RECOVERY_LIMIT_MS);
    const final = awaiting.final ? awaiting : await get(intake.intakeUrl, id, awaiting.sequence, 20);

    expect(final).toMatchObject({ final: true, otp: 'accepted', transaction: 'succeeded', sequence: 2 });
    expect(final.history?.map(({ event }) => event)).toEqual(['accepted', 'begun', 'owner_dead', 'inquired']);
    expect(sandbox.ledger.transaction('cepta', reference)).toMatchObject({
      requests: 1,
      codesReceived: ['800003'],
      charges: 1,
    });
  } finally {
    redis.disconnect();
  }
}, 60_000);

async function post(intakeUrl: string, body: unknown): Promise<string> {
  const response = await request(`${intakeUrl}/v1/verifications`, {
    method: 'POST',
    headers: {
      authorization: 'Bearer api-key-of-the-shop-in-the-test',
      'content-type': 'application/json',
      'idempotency-key': randomUUID(),
    },
    body: JSON.stringify(body),
  });
  expect(response.statusCode).toBe(202);
  return ((await response.body.json()) as VerificationResource).id;
}

async function get(intakeUrl: string, id: string, after: number, waitSeconds: number): Promise<VerificationResource> {
  const response = await request(`${intakeUrl}/v1/verifications/${id}?after=${after}`, {
    headers: { authorization: 'Bearer api-key-of-the-shop-in-the-test', prefer: `wait=${waitSeconds}` },
  });
  return (await response.body.json()) as VerificationResource;
}

async function until(is: () => boolean, withinMs = 10_000): Promise<void> {
  const giveUpAt = performance.now() + withinMs;
  while (!is()) {
    if (performance.now() > giveUpAt) throw new Error(`not within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
