/**
 * Ayoconnect (Indonesia), SNAP BI Direct Debit v3: Verify OTP, service code 04.
 *
 * Documented at https://docs.payments.of.ayoconnect.id/reference/dd-v3-otp-verification,
 * https://docs.payments.of.ayoconnect.id/reference/dd-v3-access-token-b2b2c,
 * https://docs.payments.of.ayoconnect.id/reference/dd-v3-debit-status,
 * https://docs.payments.of.ayoconnect.id/docs/error-codes-1 and
 * https://docs.payments.of.ayoconnect.id/reference/get_response-codes
 * - Sandbox `https://sandbox.api.of.ayoconnect.id`, below it `/dd/api/v3.0`. The path of Verify OTP and those of the
 *   two tokens are inferred from the names of their pages and from SNAP.
 * - X-EXTERNAL-ID is the one of the payment or unbinding that sent the OTP; SNAP's own rule, unique within a day, does
 *   not hold here, and another value breaks the flow.
 * - X-TIMESTAMP is 24 to 27 characters; SNAP's form in Jakarta time, 25 characters, fits.
 * - The OTP has exactly 6 characters; a code of another length is left to the provider to refuse.
 * - Token calls are signed with RSA over `clientId|timestamp`, transactions with HMAC-SHA512 over
 *   `METHOD:path:B2B token:sha256(body):timestamp`. Whether the HMAC is written in hex (the published example) or in
 *   base64 (the SNAP norm) is contradictory; and the gateway may check a path without a prefix: both are options.
 * - The members of `additionalInfo` are not published: it is handed on as it comes.
 * - A response code is the HTTP status, the service code and a case of the SNAP table. Accepted is not paid, and most
 *   errors must not fail the transaction: it failed only when its status is 06 or the status call answers 4045501.
 * - 3 attempts, then the account is blocked for a while. No resend, no lifetime of the OTP, no SLA of the callback.
 * - The status call knows payments only; the member names of its request follow SNAP (inferred).
 *
 * Callbacks, https://docs.payments.of.ayoconnect.id/docs/callbacks:
 * - POST with JSON to the registered URL at the end of a transaction, again after about 1, 2 and 5 minutes, in no
 *   certain order, duplicates included; a URL that never answers 2xx is switched off after some days.
 * - How version 3 authenticates them could not be read. `Authorization: Bearer` and a token that the merchant has issued,
 *   the body (`originalReferenceNo`, `latestTransactionStatus`) and the answer that is expected are inferred from clients
 *   of the API's former version. No signature over the body is known.
 * - Whether `SUCCESS` for an unbinding means "unbound" is not documented: at the binding's status call it means the
 *   opposite, "still bound". And an unbinding has no amount. So a person judges its callback.
 */
import { z } from 'zod';
import { Secret, secretText } from '../secret.ts';
import { codeOf, pathOf, tokenOf } from './building.ts';
import { anyPath, headerText, identifier, passThroughObject, path, text } from './fields.ts';
import {
  type Context,
  defineProvider,
  type Finding,
  type HttpRequest,
  type HttpResponse,
  type Outcome,
  type ReportedAmount,
  type Stamp,
  type TokenAnswer,
} from './provider.ts';
import {
  bearerToken,
  callbackReading,
  capitals,
  httpCode,
  NO_WORD,
  namesAnother,
  nothing,
  plainWord,
  readExact,
  reportedAmounts,
  retryAfter,
  seconds,
  undocumented,
} from './reading.ts';
import { headerBytes, hmac, isSecret, rsaPrivateKey, rsaSha256, type SignatureEncoding, sha256Hex } from './signing.ts';

const credentials = z.strictObject({
  clientId: headerText(128),
  clientSecret: secretText,
  privateKey: rsaPrivateKey,
  /** The merchant code; 6 characters in the documents. */
  merchantId: headerText(36),
  /** 5 digits in the documents. */
  channelId: headerText(36),
  /** What Ayoconnect's callbacks must present. */
  callbackToken: secretText.optional(),
});
type Credentials = z.output<typeof credentials>;

const options = z
  .strictObject({
    /** How the signature of transactions is written; token calls are always in base64. */
    signatureEncoding: z.enum(['hex', 'base64']).default('hex'),
    /** The path of Verify OTP as it is signed, when the gateway checks another than the one that is called. */
    signaturePath: anyPath.optional(),
    paths: z
      .strictObject({
        verify: path('/dd/api/v3.0/otp-verification'),
        b2bToken: path('/dd/api/v3.0/access-token/b2b'),
        b2b2cToken: path('/dd/api/v3.0/access-token/b2b2c'),
        inquiry: path('/dd/api/v3.0/debit/status'),
      })
      .prefault({}),
  })
  .prefault({});
type Options = z.output<typeof options>;

const exactly32 = text(32).min(32, 'must be exactly 32 characters long');

const verifyParams = z
  .strictObject({
    /** The partner reference of the payment or unbinding that sent the OTP. */
    originalPartnerReferenceNo: exactly32,
    /** `referenceNo` of its answer. */
    originalReferenceNo: exactly32,
    /** The two words are inferred: both documented lengths, 7 and 9, fit them. */
    action: z.enum(['payment', 'unbinding']),
    /** X-EXTERNAL-ID of its request. */
    externalId: z.string().regex(/^[0-9A-Za-z]{32}$/, 'must be exactly 32 letters and digits'),
    /** Of the binding; a customer's token is asked for with it. */
    authCode: headerText(32).min(32, 'must be exactly 32 characters long').optional(),
    /** Such a token, where the producer has one. */
    customerAccessToken: headerText(4096).optional(),
    additionalInfo: passThroughObject.default({}),
  })
  .refine((params) => (params.authCode === undefined) !== (params.customerAccessToken === undefined), {
    message: 'exactly one of authCode and customerAccessToken must be given',
  });

/** Numbers arrive here as the text in which they were written. */
const snapAnswer = z.object({
  responseCode: z.string().regex(/^\d{7}$/),
  originalReferenceNo: z.string().nullish(),
});

const tokenResponse = z.object({ accessToken: bearerToken, expiresIn: seconds });

/** SNAP's form of an amount. That the status call reports one, and under which of the two names, is inferred. */
const snapAmount = z.object({ value: z.string(), currency: z.string().nullish() }).nullish();

const statusAnswer = z.object({
  latestTransactionStatus: z.string(),
  amount: snapAmount,
  transAmount: snapAmount,
});

const callbackBody = z.object({
  originalReferenceNo: identifier,
  latestTransactionStatus: z.string().nullish().catch(null),
});

type Told = Outcome extends infer O ? (O extends Outcome ? Omit<O, 'providerCode'> : never) : never;

const IN_PROGRESS: Told = { kind: 'accepted', transaction: 'pending', nextStep: 'wait' };
const BAD_REQUEST: Told = { kind: 'refused', cause: 'request', remedy: { do: 'none' } };
const UNSIGNED: Told = { kind: 'refused', cause: 'credentials', remedy: { do: 'new_stamp' } };
const NO_B2B_TOKEN: Told = {
  kind: 'refused',
  cause: 'credentials',
  remedy: { do: 'new_token', tokens: ['b2bToken'] },
};
const NO_CUSTOMER_TOKEN: Told = {
  kind: 'refused',
  cause: 'credentials',
  remedy: { do: 'new_token', tokens: ['b2b2cToken'] },
};
const THROTTLED: Told = { kind: 'refused', cause: 'throttled', remedy: { do: 'wait' } };
const WRONG_CODE: Told = { kind: 'rejected', reason: 'wrong_code', transaction: 'pending' };
const EXPIRED_CODE: Told = {
  kind: 'rejected',
  reason: 'code_expired',
  transaction: 'pending',
  nextStep: 'new_transaction',
};
/** Documented, and yet no proof: only the status call may say that the transaction failed. */
const DECLINED: Told = { kind: 'unknown', reason: 'declined', documented: true };
const BLOCKED: Told = { kind: 'unknown', reason: 'too_many_attempts', documented: true };
const NOT_FOUND: Told = { kind: 'unknown', reason: 'unknown_reference', documented: true };
const PROCESSED_BEFORE: Told = { kind: 'unknown', reason: 'already_used', documented: true };
const MISCONFIGURED: Told = { kind: 'unknown', reason: 'misconfigured', documented: true };
const NO_ANSWER: Told = { kind: 'unknown', reason: 'no_answer', documented: true };
const UNEXPECTED: Told = { kind: 'unknown', reason: 'unexpected_answer', documented: true };

/**
 * The SNAP table for service 04. The codes are documented (Ayoconnect's own copy could be read to 40304-15, the rest is
 * the standard's); what they prove is inferred from Ayoconnect's rule about failing a transaction.
 */
const ANSWERS: Readonly<Record<string, Told>> = {
  '2000400': IN_PROGRESS, // accepted
  '2020400': IN_PROGRESS, // in progress
  '4000400': BAD_REQUEST, // bad request
  '4000401': BAD_REQUEST, // field format
  '4000402': BAD_REQUEST, // mandatory field
  '4010400': UNSIGNED, // signature, client or interface
  '4010401': NO_B2B_TOKEN, // invalid or expired; the customer's token stays valid
  '4010402': NO_CUSTOMER_TOKEN, // invalid
  '4010403': NO_B2B_TOKEN, // not found
  '4010404': NO_CUSTOMER_TOKEN, // not found
  '4030400': DECLINED, // transaction expired
  '4030401': MISCONFIGURED, // feature not allowed
  '4030402': DECLINED, // amount limit
  '4030403': DECLINED, // suspected fraud
  '4030404': BLOCKED, // activity count
  '4030405': BLOCKED, // do not honor; seen after the third wrong code
  '4030406': THROTTLED, // feature not allowed at this time
  '4030407': DECLINED, // card blocked
  '4030408': DECLINED, // card expired
  '4030409': DECLINED, // account dormant
  '4030410': DECLINED, // token limit to be set
  '4030411': BLOCKED, // OTP blocked
  '4030412': EXPIRED_CODE, // OTP lifetime; no resend is known
  '4030413': UNEXPECTED, // OTP sent to the card holder
  '4030414': DECLINED, // insufficient funds
  '4030415': DECLINED, // not permitted
  '4030416': DECLINED, // suspended
  '4030417': DECLINED, // token limit exceeded
  '4030418': DECLINED, // inactive
  '4030419': DECLINED, // merchant blacklisted
  '4030420': DECLINED, // merchant limit
  '4030421': DECLINED, // setting a limit not allowed
  '4030422': DECLINED, // token limit invalid
  '4030423': DECLINED, // account limit
  '4040400': PROCESSED_BEFORE, // invalid transaction status: may already be processed
  '4040401': NOT_FOUND, // transaction; only the status call's not-found counts
  '4040402': UNEXPECTED, // routing
  '4040403': UNEXPECTED, // bank not supported
  '4040404': DECLINED, // cancelled by the customer
  '4040405': MISCONFIGURED, // merchant not registered
  '4040406': UNEXPECTED, // an OTP must be requested first
  '4040407': UNEXPECTED, // journey not found
  '4040408': MISCONFIGURED, // merchant
  '4040409': UNEXPECTED, // no issuer
  '4040410': UNEXPECTED, // API transition
  '4040411': MISCONFIGURED, // card, account or customer
  '4040412': UNEXPECTED, // bill
  '4040413': UNEXPECTED, // amount
  '4040414': UNEXPECTED, // bill already paid
  '4040415': WRONG_CODE, // invalid OTP
  '4040416': MISCONFIGURED, // partner
  '4040417': MISCONFIGURED, // terminal
  '4040418': UNEXPECTED, // inconsistent request
  '4040419': UNEXPECTED, // bill expired
  '4050400': MISCONFIGURED, // function not supported
  '4050401': MISCONFIGURED, // operation not allowed
  '4090400': PROCESSED_BEFORE, // X-EXTERNAL-ID used that day, which is the rule here: may repeat a processed call
  '4090401': PROCESSED_BEFORE, // the partner reference already succeeded
  '4290400': THROTTLED, // too many requests
  '5000400': NO_ANSWER, // general error
  '5000401': NO_ANSWER, // internal error; the standard says "retry", which is no advice for a debit
  '5000402': NO_ANSWER, // external server
  '5040400': NO_ANSWER, // issuer timed out
};

export const ayoconnect = defineProvider<Credentials, Options>({
  adapter: 'ayoconnect',
  displayName: 'Ayoconnect',
  effect: 'money',
  credentials,
  options,
  account: ({ clientId, merchantId }) => `${clientId}/${merchantId}`,

  operations: {
    verify: {
      params: verifyParams,
      takesOtp: true,
      reference: ({ originalReferenceNo }) => ({ value: String(originalReferenceNo), personal: false }),
      plainParams: ['originalPartnerReferenceNo', 'originalReferenceNo', 'action', 'externalId'],
      tokensNeedParams: true,
      tokens: (params) => (params?.authCode === undefined ? ['b2bToken'] : ['b2bToken', 'b2b2cToken']),

      buildRequest(context, verification, stamp): HttpRequest {
        const { originalPartnerReferenceNo, originalReferenceNo, action, externalId } = verification.params;
        const { customerAccessToken, additionalInfo = {} } = verification.params;
        const url = `${context.baseUrl}${context.options.paths.verify}`;
        const body = JSON.stringify({
          originalPartnerReferenceNo,
          originalReferenceNo,
          action,
          merchantId: context.credentials.merchantId,
          otp: codeOf(verification),
          additionalInfo,
        });
        return {
          method: 'POST',
          url,
          headers: {
            'Content-Type': 'application/json',
            ...transactionHeaders(context, stamp, url, body, String(externalId)),
            'Authorization-Customer': `Bearer ${customerAccessToken ?? tokenOf(stamp, 'b2b2cToken')}`,
          },
          body,
        };
      },

      interpret(_context, response, reference): Outcome {
        const answer = readExact(snapAnswer, response.body);
        if (answer === null) return undocumented(response);
        const { responseCode, originalReferenceNo } = answer;
        const told = agrees(response, responseCode) ? ANSWERS[responseCode] : undefined;
        if (told === undefined) return undocumented(response, responseCode);
        if (namesAnother(originalReferenceNo, reference)) return undocumented(response, responseCode);
        const wait = told.kind === 'refused' && told.cause === 'throttled' ? retryAfter(response) : {};
        return { ...told, providerCode: responseCode, ...wait } as Outcome;
      },
    },
  },

  inquiry: {
    // Whether an unbinding went through is told by another call; it waits for its callback.
    applies: ({ params }) => params.action !== 'unbinding',
    tokens: ['b2bToken'],

    buildRequest(context, subject, stamp): HttpRequest {
      const url = `${context.baseUrl}${context.options.paths.inquiry}`;
      const body = JSON.stringify({
        merchantId: context.credentials.merchantId,
        serviceCode: '54', // of the payment that is asked about
        originalReferenceNo: subject.reference,
      });
      const headers = transactionHeaders(context, stamp, url, body, String(subject.params.externalId));
      return { method: 'POST', url, headers: { 'Content-Type': 'application/json', ...headers }, body };
    },

    interpret(_context, response, subject): Finding {
      const answer = readExact(snapAnswer, response.body);
      if (answer === null) return nothing(response, false);
      const { responseCode, originalReferenceNo } = answer;
      if (!agrees(response, responseCode) || namesAnother(originalReferenceNo, subject.reference)) {
        return nothing(response, false, responseCode);
      }
      switch (responseCode) {
        case '2005500':
          return interpretStatus(response);
        case '4045501': // transaction not found, the one such answer that counts
          return { kind: 'not_paid', providerCode: responseCode };
        case '4015501':
        case '4015502':
        case '4015503':
        case '4015504':
          return nothing(response, true, responseCode, ['b2bToken']);
        default:
          return nothing(response, isStatusCase(responseCode), responseCode);
      }
    },
  },

  tokens: {
    b2bToken: {
      cacheKey: () => 'b2b',
      buildRequest: (context, _params, stamp) =>
        tokenRequest(context, stamp, context.options.paths.b2bToken, {}, { grantType: 'client_credentials' }),
      interpret: (_context, response) => interpretToken(response),
    },

    b2b2cToken: {
      cacheKey: (params) => sha256Hex(String(params?.authCode)),
      needs: ['b2bToken'],
      buildRequest: (context, params, stamp) =>
        tokenRequest(
          context,
          stamp,
          context.options.paths.b2b2cToken,
          { Authorization: `Bearer ${tokenOf(stamp, 'b2bToken')}` },
          { grantType: 'authorization_code', authCode: params?.authCode },
        ),
      interpret: (_context, response) => interpretToken(response),
    },
  },

  callback: {
    isConfigured: ({ credentials }) => credentials.callbackToken !== undefined,
    authenticate({ credentials }, { headers }) {
      const [, token] = /^Bearer +(.+)$/i.exec(headers.authorization ?? '') ?? [];
      return isSecret(headerBytes(token), credentials.callbackToken?.reveal() ?? '');
    },
    read(_context, body) {
      const named = readExact(callbackBody, body);
      const status = readExact(statusAnswer, body);
      return callbackReading(
        [named?.originalReferenceNo],
        status === null ? null : statusFinding(status, NO_WORD),
        named?.latestTransactionStatus,
      );
    },
    acknowledgement: { responseCode: '2000000', responseMessage: 'Successful' },
  },
});

/** SNAP's time stamp: 25 characters, Jakarta time, whose offset never changes. */
function jakartaTime(now: Date): string {
  return `${new Date(now.getTime() + 7 * 3_600_000).toISOString().slice(0, 19)}+07:00`;
}

function transactionHeaders(
  context: Context<Credentials, Options>,
  stamp: Stamp,
  url: string,
  body: string,
  externalId: string,
): Record<string, string> {
  const { credentials, options } = context;
  const accessToken = tokenOf(stamp, 'b2bToken');
  const timestamp = jakartaTime(stamp.now);
  const path = signedPath(context, url);
  return {
    Authorization: `Bearer ${accessToken}`,
    'X-TIMESTAMP': timestamp,
    'X-SIGNATURE': transactionSignature(credentials.clientSecret, options.signatureEncoding, {
      method: 'POST',
      path,
      accessToken,
      body,
      timestamp,
    }),
    'X-PARTNER-ID': credentials.merchantId,
    'X-EXTERNAL-ID': externalId,
    'CHANNEL-ID': credentials.channelId,
  };
}

/**
 * The path called, unless `signaturePath` says that the gateway checks another one for Verify OTP. Where that is the
 * same path without its beginning, the beginning is taken off the status call's path as well.
 */
function signedPath({ baseUrl, options }: Context<Credentials, Options>, url: string): string {
  const called = pathOf(url);
  if (options.signaturePath === undefined) return called;
  const verify = pathOf(`${baseUrl}${options.paths.verify}`);
  if (called === verify) return options.signaturePath;
  const prefix = verify.endsWith(options.signaturePath) ? verify.slice(0, -options.signaturePath.length) : '';
  return called.startsWith(prefix) ? called.slice(prefix.length) : called;
}

/** SNAP's symmetric signature. `body` is what is sent, which is minified because `JSON.stringify` wrote it. */
export function transactionSignature(
  clientSecret: Secret<string>,
  encoding: SignatureEncoding,
  signed: { method: string; path: string; accessToken: string; body: string; timestamp: string },
): string {
  const { method, path, accessToken, body, timestamp } = signed;
  return hmac('sha512', clientSecret, `${method}:${path}:${accessToken}:${sha256Hex(body)}:${timestamp}`, encoding);
}

function tokenRequest(
  { baseUrl, credentials }: Context<Credentials, Options>,
  stamp: Stamp,
  path: string,
  authorization: Readonly<Record<string, string>>,
  grant: Readonly<Record<string, unknown>>,
): HttpRequest {
  const timestamp = jakartaTime(stamp.now);
  return {
    method: 'POST',
    url: `${baseUrl}${path}`,
    headers: {
      'Content-Type': 'application/json',
      ...authorization,
      'X-TIMESTAMP': timestamp,
      'X-CLIENT-KEY': credentials.clientId,
      'X-SIGNATURE': rsaSha256(credentials.privateKey, `${credentials.clientId}|${timestamp}`),
    },
    // `additionalInfo` is required; that it carries the merchant is inferred from clients of the API's former version.
    body: JSON.stringify({ ...grant, additionalInfo: { merchantId: credentials.merchantId } }),
  };
}

/** A code whose first three digits contradict the HTTP status was not written by whoever answered. */
function agrees(response: HttpResponse, responseCode: string): boolean {
  return responseCode.slice(0, 3) === String(response.status);
}

/** The cases of the SNAP table are the same for every service; 55 is the status call. */
function isStatusCase(responseCode: string): boolean {
  const [, http, caseCode] = /^(\d{3})55(\d\d)$/.exec(responseCode) ?? [];
  return Object.hasOwn(ANSWERS, `${http}04${caseCode}`);
}

function interpretStatus(response: HttpResponse): Finding {
  const answer = readExact(statusAnswer, response.body);
  return answer === null ? nothing(response, false) : statusFinding(answer, httpCode(response));
}

/**
 * The numbers are SNAP's, the words Ayoconnect's; of the numbers, its documents name 06 alone. A word that may not be
 * shown is replaced by `unshown`.
 */
function statusFinding(answer: z.output<typeof statusAnswer>, unshown: string): Finding {
  const status = answer.latestTransactionStatus;
  const providerCode = /^\d\d$/.test(status) ? status : (plainWord(status.replaceAll(' ', '_')) ?? unshown);
  switch (capitals(status)) {
    case '00':
    case 'SUCCESS': {
      const amounts = statusAmounts(answer);
      return amounts === null
        ? { kind: 'nothing', documented: false, providerCode }
        : { kind: 'paid', providerCode, amounts };
    }
    case '06':
    case 'FAILED':
      return { kind: 'not_paid', providerCode };
    case '01': // initiated
    case '02': // paying
    case '03': // pending
    case 'INITIATED':
    case 'PROCESSING':
    case 'TIMEOUT':
    case 'PENDING_USER_VERIFICATION WITH URL':
      return { kind: 'pending', providerCode };
    case 'PENDING_USER_VERIFICATION': // the OTP is still awaited (inferred from the payment flow's page)
      return { kind: 'untouched', providerCode };
    case '04': // refunded
    case '05': // cancelled
    case '07': // not found
      return { kind: 'nothing', documented: true, providerCode };
    default:
      return { kind: 'nothing', documented: false, providerCode };
  }
}

function statusAmounts({ amount, transAmount }: z.output<typeof statusAnswer>): ReportedAmount[] | null {
  const told = [amount, transAmount].map((one) => reportedAmounts([one?.value], one?.currency));
  return told.includes(null) ? null : told.flatMap((amounts) => amounts ?? []);
}

/** Service 74, the customer's token, is asked for with a B2B token: invalid or expired, and not found. */
const B2B_TOKEN_REFUSED: ReadonlySet<string> = new Set(['4017401', '4017403']);

function interpretToken(response: HttpResponse): TokenAnswer {
  const token = response.status === 200 ? readExact(tokenResponse, response.body) : null;
  if (token !== null) {
    return { kind: 'token', token: new Secret(token.accessToken), expiresInMs: token.expiresIn * 1000 };
  }
  const providerCode = readExact(snapAnswer, response.body)?.responseCode;
  if (providerCode === undefined || !agrees(response, providerCode)) {
    return { kind: 'unreadable', providerCode: providerCode ?? httpCode(response) };
  }
  switch (response.status) {
    case 400:
    case 401:
    case 403:
    case 404: {
      const stale = B2B_TOKEN_REFUSED.has(providerCode) ? ({ staleTokens: ['b2bToken'] } as const) : {};
      return { kind: 'refused', cause: 'credentials', providerCode, ...stale };
    }
    case 429:
      return { kind: 'refused', cause: 'throttled', providerCode, ...retryAfter(response) };
    default:
      return { kind: 'unreadable', providerCode };
  }
}
