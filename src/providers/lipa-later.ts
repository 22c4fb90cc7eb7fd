/**
 * LipaLater, buy now pay later: proving the customer's phone, which also tells the credit limit. No money moves here.
 *
 * Documented at https://www.docs.lipalater.com/authentication/, https://www.docs.lipalater.com/customer-journey/ and
 * https://www.docs.lipalater.com/errors/
 * - OAuth client credentials as a form; the token lives `expires_in` seconds (7198 in the sample).
 * - The headings print `/otp/api/v2/...`, the samples and the customer journey `/api/v2/otp/...`; the latter is used,
 *   because all sibling endpoints begin with `/api/v2/` (inferred).
 * - `send` answers `data` as a string in production and as `{message, otp}` in test: the code is disclosed there and
 *   must go no further.
 * - One sample writes the phone with `+`, one without; both calls must name the same phone, so both send E.164 with `+`
 *   (inferred).
 * - A success repeats the HTTP status in the body's `status`; HTTP 200 alone is not believed (inferred).
 * - The HTTP table says 400, 401, 402, 403, 404, 429 and 5xx; which of them carries a wrong or expired code is not
 *   documented. Error bodies are problem objects with `type`, `title`, `status`, `detail`.
 * - No inquiry, no callback, no attempts, no lifetime of the OTP. What `verify` answers a new customer is not shown.
 *
 * A newer generation of the documents (https://docs.lipalater.com/authentication) has no OTP at all.
 */
import { z } from 'zod';
import { Secret, secretText } from '../secret.ts';
import { codeOf, tokenOf } from './building.ts';
import { besides, identifier, path, text } from './fields.ts';
import { defineProvider, type HttpResponse, type Outcome, type Stamp } from './provider.ts';
import { bearerToken, httpCode, read, retryAfter, seconds, serverFault, undocumented } from './reading.ts';

const credentials = z.strictObject({ clientId: text(256), clientSecret: secretText });
type Credentials = z.output<typeof credentials>;

const options = z
  .strictObject({
    paths: z
      .strictObject({
        send: path('/api/v2/otp/send'),
        verify: path('/api/v2/otp/verify'),
        token: path('/api/v2/oauth/token'),
      })
      .prefault({}),
  })
  .prefault({});
type Options = z.output<typeof options>;

/** Without `+` it is still E.164, but a national form (`0712…`) would need a country that is not always given. */
const phoneNumber = z.string().regex(/^\+?[1-9]\d{6,14}$/, 'must be in E.164, like +254712345678');

const verifyParams = z.strictObject({
  id_number: identifier,
  item_value: z.string().regex(/^\d{1,15}(\.\d{1,4})?$/, 'must be a decimal number written as a string'),
  phone_number: phoneNumber,
});

const NEW_CUSTOMER = ['first_name', 'last_name', 'country_code', 'date_of_birth'] as const;

const sendParams = z
  .strictObject({
    id_number: identifier,
    phone_number: phoneNumber,
    first_name: identifier.optional(),
    last_name: identifier.optional(),
    country_code: text(8).optional(),
    /** `11/08/1990` in the sample; which of the two is the month is not said, so it goes as it came. */
    date_of_birth: text(32).optional(),
  })
  .refine((params) => new Set(NEW_CUSTOMER.map((name) => params[name] === undefined)).size === 1, {
    message: `a new customer needs all of ${NEW_CUSTOMER.join(', ')}, a known one none of them`,
  });

/** A number in the samples of success, a string in those of errors. */
const bodyStatus = z.union([z.literal(200), z.literal('200')]);

const sent = z.object({
  status: bodyStatus,
  data: z.union([z.string(), z.object({ message: z.string(), otp: z.unknown().optional() })]),
});

const verified = z.object({
  status: bodyStatus,
  data: z.object({
    id: z.union([z.string().min(1), z.number()]),
    credit_limit: besides,
    available_limit: besides,
    credit_limit_status: besides,
    payment_terms: besides,
  }),
});

/** No member is required: that the body is a JSON object is what is asked. */
const problem = z.object({ title: z.string().optional().catch(undefined) });

const tokenResponse = z.object({ access_token: bearerToken, expires_in: seconds });

export const lipaLater = defineProvider<Credentials, Options>({
  adapter: 'lipa-later',
  displayName: 'LipaLater',
  effect: 'none',
  credentials,
  options,
  account: ({ clientId }) => clientId,

  operations: {
    verify: {
      params: verifyParams,
      takesOtp: true,
      reference: personalReference,
      plainParams: [],
      tokens: () => ['token'],

      buildRequest: (context, verification, stamp) => ({
        method: 'POST',
        url: `${context.baseUrl}${context.options.paths.verify}`,
        headers: authentication(stamp),
        body: JSON.stringify({
          id_number: verification.params.id_number,
          item_value: verification.params.item_value,
          otp: codeOf(verification),
          phone_number: withPlus(verification.params.phone_number),
        }),
      }),

      interpret(_context, response): Outcome {
        if (response.status !== 200) return interpretError(response);
        const data = read(verified, response.body)?.data;
        if (data === undefined) return undocumented(response);
        const { id, credit_limit, available_limit, credit_limit_status, payment_terms } = data;
        return {
          kind: 'accepted',
          transaction: 'none',
          providerCode: httpCode(response),
          details: { id, credit_limit, available_limit, credit_limit_status, payment_terms },
        };
      },
    },

    send: {
      params: sendParams,
      takesOtp: false,
      reference: personalReference,
      plainParams: [],
      tokens: () => ['token'],

      buildRequest: (context, { params }, stamp) => ({
        method: 'POST',
        url: `${context.baseUrl}${context.options.paths.send}`,
        headers: authentication(stamp),
        body: JSON.stringify({
          id_number: params.id_number,
          phone_number: withPlus(params.phone_number),
          first_name: params.first_name,
          last_name: params.last_name,
          country_code: params.country_code,
          date_of_birth: params.date_of_birth,
        }),
      }),

      interpret(_context, response): Outcome {
        if (response.status !== 200) return interpretError(response);
        if (read(sent, response.body) === null) return undocumented(response);
        // No details: the test shape carries the code itself.
        return { kind: 'accepted', transaction: 'none', providerCode: httpCode(response) };
      },
    },
  },

  tokens: {
    token: {
      cacheKey: () => 'client',

      buildRequest: (context) => ({
        method: 'POST',
        url: `${context.baseUrl}${context.options.paths.token}`,
        headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
        body: new URLSearchParams({
          grant_type: 'client_credentials',
          client_id: context.credentials.clientId,
          client_secret: context.credentials.clientSecret.reveal(),
          scope: 'read write',
        }).toString(),
      }),

      interpret(_context, response) {
        const token = response.status === 200 ? read(tokenResponse, response.body) : null;
        if (token !== null) {
          return { kind: 'token', token: new Secret(token.access_token), expiresInMs: token.expires_in * 1000 };
        }
        const refusal = read(problem, response.body) === null ? 'none' : response.status;
        switch (refusal) {
          case 400: // OAuth 2.0 (RFC 6749 §5.2) answers an unknown client with 400 or 401
          case 401:
            return { kind: 'refused', cause: 'credentials', providerCode: httpCode(response) };
          case 429:
            return { kind: 'refused', cause: 'throttled', providerCode: httpCode(response), ...retryAfter(response) };
          default:
            return { kind: 'unreadable', providerCode: httpCode(response) };
        }
      },
    },
  },
});

function authentication(stamp: Stamp): Record<string, string> {
  return { Authorization: `Bearer ${tokenOf(stamp, 'token')}`, 'Content-Type': 'application/json' };
}

function withPlus(phone: unknown): string {
  const digits = String(phone);
  return digits.startsWith('+') ? digits : `+${digits}`;
}

/** The same for `send` and `verify`: they speak of one customer. */
function personalReference(params: { readonly id_number?: unknown; readonly phone_number?: unknown }) {
  return { value: `${params.id_number}|${withPlus(params.phone_number)}`, personal: true };
}

/** The documented HTTP table. It counts only with a JSON object as body: a proxy's page speaks for nobody. */
function interpretError(response: HttpResponse): Outcome {
  const body = read(problem, response.body);
  if (body === null) return undocumented(response);
  const providerCode = httpCode(response);
  switch (response.status) {
    case 400:
    case 404:
      return { kind: 'rejected', reason: null, transaction: 'none', providerCode };
    case 402:
    case 403: // 403 is also "not enough credit", which only the title tells
      return {
        kind: 'rejected',
        reason: /credit/i.test(body.title ?? '') ? 'declined' : null,
        transaction: 'none',
        providerCode,
      };
    case 401:
      return { kind: 'refused', cause: 'credentials', remedy: { do: 'new_token', tokens: ['token'] }, providerCode };
    case 429:
      return { kind: 'refused', cause: 'throttled', remedy: { do: 'wait' }, providerCode, ...retryAfter(response) };
    case 500:
    case 502:
    case 503:
    case 504:
      return serverFault(response);
    default:
      return undocumented(response);
  }
}
