/**
 * Cepta: validate-otp and confirm-status, behind either of the two authentication schemes its pages describe.
 *
 *   https://docs.cepta.co/product/charge-api/validate-transaction-otp
 *   https://docs.cepta.co/product/charge-api/confirm-transaction
 *   https://docs.cepta.co/api-reference/authentication
 *   https://docs.cepta.co/api-reference/errors
 */
import { createHash, createHmac, randomBytes } from 'node:crypto';
import {
  type Check,
  firstRefusal,
  isFresh,
  isJson,
  jsonObject,
  matches,
  onlyParameter,
  sameText,
  strangers,
} from './checks.ts';
import {
  attend,
  type Handled,
  inquire,
  type Phrases,
  type ProviderSide,
  refusing,
  type Transaction,
  type World,
} from './desk.ts';
import { type Answer, type IncomingCall, json, type Told } from './server.ts';

const provider = 'cepta';

/** The API reference declares even the 200 as text/plain. */
const plain = (status: number, body: unknown, told?: Told, headers?: Record<string, string>): Answer => ({
  ...json(status, body, told, headers),
  contentType: 'text/plain; charset=utf-8',
});

/** The error page lists codes and messages; the body around them is the failure envelope of validate-otp. */
const error = (status: number, errorCode: string, message: string, told: Told, headers?: Record<string, string>) =>
  plain(
    status,
    { status: false, message, data: { ...empty, message, errors: [{ errorCode, message }] } },
    told,
    headers,
  );

const empty = {
  amount: '0',
  transactionIdentifier: '',
  tokenExpiryDate: '',
  token: '',
  message: '',
  transactionRef: '',
  responseCode: '01',
  otpRetryCount: 0,
  paymentId: '',
};

const unauthorized = () => error(401, 'UNAUTHORIZED', 'Authentication failed', 'refused');
const rateLimited = () => error(429, 'TOO_MANY_REQUESTS', 'Too many requests', 'refused', { 'retry-after': '1' });
const serverError = () => error(500, 'INTERNAL_SERVER_ERROR', 'An error occurred', 'nothing');
const withoutBody = (status: number): Answer => ({ ...plain(status, '', 'nothing'), body: '' });

const wrongCode = (status: number) => (transaction: Transaction, otpRetryCount: number) =>
  plain(
    status,
    {
      status: false,
      message: 'OTP validation failed.',
      data: {
        ...empty,
        message: 'Invalid OTP.',
        transactionRef: transaction.reference,
        otpRetryCount,
        errors: [{ errorCode: 'INVALID_OTP', message: 'The provided OTP is incorrect' }],
      },
    },
    'rejected',
  );

const completed = (transaction: Transaction, responseCode: string, told: Told): Answer =>
  plain(
    200,
    {
      status: true,
      message: 'OTP validated successfully.',
      data: {
        amount: (transaction.reported ?? transaction.asked).value,
        transactionIdentifier: `TRX${randomBytes(4).toString('hex')}`,
        tokenExpiryDate: new Date(Date.now() + 30 * 86_400_000).toISOString(),
        token: `sandbox_token_${randomBytes(8).toString('hex')}`,
        message: 'Payment completed.',
        transactionRef: transaction.reference,
        responseCode,
        otpRetryCount: 3 - transaction.wrongTries,
        paymentId: transaction.echo.paymentId ?? '',
        errors: [],
      },
    },
    told,
  );

const phrases: Phrases = {
  accepted: (transaction) => completed(transaction, '00', 'accepted'),
  strange: (transaction) => completed(transaction, '77', 'nothing'),
  rulings: {
    wrong_code: wrongCode(200),
    wrong_code_as_403: wrongCode(403),
    attempts_used_up: wrongCode(200),
    unknown_reference: () => error(404, 'TRANSACTION_NOT_FOUND', 'Transaction not found', 'rejected'),
    // A processor's own no: status false with a responseCode that no page lists, and no errorCode to read it by.
    declined: (transaction) =>
      plain(
        200,
        {
          status: false,
          message: 'Transaction declined.',
          data: {
            ...empty,
            message: 'Declined by the processor.',
            transactionRef: transaction.reference,
            responseCode: '51',
            otpRetryCount: 3 - transaction.wrongTries,
            errors: [],
          },
        },
        'nothing',
      ),
    invalid_request: () => error(400, 'INVALID_REQUEST', 'Invalid request parameters', 'unclear'),
    server_error: serverError,
    bad_gateway: () => withoutBody(502),
    unavailable: () => withoutBody(503),
    gateway_timeout: () => withoutBody(504),
  },
  doors: { credentials_refused: unauthorized, rate_limited: rateLimited },
};

const words = {
  awaiting_code: 'pending',
  processing: 'pending',
  paid: 'Completed',
  failed: 'failed',
  reversed: 'reversed',
} as const satisfies Record<Transaction['stage'], string>;

/** Where a callback names its transaction: the pages show three spellings, and none of the callback itself. */
export const ceptaCallbackShapes = [
  'data.transactionReference',
  'data.transactionRef',
  'data.TransactionRef',
  'transactionReference',
  'transactionRef',
  'TransactionRef',
] as const;

export interface CeptaCallback {
  /** data.transactionReference; `rotating` takes one after the other. */
  shape?: (typeof ceptaCallbackShapes)[number] | 'rotating';
  /** Between secret key and merchant id before they are hashed: nothing, or the ' | ' of the printed example. */
  separator?: '' | ' | ';
}

export function cepta(
  world: World,
  authScheme: 'secret' | 'hmac',
  { shape = ceptaCallbackShapes[0], separator = '' }: CeptaCallback = {},
): ProviderSide {
  const refuse = refusing(world, provider);
  let callbacks = 0;
  const credentials = {
    secretKey: `sk_${randomBytes(24).toString('hex')}`,
    accessKey: `ak_${randomBytes(12).toString('hex')}`,
    merchantId: `M${randomBytes(4).toString('hex')}`,
  };

  const authentic = (call: IncomingCall): boolean => {
    const { authorization } = call.headers;
    if (authScheme === 'secret') return sameText(authorization, credentials.secretKey);
    const ts = call.headers['x-access-ts'];
    const signed = `${ts}${call.method}${call.url}${call.body}`;
    return (
      // The point of signing is that the secret stays at home: sent along, it is refused.
      authorization === undefined &&
      sameText(call.headers['x-access-key'], credentials.accessKey) &&
      matches(ts, /^\d{10}$/) &&
      isFresh(Number(ts) * 1000, world.now()) &&
      sameText(
        call.headers['x-access-signature'],
        createHmac('sha256', credentials.secretKey).update(signed).digest('hex'),
      )
    );
  };
  const authentication =
    (call: IncomingCall): Check =>
    () =>
      authentic(call)
        ? null
        : { answer: unauthorized(), detail: authScheme === 'hmac' ? 'X-Access-*' : 'Authorization' };

  const field = (detail: string) => ({
    answer: error(400, 'INVALID_REQUEST', 'Invalid request parameters', 'refused'),
    detail,
  });

  function validate(call: IncomingCall): Handled {
    const body = jsonObject(call.body) ?? {};
    const reference = typeof body.transactionRef === 'string' ? body.transactionRef : null;
    world.ledger.write({ provider, call: 'verify', reference, event: 'request' });
    // The guide requires paymentId and md, the API reference types them `string | null`, so either may be missing.
    const nullable = (name: string) => () => {
      const value = body[name];
      return value === undefined || value === null || matches(value, /^[\x20-\x7e]+$/) ? null : field(name);
    };
    const refusal = firstRefusal([
      authentication(call),
      () => (isJson(call) ? null : field('Content-Type')),
      () => (matches(body.otp, /^[0-9A-Za-z]{4,10}$/) ? null : field('otp')),
      () => (matches(body.transactionRef, /^[0-9A-Za-z_-]{1,100}$/) ? null : field('transactionRef')),
      nullable('paymentId'),
      nullable('md'),
      () =>
        strangers(body, ['otp', 'transactionRef', 'paymentId', 'md']).length === 0 ? null : field('another member'),
    ]);
    if (refusal || reference === null) return refuse('verify', reference, refusal ?? field('transactionRef'));
    const code = String(body.otp);
    if (typeof body.paymentId === 'string') world.transaction(provider, reference).echo = { paymentId: body.paymentId };
    const submission = { provider, call: 'verify', reference, code, magicValue: code } as const;
    return { call: 'verify', reference, answer: attend(world, phrases, { ...submission, charging: 'on_acceptance' }) };
  }

  function confirm(call: IncomingCall): Handled {
    const reference = onlyParameter(call, 'TransactionRef') ?? null;
    world.ledger.write({ provider, call: 'inquiry', reference, event: 'request' });
    const refusal = firstRefusal([authentication(call), () => (reference === null ? field('TransactionRef') : null)]);
    if (refusal || reference === null) return refuse('inquiry', reference, refusal ?? field('TransactionRef'));
    const answer = inquire(world, provider, reference, {
      word: (transaction) => words[transaction.stage],
      answer: (transaction, status) => plain(200, state(transaction, status, transaction.stage === 'paid')),
      server_error: serverError,
      rate_limited: rateLimited,
    });
    return { call: 'inquiry', reference, answer };
  }

  return {
    provider,
    credentials,
    options: { authScheme, signQuery: true },
    rateLimited,
    // https://docs.cepta.co/advance-concept/webhooks: the hash covers no body and never changes.
    callback(transaction, says, secret, respell) {
      const secretKey = secret === 'right' ? credentials.secretKey : `sk_${randomBytes(24).toString('hex')}`;
      const hash = createHash('sha512').update(`${secretKey}${separator}${credentials.merchantId}`).digest('hex');
      const told = state(transaction, transaction.word ?? words[says], says === 'paid');
      const chosen = shape === 'rotating' ? ceptaCallbackShapes[callbacks++ % ceptaCallbackShapes.length] : shape;
      const [, nested, name = ''] = /^(data\.)?(\w+)$/.exec(chosen ?? '') ?? [];
      const { transactionReference, ...data } = told.data;
      const named = { [name]: transactionReference, ...data };
      const body = respell(JSON.stringify(nested ? { ...told, data: named } : named));
      return { path: '', headers: { 'hash-key': hash }, body };
    },
    handle(call) {
      if (call.method === 'POST' && call.url === '/api/v1/pay/validate-otp') return validate(call);
      if (call.method === 'GET' && call.path === '/api/v1/pay/confirm-status') return confirm(call);
      return refuse('unknown', null, {
        answer: error(404, 'NOT_FOUND', 'Endpoint not found', 'refused'),
        detail: 'no such path',
      });
    },
  };
}

/** confirm-status: amounts are numbers here, though a string in validate-otp. */
function state(transaction: Transaction, status: string, paid: boolean) {
  const amount = Number((transaction.reported ?? transaction.asked).value);
  return {
    status: true, // the question was answered; it does not say that money moved
    message: 'Transaction status retrieved successfully.',
    data: {
      responseCode: paid ? '00' : '01',
      responseDescription: paid ? 'Transaction completed successfully.' : `Transaction ${status.toLowerCase()}.`,
      transactionReference: transaction.reference,
      amount,
      remittanceAmount: Number((amount * 0.95).toFixed(2)),
      customerName: 'Sandbox Payer',
      bank: 'Sandbox Bank',
      status,
      submitTimeUtc: new Date().toISOString(),
      clientReferenceInformation: 'sandbox',
      accountName: 'Sandbox Payer',
      accountNo: '123456****',
      maskedPan: '4111********1111',
      cardExpiry: '12/30',
      transactionId: `TRX-${transaction.reference}`,
      completedTimeUtc: paid ? new Date().toISOString() : '',
      errors: [],
    },
  };
}
