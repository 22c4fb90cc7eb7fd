/**
 * A little of every target, and every case that was worth keeping: `npm run fuzz` does the same for as long as it may.
 * About five seconds in all.
 */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectRedis } from '../../src/redis/connections.ts';
import { startTestRedis } from '../support/redis.ts';
import { journalOf, seed } from '../workers/support.ts';
import { readCorpus } from './corpus.ts';
import { replay, run } from './engine.ts';
import { parseTree, textOf } from './json-tree.ts';
import { mutatedJson } from './mutate.ts';
import { TARGETS, type Target, type TargetName } from './target.ts';
import { openTarget } from './targets/index.ts';

const SEED = 8;
/** So many that it takes a fraction of a second. */
const CASES: Readonly<Record<TargetName, number>> = {
  ...{ 'intake-requests': 100, 'intake-http': 40, 'callback-proofs': 250, 'callback-bodies': 150 },
  ...{ 'provider-answers': 250, 'provider-wire': 20, configuration: 6, 'journal-records': 250 },
  ...{ 'strange-jobs': 2, 'strange-results': 3, 'sealed-texts': 80 },
};

describe.each(TARGETS)('%s', (name) => {
  const opened: { target: Target | null } = { target: null };
  const target = (): Target => opened.target as Target;
  beforeAll(async () => {
    opened.target = await openTarget(name);
  });
  afterAll(async () => await opened.target?.close?.());

  it('is not shaken by what it has not met before', async () => {
    const [figures] = await run([target()], { seed: SEED, cases: CASES[name], sweep: false });
    expect(figures?.failures).toEqual([]);
    expect(figures?.cases).toBe(CASES[name]);
  });

  const kept = readCorpus().filter((one) => one.target === name);
  it.skipIf(kept.length === 0).each(kept)('no longer: $says ($file)', async ({ case: given }) => {
    expect(await replay(target(), given)).toBeNull();
  });
});

describe('a case', () => {
  const target = (seen: unknown[]): Target => ({
    name: 'journal-records',
    batch: 10,
    cases: fc.nat(),
    check: (given) => {
      seen.push(given);
      return 'seen';
    },
  });

  it('is the same for one seed, whatever else runs and wherever a run begins', async () => {
    const [whole, cut, later, other]: unknown[][] = [[], [], [], []];
    await run([target(whole as unknown[])], { seed: 1, cases: 40 });
    await run([target(cut as unknown[]), target([])], { seed: 1, cases: 25 });
    await run([target(later as unknown[])], { seed: 1, cases: 10, skip: 20 });
    await run([target(other as unknown[])], { seed: 2, cases: 40 });
    expect(cut).toEqual(whole?.slice(0, 25));
    expect(later).toEqual(whole?.slice(20, 30));
    expect(other).not.toEqual(whole);
  });

  it('that fails is made small, and is told with the batch in which it came', async () => {
    const failing: Target = {
      ...target([]),
      cases: fc.array(fc.nat()),
      check: (given) => {
        if ((given as number[]).some((one) => one > 100)) throw new Error('too large');
        return 'small';
      },
    };
    const [figures] = await run([failing as Target], { seed: 1, cases: 30 });
    expect(figures?.failures[0]).toMatchObject({ case: [101], batch: 10 });
    expect((figures?.failures[0]?.from ?? 0) % 10).toBe(0);
  });

  it('in which something is thrown where nobody catches it fails as well', async () => {
    const stray: Target = {
      ...target([]),
      check: async () => {
        void Promise.reject(new Error('nobody waits for me'));
        await new Promise((resolve) => setImmediate(resolve));
        return 'gone';
      },
    };
    const [figures] = await run([stray], { seed: 1, cases: 1 });
    expect(figures?.failures[0]?.says).toContain('nobody waits for me');
  });
});

describe('the parser of the oracles', () => {
  it('reads what JSON.parse reads, and keeps what that forgets', () => {
    const documents = ['answers', 'x'].map((name) =>
      JSON.stringify({ name, list: [1, 2.5, -0, null], deep: { a: 'ü"\\' } }),
    );
    fc.assert(
      fc.property(mutatedJson(documents), (text) => {
        const tree = parseTree(text);
        expect(tree !== null).toBe(isJson(text));
        if (tree !== null && text.length < 5_000) expect(JSON.parse(textOf(tree))).toEqual(JSON.parse(text));
      }),
      { seed: SEED, numRuns: 300 },
    );
    const twice = parseTree('{"a":1.10,"a":"b"}');
    expect(twice).toMatchObject({
      members: [
        { name: 'a', value: { raw: '1.10' } },
        { name: 'a', value: { value: 'b' } },
      ],
    });
  });
});

/** Too slow to be met by chance: a worker would be at such a record for ever, and Redis with it. */
describe('a record whose revision somebody has written in his own way', () => {
  it.each(['02', '2.0', ' 2 ', '2e0'])('ends the deciding instead of beginning it anew: %j', async (revision) => {
    await using server = await startTestRedis();
    const redis = connectRedis(server.url, 'worker', { onError: () => {} });
    try {
      const journal = journalOf({ redis });
      const id = await seed(redis);
      const beginning = await journal.begin(id);
      if (beginning.is !== 'begun') throw new Error('it was not begun');
      await redis.hset(journal.keys.record(id), 'revision', revision);
      const applying = journal.apply(beginning.record, { from: 'lost', code: 'ECONNRESET' }, {}, async () => 'sealed');
      await expect(applying).rejects.toThrow(`the record of ${id} cannot be read: its revision must be`);
    } finally {
      redis.disconnect();
    }
  });
});

it('is named in the documentation, target by target', () => {
  const text = readFileSync(new URL('../../docs/fuzzing.md', import.meta.url), 'utf8');
  for (const name of TARGETS) expect(text).toContain(`\`${name}\``);
});

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
