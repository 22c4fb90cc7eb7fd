/** The table that a program writes in the transaction of its payment, and the statements of whoever relays it. */

/** For PostgreSQL 12 and later; may be run again. Printed by `otp outbox --print-table`. */
export const OUTBOX_TABLE = `CREATE TABLE IF NOT EXISTS otp_outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  client text NOT NULL,
  idempotency_key text NOT NULL,
  -- Rows of one payment are relayed in the order of their ids, one after the other.
  payment text NOT NULL,
  -- What may be read: no code, and no parameter that is personal.
  request jsonb NOT NULL,
  -- The code and the parameters, sealed to the workers' public key.
  sealed text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  done_at timestamptz,
  verification_id text,
  -- Why it was refused for good. It holds back what follows for the same payment, until somebody clears or deletes it.
  problem text,
  UNIQUE (client, idempotency_key)
);
CREATE INDEX IF NOT EXISTS otp_outbox_waiting ON otp_outbox (id) WHERE done_at IS NULL AND problem IS NULL;
CREATE INDEX IF NOT EXISTS otp_outbox_undone ON otp_outbox (payment, id) WHERE done_at IS NULL;
`;

/** $1 how many. What another relay holds is passed over, and so is what follows a row of its payment that is not done. */
export const TAKE = `SELECT id, client, idempotency_key, request, sealed FROM otp_outbox AS waiting
WHERE done_at IS NULL AND problem IS NULL AND NOT EXISTS (
  SELECT FROM otp_outbox AS earlier
  WHERE earlier.payment = waiting.payment AND earlier.id < waiting.id AND earlier.done_at IS NULL
)
ORDER BY id LIMIT $1 FOR UPDATE OF waiting SKIP LOCKED`;

/** $1 row ids, $2 verification ids. */
export const MARK_DONE = `UPDATE otp_outbox SET done_at = clock_timestamp(), verification_id = relayed.verification
FROM unnest($1::bigint[], $2::text[]) AS relayed (id, verification) WHERE otp_outbox.id = relayed.id`;

/** $1 row ids, $2 why. */
export const MARK_REFUSED = `UPDATE otp_outbox SET problem = refused.problem
FROM unnest($1::bigint[], $2::text[]) AS refused (id, problem) WHERE otp_outbox.id = refused.id`;
