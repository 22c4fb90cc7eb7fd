/**
 * The same models as in the test, further: `npx tsx test/model/deep.ts --depth 9 --minutes 5`, with
 * `--only inquiry` one of them, with `--width 2000` less of each level but further; with `--reduction` every state is
 * looked at that counts as one with another: does the same follow from it?
 * Prints how far it has come, and ends with 1 when a rule does not hold.
 */
import { parseArgs } from 'node:util';
import { explore, tell } from './explore.ts';
import * as models from './models.ts';
import { compareReduction } from './reduction.ts';

const { values } = parseArgs({
  options: {
    depth: { type: 'string', default: '9' },
    minutes: { type: 'string', default: '5' },
    only: { type: 'string' },
    width: { type: 'string' },
    reduction: { type: 'boolean', default: false },
  },
});
const { inquiry, callback, noMoney, races, breaker } = models;
const enumerated = {
  eightKinds: models.eightKinds('inquiry'),
  eightKindsCallback: models.eightKinds('callback'),
  ...{ inquiry, callback, noMoney, races, breaker },
  rollback: models.rollback('same'),
  rollbackOther: models.rollback('other'),
};
const chosen = Object.entries(enumerated).filter(([name]) => values.only === undefined || values.only === name);
const depth = Number(values.depth);
for (const [name, model] of chosen) {
  const startedAt = Date.now();
  if (values.reduction) {
    const { exact, reduced, differences, missed } = await compareReduction(model, depth);
    const seconds = ((Date.now() - startedAt) / 1000).toFixed(1);
    console.log(
      `${name}: ${exact.states} states to the letter within ${depth} events, ${reduced.states} that differ; ` +
        `${differences.length} from which something else follows, ${missed.length} missed, ${seconds} s`,
    );
    if (differences.length + missed.length > 0) process.exitCode = 1;
    continue;
  }
  const forMs = (Number(values.minutes) * 60_000) / chosen.length;
  const width = Number(values.width ?? Number.POSITIVE_INFINITY);
  const limits = { depth, states: Number.POSITIVE_INFINITY, forMs, width };
  const found = await explore(model, limits, {
    onLevel: (so) => console.log(`  ${tell(name, so, Date.now() - startedAt)}`),
  });
  console.log(tell(name, found, Date.now() - startedAt));
  if (found.violation) {
    console.log(found.violation.report);
    process.exitCode = 1;
  }
}
