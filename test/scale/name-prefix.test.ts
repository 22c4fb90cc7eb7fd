/** Several installations in one Redis, by `redis.namePrefix`. */
import { expect, test, vi } from 'vitest';
import { connectRedis } from '../../src/redis/connections.ts';
import { startSandbox } from '../../src/sandbox/index.ts';
import { bodyFor } from '../support/pipeline.ts';
import { startTestRedis } from '../support/redis.ts';
import { type House, startHouse } from './house.ts';

test('two installations in one Redis, of the same partitions, clients and keys, see nothing of each other', async () => {
  await using server = await startTestRedis();
  await using sandbox = await startSandbox({ settleAfterMs: 0 });
  await using north = await startHouse({ url: server.url, namePrefix: 'north' }, sandbox);
  await using south = await startHouse({ url: server.url, namePrefix: 'south' }, sandbox);
  const houses = [north, south];

  // The very same request: of one installation the second would be the first again.
  const body = bodyFor('cepta', '123456');
  const mine = await north.verify(body, 'key-1');
  expect(mine).toMatchObject({ otp: 'accepted' });
  const theirs = await south.verify(body, 'key-1');
  const both = [mine, theirs];
  expect(theirs.id).not.toBe(mine.id);
  await expect(north.verify(bodyFor('cepta', '123456'), 'key-1')).rejects.toThrow('422');

  // The library, an inquiry after a lost answer, a refusal, a callback: whatever makes keys has made some.
  for (const house of houses) {
    const { id } = await house.producer.enqueue(bodyFor('cepta', '800002'), { idempotencyKey: 'key-2' });
    both.push(await house.until(id, ({ final }) => final));
    const lost = { ...bodyFor('beqelal', '800002'), amount: { value: '100.00', currency: 'ETB' } };
    const asked = await house.verify(lost);
    expect(asked).toMatchObject({ state: 'awaiting', otp: 'unknown' });
    const proof = { reference: asked.reference, status: 'PROCESSED', amount: '100.00', total_amount: '100.00' };
    expect(await house.report('beqelal/callback-secret-of-the-test', proof)).toBe(200);
    both.push(await house.until(asked.id, ({ final }) => final));
    both.push(await house.verify(bodyFor('lipa-later', '123456')));
    both.push(await house.verify(bodyFor('ayoconnect', '123456')));
    both.push(await house.verify(bodyFor('hello-clever', '123456')));
  }

  for (const [index, house] of houses.entries()) {
    const own = both.filter((_, each) => ownerOf(each) === index).map(({ id }) => id);
    await vi.waitUntil(() => own.every((id) => resultsOf(house).has(id) && webhooksOf(house).has(id)), {
      timeout: 15_000,
    });
    expect([...resultsOf(house)].toSorted()).toEqual(own.toSorted());
    expect([...webhooksOf(house)].toSorted()).toEqual(own.toSorted());
    for (const { id } of both) expect((await house.read(id)).status).toBe(own.includes(id) ? 200 : 404);
    const [one = '', other = ''] = index === 0 ? [mine.id, theirs.id] : [theirs.id, mine.id];
    expect((await house.page(`/verifications/${one}`)).status).toBe(200);
    expect((await house.page(`/verifications/${other}`)).status).toBe(404);
  }

  const redis = connectRedis(server.url, 'console', { onError: () => {} });
  try {
    const keys = await redis.keys('*');
    const names = [...keys, ...((await redis.pubsub('CHANNELS')) as string[])];
    expect(names.filter((name) => !/^(\{(north|south)-(otp|idem)-[^}]+\}:|(north|south)-otp-)/.test(name))).toEqual([]);
    for (const name of ['north', 'south']) expect(names).toContain(`${name}-otp-published`);
  } finally {
    redis.disconnect();
  }
}, 60_000);

/** The first two are one each, then five each. */
const ownerOf = (index: number): number => (index < 2 ? index : index < 7 ? 0 : 1);
const resultsOf = ({ results }: House): Set<string> => new Set(results.map(({ subject }) => subject));
const webhooksOf = ({ webhooks }: House): Set<string> => new Set(webhooks.map(({ json }) => json.subject));
