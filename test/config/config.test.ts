import { randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { type Config, type Fault, loadConfig, type Partition } from '../../src/config.ts';
import { BREAKER_OUTCOMES_KEPT, type RedisSettings } from '../../src/config-schema.ts';
import { queueNames, webhookQueueName } from '../../src/producers/job.ts';
import { Secret } from '../../src/secret.ts';
import { apiKeyHash, hashPassword, newApiKey } from '../../src/secret-hashes.ts';
import { OUTCOMES_KEPT } from '../../src/workers/breaker-policy.ts';
import { acme, errorOf, faultsOf, folder, fromEnv, fromFile, load, minimal } from './world.ts';

const X = 'hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo';
const publicKey = { kty: 'OKP', crv: 'X25519', x: X, kid: 'shop-1' };
const WEBHOOK_SECRET = 'whsec_YSBzZWNyZXQgb2YgMjQgYnl0ZXMgLi4u';
const client = (more: object = {}) => ({ id: 'shop', apiKey: 'shop-key', ...more });

describe('a configuration', () => {
  it('needs one partition and has a default for everything else', () => {
    const { partitions, ...rest } = load(minimal());
    expect(rest).toEqual({
      embedded: { dataDir: '/etc/otp/.data/redis' },
      intake: { host: '127.0.0.1', port: 3000 },
      console: { host: '127.0.0.1', port: 3001, users: [] },
      clients: [],
      sealing: {
        keyFile: '/etc/otp/.data/sealing-keys.json',
        detailsKeyFile: '/etc/otp/.data/details-keys.json',
      },
      results: { webhooks: [], webhookAllow: [], retentionMs: 604_800_000 },
      journal: {
        ...{ waitReplicas: 'auto', waitMs: 200, lossWindowMs: 2000, recoverMs: 5000 },
        ...{ retentionMs: 259_200_000, failedJobsMs: 604_800_000, auditMs: 31_536_000_000 },
      },
      shutdown: { drainMs: 2000 },
      log: { level: 'info' },
      tracing: { headers: {}, serviceName: 'otp-pipeline', sampleRatio: 1 },
      file: null,
      nodeEnv: 'production',
      warnings: [],
    });
    expect(JSON.parse(JSON.stringify(partitions))).toEqual([
      {
        name: 'acme',
        account: 'm-1',
        adapter: 'acme',
        baseUrl: 'https://acme.example',
        rateLimit: { max: 20, perMs: 1000 },
        inquiryRateLimit: { max: 5, perMs: 1000 },
        concurrency: 50,
        timeoutMs: 30_000,
        otpLifetimeMs: 300_000,
        maxAttempts: 3,
        inquiry: {
          delaysMs: [10_000, 30_000, 60_000, 120_000, 300_000, 900_000, 3_600_000],
          giveUpAfterMs: 86_400_000,
        },
        breaker: {
          ...{ enabled: true, failures: 5, share: 0.5, windowMs: 60_000 },
          ...{ openMs: 5_000, maxOpenMs: 60_000, rampMs: 10_000 },
        },
      },
    ]);
  });

  it('gives each partition its provider, bound, and its definition', () => {
    const { partitions } = load(minimal({ providers: { 'acme-2': acme(), bolt: acme({ adapter: undefined }) } }));
    expect(partitions.map(({ name, provider, definition }) => [name, provider.adapter, definition.adapter])).toEqual([
      ['acme-2', 'acme', 'acme'],
      ['bolt', 'bolt', 'bolt'],
    ]);
  });

  it('keeps the settings that are given beside the defaults of those that are not', () => {
    const settings = { rateLimit: { max: 7 }, inquiry: { delaysMs: [5, 3] }, maxAttempts: 1 };
    const [partition] = load(minimal({ providers: { acme: acme(settings) } })).partitions;
    expect(partition).toMatchObject({
      rateLimit: { max: 7, perMs: 1000 },
      inquiry: { delaysMs: [5, 3], giveUpAfterMs: 86_400_000 },
      maxAttempts: 1,
    });
  });

  it('takes its paths from the folder of the file, and absolute ones as they are', () => {
    using files = folder({ 'ca.pem': 'ca', 'client.pem': 'cert', 'client-key.pem': 'key' });
    const tls = { caFile: 'ca.pem', certFile: 'client.pem', keyFile: `${files.path}/client-key.pem` };
    const config = load(
      minimal({ sealing: { keyFile: '/keys/sealing.json' }, providers: { acme: acme({ tls }) } }),
      {},
      { baseDir: files.path },
    );
    expect(config.sealing).toEqual({
      keyFile: '/keys/sealing.json',
      detailsKeyFile: `${files.path}/.data/details-keys.json`,
    });
    expect(config.partitions[0]?.tls).toEqual({
      caFile: `${files.path}/ca.pem`,
      certFile: `${files.path}/client.pem`,
      keyFile: `${files.path}/client-key.pem`,
    });
  });

  it.each<[string, unknown, unknown]>([
    [
      'one server',
      { url: 'rediss://:pw@redis.example:6380/2' },
      { url: new Secret('rediss://:pw@redis.example:6380/2') },
    ],
    [
      'one with signs in its password',
      { url: 'redis://u%40x:100%25%3F@a' },
      { url: new Secret('redis://u%40x:100%25%3F@a') },
    ],
    ['a cluster', { cluster: ['10.0.0.1:7000', '[::1]:7001'] }, { cluster: ['10.0.0.1:7000', '[::1]:7001'] }],
    ['sentinels', { sentinels: ['s1:26379'], name: 'otp' }, { sentinels: ['s1:26379'], name: 'otp' }],
  ])('knows Redis as %s', (_, redis, expected) => {
    expect(load(minimal({ redis })).redis).toEqual(expected);
  });

  it('takes a key for results as a mapping or as JSON text', () => {
    const config = load(
      minimal({
        clients: [
          client({ resultsKey: { ...publicKey, use: 'enc', alg: 'ECDH-ES' }, resultsQueue: 'otp-results-shop' }),
          { id: 'web', apiKey: 'web-key', resultsKey: fromEnv('WEB_KEY') },
        ],
      }),
      { WEB_KEY: JSON.stringify(publicKey) },
    );
    expect(config.clients.map(({ resultsKey }) => resultsKey?.kid)).toEqual(['shop-1', 'shop-1']);
    expect(config.clients[0]?.resultsQueue).toBe('otp-results-shop');
  });

  it.each([
    'https://a.example',
    'https://a.example/v1/',
    'http://localhost:1',
    'http://127.8.9.1',
    'http://[::1]:8080/x',
  ])('accepts %s as a base URL', (baseUrl) => {
    const [partition] = load(minimal({ providers: { acme: acme({ baseUrl }) } })).partitions;
    expect(partition?.baseUrl).toBe(baseUrl.replace(/\/$/, ''));
  });

  it('knows an API key by its hash alone, whichever of the two it was given', () => {
    const key = newApiKey();
    const given = [client({ apiKey: key }), { id: 'web', apiKey: apiKeyHash(newApiKey()) }];
    const config = load(minimal({ clients: given }));
    expect(config.clients.map(({ apiKey }) => apiKey.reveal())).toEqual([apiKeyHash(key), given[1]?.apiKey]);
    expect(config.warnings).toEqual([]);
    expect(faultsOf(minimal({ clients: [client({ apiKey: key }), { id: 'web', apiKey: apiKeyHash(key) }] }))).toEqual([
      'clients[1].apiKey: must differ from clients[0].apiKey',
    ]);
  });

  it('warns of keys and passwords that can be guessed, and not of the hash of one', async () => {
    const users = [
      { name: 'ops', password: 'eleven char' },
      { name: 'night', password: await hashPassword('x') },
    ];
    expect(load(minimal({ clients: [client()], console: { users } })).warnings).toEqual([
      'clients[0].apiKey: has fewer than 20 characters and can be guessed; `otp keys api-key` makes a good one',
      'console.users[0].password: has fewer than 12 characters and can be guessed',
    ]);
  });

  it('lets a breaker count as many failures as workers keep, and no more', () => {
    expect(BREAKER_OUTCOMES_KEPT).toBe(OUTCOMES_KEPT);
    const [partition] = load(minimal({ providers: { acme: acme({ breaker: { failures: 100 } }) } })).partitions;
    expect(partition?.breaker.failures).toBe(100);
  });

  it('warns of times that look like seconds', () => {
    const short = (more: object, retentionMs: unknown) =>
      load(minimal({ providers: { acme: acme({ ...more }) }, journal: { retentionMs } })).warnings;
    expect(short({ timeoutMs: 30, otpLifetimeMs: '300' }, 259_200)).toEqual([
      'providers.acme.timeoutMs: 30 milliseconds is very short (is it in seconds?); 30 seconds are 30000',
      'providers.acme.otpLifetimeMs: 300 milliseconds is very short (is it in seconds?); 300 seconds are 300000',
    ]);
    expect(short({}, 3_600)).toEqual([expect.stringMatching(/^journal\.retentionMs: 3600 milliseconds is very short/)]);
    expect(short({ timeoutMs: 1_000, otpLifetimeMs: 10_000 }, 60_000)).toEqual([]);
  });

  it('warns of a rate whose window is shorter than what a network delays, and names the same rate in a second', () => {
    const rated = (rateLimit: object) => load(minimal({ providers: { acme: acme({ rateLimit }) } })).warnings;
    const [warning, ...more] = rated({ max: 10, perMs: '100' });
    expect(warning).toMatch(/^providers\.acme\.rateLimit\.perMs: in 100 milliseconds .* more than 10, /);
    expect(warning).toMatch(/; max: 100 with perMs: 1000 is the same rate and is kept$/);
    expect(more).toEqual([]);
    expect(rated({ perMs: 500 })).toEqual([expect.stringContaining('; max: 40 with perMs: 1000 ')]);
    expect([...rated({ max: 10 }), ...rated({ max: 10, perMs: 1_000 }), ...rated({ max: 1, perMs: 60_000 })]).toEqual(
      [],
    );
  });

  it('warns of headers that travel to a collector elsewhere in the clear, and shows neither', () => {
    const traced = (endpoint: string, headers = { authorization: 'Bearer canary' }) =>
      load(minimal({ tracing: { endpoint, headers } })).warnings;
    const [warning, ...more] = traced('http://collector.example/canary/v1/traces');
    expect(warning).toMatch(/^tracing\.endpoint: is plain http to another machine.*; use https:/);
    expect(warning).not.toContain('canary');
    expect(more).toEqual([]);
    expect(load(minimal({ tracing: { endpoint: 'http://collector.example/v1/traces' } })).warnings).toEqual([]);
    for (const url of ['https://collector.example/v1/traces', 'http://127.0.0.1:4318/', 'http://[::1]:4318/']) {
      expect(traced(url)).toEqual([]);
    }
  });

  it('has limits for a client, the one on its rate only if it is asked for', () => {
    const clients = [client(), { id: 'web', apiKey: 'web-key', rateLimit: { max: 5 }, maxInFlight: 2 }];
    expect(load(minimal({ clients })).clients).toMatchObject([
      { maxInFlight: 1000 },
      { rateLimit: { max: 5, perMs: 1000 }, maxInFlight: 2 },
    ]);
    expect(load(minimal({ clients })).clients[0]).not.toHaveProperty('rateLimit');
  });

  it('is read-only, and typed by the schema', () => {
    expectTypeOf<Config['partitions']>().toEqualTypeOf<readonly Partition[]>();
    expectTypeOf<Config['redis']>().toEqualTypeOf<RedisSettings | undefined>();
    expectTypeOf<Config['clients'][number]['apiKey']>().toEqualTypeOf<Secret<string>>();
    expectTypeOf<Config['intake']>().toEqualTypeOf<{
      readonly host: string;
      readonly port: number;
      readonly tls?: { readonly certFile: string; readonly keyFile: string };
    }>();
    expectTypeOf<Config['journal']['waitReplicas']>().toEqualTypeOf<number | 'auto'>();
    expectTypeOf<Partition['rateLimit']>().toEqualTypeOf<{ readonly max: number; readonly perMs: number }>();
    expectTypeOf<Partition>().not.toHaveProperty('credentials');
  });
});

describe('a fault says its key, what was expected and what came', () => {
  const partition = (more: object) => minimal({ providers: { acme: acme({ ...more }) } });
  const withClient = (more: object) => minimal({ clients: [client(more)] });
  const withWebhook = (more: object) =>
    minimal({
      clients: [client()],
      results: { webhooks: [{ client: 'shop', url: 'https://shop.example/hook', secret: WEBHOOK_SECRET, ...more }] },
    });
  const elsewhere = 'must begin with https:// (plain http only to this machine: 127.0.0.0/8, localhost, ::1)';
  const positive = 'must be a positive integer';
  const timer = `${positive} (milliseconds), at most 2147483647 (24 days)`;

  it.each<[string, unknown, string | RegExp]>([
    ['no providers', {}, 'providers: must name at least one partition'],
    ['empty providers', { providers: {} }, 'providers: must name at least one partition'],
    ['providers as a list', { providers: [] }, 'providers: must be a mapping of keys to values, got a list'],
    ['a section left empty', minimal({ redis: null }), 'redis: must be a mapping of keys to values, got nothing'],
    [
      'a partition left empty',
      { providers: { acme: null } },
      'providers.acme: must be a mapping of keys to values, got nothing',
    ],

    ['a zero rate', partition({ rateLimit: { max: 0 } }), `providers.acme.rateLimit.max: ${positive}, got 0`],
    [
      'a rate in words',
      partition({ rateLimit: { perMs: 'fast' } }),
      `providers.acme.rateLimit.perMs: ${positive} (milliseconds), at most 315360000000 (ten years), got "fast"`,
    ],
    ['half a time', partition({ timeoutMs: 1.5 }), `providers.acme.timeoutMs: ${timer}, got 1.5`],
    ['a time beyond timers', partition({ timeoutMs: 2 ** 31 }), `providers.acme.timeoutMs: ${timer}, got 2147483648`],
    [
      'more failures than are ever counted',
      partition({ breaker: { failures: 101 } }),
      'providers.acme.breaker.failures: must be 1 to 100: no more outcomes are kept, got 101',
    ],
    ['negative attempts', partition({ maxAttempts: -1 }), `providers.acme.maxAttempts: ${positive}, got -1`],
    [
      'no delays',
      partition({ inquiry: { delaysMs: [] } }),
      'providers.acme.inquiry.delaysMs: must have at least one delay, got a list',
    ],
    [
      'a zero delay',
      partition({ inquiry: { delaysMs: [1, 0] } }),
      `providers.acme.inquiry.delaysMs[1]: ${timer}, got 0`,
    ],
    [
      'never giving up',
      partition({ inquiry: { giveUpAfterMs: 0 } }),
      `providers.acme.inquiry.giveUpAfterMs: ${positive} (milliseconds), at most 315360000000 (ten years), got 0`,
    ],
    [
      'half a client certificate',
      partition({ tls: { certFile: '/dev/null' } }),
      'providers.acme.tls: must have certFile and keyFile together, or neither',
    ],
    [
      'a missing certificate',
      partition({ tls: { caFile: 'no.pem' } }),
      'providers.acme.tls.caFile: must be a readable file: there is no such file, got "no.pem"',
    ],

    [
      'half a certificate of its own',
      minimal({ intake: { tls: { certFile: '/dev/null' } } }),
      'intake.tls.keyFile: must be text, but is missing',
    ],
    [
      'a certificate of its own that is missing',
      minimal({ console: { tls: { certFile: 'no.pem', keyFile: '/dev/null' } } }),
      'console.tls.certFile: must be a readable file: there is no such file, got "no.pem"',
    ],
    [
      'a rate without a number',
      withClient({ rateLimit: { perMs: 1 } }),
      'clients[0].rateLimit.max: must be a positive integer, but is missing',
    ],
    [
      'an API key that is half a hash',
      withClient({ apiKey: 'sha256:canary' }),
      'clients[0].apiKey: must be sha256: and then 64 of 0-9 and a-f, as `otp keys api-key` prints it, or a key that begins otherwise, got text',
    ],
    ...['scrypt:canary', `scrypt:1024:8:1:${'a'.repeat(22)}:${'a'.repeat(43)}`].map(
      (password): [string, unknown, RegExp] => [
        `the password ${password.slice(0, 12)}…`,
        minimal({ console: { users: [{ name: 'ops', password }] } }),
        /^console\.users\[0\]\.password: must be scrypt:N:r:p:salt:hash as `otp keys password` prints it.* got text$/,
      ],
    ),

    ['no base URL', partition({ baseUrl: undefined }), 'providers.acme.baseUrl: must be text, but is missing'],
    [
      'a base URL that is none',
      partition({ baseUrl: 'acme' }),
      'providers.acme.baseUrl: must be an absolute URL that begins with https://, got "acme"',
    ],
    [
      'another protocol',
      partition({ baseUrl: 'ftp://acme.example' }),
      'providers.acme.baseUrl: must be a URL that begins with https://, got "ftp://acme.example"',
    ],
    [
      'plain http',
      partition({ baseUrl: 'http://acme.example' }),
      `providers.acme.baseUrl: ${elsewhere}, got "http://acme.example"`,
    ],
    [
      'a host that looks like loopback',
      partition({ baseUrl: 'http://127.0.0.1.example' }),
      `providers.acme.baseUrl: ${elsewhere}, got "http://127.0.0.1.example"`,
    ],
    [
      'a query in the base URL',
      partition({ baseUrl: 'https://acme.example?key=canary' }),
      'providers.acme.baseUrl: must have no query (?) and no fragment (#), got text',
    ],
    [
      'a fragment in the base URL',
      partition({ baseUrl: 'https://acme.example/#canary' }),
      'providers.acme.baseUrl: must have no query (?) and no fragment (#), got text',
    ],
    [
      'a password in the base URL',
      partition({ baseUrl: 'https://me:canary@acme.example' }),
      'providers.acme.baseUrl: must have no user name or password in it, got text',
    ],

    [
      'an unknown adapter',
      { providers: { cepat: acme({ adapter: undefined }) } },
      'providers.cepat.adapter: must be one of acme, bolt; got "cepat" (the name of the partition)',
    ],
    [
      'an adapter from the prototype',
      partition({ adapter: 'toString' }),
      'providers.acme.adapter: must be one of acme, bolt; got "toString"',
    ],
    [
      'an underscore in a partition',
      { providers: { acme_2: acme() } },
      /^providers\.acme_2: a partition is named by 1 to 40 of a-z/,
    ],
    ...['intake', 'console'].map((server): [string, unknown, string] => [
      `the text of a file where ${server} listens`,
      minimal({ [server]: { host: '{"canary":1}' } }),
      `${server}.host: must be a host name or an address, such as 127.0.0.1, got text`,
    ]),
    [
      'a time that no clock will see',
      partition({ otpLifetimeMs: 315_360_000_001 }),
      'providers.acme.otpLifetimeMs: must be a positive integer (milliseconds), at most 315360000000 (ten years), got 315360000001',
    ],
    [
      'a partition that would be a webhook',
      { providers: { 'webhook-shop': acme() } },
      /^providers\.webhook-shop: cannot be the name .* the queue otp-webhook-shop/,
    ],
    [
      'a partition that would be the results',
      { providers: { results: acme() } },
      /^providers\.results: cannot be the name .* the queue otp-results/,
    ],
    [
      'a partition that would be a neighbour’s inquiries',
      { providers: { acme: acme(), 'acme-inquiry': acme({ adapter: 'bolt' }) } },
      /^providers\.acme-inquiry: cannot be the name/,
    ],
    ...Object.values(queueNames('acme'))
      .filter((queue) => queue !== 'otp-acme')
      .map((queue): [string, unknown, string] => {
        const name = queue.replace('otp-', '');
        return [
          `a partition whose queue is ${queue} of another`,
          { providers: { [name]: acme({ adapter: 'bolt' }), acme: acme() } },
          `providers.${name}: cannot be the name of a partition: the queue ${queue} belongs to providers.acme`,
        ];
      }),
    ...['inquiry', 'callback'].map((id): [string, unknown, string] => [
      `a partition whose queue would be that of the webhook of ${id}`,
      {
        providers: { webhook: acme() },
        clients: [client({ id })],
        results: { webhooks: [{ client: id, url: 'https://shop.example/hook', secret: WEBHOOK_SECRET }] },
      },
      `providers.webhook: cannot be the name of a partition: the queue ${webhookQueueName(id)} belongs to results.webhooks[0].client`,
    ]),
    [
      'the same account twice',
      { providers: { one: acme(), two: acme({ baseUrl: 'https://ACME.example/' }) } },
      'providers.two: is the adapter, baseUrl and account of providers.one again',
    ],
    [
      'an option',
      partition({ options: { mode: 'sgined' } }),
      'providers.acme.options.mode: must be one of plain, signed, got "sgined"',
    ],
    [
      'an option of several forms',
      partition({ options: { callback: { header: 'x', bits: 1 } } }),
      'providers.acme.options.callback.bits: must be at least 128, got 1',
    ],
    [
      'missing credentials',
      partition({ credentials: { merchant: 'm' } }),
      'providers.acme.credentials.key: must be text, but is missing',
    ],
    [
      'credentials and options that contradict',
      partition({ credentials: { merchant: 'unsigned', key: 'canary' }, options: { mode: 'signed' } }),
      'providers.acme: acme: options.mode signed is not for this merchant ([secret])',
    ],

    [
      'an id of a client',
      withClient({ id: '-shop' }),
      'clients[0].id: must be 1 to 64 letters, digits, dots, dashes and underscores, got text',
    ],
    ['an API key as a number', withClient({ apiKey: 123_456 }), 'clients[0].apiKey: must be text, got a number'],
    [
      'an empty API key',
      withClient({ apiKey: '' }),
      /^clients\[0\]\.apiKey: must be visible ASCII .* got an empty text$/,
    ],
    [
      'a partition that is not there',
      withClient({ providers: ['acme', 'cepta'] }),
      'clients[0].providers[1]: must be a partition (acme), got "cepta"',
    ],
    [
      'a client that may do nothing',
      withClient({ providers: [] }),
      /^clients\[0\]\.providers: must name at least one partition/,
    ],
    [
      'a private key for results',
      withClient({ resultsKey: { ...publicKey, d: 'canary' } }),
      /^clients\[0\]\.resultsKey\.d: must not be here: it is the private half.*got text$/,
    ],
    [
      'a key of another curve',
      withClient({ resultsKey: { ...publicKey, crv: 'P-256' } }),
      'clients[0].resultsKey.crv: must be X25519, got text',
    ],
    [
      'a key that is no key',
      withClient({ resultsKey: 'canary' }),
      'clients[0].resultsKey: must be a mapping of keys to values, got text',
    ],
    [
      'the queue of all results',
      withClient({ resultsQueue: 'otp-results' }),
      /^clients\[0\]\.resultsQueue: must be a queue of its own, but otp-results is/,
    ],
    [
      'the queue of a webhook',
      withClient({ resultsQueue: 'otp-webhook-shop' }),
      /^clients\[0\]\.resultsQueue: .*belong to the webhooks$/,
    ],
    [
      'the queue of a partition',
      withClient({ resultsQueue: 'otp-acme-inquiry' }),
      /^clients\[0\]\.resultsQueue: .*belong to the partition acme$/,
    ],
    [
      'a queue with a colon',
      withClient({ resultsQueue: 'otp:shop' }),
      /^clients\[0\]\.resultsQueue: must be letters, digits, dots, dashes and underscores, got text$/,
    ],
    [
      'a client twice',
      minimal({ clients: [client(), client({ apiKey: 'other' })] }),
      'clients[1].id: must differ from clients[0].id',
    ],
    [
      'an API key twice',
      minimal({ clients: [client(), client({ id: 'web' })] }),
      'clients[1].apiKey: must differ from clients[0].apiKey',
    ],

    [
      'two webhooks of one client',
      minimal({
        clients: [client()],
        results: {
          webhooks: ['a', 'b'].map((path) => ({
            client: 'shop',
            url: `https://shop.example/${path}`,
            secret: WEBHOOK_SECRET,
          })),
        },
      }),
      'results.webhooks[1].client: must differ from results.webhooks[0].client',
    ],
    [
      'a webhook for nobody',
      withWebhook({ client: 'web' }),
      'results.webhooks[0].client: must be the id of a client, got "web"',
    ],
    [
      'a webhook in the clear',
      withWebhook({ url: 'http://shop.example/canary' }),
      `results.webhooks[0].url: ${elsewhere}, got text`,
    ],
    [
      'a webhook secret of another kind',
      withWebhook({ secret: 'canary' }),
      'results.webhooks[0].secret: must be whsec_ and then base64, got text',
    ],
    [
      'a webhook secret that is not base64',
      withWebhook({ secret: 'whsec_can!ary' }),
      'results.webhooks[0].secret: must be whsec_ and then base64, got text',
    ],
    ...[0, 1, 23].map((bytes): [string, unknown, RegExp] => [
      `a webhook secret of ${bytes} bytes`,
      withWebhook({ secret: `whsec_${randomBytes(bytes).toString('base64')}` }),
      /^results\.webhooks\[0\]\.secret: must (have at least 24 bytes|be whsec_ and then base64).* got text$/,
    ]),

    [
      'two kinds of Redis',
      minimal({ redis: { url: 'redis://a', cluster: ['a:1'] } }),
      'redis: must have exactly one of url, cluster and sentinels',
    ],
    [
      'a user of Redis without a password',
      minimal({ redis: { cluster: ['a:1'], username: 'otp' } }),
      'redis.username: must go with a password, got text',
    ],
    [
      'two passwords of Redis',
      minimal({ redis: { url: 'redis://:canary@a', password: 'canary' } }),
      'redis.password: must not be here: the url has one already, got text',
    ],
    [
      'TLS for a url that speaks none',
      minimal({ redis: { url: 'redis://a', tls: {} } }),
      'redis.tls: must go with a url that begins with rediss://',
    ],
    [
      'a password of sentinels that are not there',
      minimal({ redis: { cluster: ['a:1'], sentinelPassword: 'canary' } }),
      'redis.sentinelPassword: must go with sentinels, got text',
    ],
    [
      'a prefix with a dash',
      minimal({ redis: { cluster: ['a:1'], namePrefix: 'north-west' } }),
      'redis.namePrefix: must be 1 to 20 of a-z and 0-9, got text',
    ],
    [
      'a prefix that names begin with anyhow',
      minimal({ redis: { cluster: ['a:1'], namePrefix: 'otp' } }),
      'redis.namePrefix: must be neither otp nor idem, with which the names begin, got text',
    ],
    ['no kind of Redis', minimal({ redis: {} }), 'redis: must have exactly one of url, cluster and sentinels'],
    [
      'sentinels without their group',
      minimal({ redis: { sentinels: ['a:1'] } }),
      /^redis\.name: must go with sentinels/,
    ],
    [
      'a cluster node without a port',
      minimal({ redis: { cluster: ['10.0.0.1'] } }),
      'redis.cluster[0]: must be host:port, got text',
    ],
    [
      'another address for Redis',
      minimal({ redis: { url: 'http://:canary@redis' } }),
      'redis.url: must be a URL that begins with redis:// or rediss://, got text',
    ],

    ...['redis://:100%canary@redis', 'rediss://100%canary:x@redis:6380/1', 'redis://:%ffcanary@redis'].map(
      (url): [string, unknown, string] => [
        `a login of Redis that cannot be decoded, ${url}`,
        minimal({ redis: { url } }),
        'redis.url: must have its user and password percent-encoded (a % is %25), got text',
      ],
    ),
    ...['redis://:canary@redis/shop', 'redis://redis/2/canary', 'redis://redis/canary2'].map(
      (url): [string, unknown, string] => [
        `a database without a number, ${url}`,
        minimal({ redis: { url } }),
        'redis.url: must have nothing behind the host but the number of a database, as in /2, got text',
      ],
    ),
    ...['redis://:canary@redis?db=2', 'redis://redis/2?canary', 'redis://redis#canary'].map(
      (url): [string, unknown, string] => [
        `more than an address of Redis, ${url}`,
        minimal({ redis: { url } }),
        'redis.url: must have no query (?) and no fragment (#); in a password they are %3F and %23, got text',
      ],
    ),

    ['a port too high', minimal({ intake: { port: 65_536 } }), /^intake\.port: must be a port number: .* got 65536$/],
    ['one port for two', minimal({ console: { port: 3000 } }), 'console.port: must be another port than intake.port'],
    [
      'a colon in the name of a user',
      minimal({ console: { users: [{ name: 'a:b', password: 'canary' }] } }),
      'console.users[0].name: must have no colon and no space, got text',
    ],
    [
      'a password as a number',
      minimal({ console: { users: [{ name: 'a', password: 424_242 }] } }),
      'console.users[0].password: must be text, got a number',
    ],
    [
      'a user twice',
      minimal({
        console: {
          users: [
            { name: 'a', password: 'x' },
            { name: 'a', password: 'y' },
          ],
        },
      }),
      'console.users[1].name: must differ from console.users[0].name',
    ],
    [
      'one file for two key sets',
      minimal({ sealing: { keyFile: 'a', detailsKeyFile: './a' } }),
      /^sealing\.detailsKeyFile: must be another file than keyFile/,
    ],
    [
      'replicas in words',
      minimal({ journal: { waitReplicas: 'all' } }),
      'journal.waitReplicas: must be auto or a number of replicas (0 or more), got "all"',
    ],
    ['waiting for ever', minimal({ journal: { waitMs: 0 } }), `journal.waitMs: ${timer}, got 0`],
    [
      'a log level',
      minimal({ log: { level: 'verbose' } }),
      /^log\.level: must be one of fatal, error, .* got "verbose"$/,
    ],
  ])('%s', (_, data, expected) => {
    expect(faultsOf(data)).toEqual([typeof expected === 'string' ? expected : expect.stringMatching(expected)]);
  });

  it.each<[string, unknown, string]>([
    ['a slip of the hand', minimal({ intake: { prot: 1 } }), 'intake.prot: is not a known key; is port meant?'],
    ['another case', partition({ base_url: 'x' }), 'providers.acme.base_url: is not a known key; is baseUrl meant?'],
    ['two letters changed', minimal({ jurnla: {} }), 'jurnla: is not a known key; is journal meant?'],
    ['in a list', withClient({ apikey: 'canary' }), 'clients[0].apikey: is not a known key; is apiKey meant?'],
    [
      'in what the adapter brings',
      partition({ options: { paths: { verfy: '/' } } }),
      'providers.acme.options.paths.verfy: is not a known key; is verify meant?',
    ],
    ['nothing like it', minimal({ log: { colour: true } }), 'log.colour: is not a known key; known here: level'],
    [
      'a secret that lost its place',
      minimal({ log: { 'password:canary': null } }),
      'log.(a key of 15 characters): is not a known key; known here: level',
    ],
  ])('an unknown key brings the nearest known one: %s', (_, data, expected) => {
    expect(faultsOf(data)).toEqual([expected]);
  });

  it('lets the same account stand at another address, and another account at the same one', () => {
    const { partitions } = load({
      providers: {
        one: acme(),
        two: acme({ baseUrl: 'https://acme.example/sandbox' }),
        three: acme({ credentials: { merchant: 'm-3', key: 'acme-key' } }),
        four: acme({ adapter: 'bolt' }),
      },
    });
    expect(partitions).toHaveLength(4);
  });
});

describe('all faults come at once', () => {
  const broken = {
    redis: { url: 'redis://a', sentinels: ['nowhere'], name: 7 },
    intake: { port: 'http' },
    clients: [
      { id: 'shop', apiKey: fromEnv('SHOP_API_KEY'), providers: ['cepta'] },
      { id: 'shop', apiKey: 5, resultsQueue: 'otp-results', colour: 'red' },
    ],
    results: { webhooks: [{ client: 'web', url: 'https://web.example', secret: 'none' }] },
    providers: {
      acme: { baseUrl: 'http://acme.example', credentials: { key: 1 }, options: { mode: 'x' }, rateLimit: { max: 0 } },
      zorro: { adapter: 'zorro' },
      One_Two: acme(),
      again: acme(),
    },
    retries: 3,
  };

  it('each on its own line, in one message, in the order of their keys', () => {
    const error = errorOf(() => load(broken));
    expect(error.faults.map(({ key }) => key)).toEqual([
      'clients[0].apiKey',
      'clients[0].providers[0]',
      'clients[1].apiKey',
      'clients[1].colour',
      'clients[1].id',
      'clients[1].resultsQueue',
      'intake.port',
      'providers.acme.baseUrl',
      'providers.acme.credentials.key',
      'providers.acme.credentials.merchant',
      'providers.acme.options.mode',
      'providers.acme.rateLimit.max',
      'providers.again',
      'providers.One_Two',
      'providers.zorro.adapter',
      'providers.zorro.baseUrl',
      'redis',
      'redis.name',
      'redis.sentinels[0]',
      'results.webhooks[0].client',
      'results.webhooks[0].secret',
      'retries',
    ]);
    const [head, ...lines] = error.message.split('\n');
    expect(head).toBe('the configuration has 22 faults:');
    expect(lines).toEqual(error.faults.map(({ key, message }: Fault) => `  ${key}: ${message}`));
  });

  it('also a contradiction behind an address that is at fault', () => {
    const data = (name: string) =>
      acme({ baseUrl: 'x', credentials: { merchant: name, key: 'acme-key' }, options: { mode: 'signed' } });
    expect(faultsOf({ providers: { one: data('unsigned'), two: data('m-1'), three: data('m-1') } })).toEqual([
      'providers.one: acme: options.mode signed is not for this merchant ([secret])',
      expect.stringMatching(/^providers\.one\.baseUrl: /),
      expect.stringMatching(/^providers\.three\.baseUrl: /),
      expect.stringMatching(/^providers\.two\.baseUrl: /),
    ]);
  });

  it('and a strange name harms nothing', () => {
    const data = JSON.parse(
      '{ "providers": { "__proto__": { "adapter": "acme" }, "constructor": 5 }, "__proto__": 1 }',
    );
    expect(faultsOf(data).join('\n')).toMatch(/providers\.__proto__: .*\n(.*\n)*providers\.constructor: /);
    expect(({} as Record<string, unknown>).adapter).toBeUndefined();
  });
});

describe('a secret', () => {
  const canary = (): string => `canary${randomBytes(6).toString('hex')}`;

  it('is in no fault, wherever it stands and whatever is wrong with it', () => {
    const secrets = Array.from({ length: 14 }, canary);
    const [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = secrets;
    const data = {
      redis: { url: `ftp://:${a}@redis` },
      clients: [
        { id: 'shop', apiKey: `${b} ${c}`, apikey: d },
        { id: 'web', apiKey: [e], resultsKey: { ...publicKey, d: f, x: g } },
        { id: 'one', apiKey: n },
        { id: 'two', apiKey: n },
      ],
      console: { users: [{ name: 'ops', password: { value: h }, passwd: h }] },
      results: { webhooks: [{ client: 'x', url: `https://u:${i}@web.example`, secret: j }] },
      providers: {
        acme: acme({
          credentials: { merchant: { k }, key: [l], pin: m, secretKey: k },
          baseUrl: `https://x.example?${i}`,
        }),
        bolt: acme({ adapter: 'bolt', credentials: `key:${l}` }),
        [`acme ${k}`]: acme(),
      },
    };
    const error = errorOf(() => load(data, { OTP_API_KEYS: secrets.join(','), OTP_CONSOLE_USERS: a }));
    const said = [error.message, error.stack, JSON.stringify(error), inspect(error, { depth: 9 })].join('\n');
    expect(error.faults.length).toBeGreaterThan(12);
    for (const secret of secrets) expect(said).not.toContain(secret);
  });

  it.each<[string, object]>([
    ['a user as name:password', { console: { users: ['ops:hunter2hunter2'] } }],
    ['the name of a user with its password', { console: { users: [{ name: 'ops:hunter2hunter2', password: 'x' }] } }],
    ['all users in one text', { console: { users: 'ops:hunter2hunter2' } }],
    ['a client as id:key', { clients: ['shop:hunter2hunter2'] }],
    ['the id of a client with its key', { clients: [client({ id: 'shop:hunter2hunter2' })] }],
    ['clients by their names', { clients: { shop: 'hunter2hunter2' } }],
    ['a key among the partitions of a client', { clients: [client({ providers: ['hunter2hunter2'] })] }],
    ['a rate of a client', { clients: [client({ rateLimit: { max: 'hunter2hunter2' } })] }],
    ['a webhook that is its secret', { results: { webhooks: ['whsec_hunter2hunter2'] } }],
    ['a header of digits', { tracing: { headers: { authorization: 998877665544 } } }],
    ['all headers in one text', { tracing: { headers: 'Bearer-hunter2hunter2' } }],
    ['the address of a collector', { tracing: { endpoint: 'ftp://collector/hunter2hunter2' } }],
    ['Redis as its password', { redis: 'hunter2hunter2' }],
    ['a node of a cluster that is its password', { redis: { cluster: [':hunter2hunter2'] } }],
    ['a partition as its key', { providers: { acme: 'hunter2hunter2' } }],
    ['a section as one text', { sealing: 'hunter2hunter2' }],
    ['digits where a path belongs', { intake: { tls: { certFile: '/dev/null', keyFile: 998877665544 } } }],
  ])('that stands a step beside its place is not shown: %s', (_, more) => {
    const { message } = errorOf(() => load(minimal({ ...more })));
    expect(message).not.toMatch(/hunter2|998877665544/);
    expect(message).toMatch(/, got (text|a number|a mapping)$/m);
  });

  it.each<[string, string]>([
    ['the text of a key file', '{\n  "keys": [{ "d": "hunter2" }]\n}'],
    ['it on one line', '{"keys":[{"d":"hunter2"}]}'],
    ['a PEM file', '-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----'],
    ['a control character', 'hunter2\u007f'],
    ['more than any path has', 'hunter2'.repeat(150)],
  ])('is not shown where the path of a file belongs: %s', (_, text) => {
    using files = folder({ text });
    const sealing = { keyFile: fromFile('text') };
    const tls = { certFile: text, keyFile: '/dev/null' };
    expect(
      faultsOf(minimal({ sealing, embedded: { dataDir: text }, console: { tls } }), {}, { baseDir: files.path }),
    ).toEqual([
      'console.tls.certFile: must be the path of a file, got text',
      'embedded.dataDir: must be the path of a file, got text',
      'sealing.keyFile: must be the path of a file, got text that is not in the file',
    ]);
  });

  it('is not shown by a configuration that is printed', () => {
    const secrets = Array.from({ length: 5 }, canary);
    const [password, apiKey, user, webhook, key] = secrets;
    const config = load(
      minimal({
        redis: { url: `redis://:${password}@redis` },
        clients: [client({ apiKey })],
        console: { users: [{ name: 'ops', password: user }] },
        results: {
          webhooks: [{ client: 'shop', url: 'https://shop.example', secret: `whsec_${webhook}${'A'.repeat(14)}` }],
        },
        providers: { acme: acme({ credentials: { merchant: 'm-1', key: fromEnv('KEY') } }) },
      }),
      { KEY: key },
    );
    const printed = [
      JSON.stringify(config),
      inspect(config, { depth: 20, showHidden: true }),
      `${config.clients[0]?.apiKey}`,
      inspect({ ...config.partitions[0] }, { depth: 20, showHidden: true }),
    ].join('\n');
    for (const secret of secrets) expect(printed).not.toContain(secret);
    expect(printed).toContain('[secret]');
    expect(JSON.stringify(config)).toContain('"rateLimit":{"max":20,"perMs":1000}');
    expect(config.clients[0]?.apiKey.reveal()).toBe(apiKeyHash(apiKey ?? ''));
  });
});

it('reads the environment of the process when none is given', () => {
  const before = process.env.OTP_CONFIG;
  process.env.OTP_CONFIG = '/nowhere/of-the-process.yaml';
  try {
    expect(errorOf(() => loadConfig()).message).toContain('/nowhere/of-the-process.yaml');
  } finally {
    if (before === undefined) delete process.env.OTP_CONFIG;
    else process.env.OTP_CONFIG = before;
  }
});
