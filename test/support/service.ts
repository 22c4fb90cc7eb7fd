/** The service as it runs for a user: `otp serve` in a process of its own, which a test may kill. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { newKey, writeKeySet } from '../../src/key-files.ts';

/** The build, as users run it; `npm test` builds before it tests. */
const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

/** A configuration file with its keys, in a temporary folder that goes with the test. */
export interface Installation extends AsyncDisposable {
  readonly folder: string;
  readonly file: string;
}

export async function install(configuration: Record<string, unknown>): Promise<Installation> {
  const folder = mkdtempSync(join(tmpdir(), 'otp-service-'));
  writeKeySet(join(folder, 'keys.json'), { keys: [await newKey('otp')] });
  const file = join(folder, 'otp.yaml');
  const common = {
    intake: { port: 0 },
    console: { port: 0, users: [{ name: 'ops', password: 'console-password-of-the-test' }] },
    clients: [{ id: 'shop', apiKey: 'api-key-of-the-shop-in-the-test' }],
    sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json' },
  };
  writeFileSync(file, stringify({ ...common, ...configuration }));
  return { folder, file, [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true, force: true }) };
}

export interface ServiceProcess extends AsyncDisposable {
  readonly pid: number;
  readonly intakeUrl: string;
  readonly consoleUrl: string;
  readonly output: () => string;
  kill(signal: NodeJS.Signals): Promise<void>;
}

export async function serve(
  file: string,
  roles: string,
  environment: Record<string, string> = {},
): Promise<ServiceProcess> {
  const child = runCli(['serve', '--config', file, '--roles', roles, '--json'], environment);
  let output = '';
  child.stdout?.on('data', (chunk) => {
    output += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    output += chunk;
  });
  const ended = new Promise<void>((done) => child.once('exit', () => done()));
  const ready = await new Promise<{ intakeUrl: string; consoleUrl: string }>((found, failed) => {
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      if (line.startsWith('{"ready":true')) found(JSON.parse(line));
    });
    child.once('exit', (code) => failed(new Error(`otp serve ended with ${code} before it was ready:\n${output}`)));
  });
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal);
    await ended;
  };
  return {
    pid: child.pid as number,
    ...ready,
    output: () => output,
    kill,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode === null && child.signalCode === null) await kill('SIGKILL');
    },
  };
}

export interface CliRun {
  readonly code: number | null;
  readonly output: string;
  readonly faults: string;
}

/** The `otp` command, to its end. */
export async function otp(
  args: readonly string[],
  { input = '', environment = {} }: { readonly input?: string; readonly environment?: Record<string, string> } = {},
): Promise<CliRun> {
  const child = runCli(args, environment);
  let [output, faults] = ['', ''];
  child.stdout?.on('data', (chunk) => {
    output += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    faults += chunk;
  });
  child.stdin?.end(input);
  const code = await new Promise<number | null>((done) => child.once('close', done));
  return { code, output, faults };
}

/** The `otp` command, started. */
export function runCli(args: readonly string[], environment: Record<string, string> = {}): ChildProcess {
  return spawn(process.execPath, [CLI, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH ?? '', HOME: process.env.HOME ?? '', ...environment },
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
  });
}
