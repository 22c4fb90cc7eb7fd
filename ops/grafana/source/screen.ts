/** A dashboard: its rows, the variables that all of them share, and the way to the others. */
import {
  type Dashboard,
  DashboardBuilder,
  DashboardCursorSync,
  DashboardLinkType,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  RowBuilder,
  VariableRefresh,
  VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard';
import { asBuilder, DATASOURCE, type PanelKind, PLAIN_LINK } from './panels.ts';

export interface Screen {
  readonly uid: string;
  readonly title: string;
  /** The question that it answers. */
  readonly description: string;
  /** Whether it shows one provider at a time, which is chosen at its top. */
  readonly ofOneProvider?: boolean;
  /** The widths of what stands side by side add up to 24. */
  readonly rows: readonly { readonly title: string; readonly panels: readonly PanelKind[] }[];
}

/** From a series of a provider to all that is known of it. */
export const toProvider = {
  title: 'This provider',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: variables of Grafana
  url: '/d/otp-provider?var-provider=${__field.labels.provider}&${__url_time_range}',
};

/** @param runbooksAt the address of this repository's files where people read them, with its last slash; '': paths only. */
export function build({ uid, title, description, ofOneProvider = false, rows }: Screen, runbooksAt: string): Dashboard {
  const dashboard = new DashboardBuilder(title)
    .uid(uid)
    .description(description)
    .tags(['otp'])
    .time({ from: 'now-6h', to: 'now' })
    .refresh('30s')
    .timezone('browser')
    .tooltip(DashboardCursorSync.Crosshair)
    .readonly()
    .annotations([])
    .link(
      asBuilder({
        ...PLAIN_LINK,
        title: 'Other dashboards',
        type: DashboardLinkType.Dashboards,
        tags: ['otp'],
        includeVars: true,
        keepTime: true,
      }),
    )
    .withVariable(new DatasourceVariableBuilder('datasource').type('prometheus').label('Data source'));
  if (ofOneProvider) {
    dashboard.withVariable(
      new QueryVariableBuilder('provider')
        .label('Provider')
        .datasource(DATASOURCE)
        .query('label_values(otp_rate_limit_per_second, provider)')
        .refresh(VariableRefresh.OnDashboardLoad)
        .sort(VariableSort.AlphabeticalAsc),
    );
  }
  for (const row of rows) {
    dashboard.withRow(new RowBuilder(row.title));
    for (const panel of row.panels) dashboard.withPanel(panel(runbooksAt));
  }
  const built = dashboard.build();
  return { ...built, panels: (built.panels ?? []).map((panel, index) => ({ ...panel, id: index + 1 })) };
}
