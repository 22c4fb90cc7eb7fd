/** The server under everything, or each master of a Cluster: that it is fit, that it keeps what it is told, and that its clock is right. */
import type { Config } from '../../config.ts';
import { readServer, type ServerState } from '../../metrics/redis-server.ts';
import { mastersOf } from '../../redis/cluster.ts';
import { checkRedis, type RedisConnection, redisWarnings, replicaWarnings } from '../../redis/connections.ts';
import { clockFinding, type Finding, fault, ok, warning } from './finding.ts';

export async function checkRedisServer(redis: RedisConnection, config: Config): Promise<Finding[]> {
  const state = await readServer(redis);
  return [
    ...(await fitness(redis)),
    memory(state),
    ...(await persistence(redis, state, config)),
    ...(await replication(redis, state, config)),
    await clock(redis),
  ].flatMap((finding) => finding ?? []);
}

/** What keeps the service from starting on this server: it says so itself. */
async function fitness(redis: RedisConnection): Promise<Finding[]> {
  const faults = await checkRedis(redis);
  const version = faults.find((text) => text.includes('or later is needed'));
  const policy = faults.find((text) => text.includes('maxmemory-policy'));
  const others = faults.filter((text) => text !== version && text !== policy);
  return [
    version === undefined
      ? ok('redis.version', 'it answers, and is new enough')
      : fault('redis.version', version, 'upgrade the server'),
    policy === undefined
      ? ok('redis.maxmemory-policy', 'it evicts nothing (maxmemory-policy noeviction)')
      : fault(
          'redis.maxmemory-policy',
          policy,
          'redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf',
        ),
    ...others.map((text) => fault('redis.fitness', text, 'the service does not start on this server: change it')),
  ];
}

const NEARLY_FULL = 0.9;

/** A server that evicts nothing refuses every write when it is full. */
function memory({ memoryUsedBytes: used, memoryLimitBytes: most }: ServerState): Finding | null {
  if (!(most > 0)) return null;
  const percent = `${Math.round((100 * used) / most)} % of maxmemory ${megabytes(most)} are used`;
  if (used < NEARLY_FULL * most) return ok('redis.memory', percent);
  return warning(
    'redis.memory',
    `${percent}: a full server refuses every write`,
    'raise maxmemory, or drain what waits',
  );
}

const DISK = "look at the space on the server's disk, and at its log";

async function persistence(redis: RedisConnection, state: ServerState, config: Config): Promise<Finding[]> {
  const about = 'redis.persistence';
  const [off] = await redisWarnings(redis);
  const kept = off === undefined ? await fsyncFinding(redis, config) : null;
  return [
    ...(off === undefined
      ? [kept ?? ok(about, 'its append-only file is on')]
      : [
          warning(
            about,
            off.replace(/; set appendonly yes$/, ''),
            'redis-cli CONFIG SET appendonly yes, and the same in redis.conf',
          ),
        ]),
    state.lastAppendOk ? null : fault(about, 'the last write to its append-only file failed', DISK),
    state.lastSaveOk
      ? null
      : fault(about, 'its last snapshot failed, and by default it then refuses every write', DISK),
  ].filter((finding) => finding !== null);
}

/** Of several servers the laxest counts. */
const LAXEST = ['no', 'everysec', 'always'];

/** Null where the server does not tell, as hosted ones do not. */
async function fsyncFinding(redis: RedisConnection, config: Config): Promise<Finding | null> {
  const about = 'redis.persistence';
  const answers = (await mastersOf(redis)).map(async (master) => {
    const answer = await master.config('GET', 'appendfsync').catch(() => null);
    return Array.isArray(answer) ? String(answer[1]) : undefined;
  });
  const [fsync] = (await Promise.all(answers)).toSorted((a, b) => LAXEST.indexOf(a ?? '') - LAXEST.indexOf(b ?? ''));
  if (fsync === 'no') {
    return warning(
      about,
      'its append-only file is on with appendfsync no: a power failure takes what the kernel had not written',
      'redis-cli CONFIG SET appendfsync everysec, and the same in redis.conf',
    );
  }
  if (fsync === 'everysec' && config.journal.lossWindowMs === 0) {
    return warning(
      about,
      'journal.lossWindowMs is 0, and appendfsync everysec may lose a second and more',
      'set journal.lossWindowMs to 2000, or appendfsync to always',
    );
  }
  return fsync === undefined ? null : ok(about, `its append-only file is on, appendfsync ${fsync}`);
}

async function replication(
  redis: RedisConnection,
  { isMaster, replicas: connected }: ServerState,
  config: Config,
): Promise<Finding[]> {
  const about = 'redis.replicas';
  if (!isMaster) {
    return [fault(about, 'this server is a replica: it refuses every write', 'set redis.url to the master')];
  }
  const { waitReplicas } = config.journal;
  const wanted = waitReplicas === 'auto' ? 0 : waitReplicas;
  if (connected < wanted) {
    return [
      warning(
        about,
        `journal.waitReplicas is ${wanted}, and ${connected} are connected: no code is sent`,
        'connect the replicas again, or set journal.waitReplicas to auto',
      ),
    ];
  }
  const missing = await replicaWarnings(redis, config.journal);
  if (missing.length > 0) {
    const remedy = 'connect a replica to every master, and let journal.waitReplicas be auto or 1 (docs/redis.md)';
    return missing.map((text) => warning(about, text, remedy));
  }
  const asWanted = waitReplicas === 'auto' ? 'waitReplicas auto' : `waitReplicas ${waitReplicas}`;
  return [ok(about, `${connected === 0 ? 'none' : connected} connected, and journal.${asWanted}`)];
}

async function clock(redis: RedisConnection): Promise<Finding> {
  const skews = (await mastersOf(redis)).map(async (master) => {
    const askedAt = Date.now();
    const [seconds, micros] = await master.time();
    return Number(seconds) * 1_000 + Number(micros) / 1_000 - (askedAt + Date.now()) / 2;
  });
  const [worstMs = 0] = (await Promise.all(skews)).toSorted((a, b) => Math.abs(b) - Math.abs(a));
  return clockFinding('redis.clock', worstMs, 'deadlines of codes are reckoned by it');
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MB`;
}
