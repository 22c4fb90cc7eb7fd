import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { type Config, ConfigError, type Environment, type LoadOptions, loadConfig } from '../../src/config.ts';
import { defineProvider, type Provider } from '../../src/providers/provider.ts';
import { secretText } from '../../src/secret.ts';

/** `${env:NAME}` and `${file:PATH}`, written so that nobody takes them for a template of ours. */
export const fromEnv = (name: string): string => `\${env:${name}}`;
export const fromFile = (path: string): string => `\${file:${path}}`;

const nothingToDo = (): never => {
  throw new Error('no test of the configuration makes a call');
};

function adapter(name: string): Provider {
  return defineProvider({
    adapter: name,
    displayName: name,
    effect: 'money',
    credentials: z.strictObject({
      merchant: z.string().min(1),
      key: secretText,
      pin: z
        .string()
        .refine((pin) => /^\d+$/.test(pin), { error: ({ input }) => `must be digits, and ${input} is not` })
        .optional(),
    }),
    options: z.strictObject({
      mode: z.enum(['plain', 'signed']).default('plain'),
      callback: z
        .union([z.literal('none'), z.strictObject({ header: z.string(), bits: z.int().min(128).max(512) })])
        .default('none'),
      paths: z.strictObject({ verify: z.string().default('/verify') }).prefault({}),
    }),
    account: ({ merchant }) => merchant,
    check: ({ credentials, options }) =>
      options.mode === 'signed' && credentials.merchant === 'unsigned'
        ? `options.mode signed is not for this merchant (${credentials.key.reveal()})`
        : null,
    operations: {
      verify: {
        params: z.strictObject({}),
        takesOtp: true,
        reference: nothingToDo,
        plainParams: [],
        buildRequest: nothingToDo,
        interpret: nothingToDo,
      },
    },
  });
}

/** Two adapters with everything that an adapter's schema may have. */
export const registry: Readonly<Record<string, Provider>> = { acme: adapter('acme'), bolt: adapter('bolt') };

export const acme = (more: Record<string, unknown> = {}): Record<string, unknown> => ({
  adapter: 'acme',
  baseUrl: 'https://acme.example',
  credentials: { merchant: 'm-1', key: 'acme-key' },
  ...more,
});

/** The least that is a configuration, and whatever else is said. */
export const minimal = (more: Record<string, unknown> = {}): Record<string, unknown> => ({
  providers: { acme: acme() },
  ...more,
});

export function load(data: unknown, environment: Environment = {}, more: LoadOptions = {}): Config {
  return loadConfig({ data, environment, registry, baseDir: '/etc/otp', ...more });
}

export function errorOf(act: () => unknown): ConfigError {
  try {
    act();
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error('the configuration was accepted');
}

/** What is wrong with it, as `key: message`. */
export function faultsOf(data: unknown, environment: Environment = {}, more: LoadOptions = {}): string[] {
  return errorOf(() => load(data, environment, more)).faults.map(({ key, message }) => `${key}: ${message}`);
}

/** A folder of its own with these files in it. */
export function folder(files: Readonly<Record<string, string>>) {
  const path = mkdtempSync(join(tmpdir(), 'otp-config-'));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(path, name)), { recursive: true });
    writeFileSync(join(path, name), text);
  }
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
