/** `otp doctor` as a person runs it: the built program, beside a service, Redis and providers that are real. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Queue, UnrecoverableError, Worker } from 'bullmq';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { partitionKeys, webhookQueueName, webhookQueuePrefix } from '../../src/producers/job.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { freePort } from '../../src/redis/process.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { answer, type ProviderServer, startProviderServer } from '../support/provider-server.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { selfSigned } from '../support/self-signed.ts';
import { type Installation, install, otp, serve } from '../support/service.ts';

interface Finding {
  readonly level: 'ok' | 'warning' | 'fault';
  readonly about: string;
  readonly finding: string;
  readonly remedy: string | null;
}

interface World {
  readonly server: TestRedis;
  readonly redis: RedisConnection;
  readonly sandbox: Sandbox;
  /** A sound configuration: cepta and beqelal of the sandbox, and a webhook for the shop. */
  readonly sound: Installation;
}

const world = {} as { -readonly [Key in keyof World]: World[Key] };

beforeAll(async () => {
  world.server = await startTestRedis({ appendonly: true });
  world.redis = connectRedis(world.server.url, 'worker', { onError: () => {} });
  world.sandbox = await startSandbox();
  const { cepta, beqelal } = world.sandbox.providers;
  world.sound = await install({
    redis: { url: world.server.url },
    providers: { cepta, beqelal },
    results: { webhooks: [{ client: 'shop', url: 'http://127.0.0.1:9/results', secret: SECRET }] },
  });
});

afterAll(async () => {
  world.redis?.disconnect();
  await world.sound?.[Symbol.asyncDispose]();
  await world.sandbox?.[Symbol.asyncDispose]();
  await world.server?.[Symbol.asyncDispose]();
});

const SECRET = 'whsec_c2VjcmV0LW9mLXRoZS1zaG9wLWluLXRoZS10ZXN0';

describe('otp doctor', () => {
  test('finds nothing beside a service that is well, prints no secret, and the provider saw no call', async () => {
    await using service = await serve(world.sound.file, 'worker');
    const keys = partitionKeys('cepta');
    await vi.waitUntil(async () => (await world.redis.zcard(keys.workers)) > 0, { timeout: 10_000 });
    const { code, findings, output } = await doctor(world.sound.file);
    expect(findings.filter(({ level }) => level !== 'ok')).toEqual([]);
    expect(code).toBe(0);
    expect(findings.map(({ about }) => about)).toEqual([
      ...['configuration', 'sealing.keyFile', 'sealing.detailsKeyFile', 'redis.version', 'redis.maxmemory-policy'],
      ...['redis.persistence', 'redis.replicas', 'redis.clock'],
      ...['cepta', 'beqelal'].flatMap((name) => [
        ...['credentials', 'reachable', 'clock'].map((what) => `providers.${name}.${what}`),
        ...[`queues.otp-${name}`, `workers.${name}`, `unresolved.${name}`],
      ]),
      ...['queues.otp-results', 'webhooks.shop'],
    ]);
    expect(findings.find(({ about }) => about === 'workers.cepta')?.finding).toBe('1 worker is alive');
    for (const { remedy, ...finding } of findings) {
      expect(remedy, finding.about).toBeNull();
      expect(Object.keys(finding)).toEqual(['level', 'about', 'finding']);
    }
    const secrets = [
      ...Object.values(world.sandbox.providers.cepta.credentials),
      ...Object.values(world.sandbox.providers.beqelal.credentials),
      ...[SECRET, 'api-key-of-the-shop-in-the-test', 'console-password-of-the-test'],
      new URL(world.server.url).password,
    ];
    for (const secret of secrets) expect(output).not.toContain(secret);
    for (const entry of world.sandbox.ledger.find({})) {
      expect(entry).toMatchObject({ call: 'unknown', reference: null });
      expect(entry).not.toHaveProperty('code');
    }
    expect(service.output()).not.toContain('"level":50');
    await service.kill('SIGTERM'); // in order, so that nobody takes it for alive
  }, 60_000);

  test('says what is wrong with the server: its policy, its persistence, and that no worker is alive', async () => {
    await world.redis.config('SET', 'maxmemory-policy', 'allkeys-lru');
    await world.redis.config('SET', 'appendonly', 'no');
    try {
      const { code, findings } = await doctor(world.sound.file);
      expect(code).toBe(1);
      expect(notOk(findings)).toMatchObject({
        'redis.maxmemory-policy': {
          level: 'fault',
          remedy: expect.stringContaining('CONFIG SET maxmemory-policy noev'),
        },
        'redis.persistence': { level: 'warning', remedy: expect.stringContaining('CONFIG SET appendonly yes') },
        'workers.cepta': { level: 'warning', remedy: expect.stringContaining('otp serve') },
      });
    } finally {
      await world.redis.config('SET', 'appendonly', 'yes');
      await world.redis.config('SET', 'maxmemory-policy', 'noeviction');
    }
  }, 60_000);

  test('a provider that nothing listens on, one whose clock is wrong, and one whose certificate nobody vouches for', async () => {
    const dateOf = (skewMs: number) => new Date(Date.now() + skewMs).toUTCString();
    const asked: ProviderServer[] = [];
    const withDate = async (skewMs: number): Promise<string> => {
      const provider = await startProviderServer((socket) =>
        socket.end(answer(404, '', { date: dateOf(skewMs), location: 'http://127.0.0.1:9/' })),
      );
      asked.push(provider);
      return provider.url;
    };
    using certificate = selfSigned();
    const secure = createServer(
      { cert: certificate.pem, key: readFileSync(certificate.keyFile) },
      (_, response) => void response.end(),
    );
    await new Promise<void>((listening) => secure.listen(0, '127.0.0.1', listening));
    const baseUrl = `https://127.0.0.1:${(secure.address() as AddressInfo).port}`;
    const beqelal = { adapter: 'beqelal', credentials: { appId: 'app', apiKey: 'api-key-of-beqelal' } };
    await using installation = await install({
      redis: { url: world.server.url },
      providers: {
        nobody: { ...beqelal, baseUrl: `http://127.0.0.1:${await freePort()}` },
        late: { ...beqelal, baseUrl: `${await withDate(-300_000)}/with/a/path` },
        early: { ...beqelal, baseUrl: await withDate(60_000) },
        untrusted: { ...beqelal, baseUrl },
        trusted: {
          ...beqelal,
          baseUrl,
          credentials: { appId: 'b', apiKey: 'b' },
          tls: { caFile: certificate.certFile },
        },
        proxied: {
          ...beqelal,
          baseUrl: 'https://provider.invalid',
          proxy: `http://user:password-of-the-proxy@127.0.0.1:${await freePort()}`,
        },
      },
    });
    try {
      const { code, findings, output } = await doctor(installation.file);
      expect(code).toBe(1);
      const found = notOk(findings.filter(({ about }) => about.startsWith('providers.')));
      expect(found).toEqual({
        'providers.nobody.reachable': {
          level: 'fault',
          finding: expect.stringContaining('cannot be reached: ECONNREFUSED'),
          remedy: expect.stringContaining('providers.nobody.baseUrl'),
        },
        'providers.late.clock': {
          level: 'fault',
          finding: expect.stringMatching(/^5 min behind this machine: signed/),
          remedy: expect.stringContaining('time server'),
        },
        'providers.early.clock': {
          level: 'warning',
          finding: expect.stringMatching(/^(59|6[01]) s ahead of this machine/),
          remedy: expect.stringContaining('time server'),
        },
        'providers.untrusted.reachable': {
          level: 'fault',
          finding: expect.stringContaining('DEPTH_ZERO_SELF_SIGNED_CERT'),
          remedy: expect.stringContaining('the files of providers.untrusted.tls'),
        },
        'providers.proxied.reachable': {
          level: 'fault',
          finding: expect.stringContaining('cannot be reached through the proxy: ECONNREFUSED'),
          remedy: expect.stringContaining('providers.proxied.proxy'),
        },
      });
      expect(findings).toContainEqual(expect.objectContaining({ about: 'providers.trusted.reachable', level: 'ok' }));
      expect(output).not.toContain('password-of-the-proxy');
      for (const { requests } of asked) {
        expect(requests.map(({ method, path }) => `${method} ${path}`)).toEqual(['HEAD /']);
        expect(Object.keys(requests[0]?.headers ?? {}).sort()).toEqual(['connection', 'host', 'user-agent']);
        expect(requests[0]?.body).toBe('');
      }
    } finally {
      secure.close();
      await Promise.all(asked.map(async (provider) => await provider[Symbol.asyncDispose]()));
    }
  }, 60_000);

  test('keys that others can read, that are not there, and that do not open what they seal', async () => {
    await using installation = await install({
      redis: { url: world.server.url },
      providers: { cepta: world.sandbox.providers.cepta },
    });
    const keyFile = join(installation.folder, 'keys.json');
    const { keys } = JSON.parse(readFileSync(keyFile, 'utf8'));
    chmodSync(keyFile, 0o644);
    const mixed = { keys: [{ ...keys[0], x: `${keys[0].x.slice(0, -4)}AAAA` }] };
    writeFileSync(join(installation.folder, 'details.json'), JSON.stringify(mixed), { mode: 0o600 });
    const before = await doctor(installation.file);
    expect(notOk(before.findings)).toMatchObject({
      'sealing.keyFile': {
        level: 'fault',
        finding: expect.stringContaining('its mode is 644'),
        remedy: `chmod 600 ${keyFile}`,
      },
      'sealing.detailsKeyFile': {
        level: 'fault',
        finding: expect.stringContaining('cannot be opened again'),
      },
    });
    expect(before.output).not.toContain(keys[0].d);
    rmSync(keyFile);
    const { code, findings } = await doctor(installation.file);
    expect(code).toBe(1);
    expect(notOk(findings)['sealing.keyFile']).toMatchObject({
      level: 'fault',
      finding: expect.stringContaining('there is no such file'),
      remedy: expect.stringContaining(`otp keys generate --file ${keyFile}`),
    });
  }, 60_000);

  test('a key file whose text stands where its path belongs: nothing that is told of it holds a word of it', async () => {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: a reference of the configuration
    const sealing = { keyFile: '${file:keys.json}', detailsKeyFile: '${file:keys.json}' };
    await using installation = await install({ providers: { cepta: world.sandbox.providers.cepta }, sealing });
    const { keys } = JSON.parse(readFileSync(join(installation.folder, 'keys.json'), 'utf8'));
    for (const command of ['doctor', 'serve', 'keys list']) {
      const run = await otp([...command.split(' '), '--config', installation.file]);
      expect(run.code, command).toBe(1);
      expect(run.output + run.faults).toContain('sealing.keyFile: must be the path of a file');
      expect(run.output + run.faults).not.toContain(keys[0].d);
    }
  }, 60_000);

  test('a paused queue, a job that was set aside, work without a worker, a webhook that is switched off', async () => {
    const keys = partitionKeys('beqelal');
    const options = { connection: world.redis };
    const [verifications, callbacks, webhook] = [
      new Queue(keys.queue, { ...options, prefix: keys.prefix }),
      new Queue(keys.callbackQueue, { ...options, prefix: keys.prefix }),
      new Queue(webhookQueueName('shop'), { ...options, prefix: webhookQueuePrefix('shop') }),
    ];
    const aside = new Worker(keys.callbackQueue, () => Promise.reject(new UnrecoverableError('unreadable')), {
      ...{ connection: world.redis, prefix: keys.prefix },
    });
    try {
      await verifications.pause();
      await verifications.add('verify', { v: 1, id: 'x' }, { jobId: 'x', timestamp: Date.now() - 600_000 });
      await callbacks.add('callback', { v: 1 });
      await webhook.pause();
      await world.redis.zadd(keys.review, 1, `beqelal_${'0'.repeat(32)}`);
      await world.redis.zadd(partitionKeys('cepta').due, Date.now() - 600_000, `cepta_${'0'.repeat(32)}`);
      await vi.waitUntil(async () => (await callbacks.getFailedCount()) === 1, { timeout: 10_000 });
      const opened = { state: 'open', troubleSince: Date.now() - 600_000, until: Date.now() + 60_000, because: '503' };
      await world.redis.hset(partitionKeys('cepta').breaker, opened);
      const { code, findings } = await doctor(world.sound.file);
      expect(code).toBe(1);
      expect(notOk(findings)).toEqual({
        'workers.cepta': {
          level: 'fault',
          finding: 'no worker is alive, and a verification is overdue for 10 min',
          remedy: expect.stringContaining('otp serve'),
        },
        'breaker.cepta': {
          level: 'warning',
          finding: expect.stringContaining('open for 10 min, because of 503: nothing is submitted'),
          remedy: expect.stringContaining('breaker-open.md'),
        },
        'workers.beqelal': {
          level: 'fault',
          finding: 'no worker is alive, and 1 job waits or is under way',
          remedy: expect.stringContaining('otp serve'),
        },
        'queues.otp-beqelal': {
          level: 'warning',
          finding: expect.stringMatching(/it is paused.*the oldest code has waited for 10 min, and lives for 5 min/s),
          remedy: expect.stringContaining('resume it'),
        },
        'queues.otp-beqelal-callback': {
          level: 'warning',
          finding: expect.stringContaining('1 job was set aside'),
          remedy: expect.stringContaining('/board'),
        },
        'review.beqelal': {
          level: 'warning',
          finding: expect.stringContaining(`for a person: beqelal_${'0'.repeat(32)}`),
          remedy: expect.stringContaining('otp show'),
        },
        'webhooks.shop': {
          level: 'warning',
          finding: expect.stringContaining('switched off'),
          remedy: expect.stringContaining('otp webhooks enable shop'),
        },
      });
      const isPaused = await Promise.all([verifications.isPaused(), webhook.isPaused()]);
      expect(isPaused, 'it changes nothing').toEqual([true, true]);
    } finally {
      await world.redis.del(keys.review, partitionKeys('cepta').due, partitionKeys('cepta').breaker);
      await aside.close();
      for (const queue of [verifications, callbacks, webhook]) {
        await queue.obliterate({ force: true });
        await queue.close();
      }
    }
  }, 60_000);

  test('without Redis it still says what it can, and every fault of a configuration at once', async () => {
    await using unreachable = await install({
      redis: { url: `redis://:password-of-redis@127.0.0.1:${await freePort()}` },
      providers: { cepta: world.sandbox.providers.cepta },
    });
    await using embedded = await install({ providers: { cepta: world.sandbox.providers.cepta } });
    const folder = mkdtempSync(join(tmpdir(), 'otp-doctor-'));
    try {
      const faulty = join(folder, 'otp.yaml');
      writeFileSync(faulty, 'intake: { port: banana }\nproviders: { cepta: { baseUrl: "http://example.org" } }\n');
      const [away, asleep, wrong] = await Promise.all([
        doctor(unreachable.file),
        doctor(embedded.file),
        doctor(faulty),
      ]);
      expect(away.code).toBe(1);
      expect(away.output).not.toContain('password-of-redis');
      expect(notOk(away.findings).redis).toMatchObject({
        level: 'fault',
        finding: expect.stringContaining('it does not answer'),
      });
      expect(away.findings).toContainEqual(
        expect.objectContaining({ about: 'providers.cepta.reachable', level: 'ok' }),
      );
      expect(asleep.code).toBe(0);
      expect(notOk(asleep.findings)).toEqual({
        redis: {
          level: 'warning',
          finding: expect.stringContaining('embedded server is not running'),
          remedy: expect.stringContaining('otp serve'),
        },
      });
      expect(wrong.code).toBe(1);
      const said = wrong.findings.map(({ finding }) => finding).join('\n');
      for (const key of ['intake.port', 'providers.cepta.baseUrl', 'providers.cepta.credentials.secretKey']) {
        expect(said).toContain(`${key}: `);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 60_000);

  test('as text it is a line for each finding, and their number; Redis is asked and told nothing', async () => {
    const before = await callsOf(world.redis);
    const { output } = await otp(['doctor', '--config', world.sound.file]);
    const after = await callsOf(world.redis);
    const used = [...after].filter(([name, calls]) => calls !== before.get(name)).map(([name]) => name);
    expect(used).toEqual(expect.arrayContaining(['info', 'time', 'zcount']));
    expect(await writingAmong(world.redis, used)).toEqual([]);
    expect(await writingAmong(world.redis, [...used, 'sadd'])).toEqual(['sadd']);
    const lines = output.trimEnd().split('\n');
    for (const line of lines.slice(0, -1)) expect(line).toMatch(/^(ok {7}|warning {2}|fault {4})[\w.-]+: \S/);
    expect(lines.find((line) => line.includes('workers.cepta'))).toMatch(/^warning .* -> start one: otp serve/);
    expect(lines.at(-1)).toMatch(/^\d+ ok, 2 warnings$/);
  }, 60_000);
});

/** How often each command has been called, from scripts too. */
async function callsOf(redis: RedisConnection): Promise<ReadonlyMap<string, string>> {
  const lines = (await redis.info('commandstats')).matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm);
  return new Map([...lines].map(([, name = '', calls = '']) => [name, calls]));
}

async function writingAmong(redis: RedisConnection, names: readonly string[]): Promise<string[]> {
  const told = (await redis.command('INFO', ...names)) as ([name: string, arity: number, flags: string[]] | null)[];
  return told.flatMap((command) => (command?.[2].includes('write') ? [command[0]] : []));
}

/** What is not ok, by what it is about; several findings about one thing are put together. */
function notOk(findings: readonly Finding[]): Record<string, Omit<Finding, 'about'>> {
  const found: Record<string, Omit<Finding, 'about'>> = {};
  for (const { about, ...finding } of findings.filter(({ level }) => level !== 'ok')) {
    const before = found[about];
    found[about] = before
      ? { ...before, finding: `${before.finding}\n${finding.finding}`, remedy: `${before.remedy}\n${finding.remedy}` }
      : finding;
  }
  return found;
}

async function doctor(file: string): Promise<{ code: number | null; findings: Finding[]; output: string }> {
  const { code, output, faults } = await otp(['doctor', '--config', file, '--json']);
  expect(faults).toBe('');
  const findings = output
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Finding);
  return { code, findings, output };
}
