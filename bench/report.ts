/** What was measured, as a table, as charts, as JSON and as docs/benchmarks.md. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import Table from 'cli-table3';
import * as echarts from 'echarts';
import { Redis } from 'ioredis';
import { startTestRedis } from '../test/support/redis.ts';
import { fillScalePage } from './scale-page.ts';
import { inProject, writeMeasured } from './support/page.ts';

export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

/** One line of the table: what was asked, and what came. */
export interface Row {
  readonly what: string;
  /** As people read it: `0.91 x (0.88–0.95)`, `2.1 ms`. */
  readonly measured: string;
  readonly atLeast: string;
  readonly aim: string;
  readonly verdict: 'aim' | 'at least' | 'missed' | 'told';
}

export interface Bars {
  readonly file: string;
  readonly title: string;
  readonly unit: string;
  readonly bars: readonly (Spread & { readonly name: string })[];
}

/** Stands below the table of all rows. */
export interface SideTable {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

export interface Outcome {
  readonly rows: readonly Row[];
  readonly tables?: readonly SideTable[];
  readonly charts: readonly Bars[];
  /** Every number of every round, for whoever wants to reckon himself. */
  readonly raw: unknown;
}

/** When, by what and where something was measured. */
export interface Occasion {
  readonly at: string;
  readonly command: string;
  readonly machine: string;
  readonly redis: string;
}

/** The last occasion, and of each benchmark what came when it was measured last. */
export interface Latest extends Occasion {
  readonly outcomes: Readonly<Record<string, Outcome & { readonly occasion: Occasion }>>;
}

const LATEST = inProject('bench/results/latest.json');

export function machine(): string {
  const gib = Math.round(totalmem() / 2 ** 30);
  return `${cpus().length} × ${cpus()[0]?.model.trim()}, ${gib} GiB, Node ${process.version}, ${process.platform}`;
}

export function printRows(rows: readonly Row[]): void {
  const table = new Table({ style: { head: [], border: [] }, head: ['what', 'measured', 'at least', 'aim', ''] });
  for (const { what, measured, atLeast, aim, verdict } of rows) table.push([what, measured, atLeast, aim, verdict]);
  console.log(table.toString());
}

export function printTable({ title, head, rows }: SideTable): void {
  const table = new Table({ style: { head: [], border: [] }, head: [...head] });
  for (const row of rows) table.push([...row]);
  console.log(`\n${title}\n${table.toString()}`);
}

/** Keeps what was measured now, in the place of what was measured under the same names before. */
export async function keep(command: string, measured: Readonly<Record<string, Outcome>>): Promise<void> {
  const occasion = { at: new Date().toISOString(), command, machine: machine(), redis: await redisVersion() };
  const anew = Object.entries(measured).map(([name, outcome]) => [name, { ...outcome, occasion }]);
  const latest: Latest = { ...occasion, outcomes: { ...readLatest()?.outcomes, ...Object.fromEntries(anew) } };
  mkdirSync(inProject('bench/results'), { recursive: true });
  writeFileSync(LATEST, `${JSON.stringify(latest, null, 2)}\n`);
  for (const { charts } of Object.values(latest.outcomes)) {
    for (const chart of charts) writeFileSync(inProject(`docs/images/${chart.file}`), draw(chart));
  }
  writeMeasured('docs/benchmarks.md', measuredPart(latest));
  fillScalePage(latest); // it reckons with these numbers, so it may not lag behind them
}

async function redisVersion(): Promise<string> {
  await using server = await startTestRedis();
  const redis = new Redis(server.url);
  const version = /redis_version:(\S+)/.exec(await redis.info('server'))?.[1] ?? '';
  redis.disconnect();
  return version;
}

export function readLatest(): Latest | null {
  try {
    return JSON.parse(readFileSync(LATEST, 'utf8')) as Latest;
  } catch {
    return null;
  }
}

function measuredPart({ outcomes }: Latest): string[] {
  const lines = [
    'Medians, with the least and the most in parentheses. `bench/results/latest.json` has every round. Measured',
    ...occasionsOf(outcomes),
    '',
    '| what | measured | at least | aim | |',
    '| --- | --- | --- | --- | --- |',
  ];
  for (const { rows } of Object.values(outcomes)) {
    for (const { what, measured, atLeast, aim, verdict } of rows)
      lines.push(`| ${what} | ${measured} | ${atLeast} | ${aim} | ${verdict} |`);
  }
  lines.push('');
  for (const { tables = [] } of Object.values(outcomes)) {
    for (const { title, head, rows } of tables) {
      const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
      lines.push(`**${title}**`, '', line(head), line(head.map(() => '---')), ...rows.map(line), '');
    }
  }
  for (const { charts } of Object.values(outcomes)) {
    for (const { file, title } of charts) lines.push(`![${title}](images/${file})`, '');
  }
  return lines.slice(0, -1);
}

/** Which of them were measured together; the machine is another one from day to day. */
function occasionsOf(outcomes: Latest['outcomes']): string[] {
  const told = Object.values(outcomes).map(
    ({ occasion: { at, command, machine, redis } }) =>
      `- on ${at.slice(0, 10)} by \`${command}\`, ${machine}, Redis ${redis}`,
  );
  return ['', ...new Set(told)];
}

function draw({ title, unit, bars }: Bars): string {
  const height = 90 + bars.length * 44;
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: 860, height });
  chart.setOption({
    animation: false,
    textStyle: { fontFamily: 'Inter, Helvetica, Arial, sans-serif' },
    backgroundColor: '#ffffff',
    title: { text: title, left: 12, top: 10, textStyle: { fontSize: 15 } },
    grid: { left: 230, right: 90, top: 48, bottom: 34 },
    xAxis: { type: 'value', name: unit, nameLocation: 'end', splitLine: { lineStyle: { color: '#e4e6e9' } } },
    yAxis: { type: 'category', inverse: true, data: bars.map(({ name }) => name), axisTick: { show: false } },
    series: [
      {
        type: 'bar',
        barWidth: 22,
        data: bars.map(({ name, median }) => ({
          value: rounded(median),
          itemStyle: { color: name.startsWith('otp-pipeline') ? '#3274d9' : '#9aa5b1' },
        })),
      },
      {
        type: 'custom',
        data: bars.map(({ least, most, median }, index) => [index, least, most, median]),
        // From the least to the most, and the median behind both, where nothing strikes it through.
        renderItem: (_: unknown, api: { value(at: number): number; coord(point: number[]): number[] }) => {
          const [from, to] = [api.coord([api.value(1), api.value(0)]), api.coord([api.value(2), api.value(0)])];
          const [x1 = 0, y = 0] = from;
          const [x2 = 0] = to;
          const text = String(rounded(api.value(3)));
          return {
            type: 'group',
            children: [
              { type: 'line', shape: { x1, y1: y, x2, y2: y }, style: { stroke: '#24292e', lineWidth: 1.5 } },
              { type: 'text', x: x2 + 6, y, style: { text, fill: '#24292e', verticalAlign: 'middle', fontSize: 12 } },
            ],
          };
        },
        encode: { x: [1, 2], y: 0 },
      },
    ],
  } as echarts.EChartsOption);
  const svg = chart.renderToSVGString();
  chart.dispose();
  return `${svg}\n`;
}

export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.ceil((sorted.length - 1) / 2)]];
  const median = ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2;
  return { median, least: sorted[0] ?? Number.NaN, most: sorted.at(-1) ?? Number.NaN };
}

/** Three digits that say something. */
export function rounded(value: number): number {
  if (Math.abs(value) >= 100) return Math.round(value);
  return Number(value.toPrecision(3));
}

export function told(values: readonly number[], unit: string): string {
  const { median, least, most } = spreadOf(values);
  const between = values.length > 1 ? ` (${rounded(least)}–${rounded(most)})` : '';
  return `${rounded(median)}${unit}${between}`;
}
