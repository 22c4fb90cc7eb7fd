/** Who enqueues holds the public half alone: shown in processes that have nothing else. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { request } from 'undici';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { parse } from 'yaml';
import { loadConfig, type Role } from '../../src/config.ts';
import { newKey } from '../../src/key-files.ts';
import { startService } from '../../src/main.ts';
import { partitionKeys } from '../../src/producers/job.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { Opener, openCode, publicKeySet, type SealingKeySet } from '../../src/producers/sealing.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { bodyFor } from '../support/pipeline.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { type Installation, install, serve } from '../support/service.ts';

const PRODUCER = fileURLToPath(new URL('../support/producer-alone.mjs', import.meta.url));
const AUTHORIZED = { authorization: 'Bearer api-key-of-the-shop-in-the-test', 'content-type': 'application/json' };

const world = {} as {
  server: TestRedis;
  redis: RedisConnection;
  sandbox: Sandbox;
  codeKeys: SealingKeySet;
  detailsKeys: SealingKeySet;
};

beforeAll(async () => {
  world.server = await startTestRedis();
  world.redis = connectRedis(world.server.url, 'worker', { onError: () => {} });
  world.sandbox = await startSandbox({ settleAfterMs: 0 });
  world.codeKeys = { keys: [await newKey('otp')] };
  world.detailsKeys = { keys: [await newKey('details')] };
});

afterAll(async () => {
  world.redis?.disconnect();
  await world.sandbox?.[Symbol.asyncDispose]();
  await world.server?.[Symbol.asyncDispose]();
});

/** A machine with its own configuration and these keys, and no others. */
async function machineWith(codeKeys: SealingKeySet, detailsKeys: SealingKeySet): Promise<Installation> {
  const installation = await install({
    redis: { url: world.server.url },
    providers: { 'lipa-later': world.sandbox.providers['lipa-later'] },
  });
  writeFileSync(join(installation.folder, 'keys.json'), JSON.stringify(codeKeys));
  writeFileSync(join(installation.folder, 'details.json'), JSON.stringify(detailsKeys));
  return installation;
}

/** Every private key in the files of a folder. */
function privateKeysIn(folder: string): SealingKeySet['keys'] {
  return readdirSync(folder).flatMap((name) => {
    const found = /"keys":\s*\[/.test(readFileSync(join(folder, name), 'utf8'));
    const { keys } = found ? (JSON.parse(readFileSync(join(folder, name), 'utf8')) as SealingKeySet) : { keys: [] };
    return keys.filter(({ d }) => d !== undefined);
  });
}

test('an intake runs on the public half, a worker on a machine of its own opens, and neither has the other’s key', async () => {
  await using intakeMachine = await machineWith(publicKeySet(world.codeKeys), world.detailsKeys);
  await using workerMachine = await machineWith(world.codeKeys, publicKeySet(world.detailsKeys));
  await using intake = await serve(intakeMachine.file, 'intake');
  const id = await post(intake.intakeUrl, 'one');
  const sealed = (await world.redis.hget(partitionKeys('lipa-later').record(id), 'code')) ?? '';
  const reachable = privateKeysIn(intakeMachine.folder);
  expect(reachable.map(({ kid }) => kid)).toEqual(world.detailsKeys.keys.map(({ kid }) => kid));
  await expect((await Opener.create({ keys: reachable })).open(sealed)).rejects.toThrow('no key');
  expect(await openCode(await Opener.create(world.codeKeys), sealed, id, 'lipa-later')).toMatchObject({
    otp: '135790',
  });

  await using _ = await serve(workerMachine.file, 'worker');
  expect(await settled(intake.intakeUrl, id)).toMatchObject({ otp: 'accepted', details: { credit_limit: 50_000 } });
}, 60_000);

test('a worker that could open nothing does not start, and says which file it needs', async () => {
  await using machine = await machineWith(publicKeySet(world.codeKeys), world.detailsKeys);
  const config = loadConfig({ file: machine.file, environment: {} });
  await expect(startService(config, { roles: ['worker'] })).rejects.toMatchObject({
    name: 'StartError',
    message: expect.stringMatching(/^sealing\.keyFile: .*keys\.json: has no private key \(a member d\)/),
  });
}, 30_000);

test('an intake that is given private keys says that it has no use for them', async () => {
  await using machine = await machineWith(world.codeKeys, world.detailsKeys);
  const logTo = join(machine.folder, 'service.log');
  const service = await startService(loadConfig({ file: machine.file, environment: {} }), { roles: ['intake'], logTo });
  await service.close();
  const says = 'it has private keys, for which this process has no use';
  await vi.waitFor(() => expect(readFileSync(logTo, 'utf8')).toContain(says), { timeout: 5_000 });
}, 30_000);

test('an intake reuses its ephemeral key where that is configured, and its workers open what it sealed', async () => {
  await using machine = await machineWith(world.codeKeys, world.detailsKeys);
  const config = parse(readFileSync(machine.file, 'utf8')) as { sealing: object };
  const data = { ...config, sealing: { ...config.sealing, reuseEphemeralKey: {} }, log: { level: 'silent' } };
  const start = async (role: Role) =>
    await startService(loadConfig({ data, baseDir: machine.folder, environment: {} }), { roles: [role] });
  const intake = await start('intake');
  const ids = [await post(intake.intakeUrl, 'two'), await post(intake.intakeUrl, 'three')];
  const codes = await Promise.all(ids.map((id) => world.redis.hget(partitionKeys('lipa-later').record(id), 'code')));
  expect(new Set(codes.map((code) => code?.split('.')[0])).size).toBe(1);
  const worker = await start('worker');
  for (const id of ids) expect(await settled(intake.intakeUrl, id)).toMatchObject({ otp: 'accepted' });
  await Promise.all([intake.close(), worker.close()]);
}, 30_000);

test('a producer in a process of its own opens nothing of what it has sealed', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'otp-producer-'));
  try {
    writeFileSync(join(folder, 'public-keys.json'), JSON.stringify(publicKeySet(world.codeKeys)));
    const { stdout } = await promisify(execFile)(process.execPath, [PRODUCER], {
      cwd: folder,
      env: { REDIS_URL: world.server.url },
    });
    const { id, tries } = JSON.parse(stdout) as { id: string; tries: Record<string, string> };
    expect(tries).toEqual({
      library: expect.stringContaining('it opens nothing'),
      jose: expect.stringContaining('must be of type "private"'),
    });
    const sealed = (await world.redis.hget(partitionKeys('cepta').record(id), 'code')) ?? '';
    expect(await openCode(await Opener.create(world.codeKeys), sealed, id, 'cepta')).toMatchObject({ otp: '246810' });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 30_000);

async function post(intakeUrl: string | null, idempotencyKey: string): Promise<string> {
  const accepted = await request(`${intakeUrl}/v1/verifications`, {
    method: 'POST',
    headers: { ...AUTHORIZED, 'idempotency-key': idempotencyKey },
    body: JSON.stringify(bodyFor('lipa-later', '135790')),
  });
  expect(accepted.statusCode).toBe(202);
  return ((await accepted.body.json()) as VerificationResource).id;
}

async function settled(intakeUrl: string | null, id: string): Promise<VerificationResource> {
  const response = await request(`${intakeUrl}/v1/verifications/${id}?after=0`, {
    headers: { ...AUTHORIZED, prefer: 'wait=20' },
  });
  return (await response.body.json()) as VerificationResource;
}
