#!/usr/bin/env node
// `npm run dev`: the tour of `npm start` straight from src/, ended in order and begun anew with every change.
// Arguments are those of `otp`: `npm run dev -- serve --config otp.yaml`.

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const [tsx, cli] = [join(root, 'node_modules', 'tsx', 'dist', 'cli.mjs'), join(root, 'src', 'cli.ts')];
const asked = process.argv.slice(2);
// What is read at run time and imported by nobody is named here.
const watched = ['lua', 'css', 'js', 'html', 'svg'].flatMap((kind) => [
  '--include',
  join(root, 'src', '**', `*.${kind}`),
]);

const child = spawn(
  process.execPath,
  [tsx, 'watch', '--clear-screen=false', ...watched, cli, ...(asked.length > 0 ? asked : ['tour'])],
  { stdio: 'inherit' },
);
// Ctrl-C reaches both; whoever ends this one alone means the other, too.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => child.kill('SIGTERM'));
child.once('exit', (code) => {
  process.exitCode = code ?? 0;
});
