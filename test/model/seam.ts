/**
 * The production scripts on a real Redis, with a clock and a server of the test's own. Only the text of a script is
 * changed on its way to Redis, and only where it asks Redis for the time or for itself; a mutant changes more of it.
 */
import { createHash } from 'node:crypto';
import type { RedisConnection } from '../../src/redis/connections.ts';

/** Takes the place of what Redis knows of the time and of itself. Every script's first key begins with the partition. */
const PRELUDE = `
local function modelValue(name) return redis.call('GET', string.match(KEYS[1], '^{.-}') .. ':model:' .. name) end
local function modelTime()
  local now = tonumber(modelValue('clock'))
  return { math.floor(now / 1000), (now % 1000) * 1000 }
end
local function modelUptime() return (tonumber(modelValue('clock')) - tonumber(modelValue('started'))) / 1000 end
`;

const OWN_SERVER = `local function currentServer() return modelValue('server') end`;

/** Stands for a reply that never came, of what was carried out. */
const LOST = 'the reply was lost';
export class ReplyLost extends Error {
  override readonly name = 'ReplyLost';
}

/** When this turn of the event loop has ended, and all is asked that is asked at its end. */
async function answeredLater(reply: unknown): Promise<unknown> {
  for (let turn = 0; turn < 2; turn += 1) await new Promise((goOn) => setImmediate(goOn));
  return reply;
}

/** As apply.lua says it of one change. */
function isWritten(reply: unknown): boolean {
  return typeof reply === 'string' && /^\[\[1,/.test(reply);
}

export type Mutate = (source: string) => string;

export class Seam {
  /** What the journal is given in place of a connection. */
  readonly connection: RedisConnection;
  /** While these are there they are the replies, in order, and Redis is not asked: so a journal's memory is rebuilt. */
  rehearsed: unknown[] | null = null;
  /** What is rehearsed was asked at the same time as other things. */
  rehearsesTurns = false;
  /** What the scripts that really ran have answered, in order. */
  replies: unknown[] = [];
  /** The reply that says that a change was written is lost. */
  losesReply = false;
  #underWay = 0;
  #answered: (() => void)[] = [];
  readonly #redis: RedisConnection;
  readonly #mutate: Mutate;
  /** From the hash of the text as the product has it to the hash of the text as it runs here. */
  readonly #known: Map<string, string>;

  constructor(redis: RedisConnection, mutate: Mutate = (source) => source, known = new Map<string, string>()) {
    this.#redis = redis;
    this.#mutate = mutate;
    this.#known = known;
    const own: Record<string, unknown> = {
      evalsha: async (sha: string, ...rest: unknown[]) => await this.#evalsha(sha, rest),
      eval: async (source: string, ...rest: unknown[]) => await this.#eval(source, rest),
    };
    this.connection = new Proxy(redis, {
      get: (target, name) => {
        if (typeof name === 'string' && name in own) return own[name];
        const value = Reflect.get(target, name, target) as unknown;
        if (typeof value !== 'function') return value;
        return this.rehearsed === null ? value.bind(target) : async () => 0;
      },
    });
  }

  async #evalsha(sha: string, rest: unknown[]): Promise<unknown> {
    if (this.rehearsed !== null) {
      const reply = this.rehearsed.shift();
      if (reply === LOST) throw new ReplyLost();
      return this.rehearsesTurns ? await this.#inOneTurn(answeredLater(reply)) : reply;
    }
    const patched = this.#known.get(sha);
    if (patched === undefined) throw new Error('NOSCRIPT the test has not seen this script yet');
    const reply = await this.#inOneTurn(this.#redis.call('EVALSHA', patched, ...(rest as string[])));
    const isLost = this.losesReply && isWritten(reply);
    if (isLost) this.losesReply = false;
    this.replies.push(isLost ? LOST : reply);
    if (isLost) throw new ReplyLost();
    return reply;
  }

  /**
   * What is asked at the same time is answered at the same time, also when it is rehearsed: else what follows would be asked
   * together the one time and apart the other.
   */
  async #inOneTurn(asking: Promise<unknown>): Promise<unknown> {
    this.#underWay += 1;
    const [answer] = await Promise.allSettled([asking]);
    this.#underWay -= 1;
    await new Promise<void>((goOn) => {
      this.#answered.push(goOn);
      if (this.#underWay === 0) for (const each of this.#answered.splice(0)) each();
    });
    if (answer.status === 'rejected') throw answer.reason;
    return answer.value;
  }

  async #eval(source: string, rest: unknown[]): Promise<unknown> {
    const patched = (await this.#redis.script('LOAD', this.#patch(source))) as string;
    this.#known.set(createHash('sha1').update(source).digest('hex'), patched);
    return await this.#evalsha(createHash('sha1').update(source).digest('hex'), rest);
  }

  #patch(source: string): string {
    const text = this.#mutate(source)
      .replaceAll(`redis.call('TIME')`, 'modelTime()')
      .replace(/local function currentServer\(\)[\s\S]*?\nend/, OWN_SERVER)
      .replace(/local function replicasAtHand\(\)[\s\S]*?\nend/, 'local function replicasAtHand() return 0 end')
      .replace(/string\.match\(redis\.call\('INFO', 'server'\), 'uptime_in_seconds:\(%d\+\)'\)/, 'modelUptime()');
    if (/redis\.call\('(TIME|INFO)'/.test(text))
      throw new Error(`a script asks Redis for more than the test gives:\n${text}`);
    return `${PRELUDE}\n${text}`;
  }
}
