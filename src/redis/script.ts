import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { ChainableCommander } from 'ioredis';
import type { RedisConnection } from './connections.ts';

/** One Lua script, kept in a file beside the module that owns it; Redis compiles it once per server. */
export class Script {
  readonly #source: string;
  readonly #sha: string;

  private constructor(source: string) {
    this.#source = source;
    this.#sha = createHash('sha1').update(source).digest('hex');
  }

  /** `new URL('./begin.lua', import.meta.url)`; several files are joined in order, functions first. */
  static fromFiles(...files: URL[]): Script {
    return new Script(files.map((file) => readFileSync(file, 'utf8')).join('\n'));
  }

  /** As one command of a pipeline; `whole` for a server that has not seen it yet. */
  addTo(
    pipeline: ChainableCommander,
    keys: readonly string[],
    args: readonly (string | number)[],
    whole: boolean,
  ): void {
    if (whole) pipeline.eval(this.#source, keys.length, ...keys, ...args);
    else pipeline.evalsha(this.#sha, keys.length, ...keys, ...args);
  }

  async run(
    connection: RedisConnection,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<unknown> {
    try {
      return await connection.evalsha(this.#sha, keys.length, ...keys, ...args);
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
      // A restarted or failed-over server has an empty script cache; EVAL fills it again.
      return await connection.eval(this.#source, keys.length, ...keys, ...args);
    }
  }
}

/** What HGETALL gave, which inside a script is a flat list of fields and values. */
export function hashIn(reply: unknown): Record<string, string> {
  const flat = reply as string[];
  const hash: Record<string, string> = {};
  for (let index = 0; index + 1 < flat.length; index += 2) hash[flat[index] as string] = flat[index + 1] as string;
  return hash;
}
