/** The tour as it goes: a live table on a terminal, one plain line per ended stop elsewhere. */
import Table from 'cli-table3';
import { createLogUpdate } from 'log-update';
import pc from 'picocolors';
import type { VerificationResource } from '../producers/resource.ts';
import type { Scenario } from './scenarios.ts';

/** What the ledger says of one stop: `agrees` null while it has not been asked. */
export interface LedgerVerdict {
  readonly agrees: boolean;
  /** `charged once`, `nothing charged`, `code never came` … */
  readonly says: string;
}

export interface Row {
  readonly scenario: Scenario;
  resource: VerificationResource | null;
  tookMs: number | null;
  verdict: LedgerVerdict | null;
  fault: string | null;
}

const HEAD = ['', 'provider', 'what happens', 'otp', 'transaction', 'reason', 'next step', 'time', 'the ledger says'];

export class TourTable {
  readonly #rows: readonly Row[];
  readonly #stream: NodeJS.WriteStream;
  readonly #update: ReturnType<typeof createLogUpdate> | null;

  constructor(rows: readonly Row[], stream: NodeJS.WriteStream = process.stdout) {
    this.#rows = rows;
    this.#stream = stream;
    this.#update = stream.isTTY ? createLogUpdate(stream) : null;
  }

  /** Something changed; `ended` is the row that is complete now, if one is. */
  show(ended?: Row): void {
    if (this.#update) this.#update(this.#render());
    else if (ended) this.#stream.write(`${plainLine(ended)}\n`);
  }

  end(): void {
    this.#update?.done();
  }

  /** The widest layout that fits: on a narrow terminal the story and the words stand below one another. */
  #render(): string {
    const columns = this.#stream.columns ?? 80;
    if (columns < 140) return this.#rows.map((row) => narrowLine(row, columns)).join('\n');
    const table = new Table({ head: HEAD, style: { head: ['bold'], border: ['grey'], compact: true } });
    for (const row of this.#rows) table.push(cells(row));
    return table.toString();
  }
}

function cells(row: Row): string[] {
  const { scenario, resource } = row;
  return [
    mark(row),
    scenario.partition,
    scenario.story,
    resource?.otp ?? pc.dim(resource?.state ?? '…'),
    resource?.transaction ?? '',
    resource?.reason ?? '',
    resource?.nextStep ?? '',
    row.tookMs === null ? '' : duration(row.tookMs),
    ledgerCell(row),
  ];
}

function narrowLine(row: Row, columns: number): string {
  const first = `${mark(row)} ${row.scenario.partition}: ${row.scenario.story}`;
  const words = [row.resource?.otp, row.resource?.transaction, row.resource?.reason].filter(Boolean).join(' / ');
  const second = `  ${words || (row.resource?.state ?? '…')}${row.tookMs === null ? '' : `, ${duration(row.tookMs)}`}${row.verdict ? `; ledger: ${row.verdict.says}` : ''}`;
  return `${clip(first, columns)}\n${pc.dim(clip(second, columns))}`;
}

function plainLine(row: Row): string {
  const { scenario, resource } = row;
  const words = [resource?.otp, resource?.transaction, resource?.reason].filter(Boolean).join(' / ') || '(no result)';
  const sign = row.fault !== null || row.verdict?.agrees !== true ? 'DIFFERS' : 'ok';
  const took = row.tookMs === null ? '' : `, ${duration(row.tookMs)}`;
  return `${sign.padEnd(7)} ${scenario.partition.padEnd(12)} ${scenario.story}: ${words}${took}; ${row.fault ?? `ledger: ${row.verdict?.says ?? 'not asked'}`}`;
}

function mark(row: Row): string {
  if (row.fault !== null || row.verdict?.agrees === false) return pc.red('✗');
  return row.verdict ? pc.green('✓') : pc.dim('·');
}

function ledgerCell({ verdict, fault }: Row): string {
  if (fault !== null) return pc.red(fault);
  if (verdict === null) return '';
  return verdict.agrees ? pc.green(verdict.says) : pc.red(verdict.says);
}

function duration(ms: number): string {
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`;
}

function clip(text: string, columns: number): string {
  return text.length <= columns ? text : `${text.slice(0, columns - 1)}…`;
}
