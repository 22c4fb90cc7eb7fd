/** A provider's fixture: what it must say and what it must make of each answer, each with where that is known from. */
import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import {
  type BoundProvider,
  CALLS,
  type Call,
  type Finding,
  type HttpRequest,
  type HttpResponse,
  OPERATIONS,
  type Outcome,
  type Params,
  type Provider,
  type Stamp,
  type TokenCall,
  type Verification,
} from '../../src/providers/provider.ts';
import { Secret } from '../../src/secret.ts';

/** What every provider's fixture must show. */
export const SCENARIOS = ['accepted', 'refused code', 'throttled', 'server error', 'garbled', 'undocumented'] as const;

/** `json` is written out as the body; `body` is for what is no JSON, or whose exact bytes matter. */
const response = z
  .strictObject({
    status: z.number(),
    headers: z.record(z.string(), z.string()).default({}),
    body: z.string().optional(),
    json: z.unknown().optional(),
  })
  .transform(
    ({ status, headers, body, json }): HttpResponse => ({ status, headers, body: body ?? JSON.stringify(json) }),
  );

const source = z.string().regex(/^(documented|inferred|made up|recorded|OAuth)/);
const options = z.record(z.string(), z.unknown()).default({});
const subject = z.strictObject({ reference: z.string(), params: z.record(z.string(), z.unknown()) });

const fixture = z.strictObject({
  baseUrl: z.string(),
  /** Invented for these tests. */
  credentials: z.record(z.string(), z.string()),
  account: z.string(),
  options,
  stamp: z.strictObject({ now: z.string(), nonce: z.string(), tokens: z.partialRecord(z.enum(CALLS), z.string()) }),
  requests: z.array(
    z.strictObject({
      name: z.string(),
      call: z.enum(CALLS),
      source,
      /** The header that carries a signature over the body. */
      signature: z.string().optional(),
      baseUrl: z.string().optional(),
      options,
      params: z.record(z.string(), z.unknown()).nullish(),
      otp: z.string().optional(),
      reference: z.strictObject({ value: z.string(), personal: z.boolean() }).optional(),
      tokens: z.array(z.string()).optional(),
      cacheKey: z.string().optional(),
      subject: subject.optional(),
      expect: z.strictObject({
        method: z.string(),
        url: z.string(),
        headers: z.record(z.string(), z.string()),
        body: z.string().optional(),
      }),
    }),
  ),
  responses: z.array(
    z.strictObject({
      name: z.string(),
      scenario: z.enum(SCENARIOS).optional(),
      source,
      operation: z.enum(OPERATIONS),
      options,
      /** The body is not documented and is not asked: only the status counts. */
      anyBody: z.literal(true).optional(),
      response,
      outcome: z.record(z.string(), z.unknown()).transform((outcome) => outcome as unknown as Outcome),
    }),
  ),
  inquiries: z.array(
    z.strictObject({
      name: z.string(),
      source,
      options,
      subject: subject.optional(),
      response,
      finding: z.record(z.string(), z.unknown()).transform((finding) => finding as unknown as Finding),
    }),
  ),
  tokenAnswers: z.array(
    z.strictObject({
      name: z.string(),
      call: z.enum(CALLS),
      source,
      response,
      answer: z.record(z.string(), z.unknown()),
    }),
  ),
});
export type Fixture = z.output<typeof fixture>;
export type RequestCase = Fixture['requests'][number];

export function loadFixture(adapter: string): Fixture {
  const file = new URL(`./${adapter}.fixture.json`, import.meta.url);
  if (!existsSync(file)) throw new Error(`${adapter} is registered and has no test/providers/${adapter}.fixture.json`);
  return fixture.parse(JSON.parse(readFileSync(file, 'utf8')));
}

export function bind(
  provider: Provider,
  given: Pick<Fixture, 'baseUrl' | 'credentials' | 'options'>,
  changed: { baseUrl?: string | undefined; options?: Readonly<Record<string, unknown>> } = {},
): BoundProvider {
  return provider.bind({
    baseUrl: changed.baseUrl ?? given.baseUrl,
    credentials: provider.credentials.parse(given.credentials),
    options: provider.options.parse({ ...given.options, ...changed.options }),
  });
}

export function stampOf({ stamp }: Pick<Fixture, 'stamp'>): Stamp {
  const tokens = Object.entries(stamp.tokens).map(([call, token]) => [call, new Secret(token)]);
  return { now: new Date(stamp.now), nonce: stamp.nonce, tokens: Object.fromEntries(tokens) };
}

/** The request that a case is about; params go through the operation's schema, as they would in earnest. */
export function build(bound: BoundProvider, given: RequestCase, stamp: Stamp): HttpRequest {
  switch (given.call) {
    case 'verify':
    case 'send': {
      const operation = bound.operations[given.call];
      if (operation === undefined) throw new Error(`${bound.adapter} has no ${given.call}`);
      const params = operation.params.parse(given.params);
      return operation.buildRequest(verification(given.call, params, given.otp, given.reference?.value), stamp);
    }
    case 'inquiry':
      if (bound.inquiry === null || given.subject === undefined) throw new Error(`${bound.adapter} has no inquiry`);
      return bound.inquiry.buildRequest(given.subject, stamp);
    case 'token':
    case 'b2bToken':
    case 'b2b2cToken':
      return tokenOf(bound, given.call).buildRequest(given.params ?? null, stamp);
    default:
      return given.call satisfies never;
  }
}

export function tokenOf(bound: BoundProvider, call: Call) {
  const token = bound.tokens[call as TokenCall];
  if (token === undefined) throw new Error(`${bound.adapter} has no ${call}`);
  return token;
}

function verification(operation: 'verify' | 'send', params: Params, otp = '', reference = ''): Verification {
  return { id: 'example_1', operation, reference, otp: otp === '' ? null : new Secret(otp), params };
}
