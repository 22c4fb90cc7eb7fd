/** Carries out what the plan says goes wrong, and remembers what was done. */
import { setTimeout as delay } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { partitionKeys, type VerificationJob } from '../src/producers/job.ts';
import type { RedisConnection } from '../src/redis/connections.ts';
import type { SandboxProvider } from '../src/sandbox/index.ts';
import { type Fault, type Mischief, type PlannedFault, PROVIDERS } from './plan.ts';
import type { NetworkProxy } from './proxy.ts';
import type { ServiceProcess, World } from './world.ts';

/** A worker was killed while these were on their way to a provider. */
export interface Kill {
  readonly worker: string;
  readonly atMs: number;
  readonly inFlight: readonly string[];
}

export interface Span {
  readonly kind: Fault['kind'];
  readonly fromMs: number;
  readonly untilMs: number;
}

/** How long to wait for an attempt in flight before a worker is killed all the same. */
const AIM_MS = 1_500;

export class Faults {
  readonly kills: Kill[] = [];
  /** What was done, by name, and how often. */
  readonly done = new Map<string, number>();
  /** When what went wrong, from its beginning until everything of it was up again. */
  readonly spans: Span[] = [];
  readonly #world: World;
  readonly #redis: RedisConnection;
  readonly #queues = new Map<string, Queue<VerificationJob>>();
  readonly #say: (text: string) => void;
  #redisBusy = false;
  #providersBusy = false;
  #duplicates = 0;

  constructor(world: World, redis: RedisConnection, say: (text: string) => void) {
    this.#world = world;
    this.#redis = redis;
    this.#say = say;
  }

  /** Resolves when the last of them is over and everything is up again. */
  async run(faults: readonly PlannedFault[], signal: AbortSignal): Promise<void> {
    const startedAt = performance.now();
    const underway: Promise<void>[] = [];
    for (const fault of faults) {
      const waitMs = fault.atMs - (performance.now() - startedAt);
      if (waitMs > 1) await delay(waitMs);
      if (signal.aborted) break;
      underway.push(this.#commit(fault));
    }
    await Promise.all(underway);
  }

  async #commit(fault: PlannedFault): Promise<void> {
    const name = nameOf(fault);
    this.#say(`${name} ${JSON.stringify(fault)}`);
    const fromMs = Date.now();
    let outcome: 'done' | 'skipped';
    try {
      outcome = await this.#carryOut(fault);
    } catch (error) {
      this.#say(`${name} did not succeed: ${error instanceof Error ? error.message : error}`);
      outcome = 'skipped';
    }
    const counted = outcome === 'done' ? name : 'not done: its target was busy or away';
    if (outcome === 'done') this.spans.push({ kind: fault.kind, fromMs, untilMs: Date.now() });
    this.#say(`${name} ${outcome === 'done' ? 'is over' : 'was not done'}`);
    this.done.set(counted, (this.done.get(counted) ?? 0) + 1);
  }

  async #carryOut(fault: PlannedFault): Promise<'done' | 'skipped'> {
    const world = this.#world;
    switch (fault.kind) {
      case 'kill_worker':
        return await alone(this.#worker(fault.worker), (worker) => this.#kill(worker, fault.restartAfterMs));
      case 'stop_worker':
        return await alone(this.#worker(fault.worker), async (worker) => {
          worker.signal('SIGSTOP');
          await delay(fault.forMs);
          worker.signal('SIGCONT');
        });
      case 'rolling_restart':
        for (const each of world.workers) {
          await alone(each, async (worker) => {
            await worker.kill('SIGTERM');
            await worker.start();
          });
        }
        return 'done';
      case 'kill_intake':
        return await alone(world.intake, async (intake) => {
          await world.metrics.read(intake);
          await intake.kill('SIGKILL');
          await delay(fault.restartAfterMs);
          await intake.start();
        });
      case 'kill_redis':
        if (this.#redisBusy) return 'skipped';
        this.#redisBusy = true;
        try {
          await world.killRedis(fault.restartAfterMs);
        } finally {
          this.#redisBusy = false;
        }
        return 'done';
      case 'cut_clients':
        await this.#redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
        return 'done';
      case 'redis_network':
        return await misbehave(this.#worker(fault.worker).proxy, fault);
      case 'intake_network':
        return await misbehave(world.intakeProxy, fault);
      case 'provider_network':
        return await misbehave(world.providerProxies.get(fault.provider) as NetworkProxy, fault);
      case 'provider_down':
        await world.control('/down', { provider: fault.provider, forMs: fault.forMs });
        await delay(fault.forMs);
        return 'done';
      case 'provider_faults': {
        if (this.#providersBusy) return 'skipped';
        this.#providersBusy = true;
        const status = await world.control('/faults', { spec: fault.spec, seed: fault.atMs });
        if (status !== 200) return 'skipped'; // this sandbox knows no such faults, and is not asked again
        await delay(fault.forMs);
        await world.control('/faults', { spec: '' });
        this.#providersBusy = false;
        return 'done';
      }
      case 'mischief':
        return await this.#mischief(fault.provider, fault.mischief, fault.pick);
    }
    return fault satisfies never;
  }

  #worker(number: number): ServiceProcess {
    const { workers } = this.#world;
    return workers[number % workers.length] as ServiceProcess;
  }

  /** Best in the middle of an attempt: what it holds is then nobody's, and must be called unknown soon. */
  async #kill(worker: ServiceProcess, restartAfterMs: number): Promise<void> {
    const { pid } = worker;
    if (pid === null) return;
    await this.#world.metrics.read(worker);
    const giveUpAt = performance.now() + AIM_MS;
    let inFlight = await this.#sendingBy(pid);
    while (inFlight.length === 0 && performance.now() < giveUpAt) {
      await delay(20);
      inFlight = await this.#sendingBy(pid);
    }
    const atMs = Date.now();
    await worker.kill('SIGKILL');
    // Asked again, because the last look and the death are two moments: what is sending now is an orphan.
    inFlight = await this.#sendingBy(pid);
    if (inFlight.length > 0) this.kills.push({ worker: worker.name, atMs, inFlight });
    this.#say(`${worker.name} was killed with ${inFlight.length} attempts in flight`);
    await delay(restartAfterMs);
    await worker.start();
  }

  async #sendingBy(pid: number): Promise<string[]> {
    const found: string[] = [];
    try {
      for (const provider of PROVIDERS) {
        const keys = partitionKeys(provider);
        const ids = await this.#redis.zrange(keys.due, '0', '-1');
        const pipeline = this.#redis.pipeline();
        for (const id of ids) pipeline.hmget(keys.record(id), 'state', 'owner');
        const replies = (await pipeline.exec()) ?? [];
        replies.forEach(([, reply], index) => {
          const [state, owner] = (reply ?? []) as (string | null)[];
          if (state === 'sending' && owner?.includes(`-${pid}-`)) found.push(ids[index] as string);
        });
      }
    } catch {
      // Redis is away as well; the kill goes on without an aim.
    }
    return found;
  }

  /** What anybody with a board or a Redis client could do to the queues. The journal is not touched. */
  async #mischief(provider: SandboxProvider, mischief: Mischief, pick: number): Promise<'done' | 'skipped'> {
    const keys = partitionKeys(provider);
    const queue = this.#queue(provider, pick % 3 === 0);
    const due = await this.#redis.zrange(keys.due, '0', '-1');
    switch (mischief) {
      case 'run_again': {
        // Any verification that ever was, most of them settled: what "retry" on a finished job comes to.
        const records = await this.#redis.keys(keys.record('*'));
        const chosen = [0, 1, 2, 3, 4].map((step) => records[(pick + step * 7_919) % Math.max(1, records.length)]);
        for (const record of chosen) {
          const id = record?.slice(keys.record('').length);
          if (id) await this.#queue(provider, false).add('verify', { v: 1, id }, { jobId: `again-${pick}-${id}` });
        }
        return records.length > 0 ? 'done' : 'skipped';
      }
      case 'duplicate': {
        // Those that are open, each as several jobs side by side.
        for (const id of due.slice(-10)) {
          for (let copy = 0; copy < 3; copy += 1) {
            this.#duplicates += 1;
            await this.#queue(provider, false).add('verify', { v: 1, id }, { jobId: `copy-${this.#duplicates}` });
          }
        }
        return due.length > 0 ? 'done' : 'skipped';
      }
      case 'promote': {
        const delayed = await queue.getDelayed(0, 20);
        for (const job of delayed) await job.promote().catch(() => {});
        return delayed.length > 0 ? 'done' : 'skipped';
      }
      case 'remove': {
        // The active ones by their keys, as locked jobs refuse to be removed in order.
        const jobs = await queue.getJobs(['waiting', 'prioritized', 'active', 'delayed'], 0, 10);
        for (const job of jobs) {
          if (job?.id) await this.#redis.del(`${keys.prefix}:${queue.name}:${job.id}`);
        }
        return jobs.length > 0 ? 'done' : 'skipped';
      }
      case 'delete_queue': {
        const name = pick % 3 === 0 ? keys.inquiryQueue : keys.queue;
        const all = await this.#redis.keys(`${keys.prefix}:${name}:*`);
        if (all.length > 0) await this.#redis.del(...all);
        return all.length > 0 ? 'done' : 'skipped';
      }
    }
    return mischief satisfies never;
  }

  #queue(provider: SandboxProvider, inquiries: boolean): Queue<VerificationJob> {
    const keys = partitionKeys(provider);
    const name = inquiries ? keys.inquiryQueue : keys.queue;
    const known = this.#queues.get(name);
    if (known) return known;
    const queue = new Queue<VerificationJob>(name, {
      connection: this.#redis,
      prefix: keys.prefix,
      skipWaitingForReady: true,
    });
    queue.on('error', () => {});
    this.#queues.set(name, queue);
    return queue;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#queues.values()].map((queue) => queue.close().catch(() => {})));
  }
}

async function alone(
  target: ServiceProcess,
  work: (target: ServiceProcess) => Promise<void>,
): Promise<'done' | 'skipped'> {
  if (target.busy || !target.alive) return 'skipped';
  target.busy = true;
  try {
    await work(target);
  } finally {
    target.busy = false;
  }
  return 'done';
}

async function misbehave(
  proxy: NetworkProxy,
  { trouble, forMs }: Extract<Fault, { trouble: unknown }>,
): Promise<'done' | 'skipped'> {
  if (proxy.trouble !== null) return 'skipped';
  await proxy.misbehave(trouble, forMs);
  return 'done';
}

function nameOf(fault: Fault): string {
  switch (fault.kind) {
    case 'redis_network':
    case 'intake_network':
    case 'provider_network':
      return `${fault.kind}: ${fault.trouble}`;
    case 'provider_faults':
      return `${fault.kind}: ${fault.spec.replaceAll(/[@=][^,]*/g, '').replaceAll(',', ', ')}`;
    case 'mischief':
      return `${fault.kind}: ${fault.mischief}`;
    default:
      return fault.kind;
  }
}
