#!/usr/bin/env node
// Compiles src/ to dist/: `npm run build`; the set-up calls it when dist/ is older than what it was made of.
// Node's own modules only, besides the compiler.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const source = join(root, 'src');
const output = join(root, 'dist');
const stampFile = join(output, '.otp-build');

/** Read at run time from beside the module that needs them, so they travel with it. */
const assets = /\.(lua|css|svg|html|js)$/;

export function buildIsStale() {
  return readOrNull(stampFile) !== fingerprint();
}

/** Throws with the compiler's words when the code does not compile; dist/ then stays as it was, and stale. */
export async function build() {
  const stamp = fingerprint();
  // While files are being replaced nobody may take dist/ for finished.
  rmSync(stampFile, { force: true });
  await compile();

  const wanted = new Set();
  for (const file of filesOf(source)) {
    if (file.endsWith('.ts')) {
      const stem = file.slice(0, -'.ts'.length);
      for (const extension of ['.js', '.js.map', '.d.ts']) wanted.add(stem + extension);
    } else if (assets.test(file)) {
      wanted.add(file);
      mkdirSync(dirname(join(output, file)), { recursive: true });
      copyFileSync(join(source, file), join(output, file));
    }
  }
  // A module that was removed from src/ must not stay importable.
  for (const file of filesOf(output)) if (!wanted.has(file)) rmSync(join(output, file));
  if (wanted.has('cli.js')) chmodSync(join(output, 'cli.js'), 0o755);
  writeFileSync(stampFile, stamp);
}

async function compile() {
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const child = spawn(
    process.execPath,
    [compiler, '-p', join(root, 'tsconfig.json'), '--noEmitOnError', '--pretty', 'false'],
    {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
  const code = await new Promise((settle, fail) => child.once('error', fail).once('close', settle));
  if (code !== 0) throw new Error(`the code does not compile:\n${said.trim()}`);
}

/** Of everything that goes into dist/: by content, so that a checkout that only touches files builds nothing. */
function fingerprint() {
  const hash = createHash('sha256');
  const inputs = filesOf(source).map((file) => join('src', file));
  for (const file of [...inputs, 'tsconfig.json', 'package-lock.json', 'scripts/build.mjs']) {
    hash
      .update(`${file}\0`)
      .update(readOrNull(join(root, file)) ?? '')
      .update('\0');
  }
  return hash.digest('hex');
}

function filesOf(folder) {
  let entries;
  try {
    entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  } catch {
    return []; // no such folder yet
  }
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .sort();
}

function readOrNull(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return null;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const startedAt = performance.now();
  try {
    await build();
    console.log(`build: src compiled to dist (${((performance.now() - startedAt) / 1000).toFixed(1)} s)`);
  } catch (error) {
    console.error(`build: ${error.message}`);
    process.exitCode = 1;
  }
}
