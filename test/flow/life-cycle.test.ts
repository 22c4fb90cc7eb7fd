/** How processes end: real ones, told by signals, with attempts in flight at a provider that answers when a test wants. */
import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { Pool, request } from 'undici';
import { expect, test } from 'vitest';
import { partitionKeys, VERIFICATION_JOB_OPTIONS, type VerificationJob } from '../../src/producers/job.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { answer, startProviderServer } from '../support/provider-server.ts';
import { startTestRedis } from '../support/redis.ts';
import { install, type ServiceProcess, serve } from '../support/service.ts';
import { BEST_OF_THREE } from '../support/timing.ts';

const WRONG_CODE = answer(
  200,
  JSON.stringify({ status: false, data: { errors: [{ errorCode: 'INVALID_OTP' }], otpRetryCount: '2' } }),
  { 'content-type': 'application/json' },
);
const AUTHORIZED = { authorization: 'Bearer api-key-of-the-shop-in-the-test' };

/** A provider that keeps every request unanswered, and a service before it. */
async function startWorld(shutdown: Record<string, unknown>) {
  const redis = await startTestRedis({ appendonly: true, appendfsync: 'always' });
  const held: Socket[] = [];
  const provider = await startProviderServer((socket) => held.push(socket));
  const installation = await install({
    redis: { url: redis.url },
    shutdown,
    providers: {
      cepta: {
        baseUrl: provider.url,
        credentials: { secretKey: 'key' },
        timeoutMs: 20_000,
        inquiry: { delaysMs: [600_000] },
      },
    },
  });
  return {
    redis,
    provider,
    installation,
    answer: () => {
      for (const socket of held.splice(0)) socket.write(WRONG_CODE);
    },
    [Symbol.asyncDispose]: async () => {
      await installation[Symbol.asyncDispose]();
      await provider.close();
      await redis[Symbol.asyncDispose]();
    },
  };
}

type World = Awaited<ReturnType<typeof startWorld>>;

test.concurrent('a process that is told to end is not ready while it still accepts, then takes no more, and answers who waits', async () => {
  await using world = await startWorld({ drainMs: 2_000 });
  await using service = await serve(world.installation.file, 'intake');
  expect(await statusOf(`${service.consoleUrl}/readyz`)).toBe(200);
  const kept = new Pool(service.intakeUrl, { connections: 1 });
  try {
    const waiting = post(service.intakeUrl, { prefer: 'wait=20' });
    await post(service.intakeUrl, {}, kept);
    const ended = service.kill('SIGTERM');
    let asked = 0;
    for (; (await statusOf(`${service.consoleUrl}/readyz`)) === 200; asked += 1) expect(asked).toBeLessThan(100);
    const redAt = performance.now();

    // The load balancer has not seen it yet.
    const late = await post(service.intakeUrl, {}, kept);
    expect(late.statusCode).toBe(202);
    expect(late.headers.connection).toBe('close');
    const readyz = await request(`${service.consoleUrl}/readyz`);
    expect(await readyz.body.json()).toMatchObject({ ready: false, checks: { redis: true, staying: false } });
    expect(await statusOf(`${service.consoleUrl}/healthz`)).toBe(200);

    await until(async () => (await statusOf(`${service.intakeUrl}/openapi.json`)) === null);
    expect(performance.now() - redAt).toBeGreaterThan(1_500);
    expect((await waiting).statusCode).toBe(202);
    await ended;
  } finally {
    await kept.destroy();
  }
}, 60_000);

test.concurrent('an attempt in flight at SIGTERM is settled by the worker that leaves, and no other job is taken', async () => {
  await using world = await startWorld({});
  await using intake = await serve(world.installation.file, 'intake');
  await using worker = await serve(world.installation.file, 'worker');
  const { id } = await accepted(intake);
  await world.provider.arrived(1);

  const ended = worker.kill('SIGTERM');
  await until(async () => (await statusOf(`${worker.consoleUrl}/readyz`)) === 503);
  const next = await accepted(intake);
  world.answer();
  await ended;

  const left = await read(intake, id);
  expect(left).toMatchObject({ state: 'settled', otp: 'rejected', reason: 'wrong_code', sequence: 1 });
  expect(await read(intake, next.id)).toMatchObject({ state: 'queued' });
  expect(world.provider.requests).toHaveLength(1);

  await using successor = await serve(world.installation.file, 'worker');
  await world.provider.arrived(2);
  world.answer();
  await until(async () => (await read(intake, next.id)).final);
  expect(successor.pid).not.toBe(worker.pid);
}, 60_000);

test.concurrent('an attempt that hangs longer than the limit is unknown, and its successor never sends it again', {
  ...BEST_OF_THREE,
  timeout: 60_000,
}, async () => {
  await using world = await startWorld({ attemptsMs: 500 });
  await using intake = await serve(world.installation.file, 'intake');
  await using worker = await serve(world.installation.file, 'worker');
  const { id } = await accepted(intake);
  await world.provider.arrived(1);

  const toldAt = performance.now();
  await worker.kill('SIGTERM');
  expect(performance.now() - toldAt).toBeLessThan(8_000); // not the twenty seconds that the provider may take
  expect(await read(intake, id)).toMatchObject({
    state: 'awaiting',
    otp: 'unknown',
    reason: 'no_answer',
    final: false,
  });
  await neverSentAgain(world, id);
});

test.concurrent('a second SIGTERM ends it at once, and what it had in flight is unknown for its successor', {
  ...BEST_OF_THREE,
  timeout: 60_000,
}, async () => {
  await using world = await startWorld({});
  await using intake = await serve(world.installation.file, 'intake');
  await using worker = await serve(world.installation.file, 'worker');
  const { id } = await accepted(intake);
  await world.provider.arrived(1);

  const ended = worker.kill('SIGTERM');
  await until(async () => (await statusOf(`${worker.consoleUrl}/readyz`)) === 503);
  const toldAt = performance.now();
  await Promise.all([ended, worker.kill('SIGTERM')]);
  expect(performance.now() - toldAt).toBeLessThan(1_500);
  expect(await read(intake, id)).toMatchObject({ state: 'sending' });

  await neverSentAgain(world, id, async () => {
    await until(async () => (await read(intake, id)).state === 'awaiting');
    const { otp, history } = await read(intake, id);
    expect(otp).toBe('unknown');
    expect(history?.map(({ event }) => event)).toEqual(['accepted', 'begun', 'owner_dead']);
  });
});

test.concurrent.for([
  ['is away', 'kill', 8_000],
  ['hangs', 'freeze', 20_000],
] as const)(
  'a worker with nothing in flight ends soon although Redis %s',
  {
    ...BEST_OF_THREE,
    timeout: 60_000,
  },
  async ([, goes, withinMs]) => {
    await using world = await startWorld({});
    await using worker = await serve(world.installation.file, 'worker');
    try {
      await world.redis[goes]();
      const toldAt = performance.now();
      await worker.kill('SIGTERM');
      expect(performance.now() - toldAt).toBeLessThan(withinMs);
    } finally {
      world.redis.thaw();
    }
  },
);

test.concurrent('a worker that can write nothing down ends when its limit is over, and its attempt is unknown for its successor', {
  ...BEST_OF_THREE,
  timeout: 60_000,
}, async () => {
  await using world = await startWorld({ attemptsMs: 3_000 });
  await using intake = await serve(world.installation.file, 'intake');
  const { id } = await accepted(intake);
  await using worker = await serve(world.installation.file, 'worker');
  await world.provider.arrived(1);

  await world.redis.kill();
  world.answer();
  const toldAt = performance.now();
  await worker.kill('SIGTERM');
  expect(performance.now() - toldAt).toBeGreaterThan(2_500);
  expect(performance.now() - toldAt).toBeLessThan(15_000);

  await world.redis.start();
  await neverSentAgain(world, id, async () => {
    await until(async () => (await read(intake, id)).state === 'awaiting');
    expect(await read(intake, id)).toMatchObject({ otp: 'unknown', final: false });
  });
});

test.concurrent('an attempt whose outcome waits for Redis is settled when Redis comes back before the limit is over', async () => {
  await using world = await startWorld({ attemptsMs: 20_000 });
  await using intake = await serve(world.installation.file, 'intake');
  await using worker = await serve(world.installation.file, 'worker');
  const { id } = await accepted(intake);
  await world.provider.arrived(1);

  await world.redis.kill();
  world.answer();
  const ended = worker.kill('SIGTERM');
  await delay(4_000); // longer than a worker with nothing in flight waits for Redis
  await world.redis.start();
  await ended;
  await until(async () => (await read(intake, id)).state === 'settled');
  expect(await read(intake, id)).toMatchObject({ otp: 'rejected', reason: 'wrong_code', sequence: 1 });
}, 60_000);

/** The job is put in once more, as after any accident, and another verification shows that the successor works. */
async function neverSentAgain(
  { installation, provider, redis, answer }: World,
  id: string,
  meanwhile: () => Promise<void> = async () => {},
): Promise<void> {
  await using successor = await serve(installation.file, 'worker,intake');
  await meanwhile();
  const { queue: name, prefix } = partitionKeys('cepta');
  const queue = new Queue<VerificationJob>(name, { connection: { url: redis.url }, prefix });
  try {
    await queue.add('verify', { v: 1, id }, { ...VERIFICATION_JOB_OPTIONS, jobId: id });
    const other = await accepted(successor);
    await provider.arrived(2);
    answer();
    await until(async () => (await read(successor, other.id)).final);
    expect(provider.requests.map(({ body }) => JSON.parse(body).transactionRef)).toHaveLength(2);
    expect(new Set(provider.requests.map(({ body }) => JSON.parse(body).transactionRef)).size).toBe(2);
  } finally {
    await queue.close();
  }
}

async function post(intakeUrl: string, headers: Record<string, string> = {}, dispatcher?: Pool) {
  const body = {
    ...{ provider: 'cepta', otp: '012345' },
    params: { transactionRef: `TX${randomUUID().slice(0, 8)}`, paymentId: 'PAY1', md: 'merchant_data' },
  };
  const response = await request(`${intakeUrl}/v1/verifications`, {
    ...{ method: 'POST', body: JSON.stringify(body), ...(dispatcher ? { dispatcher } : {}) },
    headers: { ...AUTHORIZED, 'content-type': 'application/json', 'idempotency-key': randomUUID(), ...headers },
  });
  const resource = (await response.body.json()) as VerificationResource;
  return { statusCode: response.statusCode, headers: response.headers, resource };
}

async function accepted({ intakeUrl }: ServiceProcess): Promise<VerificationResource> {
  const { statusCode, resource } = await post(intakeUrl);
  expect(statusCode).toBe(202);
  return resource;
}

async function read({ intakeUrl }: ServiceProcess, id: string): Promise<VerificationResource> {
  const response = await request(`${intakeUrl}/v1/verifications/${id}`, { headers: AUTHORIZED });
  return (await response.body.json()) as VerificationResource;
}

/** Null: nobody takes the connection. */
async function statusOf(url: string): Promise<number | null> {
  try {
    const response = await request(url, { headers: { connection: 'close' } });
    await response.body.dump();
    return response.statusCode;
  } catch {
    return null;
  }
}

async function until(is: () => Promise<boolean>, withinMs = 20_000): Promise<void> {
  const giveUpAt = performance.now() + withinMs;
  while (!(await is())) {
    if (performance.now() > giveUpAt) throw new Error(`not within ${withinMs} ms`);
    await delay(20);
  }
}
