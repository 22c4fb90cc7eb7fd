import { spawn } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

/**
 * The set-up in a copy of the tree with as little code as it needs, so that it says the same whatever src/ is like.
 * The dependencies are the tree's own: their installation and the fetching of a server need a network, and are done
 * for real by every run in a clean clone.
 */
const root = fileURLToPath(new URL('../../', import.meta.url));
let copy: string;

beforeEach(() => {
  copy = mkdtempSync(join(tmpdir(), 'otp-setup-'));
  for (const file of ['package.json', 'package-lock.json', 'tsconfig.json', 'scripts', 'src/redis/server.ts']) {
    cpSync(join(root, file), join(copy, file), { recursive: true });
  }
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  writeFileSync(join(copy, 'src/cli.ts'), "console.log('hello');\n");
  writeFileSync(join(copy, 'src/some.lua'), 'return 1\n');
});

afterEach(() => {
  rmSync(copy, { recursive: true, force: true });
});

interface Run {
  readonly code: number | null;
  readonly said: string;
  readonly ms: number;
}

/** With nothing on PATH but `programs`, and none of our environment. */
async function setUp(programs: Record<string, string> = {}, env: Record<string, string> = {}): Promise<Run> {
  const path = join(copy, 'bin');
  mkdirSync(path, { recursive: true });
  for (const [name, script] of Object.entries(programs)) {
    writeFileSync(join(path, name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(path, name), 0o755);
  }
  const startedAt = performance.now();
  const child = spawn(process.execPath, ['scripts/setup.mjs'], { cwd: copy, env: { PATH: path, ...env } });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      said += chunk;
    });
  }
  const code = await new Promise<number | null>((settle) => child.once('close', settle));
  return { code, said, ms: performance.now() - startedAt };
}

const redis = { 'redis-server': 'echo Redis' };

/** Every file with the time at which it was written. */
function filesOf(folder: string): Record<string, number> {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return Object.fromEntries(names.map((name) => [name, statSync(join(folder, name)).mtimeMs]));
}

describe('npm run setup', () => {
  it('builds what is missing, and the second time does nothing', async () => {
    const first = await setUp(redis);
    expect(first).toMatchObject({
      code: 0,
      said: expect.stringMatching(/^set-up: src compiled to dist \([\d.]+ s\)\n$/),
    });
    expect(existsSync(join(copy, 'dist/cli.js'))).toBe(true);
    expect(existsSync(join(copy, 'dist/some.lua'))).toBe(true);

    const built = filesOf(join(copy, 'dist'));
    const { code, said } = await setUp(redis);
    expect(code).toBe(0);
    expect(said).toMatch(/^set-up: up to date \([\d.]+ s\)\n$/);
    expect(filesOf(join(copy, 'dist'))).toEqual(built);
  });

  it('builds again when a source has changed, and leaves nothing of one that was removed', async () => {
    writeFileSync(join(copy, 'src/old.ts'), 'export const old = 1;\n');
    await setUp(redis);
    expect(existsSync(join(copy, 'dist/old.js'))).toBe(true);
    rmSync(join(copy, 'src/old.ts'));
    const { said } = await setUp(redis);
    expect(said).toContain('src compiled');
    expect(existsSync(join(copy, 'dist/old.js'))).toBe(false);
    expect(existsSync(join(copy, 'dist/cli.js'))).toBe(true);
  });

  it('fails with the words of the compiler, and again until it is mended', async () => {
    writeFileSync(join(copy, 'src/cli.ts'), "const n: number = 'text';\nconsole.log(n);\n");
    for (let run = 0; run < 2; run += 1) {
      const { code, said } = await setUp(redis);
      expect(code).toBe(1);
      expect(said).toContain('src/cli.ts(1,7): error TS2322');
    }
  });

  it('says what to type where no Redis can be had', async () => {
    const { code, said } = await setUp();
    expect(code).toBe(1);
    for (const line of [
      'sudo apt-get install redis-server',
      'brew install redis',
      'sudo dnf install redis',
      'REDIS_URL',
    ]) {
      expect(said).toContain(line);
    }
  });

  it('tells why apt could not fetch one, and leaves no half of it', async () => {
    // Not even root may reach the real package manager from here: these stand-ins are all that is on PATH.
    const { code, said } = await setUp({ 'apt-get': 'echo no route to it >&2; exit 100', 'dpkg-deb': 'exit 1' });
    expect(code).toBe(1);
    expect(said).toContain('no route to it');
    expect(existsSync(join(copy, '.cache/redis'))).toBe(false);
    expect(existsSync(join(copy, '.cache/setup.lock'))).toBe(false);
  });

  it('uses the server that an earlier run fetched', async () => {
    const fetched = join(copy, '.cache/redis/usr/bin/redis-server');
    mkdirSync(dirname(fetched), { recursive: true });
    writeFileSync(fetched, '');
    chmodSync(fetched, 0o755);
    writeFileSync(
      join(copy, '.cache/redis/server.json'),
      JSON.stringify({ command: 'usr/bin/redis-server', libraries: ['usr/lib'] }),
    );
    expect((await setUp()).code).toBe(0);
    expect((await setUp()).said).toContain('up to date');
  });

  it('needs no server where one is configured, except for the tests', async () => {
    const env = { REDIS_URL: 'redis://127.0.0.1:6379' };
    expect((await setUp({}, env)).code).toBe(0);
    expect((await setUp({}, { ...env, npm_lifecycle_event: 'pretest' })).code).toBe(1);
  });

  it('lets one of several at once do the work', async () => {
    const runs = await Promise.all([setUp(redis), setUp(redis), setUp(redis)]);
    expect(runs.map(({ code }) => code)).toEqual([0, 0, 0]);
    expect(runs.filter(({ said }) => said.includes('src compiled'))).toHaveLength(1);
    expect(existsSync(join(copy, '.cache/setup.lock'))).toBe(false);
  });

  it('gets over the lock of one that was killed', async () => {
    mkdirSync(join(copy, '.cache/setup.lock'), { recursive: true });
    const gone = spawn(process.execPath, ['-e', '']);
    await new Promise((settle) => gone.once('close', settle));
    writeFileSync(join(copy, '.cache/setup.lock/owner.json'), JSON.stringify({ pids: [gone.pid], host: hostname() }));
    const { code, said, ms } = await setUp(redis);
    expect({ code, said }).toMatchObject({ code: 0, said: expect.stringContaining('src compiled') });
    expect(ms).toBeLessThan(10_000);
  });

  it('waits for a command that outlived the set-up that started it', async () => {
    mkdirSync(join(copy, '.cache/setup.lock'), { recursive: true });
    const left = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 1500)']);
    writeFileSync(join(copy, '.cache/setup.lock/owner.json'), JSON.stringify({ pids: [left.pid], host: hostname() }));
    const { code, said } = await setUp(redis);
    expect(left.exitCode).toBe(0);
    expect({ code, said }).toMatchObject({ code: 0, said: expect.stringContaining('waiting for another set-up') });
  });
});
