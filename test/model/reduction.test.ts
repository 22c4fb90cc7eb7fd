/** What the enumeration takes for one state is one: else it would leave out what follows from the others. */
import { expect, test } from 'vitest';
import { callback, eightKinds, races } from './models.ts';
import { compareReduction } from './reduction.ts';

/** `deep.ts --reduction` goes further. */
test.each([
  { name: 'eight kinds of events', model: eightKinds('inquiry'), depth: 4 },
  { name: 'all that happens to money without inquiry', model: callback, depth: 3 },
  { name: 'read and written at different times', model: races, depth: 4 },
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
