/** What the programs that break things share: how results are drained, how a run ends, and what the judge is told of it. */
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'bullmq';
import { RESULTS_QUEUE, resultsPrefix } from '../src/producers/job.ts';
import type { ResultEvent } from '../src/producers/result.ts';
import { connectRedis, type RedisSettings } from '../src/redis/connections.ts';
import type { SandboxProvider } from '../src/sandbox/index.ts';
import { booksByTransaction, type Case, impatience, type WireEntry } from './judge.ts';
import { type Enquiry, idOf, type Load } from './load.ts';
import type { World } from './world.ts';

/** From the end of the troubles until every verification must have its end. */
export const SETTLE_WITHIN_MS = 90_000;
/** An entry that a dead forwarder had read is claimed after ten seconds, looked for every five. */
const RESULTS_WITHIN_MS = 30_000;

/** Everything is up again: waits until every verification has its end, or has waited too long, and its results are there. */
export async function untilSettled(
  world: World,
  load: Load,
  onOpen: (open: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const giveUpAt = performance.now() + SETTLE_WITHIN_MS;
  await inBatches(load.enquiries, 50, async (enquiry) => await load.insist(enquiry, giveUpAt));
  let waiting: readonly Enquiry[] = load.enquiries;
  while (!signal.aborted) {
    await inBatches(waiting, 50, async (enquiry) => void (await load.look(enquiry)));
    const booksFor = booksByTransaction(world.ledger());
    waiting = waiting.filter((enquiry) => {
      if (enquiry.resource === null) return true;
      const one = caseOf(enquiry);
      return impatience(one, booksFor(one)) !== null;
    });
    onOpen(waiting.length);
    if (waiting.length === 0 || performance.now() > giveUpAt) break;
    await delay(500);
  }
}

/** The last results come; then all is looked at once more, because what waited may have moved on meanwhile. */
export async function untilPublished(
  load: Load,
  results: () => readonly ResultEvent[],
  signal: AbortSignal,
): Promise<void> {
  const resultsBy = performance.now() + RESULTS_WITHIN_MS;
  while (missingResults(load.enquiries, results()) > 0 && performance.now() < resultsBy && !signal.aborted) {
    await delay(200);
  }
  await inBatches(load.enquiries, 50, async (enquiry) => void (await load.look(enquiry)));
}

/** Every result as it comes, repeats included: what a client's consumer would drop is what the judge wants to see. */
export function drain(
  redis: string | RedisSettings,
  onResult: (result: ResultEvent) => void,
): { close(): Promise<void> } {
  const connection = connectRedis(redis, 'worker', { onError: () => {}, name: 'chaos-results' });
  const worker = new Worker<ResultEvent>(RESULTS_QUEUE, async (job) => onResult(job.data), {
    connection,
    prefix: resultsPrefix(RESULTS_QUEUE),
    concurrency: 50,
    lockDuration: 5_000,
    stalledInterval: 2_500,
    maxStalledCount: 1_000_000,
  });
  worker.on('error', () => {});
  return {
    close: async () => {
      await worker.close(true);
      connection.disconnect();
    },
  };
}

function missingResults(enquiries: readonly Enquiry[], results: readonly ResultEvent[]): number {
  const seen = new Set(results.map(({ id }) => id));
  return enquiries.filter(({ resource }) => {
    if (resource === null) return false;
    return Array.from({ length: resource.sequence }, (_, index) => `${resource.id}.${index + 1}`).some(
      (id) => !seen.has(id),
    );
  }).length;
}

export function caseOf(enquiry: Enquiry): Case {
  const { story, submission, posts, resource } = enquiry;
  return {
    key: submission.key,
    provider: story.provider,
    operation: submission.operation,
    reference: story.reference,
    otp: submission.otp,
    amount: submission.amount?.value ?? null,
    ids: posts.flatMap(({ id }) => (id === null ? [] : [id])),
    statuses: posts.flatMap(({ answer }) => (typeof answer === 'number' ? [answer] : [])),
    resource: idOf(enquiry) === null ? null : resource,
  };
}

/** A request that carries a code, by what its body says; null for every other one. */
export function wireEntryOf(
  provider: SandboxProvider,
  text: string,
  atMs: number,
  references: ReadonlyMap<string, string>,
): WireEntry | null {
  if (!text.startsWith('POST ')) return null;
  const [, otp] = /"(?:otp|code)":"?([0-9A-Za-z]{4,10})"?/.exec(text) ?? [];
  const [, named] = /"(?:uuid|phone_number|originalReferenceNo|reference|transactionRef)":"([^"]+)"/.exec(text) ?? [];
  if (otp === undefined || named === undefined) return null;
  const reference = references.get(`${provider} ${named}`);
  return reference === undefined ? null : { provider, reference, otp, atMs };
}

async function inBatches<T>(all: readonly T[], size: number, work: (one: T) => Promise<void>): Promise<void> {
  const queue = [...all];
  const hands = Array.from({ length: size }, async () => {
    for (let one = queue.shift(); one !== undefined; one = queue.shift()) await work(one);
  });
  await Promise.all(hands);
}
