/**
 * Values that stand nowhere but where this run has put them: codes, phones, names, tokens, keys. Wherever one of them is
 * found, it has come from a place that should have kept it.
 */
import { createPrivateKey, randomInt } from 'node:crypto';

export const KINDS = [
  'code',
  'phone',
  'id number',
  'name',
  'date of birth',
  'price',
  'md',
  'payment id',
  'customer token',
  'customer data',
  'credential',
  'API key',
  'password',
  'private key',
  'provider token',
  "stranger's job",
] as const;
export type Kind = (typeof KINDS)[number];

export interface Canary {
  readonly kind: Kind;
  /** Which one of its kind, for whoever reads the report: "the code of cepta, wrong_code". */
  readonly name: string;
  /** As bytes, because a key is no text. */
  readonly value: Buffer;
}

const DIGITS = '0123456789';
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

export class Canaries {
  readonly #all = new Map<string, Canary>();

  /** Kept once, under the first name it was given. */
  add<Value extends string | Buffer>(kind: Kind, name: string, value: Value): Value {
    const bytes = Buffer.from(value as string);
    const key = bytes.toString('latin1');
    if (!this.#all.has(key)) this.#all.set(key, { kind, name, value: bytes });
    return value;
  }

  get all(): readonly Canary[] {
    return [...this.#all.values()];
  }

  /** Ten characters, the longest that a code may be, with letters and digits. */
  code(name: string): string {
    return this.add('code', name, word(10));
  }

  /** Ten digits, too many for four bytes; the last is no zero, which a number with an exponent would leave out. */
  digits(name: string): string {
    return this.add('code', name, `${randomInt(5, 10)}${draw(DIGITS, 8)}${randomInt(1, 10)}`);
  }

  /** Ten digits that lose the first of them as soon as anything takes them for a number. */
  withLeadingZero(name: string): string {
    return this.add('code', name, `0${randomInt(5, 10)}${draw(DIGITS, 7)}${randomInt(1, 10)}`);
  }

  /** Fifteen digits with their plus, the most that E.164 allows; the last digits may be asked for. */
  phone(name: string, ending = draw('123456789', 6)): string {
    const digits = `254${randomInt(1, 10)}${draw(DIGITS, 11 - ending.length)}${ending}`;
    this.add('phone', `${name}, without country code`, digits.slice(3));
    return this.add('phone', name, `+${digits}`);
  }

  /** A decimal number in a text, as LipaLater wants it. */
  price(name: string): string {
    const whole = this.add(
      'price',
      `${name}, without its decimals`,
      `${randomInt(5, 10)}${draw(DIGITS, 8)}${randomInt(1, 10)}`,
    );
    return this.add('price', name, `${whole}.37`);
  }

  idNumber(name: string): string {
    return this.add('id number', name, `${randomInt(5, 10)}${draw(DIGITS, 11)}`);
  }

  /** As LipaLater writes it, day and month in two digits each. */
  dateOfBirth(name: string): string {
    const two = (below: number, from: number): string => String(randomInt(from, below)).padStart(2, '0');
    return this.add('date of birth', name, `${two(29, 1)}/${two(13, 1)}/${randomInt(1930, 2000)}`);
  }

  /** A token of as many letters and digits, for whatever is opaque. */
  token(kind: Kind, name: string, length = 24): string {
    return this.add(kind, name, word(length));
  }

  /** Data with everything in it that some writer escapes: quotes, backslashes, slashes, markup. */
  text(kind: Kind, name: string): string {
    const [first, second] = [word(12), word(12)];
    this.add(kind, `${name}, its beginning`, first);
    this.add(kind, `${name}, its end`, second);
    return this.add(kind, name, `${first} "\\/<b>'&=+ ${second}`);
  }

  /** The secret numbers of an RSA key, by their first and last bytes, whatever form they are written in. */
  rsaKey(name: string, pem: string): void {
    const numbers = createPrivateKey(pem).export({ format: 'jwk' });
    for (const part of ['d', 'p', 'q'] as const) {
      const bytes = Buffer.from(numbers[part] ?? '', 'base64url');
      this.add('private key', `${name}, beginning of ${part}`, bytes.subarray(0, 24));
      this.add('private key', `${name}, end of ${part}`, bytes.subarray(-24));
    }
  }

  /** The private part of a JWK set's keys. */
  jwkSet(name: string, keySet: { readonly keys: readonly { readonly d?: unknown }[] }): void {
    for (const { d } of keySet.keys) {
      if (typeof d === 'string') this.add('private key', name, Buffer.from(d, 'base64url'));
    }
  }
}

/** Letters and digits, always some of both, so that nothing takes it for a word or a number. */
function word(length: number): string {
  const drawn = draw(LETTERS + DIGITS, length - 2);
  return `${draw(LETTERS, 1)}${drawn}${draw(DIGITS, 1)}`;
}

function draw(alphabet: string, length: number): string {
  return Array.from({ length }, () => alphabet[randomInt(alphabet.length)]).join('');
}
