import { describe, expect, it } from 'vitest';
import { claimKey, partitionKeys } from '../../src/producers/job.ts';
import { Opener, Sealer } from '../../src/producers/sealing.ts';
import { Secret } from '../../src/secret.ts';
import { AWAITING, CANARY, demoRequest, KIOSK, type Reply, SETTLED, SHOP, sealingKeys, startWorld } from './world.ts';

function expectProblem(reply: Reply, status: number, name: string): void {
  expect(reply.body, reply.text).toMatchObject({ status, type: `urn:otp-pipeline:problem:${name}` });
  expect(reply.status).toBe(status);
  expect(reply.headers['content-type']).toBe('application/problem+json');
  expect(typeof reply.body.title).toBe('string');
  expect(typeof reply.body.detail).toBe('string');
  expect(reply.text + JSON.stringify(reply.headers)).not.toContain(CANARY);
}

describe('POST /v1/verifications', () => {
  it('accepts a verification: 202, where it is, and what it looks like', async () => {
    await using world = await startWorld();
    const reply = await world.post(demoRequest({ metadata: { orderId: 'A-17' } }), 'k-1');
    expect(reply.status, reply.text).toBe(202);
    const { id } = reply.body;
    expect(id).toMatch(/^demo_[0-9a-f]{32}$/);
    expect(reply.headers.location).toBe(`/v1/verifications/${id}`);
    expect(reply.headers['content-type']).toBe('application/json');
    expect(reply.headers['cache-control']).toBe('no-store');
    expect(reply.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
    expect(reply.headers).not.toHaveProperty('x-powered-by');
    expect(reply.headers).not.toHaveProperty('etag');
    expect(reply.body).toMatchObject({
      provider: 'demo',
      operation: 'verify',
      reference: 'TX-1',
      state: 'queued',
      sequence: 0,
      final: false,
      otp: null,
      transaction: null,
      nextStep: null,
      metadata: { orderId: 'A-17' },
      history: [{ event: 'accepted' }],
    });
    expect(reply.text).not.toContain(CANARY);
    expect(await world.jobs()).toBe(1);
    expect(world.answered).toEqual([{ status: 202, durationMs: expect.any(Number) }]);
  });

  it('makes one verification of fifty equal requests at once, and all who are told an answer are told the same', async () => {
    await using world = await startWorld();
    const replies = await Promise.all(Array.from({ length: 50 }, () => world.post(demoRequest(), 'k-1')));
    const accepted = replies.filter(({ status }) => status === 202);
    const others = replies.filter(({ status }) => status !== 202);
    expect(accepted.length).toBeGreaterThan(0);
    for (const other of others) {
      expectProblem(other, 409, 'in-progress');
      expect(other.headers['retry-after']).toBe('1');
    }
    const again = await world.post(demoRequest(), 'k-1');
    expect(new Set([...accepted, again].map(({ text }) => text)).size).toBe(1);
    expect(await world.jobs()).toBe(1);
    expect(await world.redis.keys('{otp-demo}:v:*')).toHaveLength(1);
  });

  it('gives the first answer again, byte for byte, whatever became of the verification', async () => {
    await using world = await startWorld();
    const first = await world.post(demoRequest(), 'k-1');
    await world.publish(String(first.body.id), SETTLED);
    const again = await world.post(demoRequest(), 'k-1');
    expect(again.status).toBe(202);
    expect(again.text).toBe(first.text);
    expect(again.headers.location).toBe(first.headers.location);
  });

  it('gives it byte for byte also of a deadline in the year 9999', async () => {
    await using world = await startWorld();
    const body = demoRequest({ expiresAt: '9999-12-31T23:59:59.999Z' });
    const first = await world.post(body, 'k-1');
    expect(first.body).toMatchObject({ expiresAt: '9999-12-31T23:59:59.999Z' });
    expect((await world.post(body, 'k-1')).text).toBe(first.text);
  });

  it('knows the same body by what it says, not by the order of its fields', async () => {
    await using world = await startWorld();
    const first = await world.call({ raw: `{"provider":"demo","otp":"123456","params":{"reference":"R"}}`, key: 'k' });
    const again = await world.call({
      raw: `{ "params": {"reference":"R"}, "otp":"123456", "provider":"demo" }`,
      key: 'k',
    });
    expect([first.status, again.status]).toEqual([202, 202]);
    expect(again.text).toBe(first.text);
  });

  it('refuses a used key with another body', async () => {
    await using world = await startWorld();
    await world.post(demoRequest(), 'k-1');
    expectProblem(await world.post(demoRequest({ otp: '999999' }), 'k-1'), 422, 'idempotency-mismatch');
    expect(await world.jobs()).toBe(1);
  });

  it('keeps the keys of two clients apart', async () => {
    await using world = await startWorld();
    const body = demoRequest({ provider: 'other' });
    const shops = await world.call({ body, key: 'k-1' });
    const kiosks = await world.call({ body, key: 'k-1', apiKey: KIOSK.apiKey.reveal() });
    expect([shops.status, kiosks.status]).toEqual([202, 202]);
    expect(kiosks.body.id).not.toBe(shops.body.id);
  });

  it('answers 409 while another process accepts, and finishes under the same id what a dead one left', async () => {
    await using world = await startWorld();
    const first = await world.post(demoRequest(), 'k-1');
    const id = String(first.body.id);
    // As if the process had died right after its claim: no record, no job.
    const claim = claimKey(SHOP.id, 'k-1');
    await world.redis.del(partitionKeys('demo').record(id));
    await world.queues.queue('demo').remove(id);
    await world.redis.hset(claim, 'at', Date.now());
    expectProblem(await world.post(demoRequest(), 'k-1'), 409, 'in-progress');

    await world.redis.hset(claim, 'at', Date.now() - 10_001);
    const finished = await world.post(demoRequest(), 'k-1');
    expect(finished.status).toBe(202);
    expect(finished.body.id).toBe(id);
    expect(await world.jobs()).toBe(1);
  });

  it('asks for a known API key, and says how', async () => {
    await using world = await startWorld();
    const wrong = [null, 'key-of-nobody', 'key-of-the-shop2', ''];
    for (const apiKey of wrong) {
      const reply = await world.call({ body: demoRequest(), key: 'k-1', apiKey });
      expectProblem(reply, 401, 'unauthorized');
      expect(reply.headers['www-authenticate']).toBe('Bearer realm="otp-pipeline"');
    }
    const basic = { authorization: `Basic ${SHOP.apiKey.reveal()}` };
    expectProblem(
      await world.call({ body: demoRequest(), key: 'k-1', apiKey: null, headers: basic }),
      401,
      'unauthorized',
    );
    expectProblem(await world.call({ method: 'GET', path: '/v1/verifications/x', apiKey: 'no' }), 401, 'unauthorized');
    expect(await world.jobs()).toBe(0);
  });

  it('keeps a client to its partitions, but first says what is wrong with the request', async () => {
    await using world = await startWorld();
    const apiKey = KIOSK.apiKey.reveal();
    expectProblem(await world.call({ body: demoRequest(), key: 'k', apiKey }), 403, 'partition-not-allowed');
    expectProblem(await world.call({ body: demoRequest({ otp: 1 }), key: 'k', apiKey }), 400, 'invalid-request');
    expect((await world.call({ body: demoRequest({ provider: 'other' }), key: 'k', apiKey })).status).toBe(202);
  });

  it('takes JSON only', async () => {
    await using world = await startWorld();
    const raw = JSON.stringify(demoRequest());
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonp', '']) {
      const reply = await world.call({ raw, key: 'k', headers: { 'content-type': type } });
      expectProblem(reply, 415, 'unsupported-media-type');
    }
    const zipped = { 'content-encoding': 'gzip' };
    expectProblem(await world.call({ raw, key: 'k', headers: zipped }), 415, 'unsupported-media-type');
    const latin = { 'content-type': 'application/json; charset=latin1' };
    expectProblem(await world.call({ raw, key: 'k', headers: latin }), 415, 'unsupported-media-type');
    const utf8 = { 'content-type': 'application/json; charset=UTF-8' };
    expect((await world.call({ raw, key: 'k', headers: utf8 })).status).toBe(202);
  });

  it('takes 64 KiB and no more', async () => {
    await using world = await startWorld();
    const padded = (bytes: number): string => JSON.stringify(demoRequest()).padEnd(bytes);
    expect((await world.call({ raw: padded(65_536), key: 'k' })).status).toBe(202);
    expectProblem(await world.call({ raw: padded(65_537), key: 'k2' }), 413, 'body-too-large');
    expectProblem(await world.call({ raw: `"${CANARY.repeat(100_000)}"`, key: 'k3' }), 413, 'body-too-large');
  });

  it('says that a body is no JSON without repeating it', async () => {
    await using world = await startWorld();
    for (const raw of [`{"otp":"${CANARY}"`, CANARY, `{'otp':'${CANARY}'}`, '']) {
      const reply = await world.call({ raw, key: 'k' });
      expect(reply.status, raw).toBe(400);
      expectProblem(reply, 400, raw === '' ? 'invalid-request' : 'malformed-json');
    }
  });

  it('names every faulty field at once, that of the key too, and repeats no value', async () => {
    await using world = await startWorld();
    const body = {
      provider: 'demo',
      otp: `${CANARY} with a tail`,
      params: { reference: 5, card: CANARY },
      amount: { value: CANARY, currency: CANARY },
      expiresAt: CANARY,
      metadata: CANARY,
      surprise: CANARY,
    };
    const reply = await world.call({ body });
    expectProblem(reply, 400, 'invalid-request');
    const errors = reply.body.errors as { field: string; problem: string }[];
    expect(errors.map(({ field }) => field).sort()).toEqual([
      'Idempotency-Key',
      'amount.currency',
      'amount.value',
      'expiresAt',
      'metadata',
      'otp',
      'params.card',
      'params.reference',
      'surprise',
    ]);
  });

  it.each([
    ['null', null],
    ['a number', 42],
    ['a list', [CANARY]],
    ['an operation that every object has', demoRequest({ operation: 'constructor' })],
    ['an operation that is no word', demoRequest({ operation: { toString: 1 } })],
    ['a provider that every object has', demoRequest({ provider: '__proto__' })],
    ['a code that is a number', demoRequest({ otp: 123456 })],
    ['a code with a space', demoRequest({ otp: '123456 ' })],
    ['no code', demoRequest({ otp: undefined })],
    ['a code where none belongs', demoRequest({ operation: 'send' })],
  ])('refuses %s', async (_name, body) => {
    await using world = await startWorld();
    expectProblem(await world.call({ raw: JSON.stringify(body), key: 'k' }), 400, 'invalid-request');
    expect(world.failed).toEqual([]);
  });

  it('refuses a nest that is deeper than anybody needs', async () => {
    await using world = await startWorld();
    const nest = `${'['.repeat(30_000)}${']'.repeat(30_000)}`;
    const raw = `{"provider":"demo","otp":"123456","params":{"reference":"R"},"metadata":{"a":${nest}}}`;
    expectProblem(await world.call({ raw, key: 'k' }), 400, 'invalid-request');
    expect(world.failed).toEqual([]);
  });

  it('takes a key of 1 to 255 visible ASCII characters', async () => {
    await using world = await startWorld();
    const fits = ['a', '!~', 'x'.repeat(255)];
    for (const key of fits) expect((await world.post(demoRequest(), key)).status, key).toBe(202);
    for (const key of ['x'.repeat(256), 'a b', 'caf\u00e9', '']) {
      const reply = await world.post(demoRequest(), key);
      expectProblem(reply, 400, 'invalid-request');
      expect(reply.body.errors).toEqual([{ field: 'Idempotency-Key', problem: expect.any(String) }]);
    }
  });

  it('says it when the verification of a key is past its retention', async () => {
    await using world = await startWorld();
    const { body } = await world.post(demoRequest(), 'k-1');
    await world.redis.del(partitionKeys('demo').record(String(body.id)));
    expectProblem(await world.post(demoRequest(), 'k-1'), 410, 'gone');
  });

  it('turns new work away when it cannot be served in time, and still answers a repeat', async () => {
    let backlogged = false;
    await using world = await startWorld({ turnAway: async () => (backlogged ? { retryAfterMs: 2_300 } : null) });
    const first = await world.post(demoRequest(), 'k-1');
    backlogged = true;
    const refused = await world.post(demoRequest(), 'k-2');
    expectProblem(refused, 429, 'backlogged');
    expect(refused.headers['retry-after']).toBe('3');
    expect((await world.post(demoRequest(), 'k-1')).text).toBe(first.text);
    backlogged = false;
    expect((await world.post(demoRequest(), 'k-2')).status).toBe(202);
  });
});

describe('Prefer: wait', () => {
  it('answers 200 as soon as a worker has published the outcome', async () => {
    await using world = await startWorld();
    const reply = world.post(demoRequest(), 'k-1', { prefer: 'wait=20' });
    const [id = ''] = await idsOf(world);
    await world.publish(id, SETTLED);
    const { status, headers, body } = await reply;
    expect(status).toBe(200);
    expect(headers['preference-applied']).toBe('wait=20');
    expect(headers.location).toBe(`/v1/verifications/${id}`);
    expect(body).toMatchObject({ state: 'settled', final: true, otp: 'accepted', sequence: 1 });
  });

  it('takes awaiting for an outcome', async () => {
    await using world = await startWorld();
    const reply = world.post(demoRequest(), 'k-1', { prefer: 'respond-async, wait="20"; x=1' });
    const [id = ''] = await idsOf(world);
    await world.publish(id, AWAITING);
    expect(await reply).toMatchObject({ status: 200, body: { state: 'awaiting', final: false, otp: 'unknown' } });
  });

  it('answers 202 when the time is over, and whoever repeats the request gets the outcome there is', async () => {
    await using world = await startWorld();
    const reply = await world.post(demoRequest(), 'k-1', { prefer: 'wait=1' });
    expect(reply).toMatchObject({ status: 202, body: { state: 'queued' } });
    expect(reply.headers['preference-applied']).toBe('wait=1');
    await world.publish(String(reply.body.id), SETTLED);
    const again = await world.post(demoRequest(), 'k-1', { prefer: 'wait=1' });
    expect(again).toMatchObject({ status: 200, body: { id: reply.body.id, final: true } });
  });

  it.each(['wait=0', 'wait=soon', 'wait', 'handling=lenient; wait=5'])('ignores `%s`', async (prefer) => {
    await using world = await startWorld();
    const reply = await world.post(demoRequest(), 'k-1', { prefer });
    expect(reply.status).toBe(202);
    expect(reply.headers).not.toHaveProperty('preference-applied');
  });

  it('takes more than 30 seconds for 30', async () => {
    await using world = await startWorld();
    const { body } = await world.post(demoRequest(), 'k-1');
    await world.publish(String(body.id), SETTLED);
    const reply = await world.get(String(body.id), { prefer: 'wait=600' });
    expect(reply.headers['preference-applied']).toBe('wait=30');
  });

  it('ends with the intake: whoever waits gets an answer, not a broken connection', async () => {
    await using world = await startWorld();
    const reply = world.post(demoRequest(), 'k-1', { prefer: 'wait=20' });
    await idsOf(world);
    await world.waiting.close();
    expect((await reply).status).toBe(202);
  });

  async function idsOf(world: Awaited<ReturnType<typeof startWorld>>): Promise<string[]> {
    for (;;) {
      const jobs = await world.queues.queue('demo').getPrioritized();
      if (jobs.length > 0) return jobs.map(({ data }) => data.id);
    }
  }
});

describe('GET /v1/verifications/{id}', () => {
  it('shows the verification with its history', async () => {
    await using world = await startWorld();
    const { body } = await world.post(demoRequest(), 'k-1');
    const reply = await world.get(String(body.id));
    expect(reply.status).toBe(200);
    expect(reply.body).toEqual(body);
    expect(reply.body.history).toMatchObject([{ event: 'accepted', at: expect.stringMatching(/Z$/) }]);
  });

  it('has nothing for other clients, unknown ids and what is no id, and waits for none of them', async () => {
    await using world = await startWorld();
    const { body } = await world.post(demoRequest(), 'k-1');
    const path = `/v1/verifications/${body.id}`;
    const headers = { prefer: 'wait=20' };
    const foreign = await world.call({ method: 'GET', path, apiKey: KIOSK.apiKey.reveal(), headers });
    expectProblem(foreign, 404, 'not-found');
    const unknown = String(body.id).replace(/.$/, (last) => (last === '0' ? '1' : '0'));
    for (const id of [unknown, CANARY, 'demo_1', '%00', '%zz', '..%2f..', '{otp-demo}:due', 'x'.repeat(5_000)]) {
      expectProblem(await world.get(id, headers), 404, 'not-found');
    }
    expect(foreign.body).toEqual((await world.get(unknown)).body);
  });

  it('waits for the revision after the given one', async () => {
    await using world = await startWorld();
    const { body } = await world.post(demoRequest(), 'k-1');
    const id = String(body.id);
    await world.publish(id, AWAITING);
    expect(await world.get(id, { prefer: 'wait=20' }, '?after=0')).toMatchObject({
      status: 200,
      body: { sequence: 1 },
    });
    const next = world.get(id, { prefer: 'wait=20' }, '?after=1');
    await world.publish(id, SETTLED);
    const reply = await next;
    expect(reply).toMatchObject({ status: 200, body: { sequence: 2, final: true } });
    expect(reply.headers['preference-applied']).toBe('wait=20');
    // After a final one there is no next.
    expect(await world.get(id, { prefer: 'wait=20' }, '?after=2')).toMatchObject({
      status: 200,
      body: { sequence: 2 },
    });
  });

  it('without `after` waits for an outcome, and gives what there is when the time is over', async () => {
    await using world = await startWorld();
    const { body } = await world.post(demoRequest(), 'k-1');
    const reply = await world.get(String(body.id), { prefer: 'wait=1' });
    expect(reply).toMatchObject({ status: 200, body: { state: 'queued', sequence: 0 } });
  });

  it('refuses an `after` that is no sequence', async () => {
    await using world = await startWorld();
    const { body } = await world.post(demoRequest(), 'k-1');
    for (const query of [`?after=${CANARY}`, '?after=-1', '?after=1.5', '?after=1&after=2', '?after=']) {
      expectProblem(await world.get(String(body.id), {}, query), 400, 'invalid-request');
    }
  });

  it('opens details for a client without a results key, and hands sealed ones to a client with one', async () => {
    const detailsKeys = await sealingKeys('details-1');
    const [sealer, opener] = [await Sealer.create(detailsKeys), await Opener.create(detailsKeys)];
    const bank = { id: 'bank', apiKey: new Secret('key-of-the-bank'), resultsKey: { kid: 'bank-1' } };
    await using world = await startWorld({
      openDetails: async (sealed) => await opener.open(sealed),
      clients: [SHOP, bank],
    });
    const details = await sealer.seal({ token: 'T-1' });
    const mine = String((await world.post(demoRequest(), 'k-1')).body.id);
    await world.publish(mine, { ...SETTLED, details });
    expect((await world.get(mine)).body.details).toEqual({ token: 'T-1' });

    const call = { apiKey: bank.apiKey.reveal() };
    const theirs = String((await world.call({ ...call, body: demoRequest(), key: 'k-1' })).body.id);
    await world.publish(theirs, { ...SETTLED, details });
    const reply = await world.call({ ...call, method: 'GET', path: `/v1/verifications/${theirs}` });
    expect(reply.body.details).toBe(details);
    expect(world.failed).toEqual([]);

    // No key opens them: the outcome is shown all the same.
    await world.publish(mine, { details: 'altered' });
    expect(await world.get(mine)).toMatchObject({ status: 200, body: { final: true, details: null } });
    expect(world.failed).toMatchObject([{ where: 'intake: opening details' }]);
  });
});

describe('everything else', () => {
  it('is not found, or not allowed with this method, and says so in the same shape', async () => {
    await using world = await startWorld();
    for (const path of ['/', `/${CANARY}`, '/v1', '/v2/verifications', '/v1/verifications/a/b', '/%zz']) {
      expectProblem(await world.call({ method: 'GET', path }), 404, 'not-found');
    }
    const removed = await world.call({ method: 'DELETE' });
    expectProblem(removed, 405, 'method-not-allowed');
    expect(removed.headers.allow).toBe('GET, HEAD, POST');
    for (const method of ['DELETE', 'PUT', 'PATCH', 'POST']) {
      const reply = await world.call({ method, path: '/v1/verifications/demo_1' });
      expectProblem(reply, 405, 'method-not-allowed');
      expect(reply.headers.allow).toBe('GET, HEAD');
    }
    expect(world.failed).toEqual([]);
  });

  it('is counted, one event for each request', async () => {
    await using world = await startWorld();
    await world.call({ method: 'GET', path: '/nowhere' });
    await world.call({ body: {}, key: 'k' });
    await world.call({ body: demoRequest(), key: 'k' });
    expect(world.answered.map(({ status }) => status)).toEqual([404, 400, 202]);
  });

  it('HEAD is GET without the body', async () => {
    await using world = await startWorld();
    const { body } = await world.post(demoRequest(), 'k-1');
    const reply = await world.call({ method: 'HEAD', path: `/v1/verifications/${body.id}` });
    expect(reply).toMatchObject({ status: 200, text: '' });
    expect(Number(reply.headers['content-length'])).toBeGreaterThan(100);
  });
});
