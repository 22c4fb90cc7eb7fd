/** What the log's file holds when much is said at once. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { createLogger } from '../src/log.ts';

test('every line is there once, whole and in order, also those of other scripts than ours', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'otp-log-'));
  try {
    const file = join(folder, 'not', 'there', 'yet.log');
    const log = createLogger({ level: 'info', file });
    const said = Array.from({ length: 5_000 }, (_, index) => ({ index, name: index % 2 ? 'plain' : 'कोड ✓ 🔑' }));
    for (const line of said) log.info(line, 'said');
    const lines = await vi.waitFor(() => {
      const found = readFileSync(file, 'utf8').trimEnd().split('\n');
      if (found.length < said.length) throw new Error(`${found.length} lines so far`);
      return found.map((line) => JSON.parse(line) as { index: number; name: string });
    }, 10_000);
    expect(lines.map(({ index, name }) => ({ index, name }))).toEqual(said);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
