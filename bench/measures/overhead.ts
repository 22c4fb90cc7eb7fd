/** Through HTTP with `Prefer: wait`, one at a time, from the request to the answer that has the outcome. */
import { Pool } from 'undici';
import { startTestRedis } from '../../test/support/redis.ts';
import { installOurs, startService } from '../pipelines/ours.ts';
import { Cleanup } from '../support/cleanup.ts';
import { start } from '../support/parts.ts';
import { postVerification } from '../support/post.ts';

/** Milliseconds of each; the provider answers at once. */
export async function idleThroughHttp(count: number): Promise<number[]> {
  const cleanup = new Cleanup();
  try {
    const server = cleanup.use(await startTestRedis({ appendonly: true }));
    const stub = cleanup.use(await start('support/stub.ts', { STUB_DELAY_MS: '0' }));
    const installation = cleanup.use(await installOurs(server.url, `http://127.0.0.1:${stub.ready.port}`));
    const intake = cleanup.use(await startService(installation, 'intake'));
    cleanup.use(await startService(installation, 'worker'));
    const pool = new Pool(String(intake.ready.intakeUrl), { connections: 1 });
    cleanup.defer(async () => await pool.close());
    const latencies: number[] = [];
    for (let index = 0; index < count * 2; index += 1) {
      const began = performance.now();
      const params = { transactionRef: `TX${index}`, paymentId: 'PAY1', md: 'merchant_data' };
      const body = { provider: 'cepta', otp: '012345', params };
      const { status, text } = await postVerification(pool, `TX${index}`, body, { prefer: 'wait=10' });
      if (status !== 200) throw new Error(`the intake answered ${status}: ${text}`);
      if (index >= count) latencies.push(performance.now() - began); // the first half is for the compiler
    }
    return latencies;
  } finally {
    await cleanup.run();
  }
}
