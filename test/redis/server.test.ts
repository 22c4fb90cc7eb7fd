import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { startEmbeddedRedis } from '../../src/redis/embedded.ts';
import { findRedisServer, onPath } from '../../src/redis/server.ts';

vi.mock('../../src/redis/server.ts', async (load) => ({ ...(await load<object>()), findRedisServer: vi.fn() }));
const { findRedisServer: realFind } = await vi.importActual<{ findRedisServer: typeof findRedisServer }>(
  '../../src/redis/server.ts',
);

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'otp-path-'));
});

afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

function program(name: string, mode = 0o755): string {
  const file = join(folder, name);
  writeFileSync(file, '#!/bin/sh\n');
  chmodSync(file, mode);
  return file;
}

describe('the look for a server', () => {
  it('takes redis-server from PATH, with an environment that has nothing of ours', () => {
    vi.stubEnv('PATH', `/nowhere::${folder}`);
    program('valkey-server');
    const command = program('redis-server');
    expect(realFind()).toEqual({ command, env: {} });
  });

  it('takes valkey-server where there is no Redis', () => {
    vi.stubEnv('PATH', folder);
    const command = program('valkey-server');
    expect(realFind()).toEqual({ command, env: {} });
  });

  it('passes over what cannot be run', () => {
    vi.stubEnv('PATH', folder);
    program('redis-server', 0o644);
    expect(onPath('redis-server')).toBeNull();
  });
});

describe('an embedded server where there is none', () => {
  it('names the command that fetches one, and leaves the folder free', async () => {
    vi.mocked(findRedisServer).mockReturnValue(null);
    const dataDir = join(folder, 'data');
    mkdirSync(dataDir);
    await expect(startEmbeddedRedis({ dataDir })).rejects.toThrow('npm run setup');
    await expect(startEmbeddedRedis({ dataDir })).rejects.toThrow('npm run setup');
  });
});
