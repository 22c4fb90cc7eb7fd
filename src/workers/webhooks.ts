/**
 * Results to the clients' own HTTP endpoints, signed as Standard Webhooks 1.0 has it (standardwebhooks.com). Each client
 * has a queue, a worker and sockets of its own, so a receiver that is dead or slow delays nobody else's. A delivery may
 * be repeated, never lost: `webhook-id` is the result's id and the same each time, for the receiver to tell.
 */
import { createHmac } from 'node:crypto';
import type { Job, JobsOptions } from 'bullmq';
import { type Dispatcher, Pool } from 'undici';
import { Queue, UnrecoverableError, Worker } from '../bullmq.ts';
import { type EventBus, errorCodeOf, type WebhookOutcome } from '../events.ts';
import { namesOf, webhookQueueName } from '../producers/job.ts';
import type { ResultEvent } from '../producers/result.ts';
import type { RedisConnection } from '../redis/connections.ts';
import type { Secret } from '../secret.ts';

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;

/** Waits between the tries: dense while a customer may still be waiting, then until three days are over. */
export const WEBHOOK_DELAYS_MS: readonly number[] = [
  ...[4 * SECOND_MS, 15 * SECOND_MS, MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, HOUR_MS, 3 * HOUR_MS, 6 * HOUR_MS],
  ...[10 * HOUR_MS, 12 * HOUR_MS, 12 * HOUR_MS, 12 * HOUR_MS, 12 * HOUR_MS, 4 * HOUR_MS],
];

/** What could not be delivered stays visible among the failed, from where it can be replayed. */
export const WEBHOOK_JOB_OPTIONS = {
  attempts: WEBHOOK_DELAYS_MS.length + 1,
  backoff: { type: 'custom' },
  removeOnComplete: true,
  stackTraceLimit: 1,
} as const satisfies JobsOptions;

const CONCURRENCY = 10;
/** What a process had in hand when it died is delivered by another within two of these. */
const STALLED_INTERVAL_MS = 5_000;
const TIMEOUT_MS = 15 * SECOND_MS;
const LONGEST_RETRY_AFTER_MS = HOUR_MS;
const GONE = 410;

export interface WebhookSettings {
  readonly client: string;
  readonly url: string;
  /** `whsec_` and then the key in base64. */
  readonly secret: Secret<string>;
}

export interface WebhookDependencies {
  /** Of the `worker` profile. */
  readonly redis: RedisConnection;
  readonly events: EventBus;
  /** How sockets are opened; it decides which addresses may be reached. */
  readonly connect: NonNullable<Pool.Options['connect']>;
  /** Waits between the tries; production's by default. */
  readonly delaysMs?: readonly number[];
  readonly timeoutMs?: number;
  readonly stalledIntervalMs?: number;
}

/** The receiver did not take it: tried again later, in its own time where it gave one. */
class NotDelivered extends Error {
  override readonly name = 'NotDelivered';
  readonly retryAfterMs: number | null;

  constructor(why: string, retryAfterMs: number | null = null) {
    super(why);
    this.retryAfterMs = retryAfterMs;
  }
}

/** Delivers one client's results. */
export class WebhookSender {
  readonly #settings: WebhookSettings;
  readonly #key: Buffer;
  readonly #pool: Pool;
  readonly #queue: Queue<ResultEvent>;
  readonly #worker: Worker<ResultEvent>;
  readonly #events: EventBus;
  readonly #timeoutMs: number;

  constructor(settings: WebhookSettings, deps: WebhookDependencies) {
    const { client } = settings;
    const { redis, events, connect, delaysMs = WEBHOOK_DELAYS_MS, timeoutMs = TIMEOUT_MS } = deps;
    const { stalledIntervalMs = STALLED_INTERVAL_MS } = deps;
    this.#settings = settings;
    this.#events = events;
    this.#timeoutMs = timeoutMs;
    this.#key = Buffer.from(settings.secret.reveal().slice('whsec_'.length), 'base64');
    this.#pool = new Pool(new URL(settings.url).origin, { connections: CONCURRENCY, pipelining: 1, connect });
    const options = { connection: redis, prefix: namesOf(redis).webhookQueuePrefix(client) };
    this.#queue = new Queue(webhookQueueName(client), options);
    this.#worker = new Worker(webhookQueueName(client), async (job) => await this.#deliver(job), {
      ...options,
      autorun: false,
      concurrency: CONCURRENCY,
      stalledInterval: stalledIntervalMs,
      maxStalledCount: Number.MAX_SAFE_INTEGER, // a process that died says nothing against the receiver
      settings: { backoffStrategy: (made, _type, error) => waitAfter(made, error, delaysMs) },
    });
    const onError = (error: Error): void => events.emit('machinery:failed', { where: `webhooks of ${client}`, error });
    this.#queue.on('error', onError);
    this.#worker.on('error', onError);
  }

  start(): void {
    const { client } = this.#settings;
    this.#worker
      .run()
      .catch((error: Error) => this.#events.emit('machinery:failed', { where: `webhooks of ${client}`, error }));
  }

  /** Deliveries under way end; what they do not get to stays in the queue. */
  async close(): Promise<void> {
    await this.#worker.close();
    await this.#pool.destroy();
    await this.#queue.close();
  }

  async #deliver(job: Job<ResultEvent>): Promise<void> {
    const { client } = this.#settings;
    const { id: resultId, subject: id, traceparent = null } = job.data;
    const told = { client, id, traceparent, resultId, attempt: job.attemptsMade + 1 };
    const began = performance.now();
    const end = (outcome: WebhookOutcome, detail: string): void => {
      this.#events.emit('webhook:ended', { ...told, outcome, durationMs: performance.now() - began, detail });
    };
    try {
      end('delivered', await this.#post(job.data));
    } catch (error) {
      if (error instanceof UnrecoverableError) {
        end('gone', String(GONE));
        await this.#queue.pause(); // until an operator says that the endpoint is there again
      } else {
        const isLast = told.attempt >= (job.opts.attempts ?? 1);
        const detail = error instanceof NotDelivered ? error.message : 'UNNAMED_ERROR';
        end(isLast ? 'given_up' : 'failed', detail);
      }
      throw error;
    }
  }

  /** The status of the answer, which is a 2xx. */
  async #post(event: ResultEvent): Promise<string> {
    const { pathname, search } = new URL(this.#settings.url);
    const body = JSON.stringify(event);
    const timestamp = String(Math.floor(Date.now() / SECOND_MS));
    let answer: Dispatcher.ResponseData;
    try {
      answer = await this.#pool.request({
        path: pathname + search,
        method: 'POST',
        headers: {
          'content-type': 'application/cloudevents+json; charset=utf-8',
          'webhook-id': event.id,
          'webhook-timestamp': timestamp,
          'webhook-signature': signatureOf(this.#key, event.id, timestamp, body),
          'user-agent': 'otp-pipeline',
          ...(event.traceparent === undefined ? {} : { traceparent: event.traceparent }),
        },
        body,
        signal: AbortSignal.timeout(this.#timeoutMs),
      });
      await answer.body.dump({ limit: 65_536 });
    } catch (error) {
      throw new NotDelivered(errorCodeOf(error));
    }
    const { statusCode } = answer;
    if (statusCode >= 200 && statusCode < 300) return String(statusCode);
    // Standard Webhooks: 410 Gone asks that no more be sent.
    if (statusCode === GONE) throw new UnrecoverableError('the receiver answered 410 and gets no more');
    throw new NotDelivered(String(statusCode), retryAfterMs(answer.headers['retry-after']));
  }
}

/** `v1,` and the base64 HMAC-SHA256 over id, timestamp (Unix seconds) and body, with dots between. */
export function signatureOf(key: Buffer, id: string, timestamp: string, body: string): string {
  return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`;
}

function waitAfter(made: number, error: Error | undefined, delaysMs: readonly number[]): number {
  const planned = delaysMs[Math.min(made, delaysMs.length) - 1] ?? 0;
  const asked = error instanceof NotDelivered ? (error.retryAfterMs ?? 0) : 0;
  // Up to a fifth more, at random, so that results that failed together do not come back together.
  return Math.max(planned * (1 + Math.random() / 5), Math.min(asked, LONGEST_RETRY_AFTER_MS));
}

function retryAfterMs(header: string | string[] | undefined): number | null {
  return typeof header === 'string' && /^\d{1,6}$/.test(header) ? Number(header) * SECOND_MS : null;
}
