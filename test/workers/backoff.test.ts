import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { backoffMs } from '../../src/workers/backoff.ts';

const almostOne = 1 - Number.EPSILON;

describe('the wait before what did not leave is sent again', () => {
  test.each([
    [1, 125, 500],
    [2, 250, 1_000],
    [3, 500, 2_000],
    [4, 1_000, 4_000],
    [7, 7_500, 30_000],
    [1_000, 7_500, 30_000],
  ])('after failure %i lies between %i and %i ms', (failures, least, most) => {
    expect(backoffMs(failures, 0)).toBe(least);
    expect(backoffMs(failures, almostOne)).toBe(most);
  });

  test('is a whole number of ms, never nothing, never more than 30 s, and longer the more random it is given', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1_000_000 }),
        fc.double({ min: 0, max: almostOne, noNaN: true }),
        fc.double({ min: 0, max: almostOne, noNaN: true }),
        (failures, one, other) => {
          const [lower, higher] = [Math.min(one, other), Math.max(one, other)];
          const waits = [backoffMs(failures, lower), backoffMs(failures, higher)];
          expect(waits.every((wait) => Number.isInteger(wait) && wait >= 125 && wait <= 30_000)).toBe(true);
          expect(waits[0]).toBeLessThanOrEqual(waits[1] as number);
        },
      ),
    );
  });

  test('spreads a crowd that failed together over three quarters of the wait', () => {
    const waits = Array.from({ length: 100 }, (_, index) => backoffMs(4, index / 100));
    expect(Math.max(...waits) - Math.min(...waits)).toBeGreaterThan(2_900);
    expect(new Set(waits).size).toBe(100);
  });
});
