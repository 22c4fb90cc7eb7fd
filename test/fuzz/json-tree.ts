/**
 * JSON as it was written: every member of an object also when two have one name, every number in its own characters.
 * The oracles read with it, so that they share no parser with what they judge; the mutations write with it.
 */

export type Tree =
  | { readonly kind: 'object'; readonly members: readonly Member[] }
  | { readonly kind: 'array'; readonly items: readonly Tree[] }
  | { readonly kind: 'string'; readonly raw: string; readonly value: string }
  /** `raw` may be anything where a mutation has written it. */
  | { readonly kind: 'number' | 'literal' | 'written'; readonly raw: string };

export interface Member {
  readonly name: string;
  readonly value: Tree;
}

const TOKEN = /[{}[\],:]|"[^"\\]*(?:\\.[^"\\]*)*"|[^\s{}[\],:"]+/g;

/** Null for what is no JSON. Takes any depth. */
export function parseTree(text: string): Tree | null {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  // From here on the text is known to be well-formed, so brackets and commas need no second look.
  const open: { members: Member[] | null; items: Tree[]; name: string | null }[] = [];
  let last: Tree | null = null;
  const put = (tree: Tree): void => {
    const around = open.at(-1);
    if (around === undefined) last = tree;
    else if (around.members === null) around.items.push(tree);
    else {
      around.members.push({ name: around.name ?? '', value: tree });
      around.name = null;
    }
  };
  for (const [token] of text.matchAll(TOKEN)) {
    const around = open.at(-1);
    if (token === '{') open.push({ members: [], items: [], name: null });
    else if (token === '[') open.push({ members: null, items: [], name: null });
    else if (token === '}' || token === ']') {
      const closed = open.pop();
      if (closed)
        put(closed.members ? { kind: 'object', members: closed.members } : { kind: 'array', items: closed.items });
    } else if (token === ',' || token === ':') continue;
    else if (token.startsWith('"')) {
      const value = JSON.parse(token) as string;
      if (around?.members && around.name === null) around.name = value;
      else put({ kind: 'string', raw: token, value });
    } else put({ kind: /^[-\d]/.test(token) ? 'number' : 'literal', raw: token });
  }
  return last;
}

export function textOf(tree: Tree): string {
  switch (tree.kind) {
    case 'object':
      return `{${tree.members.map(({ name, value }) => `${JSON.stringify(name)}:${textOf(value)}`).join(',')}}`;
    case 'array':
      return `[${tree.items.map(textOf).join(',')}]`;
    case 'string':
    case 'number':
    case 'literal':
    case 'written':
      return tree.raw;
  }
  return tree satisfies never;
}

/** What stands there: undefined where nothing does, and also where two things do. */
export function at(tree: Tree | null | undefined, ...names: readonly string[]): Tree | undefined {
  let here = tree ?? undefined;
  for (const name of names) {
    if (here?.kind !== 'object') return undefined;
    const found: readonly Member[] = here.members.filter((member) => member.name === name);
    if (found.length > 1) return TWO_THINGS;
    here = found[0]?.value;
  }
  return here;
}

/** Nobody's value: no test of what it is holds. */
const TWO_THINGS: Tree = { kind: 'written', raw: '' };

/** Not there at all, or said to be nothing. */
export function isNothing(tree: Tree | undefined): boolean {
  return tree === undefined || (tree.kind === 'literal' && tree.raw === 'null');
}

/** A string's value, or a number's own characters; null for anything else. */
export function wordIn(tree: Tree | undefined): string | null {
  if (tree?.kind === 'string') return tree.value;
  return tree?.kind === 'number' ? tree.raw : null;
}

/** Only a string's value. */
export function stringIn(tree: Tree | undefined): string | null {
  return tree?.kind === 'string' ? tree.value : null;
}

/** A to Z and nothing else become small: no other letter of the world is one of these. */
export function asciiLowerCase(text: string): string {
  return text.replace(/[A-Z]/g, (letter) => String.fromCharCode(letter.charCodeAt(0) + 32));
}
