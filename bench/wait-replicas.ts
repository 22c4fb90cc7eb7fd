/**
 * What waiting for a replica costs: attempts begun in a second, without and with one, in turns.
 *
 *   npx tsx bench/wait-replicas.ts
 */
import { randomUUID } from 'node:crypto';
import { EventBus } from '../src/events.ts';
import { connectRedis } from '../src/redis/connections.ts';
import { Journal } from '../src/workers/journal.ts';
import { Witness } from '../src/workers/witness.ts';
import { startTestReplicas } from '../test/support/servers.ts';
import { seed } from '../test/workers/support.ts';

const ATTEMPTS = 4_000;
const AT_ONCE = 50;
const ROUNDS = 4;

await using servers = await startTestReplicas();
const redis = connectRedis(servers.url, 'worker', { onError: () => {} });
for (let round = 0; round < ROUNDS; round += 1) {
  for (const waitReplicas of [0, 1]) {
    const ids: string[] = [];
    for (let made = 0; made < ATTEMPTS; made += 100) {
      ids.push(...(await Promise.all(Array.from({ length: 100 }, () => seed(redis)))));
    }
    const policy = {
      effect: 'money',
      canInquire: () => true,
      maxAttempts: 3,
      inquiry: { delaysMs: [1_000], giveUpAfterMs: 60_000 },
    } as const;
    const rate = { max: 1_000_000, perMs: 1_000 };
    const settings = {
      ...{ partition: 'cepta', policy, rateLimit: rate, inquiryRateLimit: rate, timeoutMs: 2_000, retentionMs: 60_000 },
      ...{ lossWindowMs: 2_000, recoverMs: 500, waitReplicas, waitMs: 1_000 },
    };
    const witness = new Witness(redis, settings, randomUUID(), new EventBus());
    const journal = new Journal(redis, settings, witness);
    await witness.beat();
    const tookMs: number[] = [];
    const startedAt = performance.now();
    const queue = [...ids];
    const hands = Array.from({ length: AT_ONCE }, async () => {
      for (let id = queue.pop(); id !== undefined; id = queue.pop()) {
        const askedAt = performance.now();
        const { is } = await journal.begin(id);
        if (is !== 'begun') throw new Error(`not begun: ${is}`);
        tookMs.push(performance.now() - askedAt);
      }
    });
    await Promise.all(hands);
    const perSecond = Math.round((1_000 * ATTEMPTS) / (performance.now() - startedAt));
    tookMs.sort((a, b) => a - b);
    const at = (share: number): string => (tookMs[Math.floor(tookMs.length * share)] ?? 0).toFixed(1);
    console.log(`waitReplicas ${waitReplicas}: ${perSecond} begun a second, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`);
    journal.close();
    await redis.flushall();
  }
}
redis.disconnect();
