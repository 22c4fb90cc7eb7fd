/** The fields that people write: parameters of a verification, paths and names in the configuration. */
import { z } from 'zod';

/** Control characters and halves of surrogate pairs have no place in a name and do not survive every transport. */
const PRINTABLE = /^[^\p{Cc}\p{Cs}]+$/u;

/** What HTTP can carry in a header without changing it: visible ASCII, spaces only inside. */
const HEADER_SAFE = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;

/** Text of one line; it is never trimmed. */
export function text(maximum: number) {
  return z.string().min(1).max(maximum).regex(PRINTABLE, 'must not contain control characters');
}

/** The provider's name for a transaction, and whatever else is short and identifies. */
export const identifier = text(128);

/** Tokens and opaque data of the provider, handed back as they came. */
export const opaque = text(4096);

/** A value that travels in a header. */
export function headerText(maximum: number) {
  return z.string().min(1).max(maximum).regex(HEADER_SAFE, 'must be visible ASCII without spaces around it');
}

/** Where a call lives under `baseUrl`. The provider's own path is the default. */
export function path(standard: string) {
  return anyPath.default(standard);
}

export const anyPath = z
  .string()
  .max(512)
  .regex(/^\/[\x21-\x22\x24-\x7e]*$/, 'must begin with / and contain no space and no #');

/** What a provider tells besides, kept as it came; left out where it is nested so deep that nobody could write it down. */
export const besides = z
  .unknown()
  .refine((value) => isJson(value, 8))
  .optional()
  .catch(undefined);

/** A JSON object handed on to the provider as it stands: small, flat enough, and nothing that JSON could not say. */
export const passThroughObject = z
  .record(z.string(), z.unknown())
  .refine((value) => isJson(value, 8), 'must be plain JSON, at most 8 levels deep')
  .refine((value) => !isJson(value, 8) || JSON.stringify(value).length <= 4096, 'must be at most 4096 characters long');

function isJson(value: unknown, levels: number): boolean {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return true;
  if (typeof value === 'number') return Number.isFinite(value);
  if (typeof value !== 'object' || levels === 0) return false;
  if (Array.isArray(value)) return value.every((item) => isJson(item, levels - 1));
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return false;
  return Object.values(value).every((item) => isJson(item, levels - 1));
}
