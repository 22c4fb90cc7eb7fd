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
  it('sends every thirteenth of all codes of six digits whole', () => {
    const bound = bind(beqelal, fixture, { options: { otpEncoding } });
    const lost: string[] = [];
    for (let number = 0; number < 1_000_000; number += 13) {
      const code = String(number).padStart(6, '0');
      if (sentCode(bound, code) !== code) lost.push(code);
    }
    expect(lost).toEqual([]);
  });

  it('sends every code that there may be whole', () => {
    const bound = bind(beqelal, fixture, { options: { otpEncoding } });
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

  const answered = (status: number, json: unknown) =>
    bind(beqelal, fixture).operations.verify?.interpret({ status, headers: {}, body: JSON.stringify(json) }, 'R-1');

  it.each(['OTP 450', '4500', 'code 123456', '45'])('shows nobody the code of an error %j', (status_code) => {
    expect(answered(400, { error: { status_code } })).toEqual({
      kind: 'unknown',
      reason: 'unexpected_answer',
      documented: false,
      providerCode: 'HTTP_400',
    });
  });

  it('leaves out of the details what the answer leaves empty', () => {
    const outcome = answered(200, { status: 'PROCESSED', fee: null, merchant: '', bank_name: 'Example Bank' });
    expect(outcome).toHaveProperty('details', { bank_name: 'Example Bank' });
    expect(Object.keys((outcome as { details: object }).details)).toEqual(['bank_name']);
  });

  it('takes the three ways of writing a code and no other, and decides by the code where none is said', () => {
    const parse = (otpEncoding: string) => beqelal.options.safeParse({ otpEncoding }).success;
    expect(['auto', 'number', 'string', 'digits', ''].map(parse)).toEqual([true, true, true, false, false]);
    expect(beqelal.options.parse({})).toMatchObject({ otpEncoding: 'auto' });
  });

  it('takes a signature scheme for callbacks as an option', () => {
    const parse = (callbackHmac: unknown) => beqelal.options.safeParse({ callbackHmac }).success;
    expect(parse({ header: 'x-signature', algorithm: 'sha256' })).toBe(true);
    expect(parse({ header: 'x-signature', algorithm: 'md5' })).toBe(false);
    expect(parse({ header: 'two\nlines', algorithm: 'sha256' })).toBe(false);
  });
});
