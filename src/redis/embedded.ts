import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ping, type RedisProcess, startRedisProcess } from './process.ts';

export interface EmbeddedRedisOptions {
  readonly dataDir: string;
  readonly appendfsync?: 'everysec' | 'always';
  /** Called when the server ends although nobody stopped it: its clients will wait for a server that is gone. */
  readonly onUnexpectedExit?: (error: Error) => void;
}

export interface EmbeddedRedis {
  readonly url: string;
  readonly pid: number;
  /** Ends the server and waits for its last write; does nothing where another process started it. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Who claimed a data folder, and once it is up, where the server listens. Two servers on one folder would destroy it. */
interface Claim {
  readonly owner: { readonly pid: number; readonly startedAt: string };
  readonly url: string | null;
  readonly pid: number | null;
}

const CLAIM_WAIT_MS = 60_000;
const SILENT_OWNER_MS = 10_000;

/**
 * A Redis server of our own on a free loopback port, which keeps its data in `dataDir` and ends with this process,
 * whatever ends it. If another process already runs one on that folder, this attaches to it.
 */
export async function startEmbeddedRedis(options: EmbeddedRedisOptions): Promise<EmbeddedRedis> {
  const dataDir = resolve(options.dataDir);
  const file = claimFile(dataDir);
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });

  const running = await claimOrAttach(file);
  if (running !== null) return running;

  let server: RedisProcess;
  try {
    server = await startRedisProcess({
      dir: dataDir,
      appendonly: true,
      ...(options.appendfsync === undefined ? {} : { appendfsync: options.appendfsync }),
    });
  } catch (error) {
    rmSync(file, { force: true });
    throw error;
  }
  // Written beside and moved into place: a reader sees the claim or the server, never half a file.
  writeFileSync(`${file}.new`, JSON.stringify({ owner: ourselves(), url: server.url, pid: server.pid }), {
    mode: 0o600,
  });
  renameSync(`${file}.new`, file);

  let stopping = false;
  server.exited.then(() => {
    rmSync(file, { force: true });
    if (!stopping)
      options.onUnexpectedExit?.(new Error(`The embedded Redis server (${server.pid}) has ended by itself`));
  });
  const stop = async () => {
    stopping = true;
    await server.stop();
  };
  return { url: server.url, pid: server.pid, stop, [Symbol.asyncDispose]: stop };
}

/** The url of the server that some process runs on that folder, if it answers now. */
export async function findEmbeddedRedis(dataDir: string): Promise<string | null> {
  const claim = readClaim(claimFile(resolve(dataDir)));
  if (claim === null || claim.url === null || !alive(claim.owner)) return null;
  return (await ping(claim.url)) === 'ready' ? claim.url : null;
}

/** Null once the folder is ours; otherwise the server of the process that has it. */
async function claimOrAttach(file: string): Promise<EmbeddedRedis | null> {
  const startedAt = performance.now();
  let silentSince: number | null = null;
  while (!claimed(file)) {
    const claim = readClaim(file);
    const answer = claim?.url ? await ping(claim.url) : 'none';
    if (claim !== null && alive(claim.owner)) {
      if (claim.url !== null && claim.pid !== null && answer === 'ready') return attached(claim.url, claim.pid);
    } else if (claim !== null && answer !== 'none' && claim.pid !== null) {
      // Its owner is gone and nobody will ever stop it. That it took the password proves that it is the one we mean.
      terminate(claim.pid);
    } else if (claim === null || claim.pid === null || !alive({ pid: claim.pid, startedAt: null })) {
      // Nobody is left, or a file of half a line, which is what a writer of this moment leaves as well: wait for it.
      if (claim !== null || performance.now() - (silentSince ?? performance.now()) > 1000) dropClaim(file, claim);
    }
    silentSince = answer === 'none' ? (silentSince ?? performance.now()) : null;
    const silentTooLong =
      claim?.url != null && silentSince !== null && performance.now() - silentSince > SILENT_OWNER_MS;
    if (silentTooLong || performance.now() - startedAt > CLAIM_WAIT_MS) {
      throw new Error(
        `${file} says that process ${claim?.owner.pid} runs Redis here, but nothing answers: end it first`,
      );
    }
    await delay(20);
  }
  return null;
}

function attached(url: string, pid: number): EmbeddedRedis {
  const stop = async () => {};
  return { url, pid, stop, [Symbol.asyncDispose]: stop };
}

const claimFile = (dataDir: string) => join(dataDir, 'embedded.json');

function claimed(file: string): boolean {
  const claim: Claim = { owner: ourselves(), url: null, pid: null };
  try {
    writeFileSync(file, JSON.stringify(claim), { flag: 'wx', mode: 0o600 });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function readClaim(file: string): Claim | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Claim;
  } catch {
    return null;
  }
}

/** Removes a claim that nobody holds, and only that one: another process may have put its own there meanwhile. */
function dropClaim(file: string, stale: Claim | null): void {
  const aside = `${file}.${process.pid}`;
  try {
    renameSync(file, aside);
  } catch {
    return; // somebody else dropped it
  }
  const taken = readClaim(aside);
  if (JSON.stringify(taken) === JSON.stringify(stale)) rmSync(aside, { force: true });
  else renameSync(aside, file);
}

function ourselves(): Claim['owner'] {
  return { pid: process.pid, startedAt: startOf(process.pid) ?? '' };
}

/** Process ids come round again, above all in containers, so the time of the start is compared where it can be had. */
function alive(process_: { pid: number; startedAt: string | null }): boolean {
  try {
    process.kill(process_.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  const startedAt = startOf(process_.pid);
  if (startedAt === 'zombie') return false;
  return startedAt === null || !process_.startedAt || startedAt === process_.startedAt;
}

function startOf(pid: number): string | null {
  try {
    // The name in the second field may hold spaces and brackets: what counts begins behind its last bracket.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
    return fields[0] === 'Z' ? 'zombie' : (fields[19] ?? null);
  } catch {
    return null; // no such file system here
  }
}

function terminate(pid: number): void {
  try {
    process.kill(pid, 'SIGTERM');
  } catch {
    // It has just ended by itself.
  }
}
