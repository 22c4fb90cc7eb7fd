/** One partition of the test's Redis: states are put into it and taken out of it again, one round trip each. */
import { AsyncLocalStorage } from 'node:async_hooks';
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
  readonly breaker: Fields;
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

/** The second half of a key, by which it is known in every lane. */
const nameOf = (key: string): string => key.slice(PLAIN.prefix.length);
const PLAIN = partitionKeys('plain');
export const IDS = [`model_${'0'.repeat(31)}1`, `model_${'0'.repeat(31)}2`] as const;
const HASHES = [
  ...IDS.map(PLAIN.record),
  ...[PLAIN.transaction(REFERENCE), PLAIN.epoch, PLAIN.asserted, PLAIN.breaker],
].map(nameOf);
const SETS = [PLAIN.due, PLAIN.awaiting, PLAIN.review, PLAIN.workers].map(nameOf);
const OUTBOX = nameOf(PLAIN.outbox);
/** What one event leaves behind and the next one does not begin with. */
const PASSING = [
  OUTBOX,
  ...[PLAIN.sweep, PLAIN.rate, PLAIN.inquiryRate, PLAIN.slowed, PLAIN.inquirySlowed, PLAIN.breakerOutcomes].map(nameOf),
];
const listOf = (names: readonly string[]): string => `{ ${names.map((name) => `'${name}'`).join(', ')} }`;

/**
 * KEYS: 1 prefix.  ARGV: 1 content as JSON, 2 clock, 3 server, 4 its start, 5 how many heartbeats stand,
 * 6.. workers whose heartbeat stands, then those whose heartbeat may stand from before
 */
const LOAD = `
local prefix, hashes, sets = KEYS[1], ${listOf(HASHES)}, ${listOf(SETS)}
local heartbeat, alive = prefix .. '${nameOf(PLAIN.heartbeat(''))}', tonumber(ARGV[5])
local gone = { prefix .. '${nameOf(PLAIN.epoch)}:recoverer:' .. ARGV[3] }
for _, names in ipairs({ hashes, sets, ${listOf(PASSING)} }) do
  for _, name in ipairs(names) do gone[#gone + 1] = prefix .. name end
end
for index = 6 + alive, #ARGV do gone[#gone + 1] = heartbeat .. ARGV[index] end
redis.call('DEL', unpack(gone))
local content = cjson.decode(ARGV[1])
for index, flat in ipairs(content.hashes) do
  if #flat > 0 then redis.call('HSET', prefix .. hashes[index], unpack(flat)) end
end
for index, flat in ipairs(content.sets) do
  if #flat > 0 then redis.call('ZADD', prefix .. sets[index], unpack(flat)) end
end
for index = 6, 5 + alive do redis.call('SET', heartbeat .. ARGV[index], '1') end
redis.call('MSET', prefix .. ':model:clock', ARGV[2], prefix .. ':model:server', ARGV[3], prefix .. ':model:started', ARGV[4])
`;

/** One text, because JSON is read faster than so many replies. KEYS: 1 prefix.  ARGV: workers */
const SAVE = `
local prefix = KEYS[1]
local found = { hashes = {}, sets = {}, alive = {}, published = {} }
for index, name in ipairs(${listOf(HASHES)}) do
  local flat = redis.call('HGETALL', prefix .. name)
  for at = 1, #flat, 2 do
    -- It only grows, and nothing reads back more than its end.
    if flat[at] == 'history' then flat[at + 1] = string.match(flat[at + 1], '[^\\n]*\\n?$') end
  end
  found.hashes[index] = flat
end
for index, name in ipairs(${listOf(SETS)}) do
  found.sets[index] = redis.call('ZRANGE', prefix .. name, 0, -1, 'WITHSCORES')
end
for index, entry in ipairs(redis.call('XRANGE', prefix .. '${OUTBOX}', '-', '+')) do found.published[index] = entry[2] end
for _, name in ipairs(ARGV) do
  if redis.call('EXISTS', prefix .. '${nameOf(PLAIN.heartbeat(''))}' .. name) == 1 then
    found.alive[#found.alive + 1] = name
  end
end
return cjson.encode(found)
`;

/** As SAVE says it; a list of nothing comes as an object of nothing. */
interface Found {
  readonly hashes: readonly string[][];
  readonly sets: readonly string[][];
  readonly published: readonly string[][];
  readonly alive: readonly string[];
}

const shaOf = (source: string): string => createHash('sha1').update(source).digest('hex');
const SHA = { load: shaOf(LOAD), save: shaOf(SAVE) };

/** Within it the monotonic clock is the lane's own: by that a worker keeps what it remembers. */
export const ownTime = new AsyncLocalStorage<Lane>();

export class Lane {
  readonly partition: string;
  readonly keys: ReturnType<typeof partitionKeys>;
  /** The same in every lane: a state may go on in another one. */
  readonly ids = IDS;
  readonly seam: Seam;
  readonly redis: RedisConnection;
  /** The time of the model, in Unix ms. */
  clock = 0;
  /** Heartbeats that may stand from what was done here before. */
  readonly #beaten = new Set<string>();

  /** `scripts`: those that the server has from us already, for all lanes. */
  constructor(redis: RedisConnection, name: string, mutate?: Mutate, scripts?: Map<string, string>) {
    this.redis = redis;
    this.partition = name;
    this.keys = partitionKeys(name);
    this.seam = new Seam(redis, mutate, scripts);
  }

  static async prepare(redis: RedisConnection): Promise<void> {
    await Promise.all([LOAD, SAVE].map(async (source) => await redis.script('LOAD', source)));
  }

  /** Sent without waiting: what follows on the same connection comes after it. */
  async load(content: Content, clock: number, server: string, startedAt: number): Promise<void> {
    this.clock = clock;
    this.seam.replies = [];
    const { alive } = content;
    const heartbeats = [...alive, ...this.#beaten];
    this.#beaten.clear();
    for (const name of alive) this.#beaten.add(name);
    const args = [packedOf(content), clock, server, startedAt, alive.length, ...heartbeats];
    await this.redis.call('EVALSHA', SHA.load, 1, this.keys.prefix, ...args);
  }

  async setClock(clock: number): Promise<void> {
    if (clock <= this.clock) return;
    this.clock = clock;
    await this.redis.set(`${this.keys.prefix}:model:clock`, clock);
  }

  /** What stands there now, and what has been published since it was loaded. */
  async save(workers: readonly string[]): Promise<{ content: Content; published: OutboxEntry[] }> {
    for (const name of workers) this.#beaten.add(name);
    const text = await this.redis.call('EVALSHA', SHA.save, 1, this.keys.prefix, ...workers);
    const { hashes, sets, alive, published } = JSON.parse(text as string) as Found;
    const [one = {}, two = {}, reference = {}, epoch = {}, asserted = {}, breaker = {}] = hashes.map(fieldsOf);
    const [due = {}, awaiting = {}, review = {}, lived = {}] = sets.map(fieldsOf);
    const content: Content = {
      records: [one.state === undefined ? null : one, two.state === undefined ? null : two],
      ...{ reference, epoch, asserted, breaker, due, awaiting, review, workers: lived },
      alive: listed(alive),
    };
    return { content, published: listed(published).map(entryOf) };
  }
}

const packs = new WeakMap<Content, string>();

/** As LOAD takes it. Kept, because every event that may follow begins with it. */
function packedOf(content: Content): string {
  const known = packs.get(content);
  if (known !== undefined) return known;
  const { records, reference, epoch, asserted, breaker, due, awaiting, review, workers } = content;
  const hashes = [records[0] ?? {}, records[1] ?? {}, reference, epoch, asserted, breaker].map((fields) =>
    Object.entries(fields).flat(),
  );
  const sets = [due, awaiting, review, workers].map((set) =>
    Object.entries(set).flatMap(([member, score]) => [score, member]),
  );
  const pack = JSON.stringify({ hashes, sets });
  packs.set(content, pack);
  return pack;
}

function entryOf(flat: readonly string[]): OutboxEntry {
  const entry = fieldsOf(flat);
  const fields = { ...entry, ...(JSON.parse(entry.record ?? '{}') as Fields) };
  return {
    of: fields.id === IDS[0] ? 0 : 1,
    type: (fields.type ?? '').replace('otp.verification.', ''),
    sequence: Number(fields.sequence),
    words: wordsOf(fields),
    attemptsRemaining: standingIn(fields).attemptsRemaining ?? '',
  };
}

/** Lua knows no difference between a list of nothing and an object of nothing. */
function listed<T>(list: readonly T[]): readonly T[] {
  return Array.isArray(list) ? list : [];
}

export function wordsOf(fields: Fields): string {
  const { otp = '-', transaction = '-', reason = '-', nextStep = '-', providerCode = '-' } = standingIn(fields);
  return [otp, transaction, reason, nextStep, providerCode].join(' ');
}

/** What the field `standing` says, each by its name; nothing of what it does not say. */
export function standingIn({ standing }: Fields): Fields {
  const values = (standing === undefined ? [] : JSON.parse(standing)) as readonly (string | number | null)[];
  const names = ['otp', 'transaction', 'reason', 'nextStep', 'providerCode', 'attemptsRemaining'];
  return Object.fromEntries(
    names.flatMap((name, index) => ((values[index] ?? null) === null ? [] : [[name, String(values[index])]])),
  );
}

function fieldsOf(flat: readonly string[]): Record<string, string> {
  const fields: Record<string, string> = {};
  for (let index = 0; index + 1 < flat.length; index += 2) fields[flat[index] as string] = flat[index + 1] as string;
  return fields;
}
