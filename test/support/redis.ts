import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type RedisProcess, startRedisProcess } from '../../src/redis/process.ts';

export interface TestRedisOptions {
  /** Off by default, for speed; a server that is to keep its data over `kill()` and `start()` needs it. */
  readonly appendonly?: boolean;
  readonly appendfsync?: 'everysec' | 'always';
}

/** A real Redis server of the test's own: up in 30 ms, in a temporary folder, gone with the test's process. */
export interface TestRedis {
  readonly url: string;
  readonly dataDir: string;
  readonly pid: number;
  /** Ends the server in order; its folder stays until the server is disposed of. */
  stop(): Promise<void>;
  /** `kill -9`. */
  kill(): Promise<void>;
  /** Starts it again after `stop()` or `kill()`: same port, same password, same folder. */
  start(): Promise<void>;
  /** Stops the process without ending it: connections stay open and nothing is answered any more. */
  freeze(): void;
  thaw(): void;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function startTestRedis(options: TestRedisOptions = {}): Promise<TestRedis> {
  const dataDir = mkdtempSync(join(tmpdir(), 'otp-redis-'));
  const settings = { dir: dataDir, appendonly: false, ...options };
  let server: RedisProcess = await startRedisProcess(settings);
  const { url, port, password } = server;
  return {
    url,
    dataDir,
    get pid() {
      return server.pid;
    },
    stop: () => server.stop(),
    kill: async () => {
      server.signal('SIGKILL');
      await server.exited;
    },
    start: async () => {
      server = await startRedisProcess({ ...settings, port, password });
    },
    freeze: () => server.signal('SIGSTOP'),
    thaw: () => server.signal('SIGCONT'),
    [Symbol.asyncDispose]: async () => {
      await server.stop();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}
