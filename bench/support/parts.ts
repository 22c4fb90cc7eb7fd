/** Processes of the benchmark: each part of a pipeline has one of its own, and its processor time is read from the kernel. */
import { type ChildProcess, fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export interface Part extends AsyncDisposable {
  readonly pid: number;
  /** What it said when it was ready. */
  readonly ready: Readonly<Record<string, unknown>>;
  ask<Answer>(message: unknown): Promise<Answer>;
  end(): Promise<void>;
}

/** Starts a module of this folder; it says that it is ready by its first message. */
export async function start(
  module: string,
  environment: Readonly<Record<string, string>> = {},
  args: readonly string[] = [],
): Promise<Part> {
  const path = fileURLToPath(new URL(`../${module}`, import.meta.url));
  const child = fork(path, args, { env: { ...process.env, ...environment }, execArgv: process.execArgv });
  const ready = await answerOf<Record<string, unknown>>(child);
  const end = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  };
  return {
    pid: child.pid as number,
    ready,
    ask: async (message) => {
      child.send(message as object);
      return await answerOf(child);
    },
    end,
    [Symbol.asyncDispose]: end,
  };
}

async function answerOf<Answer>(child: ChildProcess): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const exited = (code: number | null): void => reject(new Error(`${child.spawnargs.at(-1)} ended with ${code}`));
    child.once('exit', exited);
    child.once('message', (answer) => {
      child.off('exit', exited);
      resolve(answer as Answer);
    });
  });
}

/** The most memory that a process has had resident until now, in MiB; proc(5), VmHWM of status. */
export function peakMemoryOf(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1_024;
}

const TICKS_PER_SECOND = 100;

/** Seconds of processor time of a process, its threads included; proc(5), fields 14 and 15 of stat. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/**
 * Seconds of processor time of the whole machine since it was started, all that is not idle; what the host gives to its
 * other guests is among it. proc(5), the first line of stat: user, nice, system, idle, iowait, irq, softirq, steal.
 */
export function machineCpuSeconds(): number {
  const [, user, nice, system, , , irq, softirq, steal] = readFileSync('/proc/stat', 'utf8')
    .split(/\s+/, 9)
    .map(Number);
  return (
    [user, nice, system, irq, softirq, steal].reduce<number>((sum, ticks = 0) => sum + ticks, 0) / TICKS_PER_SECOND
  );
}

export interface StubReport {
  readonly received: number;
  readonly distinct: number;
}
