/** Bodies of requests: whatever is taken for a request is one, every fault is named, and no fault repeats what came. */
import fc from 'fast-check';
import { InvalidRequestError, type PartitionProfile, parseRequest } from '../../../src/producers/request.ts';
import { providers } from '../../../src/providers/index.ts';
import { mutatedJson, words } from '../mutate.ts';
import { isRequest, PARTITIONS } from '../oracles/requests.ts';
import { demand, demandNoLeak, printed, type Target } from '../target.ts';

/** As a customer might type it; must not come back from where something was wrong. */
export const OTP_CANARY = 'C4n4ry77';
/** Too long for a code, wherever it is put. */
export const TEXT_CANARY = 'c4n4ry-of-the-customer-0815';

/** JSON, so that everything is kept as it came: an own `__proto__`, any depth, halves of characters. */
interface RequestCase {
  readonly text: string;
}

export interface RequestSubject {
  parseRequest: typeof parseRequest;
}

export const PROFILES: ReadonlyMap<string, PartitionProfile> = new Map(
  Object.keys(PARTITIONS).map((name) => {
    const definition = providers[name];
    if (!definition) throw new Error(`no adapter ${name}`);
    return [name, { name, definition, otpLifetimeMs: 300_000 }];
  }),
);

const REF = '0123456789abcdef0123456789ABCDEF';
const AYOCONNECT = { originalPartnerReferenceNo: REF, originalReferenceNo: REF, externalId: REF };

/** Good ones: of every provider, with everything that a request may have. */
export const REQUESTS: readonly Record<string, unknown>[] = [
  { provider: 'hello-clever', otp: OTP_CANARY, params: { uuid: 'APU221YS' } },
  {
    provider: 'lipa-later',
    otp: OTP_CANARY,
    params: { id_number: '28374650', item_value: '8000.50', phone_number: '+254712000111' },
  },
  { provider: 'lipa-later', operation: 'send', params: { id_number: '28374650', phone_number: '254712000111' } },
  {
    provider: 'lipa-later',
    operation: 'send',
    params: {
      ...{ id_number: '28374650', phone_number: '254712000111', first_name: 'Wanjikũ', last_name: 'O’Brien' },
      ...{ country_code: 'KE', date_of_birth: '11/08/1990' },
    },
  },
  { provider: 'ayoconnect', otp: OTP_CANARY, params: { ...AYOCONNECT, action: 'payment', authCode: REF } },
  {
    provider: 'ayoconnect',
    otp: OTP_CANARY,
    params: {
      ...AYOCONNECT,
      action: 'unbinding',
      customerAccessToken: 'token.of.a.customer',
      additionalInfo: { a: [1, { b: null }] },
    },
  },
  {
    provider: 'beqelal',
    otp: '0123',
    params: { reference: 'BQ7T2M9K1X' },
    amount: { value: '100.00', currency: 'ETB' },
  },
  {
    ...{ provider: 'cepta', operation: 'verify', otp: OTP_CANARY, amount: { value: '5000', currency: 'NGN' } },
    params: { transactionRef: 'TX12345ABC', paymentId: 'PAY12345XYZ', md: 'merchant_data' },
    ...{
      expiresAt: '2026-11-21T20:05:00Z',
      metadata: { orderId: 'A-17', note: 'größe', tags: ['a', 1, null, { deep: true }] },
    },
  },
  {
    provider: 'cepta',
    otp: 'abcd',
    params: { transactionRef: 'TX12345ABC', paymentId: null },
    expiresAt: '2026-11-21T22:05:00+02:00',
  },
];

const TOKENS: readonly string[] = [
  ...Object.keys(PARTITIONS).map((name) => JSON.stringify(name)),
  ...words('"verify" "send" "inquiry" "ETB" "etb" "100.00" 100 "1e2" "-1" ".5" "0012" 123456'),
  ...[
    '"123"',
    '"1234"',
    '"1234567890"',
    '"12345678901"',
    '"12 34"',
    '"payment"',
    '"unbinding"',
    '"+254712000111"',
    '"0712"',
  ],
  ...[
    '"2026-11-21T20:05:00"',
    '"2026-11-21 20:05:00Z"',
    '"2026-11-21T24:00:00Z"',
    '"20261121T200500Z"',
    '"2026-11-21T20:05Z"',
    '1795291200000',
  ],
  ...[
    '"2024-02-29T23:59:59.5-12:00"',
    '"2023-02-29T00:00:00Z"',
    '"2026-11-21T20:05:60Z"',
    `"${REF}"`,
    `"${'ü'.repeat(4_000)}"`,
  ],
];

export const requestTexts: fc.Arbitrary<string> = mutatedJson(
  REQUESTS.map((request) => JSON.stringify(request)),
  {
    tokens: TOKENS,
    names: [
      'otp',
      'code',
      'params',
      'uuid',
      'reference',
      'amount',
      'metadata',
      'provider',
      'operation',
      'expiresAt',
      'authCode',
    ],
    canaries: [OTP_CANARY, TEXT_CANARY],
  },
);

export function intakeRequests(subject: RequestSubject = { parseRequest }): Target<RequestCase> {
  return {
    name: 'intake-requests',
    batch: 1_000,
    cases: fc
      .oneof({ weight: 9, arbitrary: requestTexts }, { weight: 1, arbitrary: fc.json() })
      .map((text) => ({ text: isJson(text) ? text : JSON.stringify(text) })),
    check({ text }) {
      const body: unknown = JSON.parse(text);
      const valid = isRequest(body);
      try {
        const request = subject.parseRequest(body, PROFILES);
        demand(valid, 'taken for a request, and it is none');
        demandSameMetadata(body, request.metadata);
        demandNoLeak('a parsed request', printed({ ...request, params: null, metadata: null, partition: null }), [
          OTP_CANARY,
        ]);
        return 'a request';
      } catch (error) {
        if (!(error instanceof InvalidRequestError)) throw error;
        demand(!valid, `a good request was refused: ${error.message}`);
        demand(error.faults.length > 0, 'refused without a fault');
        for (const { field, problem } of error.faults) {
          demand(typeof field === 'string' && field !== '' && field.length < 400, 'a fault names no field');
          demand(typeof problem === 'string' && problem !== '', 'a fault says nothing');
        }
        demandNoLeak('the refusal', printed(error), [OTP_CANARY, TEXT_CANARY]);
        return 'refused';
      }
    },
  };
}

/** It is the client's own and is handed back: nothing of it is lost on the way in. */
function demandSameMetadata(body: unknown, metadata: unknown): void {
  const given = (body as { metadata?: unknown }).metadata ?? {};
  demand(JSON.stringify(metadata) === JSON.stringify(given), 'the metadata is not what was given');
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
