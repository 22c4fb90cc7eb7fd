import { inspect } from 'node:util';
import { z } from 'zod';

const SHOWN = '[secret]';

/**
 * A value that must not be read by accident: in JSON, template strings, `util.inspect` and thrown
 * messages it says `[secret]`. Only `.reveal()` gives it back, so every place that reads a secret can be searched for.
 */
export class Secret<T> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  reveal(): T {
    return this.#value;
  }

  toString(): string {
    return SHOWN;
  }

  toJSON(): string {
    return SHOWN;
  }

  [Symbol.toPrimitive](): string {
    return SHOWN;
  }

  [inspect.custom](): string {
    return SHOWN;
  }
}

/** A non-empty string that is a {@link Secret} from the moment it is parsed. */
export const secretText = z
  .string()
  .min(1)
  .transform((value) => new Secret(value));
