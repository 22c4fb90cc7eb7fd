import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { anyPath, besides, headerText, passThroughObject, text } from '../../src/providers/fields.ts';

/** What is wrong with it, in the words that whoever wrote it reads; nothing where it is taken. */
const faults = (schema: z.ZodType, value: unknown): string[] =>
  schema.safeParse(value).error?.issues.map(({ message }) => message) ?? [];

const lists = (levels: number): unknown => (levels === 0 ? 1 : [lists(levels - 1)]);
const objects = (levels: number): unknown => (levels === 0 ? 1 : { in: objects(levels - 1) });

describe('a text', () => {
  it.each(['x', ' with spaces ', 'Zoë', '日本', '🙂'])('may be %j, and is kept as it is', (value) => {
    expect(text(20).parse(value)).toBe(value);
  });

  it.each(['a\nb', 'a\u0000', '\u0085', '\ud83d', '\ude42'])('may not be %j', (value) => {
    expect(faults(text(20), value)).toEqual(['must not contain control characters']);
  });
});

describe('a header', () => {
  it.each(['x', 'two words', '~!'])('may be %j', (value) => {
    expect(faults(headerText(20), value)).toEqual([]);
  });

  it.each([' x', 'x ', 'Zoë', 'two\nlines', '\u007f'])('may not be %j', (value) => {
    expect(faults(headerText(20), value)).toEqual(['must be visible ASCII without spaces around it']);
  });
});

describe('a path', () => {
  it.each(['/', '/api/v2', '/api?a=b&c="d"'])('may be %j', (value) => {
    expect(faults(anyPath, value)).toEqual([]);
  });

  it.each(['', 'api', '/a b', '/a#b', '/ä', '/a\n'])('may not be %j', (value) => {
    expect(faults(anyPath, value)).toEqual(['must begin with / and contain no space and no #']);
  });
});

describe('an object that is handed on', () => {
  it.each([
    {},
    { text: 'x', number: 1.5, yes: true, no: false, nothing: null },
    { list: [1, 'x', [null, false]], object: { in: {} } },
    { bare: Object.create(null) },
    { deep: lists(7) },
    { deep: objects(7) },
    { long: 'x'.repeat(4096 - '{"long":""}'.length) },
  ])('may be %j', (value) => {
    expect(faults(passThroughObject, value)).toEqual([]);
  });

  it.each([
    { missing: undefined },
    { big: 1n },
    { infinite: Number.POSITIVE_INFINITY },
    { date: new Date(0) },
    { list: [1, Number.NaN] },
    { list: [1, undefined] },
    { object: { one: 1, other: () => 1 } },
    { deep: lists(8) },
    { deep: objects(8) },
  ])('holds nothing that JSON could not say: %o', (value) => {
    expect(faults(passThroughObject, value)).toEqual(['must be plain JSON, at most 8 levels deep']);
  });

  it('is not longer than 4096 characters', () => {
    const value = { long: 'x'.repeat(4097 - '{"long":""}'.length) };
    expect(faults(passThroughObject, value)).toEqual(['must be at most 4096 characters long']);
  });
});

describe('what a provider tells besides', () => {
  const answer = z.object({ limit: besides });

  it.each([0, '', null, false, [1], { in: 1 }, objects(8)])('is kept as it came: %j', (limit) => {
    expect(answer.parse({ limit })).toEqual({ limit });
  });

  it('is left out where it is nested too deep, and spoils nothing', () => {
    expect(answer.parse({ limit: objects(9) })).toEqual({});
    expect(answer.parse({ limit: lists(9) })).toEqual({});
    expect(answer.parse({})).toEqual({});
  });
});
