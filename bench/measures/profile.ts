/**
 * What does a verification cost, and where? The worker's thread by V8's profiler, Redis by its own statistics, while a
 * backlog is worked off; both cost something themselves, so these numbers are for comparing parts, not for adding up.
 */
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Redis } from 'ioredis';
import type { Pipeline } from '../pipelines/pipeline.ts';
import { rounded, type SideTable } from '../report.ts';

const CONCURRENCY = 200;
const WARM_SHARE = 0.4;
const ENDS_AT = 0.9;
const SLOWLOG_LENGTH = 20_000;
const POLL_MS = 20;

export interface Profile {
  /** Microseconds of the worker's thread for each verification, by whose code it was. */
  readonly thread: ReadonlyMap<string, number>;
  /** The share of the time in which the thread was at work. */
  readonly utilisation: number;
  /** Commands and scripts that Redis ran for each verification, and the microseconds they took; scripts by name. */
  readonly redis: ReadonlyMap<string, { readonly calls: number; readonly micros: number }>;
}

export async function profileOnce(pipeline: Pipeline, count: number): Promise<Profile> {
  const file = join(tmpdir(), `otp-profile-${randomUUID()}.json`);
  await using house = await pipeline.open({ delayMs: 0, concurrency: CONCURRENCY });
  const redis = new Redis(house.store);
  try {
    await house.fill(count);
    const worker = await withProfiler(file, async () => await house.startWorker());
    const reached = async (share: number): Promise<number> => {
      for (;;) {
        const results = await house.results();
        if (results >= count * share) return results;
        await delay(POLL_MS);
      }
    };
    const from = await reached(WARM_SHARE);
    await redis.config('RESETSTAT');
    await redis.config('SET', 'slowlog-max-len', String(SLOWLOG_LENGTH));
    await redis.config('SET', 'slowlog-log-slower-than', '0');
    process.kill(worker.pid, 'SIGUSR2');
    const until = await reached(ENDS_AT);
    process.kill(worker.pid, 'SIGUSR2');
    const seen = await redisSeen(redis, until - from);
    while (!existsSync(file) || !readFileSync(file, 'utf8').endsWith('}')) await delay(POLL_MS);
    return { ...threadSeen(JSON.parse(readFileSync(file, 'utf8')) as CpuProfile, until - from), redis: seen };
  } finally {
    redis.disconnect();
    rmSync(file, { force: true });
  }
}

async function withProfiler<Result>(file: string, start: () => Promise<Result>): Promise<Result> {
  const hook = pathToFileURL(fileURLToPath(new URL('../support/profiled.mjs', import.meta.url))).href;
  const before = process.env.NODE_OPTIONS;
  Object.assign(process.env, { NODE_OPTIONS: `--import ${hook}`, PROFILE_FILE: file });
  try {
    return await start();
  } finally {
    delete process.env.PROFILE_FILE;
    if (before === undefined) delete process.env.NODE_OPTIONS;
    else process.env.NODE_OPTIONS = before;
  }
}

/** As the inspector gives it; `timeDeltas` in microseconds. */
interface CpuProfile {
  readonly nodes: readonly { readonly id: number; readonly callFrame: { functionName: string; url: string } }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

function threadSeen({ nodes, samples, timeDeltas }: CpuProfile, verifications: number): Omit<Profile, 'redis'> {
  const ownerOf = new Map(nodes.map(({ id, callFrame }) => [id, ownerOfFrame(callFrame)]));
  const micros = new Map<string, number>();
  samples.forEach((id, index) => {
    const owner = ownerOf.get(id) ?? '';
    micros.set(owner, (micros.get(owner) ?? 0) + (timeDeltas[index] ?? 0));
  });
  const whole = [...micros.values()].reduce((sum, each) => sum + each, 0);
  const idle = micros.get(IDLE) ?? 0;
  micros.delete(IDLE);
  return {
    thread: new Map([...micros].map(([owner, each]) => [owner, each / verifications])),
    utilisation: (whole - idle) / whole,
  };
}

const IDLE = 'idle';

/** Whose code a frame of the stack is. */
function ownerOfFrame({ functionName, url }: { functionName: string; url: string }): string {
  if (functionName === '(idle)') return IDLE;
  if (functionName === '(garbage collector)') return 'garbage collector';
  const [, dependency] = /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url) ?? [];
  if (dependency !== undefined) return dependency;
  const [, room] = /\/dist\/([^/]+?)(?:\/|\.js$)/.exec(url) ?? [];
  if (room !== undefined) return `this project, ${room}`;
  if (url.includes('/bench/')) return "the pipeline's own file";
  if (url.startsWith('node:')) return "Node's own modules";
  return /^writev|^write/.test(functionName) ? 'system calls that write' : 'V8 and native code';
}

async function redisSeen(redis: Redis, verifications: number): Promise<Profile['redis']> {
  const statistics = await redis.info('commandstats');
  await redis.config('SET', 'slowlog-log-slower-than', '-1');
  const seen = new Map<string, { calls: number; micros: number }>();
  for (const [, name = '', calls, micros] of statistics.matchAll(/^cmdstat_([^:]+):calls=(\d+),usec=(\d+)/gm)) {
    seen.set(name, { calls: Number(calls) / verifications, micros: Number(micros) / verifications });
  }
  // EVALSHA is many scripts. The log of slow commands has every command for the time being, so it tells them apart.
  const evalsha = seen.get('evalsha');
  seen.delete('evalsha');
  const log = (await redis.call('SLOWLOG', 'GET', String(SLOWLOG_LENGTH))) as [number, number, number, string[]][];
  const scripts = log.flatMap(([, , micros, [command, sha = '']]) =>
    command?.toLowerCase() === 'evalsha' ? [{ sha, micros }] : [],
  );
  const names = scriptNames();
  for (const { sha, micros } of scripts) {
    const name = names.get(sha) ?? `script ${sha.slice(0, 8)}`;
    const share = (evalsha?.calls ?? 0) / scripts.length;
    const before = seen.get(name) ?? { calls: 0, micros: 0 };
    seen.set(name, { calls: before.calls + share, micros: before.micros + share * micros });
  }
  return seen;
}

/** By the hash under which Redis knows them: BullMQ's, and this project's, which stand alone or behind what they share. */
function scriptNames(): ReadonlyMap<string, string> {
  const bullmq = createRequire(import.meta.url)('bullmq/dist/cjs/scripts/index.js') as Record<
    string,
    { name?: string; content?: string }
  >;
  const names = new Map<string, string>();
  const hash = (text: string): string => createHash('sha1').update(text).digest('hex');
  for (const { name, content } of Object.values(bullmq)) {
    if (name !== undefined && content !== undefined) names.set(hash(content), `BullMQ's ${name}`);
  }
  const source = fileURLToPath(new URL('../../src/', import.meta.url));
  const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.lua'));
  const textOf = (file: string): string => readFileSync(join(source, file), 'utf8');
  // Each module puts before its script what it shares: every choice of them, in their order.
  const choices = ['server', 'hash', 'each']
    .map((name) => textOf(`redis/${name}.lua`))
    .reduce<string[][]>((known, text) => known.flatMap((choice) => [choice, [...choice, text]]), [[]]);
  for (const file of files) {
    for (const choice of choices) {
      names.set(hash([...choice, textOf(file)].join('\n')), `this project's ${file}`);
    }
  }
  return names;
}

/** What takes less than this share of ours is told in one line with the others. */
const WORTH_A_LINE = 0.01;

export function threadTable(ours: Profile, raw: Profile): SideTable {
  return {
    title: "The worker's thread, microseconds for each verification, by whose code it was in (profiler on)",
    head: ['', 'ours', 'raw'],
    rows: sideBySide(ours.thread, raw.thread),
  };
}

export function redisTable(ours: Profile, raw: Profile): SideTable {
  const scripts = ({ redis }: Profile): ReadonlyMap<string, number> =>
    new Map([...redis].filter(([name]) => isScript(name)).map(([name, { micros }]) => [name, micros]));
  const commands = ({ redis }: Profile): ReadonlyMap<string, number> =>
    new Map([...redis].filter(([name]) => !isScript(name)).map(([name, { micros }]) => [name, micros]));
  return {
    title:
      'Redis, microseconds for each verification: scripts whole, then single commands, those inside of scripts among them',
    head: ['', 'ours', 'raw'],
    rows: [scripts, commands].flatMap((of) => sideBySide(of(ours), of(raw))),
  };
}

const isScript = (name: string): boolean => name.includes(' ');

function sideBySide(ours: ReadonlyMap<string, number>, raw: ReadonlyMap<string, number>): string[][] {
  const shown = (micros: number): string => String(rounded(micros));
  const sum = (of: ReadonlyMap<string, number>): number => [...of.values()].reduce((total, each) => total + each, 0);
  const least = WORTH_A_LINE * sum(ours);
  const names = [...new Set([...ours.keys(), ...raw.keys()])];
  const [told, others] = [names.filter((name) => at(name) >= least), names.filter((name) => at(name) < least)];
  function at(name: string): number {
    return Math.max(ours.get(name) ?? 0, raw.get(name) ?? 0);
  }
  const sumOf = (of: ReadonlyMap<string, number>): number =>
    others.reduce((total, name) => total + (of.get(name) ?? 0), 0);
  return [
    ...told
      .toSorted((one, other) => (ours.get(other) ?? 0) - (ours.get(one) ?? 0))
      .map((name) => [name, ...[ours, raw].map((of) => (of.has(name) ? shown(of.get(name) ?? 0) : ''))]),
    ['everything else', shown(sumOf(ours)), shown(sumOf(raw))],
    ['**together**', shown(sum(ours)), shown(sum(raw))],
  ];
}

export function plainObject({ thread, utilisation, redis }: Profile): unknown {
  return { thread: Object.fromEntries(thread), utilisation, redis: Object.fromEntries(redis) };
}
