import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { PROBLEMS } from '../../src/producers/problem.ts';
import { REASONS } from '../../src/providers/provider.ts';

const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
const rows = [...page.matchAll(/^\| `(\S+)` \| (?:(\d{3}) \|)?/gm)].map(
  ([, name = '', status]) => [name, status] as const,
);

test('the page of errors has every problem with its status, and no other', () => {
  const problems = Object.entries(PROBLEMS).map(([name, { status }]) => [name, String(status)]);
  expect(rows.filter(([, status]) => status !== undefined)).toEqual(problems);
});

test('and what to tell the customer for every reason', () => {
  expect(
    rows
      .filter(([, status]) => status === undefined)
      .map(([name]) => name)
      .sort(),
  ).toEqual([...REASONS].sort());
});
