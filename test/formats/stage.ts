/** What a sample was written by and is read by again: one partition, one client with a webhook, one way to say things. */
import { createHash } from 'node:crypto';
import { request } from 'undici';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { answer } from '../support/provider-server.ts';
import type { ServiceProcess } from '../support/service.ts';

const API_KEY = 'api-key-of-the-shop-in-the-test';

export const ANSWERS = {
  wrongCode: json(200, { status: false, data: { errors: [{ errorCode: 'INVALID_OTP' }], otpRetryCount: '2' } }),
  unavailable: answer(503),
  paid: (transactionReference: string): string =>
    json(200, {
      status: true,
      message: 'ok',
      data: { responseCode: '00', transactionReference, amount: '100.00', status: 'Completed', errors: null },
    }),
} as const;

function json(status: number, body: unknown): string {
  return answer(status, JSON.stringify(body), { 'content-type': 'application/json' });
}

export function configuration(redisUrl: string, providerUrl: string, endpointUrl: string): Record<string, unknown> {
  return {
    redis: { url: redisUrl },
    clients: [{ id: 'shop', apiKey: API_KEY }],
    results: {
      webhooks: [
        {
          client: 'shop',
          url: endpointUrl,
          secret: `whsec_${Buffer.from('a secret of the tests, of 32 bytes').toString('base64')}`,
        },
      ],
    },
    providers: {
      cepta: {
        baseUrl: providerUrl,
        credentials: { secretKey: 'key', merchantId: 'M-1' },
        timeoutMs: 30_000,
        otpLifetimeMs: 300_000,
        inquiry: { delaysMs: [600_000] },
      },
    },
  };
}

/** Accepts a code for this transaction and gives the verification's id. */
export async function post({ intakeUrl }: ServiceProcess, transactionRef: string): Promise<string> {
  const response = await request(`${intakeUrl}/v1/verifications`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${API_KEY}`,
      'content-type': 'application/json',
      'idempotency-key': `key of ${transactionRef}`.replaceAll(' ', '-'),
    },
    body: JSON.stringify({
      ...{ provider: 'cepta', otp: '012345', amount: { value: '100.00', currency: 'NGN' } },
      params: { transactionRef, paymentId: 'PAY1', md: 'merchant_data' },
    }),
  });
  return ((await response.body.json()) as VerificationResource).id;
}

export async function read({ intakeUrl }: ServiceProcess, id: string) {
  const response = await request(`${intakeUrl}/v1/verifications/${id}`, {
    headers: { authorization: `Bearer ${API_KEY}` },
  });
  return { status: response.statusCode, resource: (await response.body.json()) as VerificationResource };
}

/** The provider's callback: this transaction is paid. */
export async function report({ intakeUrl }: ServiceProcess, transactionRef: string): Promise<void> {
  await request(`${intakeUrl}/v1/callbacks/cepta`, {
    method: 'POST',
    headers: { 'hash-key': createHash('sha512').update('keyM-1').digest('hex') },
    body: JSON.stringify({ transactionRef, status: 'Completed' }),
  });
}
