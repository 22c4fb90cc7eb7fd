-- The shop's own table. Beside it stands otp_outbox: `otp outbox --print-table`.
CREATE TABLE IF NOT EXISTS payments (
  order_id text PRIMARY KEY,
  amount text NOT NULL,
  currency text NOT NULL,
  -- pending, proving (the provider has not said yet), paid, failed
  state text NOT NULL DEFAULT 'pending',
  verification_id text NOT NULL UNIQUE,
  -- Of the last result that was applied: an older one that comes late changes nothing.
  sequence integer NOT NULL DEFAULT 0
);
