/** One verification is one trace, over the processes that it passes through, as a collector receives it. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { createProducer } from '../../src/index.ts';
import { newKey, readKeySet, writeKeySet } from '../../src/key-files.ts';
import { startService } from '../../src/main.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { bodyFor } from '../support/pipeline.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

const SHOP = { id: 'shop', apiKey: 'api-key-of-the-shop-that-nobody-guesses' };
const TOKEN = 'token-of-the-collector-in-the-test';
const CALLER = { traceId: '4bf92f3577b34da6a3ce929d0e0e4736', spanId: '00f067aa0ba902b7' };
const TRACEPARENT = `00-${CALLER.traceId}-${CALLER.spanId}-01`;

interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { key: string; value: { stringValue?: string; intValue?: number } }[];
}

/** What a collector is for these tests: it takes OTLP over HTTP as JSON, and keeps it. */
interface Collector extends AsyncDisposable {
  readonly url: string;
  readonly received: string[];
  readonly tokens: Set<string | undefined>;
  spans(): Span[];
}

async function startCollector(): Promise<Collector> {
  const received: string[] = [];
  const tokens = new Set<string | undefined>();
  const server = createServer(async (message, answer) => {
    let body = '';
    for await (const chunk of message) body += chunk;
    received.push(body);
    tokens.add(message.headers.authorization);
    answer.writeHead(200, { 'Content-Type': 'application/json' }).end('{}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`,
    received,
    tokens,
    spans: () =>
      received
        .flatMap((body) => JSON.parse(body).resourceSpans as { scopeSpans: { spans: Span[] }[] }[])
        .flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans)),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}

interface House extends AsyncDisposable {
  readonly server: TestRedis;
  readonly sandbox: Sandbox;
  readonly folder: string;
  /** Posts a verification, and waits for the end of it. */
  verify(body: Record<string, unknown>, headers?: Record<string, string>): Promise<VerificationResource>;
  until(id: string): Promise<VerificationResource>;
  /** Ends both services, which tells the collector the rest. */
  end(): Promise<void>;
}

/** An intake and a worker that share nothing but Redis and their configuration. */
async function startHouse(tracing: Record<string, unknown>): Promise<House> {
  const folder = mkdtempSync(join(tmpdir(), 'otp-tracing-'));
  writeKeySet(join(folder, 'keys.json'), { keys: [await newKey('otp')] });
  const server = await startTestRedis();
  const sandbox = await startSandbox({ settleAfterMs: 0 });
  const webhooks = createServer((message, answer) => {
    message.resume().once('end', () => answer.writeHead(204).end());
  }).listen(0, '127.0.0.1');
  await once(webhooks, 'listening');
  const config = loadConfig({
    environment: {},
    baseDir: folder,
    data: {
      redis: { url: server.url },
      intake: { port: 0 },
      console: { port: 0 },
      clients: [SHOP],
      sealing: { keyFile: 'keys.json', detailsKeyFile: 'details.json' },
      results: {
        webhooks: [
          {
            client: 'shop',
            url: `http://127.0.0.1:${(webhooks.address() as AddressInfo).port}/`,
            secret: `whsec_${Buffer.from('a secret of the tests, of 32 bytes').toString('base64')}`,
          },
        ],
      },
      providers: { cepta: { ...sandbox.providers.cepta, inquiry: { delaysMs: [50, 100] } } },
      log: { level: 'silent' },
      tracing,
    },
  });
  const intake = await startService(config, { roles: ['intake'] });
  const worker = await startService(config, { roles: ['worker'] });
  const authorization = `Bearer ${SHOP.apiKey}`;
  const read = async (id: string): Promise<VerificationResource> =>
    (await (
      await fetch(`${intake.intakeUrl}/v1/verifications/${id}`, { headers: { authorization } })
    ).json()) as VerificationResource;
  const until = async (id: string): Promise<VerificationResource> =>
    await vi.waitFor(
      async () => {
        const resource = await read(id);
        if (!resource.final) throw new Error(`${id} is ${resource.state}`);
        return resource;
      },
      { timeout: 10_000, interval: 50 },
    );
  return {
    ...{ server, sandbox, folder, until },
    verify: async (body, headers = {}) => {
      const answer = await fetch(`${intake.intakeUrl}/v1/verifications`, {
        method: 'POST',
        headers: { authorization, 'content-type': 'application/json', 'idempotency-key': randomUUID(), ...headers },
        body: JSON.stringify(body),
      });
      expect(answer.status).toBe(202);
      return await until(((await answer.json()) as VerificationResource).id);
    },
    end: async () => void (await Promise.all([intake.close(), worker.close()])),
    [Symbol.asyncDispose]: async () => {
      await Promise.all([intake.close(), worker.close()]);
      webhooks.closeAllConnections();
      await new Promise((closed) => webhooks.close(closed));
      await sandbox[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** `child < parent`, for spans of a trace; whoever is not of ours has its id in place of a name. */
function kinships(spans: readonly Span[]): string[] {
  const named = new Map(spans.map(({ spanId, name }) => [spanId, name]));
  return spans
    .map(({ name, parentSpanId = '' }) => `${name} < ${named.get(parentSpanId) ?? (parentSpanId || 'nobody')}`)
    .sort();
}

describe('tracing', () => {
  test('one trace goes from the caller through intake, queue, attempt, call, inquiry and results to the webhook', async () => {
    await using collector = await startCollector();
    await using house = await startHouse({ endpoint: collector.url, headers: { authorization: TOKEN } });
    const body = bodyFor('cepta', '123456');
    const { id, otp, transaction, sequence } = await house.verify(body, { traceparent: TRACEPARENT });
    expect({ otp, transaction, sequence }).toEqual({ otp: 'accepted', transaction: 'succeeded', sequence: 2 });
    await house.end();

    const spans = collector.spans();
    expect([...new Set(spans.map(({ traceId }) => traceId))]).toEqual([CALLER.traceId]);
    const once = [
      `send otp-cepta < ${CALLER.spanId}`,
      'wait otp-cepta < send otp-cepta',
      'process otp-cepta < send otp-cepta',
      'verify cepta < process otp-cepta',
      'send otp-results < send otp-cepta',
      'POST webhook < send otp-cepta',
      'inquiry cepta < send otp-cepta',
    ];
    expect([...new Set(kinships(spans))]).toEqual([...once].sort());
    expect(kinships(spans).filter((line) => line.startsWith('send otp-results'))).toHaveLength(2);
    const process = spans.find(({ name }) => name === 'process otp-cepta');
    const attributes = Object.fromEntries(process?.attributes.map(({ key, value }) => [key, value]) ?? []);
    expect(attributes['messaging.message.id']).toEqual({ stringValue: id });
    expect(attributes['otp.transaction']).toEqual({ stringValue: 'pending' });
    for (const { startTimeUnixNano, endTimeUnixNano } of spans)
      expect(BigInt(endTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(startTimeUnixNano));
    expect(collector.tokens).toEqual(new Set([TOKEN]));

    const said = collector.received.join('\n');
    const { params } = body as { params: { md: string; transactionRef: string } };
    for (const secret of ['123456', SHOP.apiKey, params.md, params.transactionRef, TOKEN]) {
      expect(said).not.toContain(secret);
    }
  }, 30_000);

  test('what the library enqueues without a trace is the trace of its own id', async () => {
    await using collector = await startCollector();
    await using house = await startHouse({ endpoint: collector.url });
    await using producer = createProducer({
      client: SHOP,
      redis: house.server.url,
      sealingKeys: readKeySet(join(house.folder, 'keys.json'), 'the test'),
      partitions: { cepta: {} },
    });
    const { id } = await producer.enqueue(bodyFor('cepta', '123456'), { idempotencyKey: 'k-1' });
    await house.until(id);
    await house.end();
    const spans = collector.spans();
    expect([...new Set(spans.map(({ traceId }) => traceId))]).toEqual([id.slice(-32)]);
    expect(kinships(spans)).toContain('wait otp-cepta < nobody');
    expect(kinships(spans)).toContain('process otp-cepta < wait otp-cepta');
  }, 30_000);

  test('a ratio of 0 leaves out what begins here, and whoever calls with a trace decides for it', async () => {
    await using collector = await startCollector();
    await using house = await startHouse({ endpoint: collector.url, sampleRatio: 0 });
    await house.verify(bodyFor('cepta', '123456'));
    await house.verify(bodyFor('cepta', '123456'), { traceparent: TRACEPARENT.replace(/01$/, '00') });
    const traced = await house.verify(bodyFor('cepta', '123456'), { traceparent: TRACEPARENT });
    await house.end();
    const ids = collector
      .spans()
      .flatMap(({ attributes }) => attributes.filter(({ key }) => key === 'otp.verification.id'));
    expect([...new Set(ids.map(({ value }) => value.stringValue))]).toEqual([traced.id]);
  }, 30_000);

  test('a collector that is away holds up nothing', async () => {
    await using house = await startHouse({ endpoint: 'http://127.0.0.1:9/v1/traces' });
    expect(await house.verify(bodyFor('cepta', '123456'))).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
  }, 30_000);
});
