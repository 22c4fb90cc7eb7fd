/**
 * Whether a code that is taken now can still be sent before its deadline. An estimate, to spare a customer a wait that
 * cannot end well; never a reason to keep anybody waiting, so what cannot be known quickly counts as no backlog.
 */
import type { Queue } from 'bullmq';
import { within } from '../time-limit.ts';
import type { VerificationJob } from './job.ts';
import type { VerificationRequest } from './request.ts';

export interface BacklogGuardOptions {
  queue(partition: string): Pick<Queue<VerificationJob>, 'getJobCounts'>;
  /** The rate at which a partition is served, over all workers. */
  rateLimit(partition: string): { readonly max: number; readonly perMs: number } | undefined;
  readonly now?: () => number;
}

export interface Backlogged {
  readonly retryAfterMs: number;
}

/** Old enough to be asked for again; and, so long after that, too old to go by. */
const READING_LIFE_MS = 250;
const READING_STALE_MS = 750;
const READING_LIMIT_MS = 200;
const LONGEST_RETRY_AFTER_MS = 60_000;

/** `delayed` counts too: there stand those who found no rate token, each with its time. */
const UNSERVED = ['wait', 'prioritized', 'active', 'delayed'] as const;

/** The latest depth of one queue; null while it is not known. */
interface Reading {
  depth: number | null;
  /** Let in since the reading was taken, by this process. */
  admitted: number;
  until: number;
  pending: Promise<void> | null;
}

/** To be asked for new work only; null lets it pass. */
export function backlogGuard(
  options: BacklogGuardOptions,
): (request: VerificationRequest) => Promise<Backlogged | null> {
  const { now = Date.now } = options;
  const readings = new Map<string, Reading>();

  async function currentReading(partition: string): Promise<Reading> {
    const reading = readings.get(partition) ?? { depth: null, admitted: 0, until: 0, pending: null };
    readings.set(partition, reading);
    if (now() < reading.until) return reading;
    reading.pending ??= count(partition, reading).finally(() => {
      reading.pending = null;
    });
    // Whoever comes while it is being asked for goes by the last one, and by what was let in since.
    if (reading.depth === null || now() >= reading.until + READING_STALE_MS) await reading.pending;
    return reading;
  }

  async function count(partition: string, reading: Reading): Promise<void> {
    const admittedBefore = reading.admitted;
    try {
      const counts = await within(READING_LIMIT_MS, options.queue(partition).getJobCounts(...UNSERVED));
      reading.depth = UNSERVED.reduce((sum, state) => sum + (counts[state] ?? 0), 0);
    } catch {
      reading.depth = null; // Redis is slow or away: accepting will find out, and say so
    }
    reading.admitted -= admittedBefore; // what was let in meanwhile may not have been counted
    reading.until = now() + READING_LIFE_MS;
  }

  return async ({ partition, expiresAt }) => {
    const rate = options.rateLimit(partition.name);
    if (!rate) return null;
    const reading = await currentReading(partition.name);
    if (reading.depth === null) return null;
    const untilDeadlineMs = expiresAt === null ? partition.otpLifetimeMs : expiresAt - now();
    const availableMs = Math.min(untilDeadlineMs, partition.maxQueueMs ?? Number.POSITIVE_INFINITY);
    const neededMs = ((reading.depth + reading.admitted) * rate.perMs) / rate.max;
    // A code that is dead already is taken, and settled as such: no later time would suit it better.
    if (availableMs <= 0 || neededMs <= availableMs) {
      reading.admitted += 1;
      return null;
    }
    return { retryAfterMs: Math.min(neededMs - availableMs, LONGEST_RETRY_AFTER_MS) };
  };
}
