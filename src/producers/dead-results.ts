/**
 * Results that nobody could handle: those whose handler rejected ten times, and jobs that are no result. They lie among the
 * failed of their queue for `results.retentionMs`, where metrics count them; here they are named, and handed over once
 * more. Nothing of what a result says is shown: who may list need not be who may read.
 */
import type { Job, Queue } from 'bullmq';
import { type ResultType, resultEventSchema } from './result.ts';

export interface DeadResult {
  /** The job's; of a result `<verification id>.<sequence>`. */
  readonly id: string;
  /** Null: it is no result, and no replay would make one of it. */
  readonly result: { readonly subject: string; readonly type: ResultType; readonly client: string } | null;
  /** The name of the handler's last error, or what is wrong with the job. */
  readonly reason: string;
  readonly tries: number;
  /** Unix ms. */
  readonly since: number;
}

/** Longest dead first. */
export async function deadResults(queue: Queue, limit = 100): Promise<DeadResult[]> {
  const jobs = await queue.getJobs(['failed'], 0, limit - 1, true);
  return jobs.map((job) => ({
    id: String(job.id),
    result: resultIn(job),
    reason: job.failedReason ?? '',
    tries: job.attemptsMade,
    since: job.finishedOn ?? job.timestamp,
  }));
}

/**
 * Hands them over again, with ten tries each: one, or all of them. What is no result stays where it is.
 * @returns how many. One that is not newer than what its consumer has handled meanwhile is dropped there, as ever.
 */
export async function replayDeadResults(queue: Queue, id?: string): Promise<number> {
  const jobs = id === undefined ? await queue.getJobs(['failed']) : [await queue.getJob(id)];
  let replayed = 0;
  for (const job of jobs) {
    if (!job || resultIn(job) === null || !(await job.isFailed())) continue;
    await job.retry('failed', { resetAttemptsMade: true });
    replayed += 1;
  }
  return replayed;
}

function resultIn({ data }: Job<unknown>): DeadResult['result'] {
  const parsed = resultEventSchema.safeParse(data);
  if (!parsed.success) return null;
  const { subject, type, client } = parsed.data;
  return { subject, type, client };
}
