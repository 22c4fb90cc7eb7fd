/** Every interleaving, level by level, so that the first trace to a violation is a shortest one. */
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { type Event, eventsAt, told } from './events.ts';
import { isKnown } from './known-faults.ts';
import { Lane, REFERENCE } from './lane.ts';
import { Violation } from './oracle.ts';
import type { Mutate } from './seam.ts';
import { digestOf, type State } from './state.ts';
import { begin, type Model, stepOf } from './step.ts';

/** Each in a database of its own: while Redis works for one, the next is prepared. */
const LANES = 8;

export interface Limits {
  readonly depth: number;
  /** No further state is expanded once so many are known. */
  readonly states: number;
  readonly forMs?: number;
  /** Of a level with more states than these, so many are expanded, evenly spread: less of it, but further. */
  readonly width?: number;
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
  const connections: RedisConnection[] = [];
  const { random } = Math;
  try {
    const lanes = Array.from({ length: many }, (_, index) => {
      const redis = connectRedis(`${server.url}/${index}`, 'worker', { onError: () => {} });
      connections.push(redis);
      return new Lane(redis, 'model', mutate);
    });
    await Promise.all(lanes.map(async (lane) => await lane.prepare()));
    Math.random = () => 0.5;
    const only = lanes.length === 1 ? lanes[0] : undefined;
    if (only) Object.defineProperty(performance, 'now', { configurable: true, value: () => only.clock });
    return await run(lanes);
  } finally {
    Math.random = random;
    Reflect.deleteProperty(performance, 'now');
    for (const redis of connections) redis.disconnect();
    await server[Symbol.asyncDispose]();
  }
}

export async function explore(
  model: Model,
  limits: Limits,
  { mutate, onLevel }: { mutate?: Mutate; onLevel?: (found: Found) => void } = {},
): Promise<Found> {
  // A worker's memory is kept by the monotonic clock, which all lanes share.
  const many = model.alphabet.rollback ? 1 : LANES;
  return await withLanes(mutate, many, async (lanes) => {
    const first = await begin(lanes[0] as Lane, model);
    const seen = new Set([digestOf(first)]);
    /** For each state that is known, by number: from which it came, and how. */
    const origins: { readonly from: number; readonly by: Event | null }[] = [{ from: -1, by: null }];
    let frontier: { readonly state: State; readonly number: number }[] = [{ state: first, number: 0 }];
    const levels = [1];
    let transitions = 0;
    let known = 0;
    let completeTo = 0;
    let violation: Found['violation'] = null;
    const startedAt = Date.now();
    const { width = Number.POSITIVE_INFINITY } = limits;
    const found = (): Found => ({ states: seen.size, transitions, levels, completeTo, violation, known });
    const enough = (): boolean =>
      violation !== null || seen.size >= limits.states || Date.now() - startedAt > (limits.forMs ?? Infinity);

    while (levels.length <= limits.depth && frontier.length > 0 && !enough()) {
      const next: typeof frontier = [];
      let cursor = 0;
      let cut = frontier.length > width;
      if (cut) frontier = spread(frontier, width);
      const work = async (lane: Lane): Promise<void> => {
        while (cursor < frontier.length) {
          if (enough()) {
            cut = true;
            return;
          }
          const { state, number } = frontier[cursor++] as (typeof frontier)[number];
          for (const event of eventsAt(state, model.world, model.alphabet)) {
            transitions += 1;
            try {
              const after = await stepOf(lane, model, state, event);
              const digest = digestOf(after);
              if (seen.has(digest)) continue;
              seen.add(digest);
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
