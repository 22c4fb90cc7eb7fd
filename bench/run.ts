/**
 * `npm run bench` measures everything; `npm run bench -- NAME …` only what is named; `--quick` with fewer and shorter rounds;
 * `npm run bench -- guard` fails where this project has become slower than it promises. Each comparison runs in turns, and its
 * table says how far the rounds lay apart.
 */
import { parseArgs } from 'node:util';
import { BENCHMARKS, type Scale } from './benchmarks.ts';
import { guard } from './guard.ts';
import { keep, type Outcome, printRows, printTable } from './report.ts';
import { Progress } from './support/progress.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false }, help: { type: 'boolean', short: 'h', default: false } },
});
const names = Object.keys(BENCHMARKS);
const unknown = positionals.filter((name) => name !== 'guard' && !names.includes(name));
if (values.help || unknown.length > 0) {
  if (unknown.length > 0) console.error(`no benchmark is called ${unknown.join(', ')}`);
  console.error(`npm run bench -- [--quick] [${names.join(' | ')}] …\nnpm run bench -- guard`);
  process.exit(unknown.length > 0 ? 2 : 0);
}
if (positionals.includes('guard')) process.exit((await guard()) ? 0 : 1);

const scale: Scale = values.quick ? 'quick' : 'full';
const chosen = positionals.length > 0 ? names.filter((name) => positionals.includes(name)) : names;
const progress = new Progress(chosen.reduce((sum, name) => sum + (BENCHMARKS[name]?.steps(scale) ?? 0), 0));
const outcomes: Record<string, Outcome> = {};
for (const name of chosen) {
  const outcome = await BENCHMARKS[name]?.run(scale, progress);
  if (outcome !== undefined) outcomes[name] = outcome;
}
progress.end();
printRows(Object.values(outcomes).flatMap(({ rows }) => rows));
for (const { tables = [] } of Object.values(outcomes)) for (const table of tables) printTable(table);
if (values.quick) console.log('quick: for a look; docs/benchmarks.md is left as it is');
else {
  await keep(['npm run bench', ...(positionals.length > 0 ? ['--', ...positionals] : [])].join(' '), outcomes);
}
process.exit(0);
