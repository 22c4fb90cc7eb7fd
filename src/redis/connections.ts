import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import type { ClusterOptions, RedisOptions } from 'ioredis';
import { Secret } from '../secret.ts';
import { addressOf, hasFailover, mastersOf } from './cluster.ts';
import { corkPerTurn } from './corking.ts';
import { Cluster, Redis } from './ioredis.ts';

/** `namePrefix` says to which of several installations in one Redis the connection belongs. */
export type RedisConnection = (Redis | Cluster) & { readonly namePrefix?: string | undefined };

/** Paths of PEM files. Without `caFile` the authorities that Node brings are trusted. */
export interface TlsFiles {
  readonly caFile?: string | undefined;
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;
}

interface AnyRedis {
  readonly namePrefix?: string | undefined;
  readonly username?: string | undefined;
  readonly password?: string | Secret<string> | undefined;
  /** For `url`, the scheme says whether TLS is spoken, `rediss:`; for the others it is spoken where this is there. */
  readonly tls?: TlsFiles | undefined;
}

/** Where Redis is. A url may carry a password, so it may come as a secret. */
export type RedisSettings =
  | (AnyRedis & { readonly url: string | Secret<string> })
  | (AnyRedis & { readonly cluster: readonly string[] })
  | (AnyRedis & {
      readonly sentinels: readonly string[];
      readonly name: string;
      readonly sentinelUsername?: string | undefined;
      readonly sentinelPassword?: string | Secret<string> | undefined;
    });

/**
 * What a connection is for, which is how it behaves when Redis is away.
 *
 * - `worker` waits for ever and goes on where it stood: work that was taken must be brought to its end.
 * - `producer` fails fast: somebody is waiting, and "not known to be accepted" is an answer, a spinning wheel is not.
 *   **BullMQ undoes this unless its `Queue` gets `skipWaitingForReady: true`** among its own options: without that,
 *   `queue.add()` stays pending for as long as Redis is away, whatever the connection says.
 * - `console` fails fast and gives no single command more than three seconds, so that a page always comes.
 */
export type ConnectionProfile = 'worker' | 'producer' | 'console';

export interface ConnectOptions {
  /** Called for every fault of the connection. Without a listener ioredis would end the process, so it is required. */
  readonly onError: (error: Error) => void;
  /** Shown by `CLIENT LIST`; `otp-<profile>` by default. */
  readonly name?: string;
}

/** Long enough that a busy server is not cut off, short enough that a stopped one is left within a code's lifetime. */
const SOCKET_TIMEOUT_MS = 8_000;

/**
 * A worker's blocking connection rightly hears nothing for as long as BullMQ lets one wait for a job, which is ten
 * seconds at most. A shorter limit would cut a healthy connection whenever the next job is that far away.
 */
const WORKER_SOCKET_TIMEOUT_MS = 12_000;

const CONNECT_TIMEOUT_MS = 5_000;
const CONSOLE_COMMAND_TIMEOUT_MS = 3_000;
const LONGEST_RETRY_MS = 1_000;
/** A master that hangs has its place taken by a replica; who looks at the map of the slots leaves it long before its sockets time out. */
const SLOTS_REFRESH_MS = 2_000;
const CLUSTER_RETRY_MS = 100;
/** A master that hangs does not say goodbye: whoever was told to leave it does not wait for that. */
const DISCONNECT_TIMEOUT_MS = 300;
/** A sentinel that hangs is passed over. */
const SENTINEL_COMMAND_TIMEOUT_MS = 2_000;

export function connectRedis(
  settings: string | RedisSettings,
  profile: ConnectionProfile,
  { onError, name = `otp-${profile}` }: ConnectOptions,
): RedisConnection {
  const given = typeof settings === 'string' ? { url: settings } : settings;
  const client = endsWhenTold(open(given, profile, name));
  const connection: RedisConnection = Object.assign(client, { namePrefix: given.namePrefix });
  connection.on('error', onError);
  corkPerTurn(connection);
  // A node that cannot be reached is no error of a Cluster, which finds another; a person wants to know which it is.
  connection.on('node error', (error: Error, node: string) => onError(new Error(`${node}: ${error.message}`)));
  if (profile !== 'worker') {
    // Until the first connection stands commands may wait for it, so that a start does not depend on who is first.
    // From then on a command that cannot be sent now is refused now, instead of being sent at some later time.
    connection.once('ready', () => {
      connection.options.enableOfflineQueue = false;
    });
  }
  return connection;
}

function open(settings: RedisSettings, profile: ConnectionProfile, connectionName: string): Redis | Cluster {
  const { username, password, tls } = settings;
  const options = {
    ...optionsOf(profile),
    connectionName,
    replyMapping: 'legacy' as const, // the other mapping breaks BullMQ's QueueEvents
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password: textOf(password) }),
  };
  if ('cluster' in settings) {
    const redisOptions = { ...options, ...(tls === undefined ? {} : { tls: tlsOptions(tls) }) };
    return new Cluster(settings.cluster.map(hostAndPort), { ...clusterOptions(profile), redisOptions });
  }
  if ('sentinels' in settings) {
    const { sentinels, name, sentinelUsername, sentinelPassword } = settings;
    return new Redis({
      ...options,
      sentinels: sentinels.map(hostAndPort),
      name,
      // Told by the sentinels that another server is master now; without it a connection to the old one is kept.
      failoverDetector: true,
      sentinelCommandTimeout: SENTINEL_COMMAND_TIMEOUT_MS,
      sentinelRetryStrategy: retryDelay,
      ...(sentinelUsername === undefined ? {} : { sentinelUsername }),
      ...(sentinelPassword === undefined ? {} : { sentinelPassword: textOf(sentinelPassword) }),
      ...(tls === undefined
        ? {}
        : { tls: tlsOptions(tls), sentinelTLS: tlsOptions(tls), enableTLSForSentinelMode: true }),
    });
  }
  const url = readable(textOf(settings.url));
  if (!/^rediss:/i.test(url)) return new Redis(url, options);
  // With its own scheme ioredis would take what it knows of TLS from the url, which is nothing.
  return new Redis(url.replace(/^rediss:/i, 'redis:'), { ...options, tls: tlsOptions(tls ?? {}) });
}

/** Said here, because the environment could say otherwise for the whole process. */
function tlsOptions({ caFile, certFile, keyFile }: TlsFiles): ConnectionOptions {
  const read = (file: string): string => readFileSync(file, 'utf8');
  return {
    rejectUnauthorized: true,
    minVersion: 'TLSv1.2',
    ...(caFile === undefined ? {} : { ca: read(caFile) }),
    ...(certFile === undefined ? {} : { cert: read(certFile) }),
    ...(keyFile === undefined ? {} : { key: read(keyFile) }),
  };
}

const textOf = (text: string | Secret<string>): string => (text instanceof Secret ? text.reveal() : text);

function hostAndPort(text: string): { host: string; port: number } {
  const colon = text.lastIndexOf(':');
  return { host: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) };
}

/**
 * A client of ioredis that is told to disconnect while it waits for its next try only clears its timer: it never says
 * that it ended, and what waits on it waits for ever, BullMQ's `worker.close()` first of all (taskforcesh/bullmq#4656).
 * So a try is begun and broken off, which ends it as any other. BullMQ's blocking connection is a duplicate, and its
 * duplicates end with it.
 *
 * And one that nobody has told to end does not: when sentinels speak of a failover while it is finding its way, the client
 * gives up for good.
 */
function endsWhenTold<Client extends Redis | Cluster>(connection: Client): Client {
  const disconnect = connection.disconnect.bind(connection);
  const duplicate = connection.duplicate.bind(connection) as (...args: unknown[]) => Client;
  const duplicates: Client[] = [];
  connection.on('error', forgetCommand);
  connection.on('node error', forgetCommand);
  if (connection instanceof Cluster) connectsInTheEnd(connection);
  let told = false;
  connection.on('end', () => {
    refuseUnanswered(connection);
    if (told) return;
    setTimeout(() => {
      if (!told) connection.connect().catch(() => {}); // and if that ends as well it is said again
    }, retryDelay(1));
  });
  const quit = connection.quit.bind(connection);
  connection.quit = async () => {
    told = true;
    return await quit();
  };
  connection.disconnect = (reconnect = false) => {
    if (!reconnect) {
      told = true;
      for (const each of duplicates) each.disconnect();
    }
    const betweenTries = connection.status === 'reconnecting';
    // A Cluster that has not begun to connect ends at once, and it has nothing else to end now.
    if (betweenTries && !reconnect && connection instanceof Cluster) connection.status = 'wait';
    disconnect(reconnect);
    if (connection instanceof Cluster) {
      if (!reconnect) leavesNodesFoundMeanwhile(connection, disconnect);
      return;
    }
    if (!betweenTries || reconnect) return;
    connection.connect().catch(() => {}); // says that it was broken off
    disconnect();
  };
  connection.duplicate = ((...args: unknown[]) => {
    const made = endsWhenTold(duplicate(...args));
    duplicates.push(made);
    return made;
  }) as Client['duplicate'];
  return connection;
}

/**
 * A Cluster that is looking at the map of the slots while it is told to end, as it does again and again when a master is
 * gone, finds its nodes once more and waits for ever for them to end.
 */
function leavesNodesFoundMeanwhile(cluster: Cluster, disconnect: () => void): void {
  const looking = setInterval(() => {
    if (cluster.status !== 'end') {
      disconnect();
      cluster.status = 'wait'; // with nothing to wait for: it ends at once
      disconnect();
    }
    if (cluster.status === 'end') clearInterval(looking);
  }, DISCONNECT_TIMEOUT_MS);
  looking.unref();
}

/**
 * What was sent when a connection broke is kept by ioredis to be sent again, and forgotten when the connection ends
 * instead (redis/ioredis#2197): whoever waits for it would wait for ever.
 */
function refuseUnanswered(connection: Redis | Cluster): void {
  const { prevCommandQueue } = connection as {
    prevCommandQueue?: { shift(): { command: { reject(error: Error): void } } | undefined } | null;
  };
  for (let sent = prevCommandQueue?.shift(); sent; sent = prevCommandQueue?.shift()) {
    sent.command.reject(new Error('Connection is closed.'));
  }
}

/**
 * A Cluster whose nodes answer that it is not whole, as they do in the midst of a failover, is connected to again; the
 * promise of the first try is then forgotten, and BullMQ waits for it for ever. So any later try settles it.
 */
function connectsInTheEnd(cluster: Cluster): void {
  const connect = cluster.connect.bind(cluster);
  cluster.connect = () =>
    new Promise<void>((resolve, reject) => {
      const settle = (how: () => void): void => {
        cluster.off('ready', ready).off('end', ended);
        how();
      };
      const ready = (): void => settle(resolve);
      const ended = (): void => settle(() => reject(new Error('the connection has ended')));
      cluster.once('ready', ready).once('end', ended);
      connect().then(ready, (error) => settle(() => reject(error)));
    });
}

/** The platform's own error would repeat the url, and there may be a password in it. */
function readable(url: string): string {
  if (url.includes('://') && !URL.canParse(url))
    throw new Error('redis: the url cannot be read: it must be like redis://:password@host:6379');
  return url;
}

/** A login that was refused carries its command, and the command's arguments are the password. */
function forgetCommand(error: Error): void {
  delete (error as { command?: unknown }).command;
}

type Behaviour = Omit<RedisOptions, 'replyMapping' | 'tls'>;

function optionsOf(profile: ConnectionProfile): Behaviour {
  const common: Behaviour = {
    connectTimeout: CONNECT_TIMEOUT_MS,
    disconnectTimeout: DISCONNECT_TIMEOUT_MS,
    socketTimeout: profile === 'worker' ? WORKER_SOCKET_TIMEOUT_MS : SOCKET_TIMEOUT_MS,
    retryStrategy: retryDelay,
    // A master that has become a replica: connecting again finds the new one, and what was refused is said to it.
    reconnectOnError: (error) => (error.message.startsWith('READONLY') ? 2 : false),
    lazyConnect: false,
  };
  switch (profile) {
    case 'worker':
      return { ...common, maxRetriesPerRequest: null }; // BullMQ asks for it, and does not look at a Cluster's nodes
    case 'producer':
      return { ...common, maxRetriesPerRequest: 1 };
    case 'console':
      return { ...common, maxRetriesPerRequest: 1, commandTimeout: CONSOLE_COMMAND_TIMEOUT_MS };
  }
}

/** Tries are a tenth of a second apart, so their number is how long a command waits for a failover. */
function clusterOptions(profile: ConnectionProfile): Omit<ClusterOptions, 'redisOptions'> {
  return {
    clusterRetryStrategy: retryDelay,
    slotsRefreshInterval: SLOTS_REFRESH_MS,
    retryDelayOnFailover: CLUSTER_RETRY_MS,
    retryDelayOnClusterDown: CLUSTER_RETRY_MS,
    retryDelayOnTryAgain: CLUSTER_RETRY_MS,
    maxRedirections: profile === 'worker' ? Number.MAX_SAFE_INTEGER : 8,
    dnsLookup: (host, found) => found(null, host), // names stay names: certificates are made out to them
  };
}

/** 50 ms, 100 ms, ... one second at most; the upper half at random, so that a fleet does not return in one instant. */
function retryDelay(times: number): number {
  const longest = Math.min(50 * 2 ** Math.min(times - 1, 10), LONGEST_RETRY_MS);
  return Math.ceil(longest * (0.5 + Math.random() / 2));
}

/** What makes the server, or one of a Cluster's masters, unfit for carrying codes, one sentence each; empty when all are fit. */
export async function checkRedis(connection: RedisConnection): Promise<string[]> {
  const refused = await refusedDatabase(connection);
  if (refused !== null) return [refused];
  return await ofEachMaster(connection, (info) => {
    const faults: string[] = [];
    const policy = info.get('maxmemory_policy');
    if (policy !== undefined && policy !== 'noeviction') {
      faults.push(
        `Redis has maxmemory-policy ${policy}: it may drop the record of a code that was sent; set noeviction`,
      );
    }
    const version = info.get('redis_version');
    if (version !== undefined && olderThan(version, 6, 2)) faults.push(`Redis is ${version}: 6.2 or later is needed`);
    if (info.get('cluster_enabled') === '1' && !(connection instanceof Cluster)) {
      faults.push('Redis is a node of a Cluster, and serves only its own slots: set redis.cluster');
    }
    return faults;
  });
}

/** The client would go on in database 0, which may be another installation's. */
async function refusedDatabase(connection: RedisConnection): Promise<string | null> {
  if (connection instanceof Cluster) return null;
  const { db = 0 } = connection.options;
  if (db === 0) return null;
  try {
    await connection.select(db);
    return null;
  } catch (error) {
    if (!(error instanceof Error) || error.name !== 'ReplyError') throw error;
    return `Redis refuses database ${db} of redis.url: ${error.message.replace(/^ERR /, '')}`;
  }
}

/** What an operator should know about the servers but may have chosen, one sentence each. */
export async function redisWarnings(connection: RedisConnection): Promise<string[]> {
  return await ofEachMaster(connection, (info) =>
    info.get('aof_enabled') === '0'
      ? ['Redis has appendonly no: a restart of the server forgets what it was told; set appendonly yes']
      : [],
  );
}

/**
 * Where another server may take this one's place, what no replica has is lost with it. Empty on one server that is all
 * there is.
 */
export async function replicaWarnings(
  connection: RedisConnection,
  { waitReplicas }: { readonly waitReplicas: number | 'auto' },
): Promise<string[]> {
  if (!hasFailover(connection)) return [];
  if (waitReplicas === 0) {
    return [
      'journal.waitReplicas is 0: a failover loses what no replica has, and codes that were sent may become unknown',
    ];
  }
  return await ofEachMaster(connection, (info) => {
    const connected = Number(info.get('connected_slaves') ?? 0);
    if (connected >= (waitReplicas === 'auto' ? 1 : waitReplicas)) return [];
    return waitReplicas === 'auto'
      ? ['no replica is connected, so none is waited for: a failover would lose what was written last']
      : [
          `${connected} of the ${waitReplicas} replicas that journal.waitReplicas asks for are connected: no code is sent`,
        ];
  });
}

async function ofEachMaster(
  connection: RedisConnection,
  judge: (info: Map<string, string>) => string[],
): Promise<string[]> {
  const masters = await mastersOf(connection);
  const judged = masters.map(async (master) => {
    const address = connection instanceof Cluster ? `${addressOf(master)}: ` : '';
    return judge(await serverInfo(master)).map((text) => `${address}${text}`);
  });
  return (await Promise.all(judged)).flat();
}

/** From INFO, not CONFIG GET: hosted servers refuse the latter. */
async function serverInfo(server: Redis): Promise<Map<string, string>> {
  const lines = (await server.info()).split('\r\n');
  return new Map(lines.filter((line) => line.includes(':')).map((line) => splitAt(line, line.indexOf(':'))));
}

function splitAt(line: string, at: number): [string, string] {
  return [line.slice(0, at), line.slice(at + 1)];
}

function olderThan(version: string, major: number, minor: number): boolean {
  const [has = 0, hasMinor = 0] = version.split('.').map(Number);
  return has < major || (has === major && hasMinor < minor);
}
