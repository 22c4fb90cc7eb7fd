/**
 * The world of one run: a Redis server, the sandbox, an intake and some workers, each in a process of its own, with a
 * proxy on every way between them that a network could spoil. All of it ends with this process, whatever ends that.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, createWriteStream, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { request } from 'undici';
import { stringify } from 'yaml';
import { newKey, writeKeySet } from '../src/key-files.ts';
import { freePort, type RedisProcess, startRedisProcess } from '../src/redis/process.ts';
import type { LedgerEntry, SandboxEntry, SandboxProvider } from '../src/sandbox/index.ts';
import { PROVIDERS } from './plan.ts';
import { NetworkProxy } from './proxy.ts';

export interface WorldOptions {
  readonly folder: string;
  readonly workers: number;
  readonly mutant: Mutant | null;
  /**
   * The section `redis` of a Redis that somebody else has started. Then no proxy stands before it: a Cluster's nodes and
   * sentinels tell their own addresses.
   */
  readonly redis?: Readonly<Record<string, unknown>>;
  readonly journal?: Readonly<Record<string, unknown>>;
  /** Faults of every provider, as `otp sandbox --faults` has them. */
  readonly providerFaults?: string;
  /** Every request that a worker hands to the network for a provider. */
  readonly onProviderRequest: (provider: SandboxProvider, text: string, atMs: number) => void;
}

export const MUTANTS = ['no-begin'] as const;
export type Mutant = (typeof MUTANTS)[number];

export const API_KEY = 'api-key-of-the-shop-in-the-chaos-run';
const OTP_LIFETIME_MS = 20_000;

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const LOOPBACK = '127.0.0.1';
const READY_WITHIN_MS = 30_000;

/** Impatient, so that a run ends soon; the service's own constants stay what they are. */
const PARTITION = {
  timeoutMs: 2_000,
  otpLifetimeMs: OTP_LIFETIME_MS,
  rateLimit: { max: 50, perMs: 1_000 },
  inquiryRateLimit: { max: 100, perMs: 1_000 },
  concurrency: 20,
  // Patience outlasts the run: what could be proved and waits all the same is then seen to wait.
  inquiry: { delaysMs: [300, 600, 1_000, 2_000], giveUpAfterMs: 3_600_000 },
};

export class World {
  readonly folder: string;
  readonly providerProxies: ReadonlyMap<SandboxProvider, NetworkProxy>;
  readonly intakeProxy: NetworkProxy;
  readonly workers: readonly ServiceProcess[];
  readonly intake: ServiceProcess;
  readonly intakeUrl: string;
  readonly controlUrl: string;
  readonly ledgerFile: string;
  /** Sums over all processes that ever were, of what each said last. */
  readonly metrics = new MetricSums();
  readonly #watchdog: Watchdog;
  readonly #sandbox: ChildProcess;
  #redis: RedisProcess | null;

  private constructor(parts: {
    folder: string;
    providerProxies: Map<SandboxProvider, NetworkProxy>;
    intakeProxy: NetworkProxy;
    workers: ServiceProcess[];
    intake: ServiceProcess;
    intakeUrl: string;
    controlUrl: string;
    ledgerFile: string;
    watchdog: Watchdog;
    sandbox: ChildProcess;
    redis: RedisProcess | null;
  }) {
    this.folder = parts.folder;
    this.providerProxies = parts.providerProxies;
    this.intakeProxy = parts.intakeProxy;
    this.workers = parts.workers;
    this.intake = parts.intake;
    this.intakeUrl = parts.intakeUrl;
    this.controlUrl = parts.controlUrl;
    this.ledgerFile = parts.ledgerFile;
    this.#watchdog = parts.watchdog;
    this.#sandbox = parts.sandbox;
    this.#redis = parts.redis;
  }

  static async start(options: WorldOptions): Promise<World> {
    const { folder, workers: count, mutant, onProviderRequest, journal = {} } = options;
    const closers: (() => unknown)[] = [];
    try {
      const cli = copyOfTheBuild(folder, mutant);
      const watchdog = new Watchdog();
      closers.push(() => watchdog.end());

      const redis = options.redis === undefined ? await startRedis(folder) : null;
      closers.push(() => redis?.signal('SIGKILL'));

      const ledgerFile = join(folder, 'ledger.jsonl');
      const { child: sandbox, said } = await startSandbox(
        [cli, 'sandbox', '--json', '--ends-with-stdin', '--ledger', ledgerFile, ...faultsOf(options)],
        join(folder, 'sandbox.log'),
        watchdog,
      );
      closers.push(() => sandbox.kill('SIGKILL'));

      const proxyTo = async (
        port: number,
        onClientBytes?: (chunk: Buffer, atMs: number) => void,
      ): Promise<NetworkProxy> => {
        const proxy = await NetworkProxy.start({ target: { port }, ...(onClientBytes ? { onClientBytes } : {}) });
        closers.push(() => proxy.close());
        return proxy;
      };
      const providerProxies = new Map<SandboxProvider, NetworkProxy>();
      const providers: Record<string, unknown> = {};
      for (const name of PROVIDERS) {
        const entry = said.providers[name];
        const proxy = await proxyTo(Number(new URL(entry.baseUrl).port), (chunk, atMs) =>
          onProviderRequest(name, chunk.toString('latin1'), atMs),
        );
        providerProxies.set(name, proxy);
        providers[name] = { ...entry, ...PARTITION, baseUrl: `http://${LOOPBACK}:${proxy.port}` };
      }

      writeKeySet(join(folder, 'keys.json'), { keys: [await newKey('otp')] });
      writeKeySet(join(folder, 'details.json'), { keys: [await newKey('details')] });
      const intakePort = await freePort();
      const configure = (name: string, redisPort: number): string => {
        const file = join(folder, `${name}.yaml`);
        const configuration = {
          redis: options.redis ?? { url: `redis://:${redis?.password}@${LOOPBACK}:${redisPort}` },
          journal,
          intake: { port: intakePort },
          console: { port: 0, users: [] },
          clients: [{ id: 'shop', apiKey: API_KEY }],
          sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json' },
          log: { level: 'debug' },
          providers,
        };
        writeFileSync(file, stringify(configuration), { mode: 0o600 });
        return file;
      };

      const service = (name: string, role: string, proxy: NetworkProxy): ServiceProcess => {
        const config = configure(name, proxy.port);
        const process = new ServiceProcess({ name, role, cli, config, proxy, folder, watchdog });
        closers.push(() => process.kill('SIGKILL'));
        return process;
      };
      const redisPort = redis?.port ?? (await freePort());
      const intakeProxy = await proxyTo(redisPort);
      const intake = service('intake', 'intake', intakeProxy);
      const workers: ServiceProcess[] = [];
      for (let number = 1; number <= count; number += 1) {
        workers.push(service(`worker-${number}`, 'worker', await proxyTo(redisPort)));
      }
      await Promise.all([intake, ...workers].map((each) => each.start()));
      const parts = { folder, providerProxies, intakeProxy, workers, intake, ledgerFile, watchdog, sandbox, redis };
      return new World({
        ...parts,
        intakeUrl: `http://${LOOPBACK}:${intakePort}`,
        controlUrl: said.control.url,
      });
    } catch (error) {
      for (const close of closers.reverse()) await close();
      throw error;
    }
  }

  get redisUrl(): string {
    return this.#own.url;
  }

  get #own(): RedisProcess {
    if (this.#redis === null) throw new Error('the Redis of this run was started by somebody else');
    return this.#redis;
  }

  get services(): readonly ServiceProcess[] {
    return [this.intake, ...this.workers];
  }

  /** `kill -9`, and the same server on the same port and folder a little later. */
  async killRedis(restartAfterMs: number): Promise<void> {
    const { port, password, exited } = this.#own;
    this.#own.signal('SIGKILL');
    await exited;
    await delay(restartAfterMs);
    const options = { dir: join(this.folder, 'redis'), port, password, appendonly: true } as const;
    for (let tries = 1; ; tries += 1) {
      try {
        this.#redis = await startRedisProcess({ ...options, appendfsync: 'everysec' });
        return;
      } catch (error) {
        if (tries === 20) throw error; // the port may be taken for a moment
        await delay(500);
      }
    }
  }

  ledger(): LedgerEntry[] {
    return readFileSync(this.ledgerFile, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as LedgerEntry);
  }

  async control(path: string, body: unknown): Promise<number> {
    const response = await request(`${this.controlUrl}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    await response.body.dump();
    return response.statusCode;
  }

  async readMetrics(): Promise<void> {
    await Promise.all(this.services.map((service) => this.metrics.read(service)));
  }

  async close(): Promise<void> {
    for (const service of this.services) await service.kill('SIGKILL');
    this.#sandbox.kill('SIGKILL');
    this.#redis?.signal('SIGKILL');
    await this.#redis?.exited;
    for (const proxy of [...this.providerProxies.values(), ...this.services.map(({ proxy }) => proxy)]) {
      await proxy.close();
    }
    this.#watchdog.end();
  }
}

/** One `otp serve` that is killed and started again, under one name and with one configuration. */
export class ServiceProcess {
  readonly name: string;
  readonly proxy: NetworkProxy;
  readonly #parts: { role: string; cli: string; config: string; folder: string; watchdog: Watchdog };
  #child: ChildProcess | null = null;
  #ended: Promise<void> = Promise.resolve();
  #consoleUrl: string | null = null;
  #starts = 0;
  /** Somebody is at it: one trouble at a time for each process. */
  busy = false;

  constructor(parts: {
    name: string;
    role: string;
    cli: string;
    config: string;
    proxy: NetworkProxy;
    folder: string;
    watchdog: Watchdog;
  }) {
    this.name = parts.name;
    this.proxy = parts.proxy;
    this.#parts = parts;
  }

  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  get alive(): boolean {
    return this.#child !== null;
  }

  /** Changes with every start: the counters of a new process begin at zero. */
  get life(): string {
    return `${this.name}#${this.#starts}`;
  }

  get consoleUrl(): string | null {
    return this.#consoleUrl;
  }

  /** Resolves when it serves; does nothing while it runs. A start that fails, as without Redis, is tried again. */
  async start(): Promise<void> {
    for (let tries = 1; this.#child === null; tries += 1) {
      try {
        await this.#startOnce();
      } catch (error) {
        if (tries === 20) throw error;
        await delay(500);
      }
    }
  }

  async #startOnce(): Promise<void> {
    const { cli, config, role, folder, watchdog } = this.#parts;
    const log = createWriteStream(join(folder, `${this.name}.log`), { flags: 'a' });
    const child = spawn(process.execPath, [cli, 'serve', '--config', config, '--roles', role, '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH ?? '', HOME: process.env.HOME ?? '' },
      cwd: folder,
    });
    watchdog.watch(child);
    this.#starts += 1;
    log.write(`{"chaos":"started as process ${child.pid}"}\n`);
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.#child = child;
    this.#ended = new Promise((ended) =>
      child.once('exit', (code, signal) => {
        log.end(`{"chaos":"process ${child.pid} ended with ${code ?? signal}"}\n`);
        this.#child = null;
        this.#consoleUrl = null;
        ended();
      }),
    );
    const ready = new Promise<void>((found, failed) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        if (!line.startsWith('{"ready":true')) return;
        this.#consoleUrl = (JSON.parse(line) as { consoleUrl: string }).consoleUrl;
        found();
      });
      child.once('exit', (code, signal) => failed(new Error(`${this.name} ended with ${code ?? signal} at its start`)));
    });
    await Promise.race([ready, delay(READY_WITHIN_MS, undefined, { ref: false }).then(() => this.#late())]);
  }

  async #late(): Promise<void> {
    if (this.#consoleUrl !== null) return;
    await this.kill('SIGKILL');
    throw new Error(`${this.name} was not ready after ${READY_WITHIN_MS} ms`);
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  async kill(name: NodeJS.Signals): Promise<void> {
    this.#child?.kill(name);
    await this.#ended;
  }
}

/** Sums of counters over processes that may be gone: each life counts with the last value it was seen to have. */
class MetricSums {
  readonly #byLife = new Map<string, string>();

  async read(service: ServiceProcess): Promise<void> {
    const { consoleUrl, life } = service;
    if (consoleUrl === null) return;
    try {
      const response = await request(`${consoleUrl}/metrics`, { headersTimeout: 2_000, bodyTimeout: 2_000 });
      this.#byLife.set(life, await response.body.text());
    } catch {
      // Stopped or dead: what it said before stands.
    }
  }

  sum(metric: string, labels = ''): number {
    let sum = 0;
    for (const text of this.#byLife.values()) {
      for (const line of text.split('\n')) {
        const [, name, set = '', value] = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
        if (name === metric && set.includes(labels)) sum += Number(value);
      }
    }
    return sum;
  }
}

/**
 * Kills every process it was told of when our end of its pipe closes, which the kernel sees to however we end. It is
 * detached, so that Ctrl-C reaches us alone.
 */
class Watchdog {
  readonly #child: ChildProcess;

  constructor() {
    const script = `alive=" "
      while read -r sign pid; do
        case "$sign" in
          +) alive="$alive$pid " ;;
          -) alive=$(printf '%s' "$alive" | sed "s/ $pid / /") ;;
        esac
      done
      for pid in $alive; do kill -9 "$pid" 2>/dev/null; done`;
    this.#child = spawn('sh', ['-c', script], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
    this.#child.stdin?.on('error', () => {});
    this.#child.unref();
  }

  watch(child: ChildProcess): void {
    this.#child.stdin?.write(`+ ${child.pid}\n`);
    child.once('exit', () => this.#child.stdin?.write(`- ${child.pid}\n`));
  }

  end(): void {
    this.#child.stdin?.end();
  }
}

interface SandboxSaid {
  readonly control: { readonly url: string };
  readonly providers: Readonly<Record<SandboxProvider, SandboxEntry>>;
}

async function startRedis(folder: string): Promise<RedisProcess> {
  mkdirSync(join(folder, 'redis'), { recursive: true, mode: 0o700 });
  return await startRedisProcess({ dir: join(folder, 'redis'), appendonly: true, appendfsync: 'everysec' });
}

const faultsOf = ({ providerFaults }: WorldOptions): string[] =>
  providerFaults === undefined ? [] : ['--faults', providerFaults];

async function startSandbox(
  args: readonly string[],
  logFile: string,
  watchdog: Watchdog,
): Promise<{ child: ChildProcess; said: SandboxSaid }> {
  const child = spawn(process.execPath, [...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  watchdog.watch(child);
  child.stderr.pipe(createWriteStream(logFile));
  const said = await new Promise<SandboxSaid>((found, failed) => {
    createInterface({ input: child.stdout }).once('line', (line) => found(JSON.parse(line) as SandboxSaid));
    child.once('exit', (code) => failed(new Error(`the sandbox ended with ${code}; see ${logFile}`)));
  });
  return { child, said };
}

/**
 * A copy, so that a build during the run changes nothing, and so that a mutant harms nobody. It lies inside the
 * project, where its modules find their dependencies.
 */
function copyOfTheBuild(folder: string, mutant: Mutant | null): string {
  const build = join(folder, 'dist');
  cpSync(join(ROOT, 'dist'), build, { recursive: true });
  cpSync(join(ROOT, 'package.json'), join(folder, 'package.json'));
  if (mutant === 'no-begin') {
    const file = join(build, 'workers', 'begin.lua');
    writeFileSync(file, withoutBegin(readFileSync(file, 'utf8')));
  }
  return join(build, 'cli.js');
}

/** The mutant that the judge must condemn: whoever asks may send, whatever was sent before. */
export function withoutBegin(script: string): string {
  const found = (text: string, from = 0): number => {
    const at = script.indexOf(text, from);
    if (at < 0) throw new Error(`begin.lua has changed: the mutant does not find "${text}"`);
    return at;
  };
  const from = found("if state == 'awaiting' then");
  const to = found('local deadline = ', from);
  found('if refuse then', to);
  return `${script.slice(0, from)}${script.slice(to)}`.replace('if refuse then', 'if false then');
}
