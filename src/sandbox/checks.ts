/** Small strict tests on what came over the wire; each provider's file says which of them it wants. */
import { timingSafeEqual } from 'node:crypto';
import type { Answer, IncomingCall } from './server.ts';

export interface Refusal {
  answer: Answer;
  /** For the ledger: what was wrong, without repeating what came. */
  detail: string;
}

/** A check answers null when all is well. Checks run in order, and the first refusal ends them. */
export type Check = () => Refusal | null;

export function firstRefusal(checks: readonly Check[]): Refusal | null {
  for (const check of checks) {
    const refusal = check();
    if (refusal) return refusal;
  }
  return null;
}

export function sameText(given: unknown, wanted: string): boolean {
  if (typeof given !== 'string') return false;
  const left = Buffer.from(given);
  const right = Buffer.from(wanted);
  return left.length === right.length && timingSafeEqual(left, right);
}

export const matches = (value: unknown, pattern: RegExp): value is string =>
  typeof value === 'string' && pattern.test(value);

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The body as a JSON object, or null. */
export function jsonObject(body: string): Record<string, unknown> | null {
  try {
    const parsed: unknown = JSON.parse(body);
    return isObject(parsed) ? parsed : null;
  } catch {
    return null;
  }
}

/** The names of members that nobody documents: a real gateway may ignore them, a strict one shows what leaks. */
export const strangers = (body: Record<string, unknown>, known: readonly string[]): string[] =>
  Object.keys(body).filter((name) => !known.includes(name));

export const isJson = (call: IncomingCall): boolean =>
  /^application\/json(;\s*charset=utf-8)?$/i.test(call.headers['content-type'] ?? '');

export function bearer(value: unknown): string | undefined {
  return typeof value === 'string' ? /^Bearer (\S+)$/.exec(value)?.[1] : undefined;
}

/** True when the query has exactly this one parameter, and it is not empty. */
export function onlyParameter(call: IncomingCall, name: string): string | undefined {
  const names = [...call.query.keys()];
  const value = call.query.get(name);
  return names.length === 1 && names[0] === name && value ? value : undefined;
}

const fiveMinutesMs = 5 * 60 * 1000;

export const isFresh = (timeMs: number, nowMs: number): boolean => Math.abs(nowMs - timeMs) <= fiveMinutesMs;
