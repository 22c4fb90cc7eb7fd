import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import {
  compareDecimals,
  decimal,
  read,
  readExact,
  reportedAmounts,
  retryAfterMs,
  seconds,
  wordOr,
} from '../../src/providers/reading.ts';

describe('reading', () => {
  it.each([
    ['100', '100'],
    ['100.00', '100.00'],
    ['007', '007'],
    ['1E+2', '100'],
    ['1.5e3', '1500'],
    ['1.025e2', '102.5'],
    ['150e-2', '1.50'],
    ['1e-5', '0.00001'],
    ['0e0', '0'],
    ['-1', null],
    ['1,000', null],
    ['1.', null],
    ['.5', null],
    [' 1', null],
    ['', null],
    ['1e999', null],
    ['NaN', null],
  ])('reads the decimal %j as %j', (given, value) => {
    expect(decimal(given)).toBe(value);
  });

  it('reads every number that JavaScript writes', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1e15, noNaN: true }), (number) => {
        const read = decimal(String(number));
        if (read !== null) expect(Number(read)).toBe(number);
        else expect(number).toBeLessThan(1e-90);
      }),
    );
  });

  it('compares decimals exactly, whatever their length', () => {
    expect(compareDecimals('101.50', '101.5')).toBe(0);
    expect(compareDecimals('101.49', '101.5')).toBe(-1);
    expect(compareDecimals('1000', '999.99')).toBe(1);
    expect(compareDecimals('9007199254740993', '9007199254740992')).toBe(1);
    const cents = fc.bigInt({ min: 0n, max: 10n ** 24n });
    const written = (value: bigint) => `${value / 100n}.${String(value % 100n).padStart(2, '0')}`;
    fc.assert(
      fc.property(cents, cents, (left, right) => {
        expect(compareDecimals(written(left), written(right))).toBe(left < right ? -1 : left > right ? 1 : 0);
      }),
    );
  });

  it('keeps numbers as they are written, and nothing else changes', () => {
    const text = '{"a":100.10,"b":"7 and \\"8\\" and \\\\","c":[-1.0E+2,true,null],"9":12345678901234567890}';
    expect(readExact(z.unknown(), text)).toEqual({
      a: '100.10',
      b: '7 and "8" and \\',
      c: ['-1.0E+2', true, null],
      9: '12345678901234567890',
    });
    fc.assert(
      fc.property(fc.json(), (json) => {
        const expected = JSON.parse(json, (_name, value: unknown) => (typeof value === 'number' ? `${value}` : value));
        expect(JSON.stringify(readExact(z.unknown(), json))).toBe(JSON.stringify(expected));
      }),
    );
  });

  it('reads what is not JSON as null, and so does it with what has another shape', () => {
    for (const body of ['', '{', '{"a":01}', 'undefined', '[1', '\u0000']) {
      expect(read(z.unknown(), body)).toBeNull();
      expect(readExact(z.unknown(), body)).toBeNull();
    }
    expect(read(z.object({}), '[]')).toBeNull();
    expect(readExact(z.object({}), `${'['.repeat(20_000)}${']'.repeat(20_000)}`)).toBeNull();
  });

  it('keeps an exponent without a sign as it is written', () => {
    expect(readExact(z.unknown(), '[1e5,2E05]')).toEqual(['1e5', '2E05']);
  });

  it.each([
    ['at the top', '{"a":1,"a":2}'],
    ['with the same value', '{"a":1,"a":1}'],
    ['further down', '{"a":{"b":1,"b":2}}'],
    ['in a list', '[1,{"a":1,"a":2}]'],
    ['around an object', '{"a":{"b":1},"a":2}'],
    ['around a list', '{"a":[1],"a":2}'],
    ['around a text with brackets', '{"a":1,"b":"{","a":2}'],
    ['around a text with quotes', '{"a":1,"b":"\\"c","a":2}'],
    ['that is empty', '{"":1,"":2}'],
    ['with space before the colon', '{"a" :1,"a"\n\t:2}'],
    ['written in another way', '{"a":1,"\\u0061":2}'],
    ['with a quote in it', '{"a\\"b":1,"a\\"b":2}'],
    ['with two escapes in it', '{"\\n\\n":1,"\\n\\n":2}'],
  ])('reads a body in which a name stands twice as null: %s', (_, body) => {
    expect(read(z.unknown(), body)).toBeNull();
    expect(readExact(z.unknown(), body)).toBeNull();
  });

  it.each([
    ['one inside the other', '{"a":{"a":{"a":1}}}'],
    ['side by side', '[{"a":1},{"a":2}]'],
    ['first inside, then outside', '{"b":{"a":1},"a":2}'],
    ['as a name and as a value', '{"a":"b","b":"a"}'],
    ['as values only', '{"a":"x","b":["x","x"]}'],
    ['inside a text', '{"a":"{\\"b\\":1,\\"b\\":2}"}'],
    ['as a value before a name', '{"a":"b","c":["b"],"b":1}'],
  ])('reads a body in which a name stands once in each object: %s', (_, body) => {
    expect(read(z.unknown(), body)).toEqual(JSON.parse(body));
  });

  it('finds a name that stands twice, whatever stands between and around', () => {
    fc.assert(
      fc.property(fc.string(), fc.json(), fc.json(), (text, one, other) => {
        const name = JSON.stringify(text);
        expect(read(z.unknown(), `[${other},{${name}:${one},${name}:${other}}]`)).toBeNull();
        expect(read(z.unknown(), `[${other},{${name}:${one}},{${name}:${other}}]`)).not.toBeNull();
      }),
    );
  });

  it.each([
    [3599, 3599],
    ['3599', 3599],
    [3599.9, 3599],
    [1, 1],
    ['1', 1],
    [999_999_999, 999_999_999],
    ['999999999', 999_999_999],
    [0, null],
    ['0', null],
    [0.9, null],
    [-5, null],
    ['-5', null],
    [1e9, null],
    ['1234567890', null],
    ['60 s', null],
    ['in 60', null],
    ['60.5', null],
  ])('takes a lifetime of %j seconds for %j', (given, lifetime) => {
    expect(seconds.safeParse(given).data ?? null).toBe(lifetime);
  });

  it('takes an absent amount for not reported and an unreadable one for a reason to stop', () => {
    expect(reportedAmounts(['1.00', undefined, null], 'kes')).toEqual([{ value: '1.00', currency: 'KES' }]);
    expect(reportedAmounts(['1.00'], 'shillings')).toEqual([{ value: '1.00' }]);
    expect(reportedAmounts([])).toEqual([]);
    expect(reportedAmounts(['1.00', 'two'])).toBeNull();
  });

  it.each([
    [{ 'retry-after': '7' }, 7000],
    [{ 'retry-after': ' 7 ' }, 7000],
    [{ 'retry-after': '0' }, 0],
    [{ 'retry-after': 'Thu, 01 Jan 2026 00:00:09 +0000', date: 'Thu, 01 Jan 2026 00:00:05 GMT' }, undefined],
    [{ 'retry-after': '999999999' }, 3_600_000],
    [{ 'retry-after': 'Thu, 01 Jan 2026 00:00:09 GMT', date: 'Thu, 01 Jan 2026 00:00:05 GMT' }, 4000],
    [{ 'retry-after': 'Thu, 01 Jan 2026 00:00:01 GMT', date: 'Thu, 01 Jan 2026 00:00:05 GMT' }, 0],
    [{ 'retry-after': 'Thu, 01 Jan 2026 00:00:09 GMT' }, undefined],
    [{ 'retry-after': '-1' }, undefined],
    [{ 'retry-after': '1.5' }, undefined],
    [{ 'retry-after': 'soon' }, undefined],
    [{}, undefined],
  ])('reads Retry-After of %j as %j', (headers, wait) => {
    expect(retryAfterMs(headers as Record<string, string>)).toBe(wait);
  });

  it.each([
    ['CARD_BLOCKED', 'CARD_BLOCKED'],
    ['254712000111', 'HTTP_400'],
    ['Ada Wanjiru', 'HTTP_400'],
    ['x', 'HTTP_400'],
    ['A'.repeat(65), 'HTTP_400'],
    [undefined, 'HTTP_400'],
  ])('repeats %j as %j', (word, code) => {
    expect(wordOr({ status: 400, headers: {}, body: '' }, word)).toBe(code);
  });
});
