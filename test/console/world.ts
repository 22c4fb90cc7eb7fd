import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Queue } from 'bullmq';
import { Registry } from 'prom-client';
import { type ConsoleDependencies, createConsole, type PagesDependencies } from '../../src/console/server.ts';
import { EventBus } from '../../src/events.ts';
import { collectDepths, DepthReader, watchingQueue } from '../../src/metrics/depths.ts';
import { createMetrics, type Metrics } from '../../src/metrics/registry.ts';
import { partitionKeys, RESULTS_QUEUE, resultsPrefix } from '../../src/producers/job.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { Secret } from '../../src/secret.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

export const PARTITIONS = ['cepta', 'lipa-later'];
export const USER = { name: 'ops', password: 'correct horse: battery' };

export interface World {
  readonly server: TestRedis;
  readonly redis: RedisConnection;
  readonly metrics: Metrics;
  readonly registry: Registry;
  readonly events: EventBus;
  readonly url: string;
  /** Writes as a producer or a stranger would; the console's own queues only look. */
  writingQueue(name: string, prefix: string): Queue;
  /** With the right password, unless headers say otherwise. */
  get(path: string, init?: RequestInit): Promise<Response>;
  [Symbol.asyncDispose](): Promise<void>;
}

export const AUTHORIZED = { authorization: basic(USER.name, USER.password) };

export function basic(name: string, password: string): string {
  return `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;
}

export interface WorldOptions {
  readonly users?: PagesDependencies['users'];
  readonly readiness?: Partial<ConsoleDependencies['readiness']>;
  readonly pages?: boolean;
}

/** A Redis of its own, a console on a free port, and queues to look at. */
export async function createWorld({ users, readiness, pages = true }: WorldOptions = {}): Promise<World> {
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
  const app = createConsole({
    registry,
    readiness: { redis: () => true, workers: () => true, configuration: () => true, ...readiness },
    events,
    pages: pages
      ? {
          users: users ?? [{ name: USER.name, password: new Secret(USER.password) }],
          redis,
          partitions: PARTITIONS,
          queues,
          depths,
        }
      : null,
  });
  const http = createServer(app);
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  const writing: Queue[] = [];
  return {
    server,
    redis,
    metrics,
    registry,
    events,
    url,
    writingQueue: (name, prefix) => {
      const queue = new Queue(name, { prefix, connection: { url: server.url } });
      queue.on('error', () => {});
      writing.push(queue);
      return queue;
    },
    get: (path, init = {}) => fetch(`${url}${path}`, { headers: AUTHORIZED, redirect: 'manual', ...init }),
    [Symbol.asyncDispose]: async () => {
      await closed(http);
      await Promise.all([...writing, ...queues].map((queue) => queue.close().catch(() => {})));
      redis.disconnect();
      await server[Symbol.asyncDispose]();
    },
  };
}

async function closed(http: Server): Promise<void> {
  http.closeAllConnections();
  await new Promise((resolve) => http.close(resolve));
}
