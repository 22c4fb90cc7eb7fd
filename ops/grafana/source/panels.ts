/**
 * The few kinds of panels that the dashboards are made of, so that a dashboard reads as a list of questions with their
 * queries. Every kind demands a title, a unit and a description; the types are Grafana's own.
 */

import { PanelBuilder as BarGauge } from '@grafana/grafana-foundation-sdk/bargauge';
import type { Builder, Dataquery } from '@grafana/grafana-foundation-sdk/cog';
import {
  BarGaugeDisplayMode,
  BigValueColorMode,
  BigValueGraphMode,
  GraphDrawStyle,
  GraphThresholdsStyleMode,
  LegendDisplayMode,
  LegendPlacement,
  SortOrder,
  StackingMode,
  TooltipDisplayMode,
  VizOrientation,
} from '@grafana/grafana-foundation-sdk/common';
import {
  type DashboardLink,
  DashboardLinkType,
  type DynamicConfigValue,
  FieldColorBuilder,
  FieldColorModeId,
  type Panel,
  ThresholdsConfigBuilder,
  ThresholdsMode,
} from '@grafana/grafana-foundation-sdk/dashboard';
import { DataqueryBuilder, PromQueryFormat } from '@grafana/grafana-foundation-sdk/prometheus';
import { PanelBuilder as Stat } from '@grafana/grafana-foundation-sdk/stat';
import { PanelBuilder as Table } from '@grafana/grafana-foundation-sdk/table';
import { PanelBuilder as TimeSeries } from '@grafana/grafana-foundation-sdk/timeseries';

/** Grafana's words for units. `short` is a bare number. */
export type Unit = 'short' | 's' | 'percentunit' | 'bytes' | 'reqps' | 'ops' | 'cpm' | 'bool_yes_no';
export type Colour = 'green' | 'yellow' | 'orange' | 'red' | 'blue' | 'purple' | 'text';

export interface Query {
  readonly expr: string;
  /** What a series is called; `{{label}}` stands for its label. */
  readonly legend: string;
}

export interface Question {
  readonly title: string;
  /** What it shows, and when it is empty. */
  readonly means: string;
  /** Pages of docs/runbooks/ that say what to do when it is red. */
  readonly runbooks?: readonly string[];
  readonly unit: Unit;
  readonly decimals?: number;
  readonly queries: readonly Query[];
  /** Of the 24 columns of a dashboard. */
  readonly width: number;
  /** The colour from each value on; the first one is that of everything below. */
  readonly colours?: readonly [Colour, ...(readonly [number, Colour])[]];
  /** Colours of series by their names or by a /pattern/, where words have one: accepted is green everywhere. */
  readonly series?: Readonly<Record<string, Colour>>;
  /** Where a click on a series leads. */
  readonly leadsTo?: { readonly title: string; readonly url: string };
  /** Shown where there is nothing. */
  readonly nothing?: string;
}

export type AnyPanel = Builder<Panel>;
export type PanelKind = (runbooksAt: string) => AnyPanel;

/** The one that is chosen at the top. */
// biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of Grafana
export const DATASOURCE = { type: 'prometheus', uid: '${datasource}' };
const HEIGHT = { stat: 4, graph: 8 } as const;

/** One number each, as of now. */
export const stat =
  (question: Question): PanelKind =>
  (runbooksAt) =>
    common(new Stat(), question, runbooksAt, 'instant')
      .height(HEIGHT.stat)
      .graphMode(BigValueGraphMode.None)
      .colorMode(question.colours === undefined ? BigValueColorMode.None : BigValueColorMode.BackgroundSolid)
      .reduceOptions(latest);

/** A line for each series. */
export const graph =
  (question: Question): PanelKind =>
  (runbooksAt) =>
    timeSeries(question, runbooksAt).fillOpacity(0);

/** What adds up: each series stands on the one before, without a line that would hide what lies under a 0. */
export const stacked =
  (question: Question): PanelKind =>
  (runbooksAt) =>
    timeSeries(question, runbooksAt)
      .lineWidth(0)
      .fillOpacity(70)
      .stacking(asBuilder({ mode: StackingMode.Normal, group: 'A' }));

/** A bar for each series, as of now. */
export const bars =
  (question: Question & { readonly max: number }): PanelKind =>
  (runbooksAt) =>
    common(new BarGauge(), question, runbooksAt, 'instant')
      .height(HEIGHT.graph)
      .min(0)
      .max(question.max)
      .orientation(VizOrientation.Horizontal)
      .displayMode(BarGaugeDisplayMode.Basic)
      .reduceOptions(latest);

/** A line for each series, its labels in columns of their own, as of now. */
export const table =
  (question: Question & { readonly columns: readonly string[]; readonly valueIs: string }): PanelKind =>
  (runbooksAt) => {
    const { columns, valueIs } = question;
    const named = Object.fromEntries([...columns.map((label) => [label, label]), ['Value', valueIs]]);
    return common(new Table(), question, runbooksAt, 'table')
      .height(HEIGHT.graph)
      .withTransformation({
        id: 'organize',
        options: {
          excludeByName: { Time: true },
          indexByName: Object.fromEntries([...columns, 'Value'].map((label, index) => [label, index])),
          renameByName: named,
        },
      })
      .sortBy([asBuilder({ displayName: valueIs, desc: true })]);
  };

const latest = asBuilder({ calcs: ['lastNotNull'], fields: '', values: false });

function timeSeries(question: Question, runbooksAt: string) {
  return common(new TimeSeries(), question, runbooksAt, 'range')
    .height(HEIGHT.graph)
    .drawStyle(GraphDrawStyle.Line)
    .lineWidth(1)
    .spanNulls(false)
    .axisSoftMin(0)
    .legend(
      asBuilder({
        showLegend: true,
        displayMode: LegendDisplayMode.List,
        placement: LegendPlacement.Bottom,
        calcs: [],
      }),
    )
    .tooltip(asBuilder({ mode: TooltipDisplayMode.Multi, sort: SortOrder.Descending }))
    .thresholdsStyle(
      asBuilder({
        mode: question.colours === undefined ? GraphThresholdsStyleMode.Off : GraphThresholdsStyleMode.Dashed,
      }),
    );
}

type AnyBuilder = Stat | TimeSeries | BarGauge | Table;

/** What every panel has, whatever its kind. */
function common<Kind extends AnyBuilder>(
  panel: Kind,
  { title, means, runbooks = [], unit, decimals, queries, width, colours, series = {}, leadsTo, nothing }: Question,
  runbooksAt: string,
  asked: 'instant' | 'range' | 'table',
): Kind {
  panel
    .title(title)
    .description(describe(means, runbooks, runbooksAt))
    .datasource(DATASOURCE)
    .unit(unit)
    .span(width)
    .targets(queries.map((query, index) => target(query, 'ABCDEFGH'.charAt(index), asked)))
    .colorScheme(
      new FieldColorBuilder().mode(
        colours === undefined || asked === 'range' ? FieldColorModeId.PaletteClassic : FieldColorModeId.Thresholds,
      ),
    );
  if (decimals !== undefined) panel.decimals(decimals);
  if (nothing !== undefined) panel.noValue(nothing);
  if (colours !== undefined) {
    const [base, ...steps] = colours;
    panel.thresholds(
      new ThresholdsConfigBuilder()
        .mode(ThresholdsMode.Absolute)
        .steps([{ value: null, color: base }, ...steps.map(([value, color]) => ({ value, color }))]),
    );
  }
  for (const [name, fixedColor] of Object.entries(series)) {
    const colour: DynamicConfigValue = { id: 'color', value: { mode: FieldColorModeId.Fixed, fixedColor } };
    if (name.startsWith('/')) panel.overrideByRegexp(name, [colour]);
    else panel.overrideByName(name, [colour]);
  }
  if (leadsTo !== undefined) panel.dataLinks([asBuilder(linkTo(leadsTo.title, leadsTo.url))]);
  if (runbooksAt !== '') panel.links(runbooks.map((name) => asBuilder(linkTo(name, `${runbooksAt}${pathOf(name)}`))));
  return panel;
}

function target({ expr, legend }: Query, refId: string, asked: 'instant' | 'range' | 'table'): Builder<Dataquery> {
  const query = new DataqueryBuilder().datasource(DATASOURCE).refId(refId).expr(expr).legendFormat(legend);
  if (asked === 'range') return query.range();
  return asked === 'instant' ? query.instant() : query.instant().format(PromQueryFormat.Table);
}

/** Paths of this repository, or links where it is known under which address people read it. */
function describe(means: string, runbooks: readonly string[], runbooksAt: string): string {
  if (runbooks.length === 0) return means;
  const pages = runbooks.map((name) => (runbooksAt === '' ? pathOf(name) : `[${name}](${runbooksAt}${pathOf(name)})`));
  return `${means}\n\nWhat to do: ${pages.join(', ')}`;
}

const pathOf = (runbook: string): string => `docs/runbooks/${runbook}.md`;

function linkTo(title: string, url: string): DashboardLink {
  return { ...PLAIN_LINK, title, url, type: DashboardLinkType.Link };
}

/** The SDK's own builder would hide it in a menu. */
export const PLAIN_LINK = {
  icon: '',
  tooltip: '',
  tags: [],
  asDropdown: false,
  targetBlank: false,
  includeVars: false,
  keepTime: false,
} satisfies Partial<DashboardLink>;

/** The builders of these small options add nothing to the object itself. */
export function asBuilder<Built>(built: Built): Builder<Built> {
  return { build: () => built };
}
