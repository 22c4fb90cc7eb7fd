/**
 * Lets go of what nobody else lets go of in time: results that no consumer fetched, jobs that were set aside, workers that
 * died, the audit of years ago. Everything else in Redis has a time to live or is bounded by what it is
 * (docs/retention.md). Every worker process does it; doing it twice does no harm.
 */
import { Queue } from '../bullmq.ts';
import { asError, type EventBus } from '../events.ts';
import { namesOf, webhookQueueName } from '../producers/job.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { Script } from '../redis/script.ts';

const script = Script.fromFiles(new URL('./retention.lua', import.meta.url));

const EVERY_MS = 3_600_000;
/** Longer than any worker is silent without being gone; shorter than what can be lost it must never be. */
const GONE_AFTER_MS = 24 * 3_600_000;

export interface RetentionSettings {
  /** Results that no consumer has fetched, whose handler kept failing, or that no endpoint took. */
  readonly resultsMs: number;
  /** Jobs that nobody could do anything with: somebody else's, unreadable callbacks. */
  readonly failedJobsMs: number;
  /** What persons settled and asked for. */
  readonly auditMs: number;
  readonly lossWindowMs: number;
}

export interface RetentionDependencies {
  /** Of the `worker` profile. */
  readonly redis: RedisConnection;
  readonly partitions: readonly string[];
  readonly resultsQueues: readonly string[];
  /** Clients with an endpoint of their own. */
  readonly webhookClients: readonly string[];
  readonly events: EventBus;
  readonly everyMs?: number;
}

export class Retention {
  readonly #settings: RetentionSettings;
  readonly #deps: RetentionDependencies;
  readonly #ofPartitions: readonly Queue[];
  readonly #ofResults: readonly Queue[];
  #timer: NodeJS.Timeout | null = null;
  #round: Promise<void> | null = null;

  constructor(settings: RetentionSettings, deps: RetentionDependencies) {
    this.#settings = settings;
    this.#deps = deps;
    const { partitionKeys, resultsPrefix, webhookQueuePrefix } = namesOf(deps.redis);
    const queueOf = (name: string, prefix: string): Queue => {
      const queue = new Queue(name, { connection: deps.redis, prefix, skipMetasUpdate: true });
      queue.on('error', (error) => this.#tell(error));
      return queue;
    };
    this.#ofPartitions = deps.partitions.flatMap((partition) => {
      const { queue, inquiryQueue, callbackQueue, prefix } = partitionKeys(partition);
      return [queue, inquiryQueue, callbackQueue].map((name) => queueOf(name, prefix));
    });
    this.#ofResults = [
      ...deps.resultsQueues.map((name) => queueOf(name, resultsPrefix(name))),
      ...deps.webhookClients.map((client) => queueOf(webhookQueueName(client), webhookQueuePrefix(client))),
    ];
  }

  start(): void {
    const begin = (): void => {
      this.#round ??= this.#run().finally(() => {
        this.#round = null;
      });
    };
    this.#timer = setInterval(begin, this.#deps.everyMs ?? EVERY_MS).unref();
    begin();
  }

  async close(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    await this.#round;
    await Promise.all([...this.#ofPartitions, ...this.#ofResults].map((queue) => queue.close()));
  }

  async #run(): Promise<void> {
    const { resultsMs, failedJobsMs, auditMs, lossWindowMs } = this.#settings;
    const { redis, partitions } = this.#deps;
    try {
      for (const partition of partitions) {
        const { workers, epoch, audit } = namesOf(redis).partitionKeys(partition);
        await script.run(redis, [workers, epoch, audit], [GONE_AFTER_MS + lossWindowMs, auditMs]);
      }
      for (const queue of this.#ofPartitions) await queue.clean(failedJobsMs, 0, 'failed');
      for (const queue of this.#ofResults) {
        for (const state of ['wait', 'prioritized', 'delayed', 'failed'] as const)
          await queue.clean(resultsMs, 0, state);
      }
    } catch (error) {
      this.#tell(error);
    }
  }

  #tell(error: unknown): void {
    this.#deps.events.emit('machinery:failed', { where: 'retention', error: asError(error) });
  }
}
