/** How the servers under everything are: from INFO, which hosted servers answer as well, at most once a second. */
import type { Redis } from 'ioredis';
import type { Registry } from 'prom-client';
import type { EventBus } from '../events.ts';
import { mastersOf } from '../redis/cluster.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { declareGauge, type GaugeName } from './registry.ts';

export interface ServerState {
  readonly memoryUsedBytes: number;
  /** 0: no limit. */
  readonly memoryLimitBytes: number;
  readonly evictsNothing: boolean;
  readonly appendOnly: boolean;
  readonly lastAppendOk: boolean;
  readonly lastSaveOk: boolean;
  readonly isMaster: boolean;
  readonly replicas: number;
}

/** Of a Cluster: as its worst master is, for a chain holds no more than its weakest link; the fullest tells of memory. */
export async function readServer(redis: RedisConnection): Promise<ServerState> {
  const states = await Promise.all((await mastersOf(redis)).map(readMaster));
  const [fullest] = states.toSorted((a, b) => fullness(b) - fullness(a));
  if (fullest === undefined) throw new Error('the Cluster has no master');
  const all = (is: (state: ServerState) => boolean): boolean => states.every(is);
  return {
    memoryUsedBytes: fullest.memoryUsedBytes,
    memoryLimitBytes: fullest.memoryLimitBytes,
    evictsNothing: all(({ evictsNothing }) => evictsNothing),
    appendOnly: all(({ appendOnly }) => appendOnly),
    lastAppendOk: all(({ lastAppendOk }) => lastAppendOk),
    lastSaveOk: all(({ lastSaveOk }) => lastSaveOk),
    isMaster: all(({ isMaster }) => isMaster),
    replicas: Math.min(...states.map(({ replicas }) => replicas)),
  };
}

/** A server without a limit is fuller than none that has one. */
function fullness({ memoryUsedBytes, memoryLimitBytes }: ServerState): number {
  return memoryLimitBytes > 0 ? memoryUsedBytes / memoryLimitBytes : memoryUsedBytes / Number.MAX_SAFE_INTEGER;
}

async function readMaster(redis: Redis): Promise<ServerState> {
  const said = new Map<string, string>();
  for (const line of (await redis.info()).split('\r\n')) {
    const [name = '', value] = line.split(':', 2);
    if (value !== undefined) said.set(name, value);
  }
  return {
    memoryUsedBytes: Number(said.get('used_memory') ?? 0),
    memoryLimitBytes: Number(said.get('maxmemory') ?? 0),
    evictsNothing: said.get('maxmemory_policy') === 'noeviction',
    appendOnly: said.get('aof_enabled') === '1',
    lastAppendOk: said.get('aof_last_write_status') !== 'err',
    lastSaveOk: said.get('rdb_last_bgsave_status') !== 'err',
    isMaster: said.get('role') !== 'slave',
    replicas: Number(said.get('connected_slaves') ?? 0),
  };
}

/** Declares the gauges of the server; null: it did not answer in time, and nothing old is told in its place. */
export function collectServer(registry: Registry, read: () => Promise<ServerState | null>): void {
  declareGauge(registry, 'redisUp', async (gauge) => gauge.set((await read()) === null ? 0 : 1));
  const declare = (name: ServerGauge, value: (state: ServerState) => number | boolean): void =>
    declareGauge(registry, name, async (gauge) => {
      const state = await read();
      if (state === null) gauge.remove();
      else gauge.set(Number(value(state)));
    });
  declare('redisMemoryUsed', ({ memoryUsedBytes }) => memoryUsedBytes);
  declare('redisMemoryLimit', ({ memoryLimitBytes }) => memoryLimitBytes);
  declare('redisNoEviction', ({ evictsNothing }) => evictsNothing);
  declare('redisAppendOnly', ({ appendOnly }) => appendOnly);
  declare('redisLastAppendOk', ({ lastAppendOk }) => lastAppendOk);
  declare('redisLastSaveOk', ({ lastSaveOk }) => lastSaveOk);
  declare('redisMaster', ({ isMaster }) => isMaster);
  declare('redisReplicas', ({ replicas }) => replicas);
}

/** How many replicas the workers of this process wait for. */
export function collectAwaitedReplicas(registry: Registry, events: EventBus): void {
  const awaited = new Map<string, number>();
  events.on('replicas:awaited', ({ partition, replicas }) => awaited.set(partition, replicas));
  declareGauge(registry, 'replicasAwaited', async (gauge) => {
    for (const [provider, replicas] of awaited) gauge.set({ provider }, replicas);
  });
}

type ServerGauge = Exclude<Extract<GaugeName, `redis${string}`>, 'redisUp' | 'redisReplicasWanted'>;
