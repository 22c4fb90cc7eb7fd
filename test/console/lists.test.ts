import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { partitionKeys } from '../../src/producers/job.ts';
import { FINAL, plant } from './records.ts';
import { createWorld, PARTITIONS, type World } from './world.ts';

let world: World;

beforeAll(async () => {
  world = await createWorld();
});

afterAll(() => world[Symbol.asyncDispose]());

const idsIn = (page: string): string[] => [
  ...new Set([...page.matchAll(/\/verifications\/([a-z-]+_[0-9a-f]{32})"/g)].map(([, id = '']) => id)),
];
const at = (minute: number): number => Date.parse('2026-11-21T20:00:00Z') + minute * 60_000;

describe('the review list', () => {
  it('says plainly that nobody waits', async () => {
    expect(await (await world.get('/review')).text()).toContain('Nothing waits for a person.');
  });

  it('has everybody who waits, over all partitions, the oldest first, in pages', async () => {
    const planted: string[] = [];
    for (let minute = 0; minute < 30; minute += 1) {
      const partition = PARTITIONS[minute % 3 === 0 ? 1 : 0] ?? '';
      planted.push(await plant(world.redis, { partition, reference: `TX${minute}`, reviewSince: at(minute) }));
    }
    const [first, second, beyond, nonsense] = await Promise.all(
      ['', '?page=2', '?page=99', '?page=<b>'].map(async (query) => await (await world.get(`/review${query}`)).text()),
    );
    expect(idsIn(first ?? '')).toEqual(planted.slice(0, 25));
    expect(idsIn(second ?? '')).toEqual(planted.slice(25));
    expect(idsIn(beyond ?? '')).toEqual(planted.slice(25));
    expect(idsIn(nonsense ?? '')).toEqual(planted.slice(0, 25));
    expect(first).toContain('Page 1 of 2');
  });

  it('says why each waits, and offers only what can be done to it', async () => {
    await using empty = await createWorld();
    const { redis } = empty;
    await plant(redis, { reference: 'A', reviewSince: at(1), fields: { ...FINAL, needsReview: '1' } });
    await plant(redis, {
      reference: 'B',
      reviewSince: at(2),
      fields: { standing: '["unknown","unknown","amount_mismatch","wait",null,null]' },
    });
    await plant(redis, { reference: 'C', reviewSince: at(3), history: [{ at: at(3), event: 'patience_over' }] });
    await plant(redis, { partition: 'lipa-later', reference: 'D', reviewSince: at(4) });
    const broken = await plant(redis, { reference: 'E', reviewSince: at(5), fields: { head: '{' } });
    const gone = await plant(redis, { reference: 'F', reviewSince: at(6) });
    await redis.del(partitionKeys('cepta').record(gone));
    const page = await (await empty.get('/review')).text();
    const rows = page.split('<tr role="row">').slice(2);
    expect(rows).toHaveLength(6);
    const [contradicted, amount, patience, noInquiry, unreadable, expired] = rows;
    expect(contradicted).toContain('Two proofs disagree');
    expect(contradicted).not.toContain('/inquire');
    expect(contradicted).toContain('/resolve');
    expect(amount).toContain('another amount');
    expect(patience).toContain('Nothing has brought proof in time');
    expect(patience).toMatch(/<form method="post" action="[^"]+\/inquire">/);
    expect(noInquiry).not.toContain('/inquire');
    expect(noInquiry).toContain('/resolve');
    expect(unreadable).toContain('cannot be read');
    expect(unreadable).toContain(broken);
    expect(expired).toContain('retention is over');
  });
});

describe('searching', () => {
  it('goes to the story of an id', async () => {
    const id = await plant(world.redis, { reference: 'TX-ID' });
    const answer = await world.get(`/search?q=%20${id}%20`);
    expect([answer.status, answer.headers.get('location')]).toEqual([303, `/verifications/${id}`]);
  });

  it('finds what every client has of a reference, in one partition or in all, newest first', async () => {
    const [shop, books, other, elsewhere] = [
      await plant(world.redis, { reference: 'SHARED', client: 'shop', fields: { createdAt: String(at(1)) } }),
      await plant(world.redis, { reference: 'SHARED', client: 'books', fields: { createdAt: String(at(2)) } }),
      await plant(world.redis, { reference: 'SHARED2', client: 'shop' }),
      await plant(world.redis, { reference: 'SHARED', partition: 'lipa-later', fields: { createdAt: String(at(3)) } }),
    ];
    const found = async (query: string): Promise<string[]> => idsIn(await (await world.get(`/search?${query}`)).text());
    expect(await found('q=SHARED')).toEqual([elsewhere, books, shop]);
    expect(await found('q=SHARED&partition=cepta')).toEqual([books, shop]);
    expect(await found('q=SHARED2')).toEqual([other]);
  });

  it('says when there is nothing, and never repeats what was typed, which may be a code', async () => {
    for (const typed of ['839201', '+254712345678', '<b>x</b>']) {
      const answer = await world.get(`/search?q=${encodeURIComponent(typed)}`);
      const page = await answer.text();
      expect(answer.status).toBe(404);
      expect(page).toContain('Nothing found');
      expect(page).toContain('keyed hash');
      expect(page).not.toContain(typed);
    }
  });
});

describe('the audit', () => {
  it('merges what was done in every partition, latest first, in pages that miss and repeat nothing', async () => {
    await using empty = await createWorld();
    const written: string[] = [];
    for (let entry = 0; entry < 120; entry += 1) {
      const { audit } = partitionKeys(PARTITIONS[entry % 2] ?? '');
      // But for the first and the last, two at a time have the same key, one in each stream: a page ends between two.
      const key = `${at(0) + Math.floor((entry + 1) / 2)}-0`;
      await empty.redis.xadd(audit, key, 'action', 'pause', 'by', 'ada', 'evidence', `entry ${entry};`);
      written.push(`entry ${entry};`);
    }
    const seen: string[] = [];
    let next: string | undefined = '/audit';
    while (next !== undefined) {
      const page = await (await empty.get(next)).text();
      seen.push(...(page.match(/entry \d+;/g) ?? []));
      next = /href="(\/audit\?before=[^"]+)"/.exec(page)?.[1];
    }
    expect(seen).toHaveLength(120);
    expect(new Set(seen)).toEqual(new Set(written));
    expect(seen[0]).toMatch(/entry 11[89];/);
  });

  it('reads entries from before deeds had a name, and shows nothing as markup', async () => {
    await using empty = await createWorld();
    const id = await plant(empty.redis);
    const { audit } = partitionKeys('cepta');
    await empty.redis.xadd(
      audit,
      '*',
      'id',
      id,
      'as',
      'failed',
      'evidence',
      '<img src=x>',
      'by',
      'ada',
      'verdict',
      'settle',
    );
    await empty.redis.xadd(audit, '*', 'id', id, 'by', 'bob', 'verdict', 'await');
    const page = await (await empty.get('/audit?before=nonsense')).text();
    expect(page).toContain('resolved as');
    expect(page).toContain('asked the provider');
    expect(page).not.toContain('<img');
  });
});
