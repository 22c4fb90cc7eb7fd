/** How many replicas must have a write, by what the server has said of them. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { WantedReplicas } from '../../src/redis/replication.ts';

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => void vi.useRealTimers());

/** What is wanted after each of these: the server, its replicas, and the ms since the last one. */
function wantedAfter(wanted: WantedReplicas, seen: readonly (readonly [string, number, number])[]): number[] {
  return seen.map(([server, replicas, afterMs]) => {
    vi.advanceTimersByTime(afterMs);
    wanted.saw(server, replicas);
    return wanted.count;
  });
}

test.each([
  [
    'a number stays as it is',
    1,
    [
      ['a', 0, 0],
      ['a', 2, 0],
    ],
    [1, 1],
  ],
  [
    'auto is all that there are',
    'auto',
    [
      ['a', 0, 0],
      ['a', 1, 0],
      ['a', 2, 0],
    ],
    [0, 1, 2],
  ],
  [
    'one that left is wanted for a while',
    'auto',
    [
      ['a', 2, 0],
      ['a', 1, 1],
      ['a', 1, 998],
      ['a', 1, 1],
      ['a', 1, 1],
    ],
    [2, 2, 2, 2, 1],
  ],
  [
    'one that came back is there',
    'auto',
    [
      ['a', 2, 0],
      ['a', 1, 500],
      ['a', 2, 500],
      ['a', 1, 500],
      ['a', 1, 500],
    ],
    [2, 2, 2, 2, 2],
  ],
  [
    'one after the other, each has its while',
    'auto',
    [
      ['a', 2, 0],
      ['a', 1, 0],
      ['a', 0, 1_000],
      ['a', 0, 999],
      ['a', 0, 1],
    ],
    [2, 2, 1, 1, 0],
  ],
  [
    'another server begins with what it has',
    'auto',
    [
      ['a', 2, 0],
      ['b', 0, 0],
      ['b', 1, 0],
    ],
    [2, 0, 1],
  ],
] as const)('%s', (_, configured, seen, expected) => {
  expect(wantedAfter(new WantedReplicas(configured, { goneAfterMs: 1_000 }), seen)).toEqual(expected);
});

test('one may be carried over to the next server, until that has found it', () => {
  const wanted = new WantedReplicas('auto', { goneAfterMs: 1_000, carriedOver: 1 });
  const seen = [
    ['a', 2, 0],
    ['b', 0, 0],
    ['b', 0, 999],
    ['b', 0, 1],
    ['b', 1, 0],
  ] as const;
  expect(wantedAfter(wanted, seen)).toEqual([2, 1, 1, 0, 1]);
});
