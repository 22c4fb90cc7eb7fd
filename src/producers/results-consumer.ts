/**
 * Results for a client's handler: at least once, and after the handler has resolved not again. The highest handled
 * sequence of each verification is remembered in the slot of the results queue; what is not higher is dropped. It is
 * written after the handler, so a consumer that dies in between handles the same result once more.
 */
import type { Job } from 'bullmq';
import { UnrecoverableError, Worker } from '../bullmq.ts';
import { asError } from '../events.ts';
import type { connectRedis, RedisSettings } from '../redis/connections.ts';
import { Script } from '../redis/script.ts';
import { namesOf, RESULTS_QUEUE } from './job.ts';
import { type ResultEvent, resultEventSchema } from './result.ts';
import { Opener, type SealingKeySet, sealingKeySchema } from './sealing.ts';

export interface ResultsConsumerOptions {
  readonly redis: string | RedisSettings;
  /** The client's own queue where it has one; a queue has one logical consumer. */
  readonly queue?: string;
  /** A result counts as handled when this resolves; when it rejects the result comes again, later and later. */
  readonly handler: (result: ResultEvent) => Promise<void>;
  /** The private half of the client's results key: then `data.details` come opened. Else they stay as they came. */
  readonly openDetailsWith?: unknown;
  /** How long handled sequences are remembered: not shorter than the service's `journal.retentionMs`. */
  readonly retentionMs?: number;
  /** Results handled side by side; those of one verification never are, in one process. */
  readonly concurrency?: number;
  /** After so long without a sign of life of its process a result is handed to another consumer. */
  readonly stalledAfterMs?: number;
  /** Failed handlers, malformed results and faults of the connection; each is tried again or kept by the queue. */
  readonly onError?: (error: Error) => void;
}

export interface ResultsConsumer {
  /** Waits for the handlers that are running. `force` does not: what they were at comes again. */
  close(force?: boolean): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const RETENTION_MS = 259_200_000;
const CONCURRENCY = 10;
const STALLED_AFTER_MS = 30_000;

const handledScript = Script.fromFiles(new URL('./handled.lua', import.meta.url));

export function resultsConsumerOf(options: ResultsConsumerOptions, connect: typeof connectRedis): ResultsConsumer {
  const {
    queue = RESULTS_QUEUE,
    retentionMs = RETENTION_MS,
    concurrency = CONCURRENCY,
    stalledAfterMs = STALLED_AFTER_MS,
    onError = () => {},
  } = options;
  if (typeof options.handler !== 'function') throw new Error('createResultsConsumer: handler must be a function');
  for (const [name, value] of Object.entries({ retentionMs, concurrency, stalledAfterMs })) {
    if (Number.isSafeInteger(value) && value > 0) continue;
    throw new Error(`createResultsConsumer: ${name} must be a positive integer, got ${String(value)}`);
  }
  const keySet = options.openDetailsWith === undefined ? null : privateKeySetOf(options.openDetailsWith);
  const opener = keySet === null ? null : Opener.create(keySet);
  opener?.catch(() => {}); // told by the first result that has details

  const redis = connect(options.redis, 'worker', { onError, name: 'otp-results-consumer' });
  const turns = new Turns();
  const prefix = namesOf(redis).resultsPrefix(queue);
  const worker = new Worker<unknown>(
    queue,
    async (job) => {
      const result = resultIn(job);
      await turns.take(result.subject, async () => await handle(result));
    },
    {
      prefix,
      connection: redis,
      concurrency,
      lockDuration: stalledAfterMs,
      stalledInterval: stalledAfterMs / 2,
      // A consumer that died says nothing against the result.
      maxStalledCount: 1_000_000,
    },
  );
  worker.on('error', onError);
  let closing: Promise<void> | null = null;

  async function handle(result: ResultEvent): Promise<void> {
    const memory = `${prefix}:handled:${result.subject}`;
    const { sequence } = result.data;
    if (sequence <= Number((await redis.get(memory)) ?? 0)) return;
    const opened = await withOpenDetails(result);
    try {
      await options.handler(opened);
    } catch (error) {
      onError(asError(error));
      // What the handler throws may quote what it was given, and the queue keeps the text: only its name is kept.
      throw new Error(`the handler failed: ${asError(error).name}`);
    }
    await handledScript.run(redis, [memory], [sequence, retentionMs]);
  }

  async function withOpenDetails(result: ResultEvent): Promise<ResultEvent> {
    const { details } = result.data;
    if (opener === null || typeof details !== 'string') return result;
    return { ...result, data: { ...result.data, details: await (await opener).open(details) } };
  }

  function resultIn(job: Job<unknown>): ResultEvent {
    const parsed = resultEventSchema.safeParse(job.data);
    if (parsed.success) return parsed.data as unknown as ResultEvent;
    const faults = parsed.error.issues.map(({ path, message }) => `${path.join('.') || 'the job'}: ${message}`);
    const error = new UnrecoverableError(`this is no result: ${faults.join('; ')}`);
    onError(error);
    throw error;
  }

  async function end(force: boolean): Promise<void> {
    await worker.close(force);
    if (force) redis.disconnect();
    else await redis.quit().catch(() => redis.disconnect());
  }
  const close = (force = false): Promise<void> => {
    closing ??= end(force);
    return closing;
  };
  return { close, [Symbol.asyncDispose]: async () => await close() };
}

/** One after the other for each verification, so that a revision cannot overtake an earlier one at the handler. */
class Turns {
  readonly #last = new Map<string, Promise<void>>();

  async take(subject: string, work: () => Promise<void>): Promise<void> {
    const before = this.#last.get(subject) ?? Promise.resolve();
    const mine = before.catch(() => {}).then(work);
    this.#last.set(subject, mine);
    try {
      await mine;
    } finally {
      if (this.#last.get(subject) === mine) this.#last.delete(subject);
    }
  }
}

/** One JWK or a set of them, so that a key can be changed while results to the old one are on their way. */
function privateKeySetOf(given: unknown): SealingKeySet {
  const keys = typeof given === 'object' && given !== null && 'keys' in given ? given.keys : [given];
  const parsed = sealingKeySchema.array().min(1).safeParse(keys);
  if (parsed.success && parsed.data.some(({ d }) => d !== undefined)) return { keys: parsed.data };
  throw new Error(
    'createResultsConsumer: openDetailsWith must be a private JWK (OKP, X25519, with kid and d) or a set of them',
  );
}
