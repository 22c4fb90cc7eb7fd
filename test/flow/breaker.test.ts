import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { request } from 'undici';
import { expect, test } from 'vitest';
import { partitionKeys } from '../../src/producers/job.ts';
import { startSandbox } from '../../src/sandbox/index.ts';
import { startTestRedis } from '../support/redis.ts';
import { install, type ServiceProcess, serve } from '../support/service.ts';

const CODES = 20;
const within = { timeout: 15_000, interval: 20 };

test('the worker that opened the breaker is killed: it stays open, the other one closes it, and each code is sent once', async () => {
  await using redisServer = await startTestRedis();
  await using sandbox = await startSandbox({ settleAfterMs: 0 });
  const breaker = { failures: 3, openMs: 300, maxOpenMs: 1_000, rampMs: 500 };
  await using installation = await install({
    redis: { url: redisServer.url },
    providers: { beqelal: { ...sandbox.providers.beqelal, breaker } },
  });
  await using intake = await serve(installation.file, 'intake');
  await using one = await serve(installation.file, 'worker');
  await using other = await serve(installation.file, 'worker');
  const redis = new Redis(redisServer.url);
  const keys = partitionKeys('beqelal');
  const stateNow = async (): Promise<string | null> => await redis.hget(keys.breaker, 'state');

  try {
    await sandbox.takeDown('beqelal');
    for (let code = 0; code < CODES; code += 1) await post(intake.intakeUrl);
    await expect.poll(stateNow, within).toBe('open');
    const hasOpened = ({ output }: ServiceProcess): boolean => output().includes('the breaker is open');
    await expect.poll(() => [one, other].some(hasOpened), within).toBe(true);
    const victim = hasOpened(one) ? one : other;
    const survivor = victim === one ? other : one;
    await victim.kill('SIGKILL');

    // Whatever the survivor is told of it, it is told by Redis.
    const probes = (): number => survivor.output().split('the provider was probed').length - 1;
    await expect.poll(probes, within).toBeGreaterThan(1);
    expect(await stateNow()).toBe('open');
    expect(await metricOf(survivor, 'otp_breaker_open{provider="beqelal"}')).toBe('1');
    expect(await metricOf(intake, 'otp_breaker_open{provider="beqelal"}')).toBe('1');

    await sandbox.bringUp('beqelal');
    await expect.poll(async () => await redis.zcard(keys.due), { timeout: 25_000, interval: 50 }).toBe(0);
    expect(await stateNow()).toBe('closed');
    const received = sandbox.ledger.entries.filter(({ event }) => event === 'code_received');
    expect(received).toHaveLength(CODES);
    expect(new Set(received.map(({ reference }) => reference)).size).toBe(CODES);
    expect(sandbox.ledger.entries.filter(({ event }) => event === 'charged')).toHaveLength(CODES);
  } finally {
    redis.disconnect();
  }
}, 60_000);

async function post(intakeUrl: string): Promise<void> {
  const response = await request(`${intakeUrl}/v1/verifications`, {
    method: 'POST',
    headers: {
      authorization: 'Bearer api-key-of-the-shop-in-the-test',
      'content-type': 'application/json',
      'idempotency-key': randomUUID(),
    },
    body: JSON.stringify({ provider: 'beqelal', otp: '123456', params: { reference: randomUUID().slice(0, 10) } }),
  });
  await response.body.dump();
  expect(response.statusCode).toBe(202);
}

async function metricOf({ consoleUrl }: ServiceProcess, series: string): Promise<string | undefined> {
  const response = await request(`${consoleUrl}/metrics`);
  const lines = (await response.body.text()).split('\n');
  return lines.find((line) => line.startsWith(`${series} `))?.slice(series.length + 1);
}
