/**
 * The vocabulary of the far side. A provider is a set of pure functions: what to ask for, how the request is built,
 * what an answer proves. Nothing here waits, retries, stores or reads a clock; the stamp brings the time and the tokens.
 */
import type { z } from 'zod';
import type { Secret } from '../secret.ts';

export const OPERATIONS = ['verify', 'send'] as const;
export type Operation = (typeof OPERATIONS)[number];

/** Every kind of HTTP call a provider may need; also the `call` label of the metrics. */
export const CALLS = ['verify', 'send', 'inquiry', 'token', 'b2bToken', 'b2b2cToken'] as const;
export type Call = (typeof CALLS)[number];
export type TokenCall = Extract<Call, 'token' | 'b2bToken' | 'b2b2cToken'>;

export const REASONS = [
  'wrong_code',
  'code_expired',
  'already_used',
  'too_many_attempts',
  'unknown_reference',
  'declined',
  'deadline_passed',
  'provider_unavailable',
  'misconfigured',
  'attempt_in_flight',
  'budget_spent',
  'no_answer',
  'unexpected_answer',
  'amount_mismatch',
] as const;
export type Reason = (typeof REASONS)[number];

export const NEXT_STEPS = [
  'none',
  'reenter_code',
  'request_new_code',
  'approve_on_phone',
  'new_transaction',
  'wait',
  'contact_support',
] as const;
export type NextStep = (typeof NEXT_STEPS)[number];

/** `value` is a decimal string in units of `currency` (`"100.00"`), never a float; `currency` an ISO 4217 code. */
export interface Amount {
  readonly value: string;
  readonly currency: string;
}

/** An amount as a provider reports it; not all say the currency. */
export interface ReportedAmount {
  readonly value: string;
  readonly currency?: string;
}

/** Any operation's parameters, by the provider's own field names. */
export type Params = Readonly<Record<string, unknown>>;

/** What a provider may know of one verification. `params` have passed the operation's schema. */
export interface Verification<P = Params> {
  readonly id: string;
  readonly operation: Operation;
  readonly reference: string;
  /** Null for an operation that takes no code. */
  readonly otp: Secret<string> | null;
  readonly params: P;
}

/** What is left of a verification for an inquiry, when its sealed code has been destroyed. */
export interface InquirySubject {
  readonly reference: string;
  /** The `plainParams` of the operation: identifiers, never a customer's data. */
  readonly params: Params;
}

/** `url` is absolute. `body` is sent byte for byte as it stands (UTF-8). It holds secrets: never log or store one. */
export interface HttpRequest {
  readonly method: 'GET' | 'POST';
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** Header names are lower-cased. `body` is the whole body as UTF-8 text. */
export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** All that this very call needs and a pure function may not fetch. */
export interface Stamp {
  readonly now: Date;
  /** Random, unique per call, 32 characters of [0-9a-f]. */
  readonly nonce: string;
  readonly tokens: Readonly<Partial<Record<TokenCall, Secret<string>>>>;
}

/** What a documented refusal before the business layer needs before one further submission makes sense. */
export type Remedy =
  | { readonly do: 'new_token'; readonly tokens: readonly TokenCall[] }
  /** Sign again with a fresh time. */
  | { readonly do: 'new_stamp' }
  | { readonly do: 'wait' }
  /** Nothing that a further submission could mend. */
  | { readonly do: 'none' };

/**
 * What an answer to a submission proves. Only an explicit yes is `accepted`, only an explicit no is `rejected`,
 * only a documented answer from before the business layer is `refused`; everything else is `unknown`.
 * `providerCode` is the provider's own word, as short as possible, never text that may hold a customer's data.
 */
export type Outcome =
  | {
      readonly kind: 'accepted';
      /** `succeeded`: this answer is itself the proof of payment. `none`: the operation moves no money. */
      readonly transaction: 'succeeded' | 'pending' | 'none';
      readonly nextStep?: NextStep;
      readonly providerCode: string;
      /** What the provider says was paid; one equal entry is enough. Empty or absent: not reported. */
      readonly amounts?: readonly ReportedAmount[];
      /** Other identifiers of the same transaction, by which a callback may name it. */
      readonly identifiers?: readonly string[];
      /** For the client's eyes only; sealed before it is stored. */
      readonly details?: Readonly<Record<string, unknown>>;
      readonly attemptsRemaining?: number;
    }
  | {
      readonly kind: 'rejected';
      readonly reason: Reason | null;
      /** `failed`: the provider takes no further code for this transaction. */
      readonly transaction: 'pending' | 'failed' | 'none';
      readonly nextStep?: NextStep;
      readonly providerCode: string;
      readonly attemptsRemaining?: number;
      readonly identifiers?: readonly string[];
    }
  | {
      readonly kind: 'refused';
      /** `throttled` slows the whole partition; `credentials` is ours to mend; `request`: refused at validation. */
      readonly cause: 'credentials' | 'throttled' | 'request';
      readonly remedy: Remedy;
      readonly providerCode: string;
      readonly retryAfterMs?: number;
    }
  | {
      readonly kind: 'unknown';
      /** A documented answer may name its reason although it proves nothing; else `unexpected_answer`. */
      readonly reason: Reason;
      /** False: the provider's documents do not know this answer. Counted, and looked at by a person. */
      readonly documented: boolean;
      readonly providerCode: string | null;
      /** Slows the whole partition although the answer proves nothing (an undocumented 429). */
      readonly slowDownMs?: number;
    };

/** What an answer to an inquiry proves about the money. */
export type Finding =
  | {
      readonly kind: 'paid';
      readonly providerCode: string;
      readonly amounts?: readonly ReportedAmount[];
      readonly details?: Readonly<Record<string, unknown>>;
    }
  | { readonly kind: 'not_paid'; readonly providerCode: string; readonly amounts?: readonly ReportedAmount[] }
  /** Proof that the code was not consumed: the provider still waits for one. */
  | { readonly kind: 'untouched'; readonly providerCode: string }
  | { readonly kind: 'pending'; readonly providerCode: string }
  /** Proves nothing: unreadable, an error, another transaction's answer. Ask again later. */
  | {
      readonly kind: 'nothing';
      readonly documented: boolean;
      readonly providerCode: string | null;
      readonly slowDownMs?: number;
      /** Drop these tokens before asking again. */
      readonly staleTokens?: readonly TokenCall[];
    };

export type TokenAnswer =
  | { readonly kind: 'token'; readonly token: Secret<string>; readonly expiresInMs: number }
  | {
      readonly kind: 'refused';
      readonly cause: 'credentials' | 'throttled';
      readonly providerCode: string;
      readonly retryAfterMs?: number;
      /** The request was made with these tokens, and they are no longer good: with new ones it is made once more. */
      readonly staleTokens?: readonly TokenCall[];
    }
  | { readonly kind: 'unreadable'; readonly providerCode: string | null };

/** The partition's side of a provider: where it is, who we are there, and its switches. */
export interface Context<Credentials, Options> {
  readonly baseUrl: string;
  readonly credentials: Credentials;
  readonly options: Options;
}

export interface OperationSpec<Credentials, Options, P extends Params> {
  /** A strict object of the provider's own documented field names, without the code. */
  readonly params: z.ZodType<P>;
  readonly takesOtp: boolean;
  /** The provider's transaction. `personal` values (a phone, an id number) are only ever kept as a keyed hash. */
  reference(params: P): { readonly value: string; readonly personal: boolean };
  /** Names of params that are identifiers and stay readable, because the inquiry needs them when the code is gone. */
  readonly plainParams: readonly (keyof P & string)[];
  /** True when the tokens depend on sealed params (a token per customer). */
  readonly tokensNeedParams?: boolean;
  /** Tokens to have ready before the call, in the order in which they must be asked for. */
  tokens?(params: P | null): readonly TokenCall[];
  buildRequest(context: Context<Credentials, Options>, verification: Verification<P>, stamp: Stamp): HttpRequest;
  /** `reference` is the transaction asked about. Must not throw, whatever the response. */
  interpret(context: Context<Credentials, Options>, response: HttpResponse, reference: string): Outcome;
}

export interface InquirySpec<Credentials, Options> {
  /** False where this subject has no inquiry (Ayoconnect's unbinding): it waits for a callback or a person. */
  applies?(subject: InquirySubject): boolean;
  readonly tokens?: readonly TokenCall[];
  buildRequest(context: Context<Credentials, Options>, subject: InquirySubject, stamp: Stamp): HttpRequest;
  interpret(context: Context<Credentials, Options>, response: HttpResponse, subject: InquirySubject): Finding;
}

export interface TokenSpec<Credentials, Options> {
  /** Tokens with the same key are the same token. Never a secret: hash what is one. */
  cacheKey(params: Params | null): string;
  /** Calls whose tokens this request needs in its stamp. */
  readonly needs?: readonly TokenCall[];
  buildRequest(context: Context<Credentials, Options>, params: Params | null, stamp: Stamp): HttpRequest;
  interpret(context: Context<Credentials, Options>, response: HttpResponse): TokenAnswer;
}

/** A callback as it arrived, before anything of it was believed or parsed. */
export interface CallbackRequest {
  /** Names are lower-cased. Values as Node reads them: one character a byte. */
  readonly headers: Readonly<Record<string, string>>;
  /** The last part of the path, decoded; null where there is none. */
  readonly pathToken: string | null;
  readonly rawBody: Buffer;
}

export interface CallbackReading {
  /** By which our verification may be found, best first: its reference, or an identifier seen in an earlier answer. */
  readonly references: readonly string[];
  readonly finding: Finding;
  /** The provider's own word, or ours where it used none that may be shown. */
  readonly providerCode: string;
}

/** How a provider reports by itself. Whatever it reports is a hint wherever an inquiry can be made instead. */
export interface CallbackSpec<Credentials, Options> {
  /** False while a credential is missing with which callbacks could be told from forgeries: then none is taken. */
  isConfigured(context: Context<Credentials, Options>): boolean;
  /** Must not throw, and must take the same time for every wrong secret. */
  authenticate(context: Context<Credentials, Options>, request: CallbackRequest): boolean;
  /** Null where no transaction is named or the body cannot be read. Must not throw, whatever the body. */
  read(context: Context<Credentials, Options>, body: string): CallbackReading | null;
  /** The body of our 200, as the provider wants it; `{}` without it. */
  readonly acknowledgement?: Readonly<Record<string, unknown>>;
}

export interface ProviderSpec<Credentials, Options> {
  readonly adapter: string;
  readonly displayName: string;
  /** `none`: no operation of this provider moves money, so there is nothing to prove after a lost answer. */
  readonly effect: 'money' | 'none';
  readonly credentials: z.ZodType<Credentials>;
  readonly options: z.ZodType<Options>;
  /** Who we are there, in public words: two partitions must not share adapter, baseUrl and account. */
  account(credentials: Credentials): string;
  /** What one schema cannot see: a fault between credentials and options, naming the key to change; null if none. */
  check?(context: Context<Credentials, Options>): string | null;
  readonly operations: {
    readonly verify: OperationSpec<Credentials, Options, Params>;
    readonly send?: OperationSpec<Credentials, Options, Params>;
  };
  readonly inquiry?: InquirySpec<Credentials, Options>;
  readonly tokens?: Partial<Record<TokenCall, TokenSpec<Credentials, Options>>>;
  readonly callback?: CallbackSpec<Credentials, Options>;
}

export interface BoundOperation {
  readonly params: z.ZodType<Params>;
  readonly takesOtp: boolean;
  readonly plainParams: readonly string[];
  readonly tokensNeedParams: boolean;
  reference(params: Params): { readonly value: string; readonly personal: boolean };
  tokens(params: Params | null): readonly TokenCall[];
  buildRequest(verification: Verification, stamp: Stamp): HttpRequest;
  interpret(response: HttpResponse, reference: string): Outcome;
}

export interface BoundInquiry {
  readonly tokens: readonly TokenCall[];
  applies(subject: InquirySubject): boolean;
  buildRequest(subject: InquirySubject, stamp: Stamp): HttpRequest;
  interpret(response: HttpResponse, subject: InquirySubject): Finding;
}

export interface BoundToken {
  readonly needs: readonly TokenCall[];
  cacheKey(params: Params | null): string;
  buildRequest(params: Params | null, stamp: Stamp): HttpRequest;
  interpret(response: HttpResponse): TokenAnswer;
}

export interface BoundCallback {
  authenticate(request: CallbackRequest): boolean;
  read(body: string): CallbackReading | null;
  readonly acknowledgement: Readonly<Record<string, unknown>>;
}

/** A provider with its credentials closed over: workers never see one. */
export interface BoundProvider {
  readonly adapter: string;
  readonly displayName: string;
  readonly effect: 'money' | 'none';
  readonly operations: Readonly<Partial<Record<Operation, BoundOperation>>>;
  readonly inquiry: BoundInquiry | null;
  readonly tokens: Readonly<Partial<Record<TokenCall, BoundToken>>>;
  /** Null where the provider sends none, or where the configuration has nothing with which to tell a forged one. */
  readonly callback: BoundCallback | null;
}

/** One entry of the registry: the schemas for the configuration, and `bind` for whatever has passed them. */
export interface Provider {
  readonly adapter: string;
  readonly displayName: string;
  readonly effect: 'money' | 'none';
  readonly credentials: z.ZodType;
  readonly options: z.ZodType;
  /** What a producer needs to know; no credentials are involved. */
  readonly operations: Readonly<
    Partial<Record<Operation, Pick<BoundOperation, 'params' | 'takesOtp' | 'plainParams' | 'reference'>>>
  >;
  /** `credentials` must have passed the provider's own schema. */
  account(credentials: unknown): string;
  /**
   * `credentials` and `options` must have passed the provider's own schemas. `baseUrl` has no trailing slash.
   * Throws where they contradict each other; the message names the key to change and no value.
   */
  bind(context: Context<unknown, unknown>): BoundProvider;
}

/** Closes over the types of one provider, so that the registry is a list of one type. */
export function defineProvider<Credentials, Options>(spec: ProviderSpec<Credentials, Options>): Provider {
  const operations = Object.entries(spec.operations) as [Operation, OperationSpec<Credentials, Options, Params>][];
  const tokens = Object.entries(spec.tokens ?? {}) as [TokenCall, TokenSpec<Credentials, Options>][];
  return {
    adapter: spec.adapter,
    displayName: spec.displayName,
    effect: spec.effect,
    credentials: spec.credentials,
    options: spec.options,
    operations: spec.operations,
    account: (credentials) => spec.account(credentials as Credentials),
    bind(given) {
      const context = { ...given, baseUrl: given.baseUrl.replace(/\/+$/, '') } as Context<Credentials, Options>;
      const fault = spec.check?.(context) ?? null;
      if (fault !== null) throw new Error(`${spec.adapter}: ${fault}`);
      const { inquiry, callback } = spec;
      return {
        adapter: spec.adapter,
        displayName: spec.displayName,
        effect: spec.effect,
        operations: Object.fromEntries(
          operations.map(([name, operation]) => [name, bindOperation(operation, context)]),
        ),
        inquiry: inquiry
          ? {
              tokens: inquiry.tokens ?? [],
              applies: (subject) => inquiry.applies?.(subject) ?? true,
              buildRequest: (subject, stamp) => inquiry.buildRequest(context, subject, stamp),
              interpret: (response, subject) => inquiry.interpret(context, response, subject),
            }
          : null,
        tokens: Object.fromEntries(tokens.map(([call, token]) => [call, bindToken(token, context)])),
        callback: callback?.isConfigured(context)
          ? {
              authenticate: (request) => callback.authenticate(context, request),
              read: (body) => callback.read(context, body),
              acknowledgement: callback.acknowledgement ?? {},
            }
          : null,
      };
    },
  };
}

function bindOperation<Credentials, Options>(
  operation: OperationSpec<Credentials, Options, Params>,
  context: Context<Credentials, Options>,
): BoundOperation {
  return {
    params: operation.params,
    takesOtp: operation.takesOtp,
    plainParams: operation.plainParams,
    tokensNeedParams: operation.tokensNeedParams ?? false,
    reference: (params) => operation.reference(params),
    tokens: (params) => operation.tokens?.(params) ?? [],
    buildRequest: (verification, stamp) => operation.buildRequest(context, verification, stamp),
    interpret: (response, reference) => operation.interpret(context, response, reference),
  };
}

function bindToken<Credentials, Options>(
  token: TokenSpec<Credentials, Options>,
  context: Context<Credentials, Options>,
): BoundToken {
  return {
    needs: token.needs ?? [],
    cacheKey: (params) => token.cacheKey(params),
    buildRequest: (params, stamp) => token.buildRequest(context, params, stamp),
    interpret: (response) => token.interpret(context, response),
  };
}
