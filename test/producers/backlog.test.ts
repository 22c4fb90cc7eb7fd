import { expect, it, onTestFinished, vi } from 'vitest';
import { backlogGuard } from '../../src/producers/backlog.ts';
import { newVerificationId, VERIFICATION_JOB_OPTIONS } from '../../src/producers/job.ts';
import { parseRequest, type VerificationRequest } from '../../src/producers/request.ts';
import { demoRequest, PARTITIONS, startWorld } from './world.ts';

const FIVE_PER_SECOND = { max: 5, perMs: 1_000 };
const NOW = Date.parse('2026-11-21T20:00:00Z');

function request(expiresAt?: string): VerificationRequest {
  return parseRequest(demoRequest(expiresAt === undefined ? {} : { expiresAt }), PARTITIONS);
}

/** A guard over a queue of the given depth, with a clock that the test moves. */
function guardOf(depth: () => Promise<number>, rateLimit: typeof FIVE_PER_SECOND | undefined = FIVE_PER_SECOND) {
  const clock = { now: NOW };
  let asked = 0;
  const getJobCounts = async (): Promise<Record<string, number>> => {
    asked += 1;
    return { wait: await depth() };
  };
  const turnAway = backlogGuard({ queue: () => ({ getJobCounts }), rateLimit: () => rateLimit, now: () => clock.now });
  return { turnAway, clock, asked: () => asked };
}

it('lets pass what can be served before its deadline, and says when there will be room for the rest', async () => {
  const { turnAway } = guardOf(async () => 50); // ten seconds of work
  expect(await turnAway(request('2026-11-21T20:00:11Z'))).toBeNull();
  expect(await turnAway(request('2026-11-21T20:00:04Z'))).toEqual({ retryAfterMs: 6_200 }); // the one above counts
  expect(await turnAway(request())).toBeNull(); // the partition's five minutes
});

it('lets nobody wait longer than the partition allows, however long the code lives', async () => {
  const { turnAway } = guardOf(async () => 50); // ten seconds of work
  const within = (maxQueueMs: number): VerificationRequest => ({
    ...request(),
    partition: { ...request().partition, maxQueueMs },
  });
  expect(await turnAway(within(8_000))).toEqual({ retryAfterMs: 2_000 });
  expect(await turnAway(within(12_000))).toBeNull();
});

it('takes a code that is dead already: it will be settled as such', async () => {
  const { turnAway } = guardOf(async () => 1_000_000);
  expect(await turnAway(request('2026-11-21T19:59:59Z'))).toBeNull();
});

it('asks the queue four times a second at most, and counts what it lets in meanwhile', async () => {
  const { turnAway, clock, asked } = guardOf(async () => 0);
  const soon = request('2026-11-21T20:00:02Z'); // room for ten before it
  const answers = await Promise.all(Array.from({ length: 20 }, async () => await turnAway(soon)));
  expect(answers.filter((answer) => answer === null)).toHaveLength(11);
  expect(asked()).toBe(1);
  clock.now += 250;
  await turnAway(soon);
  expect(asked()).toBe(2);
});

it.each([
  ['is slow', () => new Promise<number>(() => {})],
  ['is away', () => Promise.reject(new Error('away'))],
])('lets everything pass while Redis %s, after 200 ms at most', async (_how, depth) => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
  const { turnAway } = guardOf(depth);
  const passing = Promise.all([turnAway(request()), turnAway(request())]);
  await vi.advanceTimersByTimeAsync(200);
  expect(await passing).toEqual([null, null]);
  expect(await turnAway(request())).toBeNull();
});

it('lets everything pass where no rate is known', async () => {
  const { turnAway } = guardOf(async () => 1_000_000, undefined);
  expect(await turnAway(request())).not.toBeNull();
  const without = backlogGuard({
    queue: () => ({ getJobCounts: async () => ({ wait: 1e9 }) }),
    rateLimit: () => undefined,
  });
  expect(await without(request())).toBeNull();
});

it('counts what waits in a real queue, delayed jobs too', async () => {
  await using world = await startWorld();
  const queue = world.queues.queue('demo');
  for (const delay of [0, 0, 60_000]) {
    const id = newVerificationId('demo');
    await queue.add('verify', { v: 1, id }, { ...VERIFICATION_JOB_OPTIONS, jobId: id, delay });
  }
  const turnAway = backlogGuard({
    queue: world.queues.queue,
    rateLimit: () => ({ max: 1, perMs: 1_000 }),
    now: () => NOW,
  });
  expect(await turnAway(request('2026-11-21T20:00:02Z'))).toEqual({ retryAfterMs: 1_000 });
  expect(await turnAway(request('2026-11-21T20:00:03Z'))).toBeNull();
});
