/** What the parts of a service are given, as it follows from the configuration. */
import { readFileSync } from 'node:fs';
import type { Config, Partition } from './config.ts';
import type { Means, QueueKind } from './metrics/settings.ts';
import { namesOf, RESULTS_QUEUE, webhookQueueName } from './producers/job.ts';

export interface QueueAddress {
  readonly name: string;
  readonly prefix: string;
  readonly kind: QueueKind;
}

/** Every queue that this configuration has jobs in. */
export function queuesOf(config: Config): QueueAddress[] {
  const { partitions, results } = config;
  const { partitionKeys, resultsPrefix, webhookQueuePrefix } = namesOf(config.redis);
  return [
    ...partitions.flatMap(({ name, provider }): QueueAddress[] => {
      const { prefix, queue, inquiryQueue, callbackQueue } = partitionKeys(name);
      return [
        { name: queue, prefix, kind: 'verification' },
        { name: inquiryQueue, prefix, kind: 'inquiry' },
        ...(provider.callback === null ? [] : [{ name: callbackQueue, prefix, kind: 'callback' } as const]),
      ];
    }),
    ...resultsQueuesOf(config).map((name) => ({ name, prefix: resultsPrefix(name), kind: 'results' as const })),
    ...results.webhooks.map(({ client }) => ({
      name: webhookQueueName(client),
      prefix: webhookQueuePrefix(client),
      kind: 'webhook' as const,
    })),
  ];
}

/** What alerts compare with what happens. */
export function meansOf(config: Config): Means {
  const { waitReplicas } = config.journal;
  const hasFailover = config.redis !== undefined && !('url' in config.redis);
  return {
    partitions: config.partitions.map(({ name, provider, rateLimit, inquiryRateLimit, inquiry }) => ({
      name,
      rateLimit,
      inquiries: provider.inquiry === null ? null : { rateLimit: inquiryRateLimit, delaysMs: inquiry.delaysMs },
      giveUpAfterMs: inquiry.giveUpAfterMs,
    })),
    queues: queuesOf(config),
    replicasWanted: waitReplicas === 'auto' ? Number(hasFailover) : waitReplicas,
  };
}

/** The one of all clients, and those that a client has to itself. */
export function resultsQueuesOf({ clients }: Config): string[] {
  return [...new Set([RESULTS_QUEUE, ...clients.flatMap(({ resultsQueue }) => resultsQueue ?? [])])];
}

/** The texts of a partition's TLS files. */
export function tlsOf(tls: Partition['tls']): { tls?: { ca?: string; cert?: string; key?: string } } {
  if (!tls) return {};
  const read = (file: string): string => readFileSync(file, 'utf8');
  return {
    tls: {
      ...(tls.caFile === undefined ? {} : { ca: read(tls.caFile) }),
      ...(tls.certFile === undefined ? {} : { cert: read(tls.certFile) }),
      ...(tls.keyFile === undefined ? {} : { key: read(tls.keyFile) }),
    },
  };
}
