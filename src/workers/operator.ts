/**
 * What a person may do from outside the workers, by the command line or the console: ask the provider now, settle what no
 * machine can, end the review of two proofs that disagree, hold a partition. Evidence goes the way of all evidence: decided
 * by the policy, written to the revision it was decided on. Nothing here can send a code, and nothing takes back what is
 * final. All of it is audited.
 */
import { Queue } from '../bullmq.ts';
import { asError, EventBus } from '../events.ts';
import { namesOf, type PartitionKeys, type VerificationJob } from '../producers/job.ts';
import type { VerificationRecord } from '../producers/record.ts';
import type { RedisConnection } from '../redis/connections.ts';
import type { Facts } from './change.ts';
import type { Evidence } from './decide.ts';
import { Journal, type JournalSettings } from './journal.ts';
import { Witness } from './witness.ts';
import { scheduleInquiry } from './worker.ts';

/** Kept of what persons did, per partition. */
const AUDIT_ENTRIES = 100_000;

export type Action = 'inquire' | 'resolve' | 'pause' | 'resume';

export interface Statement {
  readonly as: 'succeeded' | 'failed';
  /** What proves it, for whoever asks later: a statement, a case number. */
  readonly evidence: string;
  readonly by: string;
}

export type Done =
  /** `again`: it was so already, and nothing was written. */
  | { readonly is: 'done'; readonly again: boolean }
  /** A sentence for the person, without the verification's id. */
  | { readonly is: 'refused'; readonly because: string };

export interface OperatorOptions {
  readonly redis: RedisConnection;
  /** As `journalSettings` makes them, one for each partition. */
  readonly partitions: readonly JournalSettings[];
  /** Names this process to the journal. */
  readonly name: string;
  readonly events?: EventBus;
}

export class Operator {
  readonly #redis: RedisConnection;
  readonly #partitions: ReadonlyMap<string, { readonly settings: JournalSettings; readonly journal: Journal }>;
  readonly #events: EventBus;

  constructor({ redis, partitions, name, events = new EventBus() }: OperatorOptions) {
    this.#redis = redis;
    this.#events = events;
    this.#partitions = new Map(
      partitions.map((settings) => [
        settings.partition,
        { settings, journal: new Journal(redis, settings, new Witness(redis, settings, name, events), events) },
      ]),
    );
  }

  /** Why a person cannot do this to a verification as it stands; null when it can be done. */
  refusal(record: VerificationRecord, action: 'inquire' | 'resolve'): string | null {
    const { state, partition, standing, needsReview } = record;
    const known = this.#partitions.get(partition);
    if (known === undefined) return `providers: ${partition} is not configured here`;
    if (state === 'settled' && needsReview && action === 'resolve') return null;
    if (state === 'settled')
      return `it is final, ${standing?.otp} / ${standing?.transaction}, and that is never taken back`;
    if (state !== 'awaiting') return `it is ${state}, so there is nothing to prove yet`;
    if (action === 'inquire' && !known.settings.policy.canInquire(record))
      return `${partition} has no inquiry for it; it waits for a callback, or for a person's evidence`;
    return null;
  }

  async inquire(record: VerificationRecord, by: string): Promise<Done> {
    return await this.#conclude(record, 'inquire', { from: 'nudge' }, { by });
  }

  async resolve(record: VerificationRecord, { as, evidence, by }: Statement): Promise<Done> {
    return await this.#conclude(record, 'resolve', { from: 'operator', as }, { as, evidence, by });
  }

  /**
   * No worker begins another verification of the partition. What is under way ends, inquiries and callbacks go on, and
   * what is still queued at its deadline settles as not submitted.
   */
  async pause(partition: string, by: string, because: string): Promise<Done> {
    return await this.#hold(partition, 'pause', by, because);
  }

  async resume(partition: string, by: string, because: string): Promise<Done> {
    return await this.#hold(partition, 'resume', by, because);
  }

  async #conclude(
    record: VerificationRecord,
    action: 'inquire' | 'resolve',
    evidence: Evidence,
    facts: Facts,
  ): Promise<Done> {
    const { id, partition } = record;
    const refused = this.refusal(record, action);
    const known = this.#partitions.get(partition);
    if (known === undefined || refused !== null) return saidBefore(record, action, facts) ?? refusedBecause(refused);
    // What comes next is due by the clock of Redis, and this machine may be minutes away from it.
    const [seconds = 0, micros = 0] = (await this.#redis.time()).map(Number);
    known.journal.witness.sawClock(seconds * 1_000 + Math.floor(micros / 1_000));
    const { verdict } = await known.journal.apply(record, evidence, facts, async () => {
      throw new Error('a person brings no details of the provider');
    });
    if (verdict === null || verdict.do === 'nothing') {
      const moved = (await known.journal.read(id)) ?? record;
      return saidBefore(moved, action, facts) ?? refusedBecause(this.refusal(moved, action));
    }
    const keys = namesOf(this.#redis).partitionKeys(partition);
    await this.#audit(keys, { id, action, ...facts, verdict: verdict.do });
    if (verdict.do === 'await' && verdict.inquireInMs !== null) await this.#ask(keys, id, verdict.inquireInMs);
    return { is: 'done', again: false };
  }

  /** What was decided stands, and the sweeper puts in what is not there when its time comes. */
  async #ask(keys: PartitionKeys, id: string, inMs: number): Promise<void> {
    try {
      await this.#withQueue(keys, keys.inquiryQueue, async (queue) => await scheduleInquiry(queue, id, inMs));
    } catch (error) {
      this.#events.emit('machinery:failed', { where: `inquiries of ${keys.queue}`, error: asError(error) });
    }
  }

  async #hold(partition: string, action: 'pause' | 'resume', by: string, because: string): Promise<Done> {
    if (!this.#partitions.has(partition)) return refusedBecause(`providers: ${partition} is not configured here`);
    const keys = namesOf(this.#redis).partitionKeys(partition);
    return await this.#withQueue(keys, keys.queue, async (queue): Promise<Done> => {
      if ((await queue.isPaused()) === (action === 'pause')) return { is: 'done', again: true };
      // First, for nothing else remembers who did it.
      await this.#audit(keys, { action, by, evidence: because });
      if (action === 'pause') await queue.pause();
      else await queue.resume();
      return { is: 'done', again: false };
    });
  }

  async #audit(keys: PartitionKeys, facts: Facts): Promise<void> {
    const fields = Object.entries(facts).flatMap(([name, fact]) => [name, String(fact)]);
    await this.#redis.xadd(keys.audit, 'MAXLEN', '~', AUDIT_ENTRIES, '*', ...fields);
  }

  async #withQueue<T>(
    keys: PartitionKeys,
    name: string,
    work: (queue: Queue<VerificationJob>) => Promise<T>,
  ): Promise<T> {
    const queue = new Queue<VerificationJob>(name, {
      connection: this.#redis,
      prefix: keys.prefix,
      skipMetasUpdate: true,
      skipWaitingForReady: true,
    });
    queue.on('error', (error) => this.#events.emit('machinery:failed', { where: `queue ${name}`, error }));
    try {
      return await work(queue);
    } finally {
      await queue.close();
    }
  }
}

/** The same word of the same person twice, a form that was sent twice, is one. */
function saidBefore({ history }: VerificationRecord, action: Action, facts: Facts): Done | null {
  if (action !== 'resolve') return null;
  const same = history.some(
    (entry) => entry.event === 'resolved' && Object.entries(facts).every(([name, fact]) => entry[name] === fact),
  );
  return same ? { is: 'done', again: true } : null;
}

function refusedBecause(reason: string | null): Done {
  return { is: 'refused', because: reason ?? 'it has just moved on; look at it again' };
}
