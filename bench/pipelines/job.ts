/** What the pipelines that are not ours carry, and the call that each of their workers makes. */
import { Pool } from 'undici';

export interface RawJob {
  readonly transactionRef: string;
  readonly paymentId: string;
  readonly md: string;
  /** In the clear, or sealed: iv, tag and text in base64. */
  readonly otp: string;
}

export const VERIFY_PATH = '/api/v1/pay/validate-otp';

export function jobOf(transactionRef: string, otp = '012345'): RawJob {
  return { transactionRef, paymentId: 'PAY12345XYZ', md: 'merchant_data', otp };
}

export function callerOf(
  provider: string,
  connections: number,
): (body: string, headers: Record<string, string>) => Promise<unknown> {
  const pool = new Pool(provider, { connections, pipelining: 1 });
  return async (body, headers) => {
    const answer = await pool.request({
      ...{ path: VERIFY_PATH, method: 'POST', body },
      headers: { 'content-type': 'application/json', ...headers },
    });
    return await answer.body.json();
  };
}

/** What a worker process is told. */
export interface WorkerSettings {
  readonly store: string;
  readonly provider: string;
  readonly concurrency: number;
  readonly connections: number;
}

export function settingsFromEnvironment(): WorkerSettings {
  const { BENCH_STORE = '', BENCH_PROVIDER = '', BENCH_CONCURRENCY, BENCH_CONNECTIONS } = process.env;
  const concurrency = Number(BENCH_CONCURRENCY);
  return { store: BENCH_STORE, provider: BENCH_PROVIDER, concurrency, connections: Number(BENCH_CONNECTIONS) };
}

export function environmentOf(
  settings: Omit<WorkerSettings, 'connections'> & Partial<WorkerSettings>,
): Record<string, string> {
  const { store, provider, concurrency, connections = concurrency } = settings;
  return {
    ...{ BENCH_STORE: store, BENCH_PROVIDER: provider },
    ...{ BENCH_CONCURRENCY: String(concurrency), BENCH_CONNECTIONS: String(connections) },
  };
}

/** A worker process says that it runs, and ends with whoever started it. */
export function ready(): void {
  process.send?.({ ready: true });
  process.on('disconnect', () => process.exit());
}
