/**
 * From the outbox of a partition to the results queues and the queues of the webhooks, in batches. An entry is acknowledged after it was published, so
 * a crash between the two repeats it and never loses it; the job's id is the result's id, so a repeat is dropped while
 * the first is still there, and consumers drop the rest by sequence.
 *
 * Each worker process reads as a consumer of one group: whoever decided a result nudges its own forwarder, a poll picks
 * up what a dead process left unread, a claim what it left unacknowledged.
 */
import type { JobsOptions, Queue } from 'bullmq';
import { asError, type EventBus } from '../events.ts';
import { namesOf, type PartitionKeys, RESULT_JOB_OPTIONS, RESULTS_QUEUE } from '../producers/job.ts';
import { type RawRecord, readRecord, type VerificationRecord } from '../producers/record.ts';
import { type ResultEvent, resultEventOf } from '../producers/result.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { WEBHOOK_JOB_OPTIONS } from './webhooks.ts';

const GROUP = 'forwarders';
const BATCH = 200;
const POLL_MS = 500;
const ABANDONED_MS = 10_000;
const CLAIM_EVERY_MS = 5_000;
/** An idempotency key outlives its verification's record by a day. */
const CLAIM_MARGIN_MS = 24 * 3600 * 1_000;

export interface ForwarderDependencies {
  readonly partition: string;
  readonly keys: PartitionKeys;
  readonly redis: RedisConnection;
  readonly worker: string;
  readonly retentionMs: number;
  readonly events: EventBus;
  /** Entries for this worker, new ones or its own unacknowledged; not `kept` are those that a failover could forget. */
  read(
    group: string,
    which: '>' | '0',
    count: number,
  ): Promise<{ readonly entries: readonly StreamEntry[]; readonly kept: boolean }>;
  /** Unacknowledged for so long, 10 s by default: whoever read it is gone. */
  readonly abandonedMs?: number;
  /** A client may have its own results queue, a key to which its details are sealed, and an endpoint to be told at. */
  client(id: string): {
    readonly resultsQueue?: string | undefined;
    readonly sealedToClient: boolean;
    readonly hasWebhook: boolean;
  };
  resultsQueue(name: string): Queue;
  webhookQueue(client: string): Queue;
}

type StreamEntry = [entryId: string, fields: string[]];

interface Published {
  readonly entryId: string;
  readonly record: VerificationRecord;
  readonly type: string;
  readonly queue: string;
  readonly hasWebhook: boolean;
  readonly event: ResultEvent;
}

export class Forwarder {
  readonly #deps: ForwarderDependencies;
  #timer: NodeJS.Timeout | null = null;
  #round: Promise<void> | null = null;
  #again = false;
  #closed = false;
  #lastClaim = 0;
  /** Entries were read and held back, because replicas had not got them yet. */
  #held = false;

  constructor(deps: ForwarderDependencies) {
    this.#deps = deps;
  }

  async start(): Promise<void> {
    await this.#makeGroup();
    this.#timer = setInterval(() => this.nudge(), POLL_MS);
    this.nudge();
  }

  /** Something stands in the outbox. Many nudges in one turn make one round. */
  nudge(): void {
    if (this.#closed) return;
    this.#again = true;
    this.#round ??= this.#run().finally(() => {
      this.#round = null;
      if (this.#again) this.nudge(); // it came while this round was at its last step
    });
  }

  /** Forwards what is there, then stops. */
  async close(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    this.nudge();
    while (this.#round) await this.#round;
    this.#closed = true;
  }

  async #run(): Promise<void> {
    try {
      await Promise.resolve(); // the rest of this turn's results come along
      while (this.#again) {
        this.#again = false;
        for (;;) {
          const entries = await this.#read('>');
          if (entries.length === 0) break;
          await this.#forward(entries);
        }
      }
      if (Date.now() - this.#lastClaim > CLAIM_EVERY_MS) {
        this.#lastClaim = Date.now();
        await this.#claimAbandoned();
      }
      // Read once more: the server that has them may be another one by now, which never heard of some.
      if (this.#held) {
        this.#held = false;
        await this.#forward(await this.#read('0'));
      }
    } catch (error) {
      this.#again = false; // the poll tries again; unacknowledged entries are claimed again, nothing is lost
      this.#tell(error);
      // A Redis that has lost everything has also lost the group.
      if (asError(error).message.includes('NOGROUP')) await this.#makeGroup().catch((fault) => this.#tell(fault));
    }
  }

  async #makeGroup(): Promise<void> {
    const { redis, keys } = this.#deps;
    try {
      await redis.xgroup('CREATE', keys.outbox, GROUP, '0', 'MKSTREAM');
    } catch (error) {
      if (!asError(error).message.startsWith('BUSYGROUP')) throw error;
    }
  }

  /** What may be published; the rest is held back, unacknowledged, and looked at with the next poll. */
  async #read(which: '>' | '0'): Promise<readonly StreamEntry[]> {
    const { entries, kept } = await this.#deps.read(GROUP, which, BATCH);
    if (kept) {
      if (which === '0' && entries.length === BATCH) this.#held = true;
      return entries;
    }
    if (entries.length > 0) this.#held = true;
    return [];
  }

  /** From now on they are this worker's own, and read as such. */
  async #claimAbandoned(): Promise<void> {
    const { redis, keys, worker, abandonedMs = ABANDONED_MS } = this.#deps;
    const args = [keys.outbox, GROUP, worker, abandonedMs, '0', 'COUNT', BATCH, 'JUSTID'] as const;
    const reply = (await redis.xautoclaim(...args)) as unknown as [string, string[]];
    if (reply[1].length > 0) this.#held = true;
  }

  /** What one client's queue refuses, or nobody can read, stays unacknowledged and holds back nothing else. */
  async #forward(entries: readonly StreamEntry[]): Promise<void> {
    const byDestination = new Map<string, [Published, ...Published[]]>();
    for (const entry of entries) {
      try {
        const result = this.#resultIn(entry);
        const destination = `${result.queue} ${result.hasWebhook ? result.record.client : ''}`;
        const others = byDestination.get(destination);
        if (others) others.push(result);
        else byDestination.set(destination, [result]);
      } catch (error) {
        this.#tell(error);
      }
    }
    await Promise.all(
      [...byDestination.values()].map(async (results) => {
        try {
          await this.#publish(results);
        } catch (error) {
          this.#tell(error);
        }
      }),
    );
  }

  #resultIn(entry: StreamEntry): Published {
    const { partition, client } = this.#deps;
    const { record, type } = readEntry(entry, partition);
    const { resultsQueue = RESULTS_QUEUE, sealedToClient, hasWebhook } = client(record.client);
    return {
      entryId: entry[0],
      record,
      type,
      queue: resultsQueue,
      hasWebhook,
      event: resultEventOf(record, type, record.client, sealedToClient),
    };
  }

  /** All of them go to the same places. */
  async #publish(results: readonly [Published, ...Published[]]): Promise<void> {
    const { redis, keys, partition, retentionMs, events, resultsQueue, webhookQueue } = this.#deps;
    const [{ queue, hasWebhook, record }] = results;
    const { publishedChannel } = namesOf(redis);
    const jobs = (options: JobsOptions): { name: string; data: ResultEvent; opts: JobsOptions }[] =>
      results.map(({ type, event }) => ({ name: type, data: event, opts: { ...options, jobId: event.id } }));
    await Promise.all([
      resultsQueue(queue).addBulk(jobs(RESULT_JOB_OPTIONS)),
      hasWebhook ? webhookQueue(record.client).addBulk(jobs(WEBHOOK_JOB_OPTIONS)) : null,
      ...results.map(({ record }) => redis.publish(publishedChannel, `${record.id}.${record.sequence}`)),
      ...results
        .filter(({ record }) => record.final)
        .map(({ record }) => redis.pexpire(record.claimKey, retentionMs + CLAIM_MARGIN_MS)),
    ]);
    const ids = results.map(({ entryId }) => entryId);
    await redis.xdel(keys.outbox, ...ids);
    await redis.xack(keys.outbox, GROUP, ...ids);
    for (const { record, type } of results) {
      const { id, traceparent, sequence, createdAt, updatedAt } = record;
      const sinceAcceptedMs = sequence === 1 ? updatedAt - createdAt : null;
      const sinceDecidedMs = Math.max(0, Date.now() - updatedAt);
      events.emit('result:published', {
        ...{ id, traceparent, partition, queue, type, sequence },
        ...{ sinceAcceptedMs, sinceDecidedMs },
      });
    }
  }

  #tell(error: unknown): void {
    this.#deps.events.emit('machinery:failed', {
      where: `forwarder of ${this.#deps.partition}`,
      error: asError(error),
    });
  }
}

function readEntry([entryId, fields]: StreamEntry, partition: string): Pick<Published, 'record' | 'type'> {
  const raw: Record<string, string> = {};
  for (let index = 0; index + 1 < fields.length; index += 2) raw[fields[index] as string] = fields[index + 1] as string;
  const record = readRecord(raw.id ?? '', partition, raw as RawRecord);
  if (record === null) throw new Error(`the outbox of ${partition} holds an entry without a state: ${entryId}`);
  return { record, type: raw.type ?? '' };
}
