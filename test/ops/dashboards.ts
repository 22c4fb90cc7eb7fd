/** The committed dashboards, as whoever asks their questions outside of Grafana needs them. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Dashboard, Panel } from '@grafana/grafana-foundation-sdk/dashboard';
import type { Dataquery } from '@grafana/grafana-foundation-sdk/prometheus';

const folder = fileURLToPath(new URL('../../ops/grafana/dashboards', import.meta.url));

export const dashboards: readonly Dashboard[] = readdirSync(folder)
  .toSorted()
  .map((file) => JSON.parse(readFileSync(`${folder}/${file}`, 'utf8')));

/** Without the headings between them. */
export function panelsOf({ panels = [] }: Dashboard): Panel[] {
  return panels.filter((panel): panel is Panel => panel.type !== 'row');
}

export function queriesOf({ targets = [] }: Panel): Dataquery[] {
  return targets as Dataquery[];
}

/** What Grafana puts in the place of its variables. */
export interface Filling {
  readonly provider: string;
  /** What is chosen at the top right, in seconds. */
  readonly rangeSeconds: number;
  /** Of `$__rate_interval`, in seconds: in Grafana four scrapes, or more when the zoom is wide. */
  readonly rateSeconds: number;
}

export function fill(text: string, { provider, rangeSeconds, rateSeconds }: Filling): string {
  return text
    .replaceAll('$__range_s', String(rangeSeconds))
    .replaceAll('$__range', `${rangeSeconds}s`)
    .replaceAll('$__rate_interval_ms', String(rateSeconds * 1_000))
    .replaceAll('$__rate_interval', `${rateSeconds}s`)
    .replaceAll('$provider', provider);
}

export type Labels = Readonly<Record<string, string>>;

/** `{{label}}` of a query's legend. */
export function legendOf({ legendFormat = '' }: Dataquery, labels: Labels): string {
  return legendFormat.replace(/\{\{(\w+)\}\}/g, (_, label: string) => labels[label] ?? '');
}
