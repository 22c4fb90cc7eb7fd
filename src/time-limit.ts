/** What was asked may still happen: the limit ends the waiting, not the work. */
export class TimeLimitError extends Error {
  override readonly name = 'TimeLimitError';

  constructor(limitMs: number) {
    super(`no answer within ${limitMs} ms`);
  }
}

/** The outcome of `work`, or a TimeLimitError after `limitMs`; a failure that comes after that is nobody's concern. */
export async function within<Result>(limitMs: number, work: Promise<Result>): Promise<Result> {
  return await firstOf<Result, never>(work, limitMs, (_, reject) => reject(new TimeLimitError(limitMs)));
}

/** What `work` comes to, or `otherwise` when it has not ended after `limitMs`. */
export async function withinOr<Result, Otherwise>(
  limitMs: number,
  work: Promise<Result>,
  otherwise: Otherwise,
): Promise<Result | Otherwise> {
  return await firstOf(work, limitMs, (resolve) => resolve(otherwise));
}

async function firstOf<Result, Otherwise>(
  work: Promise<Result>,
  limitMs: number,
  atLimit: (resolve: (otherwise: Otherwise) => void, reject: (error: Error) => void) => void,
): Promise<Result | Otherwise> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<Otherwise>((resolve, reject) => {
    timer = setTimeout(() => atLimit(resolve, reject), limitMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
