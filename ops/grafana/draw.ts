/**
 * A dashboard as one SVG: its panels where they stand in Grafana, with what its queries gave. It knows the four kinds of panels
 * that source/panels.ts makes, and nothing else of Grafana.
 */
import type { Dashboard, Panel } from '@grafana/grafana-foundation-sdk/dashboard';
import type { GridComponentOption, LineSeriesOption, XAXisComponentOption, YAXisComponentOption } from 'echarts';
import * as echarts from 'echarts';

export interface Drawn {
  readonly name: string;
  /** Seconds since the beginning, and what it was. */
  readonly points: readonly (readonly [number, number])[];
  readonly labels: Readonly<Record<string, string>>;
}

const COLUMN = 50;
const LINE = 27;
const GAP = 8;
const WIDTH = 24 * COLUMN + 2 * GAP;
const FONT = 'Inter, Helvetica, Arial, sans-serif';
const INK = { text: '#24292e', faint: '#6e7680', line: '#e4e6e9', panel: '#ffffff', page: '#f4f5f5' } as const;
/** Grafana's own. */
const COLOURS: Readonly<Record<string, string>> = {
  green: '#56a64b',
  yellow: '#e0b400',
  orange: '#ff780a',
  red: '#e02f44',
  blue: '#3274d9',
  purple: '#a352cc',
};
const PALETTE = ['#56a64b', '#e0b400', '#3274d9', '#ff780a', '#a352cc', '#1f9e9e', '#e02f44', '#7a8490'];
/** A legend of more names than these would cover its panel: those of lines that never leave 0 are counted instead. */
const NAMES = 6;
const MIB = 2 ** 20;

type Shape = Record<string, unknown>;

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

interface Sheet {
  readonly graphic: Shape[];
  readonly grid: GridComponentOption[];
  readonly xAxis: XAXisComponentOption[];
  readonly yAxis: YAXisComponentOption[];
  readonly series: LineSeriesOption[];
}

export interface Scene {
  readonly title: string;
  /** How long what is drawn lasted. */
  readonly seconds: number;
  readonly told: ReadonlyMap<Panel, readonly Drawn[]>;
}

export function draw(dashboard: Dashboard, { title, seconds, told }: Scene): string {
  const sheet: Sheet = { graphic: [], grid: [], xAxis: [], yAxis: [], series: [] };
  let bottom = 0;
  for (const each of dashboard.panels ?? []) {
    const { x = 0, y = 0, w = 24, h = 1 } = each.gridPos ?? {};
    const box = { x: GAP + x * COLUMN, y: 40 + y * LINE, width: w * COLUMN - GAP, height: h * LINE - GAP };
    bottom = Math.max(bottom, box.y + box.height);
    if (each.type === 'row') {
      text(sheet, each.title ?? '', box.x + 2, box.y + 4, { weight: 'bold', size: 13 });
    } else {
      drawPanel(sheet, each as Panel, told.get(each as Panel) ?? [], box, seconds);
    }
  }
  text(sheet, title, GAP + 2, 14, { weight: 'bold', size: 17 });
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height: bottom + GAP });
  chart.setOption({ ...sheet, animation: false, backgroundColor: INK.page, textStyle: { fontFamily: FONT } } as never);
  const svg = chart.renderToSVGString();
  chart.dispose();
  // A still picture: it needs a name for whoever cannot see it, and no styles for a mouse above it.
  return svg
    .replace(/<style[\s\S]*<\/style>\s*/, '')
    .replace(/ class="[^"]*"/g, '')
    .replace('>', `><title>${title}</title>`);
}

function drawPanel(sheet: Sheet, panel: Panel, series: readonly Drawn[], box: Box, seconds: number): void {
  sheet.graphic.push({
    type: 'rect',
    z: -10,
    shape: { ...box, r: 3 },
    style: { fill: INK.panel, stroke: INK.line },
    silent: true,
  });
  text(sheet, cut(panel.title ?? '', box.width - 16, 12), box.x + 8, box.y + 7, { weight: 'bold' });
  const inner = { x: box.x + 8, y: box.y + 26, width: box.width - 16, height: box.height - 34 };
  if (series.length === 0) {
    const { noValue = 'nothing' } = panel.fieldConfig?.defaults ?? {};
    text(sheet, noValue, inner.x + inner.width / 2, inner.y + inner.height / 2 - 6, {
      align: 'center',
      colour: INK.faint,
    });
    return;
  }
  const drawKind = KINDS[panel.type];
  if (drawKind === undefined) throw new Error(`cannot draw a panel of the type ${panel.type}`);
  drawKind(sheet, panel, series, inner, seconds);
}

type DrawKind = (sheet: Sheet, panel: Panel, series: readonly Drawn[], box: Box, seconds: number) => void;

const KINDS: Readonly<Record<string, DrawKind>> = {
  stat: drawStat,
  bargauge: drawBars,
  table: drawTable,
  timeseries: drawLines,
};

function drawStat(sheet: Sheet, panel: Panel, series: readonly Drawn[], box: Box): void {
  const width = box.width / series.length;
  for (const [index, each] of series.entries()) {
    const value = latest(each);
    const fill = coloured(panel) ? thresholdColour(panel, value) : INK.page;
    const at = { x: box.x + index * width, y: box.y, width: width - 4, height: box.height };
    sheet.graphic.push({ type: 'rect', z: -5, shape: { ...at, r: 3 }, style: { fill }, silent: true });
    const colour = coloured(panel) ? '#ffffff' : INK.text;
    const middle = at.x + at.width / 2;
    const named = series.length > 1;
    const size = named ? 17 : 24;
    text(sheet, shown(panel, value), middle, at.y + at.height / 2 - (named ? 16 : 12), {
      size,
      align: 'center',
      colour,
      weight: 'bold',
    });
    if (named)
      text(sheet, cut(each.name, at.width, 11), middle, at.y + at.height - 20, { size: 11, align: 'center', colour });
  }
}

function drawBars(sheet: Sheet, panel: Panel, series: readonly Drawn[], box: Box): void {
  const { max = 1 } = panel.fieldConfig?.defaults ?? {};
  const height = Math.min(38, box.height / series.length);
  for (const [index, each] of series.entries()) {
    const value = latest(each);
    const y = box.y + index * height;
    const part = Math.min(1, Math.max(0, value / (max ?? 1)));
    text(sheet, each.name, box.x, y + 2, { size: 11 });
    text(sheet, shown(panel, value), box.x + box.width, y + 2, { size: 11, align: 'right', weight: 'bold' });
    const track = { x: box.x, y: y + 17, width: box.width, height: 9, r: 2 };
    sheet.graphic.push({ type: 'rect', z: -5, shape: track, style: { fill: INK.page }, silent: true });
    if (part > 0) {
      const filled = { ...track, width: Math.max(2, part * box.width) };
      sheet.graphic.push({
        type: 'rect',
        z: -4,
        shape: filled,
        style: { fill: thresholdColour(panel, value) },
        silent: true,
      });
    }
  }
}

function drawTable(sheet: Sheet, panel: Panel, series: readonly Drawn[], box: Box): void {
  const [{ options } = { options: {} }] = panel.transformations ?? [];
  const { indexByName = {}, renameByName = {} } = options as Record<string, Record<string, string>>;
  const columns = Object.keys(indexByName).filter((name) => name !== 'Value');
  const sorted = [...series].sort((one, other) => latest(other) - latest(one));
  const longest = columns.map(
    (name) => Math.max(name.length, ...sorted.map(({ labels }) => labels[name]?.length ?? 0)) + 2,
  );
  const letter = Math.min(7, (box.width - 60) / longest.reduce((sum, length) => sum + length, 0));
  const line = (cells: readonly string[], y: number, weight: 'bold' | 'normal', colour: string): void => {
    let x = box.x;
    for (const [index, cell] of cells.entries()) {
      const style = { size: 11, weight, colour };
      if (index === columns.length) text(sheet, cell, box.x + box.width, y, { ...style, align: 'right' });
      else text(sheet, cell, x, y, style);
      x += (longest[index] ?? 0) * letter;
    }
  };
  line([...columns, renameByName.Value ?? ''], box.y, 'bold', INK.faint);
  const room = Math.floor((box.height - 18) / 17);
  for (const [index, each] of sorted.slice(0, room).entries()) {
    const cells = [...columns.map((name) => each.labels[name] ?? ''), shown(panel, latest(each))];
    line(cells, box.y + 20 + index * 17, 'normal', INK.text);
  }
}

function drawLines(sheet: Sheet, panel: Panel, series: readonly Drawn[], box: Box, seconds: number): void {
  const moving = series.filter(({ points }) => points.some(([, value]) => value !== 0));
  const custom = (panel.fieldConfig?.defaults.custom ?? {}) as Custom;
  const stacked = custom.stacking?.mode === 'normal';
  const chosen = series.length > NAMES ? moving : series;
  const visible = stacked ? alignedOf(chosen) : chosen;
  const legend = legendLines(
    visible.map(({ name }) => name),
    series.length - visible.length,
    box.width,
  );
  const highest = Math.max(...visible.flatMap(({ points }) => points.map(([, value]) => value)), 0);
  const index = sheet.grid.length;
  sheet.grid.push({
    left: box.x + 54,
    top: box.y + 4,
    width: box.width - 66,
    height: box.height - 30 - legend.length * 15,
  });
  const small = { fontSize: 10, color: INK.faint, fontFamily: FONT };
  sheet.xAxis.push({
    type: 'value',
    gridIndex: index,
    min: 0,
    max: seconds,
    interval: 30,
    axisLine: { lineStyle: { color: INK.line } },
    splitLine: { show: false },
    axisLabel: {
      ...small,
      formatter: (at: number) => `${Math.floor(at / 60)}:${String(Math.round(at % 60)).padStart(2, '0')}`,
    },
  });
  sheet.yAxis.push({
    type: 'value',
    gridIndex: index,
    min: 0,
    splitNumber: 4,
    splitLine: { lineStyle: { color: INK.line } },
    axisLabel: { ...small, formatter: (value: number) => short(value, panel.fieldConfig?.defaults.unit) },
    ...ticksOf(panel, highest),
  });
  for (const [order, { name, points }] of visible.entries()) {
    const color = colourOf(panel, name, order);
    sheet.series.push({
      type: 'line',
      xAxisIndex: index,
      yAxisIndex: index,
      data: points.map(([at, value]) => [at, Number(value.toPrecision(4))]),
      showSymbol: points.length < 3,
      symbolSize: 3,
      lineStyle: { width: (custom.lineWidth ?? 1) * 1.5, color },
      itemStyle: { color },
      ...(stacked ? { stack: `panel ${index}` } : {}),
      ...((custom.fillOpacity ?? 0) > 0 ? { areaStyle: { color, opacity: (custom.fillOpacity ?? 0) / 100 } } : {}),
      ...(order === 0 ? { markLine: thresholdLines(panel, highest) } : {}),
    });
  }
  for (const [row, names] of legend.entries()) {
    let x = box.x + 4;
    const y = box.y + box.height - (legend.length - row) * 15 + 6;
    for (const name of names) {
      const order = visible.findIndex((each) => each.name === name);
      if (order >= 0) {
        const swatch = { x, y: y + 4, width: 10, height: 3 };
        sheet.graphic.push({
          type: 'rect',
          shape: swatch,
          style: { fill: colourOf(panel, name, order) },
          silent: true,
        });
      }
      text(sheet, name, x + (order >= 0 ? 14 : 0), y, { size: 10.5, colour: INK.faint });
      x += legendWidth(name);
    }
  }
}

interface Custom {
  readonly fillOpacity?: number;
  readonly lineWidth?: number;
  readonly stacking?: { readonly mode?: string };
}

/** What is stacked is added up point by point, so each series needs a point at each time. */
function alignedOf(series: readonly Drawn[]): Drawn[] {
  const times = [...new Set(series.flatMap(({ points }) => points.map(([at]) => at)))].toSorted(
    (one, other) => one - other,
  );
  return series.map((each) => {
    const values = new Map(each.points);
    return { ...each, points: times.map((at) => [at, values.get(at) ?? 0] as const) };
  });
}

/** Room where all is 0, round numbers of bytes, and whole numbers of what has no halves. */
function ticksOf({ fieldConfig }: Panel, highest: number): { max?: number; interval?: number; minInterval?: number } {
  if (highest === 0) return { max: 1, interval: 1 };
  if (fieldConfig?.defaults.unit === 'bytes') {
    const interval = Math.ceil(highest / MIB / 4) * MIB;
    return { interval, max: Math.ceil(highest / interval) * interval };
  }
  return fieldConfig?.defaults.unit === 'short' ? { minInterval: 1 } : {};
}

function thresholdLines(panel: Panel, highest: number): NonNullable<LineSeriesOption['markLine']> {
  const steps = coloured(panel) ? (panel.fieldConfig?.defaults.thresholds?.steps ?? []) : [];
  return {
    silent: true,
    symbol: 'none',
    label: { show: false },
    data: steps.flatMap(({ value, color }) =>
      value === null || value > highest * 1.5
        ? []
        : [{ yAxis: value, lineStyle: { color: COLOURS[color] ?? INK.faint, type: 'dashed' as const, width: 1 } }],
    ),
  };
}

function legendLines(names: readonly string[], hidden: number, width: number): string[][] {
  const lines: string[][] = [[]];
  let used = 0;
  for (const name of [
    ...names,
    ...(hidden > 0 ? [names.length > 0 ? `${hidden} more at 0` : `all ${hidden} at 0`] : []),
  ]) {
    if (used > 0 && used + legendWidth(name) > width) {
      lines.push([]);
      used = 0;
    }
    lines.at(-1)?.push(name);
    used += legendWidth(name);
  }
  return lines;
}

const legendWidth = (name: string): number => 30 + name.length * 5.6;

interface TextStyle {
  readonly size?: number;
  readonly weight?: 'bold' | 'normal';
  readonly colour?: string;
  readonly align?: 'left' | 'center' | 'right';
}

function text(sheet: Sheet, what: string, x: number, y: number, style: TextStyle = {}): void {
  const { size = 12, weight = 'normal', colour = INK.text, align = 'left' } = style;
  const font = `${weight} ${size}px ${FONT}`;
  sheet.graphic.push({
    type: 'text',
    z: 10,
    x,
    y,
    style: { text: what, font, fill: colour, align, verticalAlign: 'top' },
    silent: true,
  });
}

function cut(what: string, width: number, size: number): string {
  const room = Math.floor(width / (size * 0.56));
  return what.length <= room ? what : `${what.slice(0, room - 1)}…`;
}

const latest = ({ points }: Drawn): number => points.at(-1)?.[1] ?? Number.NaN;

function coloured({ fieldConfig, type }: Panel): boolean {
  const steps = fieldConfig?.defaults.thresholds?.steps ?? [];
  return steps.length > 1 || (type === 'bargauge' && steps.length > 0);
}

function thresholdColour({ fieldConfig }: Panel, value: number): string {
  const steps = fieldConfig?.defaults.thresholds?.steps ?? [];
  const { color = 'green' } = steps.findLast((step) => step.value === null || value >= step.value) ?? {};
  return COLOURS[color] ?? color;
}

function colourOf({ fieldConfig }: Panel, name: string, order: number): string {
  const own = fieldConfig?.overrides.find(({ matcher: { id, options } }) =>
    id === 'byName' ? options === name : new RegExp(String(options).slice(1, -1)).test(name),
  );
  const fixed = own?.properties.find(({ id }) => id === 'color')?.value as { fixedColor?: string } | undefined;
  return COLOURS[fixed?.fixedColor ?? ''] ?? PALETTE[order % PALETTE.length] ?? INK.faint;
}

function shown({ fieldConfig }: Panel, value: number): string {
  const { unit, decimals } = fieldConfig?.defaults ?? {};
  if (unit === 'bool_yes_no') return value === 1 ? 'yes' : 'no';
  if (unit === 'percentunit') return `${(value * 100).toFixed(decimals ?? 1)} %`;
  if (unit === 's') return short(value, unit);
  return decimals === undefined ? short(value, unit) : value.toFixed(decimals);
}

function short(value: number, unit: string | undefined): string {
  const number = (of: number): string => String(Number(of.toPrecision(3)));
  if (unit === 'percentunit') return `${number(value * 100)} %`;
  if (unit === 'bytes') return `${number(value / MIB)} MiB`;
  if (unit === 'reqps' || unit === 'ops') return `${number(value)}/s`;
  if (unit === 'cpm') return `${number(value)}/min`;
  if (unit !== 's') return number(value);
  if (value === 0) return '0 s';
  if (value < 1) return `${number(value * 1_000)} ms`;
  return value < 120 ? `${number(value)} s` : `${number(value / 60)} min`;
}
