import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { startSandbox } from '../../src/sandbox/index.ts';
import { startTestRedis } from '../support/redis.ts';
import { otp, serve } from '../support/service.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string): string => readFileSync(join(root, file), 'utf8');
const run = promisify(execFile);
const hasPython = spawnSync('python3', ['--version']).status === 0;

test('every example in the README stands in examples/, letter for letter', () => {
  const blocks = [...read('README.md').matchAll(/<!-- example: (\S+) -->\n```\w+\n([\s\S]*?)```/g)];
  expect(blocks.map(([, file]) => file)).toEqual([
    'examples/otp.yaml',
    'examples/curl/first.sh',
    'examples/python/first.py',
    'examples/node-library/first.mjs',
  ]);
  for (const [, file = '', text] of blocks) expect(text, file).toBe(read(file));
});

test('the examples of the README run: configuration, keys, serve, curl, library', async () => {
  await using redis = await startTestRedis();
  await using sandbox = await startSandbox({ settleAfterMs: 0 });
  const folder = mkdtempSync(join(tmpdir(), 'otp-readme-'));
  try {
    const { baseUrl, credentials } = sandbox.providers.cepta;
    const environment = {
      OTP_REDIS_URL: redis.url,
      OTP_CONSOLE_PASSWORD: 'a-password-for-the-console',
      SHOP_API_KEY: 'an-api-key-that-is-long-enough',
      CEPTA_URL: baseUrl,
      CEPTA_SECRET_KEY: credentials.secretKey ?? '',
      PORT: '0',
      CONSOLE_PORT: '0',
    };
    const file = join(folder, 'otp.yaml');
    // The sandbox is asked a second after acceptance instead of ten.
    writeFileSync(file, `${read('examples/otp.yaml')}    inquiry: { delaysMs: [100] }\n`);
    await printed(['keys', 'generate', '--config', file], environment);
    await using service = await serve(file, 'intake,worker,console', environment);

    const curl = await run('bash', ['-c', read('examples/curl/first.sh')], {
      env: { ...environment, PATH: process.env.PATH ?? '', OTP_URL: service.intakeUrl },
    });
    expect(JSON.parse(curl.stdout)).toMatchObject({ provider: 'cepta', otp: 'accepted', transaction: 'pending' });

    if (hasPython) {
      const python = await run('python3', [join(root, 'examples/python/first.py')], {
        env: { ...environment, PATH: process.env.PATH ?? '', OTP_URL: service.intakeUrl },
      });
      expect(JSON.parse(python.stdout)).toMatchObject({ otp: 'accepted', transaction: 'pending' });
    }

    // The example as a user runs it: beside the public keys, with the package in node_modules.
    writeFileSync(join(folder, 'public-keys.json'), await printed(['keys', 'public', '--config', file], environment));
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(root, join(folder, 'node_modules', 'otp-pipeline'));
    writeFileSync(join(folder, 'first.mjs'), read('examples/node-library/first.mjs'));
    const library = await run(process.execPath, ['first.mjs'], { cwd: folder, env: environment, timeout: 20_000 });
    expect(library.stdout).toMatch(/^cepta_[0-9a-f]{32} accepted succeeded final$/m);
    expect(sandbox.ledger.transactions()).toMatchObject([
      { reference: 'TX12345ABC', codesReceived: ['012345'], charges: 1 },
      ...(hasPython ? [{ reference: 'TX24680GHI', codesReceived: ['012345'], charges: 1 }] : []),
      { reference: 'TX67890DEF', codesReceived: ['012345'], charges: 1 },
    ]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 120_000);

async function printed(args: readonly string[], environment: Record<string, string>): Promise<string> {
  const { code, output, faults } = await otp(args, { environment });
  expect(code, faults).toBe(0);
  return output;
}
