/**
 * Every byte against every form of every canary, in one pass. Megabytes are searched for thousands of patterns, so the
 * pass looks at windows of eight bytes and asks a bit table first; only where a bit is set are patterns compared.
 */
import type { Canary } from './canaries.ts';
import { type Encoding, patternsOf, readingsOf, SHORTEST_PATTERN_BYTES } from './encodings.ts';

export interface Finding {
  readonly canary: Canary;
  readonly encoding: Encoding;
  /** Layers of escapes that had to be resolved first. */
  readonly layers: number;
  /** What stands around it. */
  readonly excerpt: string;
}

interface Wanted {
  readonly canary: Canary;
  readonly encoding: Encoding;
  /** In lower case. */
  readonly bytes: Buffer;
}

const TABLE_BITS = 22;

export class Search {
  readonly #table = new Uint8Array(1 << (TABLE_BITS - 3));
  readonly #wanted = new Map<number, Wanted[]>();

  constructor(canaries: readonly Canary[]) {
    for (const canary of canaries) {
      for (const { encoding, bytes } of patternsOf(canary)) {
        if (bytes.length < SHORTEST_PATTERN_BYTES) {
          throw new Error(`${canary.name}: as ${encoding} it has ${bytes.length} bytes, too few to be unmistakable`);
        }
        this.#want({ canary, encoding, bytes: lowerCase(bytes) });
      }
    }
  }

  /** Each canary and encoding once, with the first place where it stands. */
  in(bytes: Buffer): Finding[] {
    const found = new Map<string, Finding>();
    for (const reading of readingsOf(bytes)) {
      for (const { wanted, at } of this.#matches(reading.bytes)) {
        const { canary, encoding } = wanted;
        const key = `${encoding} ${canary.value.toString('latin1')}`;
        if (found.has(key)) continue;
        const around = reading.bytes.subarray(Math.max(0, at - 60), at + wanted.bytes.length + 40);
        const excerpt = around.toString('latin1').replaceAll(/[^\x20-\x7e]/g, '·');
        found.set(key, { canary, encoding, layers: reading.layers, excerpt });
      }
    }
    return [...found.values()];
  }

  #want(wanted: Wanted): void {
    const { bytes } = wanted;
    const hash = mixed(bytes.readInt32BE(0), bytes.readInt32BE(4));
    const bit = hash >>> (32 - TABLE_BITS);
    this.#table[bit >>> 3] = (this.#table[bit >>> 3] as number) | (1 << (bit & 7));
    this.#wanted.set(hash, [...(this.#wanted.get(hash) ?? []), wanted]);
  }

  #matches(text: Buffer): { wanted: Wanted; at: number }[] {
    const matches: { wanted: Wanted; at: number }[] = [];
    const table = this.#table;
    let [first, second] = [0, 0];
    for (let end = 0; end < text.length; end += 1) {
      // The four bytes that end four bytes earlier, and the four that end here.
      first = (first << 8) | (second >>> 24);
      second = (second << 8) | (LOWER[text[end] as number] as number);
      if (end < SHORTEST_PATTERN_BYTES - 1) continue;
      const hash = mixed(first, second);
      const bit = hash >>> (32 - TABLE_BITS);
      if (((table[bit >>> 3] as number) & (1 << (bit & 7))) === 0) continue;
      const at = end - SHORTEST_PATTERN_BYTES + 1;
      for (const wanted of this.#wanted.get(hash) ?? [])
        if (standsAt(text, at, wanted.bytes)) matches.push({ wanted, at });
    }
    return matches;
  }
}

const LOWER = Uint8Array.from({ length: 256 }, (_, byte) => (byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte));

function lowerCase(bytes: Buffer): Buffer {
  return Buffer.from(bytes.map((byte) => LOWER[byte] as number));
}

function mixed(first: number, second: number): number {
  return (Math.imul(first, 0x9e3779b1) ^ Math.imul(second, 0x85ebca6b)) | 0;
}

function standsAt(text: Buffer, at: number, wanted: Buffer): boolean {
  if (at + wanted.length > text.length) return false;
  for (let index = 0; index < wanted.length; index += 1) {
    if (LOWER[text[at + index] as number] !== wanted[index]) return false;
  }
  return true;
}
