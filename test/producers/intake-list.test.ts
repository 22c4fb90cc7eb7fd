/** What else the intake tells: a client's verifications of one transaction, its own description, and the caller's trace. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { asyncApi } from '../../src/producers/asyncapi.ts';
import { newVerificationId, partitionKeys } from '../../src/producers/job.ts';
import { openApi } from '../../src/producers/openapi.ts';
import { readVerification } from '../../src/producers/reading.ts';
import { resultEventOf } from '../../src/producers/result.ts';
import { demoRequest, KIOSK, PARTITIONS, startWorld, type World } from './world.ts';

let world: World;
const descriptions = {
  '/openapi.json': openApi([...PARTITIONS.values()], '1.0.0'),
  '/asyncapi.json': asyncApi([...PARTITIONS.keys()], '1.0.0'),
};
beforeAll(async () => {
  world = await startWorld({ descriptions });
});
afterAll(async () => await world[Symbol.asyncDispose]());

const accept = async (reference: string, key: string, provider = 'demo', headers = {}): Promise<string> => {
  const reply = await world.post(demoRequest({ provider, params: { reference } }), key, headers);
  expect(reply.status).toBe(202);
  return String(reply.body.id);
};
const list = async (query: string, more: { apiKey?: string } = {}) =>
  await world.call({ method: 'GET', path: `/v1/verifications?${query}`, ...more });
const idsOf = (body: Record<string, unknown>): unknown[] =>
  (body.verifications as { id: string }[]).map(({ id }) => id);

describe('the verifications of one transaction', () => {
  test('are listed in the order of their acceptance, and no others', async () => {
    const first = await accept('LIST-1', 'list-1-a');
    const second = await accept('LIST-1', 'list-1-b');
    await accept('LIST-2', 'list-2');
    await accept('LIST-1', 'list-1-other', 'other');
    const { status, body } = await list('provider=demo&reference=LIST-1');
    expect(status).toBe(200);
    expect(idsOf(body)).toEqual([first, second]);
    expect(body.next).toBeNull();
  });

  test('of another client are not there', async () => {
    await accept('LIST-3', 'list-3', 'other');
    const { status, body } = await list('provider=other&reference=LIST-3', { apiKey: KIOSK.apiKey.reveal() });
    expect(status).toBe(200);
    expect(body).toEqual({ verifications: [], next: null });
  });

  test('are found among any number of those of others', async () => {
    const { transaction } = partitionKeys('demo');
    const others = Array.from({ length: 3_000 }, () => [`of:${newVerificationId('demo')}`, 'kiosk']);
    await world.redis.hset(transaction('LIST-5'), Object.fromEntries(others));
    const ids = [await accept('LIST-5', 'list-5-a'), await accept('LIST-5', 'list-5-b')];
    const { body } = await list('provider=demo&reference=LIST-5');
    expect([idsOf(body), body.next]).toEqual([ids, null]);
  });

  test('come in pages of fifty', async () => {
    const ids = [];
    for (let index = 0; index < 53; index += 1) ids.push(await accept('LIST-4', `list-4-${index}`));
    const first = await list('provider=demo&reference=LIST-4');
    expect(idsOf(first.body)).toEqual(ids.slice(0, 50));
    const second = await list(`provider=demo&reference=LIST-4&after=${first.body.next}`);
    expect(idsOf(second.body)).toEqual(ids.slice(50));
    expect(second.body.next).toBeNull();
  });

  test('are looked for only where the question is whole', async () => {
    const { status, body } = await list('provider=nobody&after=demo_1');
    expect(status).toBe(400);
    expect((body.errors as { field: string }[]).map(({ field }) => field)).toEqual(['provider', 'reference', 'after']);
  });

  test('of a partition that a client may not use are refused', async () => {
    const { status } = await list('provider=demo&reference=LIST-1', { apiKey: KIOSK.apiKey.reveal() });
    expect(status).toBe(403);
  });

  test('need an API key', async () => {
    expect((await world.call({ method: 'GET', path: '/v1/verifications?x=1', apiKey: null })).status).toBe(401);
  });
});

test.each(Object.entries(descriptions))('%s is served without an API key', async (path, document) => {
  const { status, body } = await world.call({ method: 'GET', path, apiKey: null });
  expect(status).toBe(200);
  expect(body).toEqual(JSON.parse(JSON.stringify(document)));
  expect((await world.call({ method: 'POST', path, apiKey: null, body: {} })).status).toBe(405);
});

describe("the caller's trace", () => {
  const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
  const resultOf = async (id: string) => {
    const record = await readVerification(world.redis, id);
    if (!record) throw new Error('it is not there');
    return resultEventOf({ ...record, sequence: 1 }, 'otp.verification.settled', 'shop', false);
  };

  test('goes with the verification into its results', async () => {
    const id = await accept('TRACE-1', 'trace-1', 'demo', { traceparent });
    expect((await resultOf(id)).traceparent).toBe(traceparent);
  });

  test('does not make a repeat another request', async () => {
    const id = await accept('TRACE-2', 'trace-2', 'demo', { traceparent });
    expect(await accept('TRACE-2', 'trace-2')).toBe(id);
  });

  test.each([
    '00-zz',
    `${traceparent}0`,
    traceparent.replace(/^00/, 'ff'),
    '00-00000000000000000000000000000000-00f067aa0ba902b7-01',
  ])('that is none (%s) is passed over', async (given) => {
    const id = await accept('TRACE-3', `trace-3-${given.length}-${given.slice(0, 5)}`, 'demo', { traceparent: given });
    expect((await resultOf(id)).traceparent).toBeUndefined();
  });
});
