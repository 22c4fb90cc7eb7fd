/** The words for what is wrong with a configuration, where its schema has none; and which key may have been meant. */
import { z } from 'zod';
import type { Path } from './config-sources.ts';

export const NO_ALTERNATIVE = 'must be one of the alternatives';
const TYPES: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a mapping of keys to values',
  record: 'a mapping of keys to values',
};

/** The words for what a schema expects, where the schema has none of its own. */
export function wording(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return `must be ${TYPES[issue.expected] ?? issue.expected}`;
    case 'invalid_value':
      return `must be ${issue.values.length === 1 ? '' : 'one of '}${issue.values.map(String).join(', ')}`;
    case 'too_small':
      if (issue.origin === 'string' && Number(issue.minimum) === 1) return 'must not be empty';
      return `must be ${limit(issue.inclusive, 'at least', 'more than')} ${issue.minimum}${unit(issue.origin)}`;
    case 'too_big':
      return `must be ${limit(issue.inclusive, 'at most', 'less than')} ${issue.maximum}${unit(issue.origin)}`;
    case 'invalid_format':
      return issue.format === 'regex' ? `must match ${issue.pattern}` : `must be a valid ${issue.format}`;
    case 'invalid_union':
      return NO_ALTERNATIVE;
    default:
      return 'is not valid';
  }
}

const limit = (inclusive: boolean | undefined, within: string, beyond: string): string =>
  inclusive === false ? beyond : within;
const unit = (origin: string): string =>
  origin === 'string' ? ' characters long' : origin === 'array' ? ' entries long' : '';

export function unknownKey(name: string, known: readonly string[]): string {
  const nearest = nearestKey(name, known);
  if (nearest !== null) return `is not a known key; is ${nearest} meant?`;
  return known.length === 0 ? 'is not a known key' : `is not a known key; known here: ${known.join(', ')}`;
}

/** Among secrets, one may stand without its name and look like a key: there only a plain word, or nearly a known key, is shown. */
export function nameToShow(name: string, path: Path, known: readonly string[]): string {
  const amongSecrets = path.some((part) => /^(credentials|redis|users|clients|webhooks)$/.test(String(part)));
  const plainWord = /^[a-z]{1,12}$/.test(name);
  return amongSecrets && !plainWord && nearestKey(name, known) === null ? '*'.repeat(name.length) : name;
}

function nearestKey(name: string, known: readonly string[]): string | null {
  const plain = (text: string): string => text.toLowerCase().replace(/[^a-z0-9]/g, '');
  const [nearest] = known
    .map((key) => ({ key, distance: editDistance(plain(name), plain(key)) }))
    .filter(({ key, distance }) => distance <= Math.max(2, Math.ceil(key.length / 3)) && distance < key.length)
    .sort((a, b) => a.distance - b.distance);
  return nearest?.key ?? null;
}

function editDistance(from: string, to: string): number {
  let above = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const replaced = (above[column - 1] ?? 0) + (from[row - 1] === to[column - 1] ? 0 : 1);
      current.push(Math.min(replaced, (above[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    above = current;
  }
  return above[to.length] ?? 0;
}

export function knownKeys(schema: z.core.$ZodType, path: Path): string[] {
  const keys = schemasAt(schema, path).flatMap((here) =>
    here instanceof z.ZodObject ? Object.keys(here.shape).filter((key) => !isForbidden(here.shape[key])) : [],
  );
  return [...new Set(keys)];
}

/** Text that is no secret by what it is for (the path of a file, the address of a provider), so a fault may repeat it. */
export const HARMLESS = z.registry<{ readonly because: string }>();

/**
 * Whether a fault may repeat what stands there: only where a number, a word of a few, or a harmless text belongs. A secret
 * that lost its name stands where a mapping or a list belongs, or among secrets; there only what has the type of a number is
 * shown.
 */
export function isHarmless(schema: z.core.$ZodType, path: Path, value: unknown): boolean {
  const expected = schemasAt(schema, path);
  if (expected.length === 0) return false;
  if (expected.every((here) => HARMLESS.has(here))) return typeof value === 'string';
  return expected.every(isOfFewWords) && !(typeof value === 'string' && isAmongSecrets(path));
}

const isOfFewWords = (schema: z.core.$ZodType): boolean =>
  schema instanceof z.ZodNumber ||
  schema instanceof z.ZodBoolean ||
  schema instanceof z.ZodEnum ||
  schema instanceof z.ZodLiteral;

/** Where people write a secret beside a name, and may write it in the place of one. */
export function isAmongSecrets(path: Path): boolean {
  const sections = /^(clients|redis|console\.users|results\.webhooks|tracing\.headers)(\.|$)/;
  return path.some((part) => /^(credentials|proxy)$/.test(String(part))) || sections.test(path.join('.'));
}

/** The schemas of what may stand there; several where there are alternatives. */
function schemasAt(schema: z.core.$ZodType, path: Path): z.core.$ZodType[] {
  const here = bare(schema);
  if (here instanceof z.ZodUnion && !HARMLESS.has(here)) {
    return here.options.flatMap((option) => schemasAt(option as z.core.$ZodType, path));
  }
  const [next, ...rest] = path;
  if (next === undefined) return [here];
  const inner =
    here instanceof z.ZodObject
      ? here.shape[String(next)]
      : here instanceof z.ZodArray
        ? here.element
        : here instanceof z.ZodRecord
          ? here.valueType
          : undefined;
  return inner === undefined ? [] : schemasAt(inner as z.core.$ZodType, rest);
}

/** A key that is in the schema only to say why it must not be there. */
const isForbidden = (schema: z.core.$ZodType | undefined): boolean =>
  schema !== undefined && bare(schema) instanceof z.ZodNever;

/** A schema without what is wrapped around it: defaults, optionality, a step before or after. */
export function bare(schema: z.core.$ZodType): z.core.$ZodType {
  if (schema instanceof z.ZodPipe) return bare(schema.in instanceof z.ZodTransform ? schema.out : schema.in);
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodExactOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault ||
    schema instanceof z.ZodReadonly
  ) {
    return bare(schema.unwrap());
  }
  return schema;
}
