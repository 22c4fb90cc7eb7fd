/**
 * The forms that a value may have taken when it got out: what to look for byte by byte, and the readings of a text in
 * which escapes are resolved, however many layers deep and however few of the characters they hide.
 */
import { createHash } from 'node:crypto';
import type { Canary, Kind } from './canaries.ts';

export const ENCODINGS = [
  'plain',
  'reversed',
  'hex',
  'base64',
  'base64url',
  'number',
  'binary number',
  'unkeyed digest',
] as const;
export type Encoding = (typeof ENCODINGS)[number];

export interface Pattern {
  readonly encoding: Encoding;
  readonly bytes: Buffer;
}

/** Few enough of these exist for a digest without a key to give the value away. */
const GUESSABLE: readonly Kind[] = ['code', 'phone', 'id number', 'date of birth', 'price'];

/** What a text of random letters might hold by chance is no proof of a leak. */
export const SHORTEST_PATTERN_BYTES = 8;

/** Everything to look for; letter case does not matter, so each form is given once. */
export function patternsOf({ kind, value }: Canary): Pattern[] {
  const text = value.toString('latin1');
  const found: [Encoding, Buffer | string][] = [
    ['plain', value],
    ['reversed', Buffer.from(value).reverse()],
    ['hex', value.toString('hex')],
    ['hex', value.toString('hex').replaceAll(/..(?=.)/g, '$& ')], // as Node shows a Buffer
    ...base64Of(value).map((form): [Encoding, string] => ['base64', form]),
    ...base64Of(value).map((form): [Encoding, string] => ['base64url', urlSafe(form)]),
    ...(/^\d+$/.test(text) ? numberForms(text) : []),
    ...(GUESSABLE.includes(kind) ? digestsOf(value) : []),
  ];
  const seen = new Set<string>();
  return found.flatMap(([encoding, form]) => {
    const bytes = Buffer.from(form as string);
    const key = bytes.toString('latin1').toLowerCase();
    if (seen.has(key)) return [];
    seen.add(key);
    return [{ encoding, bytes }];
  });
}

/** Without their first and last characters, which depend on what stands before and behind: so it is found inside a longer text. */
function base64Of(value: Buffer): string[] {
  return [0, 1, 2].map((shift) => {
    const encoded = Buffer.concat([Buffer.alloc(shift), value]).toString('base64');
    const whole = Math.floor(((shift + value.length) * 8) / 6);
    return encoded.slice(Math.ceil((shift * 8) / 6), whole);
  });
}

function urlSafe(base64: string): string {
  return base64.replaceAll('+', '-').replaceAll('/', '_');
}

/** As JSON, JavaScript, Lua and C write a number, and as Redis and MessagePack store one. */
function numberForms(digits: string): [Encoding, Buffer | string][] {
  const number = Number(digits);
  const integer = Buffer.alloc(8);
  integer.writeBigUInt64LE(BigInt(digits));
  const float = Buffer.alloc(8);
  float.writeDoubleLE(number);
  return [
    ['number', String(BigInt(digits))], // without leading zeros
    ['number', mantissa(number.toExponential())],
    ['number', mantissa(number.toExponential(13))], // Lua's %.14g
    ['binary number', integer],
    ['binary number', Buffer.from(integer).reverse()],
    ['binary number', float],
    ['binary number', Buffer.from(float).reverse()],
  ];
}

/** `9.8765e+9` and `9.8765000e+09` begin alike. */
function mantissa(exponential: string): string {
  return exponential.replace(/\.?0*e.*$/, '');
}

function digestsOf(value: Buffer): [Encoding, string][] {
  return ['md5', 'sha1', 'sha256', 'sha512'].flatMap((algorithm): [Encoding, string][] => {
    const digest = createHash(algorithm).update(value).digest();
    // Sixteen bytes of it, because a digest is often cut.
    const base64 = digest.toString('base64').slice(0, 21);
    return [
      ['unkeyed digest', digest.toString('hex').slice(0, 32)],
      ['unkeyed digest', base64],
      ['unkeyed digest', urlSafe(base64)],
    ];
  });
}

export interface Reading {
  /** How many layers of escapes were resolved. */
  readonly layers: number;
  readonly bytes: Buffer;
}

/** A value may be quoted in JSON inside JSON inside a log line; nothing here is escaped oftener. */
const DEEPEST_LAYER = 4;

/** The bytes as they are, and with one more layer of escapes resolved each time, as long as that changes anything. */
export function readingsOf(bytes: Buffer): Reading[] {
  const readings: Reading[] = [{ layers: 0, bytes }];
  let last = bytes;
  for (let layers = 1; layers <= DEEPEST_LAYER; layers += 1) {
    const next = withoutEscapes(last);
    if (next === null) break;
    readings.push({ layers, bytes: next });
    last = next;
  }
  return readings;
}

const [BACKSLASH, PERCENT, AMPERSAND] = [0x5c, 0x25, 0x26];
const SHORT_ESCAPES: Readonly<Record<number, number>> = { 110: 0x0a, 114: 0x0d, 116: 0x09, 98: 0x08, 102: 0x0c };
const NAMED: Readonly<Record<string, number>> = { amp: 0x26, lt: 0x3c, gt: 0x3e, quot: 0x22, apos: 0x27 };

interface Escape {
  /** How many bytes it takes up. */
  readonly length: number;
  readonly stands: { readonly for: 'byte' | 'character'; readonly code: number };
}

/**
 * One layer of JSON's, JavaScript's, Redis's and Prometheus's backslashes, of percent signs and of HTML's references;
 * null when there was nothing to resolve.
 */
function withoutEscapes(bytes: Buffer): Buffer | null {
  const out = Buffer.allocUnsafe(bytes.length);
  const marks = [BACKSLASH, PERCENT, AMPERSAND].map((mark) => ({ mark, at: bytes.indexOf(mark) }));
  let [read, written, resolved] = [0, 0, false];
  for (;;) {
    let next = bytes.length;
    for (const each of marks) {
      if (each.at !== -1 && each.at < read) each.at = bytes.indexOf(each.mark, read);
      if (each.at !== -1 && each.at < next) next = each.at;
    }
    written += bytes.copy(out, written, read, next);
    read = next;
    if (read === bytes.length) break;
    const resolvable = escapeAt(bytes, read);
    if (resolvable === null) {
      out[written++] = bytes[read++] as number;
      continue;
    }
    resolved = true;
    const { length, stands } = resolvable;
    // An escape is never shorter than the UTF-8 of what it stands for.
    if (stands.for === 'byte' || stands.code < 0x80) out[written++] = stands.code;
    else written += out.write(String.fromCodePoint(stands.code), written);
    read += length;
  }
  return resolved ? out.subarray(0, written) : null;
}

function escapeAt(bytes: Buffer, at: number): Escape | null {
  const next = bytes[at + 1];
  if (next === undefined) return null;
  switch (bytes[at]) {
    case PERCENT:
      return hexEscape(bytes, at + 1, 2, 1);
    case AMPERSAND:
      return reference(bytes.toString('latin1', at, at + 10));
    default:
      if (next === 0x75) return hexEscape(bytes, at + 2, 4, 2);
      if (next === 0x78) return hexEscape(bytes, at + 2, 2, 2);
      return { length: 2, stands: { for: 'byte', code: SHORT_ESCAPES[next] ?? next } };
  }
}

function hexEscape(bytes: Buffer, at: number, digits: 2 | 4, marks: number): Escape | null {
  const hex = bytes.toString('latin1', at, at + digits);
  if (hex.length < digits || !/^[0-9a-f]+$/i.test(hex)) return null;
  const code = Number.parseInt(hex, 16);
  return { length: marks + digits, stands: { for: digits === 2 ? 'byte' : 'character', code } };
}

function reference(text: string): Escape | null {
  const [whole, decimal, hex, name] = /^&(?:#(\d{1,6})|#x([0-9a-f]{1,5})|(amp|lt|gt|quot|apos));/i.exec(text) ?? [];
  if (whole === undefined) return null;
  const code = name === undefined ? Number(decimal ?? `0x${hex}`) : NAMED[name.toLowerCase()];
  return code === undefined ? null : { length: whole.length, stands: { for: 'character', code } };
}
