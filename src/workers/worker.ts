/**
 * One partition's worker: the BullMQ side of the house. It gives jobs to the spine and tells BullMQ what comes next;
 * nobody else does. BullMQ's own retries, stalls and limits are only the rough machinery around the journal: a job may
 * be lost, doubled or run again at any time, and begin decides.
 */
import { createHash } from 'node:crypto';
import type { Job } from 'bullmq';
import { DelayedError, Queue, UnrecoverableError, Worker } from '../bullmq.ts';
import { asError, type EventBus } from '../events.ts';
import {
  AGAIN_PRIORITY,
  type CallbackJob,
  isNewerJob,
  jobSchema,
  namesOf,
  partitionOf,
  type VerificationJob,
} from '../producers/job.ts';
import { NewerFormatError, type VerificationRecord } from '../producers/record.ts';
import type { Opener, Sealer } from '../producers/sealing.ts';
import type { BoundProvider, TokenCall } from '../providers/provider.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { withinOr } from '../time-limit.ts';
import { type AttemptDependencies, attempt, conclude, inquire, type Next } from './attempt.ts';
import { Breaker, type ProbeReply } from './breaker.ts';
import type { BreakerSettings } from './breaker-policy.ts';
import { type CallbackDependencies, deliver } from './callback.ts';
import type { Evidence } from './decide.ts';
import { Epoch } from './epoch.ts';
import { Forwarder, type ForwarderDependencies } from './forwarder.ts';
import { Journal, type JournalSettings } from './journal.ts';
import { Sessions } from './sessions.ts';
import { Sweeper } from './sweeper.ts';
import { Transport, type TransportSettings } from './transport.ts';
import { setAsideUnreadable } from './unreadable.ts';
import { Witness } from './witness.ts';

export interface PartitionSettings {
  readonly name: string;
  readonly provider: BoundProvider;
  readonly baseUrl: string;
  /** Who we are at the provider, in public words. */
  readonly account: string;
  readonly rateLimit: { readonly max: number; readonly perMs: number };
  readonly inquiryRateLimit: { readonly max: number; readonly perMs: number };
  readonly concurrency: number;
  readonly timeoutMs: number;
  /** Without one nothing is ever held back because the provider fails. */
  readonly breaker?: BreakerSettings;
  readonly maxAttempts: number;
  readonly inquiry: { readonly delaysMs: readonly number[]; readonly giveUpAfterMs: number };
  readonly retentionMs: number;
  readonly lossWindowMs: number;
  readonly recoverMs: number;
  readonly waitReplicas?: number | 'auto';
  readonly waitMs?: number;
  readonly replicasGoneAfterMs?: number;
  /** How long attempts in flight may take to settle when it closes; by default as long as they can last. */
  readonly closeLimitMs?: number | undefined;
  readonly tls?: NonNullable<TransportSettings['tls']>;
  readonly proxy?: NonNullable<TransportSettings['proxy']>;
}

export interface WorkerDependencies {
  /** A connection that waits for Redis (profile `worker`); BullMQ duplicates it for its blocking reads. */
  readonly redis: RedisConnection;
  /** Names this process among the workers; random, never reused. */
  readonly worker: string;
  readonly sealer: Sealer;
  readonly opener: Opener;
  readonly events: EventBus;
  sealDetails(client: string, details: unknown): Promise<string>;
  readonly client: ForwarderDependencies['client'];
  readonly held?: ForwarderDependencies['held'];
  readonly resultsQueue: ForwarderDependencies['resultsQueue'];
  readonly webhookQueue: ForwarderDependencies['webhookQueue'];
}

/** A worker that dies is noticed within lockDuration + 2 stalledInterval; the journal's heartbeat notices it sooner. */
const LOCK_DURATION_MS = 8_000;
const STALLED_INTERVAL_MS = 3_000;
/** An attempt may take its whole time-out, and its outcome a few tries to be written. */
export const CLOSE_GRACE_MS = 10_000;
const SET_ASIDE_FOR = { age: 7 * 24 * 3600, count: 1_000 };
const FAILED_AGAIN_MS = 1_000;
/** What was cut off is written down as unknown in a moment, where Redis is there. */
const CUT_OFF_GRACE_MS = 2_000;
/** An inquiry may start this much early: timers of two machines never agree to the millisecond. */
const INQUIRY_GRACE_MS = 50;
/** Inquiries wait on the provider, not on us; a few at a time are plenty at their low rate. */
const INQUIRY_CONCURRENCY = 20;
/** Many that are refused in one moment are told times that differ by less. */
const HOLD_AGAIN_MS = 5;
/** A window begins with the first job after the last one, so a busy machine stretches it: 1.25 cost a tenth of the rate. */
const HEADROOM = 1.6;
/** For a worker of a later version to find it: soon, and not so often that others wait for it. */
const NEWER_AGAIN_MS = 2_000;
/** Callbacks are read and written down, and nobody waits for them. */
const CALLBACK_CONCURRENCY = 20;

export class PartitionWorker {
  readonly journal: Journal;
  readonly #verifications: Worker<VerificationJob>;
  readonly #inquiries: Worker<VerificationJob>;
  /** Null where the provider sends none, or where a forged one could not be told. */
  readonly #callbacks: Worker<CallbackJob> | null;
  readonly #verificationQueue: Queue<VerificationJob>;
  readonly #inquiryQueue: Queue<VerificationJob>;
  readonly #transport: Transport;
  readonly #forwarder: Forwarder;
  readonly #epoch: Epoch;
  readonly #breaker: Breaker | null;
  readonly #sweeper: Sweeper;
  /** How long attempts in flight may take to settle when it closes. */
  readonly closeLimitMs: number;
  readonly #events: EventBus;
  readonly #partition: string;
  /** On the monotonic clock: for how long this process has asked BullMQ to hand out nothing. */
  #heldUntil = 0;
  #inHand = 0;
  readonly #clearing = new Map<string, 'looking' | 'again'>();

  constructor(settings: PartitionSettings, deps: WorkerDependencies) {
    const { name: partition, provider, retentionMs, lossWindowMs } = settings;
    const { redis, events } = deps;
    const keys = namesOf(redis).partitionKeys(partition);
    this.#partition = partition;
    this.closeLimitMs = settings.closeLimitMs ?? settings.timeoutMs + CLOSE_GRACE_MS;
    this.#events = events;

    const queueOptions = { connection: redis, prefix: keys.prefix };
    this.#verificationQueue = new Queue(keys.queue, queueOptions);
    this.#inquiryQueue = new Queue(keys.inquiryQueue, queueOptions);
    this.#transport = new Transport({
      baseUrl: settings.baseUrl,
      connections: settings.concurrency + INQUIRY_CONCURRENCY,
      timeoutMs: settings.timeoutMs,
      ...(settings.tls ? { tls: settings.tls } : {}),
      ...(settings.proxy ? { proxy: settings.proxy } : {}),
    });
    const ofJournal = journalSettings(settings);
    this.journal = new Journal(redis, ofJournal, new Witness(redis, ofJournal, deps.worker, events), events);
    this.#forwarder = new Forwarder({
      partition,
      keys,
      redis,
      retentionMs,
      events,
      now: () => this.journal.now(),
      client: deps.client,
      held: deps.held,
      resultsQueue: deps.resultsQueue,
      webhookQueue: deps.webhookQueue,
      kept: async (entryIds) => await this.journal.kept(entryIds),
    });
    const sessions = new Sessions({
      partition,
      account: createHash('sha256').update(`${settings.baseUrl} ${settings.account}`).digest('hex').slice(0, 16),
      provider,
      transport: this.#transport,
      redis,
      keys,
      sealer: deps.sealer,
      opener: deps.opener,
      events,
    });
    const spine: AttemptDependencies = {
      partition,
      provider,
      journal: this.journal,
      transport: this.#transport,
      sessions,
      opener: deps.opener,
      events,
      sealDetails: deps.sealDetails,
      slowDown: async (queue, forMs) => {
        const slowed = queue === 'inquiry' ? this.#inquiryQueue : this.#verificationQueue;
        await slowed.rateLimit(forMs);
        events.emit('partition:slowed', { partition, queue: slowed.name, forMs });
      },
      hold: async (forMs) => await this.#hold(forMs),
      heard: async (heard) => await this.#breaker?.heard(heard),
      published: (result) => this.#forwarder.published(result),
      remember: async (identifiers, reference) => {
        for (const identifier of identifiers) await redis.set(keys.alias(identifier), reference, 'PX', retentionMs);
      },
    };
    const concludeOutside = async (record: VerificationRecord, evidence: Evidence): Promise<void> => {
      const next = await conclude(record, evidence, {}, {}, spine);
      if (next.do !== 'inquire') return;
      // What was decided stands, and the sweeper puts in what is not there when its time comes.
      await this.#scheduleInquiry(record.id, next.at).catch((error: unknown) =>
        events.emit('machinery:failed', { where: `inquiries of ${partition}`, error: asError(error) }),
      );
    };
    const tokenCall = probeTokenOf(provider);
    this.#breaker =
      settings.breaker === undefined
        ? null
        : new Breaker({
            ...{ partition, keys, redis, events, worker: deps.worker, timeoutMs: settings.timeoutMs },
            settings: settings.breaker,
            hold: async (forMs) => {
              await Promise.all([this.#verificationQueue, this.#inquiryQueue].map((queue) => queue.rateLimit(forMs)));
            },
            letGo: async () => {
              await Promise.all(
                [this.#verificationQueue, this.#inquiryQueue].map((queue) => queue.removeRateLimitKey()),
              );
            },
            inquire: async (id) => {
              let reply: ProbeReply | null = null;
              const next = await inquire(id, 0, spine, (heard) => {
                reply = heard;
              });
              if (next.do === 'inquire') await this.#scheduleInquiry(id, next.at);
              return reply;
            },
            askForToken: tokenCall === null ? null : async () => await sessions.probe(tokenCall),
            connect: async () => await this.#transport.reach(),
          });
    this.#epoch = new Epoch({ partition, journal: this.journal, lossWindowMs, events, conclude: concludeOutside });
    this.#sweeper = new Sweeper({
      partition,
      journal: this.journal,
      beat: async () => await this.#epoch.beat(),
      verifications: this.#verificationQueue,
      inquiries: this.#inquiryQueue,
      events,
      giveUpAfterMs: settings.inquiry.giveUpAfterMs,
      conclude: concludeOutside,
    });

    const workerOptions = {
      ...queueOptions,
      autorun: false,
      lockDuration: LOCK_DURATION_MS,
      stalledInterval: STALLED_INTERVAL_MS,
      maxStalledCount: Number.MAX_SAFE_INTEGER, // a job may stall for ever: the journal decides what that means
      maximumRateLimitDelay: 1_000, // else delayed jobs are promoted only every 30 s while the queue is limited
    };
    // Gone when done; kept for a week when it was not ours to run.
    const ofVerifications = { ...workerOptions, removeOnComplete: { count: 0 }, removeOnFail: SET_ASIDE_FOR };
    this.#verifications = new Worker<VerificationJob>(
      keys.queue,
      async (job, token) =>
        await this.#unlessNewer(job, token, () => this.#run(job, token, async (id) => await attempt(id, spine))),
      { ...ofVerifications, concurrency: settings.concurrency, limiter: coarseGate(settings.rateLimit) },
    );
    this.#inquiries = new Worker<VerificationJob>(
      keys.inquiryQueue,
      async (job, token) =>
        await this.#unlessNewer(job, token, () =>
          this.#run(job, token, async (id) => await inquire(id, INQUIRY_GRACE_MS, spine)),
        ),
      { ...ofVerifications, concurrency: INQUIRY_CONCURRENCY, limiter: coarseGate(settings.inquiryRateLimit) },
    );
    const callbacks: CallbackDependencies = {
      ...{ partition, provider, journal: this.journal, redis, opener: deps.opener, events },
      conclude: async (record, evidence, facts) => await conclude(record, evidence, facts, {}, spine),
      isBeingAsked: async (id) => (await (await this.#inquiryQueue.getJob(id))?.isActive()) ?? false,
    };
    this.#callbacks =
      provider.callback === null
        ? null
        : new Worker<CallbackJob>(
            keys.callbackQueue,
            async (job, token) => await this.#unlessNewer(job, token, () => this.#runCallback(job, token, callbacks)),
            { ...workerOptions, concurrency: CALLBACK_CONCURRENCY },
          );
    const onError = (error: Error): void => events.emit('machinery:failed', { where: `BullMQ of ${partition}`, error });
    for (const worker of this.#workers) {
      worker.on('error', (error) => {
        // A parser's words quote the text that is no JSON.
        onError(error instanceof SyntaxError ? new Error('a job that is no JSON came up') : error);
        if (redis.status === 'ready') void this.#clear(worker, redis);
      });
    }
    for (const queue of [this.#verificationQueue, this.#inquiryQueue]) queue.on('error', onError);
  }

  async start(): Promise<void> {
    await this.#epoch.beat();
    this.#forwarder.start();
    this.#sweeper.start();
    await this.#breaker?.start();
    for (const worker of this.#workers) {
      worker
        .run()
        .catch((error) =>
          this.#events.emit('machinery:failed', { where: `worker of ${this.#partition}`, error: asError(error) }),
        );
    }
  }

  get running(): boolean {
    return this.#workers.every((worker) => worker.isRunning());
  }

  /** Of a job: it may have an outcome to write down. */
  get inHand(): boolean {
    return this.#inHand > 0;
  }

  get #workers(): readonly Worker[] {
    return [this.#verifications, this.#inquiries, ...(this.#callbacks ? [this.#callbacks] : [])];
  }

  /**
   * Takes no more jobs, lets attempts in flight settle, forwards what they decided; in that order. Whatever hangs
   * longer than the limit is cut off, which makes it unknown. What cannot be written down even then is left behind: this
   * worker does not say that it left in order, and what it had begun becomes unknown when its heartbeat ends.
   */
  async close(): Promise<void> {
    const underway = Promise.all(this.#workers.map((worker) => worker.close()));
    let settled = await endsWithin(this.closeLimitMs, underway);
    if (!settled) {
      await this.#transport.cutOff();
      settled = await endsWithin(CUT_OFF_GRACE_MS, underway);
    }
    await this.#sweeper.close();
    if (this.#breaker) await endsWithin(this.closeLimitMs, this.#breaker.close());
    await endsWithin(this.closeLimitMs, this.#forwarder.close());
    await this.#transport.close();
    if (settled) await this.#leave();
    this.journal.close();
    await Promise.all([this.#verificationQueue.close(), this.#inquiryQueue.close()]);
  }

  async #leave(): Promise<void> {
    await this.journal.witness
      .leave()
      .catch((error: unknown) =>
        this.#events.emit('machinery:failed', { where: `worker of ${this.#partition}`, error: asError(error) }),
      );
  }

  /** What a later version wrote waits for a worker of that version: the two run side by side while one replaces the other. */
  async #unlessNewer(job: Job, token: string | undefined, work: () => Promise<void>): Promise<void> {
    try {
      if (!isNewerJob(job.id ?? '', job.data)) return await work();
      this.#events.emit('format:newer', { partition: this.#partition, fault: `a job of ${job.queueName}` });
    } catch (error) {
      if (!(error instanceof NewerFormatError)) throw error;
      this.#events.emit('format:newer', { partition: this.#partition, fault: error.message });
    }
    await job.moveToDelayed(Date.now() + NEWER_AGAIN_MS, token);
    throw new DelayedError();
  }

  async #run(job: Job<VerificationJob>, token: string | undefined, step: (id: string) => Promise<Next>): Promise<void> {
    const next = await this.#step(this.#idOf(job), step);
    switch (next.do) {
      case 'finish':
        return;
      case 'inquire':
        if (job.queueName === this.#verificationQueue.name) return await this.#scheduleInquiry(job.data.id, next.at);
        break;
      case 'later':
        break;
    }
    // Whoever was in hand before is not put behind the whole backlog.
    if (job.queueName === this.#verificationQueue.name && job.priority !== AGAIN_PRIORITY)
      await job.changePriority({ priority: AGAIN_PRIORITY });
    await job.moveToDelayed(next.at - this.journal.now() + Date.now(), token);
    throw new DelayedError();
  }

  /** Only our own machinery fails here, Redis away or out of memory: then the same is tried again. */
  async #step(id: string, step: (id: string) => Promise<Next>): Promise<Next> {
    this.#inHand += 1;
    try {
      return await step(id);
    } catch (error) {
      if (error instanceof NewerFormatError) throw error;
      this.#events.emit('machinery:failed', { where: `worker of ${this.#partition}, at ${id}`, error: asError(error) });
      return { do: 'later', at: this.journal.now() + FAILED_AGAIN_MS };
    } finally {
      this.#inHand -= 1;
    }
  }

  /** The queue hands out nothing for so long; said once, however many jobs are told so. */
  async #hold(forMs: number): Promise<void> {
    const until = performance.now() + forMs;
    if (forMs <= 0 || until <= this.#heldUntil + HOLD_AGAIN_MS) return;
    this.#heldUntil = until;
    await this.#verificationQueue.rateLimit(forMs);
  }

  async #runCallback(job: Job<CallbackJob>, token: string | undefined, deps: CallbackDependencies): Promise<void> {
    const delivered = await deliver({ data: job.data, tries: job.attemptsStarted }, deps);
    switch (delivered.do) {
      case 'finish':
        return;
      case 'inquire':
        return await this.#scheduleInquiry(delivered.id, this.journal.now());
      case 'set_aside':
        throw new UnrecoverableError(`the callback was set aside: ${delivered.because}`);
      case 'later':
        await job.moveToDelayed(delivered.at - this.journal.now() + Date.now(), token);
        throw new DelayedError();
    }
    return delivered satisfies never;
  }

  /** Anyone may write into a queue. What is not ours is set aside among the failed, visibly, and stops nothing. */
  #idOf(job: Job<VerificationJob>): string {
    const parsed = jobSchema.safeParse(job.data);
    const fault = !parsed.success
      ? 'its data is not {"v":1,"id":"<verification id>"}'
      : partitionOf(parsed.data.id) !== this.#partition
        ? `its id does not begin with ${this.#partition}_`
        : null;
    if (fault === null && parsed.success) return parsed.data.id;
    this.#events.emit('job:malformed', { queue: job.queueName, jobId: job.id ?? '', fault: fault ?? '' });
    throw new UnrecoverableError(`not a job of this queue: ${fault}`);
  }

  /** What BullMQ itself stumbles over is set aside as well. Never throws: what fails here is met again as stalled. */
  async #clear({ name: queue, qualifiedName }: Worker, redis: RedisConnection): Promise<void> {
    const underway = this.#clearing.has(queue);
    this.#clearing.set(queue, 'again'); // for whoever is at it may have looked already
    if (underway) return;
    const fault = 'BullMQ cannot read it';
    try {
      while (this.#clearing.get(queue) === 'again') {
        this.#clearing.set(queue, 'looking');
        for (const jobId of await setAsideUnreadable(redis, qualifiedName, `not a job of this queue: ${fault}`)) {
          this.#events.emit('job:malformed', { queue, jobId, fault });
        }
      }
    } catch (error) {
      this.#events.emit('machinery:failed', { where: `clearing ${queue}`, error: asError(error) });
    } finally {
      this.#clearing.delete(queue);
    }
  }

  async #scheduleInquiry(id: string, at: number): Promise<void> {
    await scheduleInquiry(this.#inquiryQueue, id, Math.max(0, at - this.journal.now()));
  }
}

/**
 * BullMQ's limiter is a fixed window, up to twice the rate in a sliding one; begin's token is exact. A short window
 * keeps the bursts small, and headroom keeps the exact limit the one that binds. Nearly as long as the exact
 * one it would beat against it, and let a third of the rate go to waste.
 */
export function coarseGate({ max, perMs }: { max: number; perMs: number }): { max: number; duration: number } {
  const perWindow = Math.max(1, Math.ceil((max / perMs) * Math.min(100, perMs / 4)));
  return { max: perWindow, duration: Math.max(1, Math.floor((perWindow * perMs) / max / HEADROOM)) };
}

/** What the journal of a partition needs to know; also for a person's evidence, which comes from outside the workers. */
export function journalSettings(
  settings: Omit<PartitionSettings, 'account' | 'baseUrl' | 'concurrency' | 'tls' | 'proxy'>,
): JournalSettings {
  const { name: partition, provider, maxAttempts, inquiry, rateLimit, inquiryRateLimit, timeoutMs } = settings;
  return {
    partition,
    policy: {
      effect: provider.effect,
      canInquire: ({ reference, plainParams }) =>
        provider.inquiry?.applies({ reference, params: plainParams }) ?? false,
      maxAttempts,
      inquiry,
    },
    rateLimit,
    inquiryRateLimit,
    timeoutMs,
    ...(settings.breaker ? { breaker: settings.breaker } : {}),
    retentionMs: settings.retentionMs,
    lossWindowMs: settings.lossWindowMs,
    recoverMs: settings.recoverMs,
    ...(settings.waitReplicas === undefined ? {} : { waitReplicas: settings.waitReplicas }),
    ...(settings.waitMs === undefined ? {} : { waitMs: settings.waitMs }),
    ...(settings.replicasGoneAfterMs === undefined ? {} : { replicasGoneAfterMs: settings.replicasGoneAfterMs }),
  };
}

/** The call for a token that needs no customer, if there is one; the inquiry's before the submission's. */
function probeTokenOf({ inquiry, operations: { verify } }: BoundProvider): TokenCall | null {
  const ofVerify = verify && !verify.tokensNeedParams ? verify.tokens(null) : [];
  return [...(inquiry?.tokens ?? []), ...ofVerify][0] ?? null;
}

/** One inquiry job per verification: one that waits for a later time is brought forward. */
export async function scheduleInquiry(queue: Queue<VerificationJob>, id: string, delayMs: number): Promise<void> {
  const waiting = await queue.getJob(id);
  if (!waiting) {
    await queue.add('inquiry', { v: 1, id }, { jobId: id, delay: delayMs });
  } else if (await waiting.isDelayed()) {
    await waiting.changeDelay(delayMs).catch(async (error: unknown) => {
      // Its time came in between: it is being run, and reads by itself when to ask next.
      if (await waiting.isDelayed()) throw error;
    });
  }
}

async function endsWithin(limitMs: number, work: Promise<unknown>): Promise<boolean> {
  return await withinOr(
    limitMs,
    work.then(() => true),
    false,
  );
}
