/**
 * A Redis that has forgotten: a server whose last writes are cut off its append-only file, as when the machine dies
 * before the disk has them, and a server on whose folder an old copy was put back.
 */
import { cpSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startTestRedis, type TestRedis } from './redis.ts';

/** Where the append-only file ended at some moment. */
export interface Position {
  readonly file: string;
  readonly bytes: number;
}

/** A copy of a server's folder; removed with the test. */
export interface OldCopy extends Disposable {
  readonly folder: string;
}

/** Every acknowledged write is in the file, so that a position says exactly what will be there and what will not. */
export async function startForgetfulRedis(): Promise<TestRedis> {
  return await startTestRedis({ appendonly: true, appendfsync: 'always' });
}

/** What was acknowledged until now is before it, what comes later behind it; between two commands, never within one. */
export function position(server: TestRedis): Position {
  const folder = join(server.dataDir, 'appendonlydir');
  const files = readdirSync(folder).filter((name) => name.endsWith('.incr.aof'));
  const newest = files.sort((one, other) => numberOf(one) - numberOf(other)).at(-1);
  if (newest === undefined) throw new Error(`no append-only file in ${folder}`);
  const file = join(folder, newest);
  return { file, bytes: statSync(file).size };
}

/** `kill -9`, and everything that was written behind the position is lost. The server stays down. */
export async function killLosing(server: TestRedis, since: Position): Promise<void> {
  await server.kill();
  truncateSync(since.file, since.bytes);
}

/** The same, and started again at once. */
export async function loseWrites(server: TestRedis, since: Position): Promise<void> {
  await killLosing(server, since);
  await server.start();
}

/** The folder as it is now, as a backup would take it. */
export function copyOf(server: TestRedis): OldCopy {
  const folder = mkdtempSync(join(tmpdir(), 'otp-redis-copy-'));
  cpSync(server.dataDir, folder, { recursive: true });
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

/** Puts an old copy in the place of what the server, which must be down, has written since. */
export function putBack(server: TestRedis, copy: OldCopy): void {
  for (const name of readdirSync(server.dataDir)) rmSync(join(server.dataDir, name), { recursive: true });
  cpSync(copy.folder, server.dataDir, { recursive: true });
}

function numberOf(name: string): number {
  return Number(/\.(\d+)\.incr\.aof$/.exec(name)?.[1] ?? 0);
}
