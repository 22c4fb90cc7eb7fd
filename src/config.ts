/**
 * The configuration: what the sources say (config-sources.ts), judged by one schema and by the rules that hold between
 * its parts. It is accepted whole or refused whole, with every fault at once, and from here on a secret is a Secret.
 */
import { accessSync, constants } from 'node:fs';
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { urlToHttpOptions } from 'node:url';
import { inspect } from 'node:util';
import { z } from 'zod';
import {
  ConfigError,
  type Environment,
  type Fault,
  isMapping,
  isWithin,
  keyOf,
  type Path,
  readFault,
  readSources,
  type Sources,
} from './config-sources.ts';
import { providers } from './providers/index.ts';
import type { BoundProvider, Provider } from './providers/provider.ts';
import { Secret, secretText } from './secret.ts';
import {
  API_KEY_MIN_LENGTH,
  apiKeyFormProblem,
  apiKeyHash,
  isApiKeyHash,
  isPasswordHash,
  PASSWORD_MIN_LENGTH,
  passwordHashProblem,
} from './secret-hashes.ts';

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

// ---- the schema -----------------------------------------------------------------------------------------------------

/** What a reference or an environment variable brings is text, also where a number is wanted. */
const numberOfDigits = (value: unknown): unknown =>
  typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : value;

const whole = (expected: string, minimum: number, maximum = Number.MAX_SAFE_INTEGER) =>
  z.preprocess(numberOfDigits, z.int(expected).min(minimum, expected).max(maximum, expected));

/** A longer time would make a timer of Node fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const count = whole('must be a positive integer', 1);
const milliseconds = whole('must be a positive integer (milliseconds)', 1);
const WEEK_MS = 604_800_000;
const upToAWeek = whole(`must be 1 to ${WEEK_MS} (milliseconds; a week)`, 1, WEEK_MS).default(WEEK_MS);
const timer = whole(
  `must be a positive integer (milliseconds), at most ${LONGEST_TIMER_MS} (24 days)`,
  1,
  LONGEST_TIMER_MS,
);
const port = whole('must be a port number: 0 to 65535, 0 takes any that is free', 0, 65_535);
const rate = (max: number, perMs: number) =>
  z.strictObject({ max: count.default(max), perMs: milliseconds.default(perMs) }).prefault({});

const PARTITION_NAME = /^[a-z0-9][a-z0-9-]{0,39}$/;
const CLIENT_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const HOST_AND_PORT = /^(\[[0-9A-Fa-f:.]+\]|[^\s:/@[\]]+):\d{1,5}$/;

/** From here on only the hash is known, whether the key or its hash stands in the configuration. */
const apiKey = z
  .string()
  .regex(/^[!-~]+$/, 'must be visible ASCII characters without a space: it travels in a header')
  .superRefine(asIssue(apiKeyFormProblem))
  .transform((text) => new Secret(apiKeyHash(text)));

/** As it is, or as `otp keys password` prints it. */
const password = z
  .string()
  .min(1)
  .superRefine(asIssue(passwordHashProblem))
  .transform((text) => new Secret(text));

function asIssue(problemOf: (text: string) => string | null) {
  return (text: string, context: z.RefinementCtx): void => {
    const message = problemOf(text);
    if (message !== null) context.addIssue({ code: 'custom', message });
  };
}

const isLoopback = (hostname: string): boolean =>
  hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname);

/** Why an address is refused, or null. The address itself may hold a secret and is never repeated. */
function webAddressFault(text: string, { query }: { query: 'allowed' | 'refused' }): string | null {
  if (!URL.canParse(text)) return 'must be an absolute URL that begins with https://';
  const url = new URL(text);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return 'must be a URL that begins with https://';
  if (url.username || url.password) return 'must have no user name or password in it';
  if (text.includes('#') || (query === 'refused' && text.includes('?'))) {
    return query === 'refused' ? 'must have no query (?) and no fragment (#)' : 'must have no fragment (#)';
  }
  if (url.protocol === 'http:' && !isLoopback(url.hostname)) {
    return 'must begin with https:// (plain http only to this machine: 127.0.0.0/8, localhost, ::1)';
  }
  return null;
}

const webAddress = (rules: { query: 'allowed' | 'refused' }) =>
  z.string().superRefine((text, context) => {
    const message = webAddressFault(text, rules);
    if (message !== null) context.addIssue({ code: 'custom', message });
  });

const baseUrl = webAddress({ query: 'refused' }).transform((text) => new URL(text).href.replace(/\/+$/, ''));

const proxy = z
  .string()
  .superRefine(asIssue(proxyProblem))
  .transform((text) => new Secret(text));

function proxyProblem(text: string): string | null {
  try {
    const url = new URL(text);
    urlToHttpOptions(url); // throws where user or password cannot be decoded
    if (url.protocol === 'http:' && url.pathname === '/' && !/[?#]/.test(text)) return null;
  } catch {
    // said below
  }
  return 'must be http://host:port, with user:password@ before the host where the proxy asks for them';
}

/** `0x7f.1` and `10.0.0.256` look like host names, and no URL has such a host. */
const isHostOfUrl = (name: string): boolean =>
  URL.canParse(`http://${name}`) && isIP(new URL(`http://${name}`).hostname) === 0;

const destination = z.union([z.hostname().refine(isHostOfUrl), z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()], {
  error: 'must be a host name, an address or a range of addresses such as 10.0.0.0/8',
});

/** `${file:shop.jwk.json}` brings a JSON text. What is no JSON stays text, and the schema says what it should be. */
function objectOfJson(value: unknown): unknown {
  if (typeof value !== 'string') return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

const publicKey = z.preprocess(
  objectOfJson,
  z.strictObject({
    kty: z.literal('OKP'),
    crv: z.literal('X25519'),
    x: z.string().regex(/^[A-Za-z0-9_-]{43}$/, 'must be the 32 bytes of the public key in base64url (43 characters)'),
    kid: z.string().min(1),
    use: z.literal('enc').exactOptional(),
    alg: z.string().min(1).exactOptional(),
    iat: z.number().exactOptional(),
    d: z.never('must not be here: it is the private half, which only the client may have').exactOptional(),
  }),
);

const tracing = z.strictObject({
  endpoint: z
    .url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL, with the path of the collector' })
    .exactOptional(),
  headers: z
    .record(
      z.string(),
      z.string().transform((text) => new Secret(text)),
    )
    .default({}),
  serviceName: z.string().min(1).default('otp-pipeline'),
  sampleRatio: z
    .number('must be a number from 0 to 1')
    .min(0, 'must be 0 or more')
    .max(1, 'must be 1 at most')
    .default(1),
});

const hostAndPort = z.string().regex(HOST_AND_PORT, 'must be host:port');
const REDIS_KINDS = ['url', 'cluster', 'sentinels'] as const;

interface AnyRedis {
  readonly namePrefix?: string;
  readonly username?: string;
  readonly password?: Secret<string>;
  readonly tls?: { readonly caFile?: string; readonly certFile?: string; readonly keyFile?: string };
}
interface OneServer extends AnyRedis {
  readonly url: Secret<string>;
}
interface Cluster extends AnyRedis {
  readonly cluster: readonly string[];
}
interface Sentinels extends AnyRedis {
  readonly sentinels: readonly string[];
  readonly name: string;
  readonly sentinelUsername?: string;
  readonly sentinelPassword?: Secret<string>;
}
export type RedisSettings = OneServer | Cluster | Sentinels;

/** Without a dash, so that no two installations can make the same hash tag, and none that looks like one without a prefix. */
const namePrefix = z
  .string()
  .regex(/^[a-z0-9]{1,20}$/, 'must be 1 to 20 of a-z and 0-9')
  .refine((text) => text !== 'otp' && text !== 'idem', 'must be neither otp nor idem, with which the names begin');

/** `when` runs a rule although another key is at fault: a fault must not hide the next one. */
const always = { when: () => true };

/** Whom to trust, and who we say we are. */
const clientTls = (filePath: z.ZodType<string>) =>
  z
    .strictObject({
      caFile: filePath.exactOptional(),
      certFile: filePath.exactOptional(),
      keyFile: filePath.exactOptional(),
    })
    .refine((given) => !isMapping(given) || 'certFile' in given === 'keyFile' in given, {
      ...always,
      error: 'must have certFile and keyFile together, or neither',
    });

const redisSchema = (filePath: z.ZodType<string>) =>
  z
    .strictObject({
      url: z
        .string()
        .refine((text) => URL.canParse(text) && /^rediss?:$/.test(new URL(text).protocol), {
          error: 'must be a URL that begins with redis:// or rediss://',
        })
        .transform((text) => new Secret(text))
        .exactOptional(),
      cluster: z.array(hostAndPort).min(1, 'must name at least one host:port').exactOptional(),
      sentinels: z.array(hostAndPort).min(1, 'must name at least one host:port').exactOptional(),
      name: z.string().min(1).exactOptional(),
      username: z.string().min(1).exactOptional(),
      password: secretText.exactOptional(),
      sentinelUsername: z.string().min(1).exactOptional(),
      sentinelPassword: secretText.exactOptional(),
      tls: clientTls(filePath).exactOptional(),
      namePrefix: namePrefix.exactOptional(),
    })
    .refine((given) => !isMapping(given) || REDIS_KINDS.filter((kind) => kind in given).length === 1, {
      ...always,
      error: 'must have exactly one of url, cluster and sentinels',
    })
    .refine((given) => !isMapping(given) || 'sentinels' in given === 'name' in given, {
      ...always,
      path: ['name'],
      error: 'must go with sentinels, and only with them: it is the name of the group that they watch',
    })
    .superRefine((given, context) => {
      if (!isMapping(given)) return;
      const fault = (path: string, message: string): void =>
        context.addIssue({ code: 'custom', path: [path], message });
      for (const name of ['sentinelUsername', 'sentinelPassword'].filter((key) => key in given)) {
        if (!('sentinels' in given)) fault(name, 'must go with sentinels');
      }
      if ('username' in given && !('password' in given)) fault('username', 'must go with a password');
      const url = given.url instanceof Secret ? String(given.url.reveal()) : null;
      if (url === null || !URL.canParse(url)) return;
      const { protocol, username, password } = new URL(url);
      if ((username || password) && 'password' in given) fault('password', 'must not be here: the url has one already');
      if (protocol === 'redis:' && 'tls' in given) fault('tls', 'must go with a url that begins with rediss://');
    })
    .transform(({ url, cluster, sentinels, name, ...more }, context): RedisSettings => {
      const { sentinelUsername, sentinelPassword, ...shared } = more;
      if (url !== undefined) return { url, ...shared };
      if (cluster !== undefined) return { cluster, ...shared };
      if (sentinels !== undefined && name !== undefined) return { sentinels, name, ...more };
      context.addIssue({ code: 'custom', message: 'must have one of url, cluster and sentinels' });
      return z.NEVER;
    });

const client = z.strictObject({
  id: z.string().regex(CLIENT_ID, 'must be 1 to 64 letters, digits, dots, dashes and underscores'),
  apiKey,
  providers: z
    .array(z.string())
    .min(1, 'must name at least one partition; without this key all are allowed')
    .exactOptional(),
  resultsKey: publicKey.exactOptional(),
  resultsQueue: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/, 'must be letters, digits, dots, dashes and underscores')
    .exactOptional(),
  rateLimit: z.strictObject({ max: count, perMs: milliseconds.default(1000) }).exactOptional(),
  maxInFlight: count.default(1000),
});

const consoleUser = z.strictObject({
  name: z.string().regex(/^[^:\s]+$/, 'must have no colon and no space'),
  password,
});

const webhook = z.strictObject({
  client: z.string().min(1),
  url: webAddress({ query: 'allowed' }),
  secret: z
    .string()
    .regex(/^whsec_(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$/, {
      error: 'must be whsec_ and then base64',
    })
    .transform((value) => new Secret(value)),
});

const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
const INQUIRY_DELAYS_MS = [10_000, 30_000, 60_000, 120_000, 300_000, 900_000, 3_600_000];

const breaker = z
  .strictObject({
    enabled: z.boolean().default(true),
    failures: count.default(5),
    share: z.number().gt(0, 'must be above 0').max(1, 'must be 1 at most').default(0.5),
    windowMs: timer.default(60_000),
    openMs: timer.default(5_000),
    maxOpenMs: timer.default(60_000),
    rampMs: timer.default(10_000),
  })
  .refine((given) => given.openMs <= given.maxOpenMs, {
    path: ['maxOpenMs'],
    error: 'must not be below openMs',
  });

/** One partition. The adapter brings the schemas of its own two keys; an unknown one is reported elsewhere. */
function partitionSchema(name: string, adapter: Provider | undefined, filePath: z.ZodType<string>) {
  return z.strictObject({
    adapter: z.string().default(name),
    baseUrl,
    credentials: (adapter?.credentials ?? z.unknown()).prefault({}),
    options: (adapter?.options ?? z.unknown()).prefault({}),
    rateLimit: rate(20, 1000),
    inquiryRateLimit: rate(5, 1000),
    concurrency: count.default(50),
    timeoutMs: timer.default(30_000),
    otpLifetimeMs: milliseconds.default(300_000),
    maxQueueMs: milliseconds.exactOptional(),
    maxAttempts: count.default(3),
    inquiry: z
      .strictObject({
        delaysMs: z.array(timer).min(1, 'must have at least one delay').default(INQUIRY_DELAYS_MS),
        giveUpAfterMs: milliseconds.default(86_400_000),
      })
      .prefault({}),
    breaker: breaker.prefault({}),
    proxy: proxy.exactOptional(),
    tls: clientTls(filePath).exactOptional(),
  });
}

/**
 * Every key that is known. `adapters` is the provider of each partition (undefined: its adapter is not known), so that
 * credentials and options are judged in the same pass as everything else.
 */
export function configSchema(adapters: Readonly<Record<string, Provider | undefined>>, folder = '.') {
  const filePath = z
    .string()
    .min(1)
    .transform((path) => resolve(folder, path));
  const serverTls = z.strictObject({ certFile: filePath, keyFile: filePath });
  const partitions: Record<string, ReturnType<typeof partitionSchema>> = Object.fromEntries(
    Object.entries(adapters).map(([name, adapter]) => [name, partitionSchema(name, adapter, filePath)]),
  );
  return z.strictObject({
    redis: redisSchema(filePath).exactOptional(),
    embedded: z.strictObject({ dataDir: filePath.prefault('.data/redis') }).prefault({}),
    intake: z
      .strictObject({
        host: z.string().min(1).default('127.0.0.1'),
        port: port.default(3000),
        tls: serverTls.exactOptional(),
      })
      .prefault({}),
    console: z
      .strictObject({
        host: z.string().min(1).default('127.0.0.1'),
        port: port.default(3001),
        tls: serverTls.exactOptional(),
        users: z.array(consoleUser).default([]),
      })
      .prefault({}),
    clients: z.array(client).default([]),
    sealing: z
      .strictObject({
        keyFile: filePath.prefault('.data/sealing-keys.json'),
        detailsKeyFile: filePath.prefault('.data/details-keys.json'),
        reuseEphemeralKey: z
          .strictObject({
            forMs: whole('must be 1 to 3600000 (milliseconds; an hour)', 1, 3_600_000).default(60_000),
            messages: whole('must be 1 to 1048576', 1, 2 ** 20).default(2 ** 20),
          })
          .exactOptional(),
      })
      .refine(({ keyFile, detailsKeyFile }) => keyFile !== detailsKeyFile, {
        path: ['detailsKeyFile'],
        error: 'must be another file than keyFile: its keys open no codes',
      })
      .prefault({}),
    results: z
      .strictObject({
        webhooks: z.array(webhook).default([]),
        webhookAllow: z.array(destination).default([]),
        retentionMs: upToAWeek,
      })
      .prefault({}),
    journal: z
      .strictObject({
        waitReplicas: z
          .preprocess(
            numberOfDigits,
            z.union([z.literal('auto'), z.int().min(0)], { error: 'must be auto or a number of replicas (0 or more)' }),
          )
          .default('auto'),
        waitMs: timer.default(200),
        lossWindowMs: whole('must be 0 or a positive integer (milliseconds)', 0).default(2000),
        recoverMs: timer.default(5000),
        retentionMs: milliseconds.default(259_200_000),
        failedJobsMs: upToAWeek,
        auditMs: milliseconds.default(31_536_000_000),
      })
      .prefault({}),
    providers: z.strictObject(partitions).prefault({}),
    shutdown: z
      .strictObject({
        drainMs: whole('must be 0 to 60000 (milliseconds; a minute)', 0, 60_000).default(2000),
        attemptsMs: timer.exactOptional(),
      })
      .prefault({}),
    log: z.strictObject({ level: z.enum(LOG_LEVELS).default('info') }).prefault({}),
    tracing: tracing.prefault({}),
  });
}

// ---- what comes out -------------------------------------------------------------------------------------------------

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

export type ClientSettings = Settings['clients'][number];
export type WebhookSettings = Settings['results']['webhooks'][number];

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
  const bound = judgement.bindPartitions(adapters, registry);
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

// ---- the rules between the parts, and the words for what is wrong ---------------------------------------------------

interface Bound {
  readonly provider: BoundProvider;
  readonly definition: Provider;
  readonly account: string;
}

/** Its queue would be that of the results. */
const RESERVED_PARTITIONS: readonly string[] = ['results'];

/**
 * Collects faults. It looks at the data as it was given, not as it was parsed, so that it can judge every part that
 * is sound while another is not.
 */
class Judgement {
  readonly #sources: Sources;
  readonly #faults = new Map<string, Set<string>>();
  readonly #secrets: readonly string[];

  constructor(sources: Sources) {
    this.#sources = sources;
    this.#secrets = textsOf(
      Object.values(mapping(at(sources.data, 'providers'))).map((given) => at(given, 'credentials')),
    );
    for (const { key, message } of sources.faults) this.#faults.set(key, new Set([message]));
  }

  /** In the order of the keys, each said once. */
  faults(): Fault[] {
    return [...this.#faults]
      .flatMap(([key, messages]) => [...messages].map((message) => ({ key, message })))
      .sort((a, b) => a.key.localeCompare(b.key, 'en', { numeric: true }));
  }

  #add(path: Path, message: string): void {
    const key = keyOf(path);
    // What could not be had is already reported; that it also has the wrong type is no news.
    if (this.#sources.faults.some((fault) => isWithin(key, fault.key))) return;
    const known = this.#faults.get(key) ?? new Set();
    this.#faults.set(key, known.add(message));
  }

  addIssues(issues: readonly z.core.$ZodIssue[], schema: z.ZodType): void {
    for (const issue of issues) {
      if (issue.code === 'unrecognized_keys') {
        const known = knownKeys(schema, issue.path);
        for (const name of issue.keys) {
          this.#add([...issue.path, nameToShow(name, issue.path, known)], unknownKey(name, known));
        }
      } else if (issue.code === 'invalid_union' && issue.errors.length > 0 && issue.message === NO_ALTERNATIVE) {
        // The alternative that comes nearest is the one that was meant.
        const [nearest = []] = [...issue.errors].sort((a, b) => a.length - b.length);
        this.addIssues(
          nearest.map((inner) => ({ ...inner, path: [...issue.path, ...inner.path] })),
          schema,
        );
      } else {
        this.#add(issue.path, this.#withGiven(issue));
      }
    }
  }

  #withGiven({ message, path, code }: z.core.$ZodIssue): string {
    const text = this.#withoutSecrets(message);
    const value = at(this.#sources.data, ...path);
    if (value === undefined) return `${text}, but is missing`;
    const mapped = typeof value === 'object' && value !== null && code === 'custom';
    return mapped ? text : `${text}, got ${this.#describe(path, value)}`;
  }

  /** What came, without ever repeating what may be a secret: by its key, by where it came from, or by its look. */
  #describe(path: Path, value: unknown): string {
    if (value === null) return 'nothing';
    if (Array.isArray(value)) return 'a list';
    if (typeof value === 'object') return 'a mapping';
    if (value === '') return 'an empty text';
    const type = typeof value === 'string' ? 'text' : `a ${typeof value}`;
    if (
      path.some((part) =>
        /^credentials$|^url$|^proxy$|^resultsKey$|apiKey|password|secret|token|privateKey/i.test(String(part)),
      )
    ) {
      return type;
    }
    const origin = this.#sources.origins.get(keyOf(path));
    if (origin !== undefined) return origin;
    // Several words may be several lines of the file, run together by a sign that is missing.
    const shown = JSON.stringify(value) ?? type;
    return path.length === 0 || shown.length > 80 || /[@?#\s\\{}]|(?<!^)"(?!$)/.test(shown) ? type : shown;
  }

  /** An adapter writes its own messages; whatever they say, no text of the credentials leaves with them. */
  #withoutSecrets(message: string): string {
    return this.#secrets.reduce((text, secret) => text.replaceAll(secret, '[secret]'), message);
  }

  /** Binds every partition whose own parts are sound, and compares who they are. */
  bindPartitions(
    adapters: Readonly<Record<string, Provider | undefined>>,
    registry: Registry,
  ): ReadonlyMap<string, Bound> {
    const bound = new Map<string, Bound>();
    const accounts = new Map<string, string>();
    const names = Object.keys(adapters);
    const given = at(this.#sources.data, 'providers');
    if (names.length === 0 && (given === undefined || isMapping(given))) {
      this.#add(['providers'], 'must name at least one partition');
    }
    for (const name of names) {
      const path = ['providers', name];
      if (!PARTITION_NAME.test(name)) {
        this.#add(path, 'a partition is named by 1 to 40 of a-z, 0-9 and -, and begins with a letter or a digit');
      } else if (
        RESERVED_PARTITIONS.includes(name) ||
        name.startsWith('webhook-') ||
        names.some((other) => name === `${other}-inquiry`)
      ) {
        this.#add(path, `cannot be the name of a partition: the queue otp-${name} is in use for something else`);
      }
      const settings = at(given, name);
      if (!isMapping(settings)) continue;
      this.#checkFiles([...path, 'tls'], settings.tls);
      if (settings.proxy !== undefined && /^\s*http:/i.test(String(settings.baseUrl))) {
        this.#add([...path, 'proxy'], 'must go with an https:// baseUrl: the proxy would read the codes');
      }
      const definition = adapters[name];
      if (definition === undefined) {
        this.#unknownAdapter(path, settings, registry);
        continue;
      }
      const context = contextOf(definition, settings);
      if (context === null) continue;
      try {
        const account = definition.account(context.credentials);
        bound.set(name, { definition, account, provider: definition.bind(context) });
        const whoAndWhere = JSON.stringify([definition.adapter, context.baseUrl, account]);
        const other = accounts.get(whoAndWhere);
        accounts.set(whoAndWhere, other ?? name);
        if (other !== undefined && context.baseUrl !== NO_ADDRESS) {
          this.#add(path, `is the adapter, baseUrl and account of ${keyOf(['providers', other])} again`);
        }
      } catch (error) {
        this.#add(path, this.#withoutSecrets(error instanceof Error ? error.message : 'its adapter refuses it'));
      }
    }
    return bound;
  }

  #unknownAdapter(path: Path, settings: Record<string, unknown>, registry: Registry): void {
    const adapter = settings.adapter ?? path.at(-1);
    if (typeof adapter !== 'string') return; // the schema says so
    if (settings.adapter === undefined && !PARTITION_NAME.test(adapter)) return; // its name is the fault
    const known = Object.keys(registry).join(', ');
    const what = this.#describe([...path, 'adapter'], adapter);
    const why = settings.adapter === undefined ? ' (the name of the partition)' : '';
    this.#add([...path, 'adapter'], `must be one of ${known}; got ${what}${why}`);
  }

  #checkFiles(path: Path, tls: unknown): void {
    for (const name of ['caFile', 'certFile', 'keyFile']) {
      const file = at(tls, name);
      if (typeof file !== 'string' || file === '') continue; // the schema says so
      try {
        accessSync(resolve(this.#sources.folder, file), constants.R_OK);
      } catch (error) {
        const filePath = [...path, name];
        this.#add(filePath, `must be a readable file: ${readFault(error)}, got ${this.#describe(filePath, file)}`);
      }
    }
  }

  /** The rules that hold between two keys, wherever both are there. */
  compareParts(): void {
    const { data } = this.#sources;
    const clients = list(at(data, 'clients'));
    const named = Object.keys(mapping(at(data, 'providers')));
    const partitions = named.filter((name) => PARTITION_NAME.test(name));
    const ids = clients.map((given) => at(given, 'id'));

    this.#repeated(ids, 'clients', 'id');
    this.#repeated(
      // A key and its hash are one key.
      clients.map((given) => at(given, 'apiKey')).map((key) => (typeof key === 'string' ? apiKeyHash(key) : key)),
      'clients',
      'apiKey',
    );
    this.#repeated(
      list(at(data, 'console', 'users')).map((given) => at(given, 'name')),
      'console.users',
      'name',
    );

    clients.forEach((given, index) => {
      list(at(given, 'providers')).forEach((name, position) => {
        if (typeof name !== 'string' || named.includes(name)) return;
        const path = ['clients', index, 'providers', position];
        this.#add(path, `must be a partition (${partitions.join(', ')}), got ${this.#describe(path, name)}`);
      });
      const queue = at(given, 'resultsQueue');
      const taken = typeof queue === 'string' && takenBy(queue, partitions);
      if (taken) this.#add(['clients', index, 'resultsQueue'], `must be a queue of its own, but ${taken}`);
    });

    this.#repeated(
      list(at(data, 'results', 'webhooks')).map((given) => at(given, 'client')),
      'results.webhooks',
      'client',
    );
    list(at(data, 'results', 'webhooks')).forEach((given, index) => {
      const id = at(given, 'client');
      if (typeof id !== 'string' || id === '' || ids.includes(id)) return;
      const path = ['results', 'webhooks', index, 'client'];
      this.#add(path, `must be the id of a client, got ${this.#describe(path, id)}`);
    });

    for (const room of ['redis', 'intake', 'console']) this.#checkFiles([room, 'tls'], at(data, room, 'tls'));

    // Every process listens on console.port, so an intake cannot share it, whichever roles run where.
    const [intake, operator] = [mapping(at(data, 'intake')), mapping(at(data, 'console'))];
    const ports = [numberOfDigits(intake.port ?? 3000), numberOfDigits(operator.port ?? 3001)];
    const hosts = [intake.host ?? '127.0.0.1', operator.host ?? '127.0.0.1'];
    const everywhere = hosts.some((host) => host === '0.0.0.0' || host === '::');
    if (ports[0] !== 0 && ports[0] === ports[1] && (everywhere || hosts[0] === hosts[1])) {
      this.#add(['console', 'port'], 'must be another port than intake.port');
    }
  }

  /** Of a configuration without a fault. */
  warnings(): string[] {
    const { data } = this.#sources;
    const short = (text: unknown, least: number, isHash: (text: string) => boolean): boolean =>
      typeof text === 'string' && text.length < least && !isHash(text);
    const keys = list(at(data, 'clients')).flatMap((given, index) =>
      short(at(given, 'apiKey'), API_KEY_MIN_LENGTH, isApiKeyHash)
        ? [
            `${keyOf(['clients', index, 'apiKey'])}: has fewer than ${API_KEY_MIN_LENGTH} characters and can be guessed; ` +
              '`otp keys api-key` makes a good one',
          ]
        : [],
    );
    const passwords = list(at(data, 'console', 'users')).flatMap((given, index) =>
      short(at(given, 'password'), PASSWORD_MIN_LENGTH, isPasswordHash)
        ? [
            `${keyOf(['console', 'users', index, 'password'])}: has fewer than ${PASSWORD_MIN_LENGTH} characters and can be guessed`,
          ]
        : [],
    );
    return [...keys, ...passwords];
  }

  #repeated(values: readonly unknown[], section: string, name: string): void {
    values.forEach((value, index) => {
      const first = values.indexOf(value);
      if (typeof value !== 'string' || first === index) return;
      this.#add([...section.split('.'), index, name], `must differ from ${section}[${first}].${name}`);
    });
  }
}

function takenBy(queue: string, partitions: readonly string[]): string | null {
  if (queue === 'otp-results') return 'otp-results is where the results of all clients go';
  if (queue.startsWith('otp-webhook-')) return 'names that begin with otp-webhook- belong to the webhooks';
  const owner = partitions.find((name) => queue.startsWith(`otp-${name}`));
  return owner === undefined ? null : `names that begin with otp-${owner} belong to the partition ${owner}`;
}

/** In the place of an address that is at fault, so that what else is wrong is found in the same pass. */
const NO_ADDRESS = 'https://address.invalid';

/** What `bind` may be given: only what has passed the schemas. */
function contextOf(definition: Provider, settings: Record<string, unknown>) {
  const address = baseUrl.safeParse(settings.baseUrl);
  const credentials = definition.credentials.safeParse(settings.credentials ?? {});
  const options = definition.options.safeParse(settings.options ?? {});
  if (!credentials.success || !options.success) return null;
  return { baseUrl: address.success ? address.data : NO_ADDRESS, credentials: credentials.data, options: options.data };
}

const NO_ALTERNATIVE = 'must be one of the alternatives';
const TYPES: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a mapping of keys to values',
  record: 'a mapping of keys to values',
};

/** The words for what a schema expects, where the schema has none of its own. */
function wording(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return `must be ${TYPES[issue.expected] ?? issue.expected}`;
    case 'invalid_value':
      return `must be ${issue.values.length === 1 ? '' : 'one of '}${issue.values.map(String).join(', ')}`;
    case 'too_small':
      if (issue.origin === 'string' && Number(issue.minimum) === 1) return 'must not be empty';
      return `must be ${limit(issue.inclusive, 'at least', 'more than')} ${issue.minimum}${unit(issue.origin)}`;
    case 'too_big':
      return `must be ${limit(issue.inclusive, 'at most', 'less than')} ${issue.maximum}${unit(issue.origin)}`;
    case 'invalid_format':
      return issue.format === 'regex' ? `must match ${issue.pattern}` : `must be a valid ${issue.format}`;
    case 'invalid_union':
      return NO_ALTERNATIVE;
    default:
      return 'is not valid';
  }
}

const limit = (inclusive: boolean | undefined, within: string, beyond: string): string =>
  inclusive === false ? beyond : within;
const unit = (origin: string): string =>
  origin === 'string' ? ' characters long' : origin === 'array' ? ' entries long' : '';

function unknownKey(name: string, known: readonly string[]): string {
  const nearest = nearestKey(name, known);
  if (nearest !== null) return `is not a known key; is ${nearest} meant?`;
  return known.length === 0 ? 'is not a known key' : `is not a known key; known here: ${known.join(', ')}`;
}

/** Among secrets, one may stand without its name and look like a key: there only a plain word, or nearly a known key, is shown. */
function nameToShow(name: string, path: Path, known: readonly string[]): string {
  const amongSecrets = path.some((part) => /^(credentials|redis|users|clients|webhooks)$/.test(String(part)));
  const plainWord = /^[a-z]{1,12}$/.test(name);
  return amongSecrets && !plainWord && nearestKey(name, known) === null ? '*'.repeat(name.length) : name;
}

function nearestKey(name: string, known: readonly string[]): string | null {
  const plain = (text: string): string => text.toLowerCase().replace(/[^a-z0-9]/g, '');
  const [nearest] = known
    .map((key) => ({ key, distance: editDistance(plain(name), plain(key)) }))
    .filter(({ key, distance }) => distance <= Math.max(2, Math.ceil(key.length / 3)) && distance < key.length)
    .sort((a, b) => a.distance - b.distance);
  return nearest?.key ?? null;
}

function editDistance(from: string, to: string): number {
  let above = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const replaced = (above[column - 1] ?? 0) + (from[row - 1] === to[column - 1] ? 0 : 1);
      current.push(Math.min(replaced, (above[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    above = current;
  }
  return above[to.length] ?? 0;
}

function knownKeys(schema: z.core.$ZodType, path: Path): string[] {
  const here = bare(schema);
  const [next, ...rest] = path;
  if (next === undefined) {
    return here instanceof z.ZodObject ? Object.keys(here.shape).filter((key) => !isForbidden(here.shape[key])) : [];
  }
  const inner =
    here instanceof z.ZodObject
      ? here.shape[String(next)]
      : here instanceof z.ZodArray
        ? here.element
        : here instanceof z.ZodRecord
          ? here.valueType
          : undefined;
  return inner === undefined ? [] : knownKeys(inner, rest);
}

/** A key that is in the schema only to say why it must not be there. */
const isForbidden = (schema: z.core.$ZodType | undefined): boolean =>
  schema !== undefined && bare(schema) instanceof z.ZodNever;

/** A schema without what is wrapped around it: defaults, optionality, a step before or after. */
export function bare(schema: z.core.$ZodType): z.core.$ZodType {
  if (schema instanceof z.ZodPipe) return bare(schema.in instanceof z.ZodTransform ? schema.out : schema.in);
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodExactOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault ||
    schema instanceof z.ZodReadonly
  ) {
    return bare(schema.unwrap());
  }
  return schema;
}

function at(value: unknown, ...path: Path): unknown {
  let here = value;
  for (const part of path) {
    if (Array.isArray(here) && typeof part === 'number') here = here[part];
    else if (isMapping(here) && Object.hasOwn(here, part)) here = here[String(part)];
    else return undefined;
  }
  return here;
}

const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
const mapping = (value: unknown): Record<string, unknown> => (isMapping(value) ? value : {});

/** Every text inside a value, if it is long enough to be a secret; the longest first, for one may hold another. */
function textsOf(value: unknown): string[] {
  const texts = (inner: unknown): string[] =>
    typeof inner === 'string'
      ? [inner]
      : Array.isArray(inner)
        ? inner.flatMap(texts)
        : Object.values(mapping(inner)).flatMap(texts);
  return texts(value)
    .filter((text) => text.length >= 4)
    .sort((a, b) => b.length - a.length);
}
