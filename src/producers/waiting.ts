/**
 * Callers who wait for the next revision of a verification. One subscriber connection per process hears what was
 * published and wakes whoever waits for that id; a message only says "look again", so a lost one costs time and never
 * truth: everybody looks again when the subscription is renewed, and once more when the waiting ends.
 */
import { asError, type EventBus } from '../events.ts';
import { duplicateOf } from '../redis/cluster.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { namesOf } from './job.ts';

export interface WaitLimits {
  readonly limitMs: number;
  /** The caller has gone. */
  readonly signal?: AbortSignal;
}

export class Waiting {
  readonly #subscriber: RedisConnection;
  readonly #events: EventBus;
  readonly #channel: string;
  readonly #interests = new Map<string, Set<Interest>>();
  #closed = false;

  /** `connection` only says where Redis is: the subscriber is a connection of its own. */
  constructor(connection: RedisConnection, events: EventBus) {
    this.#events = events;
    this.#channel = namesOf(connection).publishedChannel;
    this.#subscriber = duplicateOf(connection, {
      connectionName: 'otp-waiting',
      maxRetriesPerRequest: null,
      // Done by hand below: only after the subscription stands may the waiting look again, or a message falls between.
      autoResubscribe: false,
      enableOfflineQueue: false,
    });
    this.#subscriber.on('error', (error: Error) => this.#failed(error));
    this.#subscriber.on('ready', () => void this.#subscribe());
    // A Cluster moves its subscription to another node without a word; every few seconds it looks at all of them.
    this.#subscriber.on('refresh', () => this.#wakeAll());
    this.#subscriber.on('message', (_channel: string, message: string) => {
      for (const published of message.split(' ')) this.#wake(published.slice(0, published.lastIndexOf('.')));
    });
  }

  /**
   * Reads again and again, each time that a revision of `id` is published, until `enough` or the limit; gives what was
   * read last. A read that fails is thrown.
   */
  async until<T>(id: string, read: () => Promise<T>, enough: (value: T) => boolean, limits: WaitLimits): Promise<T> {
    const end = performance.now() + limits.limitMs;
    const interest = this.#enter(id);
    try {
      for (;;) {
        interest.expect(); // before reading: what is published from here on is news
        const value = await read();
        const leftMs = end - performance.now();
        if (enough(value) || leftMs <= 0 || this.#closed || limits.signal?.aborted) return value;
        await interest.sleep(leftMs, limits.signal);
      }
    } finally {
      this.#leave(id, interest);
    }
  }

  /** Wakes everybody, each to read for a last time. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#wakeAll();
    this.#subscriber.disconnect();
  }

  async #subscribe(): Promise<void> {
    try {
      await this.#subscriber.subscribe(this.#channel);
      this.#wakeAll();
    } catch (error) {
      if (this.#closed) return;
      this.#failed(asError(error));
      // The connection broke again, which renews it by itself, or it refused: then a new one must try.
      if (this.#subscriber.status === 'ready') this.#subscriber.disconnect(true);
    }
  }

  #enter(id: string): Interest {
    const interest = new Interest();
    const others = this.#interests.get(id);
    if (others) others.add(interest);
    else this.#interests.set(id, new Set([interest]));
    return interest;
  }

  #leave(id: string, interest: Interest): void {
    const interests = this.#interests.get(id);
    interests?.delete(interest);
    if (interests?.size === 0) this.#interests.delete(id);
  }

  #wake(id: string): void {
    for (const interest of this.#interests.get(id) ?? []) interest.wake();
  }

  #wakeAll(): void {
    for (const interests of this.#interests.values()) for (const interest of interests) interest.wake();
  }

  #failed(error: Error): void {
    this.#events.emit('machinery:failed', { where: 'waiting callers', error });
  }
}

/** One caller's wish to be woken. A wake that comes before the sleep is not lost: the sleep then ends at once. */
class Interest {
  #woken = false;
  #rise: (() => void) | null = null;

  expect(): void {
    this.#woken = false;
  }

  wake(): void {
    this.#woken = true;
    this.#rise?.();
  }

  async sleep(limitMs: number, signal?: AbortSignal): Promise<void> {
    if (this.#woken) return;
    await new Promise<void>((resolve) => {
      // Timers may be a fraction early, and then the limit would not be there yet.
      const timer = setTimeout(rise, limitMs + 1);
      signal?.addEventListener('abort', rise, { once: true });
      function rise(): void {
        clearTimeout(timer);
        signal?.removeEventListener('abort', rise);
        resolve();
      }
      this.#rise = rise;
    });
    this.#rise = null;
  }
}
