/**
 * The places where a value could lie readable for somebody else than its owner. Each is read whole or throws: a place
 * that could not be read, that is empty, or that lacks what must be in it has not been searched, and fails the gate.
 */
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { inspect } from 'node:util';
import { Redis } from 'ioredis';
import type { Canary, Kind } from './canaries.ts';
import { type Finding, Search } from './search.ts';

/** Bytes that belong together, and where exactly they were. */
export interface Part {
  readonly where: string;
  readonly bytes: Buffer;
}

export interface Place {
  readonly name: string;
  read(): Promise<readonly Part[]>;
  /** Texts of which each must be found in it, as proof that it was really looked at. */
  readonly proof: readonly string[];
  /** Why it may be empty: then only an error says that it was not read. */
  readonly mayBeEmpty?: string;
  /** What is there by design, and where that is documented. */
  readonly holds?: { readonly kinds: readonly Kind[]; readonly because: string };
}

export interface Leak extends Finding {
  readonly place: string;
  readonly where: string;
}

export interface Unread {
  readonly place: string;
  readonly why: string;
}

export interface Inspection {
  readonly leaks: readonly Leak[];
  readonly unread: readonly Unread[];
  /** Bytes read, by place. */
  readonly bytes: ReadonlyMap<string, number>;
}

export async function inspectPlaces(places: readonly Place[], canaries: readonly Canary[]): Promise<Inspection> {
  const search = new Search(canaries);
  const leaks: Leak[] = [];
  const unread: Unread[] = [];
  const bytes = new Map<string, number>();
  for (const place of places) {
    let parts: readonly Part[];
    try {
      parts = await place.read();
    } catch (error) {
      unread.push({ place: place.name, why: error instanceof Error ? error.message : String(error) });
      continue;
    }
    const size = parts.reduce((sum, part) => sum + part.bytes.length, 0);
    bytes.set(place.name, size);
    if (size === 0 && place.mayBeEmpty === undefined) unread.push({ place: place.name, why: 'it is empty' });
    for (const proof of place.proof) {
      if (!parts.some((part) => part.bytes.includes(proof))) {
        unread.push({ place: place.name, why: `it should hold "${proof}" and does not` });
      }
    }
    for (const { where, bytes } of parts) {
      for (const finding of search.in(bytes)) {
        if (place.holds?.kinds.includes(finding.canary.kind)) continue;
        leaks.push({ ...finding, place: place.name, where });
      }
    }
  }
  return { leaks, unread, bytes };
}

/** More of them say no more. */
const MOST_LINES = 60;

/** One line for each, for a test's message. */
export function report({ leaks, unread }: Pick<Inspection, 'leaks' | 'unread'>): string[] {
  const lines = leaks.slice(0, MOST_LINES).map(({ place, where, canary, encoding, layers, excerpt }) => {
    const form = layers === 0 ? encoding : `${encoding}, behind ${layers} layers of escapes`;
    return `${place} (${where}) holds the ${canary.kind} "${canary.name}" as ${form}: …${excerpt}…`;
  });
  return [
    ...unread.map(({ place, why }) => `${place} could not be searched: ${why}`),
    ...lines,
    ...(leaks.length > MOST_LINES ? [`and ${leaks.length - MOST_LINES} more`] : []),
  ];
}

/** A client of the test's own, which leaves no trace in the pipeline's connections. */
async function asking<T>(url: string, work: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url, { retryStrategy: () => null, maxRetriesPerRequest: 0, lazyConnect: true });
  redis.on('error', () => {}); // told by the command that fails
  try {
    await redis.connect();
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}

async function setting(redis: Redis, name: string): Promise<string> {
  const [, value] = (await redis.config('GET', name)) as string[];
  if (value === undefined) throw new Error(`the server has no setting ${name}`);
  return value;
}

/** Redis must not compress, or a value could lie there in pieces. */
export async function makeReadable(url: string): Promise<void> {
  await asking(url, async (redis) => {
    await redis.config('SET', 'rdbcompression', 'no');
    await redis.config('SET', 'aof-use-rdb-preamble', 'no');
    if ((await setting(redis, 'appendonly')) !== 'yes') return;
    const folder = join(await setting(redis, 'dir'), await setting(redis, 'appenddirname'));
    // A rewritten file forgets what is gone from the keys, so only the one from before the setting is replaced.
    if (!readdirSync(folder).some((name) => name.endsWith('.rdb'))) return;
    await redis.bgrewriteaof();
    const giveUpAt = Date.now() + 10_000;
    while (/aof_rewrite_(in_progress|scheduled):1/.test(await redis.info('persistence'))) {
      if (Date.now() > giveUpAt) throw new Error('the append-only file is still being rewritten');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });
}

export function rdbFile(url: string, proof: readonly string[]): Place {
  return {
    name: 'Redis RDB',
    proof,
    read: () =>
      asking(url, async (redis) => {
        if ((await setting(redis, 'rdbcompression')) !== 'no') throw new Error('its texts are compressed');
        const file = join(await setting(redis, 'dir'), await setting(redis, 'dbfilename'));
        rmSync(file, { force: true });
        await redis.save();
        const bytes = readFileSync(file);
        const whole = /^(REDIS|VALKEY)\d+/.test(bytes.toString('latin1', 0, 12)) && bytes.at(-9) === 0xff;
        if (!whole) throw new Error('it is no whole RDB file');
        return [{ where: file, bytes }];
      }),
  };
}

/** Everything that was ever written, also what is gone from the keys. */
export function appendOnlyFile(url: string, proof: readonly string[]): Place {
  return {
    name: 'Redis AOF',
    proof,
    read: () =>
      asking(url, async (redis) => {
        if ((await setting(redis, 'appendonly')) !== 'yes') throw new Error('the server keeps none');
        const folder = join(await setting(redis, 'dir'), await setting(redis, 'appenddirname'));
        return readdirSync(folder).map((name) => {
          if (name.endsWith('.rdb')) throw new Error(`${name} is in the binary form, which may be compressed`);
          return { where: name, bytes: readFileSync(join(folder, name)) };
        });
      }),
  };
}

type Raw = Buffer | string | number | null | Raw[];

function flat(reply: Raw): Buffer[] {
  if (Array.isArray(reply)) return reply.flatMap(flat);
  return reply === null ? [] : [Buffer.from(typeof reply === 'number' ? String(reply) : (reply as string))];
}

/** How the whole of a key of each type is asked for. */
const READS: Readonly<Record<string, (key: Buffer) => [string, ...(string | Buffer)[]]>> = {
  string: (key) => ['GET', key],
  hash: (key) => ['HGETALL', key],
  list: (key) => ['LRANGE', key, '0', '-1'],
  set: (key) => ['SMEMBERS', key],
  zset: (key) => ['ZRANGE', key, '0', '-1', 'WITHSCORES'],
  stream: (key) => ['XRANGE', key, '-', '+'],
};

async function keysOf(redis: Redis): Promise<{ key: Buffer; type: string }[]> {
  const found: { key: Buffer; type: string }[] = [];
  let cursor = '0';
  do {
    const [next, keys] = (await redis.callBuffer('SCAN', cursor, 'COUNT', '1000')) as [Buffer, Buffer[]];
    const pipeline = redis.pipeline();
    for (const key of keys) pipeline.type(key);
    const types = (await pipeline.exec()) ?? [];
    keys.forEach((key, index) => {
      found.push({ key, type: String(types[index]?.[1]) });
    });
    cursor = next.toString();
  } while (cursor !== '0');
  return found.filter(({ type }) => type !== 'none'); // expired since it was listed
}

async function contentOf(redis: Redis, key: Buffer, type: string): Promise<Part> {
  const read = READS[type];
  if (read === undefined) throw new Error(`${key} is of the type ${type}, which nobody here can read`);
  const [command, ...args] = read(key);
  const content = flat((await redis.callBuffer(command, ...args)) as Raw);
  const bytes = Buffer.concat([key, ...content].flatMap((each) => [each, Buffer.from('\n')]));
  return { where: `${type} ${key}`, bytes };
}

/** Every key of every database: names, fields, members, entries. */
export function everyKey(url: string, proof: readonly string[]): Place {
  return {
    name: 'Redis keys',
    proof,
    read: () =>
      asking(url, async (redis) => {
        const databases = [...(await redis.info('keyspace')).matchAll(/^db(\d+):/gm)].map(([, number]) =>
          Number(number),
        );
        const parts: Part[] = [];
        for (const database of databases) {
          await redis.select(database);
          const keys = await keysOf(redis);
          parts.push(...(await Promise.all(keys.map(({ key, type }) => contentOf(redis, key, type)))));
        }
        return parts;
      }),
  };
}

/** BullMQ's streams of what happened to each job; every queue named here must have one. */
export function eventStreams(url: string, queues: readonly string[]): Place {
  return {
    name: 'BullMQ events streams',
    proof: queues.map((queue) => `:${queue}:events`),
    read: () =>
      asking(url, async (redis) => {
        const streams = (await keysOf(redis)).filter(
          ({ key, type }) => type === 'stream' && String(key).endsWith(':events'),
        );
        const parts = await Promise.all(streams.map(({ key, type }) => contentOf(redis, key, type)));
        const empty = parts.filter(({ where, bytes }) => bytes.length <= where.length);
        if (empty.length > 0) throw new Error(`nothing stands in ${empty.map(({ where }) => where).join(', ')}`);
        return parts;
      }),
  };
}

/** Every command that reaches a server, with all that is published and asked and never written down. */
export class Eavesdropper implements AsyncDisposable {
  readonly #chunks: Buffer[] = [];
  #socket: Socket | null = null;

  /** Goes on where it stood when the server has been away. */
  async listen(url: string): Promise<void> {
    const { hostname, port, password } = new URL(url);
    this.#socket?.destroy();
    const socket = connect({ host: hostname, port: Number(port) });
    this.#socket = socket;
    socket.on('error', () => {});
    await new Promise<void>((listening, failed) => {
      let greeting = '';
      socket.once('close', () => failed(new Error('the server does not let anybody listen')));
      socket.on('data', (chunk) => {
        if (greeting.includes('+OK\r\n+OK\r\n')) {
          this.#chunks.push(chunk);
          return;
        }
        greeting += chunk.toString('latin1');
        if (greeting.includes('+OK\r\n+OK\r\n')) listening();
      });
      socket.write(`AUTH ${password}\r\nMONITOR\r\n`);
    });
  }

  /** Without what scripts do inside the server: it is made of their arguments, which are here, and is in the AOF. */
  place(proof: readonly string[]): Place {
    return {
      name: 'Redis commands',
      proof,
      read: async () => {
        const lines = Buffer.concat(this.#chunks).toString('latin1').split('\r\n');
        const sent = lines.filter((line) => !/^\+[\d.]+ \[\d+ lua\] /.test(line));
        return [{ where: 'MONITOR', bytes: Buffer.from(sent.join('\n'), 'latin1') }];
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket?.destroy();
  }
}

/** What a process says, kept apart by where it says it. */
export class Capture {
  readonly #chunks: Record<'stdout' | 'stderr', Buffer[]> = { stdout: [], stderr: [] };
  readonly #open = new Set<'stdout' | 'stderr'>();

  constructor(child: { readonly stdout: Readable | null; readonly stderr: Readable | null }) {
    for (const name of ['stdout', 'stderr'] as const) {
      const stream = child[name];
      if (stream === null) continue;
      this.#open.add(name);
      stream.on('data', (chunk: Buffer) => this.#chunks[name].push(chunk));
      stream.on('error', () => this.#open.delete(name));
    }
  }

  bytes(name: 'stdout' | 'stderr'): Buffer {
    if (!this.#open.has(name)) throw new Error(`nobody listens to its ${name}`);
    return Buffer.concat(this.#chunks[name]);
  }

  text(name: 'stdout' | 'stderr'): string {
    return this.bytes(name).toString('utf8');
  }
}

/** `after` cuts off what comes before the end of this text, which must be there. */
export function output(
  name: string,
  stream: 'stdout' | 'stderr',
  captures: Readonly<Record<string, Capture>>,
  { proof = [], ...more }: Partial<Pick<Place, 'proof' | 'mayBeEmpty' | 'holds'>> & { readonly after?: RegExp } = {},
): Place {
  const { after, ...rest } = more;
  return {
    name: `${stream} of ${name}`,
    proof,
    ...rest,
    read: async () =>
      Object.entries(captures).map(([where, capture]) => {
        const bytes = capture.bytes(stream);
        if (after === undefined) return { where, bytes };
        const begin = after.exec(bytes.toString('latin1'));
        if (begin === null) throw new Error(`${where} never said ${after}`);
        return { where, bytes: bytes.subarray(begin.index + begin[0].length) };
      }),
  };
}

export function file(name: string, path: string, proof: readonly string[], holds?: Place['holds']): Place {
  return {
    name,
    proof,
    ...(holds === undefined ? {} : { holds }),
    read: async () => [{ where: path, bytes: readFileSync(path) }],
  };
}

/** An answer as it came: status, headers, body. */
export async function answerOf(url: string, init: RequestInit = {}): Promise<Part & { readonly status: number }> {
  const response = await fetch(url, { redirect: 'manual', signal: AbortSignal.timeout(10_000), ...init });
  const headers = [...response.headers].map(([header, value]) => `${header}: ${value}\n`).join('');
  const body = Buffer.from(await response.arrayBuffer());
  return {
    status: response.status,
    where: `${init.method ?? 'GET'} ${new URL(url).pathname}, ${response.status}`,
    bytes: Buffer.concat([Buffer.from(`${response.status}\n${headers}\n`), body]),
  };
}

export interface Page {
  readonly url: string;
  /** What it must be answered with, or one of these; anything else counts as not read. */
  readonly status: number | readonly number[];
  readonly init?: RequestInit;
}

/** A few at a time, each in its own place. */
async function each<In, Out>(inputs: readonly In[], work: (input: In) => Promise<Out>): Promise<Out[]> {
  const outputs: Out[] = [];
  const left = [...inputs.entries()].reverse();
  const workOn = async (): Promise<void> => {
    for (let next = left.pop(); next !== undefined; next = left.pop()) outputs[next[0]] = await work(next[1]);
  };
  await Promise.all(Array.from({ length: 6 }, workOn));
  return outputs;
}

export function pages(name: string, wanted: readonly Page[], proof: readonly string[]): Place {
  return {
    name,
    proof,
    read: () =>
      each(wanted, async ({ url, status, init }) => {
        const part = await answerOf(url, init);
        if (![status].flat().includes(part.status)) throw new Error(`${part.where}, and ${status} was expected`);
        return part;
      }),
  };
}

interface ListedQueue {
  readonly name: string;
  readonly counts: Readonly<Record<string, number>>;
  readonly jobs: readonly { readonly id: string }[];
}

/** Of each queue and state these are looked at one by one; the list has them all. */
const MOST_JOBS = 10;

/** Bull Board's page, and all that its JSON says of the queues and of their jobs in every state. */
export function bullBoard(boardUrl: string, headers: Record<string, string>, proof: readonly string[]): Place {
  return {
    name: 'Bull Board',
    proof,
    read: async () => {
      const parts: Part[] = [];
      const get = async (path: string, ...allowed: number[]): Promise<Part> => {
        const part = await answerOf(`${boardUrl}${path}`, { headers });
        if (![200, ...allowed].includes(part.status)) throw new Error(part.where);
        parts.push(part);
        return part;
      };
      const listed = async (query: string): Promise<readonly ListedQueue[]> => {
        const text = (await get(`/api/queues${query}`)).bytes.toString('utf8');
        return (JSON.parse(text.slice(text.indexOf('\n\n'))) as { queues: ListedQueue[] }).queues;
      };
      await get('/');
      await get('/api/job-schedulers');
      const queues = await listed('');
      if (queues.length === 0) throw new Error('it shows no queue');
      await each(queues, async ({ name, counts }) => {
        await get(`/queue/${name}`);
        for (const what of ['metrics', 'default-job-options', 'rate-limit']) await get(`/api/queues/${name}/${what}`);
        for (const status of Object.keys(counts).filter((each) => (counts[each] ?? 0) > 0)) {
          const active = await listed(`?activeQueue=${name}&status=${status}&page=1&jobsPerPage=500`);
          const jobs = active.find((queue) => queue.name === name)?.jobs ?? [];
          for (const { id } of jobs.slice(0, MOST_JOBS)) {
            const job = `/api/queues/${name}/${encodeURIComponent(id)}`;
            // A masked id leads nowhere, which is an answer as well.
            for (const path of [job, `${job}/logs`, `${job}/flow`]) await get(path, 404);
          }
        }
      });
      return parts;
    },
  };
}

/** What was collected on the way, by somebody else. */
export function collected(name: string, parts: () => readonly Part[], proof: readonly string[]): Place {
  return { name, proof, read: async () => parts() };
}

/** Everything of an error that a program, a log or a crash would show: its own words, its stack, and all its causes. */
export function wordsOf(thrown: unknown, where: string): Part[] {
  const parts: Part[] = [];
  const seen = new Set<unknown>();
  const visit = (error: unknown, path: string): void => {
    if (seen.has(error)) return;
    seen.add(error);
    const shown = inspect(error, {
      depth: 12,
      showHidden: true,
      maxStringLength: null,
      maxArrayLength: null,
      breakLength: 200,
    });
    const words = error instanceof Error ? [error.name, error.message, error.stack ?? ''] : [String(error)];
    parts.push({ where: path, bytes: Buffer.from([...words, shown, asJson(error)].join('\n')) });
    if (typeof error !== 'object' || error === null) return;
    for (const name of Object.getOwnPropertyNames(error)) {
      const member = (error as Record<string, unknown>)[name];
      if (name === 'stack' || typeof member !== 'object' || member === null) continue;
      if (member instanceof Error || name === 'cause' || name === 'errors') visit(member, `${path}.${name}`);
    }
  };
  visit(thrown, where);
  return parts;
}

/** What some loggers make of it. */
function asJson(error: unknown): string {
  try {
    if (typeof error !== 'object' || error === null) return JSON.stringify(error) ?? '';
    const members = Object.getOwnPropertyNames(error).map((name) => [name, (error as Record<string, unknown>)[name]]);
    return JSON.stringify(Object.fromEntries(members));
  } catch {
    return ''; // a ring of objects, which inspect has shown
  }
}
