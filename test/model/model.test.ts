/** Every interleaving of what may happen to two verifications of one transaction in the hands of two workers. */
import { expect, test } from 'vitest';
import { explore, tell } from './explore.ts';
import { callback, inquiry, noMoney, races } from './models.ts';

/** All of what can happen within four events; from there on of each level so many states go on. `deep.ts` takes all. */
const runs = [
  { name: 'money with inquiry', model: inquiry, depth: 8, width: 260 },
  { name: 'money without inquiry', model: callback, depth: 8, width: 200 },
  { name: 'no money', model: noMoney, depth: 8, width: 160 },
  { name: 'read and written at different times', model: races, depth: 8, width: 200 },
];

test.each(runs)(
  'every rule holds: $name',
  async ({ name, model, depth, width }) => {
    const startedAt = Date.now();
    const limits = { depth, width, states: Number.POSITIVE_INFINITY, forMs: 6_000 };
    const found = await explore(model, limits);
    console.log(tell(name, found, Date.now() - startedAt));
    expect(found.violation?.report).toBeUndefined();
    expect(found.completeTo).toBeGreaterThanOrEqual(2);
  },
  60_000,
);
