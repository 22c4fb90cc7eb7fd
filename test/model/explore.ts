/** Every interleaving, level by level, so that the first trace to a violation is a shortest one. */
import type { Redis } from 'ioredis';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { digestOf } from './digest.ts';
import { type Event, eventsAt, told } from './events.ts';
import { isKnown } from './known-faults.ts';
import { Lane, ownTime, REFERENCE } from './lane.ts';
import { Violation } from './oracle.ts';
import type { Mutate } from './seam.ts';
import type { State } from './state.ts';
import { begin, type Model, stepOf } from './step.ts';

/** Each with a partition of its own. */
const LANES = 64;
/** While Redis works for the lanes of the one, those of the other are prepared. */
const CONNECTIONS = 2;

export interface Limits {
  readonly depth: number;
  /** No further state is expanded once so many are known. */
  readonly states: number;
  readonly forMs?: number;
  /** So many events are gone through however long that takes. */
  readonly surely?: number;
  /** Of a level with more states than these, so many are expanded, evenly spread: less of it, but further. */
  readonly width?: number;
}

export interface Watching {
  readonly mutate?: Mutate;
  onLevel?(found: Found): void;
  onStep?(from: State, by: Event, to: State): void;
  /** Which states count as one. */
  digest?(state: State): string;
}

export interface Found {
  readonly states: number;
  readonly transitions: number;
  /** How many states were new after so many events. */
  readonly levels: readonly number[];
  /** All that can happen within so many events was tried. */
  readonly completeTo: number;
  readonly violation: { readonly invariant: string; readonly report: string; readonly violation: Violation } | null;
  /** How often a trace ended because it came upon a known fault. */
  readonly known: number;
}

/** Runs with chance and the monotonic clock in the model's hand, and gives them back. */
export async function withLanes<T>(
  mutate: Mutate | undefined,
  many: number,
  run: (lanes: Lane[]) => Promise<T>,
): Promise<T> {
  const server: TestRedis = await startTestRedis();
  const connections = Array.from({ length: Math.min(many, CONNECTIONS) }, () =>
    connectRedis(server.url, 'worker', { onError: () => {} }),
  );
  const { random } = Math;
  try {
    for (const redis of connections) {
      await Lane.prepare(redis);
      writeOnceATurn(redis);
    }
    const scripts = new Map<string, string>();
    const lanes = Array.from({ length: many }, (_, index) => {
      const redis = connections[index % connections.length] as RedisConnection;
      return new Lane(redis, `model-${index}`, mutate, scripts);
    });
    Math.random = () => 0.5;
    const real = performance.now.bind(performance);
    const now = (): number => ownTime.getStore()?.clock ?? real();
    Object.defineProperty(performance, 'now', { configurable: true, value: now });
    return await run(lanes);
  } finally {
    Math.random = random;
    Reflect.deleteProperty(performance, 'now');
    for (const redis of connections) redis.disconnect();
    await server[Symbol.asyncDispose]();
  }
}

/** Whatever the lanes ask for in one turn goes out in one write, and is answered in one. */
function writeOnceATurn(connection: RedisConnection): void {
  const { stream } = connection as Redis;
  const write = stream.write.bind(stream) as (...given: unknown[]) => boolean;
  let corked = false;
  stream.write = ((...given: unknown[]) => {
    if (!corked) {
      corked = true;
      stream.cork();
      setImmediate(() => {
        corked = false;
        stream.uncork();
      });
    }
    return write(...given);
  }) as typeof stream.write;
}

export async function explore(
  model: Model,
  limits: Limits,
  { mutate, onLevel, onStep, digest = digestOf }: Watching = {},
): Promise<Found> {
  return await withLanes(mutate, LANES, async (lanes) => {
    const first = await begin(lanes[0] as Lane, model);
    const seen = new Set([digest(first)]);
    /** For each state that is known, by number: from which it came, and how. */
    const origins: { readonly from: number; readonly by: Event | null }[] = [{ from: -1, by: null }];
    let frontier: Numbered[] = [{ state: first, number: 0 }];
    const levels = [1];
    let transitions = 0;
    let known = 0;
    let completeTo = 0;
    let violation: Found['violation'] = null;
    const startedAt = Date.now();
    const { width = Number.POSITIVE_INFINITY, forMs = Number.POSITIVE_INFINITY, surely = 0 } = limits;
    const found = (): Found => ({ states: seen.size, transitions, levels, completeTo, violation, known });
    const late = (): boolean => levels.length > surely && Date.now() - startedAt > forMs;
    const enough = (): boolean => violation !== null || seen.size >= limits.states || late();

    while (levels.length <= limits.depth && frontier.length > 0 && !enough()) {
      const next: typeof frontier = [];
      let cut = frontier.length > width;
      if (cut) frontier = spread(frontier, width);
      const steps = stepsFrom(frontier, model);
      const work = async (lane: Lane): Promise<void> => {
        for (const { state, number, event } of steps) {
          if (enough()) {
            cut = true;
            return;
          }
          transitions += 1;
          try {
            const after = await stepOf(lane, model, state, event);
            onStep?.(state, event, after);
            const name = digest(after);
            if (seen.has(name)) continue;
            seen.add(name);
            origins.push({ from: number, by: event });
            next.push({ state: after, number: origins.length - 1 });
          } catch (error) {
            if (!(error instanceof Violation)) throw withTrace(error, traceTo(origins, number), event);
            if (isKnown(error)) {
              known += 1;
              continue;
            }
            const trace = [...traceTo(origins, number), event];
            violation ??= {
              invariant: error.invariant,
              report: await reportOf(error, trace, lane),
              violation: error,
            };
          }
        }
      };
      await Promise.all(lanes.map(work));
      levels.push(next.length);
      if (!cut && completeTo === levels.length - 2) completeTo = levels.length - 1;
      frontier = next;
      onLevel?.(found());
    }
    return found();
  });
}

interface Numbered {
  readonly state: State;
  readonly number: number;
}

/** All that may happen next, for whichever lane is free. */
function* stepsFrom(frontier: readonly Numbered[], { world, alphabet }: Model): Generator<Numbered & { event: Event }> {
  for (const { state, number } of frontier) {
    for (const event of eventsAt(state, world, alphabet)) yield { state, number, event };
  }
}

/** One story, told in advance. Null when every rule held all the way. */
export async function follow(model: Model, events: readonly Event[], mutate?: Mutate): Promise<Found['violation']> {
  return await withLanes(mutate, 1, async ([lane]) => {
    if (!lane) throw new Error('no lane');
    let state = await begin(lane, model);
    for (const [index, event] of events.entries()) {
      const possible = eventsAt(state, model.world, model.alphabet).some((one) => told(one) === told(event));
      if (!possible) throw new Error(`step ${index + 1}, ${told(event)}, cannot happen there`);
      try {
        state = await stepOf(lane, model, state, event);
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        const report = await reportOf(error, events.slice(0, index + 1), lane);
        return { invariant: error.invariant, report, violation: error };
      }
    }
    return null;
  });
}

function spread<T>(all: readonly T[], many: number): T[] {
  return Array.from({ length: many }, (_, index) => all[Math.floor((index * all.length) / many)] as T);
}

function traceTo(origins: readonly { from: number; by: Event | null }[], number: number): Event[] {
  const trace: Event[] = [];
  for (let at = origins[number]; at?.by; at = origins[at.from]) trace.unshift(at.by);
  return trace;
}

function withTrace(error: unknown, trace: readonly Event[], last: Event): Error {
  return new Error(`the model cannot go on after\n${[...trace, last].map((event) => `  ${told(event)}`).join('\n')}`, {
    cause: error,
  });
}

/** The trace, and what stands in Redis at its end. */
export async function reportOf(violation: Violation, trace: readonly Event[], lane: Lane): Promise<string> {
  const { redis, keys, ids } = lane;
  const [one, two, reference, epoch, outbox, due, awaiting, review] = await Promise.all([
    redis.hgetall(keys.record(ids[0])),
    redis.hgetall(keys.record(ids[1])),
    redis.hgetall(keys.transaction(REFERENCE)),
    redis.hgetall(keys.epoch),
    redis.xrange(keys.outbox, '-', '+'),
    ...[keys.due, keys.awaiting, keys.review].map((key) => redis.zrange(key, '0', '-1', 'WITHSCORES')),
  ]);
  const brief = ({ head: _, claim: __, history, ...record }: Record<string, string>): unknown => ({
    ...record,
    history: history?.split('\n').filter(Boolean),
  });
  const entries = outbox.map(([, fields]) => fields.filter((_, index) => index % 2 === 1).join(' '));
  const content = { clock: lane.clock, one: brief(one), two: brief(two), reference, due, awaiting, review, epoch };
  const steps = trace.map((event, index) => `  ${index + 1}. ${told(event)}`).join('\n');
  return `${violation.message}\nafter\n${steps}\nRedis:\n${JSON.stringify({ ...content, published: entries }, null, 2)}`;
}

export function tell(name: string, { states, transitions, levels, completeTo, known }: Found, ms: number): string {
  return (
    `${name}: ${states} states, ${transitions} transitions, every interleaving of ${completeTo} events, ` +
    `${levels.length - 1} at most (${levels.join(' ')}), ${known} ends at known faults, ${(ms / 1000).toFixed(1)} s`
  );
}
