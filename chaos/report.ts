/** What a person sees of a run: a line while it goes on, tables at its end, and the whole file on each violation. */
import { relative } from 'node:path';
import Table from 'cli-table3';
import { createLogUpdate } from 'log-update';
import pc from 'picocolors';
import type { ResultEvent } from '../src/producers/result.ts';
import type { LedgerEntry } from '../src/sandbox/index.ts';
import { type Case, groupBy, VIOLATIONS, type Violation, type ViolationKind } from './judge.ts';
import type { Post } from './load.ts';
import { PROVIDERS } from './plan.ts';

export interface RunFigures {
  readonly cases: readonly Case[];
  readonly posts: readonly Post[];
  readonly ledger: readonly LedgerEntry[];
  readonly results: readonly ResultEvent[];
  readonly violations: readonly Violation[];
  readonly faults: ReadonlyMap<string, number>;
  readonly recoveries: readonly Recovery[];
  /** From each decision to its result at the consumer. */
  readonly publishedInMs: readonly number[];
  readonly prevented: number;
  /** Called unknown although their code never crossed the wire: caution that nobody needed, seen from here. */
  readonly neverLeft: number;
  readonly turnedAway: number;
  readonly settledInMs: number;
  readonly durationMs: number;
  readonly tookMs: number;
  readonly harnessLagMs: number;
}

/** From the death of a worker to the first result of a verification that it was submitting. */
export interface Recovery {
  readonly worker: string;
  readonly id: string;
  /** NaN when no result was seen. */
  readonly tookMs: number;
  /** Redis was away meanwhile, or another worker was stopped or killed. */
  readonly disturbed: boolean;
}

export interface Glance {
  readonly phase: string;
  readonly elapsedMs: number;
  readonly ofMs: number;
  readonly asked: number;
  readonly underway: number;
  readonly results: number;
  readonly faults: number;
  /** Verifications without an end, once that is counted. */
  readonly open: number | null;
}

/** Without colours of its own: the output may be a file. */
const PLAIN = { head: [], border: [], compact: true };
const BAR = 24;
const PLAIN_EVERY_MS = 10_000;
const LIVE_EVERY_MS = 200;
/** Of each kind. */
const SHOWN_IN_FULL = 3;
const LISTED = 40;

/** A live line on a terminal, a plain one every ten seconds elsewhere. */
export class Progress {
  readonly #timer: NodeJS.Timeout;
  readonly #update: ReturnType<typeof createLogUpdate> | null;

  constructor(glance: () => Glance, stream: NodeJS.WriteStream = process.stdout) {
    this.#update = stream.isTTY ? createLogUpdate(stream) : null;
    const show = (): void => {
      const line = progressLine(glance());
      if (this.#update) this.#update(line);
      else stream.write(`${line}\n`);
    };
    this.#timer = setInterval(show, this.#update ? LIVE_EVERY_MS : PLAIN_EVERY_MS);
  }

  end(): void {
    clearInterval(this.#timer);
    this.#update?.clear();
  }
}

function progressLine(glance: Glance): string {
  const { phase, elapsedMs, ofMs, asked, underway, results, faults, open } = glance;
  const share = Math.min(1, elapsedMs / ofMs);
  const bar = `${'█'.repeat(Math.round(share * BAR))}${'░'.repeat(BAR - Math.round(share * BAR))}`;
  const seconds = `${Math.round(elapsedMs / 1_000)} s`;
  const rest = `${asked} asked, ${underway} callers waiting, ${results} results, ${faults} troubles`;
  return `${bar} ${seconds.padStart(5)}  ${rest}${open === null ? '' : `, ${open} open`}  (${phase})`;
}

export function printReport(figures: RunFigures, { folder, repeat }: { folder: string; repeat: string }): void {
  const print = (text = ''): void => console.log(text);
  print(`\n${pc.bold('What was done')}`);
  print(faultTable(figures).toString());
  print(`\n${pc.bold('How the verifications ended')}`);
  print(outcomeTable(figures.cases).toString());
  print(`\n${pc.bold('Figures')}`);
  for (const [name, value] of figureLines(figures)) print(`  ${name.padEnd(34)} ${value}`);

  const { violations } = figures;
  if (violations.length === 0) {
    print(`\n${pc.green('✓')} the money ledger agrees with every one of ${figures.cases.length} verifications`);
    return;
  }
  print(`\n${pc.bold('What is wrong')}`);
  for (const [kind, count] of countsOf(violations))
    print(`  ${String(count).padStart(4)} × ${kind}: ${VIOLATIONS[kind]}`);
  // A few of each kind in full: the rest is mostly the same trouble over again, and stands in the folder.
  const inFull = [...groupBy(violations, ({ kind }) => kind).values()].flatMap((own) => own.slice(0, SHOWN_IN_FULL));
  for (const violation of inFull) print(`\n${fileOn(violation, figures)}`);
  const rest = violations.filter((violation) => !inFull.includes(violation));
  if (rest.length > 0) print(`\n… and ${rest.length} more`);
  for (const { kind, says, id, reference } of rest.slice(0, LISTED)) {
    print(`  ${kind}: ${says} (${id ?? reference ?? 'no verification'})`);
  }
  print(
    `\n${pc.red('✗')} ${violations.length} violations. Logs, append-only file and ledger: ${relative('.', folder)}`,
  );
  print(`  the same plan again: ${pc.bold(repeat)}`);
}

/** Everything that is known about one violation. */
export function fileOn(violation: Violation, { cases, ledger, results }: RunFigures): string {
  const { kind, says, provider, reference } = violation;
  const lines = [`${pc.red('✗')} ${pc.bold(kind)}: ${VIOLATIONS[kind]}`, `  ${says}`];
  const own = cases.filter((one) => one.provider === provider && one.reference === reference);
  for (const one of own) {
    const { resource } = one;
    lines.push(`  ${one.ids[0] ?? '(no id)'}  key ${one.key}, ${one.operation}, code ${one.otp ?? '-'}`);
    if (resource === null) continue;
    const words = [resource.state, resource.otp, resource.transaction, resource.reason, resource.nextStep];
    lines.push(`    ${words.join(' / ')}, sequence ${resource.sequence}, expires ${resource.expiresAt}`);
    for (const { at, event, ...facts } of resource.history ?? []) {
      lines.push(`    ${at}  ${event}  ${JSON.stringify(facts)}`);
    }
    for (const { id, type, time } of results.filter(({ subject }) => subject === resource.id)) {
      lines.push(`    ${time}  result ${id.slice(id.lastIndexOf('.'))}  ${type}`);
    }
  }
  for (const entry of ledger) {
    if (entry.provider !== provider || entry.reference !== reference) continue;
    const { seq, at, provider: _, reference: __, event, ...facts } = entry;
    lines.push(`    ${at}  ledger ${seq}  ${event}  ${JSON.stringify(facts)}`);
  }
  return lines.join('\n');
}

function faultTable({ faults }: RunFigures): Table.Table {
  const table = new Table({ head: ['', 'times'], style: PLAIN });
  for (const [name, count] of [...faults].sort()) table.push([name, count]);
  return table;
}

/** Rows are endings, columns are providers. */
function outcomeTable(cases: readonly Case[]): Table.Table {
  const table = new Table({ head: ['', ...PROVIDERS, 'all'], style: PLAIN });
  const endings = groupBy(cases, endingOf);
  for (const ending of [...endings.keys()].sort()) {
    const own = endings.get(ending) ?? [];
    table.push([
      ending,
      ...PROVIDERS.map((name) => own.filter(({ provider }) => provider === name).length || ''),
      own.length,
    ]);
  }
  table.push([
    'all',
    ...PROVIDERS.map((name) => cases.filter(({ provider }) => provider === name).length),
    cases.length,
  ]);
  return table;
}

function endingOf({ resource }: Case): string {
  if (resource === null) return '(cannot be read)';
  const words = [resource.otp, resource.transaction].filter((word) => word !== null).join(' / ') || resource.state;
  const reason = resource.otp === 'not_submitted' ? ` / ${resource.reason}` : '';
  return resource.final ? `${words}${reason}` : `waits: ${words}${resource.needsReview ? ', for a person' : ''}`;
}

function figureLines(figures: RunFigures): [string, string][] {
  const { posts, results, recoveries, ledger } = figures;
  const answers = groupBy(posts, ({ answer }) => String(answer));
  const calm = recoveries.filter(({ disturbed }) => !disturbed);
  const charged = ledger.filter(({ event }) => event === 'charged').length;
  return [
    ['verifications', String(figures.cases.length)],
    [
      'requests to the intake',
      [...answers]
        .map(([answer, own]) => `${answer}: ${own.length}`)
        .sort()
        .join(', '),
    ],
    ['callers that found no room', String(figures.turnedAway)],
    ['codes at the business layers', String(ledger.filter(({ event }) => event === 'code_received').length)],
    ['charges', String(charged)],
    ['results, repeats among them', `${results.length}, ${results.length - new Set(results.map(({ id }) => id)).size}`],
    ['submissions that were prevented', String(figures.prevented)],
    ['unknown, yet never on the wire', String(figures.neverLeft)],
    [
      'orphans of killed workers',
      `${recoveries.length}, of which ${recoveries.length - calm.length} met further trouble`,
    ],
    ['  from the kill to their result', spread(recoveries)],
    ['  without further trouble', spread(calm)],
    ['from a decision to its result', spreadOf(figures.publishedInMs)],
    ['all ended after the troubles in', seconds(figures.settledInMs)],
    ['the harness itself lagged at most', `${figures.harnessLagMs} ms`],
    ['the whole run took', seconds(figures.tookMs)],
  ];
}

function countsOf(violations: readonly Violation[]): [ViolationKind, number][] {
  const counts = new Map<ViolationKind, number>();
  for (const { kind } of violations) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].sort(([, one], [, other]) => other - one);
}

function median(numbers: readonly number[]): number {
  return [...numbers].sort((one, other) => one - other)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}

function spread(recoveries: readonly Recovery[]): string {
  return spreadOf(recoveries.map(({ tookMs }) => tookMs).filter((ms) => !Number.isNaN(ms)));
}

function spreadOf(times: readonly number[]): string {
  // Not by Math.max(...times): a long run has more results than a call may have arguments.
  const longest = times.reduce((most, ms) => Math.max(most, ms), 0);
  return times.length === 0 ? '-' : `at most ${seconds(longest)}, median ${seconds(median(times))}`;
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}
