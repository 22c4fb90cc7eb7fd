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
 * - The answer's `id` need not be the `reference` (that they are the same is inferred at best).
 */
import { z } from 'zod';
import { secretText } from '../secret.ts';
import { codeOf } from './building.ts';
import { headerText, identifier, path } from './fields.ts';
import { defineProvider, type Outcome } from './provider.ts';
import { readExact, reportedAmounts, undocumented, undocumented429 } from './reading.ts';

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

const errorEnvelope = z.object({ error: z.object({ status_code: z.string() }) });

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

      interpret({ options }, response): Outcome {
        if (response.status === 200) {
          const payment = readExact(authorised, response.body);
          return payment === null ? undocumented(response) : interpretPayment(payment, undocumented(response));
        }
        if (response.status === 429) return undocumented429(response, options.trust429);
        const code = readExact(errorEnvelope, response.body)?.error.status_code;
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
