/** One partition of the test's Redis: states are put into it and taken out of it again, one round trip each. */
import { createHash } from 'node:crypto';
import { partitionKeys } from '../../src/producers/job.ts';
import type { RedisConnection } from '../../src/redis/connections.ts';
import { type Mutate, Seam } from './seam.ts';

export const REFERENCE = 'TX';
export type Of = 0 | 1;

export type Fields = Readonly<Record<string, string>>;

/** What stands in Redis for one transaction with its two verifications. */
export interface Content {
  readonly records: readonly [Fields | null, Fields | null];
  readonly reference: Fields;
  readonly due: Fields;
  readonly awaiting: Fields;
  readonly review: Fields;
  readonly epoch: Fields;
  readonly workers: Fields;
  readonly asserted: Fields;
  /** Workers whose heartbeat stands. */
  readonly alive: readonly string[];
}

export interface OutboxEntry {
  readonly of: Of;
  readonly type: string;
  readonly sequence: number;
  /** What was said, as one text that compares. */
  readonly words: string;
  /** How many more codes it promised. */
  readonly attemptsRemaining: string;
}

const LOAD = `
local content = cjson.decode(ARGV[1])
redis.call('DEL', unpack(KEYS))
for index, flat in ipairs(content.hashes) do
  if #flat > 0 then redis.call('HSET', KEYS[index], unpack(flat)) end
end
for index, flat in ipairs(content.sets) do
  if #flat > 0 then redis.call('ZADD', KEYS[6 + index], unpack(flat)) end
end
for _, name in ipairs(content.alive) do redis.call('SET', content.prefix .. ':worker:' .. name, '1') end
redis.call('MSET', content.prefix .. ':model:clock', ARGV[2], content.prefix .. ':model:server', ARGV[3],
  content.prefix .. ':model:started', ARGV[4])
`;

const SAVE = `
local found = {}
for index = 1, 6 do found[index] = redis.call('HGETALL', KEYS[index]) end
for index = 7, 10 do found[index] = redis.call('ZRANGE', KEYS[index], 0, -1, 'WITHSCORES') end
found[11] = redis.call('XRANGE', KEYS[11], '-', '+')
local alive = {}
for _, name in ipairs(ARGV) do
  if redis.call('EXISTS', string.match(KEYS[1], '^{.-}') .. ':worker:' .. name) == 1 then alive[#alive + 1] = name end
end
found[12] = alive
return found
`;

const shaOf = (source: string): string => createHash('sha1').update(source).digest('hex');
const SHA = { load: shaOf(LOAD), save: shaOf(SAVE) };

export class Lane {
  readonly partition: string;
  readonly keys: ReturnType<typeof partitionKeys>;
  readonly ids: readonly [string, string];
  readonly seam: Seam;
  readonly redis: RedisConnection;
  /** The time of the model, in Unix ms. */
  clock = 0;
  readonly #all: string[];
  readonly #content: string[];
  /** Heartbeats that may stand from what was done here before. */
  readonly #beaten = new Set<string>();

  constructor(redis: RedisConnection, name: string, mutate?: Mutate) {
    this.redis = redis;
    this.partition = name;
    this.keys = partitionKeys(name);
    this.ids = [`${name}_${'0'.repeat(31)}1`, `${name}_${'0'.repeat(31)}2`];
    this.seam = new Seam(redis, mutate);
    const { keys, ids } = this;
    const hashes = [keys.record(ids[0]), keys.record(ids[1]), keys.transaction(REFERENCE)];
    const sets = [keys.due, keys.awaiting, keys.review, keys.workers];
    this.#content = [...hashes, keys.epoch, keys.asserted, `${keys.prefix}:unused`, ...sets, keys.outbox];
    this.#all = [...this.#content, keys.sweep, keys.rate, keys.inquiryRate];
  }

  async prepare(): Promise<void> {
    await Promise.all([LOAD, SAVE].map(async (source) => await this.redis.script('LOAD', source)));
  }

  /** Sent without waiting: what follows on the same connection comes after it. */
  async load(packed: string, clock: number, server: string, startedAt: number): Promise<void> {
    this.clock = clock;
    this.seam.replies = [];
    const keys = [
      ...this.#all,
      `${this.keys.epoch}:recoverer:${server}`,
      ...[...this.#beaten].map((name) => this.keys.heartbeat(name)),
    ];
    this.#beaten.clear();
    for (const name of (JSON.parse(packed) as { alive: string[] }).alive) this.#beaten.add(name);
    const args = [packed, clock, server, startedAt];
    await this.redis.call('EVALSHA', SHA.load, keys.length, ...keys, ...args);
  }

  async setClock(clock: number): Promise<void> {
    if (clock <= this.clock) return;
    this.clock = clock;
    await this.redis.set(`${this.keys.prefix}:model:clock`, clock);
  }

  /** What stands there now, and what has been published since it was loaded. */
  async save(workers: readonly string[]): Promise<{ content: Content; published: OutboxEntry[] }> {
    for (const name of workers) this.#beaten.add(name);
    const keys = this.#content;
    const found = (await this.redis.call('EVALSHA', SHA.save, keys.length, ...keys, ...workers)) as unknown[];
    const hash = (index: number): Record<string, string> => fieldsOf(found[index] as string[]);
    const records = [0, 1].map((index) => {
      const record = hash(index);
      if (record.state === undefined) return null;
      record.history = ''; // nothing reads it back, and it only grows
      return record;
    }) as [Fields | null, Fields | null];
    const content: Content = {
      records,
      reference: hash(2),
      epoch: hash(3),
      asserted: hash(4),
      due: hash(6),
      awaiting: hash(7),
      review: hash(8),
      workers: hash(9),
      alive: found[11] as string[],
    };
    const published = (found[10] as [string, string[]][]).map(([, flat]) => {
      const fields = fieldsOf(flat);
      return {
        of: (fields.id === this.ids[0] ? 0 : 1) as Of,
        type: (fields.type ?? '').replace('otp.verification.', ''),
        sequence: Number(fields.sequence),
        words: wordsOf(fields),
        attemptsRemaining: fields.attemptsRemaining ?? '',
      };
    });
    return { content, published };
  }

  /** As `load` takes it. Kept with a state, because every event that may follow begins with it. */
  pack(content: Content): string {
    const { records, reference, epoch, asserted, due, awaiting, review, workers, alive } = content;
    const hashes = [records[0] ?? {}, records[1] ?? {}, reference, epoch, asserted, {}].map((fields) => {
      return Object.entries(fields).flat();
    });
    const sets = [due, awaiting, review, workers].map((set) => {
      return Object.entries(set).flatMap(([member, score]) => [score, member]);
    });
    return JSON.stringify({ hashes, sets, alive, prefix: this.keys.prefix });
  }
}

export function wordsOf(fields: Fields): string {
  const { otp = '-', transaction = '-', reason = '-', nextStep = '-', providerCode = '-' } = fields;
  return [otp, transaction, reason, nextStep, providerCode].join(' ');
}

function fieldsOf(flat: readonly string[]): Record<string, string> {
  const fields: Record<string, string> = {};
  for (let index = 0; index + 1 < flat.length; index += 2) fields[flat[index] as string] = flat[index + 1] as string;
  return fields;
}
