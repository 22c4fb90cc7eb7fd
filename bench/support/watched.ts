/** A process of the service that tells how much memory it holds: heap.mjs, loaded into it, answers. */
import { fork, type Serializable } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Installation } from '../../test/support/service.ts';
import { objectBytesIn } from './objects.ts';
import { inProject } from './page.ts';

/** Bytes, after a forced collection. */
export interface Heap {
  readonly heapUsed: number;
  readonly external: number;
  readonly rss: number;
}

export interface Watched extends AsyncDisposable {
  readonly ready: { readonly intakeUrl: string };
  heap(): Promise<Heap>;
  /** Bytes of objects; to be asked when nothing is under way. */
  objects(): Promise<number>;
}

const CLI = inProject('dist/cli.js');

export async function watched({ file }: Installation, role: string): Promise<Watched> {
  const child = fork(CLI, ['serve', '--config', file, '--roles', role, '--json'], {
    execArgv: [...flagsOf(CLI), '--expose-gc', '--import', inProject('bench/support/heap.mjs')],
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  let said = '';
  const ready = await new Promise<Watched['ready']>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the ${role} ended with ${code}: ${said}`)));
    child.stdout?.on('data', (chunk) => {
      if (said.length < 100_000) said += chunk;
      const [, line] = /^(\{"ready":true.*)$/m.exec(said) ?? [];
      if (line !== undefined) resolve(JSON.parse(line));
    });
  });
  const told = async (question: Serializable): Promise<unknown> => {
    const answer = new Promise((resolve) => child.once('message', resolve));
    child.send(question);
    return await answer;
  };
  return {
    ready,
    heap: async () => (await told('heap')) as Heap,
    objects: async () => {
      const file = join(tmpdir(), `otp-soak-${child.pid}.heapsnapshot`);
      await told({ snapshot: file });
      const bytes = objectBytesIn(file);
      rmSync(file);
      return bytes;
    },
    [Symbol.asyncDispose]: async () => {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** What the first line of a program gives to Node. */
function flagsOf(program: string): string[] {
  const [firstLine = ''] = readFileSync(program, 'utf8').split('\n');
  return firstLine.split(' ').filter((word) => word.startsWith('--'));
}
