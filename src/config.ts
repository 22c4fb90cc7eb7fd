/**
 * The configuration: what the sources say (config-sources.ts), judged by one schema (config-schema.ts) and by the rules that
 * hold between its parts (config-judgement.ts). It is accepted whole or refused whole, with every fault at once, and from
 * here on a secret is a Secret.
 */
import { inspect } from 'node:util';
import type { z } from 'zod';
import { type Bound, Judgement } from './config-judgement.ts';
import { configSchema } from './config-schema.ts';
import { at, ConfigError, type Environment, isMapping, mapping, readSources } from './config-sources.ts';
import { wording } from './config-wording.ts';
import { providers } from './providers/index.ts';
import type { BoundProvider, Provider } from './providers/provider.ts';
import type { Secret } from './secret.ts';

export { ConfigError, type Environment, type Fault } from './config-sources.ts';

/** What a process of the service can be; each role may have processes and machines of its own. */
export const ROLES = ['intake', 'worker', 'console'] as const;
export type Role = (typeof ROLES)[number];

export type Registry = Readonly<Record<string, Provider>>;

export interface LoadOptions {
  /** A YAML or JSON file; `OTP_CONFIG` when it is not given. */
  readonly file?: string | undefined;
  /** An object in the place of a file. */
  readonly data?: unknown;
  /** Where relative paths of `data` start; the working directory by default. */
  readonly baseDir?: string | undefined;
  /** The process's own by default, and nothing else reads that. */
  readonly environment?: Environment;
  readonly registry?: Registry;
}

type Immutable<T> =
  T extends Secret<infer V>
    ? Secret<V>
    : T extends readonly (infer E)[]
      ? readonly Immutable<E>[]
      : T extends object
        ? { readonly [K in keyof T]: Immutable<T[K]> }
        : T;

type Settings = Immutable<z.infer<ReturnType<typeof configSchema>>>;
type PartitionSettings = Settings['providers'][string];

/** A partition with its provider bound. Its credentials and options are inside `provider` and nowhere else. */
export interface Partition extends Omit<PartitionSettings, 'credentials' | 'options'> {
  /** Also the end of its queue's name, `otp-<name>`. */
  readonly name: string;
  /** Who we are at the provider, in public words. */
  readonly account: string;
  readonly provider: BoundProvider;
  readonly definition: Provider;
}

/** Without `redis` the embedded server is meant. */
export interface Config extends Omit<Settings, 'providers'> {
  readonly partitions: readonly Partition[];
  /** Null when an object was given. */
  readonly file: string | null;
  /** What `NODE_ENV` says; `production` when it says nothing. */
  readonly nodeEnv: string;
  /** Not wrong, and not wise either: each with its key. */
  readonly warnings: readonly string[];
}

/** The one reader of the configuration's files and of the environment. Throws a ConfigError that names every fault. */
export function loadConfig(options: LoadOptions = {}): Config {
  const { environment = process.env, registry = providers, ...source } = options;
  const sources = readSources({ ...source, environment });
  const { data, folder, file } = sources;

  const adapters = adaptersOf(data, registry);
  const schema = configSchema(adapters, folder);
  const parsed = schema.safeParse(data, { error: wording });
  const judgement = new Judgement(sources);
  if (!parsed.success) judgement.addIssues(parsed.error.issues, schema);
  const bound = judgement.bindPartitions(adapters, Object.keys(registry));
  judgement.compareParts();
  const faults = judgement.faults();
  if (!parsed.success || faults.length > 0) throw new ConfigError(faults, file);

  const { providers: settings, ...rest } = parsed.data;
  const partitions = Object.entries(settings).map(([name, given]) => partition(name, given, bound));
  const warnings = judgement.warnings();
  return { ...rest, partitions, file, nodeEnv: environment.NODE_ENV || 'production', warnings };
}

function partition(name: string, settings: PartitionSettings, bound: ReadonlyMap<string, Bound>): Partition {
  const { credentials: _, options: __, ...visible } = settings;
  const provider = bound.get(name);
  if (provider === undefined) throw new Error(`the partition ${name} passed every check and has no provider`);
  const made: Partition = { name, ...visible, ...provider };
  // Printed, a partition is its settings: the functions and schemas of its provider say nothing to a reader.
  const shown = { name, account: provider.account, ...visible };
  Object.defineProperty(made, 'toJSON', { value: () => shown });
  Object.defineProperty(made, inspect.custom, { value: () => shown });
  return made;
}

/** The provider of each partition that is named, as far as it can be known before anything is judged. */
function adaptersOf(data: unknown, registry: Registry): Record<string, Provider | undefined> {
  return Object.fromEntries(
    Object.entries(mapping(at(data, 'providers'))).map(([name, given]) => {
      const adapter = isMapping(given) ? (given.adapter ?? name) : name;
      return [name, typeof adapter === 'string' && Object.hasOwn(registry, adapter) ? registry[adapter] : undefined];
    }),
  );
}
