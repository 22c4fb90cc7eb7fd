import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { beqelal } from '../../src/providers/beqelal.ts';
import type { BoundProvider } from '../../src/providers/provider.ts';
import { Secret } from '../../src/secret.ts';
import { bind, loadFixture, stampOf } from './fixture.ts';

const fixture = loadFixture('beqelal');
const stamp = stampOf(fixture);

/** The code as it stands in the body, character for character. */
function sentCode(bound: BoundProvider, code: string): string | undefined {
  const reference = 'TXN4F7K2P9';
  const request = bound.operations.verify?.buildRequest(
    { id: 'example_1', operation: 'verify', reference, otp: new Secret(code), params: { reference } },
    stamp,
  );
  return /^\{"reference":"TXN4F7K2P9","otp":(?:"([0-9A-Za-z]+)"|([1-9][0-9]*))\}$/
    .exec(request?.body ?? '')
    ?.slice(1)
    .join('');
}

describe.each(['auto', 'number', 'string'])('beqelal, otpEncoding %s', (otpEncoding) => {
  const bound = bind(beqelal, fixture, { options: { otpEncoding } });

  it('sends every thirteenth of all codes of six digits whole', () => {
    const lost: string[] = [];
    for (let number = 0; number < 1_000_000; number += 13) {
      const code = String(number).padStart(6, '0');
      if (sentCode(bound, code) !== code) lost.push(code);
    }
    expect(lost).toEqual([]);
  });

  it('sends every code that there may be whole', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[0-9A-Za-z]{4,10}$/), (code) => {
        expect(sentCode(bound, code)).toBe(code);
      }),
    );
  });
});

describe('beqelal', () => {
  it('has nothing to ask and nothing to fetch', () => {
    const bound = bind(beqelal, fixture);
    expect(bound.inquiry).toBeNull();
    expect(bound.tokens).toEqual({});
  });

  it('takes a signature scheme for callbacks as an option', () => {
    const parse = (callbackHmac: unknown) => beqelal.options.safeParse({ callbackHmac }).success;
    expect(parse({ header: 'x-signature', algorithm: 'sha256' })).toBe(true);
    expect(parse({ header: 'x-signature', algorithm: 'md5' })).toBe(false);
    expect(parse({ header: 'two\nlines', algorithm: 'sha256' })).toBe(false);
  });
});
