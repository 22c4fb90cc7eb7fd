#!/usr/bin/env node
// `npm run test:nodes`: the tests under each version of Node that is supported, one after the other, and a table.
// `npm run test:nodes -- --node 22,24 test/providers` names versions and a part; without a part it is the whole suite,
// which takes its minutes for each. npx fetches the versions; nothing is installed.

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({
  options: { node: { type: 'string', default: '20,22,24' } },
  allowPositionals: true,
});
const versions = values.node.split(',').map((version) => version.trim());
if (versions.some((version) => !/^\d+(\.\d+){0,2}$/.test(version))) {
  console.error('--node must be versions with commas between them: 20,22,24');
  process.exit(2);
}

const outcomes = [];
for (const version of versions) {
  console.log(`\n=== Node ${version} ===`);
  const startedAt = performance.now();
  const [script, ...parts] = ['scripts/test.mjs', ...positionals].map(quoted);
  const code = await run('npx', [
    '-y',
    '-p',
    `node@${version}`,
    '-c',
    `node --version && node ${[script, ...parts].join(' ')}`,
  ]);
  outcomes.push({
    node: version,
    outcome: code === 0 ? 'passed' : 'failed',
    seconds: Math.round((performance.now() - startedAt) / 1000),
  });
}
console.log('');
console.table(outcomes);
process.exitCode = outcomes.every(({ outcome }) => outcome === 'passed') ? 0 : 1;

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

async function run(command, args) {
  const child = spawn(command, args, { cwd: fileURLToPath(new URL('..', import.meta.url)), stdio: 'inherit' });
  return await new Promise((settle, fail) => child.once('error', fail).once('close', settle));
}
