/**
 * LipaLater, the generation of the API that has an OTP step: oauth/token, otp/send and otp/verify. No money moves here.
 *
 *   https://www.docs.lipalater.com/authentication/
 *   https://www.docs.lipalater.com/customer-journey/
 *   https://www.docs.lipalater.com/errors/
 */
import { randomBytes, randomInt, randomUUID } from 'node:crypto';
import { bearer, type Check, firstRefusal, isJson, jsonObject, matches, sameText, strangers } from './checks.ts';
import { attend, type Handled, type Phrases, type ProviderSide, refusing, type World } from './desk.ts';
import { type Answer, type IncomingCall, json, type Told } from './server.ts';

const provider = 'lipa-later';
const tokenLifetimeSeconds = 7198; // the figure of the documented sample

/** Every answer carries its request id in the header and, where it has the success shape, in the body. */
function success(data: unknown, told: Told, status = 200): Answer {
  const requestId = randomUUID();
  return json(200, { request_id: requestId, apiVersion: '2.0', status, data }, told, { 'x-request-id': requestId });
}

/** The documented error shape: `status` is a string there. The titles are made up, but for the credit one. */
function problem(
  status: number,
  title: string,
  told: Told,
  more: Record<string, unknown> = {},
  headers: Record<string, string> = {},
): Answer {
  return json(status, { type: 'about:blank', title, status: String(status), detail: title, ...more }, told, {
    'x-request-id': randomUUID(),
    ...headers,
  });
}

const unauthorized = () => problem(401, 'No valid API key provided', 'refused');
const rateLimited = () => problem(429, 'Too many requests', 'refused', {}, { 'retry-after': '1' });

const phrases: Pick<Phrases, 'strange' | 'rulings' | 'doors'> = {
  strange: () => success(null, 'nothing', 299),
  rulings: {
    wrong_code: () => problem(400, 'The code is not valid', 'rejected'),
    attempts_used_up: () => problem(400, 'The code is not valid', 'rejected'),
    unknown_reference: () => problem(404, 'The requested resource does not exist', 'rejected'),
    declined: () =>
      problem(403, 'You do not have enough credit', 'rejected', {
        detail: 'Your credit limit is 1000, but the item(s) costs 20000',
        creditLimit: '1000',
      }),
    invalid_request: () =>
      json(
        400,
        {
          title: "Your request parameters didn't validate.",
          'invalid-params': [{ name: 'id_number', reason: 'has already been taken' }],
        },
        'rejected',
        { 'x-request-id': randomUUID() },
      ),
    request_failed: () => problem(402, 'The parameters were valid but the request failed', 'rejected'),
    server_error: () => problem(500, 'Something went wrong', 'nothing'),
    bad_gateway: () => problem(502, 'Something went wrong', 'nothing'),
    unavailable: () => problem(503, 'Something went wrong', 'nothing'),
    gateway_timeout: () => problem(504, 'Something went wrong', 'nothing'),
  },
  doors: {
    credentials_refused: unauthorized,
    token_refused: unauthorized,
    rate_limited: rateLimited,
  },
};

const verified = (): Answer =>
  success(
    {
      id: randomInt(10_000, 99_999),
      credit_limit: 50_000,
      available_limit: 42_500,
      credit_limit_status: 'limit_active',
      payment_terms: {
        principal_amount: '20000.00',
        upfront_fees: '1200.00',
        first_installment: '1766.67',
        minimum_payment: '2966.67',
      },
    },
    'accepted',
  );

/** The documentation prints the number with and without +; the ledger keeps one form. */
const phoneReference = (value: unknown) => (matches(value, /^\+?[1-9]\d{7,14}$/) ? `+${value.replace('+', '')}` : null);

export function lipaLater(world: World): ProviderSide {
  const refuse = refusing(world, provider);
  const credentials = { clientId: randomBytes(16).toString('hex'), clientSecret: randomBytes(24).toString('hex') };
  const tokens = new Map<string, number>();

  function token(call: IncomingCall): Handled {
    world.ledger.write({ provider, call: 'token', reference: null, event: 'request' });
    const form = new URLSearchParams(call.body);
    // The error words of RFC 6749, section 5.2; LipaLater shows no failed token call.
    const oauth = (status: number, error: string) => json(status, { error });
    const refusal = firstRefusal([
      () =>
        /^application\/x-www-form-urlencoded(;\s*charset=utf-8)?$/i.test(call.headers['content-type'] ?? '')
          ? null
          : { answer: oauth(400, 'invalid_request'), detail: 'Content-Type' },
      () =>
        form.get('grant_type') === 'client_credentials'
          ? null
          : { answer: oauth(400, 'unsupported_grant_type'), detail: 'grant_type' },
      () =>
        sameText(form.get('client_id'), credentials.clientId) &&
        sameText(form.get('client_secret'), credentials.clientSecret)
          ? null
          : { answer: oauth(401, 'invalid_client'), detail: 'client_id or client_secret' },
      () => (form.get('scope') === 'read write' ? null : { answer: oauth(400, 'invalid_scope'), detail: 'scope' }),
      () => ([...form.keys()].length === 4 ? null : { answer: oauth(400, 'invalid_request'), detail: 'another field' }),
    ]);
    if (refusal) return refuse('token', null, refusal);
    const accessToken = randomBytes(32).toString('hex');
    tokens.set(accessToken, Date.now() + tokenLifetimeSeconds * 1000);
    world.ledger.write({ provider, call: 'token', reference: null, event: 'token_issued' });
    const answer = json(200, {
      access_token: accessToken,
      token_type: 'Bearer',
      expires_in: tokenLifetimeSeconds,
      scope: 'read write',
      created_at: Math.floor(Date.now() / 1000),
    });
    return { call: 'token', reference: null, answer };
  }

  const bearerCheck =
    (call: IncomingCall): Check =>
    () =>
      (tokens.get(bearer(call.headers.authorization) ?? '') ?? 0) > Date.now()
        ? null
        : { answer: unauthorized(), detail: 'Authorization' };

  function send(call: IncomingCall): Handled {
    const body = jsonObject(call.body) ?? {};
    const reference = phoneReference(body.phone_number);
    world.ledger.write({ provider, call: 'send', reference, event: 'request' });
    const isNew = newCustomer.some((name) => name in body);
    const refusal = firstRefusal([
      bearerCheck(call),
      ...bodyChecks(call, body),
      () =>
        strangers(body, ['id_number', 'phone_number', ...newCustomer]).length === 0 ? null : field('another member'),
      ...newCustomer.map((name) => () => (!isNew || matches(body[name], newCustomerRules[name]) ? null : field(name))),
    ]);
    if (refusal || reference === null) return refuse('send', reference, refusal ?? field('phone_number'));
    const testShape = reference.endsWith('777777');
    const message = 'OTP has been sent successfully';
    const accepted = () =>
      success(testShape ? { message, otp: String(randomInt(100_000, 400_000)) } : message, 'accepted');
    return {
      call: 'send',
      reference,
      answer: submit(call, 'send', reference, undefined, reference.slice(-6), accepted),
    };
  }

  function verify(call: IncomingCall): Handled {
    const body = jsonObject(call.body) ?? {};
    const reference = phoneReference(body.phone_number);
    world.ledger.write({ provider, call: 'verify', reference, event: 'request' });
    const refusal = firstRefusal([
      bearerCheck(call),
      ...bodyChecks(call, body),
      () => (matches(body.item_value, /^\d+(\.\d{1,2})?$/) ? null : field('item_value')),
      // The sample has six digits; nothing is said of other lengths.
      () => (matches(body.otp, /^[0-9A-Za-z]{4,10}$/) ? null : field('otp')),
      () =>
        strangers(body, ['id_number', 'item_value', 'otp', 'phone_number']).length === 0
          ? null
          : field('another member'),
    ]);
    if (refusal || reference === null) return refuse('verify', reference, refusal ?? field('phone_number'));
    const otp = String(body.otp);
    return { call: 'verify', reference, answer: submit(call, 'verify', reference, otp, otp, verified) };
  }

  function submit(
    call: IncomingCall,
    name: 'send' | 'verify',
    reference: string,
    code: string | undefined,
    magicValue: string,
    accepted: () => Answer,
  ): Answer {
    const token_refused = bearer(call.headers.authorization) ?? '';
    return attend(
      world,
      { ...phrases, accepted },
      { provider, call: name, reference, code, magicValue, charging: 'never', tokens: { token_refused } },
    );
  }

  return {
    provider,
    credentials,
    options: {},
    rateLimited,
    expireToken: (call, which) => which === 'application' && tokens.delete(bearer(call.headers.authorization) ?? ''),
    handle(call) {
      if (call.method === 'POST' && call.url === '/api/v2/oauth/token') return token(call);
      if (call.method === 'POST' && call.url === '/api/v2/otp/send') return send(call);
      if (call.method === 'POST' && call.url === '/api/v2/otp/verify') return verify(call);
      return refuse('unknown', null, { answer: problem(404, 'Not Found', 'refused'), detail: 'no such path' });
    },
  };
}

const newCustomer = ['first_name', 'last_name', 'country_code', 'date_of_birth'] as const;
const newCustomerRules = {
  first_name: /^\S.{0,99}$/,
  last_name: /^\S.{0,99}$/,
  country_code: /^[A-Z]{2}$/,
  date_of_birth: /^\d{2}\/\d{2}\/\d{4}$/,
} as const;

const field = (name: string) => ({ answer: problem(400, `Invalid parameter: ${name}`, 'refused'), detail: name });

const bodyChecks = (call: IncomingCall, body: Record<string, unknown>): Check[] => [
  () => (isJson(call) ? null : field('Content-Type')),
  () => (matches(body.id_number, /^[0-9A-Za-z-]{4,20}$/) ? null : field('id_number')),
  () => (phoneReference(body.phone_number) === null ? field('phone_number') : null),
];
