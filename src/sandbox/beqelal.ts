/**
 * Beqelal: payment/authorize, behind app-id and api-key. The money moves inside the call, and there is no inquiry.
 *
 *   https://beqelal.net/docs/payments/authorize-payment
 *   https://beqelal.net/docs/error-handling
 */
import { createHmac, randomBytes, randomInt } from 'node:crypto';
import { firstRefusal, isJson, jsonObject, matches, sameText, strangers } from './checks.ts';
import {
  attend,
  type Handled,
  type Phrases,
  type ProviderSide,
  refusing,
  type Transaction,
  type World,
} from './desk.ts';
import { type Answer, type IncomingCall, json, type Told } from './server.ts';

const provider = 'beqelal';

/** `status_code` is a string in errors, though a number in successes. */
const error = (
  status: number,
  code: string,
  message: string,
  detail: string,
  told: Told,
  headers?: Record<string, string>,
) => json(status, { error: { status: 'FAILED', status_code: code, message, detail } }, told, headers);

const invalidOtp = () => error(400, '450', 'INVALID_OTP', 'The OTP is invalid.', 'rejected');
const withoutBody = (status: number): Answer => ({ ...json(status, '', 'nothing'), body: '' });
const unauthorized = () => error(401, '401', 'UNAUTHORIZED', 'Invalid app-id or api-key', 'refused');

/** No 429 is documented, so the other side can rely on nothing. */
const rateLimited = () =>
  error(429, '429', 'TOO_MANY_REQUESTS', 'Too many requests.', 'nothing', { 'retry-after': '1' });

const phrases: Phrases = {
  accepted: (transaction) => json(200, payment(transaction, 'PROCESSED'), 'accepted'),
  strange: (transaction) => json(200, payment(transaction, 'PONDERING')),
  rulings: {
    wrong_code: invalidOtp,
    attempts_used_up: invalidOtp,
    unknown_reference: () =>
      error(400, '442', 'TRANSACTION_NOT_FOUND', 'No transaction found for the reference.', 'rejected'),
    declined: (transaction) => json(200, payment(transaction, 'FAILED'), 'unclear'),
    server_error: () => error(500, '500', 'INTERNAL_SERVER_ERROR', 'Something went wrong.', 'nothing'),
    bad_gateway: () => withoutBody(502),
    unavailable: () => withoutBody(503),
    gateway_timeout: () => withoutBody(504),
  },
  doors: {
    // 479 is the HTTP status too, outside every registry.
    credentials_refused: () =>
      error(479, '479', 'UNAUTHORIZED_IP_ACCESS', 'Unauthorized IP address access.', 'refused'),
    app_refused: unauthorized,
    rate_limited: rateLimited,
  },
};

/** The page that describes the callback could not be read, so each of these is a guess that can be changed. */
export interface BeqelalCallback {
  /** Whether the body names the reference; true. Without it only `id` says which payment is meant. */
  reference?: boolean;
  /** The proof: this header, with the HMAC of the raw body in hex. Without it the secret is the last part of the path. */
  hmac?: { header: string; algorithm: string };
}

export function beqelal(world: World, { reference: namesReference = true, hmac }: BeqelalCallback = {}): ProviderSide {
  const refuse = refusing(world, provider);
  const credentials = {
    appId: `app_${randomBytes(8).toString('hex')}`,
    apiKey: randomBytes(24).toString('hex'),
    callbackSecret: randomBytes(24).toString('hex'),
  };

  function authorize(call: IncomingCall): Handled {
    const body = jsonObject(call.body);
    const reference = typeof body?.reference === 'string' ? body.reference : null;
    // The answer to a malformed body is not documented; the envelope is.
    const field = (name: string) => ({
      answer: error(400, '400', 'BAD_REQUEST', `Invalid ${name}.`, 'refused'),
      detail: name,
    });
    world.ledger.write({ provider, call: 'verify', reference, event: 'request' });
    const code = codeFrom(body?.otp);
    const refusal = firstRefusal([
      () =>
        sameText(call.headers['app-id'], credentials.appId) && sameText(call.headers['api-key'], credentials.apiKey)
          ? null
          : { answer: unauthorized(), detail: 'app-id or api-key' },
      () => (isJson(call) ? null : field('Content-Type')),
      () => (matches(body?.reference, /^[0-9A-Za-z_-]{1,64}$/) ? null : field('reference')),
      () => (code === null ? field('otp') : null),
      () => (body && strangers(body, ['reference', 'otp']).length === 0 ? null : field('an undocumented member')),
    ]);
    if (refusal || reference === null || code === null) return refuse('verify', reference, refusal ?? field('body'));
    const submission = { provider, call: 'verify', reference, code, magicValue: code } as const;
    return {
      call: 'verify',
      reference,
      answer: attend(world, phrases, { ...submission, charging: 'inside_the_call' }),
    };
  }

  return {
    provider,
    credentials,
    options: { otpEncoding: 'auto', ...(hmac ? { callbackHmac: hmac } : {}) },
    rateLimited,
    callback(transaction, says, secret, respell) {
      const key = secret === 'right' ? credentials.callbackSecret : randomBytes(24).toString('hex');
      const content = payment(transaction, says === 'paid' ? 'PROCESSED' : 'FAILED');
      const body = respell(JSON.stringify(namesReference ? { ...content, reference: transaction.reference } : content));
      if (!hmac) return { path: `/${key}`, headers: {}, body };
      const signature = createHmac(hmac.algorithm, key).update(body).digest('hex');
      return { path: '', headers: { [hmac.header.toLowerCase()]: signature }, body };
    },
    handle(call) {
      if (call.method === 'POST' && call.url === '/api/v1/payment/authorize') return authorize(call);
      const answer = error(404, '404', 'NOT_FOUND', 'Not found.', 'refused');
      return refuse('unknown', null, { answer, detail: 'no such path' });
    },
  };
}

/**
 * The page documents a number of six digits. A code that begins with 0 cannot be one, so it comes as a string;
 * a number below 100000 is one that lost its zero on the way, and would be another code.
 */
function codeFrom(otp: unknown): string | null {
  if (typeof otp === 'number') return Number.isInteger(otp) && otp >= 100_000 && otp <= 999_999 ? String(otp) : null;
  return matches(otp, /^0\d{5}$/) ? otp : null;
}

/** The documented members. How the amounts are typed could not be read; decimal strings are this sandbox's choice. */
function payment(transaction: Transaction, status: string) {
  const amount = Number((transaction.reported ?? transaction.asked).value);
  const fee = 2;
  const done = status === 'PROCESSED';
  transaction.echo.id ??= `S${randomInt(100_000_000, 999_999_999)}`; // the callback names what the answer named
  return {
    id: transaction.echo.id,
    bank_name: 'Sandbox Bank',
    merchant: 'Sandbox Merchant',
    merchant_phone: '251900000000',
    phone: '251911111111',
    account_no: '1000000000001',
    amount: amount.toFixed(2),
    fee: fee.toFixed(2),
    total_amount: (amount + fee).toFixed(2),
    process: 'PAYMENT',
    description: `Payment ${transaction.reference}`,
    updated_at: new Date().toISOString().replace('Z', '000'), // the sample's time has no zone
    status,
    status_code: 200,
    message: done ? 'SUCCESS' : `TRANSACTION_${status}`,
    detail: done ? 'Transaction processed successfully.' : 'The transaction was not processed.',
  };
}
