/**
 * What is fuzzed. A target makes cases (plain JSON, so that each can be kept in a file) and judges what became of one.
 * It is made with the functions that it judges: the real ones by default, wrong ones where a test asks whether it
 * would notice.
 */
import { inspect } from 'node:util';
import type fc from 'fast-check';

export interface Target<Case = unknown> {
  readonly name: TargetName;
  readonly cases: fc.Arbitrary<Case>;
  /** Tried first: what is worth trying in full. */
  readonly sweep?: () => Iterable<Case>;
  /** The word for what became of it, for the count of each. Throws Condemned when it should not have. */
  check(given: Case): string | Promise<string>;
  /** So many at a time: enough for a second or less. */
  readonly batch: number;
  /** Servers and connections; what fails outside of any case is condemned here. */
  close?(): Promise<void>;
}

export const TARGETS = [
  'intake-requests',
  'intake-http',
  'callback-proofs',
  'callback-bodies',
  'provider-answers',
  'provider-wire',
  'configuration',
  'journal-records',
  'strange-jobs',
  'strange-results',
  'sealed-texts',
] as const;
export type TargetName = (typeof TARGETS)[number];

/** The oracle says that this must not be. */
export class Condemned extends Error {
  override readonly name = 'Condemned';
}

export function demand(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new Condemned(otherwise);
}

/** Something that was thrown, with everything that a log would print of it, and its causes. */
export function printed(thrown: unknown): string {
  const parts = [inspect(thrown, { depth: 10, showHidden: true, maxStringLength: null, maxArrayLength: null })];
  for (let error = thrown, depth = 0; error instanceof Error && depth < 10; error = error.cause, depth += 1) {
    parts.push(error.name, error.message, error.stack ?? '', JSON.stringify(error));
  }
  return parts.join('\n');
}

/** Condemns a text in which a canary stands, also in JSON's or the URL's escapes. */
export function demandNoLeak(where: string, text: string, canaries: readonly string[]): void {
  const readings = [text, ...(text.includes('\\u') || text.includes('%') ? [unescaped(text)] : [])];
  for (const canary of canaries) {
    demand(!readings.some((reading) => reading.includes(canary)), `${where} shows the canary ${canary}`);
  }
}

function unescaped(text: string): string {
  return text
    .replace(/\\u([0-9a-fA-F]{4})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
    .replace(/%([0-9a-fA-F]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
}
