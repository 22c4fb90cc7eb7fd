import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { apiKeyHash } from '../../src/secret-hashes.ts';
import { acme, errorOf, faultsOf, folder, fromEnv, fromFile, load, minimal, registry } from './world.ts';

const PROVIDERS = `
providers:
  acme:
    baseUrl: https://acme.example
    credentials: { merchant: m-1, key: ${fromEnv('ACME_KEY')} }
`;
const environment = { ACME_KEY: 'acme-key' };
const fromNowhere = `\${VAULT}`;

describe('the file', () => {
  it('may be YAML, with references inside brackets, unquoted', () => {
    using files = folder({
      'otp.yaml': `${PROVIDERS}\nclients: [{ id: shop, apiKey: ${fromEnv('SHOP')} }, { id: web, apiKey: x-${fromEnv('SHOP')} }]`,
    });
    const { clients, file } = loadConfig({
      file: join(files.path, 'otp.yaml'),
      environment: { ...environment, SHOP: 'shop-key' },
      registry,
    });
    expect(clients.map(({ apiKey }) => apiKey.reveal())).toEqual(['shop-key', 'x-shop-key'].map(apiKeyHash));
    expect(file).toBe(join(files.path, 'otp.yaml'));
  });

  it('may be JSON, indented with tabs', () => {
    using files = folder({ 'otp.json': JSON.stringify(minimal({ intake: { port: 8080 } }), null, '\t') });
    expect(loadConfig({ file: join(files.path, 'otp.json'), environment, registry }).intake.port).toBe(8080);
  });

  it('is named by OTP_CONFIG when no argument names it', () => {
    using files = folder({ 'otp.yaml': PROVIDERS });
    const config = loadConfig({ environment: { ...environment, OTP_CONFIG: join(files.path, 'otp.yaml') }, registry });
    expect(config.partitions.map(({ name }) => name)).toEqual(['acme']);
  });

  it.each<[string, Record<string, string | undefined>, RegExp]>([
    ['no file is named', {}, /OTP_CONFIG: no file is named: give --config FILE or OTP_CONFIG/],
    ['the file is not there', { OTP_CONFIG: '/nowhere/otp.yaml' }, /\/nowhere\/otp\.yaml: .*there is no such file/],
    ['the file is a folder', { OTP_CONFIG: '/' }, /\/: .*it is a folder/],
  ])('is a fault when %s', (_, given, expected) => {
    expect(errorOf(() => loadConfig({ environment: given, registry })).message).toMatch(expected);
  });

  it.each<[string, string, string]>([
    ['a bracket that is not closed', 'clients: [1, 2\nintake: { port: 1 }', 'line 2, column 1'],
    ['a key that stands twice', 'intake:\n  port: 1\n  port: 2', 'line 3, column 3'],
    ['a tab as indentation', 'intake:\n\tport: 1', 'line 2, column 1'],
    ['a second document', 'intake: { port: 1 }\n---\nintake: { port: 2 }', 'line 2, column 1'],
    ['a tag that nobody knows', 'intake: !env X', 'line 1, column 9'],
    ['an alias without an anchor', 'intake:\n  port: *canary', 'line 2, column 9'],
    ['a fault behind a reference in brackets', `a: { b: ${fromEnv('X')} }\nc: "canary`, 'line 2, column 11'],
    ['broken JSON', '{\n  "apiKey": "canary" "b"\n}', 'line 2, column 22'],
  ])('says line and column of %s, and quotes nothing', (_, text, position) => {
    using files = folder({ 'otp.yaml': text });
    const error = errorOf(() => loadConfig({ file: join(files.path, 'otp.yaml'), environment, registry }));
    expect(error.faults.map(({ key }) => key)).toContain(position);
    expect(error.message).toContain('otp.yaml');
    expect(error.message).not.toContain('canary');
  });

  it('may repeat a part by an anchor, and may not stand inside itself', () => {
    using files = folder({
      'good.yaml': `${PROVIDERS}    rateLimit: &rate { max: 7 }\n    inquiryRateLimit: *rate`,
      'circular.yaml': `${PROVIDERS}\nclients: &all [*all]`,
    });
    const { partitions } = loadConfig({ file: join(files.path, 'good.yaml'), environment, registry });
    expect(partitions[0]?.inquiryRateLimit).toEqual({ max: 7, perMs: 1000 });
    const error = errorOf(() => loadConfig({ file: join(files.path, 'circular.yaml'), environment, registry }));
    expect(error.faults).toEqual([{ key: 'clients[0]', message: 'its alias names something that it stands in' }]);
  });

  it.each(['', '# only a comment', 'just text', '[1, 2]', '17'])('that is %j is no configuration', (text) => {
    using files = folder({ 'otp.yaml': text });
    const { message } = errorOf(() => loadConfig({ file: join(files.path, 'otp.yaml'), environment, registry }));
    expect(message).toContain('the whole configuration: must be a mapping of keys to values');
  });
});

describe('a reference', () => {
  it('to a file starts at the configuration and loses one trailing newline', () => {
    using files = folder({ 'key.txt': 'first\nsecond\n\n', 'crlf.txt': 'windows\r\n' });
    const { clients, console } = load(
      minimal({
        clients: [{ id: 'shop', apiKey: fromFile('crlf.txt') }],
        console: { users: [{ name: 'ops', password: fromFile('key.txt') }] },
      }),
      {},
      { baseDir: files.path },
    );
    expect(clients[0]?.apiKey.reveal()).toBe(apiKeyHash('windows'));
    expect(console.users[0]?.password.reveal()).toBe('first\nsecond\n');
  });

  it('may stand in a longer text, several times', () => {
    const url = `https://${fromEnv('HOST')}.example/${fromEnv('PATH_PART')}/`;
    const { partitions } = load(minimal({ providers: { acme: acme({ baseUrl: url }) } }), {
      HOST: 'a',
      PATH_PART: 'b',
    });
    expect(partitions[0]?.baseUrl).toBe('https://a.example/b');
  });

  it('brings what it brings: nothing inside it is replaced again', () => {
    const users = [{ name: 'ops', password: fromEnv('PASSWORD') }];
    const password = `a${fromEnv('OTHER')}b`;
    const { console } = load(minimal({ console: { users } }), { PASSWORD: password, OTHER: 'no' });
    expect(console.users[0]?.password.reveal()).toBe(password);
  });

  it('may bring a number where a number is wanted, and stays text where text is wanted', () => {
    const config = load(minimal({ intake: { port: fromEnv('N') }, clients: [{ id: 'shop', apiKey: fromEnv('N') }] }), {
      N: '4711',
    });
    expect(config.intake.port).toBe(4711);
    expect(config.clients[0]?.apiKey.reveal()).toBe(apiKeyHash('4711'));
  });

  it('that brings nothing is a fault of its key, together with all others', () => {
    const data = minimal({
      intake: { port: 'canary-port' },
      clients: [
        { id: 'shop', apiKey: fromEnv('SHOP_API_KEY') },
        { id: 'web', apiKey: `${fromEnv('EMPTY')}-${fromFile('missing.txt')}` },
      ],
      providers: { acme: acme({ credentials: { merchant: 'm', key: fromNowhere } }) },
    });
    expect(faultsOf(data, { EMPTY: '' })).toEqual([
      'clients[0].apiKey: the environment variable SHOP_API_KEY is not set',
      'clients[1].apiKey: the environment variable EMPTY is empty; ' +
        'the file /etc/otp/missing.txt cannot be read: there is no such file',
      'intake.port: must be a port number: 0 to 65535, 0 takes any that is free, got "canary-port"',
      expect.stringMatching(/^providers\.acme\.credentials\.key: it has a \$\{\.\.\.\} that is neither/),
    ]);
  });

  it('is not followed by a second complaint about what it did not bring', () => {
    expect(faultsOf(minimal({ redis: fromEnv('A') }))).toEqual(['redis: the environment variable A is not set']);
    expect(faultsOf(minimal({ redis: { url: fromEnv('A') } }))).toEqual([
      'redis.url: the environment variable A is not set',
    ]);
  });
});

describe('the environment wins over the file', () => {
  const file = minimal({
    redis: { cluster: ['10.0.0.1:7000'] },
    intake: { port: 1 },
    console: { port: 2, users: [{ name: 'ops', password: 'old' }] },
    clients: [{ id: 'shop', apiKey: fromEnv('NOT_SET'), providers: ['acme'] }],
    log: { level: 'warn' },
  });
  const config = () =>
    load(file, {
      REDIS_URL: 'redis://:canary@redis.example:6380',
      PORT: '8080',
      CONSOLE_PORT: '8081',
      OTP_API_KEYS: 'shop:new:with:colons, web:web-key',
      OTP_CONSOLE_USERS: 'ops:changed,night:shift',
      LOG_LEVEL: 'debug',
      NODE_ENV: 'development',
    });

  it('for Redis, ports, the log level and NODE_ENV', () => {
    const { redis, intake, console, log, nodeEnv } = config();
    expect(redis && 'url' in redis && redis.url.reveal()).toBe('redis://:canary@redis.example:6380');
    expect([intake.port, console.port, log.level, nodeEnv]).toEqual([8080, 8081, 'debug', 'development']);
  });

  it('for keys of clients, who keep their other settings, and for clients that the file does not have', () => {
    expect(config().clients.map(({ apiKey, ...client }) => ({ ...client, apiKey: apiKey.reveal() }))).toEqual([
      { id: 'shop', apiKey: apiKeyHash('new:with:colons'), providers: ['acme'], maxInFlight: 1000 },
      { id: 'web', apiKey: apiKeyHash('web-key'), maxInFlight: 1000 },
    ]);
  });

  it('for users of the console', () => {
    expect(config().console.users.map(({ name, password }) => [name, password.reveal()])).toEqual([
      ['ops', 'changed'],
      ['night', 'shift'],
    ]);
  });

  it('and an empty variable is one that is not set', () => {
    const empty = {
      REDIS_URL: '',
      PORT: '',
      CONSOLE_PORT: '',
      OTP_API_KEYS: '',
      OTP_CONSOLE_USERS: '',
      LOG_LEVEL: '',
      NODE_ENV: '',
    };
    const { redis, intake, log, nodeEnv } = load(minimal(), empty);
    expect([redis, intake.port, log.level, nodeEnv]).toEqual([undefined, 3000, 'info', 'production']);
  });

  it('and what is wrong in it says which variable is meant, without the secret', () => {
    expect(
      faultsOf(minimal({ clients: [{ id: 'shop', apiKey: 'shop-key' }] }), {
        PORT: 'abc',
        LOG_LEVEL: 'loud',
        REDIS_URL: 'http://:canary@x',
        OTP_API_KEYS: 'canary,shop:a b canary,:canary,web:1,web:canary',
        OTP_CONSOLE_USERS: 'canary',
      }),
    ).toEqual([
      'clients[0].apiKey: must be visible ASCII characters without a space: it travels in a header, got text',
      'intake.port: must be a port number: 0 to 65535, 0 takes any that is free, got "abc" from the environment variable PORT',
      'log.level: must be one of fatal, error, warn, info, debug, trace, silent, got "loud" from the environment variable LOG_LEVEL',
      'OTP_API_KEYS: entry 1 is not id:apiKey; entry 3 is not id:apiKey; entry 5 has the id of an entry before it',
      'OTP_CONSOLE_USERS: entry 1 is not name:password',
      'redis.url: must be a URL that begins with redis:// or rediss://, got text',
    ]);
  });

  it('and does not change the object that was given', () => {
    const before = structuredClone(file);
    config();
    expect(file).toEqual(before);
  });
});
