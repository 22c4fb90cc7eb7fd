#!/usr/bin/env node
// Everything that a fresh clone lacks, before `npm start` and `npm test` and by `npm run setup`: dependencies, the
// build, a Redis server. Node's own modules only, because nothing else is there yet. A second run does nothing.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { join, relative } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const cache = join(root, '.cache');
const installStamp = join(root, 'node_modules', '.otp-setup');
const lockFolder = join(cache, 'setup.lock');

/** How often the owner of the lock says that it lives, and after what silence it is believed dead from afar. */
const HEARTBEAT_MS = 1_000;
const SILENT_MS = 20_000;
/** Silence after which a living process is believed to be another one that got the same id. */
const OTHER_PROCESS_MS = 600_000;

let lockIsOurs = false;

/** Order matters: the compiler comes with the dependencies, and the look for a server is compiled code. */
const steps = [
  { doing: 'installing dependencies', needed: installIsStale, run: install },
  { doing: 'compiling src', needed: buildIsStale, run: build },
  { doing: 'looking for a Redis server', needed: redisIsMissing, run: fetchRedis },
];

try {
  checkNode();
  if (await anythingNeeded()) {
    await alone(async () => {
      for (const step of steps) if (await step.needed()) await report(step);
    });
  } else {
    console.log(`set-up: up to date (${process.uptime().toFixed(1)} s)`);
  }
} catch (error) {
  console.error(`set-up: ${error.message}`);
  process.exitCode = 1;
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  throw new Error(
    `Node ${process.versions.node} is too old, 20.19 or later is needed. With a version manager type one of:\n` +
      '  nvm install 22\n  fnm install 22\n  brew install node@22',
  );
}

async function anythingNeeded() {
  for (const step of steps) if (await step.needed()) return true;
  return false;
}

// --- dependencies ---------------------------------------------------------------------------------------------------

function installIsStale() {
  if (readOrNull(installStamp) === lockHash()) return false;
  if (!installedByHand()) return true;
  writeFileSync(installStamp, lockHash());
  return false;
}

/** Somebody ran `npm ci` without us: what npm wrote down of its own work agrees with the lock file. */
function installedByHand() {
  const installed = parsedOrNull(join(root, 'node_modules', '.package-lock.json'))?.packages;
  if (installed === undefined) return false;
  const { '': _root, ...wanted } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  return (
    Object.keys(installed).every((name) => installed[name].version === wanted[name]?.version) &&
    // Optional packages are those of other platforms.
    Object.keys(wanted).every((name) => name in installed || wanted[name].optional)
  );
}

async function install() {
  // Under npm we use the same npm again. Development packages are wanted whatever NODE_ENV says: they hold the compiler.
  const npm = process.env.npm_execpath?.endsWith('.js') ? [process.execPath, process.env.npm_execpath] : ['npm'];
  await run([...npm, 'ci', '--include=dev', '--no-audit', '--no-fund'], 'npm ci failed');
  writeFileSync(installStamp, lockHash());
  return 'dependencies installed from package-lock.json';
}

function lockHash() {
  return createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
}

// --- build ----------------------------------------------------------------------------------------------------------

async function buildIsStale() {
  return (await import('./build.mjs')).buildIsStale();
}

async function build() {
  await (await import('./build.mjs')).build();
  return 'src compiled to dist';
}

// --- Redis ----------------------------------------------------------------------------------------------------------

async function redisIsMissing() {
  // A configured server is enough to run the service; the tests start, stop and kill servers of their own.
  if (process.env.REDIS_URL && process.env.npm_lifecycle_event !== 'pretest') return false;
  return (await finder()).findRedisServer() === null;
}

function finder() {
  return import('../dist/redis/server.js');
}

async function fetchRedis() {
  const { findRedisServer, onPath, redisCache } = await finder();
  const why = [];
  if (onPath('apt-get') !== null && onPath('dpkg-deb') !== null) {
    // Unpacked into our own folder first: that needs no rights and leaves the machine as it was.
    for (const way of [unpackRedis, ...(process.getuid?.() === 0 ? [installRedisTools] : [])]) {
      try {
        await way(redisCache);
        const server = findRedisServer();
        const said = await run([server.command, '--version'], 'it does not start', server.env);
        const version = /v=(\S+)/.exec(said)?.[1] ?? '';
        return `Redis ${version} fetched into ${relative(root, redisCache)}`;
      } catch (error) {
        rmSync(redisCache, { recursive: true, force: true });
        why.push(error.message);
      }
    }
  }
  throw new Error(
    [
      'there is no Redis server on this machine. Type the line that fits, then the same command again:',
      '  sudo apt-get install redis-server      (Debian, Ubuntu)',
      '  brew install redis                     (macOS)',
      '  sudo dnf install redis                 (Fedora, RHEL)',
      'or set REDIS_URL to a server that is running.',
      ...why.map((text) => `Tried: ${text}`),
    ].join('\n'),
  );
}

/** Debian's package, unpacked and not installed: apt keeps its state in a folder of ours that is thrown away. */
async function unpackRedis(target) {
  for (const left of readdirSync(cache).filter((name) => name.startsWith('apt-'))) {
    rmSync(join(cache, left), { recursive: true, force: true }); // by a run that was killed: only one is here at a time
  }
  const work = join(cache, `apt-${process.pid}`);
  const tree = join(work, 'tree');
  for (const folder of ['state/lists/partial', 'cache/archives/partial', 'packages', 'tree']) {
    mkdirSync(join(work, folder), { recursive: true });
  }
  const apart = [
    `Dir::State=${join(work, 'state')}`,
    'Dir::State::status=/dev/null',
    `Dir::Cache=${join(work, 'cache')}`,
    'APT::Sandbox::User=',
    'Acquire::Retries=1',
    'Acquire::http::Timeout=20',
  ].flatMap((option) => ['-o', option]);
  const packages = { cwd: join(work, 'packages') };
  try {
    let update = '';
    // One unreachable source of several is no reason to stop: the download will tell.
    await run(['apt-get', ...apart, 'update'], 'apt-get update').catch((error) => (update = `${error.message}\n`));
    const depends = await run(['apt-cache', ...apart, 'depends', 'redis-tools'], `${update}apt knows no redis-tools`);
    const libraries = [...depends.matchAll(/^ *\|?Depends: (lib\S+)$/gm)].map((match) => match[1]);
    const missing = [];
    for (const library of libraries) if (!(await isInstalled(library))) missing.push(library);
    await run(['apt-get', ...apart, 'download', 'redis-tools', ...missing], 'apt-get download failed', {}, packages);
    for (const file of readdirSync(packages.cwd)) {
      await run(['dpkg-deb', '-x', join(packages.cwd, file), tree], `${file} could not be unpacked`);
    }
    // One program under several names: what it does is decided by the name it is called by.
    if (!existsSync(join(tree, 'usr/bin/redis-server'))) {
      symlinkSync('redis-check-rdb', join(tree, 'usr/bin/redis-server'));
    }
    const folders = readdirSync(tree, { recursive: true, withFileTypes: true })
      .filter((entry) => /\.so(\.|$)/.test(entry.name))
      .map((entry) => relative(tree, entry.parentPath));
    const server = { command: 'usr/bin/redis-server', libraries: [...new Set(folders)] };
    writeFileSync(join(tree, 'server.json'), `${JSON.stringify(server)}\n`);
    rmSync(target, { recursive: true, force: true });
    renameSync(tree, target);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** As root only. The package of the tools holds the server's program too, but no service that would be started. */
async function installRedisTools(target) {
  const quiet = { DEBIAN_FRONTEND: 'noninteractive' };
  await run(['apt-get', 'update'], 'apt-get update', quiet).catch(() => {}); // an old list may still do
  const command = ['apt-get', 'install', '-y', '--no-install-recommends', 'redis-tools'];
  await run(command, 'apt-get install redis-tools failed', quiet);
  mkdirSync(target, { recursive: true });
  symlinkSync('/usr/bin/redis-check-rdb', join(target, 'redis-server'));
  writeFileSync(join(target, 'server.json'), `${JSON.stringify({ command: 'redis-server', libraries: [] })}\n`);
}

async function isInstalled(name) {
  const status = await run(['dpkg-query', '-s', name], '').catch(() => '');
  return status.includes('Status: install ok installed');
}

// --- one at a time --------------------------------------------------------------------------------------------------

/** `npm test` while `npm start` is still setting up: the second waits for the first and then finds little to do. */
async function alone(work) {
  mkdirSync(cache, { recursive: true });
  let told = false;
  while (!tryLock()) {
    if (abandoned(lockFolder)) await breakLock();
    else if (!told) {
      told = true;
      console.log('set-up: waiting for another set-up of this folder');
    }
    await delay(200);
  }
  const heartbeat = setInterval(() => touch(lockFolder), HEARTBEAT_MS);
  try {
    return await work();
  } finally {
    clearInterval(heartbeat);
    lockIsOurs = false;
    rmSync(lockFolder, { recursive: true, force: true });
  }
}

function tryLock() {
  try {
    mkdirSync(lockFolder);
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  }
  lockIsOurs = true;
  writeOwner([process.pid]);
  return true;
}

/** With the command that is running for us: it lives on when we are killed, and nobody may work beside it. */
function writeOwner(pids) {
  writeFileSync(join(lockFolder, 'owner.json'), JSON.stringify({ pids, host: hostname() }));
}

/** Its owner is dead, or on another machine or in another container and has not been heard of for long. */
function abandoned(folder) {
  const heard = statOrNull(folder)?.mtimeMs;
  if (heard === undefined) return false;
  const silence = Date.now() - heard;
  const owner = parsedOrNull(join(folder, 'owner.json'));
  if (owner === null || owner.host !== hostname()) return silence > SILENT_MS;
  return !owner.pids.some(isAlive) || silence > OTHER_PROCESS_MS;
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code !== 'ESRCH';
  }
}

/** Two who both saw an abandoned lock must not remove each other's new one, so breaking it has a lock of its own. */
async function breakLock() {
  const guard = `${lockFolder}.break`;
  try {
    mkdirSync(guard);
  } catch {
    if (Date.now() - (statOrNull(guard)?.mtimeMs ?? Date.now()) > SILENT_MS)
      rmSync(guard, { recursive: true, force: true });
    return;
  }
  try {
    if (abandoned(lockFolder)) rmSync(lockFolder, { recursive: true, force: true });
  } finally {
    rmSync(guard, { recursive: true, force: true });
  }
}

function touch(folder) {
  try {
    utimesSync(folder, new Date(), new Date());
  } catch {
    // removed by hand; the work itself goes on
  }
}

// --- saying what is done --------------------------------------------------------------------------------------------

/** One line a step when it is done; while it lasts a counter on a terminal, elsewhere a line now and then. */
async function report({ doing, run: work }) {
  const begin = performance.now();
  const terminal = process.stdout.isTTY;
  const show = () =>
    terminal
      ? process.stdout.write(`\r\u001b[2Kset-up: ${doing} ... ${Math.round((performance.now() - begin) / 1000)} s`)
      : console.log(`set-up: still ${doing} (${Math.round((performance.now() - begin) / 1000)} s)`);
  const ticker = setInterval(show, terminal ? 1_000 : 15_000);
  try {
    if (terminal) show();
    const done = await work();
    if (terminal) process.stdout.write('\r\u001b[2K');
    console.log(`set-up: ${done} (${seconds(begin)})`);
  } catch (error) {
    if (terminal) process.stdout.write('\r\u001b[2K');
    throw error;
  } finally {
    clearInterval(ticker);
  }
}

/** What the command printed; when it fails, an error that ends with it. */
async function run([command, ...args], failure, env = {}, options = {}) {
  const child = spawn(command, args, {
    cwd: root,
    ...options,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (lockIsOurs && child.pid !== undefined) writeOwner([process.pid, child.pid]);
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
  const code = await new Promise((settle) => {
    child.once('error', (error) => {
      said += error.message;
      settle(-1);
    });
    child.once('close', settle);
  });
  if (code !== 0) throw new Error(`${failure}\n${said.trim()}`);
  return said;
}

function seconds(since) {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}

function readOrNull(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return null;
  }
}

function parsedOrNull(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return null;
  }
}

function statOrNull(path) {
  try {
    return statSync(path);
  } catch {
    return null;
  }
}
