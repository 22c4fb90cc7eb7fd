/** Every interleaving of what may happen to two verifications of one transaction in the hands of two workers. */
import { expect, test } from 'vitest';
import { explore, tell } from './explore.ts';
import { breaker, callback, eightKinds, inquiry, noMoney, races } from './models.ts';
import { compareReduction } from './reduction.ts';

test.each([
  { name: 'money with inquiry', model: eightKinds('inquiry') },
  { name: 'money without inquiry', model: eightKinds('callback') },
])(
  'every rule holds in every interleaving of seven events of eight kinds: $name',
  async ({ name, model }) => {
    const startedAt = Date.now();
    const limits = { depth: 12, surely: 7, states: Number.POSITIVE_INFINITY, forMs: 5_000 };
    const found = await explore(model, limits);
    console.log(tell(`eight kinds of events, ${name}`, found, Date.now() - startedAt));
    expect(found.violation?.report).toBeUndefined();
    expect(found.completeTo).toBeGreaterThanOrEqual(7);
  },
  180_000,
);

/** From five events on only so many states of each level go on, as long as there is time. `deep.ts` takes all. */
test.each([
  { name: 'money with inquiry', model: inquiry, width: 300 },
  { name: 'money without inquiry', model: callback, width: 300 },
  { name: 'no money', model: noMoney, width: 300 },
  { name: 'read and written at different times', model: races, width: 400 },
  { name: 'with a breaker', model: breaker, width: 300 },
])(
  'every rule holds in every interleaving of four events of all kinds, and in longer ones: $name',
  async ({ name, model, width }) => {
    const startedAt = Date.now();
    const limits = { depth: 10, surely: 4, width, states: Number.POSITIVE_INFINITY, forMs: 1_500 };
    const found = await explore(model, limits);
    console.log(tell(name, found, Date.now() - startedAt));
    expect(found.violation?.report).toBeUndefined();
    expect(found.completeTo).toBeGreaterThanOrEqual(4);
  },
  120_000,
);

/** Else what follows from one of them would be left out. `deep.ts --reduction` goes further. */
test.each([
  { name: 'eight kinds of events', model: eightKinds('inquiry'), depth: 5 },
  { name: 'read and written at different times', model: races, depth: 4 },
  { name: 'with a breaker', model: breaker, depth: 4 },
])(
  'of states that count as one the same follows: $name',
  async ({ name, model, depth }) => {
    const { exact, reduced, differences, missed } = await compareReduction(model, depth);
    console.log(`${name}, ${depth} events: ${exact.states} states to the letter, ${reduced.states} that differ`);
    expect(exact.violation?.report ?? reduced.violation?.report).toBeUndefined();
    expect(exact.states).toBeGreaterThan(reduced.states);
    expect(differences.slice(0, 3)).toEqual([]);
    expect(missed).toEqual([]);
  },
  120_000,
);
