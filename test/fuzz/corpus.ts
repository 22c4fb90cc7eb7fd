/** Cases that were worth keeping: each found a fault once, and must find none again. */
import { readdirSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import { TARGETS } from './target.ts';

const kept = z.strictObject({
  target: z.enum(TARGETS),
  /** What it was that went wrong. */
  says: z.string().min(1),
  case: z.unknown(),
});
export type Kept = z.output<typeof kept> & { readonly file: string };

const FOLDER = new URL('./corpus/', import.meta.url);

export function readCorpus(): Kept[] {
  const files = readdirSync(FOLDER).filter((file) => file.endsWith('.json'));
  return files.sort().map((file) => ({ file, ...readKept(new URL(file, FOLDER)) }));
}

/** One file of the corpus, or one that a run has left behind. */
export function readKept(file: URL | string): z.output<typeof kept> {
  return kept.parse(JSON.parse(readFileSync(file, 'utf8')));
}
