/**
 * Beqelal (Ethiopia), direct payment: authorising a payment with the OTP that the bank sent.
 *
 * Documented at https://beqelal.net/docs/payments/authorize-payment and
 * https://beqelal.net/docs/payments/direct-payment
 * - Headers `app-id` and `api-key`, and the caller's IP address must be on the merchant's list. No host is published.
 * - The call validates the OTP, moves the money and answers `PROCESSED` or `FAILED`, both with HTTP 200: this answer is
 *   itself the proof of payment, and a lost one may mean "paid" (inferred).
 * - Errors are `{"error":{status, status_code, message, detail}}`; `error.status` says FAILED even for a wrong OTP, so
 *   only the code is read: 442 TRANSACTION_NOT_FOUND and 450 INVALID_OTP with HTTP 400, 479 UNAUTHORIZED_IP_ACCESS with
 *   HTTP 479.
 * - `otp` is documented as a number, six digits in the sample, and a JSON number cannot begin with 0. That a string is
 *   understood as well is inferred from the framework that the timestamps betray.
 * - No inquiry: a lost outcome is learnt from the callback or from a person. No 429, no 5xx, no attempts, no lifetime.
 * - The answer's `id` need not be the `reference` (that they are the same is inferred at best). An answer that does name
 *   a reference, and another one, is an answer to somebody else and proves nothing here (inferred).
 *
 * Callbacks, https://beqelal.net/docs/payments/direct-payment and https://beqelal.net/docs/payments/checkout:
 * - The URL and a secret are set in the portal (Integration, Webhooks); `callback_url` of a payment overrides the URL,
 *   and without any there is no callback. One is sent when a payment became PROCESSED or FAILED.
 * - What the secret is for and what the body looks like could not be read. So the secret is taken for the unguessable end
 *   of the URL, or for the key of an HMAC where the options say so, and the body is read as the answer of the call is.
 */
import { createHmac } from 'node:crypto';
import { z } from 'zod';
import { secretText } from '../secret.ts';
import { codeOf } from './building.ts';
import { headerText, identifier, path } from './fields.ts';
import { type CallbackRequest, defineProvider, type Finding, type Outcome } from './provider.ts';
import { callbackReading, namesAnother, readExact, reportedAmounts, undocumented, undocumented429 } from './reading.ts';
import { isSecret } from './signing.ts';

const credentials = z.strictObject({
  appId: headerText(256),
  apiKey: secretText,
  /** The unguessable end of the callback URL, or the key of `options.callbackHmac`. */
  callbackSecret: secretText.optional(),
});
type Credentials = z.output<typeof credentials>;

const options = z
  .strictObject({
    /**
     * `auto` and `number`: a JSON number wherever that loses nothing, that is for digits that do not begin with 0, else
     * a string, for a code that lost a digit would be a wrong code. `string`: always a string.
     */
    otpEncoding: z.enum(['auto', 'number', 'string']).default('auto'),
    /** Believe a 429, which the documents do not know, to have refused the code unread. */
    trust429: z.boolean().default(false),
    /** A signature over the raw body of callbacks; the documents mention a secret, the scheme could not be read. */
    callbackHmac: z
      .strictObject({ header: headerText(128), algorithm: z.enum(['sha256', 'sha512', 'sha1']) })
      .optional(),
    paths: z.strictObject({ verify: path('/api/v1/payment/authorize') }).prefault({}),
  })
  .prefault({});
type Options = z.output<typeof options>;

const verifyParams = z.strictObject({ reference: identifier });

const optionalText = z.string().nullish().catch(null);

/** Numbers arrive here as the text in which they were written. */
const authorised = z.object({
  status: z.string(),
  status_code: z.literal('200').optional(),
  error: z.null().optional(),
  reference: optionalText,
  id: identifier.nullish().catch(null),
  amount: z.string().nullish(),
  total_amount: z.string().nullish(),
  fee: optionalText,
  bank_name: optionalText,
  merchant: optionalText,
  merchant_phone: optionalText,
  phone: optionalText,
  account_no: optionalText,
  process: optionalText,
  description: optionalText,
  updated_at: optionalText,
});

/** What the client may see of a payment: the provider's words and figures, as they were written. */
const DETAILS = [
  'id',
  'bank_name',
  'merchant',
  'merchant_phone',
  'phone',
  'account_no',
  'amount',
  'fee',
  'total_amount',
  'process',
  'description',
  'updated_at',
] as const;

/** Numbers arrive here as the text in which they were written. */
const callbackBody = z.object({
  reference: identifier.nullish().catch(null),
  id: identifier.nullish().catch(null),
  status: optionalText,
});

const errorEnvelope = z.object({ reference: optionalText, error: z.object({ status_code: z.string() }) });

export const beqelal = defineProvider<Credentials, Options>({
  adapter: 'beqelal',
  displayName: 'Beqelal',
  effect: 'money',
  credentials,
  options,
  account: ({ appId }) => appId,

  operations: {
    verify: {
      params: verifyParams,
      takesOtp: true,
      reference: ({ reference }) => ({ value: String(reference), personal: false }),
      plainParams: ['reference'],

      buildRequest: ({ baseUrl, credentials, options }, verification) => ({
        method: 'POST',
        url: `${baseUrl}${options.paths.verify}`,
        headers: {
          'app-id': credentials.appId,
          'api-key': credentials.apiKey.reveal(),
          'Content-Type': 'application/json',
        },
        body: bodyOf(String(verification.params.reference), codeOf(verification), options),
      }),

      interpret({ options }, response, reference): Outcome {
        if (response.status === 200) {
          const payment = readExact(authorised, response.body);
          if (payment === null || namesAnother(payment.reference, reference)) return undocumented(response);
          return interpretPayment(payment, undocumented(response));
        }
        if (response.status === 429) return undocumented429(response, options.trust429);
        const refusal = readExact(errorEnvelope, response.body);
        if (namesAnother(refusal?.reference, reference)) return undocumented(response);
        const code = refusal?.error.status_code;
        switch (`${response.status} ${code}`) {
          case '400 450':
            return { kind: 'rejected', reason: 'wrong_code', transaction: 'pending', providerCode: 'INVALID_OTP' };
          case '400 442':
            return {
              kind: 'rejected',
              reason: 'unknown_reference',
              transaction: 'failed',
              nextStep: 'new_transaction',
              providerCode: 'TRANSACTION_NOT_FOUND',
            };
          case '479 479':
            return {
              kind: 'refused',
              cause: 'credentials',
              remedy: { do: 'none' },
              providerCode: 'UNAUTHORIZED_IP_ACCESS',
            };
          default:
            return undocumented(response, code !== undefined && /^\d{3}$/.test(code) ? code : undefined);
        }
      },
    },
  },

  callback: {
    isConfigured: ({ credentials }) => credentials.callbackSecret !== undefined,
    authenticate: ({ credentials, options }, request) => {
      const secret = credentials.callbackSecret?.reveal() ?? '';
      const { callbackHmac } = options;
      if (callbackHmac === undefined) return isSecret(request.pathToken, secret);
      return isSigned(request, callbackHmac, secret);
    },
    read(_context, body) {
      const named = readExact(callbackBody, body);
      const payment = readExact(authorised, body);
      const finding = payment === null ? null : callbackFinding(payment);
      return callbackReading([named?.reference, named?.id], finding, named?.status);
    },
  },
});

/** Written by hand, because a number must stand there digit for digit, as long as the code. */
function bodyOf(reference: string, code: string, { otpEncoding }: Options): string {
  const otp = otpEncoding !== 'string' && /^[1-9]\d*$/.test(code) ? code : JSON.stringify(code);
  return `{"reference":${JSON.stringify(reference)},"otp":${otp}}`;
}

function interpretPayment(payment: z.output<typeof authorised>, otherwise: Outcome): Outcome {
  const identifiers = payment.id ? { identifiers: [payment.id] } : {};
  switch (payment.status) {
    case 'PROCESSED': {
      const amounts = reportedAmounts([payment.amount, payment.total_amount]);
      if (amounts === null) return otherwise;
      return {
        kind: 'accepted',
        transaction: 'succeeded',
        providerCode: payment.status,
        amounts,
        ...identifiers,
        details: Object.fromEntries(DETAILS.map((name) => [name, payment[name]]).filter(([, value]) => value)),
      };
    }
    case 'FAILED':
      return {
        kind: 'rejected',
        reason: 'declined',
        transaction: 'failed',
        nextStep: 'new_transaction',
        providerCode: payment.status,
        ...identifiers,
      };
    default:
      return otherwise;
  }
}

/** In hex or in base64, with or without the name of the algorithm before it: the documents do not say, and all are whole. */
function isSigned(
  { headers, rawBody }: CallbackRequest,
  { header, algorithm }: NonNullable<Options['callbackHmac']>,
  secret: string,
): boolean {
  const presented = (headers[header.toLowerCase()] ?? '').replace(new RegExp(`^${algorithm}=`, 'i'), '');
  const digest = createHmac(algorithm, secret).update(rawBody).digest();
  const asHex = isSecret(presented.toLowerCase(), digest.toString('hex'));
  const asBase64 = isSecret(presented, digest.toString('base64'));
  return asHex || asBase64;
}

/** The words of the answer, and nothing else. An amount that cannot be read counts as none: a person compares it. */
function callbackFinding(payment: z.output<typeof authorised>): Finding | null {
  const amounts = reportedAmounts([payment.amount, payment.total_amount]) ?? [];
  switch (payment.status) {
    case 'PROCESSED':
      return { kind: 'paid', providerCode: payment.status, amounts };
    case 'FAILED':
      return { kind: 'not_paid', providerCode: payment.status, amounts };
    default:
      return null;
  }
}
