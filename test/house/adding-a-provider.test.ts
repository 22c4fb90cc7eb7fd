/** docs/adding-a-provider.md, done to the letter in a copy of the project: its blocks are the files, its line the line. */
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { providers } from '../../src/providers/index.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const page = readFileSync(join(root, 'docs/adding-a-provider.md'), 'utf8');
const REGISTRY = 'src/providers/index.ts';

/** What the compiler and the suite read. */
const TREE = [
  ...['src', 'test/providers', 'test/config', 'docs/providers', 'docs/examples-config', 'docs/configuration.md'],
  ...['docs/redis.md', 'package.json', 'tsconfig.json', 'vitest.config.ts', 'biome.json', '.gitignore'],
];

let copy: string;
const files = [...page.matchAll(/<!-- file: (\S+) -->\n```\w+\n([\s\S]*?)```\n/g)].map(([, file = '', text = '']) => ({
  file,
  text,
}));

beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), 'otp-sixth-'));
  for (const part of TREE) cpSync(join(root, part), join(copy, part), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  for (const { file, text } of files) writeFileSync(join(copy, file), text);
  for (const [file, changed] of [
    [REGISTRY, withLine],
    ['docs/configuration.md', withRows],
  ] as const) {
    writeFileSync(join(copy, file), changed(readFileSync(join(root, file), 'utf8')));
  }
});

afterAll(() => rmSync(copy, { recursive: true, force: true }));

/** The registry with the page's line in it: import and entry each before the first one that comes after it. */
function withLine(registry: string): string {
  const [, text = ''] = /<!-- line: src\/providers\/index\.ts -->\n```ts\n([\s\S]*?)```\n/.exec(page) ?? [];
  const [importLine = '', entry = ''] = text.trimEnd().split('\n');
  const lines = registry.split('\n');
  const fileOf = (line: string): string => /from '(.*)'/.exec(line)?.[1] ?? '';
  const isLater = (line: string): boolean => line.startsWith('import ') && fileOf(line) > fileOf(importLine);
  lines.splice(lines.findIndex(isLater), 0, importLine);
  lines.splice(lines.indexOf('};'), 0, entry);
  return lines.join('\n');
}

/** The page of the configuration with the page's rows at the end of the table of adapters. */
function withRows(configuration: string): string {
  const [, rows = ''] = /<!-- rows: docs\/configuration\.md -->\n```md\n([\s\S]*?)```\n/.exec(page) ?? [];
  const last = configuration.split('\n').findLast((line) => line.startsWith('| cepta |')) ?? '';
  return configuration.replace(`${last}\n`, `${last}\n${rows}`);
}

/** What it said, and whether it went well. */
async function run(program: string, ...args: string[]): Promise<{ ok: boolean; said: string }> {
  const ended = promisify(execFile)(process.execPath, [join(root, 'node_modules', program), ...args], { cwd: copy });
  return await ended.then(
    ({ stdout }) => ({ ok: true, said: stdout }),
    ({ stdout, stderr }) => ({ ok: false, said: `${stdout}${stderr}` }),
  );
}

test('the page has the source, the fixture and the line of a provider that is not there yet', () => {
  expect(files.map(({ file }) => file)).toEqual([
    'src/providers/example-pay.ts',
    'test/providers/example-pay.fixture.json',
  ]);
  expect(providers).not.toHaveProperty('example-pay');
});

test('with them the project compiles, is clean, and passes the conformance suite', async () => {
  const written = await run('tsx/dist/cli.mjs', 'test/providers/pages.ts');
  expect(written, written.said).toMatchObject({ ok: true });
  const chosen = ['test/providers/conformance', 'test/providers/pages', 'test/config/documentation'];
  const [types, style, suite] = await Promise.all([
    run('typescript/bin/tsc', '--noEmit', '-p', 'tsconfig.json'),
    run('@biomejs/biome/bin/biome', 'check', REGISTRY, ...files.map(({ file }) => file)),
    run('vitest/vitest.mjs', 'run', ...chosen, '-t', 'example-pay|the table of keys', '--reporter=json'),
  ]);
  expect(types, types.said).toMatchObject({ ok: true });
  expect(style, style.said).toMatchObject({ ok: true });
  expect(suite, suite.said).toMatchObject({ ok: true });
  const { testResults } = JSON.parse(suite.said) as Report;
  const passed = testResults.flatMap(({ assertionResults }) =>
    assertionResults.flatMap(({ fullName, status }) => (status === 'passed' ? [fullName] : [])),
  );
  expect(passed.filter((name) => name.startsWith('example-pay ')).length).toBeGreaterThan(30);
  expect(passed).toContain('the page of example-pay says what the code does');
  expect(passed).toContain('the table of keys has every credential and option of every adapter, with its default');
}, 120_000);

interface Report {
  readonly testResults: readonly {
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[];
  }[];
}
