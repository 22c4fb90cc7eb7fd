import { Queue } from 'bullmq';
import { Registry } from 'prom-client';
import {
  type ConsoleDependencies,
  createConsole,
  type PagesDependencies,
  unreadPage,
} from '../../src/console/server.ts';
import { LoginThrottle, THROTTLE_LIMITS } from '../../src/console/throttle.ts';
import { EventBus, type Events } from '../../src/events.ts';
import { openPort } from '../../src/main-http.ts';
import { collectDepths, DepthReader, watchingQueue } from '../../src/metrics/depths.ts';
import { createMetrics, type Metrics } from '../../src/metrics/registry.ts';
import { partitionKeys, RESULTS_QUEUE, resultsPrefix } from '../../src/producers/job.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { Secret } from '../../src/secret.ts';
import { hashPassword } from '../../src/secret-hashes.ts';
import type { JournalSettings } from '../../src/workers/journal.ts';
import { Operator } from '../../src/workers/operator.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

export const PARTITIONS = ['cepta', 'lipa-later'];
const CLIENTS = [{ id: 'shop' }, { id: 'books' }];
const RATE_LIMIT = { max: 20, perMs: 1_000 };
export const USER = { name: 'ops', password: 'correct horse: battery' };
/** So that a test may ask often; the hashes that the service makes itself cost a hundred times as much. */
const CHEAP = { N: 1024, r: 8, p: 1 };

/** Cepta can be asked what became of a payment, LipaLater cannot. */
function journalOf(partition: string): JournalSettings {
  return {
    partition,
    policy: {
      effect: partition === 'lipa-later' ? 'none' : 'money',
      canInquire: () => partition === 'cepta',
      maxAttempts: 3,
      inquiry: { delaysMs: [60_000], giveUpAfterMs: 3_600_000 },
    },
    rateLimit: RATE_LIMIT,
    inquiryRateLimit: RATE_LIMIT,
    timeoutMs: 2_000,
    retentionMs: 3_600_000,
    lossWindowMs: 2_000,
    recoverMs: 500,
  };
}

export interface World {
  readonly server: TestRedis;
  readonly redis: RedisConnection;
  readonly metrics: Metrics;
  readonly registry: Registry;
  readonly events: EventBus;
  readonly logins: Events['console:login'][];
  readonly url: string;
  /** Writes as a producer or a stranger would; the console's own queues only look. */
  writingQueue(name: string, prefix: string): Queue;
  /** With the right password, unless headers say otherwise. */
  get(path: string, init?: RequestInit): Promise<Response>;
  /** A form, as a page of the console sends it. */
  post(path: string, fields?: Record<string, string>, headers?: Record<string, string>): Promise<Response>;
  [Symbol.asyncDispose](): Promise<void>;
}

export const AUTHORIZED = { authorization: basic(USER.name, USER.password) };

export function basic(name: string, password: string): string {
  return `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;
}

/** For tests that give more wrong passwords than anybody should. */
export const PATIENT = new LoginThrottle({ ...THROTTLE_LIMITS, perName: 1e6, perAddress: 1e6, perMinute: 1e6 });

export async function user(name: string, password: string): Promise<PagesDependencies['users'][number]> {
  return { name, password: new Secret(await hashPassword(password, CHEAP)) };
}

export interface WorldOptions {
  readonly users?: PagesDependencies['users'];
  readonly readiness?: Partial<ConsoleDependencies['readiness']>;
  readonly pages?: boolean;
  readonly throttle?: PagesDependencies['throttle'];
}

/** A Redis of its own, a console on a free port, and queues to look at. */
export async function createWorld(options: WorldOptions = {}): Promise<World> {
  const { users, readiness, pages = true, throttle } = options;
  const server = await startTestRedis();
  const redis = connectRedis(server.url, 'console', { onError: () => {} });
  const queues = [
    ...PARTITIONS.flatMap((partition) => {
      const keys = partitionKeys(partition);
      return [keys.queue, keys.inquiryQueue].map((name) => watchingQueue(name, keys.prefix, redis, () => {}));
    }),
    watchingQueue(RESULTS_QUEUE, resultsPrefix(RESULTS_QUEUE), redis, () => {}),
  ];
  const depths = new DepthReader({
    redis,
    queues,
    partitions: PARTITIONS.map((name) => ({ name, keys: partitionKeys(name) })),
  });
  const registry = new Registry();
  const metrics = createMetrics(registry);
  collectDepths(registry, depths);
  const events = new EventBus();
  const logins: World['logins'] = [];
  events.on('console:login', (login) => logins.push(login));
  const app = createConsole({
    registry,
    readiness: { redis: () => true, workers: () => true, configuration: () => true, staying: () => true, ...readiness },
    events,
    pages: pages
      ? {
          users: users ?? [await user(USER.name, USER.password)],
          ...(throttle ? { throttle } : {}),
          redis,
          partitions: PARTITIONS.map((name) => ({ name, rateLimit: RATE_LIMIT })),
          clients: CLIENTS,
          operator: new Operator({
            redis,
            partitions: PARTITIONS.map(journalOf),
            name: 'otp-console-of-the-test',
            events,
          }),
          queues,
          depths,
        }
      : null,
  });
  const port = await openPort('console', { host: '127.0.0.1', port: 0 }, { app, unread: unreadPage });
  const { url } = port;
  const writing: Queue[] = [];
  return {
    server,
    redis,
    metrics,
    registry,
    events,
    logins,
    url,
    writingQueue: (name, prefix) => {
      const queue = new Queue(name, { prefix, connection: { url: server.url } });
      queue.on('error', () => {});
      writing.push(queue);
      return queue;
    },
    get: (path, init = {}) => fetch(`${url}${path}`, { headers: AUTHORIZED, redirect: 'manual', ...init }),
    post: (path, fields = {}, headers = {}) =>
      fetch(`${url}${path}`, {
        method: 'POST',
        headers: { ...AUTHORIZED, origin: url, ...headers },
        redirect: 'manual',
        body: new URLSearchParams(fields),
      }),
    [Symbol.asyncDispose]: async () => {
      await port.close(0);
      await Promise.all([...writing, ...queues].map((queue) => queue.close().catch(() => {})));
      redis.disconnect();
      await server[Symbol.asyncDispose]();
    },
  };
}
