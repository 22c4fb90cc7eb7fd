/**
 * From the outbox of a partition to the results queues and the queues of the webhooks, in batches. An entry is taken out
 * after it was published, so a crash between the two repeats it and never loses it; the job's id is the result's id, so a
 * repeat is dropped while the first is still there, and consumers drop the rest by sequence.
 *
 * Whoever has decided a result has it in hand and forwards it without reading it again. What stands there for whom nobody
 * vouches any more, or for longer than forwarding takes, is picked up by a poll.
 */
import type { JobsOptions, Queue } from 'bullmq';
import { asError, type EventBus } from '../events.ts';
import { type ClaimMade, claimsDone, claimsEnd } from '../producers/claim.ts';
import { namesOf, type PartitionKeys, RESULT_JOB_OPTIONS, RESULTS_QUEUE } from '../producers/job.ts';
import { type RawRecord, readRecord } from '../producers/record.ts';
import { type ResultEvent, resultEventOf } from '../producers/result.ts';
import type { RedisConnection } from '../redis/connections.ts';
import type { Held } from '../redis/held.ts';
import { hashIn } from '../redis/script.ts';
import type { Published } from './journal.ts';
import { WEBHOOK_JOB_OPTIONS } from './webhooks.ts';

const BATCH = 200;
const POLL_MS = 500;
const ABANDONED_MS = 10_000;
const LOOK_FOR_ABANDONED_MS = 5_000;

export interface ForwarderDependencies {
  readonly partition: string;
  readonly keys: PartitionKeys;
  readonly redis: RedisConnection;
  readonly retentionMs: number;
  readonly events: EventBus;
  /**
   * Those of these entries that may be published: replicas have them, where replicas are waited for. What a failover has
   * forgotten is not among them. Null: not yet.
   */
  kept(entryIds: readonly string[]): Promise<readonly string[] | null>;
  /** In the outbox for so long, 10 s by default: whoever decided it could not forward it. */
  readonly abandonedMs?: number;
  /** Where replicas are waited for. */
  readonly held?: Pick<Held, 'during'> | undefined;
  /** By the clock of Redis. */
  now(): number;
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

interface Outgoing extends Published {
  readonly queue: string;
  readonly hasWebhook: boolean;
  readonly event: ResultEvent;
}

export class Forwarder {
  readonly #deps: ForwarderDependencies;
  #timer: NodeJS.Timeout | null = null;
  readonly #unreadable = new Set<string>();
  #decided: Published[] = [];
  /** What replicas had not got yet when it was to be published. */
  #held: Published[] = [];
  #round: Promise<void> | null = null;
  #poll: Promise<void> | null = null;
  #lookedForAbandonedAt = Number.NEGATIVE_INFINITY;

  constructor(deps: ForwarderDependencies) {
    this.#deps = deps;
  }

  start(): void {
    this.#timer = setInterval(() => {
      for (const result of this.#held.splice(0)) this.published(result);
      void this.#takeTurn();
    }, POLL_MS);
    this.#lookForLeftovers();
  }

  /** This process has put it into the outbox. What comes in one turn of the event loop, or meanwhile, goes together. */
  published(result: Published): void {
    this.#decided.push(result);
    this.#forwardSoon();
  }

  /** Forwards what is there, then stops. */
  async close(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    while (this.#round) await this.#round;
    this.#lookForLeftovers();
    await this.#poll;
  }

  #forwardSoon(): void {
    this.#round ??= this.#forwardDecided().finally(() => {
      this.#round = null;
      if (this.#decided.length > 0) this.#forwardSoon(); // it came while this round was at its last step
    });
  }

  async #forwardDecided(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#decided.length > 0) await this.#forward(this.#decided.splice(0, BATCH));
  }

  /** One worker at a time is enough. */
  async #takeTurn(): Promise<void> {
    const { redis, keys } = this.#deps;
    try {
      const mine = await redis.set(`${keys.outbox}:turn`, '1', 'PX', Math.round(POLL_MS * 0.9), 'NX');
      if (mine === 'OK') this.#lookForLeftovers();
    } catch (error) {
      this.#tell(error);
    }
  }

  #lookForLeftovers(): void {
    this.#poll ??= this.#forwardLeftovers()
      .catch((error: unknown) => this.#tell(error)) // the next poll tries again; nothing is lost
      .finally(() => {
        this.#poll = null;
      });
  }

  async #forwardLeftovers(): Promise<void> {
    const { redis, keys, now, abandonedMs = ABANDONED_MS } = this.#deps;
    const abandonedBefore = this.#mayBeAbandoned() ? now() - abandonedMs : 0;
    const alive = new Map<string, boolean>();
    for (let from = '-'; ; ) {
      const entries = await redis.xrange(keys.outbox, from, '+', 'COUNT', BATCH);
      for (const owner of new Set(entries.map(ownerOf))) {
        if (!alive.has(owner)) alive.set(owner, (await redis.exists(keys.heartbeat(owner))) === 1);
      }
      const leftovers = entries.filter((entry) => !alive.get(ownerOf(entry)) || timeOf(entry) <= abandonedBefore);
      await this.#forward(leftovers.flatMap((entry) => this.#read(entry)));
      const last = entries.at(-1);
      if (last === undefined || entries.length < BATCH) return;
      from = `(${last[0]}`;
    }
  }

  /** Now and then also what a living worker has not got rid of: its own queue may have refused it. */
  #mayBeAbandoned(): boolean {
    if (performance.now() - this.#lookedForAbandonedAt < LOOK_FOR_ABANDONED_MS) return false;
    this.#lookedForAbandonedAt = performance.now();
    return true;
  }

  /** Nothing of one that nobody can read: it is told once and stays where it is, for a person to see. */
  #read(entry: StreamEntry): Published[] {
    const [entryId] = entry;
    if (this.#unreadable.has(entryId)) return [];
    try {
      return [readEntry(entry, this.#deps.partition)];
    } catch (error) {
      this.#unreadable.add(entryId);
      this.#tell(error);
      return [];
    }
  }

  async #forward(results: readonly Published[]): Promise<void> {
    try {
      const kept = results.length === 0 ? [] : await this.#deps.kept(results.map(({ entryId }) => entryId));
      if (kept === null) this.#held.push(...results);
      else await this.#forwardKept(keptOf(results, kept));
    } catch (error) {
      this.#tell(error);
    }
  }

  /** What one client's queue refuses stays in the outbox and holds back nothing else. */
  async #forwardKept(results: readonly Published[]): Promise<void> {
    const byDestination = new Map<string, [Outgoing, ...Outgoing[]]>();
    for (const result of results) {
      const outgoing = this.#outgoing(result);
      const destination = `${outgoing.queue} ${outgoing.hasWebhook ? result.record.client : ''}`;
      const others = byDestination.get(destination);
      if (others) others.push(outgoing);
      else byDestination.set(destination, [outgoing]);
    }
    await Promise.all(
      [...byDestination.values()].map(async (together) => {
        try {
          await this.#publish(together);
        } catch (error) {
          this.#tell(error);
        }
      }),
    );
  }

  #outgoing(result: Published): Outgoing {
    const { record, type } = result;
    const { resultsQueue = RESULTS_QUEUE, sealedToClient, hasWebhook } = this.#deps.client(record.client);
    const event = resultEventOf(record, type, record.client, sealedToClient);
    return { ...result, queue: resultsQueue, hasWebhook, event };
  }

  /** All of them go to the same places. */
  async #publish(results: readonly [Outgoing, ...Outgoing[]]): Promise<void> {
    const { redis, keys, partition, retentionMs, events, resultsQueue, webhookQueue, held } = this.#deps;
    const [{ queue, hasWebhook, record }] = results;
    const { publishedChannel } = namesOf(redis);
    const jobs = (options: JobsOptions): { name: string; data: ResultEvent; opts: JobsOptions }[] =>
      results.map(({ type, event }) => ({ name: type, data: event, opts: { ...options, jobId: event.id } }));
    // Before it leaves the outbox: what a failover takes out of a queue is published once more.
    const put = async (into: Queue, options: JobsOptions): Promise<unknown> => {
      const work = async (): Promise<unknown> => await into.addBulk(jobs(options));
      return held ? await held.during(into.toKey('meta'), work) : await work();
    };
    await Promise.all([
      put(resultsQueue(queue), RESULT_JOB_OPTIONS),
      hasWebhook ? put(webhookQueue(record.client), WEBHOOK_JOB_OPTIONS) : null,
      redis.publish(publishedChannel, results.map(({ record }) => `${record.id}.${record.sequence}`).join(' ')),
      ...claimsByClient(results, true).map((claims) => claimsEnd(claims, retentionMs, redis)),
      ...claimsByClient(results, false).map((claims) => claimsDone(claims, redis)),
    ]);
    await redis.xdel(keys.outbox, ...results.map(({ entryId }) => entryId));
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

/** Most often all of them. */
function keptOf(results: readonly Published[], kept: readonly string[]): readonly Published[] {
  if (kept.length === results.length) return results;
  const ids = new Set(kept);
  return results.filter(({ entryId }) => ids.has(entryId));
}

/**
 * Of those whose verifications have ended just now, or have not: their acceptance may have died before it could say that it
 * is complete, and a claim that is not ends in a week. A client's are in one slot. What is said of an end later has none.
 */
function claimsByClient(results: readonly Outgoing[], final: boolean): ClaimMade[][] {
  const claims = new Map<string, ClaimMade[]>();
  for (const { record } of results) {
    if (record.final !== final || record.claimKey === '') continue;
    const claim = { key: record.claimKey, id: record.id };
    const others = claims.get(record.client);
    if (others) others.push(claim);
    else claims.set(record.client, [claim]);
  }
  return [...claims.values()];
}

function readEntry(entry: StreamEntry, partition: string): Published {
  const [entryId] = entry;
  const { id = '', type = '', at = '', record: snapshot = '' } = fieldsOf(entry);
  let raw: RawRecord;
  try {
    raw = { ...(JSON.parse(snapshot) as RawRecord), updatedAt: at };
  } catch {
    throw new Error(`the outbox of ${partition} holds an entry that is none of ours: ${entryId}`);
  }
  const record = readRecord(id, partition, raw);
  if (record === null) throw new Error(`the outbox of ${partition} holds an entry without a state: ${entryId}`);
  return { entryId, record, type };
}

function fieldsOf([, flat]: StreamEntry): Readonly<Record<string, string>> {
  return hashIn(flat);
}

function ownerOf(entry: StreamEntry): string {
  return fieldsOf(entry).by ?? '';
}

/** Unix ms: an entry's id begins with it. */
function timeOf([entryId]: StreamEntry): number {
  return Number.parseInt(entryId, 10);
}
