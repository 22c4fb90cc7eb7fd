import { readFileSync } from 'node:fs';
import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { EventBus } from '../../src/events.ts';
import { collectClocks } from '../../src/metrics/clocks.ts';
import { collectDepths } from '../../src/metrics/depths.ts';
import { collectAwaitedReplicas } from '../../src/metrics/redis-server.ts';
import { createMetrics, METRICS, type MetricDefinition } from '../../src/metrics/registry.ts';
import { declareSettings } from '../../src/metrics/settings.ts';

const definitions: readonly MetricDefinition[] = Object.values(METRICS);

/** As main.ts declares them, with nothing to tell. */
function everything(options?: { ofTheProcess: boolean }): Registry {
  const registry = new Registry();
  createMetrics(registry, options);
  collectDepths(registry, {
    read: async () => ({ complete: true, queues: new Map(), partitions: new Map(), server: null }),
  });
  collectClocks(registry, new EventBus());
  collectAwaitedReplicas(registry, new EventBus());
  declareSettings(registry, { partitions: [], queues: [], replicasWanted: 0 });
  return registry;
}

describe('the table of metrics', () => {
  it('is what the registry holds, beside the metrics of the process', async () => {
    const names = everything()
      .getMetricsAsArray()
      .map(({ name }) => name);
    const ours = names.filter((name) => !/^(process|nodejs)_/.test(name));
    expect(ours.toSorted()).toEqual(definitions.map(({ name }) => name).toSorted());
    expect(names.length).toBeGreaterThan(ours.length);
  });

  it('is the table of docs/metrics.md, both ways', () => {
    const page = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8');
    const documented = [...page.matchAll(/^\| `(otp_\w+)` \| (\w+) \| (.+?) \| (.+?) \| .+ \|$/gm)].map(
      ([, name, type, labels = '', scope]) => ({
        name,
        type,
        scope,
        labels: [...labels.matchAll(/`(\w+)`/g)].map(([, label]) => label),
      }),
    );
    expect(documented).toEqual(definitions.map(({ name, type, scope, labels }) => ({ name, type, scope, labels })));
  });

  it('says of each metric whether it may be added up, and of each time its unit', async () => {
    const help = [...(await everything({ ofTheProcess: false }).metrics()).matchAll(/^# HELP (\w+) (.+)$/gm)];
    expect(help).toHaveLength(definitions.length);
    for (const [line, name = ''] of help) {
      expect(line).toMatch(/(Global: the same in every process|Per process: add them up)\.$/);
      if (name.endsWith('_seconds')) expect(line).toMatch(/[Ss]econds/);
    }
  });

  it('has no label that could hold an id', () => {
    const closed =
      'provider operation otp transaction reason because call wire cause queue kind state type code outcome client limit bounded of'.split(
        ' ',
      );
    for (const { labels } of definitions) for (const label of labels) expect(closed).toContain(label);
  });
});
