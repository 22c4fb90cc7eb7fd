/** A whole service in this process, with everything that talks to it from outside, on whatever Redis it is given. */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { vi } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { createProducer, createResultsConsumer, type Producer, type ResultEvent } from '../../src/index.ts';
import { newKey, writeKeySet } from '../../src/key-files.ts';
import { startService } from '../../src/main.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import type { RedisSettings } from '../../src/redis/connections.ts';
import type { Sandbox } from '../../src/sandbox/index.ts';
import { type Received, startReceiver } from '../sandbox/receiver.ts';

export const CALLBACK_SECRET = 'callback-secret-of-the-test';
const SHOP = { id: 'shop', apiKey: 'api-key-of-the-shop-in-the-test' };
const OPERATOR = { name: 'ops', password: 'console-password-of-the-test' };

export interface House extends AsyncDisposable {
  /** Its configuration, for a process beside it such as `otp doctor`. */
  readonly file: string;
  readonly producer: Producer;
  /** What the consumer was handed and the webhook's receiver was sent, in the order of arrival. */
  readonly results: readonly ResultEvent[];
  readonly webhooks: readonly Received[];
  /** Says `body` to the intake and waits for its first revision. */
  verify(body: Record<string, unknown>, key?: string): Promise<VerificationResource>;
  read(id: string): Promise<{ status: number; resource: VerificationResource }>;
  /** Until it is as described; what was last seen is in the error. */
  until(id: string, is: (resource: VerificationResource) => boolean, withinMs?: number): Promise<VerificationResource>;
  report(path: string, body: unknown): Promise<number>;
  /** A page of the operator's port. */
  page(path: string): Promise<{ status: number; text: string }>;
  errors(): string[];
}

export async function startHouse(
  redis: RedisSettings & Record<string, unknown>,
  sandbox: Sandbox,
  more: Record<string, unknown> = {},
): Promise<House> {
  const folder = mkdtempSync(join(tmpdir(), 'otp-house-'));
  const keySet = { keys: [await newKey('otp')] };
  writeKeySet(join(folder, 'keys.json'), keySet);
  const receiver = await startReceiver();
  const { beqelal, ...others } = sandbox.providers;
  const inquiry = { delaysMs: [100, 300, 1_000] };
  const partitions = {
    ...others,
    beqelal: { ...beqelal, credentials: { ...beqelal.credentials, callbackSecret: CALLBACK_SECRET } },
  };
  const data = {
    redis,
    intake: { port: 0 },
    console: { port: 0, users: [OPERATOR] },
    clients: [SHOP],
    sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json' },
    results: { webhooks: [{ client: SHOP.id, url: receiver.url, secret: 'whsec_YSBzZWNyZXQgb2YgMjQgYnl0ZXMgLi4u' }] },
    providers: Object.fromEntries(Object.entries(partitions).map(([name, entry]) => [name, { ...entry, inquiry }])),
    ...more,
  };
  const logTo = join(folder, 'service.log');
  const file = join(folder, 'otp.json');
  writeFileSync(file, JSON.stringify(data));
  const config = loadConfig({ file, environment: {} });
  const service = await startService(config, { logTo });
  const errors: string[] = [];
  const onError = (error: Error): void => void errors.push(error.message);
  const settings = config.redis as RedisSettings;
  const producer = createProducer({
    ...{ redis: settings, client: SHOP, sealingKeys: keySet, onError },
    timeLimitMs: 10_000, // a second is short for six servers and a whole service on one busy machine
    partitions: Object.fromEntries(Object.keys(partitions).map((name) => [name, {}])),
  });
  const results: ResultEvent[] = [];
  const consumer = createResultsConsumer({
    ...{ redis: settings, onError },
    handler: async (result) => void results.push(result),
  });

  const authorization = `Bearer ${SHOP.apiKey}`;
  const login = `Basic ${Buffer.from(`${OPERATOR.name}:${OPERATOR.password}`).toString('base64')}`;
  const read: House['read'] = async (id) => {
    const answer = await fetch(`${service.intakeUrl}/v1/verifications/${id}`, { headers: { authorization } });
    return { status: answer.status, resource: (await answer.json()) as VerificationResource };
  };
  return {
    file,
    producer,
    results,
    webhooks: receiver.received,
    // As the API asks: where it is not known, or somebody is at it, the same key again, and it gives the one answer.
    verify: async (body, key = randomUUID()) =>
      await vi.waitFor(
        async () => {
          const answer = await fetch(`${service.intakeUrl}/v1/verifications`, {
            method: 'POST',
            headers: { authorization, 'content-type': 'application/json', 'idempotency-key': key, prefer: 'wait=15' },
            body: JSON.stringify(body),
          });
          const said = (await answer.json()) as VerificationResource;
          if (answer.status !== 200) throw new Error(`the intake answered ${answer.status}: ${JSON.stringify(said)}`);
          return said;
        },
        { timeout: 30_000, interval: 500 },
      ),
    read,
    until: async (id, is, withinMs = 15_000) => {
      let last: VerificationResource | null = null;
      const seen = async (): Promise<boolean> => {
        last = (await read(id)).resource;
        return is(last);
      };
      await vi.waitUntil(seen, { timeout: withinMs, interval: 30 }).catch(() => {
        throw new Error(`not within ${withinMs} ms; last seen: ${JSON.stringify(last)}`);
      });
      return last as unknown as VerificationResource;
    },
    report: async (path, body) => {
      const answer = await fetch(`${service.intakeUrl}/v1/callbacks/${path}`, {
        ...{ method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } },
      });
      return answer.status;
    },
    page: async (path) => {
      const answer = await fetch(`${service.consoleUrl}${path}`, { headers: { authorization: login } });
      return { status: answer.status, text: await answer.text() };
    },
    errors: () => errors,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([producer.close(), consumer.close()]);
      await service.close();
      await receiver[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
