import { Redis, type RedisOptions } from 'ioredis';
import { Secret } from '../secret.ts';

/** `namePrefix` says to which of several installations in one Redis the connection belongs. */
export type RedisConnection = Redis & { readonly namePrefix?: string | undefined };

/** Where Redis is. A url may carry a password, so it may come as a secret. */
export type RedisSettings = (
  | { readonly url: string | Secret<string> }
  | { readonly cluster: readonly string[] }
  | { readonly sentinels: readonly string[]; readonly name: string }
) & { readonly namePrefix?: string | undefined };

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

export function connectRedis(
  settings: string | RedisSettings,
  profile: ConnectionProfile,
  { onError, name = `otp-${profile}` }: ConnectOptions,
): RedisConnection {
  const client = endsWhenTold(
    new Redis(readable(urlOf(settings)), {
      ...optionsOf(profile),
      connectionName: name,
      replyMapping: 'legacy', // the other mapping breaks BullMQ's QueueEvents
    }),
  );
  const connection = Object.assign(client, {
    namePrefix: typeof settings === 'string' ? undefined : settings.namePrefix,
  });
  connection.on('error', onError);
  if (profile !== 'worker') {
    // Until the first connection stands commands may wait for it, so that a start does not depend on who is first.
    // From then on a command that cannot be sent now is refused now, instead of being sent at some later time.
    connection.once('ready', () => {
      connection.options.enableOfflineQueue = false;
    });
  }
  return connection;
}

/**
 * A client of ioredis that is told to disconnect while it waits for its next try only clears its timer: it never says
 * that it ended, and what waits on it waits for ever, BullMQ's `worker.close()` first of all (taskforcesh/bullmq#4656).
 * So a try is begun and broken off, which ends it as any other. BullMQ's blocking connection is a duplicate.
 */
function endsWhenTold(connection: Redis): Redis {
  const disconnect = connection.disconnect.bind(connection);
  const duplicate = connection.duplicate.bind(connection);
  connection.on('error', forgetCommand);
  connection.disconnect = (reconnect = false) => {
    const betweenTries = connection.status === 'reconnecting';
    disconnect(reconnect);
    if (!betweenTries || reconnect) return;
    connection.connect().catch(() => {}); // says that it was broken off
    disconnect();
  };
  connection.duplicate = ((override?: Partial<RedisOptions>) =>
    endsWhenTold(duplicate(override))) as Redis['duplicate'];
  return connection;
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

function urlOf(settings: string | RedisSettings): string {
  if (typeof settings === 'string') return settings;
  if ('cluster' in settings) throw new Error('redis.cluster is not supported yet: give redis.url');
  if ('sentinels' in settings) throw new Error('redis.sentinels is not supported yet: give redis.url');
  return settings.url instanceof Secret ? settings.url.reveal() : settings.url;
}

function optionsOf(profile: ConnectionProfile): RedisOptions {
  const common: RedisOptions = {
    connectTimeout: CONNECT_TIMEOUT_MS,
    socketTimeout: profile === 'worker' ? WORKER_SOCKET_TIMEOUT_MS : SOCKET_TIMEOUT_MS,
    retryStrategy: retryDelay,
    lazyConnect: false,
  };
  switch (profile) {
    case 'worker':
      return { ...common, maxRetriesPerRequest: null };
    case 'producer':
      return { ...common, maxRetriesPerRequest: 1 };
    case 'console':
      return { ...common, maxRetriesPerRequest: 1, commandTimeout: CONSOLE_COMMAND_TIMEOUT_MS };
  }
}

/** 50 ms, 100 ms, ... one second at most; the upper half at random, so that a fleet does not return in one instant. */
function retryDelay(times: number): number {
  const longest = Math.min(50 * 2 ** Math.min(times - 1, 10), LONGEST_RETRY_MS);
  return Math.ceil(longest * (0.5 + Math.random() / 2));
}

/** What makes this server unfit for carrying codes, one sentence each; empty when it is fit. */
export async function checkRedis(connection: RedisConnection): Promise<string[]> {
  const info = await serverInfo(connection);
  const faults: string[] = [];
  const policy = info.get('maxmemory_policy');
  if (policy !== undefined && policy !== 'noeviction') {
    faults.push(`Redis has maxmemory-policy ${policy}: it may drop the record of a code that was sent; set noeviction`);
  }
  const version = info.get('redis_version');
  if (version !== undefined && olderThan(version, 6, 2)) faults.push(`Redis is ${version}: 6.2 or later is needed`);
  return faults;
}

/** What an operator should know about this server but may have chosen, one sentence each. */
export async function redisWarnings(connection: RedisConnection): Promise<string[]> {
  const info = await serverInfo(connection);
  if (info.get('aof_enabled') !== '0') return [];
  return ['Redis has appendonly no: a restart of the server forgets what it was told; set appendonly yes'];
}

/** From INFO, not CONFIG GET: hosted servers refuse the latter. */
async function serverInfo(connection: RedisConnection): Promise<Map<string, string>> {
  const lines = (await connection.info()).split('\r\n');
  return new Map(lines.filter((line) => line.includes(':')).map((line) => splitAt(line, line.indexOf(':'))));
}

function splitAt(line: string, at: number): [string, string] {
  return [line.slice(0, at), line.slice(at + 1)];
}

function olderThan(version: string, major: number, minor: number): boolean {
  const [has = 0, hasMinor = 0] = version.split('.').map(Number);
  return has < major || (has === major && hasMinor < minor);
}
