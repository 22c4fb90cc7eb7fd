/**
 * Configuration files and environments, good ones gone bad: refused as a whole with a key for each fault, or accepted
 * and sound; and no secret is shown either way, also not one that has lost its place.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { parseDocument, stringify } from 'yaml';
import { type Config, ConfigError, type Environment, loadConfig } from '../../../src/config.ts';
import { fromEnv, fromFile } from '../../config/world.ts';
import { loadFixture } from '../../providers/fixture.ts';
import { anyText, mutatedJson, mutateText, seldom, type TextMutation, textMutation, words } from '../mutate.ts';
import { demand, printed, type Target } from '../target.ts';

interface ConfigCase {
  /** The file's content. */
  readonly text: string;
  readonly environment: Readonly<Record<string, string>>;
}

export interface ConfigSubject {
  loadConfig(options: { readonly file: string; readonly environment: Environment }): Config;
}

/** No two share eight characters, so that a half of one is known again. */
const SECRETS = {
  shopKey: 'otpk_Qw7ZrT2mVb9KxP4d',
  walletKey: 'otpk_Hn3LsJ8gYc5FuW1e',
  password: 'Zx6.Nb!Mk2-Lp0+Oj9',
  otherPassword: 'wachtwoord van de nacht 77',
  webhook: 'whsec_R3ZmTHhwUWtBbnlUZXN0b1dYaTlLcUp6',
  redis: 'rP8vDq1sXe6tGy4u',
  cepta: 'sk_live_4eC39HqLyjWDarjt',
  beqelal: 'bk_7f0a2d9c81e64b53',
  beqelalCallback: 'end-of-the-address-5521',
  helloClever: 'hc-0b1c2d3e4f5a6b7c',
  lipaLater: 'LL/9s8d7f6g5h4j3k2==',
  ayoconnect: 'ayo:client:secret:k1l2m3',
} as const;
const PEM = String(loadFixture('ayoconnect').credentials.privateKey);
/** A line of it: the frame around it is no secret. */
const PEM_LINE = PEM.split('\n')[3] ?? PEM.slice(200, 260);

const DATA = {
  redis: { url: `redis://default:${SECRETS.redis}@127.0.0.1:6379` },
  intake: { host: '127.0.0.1', port: 3000 },
  console: {
    port: 3001,
    users: [
      { name: 'ops', password: SECRETS.password },
      { name: 'night', password: SECRETS.otherPassword },
    ],
  },
  clients: [
    { id: 'shop', apiKey: SECRETS.shopKey, providers: ['cepta', 'beqelal'], resultsQueue: 'otp-results-shop' },
    { id: 'wallet', apiKey: SECRETS.walletKey },
  ],
  sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json' },
  results: { webhooks: [{ client: 'wallet', url: 'https://wallet.example/results', secret: SECRETS.webhook }] },
  journal: { waitReplicas: 'auto', waitMs: 200, lossWindowMs: 0, retentionMs: 259200000 },
  log: { level: 'info' },
  providers: {
    cepta: {
      baseUrl: 'https://adapter.cepta.co',
      credentials: { secretKey: SECRETS.cepta, merchantId: 'M-1001' },
      options: { authScheme: 'secret', paths: { verify: '/api/v1/pay/validate-otp' } },
      rateLimit: { max: 20, perMs: 1000 },
      inquiry: { delaysMs: [10000, 30000], giveUpAfterMs: 86400000 },
    },
    beqelal: {
      baseUrl: 'http://127.0.0.1:9',
      credentials: { appId: 'app-17', apiKey: SECRETS.beqelal, callbackSecret: SECRETS.beqelalCallback },
    },
    'hello-clever-ghana': {
      adapter: 'hello-clever',
      baseUrl: 'https://api-merchant.helloclever.co/',
      credentials: { appId: 'ghana-1', secretKey: SECRETS.helloClever },
      options: { trust429: true },
      timeoutMs: 30000,
    },
    'lipa-later': {
      baseUrl: 'https://lipa.example/x',
      credentials: { clientId: 'shop', clientSecret: SECRETS.lipaLater },
    },
  },
};

const EXAMPLE = readFileSync(new URL('../../../docs/examples-config/otp.yaml', import.meta.url), 'utf8');
const EXAMPLE_ENVIRONMENT: Environment = {
  OTP_REDIS_URL: `rediss://:${SECRETS.redis}@redis.example:6380/1`,
  OTP_CONSOLE_PASSWORD: SECRETS.password,
  SHOP_API_KEY: SECRETS.shopKey,
  WALLET_API_KEY: SECRETS.walletKey,
  WALLET_WEBHOOK_SECRET: SECRETS.webhook,
  CEPTA_SECRET_KEY: SECRETS.cepta,
  BEQELAL_API_KEY: SECRETS.beqelal,
  BEQELAL_CALLBACK_SECRET: SECRETS.beqelalCallback,
  HELLO_CLEVER_GHANA_SECRET: SECRETS.helloClever,
  HELLO_CLEVER_KENYA_SECRET: SECRETS.helloClever,
  LIPA_LATER_CLIENT_SECRET: SECRETS.lipaLater,
  AYOCONNECT_CLIENT_SECRET: SECRETS.ayoconnect,
};

/** A file as a person writes it, as a program does, in both styles of YAML, and as JSON. */
const FILES: readonly { readonly text: string; readonly environment: Environment }[] = [
  { text: EXAMPLE, environment: EXAMPLE_ENVIRONMENT },
  { text: stringify(DATA), environment: {} },
  { text: flowStyle(DATA), environment: {} },
  { text: JSON.stringify(DATA, null, 2), environment: {} },
];

/** Its sections in block style, everything in them on one line. */
function flowStyle(data: Readonly<Record<string, unknown>>): string {
  const document = (value: unknown): string =>
    stringify(value, { collectionStyle: 'flow', lineWidth: 0, flowCollectionPadding: true }).trim();
  return `${Object.entries(data)
    .map(([key, value]) => `${key}: ${document(value)}`)
    .join('\n')}\n`;
}

export function configuration(subject: ConfigSubject = { loadConfig }): Target<ConfigCase> {
  const folder = mkdtempSync(join(tmpdir(), 'otp-fuzz-config-'));
  mkdirSync(join(folder, 'secrets'));
  writeFileSync(join(folder, 'secrets', 'ayoconnect-private-key.pem'), PEM);
  const file = join(folder, 'otp.yaml');
  const warnings: string[] = [];
  const onWarning = (warning: Error): void => void warnings.push(printed(warning));
  process.on('warning', onWarning);

  return {
    name: 'configuration',
    batch: 20,
    cases: configCases,
    async check({ text, environment }) {
      writeFileSync(file, text);
      const startedAt = performance.now();
      const canaries = canariesOf(text);
      try {
        const outcome = judge(subject, { file, environment }, canaries);
        demand(performance.now() - startedAt < 5_000, 'reading it took longer than five seconds');
        return outcome;
      } finally {
        await new Promise((resolve) => setImmediate(resolve));
        for (const warning of warnings.splice(0)) demandHidden('a warning of the process', warning, canaries);
      }
    },
    close: async () => {
      process.off('warning', onWarning);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function judge(
  subject: ConfigSubject,
  options: { readonly file: string; readonly environment: Environment },
  canaries: readonly string[],
): string {
  let config: Config;
  try {
    config = subject.loadConfig(options);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    demand(error.faults.length > 0, 'refused without a fault');
    for (const { key, message } of error.faults) {
      demand(typeof key === 'string' && key.trim() !== '', 'a fault without a key');
      demand(typeof message === 'string' && message.trim() !== '', `a fault of ${key} that says nothing`);
      demand(!/undefined|\[object|NaN/.test(key), `a fault whose key is not put in words: ${key}`);
    }
    demandHidden('the error', printed(error), canaries);
    return 'refused';
  }
  demandSound(config);
  const shown = [inspect(config, { depth: 20, showHidden: true }), JSON.stringify(config), config.warnings.join('\n')];
  demandHidden('the configuration', shown.join('\n'), canaries);
  return 'accepted';
}

// ---- secrets --------------------------------------------------------------------------------------------------------

/** Where a secret may stand; and whatever is inside of `credentials`. */
const SECRET_PLACES = /^(credentials|url|apiKey|password|secret)$/;

/**
 * Those to look for. One that a mutation has moved, whole, to where a value is not secret, nobody can know for one.
 */
function canariesOf(text: string): string[] {
  const misplaced = new Set<string>();
  const walk = (value: unknown, isSecret: boolean, depth: number): void => {
    if (depth > 50) return;
    if (typeof value === 'string' && !isSecret) misplaced.add(value);
    else if (Array.isArray(value)) for (const inner of value) walk(inner, isSecret, depth + 1);
    else if (typeof value === 'object' && value !== null) {
      for (const [name, inner] of Object.entries(value)) walk(inner, isSecret || SECRET_PLACES.test(name), depth + 1);
    }
  };
  try {
    walk(parseDocument(text, { logLevel: 'silent' }).toJS(), false, 0);
  } catch {} // then nothing was shown in its place
  const all = [...Object.values(SECRETS), PEM_LINE];
  const moved = [...misplaced];
  return all.filter(
    (secret) => !moved.some((value) => value === secret || value.endsWith(`:${secret}@127.0.0.1:6379`)),
  );
}

const FRAGMENT = 8;
const STEP = 4;

/** Twelve characters of a secret in a row always condemn, eight mostly. */
function demandHidden(where: string, text: string, canaries: readonly string[]): void {
  for (const canary of canaries) {
    for (let at = 0; at + FRAGMENT <= canary.length; at += STEP) {
      const fragment = canary.slice(at, at + FRAGMENT);
      demand(!text.includes(fragment), `${where} shows ${fragment} of the secret ${canary}`);
    }
  }
}

// ---- what an accepted one must be -----------------------------------------------------------------------------------

const isCount = (value: unknown, least: number): boolean => Number.isSafeInteger(value) && (value as number) >= least;

function demandSound(config: Config): void {
  demand(config.partitions.length > 0, 'accepted without a partition');
  for (const port of [config.intake.port, config.console.port]) {
    demand(isCount(port, 0) && port <= 65_535, `accepted with the port ${port}`);
  }
  const names = config.partitions.map(({ name }) => name);
  demand(new Set(names).size === names.length, 'accepted with two partitions of one name');
  for (const partition of config.partitions) {
    const { name, baseUrl, rateLimit, inquiryRateLimit, concurrency, timeoutMs, otpLifetimeMs, maxAttempts, inquiry } =
      partition;
    demand(/^[a-z0-9][a-z0-9-]{0,39}$/.test(name), 'accepted with a partition of an impossible name');
    const { protocol, hostname } = new URL(baseUrl);
    const isNear = hostname === 'localhost' || hostname === '[::1]' || hostname.startsWith('127.');
    demand(
      protocol === 'https:' || (protocol === 'http:' && isNear),
      `${name}: accepted with plain http to ${hostname}`,
    );
    for (const { max, perMs } of [rateLimit, inquiryRateLimit]) {
      demand(isCount(max, 1) && isCount(perMs, 1), `${name}: accepted with an impossible rate`);
    }
    for (const count of [
      concurrency,
      timeoutMs,
      otpLifetimeMs,
      maxAttempts,
      inquiry.giveUpAfterMs,
      ...inquiry.delaysMs,
    ]) {
      demand(isCount(count, 1), `${name}: accepted with ${count} where a positive whole number belongs`);
    }
    demand(timeoutMs < 2 ** 31, `${name}: accepted with a time-out that fires at once`);
    demand(partition.provider.operations.verify !== undefined, `${name}: accepted without anything to do`);
  }
  const ids = config.clients.map(({ id }) => id);
  demand(new Set(ids).size === ids.length, 'accepted with two clients of one id');
  for (const { id, providers } of config.clients) {
    demand(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(id), 'accepted with a client of an impossible id');
    for (const name of providers ?? [])
      demand(names.includes(name), `${id}: accepted with a partition that is not there`);
  }
  for (const { client } of config.results.webhooks) demand(ids.includes(client), 'accepted with a webhook of nobody');
}

// ---- cases ----------------------------------------------------------------------------------------------------------

type LineMutation =
  | { readonly do: 'drop' | 'double' | 'indent' | 'dedent' | 'join' | 'comment'; readonly line: number }
  | { readonly do: 'without'; readonly line: number; readonly sign: string }
  | { readonly do: 'move'; readonly line: number; readonly to: number };

const line = fc.nat({ max: 120 });
const lineMutation: fc.Arbitrary<LineMutation> = fc.oneof(
  fc.record({
    do: fc.constantFrom(
      'drop' as const,
      'double' as const,
      'indent' as const,
      'dedent' as const,
      'join' as const,
      'comment' as const,
    ),
    line,
  }),
  fc.record({
    do: fc.constant('without' as const),
    line,
    sign: fc.constantFrom(':', ': ', ',', '"', '{', '}', '[', ']', '$', '-', '- ', ' '),
  }),
  fc.record({ do: fc.constant('move' as const), line, to: line }),
);

/** What happens to files in editors. */
function mutateLines(text: string, mutation: LineMutation): string {
  const lines = text.split('\n');
  const index = mutation.line % lines.length;
  const own = lines[index] ?? '';
  const put = (...instead: string[]): string =>
    [...lines.slice(0, index), ...instead, ...lines.slice(index + 1)].join('\n');
  switch (mutation.do) {
    case 'drop':
      return put();
    case 'double':
      return put(own, own);
    case 'indent':
      return put(`  ${own}`);
    case 'dedent':
      return put(own.replace(/^ {1,2}/, ''));
    case 'join':
      return [...lines.slice(0, index), `${own} ${lines[index + 1] ?? ''}`, ...lines.slice(index + 2)].join('\n');
    case 'comment':
      return put(`#${own}`);
    case 'without': // the last one of the line, where values are
      return put(
        own.lastIndexOf(mutation.sign) === -1 ? own : cut(own, own.lastIndexOf(mutation.sign), mutation.sign.length),
      );
    case 'move': {
      const rest = [...lines.slice(0, index), ...lines.slice(index + 1)];
      rest.splice(mutation.to % lines.length, 0, own);
      return rest.join('\n');
    }
  }
  return mutation satisfies never;
}

function cut(text: string, at: number, length: number): string {
  return text.slice(0, at) + text.slice(at + length);
}

/** The name of a key is forgotten, and its value stands alone. */
const nameless = (text: string, nth: number): string => {
  const names = [...text.matchAll(/[A-Za-z]+: (?=[^\s{[&])/g)];
  const chosen = names[nth % Math.max(1, names.length)];
  return chosen === undefined ? text : cut(text, chosen.index, chosen[0].length);
};

const VARIABLES = fc.dictionary(
  fc.constantFrom(
    ...words('PORT CONSOLE_PORT LOG_LEVEL NODE_ENV REDIS_URL OTP_API_KEYS OTP_CONSOLE_USERS SHOP_API_KEY'),
    ...words('CEPTA_SECRET_KEY'),
  ),
  fc.oneof(
    fc.constantFrom('', '0', '80', '65536', '-1', '3001', 'info', 'loud', 'production'),
    fc.constantFrom(
      `shop:${SECRETS.shopKey}`,
      `shop:${SECRETS.shopKey},wallet:${SECRETS.walletKey}`,
      SECRETS.shopKey,
      `:${SECRETS.shopKey}`,
    ),
    fc.constantFrom(
      `ops:${SECRETS.password}`,
      `ops:${SECRETS.password},ops:${SECRETS.otherPassword}`,
      `redis://:${SECRETS.redis}@x`,
      SECRETS.redis,
    ),
    fc.constantFrom(
      `http://:${SECRETS.redis}@x`,
      `redis:// :${SECRETS.redis}@x`,
      `shop=${SECRETS.shopKey}`,
      `shop:${SECRETS.shopKey};wallet:x`,
    ),
    anyText(20).map((text) => text.replaceAll('\u0000', '')),
  ),
  { maxKeys: 3, noNullPrototype: true },
);

/** A secret in one of these is in no secret place: it is a number, a level or a name. */
const PLAIN_VARIABLES = ['PORT', 'CONSOLE_PORT', 'LOG_LEVEL', 'NODE_ENV'];

/** What stands for a text, or for none; and values that belong elsewhere. */
const TOKENS: readonly string[] = [
  ...[fromEnv('HOME'), fromEnv('NOBODY'), fromFile('otp.yaml'), fromFile('/nowhere'), '${'].map((text) =>
    JSON.stringify(text),
  ),
  ...words('70000 "3000" "cepta" "beqelal"'),
];

const configCases: fc.Arbitrary<ConfigCase> = fc
  .record({
    file: fc.oneof(
      { weight: 5, arbitrary: writtenByPeople() },
      {
        weight: 3,
        arbitrary: mutatedJson([JSON.stringify(DATA)], {
          names: ['apiKey', 'providers', 'credentials', '<<'],
          tokens: TOKENS,
        }).map((text) => ({ text, environment: {} })),
      },
      { weight: 1, arbitrary: anyText(200).map((text) => ({ text, environment: {} })) },
    ),
    variables: seldom(VARIABLES, 3),
    without: seldom(fc.nat({ max: 11 }), 6),
  })
  .map(({ file: { text, environment }, variables, without }) => {
    const kept = Object.entries(environment).filter((_, index) => index !== without);
    const more = Object.entries(variables ?? {}).filter(([name, value]) => {
      return !PLAIN_VARIABLES.includes(name) || !Object.values(SECRETS).some((secret) => value.includes(secret));
    });
    return { text, environment: Object.fromEntries([...kept, ...more]) as Record<string, string> };
  });

function writtenByPeople(): fc.Arbitrary<{ text: string; environment: Environment }> {
  return fc
    .record({
      file: fc.constantFrom(...FILES),
      lines: fc.array(lineMutation, { maxLength: 3 }),
      nameless: seldom(fc.nat({ max: 100 }), 3),
      characters: fc.oneof(
        { weight: 2, arbitrary: fc.constant<TextMutation[]>([]) },
        { weight: 1, arbitrary: fc.array(textMutation, { minLength: 1, maxLength: 3 }) },
      ),
    })
    .map(({ file, lines, nameless: nth, characters }) => {
      const unnamed = nth === null ? file.text : nameless(file.text, nth);
      const text = characters.reduce(mutateText, lines.reduce(mutateLines, unnamed));
      return { text, environment: file.environment };
    });
}
