/**
 * What a configuration may say: one schema, made for the partitions that are named, because each adapter brings its own
 * credentials and options. Times are in milliseconds; a secret comes out as a Secret.
 */
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { urlToHttpOptions } from 'node:url';
import { z } from 'zod';
import { isMapping } from './config-sources.ts';
import { HARMLESS } from './config-wording.ts';
import type { Provider } from './providers/provider.ts';
import { Secret, secretText } from './secret.ts';
import { apiKeyFormProblem, apiKeyHash, passwordHashProblem } from './secret-hashes.ts';

/** What a reference or an environment variable brings is text, also where a number is wanted. */
export const numberOfDigits = (value: unknown): unknown =>
  typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : value;

const whole = (expected: string, minimum: number, maximum = Number.MAX_SAFE_INTEGER) =>
  z.preprocess(numberOfDigits, z.int(expected).min(minimum, expected).max(maximum, expected));

/** A longer time would make a timer of Node fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const count = whole('must be a positive integer', 1);
const TEN_YEARS_MS = 315_360_000_000;
const milliseconds = whole(
  `must be a positive integer (milliseconds), at most ${TEN_YEARS_MS} (ten years)`,
  1,
  TEN_YEARS_MS,
);
const WEEK_MS = 604_800_000;
const upToAWeek = whole(`must be 1 to ${WEEK_MS} (milliseconds; a week)`, 1, WEEK_MS).default(WEEK_MS);
const timer = whole(
  `must be a positive integer (milliseconds), at most ${LONGEST_TIMER_MS} (24 days)`,
  1,
  LONGEST_TIMER_MS,
);
/** What can be listened at: a name, or an address of either kind. The text of a file is neither. */
const listenAt = z
  .string()
  .regex(/^[A-Za-z0-9_.:%-]{1,255}$/, 'must be a host name or an address, such as 127.0.0.1')
  .default('127.0.0.1');
const port = whole('must be a port number: 0 to 65535, 0 takes any that is free', 0, 65_535);
export const RATE_LIMIT = { max: 20, perMs: 1_000 };

const rate = ({ max, perMs }: typeof RATE_LIMIT) =>
  z.strictObject({ max: count.default(max), perMs: milliseconds.default(perMs) }).prefault({});

export const PARTITION_NAME = /^[a-z0-9][a-z0-9-]{0,39}$/;
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

/** `${file:keys.json}` brings the text of the file, with its keys, to where its path belongs; errors would then repeat it. */
export function pathProblem(text: string): string | null {
  return text.length > 1024 || /[\p{Cc}\p{Zl}\p{Zp}{"]/u.test(text) ? 'must be the path of a file' : null;
}

export const isLoopback = (hostname: string): boolean =>
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

export const baseUrl = webAddress({ query: 'refused' })
  .register(HARMLESS, { because: 'the address of a provider, which has no user, no password and no query' })
  .transform((text) => new URL(text).href.replace(/\/+$/, ''));

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

const destination = z
  .union([z.hostname().refine(isHostOfUrl), z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()], {
    error: 'must be a host name, an address or a range of addresses such as 10.0.0.0/8',
  })
  .register(HARMLESS, { because: 'where webhooks may go' });

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

/** What a connection would fail on later, without the name of the key, or would pass over in silence. */
function redisUrlProblem(text: string): string | null {
  if (!/^rediss?:\/\//i.test(text) || !URL.canParse(text))
    return 'must be a URL that begins with redis:// or rediss://';
  const { username, password, pathname } = new URL(text);
  try {
    decodeURIComponent(username + password);
  } catch {
    return 'must have its user and password percent-encoded (a % is %25)';
  }
  if (/[?#]/.test(text)) return 'must have no query (?) and no fragment (#); in a password they are %3F and %23';
  return /^\/?\d*$/.test(pathname) ? null : 'must have nothing behind the host but the number of a database, as in /2';
}

const redisSchema = (filePath: z.ZodType<string>) =>
  z
    .strictObject({
      url: z
        .string()
        .superRefine(asIssue(redisUrlProblem))
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
    .superRefine(asIssue(webhookSecretProblem))
    .transform((value) => new Secret(value)),
});

/** Standard Webhooks asks for 24 to 64 bytes; a shorter key can be guessed by whoever has seen one signature. */
function webhookSecretProblem(text: string): string | null {
  if (!/^whsec_(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$/.test(text)) {
    return 'must be whsec_ and then base64';
  }
  const bytes = Buffer.from(text.slice('whsec_'.length), 'base64').length;
  return bytes >= 24 ? null : 'must have at least 24 bytes; `echo "whsec_$(openssl rand -base64 32)"` makes one of 32';
}

const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
const INQUIRY_DELAYS_MS = [10_000, 30_000, 60_000, 120_000, 300_000, 900_000, 3_600_000];

/** OUTCOMES_KEPT of the workers: more failures than that are never counted, and the breaker would never open. */
export const BREAKER_OUTCOMES_KEPT = 100;

const breaker = z
  .strictObject({
    enabled: z.boolean().default(true),
    failures: whole(
      `must be 1 to ${BREAKER_OUTCOMES_KEPT}: no more outcomes are kept`,
      1,
      BREAKER_OUTCOMES_KEPT,
    ).default(5),
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
    rateLimit: rate(RATE_LIMIT),
    inquiryRateLimit: rate({ max: 5, perMs: 1_000 }),
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
    .superRefine(asIssue(pathProblem))
    .register(HARMLESS, { because: 'the path of a file' })
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
        host: listenAt,
        port: port.default(3000),
        tls: serverTls.exactOptional(),
      })
      .prefault({}),
    console: z
      .strictObject({
        host: listenAt,
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
        lossWindowMs: whole(`must be 0 to ${TEN_YEARS_MS} (milliseconds; ten years)`, 0, TEN_YEARS_MS).default(2000),
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
