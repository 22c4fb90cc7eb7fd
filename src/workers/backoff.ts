/** Pure: how long to wait before what provably did not leave is sent again. */
const BASE_MS = 250;
const CAP_MS = 30_000;

/**
 * Exponential with full jitter above a floor: between a quarter and the whole of 500 ms, 1 s, 2 s … capped at 30 s.
 * @param failures how often in a row it did not leave, 1 for the first time
 * @param random in [0, 1)
 */
export function backoffMs(failures: number, random: number): number {
  const ceiling = Math.min(CAP_MS, BASE_MS * 2 ** Math.min(failures, 20));
  return Math.round(ceiling * (0.25 + 0.75 * random));
}
