/** docs/library.md names what the package exports, and every member of it. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import * as library from '../../src/index.ts';

const read = (path: string): string => readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), 'utf8');
const entry = read('src/index.ts');
const page = read('docs/library.md');

/** Each exported name with the file that it is made in. */
const exported = new Map<string, string>([
  ...[...entry.matchAll(/^export (?:type )?\{([^}]+)\} from '\.\/([^']+)'/gm)].flatMap(([, names = '', file = '']) =>
    names
      .split(',')
      .map((name) => name.trim().replace(/^type /, ''))
      .filter((name) => name !== '')
      .map((name) => [name, `src/${file}`] as const),
  ),
  ...[...entry.matchAll(/^export function (\w+)/gm)].map(([, name = '']) => [name, 'src/index.ts'] as const),
]);

const sections = new Map(
  page
    .split(/^### /m)
    .slice(1)
    .map((text) => [text.split('\n')[0] ?? '', text] as const),
);

test('it has a section for each export, and no other', () => {
  expect([...sections.keys()].sort()).toEqual([...exported.keys()].sort());
  expect([...exported.keys()]).toEqual(expect.arrayContaining(Object.keys(library)));
});

const interfaces = [...exported].flatMap(([name, file]) => {
  const [, body] = new RegExp(`^export interface ${name} \\{\\n([\\s\\S]*?)^\\}`, 'm').exec(read(file)) ?? [];
  return body === undefined
    ? []
    : [{ name, members: [...body.matchAll(/^ {2}(?:readonly )?(\w+)[?]?[:(]/gm)].map(([, member = '']) => member) }];
});

test('there are interfaces to compare', () => {
  expect(interfaces.length).toBeGreaterThan(9);
});

test.each(interfaces)('it has every member of $name', ({ name, members }) => {
  const rows = [...(sections.get(name) ?? '').matchAll(/^\| ((?:`\w+`(?:, )?)+) \|/gm)].flatMap(([, cell = '']) =>
    [...cell.matchAll(/`(\w+)`/g)].map(([, member = '']) => member),
  );
  expect(rows.sort()).toEqual([...members].sort());
});

test('it shows a program that runs', () => {
  const [, file = '', block = ''] = /<!-- example: (\S+) -->\n```js\n([\s\S]*?)```/.exec(page) ?? [];
  expect(read(file)).toContain(block);
});
