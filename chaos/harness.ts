/** What the programs that break things share: how a run begins, how results are drained, how it ends, and what the judge says. */
import { mkdirSync, rmSync } from 'node:fs';
import type { IntervalHistogram } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'bullmq';
import { RESULTS_QUEUE, resultsPrefix } from '../src/producers/job.ts';
import type { ResultEvent } from '../src/producers/result.ts';
import { connectRedis, type RedisSettings } from '../src/redis/connections.ts';
import type { SandboxProvider } from '../src/sandbox/index.ts';
import {
  booksByTransaction,
  type Case,
  impatience,
  judge,
  VIOLATIONS,
  type Violation,
  type WireEntry,
} from './judge.ts';
import { type Enquiry, idOf, type Load } from './load.ts';
import type { Story } from './plan.ts';
import type { World } from './world.ts';

/** From the end of the troubles until every verification must have its end. */
const SETTLE_WITHIN_MS = 90_000;
/** An entry that a dead forwarder had read is claimed after ten seconds, looked for every five. */
const RESULTS_WITHIN_MS = 30_000;

/** Where one run keeps its logs, its append-only files and its ledger; empty. */
export function freshFolder(...names: readonly string[]): string {
  const folder = fileURLToPath(new URL(`../.data/${names.join('/')}/`, import.meta.url));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return folder;
}

/** Every request that carries a code of these stories, as the world sees it leave. */
export function wireOf(stories: readonly Story[]): {
  readonly wire: readonly WireEntry[];
  onProviderRequest(provider: SandboxProvider, text: string, atMs: number): void;
} {
  const references = new Map(stories.map(({ provider, reference }) => [`${provider} ${reference}`, reference]));
  const wire: WireEntry[] = [];
  return {
    wire,
    onProviderRequest: (provider, text, atMs) => {
      const entry = wireEntryOf(provider, text, atMs, references);
      if (entry) wire.push(entry);
    },
  };
}

/** Everything is up again: waits until every verification has its end, or has waited too long, and its results are there. */
export async function untilSettled(
  world: World,
  load: Load,
  onOpen: (open: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const giveUpAt = performance.now() + SETTLE_WITHIN_MS;
  await inBatches(load.enquiries, 50, async (enquiry) => await load.insist(enquiry, giveUpAt));
  while (!signal.aborted) {
    // Who has a reason to wait now may have none in a moment, when the provider has ended what it was about.
    const open = load.enquiries.filter(({ resource }) => !resource?.final);
    await inBatches(open, 50, async (enquiry) => void (await load.look(enquiry)));
    const booksFor = booksByTransaction(world.ledger());
    const waiting = open.filter((enquiry) => {
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
  world: World,
  load: Load,
  results: () => readonly ResultEvent[],
  signal: AbortSignal,
): Promise<void> {
  const resultsBy = performance.now() + RESULTS_WITHIN_MS;
  while (missingResults(load.enquiries, results()) > 0 && performance.now() < resultsBy && !signal.aborted) {
    await delay(200);
  }
  await inBatches(load.enquiries, 50, async (enquiry) => void (await load.look(enquiry)));
  await delay(1_500); // for a repeat that should not be
  await world.readMetrics();
}

/**
 * The judge's word on all that was said and done, the harness's own slowness taken off.
 * @param lag of this process's event loop, since the run began
 * @param networkDelayMs at most, between a worker and a provider
 */
export function verdictOn(
  world: World,
  {
    lag,
    networkDelayMs = 0,
    ...evidence
  }: {
    readonly cases: readonly Case[];
    readonly results: readonly ResultEvent[];
    readonly wire: readonly WireEntry[];
    readonly lag: IntervalHistogram;
    readonly networkDelayMs?: number;
  },
): Violation[] {
  const wireLagMs = Math.ceil(lag.max / 1e6) + 250;
  return judge({
    ...evidence,
    ledger: world.ledger(),
    sendsAfterDeadline: world.metrics.sum('otp_sends_after_deadline_total'),
    wireLagMs,
    networkDelayMs: networkDelayMs + 1_000 + wireLagMs,
  });
}

/** The first of them, a line each. */
export function tellViolations(program: string, violations: readonly Violation[]): void {
  for (const { kind, says, provider, reference, id } of violations.slice(0, 10)) {
    console.log(`${program}: ${VIOLATIONS[kind]}: ${provider} ${reference} ${id}: ${says}`);
  }
}

/** Kept when somebody must look into it. */
export function leaveFolder(program: string, folder: string, keep: boolean): void {
  if (keep) console.log(`${program}: everything is kept in ${folder}`);
  else rmSync(folder, { recursive: true, force: true });
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
function wireEntryOf(
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
