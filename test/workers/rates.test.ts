/** A backlog in front of a rate, in the hands of two workers: never more than the rate, and nearly in its order. */
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { partitionKeys } from '../../src/producers/job.ts';
import { startSandbox } from '../../src/sandbox/index.ts';
import { bodyFor, startPipeline } from '../support/pipeline.ts';
import { behaviours, startProviderServer } from '../support/provider-server.ts';

const RATE = { max: 10, perMs: 500 };
const CODES = 40;

test('two workers take a backlog in its order and begin no more than the rate in any window, by the clock of Redis', async () => {
  await using sandbox = await startSandbox({ settleAfterMs: 0 });
  const partitions = { beqelal: { ...sandbox.providers.beqelal, settings: { rateLimit: RATE } } };
  await using producer = await startPipeline(partitions, { workers: false });
  const { server, keySet } = producer;
  const ids: string[] = [];
  for (let code = 0; code < CODES; code += 1) ids.push(await producer.enqueue(bodyFor('beqelal', '123456')));
  await using _one = await startPipeline(partitions, { server, keySet });
  await using _other = await startPipeline(partitions, { server, keySet });
  for (const id of ids) await producer.final(id, 20_000);

  const begun = await Promise.all(
    ids.map(async (id) => Number(await producer.redis.hget(partitionKeys('beqelal').record(id), 'beganAt'))),
  );
  const inWindow = begun.map((from) => begun.filter((at) => at >= from && at < from + RATE.perMs).length);
  expect(Math.max(...inWindow)).toBeLessThanOrEqual(RATE.max);
  // Some are refused at every window's end; put behind the backlog they would be overtaken by all that is left of it. A
  // worker that the machine holds up keeps those it has taken a window longer.
  const overtakenBy = begun.map((mine, place) => begun.filter((at, other) => other > place && at < mine).length);
  expect(Math.max(...overtakenBy)).toBeLessThanOrEqual(2 * RATE.max);
});

test('a verification that is tried again comes before the backlog', async () => {
  let refused: string | undefined;
  const tries: string[] = [];
  await using server = await startProviderServer((socket, request) => {
    if (request.path.includes('token')) {
      behaviours.saysJson(200, { access_token: randomUUID(), token_type: 'Bearer', expires_in: 3_600 })(
        socket,
        request,
      );
      return;
    }
    const { phone_number: phone } = JSON.parse(request.body) as { phone_number: string };
    tries.push(phone);
    refused ??= phone;
    const isFirst = tries.length === 1;
    behaviours.saysJson(isFirst ? 401 : 200, isFirst ? { title: 'token' } : { status: 200, message: 'ok', data: {} })(
      socket,
      request,
    );
  });
  await using sandbox = await startSandbox({ settleAfterMs: 0 });
  const entry = { ...sandbox.providers['lipa-later'], baseUrl: server.url };
  const partitions = { 'lipa-later': { ...entry, settings: { rateLimit: RATE } } };
  await using producer = await startPipeline(partitions, { workers: false });
  for (let code = 0; code < CODES; code += 1) {
    await producer.enqueue(bodyFor('lipa-later', '123456', { phone_number: `+2547${10_000_000 + code}` }));
  }
  await using _worker = await startPipeline(partitions, { server: producer.server, keySet: producer.keySet });
  await expect.poll(() => tries.length, { timeout: 20_000, interval: 20 }).toBe(CODES + 1);
  expect(tries.lastIndexOf(refused ?? '')).toBeGreaterThan(0);
  expect(tries.lastIndexOf(refused ?? '')).toBeLessThan(2 * RATE.max);
});
