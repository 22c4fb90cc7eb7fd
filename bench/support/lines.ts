/** What was measured over time, as one SVG: panels below each other, that share their time. */
import * as echarts from 'echarts';

export interface Line {
  readonly name: string;
  /** Seconds since the beginning, and what it was. */
  readonly points: readonly (readonly [number, number])[];
  readonly dots?: boolean;
}

export interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly lines: readonly Line[];
  /** A height that is worth comparing with. */
  readonly mark?: { readonly name: string; readonly at: number };
  readonly logarithmic?: boolean;
}

export interface Drawing {
  readonly title: string;
  readonly seconds: number;
  /** Where something begins. */
  readonly moments?: readonly { readonly name: string; readonly at: number }[];
  readonly panels: readonly Panel[];
}

const WIDTH = 900;
const HEIGHT = 190;
const TOP = 50;
const COLOURS = ['#3274d9', '#e02f44', '#56a64b', '#e0b400', '#a352cc', '#7a8490'];

export function drawLines({ title, seconds, moments = [], panels }: Drawing): string {
  const height = TOP + panels.length * HEIGHT;
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
  const top = (index: number): number => TOP + index * HEIGHT;
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    textStyle: { fontFamily: 'Inter, Helvetica, Arial, sans-serif' },
    color: COLOURS,
    title: [
      { text: title, left: 12, top: 10, textStyle: { fontSize: 16 } },
      ...panels.map((panel, index) => ({
        text: `${panel.title} (${panel.unit})`,
        left: 12,
        top: top(index),
        textStyle: { fontSize: 12, fontWeight: 'normal' as const, color: '#6e7680' },
      })),
    ],
    legend: panels.map(({ lines }, index) => ({
      data: lines.map(({ name }) => name),
      right: 16,
      top: top(index) - 2,
      itemWidth: 16,
    })),
    grid: panels.map((_, index) => ({ left: 64, right: 20, top: top(index) + 40, height: HEIGHT - 78 })),
    xAxis: panels.map((_, gridIndex) => ({
      gridIndex,
      type: 'value',
      min: 0,
      max: seconds,
      axisLabel: { formatter: '{value} s' },
      splitLine: { show: false },
    })),
    yAxis: panels.map(({ logarithmic }, gridIndex) => ({
      gridIndex,
      type: logarithmic ? 'log' : 'value',
      splitLine: { lineStyle: { color: '#e4e6e9' } },
    })),
    series: panels.flatMap(({ lines, mark }, index) =>
      lines.map(({ name, points, dots = false }, at) => ({
        name,
        type: dots ? 'scatter' : 'line',
        symbolSize: 4,
        showSymbol: false,
        xAxisIndex: index,
        yAxisIndex: index,
        data: points,
        lineStyle: { width: 1.5 },
        markLine:
          at > 0
            ? undefined
            : {
                symbol: 'none',
                silent: true,
                lineStyle: { color: '#7a8490', type: 'dashed' },
                data: [
                  ...(mark ? [{ yAxis: mark.at, label: { formatter: mark.name, position: 'insideEndBottom' } }] : []),
                  ...moments.map((moment) => ({
                    xAxis: moment.at,
                    label:
                      index === 0 ? { formatter: moment.name, position: 'insideEndTop', rotate: 0 } : { show: false },
                  })),
                ],
              },
      })),
    ),
  } as echarts.EChartsOption);
  const svg = chart.renderToSVGString();
  chart.dispose();
  return `${svg}\n`;
}
