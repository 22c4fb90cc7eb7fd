import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { findEmbeddedRedis, startEmbeddedRedis } from '../../src/redis/embedded.ts';
import { ping, startRedisProcess } from '../../src/redis/process.ts';

let dataDir: string;
let parent: ChildProcess | undefined;

beforeEach(() => {
  dataDir = join(mkdtempSync(join(tmpdir(), 'otp-embedded-')), 'redis');
});

afterEach(() => {
  parent?.kill('SIGKILL');
  parent = undefined;
  rmSync(join(dataDir, '..'), { recursive: true, force: true });
});

async function asked<T>(url: string, question: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url, { maxRetriesPerRequest: 0 });
  redis.on('error', () => {});
  try {
    return await question(redis);
  } finally {
    redis.disconnect();
  }
}

const source = (name: string) => JSON.stringify(new URL(`../../src/redis/${name}`, import.meta.url).href);

/** A Node process of its own that runs these lines. */
function otherProcess(lines: string) {
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', lines], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  parent = child;
  return child;
}

/** A process that starts a server, says where, and stays. */
async function startInOtherProcess(start: string): Promise<{ url: string; pid: number; kill(): Promise<void> }> {
  const child = otherProcess(`
    import { startEmbeddedRedis } from ${source('embedded.ts')};
    import { startRedisProcess } from ${source('process.ts')};
    const { url, pid } = await ${start};
    console.log(JSON.stringify({ url, pid }));
    setInterval(() => {}, 1000);`);
  const line = await new Promise<string>((settle) => child.stdout.once('data', (chunk) => settle(String(chunk))));
  const kill = () =>
    new Promise<void>((settle) => {
      child.once('exit', () => settle());
      child.kill('SIGKILL');
    });
  return { ...JSON.parse(line), kill };
}

const embedded = () => `startEmbeddedRedis({ dataDir: ${JSON.stringify(dataDir)} })`;
const watched = `startRedisProcess({ dir: '/tmp', appendonly: false, tiedBy: 'watchdog' })`;

describe('the embedded server', () => {
  it('writes to disk, evicts nothing, listens on the loopback interface only and asks for its password', async () => {
    await using server = await startEmbeddedRedis({ dataDir });
    const settings = await asked(server.url, (redis) =>
      redis.config('GET', 'appendonly', 'appendfsync', 'maxmemory-policy', 'bind', 'dir'),
    );
    expect(settings).toEqual(
      expect.arrayContaining(['appendonly', 'yes', 'everysec', 'noeviction', '127.0.0.1', dataDir]),
    );
    const { port } = new URL(server.url);
    expect(await ping(`redis://:wrong@127.0.0.1:${port}`)).toBe('none');
  });

  it('keeps its password out of the process list and its folder to its owner', async () => {
    await using server = await startEmbeddedRedis({ dataDir });
    const { password } = new URL(server.url);
    if (process.platform === 'linux') {
      expect(readFileSync(`/proc/${server.pid}/cmdline`, 'utf8')).not.toContain(password);
      expect(readFileSync(`/proc/${server.pid}/environ`, 'utf8')).not.toContain(password);
    }
    expect(statSync(dataDir).mode & 0o777).toBe(0o700);
    expect(statSync(join(dataDir, 'embedded.json')).mode & 0o777).toBe(0o600);
  });

  it('keeps what was written over a restart', async () => {
    {
      await using server = await startEmbeddedRedis({ dataDir });
      await asked(server.url, (redis) => redis.set('kept', 'yes'));
    }
    expect(existsSync(join(dataDir, 'embedded.json'))).toBe(false);
    await using again = await startEmbeddedRedis({ dataDir });
    expect(await asked(again.url, (redis) => redis.get('kept'))).toBe('yes');
  });

  it('is found while it runs, and not afterwards', async () => {
    expect(await findEmbeddedRedis(dataDir)).toBeNull();
    const server = await startEmbeddedRedis({ dataDir });
    expect(await findEmbeddedRedis(dataDir)).toBe(server.url);
    await server.stop();
    expect(await findEmbeddedRedis(dataDir)).toBeNull();
  });

  it('says so when it ends by itself', async () => {
    const onUnexpectedExit = vi.fn();
    const server = await startEmbeddedRedis({ dataDir, onUnexpectedExit });
    process.kill(server.pid, 'SIGKILL');
    await vi.waitFor(() => expect(onUnexpectedExit).toHaveBeenCalledOnce(), 10_000);
    expect(await findEmbeddedRedis(dataDir)).toBeNull();
  });

  it('ends quietly when it is stopped', async () => {
    const onUnexpectedExit = vi.fn();
    const server = await startEmbeddedRedis({ dataDir, onUnexpectedExit });
    await server.stop();
    await server.stop();
    expect(onUnexpectedExit).not.toHaveBeenCalled();
  });
});

describe('a second start on the same folder', () => {
  it('attaches to the running server, also when all start at once, and its stop stops nothing', async () => {
    // The first has its claim down before the others look.
    const [owner, ...others] = await Promise.all(Array.from({ length: 5 }, () => startEmbeddedRedis({ dataDir })));
    for (const other of others) {
      expect(other).toMatchObject({ url: owner?.url, pid: owner?.pid });
      await other.stop();
    }
    expect(await ping(owner?.url ?? '')).toBe('ready');
    await owner?.stop();
    expect(await ping(owner?.url ?? '')).toBe('none');
  });

  it('attaches to the server of another process', async () => {
    const other = await startInOtherProcess(embedded());
    const attached = await startEmbeddedRedis({ dataDir });
    expect(attached).toMatchObject({ url: other.url, pid: other.pid });
    await attached.stop();
    expect(await ping(other.url)).toBe('ready');
  });

  it('does not attach to a server whose process has just been killed, and loses nothing', async () => {
    const other = await startInOtherProcess(embedded());
    await asked(other.url, (redis) => redis.set('kept', 'yes'));
    await other.kill();
    await using server = await startEmbeddedRedis({ dataDir });
    expect(server.pid).not.toBe(other.pid);
    expect(await asked(server.url, (redis) => redis.get('kept'))).toBe('yes');
  });

  it.each([
    [
      'of a process that is gone',
      JSON.stringify({ owner: { pid: 2 ** 22 + 1, startedAt: '1' }, url: null, pid: null }),
    ],
    [
      'of another process with our id',
      JSON.stringify({ owner: { pid: process.pid, startedAt: '1' }, url: null, pid: null }),
    ],
    ['cut off in the middle', '{"owner":{"pid":1'],
  ])('gets over a claim %s', async (_, content) => {
    const first = await startEmbeddedRedis({ dataDir });
    await first.stop();
    writeFileSync(join(dataDir, 'embedded.json'), content);
    await using server = await startEmbeddedRedis({ dataDir });
    expect(await ping(server.url)).toBe('ready');
  });
});

describe('when its process is killed with -9', () => {
  it.each([
    ['ends too', embedded],
    ['ends too where the kernel cannot see to it', () => watched],
  ])('the server %s', async (_, start) => {
    const other = await startInOtherProcess(start());
    expect(await ping(other.url)).toBe('ready');
    await other.kill();
    await vi.waitFor(async () => expect(await ping(other.url)).toBe('none'), { timeout: 5000 });
  });
});

describe('the process that started a server', () => {
  it('is not held open by it', async () => {
    const child = otherProcess(`
      import { startRedisProcess } from ${source('process.ts')};
      await startRedisProcess({ dir: '/tmp', appendonly: false });
      await ${watched};`);
    expect(await new Promise((settle) => child.once('close', settle))).toBe(0);
  });

  it('hears the words of one that cannot start', async () => {
    await expect(startRedisProcess({ dir: join(dataDir, 'missing'), appendonly: false })).rejects.toThrow(
      /did not start: .*missing/,
    );
  });

  it('keeps Ctrl-C for itself: the server is in a session of its own', async () => {
    await using server = await startEmbeddedRedis({ dataDir });
    if (process.platform !== 'linux') return;
    // Behind the name in brackets: state, parent, process group, session.
    const session = readFileSync(`/proc/${server.pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[3];
    expect(session).toBe(String(server.pid));
  });
});
