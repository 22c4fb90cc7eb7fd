#!/usr/bin/env node
// `npm run newcomer`: the way of somebody who has just met the project, in a clone of the latest commit, with an empty
// HOME and no Redis on PATH. Only commands that the README shows are run, the page "getting started" by the test that
// follows it, then a first change with its test, and `npm run check`. It prints what each step took.

import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const MOST_MINUTES = 15;

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'otp-newcomer-'));
chmodSync(folder, 0o755); // PostgreSQL's own user must get in, where root runs this
const clone = join(folder, 'otp-pipeline');
const path = (process.env.PATH ?? '')
  .split(delimiter)
  .filter((directory) => !existsSync(join(directory, 'redis-server')) && !directory.includes('node_modules'));
const environment = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_OPTIONS|OTP_)/i.test(name))),
  HOME: join(folder, 'home'),
  PATH: path.join(delimiter),
  OTP_CONSOLE_PASSWORD: 'a-password-for-the-console',
  SHOP_API_KEY: 'an-api-key-that-is-long-enough',
  PORT: '0', // the usual ones may be taken here
  CONSOLE_PORT: '0',
  CEPTA_URL: 'http://127.0.0.1:9',
  CEPTA_SECRET_KEY: 'a-secret-of-the-provider',
};
mkdirSync(environment.HOME);

/** Ends with SIGINT what stays up, once it has said `until`. */
async function run(command, { cwd = clone, until } = {}) {
  const child = spawn('bash', ['-c', `exec ${command}`], { cwd, env: environment, detached: true });
  let output = '';
  let isUp = false;
  const take = (chunk) => {
    output += chunk;
    process.stdout.write(chunk);
    if (until === undefined || isUp || !until.test(output)) return;
    isUp = true;
    process.kill(-child.pid, 'SIGINT');
  };
  child.stdout.on('data', take);
  child.stderr.on('data', take);
  const code = await new Promise((ended) => child.once('close', ended));
  if (until === undefined ? code !== 0 : !isUp) throw new Error(`${command} ended with ${code}`);
}

const read = (file) => readFileSync(join(clone, file), 'utf8');
/** The commands that a page shows in its shell blocks, but for those that are an example's own. */
const commandsOf = (page) =>
  [...read(page).matchAll(/^(.*)\n```sh\n([\s\S]*?)```/gm)]
    .filter(([, before]) => !before.startsWith('<!-- example'))
    .flatMap(([, , block]) => block.trim().split('\n'));

const steps = [];
async function step(name, work) {
  console.log(`\n=== ${name}`);
  const startedAt = performance.now();
  await work();
  steps.push({ step: name, seconds: Math.round((performance.now() - startedAt) / 1_000) });
}

/** Small, and whole as CONTRIBUTING.md asks: a test that is a sentence, and a line in the changelog. */
function firstChange() {
  const test = [
    "import { expect, test } from 'vitest';",
    "import { backoffMs } from '../../src/workers/backoff.ts';",
    '',
    "test('a first try is not put off for longer than a second try may be', () => {",
    '  expect(backoffMs(1, 0.5)).toBeLessThanOrEqual(backoffMs(2, 1));',
    '});',
    '',
  ];
  writeFileSync(join(clone, 'test/workers/first-change.test.ts'), test.join('\n'));
  const changelog = read('CHANGELOG.md').replace('### Added\n\n', '### Added\n\n- workers: a first change.\n');
  writeFileSync(join(clone, 'CHANGELOG.md'), changelog);
}

let failure = null;
try {
  await step('git clone', () => run(`git clone --quiet ${root} ${clone}`, { cwd: folder }));
  const [start, test, generate, serve, ...more] = commandsOf('README.md');
  if (
    start !== 'npm start' ||
    test !== 'npm test' ||
    !/^npx otp keys/.test(generate) ||
    !/^npx otp serve/.test(serve) ||
    more.length > 0
  )
    throw new Error('the README shows other commands than this script knows how to follow');
  await step(start, () => run(start, { until: /Ctrl-C/ }));
  const [, configuration] = /<!-- example: examples\/otp\.yaml -->\n```yaml\n([\s\S]*?)```/.exec(read('README.md'));
  // As the comment beside it says: without this line it starts a server of its own.
  writeFileSync(join(clone, 'otp.yaml'), configuration.replace(/^redis:.*\n/m, ''));
  await step(generate, () => run(generate));
  await step(serve, () => run(serve, { until: /listening|http:\/\// }));
  rmSync(join(clone, 'otp.yaml'));
  await step('docs/getting-started.md', () => run('npm test -- test/house/getting-started.test.ts'));
  firstChange();
  await step('npm run check, with a first change', () => run('npm run check'));
} catch (error) {
  failure = error;
}
console.log('');
console.table(steps);
const minutes = steps.reduce((sum, { seconds }) => sum + seconds, 0) / 60;
console.log(`${minutes.toFixed(1)} minutes of ${MOST_MINUTES}`);
if (failure) console.log(`it ended too early: ${failure.message}; the clone is kept in ${clone}`);
else rmSync(folder, { recursive: true, force: true });
process.exitCode = failure || minutes > MOST_MINUTES ? 1 : 0;
