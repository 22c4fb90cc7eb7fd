/**
 * Hello Clever: confirm_otp and payins/detail, behind the static headers app-id and secret-key.
 *
 *   https://docs.helloclever.co/api-v2-reference/authorizing-an-otp-transaction/
 *   https://docs.helloclever.co/api-v2-reference/get-payin-details
 */
import { randomBytes } from 'node:crypto';
import { type Check, firstRefusal, isJson, jsonObject, matches, onlyParameter, sameText, strangers } from './checks.ts';
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

const provider = 'hello-clever';

const error = (status: number, code: string, message: string, told?: Told, headers?: Record<string, string>) =>
  json(status, { errors: { code, message } }, told, headers);

/** The status 400 is documented, its body is not: the envelope is that of the documented 401. */
const badRequest = (told: Told) => error(400, 'BAD_REQUEST', 'Bad Request', told);
const noBody = () => ({ answer: badRequest('refused'), detail: 'body' });
const requireLogin = () => error(401, 'REQUIRE_LOGIN', 'Not Authorised', 'refused');
const withoutBody = (status: number): Answer => ({ ...json(status, '', 'nothing'), body: '' });
/** No 429 is documented, so the other side can rely on nothing. */
const rateLimited = () => error(429, 'TOO_MANY_REQUESTS', 'Too many requests', 'nothing', { 'retry-after': '1' });

const words = {
  awaiting_code: 'pending',
  processing: 'pending',
  paid: 'received',
  failed: 'expired',
  reversed: 'return_received',
} as const satisfies Record<Transaction['stage'], string>;

const phrases: Phrases = {
  accepted: () => json(200, { status: 'Ok' }, 'accepted'),
  strange: () => json(200, { status: 'Queued' }),
  rulings: {
    wrong_code: () => badRequest('rejected'),
    attempts_used_up: () => badRequest('rejected'),
    expired_code: () => ({ ...withoutBody(400), told: 'rejected' }),
    server_error: () => error(500, 'INTERNAL_SERVER_ERROR', 'Something went wrong', 'nothing'),
    bad_gateway: () => withoutBody(502),
    unavailable: () => withoutBody(503),
    gateway_timeout: () => withoutBody(504),
  },
  doors: {
    credentials_refused: requireLogin,
    rate_limited: rateLimited,
  },
};

export function helloClever(world: World): ProviderSide {
  const refuse = refusing(world, provider);
  const credentials = {
    appId: `app_${randomBytes(8).toString('hex')}`,
    secretKey: randomBytes(24).toString('hex'),
    callbackSecret: randomBytes(24).toString('hex'),
  };

  const login =
    (call: IncomingCall): Check =>
    () =>
      sameText(call.headers['app-id'], credentials.appId) && sameText(call.headers['secret-key'], credentials.secretKey)
        ? null
        : { answer: requireLogin(), detail: 'app-id or secret-key' };

  function confirm(call: IncomingCall): Handled {
    const body = jsonObject(call.body);
    const reference = typeof body?.uuid === 'string' ? body.uuid : null;
    const field = (detail: string) => ({ answer: badRequest('refused'), detail });
    world.ledger.write({ provider, call: 'verify', reference, event: 'request' });
    const refusal = firstRefusal([
      login(call),
      () => (isJson(call) ? null : field('Content-Type')),
      () => (/^application\/json$/i.test(call.headers.accept ?? '') ? null : field('Accept')),
      () => (body ? null : field('body')),
      () => (matches(body?.uuid, /^[0-9A-Za-z-]{1,64}$/) ? null : field('uuid')),
      // Length and alphabet of the code are not documented; the sample is six digits, as a string.
      () => (matches(body?.code, /^[0-9A-Za-z]{4,10}$/) ? null : field('code')),
      () => (body && strangers(body, ['uuid', 'code']).length === 0 ? null : field('an undocumented member')),
    ]);
    if (refusal || !body) return refuse('verify', reference, refusal ?? noBody());
    const [uuid, code] = [String(body.uuid), String(body.code)];
    const submission = { provider, call: 'verify', reference: uuid, code, magicValue: code } as const;
    return { call: 'verify', reference, answer: attend(world, phrases, { ...submission, charging: 'on_approval' }) };
  }

  function detail(call: IncomingCall): Handled {
    const reference = onlyParameter(call, 'uuid') ?? null;
    world.ledger.write({ provider, call: 'inquiry', reference, event: 'request' });
    const refusal = firstRefusal([
      login(call),
      () => (reference === null ? { answer: badRequest('refused'), detail: 'uuid' } : null),
    ]);
    if (refusal || reference === null) return refuse('inquiry', reference, refusal ?? noBody());
    const answer = inquire(world, provider, reference, {
      word: (transaction) => words[transaction.stage],
      answer: (transaction, status) => json(200, payin(transaction, status)),
      server_error: () => error(500, 'INTERNAL_SERVER_ERROR', 'Something went wrong'),
      rate_limited: rateLimited,
    });
    return { call: 'inquiry', reference, answer };
  }

  return {
    provider,
    credentials,
    options: {},
    rateLimited,
    // Sent when the status becomes received or return_received, and otherwise not: https://docs.helloclever.co/webhooks/
    callback(transaction, says, secret, respell) {
      const status = says === 'failed' ? 'expired' : (transaction.word ?? words[says]);
      if (status !== 'received' && status !== 'return_received') return null;
      const authorization = secret === 'right' ? credentials.callbackSecret : randomBytes(24).toString('hex');
      const body = { ...payin(transaction, status), paid_amount: paidOf(transaction) };
      return { path: '', headers: { authorization }, body: respell(JSON.stringify(body)) };
    },
    handle(call) {
      if (call.method === 'POST' && call.url === '/api/v2/payins/confirm_otp') return confirm(call);
      if (call.method === 'GET' && call.path === '/api/v2/payins/detail') return detail(call);
      return refuse('unknown', null, { answer: error(404, 'NOT_FOUND', 'Not Found'), detail: 'no such path' });
    },
  };
}

/** What was paid, or what a callback that claims a payment would have to name. */
const paidOf = ({ paid, asked }: Transaction) => Number((paid ?? asked).value);

/** The members of the documented schema; amounts are numbers there. */
function payin(transaction: Transaction, status: string) {
  const total = Number((transaction.reported ?? transaction.asked).value);
  const tomorrow = new Date(Date.now() + 86_400_000).toISOString();
  return {
    uuid: transaction.reference,
    name: 'Sandbox Payer',
    email: 'payer@example.com',
    external_id: `order-${transaction.reference}`,
    status,
    pay_code: {},
    currency: transaction.asked.currency,
    gst: false,
    amount: total,
    gst_amount: 0,
    total,
    paid_amount: Number(transaction.paid?.value ?? 0),
    payment_method: 'gh_mobile_money_ghs',
    description: 'Sandbox payin',
    is_refundable: false,
    expired_at: tomorrow,
    pay_by: tomorrow,
    webhook_notification: { endpoint_url: 'https://merchant.example/callbacks', authorization_header: '****' },
  };
}
