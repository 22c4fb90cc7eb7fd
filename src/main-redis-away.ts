/** How processes that wait for Redis as long as it takes come to their end without it. */
import type { RedisConnection } from './redis/connections.ts';

/** A restart of Redis on the same machine takes less. */
const IDLE_PATIENCE_MS = 2_000;
/** For what comes after the attempts: forwarding, and saying that it leaves. */
const REST_MS = 10_000;
const LOOK_MS = 200;

export interface Closing {
  /** Of a job: it may have an outcome to write down. */
  readonly inHand: boolean;
  readonly closeLimitMs: number;
}

/**
 * From now on the connection waits no longer than there is something to wait for: with nothing in hand for two seconds,
 * else until the limit of the attempts is over. Whatever still waits is refused then, and goes on to its end. With Redis
 * there, everything has ten seconds more.
 */
export function waitNoLongerThanNeeded(redis: RedisConnection, workers: readonly Closing[]): void {
  const toldAt = performance.now();
  const limitMs = Math.max(...workers.map(({ closeLimitMs }) => closeLimitMs));
  const timer = setInterval(() => {
    const waitedMs = performance.now() - toldAt;
    const away = redis.status !== 'ready';
    const patienceMs = workers.some(({ inHand }) => inHand) ? limitMs : Math.min(IDLE_PATIENCE_MS, limitMs);
    if (waitedMs > (away ? patienceMs : limitMs + REST_MS)) redis.disconnect();
    else if (redis.status !== 'end') return;
    clearInterval(timer);
  }, LOOK_MS);
  timer.unref();
}
