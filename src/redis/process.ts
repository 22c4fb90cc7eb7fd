import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { connect, createServer } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { findRedisServer, onPath } from './server.ts';

export interface RedisProcessOptions {
  readonly dir: string;
  /** A free one by default. */
  readonly port?: number;
  /** A random one by default. */
  readonly password?: string;
  readonly appendonly: boolean;
  readonly appendfsync?: 'everysec' | 'always' | 'no';
  /** Further lines of its configuration. */
  readonly configuration?: readonly string[];
  /**
   * How the server is made to end with this process, whatever kills it: by the kernel (`setpriv --pdeathsig`, where
   * there is one; it watches the thread that starts the server, so start it from the main thread) or by a shell that
   * waits for our end of a pipe to close.
   */
  readonly tiedBy?: 'setpriv' | 'watchdog';
}

export interface RedisProcess {
  readonly url: string;
  readonly port: number;
  readonly password: string;
  readonly pid: number;
  /** Settles when the server has ended, for whatever reason. */
  readonly exited: Promise<void>;
  signal(name: NodeJS.Signals): void;
  /** Asks the server to flush and end, and waits for it; after ten seconds it is killed. */
  stop(): Promise<void>;
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

const LOOPBACK = '127.0.0.1';
const READY_WITHIN_MS = 10_000;
const STOP_WITHIN_MS = 10_000;

/** Starts a Redis server on the loopback interface and waits until it answers, however long it loads its data. */
export async function startRedisProcess(options: RedisProcessOptions): Promise<RedisProcess> {
  for (let tries = 1; ; tries += 1) {
    const port = options.port ?? (await freePort());
    try {
      return await startOn(port, options);
    } catch (error) {
      // Between our look for a free port and the server's bind another process may have taken it.
      const taken = error instanceof Error && error.message.includes('Address already in use');
      if (!taken || options.port !== undefined || tries === 5) throw error;
    }
  }
}

async function startOn(port: number, options: RedisProcessOptions): Promise<RedisProcess> {
  const password = options.password ?? randomBytes(24).toString('hex');
  const url = `redis://:${password}@${LOOPBACK}:${port}`;
  const { child, release } = spawnTied(options.tiedBy ?? (kernelCanTie() ? 'setpriv' : 'watchdog'));

  const output: string[] = [];
  const keep = (chunk: Buffer) => {
    output.push(...chunk.toString('utf8').split('\n').filter(Boolean));
    output.splice(0, output.length - 20);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);

  let ended = false;
  const exited = new Promise<void>((settle) => {
    const end = () => {
      ended = true;
      process.removeListener('exit', terminate);
      release();
      settle();
    };
    child.once('close', end);
    child.once('error', (error) => {
      output.push(error.message);
      end();
    });
  });
  const terminate = () => child.kill('SIGTERM');
  process.once('exit', terminate);

  // The password travels by standard input: an argument would stand in the process list for everybody to read.
  child.stdin.on('error', () => {});
  child.stdin.end(configuration(port, password, options));

  const startedAt = performance.now();
  for (let answer = await ping(url); answer !== 'ready'; answer = await ping(url)) {
    const late = answer === 'none' && performance.now() - startedAt > READY_WITHIN_MS;
    if (late) child.kill('SIGKILL');
    if (late || ended) {
      throw new Error(`The Redis server ${late ? 'does not answer' : 'did not start'}: ${output.join(' | ')}`);
    }
    await delay(answer === 'loading' ? 50 : 5);
  }
  if (child.pid === undefined) throw new Error('The Redis server has no process id');

  // Whoever forgets to stop the server can still end: the exit hook and the tie above take the server along.
  const pipes = [child.stdout, child.stderr] as (Readable & { ref?(): void; unref?(): void })[];
  child.unref();
  for (const pipe of pipes) pipe.unref?.();
  // Whoever waits for its end must not end before, with nothing else left to do.
  const waitForIt = (): void => {
    child.ref();
    for (const pipe of pipes) pipe.ref?.();
  };

  return {
    url,
    port,
    password,
    pid: child.pid,
    exited,
    signal: (name) => {
      if (name === 'SIGKILL' || name === 'SIGTERM') waitForIt();
      child.kill(name);
    },
    stop: async () => {
      if (ended) return;
      waitForIt();
      child.kill('SIGCONT'); // a stopped process would never see the request
      child.kill('SIGTERM');
      const hard = setTimeout(() => child.kill('SIGKILL'), STOP_WITHIN_MS);
      await exited;
      clearTimeout(hard);
    },
  };
}

function configuration(port: number, password: string, options: RedisProcessOptions): string {
  const quotedDir = `"${options.dir.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
  const lines = [
    `bind ${LOOPBACK}`,
    `port ${port}`,
    `requirepass ${password}`,
    `dir ${quotedDir}`,
    `appendonly ${options.appendonly ? 'yes' : 'no'}`,
    `appendfsync ${options.appendfsync ?? 'everysec'}`,
    'save ""', // the append-only file is the one truth; snapshots beside it would only cost
    'maxmemory-policy noeviction',
    // A record with a longer value would be kept as a table of pointers, at twice the memory; a sealed code is longer than 64.
    'hash-max-listpack-value 1024',
    'loglevel warning',
    ...(options.configuration ?? []),
  ];
  return `${lines.join('\n')}\n`;
}

/** The server in a session of its own: Ctrl-C in a terminal must reach us alone, so that Redis is closed last. */
function spawnTied(tiedBy: 'setpriv' | 'watchdog'): { child: Child; release(): void } {
  const server = findRedisServer();
  if (server === null) {
    throw new Error('No Redis server was found on this machine: `npm run setup` fetches one, or set redis.url');
  }
  const options = { detached: true, env: server.env, stdio: ['pipe', 'pipe', 'pipe'] as ['pipe', 'pipe', 'pipe'] };
  const setpriv = tiedBy === 'setpriv' ? onPath('setpriv') : null;
  if (setpriv !== null) {
    const child = spawn(setpriv, ['--pdeathsig', 'TERM', server.command, '-'], options);
    return { child, release: () => {} };
  }
  const child = spawn(server.command, ['-'], options);
  if (child.pid === undefined) return { child, release: () => {} };
  // Our end of this pipe closes when we die, also by kill -9; then `cat` ends and the server is told to.
  const watchdog = spawn('sh', ['-c', 'cat >/dev/null; kill -TERM "$0"', String(child.pid)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  watchdog.on('error', () => {}); // no shell: the exit hook is what is left
  watchdog.stdin.on('error', () => {});
  watchdog.unref();
  (watchdog.stdin as Writable & { unref?(): void }).unref?.();
  return { child, release: () => watchdog.kill('SIGKILL') };
}

let tie: boolean | undefined;

function kernelCanTie(): boolean {
  const setpriv = onPath('setpriv');
  // Some systems have a setpriv that does not know this option, so it is tried once.
  tie ??= setpriv !== null && spawnSync(setpriv, ['--pdeathsig', 'TERM', 'true'], { stdio: 'ignore' }).status === 0;
  return tie;
}

/** Ports that the kernel gives to nobody who asks for any: those begin at 32768 on Linux, higher elsewhere. */
const PORTS = { from: 10_000, below: 32_768 };
const given = new Set<number>();

/** A port of the loopback interface that stays free while its server is away: nobody gets it by chance, or here once more. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 1_000; tries += 1) {
    const port = randomInt(PORTS.from, PORTS.below);
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
  throw new Error(`no free port on ${LOOPBACK} from ${PORTS.from} to ${PORTS.below - 1}`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((settle) => {
    const probe = createServer();
    probe.once('error', () => settle(false));
    probe.listen(port, LOOPBACK, () => probe.close(() => settle(true)));
  });
}

/** One PING with the url's password, without a client: `loading` while the server reads its data, `none` for all else. */
export function ping(url: string, timeoutMs = 1000): Promise<'ready' | 'loading' | 'none'> {
  const { hostname, port, password } = new URL(url);
  return new Promise((settle) => {
    const socket = connect({ host: hostname, port: Number(port) });
    let received = '';
    const end = (answer: 'ready' | 'loading' | 'none') => {
      socket.destroy();
      settle(answer);
    };
    socket.setTimeout(timeoutMs, () => end('none'));
    socket.once('error', () => end('none'));
    socket.once('close', () => end('none'));
    socket.once('connect', () => socket.write(`AUTH ${password}\r\nPING\r\n`));
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
      const [auth, pong, rest] = received.split('\r\n');
      if (auth?.startsWith('-')) end('none');
      else if (pong !== undefined && rest !== undefined) {
        end(pong === '+PONG' ? 'ready' : pong.startsWith('-LOADING') ? 'loading' : 'none');
      }
    });
  });
}
