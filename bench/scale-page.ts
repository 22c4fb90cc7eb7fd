/**
 * What a machine of the benchmark costs for each verification, and what follows from that at 10,000 and 100,000 a second. Every
 * figure of docs/scale.md between the marks is reckoned here from what was measured, and none is typed.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Latest } from './report.ts';

const PAGE = fileURLToPath(new URL('../docs/scale.md', import.meta.url));
const [BEGIN, END] = ['<!-- reckoned: begin -->', '<!-- reckoned: end -->'];

/** How much of a core is planned with: the rest is for peaks, and for what a dead neighbour leaves behind. */
const PLANNED_SHARE = 0.5;
const RATES = [1_000, 10_000, 100_000] as const;
const DAY_SECONDS = 24 * 3_600;
const DEFAULT_RETENTION_SECONDS = 3 * DAY_SECONDS;
const SHORT_RETENTION_SECONDS = 3_600;
/** How long a verification stands in Redis with its sealed code, where nothing is behind: an answer of the provider's. */
const WAITING_SECONDS = 2;

/** For each verification; null where the benchmark that would know has not run. */
export interface Costs {
  readonly workerMicros: number | null;
  readonly intakeMicros: number | null;
  readonly redisToCarryOutMicros: number | null;
  readonly redisToAcceptMicros: number | null;
  readonly waitingBytes: number | null;
  readonly settledBytes: number | null;
  /** What its consumer remembers of it. */
  readonly handledBytes: number | null;
  /** Its idempotency key, when its retention is over. */
  readonly leftBytes: number | null;
}

export function costsOf(latest: Latest | null): Costs {
  const raw = (benchmark: string): unknown => latest?.outcomes[benchmark]?.raw;
  const rounds = member(raw('throughput'), 'otp-pipeline');
  const each = (name: string): unknown[] | null =>
    Array.isArray(rounds) ? rounds.map((round) => member(round, name)) : null;
  const reused = member(raw('intake'), 'reused');
  const secondsOf1000 = 1_000; // seconds for 1,000 are milliseconds for one
  return {
    workerMicros: scaled(median(each('workerCpu')), secondsOf1000),
    intakeMicros: median(member(reused, 'cpuMicros')),
    redisToCarryOutMicros: scaled(median(each('storeCpu')), secondsOf1000),
    redisToAcceptMicros: median(member(reused, 'redisCpuMicros')),
    waitingBytes: median([member(raw('memory'), 'waitingBytes')]),
    settledBytes: median([member(raw('memory'), 'settledBytes')]),
    handledBytes: median([member(raw('memory'), 'handledBytes')]),
    leftBytes: median([member(raw('memory'), 'leftBytes')]),
  };
}

/** The part of the page between the marks. */
export function scalePart(latest: Latest | null): string {
  const costs = costsOf(latest);
  const redisMicros = sum(costs.redisToAcceptMicros, costs.redisToCarryOutMicros);
  const slotPerSecond = redisMicros === null ? null : (PLANNED_SHARE * 1e6) / redisMicros;
  const processes = (rate: number, micros: number | null): number | null =>
    micros === null ? null : Math.ceil((rate * micros) / (PLANNED_SHARE * 1e6));
  const { waitingBytes, settledBytes, handledBytes, leftBytes } = costs;
  const gigabytes = (rate: number, retentionSeconds: number): number | null => {
    if (waitingBytes === null || settledBytes === null || handledBytes === null || leftBytes === null) return null;
    const kept = WAITING_SECONDS * waitingBytes + retentionSeconds * (settledBytes + handledBytes);
    return (rate * (kept + Math.min(retentionSeconds, DAY_SECONDS) * leftBytes)) / 1e9;
  };
  const told =
    latest === null
      ? ['**Nothing has been measured on this tree yet.** `npm run bench` measures and fills this in.']
      : [
          `Measured by \`npm run bench\`, on ${latest.machine}, Redis ${latest.redis}; kept in \`bench/results/latest.json\`.`,
          'A dash is what no run has measured yet.',
        ];
  const row = (...cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const each = (figure: (rate: number) => number | null, unit = ''): string[] =>
    RATES.map((rate) => shown(figure(rate), unit));
  return [
    ...told,
    '',
    row('for each verification', 'cost', 'measured by'),
    row('---', '---', '---'),
    row('worker, processor', shown(costs.workerMicros, ' µs'), '`npm run bench -- throughput`'),
    row('intake, processor', shown(costs.intakeMicros, ' µs'), '`npm run bench -- intake`'),
    row('Redis, to accept it', shown(costs.redisToAcceptMicros, ' µs'), '`npm run bench -- intake`'),
    row(
      'Redis, to carry it out and publish it',
      shown(costs.redisToCarryOutMicros, ' µs'),
      '`npm run bench -- throughput`',
    ),
    row('memory while it waits', shown(waitingBytes, ' B'), '`npm run bench -- memory`'),
    row('memory once it is settled', shown(settledBytes, ' B'), '`npm run bench -- memory`'),
    row('memory of what its consumer has handled', shown(handledBytes, ' B'), '`npm run bench -- memory`'),
    row('memory of its key, after the retention', shown(leftBytes, ' B'), '`npm run bench -- memory`'),
    '',
    `With every core planned at ${PLANNED_SHARE * 100} %, **one slot carries ${shown(slotPerSecond, ' a second')}**, and:`,
    '',
    row('', ...RATES.map((rate) => `${rate.toLocaleString('en')}/s`)),
    row('---', ...RATES.map(() => '---')),
    row('partitions, each on a core of a Redis master', ...each((rate) => processes(rate, redisMicros))),
    row('worker processes, a core each', ...each((rate) => processes(rate, costs.workerMicros))),
    row('intake processes, a core each', ...each((rate) => processes(rate, costs.intakeMicros))),
    row('memory of all masters, kept for 3 days', ...each((rate) => gigabytes(rate, DEFAULT_RETENTION_SECONDS), ' GB')),
    row('memory of all masters, kept for an hour', ...each((rate) => gigabytes(rate, SHORT_RETENTION_SECONDS), ' GB')),
    row('partitions, if each may have 20 a second', ...each((rate) => Math.ceil(rate / 20))),
    '',
  ].join('\n');
}

export function fillScalePage(latest: Latest | null): void {
  const [head, rest] = readFileSync(PAGE, 'utf8').split(BEGIN);
  const tail = rest?.split(END)[1];
  if (head === undefined || tail === undefined) throw new Error(`docs/scale.md has no ${BEGIN} … ${END}`);
  writeFileSync(PAGE, `${head}${BEGIN}\n${scalePart(latest)}${END}${tail}`);
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function median(values: unknown): number | null {
  if (!Array.isArray(values) || values.length === 0 || !values.every((value) => Number.isFinite(value))) return null;
  const sorted = (values as number[]).toSorted((a, b) => a - b);
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.ceil((sorted.length - 1) / 2)]];
  return ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2;
}

const scaled = (value: number | null, by: number): number | null => (value === null ? null : value * by);
const sum = (a: number | null, b: number | null): number | null => (a === null || b === null ? null : a + b);

/** Three digits that say something. */
function shown(value: number | null, unit: string): string {
  if (value === null) return '–';
  const rounded = Number.isInteger(value) ? value : Number(value.toPrecision(3));
  return `${rounded.toLocaleString('en')}${unit}`;
}
