import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { newKey, writeKeySet } from '../../src/key-files.ts';
import { type Service, startService } from '../../src/main.ts';
import { apiKeyHash, hashPassword } from '../../src/secret-hashes.ts';
import { startTestRedis } from '../support/redis.ts';
import { selfSigned } from '../support/self-signed.ts';
import { otp } from '../support/service.ts';
import { eventually } from './world.ts';

const CEPTA = {
  baseUrl: 'http://127.0.0.1:9',
  credentials: { secretKey: 'secret-key-of-the-test', merchantId: 'M-1' },
};
const BODY = { provider: 'cepta', otp: '123456', params: { transactionRef: 'TX1', paymentId: 'PAY1', md: 'm' } };

interface Served extends AsyncDisposable {
  readonly service: Service;
  /** What was warned of on the way to being ready: of what this page is about, and of nothing else. */
  warnings(): Promise<string[]>;
}

async function serve(configuration: Record<string, unknown>): Promise<Served> {
  const redis = await startTestRedis();
  const folder = mkdtempSync(join(tmpdir(), 'otp-tls-service-'));
  writeKeySet(join(folder, 'keys.json'), { keys: [await newKey('otp')] });
  const data = {
    redis: { url: redis.url },
    sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json' },
    providers: { cepta: CEPTA },
    ...configuration,
  };
  const logTo = join(folder, 'service.log');
  const roles = ['intake', 'console'] as const;
  const service = await startService(loadConfig({ data, baseDir: folder, environment: {} }), { roles, logTo });
  return {
    service,
    warnings: async () => {
      const lines = (): { level: number; msg: string }[] =>
        existsSync(logTo)
          ? readFileSync(logTo, 'utf8')
              .trim()
              .split('\n')
              .map((line) => JSON.parse(line || '{}'))
          : [];
      await eventually(() => lines().some(({ msg }) => msg === 'ready'));
      return lines().flatMap(({ level, msg }) =>
        level === 40 && /^(intake|console|clients)\b/.test(msg) ? [msg] : [],
      );
    },
    [Symbol.asyncDispose]: async () => {
      await service.close();
      await redis[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

it('over TLS, with hashes in the place of secrets, everything is as it was, and nothing is warned of', async () => {
  const { apiKey, hash } = JSON.parse(await printed(['keys', 'api-key', '--json']));
  expect(hash).toBe(apiKeyHash(apiKey));
  using certificate = selfSigned();
  const tls = { certFile: certificate.certFile, keyFile: certificate.keyFile };
  const password = await hashPassword('correct horse', { N: 2 ** 14, r: 8, p: 1 });
  await using world = await serve({
    intake: { port: 0, tls },
    console: { port: 0, tls, users: [{ name: 'ops', password }] },
    clients: [{ id: 'shop', apiKey: hash, rateLimit: { max: 1, perMs: 60_000 }, maxInFlight: 5 }],
  });
  const { service } = world;
  expect([service.intakeUrl, service.consoleUrl].map((url) => url?.slice(0, 8))).toEqual(['https://', 'https://']);

  const agent = new Agent({ ca: certificate.pem });
  const post = async (key: string): Promise<number | undefined> =>
    await statusOf(`${service.intakeUrl}/v1/verifications`, agent, 'POST', JSON.stringify(BODY), {
      authorization: `Bearer ${apiKey}`,
      'content-type': 'application/json',
      'idempotency-key': key,
    });
  expect([await post('k-1'), await post('k-2'), await post('k-1')]).toEqual([202, 429, 202]);
  const authorization = `Basic ${Buffer.from('ops:correct horse').toString('base64')}`;
  expect(await statusOf(`${service.consoleUrl}/`, agent, 'GET', '', { authorization })).toBe(200);
  expect(await statusOf(`${service.consoleUrl}/`, agent, 'GET', '', {})).toBe(401);
  expect(await statusOf(`${service.consoleUrl}/metrics`, agent, 'GET', '', {})).toBe(200);
  expect(scraped).toContain('otp_intake_limited_total{client="shop",limit="rate"} 1');
  expect(scraped).toContain('otp_console_logins_total{outcome="accepted"} 1');
  agent.destroy();
  expect(await world.warnings()).toEqual([]);
}, 60_000);

it('open to everybody without TLS, and with secrets that can be guessed, it says so once, with the keys to change', async () => {
  await using world = await serve({
    intake: { host: '0.0.0.0', port: 0 },
    console: { host: '0.0.0.0', port: 0, users: [{ name: 'ops', password: 'short' }] },
    clients: [{ id: 'shop', apiKey: 'short' }],
  });
  expect(await world.warnings()).toEqual([
    expect.stringMatching(/^clients\[0\]\.apiKey: has fewer than 20 characters/),
    expect.stringMatching(/^console\.users\[0\]\.password: has fewer than 12 characters/),
    expect.stringMatching(/^intake\.host: 0\.0\.0\.0 .* in the clear\. Set intake\.tls\.certFile/),
    expect.stringMatching(/^console\.host: 0\.0\.0\.0 .* in the clear\. Set console\.tls\.certFile/),
  ]);
});

it('the command line makes hashes of what it is told on standard input, and shows neither again', async () => {
  const [ofKey, ofPassword] = await Promise.all([
    printed(['keys', 'api-key', '--stdin'], 'a key that is there already\n'),
    printed(['keys', 'password'], 'correct horse\n'),
  ]);
  expect(ofKey).toBe(`${apiKeyHash('a key that is there already')}\n`);
  const hash = ofPassword.trim();
  expect(hash).toMatch(/^scrypt:32768:8:3:/);
  const users = [{ name: 'ops', password: hash }];
  const { console } = loadConfig({ data: { providers: { cepta: CEPTA }, console: { users } }, environment: {} });
  expect(console.users[0]?.password.reveal()).toBe(hash);
}, 60_000);

let scraped = '';

async function statusOf(
  url: string,
  agent: Agent,
  method: string,
  body: string,
  headers: Record<string, string>,
): Promise<number | undefined> {
  return await new Promise((resolve, reject) => {
    const sent = request(url, { agent, method, headers }, (response) => {
      scraped = '';
      response.on('data', (chunk) => {
        scraped += chunk;
      });
      response.on('end', () => resolve(response.statusCode));
    });
    sent.on('error', reject).end(body);
  });
}

async function printed(args: readonly string[], input = ''): Promise<string> {
  const { output, ...ended } = await otp(args, { input });
  expect(ended).toEqual({ code: 0, faults: '' });
  return output;
}
