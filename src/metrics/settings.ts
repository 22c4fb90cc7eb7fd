/** What is configured, as gauges: an alert compares what happens with what was meant to. */
import type { Registry } from 'prom-client';
import { declareGauge } from './registry.ts';

interface Rate {
  readonly max: number;
  readonly perMs: number;
}

export interface PartitionMeans {
  readonly name: string;
  readonly rateLimit: Rate;
  /** Of the inquiries; null where the provider has none. */
  readonly inquiries: { readonly rateLimit: Rate; readonly delaysMs: readonly number[] } | null;
  readonly giveUpAfterMs: number;
}

export interface Means {
  readonly partitions: readonly PartitionMeans[];
  readonly queues: readonly { readonly name: string; readonly kind: QueueKind }[];
  readonly replicasWanted: number;
}

export type QueueKind = 'verification' | 'inquiry' | 'callback' | 'results' | 'webhook';

export function declareSettings(registry: Registry, { partitions, queues, replicasWanted }: Means): void {
  declareGauge(registry, 'rateLimit', async (gauge) => {
    for (const { name, rateLimit } of partitions) gauge.set({ provider: name }, perSecond(rateLimit));
  });
  declareGauge(registry, 'inquiryRateLimit', async (gauge) => {
    for (const { name, inquiries } of partitions) {
      if (inquiries !== null) gauge.set({ provider: name }, perSecond(inquiries.rateLimit));
    }
  });
  declareGauge(registry, 'inquirySchedule', async (gauge) => {
    for (const { name, inquiries } of partitions) {
      if (inquiries !== null)
        gauge.set({ provider: name }, inquiries.delaysMs.reduce((sum, ms) => sum + ms, 0) / 1_000);
    }
  });
  declareGauge(registry, 'inquiryGiveUp', async (gauge) => {
    for (const { name, giveUpAfterMs } of partitions) gauge.set({ provider: name }, giveUpAfterMs / 1_000);
  });
  declareGauge(registry, 'queueInfo', async (gauge) => {
    for (const { name, kind } of queues) gauge.set({ queue: name, kind }, 1);
  });
  declareGauge(registry, 'redisReplicasWanted', async (gauge) => gauge.set(replicasWanted));
}

function perSecond({ max, perMs }: Rate): number {
  return (max * 1_000) / perMs;
}
