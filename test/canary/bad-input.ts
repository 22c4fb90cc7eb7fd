/** What nobody should send, with a canary wherever a careless answer could quote it. */
import type { Canaries } from './canaries.ts';

export interface BadRequest {
  readonly name: string;
  /** Under the intake's address. */
  readonly path: string;
  readonly init: RequestInit;
}

/** `apiKey` is a client's, so that what is wrong is the rest. */
export function badRequests(canaries: Canaries, apiKey: string): BadRequest[] {
  const code = (name: string): string => canaries.code(`bad input: ${name}`);
  const phone = (name: string): string => canaries.phone(`bad input: ${name}`);
  const headers = (more: Record<string, string> = {}): Record<string, string> => ({
    authorization: `Bearer ${apiKey}`,
    'content-type': 'application/json',
    'idempotency-key': canaries.token('customer data', 'an idempotency key'),
    ...more,
  });
  const good = { provider: 'cepta', otp: '1234', params: { transactionRef: 'TX', paymentId: 'P', md: 'm' } };
  const post = (name: string, body: string | Buffer<ArrayBuffer>, more: Record<string, string> = {}): BadRequest => ({
    name,
    path: '/v1/verifications',
    init: { method: 'POST', headers: headers(more), body },
  });
  const json = (name: string, body: unknown, more: Record<string, string> = {}): BadRequest =>
    post(name, JSON.stringify(body), more);

  return [
    json('a code too long', { ...good, otp: `${code('too long')}${code('far too long')}` }),
    json('a code as a number', { ...good, otp: Number(canaries.digits('bad input: a number')) }),
    json('a code in a list', { ...good, otp: [code('in a list')] }),
    json('a code with a space', { ...good, otp: ` ${code('with a space')}` }),
    json('a provider that is a code', { ...good, provider: code('as the provider') }),
    json('an operation that is a code', { ...good, operation: code('as the operation') }),
    json('params that are a code', { ...good, params: code('as the params') }),
    json('params in a list', { ...good, params: [code('params in a list')] }),
    json('a param of another type', { ...good, params: { ...good.params, md: { [code('md')]: phone('md') } } }),
    json('unknown fields', {
      ...good,
      [code('a field')]: phone('a field'),
      params: { [code('a param')]: phone('a param') },
    }),
    json('an amount', { ...good, amount: { value: code('amount'), currency: code('currency'), [code('unknown')]: 1 } }),
    json('a time', { ...good, expiresAt: code('a time') }),
    json('metadata', { ...good, metadata: code('metadata') }),
    json('too much metadata', { ...good, metadata: { [code('metadata')]: phone('metadata').repeat(400) } }),
    json('nested', JSON.parse(`${'{"a":'.repeat(60)}"${code('nested')}"${'}'.repeat(60)}`)),
    json('a text', code('a text')),
    json('nobody’s operation', { provider: 'beqelal', operation: 'send', params: { reference: phone('send') } }),
    json('a code that send does not take', {
      provider: 'lipa-later',
      operation: 'send',
      otp: code('send'),
      params: {},
    }),
    json('a phone of no form', {
      provider: 'lipa-later',
      otp: code('lipa-later'),
      params: {
        id_number: [canaries.idNumber('bad')],
        item_value: phone('price'),
        phone_number: `0${phone('form').slice(4)}`,
      },
    }),
    json('half a customer', {
      provider: 'lipa-later',
      operation: 'send',
      params: {
        id_number: canaries.idNumber('half'),
        phone_number: phone('half'),
        first_name: canaries.token('name', 'half'),
      },
    }),
    json('both customer tokens', {
      provider: 'ayoconnect',
      otp: code('ayoconnect'),
      params: {
        authCode: canaries.token('customer token', 'both', 32),
        customerAccessToken: canaries.token('customer token', 'both', 48),
        externalId: canaries.text('customer data', 'an external id'),
        additionalInfo: { deep: JSON.parse(`${'['.repeat(20)}"${phone('deep')}"${']'.repeat(20)}`) },
      },
    }),
    json('a wrong API key', good, { authorization: `Bearer ${canaries.token('API key', 'a wrong one', 40)}` }),
    json('no bearer', good, { authorization: canaries.token('API key', 'without Bearer', 40) }),
    json('an idempotency key with spaces', good, { 'idempotency-key': `${phone('key')} ${code('key')}` }),
    json(
      'another media type',
      { ...good, otp: code('media type') },
      { 'content-type': `application/${code('media')}` },
    ),
    json(
      'another charset',
      { ...good, otp: code('charset') },
      { 'content-type': `application/json; charset=${code('set')}` },
    ),
    json('another encoding', { ...good, otp: code('encoding') }, { 'content-encoding': code('encoding') }),
    json('a wait of no seconds', { ...good, otp: `${code('wait')}x` }, { prefer: `wait=${code('prefer')}` }),
    post('a key twice', `{"otp":"${code('twice')}","otp":"${code('and again')}","provider":"${code('twice')}"}`),
    post('broken JSON', `{"otp":"${code('broken')}`),
    post('JSON with a word', `{"otp":${code('a word')}}`),
    post('a code instead of JSON', code('instead')),
    post('bytes that are no text', Buffer.from([0xff, 0xfe, ...Buffer.from(code('bytes'))])),
    post('too large', JSON.stringify({ ...good, otp: code('large'), params: { md: phone('large').repeat(5_000) } })),
    { name: 'an id that is a code', path: `/v1/verifications/${code('as an id')}`, init: { headers: headers() } },
    {
      name: 'a sequence that is a code',
      path: `/v1/verifications/cepta_${'0'.repeat(32)}?after=${code('as a sequence')}`,
      init: { headers: headers() },
    },
    {
      name: 'no such path',
      path: `/${code('a path')}/${code('below')}?otp=${code('a query')}`,
      init: { headers: headers() },
    },
    { name: 'a path that is no text', path: `/v1/verifications/%ZZ${code('no text')}`, init: { headers: headers() } },
    {
      name: 'another method',
      path: '/v1/verifications',
      init: { method: 'PUT', headers: headers(), body: code('PUT') },
    },
    {
      name: 'a callback for nobody',
      path: `/v1/callbacks/${code('nobody')}/${code('token')}`,
      init: { method: 'POST', body: code('callback') },
    },
    ...['cepta', 'hello-clever', 'ayoconnect', 'beqelal/a-wrong-token'].map((partition) => ({
      name: `a forged callback of ${partition}`,
      path: `/v1/callbacks/${partition}`,
      init: {
        method: 'POST',
        headers: {
          authorization: `Bearer ${canaries.token('credential', `forged for ${partition}`)}`,
          'hash-key': 'x',
        },
        body: JSON.stringify({ reference: code('forged'), phone: phone('forged') }),
      },
    })),
  ];
}

/** Configurations with a secret where it does not belong; each must be refused. */
export function badConfigurations(canaries: Canaries): { readonly name: string; readonly text: string }[] {
  const secret = (name: string): string => canaries.token('credential', `bad configuration: ${name}`, 40);
  const cepta = (credentials: string): string =>
    `clients: [{ id: shop, apiKey: ${secret('an API key beside it')} }]\nproviders:\n  cepta:\n    baseUrl: https://cepta.example\n    credentials: ${credentials}\n`;
  return [
    { name: 'an open quote', text: cepta(`{ secretKey: "${secret('an open quote')} }`) },
    { name: 'a tab', text: cepta(`\n\tsecretKey: ${secret('a tab')}`) },
    { name: 'a key that is the secret', text: cepta(`{ ${secret('as a key')} }`) },
    { name: 'a secret as all credentials', text: cepta(secret('as all credentials')) },
    { name: 'a secret in a list', text: cepta(`{ secretKey: [${secret('in a list')}] }`) },
    { name: 'an alias', text: cepta(`{ secretKey: *${secret('an alias')} }`) },
    { name: 'a tag', text: cepta(`{ secretKey: !${secret('a tag')} x }`) },
    { name: 'a reference', text: cepta(`{ secretKey: "\${${secret('a reference')}}" }`) },
    {
      name: 'an address',
      text: `redis: { url: "redis://:${secret('an address')}@:port" }\n${cepta('{ secretKey: x }')}`,
    },
    {
      name: 'another scheme',
      text: `redis: { url: "http://:${secret('another scheme')}@host" }\n${cepta('{ secretKey: x }')}`,
    },
    {
      name: 'a private key that is none',
      text: `clients: []\nproviders:\n  ayoconnect:\n    baseUrl: https://ayoconnect.example\n    credentials: { privateKey: "-----BEGIN PRIVATE KEY-----\\n${secret('PEM')}\\n-----END PRIVATE KEY-----" }\n`,
    },
    {
      name: 'a webhook secret of another form',
      text: `${cepta('{ secretKey: x }')}results: { webhooks: [{ client: shop, url: "https://u:${secret('webhook user')}@example.org", secret: ${secret('webhook')} }] }\n`,
    },
    {
      name: 'a private results key',
      text: `clients: [{ id: shop, apiKey: k, resultsKey: { kty: OKP, crv: X25519, kid: k, x: x, d: ${secret('results key')} } }]\nproviders: {}\n`,
    },
    {
      name: 'a password for a user of no name',
      text: `console: { users: [{ password: ${secret('nobody')} }] }\nproviders: {}\n`,
    },
  ];
}
