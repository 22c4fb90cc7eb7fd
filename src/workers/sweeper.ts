/**
 * What should have happened by now and has not: dead codes are settled at their deadline, attempts whose worker is gone
 * become unknown, jobs that vanished from a queue are put back, inquiries are scheduled again, patience ends. It reads
 * the due set only, so it works while a queue is paused, and nothing depends on a BullMQ job surviving.
 */
import type { JobsOptions, Queue } from 'bullmq';
import { asError, type EventBus } from '../events.ts';
import { VERIFICATION_JOB_OPTIONS, type VerificationJob } from '../producers/job.ts';
import { NewerFormatError, type VerificationRecord } from '../producers/record.ts';
import type { Evidence } from './decide.ts';
import type { Journal } from './journal.ts';
import { BEAT_MS } from './witness.ts';

const TICK_MS = BEAT_MS;
const BATCH = 200;
const BATCHES_PER_TICK = 5;
const LOOK_AGAIN_MS = 5_000;
const OWNER_LOOK_AGAIN_MS = 1_000;
const REVIEW_LOOK_AGAIN_MS = 3_600_000;
const BROKEN_LOOK_AGAIN_MS = 60_000;

export interface SweeperDependencies {
  readonly partition: string;
  readonly journal: Journal;
  readonly verifications: Queue<VerificationJob>;
  readonly inquiries: Queue<VerificationJob>;
  readonly events: EventBus;
  /** After that a person is asked, also where inquiries are held back. */
  readonly giveUpAfterMs: number;
  /** Says that this worker lives; false while the journal is recovering, when what is missing may have been lost. */
  beat(): Promise<boolean>;
  /** Decides on the evidence and writes it down. */
  conclude(record: VerificationRecord, evidence: Evidence): Promise<void>;
}

export class Sweeper {
  readonly #deps: SweeperDependencies;
  #timer: NodeJS.Timeout | null = null;
  #sweep: Promise<void> | null = null;
  #reviewsCleanedAt = Date.now();

  constructor(deps: SweeperDependencies) {
    this.#deps = deps;
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#sweep ??= this.#tick().finally(() => {
        this.#sweep = null;
      });
    }, TICK_MS);
  }

  async close(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    await this.#sweep;
  }

  async #tick(): Promise<void> {
    const { journal, events, partition } = this.#deps;
    try {
      if (!(await this.#deps.beat())) return;
      if (!(await journal.mayOneSweep(TICK_MS * 0.9))) return;
      for (let batch = 0; batch < BATCHES_PER_TICK; batch += 1) {
        const ids = await journal.overdue(BATCH);
        for (const id of ids) await this.#lookSafely(id);
        if (ids.length < BATCH) break;
      }
      if (Date.now() - this.#reviewsCleanedAt < REVIEW_LOOK_AGAIN_MS) return;
      this.#reviewsCleanedAt = Date.now();
      await journal.forgetExpiredReviews();
    } catch (error) {
      events.emit('machinery:failed', { where: `sweeper of ${partition}`, error: asError(error) });
    }
  }

  /** One that cannot be looked at, a record that was tampered with, keeps no other from being looked at. */
  async #lookSafely(id: string): Promise<void> {
    const { journal, events, partition } = this.#deps;
    try {
      await this.#look(id);
    } catch (error) {
      if (error instanceof NewerFormatError) events.emit('format:newer', { partition, fault: error.message });
      else events.emit('machinery:failed', { where: `sweeper of ${partition}, at ${id}`, error: asError(error) });
      await journal.lookAgain(id, journal.now() + BROKEN_LOOK_AGAIN_MS);
    }
  }

  async #look(id: string): Promise<void> {
    const { journal, verifications, inquiries, conclude, giveUpAfterMs } = this.#deps;
    const record = await journal.read(id);
    if (record === null) return await journal.forget(id);
    const now = journal.now();
    switch (record.state) {
      case 'queued':
        if (now >= record.expiresAt) return await conclude(record, { from: 'deadline' });
        await this.#putBack(verifications, VERIFICATION_JOB_OPTIONS, record, Math.max(0, record.notBefore - now));
        // Behind a long backlog, look less and less often.
        return await journal.lookAgain(
          id,
          Math.min(record.expiresAt, now + Math.max(LOOK_AGAIN_MS, now - record.createdAt)),
        );
      case 'sending':
        if (now <= record.inFlightUntil && (await journal.ownerLives(record))) {
          return await journal.lookAgain(id, now + OWNER_LOOK_AGAIN_MS);
        }
        return await conclude(record, { from: 'owner_dead' });
      case 'awaiting':
        if (record.nextInquiryAt > 0 && (record.needsReview || now < record.awaitingSince + giveUpAfterMs)) {
          await this.#putBack(inquiries, {}, record, Math.max(0, record.nextInquiryAt - now));
          return await journal.lookAgain(id, now + LOOK_AGAIN_MS);
        }
        if (!record.needsReview) return await conclude(record, { from: 'patience_over' });
        return await journal.lookAgain(id, now + REVIEW_LOOK_AGAIN_MS);
      case 'settled':
        return await journal.forget(id);
    }
    return record.state satisfies never;
  }

  /** The job, if it is gone or lies among the failed; a job that waits its turn is left where it is. */
  async #putBack(
    queue: Queue<VerificationJob>,
    options: JobsOptions,
    record: VerificationRecord,
    delay: number,
  ): Promise<void> {
    const job = await queue.getJob(record.id);
    if (job && job.finishedOn === undefined) return;
    if (job) await job.remove();
    await queue.add(record.operation, { v: 1, id: record.id }, { ...options, jobId: record.id, delay });
    this.#deps.events.emit('job:recreated', { id: record.id, queue: queue.name });
  }
}
