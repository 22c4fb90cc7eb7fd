/**
 * Reading answers: leniently in form, strictly in meaning. Nothing here throws, whatever the bytes; what cannot be
 * read is null, and what is not documented is `unknown`.
 */
import { z } from 'zod';
import { headerText } from './fields.ts';
import type { CallbackReading, Finding, HttpResponse, Outcome, ReportedAmount, TokenCall } from './provider.ts';

/**
 * The body as `schema` describes it, or null. The content type is not asked: providers get it wrong. A body in which a
 * name stands twice in one object is null as well: it may say yes and no at once.
 */
export function read<T>(schema: z.ZodType<T>, body: string): T | null {
  return matched(schema, body, (json) => JSON.parse(json));
}

/**
 * The same, with every JSON number as the text in which it was written. So `100.10` stays `100.10`, which a float
 * would not keep, and `450` and `"450"` read alike.
 */
export function readExact<T>(schema: z.ZodType<T>, body: string): T | null {
  return matched(schema, body, (json) => {
    JSON.parse(json); // only what is JSON may be rewritten
    return JSON.parse(json.replace(STRING_OR_NUMBER, (token) => (token.startsWith('"') ? token : `"${token}"`)));
  });
}

const STRING_OR_NUMBER = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

function matched<T>(schema: z.ZodType<T>, body: string, parse: (json: string) => unknown): T | null {
  try {
    const result = schema.safeParse(parse(body));
    return result.success && !repeatsName(body) ? result.data : null;
  } catch {
    return null;
  }
}

/** A string, and the colon behind it if it is a name; or the beginning or the end of an object or a list. */
const STRING_OR_BRACKET = /("[^"\\]*(?:\\.[^"\\]*)*")(?=\s*(:?))|[{}[\]]/g;

/** Which of two members of one name counts, JSON leaves open (RFC 8259 §4). */
function repeatsName(json: string): boolean {
  const open: Set<string>[] = [];
  for (const [token, text, colon] of json.matchAll(STRING_OR_BRACKET)) {
    if (text === undefined) {
      if (token === '{' || token === '[') open.push(new Set());
      else open.pop();
    } else if (colon === ':') {
      const names = open.at(-1);
      const name: string = JSON.parse(text);
      if (names?.has(name)) return true;
      names?.add(name);
    }
  }
  return false;
}

/** In capitals, as far as a to z go: `toUpperCase` makes SUCCESS of letters that are none of its own (ſ, ß) as well. */
export function capitals(word: string): string {
  return word.replace(/[a-z]/g, (letter) => letter.toUpperCase());
}

/** `100`, `100.00`, and `1E+2` as `100`; null for a sign, a separator or anything else that is not a plain decimal. */
export function decimal(text: string): string | null {
  const parts = /^(\d{1,30})(?:\.(\d{1,30}))?(?:[eE]([+-]?\d{1,2}))?$/.exec(text);
  if (parts === null) return null;
  const [, whole = '', fraction = '', exponent] = parts;
  if (exponent === undefined) return text;
  const shift = Number(exponent);
  const digits = `${'0'.repeat(Math.max(0, -shift))}${whole}${fraction}${'0'.repeat(Math.max(0, shift))}`;
  const point = Math.max(0, -shift) + whole.length + shift;
  const before = digits.slice(0, point).replace(/^0+(?=\d)/, '');
  const after = digits.slice(point).slice(0, Math.max(0, fraction.length - shift));
  return after === '' ? before : `${before}.${after}`;
}

/** Negative, zero or positive, like a sort function; exact at any length. Both must be plain decimals. */
export function compareDecimals(left: string, right: string): number {
  const [leftWhole = '0', leftFraction = ''] = left.split('.');
  const [rightWhole = '0', rightFraction = ''] = right.split('.');
  const places = Math.max(leftFraction.length, rightFraction.length);
  const difference =
    BigInt(leftWhole + leftFraction.padEnd(places, '0')) - BigInt(rightWhole + rightFraction.padEnd(places, '0'));
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

/**
 * The amounts that an answer carries. Absent ones are left out, but one that is there and cannot be read makes the
 * whole null: an amount that nobody can compare must not pass as "not reported".
 */
export function reportedAmounts(
  values: readonly (string | null | undefined)[],
  currency?: string | null | undefined,
): ReportedAmount[] | null {
  const amounts: ReportedAmount[] = [];
  for (const given of values) {
    if (given === undefined || given === null) continue;
    const value = decimal(given);
    if (value === null) return null;
    amounts.push(currency && /^[A-Za-z]{3}$/.test(currency) ? { value, currency: currency.toUpperCase() } : { value });
  }
  return amounts;
}

/** A lifetime that an answer gives in seconds, as a number or in digits; whole seconds, because Redis counts no parts. */
export const seconds = z
  .union([
    z.number(),
    z
      .string()
      .regex(/^\d{1,9}$/)
      .transform(Number),
  ])
  .refine((value) => value >= 1 && value < 1e9)
  .transform(Math.floor);

/** A token of theirs, to be sent back in a header: what no header can carry is none, and would be kept for its life. */
export const bearerToken = headerText(8_192);

/** Does an answer that may leave out which transaction it is about name another one than that asked about? */
export function namesAnother(named: string | null | undefined, reference: string): boolean {
  return Boolean(named) && named !== reference;
}

export function httpCode(response: HttpResponse): string {
  return `HTTP_${response.status}`;
}

/**
 * A provider's word that its documents do not list, if it looks like a word for a status; digits or spaces might be a
 * customer's data, so such a word is replaced by the HTTP status.
 */
export function wordOr(response: HttpResponse, word: string | null | undefined): string {
  return plainWord(word) ?? httpCode(response);
}

/** The word if it looks like one for a status, else null. */
export function plainWord(word: string | null | undefined): string | null {
  return word && /^[A-Za-z][A-Za-z_]{1,63}$/.test(word) ? word : null;
}

/** One header must not silence a partition for days. */
const LONGEST_RETRY_AFTER_MS = 3_600_000;

/** `Retry-After` (RFC 9110 §10.2.3). Its date form is measured against the answer's own `Date`: there is no clock. */
export function retryAfterMs(headers: Readonly<Record<string, string>>): number | undefined {
  const value = headers['retry-after']?.trim() ?? '';
  if (/^\d{1,9}$/.test(value)) return Math.min(Number(value) * 1000, LONGEST_RETRY_AFTER_MS);
  if (!value.endsWith('GMT')) return undefined;
  const wait = Date.parse(value) - Date.parse(headers.date ?? '');
  return Number.isNaN(wait) ? undefined : Math.min(Math.max(0, wait), LONGEST_RETRY_AFTER_MS);
}

/** To be spread into a refusal: absent when the provider named no time. */
export function retryAfter(response: HttpResponse): { readonly retryAfterMs?: number } {
  const wait = retryAfterMs(response.headers);
  return wait === undefined ? {} : { retryAfterMs: wait };
}

/** A 429 that proves nothing still asks to be left alone: as long as it says, at least one second. */
function slowDown(response: HttpResponse): { readonly slowDownMs?: number } {
  return response.status === 429 ? { slowDownMs: Math.max(1000, retryAfterMs(response.headers) ?? 0) } : {};
}

/** An answer to a submission that the provider's documents do not know. */
export function undocumented(response: HttpResponse, providerCode = httpCode(response)): Outcome {
  return {
    kind: 'unknown',
    reason: 'unexpected_answer',
    documented: false,
    providerCode,
    ...slowDown(response),
  };
}

/** A documented server-side failure: the call may have been carried out before it failed. */
export function serverFault(response: HttpResponse, providerCode = httpCode(response)): Outcome {
  return { kind: 'unknown', reason: 'no_answer', documented: true, providerCode };
}

/** A 429 where the provider's documents know none: believed as a refusal only if the configuration says so. */
export function undocumented429(response: HttpResponse, trusted: boolean): Outcome {
  if (!trusted) return undocumented(response);
  return {
    kind: 'refused',
    cause: 'throttled',
    remedy: { do: 'wait' },
    providerCode: httpCode(response),
    ...retryAfter(response),
  };
}

/** An answer to an inquiry that proves nothing. */
export function nothing(
  response: HttpResponse,
  documented: boolean,
  providerCode = httpCode(response),
  staleTokens?: readonly TokenCall[],
): Finding {
  return {
    kind: 'nothing',
    documented,
    providerCode,
    ...slowDown(response),
    ...(staleTokens === undefined ? {} : { staleTokens }),
  };
}

/** Stands for the word of a callback that used none, or one that may not be shown. */
export const NO_WORD = 'UNREADABLE_STATUS';

/**
 * What a callback says: null when it names no transaction. `finding` null is a word that the provider's tables do not
 * know, which proves nothing.
 */
export function callbackReading(
  references: readonly (string | null | undefined)[],
  finding: Finding | null,
  word: string | null | undefined,
): CallbackReading | null {
  const named = [...new Set(references.filter((reference) => typeof reference === 'string'))];
  if (named.length === 0) return null;
  const providerCode = finding?.providerCode ?? plainWord(word) ?? NO_WORD;
  return {
    references: named,
    finding: finding ?? { kind: 'nothing', documented: false, providerCode },
    providerCode,
  };
}
