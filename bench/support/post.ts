import type { Pool } from 'undici';
import { CLIENT } from '../pipelines/ours.ts';

/** A verification put in through HTTP, as a client does it; whatever the answer is. */
export async function postVerification(
  pool: Pool,
  idempotencyKey: string,
  body: object,
  headers: Readonly<Record<string, string>> = {},
): Promise<{ readonly status: number; readonly text: string }> {
  const answer = await pool.request({
    ...{ path: '/v1/verifications', method: 'POST' },
    headers: {
      authorization: `Bearer ${CLIENT.apiKey}`,
      'content-type': 'application/json',
      'idempotency-key': idempotencyKey,
      ...headers,
    },
    body: JSON.stringify(body),
  });
  return { status: answer.statusCode, text: await answer.body.text() };
}
