/**
 * The same models as in the test, further: `npx tsx test/model/deep.ts --depth 9 --minutes 5`, with
 * `--only inquiry` one of them, with `--width 2000` less of each level but further.
 * Prints how far it has come, and ends with 1 when a rule does not hold.
 */
import { parseArgs } from 'node:util';
import { explore, tell } from './explore.ts';
import * as models from './models.ts';

const { values } = parseArgs({
  options: {
    depth: { type: 'string', default: '9' },
    minutes: { type: 'string', default: '5' },
    only: { type: 'string' },
    width: { type: 'string' },
  },
});
const { inquiry, callback, noMoney, races } = models;
const rollback = models.rollback('same');
const rollbackOther = models.rollback('other');
const chosen = Object.entries({ inquiry, callback, noMoney, races, rollback, rollbackOther }).filter(
  ([name]) => values.only === undefined || values.only === name,
);
for (const [name, model] of chosen) {
  const startedAt = Date.now();
  const forMs = (Number(values.minutes) * 60_000) / chosen.length;
  const width = Number(values.width ?? Number.POSITIVE_INFINITY);
  const limits = { depth: Number(values.depth), states: Number.POSITIVE_INFINITY, forMs, width };
  const found = await explore(model, limits, {
    onLevel: (so) => console.log(`  ${tell(name, so, Date.now() - startedAt)}`),
  });
  console.log(tell(name, found, Date.now() - startedAt));
  if (found.violation) {
    console.log(found.violation.report);
    process.exitCode = 1;
  }
}
