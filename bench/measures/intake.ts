/**
 * How many verifications does one intake process accept in a second, and how long does a caller wait for the 202? The built
 * service in a process of its own, before a Redis that keeps an append-only file; this process asks. First as fast as the
 * intake answers (closed loop), then at a fixed rate (open loop: a request is due at its time, whether others were answered
 * or not, and is counted from that time).
 */
import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { Pool } from 'undici';
import { startTestRedis } from '../../test/support/redis.ts';
import { install } from '../../test/support/service.ts';
import { CLIENT, REUSE, startService, UNLIMITED } from '../pipelines/ours.ts';
import { Cleanup } from '../support/cleanup.ts';
import { offer } from '../support/offer.ts';
import { cpuSecondsOf, machineCpuSeconds, peakMemoryOf } from '../support/parts.ts';
import { postVerification } from '../support/post.ts';

const IN_FLIGHT = 64;
const DUE = '{otp-cepta}:due';

export interface IntakePlan {
  readonly warmSeconds: number;
  readonly seconds: number;
  /** Accepted verifications a second at which the waiting is measured. */
  readonly perSecond: number;
  /** As `sealing.reuseEphemeralKey`. */
  readonly reuse: boolean;
}

export interface IntakeRound {
  readonly acceptedPerSecond: number;
  /** Microseconds of the intake's processor for each. */
  readonly cpuMicros: number;
  /** And of Redis's. */
  readonly redisCpuMicros: number;
  readonly latenciesMs: readonly number[];
  /** The most that the intake's process has had resident. */
  readonly memoryMib: number;
  readonly foreignCores: number;
}

export async function intakeOnce({ warmSeconds, seconds, perSecond, reuse }: IntakePlan): Promise<IntakeRound> {
  const cleanup = new Cleanup();
  try {
    const server = cleanup.use(await startTestRedis({ appendonly: true }));
    const installation = cleanup.use(
      await install({
        redis: { url: server.url },
        clients: [{ ...CLIENT, maxInFlight: 100_000 }],
        sealing: {
          keyFile: 'keys.json',
          detailsKeyFile: 'details.json',
          ...(reuse ? { reuseEphemeralKey: REUSE } : {}),
        },
        providers: {
          cepta: { baseUrl: 'http://127.0.0.1:9', credentials: { secretKey: 'key' }, rateLimit: UNLIMITED },
        },
      }),
    );
    const service = cleanup.use(await startService(installation, 'intake'));
    const pool = new Pool(String(service.ready.intakeUrl), { connections: IN_FLIGHT, pipelining: 1 });
    cleanup.defer(async () => await pool.close());

    let count = 0;
    const enqueue = async (): Promise<void> => {
      count += 1;
      const { status, text } = await postVerification(pool, randomUUID(), {
        ...{ provider: 'cepta', otp: '012345' },
        params: { transactionRef: `TX${count}`, paymentId: 'PAY1', md: 'merchant_data' },
        amount: { value: '100.00', currency: 'NGN' },
        metadata: { orderId: `A-${count}` },
      });
      if (status !== 202) throw new Error(`the intake answered ${status}: ${text}`);
    };
    const closedLoop = async (forSeconds: number): Promise<number> => {
      const [before, endsAt] = [count, performance.now() + forSeconds * 1_000];
      const ask = async (): Promise<void> => {
        while (performance.now() < endsAt) await enqueue();
      };
      await Promise.all(Array.from({ length: IN_FLIGHT }, ask));
      return count - before;
    };

    await closedLoop(warmSeconds); // until the compiler has seen it all
    const redisPid = server.pid;
    const own = (): number => {
      const { user, system } = process.cpuUsage();
      return cpuSecondsOf(service.pid) + cpuSecondsOf(redisPid) + (user + system) / 1e6;
    };
    const [cpuBefore, ownBefore, machineBefore] = [cpuSecondsOf(service.pid), own(), machineCpuSeconds()];
    const redisCpuBefore = cpuSecondsOf(redisPid);
    const accepted = await closedLoop(seconds);
    const cpuMicros = ((cpuSecondsOf(service.pid) - cpuBefore) * 1e6) / accepted;
    const redisCpuMicros = ((cpuSecondsOf(redisPid) - redisCpuBefore) * 1e6) / accepted;
    const foreignCores = Math.max(0, (machineCpuSeconds() - machineBefore - (own() - ownBefore)) / seconds);

    const latenciesMs: number[] = [];
    await offer(perSecond, seconds, async (dueAt) => {
      await enqueue();
      latenciesMs.push(performance.now() - dueAt);
    });

    const redis = new Redis(server.url);
    cleanup.defer(() => redis.disconnect());
    const kept = await redis.zcard(DUE);
    if (kept !== count) throw new Error(`the run does not count: ${count} were accepted, and the journal has ${kept}`);
    const memoryMib = peakMemoryOf(service.pid);
    return { acceptedPerSecond: accepted / seconds, cpuMicros, redisCpuMicros, latenciesMs, memoryMib, foreignCores };
  } finally {
    await cleanup.run();
  }
}
