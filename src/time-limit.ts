/** What was asked may still happen: the limit ends the waiting, not the work. */
class TimeLimitError extends Error {
  override readonly name = 'TimeLimitError';

  constructor(limitMs: number) {
    super(`no answer within ${limitMs} ms`);
  }
}

/** The outcome of `work`, or a TimeLimitError after `limitMs`; a failure that comes after that is nobody's concern. */
export function within<Result>(limitMs: number, work: Promise<Result>): Promise<Result> {
  return limited<Result>(limitMs, work, (_, reject) => reject(new TimeLimitError(limitMs)));
}

/** What `work` comes to, or `otherwise` when it has not ended after `limitMs`. */
export function withinOr<Result, Otherwise>(
  limitMs: number,
  work: Promise<Result>,
  otherwise: Otherwise,
): Promise<Result | Otherwise> {
  return limited<Result | Otherwise>(limitMs, work, (resolve) => resolve(otherwise));
}

function limited<Result>(
  limitMs: number,
  work: Promise<Result>,
  atLimit: (resolve: (result: Result) => void, reject: (error: Error) => void) => void,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(atLimit, limitMs, resolve, reject);
    const cancel = (): void => clearTimeout(timer);
    work.then(cancel, cancel);
    work.then(resolve, reject);
  });
}
