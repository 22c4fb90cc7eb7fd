/** What was asked may still happen: the limit ends the waiting, not the work. */
class TimeLimitError extends Error {
  override readonly name = 'TimeLimitError';

  constructor(limitMs: number) {
    super(`no answer within ${limitMs} ms`);
  }
}

/** The outcome of `work`, or a TimeLimitError after `limitMs`; a failure that comes after that is nobody's concern. */
export async function within<Result>(limitMs: number, work: Promise<Result>): Promise<Result> {
  const outcome = await withinOr(limitMs, work, NO_ANSWER);
  if (outcome === NO_ANSWER) throw new TimeLimitError(limitMs);
  return outcome;
}

const NO_ANSWER = Symbol('no answer');

/** What `work` comes to, or `otherwise` when it has not ended after `limitMs`. */
export async function withinOr<Result, Otherwise>(
  limitMs: number,
  work: Promise<Result>,
  otherwise: Otherwise,
): Promise<Result | Otherwise> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<Otherwise>((resolve) => {
    timer = setTimeout(() => resolve(otherwise), limitMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
