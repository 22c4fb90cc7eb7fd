/** How a counter becomes a number to look at. Global gauges are the same in every process: `max`, never `sum`. */

/** Grafana fills it with a window that has samples enough, whatever the zoom. */
const WINDOW = '$__rate_interval';

const selector = (metric: string, matchers: string): string => (matchers === '' ? metric : `${metric}{${matchers}}`);
const sumBy = (by: string): string => (by === '' ? 'sum' : `sum by (${by}) `);

/** How many a second. */
export function perSecond(metric: string, by = '', matchers = ''): string {
  return `${sumBy(by)}(rate(${selector(metric, matchers)}[${WINDOW}]))`;
}

/** How many a minute: for what is rare, whatever the zoom. */
export function perMinute(metric: string, by = '', matchers = ''): string {
  return `${perSecond(metric, by, matchers)} * 60`;
}

/** How many in a window, of a counter that exists from the start. */
export function increase(metric: string, by = '', matchers = '', window = '$__range'): string {
  return `${sumBy(by)}(increase(${selector(metric, matchers)}[${window}]))`;
}

/** How long all but a share of them took, from a histogram. */
export function quantile(share: number, metric: string, by = '', matchers = ''): string {
  const buckets = `sum by (${by === '' ? 'le' : `le, ${by}`}) (rate(${selector(`${metric}_bucket`, matchers)}[${WINDOW}]))`;
  return `histogram_quantile(${share}, ${buckets})`;
}

/**
 * How many in a window, of a counter whose series begin with their first event: `increase` does not see that one. So the
 * first value of a series that was not there when the window began is added, if its process had begun within the window
 * or was scraped when it began; else (Prometheus was away, or is new) nobody knows when those were.
 */
export function counted(metric: string, by: string, matchers = '', { range, seconds }: Window = CHOSEN): string {
  const series = selector(metric, matchers);
  const began = `process_start_time_seconds{job="otp"} > time() - ${seconds} or up{job="otp"} offset ${range}`;
  return [
    `sum by (${by}) (`,
    `  label_replace(increase(${series}[${range}]), "counted", "since the first", "", "")`,
    '  or label_replace(',
    `    (min_over_time(${series}[${range}]) unless ${series} offset ${range}) and on (instance) (${began}),`,
    '    "counted", "the first", "", ""',
    '  )',
    ')',
  ].join('\n');
}

/** The same, over time. */
export function countedPerMinute(metric: string, by: string, matchers = ''): string {
  const window = { range: WINDOW, seconds: '$__rate_interval_ms / 1000' };
  return `${counted(metric, by, matchers, window)} * 60000 / $__rate_interval_ms`;
}

interface Window {
  readonly range: string;
  readonly seconds: string;
}

/** What is chosen at the top right. */
const CHOSEN: Window = { range: '$__range', seconds: '$__range_s' };
