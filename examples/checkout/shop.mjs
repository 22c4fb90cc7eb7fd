// A small monolith: its payment and the request to verify it are written in one transaction, so there is never one
// without the other. It needs no Redis to take a code; `otp outbox` carries the row on.
//   DATABASE_URL, SHOP_API_KEY, OTP_PUBLIC_KEYS (a file, by `otp keys public`), OTP_REDIS_URL (for the results), PORT
import { createServer } from 'node:http';
import { createOutboxSealer, createResultsConsumer } from 'otp-pipeline';
import pg from 'pg';

const { DATABASE_URL, SHOP_API_KEY, OTP_PUBLIC_KEYS, OTP_REDIS_URL, PORT = '0' } = process.env;
const database = new pg.Pool({ connectionString: DATABASE_URL });
const { sealForOutbox } = createOutboxSealer({
  client: { id: 'shop', apiKey: SHOP_API_KEY },
  sealingKeys: OTP_PUBLIC_KEYS,
  partitions: { cepta: {} },
});

/** `submission` comes from the form, so a form that is sent twice is one submission. */
async function checkout({ order, submission, amount, currency, params, otp }) {
  // Sealed before anything is written: from here on nobody but a worker can read the code.
  const row = await sealForOutbox(
    { provider: 'cepta', otp, params, amount: { value: amount, currency }, metadata: { order } },
    { idempotencyKey: `${order}-${submission}`, payment: order },
  );
  const client = await database.connect();
  try {
    await client.query('BEGIN');
    // A second code is taken only after the first has failed. The lock on this row keeps the order of the outbox.
    const { rowCount } = await client.query(
      `INSERT INTO payments (order_id, amount, currency, verification_id) VALUES ($1, $2, $3, $4)
       ON CONFLICT (order_id) DO UPDATE SET state = 'pending', sequence = 0, verification_id = excluded.verification_id
       WHERE payments.state = 'failed'`,
      [order, amount, currency, row.request.id],
    );
    if (rowCount === 1) {
      await client.query(
        'INSERT INTO otp_outbox (client, idempotency_key, payment, request, sealed) VALUES ($1, $2, $3, $4, $5)',
        [row.client, row.idempotencyKey, row.payment, row.request, row.sealed],
      );
    }
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {});
    throw error;
  } finally {
    client.release();
  }
  return await payment(order);
}

async function payment(order) {
  const { rows } = await database.query('SELECT * FROM payments WHERE order_id = $1', [order]);
  return rows[0] ?? null;
}

/** At least once and in any number: a result that was applied already, or is older, finds no row to change. */
async function applyResult({ subject, data }) {
  // Final, and yet nobody knows: another verification of this payment may still prove that it was paid.
  const hasFailed = data.final && data.transaction !== 'unknown';
  const state = data.transaction === 'succeeded' ? 'paid' : hasFailed ? 'failed' : 'proving';
  await database.query('UPDATE payments SET state = $2, sequence = $3 WHERE verification_id = $1 AND sequence < $3', [
    subject,
    state,
    data.sequence,
  ]);
}

const results = OTP_REDIS_URL && createResultsConsumer({ redis: OTP_REDIS_URL, handler: applyResult });

const server = createServer(async (request, response) => {
  const answer = (status, body) =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  try {
    if (request.method === 'POST' && request.url === '/checkout') {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      return answer(202, await checkout(JSON.parse(Buffer.concat(chunks).toString())));
    }
    const [, order] = /^\/payments\/([\w-]+)$/.exec(request.url) ?? [];
    const found = order === undefined ? null : await payment(order);
    answer(found ? 200 : 404, found);
  } catch (error) {
    const refused = error.name === 'InvalidRequestError';
    if (!refused) console.error(error.name, error.code ?? ''); // never the request: it has the code in it
    answer(refused ? 400 : 500, { error: refused ? error.faults : 'it may be sent again' });
  }
});
server.listen(Number(PORT), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));

process.once('SIGTERM', async () => {
  server.close();
  await results?.close();
  await database.end();
});
