/** The whole service with its console, in this process, against the sandboxes: what a person at the console has before them. */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '../../src/config.ts';
import { newKey, writeKeySet } from '../../src/key-files.ts';
import { startService } from '../../src/main.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { startTestRedis } from '../support/redis.ts';

const API_KEY = 'api-key-of-the-shop-that-nobody-guesses';
export const LOGIN = { username: 'ada', password: 'a password that nobody guesses' };

export interface Stage extends AsyncDisposable {
  readonly consoleUrl: string;
  readonly sandbox: Sandbox;
  readonly redis: RedisConnection;
  /** Through the intake; answered when it is final or awaits proof. */
  verify(body: Record<string, unknown>): Promise<VerificationResource>;
  /** As the client sees it, when it has become so. */
  until(id: string, is: (resource: VerificationResource) => boolean): Promise<VerificationResource>;
}

export interface StageOptions {
  /** After which an unknown of Beqelal, which cannot be asked, waits for a person. */
  readonly giveUpAfterMs?: number;
  readonly inquiryDelaysMs?: readonly number[];
}

export async function openStage({
  giveUpAfterMs = 1_000,
  inquiryDelaysMs = [50, 600_000],
}: StageOptions = {}): Promise<Stage> {
  const folder = mkdtempSync(join(tmpdir(), 'otp-stage-'));
  writeKeySet(join(folder, 'keys.json'), { keys: [await newKey('otp')] });
  const server = await startTestRedis();
  const sandbox = await startSandbox({ settleAfterMs: 0 });
  const config = loadConfig({
    environment: {},
    baseDir: folder,
    data: {
      redis: { url: server.url },
      intake: { port: 0 },
      console: { port: 0, users: [{ name: LOGIN.username, password: LOGIN.password }] },
      clients: [{ id: 'shop', apiKey: API_KEY, rateLimit: { max: 1_000, perMs: 1_000 } }],
      sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json' },
      results: {
        webhooks: [
          {
            client: 'shop',
            url: 'http://127.0.0.1:9/', // nobody listens there
            secret: `whsec_${Buffer.from('a secret of the tests, of 32 bytes').toString('base64')}`,
          },
        ],
      },
      providers: Object.fromEntries(
        Object.entries(sandbox.providers).map(([name, entry]) => [
          name,
          {
            ...entry,
            rateLimit: { max: 20, perMs: 1_000 },
            inquiry: { delaysMs: inquiryDelaysMs, ...(name === 'beqelal' ? { giveUpAfterMs } : {}) },
          },
        ]),
      ),
      log: { level: 'silent' },
    },
  });
  const service = await startService(config);
  const redis = connectRedis(server.url, 'console', { onError: () => {} });
  const authorization = `Bearer ${API_KEY}`;
  const answered = async (response: Response): Promise<VerificationResource> => {
    if (!response.ok) throw new Error(`the intake answered ${response.status}: ${await response.text()}`);
    return (await response.json()) as VerificationResource;
  };
  return {
    consoleUrl: service.consoleUrl,
    sandbox,
    redis,
    verify: async (body) =>
      await answered(
        await fetch(`${service.intakeUrl}/v1/verifications`, {
          method: 'POST',
          headers: {
            authorization,
            'content-type': 'application/json',
            'idempotency-key': randomUUID(),
            prefer: 'wait=20',
          },
          body: JSON.stringify(body),
        }),
      ),
    until: async (id, is) => {
      const giveUpAt = Date.now() + 20_000;
      for (;;) {
        const resource = await answered(
          await fetch(`${service.intakeUrl}/v1/verifications/${id}`, { headers: { authorization } }),
        );
        if (is(resource)) return resource;
        if (Date.now() > giveUpAt) throw new Error(`not in time: ${JSON.stringify(resource)}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    [Symbol.asyncDispose]: async () => {
      await service.close();
      redis.disconnect();
      await sandbox[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
