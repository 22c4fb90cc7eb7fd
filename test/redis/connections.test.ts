import { createServer } from 'node:net';
import { Queue, Worker } from 'bullmq';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { duplicateOf } from '../../src/redis/cluster.ts';
import {
  type ConnectionProfile,
  checkRedis,
  connectRedis,
  type RedisConnection,
  type RedisSettings,
  redisWarnings,
} from '../../src/redis/connections.ts';
import { Secret } from '../../src/secret.ts';
import { startTestRedis } from '../support/redis.ts';
import { startTestCluster } from '../support/servers.ts';
import { BEST_OF_THREE } from '../support/timing.ts';

const open: RedisConnection[] = [];

function connection(settings: string | RedisSettings, profile: ConnectionProfile) {
  const onError = vi.fn();
  const redis = connectRedis(settings, profile, { onError });
  open.push(redis);
  return { redis, onError };
}

afterEach(() => {
  for (const redis of open.splice(0)) redis.disconnect();
});

async function timed(work: Promise<unknown>): Promise<{ error: unknown; ms: number }> {
  const startedAt = performance.now();
  const error = await work.then(
    () => null,
    (reason) => reason,
  );
  return { error, ms: performance.now() - startedAt };
}

const NOBODY = 'redis://127.0.0.1:1';

describe('a producer or console connection', () => {
  it.each(['producer', 'console'] as const)(
    'of a %s refuses at once when Redis has gone',
    BEST_OF_THREE,
    async (profile) => {
      await using server = await startTestRedis();
      const { redis, onError } = connection(server.url, profile);
      await redis.set('key', 'value');
      await server.kill();
      await vi.waitFor(() => expect(redis.status).not.toBe('ready'), 10_000);
      const { error, ms } = await timed(redis.get('key'));
      expect(error).toBeInstanceOf(Error);
      expect(ms).toBeLessThan(250);
      // Nobody listens but onError, and the process lives.
      await vi.waitFor(() => expect(onError).toHaveBeenCalled(), 10_000);

      await server.start();
      await vi.waitFor(() => expect(redis.status).toBe('ready'), { timeout: 5000 });
      expect(await redis.set('key', 'again')).toBe('OK');
    },
  );

  it('refuses soon when Redis was never there', BEST_OF_THREE, async () => {
    const { redis } = connection(NOBODY, 'producer');
    const { error, ms } = await timed(redis.get('key'));
    expect(error).toBeInstanceOf(Error);
    expect(ms).toBeLessThan(1000);
  });

  it('lets the first command wait for the first connection', async () => {
    await using server = await startTestRedis();
    const { redis } = connection({ url: new Secret(server.url) }, 'producer');
    expect(redis.status).not.toBe('ready');
    expect(await redis.set('key', 'value')).toBe('OK');
  });

  it('makes a BullMQ queue fail fast, if the queue does not wait for ready by itself', BEST_OF_THREE, async () => {
    await using server = await startTestRedis();
    const { redis } = connection(server.url, 'producer');
    const queue = new Queue('jobs', { connection: redis, skipWaitingForReady: true });
    queue.on('error', () => {});
    await queue.add('job', {});
    await server.kill();
    await vi.waitFor(() => expect(redis.status).not.toBe('ready'), 10_000);
    const { error, ms } = await timed(queue.add('job', {}));
    expect(error).toBeInstanceOf(Error);
    expect(ms).toBeLessThan(250);
    await queue.close();
  });

  it(
    'gives a console no longer than three seconds for a command that Redis took and does not answer',
    BEST_OF_THREE,
    async () => {
      await using server = await startTestRedis();
      const { redis } = connection(server.url, 'console');
      await redis.ping();
      server.freeze();
      const { error, ms } = await timed(redis.get('key'));
      expect(error).toMatchObject({ message: 'Command timed out' });
      expect(ms).toBeGreaterThan(2900);
      expect(ms).toBeLessThan(4500);
    },
  );
});

describe('a worker connection', () => {
  it('waits while Redis is away and goes on when it is back', BEST_OF_THREE, async () => {
    await using server = await startTestRedis({ appendonly: true, appendfsync: 'always' });
    const { redis, onError } = connection(server.url, 'worker');
    await redis.set('key', 'kept');
    await server.kill();
    await vi.waitFor(() => expect(redis.status).not.toBe('ready'), 10_000);
    const answer = redis.get('key');
    await vi.waitFor(() => expect(onError.mock.calls.length).toBeGreaterThan(5), { timeout: 10_000 });
    await server.start();
    const { ms } = await timed(answer);
    expect(await answer).toBe('kept');
    expect(ms).toBeLessThan(3000); // the longest pause between two tries is a second
  });

  it('is one that BullMQ takes, and carries a job over an outage', async () => {
    await using server = await startTestRedis({ appendonly: true, appendfsync: 'always' });
    const { redis } = connection(server.url, 'worker');
    const done: string[] = [];
    const worker = new Worker('jobs', async (job) => done.push(job.name), { connection: redis });
    worker.on('error', () => {});
    const { redis: producer } = connection(server.url, 'producer');
    const queue = new Queue('jobs', { connection: producer, skipWaitingForReady: true });
    queue.on('error', () => {});
    await queue.add('before', {});
    await vi.waitFor(() => expect(done).toEqual(['before']), { timeout: 5000 });
    await server.kill();
    await server.start();
    await vi.waitFor(() => queue.add('after', {}), { timeout: 5000 });
    await vi.waitFor(() => expect(done).toEqual(['before', 'after']), { timeout: 10_000 });
    await worker.close();
    await queue.close();
  });

  it('says that it ended when it is told to disconnect between two tries', async () => {
    const { redis } = connection(NOBODY, 'worker');
    const waiting = redis.get('key').catch((error: Error) => error.message);
    await vi.waitFor(() => expect(redis.status).toBe('reconnecting'), { timeout: 5000, interval: 1 });
    const ended = new Promise((resolve) => redis.once('end', () => resolve('ended')));
    redis.disconnect();
    expect(await ended).toBe('ended');
    expect(await waiting).toBe('Connection is closed.');
  });

  it('goes on when its client has given up in the midst of finding its server, and ends when it is told', async () => {
    await using server = await startTestRedis();
    const { redis } = connection(server.url, 'producer');
    const ended = new Promise((resolve) => redis.once('end', resolve));
    // What the failover detector of the client does, at the wrong moment.
    (redis as unknown as { connector: { disconnect(): void } }).connector.disconnect();
    await ended;
    await vi.waitFor(async () => expect(await redis.ping()).toBe('PONG'), { timeout: 5_000 });
    await redis.quit();
    await vi.waitFor(() => expect(redis.status).toBe('end'), 10_000);
    await new Promise((resolve) => setTimeout(resolve, 200)); // longer than it would take to come back
    expect(redis.status).toBe('end');
  });

  it('leaves a server that is frozen, within its socket time-out', async () => {
    await using server = await startTestRedis();
    const { redis, onError } = connection(server.url, 'worker');
    await redis.ping();
    server.freeze();
    const answer = redis.ping();
    await vi.waitFor(() => expect(onError).toHaveBeenCalled(), { timeout: 14_000, interval: 100 });
    server.thaw();
    expect(await answer).toBe('PONG');
  });

  it('shows its name', async () => {
    await using server = await startTestRedis();
    const { redis } = connection(server.url, 'worker');
    expect(await redis.client('GETNAME')).toBe('otp-worker');
  });
});

describe('a Cluster and a group of sentinels of which nobody answers', () => {
  it.each<[string, RedisSettings]>([
    ['redis.cluster', { cluster: ['127.0.0.1:1'] }],
    ['redis.sentinels', { sentinels: ['127.0.0.1:1'], name: 'otp' }],
  ])(
    '%s is complained of, and ends when it is told to, between two tries and as a duplicate too',
    async (_, settings) => {
      const { redis, onError } = connection(settings, 'worker');
      await vi.waitFor(() => expect(onError).toHaveBeenCalled(), 10_000);
      const duplicate = duplicateOf(redis, {});
      duplicate.on('error', () => {});
      for (const each of [duplicate, redis]) {
        const ended = new Promise((done) => each.once('end', done));
        // Sentinels are asked again and again while the connection itself is still at its first try.
        await vi.waitUntil(() => each.status === ('cluster' in settings ? 'reconnecting' : 'connecting'), {
          interval: 1,
          timeout: 10_000,
        });
        each.disconnect();
        await ended;
      }
      expect(onError).toHaveBeenCalled();
    },
  );
});

describe('a connection that is told to end', () => {
  it('takes its duplicates along', async () => {
    await using server = await startTestRedis();
    const { redis } = connection(server.url, 'worker');
    const duplicate = duplicateOf(redis, {});
    await duplicate.ping();
    const ended = new Promise((done) => duplicate.once('end', done));
    redis.disconnect();
    await ended;
  });

  it('ends although one master of its Cluster is gone and is looked for, and refuses what waits for it', async () => {
    await using cluster = await startTestCluster({ masters: 3, replicas: 0 });
    const { redis, onError } = connection(cluster.settings, 'worker');
    await redis.get('key');
    const duplicate = duplicateOf(redis, {});
    duplicate.on('error', () => {});
    await duplicate.get('key');
    await (await cluster.masterOf('key')).kill();
    const waiting = Promise.allSettled([redis.get('key'), duplicate.bzpopmin('key', 0)]);
    await vi.waitFor(() => expect(onError).toHaveBeenCalled(), 10_000);
    redis.disconnect();
    await vi.waitFor(() => expect([redis.status, duplicate.status]).toEqual(['end', 'end']), 10_000);
    expect((await waiting).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  });

  it('refuses what was unanswered when it broke, although it has found somebody since who never gets ready', async () => {
    await using server = await startTestRedis();
    const { redis } = connection(server.url, 'worker');
    const other = connection(server.url, 'worker').redis;
    const unanswered = redis.blpop('nothing', 0);
    await vi.waitFor(async () => expect(await other.info('clients')).toContain('blocked_clients:1'), 10_000);
    await server.kill();
    const silent = createServer().listen(Number(new URL(server.url).port), '127.0.0.1');
    try {
      await vi.waitUntil(() => redis.status === 'connect', { interval: 1, timeout: 10_000 });
      redis.disconnect();
      await expect(unanswered).rejects.toThrow('Connection is closed');
    } finally {
      other.disconnect();
      silent.close();
    }
  });
});

describe('the check of a server', () => {
  it('finds nothing wrong with one that keeps everything', async () => {
    await using server = await startTestRedis({ appendonly: true });
    const { redis } = connection(server.url, 'console');
    expect(await checkRedis(redis)).toEqual([]);
    expect(await redisWarnings(redis)).toEqual([]);
  });

  it('says that a database cannot be selected, instead of going on in the first one', async () => {
    await using server = await startTestRedis();
    const { redis } = connection(`${server.url}/99`, 'console');
    expect(await checkRedis(redis)).toEqual(['Redis refuses database 99 of redis.url: DB index is out of range']);
    expect(await checkRedis(connection(`${server.url}/3`, 'console').redis)).toEqual([]);
  });

  it('names an eviction policy and a missing append-only file', async () => {
    await using server = await startTestRedis();
    const { redis } = connection(server.url, 'console');
    await redis.config('SET', 'maxmemory-policy', 'allkeys-lru');
    expect(await checkRedis(redis)).toEqual([expect.stringContaining('maxmemory-policy allkeys-lru')]);
    expect(await redisWarnings(redis)).toEqual([expect.stringContaining('appendonly no')]);
  });

  it.each([
    ['6.0.16', 1],
    ['5.0.14', 1],
    ['6.2.0', 0],
    ['7.0.15', 0],
    ['10.0.0', 0],
  ])('judges version %s', async (version, faults) => {
    const info = async (): Promise<string> => `redis_version:${version}\r\n`;
    const redis = { info, options: {} } as unknown as RedisConnection;
    expect(await checkRedis(redis)).toHaveLength(faults);
  });
});
