/** What those who want to change something are told. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parse } from 'yaml';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string): string => readFileSync(join(root, file), 'utf8');
const { scripts, engines } = JSON.parse(read('package.json')) as {
  scripts: Record<string, string>;
  engines: { node: string };
};

test.each(['README.md', 'CONTRIBUTING.md', 'docs/adding-a-provider.md'])(
  'the scripts that %s names are there',
  (page) => {
    const named = [...read(page).matchAll(/npm run ([\w:]+)/g)].map(([, name = '']) => name);
    expect(named.length).toBeGreaterThan(0);
    expect(named.filter((name) => !Object.hasOwn(scripts, name))).toEqual([]);
  },
);

test('every program that a script starts is there', () => {
  const started = Object.values(scripts).flatMap((script) => [...script.matchAll(/[\w/-]+\.(?:mjs|ts)\b/g)]);
  const missing = started.filter(
    ([file]) => !readdirSync(join(root, file, '..')).includes(file.split('/').at(-1) ?? ''),
  );
  expect(missing.map(([file]) => file)).toEqual([]);
});

test('.nvmrc names a version that is supported', () => {
  expect(Number(read('.nvmrc'))).toBeGreaterThanOrEqual(Number(/>=(\d+)/.exec(engines.node)?.[1]));
});

test('the forms for issues are whole, and each field has a name of its own', () => {
  const folder = join(root, '.github', 'ISSUE_TEMPLATE');
  for (const file of readdirSync(folder).filter((name) => name !== 'config.yml')) {
    const form = parse(readFileSync(join(folder, file), 'utf8')) as {
      name: string;
      description: string;
      body: { type: string; id?: string; attributes: Record<string, unknown> }[];
    };
    expect([form.name, form.description].every(Boolean), file).toBe(true);
    const fields = form.body.filter(({ type }) => type !== 'markdown');
    expect(
      fields.every(({ id, attributes }) => id !== undefined && attributes.label !== undefined),
      file,
    ).toBe(true);
    expect(new Set(fields.map(({ id }) => id)).size, file).toBe(fields.length);
  }
});

test('each line of the changelog stands under a heading, and begins with what it concerns', () => {
  const versions = read('CHANGELOG.md').split(/^## /m).slice(1);
  expect(versions[0]).toMatch(/^Unreleased\n/);
  for (const version of versions) {
    const [, ...parts] = version.split(/^### /m);
    const headings = parts.map((part) => part.split('\n')[0] ?? '');
    const known = ['Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'];
    expect(headings).toEqual(known.filter((heading) => headings.includes(heading)));
    const lines = [...version.matchAll(/^- (.*)$/gm)].map(([, line = '']) => line);
    expect(lines.filter((line) => !/^[a-z][a-z ,-]*: /.test(line))).toEqual([]);
    expect(parts.join('').match(/^- /gm)?.length ?? 0).toBe(lines.length);
  }
});
