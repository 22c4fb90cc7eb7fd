/**
 * Hello Clever, mobile-money payins: confirming the OTP of a payin.
 *
 * Documented at https://docs.helloclever.co/api-v2-reference/authorizing-an-otp-transaction/
 * - Sandbox `https://api.cleverhub.co`, production `https://api-merchant.helloclever.co`; `/api` precedes `/v2`.
 * - Static headers `app-id` and `secret-key` on every call, no token.
 * - 200 `{"status":"Ok"}` means that the payer is now asked for the PIN on the phone. It is not a payment.
 * - 400 is documented without a body, 401 with `REQUIRE_LOGIN`. No 429, no 5xx, no attempts, no lifetime of the OTP.
 *
 * The inquiry is https://docs.helloclever.co/api-v2-reference/get-payin-details: `pending` holds before and after an
 * accepted OTP, so it never proves that a code was or was not consumed (inferred: the schema has no stage).
 *
 * Callbacks, https://docs.helloclever.co/webhooks/, https://docs.helloclever.co/guides/webhook and the page on creating
 * a payin:
 * - The URL and the `authorization_header` are given with each payin; the callback repeats the latter as it is in its
 *   `Authorization`. It covers no byte of the body. (Version 3 adds a signature; for these payins none is named.)
 * - Sent for `received` and `return_received` only; repeated until it is answered with 200, and duplicates are possible.
 * - The flat body with `uuid` and `status` is documented for another product and inferred for payins.
 */
import { z } from 'zod';
import { secretText } from '../secret.ts';
import { codeOf, withQuery } from './building.ts';
import { headerText, identifier, path } from './fields.ts';
import { type Context, defineProvider, type Finding, type Outcome } from './provider.ts';
import {
  callbackReading,
  capitals,
  compareDecimals,
  decimal,
  nothing,
  read,
  readExact,
  reportedAmounts,
  undocumented,
  undocumented429,
  wordOr,
} from './reading.ts';
import { headerBytes, isSecret } from './signing.ts';

const credentials = z.strictObject({
  appId: headerText(256),
  secretKey: secretText,
  /** The `authorization_header` given when the payin was created; Hello Clever's callbacks repeat it. */
  callbackSecret: secretText.optional(),
});
type Credentials = z.output<typeof credentials>;

const options = z
  .strictObject({
    /** Believe a 429, which the documents do not know, to have refused the code unread. */
    trust429: z.boolean().default(false),
    paths: z
      .strictObject({
        verify: path('/api/v2/payins/confirm_otp'),
        inquiry: path('/api/v2/payins/detail?uuid='),
      })
      .prefault({}),
  })
  .prefault({});
type Options = z.output<typeof options>;

const verifyParams = z.strictObject({ uuid: identifier });

const confirmation = z.object({ status: z.string() });

const errorEnvelope = z.object({ errors: z.object({ code: z.string() }) });

const detail = z.object({
  uuid: z.string(),
  status: z.string(),
  currency: z.string().nullish().catch(null),
  amount: z.string().nullish(),
  total: z.string().nullish(),
  paid_amount: z.string().nullish(),
});

/** Whatever else a callback says or leaves out, it is about this payin; the inquiry tells the rest. */
const callbackBody = z.object({ uuid: identifier, status: z.string().nullish().catch(null) });

export const helloClever = defineProvider<Credentials, Options>({
  adapter: 'hello-clever',
  displayName: 'Hello Clever',
  effect: 'money',
  credentials,
  options,
  account: ({ appId }) => appId,

  operations: {
    verify: {
      params: verifyParams,
      takesOtp: true,
      reference: ({ uuid }) => ({ value: String(uuid), personal: false }),
      plainParams: ['uuid'],

      buildRequest: (context, verification) => ({
        method: 'POST',
        url: `${context.baseUrl}${context.options.paths.verify}`,
        headers: { ...authentication(context), 'Content-Type': 'application/json' },
        body: JSON.stringify({ uuid: verification.params.uuid, code: codeOf(verification) }),
      }),

      interpret(context, response): Outcome {
        switch (response.status) {
          case 200: // a sibling endpoint writes "ok", so case does not matter
            if (capitals(read(confirmation, response.body)?.status ?? '') !== 'OK') return undocumented(response);
            return { kind: 'accepted', transaction: 'pending', nextStep: 'approve_on_phone', providerCode: 'Ok' };
          case 400: // the status is documented and the body is not: the code was not taken, why is not said
            return {
              kind: 'rejected',
              reason: null,
              transaction: 'pending',
              providerCode: wordOr(response, read(errorEnvelope, response.body)?.errors.code),
            };
          case 401:
            if (!requiresLogin(response.body)) return undocumented(response);
            return {
              kind: 'refused',
              cause: 'credentials',
              remedy: { do: 'none' },
              providerCode: 'REQUIRE_LOGIN',
            };
          case 429:
            return undocumented429(response, context.options.trust429);
          default:
            return undocumented(response);
        }
      },
    },
  },

  inquiry: {
    buildRequest: (context, subject) => ({
      method: 'GET',
      url: `${context.baseUrl}${withQuery(context.options.paths.inquiry, 'uuid', subject.reference)}`,
      headers: authentication(context),
    }),

    interpret(_context, response, subject): Finding {
      if (response.status === 401 && requiresLogin(response.body)) return nothing(response, true, 'REQUIRE_LOGIN');
      const payin = response.status === 200 ? readExact(detail, response.body) : null;
      if (payin === null || payin.uuid !== subject.reference) return nothing(response, false);
      return findingOf(payin) ?? nothing(response, false, wordOr(response, payin.status));
    },
  },

  callback: {
    isConfigured: ({ credentials }) => credentials.callbackSecret !== undefined,
    authenticate: ({ credentials }, { headers }) =>
      isSecret(headerBytes(headers.authorization), credentials.callbackSecret?.reveal() ?? ''),
    read(_context, body) {
      const payin = readExact(detail, body);
      const named = readExact(callbackBody, body);
      return callbackReading([named?.uuid], payin === null ? null : findingOf(payin), named?.status);
    },
  },
});

function authentication({ credentials }: Context<Credentials, Options>): Record<string, string> {
  return { Accept: 'application/json', 'app-id': credentials.appId, 'secret-key': credentials.secretKey.reveal() };
}

function requiresLogin(body: string): boolean {
  return read(errorEnvelope, body)?.errors.code === 'REQUIRE_LOGIN';
}

/** The same words in the answer to an inquiry and in a callback; null for an unlisted one. */
function findingOf(payin: z.output<typeof detail>): Finding | null {
  switch (payin.status) {
    case 'received':
      return received(payin);
    case 'pending':
      return { kind: 'pending', providerCode: payin.status };
    case 'expired':
    case 'return_pending':
    case 'return_received':
    case 'return_expired':
      return { kind: 'not_paid', providerCode: payin.status };
    default: // the list has no word for failure, so an unlisted one is not taken for it
      return null;
  }
}

/** Received in full is paid, received in part is still pending; null where the two amounts cannot be compared. */
function received(payin: z.output<typeof detail>): Finding | null {
  const paid = decimal(payin.paid_amount ?? '');
  const total = decimal(payin.total ?? '');
  const amounts = reportedAmounts([payin.amount, payin.total], payin.currency);
  if (paid === null || total === null || amounts === null) return null;
  if (compareDecimals(paid, total) < 0) return { kind: 'pending', providerCode: payin.status };
  return { kind: 'paid', providerCode: payin.status, amounts };
}
