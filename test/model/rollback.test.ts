/** Redis comes back without its last writes, as another server, wherever in a life that happens. */
import { expect, test } from 'vitest';
import { explore, tell } from './explore.ts';
import { rollback } from './models.ts';

const runs = [
  { name: 'the same code twice', model: rollback('same'), depth: 8, width: 150 },
  { name: 'two codes', model: rollback('other'), depth: 8, width: 100 },
];

test.each(runs)(
  'after a rollback nothing is sent twice: $name',
  async ({ name, model, depth, width }) => {
    const startedAt = Date.now();
    const limits = { depth, width, states: Number.POSITIVE_INFINITY, forMs: 6_000 };
    const found = await explore(model, limits);
    console.log(tell(`rolled back, ${name}`, found, Date.now() - startedAt));
    expect(found.violation?.report).toBeUndefined();
    expect(found.completeTo).toBeGreaterThanOrEqual(2);
  },
  60_000,
);
