/** What was asked may still happen: the limit ends the waiting, not the work. */
class TimeLimitError extends Error {
  override readonly name = 'TimeLimitError';

  constructor(limitMs: number) {
    super(`no answer within ${limitMs} ms`);
  }
}

/** The outcome of `work`, or a TimeLimitError after `limitMs`; a failure that comes after that is nobody's concern. */
export function within<Result>(limitMs: number, work: Promise<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new TimeLimitError(limitMs)), limitMs);
    settle(work, timer, resolve, reject);
  });
}

/** What `work` comes to, or `otherwise` when it has not ended after `limitMs`. */
export function withinOr<Result, Otherwise>(
  limitMs: number,
  work: Promise<Result>,
  otherwise: Otherwise,
): Promise<Result | Otherwise> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, limitMs, otherwise);
    settle(work, timer, resolve, reject);
  });
}

function settle<Result>(
  work: Promise<Result>,
  timer: NodeJS.Timeout,
  resolve: (result: Result) => void,
  reject: (error: unknown) => void,
): void {
  work.then(
    (result) => {
      clearTimeout(timer);
      resolve(result);
    },
    (error: unknown) => {
      clearTimeout(timer);
      reject(error);
    },
  );
}
