import { accessSync, constants, readFileSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A Redis server that can be started here: what to run, and the environment it needs (nothing of ours is inherited). */
export interface RedisServer {
  readonly command: string;
  readonly env: Readonly<Record<string, string>>;
}

/**
 * Where the set-up keeps a server that it fetched. This file is two folders below the package in `src/` and in
 * `dist/` alike, so the same expression is right for both.
 */
export const redisCache = resolve(fileURLToPath(new URL('../../.cache/redis/', import.meta.url)));

/** What the set-up writes beside a fetched server; paths are relative to the folder, which may be moved. */
export interface CachedServer {
  readonly command: string;
  readonly libraries: readonly string[];
}

/** The first executable of that name on PATH. */
export function onPath(name: string): string | null {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const file = join(folder, name);
    if (folder !== '' && executable(file)) return file;
  }
  return null;
}

/** A server on PATH, else the one that the set-up fetched, else null. The set-up and the embedded server both ask here. */
export function findRedisServer(): RedisServer | null {
  const installed = onPath('redis-server') ?? onPath('valkey-server');
  return installed === null ? cachedServer() : { command: installed, env: {} };
}

function cachedServer(): RedisServer | null {
  let cached: CachedServer;
  try {
    cached = JSON.parse(readFileSync(join(redisCache, 'server.json'), 'utf8')) as CachedServer;
  } catch {
    return null; // never fetched, or a set-up that was cut off: the next one writes it anew
  }
  const command = join(redisCache, cached.command);
  if (!executable(command)) return null;
  return { command, env: { LD_LIBRARY_PATH: cached.libraries.map((folder) => join(redisCache, folder)).join(':') } };
}

function executable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
