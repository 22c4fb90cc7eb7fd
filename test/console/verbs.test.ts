import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newVerificationId, partitionKeys } from '../../src/producers/job.ts';
import { readVerification } from '../../src/producers/reading.ts';
import type { VerificationRecord } from '../../src/producers/record.ts';
import { FINAL, plant } from './records.ts';
import { AUTHORIZED, createWorld, USER, type World } from './world.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

afterAll(() => world[Symbol.asyncDispose]());

async function read(id: string): Promise<VerificationRecord> {
  const record = await readVerification(world.redis, id);
  if (record === null) throw new Error(`no verification ${id}`);
  return record;
}

async function audit(partition: string): Promise<Record<string, string>[]> {
  const entries = await world.redis.xrange(partitionKeys(partition).audit, '-', '+');
  return entries.map(([, fields]) =>
    Object.fromEntries(fields.flatMap((name, place) => (place % 2 === 0 ? [[name, fields[place + 1] ?? '']] : []))),
  );
}

const EVIDENCE = 'statement of 21 November, line 4';
const form = (id: string, fields: Record<string, string> = {}): Record<string, string> => ({
  as: 'succeeded',
  evidence: EVIDENCE,
  confirmation: id.slice(-6),
  ...fields,
});

describe('resolving', () => {
  it('settles what awaits proof: on the evidence, by whoever is logged in, and once', async () => {
    const id = await plant(world.redis, { reference: 'TX-RESOLVED', reviewSince: Date.now() });
    const page = await (await world.get(`/verifications/${id}/resolve`)).text();
    expect(page).toContain('it is final');
    expect(page).toContain(id.slice(-6));

    const answer = await world.post(`/verifications/${id}/resolve`, form(id, { evidence: `  ${EVIDENCE}\n` }));
    expect([answer.status, answer.headers.get('location')]).toEqual([303, `/verifications/${id}#latest`]);
    expect(await read(id)).toMatchObject({
      final: true,
      needsReview: false,
      standing: { otp: 'accepted', transaction: 'succeeded' },
    });
    const written = { as: 'succeeded', evidence: EVIDENCE, by: USER.name };
    expect((await read(id)).history.at(-1)).toMatchObject({ event: 'resolved', ...written });
    const mine = { id, action: 'resolve', ...written, verdict: 'settle' };
    expect((await audit('cepta')).filter((entry) => entry.id === id)).toEqual([mine]);
    expect(await world.redis.zscore(partitionKeys('cepta').review, id)).toBeNull();

    // A form that is sent twice is one deed.
    expect((await world.post(`/verifications/${id}/resolve`, form(id))).status).toBe(303);
    expect((await audit('cepta')).filter((entry) => entry.id === id)).toEqual([mine]);
    const story = await (await world.get(`/verifications/${id}`)).text();
    expect(story).toContain('Resolved by a person');
    expect(story).toContain(EVIDENCE);
    expect(await (await world.get('/audit')).text()).toContain(EVIDENCE);
  });

  it('takes back nothing that is final, and says why', async () => {
    const id = await plant(world.redis, { reference: 'TX-FINAL', fields: FINAL });
    const before = await read(id);
    for (const answer of [
      await world.post(`/verifications/${id}/resolve`, form(id, { as: 'failed' })),
      await world.post(`/verifications/${id}/inquire`),
      await world.get(`/verifications/${id}/resolve`),
    ]) {
      expect(answer.status).toBe(409);
      expect(await answer.text()).toContain('it is final, accepted / succeeded, and that is never taken back');
    }
    expect(await read(id)).toEqual(before);
    expect((await audit('cepta')).filter((entry) => entry.id === id)).toEqual([]);
  });

  it('ends the review of two proofs that disagree: says that nobody is told, and what was said stays', async () => {
    const id = await plant(world.redis, {
      reference: 'TX-CONTRADICTED',
      reviewSince: Date.now(),
      fields: { state: 'settled', standing: '["rejected","failed","declined","new_transaction","51",null]' },
    });
    expect(await (await world.get(`/verifications/${id}`)).text()).toContain('two proofs disagree');
    const page = await (await world.get(`/verifications/${id}/resolve`)).text();
    expect(page).toContain('the client is told nothing by this');
    expect(page).not.toContain('The client is told at once');

    expect((await world.post(`/verifications/${id}/resolve`, form(id))).status).toBe(303);
    const record = await read(id);
    expect(record).toMatchObject({ needsReview: false, sequence: 1, standing: { transaction: 'failed' } });
    expect(record.history.at(-1)).toMatchObject({ event: 'resolved', as: 'succeeded', by: USER.name });
    expect(await world.redis.zscore(partitionKeys('cepta').review, id)).toBeNull();
    expect((await audit('cepta')).filter((entry) => entry.id === id)).toMatchObject([{ verdict: 'end_review' }]);
    const story = await (await world.get(`/verifications/${id}`)).text();
    expect(story).toContain('What the client had been told before stays as it was said: failed.');

    expect((await world.post(`/verifications/${id}/resolve`, form(id, { as: 'failed' }))).status).toBe(409);
    expect((await audit('cepta')).filter((entry) => entry.id === id)).toHaveLength(1);
  });

  it('has nothing to prove while the code is on its way', async () => {
    const id = await plant(world.redis, { reference: 'TX-SENDING', fields: { state: 'sending' } });
    const answer = await world.post(`/verifications/${id}/resolve`, form(id));
    expect(answer.status).toBe(409);
    expect(await answer.text()).toContain('it is sending, so there is nothing to prove yet');
    expect((await read(id)).state).toBe('sending');
  });

  it.each<[string, Record<string, string>, string]>([
    ['no outcome', { as: '' }, 'Choose one of the two'],
    ['an outcome that is none', { as: 'pending' }, 'Choose one of the two'],
    ['too little evidence', { evidence: ' ok  ' }, 'It must be 5 to 500 characters'],
    ['too much evidence', { evidence: 'x'.repeat(501) }, 'It must be 5 to 500 characters'],
    ['another confirmation', { confirmation: 'abcdef' }, 'not the last six characters'],
    ['no confirmation', { confirmation: '' }, 'not the last six characters'],
  ])('is refused with %s, and keeps what was typed', async (_what, fields, said) => {
    const id = await plant(world.redis, { id: `cepta_${'0'.repeat(26)}123456`, reference: 'TX-REFUSED' });
    const before = await read(id);
    const answer = await world.post(`/verifications/${id}/resolve`, form(id, fields));
    const page = await answer.text();
    expect(answer.status).toBe(422);
    expect(page).toContain(said);
    if (fields.evidence === undefined) expect(page).toContain(EVIDENCE);
    expect(await read(id)).toEqual(before);
  });

  it('is not done by a form that is too large, or is no form', async () => {
    const id = await plant(world.redis, { reference: 'TX-LARGE' });
    const large = await world.post(`/verifications/${id}/resolve`, form(id, { more: 'x'.repeat(20_000) }));
    expect(large.status).toBe(400);
    const headers = { 'content-type': 'application/json' };
    expect((await world.post(`/verifications/${id}/resolve`, form(id), headers)).status).toBe(422);
    expect((await read(id)).state).toBe('awaiting');
  });
});

describe('asking now', () => {
  it('brings the inquiry forward, and says who asked', async () => {
    const nextInquiryAt = String(Date.now() + 3_600_000);
    const id = await plant(world.redis, { reference: 'TX-ASKED', fields: { nextInquiryAt } });
    const answer = await world.post(`/verifications/${id}/inquire`);
    expect([answer.status, answer.headers.get('location')]).toEqual([303, `/verifications/${id}#latest`]);
    const { history, nextInquiryAt: now } = await read(id);
    expect(history.at(-1)).toMatchObject({ event: 'asked_to_inquire', by: USER.name });
    expect(now).toBeLessThanOrEqual(Date.now() + 1_000);
    const { inquiryQueue, prefix } = partitionKeys('cepta');
    expect(await world.redis.exists(`${prefix}:${inquiryQueue}:${id}`)).toBe(1);
    const entry = { id, action: 'inquire', by: USER.name, verdict: 'await' };
    expect((await audit('cepta')).filter((one) => one.id === id)).toEqual([entry]);
  });

  it('is refused where nothing can be asked', async () => {
    const id = await plant(world.redis, { partition: 'lipa-later', reference: 'hash' });
    const answer = await world.post(`/verifications/${id}/inquire`);
    expect(answer.status).toBe(409);
    expect(await answer.text()).toContain('lipa-later has no inquiry for it');
    const story = await (await world.get(`/verifications/${id}`)).text();
    expect(story).not.toContain('Ask the provider now');
    expect(story).toContain('Resolve with evidence');
  });
});

describe('a breaker', () => {
  it('that is open is said on both pages: since when, why, and when the next probe is', async () => {
    const { breaker } = partitionKeys('cepta');
    const state = { troubleSince: Date.now() - 120_000, until: Date.now() + 30_000, because: '503', row: 3 };
    await world.redis.hset(breaker, { state: 'open', ...state });
    const overview = async (): Promise<string> => await (await world.get('/')).text();
    await expect
      .poll(overview)
      .toMatch(/its breaker has been open for 2 min.* \(503\)\. Nothing is submitted; .* in \d+ s/);
    const page = await (await world.get('/partitions/cepta')).text();
    expect(page).toMatch(/<dt>Breaker<\/dt><dd>.*open<\/span> for 2 min.*, 3 times in a row, because of 503/);

    await world.redis.hset(breaker, { state: 'half_open' });
    await expect.poll(overview).toContain('one verification at a time passes');
    await world.redis.hset(breaker, { state: 'closed', troubleSince: '0' });
    await expect.poll(overview).not.toContain('breaker');
    expect(await (await world.get('/partitions/cepta')).text()).toContain('<dt>Breaker</dt><dd>closed</dd>');
    await world.redis.del(breaker);
  });
});

describe('holding a partition', () => {
  it('pauses its verifications and nothing else, is said everywhere, and ends', async () => {
    const verifications = world.writingQueue('otp-cepta', partitionKeys('cepta').prefix);
    const inquiries = world.writingQueue('otp-cepta-inquiry', partitionKeys('cepta').prefix);
    const because = 'the bank is down until 22:00';
    for (const _twice of [1, 2]) {
      const answer = await world.post('/partitions/cepta/pause', { because });
      expect([answer.status, answer.headers.get('location')]).toEqual([303, '/partitions/cepta']);
    }
    expect([await verifications.isPaused(), await inquiries.isPaused()]).toEqual([true, false]);
    await expect.poll(async () => await (await world.get('/')).text()).toContain('paused by a person');
    expect(await (await world.get('/partitions/cepta')).text()).toContain('Resume cepta');

    expect((await world.post('/partitions/cepta/resume', { because: 'it is back' })).status).toBe(303);
    expect(await verifications.isPaused()).toBe(false);
    expect((await audit('cepta')).filter(({ id }) => id === undefined)).toEqual([
      { action: 'pause', by: USER.name, evidence: because },
      { action: 'resume', by: USER.name, evidence: 'it is back' },
    ]);
  });

  it('wants to know why', async () => {
    expect((await world.post('/partitions/cepta/pause', { because: '  ' })).status).toBe(422);
    expect(await world.writingQueue('otp-cepta', partitionKeys('cepta').prefix).isPaused()).toBe(false);
  });
});

describe('no verb', () => {
  const id = newVerificationId('cepta');
  const paths = [
    ...[`/verifications/${id}/resolve`, `/verifications/${id}/inquire`],
    ...['/partitions/cepta/pause', '/partitions/cepta/resume'],
  ];

  it('is done for a foreign page, or for nobody', async () => {
    await plant(world.redis, { id, reference: 'TX-FOREIGN' });
    const before = await read(id);
    const fields = { ...form(id), because: 'no good reason' };
    for (const path of paths) {
      const foreign = await world.post(path, fields, { origin: 'https://evil.example' });
      expect([path, foreign.status]).toEqual([path, 403]);
      const lying = await world.post(path, fields, { 'sec-fetch-site': 'cross-site' });
      expect([path, lying.status]).toEqual([path, 403]);
      const headers = { origin: world.url };
      const nobody = await world.get(path, { method: 'POST', headers, body: new URLSearchParams(fields) });
      expect([path, nobody.status]).toEqual([path, 401]);
      for (const method of ['PUT', 'PATCH', 'DELETE']) {
        const other = await world.get(path, { method, headers: { ...AUTHORIZED, ...headers } });
        expect([path, method, other.status]).toEqual([path, method, 405]);
      }
    }
    expect(await read(id)).toEqual(before);
    expect(await world.writingQueue('otp-cepta', partitionKeys('cepta').prefix).isPaused()).toBe(false);
  });

  it('is done by looking', async () => {
    const before = await read(id);
    for (const path of paths) {
      const looked = await world.get(`${path}?as=failed&evidence=${EVIDENCE}&confirmation=${id.slice(-6)}`);
      expect([200, 303]).toContain(looked.status);
    }
    expect(await read(id)).toEqual(before);
  });

  it('is done to what is not there', async () => {
    for (const nobody of [newVerificationId('cepta'), newVerificationId('elsewhere'), 'hello']) {
      expect((await world.post(`/verifications/${nobody}/inquire`)).status).toBe(404);
      expect((await world.post(`/verifications/${nobody}/resolve`, form(nobody))).status).toBe(404);
    }
    expect((await world.post('/partitions/elsewhere/pause', { because: 'because' })).status).toBe(404);
  });

  it('is said to be undone when Redis does not say whether it was done', async () => {
    await using away = await createWorld();
    const lost = await plant(away.redis);
    await away.get('/');
    await away.server.kill();
    const answer = await away.post(`/verifications/${lost}/inquire`);
    expect(answer.status).toBe(500);
    expect(await answer.text()).toContain('It is not known whether it was done');
  });
});
