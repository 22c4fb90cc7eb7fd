/**
 * A page of the docs for each provider, made from what the code knows: the facts at the head of the provider's file, the
 * schemas of its keys and parameters, and every answer of its fixture with what is made of it.
 * `npx tsx test/providers/pages.ts` writes them; a test compares.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { providers } from '../../src/providers/index.ts';
import type { Finding, HttpResponse, Outcome, Provider } from '../../src/providers/provider.ts';
import { loadFixture } from './fixture.ts';

const root = new URL('../../', import.meta.url);

export const pageOf = (adapter: string): URL => new URL(`docs/providers/${adapter}.md`, root);

export function renderPage(adapter: string, provider: Provider): string {
  const fixture = loadFixture(adapter);
  const operations = Object.entries(provider.operations);
  return `${[
    `# ${provider.displayName}`,
    `Adapter \`${adapter}\`. ${provider.effect === 'money' ? 'A code that is accepted moves money.' : 'No money moves here.'}`,
    '## What is known',
    factsOf(adapter),
    '## Credentials',
    'Under `providers.<partition>.credentials`.',
    table(
      ['key', 'required'],
      keysOf(provider.credentials).map(({ key, required }) => [code(key), required ? 'yes' : 'no']),
    ),
    '## Options',
    'Under `providers.<partition>.options`.',
    table(
      ['key', 'default'],
      flatDefaults(provider.options.parse({})).map(([key, value]) => [code(key), code(JSON.stringify(value))]),
    ),
    '## Parameters',
    ...operations.flatMap(([name, operation]) => [
      `${code(name)}${operation.takesOtp ? ', with `otp`' : ', without an `otp`'}:`,
      table(
        ['in `params`', 'required'],
        keysOf(operation.params).map(({ key, required }) => [code(key), required ? 'yes' : 'no']),
      ),
    ]),
    '## What becomes of an answer',
    'Each of these is a case of the tests. *documented* is what the provider says, *inferred* is our reading, *made up* is',
    'what nobody has promised not to send.',
    table(
      ['operation', 'answer', 'known', '`otp`', '`transaction`', '`reason`'],
      fixture.responses.map(({ name, operation, source, response, outcome }) => [
        code(operation),
        `${answer(response)} ${escaped(name)}`,
        known(source),
        ...wordsOf(outcome),
      ]),
    ),
    ...(fixture.inquiries.length === 0
      ? []
      : [
          '## What an inquiry proves',
          '"Not paid" settles a payment only when it is said late enough, and twice; `nothing` and `pending` are asked again.',
          table(
            ['answer', 'known', 'proves'],
            fixture.inquiries.map(({ name, source, response, finding }) => [
              `${answer(response)} ${escaped(name)}`,
              known(source),
              proof(finding),
            ]),
          ),
        ]),
  ]
    .join('\n\n')
    .replaceAll('is\n\nwhat nobody', 'is\nwhat nobody')}\n`;
}

/** The comment at the head of the provider's file, as text. */
function factsOf(adapter: string): string {
  const [, comment = ''] =
    /^\/\*\*\n([\s\S]*?)\n \*\//.exec(readFileSync(new URL(`src/providers/${adapter}.ts`, root), 'utf8')) ?? [];
  const lines = comment.split('\n').map((line) => line.replace(/^ \* ?/, ''));
  return lines
    .map((line, index) => (line.startsWith('- ') && !/^(- | {2}|$)/.test(lines[index - 1] ?? '') ? `\n${line}` : line))
    .join('\n')
    .replace(/(?<!`)(https:\/\/[^\s,;]+[^\s,;.:])/g, '<$1>')
    .trim();
}

function keysOf(schema: z.ZodType): { key: string; required: boolean }[] {
  const described = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as {
    properties?: Record<string, unknown>;
    required?: string[];
    anyOf?: { properties?: Record<string, unknown>; required?: string[] }[];
  };
  const parts = described.properties ? [described] : (described.anyOf ?? []);
  const keys = [...new Set(parts.flatMap(({ properties = {} }) => Object.keys(properties)))];
  return keys.map((key) => ({ key, required: parts.every(({ required = [] }) => required.includes(key)) }));
}

function flatDefaults(value: unknown, at: readonly string[] = []): [string, unknown][] {
  if (typeof value !== 'object' || value === null) return [[at.join('.'), value]];
  return Object.entries(value).flatMap(([key, more]) => flatDefaults(more, [...at, key]));
}

function wordsOf(outcome: Outcome): [string, string, string] {
  switch (outcome.kind) {
    case 'accepted':
      return [code('accepted'), code(outcome.transaction), ''];
    case 'rejected':
      return [code('rejected'), code(outcome.transaction), outcome.reason === null ? '' : code(outcome.reason)];
    case 'refused':
      return [`refused before the code was read (${outcome.cause})`, '', ''];
    case 'unknown':
      return [code('unknown'), code('unknown'), code(outcome.reason)];
  }
  return outcome satisfies never;
}

function proof(finding: Finding): string {
  switch (finding.kind) {
    case 'paid':
      return 'paid';
    case 'not_paid':
      return 'not paid';
    case 'untouched':
      return 'the code was not used';
    case 'pending':
      return 'pending';
    case 'nothing':
      return 'nothing';
  }
  return finding satisfies never;
}

const answer = ({ status }: HttpResponse): string => `${status}:`;
const known = (source: string): string => /^(documented|inferred|made up|recorded|OAuth)/.exec(source)?.[0] ?? '';
const escaped = (text: string): string => text.replaceAll('|', '\\|');
const code = (text: string): string => `\`${text}\``;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return 'None.';
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [adapter, provider] of Object.entries(providers))
    writeFileSync(pageOf(adapter), renderPage(adapter, provider));
}
