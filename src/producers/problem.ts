/** Errors as RFC 9457 says them. A detail says what was expected; it never repeats what came. */
import type { FieldFault } from './request.ts';

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
}

export const PROBLEMS = {
  'malformed-request': { status: 400, title: 'The request is no HTTP' },
  'malformed-json': { status: 400, title: 'The body is no JSON' },
  'invalid-request': { status: 400, title: 'The request does not fit' },
  unauthorized: { status: 401, title: 'The proof of who calls is missing or wrong' },
  'partition-not-allowed': { status: 403, title: 'The partition is not allowed to this client' },
  'not-found': { status: 404, title: 'There is nothing here' },
  'method-not-allowed': { status: 405, title: 'The method is not allowed here' },
  'request-timeout': { status: 408, title: 'The request took too long to arrive' },
  'in-progress': { status: 409, title: 'The same request is being accepted right now' },
  gone: { status: 410, title: 'The verification is no longer kept' },
  'body-too-large': { status: 413, title: 'The body is too large' },
  'unsupported-media-type': { status: 415, title: 'The body must be application/json' },
  'idempotency-mismatch': { status: 422, title: 'The idempotency key was used for another body' },
  'rate-limited': { status: 429, title: 'The client brings more than it may' },
  'too-many-in-flight': { status: 429, title: 'The client has too many requests open' },
  backlogged: { status: 429, title: 'The backlog cannot be served before the deadline of the code' },
  'headers-too-large': { status: 431, title: 'The headers are too large' },
  'internal-error': { status: 500, title: 'Something here failed' },
  unavailable: { status: 503, title: 'The store of verifications cannot be reached' },
} as const satisfies Record<string, { status: number; title: string }>;

export type ProblemName = keyof typeof PROBLEMS;

/** Stable: programs may compare it. */
export function problemType(name: ProblemName): string {
  return `urn:otp-pipeline:problem:${name}`;
}

export function problem(
  name: ProblemName,
  detail: string,
  more: { readonly headers?: Readonly<Record<string, string>>; readonly errors?: readonly FieldFault[] } = {},
): Answer {
  const { status, title } = PROBLEMS[name];
  return {
    status,
    headers: { 'Content-Type': 'application/problem+json', ...more.headers },
    body: { type: problemType(name), title, status, detail, ...(more.errors ? { errors: more.errors } : {}) },
  };
}
