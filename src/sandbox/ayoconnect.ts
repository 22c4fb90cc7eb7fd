/**
 * Ayoconnect, SNAP Direct Debit v3: the two token calls, otp-verification and debit/status, with the signatures checked
 * over the bytes that came.
 *
 *   https://docs.payments.of.ayoconnect.id/reference/dd-v3-otp-verification
 *   https://docs.payments.of.ayoconnect.id/reference/dd-v3-access-token-b2b2c
 *   https://docs.payments.of.ayoconnect.id/reference/dd-v3-debit-status
 *   https://docs.payments.of.ayoconnect.id/docs/product-flows
 */
import {
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  type KeyObject,
  randomBytes,
  verify as verifySignature,
} from 'node:crypto';
import { promisify } from 'node:util';
import {
  bearer,
  type Check,
  firstRefusal,
  isFresh,
  isJson,
  isObject,
  jsonObject,
  matches,
  sameText,
} from './checks.ts';
import {
  attend,
  type Handled,
  inquire,
  type Phrases,
  type ProviderSide,
  refusing,
  type Submission,
  type Transaction,
  type World,
} from './desk.ts';
import { type Answer, type IncomingCall, json, type Told } from './server.ts';
import { snapMessages, snapServices } from './snap-codes.ts';

const provider = 'ayoconnect';
const base = '/dd/api/v3.0';
const tokenLifetimeSeconds = 3599; // the figure of the published samples

type Service = keyof typeof snapServices;

/** `code` is status and case, without the service between them: '40415'. */
function snap(service: Service, code: string, told?: Told, more: Record<string, unknown> = {}, headers = {}): Answer {
  const status = Number(code.slice(0, 3));
  const responseCode = `${code.slice(0, 3)}${snapServices[service]}${code.slice(3)}`;
  const responseMessage = snapMessages[code] ?? 'Unknown';
  return json(status, { responseCode, responseMessage, ...more }, told, headers);
}

const alphanumeric32 = /^[0-9A-Za-z]{32}$/;
const noBody = (status: number): Answer => ({ ...json(status, '', 'nothing'), body: '' });

const echo = (transaction: Transaction) => ({ originalReferenceNo: transaction.reference, ...transaction.echo });

const phrases: Phrases = {
  accepted: (transaction) => snap('verify', '20000', 'accepted', echo(transaction)),
  strange: (transaction) => snap('verify', '20077', 'nothing', echo(transaction)),
  rulings: {
    wrong_code: () => snap('verify', '40415', 'rejected'),
    expired_code: () => snap('verify', '40312', 'rejected'),
    // https://docs.payments.of.ayoconnect.id/docs/api-flows: after three failures the account is blocked.
    attempts_used_up: () => snap('verify', '40305', 'rejected'),
    unknown_reference: () => snap('verify', '40401', 'rejected'),
    declined: () => snap('verify', '40314', 'unclear'),
    server_error: () => snap('verify', '50000', 'nothing'),
    bad_gateway: () => noBody(502),
    unavailable: () => noBody(503),
    gateway_timeout: () => snap('verify', '50400', 'nothing'),
  },
  doors: {
    credentials_refused: () => snap('verify', '40100', 'refused'),
    token_refused: () => snap('verify', '40101', 'refused'),
    customer_token_refused: () => snap('verify', '40102', 'refused'),
    rate_limited: () => snap('verify', '42900', 'refused', {}, { 'retry-after': '1' }),
  },
};

const words = {
  awaiting_code: 'PENDING_USER_VERIFICATION',
  processing: '03',
  paid: '00',
  failed: '06',
  reversed: '04',
} as const satisfies Record<Transaction['stage'], string>;

/**
 * The callback's words have six to ten letters in the one form that could be read.
 * https://docs.payments.of.ayoconnect.id/docs/callbacks
 */
const callbackWords = { paid: 'SUCCESS', failed: 'FAILED', reversed: 'REFUNDED' } as const;

const descriptions: Readonly<Record<string, string>> = {
  '00': 'SUCCESS',
  '01': 'INITIATED',
  '02': 'PAYING',
  '03': 'PENDING',
  '04': 'REFUNDED',
  '05': 'CANCELLED',
  '06': 'FAILED',
  '07': 'NOT FOUND',
};

/** What one payment or unbinding keeps the same in all its calls; a different value breaks the flow. */
interface Flow {
  externalId: string;
  partnerReferenceNo: string;
  action: string;
}

export async function ayoconnect(
  world: World,
  encoding: 'hex' | 'base64',
  privateKeyPem?: string,
): Promise<ProviderSide> {
  const refuse = refusing(world, provider);
  const privateKey =
    privateKeyPem === undefined
      ? (await promisify(generateKeyPair)('rsa', { modulusLength: 2048 })).privateKey
      : createPrivateKey(privateKeyPem);
  const publicKey = createPublicKey(privateKey);
  const credentials = {
    clientId: randomBytes(16).toString('hex'), // 32 characters
    clientSecret: randomBytes(24).toString('hex'),
    privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    merchantId: `M${randomBytes(3).toString('hex').slice(0, 5).toUpperCase()}`,
    channelId: '95221',
    callbackToken: randomBytes(24).toString('hex'),
  };
  const { clientId, clientSecret, merchantId, channelId } = credentials;
  const tokens = new Map<string, { kind: 'b2b' | 'b2b2c'; expiresAt: number }>();
  const flows = new Map<string, Flow>();

  const refusedWith = (service: Service, code: string, detail: string) => ({
    answer: snap(service, code, 'refused'),
    detail,
  });
  const header = (call: IncomingCall, name: string) => call.headers[name];

  const timeChecks = (call: IncomingCall, service: Service): Check[] => [
    () => (header(call, 'x-timestamp') === undefined ? refusedWith(service, '40002', 'X-TIMESTAMP missing') : null),
    () => (timeOf(header(call, 'x-timestamp')) === null ? refusedWith(service, '40001', 'X-TIMESTAMP format') : null),
    () =>
      isFresh(timeOf(header(call, 'x-timestamp')) ?? 0, world.now())
        ? null
        : refusedWith(service, '40100', 'X-TIMESTAMP more than five minutes off'),
  ];

  const tokenCheck =
    (call: IncomingCall, service: Service, kind: 'b2b' | 'b2b2c'): Check =>
    () => {
      const name = kind === 'b2b' ? 'authorization' : 'authorization-customer';
      const known = tokens.get(bearer(header(call, name)) ?? '');
      if (known?.kind !== kind) return refusedWith(service, kind === 'b2b' ? '40103' : '40104', name);
      if (known.expiresAt <= Date.now()) return refusedWith(service, kind === 'b2b' ? '40101' : '40102', name);
      return null;
    };

  /** SHA256withRSA over clientId|X-TIMESTAMP, always in base64: the form of the token calls. */
  const tokenSignature =
    (call: IncomingCall, service: Service): Check =>
    () =>
      rsaSigned(`${clientId}|${header(call, 'x-timestamp')}`, header(call, 'x-signature'), publicKey)
        ? null
        : refusedWith(service, '40100', 'X-SIGNATURE');

  const symmetricSignature =
    (call: IncomingCall, service: Service): Check =>
    () => {
      const bodyHash = createHash('sha256').update(minified(call.body)).digest('hex');
      const token = bearer(header(call, 'authorization')) ?? '';
      const signed = `${call.method}:${call.url}:${token}:${bodyHash}:${header(call, 'x-timestamp')}`;
      const wanted = createHmac('sha512', clientSecret).update(signed).digest(encoding);
      return sameText(header(call, 'x-signature'), wanted) ? null : refusedWith(service, '40100', 'X-SIGNATURE');
    };

  const commonHeaders = (call: IncomingCall, service: Service): Check[] => [
    () => (isJson(call) ? null : refusedWith(service, '40001', 'Content-Type')),
    ...timeChecks(call, service),
    () => (sameText(header(call, 'x-partner-id'), merchantId) ? null : refusedWith(service, '40100', 'X-PARTNER-ID')),
    () => (sameText(header(call, 'channel-id'), channelId) ? null : refusedWith(service, '40100', 'CHANNEL-ID')),
    () =>
      matches(header(call, 'x-external-id'), alphanumeric32) ? null : refusedWith(service, '40001', 'X-EXTERNAL-ID'),
  ];

  function issueToken(call: IncomingCall, name: 'b2bToken' | 'b2b2cToken'): Handled {
    const body = jsonObject(call.body) ?? {};
    const [kind, grantType] =
      name === 'b2bToken' ? (['b2b', 'client_credentials'] as const) : (['b2b2c', 'authorization_code'] as const);
    world.ledger.write({ provider, call: name, reference: null, event: 'request' });
    const { additionalInfo } = body;
    const refusal = firstRefusal([
      () => (isJson(call) ? null : refusedWith(name, '40001', 'Content-Type')),
      ...timeChecks(call, name),
      () => (sameText(header(call, 'x-client-key'), clientId) ? null : refusedWith(name, '40100', 'X-CLIENT-KEY')),
      ...(kind === 'b2b2c' ? [tokenCheck(call, name, 'b2b')] : []),
      tokenSignature(call, name),
      () => (body.grantType === grantType ? null : refusedWith(name, '40002', 'grantType')),
      () => (kind === 'b2b' || matches(body.authCode, alphanumeric32) ? null : refusedWith(name, '40002', 'authCode')),
      () =>
        (additionalInfo === undefined && kind === 'b2b') || isObject(additionalInfo)
          ? null
          : refusedWith(name, '40002', 'additionalInfo'),
      () =>
        isObject(additionalInfo) && (additionalInfo.merchantId ?? merchantId) !== merchantId
          ? refusedWith(name, '40408', 'additionalInfo.merchantId')
          : null,
    ]);
    if (refusal) return refuse(name, null, refusal);
    const magic = kind === 'b2b2c' ? asked(name, String(body.authCode)) : undefined;
    if (magic) return refuse(name, null, { answer: snap(name, magic), detail: 'magic: authCode' });
    const accessToken = randomBytes(32).toString('hex');
    tokens.set(accessToken, { kind, expiresAt: Date.now() + tokenLifetimeSeconds * 1000 });
    world.ledger.write({ provider, call: name, reference: null, event: 'token_issued' });
    const answer = snap(name, '20000', undefined, {
      tokenType: 'BearerToken',
      responseTime: new Date(world.now()).toISOString().replaceAll(/[-:TZ]|\.\d+/g, ''),
      accessToken,
      expiresIn: tokenLifetimeSeconds,
    });
    return { call: name, reference: null, answer };
  }

  function verify(call: IncomingCall): Handled {
    const body = jsonObject(call.body) ?? {};
    const reference = typeof body.originalReferenceNo === 'string' ? body.originalReferenceNo : null;
    world.ledger.write({ provider, call: 'verify', reference, event: 'request' });
    const text = (name: string, pattern: RegExp) => () => {
      if (body[name] === undefined) return refusedWith('verify', '40002', name);
      return matches(body[name], pattern) ? null : refusedWith('verify', '40001', name);
    };
    const flow: Flow = {
      externalId: String(header(call, 'x-external-id')),
      partnerReferenceNo: String(body.originalPartnerReferenceNo),
      action: String(body.action),
    };
    const known = flows.get(reference ?? '');
    const refusal = firstRefusal([
      ...commonHeaders(call, 'verify'),
      tokenCheck(call, 'verify', 'b2b'),
      tokenCheck(call, 'verify', 'b2b2c'),
      symmetricSignature(call, 'verify'),
      text('originalPartnerReferenceNo', alphanumeric32),
      text('originalReferenceNo', alphanumeric32),
      text('action', /^(payment|unbinding)$/),
      text('merchantId', /^[0-9A-Za-z]{6}$/),
      () => (body.merchantId === merchantId ? null : refusedWith('verify', '40408', 'merchantId')),
      text('otp', /^[0-9A-Za-z]{6}$/),
      () => (isObject(body.additionalInfo) ? null : refusedWith('verify', '40002', 'additionalInfo')),
      () =>
        known && (Object.keys(flow) as (keyof Flow)[]).some((part) => known[part] !== flow[part])
          ? refusedWith('verify', '40418', 'another X-EXTERNAL-ID, partner reference or action in the same flow')
          : null,
    ]);
    if (refusal || reference === null) {
      return refuse('verify', reference, refusal ?? refusedWith('verify', '40000', 'body'));
    }
    flows.set(reference, flow);
    world.transaction(provider, reference).echo = { originalPartnerReferenceNo: flow.partnerReferenceNo };
    const statusCode = asked('inquiry', reference);
    const code = String(body.otp);
    const fixed = fixedAnswer(code);
    const answer = attend(world, phrases, {
      provider,
      call: 'verify',
      reference,
      code,
      magicValue: code,
      // An unbinding moves no money, and has no payment status to ask for.
      charging: flow.action === 'payment' ? 'on_acceptance' : 'never',
      tokens: {
        token_refused: bearer(header(call, 'authorization')) ?? '',
        customer_token_refused: bearer(header(call, 'authorization-customer')) ?? '',
      },
      ...(fixed ? { fixed } : {}),
      // A status call that never says 2005500 can prove nothing but 4045501, which is proof of no payment.
      ...(statusCode ? { course: { ends: statusCode === '40401' ? 'failed' : 'never' } } : {}),
    });
    return { call: 'verify', reference, answer };
  }

  function status(call: IncomingCall): Handled {
    const body = jsonObject(call.body) ?? {};
    const reference = typeof body.originalReferenceNo === 'string' ? body.originalReferenceNo : null;
    world.ledger.write({ provider, call: 'inquiry', reference, event: 'request' });
    const refusal = firstRefusal([
      ...commonHeaders(call, 'inquiry'),
      tokenCheck(call, 'inquiry', 'b2b'),
      symmetricSignature(call, 'inquiry'),
      () => (body.merchantId === merchantId ? null : refusedWith('inquiry', '40408', 'merchantId')),
      () => (body.serviceCode === '54' ? null : refusedWith('inquiry', '40001', 'serviceCode')),
      () => (matches(reference, alphanumeric32) ? null : refusedWith('inquiry', '40001', 'originalReferenceNo')),
    ]);
    if (refusal || reference === null) {
      return refuse('inquiry', reference, refusal ?? refusedWith('inquiry', '40000', 'body'));
    }
    const magic = asked('inquiry', reference);
    const answer = inquire(world, provider, reference, {
      word: (transaction) =>
        magic
          ? `${magic.slice(0, 3)}55${magic.slice(3)}`
          : flows.get(reference)?.action === 'unbinding'
            ? '4045501'
            : words[transaction.stage],
      answer: statusAnswer,
      server_error: () => snap('inquiry', '50000'),
      rate_limited: () => snap('inquiry', '42900', undefined, {}, { 'retry-after': '1' }),
    });
    return { call: 'inquiry', reference, answer };
  }

  return {
    provider,
    credentials,
    options: { signatureEncoding: encoding },
    rateLimited: (call) =>
      snap(call in snapServices ? (call as Service) : 'verify', '42900', 'refused', {}, { 'retry-after': '1' }),
    expireToken(call, which) {
      const presented = bearer(header(call, which === 'application' ? 'authorization' : 'authorization-customer'));
      const known = tokens.get(presented ?? '');
      if (known) known.expiresAt = 0;
      return known !== undefined;
    },
    callback(transaction, says, secret, respell) {
      const flow = flows.get(transaction.reference);
      const unbinding = flow?.action === 'unbinding';
      const { word } = transaction;
      const body = {
        ...echo(transaction),
        latestTransactionStatus: word === undefined || /^\d{7}$/.test(word) ? callbackWords[says] : word,
        transactionStatusDesc: callbackWords[says],
        additionalInfo: {
          'X-External-ID': flow?.externalId ?? '',
          // Callbacks carry the service code of the call they report on.
          responseCode: `${says === 'failed' ? '403' : '200'}${unbinding ? '09' : '54'}${says === 'failed' ? '05' : '00'}`,
          flow: unbinding ? 'UNBIND_ACCOUNT' : 'DIRECT_DEBIT',
        },
      };
      const token = secret === 'right' ? credentials.callbackToken : randomBytes(24).toString('hex');
      return { path: '', headers: { authorization: `Bearer ${token}` }, body: respell(JSON.stringify(body)) };
    },
    handle(call) {
      const route = call.method === 'POST' ? call.url : '';
      if (route === `${base}/access-token/b2b`) return issueToken(call, 'b2bToken');
      if (route === `${base}/access-token/b2b2c`) return issueToken(call, 'b2b2cToken');
      if (route === `${base}/otp-verification`) return verify(call);
      if (route === `${base}/debit/status`) return status(call);
      const answer = json(404, { responseCode: '4040000', responseMessage: 'Not Found' }, 'refused');
      return refuse('unknown', null, { answer, detail: 'no such path' });
    },
  };
}

/** `…THH:mm:ss+07:00`, 25 characters: the documented pattern, measured against the documented length of 24 to 27. */
function timeOf(value: unknown): number | null {
  if (!matches(value, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$/)) return null;
  const time = Date.parse(value);
  return Number.isNaN(time) ? null : time;
}

function rsaSigned(text: string, signature: unknown, publicKey: KeyObject): boolean {
  if (typeof signature !== 'string') return false;
  const bytes = Buffer.from(signature, 'base64');
  // Node's decoder forgives stray characters; a signature with one changed is not the signature.
  return bytes.toString('base64') === signature && verifySignature('RSA-SHA256', Buffer.from(text), publicKey, bytes);
}

/** Whitespace between tokens goes, whitespace in strings stays, nothing is reordered. */
const minified = (body: string): string =>
  body.replaceAll(/("(?:\\.|[^"\\])*")|\s+/g, (_, quoted: string | undefined) => quoted ?? '');

/** The code 7HHHCC asks for the answer HHH04CC; what the business layer does beside it follows from its meaning. */
function fixedAnswer(otp: string): Submission['fixed'] {
  const code = otp.slice(1);
  if (!otp.startsWith('7') || !(code in snapMessages)) return undefined;
  const as = (effect: NonNullable<Submission['fixed']>['effect'], told: Told) => ({
    answer: snap('verify', code, told),
    effect,
  });
  if (code === '20000' || code === '20200') return as('commit', 'accepted');
  if (code === '40901') return as('commit', 'nothing');
  if (/^(400|401|405|429)/.test(code)) return as('unseen', 'refused');
  if (code === '40415') return as('reject', 'rejected');
  if (code === '40312') return as('ignore', 'rejected');
  if (['40311', '40305', '40406', '40401'].includes(code)) return as('ignore', 'unclear');
  if (['40400', '40407', '40410', '40418'].includes(code)) return as('ignore', 'nothing');
  if (/^40[34]/.test(code)) return as('fail', 'unclear');
  return as('ignore', 'nothing');
}

/** The SNAP code that an identifier asks for by its ending: …S4045501 asks service 55 for 40401. */
function asked(service: Service, identifier: string): string | undefined {
  const match = /S(\d{3})(\d\d)(\d\d)$/.exec(identifier);
  const code = `${match?.[1]}${match?.[3]}`;
  return match?.[2] === snapServices[service] && code in snapMessages && code !== '20000' ? code : undefined;
}

function statusAnswer(transaction: Transaction, word: string): Answer {
  // A word that is a response code is no status but a refusal of the question.
  const refusal = /^([2-5]\d\d)55(\d\d)$/.exec(word);
  if (refusal) return snap('inquiry', `${refusal[1]}${refusal[2]}`);
  return snap('inquiry', '20000', undefined, {
    ...echo(transaction),
    serviceCode: '54',
    latestTransactionStatus: word,
    transactionStatusDesc: descriptions[word] ?? word,
    // The amount's name is that of the standard's service 55; Ayoconnect's own page could not be read that far.
    ...(transaction.reported ? { transAmount: transaction.reported } : {}),
  });
}
