/** docs/scale.md says what was measured, and reckons rightly with it. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import type { Latest } from '../../bench/report.ts';
import { costsOf, scalePart } from '../../bench/scale-page.ts';

const file = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const RESULTS = file('bench/results/latest.json');

const occasion = { at: '2026-11-22T00:00:00Z', command: 'npm run bench', machine: 'a machine', redis: '7.0.15' };
const latest = (raw: Readonly<Record<string, unknown>>): Latest => ({
  ...occasion,
  outcomes: Object.fromEntries(
    Object.entries(raw).map(([name, each]) => [name, { occasion, rows: [], charts: [], raw: each }]),
  ),
});

test('the page says what was measured last; `npx tsx bench/scale.ts` makes it so', () => {
  const measured = existsSync(RESULTS) ? (JSON.parse(readFileSync(RESULTS, 'utf8')) as Latest) : null;
  const [, part] =
    /<!-- reckoned: begin -->\n([\s\S]*)<!-- reckoned: end -->/.exec(readFileSync(file('docs/scale.md'), 'utf8')) ?? [];
  expect(part).toBe(scalePart(measured));
});

test('costs are medians of the rounds, and what was not measured is unknown', () => {
  const rounds = [
    { workerCpu: 0.3, storeCpu: 0.1 },
    { workerCpu: 0.2, storeCpu: 0.12 },
    { workerCpu: 0.9, storeCpu: 0.5 },
  ];
  const costs = costsOf(
    latest({ throughput: { best: 100, 'otp-pipeline': rounds }, memory: { waitingBytes: 2_000, settledBytes: 800 } }),
  );
  expect(costs).toEqual({
    ...{ workerMicros: 300, redisToCarryOutMicros: 120 },
    ...{ intakeMicros: null, redisToAcceptMicros: null },
    ...{ waitingBytes: 2_000, settledBytes: 800, handledBytes: null, leftBytes: null },
  });
});

test('from costs follow processes at half a core, slots, and memory for as long as records are kept', () => {
  const part = scalePart(
    latest({
      throughput: { 'otp-pipeline': [{ workerCpu: 0.25, storeCpu: 0.15 }] },
      intake: { reused: { cpuMicros: [400], redisCpuMicros: [50] } },
      memory: { waitingBytes: 2_000, settledBytes: 1_000, handledBytes: 100, leftBytes: 300 },
    }),
  );
  const cells = (name: string): string[] =>
    (part.split('\n').find((line) => line.startsWith(`| ${name}`)) ?? '')
      .split(' | ')
      .slice(1)
      .map((cell) => cell.replace(' |', ''));
  expect(part).toContain('**one slot carries 2,500 a second**'); // half a second ÷ 200 µs
  expect(cells('partitions, each on a core')).toEqual(['1', '4', '40']);
  expect(cells('worker processes')).toEqual(['1', '5', '50']);
  expect(cells('intake processes')).toEqual(['1', '8', '80']);
  // An hour of records and of what consumers remember, and an hour of keys that outlived theirs; three days and one.
  expect(cells('memory of all masters, kept for an hour')).toEqual(['5.04 GB', '50.4 GB', '504 GB']);
  expect(cells('memory of all masters, kept for 3 days')).toEqual(['311 GB', '3,110 GB', '31,100 GB']);
  expect(scalePart(null)).toContain('Nothing has been measured on this tree yet');
});
