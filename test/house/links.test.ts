/** The pages that people read: each is found, each link leads somewhere. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { anchorsOf, linksOf } from './links.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

const pages = [
  ...readdirSync(root).filter((file) => file.endsWith('.md')),
  ...['docs', 'examples', '.github'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.md'))
      .map((file) => join(folder, file)),
  ),
];
const targetsOf = (page: string): string[] => linksOf(root, page).map(({ target }) => target);

test('every link leads to a file that is there, and to a heading that it has', () => {
  const links = pages.flatMap((page) => linksOf(root, page));
  expect(links.length).toBeGreaterThan(200);
  const broken = links.filter(
    ({ target, anchor }) =>
      !existsSync(join(root, target)) ||
      (anchor !== null && target.endsWith('.md') && !anchorsOf(root, target).has(anchor)),
  );
  expect(broken.map(({ page, link }) => `${page}: ${link}`)).toEqual([]);
});

test('every page of docs/ is two clicks at most from docs/README.md', () => {
  const clicks = new Map([['docs/README.md', 0]]);
  for (const [page, away] of clicks) {
    if (away === 2) continue;
    for (const target of targetsOf(page)) {
      if (target.startsWith('docs/') && target.endsWith('.md') && !clicks.has(target)) clicks.set(target, away + 1);
    }
  }
  expect(pages.filter((page) => page.startsWith('docs/') && !clicks.has(page))).toEqual([]);
});

test('the README leads to the index, and the index to those who may be asked', () => {
  expect(targetsOf('README.md')).toContain('docs/README.md');
  for (const page of ['CONTRIBUTING.md', 'SECURITY.md']) expect(targetsOf('docs/README.md')).toContain(page);
});
