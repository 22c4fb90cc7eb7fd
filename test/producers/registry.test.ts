import { describe, expect, it } from 'vitest';
import { InvalidRequestError, type PartitionProfile, parseRequest } from '../../src/producers/request.ts';
import { providers } from '../../src/providers/index.ts';
import { loadFixture } from '../providers/fixture.ts';

const PARTITIONS: ReadonlyMap<string, PartitionProfile> = new Map(
  Object.entries(providers).map(([name, definition]) => [name, { name, definition, otpLifetimeMs: 300_000 }]),
);
const THIRTY_TWO = '0123456789abcdef0123456789abcdef';

type Requests = Record<string, { operation?: string; params: Record<string, unknown> }[]>;

/** What the adapters document; every one of them must come through the door. */
const DOCUMENTED: Requests = {
  'hello-clever': [{ params: { uuid: '2b1f7c1e-6d1a-4b55-9d59-0f3a3f1f5c11' } }],
  'lipa-later': [
    { params: { id_number: '12345678', item_value: '1000', phone_number: '+254712345678' } },
    { operation: 'send', params: { id_number: '12345678', phone_number: '+254712345678' } },
    {
      operation: 'send',
      params: {
        id_number: '12345678',
        phone_number: '+254712345678',
        first_name: 'Ada',
        last_name: 'Obi',
        country_code: 'KE',
        date_of_birth: '1990-01-31',
      },
    },
  ],
  ayoconnect: [
    {
      params: {
        originalPartnerReferenceNo: THIRTY_TWO,
        originalReferenceNo: THIRTY_TWO,
        action: 'payment',
        externalId: THIRTY_TWO,
        authCode: THIRTY_TWO,
        additionalInfo: {},
      },
    },
  ],
  beqelal: [{ params: { reference: 'R-1' } }],
  cepta: [{ params: { transactionRef: 'TX12345ABC', paymentId: 'PAY12345XYZ', md: 'merchant_data' } }],
};

function parse(provider: string, request: Record<string, unknown>): string[] {
  try {
    parseRequest({ provider, ...request }, PARTITIONS);
    return [];
  } catch (error) {
    if (!(error instanceof InvalidRequestError)) throw error;
    return error.faults.map(({ field }) => field);
  }
}

/** And what their fixtures show. */
const REQUESTS: Requests = Object.fromEntries(
  Object.keys(providers).map((adapter) => {
    const shown = loadFixture(adapter).requests.flatMap(({ call: operation, params }) =>
      (operation === 'verify' || operation === 'send') && params ? [{ operation, params }] : [],
    );
    return [adapter, [...(DOCUMENTED[adapter] ?? []), ...shown]];
  }),
);

describe.each(Object.keys(REQUESTS))('%s', (provider) => {
  it.each(REQUESTS[provider] ?? [])('takes what it documents %#', (request) => {
    const otp = request.operation === 'send' ? {} : { otp: '012345' };
    expect(parse(provider, { ...request, ...otp })).toEqual([]);
    if (request.operation === 'send') expect(parse(provider, { ...request, otp: '012345' })).toEqual(['otp']);
    else expect(parse(provider, request)).toEqual(['otp']);
  });

  it('names the params that are missing, and those it does not know', () => {
    expect(parse(provider, { otp: '012345', params: {} }).length).toBeGreaterThan(0);
    const [{ params } = { params: {} }] = REQUESTS[provider] ?? [];
    expect(parse(provider, { otp: '012345', params: { ...params, otp: '012345' } })).toContain('params.otp');
  });
});
