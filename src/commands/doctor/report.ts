/** Findings as a person reads them: wrapped to a terminal, or a line each where something else reads. */
import { clearLine, cursorTo } from 'node:readline';
import { colors, printJson } from '../command.ts';
import { counted, type Finding, type Level } from './finding.ts';

export interface Report {
  /** Shown until the next findings come. */
  waitFor(what: string): void;
  show(findings: readonly Finding[]): void;
  /** Says how many of each there were. */
  end(): void;
  readonly faults: number;
}

const MARKS: Readonly<Record<Level, (text: string) => string>> = {
  ok: colors.green,
  warning: colors.yellow,
  fault: colors.red,
};
const LEVEL_WIDTH = 9;
const WIDEST = 100;

export function report({ json = false }: { json?: boolean | undefined }): Report {
  const counts: Record<Level, number> = { ok: 0, warning: 0, fault: 0 };
  const columns = process.stdout.isTTY && !json ? Math.min(process.stdout.columns || 80, WIDEST) : null;
  const progress = columns !== null && process.stderr.isTTY ? process.stderr : null;
  const clear = (): void => {
    if (progress === null) return;
    cursorTo(progress, 0);
    clearLine(progress, 0);
  };
  return {
    get faults() {
      return counts.fault;
    },
    waitFor(what) {
      clear();
      progress?.write(colors.dim(`… ${what}`));
    },
    show(findings) {
      clear();
      for (const finding of findings) {
        counts[finding.level] += 1;
        if (json) printJson(finding);
        else console.log(columns === null ? onOneLine(finding) : wrapped(finding, columns));
      }
      if (columns !== null && findings.length > 0) console.log('');
    },
    end() {
      clear();
      if (json) return;
      console.log(
        [
          MARKS.ok(`${counts.ok} ok`),
          counts.warning > 0 && MARKS.warning(counted(counts.warning, 'warning')),
          counts.fault > 0 && MARKS.fault(counted(counts.fault, 'fault')),
        ]
          .filter(Boolean)
          .join(', '),
      );
    },
  };
}

function onOneLine({ level, about, finding, remedy }: Finding): string {
  return `${level.padEnd(LEVEL_WIDTH)}${about}: ${finding}${remedy === null ? '' : ` -> ${remedy}`}`;
}

function wrapped({ level, about, finding, remedy }: Finding, columns: number): string {
  const margin = ' '.repeat(LEVEL_WIDTH);
  const lines = linesOf(`${about}: ${finding}`, columns - LEVEL_WIDTH).map((line, index) =>
    index === 0 && line.startsWith(`${about}:`)
      ? `${(level === 'ok' ? colors.dim : colors.bold)(about)}${line.slice(about.length)}`
      : line,
  );
  const advice = remedy === null ? [] : linesOf(remedy, columns - LEVEL_WIDTH - 2);
  return [
    ...lines.map((line, index) => `${index === 0 ? MARKS[level](level.padEnd(LEVEL_WIDTH)) : margin}${line}`),
    ...advice.map((line, index) => `${margin}${colors.cyan(index === 0 ? '→' : ' ')} ${line}`),
  ].join('\n');
}

/** Broken at spaces; a word that is too long, a path, has a line of its own. */
function linesOf(text: string, width: number): string[] {
  const lines: string[] = [''];
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? '';
    if (line !== '' && line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`;
  }
  return lines;
}
