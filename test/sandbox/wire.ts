/**
 * Good requests to the five sandboxes, built here from the providers' pages with node:crypto alone, so that the sandbox
 * is measured by a third hand.
 */
import { createHash, createHmac, createSign, generateKeyPairSync, randomBytes } from 'node:crypto';
import { request } from 'undici';
import type { SandboxEntry, SandboxProvider } from '../../src/sandbox/index.ts';

/** One key for all the sandboxes of a test file; making a key is by far the slowest part of a start. */
export const privateKey = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
}).privateKey;

export interface Wire {
  method: 'GET' | 'POST';
  path: string;
  headers: Record<string, string>;
  body: string;
}

export interface Reply {
  /** The HTTP status, or 0 when no whole answer came. */
  status: number;
  headers: Record<string, unknown>;
  text: string;
  /** The error's code when no whole answer came. */
  lost?: string;
  // biome-ignore lint/suspicious/noExplicitAny: bodies of five providers, looked into by the tests
  json: any;
}

export async function call(baseUrl: string, wire: Wire, signal?: AbortSignal): Promise<Reply> {
  const none = { status: 0, headers: {}, text: '', json: undefined };
  try {
    const answer = await request(baseUrl + wire.path, {
      method: wire.method,
      headers: wire.headers,
      ...(wire.body === '' ? {} : { body: wire.body }),
      ...(signal ? { signal } : {}),
    });
    const text = await answer.body.text();
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      json = undefined;
    }
    return { status: answer.statusCode, headers: answer.headers, text, json };
  } catch (error) {
    const { code, name } = error as { code?: string; name: string };
    return { ...none, lost: typeof code === 'string' ? code : name };
  }
}

const post = (path: string, headers: Record<string, string>, body: unknown): Wire => ({
  method: 'POST',
  path,
  headers: { 'content-type': 'application/json', ...headers },
  body: JSON.stringify(body),
});

export const credential = (entry: SandboxEntry, name: string): string => entry.credentials[name] ?? '';

export const helloClever = {
  confirm: (entry: SandboxEntry, uuid: string, code: string): Wire =>
    post(
      '/api/v2/payins/confirm_otp',
      {
        accept: 'application/json',
        'app-id': credential(entry, 'appId'),
        'secret-key': credential(entry, 'secretKey'),
      },
      { uuid, code },
    ),
  detail: (entry: SandboxEntry, uuid: string): Wire => ({
    method: 'GET',
    path: `/api/v2/payins/detail?uuid=${uuid}`,
    headers: { 'app-id': credential(entry, 'appId'), 'secret-key': credential(entry, 'secretKey') },
    body: '',
  }),
};

export const lipaLater = {
  token: (entry: SandboxEntry): Wire => ({
    method: 'POST',
    path: '/api/v2/oauth/token',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({
      grant_type: 'client_credentials',
      client_id: credential(entry, 'clientId'),
      client_secret: credential(entry, 'clientSecret'),
      scope: 'read write',
    }).toString(),
  }),
  send: (token: string, phone_number: string, more: object = {}): Wire =>
    post('/api/v2/otp/send', { authorization: `Bearer ${token}` }, { id_number: '12345678', phone_number, ...more }),
  verify: (token: string, phone_number: string, otp: string): Wire =>
    post(
      '/api/v2/otp/verify',
      { authorization: `Bearer ${token}` },
      { id_number: '12345678', item_value: '20000', otp, phone_number },
    ),
  async freshToken(entry: SandboxEntry): Promise<string> {
    return (await call(entry.baseUrl, lipaLater.token(entry))).json.access_token;
  },
};

/** 25 characters, Jakarta time. */
export const jakarta = (time = Date.now()): string =>
  `${new Date(time + 7 * 3_600_000).toISOString().slice(0, 19)}+07:00`;

export interface Tokens {
  b2b: string;
  b2b2c: string;
}

const prefix = '/dd/api/v3.0';

export const ayoconnect = {
  tokenCall(entry: SandboxEntry, name: 'b2b' | 'b2b2c', body: object, timestamp = jakarta(), b2b?: string): Wire {
    const clientId = credential(entry, 'clientId');
    const signature = createSign('RSA-SHA256')
      .update(`${clientId}|${timestamp}`)
      .sign(credential(entry, 'privateKey'), 'base64');
    return post(
      `${prefix}/access-token/${name}`,
      {
        'x-timestamp': timestamp,
        'x-client-key': clientId,
        'x-signature': signature,
        ...(b2b === undefined ? {} : { authorization: `Bearer ${b2b}` }),
      },
      body,
    );
  },
  b2b: (entry: SandboxEntry, timestamp?: string): Wire =>
    ayoconnect.tokenCall(
      entry,
      'b2b',
      { grantType: 'client_credentials', additionalInfo: { merchantId: credential(entry, 'merchantId') } },
      timestamp,
    ),
  b2b2c: (entry: SandboxEntry, b2b: string, authCode: string = id32(), timestamp?: string): Wire =>
    ayoconnect.tokenCall(
      entry,
      'b2b2c',
      { grantType: 'authorization_code', authCode, additionalInfo: {} },
      timestamp,
      b2b,
    ),
  async freshTokens(entry: SandboxEntry): Promise<Tokens> {
    const b2b: string = (await call(entry.baseUrl, ayoconnect.b2b(entry))).json.accessToken;
    const b2b2c: string = (await call(entry.baseUrl, ayoconnect.b2b2c(entry, b2b))).json.accessToken;
    return { b2b, b2b2c };
  },
  signed(
    entry: SandboxEntry,
    path: string,
    tokens: Tokens,
    body: string,
    externalId: string,
    timestamp = jakarta(),
    encoding: 'hex' | 'base64' = 'hex',
  ): Wire {
    const bodyHash = createHash('sha256').update(body).digest('hex');
    const signature = createHmac('sha512', credential(entry, 'clientSecret'))
      .update(`POST:${path}:${tokens.b2b}:${bodyHash}:${timestamp}`)
      .digest(encoding);
    return {
      method: 'POST',
      path,
      headers: {
        'content-type': 'application/json',
        authorization: `Bearer ${tokens.b2b}`,
        'authorization-customer': `Bearer ${tokens.b2b2c}`,
        'x-timestamp': timestamp,
        'x-signature': signature,
        'x-partner-id': credential(entry, 'merchantId'),
        'x-external-id': externalId,
        'channel-id': credential(entry, 'channelId'),
      },
      body,
    };
  },
  verifyBody: (entry: SandboxEntry, reference: string, otp: string, more: object = {}) => ({
    originalPartnerReferenceNo: partnerReferenceOf(reference),
    originalReferenceNo: reference,
    action: 'payment',
    merchantId: credential(entry, 'merchantId'),
    otp,
    additionalInfo: {},
    ...more,
  }),
  verify: (entry: SandboxEntry, tokens: Tokens, reference: string, otp: string, more: object = {}): Wire =>
    ayoconnect.signed(
      entry,
      `${prefix}/otp-verification`,
      tokens,
      JSON.stringify(ayoconnect.verifyBody(entry, reference, otp, more)),
      externalIdOf(reference),
    ),
  status: (entry: SandboxEntry, tokens: Tokens, reference: string): Wire =>
    ayoconnect.signed(
      entry,
      `${prefix}/debit/status`,
      tokens,
      JSON.stringify({
        merchantId: credential(entry, 'merchantId'),
        serviceCode: '54',
        originalReferenceNo: reference,
      }),
      externalIdOf(reference),
    ),
};

export const beqelal = {
  authorize: (entry: SandboxEntry, reference: string, otp: unknown): Wire =>
    post(
      '/api/v1/payment/authorize',
      { 'app-id': credential(entry, 'appId'), 'api-key': credential(entry, 'apiKey') },
      { reference, otp },
    ),
};

export const cepta = {
  sign(entry: SandboxEntry, wire: Wire, ts = Math.floor(Date.now() / 1000)): Wire {
    const signature = createHmac('sha256', credential(entry, 'secretKey'))
      .update(`${ts}${wire.method}${wire.path}${wire.body}`)
      .digest('hex');
    const { authorization: _, ...headers } = wire.headers;
    return {
      ...wire,
      headers: {
        ...headers,
        'x-access-key': credential(entry, 'accessKey'),
        'x-access-ts': String(ts),
        'x-access-signature': signature,
      },
    };
  },
  validate: (entry: SandboxEntry, transactionRef: string, otp: string): Wire =>
    post(
      '/api/v1/pay/validate-otp',
      { authorization: credential(entry, 'secretKey') },
      { otp, transactionRef, paymentId: 'PAY12345XYZ', md: 'merchant_data' },
    ),
  status: (entry: SandboxEntry, transactionRef: string): Wire => ({
    method: 'GET',
    path: `/api/v1/pay/confirm-status?TransactionRef=${transactionRef}`,
    headers: { authorization: credential(entry, 'secretKey') },
    body: '',
  }),
};

/** 32 characters of lower-case hex: no magic ending begins with a capital by chance. */
export const id32 = (): string => randomBytes(16).toString('hex');
const derived = (label: string, reference: string) => createHash('md5').update(`${label} ${reference}`).digest('hex');
const partnerReferenceOf = (reference: string) => derived('partner', reference);
const externalIdOf = (reference: string) => derived('external', reference);

let phones = 700_000_100;
/** A fresh reference in the provider's own form. LipaLater's ends in 100, which is nobody's magic ending. */
export function freshReference(provider: SandboxProvider): string {
  if (provider === 'ayoconnect') return id32();
  if (provider !== 'lipa-later') return `R${randomBytes(6).toString('hex')}`;
  phones += 1000;
  return `+254${phones}`;
}

/** One way to submit a code and one to ask for its outcome, whatever the provider. */
export function submitter(provider: SandboxProvider, entry: SandboxEntry, tokens: { lipa: string; ayo: Tokens }) {
  const verify: Record<SandboxProvider, (reference: string, code: string) => Wire> = {
    'hello-clever': (reference, code) => helloClever.confirm(entry, reference, code),
    'lipa-later': (reference, code) => lipaLater.verify(tokens.lipa, reference, code),
    ayoconnect: (reference, code) => ayoconnect.verify(entry, tokens.ayo, reference, code),
    beqelal: (reference, code) => beqelal.authorize(entry, reference, code.startsWith('0') ? code : Number(code)),
    cepta: (reference, code) => cepta.validate(entry, reference, code),
  };
  const inquire: Partial<Record<SandboxProvider, (reference: string) => Wire>> = {
    'hello-clever': (reference) => helloClever.detail(entry, reference),
    ayoconnect: (reference) => ayoconnect.status(entry, tokens.ayo, reference),
    cepta: (reference) => cepta.status(entry, reference),
  };
  return {
    verify: (reference: string, code: string, signal?: AbortSignal) =>
      call(entry.baseUrl, verify[provider](reference, code), signal),
    inquire: (reference: string) => {
      const wire = inquire[provider]?.(reference);
      if (!wire) throw new Error(`${provider} documents no inquiry`);
      return call(entry.baseUrl, wire);
    },
  };
}

/** The word that an inquiry's answer carries. */
export function inquiryWord(provider: SandboxProvider, reply: Reply): string {
  if (provider === 'hello-clever') return reply.json.status;
  if (provider === 'cepta') return reply.json.data.status;
  return reply.json.latestTransactionStatus ?? reply.json.responseCode;
}
