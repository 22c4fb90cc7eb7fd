/**
 * Cepta (Nigeria), card charge: validating the OTP of a purchase.
 *
 * Documented at https://docs.cepta.co/api-reference/charge-api/aggregator-validate-otp,
 * https://docs.cepta.co/api-reference/authentication, https://docs.cepta.co/api-reference/errors and
 * https://docs.cepta.co/product/charge-api/confirm-transaction
 * - Production `https://adapter.cepta.co`.
 * - Two generations of authentication: `Authorization: <secretKey>` without a scheme word, and the newer three headers
 *   with an HMAC-SHA256 in hex over `ts + METHOD + path with query + body`, nothing between. Whether the query is
 *   signed is contradictory: the documents say so, a public client does not.
 * - `status`, `data.responseCode` "00" is success; Cepta says to query the status before giving value.
 * - `status:false` with `INVALID_OTP` is a wrong code. The error page lists it under HTTP 403, the sample names no HTTP
 *   status: the body decides (inferred).
 * - `otpRetryCount` counts the attempts that are left; with 0 no further code is taken.
 * - The 200 is declared as `text/plain` and is JSON.
 * - The API reference allows null for `paymentId` and `md`, the guide requires both: what the purchase gave is sent.
 * - The inquiry's own `status:true` means that the inquiry worked. Its `data.status` vocabulary differs from page to
 *   page (successful, completed, paid; failed, reversed; pending) and so does its case.
 * - `pending` may also mean invalid parameters. No idempotency, no lifetime of the OTP.
 *
 * Callbacks, https://docs.cepta.co/advance-concept/webhooks:
 * - POST to the URL of the dashboard, to be answered with 200; merchants are told to ask for the status before they
 *   give value.
 * - Header `hash-key`: SHA-512 over the secret key and the merchant id. The example shows ` | ` between the two, the text
 *   does not: both are taken. It covers no byte of the body and never changes, so whoever has seen one callback can
 *   forge others: it proves little.
 * - The body could not be read: where it may name the transaction and its status is inferred from the other answers.
 */
import { z } from 'zod';
import { type Secret, secretText } from '../secret.ts';
import { codeOf, pathOf, pathWithQueryOf, withQuery } from './building.ts';
import { headerText, identifier, opaque, path } from './fields.ts';
import {
  type Context,
  defineProvider,
  type Finding,
  type HttpRequest,
  type HttpResponse,
  type Outcome,
  type Stamp,
} from './provider.ts';
import {
  callbackReading,
  httpCode,
  nothing,
  readExact,
  reportedAmounts,
  retryAfter,
  serverFault,
  undocumented,
  wordOr,
} from './reading.ts';
import { hmac, isSecret, sha256Hex, sha512Hex } from './signing.ts';

const credentials = z.strictObject({
  secretKey: secretText,
  /** Needed by `authScheme: hmac`. */
  accessKey: headerText(256).optional(),
  /** Part of the callbacks' hash, and the clearest name of the account. */
  merchantId: headerText(128).optional(),
});
type Credentials = z.output<typeof credentials>;

const options = z
  .strictObject({
    authScheme: z.enum(['secret', 'hmac']).default('secret'),
    /** Whether the signature of the inquiry covers its query. */
    signQuery: z.boolean().default(true),
    paths: z
      .strictObject({
        verify: path('/api/v1/pay/validate-otp'),
        inquiry: path('/api/v1/pay/confirm-status?TransactionRef='),
      })
      .prefault({}),
  })
  .prefault({});
type Options = z.output<typeof options>;

const verifyParams = z.strictObject({
  transactionRef: identifier,
  paymentId: identifier.nullable().default(null),
  md: opaque.nullable().default(null),
});

const optionalText = z.string().nullish().catch(null);
const errorList = z.array(z.object({ errorCode: z.string() })).nullish();

/** Numbers arrive here as the text in which they were written. */
const answer = z.object({
  status: z.unknown().optional(),
  data: z
    .object({
      responseCode: optionalText,
      amount: optionalText,
      transactionIdentifier: optionalText,
      token: optionalText,
      tokenExpiryDate: optionalText,
      otpRetryCount: optionalText,
      errors: errorList,
    })
    .nullish()
    .catch(null),
  otpRetryCount: optionalText,
  errors: errorList,
  errorCode: optionalText,
  code: optionalText,
  error: optionalText,
  message: optionalText,
});
type Answer = z.output<typeof answer>;

const confirmation = z.object({
  status: z.literal(true),
  data: z.object({ transactionReference: z.string(), status: z.string(), amount: z.string().nullish() }),
});

const reference = identifier.nullish().catch(null);

/** The names that the provider's other calls have for the transaction, and the places where its answers have them. */
const named = z.object({ transactionRef: reference, TransactionRef: reference, transactionReference: reference });
const told = z.object({ status: optionalText, amount: optionalText });

/** Numbers arrive here as the text in which they were written. */
const callbackBody = named.extend(told.shape).extend({ data: named.extend(told.shape).nullish().catch(null) });

/** The words of the error page. Only they are recognised outside of `errors[].errorCode`. */
const ERROR_WORDS: readonly string[] = [
  'INVALID_REQUEST',
  'UNAUTHORIZED',
  'INVALID_OTP',
  'TRANSACTION_NOT_FOUND',
  'NOT FOUND',
  'TOO MANY REQUESTS',
  'TOO_MANY_REQUESTS',
  'INTERNAL_SERVER_ERROR',
];

export const cepta = defineProvider<Credentials, Options>({
  adapter: 'cepta',
  displayName: 'Cepta',
  effect: 'money',
  credentials,
  options,
  // Only the secret key is always there; the beginning of its hash names it without telling it.
  account: ({ merchantId, accessKey, secretKey }) =>
    merchantId ?? accessKey ?? `key-${sha256Hex(secretKey.reveal()).slice(0, 12)}`,
  check: ({ credentials, options }) =>
    options.authScheme === 'hmac' && credentials.accessKey === undefined
      ? 'credentials.accessKey is required when options.authScheme is hmac'
      : null,

  operations: {
    verify: {
      params: verifyParams,
      takesOtp: true,
      reference: ({ transactionRef }) => ({ value: String(transactionRef), personal: false }),
      plainParams: ['transactionRef'],

      buildRequest(context, verification, stamp): HttpRequest {
        const { transactionRef, paymentId = null, md = null } = verification.params;
        const url = `${context.baseUrl}${context.options.paths.verify}`;
        const body = JSON.stringify({ otp: codeOf(verification), transactionRef, paymentId, md });
        return {
          method: 'POST',
          url,
          headers: { ...authentication(context, stamp, 'POST', url, body), 'Content-Type': 'application/json' },
          body,
        };
      },

      interpret(context, response): Outcome {
        const body = readExact(answer, response.body);
        if (body === null) return undocumented(response);
        const word = errorWord(body);
        if (response.status === 200 && body.status === true && word === null && body.data?.responseCode === '00') {
          return accepted(body.data);
        }
        if (body.status === true || body.data?.responseCode === '00') return undocumented(response);
        return interpretError(context, response, body, word);
      },
    },
  },

  inquiry: {
    buildRequest(context, subject, stamp): HttpRequest {
      const url = `${context.baseUrl}${withQuery(context.options.paths.inquiry, 'TransactionRef', subject.reference)}`;
      return { method: 'GET', url, headers: authentication(context, stamp, 'GET', url, '') };
    },

    interpret(_context, response, subject): Finding {
      const data = response.status === 200 ? readExact(confirmation, response.body)?.data : undefined;
      if (data === undefined) return interpretInquiryError(response);
      if (data.transactionReference !== subject.reference) return nothing(response, false);
      return findingOf(data.status, data.amount) ?? nothing(response, false, wordOr(response, data.status));
    },
  },

  callback: {
    isConfigured: ({ credentials }) => credentials.merchantId !== undefined,
    authenticate({ credentials }, { headers }) {
      const secretKey = credentials.secretKey.reveal();
      const presented = (headers['hash-key'] ?? '').toLowerCase();
      const [plain, separated] = ['', ' | '].map((separator) =>
        isSecret(presented, sha512Hex(`${secretKey}${separator}${credentials.merchantId}`)),
      );
      return plain === true || separated === true;
    },
    read(_context, body) {
      const callback = readExact(callbackBody, body);
      if (callback === null) return null;
      const { data } = callback;
      const status = data?.status ?? callback.status;
      const references = [callback, data].flatMap((part) => [
        part?.transactionRef,
        part?.TransactionRef,
        part?.transactionReference,
      ]);
      return callbackReading(references, status ? findingOf(status, data?.amount ?? callback.amount) : null, status);
    },
  },
});

/** The same words in the answer to an inquiry and in a callback; null for an unlisted one. */
function findingOf(status: string, amount: string | null | undefined): Finding | null {
  switch (status.toLowerCase()) {
    case 'successful':
    case 'completed':
    case 'paid':
    case 'success': {
      const amounts = reportedAmounts([amount]);
      return amounts === null ? null : { kind: 'paid', providerCode: status, amounts };
    }
    case 'failed':
    case 'reversed':
      return { kind: 'not_paid', providerCode: status };
    case 'pending':
      return { kind: 'pending', providerCode: status };
    default:
      return null;
  }
}

function authentication(
  { credentials, options }: Context<Credentials, Options>,
  stamp: Stamp,
  method: HttpRequest['method'],
  url: string,
  body: string,
): Record<string, string> {
  switch (options.authScheme) {
    case 'secret':
      return { Authorization: credentials.secretKey.reveal() };
    case 'hmac': {
      const seconds = String(Math.floor(stamp.now.getTime() / 1000));
      const path = options.signQuery ? pathWithQueryOf(url) : pathOf(url);
      return {
        'X-Access-Key': credentials.accessKey ?? '',
        'X-Access-Signature': ceptaSignature(credentials.secretKey, seconds, method, path, body),
        'X-Access-Ts': seconds,
      };
    }
    default:
      return options.authScheme satisfies never;
  }
}

function ceptaSignature(
  secretKey: Secret<string>,
  seconds: string,
  method: string,
  path: string,
  body: string,
): string {
  return hmac('sha256', secretKey, `${seconds}${method}${path}${body}`, 'hex');
}

/** The one error that the answer names; null if it names none, and '' if it names several, which nothing documents. */
function errorWord(body: Answer): string | null {
  const listed = [...(body.errors ?? []), ...(body.data?.errors ?? [])].map(({ errorCode }) => errorCode);
  const spoken = [body.errorCode, body.code, body.error, body.message].filter(
    (word): word is string => typeof word === 'string' && ERROR_WORDS.includes(word),
  );
  const words = new Set([...listed, ...spoken]);
  const [first] = words;
  return words.size > 1 ? '' : (first ?? null);
}

function accepted(data: NonNullable<Answer['data']>): Outcome {
  const { transactionIdentifier, token, tokenExpiryDate, amount } = data;
  return {
    kind: 'accepted',
    transaction: 'pending',
    nextStep: 'wait',
    providerCode: '00',
    details: { transactionIdentifier, token, tokenExpiryDate, amount },
  };
}

function interpretError(
  { options }: Context<Credentials, Options>,
  response: HttpResponse,
  body: Answer,
  word: string | null,
): Outcome {
  switch (`${response.status} ${word}`) {
    case '200 INVALID_OTP':
      return body.status === false ? wrongCode(body) : undocumented(response);
    case '403 INVALID_OTP':
      return wrongCode(body);
    case '404 TRANSACTION_NOT_FOUND':
      return {
        kind: 'rejected',
        reason: 'unknown_reference',
        transaction: 'failed',
        nextStep: 'new_transaction',
        providerCode: 'TRANSACTION_NOT_FOUND',
      };
    case '400 INVALID_REQUEST':
      return { kind: 'refused', cause: 'request', remedy: { do: 'none' }, providerCode: 'INVALID_REQUEST' };
    case '401 UNAUTHORIZED': // a signature may have been too old, a bare key can only be wrong
      return {
        kind: 'refused',
        cause: 'credentials',
        remedy: { do: options.authScheme === 'hmac' ? 'new_stamp' : 'none' },
        providerCode: 'UNAUTHORIZED',
      };
    case '429 TOO MANY REQUESTS':
    case '429 TOO_MANY_REQUESTS':
      return {
        kind: 'refused',
        cause: 'throttled',
        remedy: { do: 'wait' },
        providerCode: 'TOO_MANY_REQUESTS',
        ...retryAfter(response),
      };
    case '404 NOT FOUND': // the endpoint, not the transaction
      return { kind: 'unknown', reason: 'misconfigured', documented: true, providerCode: 'NOT FOUND' };
    case '500 INTERNAL_SERVER_ERROR':
      return serverFault(response, 'INTERNAL_SERVER_ERROR');
    default:
      return undocumented(response, wordOr(response, word));
  }
}

function wrongCode(body: Answer): Outcome {
  const told = body.data?.otpRetryCount ?? body.otpRetryCount ?? '';
  const left = /^\d{1,3}$/.test(told) ? Number(told) : undefined;
  return {
    kind: 'rejected',
    reason: 'wrong_code',
    ...(left === 0 ? { transaction: 'failed', nextStep: 'new_transaction' } : { transaction: 'pending' }),
    providerCode: 'INVALID_OTP',
    ...(left === undefined ? {} : { attemptsRemaining: left }),
  };
}

function interpretInquiryError(response: HttpResponse): Finding {
  const body = readExact(answer, response.body);
  const word = body === null ? null : errorWord(body);
  switch (`${response.status} ${word}`) {
    case '400 INVALID_REQUEST':
    case '401 UNAUTHORIZED':
    case '404 TRANSACTION_NOT_FOUND':
    case '404 NOT FOUND':
    case '429 TOO MANY REQUESTS':
    case '429 TOO_MANY_REQUESTS':
    case '500 INTERNAL_SERVER_ERROR':
      return nothing(response, true, word ?? httpCode(response));
    default:
      return nothing(response, false, wordOr(response, word));
  }
}
