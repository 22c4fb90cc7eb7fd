import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { loadConfig } from '../../src/config.ts';
import { configSchema } from '../../src/config-schema.ts';
import { bare } from '../../src/config-wording.ts';
import { providers } from '../../src/providers/index.ts';
import { folder, load, minimal } from './world.ts';

const read = (path: string): string =>
  readFileSync(fileURLToPath(new URL(`../../docs/${path}`, import.meta.url)), 'utf8');
const page = read('configuration.md');
const example = read('examples-config/otp.yaml');

/** The rows of all tables, with their cells; a key stands in backticks. */
const rows = page
  .split('\n')
  .filter((line) => line.startsWith('| '))
  .map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
const unquoted = (cell: string | undefined): string => (cell ?? '').replace(/^`|`$/g, '');

const keyRows = rows.filter(([key]) =>
  /^`(redis|embedded|intake|console|log|tracing|clients|sealing|results|journal|shutdown|providers)[.[`]/.test(
    key ?? '',
  ),
);
const adapterRows = rows.filter(([adapter]) => Object.hasOwn(providers, adapter ?? ''));

/** Every key of a schema, by the name that the page gives it. What only forbids is none. */
function keysOf(schema: z.core.$ZodType, path = ''): string[] {
  const here = bare(schema);
  if (here instanceof z.ZodNever) return [];
  if (here instanceof z.ZodObject) {
    const inner = Object.entries(here.shape).flatMap(([name, member]) =>
      keysOf(member as z.core.$ZodType, path === '' ? name : `${path}.${name}`),
    );
    // A key that may be missing as a whole, and may come as text, is a key by itself too.
    return path.endsWith('resultsKey') ? [path, ...inner] : inner;
  }
  if (here instanceof z.ZodArray && bare(here.element) instanceof z.ZodObject) {
    return [path, ...keysOf(here.element, `${path}[]`)];
  }
  return [path];
}

const value = (from: unknown, path: readonly string[]): unknown =>
  path.reduce((here, name) => (here as Record<string, unknown> | undefined)?.[name], from);

describe('the table of keys', () => {
  it('has every key that the schema knows, and no other', () => {
    const known = keysOf(configSchema({ '<partition>': undefined }));
    const documented = keyRows.map(([key]) => unquoted(key));
    expect(documented.toSorted()).toEqual(known.toSorted());
  });

  it('has the default of every key', () => {
    const config = load(minimal());
    const [partition] = config.partitions;
    const withDefault = keyRows.filter(([, fallback]) => fallback?.startsWith('`'));
    for (const [key, fallback] of withDefault) {
      const path = unquoted(key).split('.');
      if (path.at(-1) === 'options') continue; // compared below, key by key
      const found = path[0] === 'providers' ? value(partition, path.slice(2)) : value(config, path);
      const shown = typeof found === 'string' && found.startsWith('/') ? relative('/etc/otp', found) : found;
      expect([key, shown]).toEqual([key, JSON.parse(unquoted(fallback))]);
    }
    expect(withDefault.length).toBeGreaterThan(25);
  });

  it('calls a key required exactly where its absence is a fault', () => {
    const schema = configSchema({ '<partition>': providers.cepta });
    const required = keyRows.filter(([, fallback]) => fallback === 'required').map(([key]) => unquoted(key));
    const empty = {
      clients: [{}, { resultsKey: {} }],
      console: { users: [{}] },
      results: { webhooks: [{}] },
      providers: { '<partition>': {} },
    };
    const missing = schema.safeParse(empty).error?.issues.map(({ path }) =>
      path
        .map((part) => (typeof part === 'number' ? '[]' : `.${String(part)}`))
        .join('')
        .slice(1)
        .replace(/credentials\..*/, 'credentials'),
    );
    expect([...new Set(missing)].toSorted()).toEqual(required.toSorted());
  });

  it('has every credential and option of every adapter, with its default', () => {
    for (const [name, { credentials, options }] of Object.entries(providers)) {
      const schema = z.strictObject({ credentials, options });
      const documented = adapterRows.filter(([adapter]) => adapter === name);
      expect([name, ...documented.map(([, key]) => unquoted(key)).toSorted()]).toEqual([
        name,
        ...keysOf(schema).toSorted(),
      ]);
      const parsed = { options: options.parse({}) };
      for (const [, key, fallback] of documented.filter(([, , fallback]) => fallback?.startsWith('`'))) {
        expect([name, key, value(parsed, unquoted(key).split('.'))]).toEqual([
          name,
          key,
          JSON.parse(unquoted(fallback)),
        ]);
      }
      const required = documented.filter(([, , fallback]) => fallback === 'required').map(([, key]) => unquoted(key));
      const missing = credentials.safeParse({}).error?.issues.map(({ path }) => `credentials.${path.join('.')}`) ?? [];
      expect(required.toSorted()).toEqual(missing.toSorted());
    }
  });

  it('marks every secret of the adapters as one', () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
    for (const [name, { credentials }] of Object.entries(providers)) {
      const keys = adapterRows.flatMap(([adapter, key, , meaning]) =>
        adapter === name && key?.startsWith('`credentials.')
          ? [{ key: unquoted(key).replace('credentials.', ''), secret: meaning?.startsWith('secret') ?? false }]
          : [],
      );
      const given = Object.fromEntries(keys.map(({ key }) => [key, key === 'privateKey' ? pem : 'given']));
      const parsed = credentials.parse(given) as Record<string, unknown>;
      for (const { key, secret } of keys) {
        expect([name, key, JSON.stringify(parsed[key]) === '"[secret]"']).toEqual([name, key, secret]);
      }
    }
  });
});

describe('the example', () => {
  it('on the page is the file, to the letter', () => {
    expect(page).toContain(`\`\`\`yaml\n${example}\`\`\`\n`);
  });

  it('is a valid configuration that says every section', () => {
    const variables = [...example.matchAll(/\$\{env:(\w+)\}/g)].map(([, name]) => name as string);
    const environment: Record<string, string> = Object.fromEntries(
      variables.filter((name) => name !== 'NAME').map((name) => [name, `value-of-${name}`]),
    );
    environment.OTP_REDIS_URL = 'redis://redis.example:6379';
    environment.WALLET_WEBHOOK_SECRET = `whsec_${Buffer.from('a secret of the tests, of 32 bytes').toString('base64')}`;
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    using files = folder({
      'otp.yaml': example,
      'secrets/ayoconnect-private-key.pem': privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    });

    const config = loadConfig({ file: `${files.path}/otp.yaml`, environment });

    expect(config.partitions.map(({ name, adapter }) => `${name}: ${adapter}`)).toEqual([
      'cepta: cepta',
      'beqelal: beqelal',
      'hello-clever-ghana: hello-clever',
      'hello-clever-kenya: hello-clever',
      'lipa-later: lipa-later',
      'ayoconnect: ayoconnect',
    ]);
    expect(config.clients.map(({ id }) => id)).toEqual(['shop', 'wallet']);
    expect(config.console.users[0]?.password.reveal()).toBe('value-of-OTP_CONSOLE_PASSWORD');
    const sections = Object.keys(configSchema({}).shape);
    expect(sections.filter((section) => !new RegExp(`^${section}:`, 'm').test(example))).toEqual([]);
  });

  it('names every variable that is missing', () => {
    using files = folder({ 'otp.yaml': example });
    const load = () => loadConfig({ file: `${files.path}/otp.yaml`, environment: {} });
    expect(load).toThrow(/clients\[0\]\.apiKey: the environment variable SHOP_API_KEY is not set/);
    expect(load).toThrow(/providers\.ayoconnect\.credentials\.privateKey: the file .*private-key\.pem cannot be read/);
  });
});

describe('the examples of docs/redis.md', () => {
  const examples = [...read('redis.md').matchAll(/```yaml\n(redis:\n[\s\S]*?)```/g)].map(([, text = '']) => text);

  it.each(examples)('%s', (text) => {
    using files = folder({ 'redis-ca.pem': '', 'otp.pem': '', 'otp.key': '' });
    const environment = { REDIS_PASSWORD: 'one password', SENTINEL_PASSWORD: 'another password' };
    const { redis } = parse(text) as { redis: Record<string, unknown> };
    const config = load(minimal({ redis }), environment, { baseDir: files.path });
    expect(Object.keys(config.redis ?? {}).toSorted()).toEqual(Object.keys(redis).toSorted());
    expect(config.warnings).toEqual([]);
  });

  it('are one of each kind, and one with a prefix', () => {
    expect(examples).toHaveLength(4);
  });
});
