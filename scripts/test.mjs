#!/usr/bin/env node
// `npm test`: lint, types and every test, and one closing line. Arguments go to vitest, and then only tests are run:
// `npm test -- test/redis`.

import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const reportFile = join(root, '.cache', 'vitest.json');
const chosen = process.argv.slice(2);

const checks = [
  { name: 'lint', command: ['@biomejs/biome/bin/biome', 'check', '.'] },
  { name: 'types', command: ['typescript/bin/tsc', '-p', 'tsconfig.test.json', '--noEmit'] },
];

// Together, because each is short and neither measures time; the tests have the machine to themselves afterwards.
const results = chosen.length > 0 ? [] : await Promise.all(checks.map(runCheck));

mkdirSync(join(root, '.cache'), { recursive: true });
rmSync(reportFile, { force: true });
const vitest = ['vitest/vitest.mjs', 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${reportFile}`];
const exitCode = await nodeModule([...vitest, ...chosen], 'inherit').ended;
const tests = counted(exitCode);

for (const { name, passed, output } of results) {
  if (!passed) console.log(`\n${name} failed:\n${output.trim()}`);
}
const passed = tests.passed + results.filter((check) => check.passed).length;
const failed = tests.failed + results.filter((check) => !check.passed).length;
if (tests.passed + tests.failed === 0) console.log('\nNo test ran, which counts as a failure.');
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || tests.passed + tests.failed === 0 ? 1 : 0;

async function runCheck({ name, command }) {
  const { ended, output } = nodeModule(command, 'pipe');
  const ok = (await ended) === 0;
  console.log(`${name}: ${ok ? 'ok' : 'failed'}`);
  return { name, passed: ok, output: output() };
}

/** A file that could not be loaded and an error outside of any test fail the run without failing a test: each counts. */
function counted(code) {
  let report;
  try {
    report = JSON.parse(readFileSync(reportFile, 'utf8'));
  } catch {
    return { passed: 0, failed: code === 0 ? 0 : 1 };
  }
  const passed = report.numPassedTests;
  const broken = report.testResults.filter(
    (file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
  ).length;
  const failed = report.numFailedTests + broken;
  return { passed, failed: code !== 0 && failed === 0 && passed > 0 ? 1 : failed };
}

function nodeModule([file, ...args], stdio) {
  const child = spawn(process.execPath, [join(root, 'node_modules', file), ...args], {
    cwd: root,
    stdio: ['ignore', stdio, stdio],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (said += chunk));
  return {
    ended: new Promise((settle, fail) => child.once('error', fail).once('close', settle)),
    output: () => said,
  };
}
