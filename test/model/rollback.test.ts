/** Redis comes back without its last writes, as another server, wherever in a life that happens. */
import { expect, test } from 'vitest';
import { explore, tell } from './explore.ts';
import { rollback } from './models.ts';

const runs = [
  { name: 'the same code twice', model: rollback('same') },
  { name: 'two codes', model: rollback('other') },
];

test.each(runs)(
  'after a rollback nothing is sent twice: $name',
  async ({ name, model }) => {
    const startedAt = Date.now();
    const limits = { depth: 8, surely: 3, width: 500, states: Number.POSITIVE_INFINITY, forMs: 4_000 };
    const found = await explore(model, limits);
    console.log(tell(`rolled back, ${name}`, found, Date.now() - startedAt));
    expect(found.violation?.report).toBeUndefined();
    expect(found.completeTo).toBeGreaterThanOrEqual(3);
  },
  120_000,
);
