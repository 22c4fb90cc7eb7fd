/** The stops of the tour: what a customer typed, at which provider, and what the sandbox does with it. */
import { randomUUID } from 'node:crypto';
import type { SandboxProvider } from '../sandbox/index.ts';

export interface Scenario {
  readonly partition: SandboxProvider;
  /** What happens, in the words of the table. */
  readonly story: string;
  /** The body of POST /v1/verifications. */
  readonly body: Readonly<Record<string, unknown>>;
  /** The provider's own reference, by which the ledger knows the transaction. */
  readonly reference: string;
  /** How the story must end, `otp / transaction`; the ledger alone would also agree with a code that was never sent. */
  readonly ends: string;
  /** The code must never reach the provider. */
  readonly unsent: boolean;
  /** Starts when the stop before it has ended. */
  readonly afterPrevious: boolean;
}

/** How long Beqelal refuses connections at the beginning of the tour. */
export const DOWN = { provider: 'beqelal', forMs: 2_000 } as const;

/** Codes with a meaning are the sandbox's magic values (docs/sandbox.md); any other code is right. */
export function tourScenarios(now: number): Scenario[] {
  const stops = [
    stop('hello-clever', 'right code, customer approves on the phone', '246810', 'accepted / succeeded'),
    stop('hello-clever', 'wrong code', '400001', 'rejected / pending'),
    stop('hello-clever', 'answer lost after the code was taken', '800002', 'accepted / succeeded'),
    stop('lipa-later', 'asks for a code to be sent', null, 'accepted / none'),
    stop('lipa-later', 'right code', '135790', 'accepted / none'),
    stop('lipa-later', 'our token has expired, a new one is fetched', '600004', 'accepted / none'),
    stop('lipa-later', 'answer lost, no money moves here', '800002', 'unknown / none'),
    stop('ayoconnect', 'right code', '975310', 'accepted / succeeded'),
    stop('ayoconnect', 'wrong code', '400001', 'rejected / pending'),
    stop('ayoconnect', 'right code, and then the payment fails', '500001', 'accepted / failed'),
    stop('ayoconnect', '502 with HTML after the code was taken', '800001', 'accepted / succeeded'),
    stop('beqelal', 'provider is down and comes back; the code begins with 0', '012345', 'accepted / succeeded', {
      amount: { value: '100.00', currency: 'ETB' },
    }),
    stop('beqelal', 'wrong code', '400001', 'rejected / pending'),
    stop('beqelal', 'the bank says no', '400005', 'rejected / failed'),
    stop('cepta', 'right code', '864209', 'accepted / succeeded'),
    stop('cepta', '429 with Retry-After, then accepted', '600003', 'accepted / succeeded'),
    stop('cepta', 'half an answer after the code was taken', '800004', 'accepted / succeeded'),
    stop('cepta', 'code dead before it could be sent', '112233', 'not_submitted / pending', {
      expiresAt: new Date(now - 1_000).toISOString(),
      unsent: true,
    }),
    stop('cepta', 'wrong code, and no try is left', '400003', 'rejected / failed'),
  ];
  const spent = stops.at(-1) as Scenario;
  const oneMore = stop(
    'cepta',
    'another code for it: not sent, nothing is left to try',
    '445566',
    'not_submitted / failed',
    { unsent: true },
  );
  return [
    ...stops,
    {
      ...oneMore,
      body: { ...oneMore.body, params: spent.body.params },
      reference: spent.reference,
      afterPrevious: true,
    },
  ];
}

function stop(
  partition: SandboxProvider,
  story: string,
  otp: string | null,
  ends: string,
  { unsent = false, ...more }: { unsent?: boolean; amount?: unknown; expiresAt?: string } = {},
): Scenario {
  const { params, reference } = paramsOf(partition, otp);
  const operation = otp === null ? { operation: 'send' } : { operation: 'verify', otp };
  return {
    partition,
    story,
    body: { provider: partition, ...operation, params, ...more },
    reference,
    ends,
    unsent,
    afterPrevious: false,
  };
}

function paramsOf(
  partition: SandboxProvider,
  otp: string | null,
): { params: Record<string, unknown>; reference: string } {
  const unique = (): string => randomUUID().replaceAll('-', '');
  switch (partition) {
    case 'hello-clever': {
      const uuid = unique().slice(0, 8).toUpperCase();
      return { params: { uuid }, reference: uuid };
    }
    case 'lipa-later': {
      // The ending 000 keeps a random number clear of the sandbox's magic phone numbers.
      const phone = `+2547${String(Math.floor(Math.random() * 100_000)).padStart(5, '0')}000`;
      const person = { id_number: unique().slice(0, 8), phone_number: phone };
      return { params: otp === null ? person : { ...person, item_value: '1000' }, reference: phone };
    }
    case 'ayoconnect': {
      const reference = unique();
      return {
        params: {
          originalPartnerReferenceNo: unique(),
          originalReferenceNo: reference,
          action: 'payment',
          externalId: unique(),
          authCode: unique(),
        },
        reference,
      };
    }
    case 'beqelal': {
      const reference = unique().slice(0, 10).toUpperCase();
      return { params: { reference }, reference };
    }
    case 'cepta': {
      const reference = `TX${unique().slice(0, 10).toUpperCase()}`;
      return {
        params: { transactionRef: reference, paymentId: `PAY${unique().slice(0, 8)}`, md: 'merchant_data' },
        reference,
      };
    }
  }
  return partition satisfies never;
}
