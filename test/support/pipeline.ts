/** A whole pipeline in this process: acceptance, partition workers, results queue, on a Redis of the test's own. */
import { randomUUID } from 'node:crypto';
import { Queue } from 'bullmq';
import { EventBus, type EventName, type Events } from '../../src/events.ts';
import { type AcceptDependencies, accept } from '../../src/producers/accept.ts';
import {
  partitionKeys,
  partitionOf,
  resultsPrefix,
  type VerificationJob,
  webhookQueueName,
  webhookQueuePrefix,
} from '../../src/producers/job.ts';
import { resourceOf, type VerificationResource } from '../../src/producers/resource.ts';
import { generateSealingKey, Opener, Sealer, type SealingKeySet } from '../../src/producers/sealing.ts';
import { providers } from '../../src/providers/index.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { Secret } from '../../src/secret.ts';
import { type PartitionSettings, PartitionWorker } from '../../src/workers/worker.ts';
import { startTestRedis, type TestRedis } from './redis.ts';

export interface PartitionEntry {
  readonly baseUrl: string;
  readonly credentials: unknown;
  readonly options?: unknown;
  readonly adapter?: string;
  readonly settings?: Partial<Omit<PartitionSettings, 'name' | 'provider' | 'baseUrl' | 'account'>>;
}

export interface Pipeline extends AsyncDisposable {
  readonly redis: RedisConnection;
  readonly server: TestRedis;
  readonly events: EventBus;
  readonly seen: { readonly name: EventName; readonly payload: Events[EventName] }[];
  readonly workers: ReadonlyMap<string, PartitionWorker>;
  readonly keySet: SealingKeySet;
  readonly accepting: AcceptDependencies;
  queue(partition: string): Queue<VerificationJob>;
  enqueue(body: Record<string, unknown>, key?: string): Promise<string>;
  read(id: string): Promise<VerificationResource>;
  /** Waits until the verification is as described; the last resource seen is in the error. */
  until(id: string, is: (resource: VerificationResource) => boolean, withinMs?: number): Promise<VerificationResource>;
  final(id: string, withinMs?: number): Promise<VerificationResource>;
  results(): Promise<{ id: string; type: string; data: VerificationResource }[]>;
  /** One published revision, by `<verification id>.<sequence>`; null when there is none. */
  result(id: string): Promise<{ id: string; type: string; data: VerificationResource } | null>;
  restartWorkers(): Promise<void>;
}

export const CLIENT = { id: 'shop', apiKey: new Secret('test-api-key-of-the-shop') };

const SETTINGS = {
  rateLimit: { max: 1_000, perMs: 1_000 },
  inquiryRateLimit: { max: 1_000, perMs: 1_000 },
  concurrency: 20,
  timeoutMs: 2_000,
  maxAttempts: 3,
  inquiry: { delaysMs: [100, 200, 300], giveUpAfterMs: 60_000 },
  retentionMs: 3_600_000,
  lossWindowMs: 2_000,
  recoverMs: 500,
};

export async function startPipeline(
  partitions: Record<string, PartitionEntry>,
  {
    workers: withWorkers = true,
    server: given,
    keySet: givenKeys,
  }: { workers?: boolean; server?: TestRedis; keySet?: SealingKeySet } = {},
): Promise<Pipeline> {
  const server = given ?? (await startTestRedis());
  const events = new EventBus();
  const seen: { name: EventName; payload: Events[EventName] }[] = [];
  const emit = events.emit.bind(events);
  events.emit = (name, payload) => {
    seen.push({ name, payload });
    emit(name, payload);
  };
  const onError = (): void => {};
  const redis = connectRedis(server.url, 'worker', { onError });
  const keySet = givenKeys ?? ({ keys: [await generateSealingKey('test-1')] } as SealingKeySet);
  const sealer = await Sealer.create(keySet);
  const opener = await Opener.create(keySet);

  const queues = new Map<string, Queue>();
  const queueOf = (name: string, prefix: string): Queue => {
    const known = queues.get(name) ?? new Queue(name, { connection: redis, prefix, skipWaitingForReady: true });
    queues.set(name, known);
    return known;
  };
  const queue = (partition: string): Queue<VerificationJob> => {
    const keys = partitionKeys(partition);
    return queueOf(keys.queue, keys.prefix);
  };

  const entries = Object.entries(partitions);
  const definition = (name: string, entry: PartitionEntry) => {
    const found = providers[entry.adapter ?? name];
    if (!found) throw new Error(`no adapter ${entry.adapter ?? name}`);
    return found;
  };
  const accepting: AcceptDependencies = {
    redis,
    sealer,
    events,
    partitions: new Map(
      entries.map(([name, entry]) => [name, { name, definition: definition(name, entry), otpLifetimeMs: 60_000 }]),
    ),
    queue,
  };

  const workers = new Map<string, PartitionWorker>();
  const startWorkers = async (): Promise<void> => {
    for (const [name, entry] of entries) {
      const provider = definition(name, entry);
      const worker = new PartitionWorker(
        {
          ...SETTINGS,
          ...entry.settings,
          name,
          baseUrl: entry.baseUrl,
          account: 'test',
          provider: provider.bind({
            baseUrl: entry.baseUrl,
            credentials: provider.credentials.parse(entry.credentials),
            options: provider.options.parse(entry.options ?? {}),
          }),
        },
        {
          redis,
          worker: randomUUID(),
          sealer,
          opener,
          events,
          sealDetails: async (_, details) => await sealer.seal(details),
          client: () => ({ sealedToClient: false, hasWebhook: false }),
          resultsQueue: (name) => queueOf(name, resultsPrefix(name)),
          webhookQueue: (client) => queueOf(webhookQueueName(client), webhookQueuePrefix(client)),
        },
      );
      workers.set(name, worker);
      await worker.start();
    }
  };
  const stopWorkers = async (): Promise<void> => {
    await Promise.all([...workers.values()].map((worker) => worker.close()));
    workers.clear();
  };
  if (withWorkers) await startWorkers();

  const read = async (id: string): Promise<VerificationResource> => {
    const { readRecord } = await import('../../src/producers/record.ts');
    const partition = partitionOf(id) ?? '';
    const record = readRecord(id, partition, await redis.hgetall(partitionKeys(partition).record(id)));
    if (!record) throw new Error(`no verification ${id}`);
    return resourceOf(record);
  };
  const until: Pipeline['until'] = async (id, is, withinMs = 10_000) => {
    const giveUpAt = Date.now() + withinMs;
    for (;;) {
      const resource = await read(id);
      if (is(resource)) return resource;
      if (Date.now() > giveUpAt)
        throw new Error(`not within ${withinMs} ms; last seen: ${JSON.stringify(resource, null, 1)}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };

  return {
    redis,
    server,
    events,
    seen,
    workers,
    keySet,
    accepting,
    queue,
    enqueue: async (body, key = randomUUID()) => {
      const acceptance = await accept(CLIENT, key, body, accepting);
      if (acceptance.kind !== 'accepted') throw new Error(`not accepted: ${acceptance.kind}`);
      return acceptance.id;
    },
    read,
    until,
    final: async (id, withinMs) => await until(id, (resource) => resource.final, withinMs),
    result: async (id) => (await queueOf('otp-results', resultsPrefix('otp-results')).getJob(id))?.data ?? null,
    results: async () => {
      const jobs = await queueOf('otp-results', resultsPrefix('otp-results')).getJobs(['waiting']);
      return jobs.map((job) => job.data);
    },
    restartWorkers: async () => {
      await stopWorkers();
      await startWorkers();
    },
    [Symbol.asyncDispose]: async () => {
      await stopWorkers();
      await Promise.all([...queues.values()].map((each) => each.close()));
      redis.disconnect();
      if (!given) await server[Symbol.asyncDispose]();
    },
  };
}

/** One request body per provider that the sandbox accepts; references are new each time. */
export function bodyFor(provider: string, otp: string, given: Record<string, unknown> = {}): Record<string, unknown> {
  const unique = randomUUID().replaceAll('-', '');
  const params: Record<string, Record<string, unknown>> = {
    'hello-clever': { uuid: unique.slice(0, 8).toUpperCase() },
    'lipa-later': {
      id_number: unique.slice(0, 8),
      phone_number: `+2547${String(Date.now()).slice(-8)}`,
      item_value: '1000',
    },
    ayoconnect: {
      originalPartnerReferenceNo: unique,
      originalReferenceNo: randomUUID().replaceAll('-', ''),
      action: 'payment',
      externalId: randomUUID().replaceAll('-', ''),
      authCode: randomUUID().replaceAll('-', ''),
    },
    beqelal: { reference: unique.slice(0, 10) },
    cepta: { transactionRef: `TX${unique.slice(0, 10)}`, paymentId: 'PAY1', md: 'merchant_data' },
  };
  return { provider, otp, params: { ...params[provider], ...given } };
}
