import { expect, it } from 'vitest';
import { OutcomeCounter, readOutcomes } from '../../src/console/outcomes.ts';
import { EventBus, type Events } from '../../src/events.ts';
import { partitionKeys } from '../../src/producers/job.ts';
import { connectRedis } from '../../src/redis/connections.ts';
import { startTestRedis } from '../support/redis.ts';

const MOVED: Events['verification:moved'] = {
  id: 'cepta_x',
  traceparent: null,
  partition: 'cepta',
  operation: 'verify',
  attempt: 1,
  state: 'settled',
  final: true,
  otp: 'accepted',
  transaction: 'succeeded',
  reason: null,
  needsReview: false,
  because: 'answered',
};

it('counts what attempts came to over all workers, each attempt once, and lets go of it', async () => {
  await using server = await startTestRedis();
  const redis = connectRedis(server.url, 'worker', { onError: () => {} });
  try {
    const buses = [new EventBus(), new EventBus()] as const;
    const counters = buses.map((events) => new OutcomeCounter({ redis, events }));
    const [one, other] = buses;
    one.emit('verification:moved', MOVED);
    one.emit('verification:moved', { ...MOVED, otp: 'rejected' });
    one.emit('verification:moved', { ...MOVED, otp: 'not_submitted', because: 'deadline_passed' });
    other.emit('verification:moved', { ...MOVED, final: false, otp: 'accepted', transaction: 'pending' });
    other.emit('verification:moved', { ...MOVED, final: false, otp: 'unknown', because: 'lost' });
    other.emit('verification:moved', { ...MOVED, because: 'inquired' }); // of one that was counted when it was answered
    other.emit('verification:moved', { ...MOVED, final: false, otp: null, because: 'not_sent' });
    await Promise.all(counters.map((counter) => counter.close()));
    const now = Date.now();
    const counts = { accepted: 2, rejected: 1, not_submitted: 1, unknown: 1 };
    expect(await readOutcomes(redis, 'cepta', now)).toEqual(counts);
    expect(await readOutcomes(redis, 'cepta', now + 3 * 60_000)).toEqual(counts);
    const nothing = { accepted: 0, rejected: 0, not_submitted: 0, unknown: 0 };
    expect(await readOutcomes(redis, 'cepta', now + 6 * 60_000)).toEqual(nothing);
    expect(await readOutcomes(redis, 'beqelal', now)).toEqual(nothing);
    for (const key of await redis.keys(`${partitionKeys('cepta').prefix}:outcomes:*`)) {
      expect(await redis.ttl(key)).toBeGreaterThan(600);
      expect(await redis.ttl(key)).toBeLessThanOrEqual(900);
    }
  } finally {
    redis.disconnect();
  }
});
