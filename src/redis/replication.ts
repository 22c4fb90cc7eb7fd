/**
 * Writes that must not be lost with the server they were made on. They travel on a connection of their own, because WAIT
 * holds up whatever comes behind it on the same one: all that were asked for while the last WAIT was under way go out
 * together, with one WAIT behind them.
 *
 * WAIT counts only what this connection itself has written. Where it broke in between, or the script wrote nothing, the
 * answer is worth nothing: so what is sent here always writes, and a WAIT that did not come back counts as no replica.
 */
import type { ChainableCommander } from 'ioredis';
import { duplicateOf } from './cluster.ts';
import type { RedisConnection } from './connections.ts';
import type { Script } from './script.ts';

const WAIT_MS = 200;
/** Beyond what the server may take for WAIT itself. */
const SOCKET_GRACE_MS = 12_000;

export interface Replicated {
  readonly reply: unknown;
  /** Replicas that have the write, as far as was waited for. */
  readonly replicas: number;
}

/** A replica that was there and is not is waited for so long: its server may be one whose place another has taken. */
const REPLICAS_GONE_AFTER_MS = 15_000;

/**
 * How many replicas must have a write. With `auto`, all that the server has: whichever of them takes its place has the
 * write then. One that is gone is wanted for a while more: it may have taken the place already, with a server that does
 * not know it and others that still follow that one, as in every failover that Sentinels are asked for.
 */
export class WantedReplicas {
  readonly #configured: number | 'auto';
  readonly #goneAfterMs: number;
  readonly #carriedOver: number;
  #server: string | null = null;
  #atHand = 0;
  #most = 0;
  #fewerSince: number | null = null;

  /** `carriedOver`: so many of those of one server are wanted for a while of the one that takes its place. */
  constructor(
    configured: number | 'auto',
    {
      goneAfterMs = REPLICAS_GONE_AFTER_MS,
      carriedOver = 0,
    }: { goneAfterMs?: number | undefined; carriedOver?: 0 | 1 } = {},
  ) {
    this.#configured = configured;
    this.#goneAfterMs = goneAfterMs;
    this.#carriedOver = carriedOver;
  }

  get count(): number {
    if (this.#configured !== 'auto') return this.#configured;
    const isGone = this.#fewerSince !== null && performance.now() - this.#fewerSince >= this.#goneAfterMs;
    return isGone ? this.#atHand : this.#most;
  }

  /** What the server said of itself just now. */
  saw(server: string, replicas: number): void {
    const wanted = server === this.#server ? this.count : Math.min(this.count, this.#carriedOver);
    if (server !== this.#server || wanted < this.#most) this.#fewerSince = null;
    this.#server = server;
    this.#atHand = replicas;
    this.#most = Math.max(wanted, replicas);
    this.#fewerSince = replicas < wanted ? (this.#fewerSince ?? performance.now()) : null;
  }
}

interface Write {
  readonly script: Script;
  readonly keys: readonly string[];
  readonly args: readonly (string | number)[];
  readonly wanted: number;
  /** The server has not this script yet: its text goes along. */
  whole: boolean;
  resolve(replicated: Replicated): void;
  reject(error: Error): void;
}

export interface ReplicatedWritesOptions {
  /** Says where the server is; the connection that is used is made when it is first needed. */
  readonly redis: RedisConnection;
  /** How long a write waits for its replicas; 200 by default. */
  readonly waitMs?: number | undefined;
  readonly onError: (error: Error) => void;
}

/** All keys of one of these must be in one slot: it is one server that WAIT asks. */
export class ReplicatedWrites {
  readonly #options: ReplicatedWritesOptions;
  readonly #waitMs: number;
  #connection: RedisConnection | null = null;
  #queue: Write[] = [];
  #sending: Promise<void> | null = null;
  #closed = false;

  constructor(options: ReplicatedWritesOptions) {
    this.#options = options;
    this.#waitMs = options.waitMs ?? WAIT_MS;
  }

  /** Where no replica is wanted it goes on the ordinary connection, behind no WAIT. */
  async run(
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
    wanted: number,
  ): Promise<Replicated> {
    if (wanted === 0) return { reply: await script.run(this.#options.redis, keys, args), replicas: 0 };
    return await new Promise((resolve, reject) => {
      this.#queue.push({ script, keys, args, wanted, whole: false, resolve, reject });
      this.#sending ??= this.#send().finally(() => {
        this.#sending = null;
      });
    });
  }

  close(): void {
    this.#closed = true;
    this.#connection?.disconnect();
  }

  async #send(): Promise<void> {
    await new Promise(setImmediate); // whatever else this turn asks for comes along
    while (this.#queue.length > 0) {
      const writes = this.#queue.splice(0);
      try {
        await this.#sendTogether(writes);
      } catch (error) {
        for (const write of writes) write.reject(error as Error);
      }
    }
  }

  async #sendTogether(writes: readonly Write[]): Promise<void> {
    const connection = this.#open();
    const pipeline: ChainableCommander = connection.pipeline();
    for (const { script, keys, args, whole } of writes) script.addTo(pipeline, keys, args, whole);
    pipeline.wait(Math.max(...writes.map(({ wanted }) => wanted)), this.#waitMs);
    const answers = (await pipeline.exec()) ?? [];
    const replicas = Number(answers[writes.length]?.[1] ?? 0);
    const again: Write[] = [];
    for (const [index, write] of writes.entries()) {
      const [error, reply] = answers[index] ?? [new Error('the pipeline has no answer for it')];
      if (error === null) write.resolve({ reply, replicas });
      else if (error.message.startsWith('NOSCRIPT') && !write.whole)
        this.#queue.push(Object.assign(write, { whole: true }));
      else if (this.#closed || !mayBeSaidAgain(error)) write.reject(error);
      else again.push(write);
    }
    await this.#sayAgain(again, connection);
  }

  /**
   * An ordinary command follows the slot to where it is now, or waits for the server to come back; a pipeline does not.
   * Where it is refused, because its connection is one that fails fast, so is what was to be said again.
   */
  async #sayAgain(writes: readonly Write[], connection: RedisConnection): Promise<void> {
    const [first] = writes;
    if (first === undefined) return;
    try {
      await connection.exists(first.keys[0] ?? '');
      this.#queue.push(...writes);
    } catch (error) {
      for (const write of writes) write.reject(error as Error);
    }
  }

  #open(): RedisConnection {
    if (this.#closed) throw new Error('it is closed');
    if (this.#connection) return this.#connection;
    const { redis, onError } = this.#options;
    const connection = duplicateOf(redis, {
      connectionName: 'otp-replicated',
      socketTimeout: this.#waitMs + SOCKET_GRACE_MS,
    });
    connection.on('error', onError);
    this.#connection = connection;
    return connection;
  }
}

/** It was not carried out, or the connection broke; a script that is sent here does no harm when it is repeated. */
function mayBeSaidAgain({ name, message }: Error): boolean {
  return (
    name !== 'ReplyError' || /^(MOVED|ASK|TRYAGAIN|CLUSTERDOWN|LOADING|READONLY|MASTERDOWN|UNBLOCKED)\b/.test(message)
  );
}
