/**
 * So many a second, each due at its time whether others have ended or not.
 * @param one gets its number and when it was due, in ms of `performance.now()`
 */
export async function openLoopOf<Result>(
  perSecond: number,
  seconds: number,
  one: (index: number, dueAt: number) => Promise<Result>,
): Promise<Result[]> {
  const startsAt = performance.now();
  const asked: Promise<Result>[] = [];
  const total = perSecond * seconds;
  while (asked.length < total) {
    const due = Math.min(total, Math.floor(((performance.now() - startsAt) / 1_000) * perSecond));
    while (asked.length < due) asked.push(one(asked.length, startsAt + (asked.length / perSecond) * 1_000));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return await Promise.all(asked);
}
