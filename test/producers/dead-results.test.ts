import { Queue } from 'bullmq';
import { expect, it } from 'vitest';
import { createResultsConsumer, type ResultsConsumerOptions } from '../../src/index.ts';
import { deadResults, replayDeadResults } from '../../src/producers/dead-results.ts';
import { RESULT_JOB_OPTIONS, RESULTS_QUEUE, resultsPrefix } from '../../src/producers/job.ts';
import { connectRedis } from '../../src/redis/connections.ts';
import { startTestRedis } from '../support/redis.ts';
import { type CliRun, install, otp } from '../support/service.ts';
import { CANARY, eventually } from './world.ts';

const idOf = (number: number): string => `demo_${String(number).padStart(32, '0')}`;

function resultOf(id: string, sequence: number): Record<string, unknown> {
  return {
    specversion: '1.0',
    id: `${id}.${sequence}`,
    source: '/otp/demo',
    type: 'otp.verification.settled',
    subject: id,
    time: '2026-11-21T20:00:01.000Z',
    client: 'shop',
    datacontenttype: 'application/json',
    data: { id, state: 'settled', sequence, final: true, metadata: { secret: CANARY } },
  };
}

async function setup() {
  const server = await startTestRedis();
  const redis = connectRedis(server.url, 'worker', { onError: () => {} });
  const queue = new Queue(RESULTS_QUEUE, { connection: redis, prefix: resultsPrefix(RESULTS_QUEUE) });
  return {
    url: server.url,
    queue,
    publish: async (id: string, sequence: number) => {
      const options = { ...RESULT_JOB_OPTIONS, attempts: 2, backoff: { type: 'fixed', delay: 5 } };
      await queue.add('otp.verification.settled', resultOf(id, sequence), { ...options, jobId: `${id}.${sequence}` });
    },
    consume: (handler: ResultsConsumerOptions['handler']) => createResultsConsumer({ redis: server.url, handler }),
    [Symbol.asyncDispose]: async () => {
      await queue.close();
      redis.disconnect();
      await server[Symbol.asyncDispose]();
    },
  };
}

it('names what no handler could take and what is no result, without a word of what stands in them', async () => {
  await using world = await setup();
  await using _ = world.consume(async () => {
    throw new TypeError(CANARY);
  });
  await world.publish(idOf(1), 1);
  await eventually(async () => (await world.queue.getFailedCount()) === 1);
  await world.queue.add('strange', { hello: CANARY }, { jobId: 'stranger' });
  await eventually(async () => (await world.queue.getFailedCount()) === 2);

  const dead = await deadResults(world.queue);
  expect(dead).toMatchObject([
    {
      id: `${idOf(1)}.1`,
      result: { subject: idOf(1), type: 'otp.verification.settled', client: 'shop' },
      reason: 'the handler failed: TypeError',
      tries: 2,
    },
    { id: 'stranger', result: null, tries: 1 },
  ]);
  expect(Date.now() - (dead[0]?.since ?? 0)).toBeLessThan(60_000);
  expect(JSON.stringify(dead)).not.toContain(CANARY);
});

it('hands them over again, one or all, and to a handler that can take them only what is news', async () => {
  await using world = await setup();
  let broken = true;
  const handled: string[] = [];
  await using _ = world.consume(async ({ id }) => {
    if (broken) throw new Error('not now');
    handled.push(id);
  });
  for (const number of [1, 2, 3]) await world.publish(idOf(number), 1);
  await world.queue.add('strange', { hello: 'you' }, { jobId: 'stranger' });
  await eventually(async () => (await world.queue.getFailedCount()) === 4);
  broken = false;

  expect(await replayDeadResults(world.queue, `${idOf(2)}.1`)).toBe(1);
  await eventually(() => handled.length === 1);
  await world.publish(idOf(3), 2); // meanwhile the verification has gone on
  await eventually(() => handled.length === 2);
  expect(await replayDeadResults(world.queue)).toBe(2);
  await eventually(async () => (await world.queue.getFailedCount()) === 1);
  await eventually(() => handled.length === 3);
  expect(handled).toEqual([`${idOf(2)}.1`, `${idOf(3)}.2`, `${idOf(1)}.1`]);
  expect((await deadResults(world.queue)).map(({ id }) => id)).toEqual(['stranger']);
  expect(await replayDeadResults(world.queue, 'nobody')).toBe(0);
});

it('gives one that is replayed its full number of tries', async () => {
  await using world = await setup();
  let tries = 0;
  await using _ = world.consume(async () => {
    tries += 1;
    throw new Error('still not');
  });
  await world.publish(idOf(1), 1);
  await eventually(async () => (await world.queue.getFailedCount()) === 1);
  await replayDeadResults(world.queue);
  await eventually(async () => tries === 4 && (await world.queue.getFailedCount()) === 1);
});

it('is what `otp results` lists and hands over again', async () => {
  await using world = await setup();
  await using installation = await install({
    redis: { url: world.url },
    providers: { demo: { adapter: 'cepta', baseUrl: 'http://127.0.0.1:9', credentials: { secretKey: 'key' } } },
  });
  const results = async (...args: string[]): Promise<CliRun> =>
    await otp(['results', ...args, '--config', installation.file, '--json']);
  await using failing = world.consume(async () => {
    throw new TypeError(CANARY);
  });
  await world.publish(idOf(1), 1);
  await eventually(async () => (await world.queue.getFailedCount()) === 1);
  await failing.close();

  const listed = await results('list');
  expect(JSON.parse(listed.output)).toMatchObject({ queue: RESULTS_QUEUE, id: `${idOf(1)}.1`, tries: 2 });
  expect(listed.output).not.toContain(CANARY);
  expect(await results('replay', `${idOf(2)}.1`)).toMatchObject({ code: 1 });
  expect(await results('replay')).toMatchObject({ code: 0, output: '{"queue":"otp-results","replayed":1}\n' });
  expect(await world.queue.getFailedCount()).toBe(0);
}, 30_000);
