/**
 * Acceptances that must not be lost with the server they were made on: where Redis has replicas, a verification counts as
 * accepted when as many of them as wanted have its record. Then no failover forgets what was answered with 202.
 */
import type { RedisConnection } from '../redis/connections.ts';
import { ReplicatedWrites, WantedReplicas } from '../redis/replication.ts';
import { Script } from '../redis/script.ts';
import { namesOf } from './job.ts';

export interface ReplicatedAcceptancesOptions {
  readonly redis: RedisConnection;
  /** `auto`: one where the server has replicas. */
  readonly waitReplicas: number | 'auto';
  readonly waitMs: number;
  readonly onError: (error: Error) => void;
}

/** One partition's: its slot is on one server. */
interface Slot {
  readonly writes: ReplicatedWrites;
  readonly wanted: WantedReplicas;
  lookedAt: number;
  looking: Promise<void> | null;
}

const LOOK_EVERY_MS = 1_000;

const atHandScript = Script.fromFiles(
  ...['server.lua', 'replicas.lua', 'at-hand.lua'].map((file) => new URL(`../redis/${file}`, import.meta.url)),
);

export class ReplicatedAcceptances {
  readonly #options: ReplicatedAcceptancesOptions;
  readonly #slots = new Map<string, Slot>();

  constructor(options: ReplicatedAcceptancesOptions) {
    this.#options = options;
  }

  /** @throws Error when too few replicas have what was written: then it is not known whether it will stay. */
  async run(partition: string, script: Script, keys: string[], args: (string | number)[]): Promise<unknown> {
    const { redis } = this.#options;
    const slot = this.#slotOf(partition);
    await this.#look(partition, slot);
    const wanted = slot.wanted.count;
    if (wanted === 0) return await script.run(redis, keys, args);
    const { reply, replicas } = await slot.writes.run(script, keys, args, wanted);
    if (replicas < wanted) throw new Error(`${replicas} of ${wanted} replicas have the verification`);
    return reply;
  }

  close(): void {
    for (const { writes } of this.#slots.values()) writes.close();
  }

  #slotOf(partition: string): Slot {
    const known = this.#slots.get(partition);
    if (known) return known;
    const { redis, waitMs, onError, waitReplicas } = this.#options;
    const slot: Slot = {
      writes: new ReplicatedWrites({ redis, waitMs, onError }),
      wanted: new WantedReplicas(waitReplicas),
      lookedAt: Number.NEGATIVE_INFINITY,
      looking: null,
    };
    this.#slots.set(partition, slot);
    return slot;
  }

  /** The first one waits for an answer; later ones go by the last. */
  async #look(partition: string, slot: Slot): Promise<void> {
    if (this.#options.waitReplicas !== 'auto' || performance.now() - slot.lookedAt < LOOK_EVERY_MS) return;
    const isFirst = slot.lookedAt === Number.NEGATIVE_INFINITY;
    slot.looking ??= this.#ask(partition, slot).finally(() => {
      slot.looking = null;
    });
    if (isFirst) await slot.looking;
    else slot.looking.catch(() => {}); // the acceptance itself will tell
  }

  async #ask(partition: string, slot: Slot): Promise<void> {
    const { redis } = this.#options;
    const keys = [namesOf(redis).partitionKeys(partition).due];
    const [server, replicas] = (await atHandScript.run(redis, keys, [])) as [string, number];
    slot.wanted.saw(server, replicas);
    slot.lookedAt = performance.now();
  }
}
