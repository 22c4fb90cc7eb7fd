/**
 * One partition's breaker. Its state stands in Redis, in the partition's slot, and every process acts on that: begin.lua
 * lets nothing pass while it is open and one verification at a time while it is half open, apply.lua writes down what each
 * attempt said of the provider. Here is what moves it from state to state, and who probes: one worker at a time, with a
 * due inquiry of a verification that awaits proof, else a token call, else a connection; never with a customer's code.
 */

import { randomUUID } from 'node:crypto';
import { asError, type EventBus } from '../events.ts';
import { type BreakerState, readBreaker } from '../producers/breaker-state.ts';
import type { PartitionKeys } from '../producers/job.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { hashIn, Script } from '../redis/script.ts';
import {
  type AttemptOutcome,
  type BreakerEvent,
  type BreakerSettings,
  type Health,
  nextState,
} from './breaker-policy.ts';

/** How often a worker looks; also how late a probe may be. */
const LOOK_MS = 500;
/** A probe may fetch a token and then make its call. */
const PROBE_GRACE_MS = 10_000;
/** Of those that await proof, the longest first: enough to find one that is due. */
const AWAITING_LOOKED_AT = 200;

const lookScript = Script.fromFiles(new URL('./breaker-look.lua', import.meta.url));
const moveScript = Script.fromFiles(new URL('./breaker-move.lua', import.meta.url));

/** What apply.lua says of an attempt that failed, or that was on trial. */
export interface Heard {
  readonly health: Health;
  readonly trial: boolean;
  readonly code: string;
  /** As it was when the outcome was written. */
  readonly breaker: BreakerState;
  readonly outcomes: readonly AttemptOutcome[];
  readonly now: number;
}

export type ProbeMeans = 'inquiry' | 'token' | 'connection';

export interface ProbeReply {
  readonly answered: boolean;
  /** A status or an error code. */
  readonly code: string;
}

export interface BreakerDependencies {
  readonly partition: string;
  readonly keys: PartitionKeys;
  readonly redis: RedisConnection;
  readonly worker: string;
  readonly settings: BreakerSettings;
  readonly timeoutMs: number;
  readonly events: EventBus;
  /** Keeps the queues from handing out jobs for so long. */
  hold(forMs: number): Promise<void>;
  /** Ends that at once. What the provider itself has asked for is held elsewhere. */
  letGo(): Promise<void>;
  /** Null: it was not due any more. */
  inquire(id: string): Promise<ProbeReply | null>;
  /** Null: this provider has no token that needs no customer. */
  readonly askForToken: (() => Promise<ProbeReply>) | null;
  connect(): Promise<ProbeReply>;
}

export class Breaker {
  readonly #deps: BreakerDependencies;
  #timer: NodeJS.Timeout | null = null;
  #looking: Promise<void> | null = null;

  constructor(deps: BreakerDependencies) {
    this.#deps = deps;
  }

  /** After it was switched off, what stands in Redis must not hold anything, nor be shown. */
  async start(): Promise<void> {
    const { settings, redis, keys } = this.#deps;
    if (!settings.enabled) {
      const wasOpen = (await redis.hget(keys.breaker, 'state')) === 'open';
      await redis.del(keys.breaker, keys.breakerOutcomes);
      if (wasOpen) await this.#deps.letGo();
      return;
    }
    this.#timer = setInterval(() => {
      this.#looking ??= this.#look().finally(() => {
        this.#looking = null;
      });
    }, LOOK_MS);
  }

  async close(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    await this.#looking;
  }

  /** An attempt failed, or was on trial. Never throws: its outcome is written, and the next one will say the same. */
  async heard({ health, trial, code, breaker, outcomes, now }: Heard): Promise<void> {
    const event: BreakerEvent = health === 'failed' ? { is: 'failed', trial, code, outcomes } : { is: 'good', trial };
    await this.#safely(async () => await this.#move(breaker, event, now));
  }

  async #look(): Promise<void> {
    const { redis, keys, worker, timeoutMs } = this.#deps;
    await this.#safely(async () => {
      const [now, flat, mine, due] = (await lookScript.run(
        redis,
        [keys.breaker, keys.awaiting],
        [keys.prefix, worker, 2 * timeoutMs + PROBE_GRACE_MS, AWAITING_LOOKED_AT],
      )) as [number, string[], number, string];
      if (mine !== 1) return;
      const state = readBreaker(hashIn(flat));
      const startedAt = performance.now();
      const reply = await this.#probe(state, due);
      await this.#move(state, { is: 'probed', ...reply }, now + Math.round(performance.now() - startedAt));
    });
  }

  /** An inquiry that is broken alone must not keep codes waiting for ever: every second probe goes without. */
  async #probe(state: BreakerState, due: string): Promise<ProbeReply> {
    const { askForToken, partition, events } = this.#deps;
    let by: ProbeMeans = 'inquiry';
    let reply = due !== '' && state.row % 2 === 1 ? await this.#inquire(due) : null;
    if (reply === null && askForToken !== null) {
      by = 'token';
      reply = await askForToken();
    }
    if (reply === null) {
      by = 'connection';
      reply = await this.#deps.connect();
    }
    events.emit('breaker:probed', { partition, by, ...reply });
    return reply;
  }

  /** Null as well for a record that nobody here can read: the provider has nothing to do with it. */
  async #inquire(id: string): Promise<ProbeReply | null> {
    let reply: ProbeReply | null = null;
    await this.#safely(async () => {
      reply = await this.#deps.inquire(id);
    });
    return reply;
  }

  async #move(state: BreakerState, event: BreakerEvent, now: number): Promise<void> {
    const { settings, redis, keys, partition, events } = this.#deps;
    if (!settings.enabled) return;
    const next = nextState(state, event, settings, now);
    if (next === null) return;
    const { is, ...fields } = next;
    const forgetAfterMs = is === 'closed' ? settings.rampMs + settings.windowMs : 0;
    const moved = await moveScript.run(
      redis,
      [keys.breaker, keys.breakerOutcomes],
      [state.version, forgetAfterMs, ...Object.entries({ state: is, version: randomUUID(), ...fields }).flat()],
    );
    if (moved !== 1) return; // another process has heard it as well
    const { row, because, until, troubleSince } = next;
    switch (is) {
      case 'open':
        events.emit('breaker:opened', { partition, because, row, forMs: until - now, again: state.is !== 'closed' });
        return await this.#deps.hold(until - now);
      case 'half_open':
        events.emit('breaker:half-opened', { partition, afterMs: now - troubleSince });
        return;
      case 'closed':
        events.emit('breaker:closed', { partition, afterMs: now - state.troubleSince });
        return;
    }
    return is satisfies never;
  }

  async #safely(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const { events, partition } = this.#deps;
      events.emit('machinery:failed', { where: `breaker of ${partition}`, error: asError(error) });
    }
  }
}
