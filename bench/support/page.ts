/** The part of a page that a program writes from what it has measured; the rest of it is written by hand. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const [BEGIN, END] = ['<!-- measured: begin -->', '<!-- measured: end -->'];

export const inProject = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));

export function writeMeasured(page: string, lines: readonly string[]): void {
  const path = inProject(page);
  const [head, rest] = readFileSync(path, 'utf8').split(BEGIN);
  const tail = rest?.split(END)[1];
  if (head === undefined || tail === undefined) throw new Error(`${page} has no ${BEGIN} … ${END}`);
  writeFileSync(path, `${head}${BEGIN}\n${lines.join('\n')}\n${END}${tail}`);
}
