/** Redis with replicas, as it runs in production: a real Cluster, and a master with replicas watched by real Sentinels. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { freePort, type RedisProcess, startRedisProcess } from '../../src/redis/process.ts';
import { findRedisServer } from '../../src/redis/server.ts';

const LOOPBACK = '127.0.0.1';
const UP_WITHIN_MS = 20_000;

export interface Node {
  readonly port: number;
  readonly pid: number;
  /** A connection of the test's own. */
  readonly redis: Redis;
  /** `kill -9`. */
  kill(): Promise<void>;
  /** Again, after `kill()`: same port, same folder. */
  start(): Promise<void>;
  /** Stops the process without ending it: connections stay open and nothing is answered any more. */
  freeze(): void;
  thaw(): void;
}

/** Replicas have a user of their own, so that replication can be cut while everything else goes on. */
const followers = (password: string): string[] => [
  `user follower on >${password} +psync +replconf +ping`,
  'masteruser follower',
  `masterauth ${password}`,
];

/** From now on nothing that this master is told reaches a replica. */
export async function cutReplication({ redis }: Node): Promise<void> {
  await redis.call('ACL', 'SETUSER', 'follower', 'off');
  await redis.call('CLIENT', 'KILL', 'TYPE', 'replica');
}

/** Whoever answers may be followed again. */
export async function restoreReplication(nodes: readonly Node[]): Promise<void> {
  const answering = nodes.filter(({ redis }) => redis.status === 'ready');
  await Promise.all(answering.map(({ redis }) => redis.call('ACL', 'SETUSER', 'follower', 'on').catch(() => {})));
}

interface RunningNode extends Node {
  close(): Promise<void>;
}

async function startNode(password: string, configuration: readonly string[]): Promise<RunningNode> {
  const dir = mkdtempSync(join(tmpdir(), 'otp-redis-'));
  const settings = { dir, password, appendonly: true, configuration: [...followers(password), ...configuration] };
  let server: RedisProcess = await startRedisProcess(settings);
  const { port } = server;
  const redis = new Redis({ host: LOOPBACK, port, password, lazyConnect: true, retryStrategy: () => 100 });
  redis.on('error', () => {});
  await redis.connect();
  return {
    port,
    get pid() {
      return server.pid;
    },
    redis,
    kill: async () => {
      server.signal('SIGKILL');
      await server.exited;
    },
    start: async () => {
      server = await startRedisProcess({ ...settings, port });
    },
    freeze: () => server.signal('SIGSTOP'),
    thaw: () => server.signal('SIGCONT'),
    close: async () => {
      redis.disconnect();
      server.signal('SIGCONT');
      server.signal('SIGKILL');
      await server.exited;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

async function until(what: string, is: () => Promise<boolean>, withinMs = UP_WITHIN_MS): Promise<void> {
  const giveUpAt = Date.now() + withinMs;
  while (!(await is().catch(() => false))) {
    if (Date.now() > giveUpAt) throw new Error(`not within ${withinMs} ms: ${what}`);
    await delay(20);
  }
}

const field = (info: string, name: string): string => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? '';

export interface TestCluster extends AsyncDisposable {
  readonly settings: { readonly cluster: readonly string[]; readonly password: string };
  readonly nodes: readonly Node[];
  /** The node that takes writes for this key now, and those that follow it. */
  masterOf(key: string): Promise<Node>;
  replicasOf(master: Node): Promise<Node[]>;
  /** Errors that the nodes have answered, by their names, over all nodes that answer. */
  errors(): Promise<Record<string, number>>;
  /** Every node agrees on who is master of what, and nobody is suspected. */
  settled(): Promise<void>;
}

export async function startTestCluster({
  masters = 3,
  replicas = 3,
  nodeTimeoutMs = 1_500,
}: {
  readonly masters?: number;
  readonly replicas?: number;
  readonly nodeTimeoutMs?: number;
} = {}): Promise<TestCluster> {
  const password = randomBytes(12).toString('hex');
  const started: RunningNode[] = [];
  const close = async (): Promise<void> => void (await Promise.all(started.map((node) => node.close())));
  try {
    const ports = new Map<RunningNode, number>();
    await Promise.all(
      Array.from({ length: masters + replicas }, async () => {
        const busPort = await freePort();
        const node = await startNode(password, [
          'cluster-enabled yes',
          `cluster-port ${busPort}`,
          `cluster-node-timeout ${nodeTimeoutMs}`,
          'cluster-require-full-coverage no',
          'repl-diskless-sync-delay 0',
        ]);
        started.push(node);
        ports.set(node, busPort);
      }),
    );
    const of = started.slice(0, masters);
    const slots = 16_384;
    await Promise.all(
      of.map(async ({ redis }, index) => {
        const [from, to] = [Math.ceil((slots * index) / masters), Math.ceil((slots * (index + 1)) / masters) - 1];
        await redis.cluster('SET-CONFIG-EPOCH', index + 1);
        await redis.cluster('ADDSLOTSRANGE', from, to);
      }),
    );
    const [first] = of as [RunningNode];
    for (const node of started.slice(1)) {
      await first.redis.call('CLUSTER', 'MEET', LOOPBACK, node.port, ports.get(node) ?? 0);
    }
    await until('every node knows every other', async () => {
      const known = await Promise.all(
        started.map(async ({ redis }) => field(String(await redis.cluster('INFO')), 'cluster_known_nodes')),
      );
      return known.every((count) => Number(count) === started.length);
    });
    await Promise.all(
      started.slice(masters).map(async ({ redis }, index) => {
        const id = String(await (of[index % masters] as RunningNode).redis.cluster('MYID'));
        await until('a replica follows', async () => (await redis.cluster('REPLICATE', id)) === 'OK');
      }),
    );
  } catch (error) {
    await close();
    throw error;
  }

  const masterOf = async (key: string): Promise<Node> => {
    for (const { redis } of started) {
      if (redis.status !== 'ready') continue;
      const slot = Number(await redis.cluster('KEYSLOT', key));
      const ranges = (await redis.cluster('SLOTS').catch(() => [])) as [number, number, [string, number]][];
      const range = ranges.find(([from, to]) => from <= slot && slot <= to);
      const node = started.find(({ port }) => port === range?.[2][1]);
      if (node) return node;
    }
    throw new Error(`nobody serves ${key}`);
  };
  const cluster: TestCluster = {
    settings: { cluster: started.map(({ port }) => `${LOOPBACK}:${port}`), password },
    nodes: started,
    masterOf,
    replicasOf: async (master) => {
      const id = String(await master.redis.cluster('MYID'));
      const lines = ((await master.redis.cluster('REPLICAS', id)) as string[]).filter((line) => !line.includes('fail'));
      return started.filter(({ port }) => lines.some((line) => line.includes(`:${port}@`)));
    },
    errors: async () => {
      const counts: Record<string, number> = {};
      for (const { redis } of started) {
        const info = await redis.info('errorstats').catch(() => '');
        for (const [, name = '', count] of info.matchAll(/^errorstat_(\S+):count=(\d+)/gm))
          counts[name] = (counts[name] ?? 0) + Number(count);
      }
      return counts;
    },
    settled: async () =>
      await until('the cluster is whole', async () => {
        const views = await Promise.all(
          started.map(async ({ redis }) => {
            const [info, nodes, replication] = await Promise.all([
              redis.cluster('INFO'),
              redis.cluster('NODES'),
              redis.info('replication'),
            ]);
            const isWhole = field(String(info), 'cluster_state') === 'ok' && !/fail|handshake/.test(String(nodes));
            const role = field(replication, 'role');
            const follows = role === 'master' || field(replication, 'master_link_status') === 'up';
            const lines = String(nodes)
              .split('\n')
              .filter((line) => line.includes('master'));
            const served = lines.map((line) => `${line.split(' ')[1]} ${line.split(' ').slice(8).join(' ')}`);
            return isWhole && follows
              ? served
                  .filter((line) => !line.endsWith(' '))
                  .toSorted()
                  .join('|')
              : '';
          }),
        );
        return views[0] !== '' && new Set(views).size === 1;
      }),
    [Symbol.asyncDispose]: close,
  };
  await cluster.settled().catch(async (error) => {
    await close();
    throw error;
  });
  await Promise.all(started.map(({ redis }) => redis.config('RESETSTAT')));
  return cluster;
}

export interface TestReplicas extends AsyncDisposable {
  readonly url: string;
  readonly master: Node;
  readonly replicas: readonly Node[];
}

/** A master with replicas, and nobody who would put one in its place. */
export async function startTestReplicas(count = 1): Promise<TestReplicas> {
  const password = randomBytes(12).toString('hex');
  const configuration = ['repl-diskless-sync-delay 0'];
  const master = await startNode(password, configuration);
  const replicas = await Promise.all(
    Array.from({ length: count }, () =>
      startNode(password, [...configuration, `replicaof ${LOOPBACK} ${master.port}`]),
    ),
  );
  await until('replicas follow', async () => {
    const states = await Promise.all(replicas.map(({ redis }) => redis.info('replication')));
    return states.every((info) => field(info, 'master_link_status') === 'up');
  });
  return {
    url: `redis://:${password}@${LOOPBACK}:${master.port}`,
    master,
    replicas,
    [Symbol.asyncDispose]: async () => void (await Promise.all([master, ...replicas].map((node) => node.close()))),
  };
}

export interface TestSentinel extends AsyncDisposable {
  readonly settings: { readonly sentinels: readonly string[]; readonly name: string; readonly password: string };
  readonly nodes: readonly Node[];
  /** The one that the sentinels name. */
  master(): Promise<Node>;
  /** `SENTINEL FAILOVER`: a planned one. */
  failover(): Promise<void>;
  /** Everybody follows the master and is seen to. */
  settled(): Promise<void>;
}

const GROUP = 'otp';

export async function startTestSentinel({
  replicas = 2,
  downAfterMs = 1_500,
}: {
  readonly replicas?: number;
  readonly downAfterMs?: number;
} = {}): Promise<TestSentinel> {
  const password = randomBytes(12).toString('hex');
  const server = findRedisServer();
  if (server === null) throw new Error('there is no Redis server: npm run setup');
  const nodes: RunningNode[] = [];
  const closers: (() => Promise<unknown>)[] = [];
  const close = async (): Promise<void> => {
    for (const closer of closers.reverse()) await closer();
  };
  const talks: Redis[] = [];
  try {
    const configuration = ['repl-diskless-sync-delay 0'];
    const master = await startNode(password, configuration);
    nodes.push(master);
    closers.push(() => master.close());
    await Promise.all(
      Array.from({ length: replicas }, async () => {
        const replica = await startNode(password, [...configuration, `replicaof ${LOOPBACK} ${master.port}`]);
        nodes.push(replica);
        closers.push(() => replica.close());
      }),
    );
    for (let count = 0; count < 3; count += 1) {
      const folder = mkdtempSync(join(tmpdir(), 'otp-sentinel-'));
      const port = await freePort();
      // A sentinel writes what it learns into its own configuration, so it has to be a file.
      const file = join(folder, 'sentinel.conf');
      const lines = [
        `bind ${LOOPBACK}`,
        `port ${port}`,
        `dir ${folder}`,
        'loglevel warning',
        `sentinel monitor ${GROUP} ${LOOPBACK} ${master.port} 2`,
        `sentinel auth-pass ${GROUP} ${password}`,
        `sentinel down-after-milliseconds ${GROUP} ${downAfterMs}`,
        `sentinel failover-timeout ${GROUP} 4000`,
        `sentinel parallel-syncs ${GROUP} 2`,
      ];
      writeFileSync(file, `${lines.join('\n')}\n`);
      const child = spawn(server.command, [file, '--sentinel'], { env: server.env, stdio: 'ignore' });
      const ended = new Promise((resolve) => child.once('close', resolve));
      const kill = (): void => void child.kill('SIGKILL');
      process.once('exit', kill);
      const redis = new Redis({ host: LOOPBACK, port, retryStrategy: () => 50 });
      redis.on('error', () => {});
      talks.push(redis);
      closers.push(async () => {
        process.removeListener('exit', kill);
        redis.disconnect();
        kill();
        await ended;
        rmSync(folder, { recursive: true, force: true });
      });
    }
  } catch (error) {
    await close();
    throw error;
  }
  const [first] = talks as [Redis];
  const named = async (talk: Redis): Promise<number> => {
    const address = (await talk.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', GROUP)) as [string, string] | null;
    return Number(address?.[1]);
  };
  const sentinel: TestSentinel = {
    settings: { sentinels: talks.map(({ options: { port } }) => `${LOOPBACK}:${port}`), name: GROUP, password },
    nodes,
    master: async () => {
      const port = await named(first);
      const node = nodes.find((each) => each.port === port);
      if (!node) throw new Error(`the sentinels name nobody of ours: ${port}`);
      return node;
    },
    failover: async () => void (await first.call('SENTINEL', 'FAILOVER', GROUP)),
    settled: async () =>
      await until('the sentinels see the whole group', async () => {
        const port = await named(first);
        const seen = await Promise.all(
          talks.map(async (talk) => {
            const flat = (await talk.call('SENTINEL', 'MASTER', GROUP)) as string[];
            const said = Object.fromEntries(flat.flatMap((name, at) => (at % 2 ? [] : [[name, flat[at + 1]]])));
            return (
              said.flags === 'master' &&
              Number(said.port) === port &&
              Number(said['num-slaves']) >= replicas &&
              Number(said['num-other-sentinels']) === talks.length - 1
            );
          }),
        );
        const roles = await Promise.all(nodes.map(async ({ redis }) => await redis.info('replication')));
        const following = roles.filter((info) => field(info, 'master_link_status') === 'up').length;
        return seen.every(Boolean) && following === replicas;
      }),
    [Symbol.asyncDispose]: close,
  };
  await sentinel.settled().catch(async (error) => {
    await close();
    throw error;
  });
  return sentinel;
}
