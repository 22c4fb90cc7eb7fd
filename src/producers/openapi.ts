/**
 * The HTTP intake described in OpenAPI 3.1, made from the schemas that judge the requests: what is described here is
 * what is accepted. Each partition has request bodies of its own, because its parameters are its provider's.
 */
import { z } from 'zod';
import type { Operation } from '../providers/provider.ts';
import { PROBLEMS, type ProblemName, problemType } from './problem.ts';
import { type PartitionProfile, requestSchema } from './request.ts';
import { verificationResourceSchema } from './resource-schema.ts';

export type JsonSchema = Readonly<Record<string, unknown>>;

/** JSON Schema 2020-12 of what is sent (`input`) or answered (`output`). */
export function jsonSchemaOf(schema: z.ZodType, io: 'input' | 'output'): JsonSchema {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' });
  return rest;
}

const JSON_BODY = 'application/json';
const PROBLEM_BODY = 'application/problem+json';
const ref = (name: string): JsonSchema => ({ $ref: `#/components/schemas/${name}` });
const json = (name: string): JsonSchema => ({ [JSON_BODY]: { schema: ref(name) } });

const HEADERS = {
  location: { description: 'Where the verification can be read', schema: { type: 'string' } },
  retryAfter: { description: 'Seconds after which to repeat the request', schema: { type: 'integer', minimum: 1 } },
  preferenceApplied: { description: 'The preference that was understood', schema: { type: 'string' } },
  requestId: { description: 'Names this answer in the log of the service', schema: { type: 'string' } },
} as const;

const IDEMPOTENCY_KEY = {
  name: 'Idempotency-Key',
  in: 'header',
  required: true,
  description:
    'Names the request. The same key with the same body (equal as parsed JSON) gives the first answer again, however often it is sent.',
  schema: { type: 'string', minLength: 1, maxLength: 255, pattern: '^[!-~]+$' },
  example: 'order-A-17-code-1',
};
const PREFER = {
  name: 'Prefer',
  in: 'header',
  description: '`wait=N`, 1 to 30 seconds: the answer comes when there is news, or when the time is over.',
  schema: { type: 'string' },
  example: 'wait=20',
};

/** What a reader is shown in the place of what a generator makes of a pattern. */
const COMMON_EXAMPLES = {
  otp: '012345',
  amount: { value: '100.00', currency: 'NGN' },
  expiresAt: '2026-11-21T20:05:00Z',
  metadata: { orderId: 'A-17' },
} as const;

const VERIFICATION_EXAMPLE = {
  id: 'cepta_019f3c5a7b1e7d3a9c4e5f60718293a4',
  provider: 'cepta',
  operation: 'verify',
  reference: 'TX12345ABC',
  state: 'settled',
  sequence: 1,
  final: true,
  otp: 'rejected',
  transaction: 'pending',
  reason: 'wrong_code',
  nextStep: 'reenter_code',
  attemptsRemaining: 2,
  needsReview: false,
  providerCode: 'INVALID_OTP',
  createdAt: '2026-11-21T20:00:00.000Z',
  updatedAt: '2026-11-21T20:00:01.000Z',
  expiresAt: '2026-11-21T20:05:00.000Z',
  metadata: COMMON_EXAMPLES.metadata,
  history: [{ at: '2026-11-21T20:00:00.000Z', event: 'accepted' }],
} as const;

export function openApi(partitions: readonly PartitionProfile[], version: string): JsonSchema {
  const requests = partitions.flatMap((partition) =>
    (Object.keys(partition.definition.operations) as Operation[]).map((operation) => requestOf(partition, operation)),
  );
  return {
    openapi: '3.1.1',
    info: {
      title: 'otp-pipeline',
      version,
      summary: 'Confirms one-time passwords with payment providers: no code is submitted twice, no outcome is guessed',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/' }],
    security: [{ apiKey: [] }],
    tags: [
      { name: 'verifications', description: 'Put in, and read' },
      { name: 'callbacks', description: 'For the providers' },
      { name: 'description', description: 'What this is' },
    ],
    paths: {
      '/v1/verifications': { post: enqueue(requests.map(({ name }) => name)), get: list() },
      '/v1/verifications/{id}': { get: show() },
      '/v1/callbacks/{partition}': { post: callback(false) },
      '/v1/callbacks/{partition}/{token}': { post: callback(true) },
      '/openapi.json': { get: described('openApiDescription', 'This document') },
      '/asyncapi.json': { get: described('asyncApiDescription', 'Queues, results and webhooks, in AsyncAPI 3') },
    },
    components: {
      securitySchemes: { apiKey: { type: 'http', scheme: 'bearer', description: 'The API key of a client' } },
      schemas: {
        ...Object.fromEntries(requests.map(({ name, schema }) => [name, schema])),
        Verification: { ...jsonSchemaOf(verificationResourceSchema, 'output'), examples: [VERIFICATION_EXAMPLE] },
        VerificationPage: {
          type: 'object',
          required: ['verifications', 'next'],
          properties: {
            verifications: { type: 'array', items: ref('Verification') },
            next: { type: ['string', 'null'], description: 'Give it as `after` for the next page; null on the last' },
          },
        },
        Problem: PROBLEM,
      },
    },
  };
}

const PROBLEM: JsonSchema = {
  description: 'RFC 9457. Programs may compare `type`; no error repeats a value that was sent.',
  type: 'object',
  required: ['type', 'title', 'status', 'detail'],
  properties: {
    type: { type: 'string', enum: (Object.keys(PROBLEMS) as ProblemName[]).map(problemType) },
    title: { type: 'string' },
    status: { type: 'integer' },
    detail: { type: 'string' },
    errors: {
      type: 'array',
      items: {
        type: 'object',
        required: ['field', 'problem'],
        properties: { field: { type: 'string' }, problem: { type: 'string' } },
      },
    },
  },
};

/** The common fields, with this partition's own parameters in the place of any. */
function requestOf(
  { name, definition }: PartitionProfile,
  operation: Operation,
): { readonly name: string; readonly schema: JsonSchema } {
  const spec = definition.operations[operation];
  if (!spec) throw new Error(`${name} has no operation ${operation}`);
  const base = jsonSchemaOf(requestSchema, 'input') as { properties: Record<string, unknown> };
  const { otp, ...properties } = Object.fromEntries(
    Object.entries(base.properties).map(([field, shape]) => {
      const example = COMMON_EXAMPLES[field as keyof typeof COMMON_EXAMPLES];
      return [field, example === undefined ? shape : { ...(shape as JsonSchema), examples: [example] }];
    }),
  );
  return {
    name: `${pascal(name)}${pascal(operation)}`,
    schema: {
      ...base,
      properties: {
        ...properties,
        provider: { const: name },
        operation: operation === 'verify' ? { const: operation, default: operation } : { const: operation },
        ...(spec.takesOtp ? { otp } : {}),
        params: jsonSchemaOf(spec.params, 'input'),
      },
      required: [
        'provider',
        ...(operation === 'verify' ? [] : ['operation']),
        ...(spec.takesOtp ? ['otp'] : []),
        'params',
      ],
    },
  };
}

function enqueue(requests: readonly string[]): JsonSchema {
  return {
    operationId: 'enqueueVerification',
    tags: ['verifications'],
    summary: 'Enqueues one verification',
    parameters: [IDEMPOTENCY_KEY, PREFER],
    requestBody: { required: true, content: { [JSON_BODY]: { schema: { anyOf: requests.map(ref) } } } },
    responses: {
      200: {
        description: 'With `Prefer: wait`: the verification, final or awaiting its proof',
        headers: headers('location', 'preferenceApplied'),
        content: json('Verification'),
      },
      202: {
        description: 'The verification as it was accepted',
        headers: headers('location', 'preferenceApplied'),
        content: json('Verification'),
      },
      ...problems(400, 401, 403, 408, 409, 410, 413, 415, 422, 429, 431, 500, 503),
    },
  };
}

function show(): JsonSchema {
  return {
    operationId: 'readVerification',
    tags: ['verifications'],
    summary: 'One verification, as it stands or when it has news',
    parameters: [
      { name: 'id', in: 'path', required: true, schema: { type: 'string' } },
      {
        name: 'after',
        in: 'query',
        description: 'With `Prefer: wait`: news is any revision after this sequence',
        schema: { type: 'integer', minimum: 0 },
      },
      PREFER,
    ],
    responses: {
      200: {
        description: 'The verification',
        headers: headers('preferenceApplied'),
        content: json('Verification'),
      },
      ...problems(400, 401, 404, 429, 500, 503),
    },
  };
}

function list(): JsonSchema {
  return {
    operationId: 'listVerifications',
    tags: ['verifications'],
    summary: "The client's verifications of one provider transaction, oldest first",
    parameters: [
      { name: 'provider', in: 'query', required: true, description: 'The partition', schema: { type: 'string' } },
      {
        name: 'reference',
        in: 'query',
        required: true,
        description: "The provider's own reference; where that is a person, the parameter that names them",
        schema: { type: 'string' },
      },
      { name: 'after', in: 'query', description: 'The `next` of the page before', schema: { type: 'string' } },
    ],
    responses: {
      200: { description: 'Up to 50 of them', headers: headers(), content: json('VerificationPage') },
      ...problems(400, 401, 403, 429, 500, 503),
    },
  };
}

function callback(withToken: boolean): JsonSchema {
  const partition = { name: 'partition', in: 'path', required: true, schema: { type: 'string' } };
  const token = { name: 'token', in: 'path', required: true, schema: { type: 'string' } };
  return {
    operationId: withToken ? 'receiveCallbackWithToken' : 'receiveCallback',
    tags: ['callbacks'],
    summary: 'Where a provider reports; authenticated as that provider does it, and stored before it is answered',
    security: [],
    parameters: withToken ? [partition, token] : [partition],
    requestBody: { required: true, content: { [JSON_BODY]: { schema: {} } } },
    responses: {
      200: {
        description: 'Stored; the body is what this provider wants to hear',
        content: { [JSON_BODY]: { schema: {} } },
      },
      ...problems(401, 404, 408, 413, 415, 500, 503),
    },
  };
}

function described(operationId: string, description: string): JsonSchema {
  return {
    operationId,
    tags: ['description'],
    summary: description,
    security: [],
    responses: {
      200: { description, content: { [JSON_BODY]: { schema: { type: 'object' } } } },
      ...problems(405),
    },
  };
}

/** Each status with the names that its `type` may end in. */
function problems(...statuses: readonly number[]): JsonSchema {
  return Object.fromEntries(
    statuses.map((status) => {
      const named = Object.entries(PROBLEMS).filter(([, one]) => one.status === status);
      const description = named.map(([name, { title }]) => `\`${name}\`: ${title}`).join('; ');
      const waits = status === 409 || status === 429 || status === 503;
      return [
        status,
        {
          description,
          headers: waits ? headers('retryAfter') : headers(),
          content: { [PROBLEM_BODY]: { schema: ref('Problem') } },
        },
      ];
    }),
  );
}

function headers(...names: readonly (keyof typeof HEADERS)[]): JsonSchema {
  const called = {
    location: 'Location',
    retryAfter: 'Retry-After',
    preferenceApplied: 'Preference-Applied',
    requestId: 'X-Request-Id',
  } as const;
  return Object.fromEntries([...names, 'requestId' as const].map((name) => [called[name], HEADERS[name]]));
}

/** No two partitions become one name: a dash stays where no letter follows. */
function pascal(name: string): string {
  return name.replace(/(?:^|-)([a-z])/g, (_, first: string) => first.toUpperCase());
}
