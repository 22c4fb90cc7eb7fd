import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

test('the tour ends with exit code 0, every stop as its story and the money ledger say', async () => {
  const child = spawn(process.execPath, [CLI, 'tour', '--once'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk;
    });
  }
  const code = await new Promise<number | null>((done) => child.once('close', done));
  const lines = output.split('\n');
  expect(
    lines.filter((line) => line.startsWith('DIFFERS')),
    output,
  ).toEqual([]);
  expect(lines.filter((line) => line.startsWith('ok '))).toHaveLength(20);
  expect(output).toMatch(/20 verifications, and the money ledger agrees/);
  expect(code).toBe(0);
}, 90_000);
