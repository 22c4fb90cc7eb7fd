import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { providers } from '../../src/providers/index.ts';
import { pageOf, renderPage } from './pages.ts';

test.each(Object.entries(providers))('the page of %s says what the code does', (adapter, provider) => {
  expect(readFileSync(pageOf(adapter), 'utf8'), 'npx tsx test/providers/pages.ts writes it').toBe(
    renderPage(adapter, provider),
  );
});
