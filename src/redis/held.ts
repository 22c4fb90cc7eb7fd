/**
 * What must not be lost with the server that it was written on, before somebody is told that it is kept: where Redis has
 * replicas, a question that is answered when as many of them as wanted have the keys.
 */
import type { RedisConnection } from './connections.ts';
import { ReplicatedWrites, WantedReplicas } from './replication.ts';
import { Script } from './script.ts';

export interface HeldOptions {
  readonly redis: RedisConnection;
  /** `auto`: as many as the server has. */
  readonly waitReplicas: number | 'auto';
  readonly waitMs?: number | undefined;
  readonly onError: (error: Error) => void;
}

interface Slot {
  readonly writes: ReplicatedWrites;
  readonly wanted: WantedReplicas;
  lookedAt: number;
  looking: Promise<void> | null;
}

const LOOK_EVERY_MS = 1_000;

const heldScript = Script.fromFiles(new URL('./held.lua', import.meta.url));
const whereScript = Script.fromFiles(new URL('./server.lua', import.meta.url), new URL('./where.lua', import.meta.url));
const atHandScript = Script.fromFiles(
  new URL('./server.lua', import.meta.url),
  new URL('./replicas.lua', import.meta.url),
  new URL('./at-hand.lua', import.meta.url),
);

export class Held {
  readonly #options: HeldOptions;
  /** By hash tag: its server is one. */
  readonly #slots = new Map<string, Slot>();

  constructor(options: HeldOptions) {
    this.#options = options;
  }

  /**
   * @param keys all with one hash tag
   * @throws Error when a failover has lost one of them, or too few replicas have them: it is not known whether they will stay.
   */
  async demand(keys: readonly [string, ...string[]]): Promise<void> {
    const { slot, mark, wanted } = await this.#slotOf(keys[0]);
    if (wanted > 0) await this.#confirm(slot, heldScript, [mark, ...keys], 1, wanted);
  }

  /**
   * A script whose reply counts only where it is kept, said to the server and to its replicas together: should another
   * server take the place of the first, it answers there anew.
   * @param keys all with one hash tag; whatever the script does, it writes to one of them when its reply is to be kept
   */
  async write(
    script: Script,
    keys: [string, ...string[]],
    args: (string | number)[],
  ): Promise<{ readonly reply: unknown; readonly replicasMissing: number }> {
    const { slot, wanted } = await this.#slotOf(keys[0]);
    const { reply, replicas } = await slot.writes.run(script, keys, args, wanted);
    return { reply, replicasMissing: Math.max(0, wanted - replicas) };
  }

  /**
   * Work that writes into one slot, and of which nothing may be left that could be asked for, because somebody may have
   * taken it already: it is held when the server was the same before it and after it.
   * @param key any of the slot
   * @throws Error as `demand`, after the work was done
   */
  async during<Result>(key: string, work: () => Promise<Result>): Promise<Result> {
    const { slot, mark, wanted } = await this.#slotOf(key);
    if (wanted === 0) return await work();
    const before = await whereScript.run(this.#options.redis, [mark], []);
    const result = await work();
    await this.#confirm(slot, whereScript, [mark], before, wanted);
    return result;
  }

  close(): void {
    for (const { writes } of this.#slots.values()) writes.close();
  }

  async #slotOf(key: string): Promise<{ slot: Slot; mark: string; wanted: number }> {
    const tag = key.slice(0, key.indexOf('}') + 1);
    const slot = this.#slots.get(tag) ?? this.#newSlot(tag);
    const looking = this.#look(key, slot);
    if (looking) await looking;
    return { slot, mark: `${tag}:held`, wanted: slot.wanted.count };
  }

  #newSlot(tag: string): Slot {
    const { redis, waitMs, onError, waitReplicas } = this.#options;
    const slot: Slot = {
      writes: new ReplicatedWrites({ redis, waitMs, onError }),
      wanted: new WantedReplicas(waitReplicas, { carriedOver: 1 }), // they find the new one in a moment
      lookedAt: Number.NEGATIVE_INFINITY,
      looking: null,
    };
    this.#slots.set(tag, slot);
    return slot;
  }

  async #confirm({ writes }: Slot, script: Script, keys: string[], expected: unknown, wanted: number): Promise<void> {
    const { reply, replicas } = await writes.run(script, keys, [], wanted);
    if (reply !== expected) throw new Error('another server has taken the place of the one it was written on');
    if (replicas < wanted) throw new Error(`${replicas} of ${wanted} replicas have it`);
  }

  /** The first one waits for an answer; later ones go by the last, and have nothing to wait for. */
  #look(key: string, slot: Slot): Promise<void> | null {
    if (this.#options.waitReplicas !== 'auto' || performance.now() - slot.lookedAt < LOOK_EVERY_MS) return null;
    slot.looking ??= this.#ask(key, slot).finally(() => {
      slot.looking = null;
    });
    if (slot.lookedAt === Number.NEGATIVE_INFINITY) return slot.looking;
    slot.looking.catch(() => {}); // whoever asks for something himself will be told
    return null;
  }

  async #ask(key: string, slot: Slot): Promise<void> {
    const [server, replicas] = (await atHandScript.run(this.#options.redis, [key], [])) as [string, number];
    slot.wanted.saw(server, replicas);
    slot.lookedAt = performance.now();
  }
}
