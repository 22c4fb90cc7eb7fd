/** Each alert is about metrics that exist, fires when it should and not otherwise, and has a page that says what to do. */
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Command } from 'commander';
import { describe, expect, it, test } from 'vitest';
import { parse } from 'yaml';
import { programFor } from '../../src/commands/index.ts';
import { METRICS, type MetricDefinition } from '../../src/metrics/registry.ts';
import { findTools } from './tools.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string): string => readFileSync(join(root, file), 'utf8');
const filesIn = (folder: string): string[] => readdirSync(join(root, folder)).map((name) => `${folder}/${name}`);
const run = promisify(execFile);

interface Rule {
  readonly alert?: string;
  readonly record?: string;
  readonly expr: string;
  readonly labels?: { readonly severity?: string };
  readonly annotations?: Readonly<Record<string, string>>;
}

interface Case {
  readonly input_series: readonly { readonly series: string }[];
  readonly alert_rule_test: readonly {
    readonly alertname: string;
    readonly exp_alerts: readonly { readonly exp_labels: { readonly severity: string } }[];
  }[];
}

const rules: Rule[] = filesIn('ops/prometheus/rules').flatMap((file) =>
  parse(read(file)).groups.flatMap((group: { rules: Rule[] }) => group.rules),
);
const alerts = rules.filter((rule): rule is Rule & { alert: string } => rule.alert !== undefined);
const records = new Map(rules.flatMap(({ record, expr }) => (record === undefined ? [] : [[record, expr] as const])));
const cases: Case[] = filesIn('ops/prometheus/tests').flatMap((file) => parse(read(file)).tests);

const definitions = new Map<string, MetricDefinition>(Object.values(METRICS).map((each) => [each.name, each]));

/** The names of a histogram's series as well. */
function definitionOf(series: string): MetricDefinition | undefined {
  const found = definitions.get(series);
  if (found !== undefined) return found;
  const histogram = definitions.get(series.replace(/_(bucket|count|sum)$/, ''));
  return histogram?.type === 'histogram' ? histogram : undefined;
}

/** With what the recording rules behind it are made of. */
function seriesIn(expr: string): string[] {
  const behind = [...expr.matchAll(/\botp:[\w:]+/g)].flatMap(([name]) =>
    seriesIn(records.get(name) ?? `otp_no_${name}`),
  );
  return [...new Set([...[...expr.matchAll(/\botp_\w+|\bup\b/g)].map(([name]) => name), ...behind])];
}

/** The commands of a page: `otp …` in code. */
function commandsIn(page: string): string[] {
  const code = [...page.matchAll(/```sh\n([\s\S]*?)```|`([^`\n]+)`/g)].map(([, block, span]) => block ?? span ?? '');
  return code.flatMap((text) => text.split('\n')).filter((line) => /^otp\b/.test(line));
}

function faultIn(command: string, program: Command): string | null {
  let at = program;
  for (const [index, word] of command.split(' ').slice(1).entries()) {
    const next = at.commands.find((each) => each.name() === word);
    if (next !== undefined) at = next;
    else if (index === 0) return `there is no otp ${word}`;
    else if (word.startsWith('--') && !at.options.some(({ long }) => long === word))
      return `${at.name()} has no ${word}`;
    else if (index === 1 && at.commands.length > 0) return `otp ${at.name()} has no ${word}`;
  }
  return null;
}

describe.each(alerts.map((rule) => [`${rule.alert} (${rule.labels?.severity})`, rule] as const))('%s', (_, rule) => {
  const { alert, expr, labels, annotations } = rule;

  it('says how urgent it is, what has happened, and where it is told what to do', () => {
    expect(['page', 'ticket']).toContain(labels?.severity);
    expect(Object.keys(annotations ?? {})).toEqual(['summary', 'description', 'runbook_url']);
    expect(annotations?.runbook_url).toMatch(/^docs\/runbooks\/[a-z-]+\.md$/);
    const page = read(annotations?.runbook_url ?? '');
    expect(page.split('\n')[2]).toContain(`\`${alert}\``);
  });

  it('is about metrics and labels that exist', () => {
    expect(seriesIn(expr)).not.toEqual([]);
    const matched = [expr, ...[...expr.matchAll(/\botp:[\w:]+/g)].map(([name]) => records.get(name) ?? '')].join(' ');
    for (const name of seriesIn(expr)) expect([name, name === 'up' || definitionOf(name)]).not.toContain(undefined);
    for (const [, name = '', matchers = ''] of matched.matchAll(/\b(otp_\w+)\{([^}]*)\}/g)) {
      const known = [...(definitionOf(name)?.labels ?? []), 'le'];
      for (const [, label] of matchers.matchAll(/(\w+)(?:=|!=)~?"/g))
        expect([name, known]).toContainEqual(expect.arrayContaining([label]));
    }
  });

  it('has a case in which it fires, and one of the same metrics in which it stays silent', () => {
    const told = cases.flatMap(({ input_series, alert_rule_test }) =>
      alert_rule_test.map((each) => ({ ...each, given: input_series.map(({ series }) => series.replace(/\{.*/, '')) })),
    );
    const ofThis = told.filter(({ alertname }) => alertname === alert);
    const severities = ofThis.flatMap(({ exp_alerts }) => exp_alerts.map(({ exp_labels }) => exp_labels.severity));
    expect(severities).toContain(labels?.severity);
    const silent = ofThis.filter(({ exp_alerts }) => exp_alerts.length === 0);
    expect(silent.map(({ given }) => given)).toContainEqual(expect.arrayContaining(seriesIn(expr)));
  });
});

describe('the runbooks', () => {
  const pages = filesIn('docs/runbooks');

  it('each answer to an alert, in the same order: what it means, where to look, what to do, what never', () => {
    const answered = new Set(alerts.map(({ annotations }) => annotations?.runbook_url));
    expect(pages.filter((page) => !answered.has(page))).toEqual([]);
    for (const page of pages) {
      const headings = [...read(page).matchAll(/^## (.+)$/gm)].map(([, heading]) => heading);
      expect([page, headings]).toEqual([
        page,
        ['What it means for the money', 'What to look at', 'What to do', 'What never to do'],
      ]);
      const [, named = ''] = /^Alerts: (.+)$/m.exec(read(page)) ?? [];
      for (const [, name] of named.matchAll(/`(\w+)`/g)) expect(alerts.map(({ alert }) => alert)).toContain(name);
    }
  });

  it('name only commands, options and metrics that exist', async () => {
    const program = await programFor(null);
    const named = pages.flatMap((page) => commandsIn(read(page)).map((command) => [page, command] as const));
    expect(named.length).toBeGreaterThan(30);
    expect(
      named.map(([page, command]) => [page, command, faultIn(command, program)]).filter(([, , fault]) => fault),
    ).toEqual([]);
    for (const page of pages) {
      for (const [name] of read(page).matchAll(/\botp_[a-z_]*[a-z]\b(?!_)/g))
        expect([page, name, definitionOf(name)]).not.toContain(undefined);
    }
  });

  it('would be caught naming a command that is none', async () => {
    const program = await programFor(null);
    expect(faultIn('otp repair ID', program)).toBe('there is no otp repair');
    expect(faultIn('otp webhooks resume shop', program)).toBe('otp webhooks has no resume');
    expect(faultIn('otp resolve ID --quietly', program)).toBe('resolve has no --quietly');
    expect(faultIn('otp resolve ID --as failed --evidence "…"', program)).toBeNull();
  });
});

test('docs/alerts.md lists every alert with its severities and its page, and no other', () => {
  const listed = [...read('docs/alerts.md').matchAll(/^\| `(\w+)` \| (.+?) \| .+ \| \[.+\]\((.+)\) \|$/gm)].map(
    ([, alert, severities, page]) => `${alert} ${severities} docs/${page}`,
  );
  const names = [...new Set(alerts.map(({ alert }) => alert))];
  const expected = names.map((name) => {
    const ofName = alerts.filter(({ alert }) => alert === name);
    return `${name} ${ofName.map(({ labels }) => labels?.severity).join(', ')} ${ofName[0]?.annotations?.runbook_url}`;
  });
  expect(listed.toSorted()).toEqual(expected.toSorted());
});

const tools = findTools('the rules as Prometheus reads them');
describe.skipIf(tools === null)('as Prometheus reads them', () => {
  const { promtool, amtool } = tools ?? { promtool: '', amtool: '' };

  it.concurrent.each(filesIn('ops/prometheus/tests'))(
    '%s: every case ends as it says',
    async (file) => {
      await run(promtool, ['test', 'rules', join(root, file)]);
    },
    60_000,
  );

  it.concurrent('the configuration of Prometheus with all of the rules, and that of Alertmanager', async () => {
    const { stdout } = await run(promtool, ['check', 'config', join(root, 'ops/prometheus/prometheus.yml')]);
    expect(stdout).toContain('7 rule files found');
    await run(amtool, ['check-config', join(root, 'ops/prometheus/alertmanager.yml')]);
  });
});
