/**
 * Open loop: whoever comes next comes at his time, whatever became of those before him.
 * @param ask gets that time, in ms of `performance.now()`
 */
export async function offer(
  perSecond: number,
  seconds: number,
  ask: (dueAt: number) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const startsAt = performance.now();
  const total = Math.round(perSecond * seconds);
  const underway = new Set<Promise<void>>();
  let asked = 0;
  while (asked < total && !signal?.aborted) {
    const due = Math.min(total, Math.floor(((performance.now() - startsAt) / 1_000) * perSecond) + 1);
    for (; asked < due; asked += 1) {
      const one = ask(startsAt + (asked / perSecond) * 1_000).finally(() => underway.delete(one));
      underway.add(one);
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(underway);
}
