/** The pages of docs/integrating show what stands in examples/, and have a word for every next step. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { NEXT_STEPS } from '../../src/providers/provider.ts';

const read = (path: string): string => readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), 'utf8');
const pages = readdirSync(fileURLToPath(new URL('../../docs/integrating', import.meta.url)));

test('there is a page for each language that has an example, and one for all others', () => {
  const languages = ['java', 'node', 'php', 'python', 'ruby'];
  expect(pages.sort()).toEqual([...languages, 'http'].map((name) => `${name}.md`).sort());
  const examples = readdirSync(fileURLToPath(new URL('../../examples', import.meta.url)));
  for (const name of languages) expect(examples).toContain(name);
});

test.each(pages)('what %s shows of a program stands in that program, letter for letter', (name) => {
  const blocks = [...read(`docs/integrating/${name}`).matchAll(/<!-- from: (\S+) -->\n```\w+\n([\s\S]*?)```/g)];
  if (name === 'http.md') expect(read('docs/integrating/http.md')).toContain(read('examples/curl/first.sh'));
  else expect(blocks.length).toBeGreaterThanOrEqual(3);
  for (const [, file = '', text = ''] of blocks) expect(read(file), `${name}: ${file}`).toContain(text);
});

test('every next step has something to show to the customer', () => {
  const [, table = ''] = /## What to show the customer\n([\s\S]*?)\n## /.exec(read('docs/integrating/http.md')) ?? [];
  const steps = [...table.matchAll(/^\| `(\w+)` \|/gm)].map(([, step]) => step);
  expect(steps.sort()).toEqual([...NEXT_STEPS].sort());
});
