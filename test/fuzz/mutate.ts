/**
 * How good documents go bad. Every mutation is data (where, what, with what), so a failing case shrinks to the one
 * that matters. Places are numbers taken modulo what there is: any mutation fits any document.
 */
import fc from 'fast-check';
import { type Member, parseTree, type Tree, textOf } from './json-tree.ts';

/** Many short ones in few lines; none of them has a space in it. */
export function words(text: string): string[] {
  return text.split(' ');
}

/** Words that mean something to somebody, and values that a careless reader takes for something else. */
const STRANGE_TOKENS: readonly string[] = [
  ...words('null true false 0 -0 1 -1 0.1 1e400 -1e400 1E-7 2e2 200.0 4503599627370497.5'),
  ...['9007199254740993', '123456789012345678901234567890', '[]', '{}', '[[]]', '[null]', '""', '" "', '"0"', '"00"'],
  ...['"null"', '"true"', '"undefined"', '"NaN"', '"Infinity"', '"[object Object]"', '"-"', '"+1"', '"1e3"', '"0x10"'],
  ...words('"__proto__" "constructor" "toString" "hasOwnProperty" {"__proto__":{}} {"constructor":{"prototype":{}}}'),
  ...['{"length":1}', '{"0":"a"}', '{"toJSON":null}', '{"then":1}', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"'],
  ...['"\\u200b"', '"\\u202e"', '"\\ufeff"', '"a\\nb"', '"a\\r\\nX: y"', '"%00"', '"../.."', '"<script>"'],
  ...['"2026-11-21T20:05:00Z"', '"9999-12-31T23:59:59.999999999Z"', '"0000-01-01T00:00Z"', '"2026-02-30T00:00:00Z"'],
];

const STRANGE_NAMES: readonly string[] = [
  ...['__proto__', 'constructor', 'prototype', 'toString', 'toJSON', 'then', 'length', '', ' ', '0', '-1', 'null'],
  ...['\u0000', '\ud800', '\u200b', '\ufeff', 'ＡＢＣ', 'a.b', '[0]', 'status\u0000', 'x'.repeat(300)],
];

/** Letters that look alike, or that `toLowerCase` and `toUpperCase` turn into A to Z. */
const ALIKE: Readonly<Record<string, string>> = {
  ...{ k: '\u212a', K: '\u212a', s: '\u017f', S: '\u017f', i: '\u0131', I: '\u0130', o: '\u043e', O: '\u041e' },
  ...{ a: '\u0430', e: '\u0435', p: '\u0440', c: '\u0441', '0': '\uff10', '1': '\uff11', '2': '\u0662', '5': '\u06f5' },
};

const TWISTS = {
  alike: (text: string, place: number) => replaceAt(text, place, (one) => ALIKE[one] ?? `${one}\u0301`),
  alikeAll: (text: string) => [...text].map((one) => ALIKE[one] ?? one).join(''),
  sharp: (text: string) => text.replace(/ss/i, 'ß').replace(/fi/i, '\ufb01').replace(/st/i, '\ufb06'),
  invisible: (text: string, place: number) => insertAt(text, place, '\u200b'),
  nul: (text: string, place: number) => insertAt(text, place, '\u0000'),
  newline: (text: string, place: number) => insertAt(text, place, '\r\n'),
  halfCharacter: (text: string, place: number) => insertAt(text, place, '\ud83d'),
  spaceBefore: (text: string) => ` ${text}`,
  spaceBehind: (text: string) => `${text} `,
  upper: (text: string) => text.toUpperCase(),
  lower: (text: string) => text.toLowerCase(),
  swapCase: (text: string, place: number) =>
    replaceAt(text, place, (one) => (one === one.toUpperCase() ? one.toLowerCase() : one.toUpperCase())),
  another: (text: string, place: number) => replaceAt(text, place, (one) => String.fromCharCode(one.charCodeAt(0) ^ 1)),
  shorter: (text: string, place: number) => text.slice(0, place % (text.length + 1)),
  twice: (text: string) => text + text,
  huge: (text: string) => (text || 'x').repeat(Math.ceil(6_000 / Math.max(1, text.length))),
} satisfies Record<string, (text: string, place: number) => string>;
type Twist = keyof typeof TWISTS;

function replaceAt(text: string, place: number, by: (one: string) => string): string {
  if (text === '') return text;
  const index = place % text.length;
  return text.slice(0, index) + by(text.charAt(index)) + text.slice(index + 1);
}

function insertAt(text: string, place: number, what: string): string {
  const index = place % (text.length + 1);
  return text.slice(0, index) + what + text.slice(index);
}

/** Mostly what is on a keyboard, sometimes anything that a JavaScript string can hold, halves of characters too. */
const anyCharacter = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 0, max: 0x7f }) },
  { weight: 1, arbitrary: fc.integer({ min: 0x80, max: 0xffff }) },
  { weight: 1, arbitrary: fc.integer({ min: 0xd7f0, max: 0xe010 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0x1_0000, max: 0x10_ffff }) },
);
const anyByte = fc.integer({ min: 0, max: 0xff });

export function anyText(maxLength: number): fc.Arbitrary<string> {
  return fc.array(anyCharacter, { maxLength }).map((codes) => String.fromCodePoint(...codes));
}

/** One character a byte. */
export function anyBytes(maxLength: number): fc.Arbitrary<string> {
  return fc.array(anyByte, { maxLength }).map((codes) => String.fromCharCode(...codes));
}

// ---- trees ----------------------------------------------------------------------------------------------------------

export type TreeMutation =
  | { readonly do: 'replace'; readonly place: number; readonly by: string }
  | {
      readonly do: 'drop' | 'copyFrom' | 'swapWith' | 'rewrite' | 'repeat';
      readonly place: number;
      readonly other: number;
    }
  | { readonly do: 'wrap'; readonly place: number; readonly in: 'array' | 'object'; readonly levels: number }
  | { readonly do: 'rename'; readonly place: number; readonly to: string }
  | {
      readonly do: 'add';
      readonly place: number;
      readonly name: string;
      readonly value: string;
      readonly first: boolean;
    }
  | { readonly do: 'twist'; readonly place: number; readonly twist: Twist; readonly at: number };

const place = fc.nat({ max: 400 });

export interface Vocabulary {
  /** Values that mean something in these documents: a mutation that writes one is worth more than a random one. */
  readonly tokens?: readonly string[];
  readonly names?: readonly string[];
  /** Written here and there; must not come out again. */
  readonly canaries?: readonly string[];
}

function strangeToken({ tokens = [], canaries = [] }: Vocabulary): fc.Arbitrary<string> {
  const weighed: fc.WeightedArbitrary<string>[] = [
    { weight: 5, arbitrary: fc.constantFrom(...STRANGE_TOKENS) },
    { weight: 2, arbitrary: fc.json({ maxDepth: 2 }) },
    { weight: 1, arbitrary: anyText(40).map((text) => JSON.stringify(text)) },
  ];
  if (tokens.length > 0) weighed.push({ weight: 6, arbitrary: fc.constantFrom(...tokens) });
  if (canaries.length > 0)
    weighed.push({ weight: 2, arbitrary: fc.constantFrom(...canaries.map((canary) => JSON.stringify(canary))) });
  return fc.oneof(...weighed);
}

function strangeName({ names = [], canaries = [] }: Vocabulary): fc.Arbitrary<string> {
  return fc.oneof(
    fc.constantFrom(...STRANGE_NAMES),
    ...(names.length > 0 ? [fc.constantFrom(...names)] : []),
    ...(canaries.length > 0 ? [fc.constantFrom(...canaries)] : []),
    anyText(20),
  );
}

function treeMutation(words: Vocabulary = {}): fc.Arbitrary<TreeMutation> {
  const token = strangeToken(words);
  return fc.oneof(
    { weight: 5, arbitrary: fc.record({ do: fc.constant('replace' as const), place, by: token }) },
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constantFrom(
          'drop' as const,
          'copyFrom' as const,
          'swapWith' as const,
          'rewrite' as const,
          'repeat' as const,
        ),
        place,
        other: place,
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant('wrap' as const),
        place,
        in: fc.constantFrom('array' as const, 'object' as const),
        levels: fc.constantFrom(1, 1, 2, 2, 9, 9, 33, 40, 100, 12_000),
      }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('rename' as const), place, to: strangeName(words) }) },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('add' as const),
        place,
        name: strangeName(words),
        value: token,
        first: fc.boolean(),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('twist' as const),
        place,
        twist: fc.constantFrom(...(Object.keys(TWISTS) as Twist[])),
        at: place,
      }),
    },
  );
}

/** Where a tree can be changed: each value by its way from the root, and what holds members or items. */
type Way = readonly number[];

function waysIn(tree: Tree, way: Way = []): Way[] {
  const inner = childrenOf(tree).flatMap((child, index) => waysIn(child, [...way, index]));
  return [way, ...inner];
}

function childrenOf(tree: Tree): readonly Tree[] {
  if (tree.kind === 'object') return tree.members.map(({ value }) => value);
  return tree.kind === 'array' ? tree.items : [];
}

function subtree(tree: Tree, way: Way): Tree {
  return way.reduce<Tree>((here, index) => childrenOf(here)[index] ?? here, tree);
}

const NOTHING: Tree = { kind: 'literal', raw: 'null' };

/** `change` gets the value at the way and gives what stands there afterwards; null takes it away. */
function changed(tree: Tree, way: Way, change: (value: Tree) => Tree | null): Tree {
  const [index, ...rest] = way;
  if (index === undefined) return change(tree) ?? NOTHING;
  if (tree.kind === 'object') {
    const members = tree.members.flatMap((member, position): Member[] => {
      if (position !== index) return [member];
      if (rest.length > 0) return [{ ...member, value: changed(member.value, rest, change) }];
      const value = change(member.value);
      return value === null ? [] : [{ ...member, value }];
    });
    return { kind: 'object', members };
  }
  if (tree.kind !== 'array') return tree;
  const items = tree.items.flatMap((item, position): Tree[] => {
    if (position !== index) return [item];
    if (rest.length > 0) return [changed(item, rest, change)];
    const value = change(item);
    return value === null ? [] : [value];
  });
  return { kind: 'array', items };
}

const written = (raw: string): Tree => ({ kind: 'written', raw });

function mutateTree(tree: Tree, mutation: TreeMutation): Tree {
  const ways = waysIn(tree);
  const way = ways[mutation.place % ways.length] ?? [];
  switch (mutation.do) {
    case 'replace':
      return changed(tree, way, () => written(mutation.by));
    case 'drop':
      return changed(tree, way, () => null);
    case 'copyFrom':
      return changed(tree, way, () => subtree(tree, ways[mutation.other % ways.length] ?? []));
    case 'swapWith': {
      const other = ways[mutation.other % ways.length] ?? [];
      const [one, two] = [subtree(tree, way), subtree(tree, other)];
      return changed(
        changed(tree, way, () => two),
        other,
        () => one,
      );
    }
    case 'rewrite': // the same, said as another type
      return changed(tree, way, rewritten);
    case 'repeat':
      return repeated(tree, way, subtree(tree, ways[mutation.other % ways.length] ?? []), mutation.other % 2 === 0);
    case 'wrap': {
      const [before, behind] = mutation.in === 'array' ? ['[', ']'] : ['{"a":', '}'];
      return changed(tree, way, (value) =>
        written(before.repeat(mutation.levels) + textOf(value) + behind.repeat(mutation.levels)),
      );
    }
    case 'rename':
      return withMembers(tree, way, (members, index) =>
        members.map((member, position) => (position === index ? { ...member, name: mutation.to } : member)),
      );
    case 'add': {
      const added: Member = { name: mutation.name, value: written(mutation.value) };
      return withMembers(tree, way, (members) => (mutation.first ? [added, ...members] : [...members, added]));
    }
    case 'twist':
      return changed(tree, way, (value) => {
        if (value.kind === 'object' || value.kind === 'array') return value;
        const text = value.kind === 'string' ? value.value : value.raw;
        return written(JSON.stringify(TWISTS[mutation.twist](text, mutation.at)));
      });
  }
  return mutation satisfies never;
}

function rewritten(value: Tree): Tree {
  switch (value.kind) {
    case 'string':
      return written(/^-?\d+(\.\d+)?$/.test(value.value) ? value.value : `[${value.raw}]`);
    case 'number':
    case 'literal':
      return written(JSON.stringify(value.raw));
    case 'array':
      return value.items[0] ?? NOTHING;
    case 'object':
      return { kind: 'array', items: value.members.map((member) => member.value) };
    case 'written':
      return value;
  }
  return value satisfies never;
}

/** The member (or item) once more under the same name, with another value. */
function repeated(tree: Tree, way: Way, value: Tree, first: boolean): Tree {
  return withMembers(tree, way, (members, index) => {
    const again = members[index];
    if (again === undefined) return members;
    const other = { ...again, value };
    return first ? [other, ...members] : [...members, other];
  });
}

/** The members of the object in which the way ends, and which of them it is. */
function withMembers(
  tree: Tree,
  way: Way,
  change: (members: readonly Member[], index: number) => readonly Member[],
): Tree {
  return changed(tree, way.slice(0, -1), (around) =>
    around.kind === 'object' ? { kind: 'object', members: change(around.members, way.at(-1) ?? 0) } : around,
  );
}

// ---- texts ----------------------------------------------------------------------------------------------------------

export type TextMutation =
  | { readonly do: 'cut' | 'cutStart' | 'delete' | 'repeat'; readonly place: number; readonly length: number }
  | { readonly do: 'insert'; readonly place: number; readonly text: string }
  | { readonly do: 'flip'; readonly place: number; readonly bit: number };

const INSERTED: readonly string[] = [
  ...[
    '\ufeff',
    '\u0000',
    '\n',
    '\r\n',
    '\t',
    ' ',
    '"',
    "'",
    '\\',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '#',
    '&a ',
    '*a',
    '!!',
    '|',
    '>',
    '-',
  ],
  ...[
    '{}',
    '[]',
    'null',
    ")]}',\n",
    '/**/',
    '//',
    '<html>',
    '%',
    '${env:',
    '${',
    '---\n',
    '\u2028',
    '\ud800',
    '\u202e',
    '<<: ',
    '? ',
  ],
];

/** Near the edges more often than by chance, because that is where parsers look. */
const anywhere = fc.oneof(fc.nat({ max: 8_000 }), fc.constantFrom(0, 1, 2, 100_000));

export const textMutation: fc.Arbitrary<TextMutation> = fc.oneof(
  fc.record({
    do: fc.constantFrom('cut' as const, 'cutStart' as const, 'delete' as const, 'repeat' as const),
    place: anywhere,
    length: fc.integer({ min: 1, max: 30 }),
  }),
  fc.record({
    do: fc.constant('insert' as const),
    place: anywhere,
    text: fc.oneof(fc.constantFrom(...INSERTED), anyText(5)),
  }),
  fc.record({ do: fc.constant('flip' as const), place: anywhere, bit: fc.nat({ max: 7 }) }),
);

export function mutateText(text: string, mutation: TextMutation): string {
  const index = mutation.place % (text.length + 1);
  switch (mutation.do) {
    case 'cut':
      return text.slice(0, index);
    case 'cutStart':
      return text.slice(index);
    case 'delete':
      return text.slice(0, index) + text.slice(index + mutation.length);
    case 'repeat':
      return text.slice(0, index + mutation.length) + text.slice(index);
    case 'insert':
      return text.slice(0, index) + mutation.text + text.slice(index);
    case 'flip':
      if (index >= text.length) return text;
      return (
        text.slice(0, index) + String.fromCharCode(text.charCodeAt(index) ^ (1 << mutation.bit)) + text.slice(index + 1)
      );
  }
  return mutation satisfies never;
}

// ---- documents ------------------------------------------------------------------------------------------------------

/**
 * Documents that are mostly still JSON, sometimes whole, sometimes no JSON at all. `documents` are texts; those that
 * are no JSON are only changed as texts.
 */
export function mutatedJson(documents: readonly string[], words: Vocabulary = {}): fc.Arbitrary<string> {
  return mutatedOneOf(documents, words).map(({ text }) => text);
}

/** The same, and which of the documents it began as. */
export function mutatedOneOf(
  documents: readonly string[],
  words: Vocabulary = {},
): fc.Arbitrary<{ readonly from: number; readonly text: string }> {
  const trees = documents.map((document) => ({ document, tree: parseTree(document) }));
  return fc
    .record({
      from: fc.nat({ max: documents.length - 1 }),
      tree: fc.array(treeMutation(words), { maxLength: 4 }),
      text: fc.oneof(
        { weight: 5, arbitrary: fc.constant<TextMutation[]>([]) },
        { weight: 2, arbitrary: fc.array(textMutation, { minLength: 1, maxLength: 3 }) },
      ),
    })
    .map((given) => {
      const { document = '', tree = null } = trees[given.from] ?? {};
      const changedText = tree === null ? document : textOf(mutatedTree(tree, given.tree));
      return { from: given.from, text: given.text.reduce(mutateText, changedText) };
    });
}

/** A mutation that has written a text ends the structure there, so whatever follows finds it as it would be parsed. */
function mutatedTree(tree: Tree, mutations: readonly TreeMutation[]): Tree {
  let here = tree;
  for (const mutation of mutations) {
    const changedTree = mutateTree(here, mutation);
    const text = textOf(changedTree);
    if (text.length > 200_000) return here;
    // Deeper than this nothing walks it again.
    if (mutation.do === 'wrap' && mutation.levels > 100) return changedTree;
    here = parseTree(text) ?? changedTree;
  }
  return here;
}

/** A text, mostly the first one, somewhat twisted or written anew. */
export function twistedText(text: string): fc.Arbitrary<string> {
  return fc.oneof(
    fc
      .record({ twist: fc.constantFrom(...(Object.keys(TWISTS) as Twist[])), at: place })
      .map(({ twist, at }) => TWISTS[twist](text, at)),
    fc.array(textMutation, { minLength: 1, maxLength: 2 }).map((mutations) => mutations.reduce(mutateText, text)),
  );
}

/** Null, but for one in so many. */
export function seldom<T>(arbitrary: fc.Arbitrary<T>, oneIn: number): fc.Arbitrary<T | null> {
  return fc.oneof({ weight: oneIn - 1, arbitrary: fc.constant(null) }, { weight: 1, arbitrary });
}
