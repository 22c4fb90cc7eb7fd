/** What these tests stand on: a Redis of their own, an intake on a free port, and a stand-in for the workers. */
import { type IncomingHttpHeaders, request } from 'node:http';
import { z } from 'zod';
import { EventBus, type Events } from '../../src/events.ts';
import { HTTP_LIMITS, type HttpLimits, openPort, type PortSettings } from '../../src/main-http.ts';
import { unreadAnswer } from '../../src/producers/guard.ts';
import { createIntake, type IntakeClient, type IntakeDependencies } from '../../src/producers/intake.ts';
import { PUBLISHED_CHANNEL, partitionKeys, partitionOf } from '../../src/producers/job.ts';
import { type ProducerQueues, producerQueues } from '../../src/producers/queues.ts';
import type { PartitionProfile } from '../../src/producers/request.ts';
import { generateSealingKey, Sealer, type SealingKeySet, sealingKeySetSchema } from '../../src/producers/sealing.ts';
import { Waiting } from '../../src/producers/waiting.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import { Secret } from '../../src/secret.ts';
import { startTestRedis, type TestRedis, type TestRedisOptions } from '../support/redis.ts';

const params = z.strictObject({ reference: z.string().min(1) });
const reference = (given: Readonly<Record<string, unknown>>) => ({ value: String(given.reference), personal: false });

function profile(name: string): PartitionProfile {
  return {
    name,
    otpLifetimeMs: 300_000,
    definition: {
      adapter: 'demo',
      operations: {
        verify: { params, takesOtp: true, plainParams: ['reference'], reference },
        send: { params, takesOtp: false, plainParams: [], reference },
      },
    },
  };
}

export const PARTITIONS: ReadonlyMap<string, PartitionProfile> = new Map(
  ['demo', 'other'].map((name) => [name, profile(name)]),
);

export const SHOP = { id: 'shop', apiKey: new Secret('key-of-the-shop') } satisfies IntakeClient;
export const KIOSK = {
  id: 'kiosk',
  apiKey: new Secret('key-of-the-kiosk'),
  providers: ['other'],
} satisfies IntakeClient;

/** Looked for in everything that is answered: it must never come back. */
export const CANARY = 'C4n4ry77';

export function demoRequest(more: Record<string, unknown> = {}): Record<string, unknown> {
  return { provider: 'demo', otp: CANARY, params: { reference: 'TX-1' }, ...more };
}

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly body: Record<string, unknown>;
}

export interface Call {
  readonly method?: string;
  readonly path?: string;
  readonly body?: unknown;
  /** Sent as it is, in the place of `body`. */
  readonly raw?: string | Buffer;
  readonly key?: string | null;
  readonly apiKey?: string | null;
  readonly headers?: Record<string, string>;
}

export interface World extends AsyncDisposable {
  readonly server: TestRedis;
  readonly redis: RedisConnection;
  readonly queues: ProducerQueues;
  readonly keySet: SealingKeySet;
  readonly events: EventBus;
  readonly waiting: Waiting;
  readonly answered: Events['intake:answered'][];
  readonly failed: Events['machinery:failed'][];
  readonly url: string;
  call(call: Call): Promise<Reply>;
  post(body: unknown, key: string, headers?: Record<string, string>): Promise<Reply>;
  get(id: string, headers?: Record<string, string>, query?: string): Promise<Reply>;
  /** Does to a record what a worker would do, and says so on the channel. */
  publish(id: string, fields: Record<string, string>): Promise<void>;
  jobs(partition?: string): Promise<number>;
}

export async function sealingKeys(kid = 'test-1'): Promise<SealingKeySet> {
  return sealingKeySetSchema.parse({ keys: [await generateSealingKey(kid)] });
}

export async function startWorld(
  options: Partial<IntakeDependencies> & {
    redisOptions?: TestRedisOptions;
    limits?: Partial<HttpLimits>;
    tls?: PortSettings['tls'];
  } = {},
): Promise<World> {
  const { redisOptions, limits, tls, ...given } = options;
  const server = await startTestRedis(redisOptions);
  const keySet = await sealingKeys();
  const events = new EventBus();
  const answered: Events['intake:answered'][] = [];
  const failed: Events['machinery:failed'][] = [];
  events.on('intake:answered', (one) => answered.push(one));
  events.on('machinery:failed', (one) => failed.push(one));
  const redis = connectRedis(server.url, 'producer', { onError: () => {} });
  const queues = producerQueues(redis);
  const waiting = new Waiting(redis, events);
  const intake = createIntake({
    redis,
    events,
    waiting,
    sealer: await Sealer.create(keySet),
    partitions: PARTITIONS,
    queue: queues.queue,
    clients: [SHOP, KIOSK],
    ...given,
  });
  const opened = await openPort(
    'intake',
    { host: '127.0.0.1', port: 0, ...(tls ? { tls } : {}) },
    {
      app: intake,
      unread: unreadAnswer,
      onUnread: (status) => events.emit('intake:answered', { status, durationMs: null }),
    },
    { ...HTTP_LIMITS, ...limits },
  );
  const { port } = new URL(opened.url);

  const call = async (one: Call): Promise<Reply> => {
    const headers: Record<string, string> = {};
    const content = one.raw ?? (one.body === undefined ? undefined : JSON.stringify(one.body));
    if (content !== undefined) headers['content-type'] = 'application/json';
    if (one.apiKey !== null) headers.authorization = `Bearer ${one.apiKey ?? SHOP.apiKey.reveal()}`;
    if (typeof one.key === 'string') headers['idempotency-key'] = one.key;
    return await new Promise((settle, fail) => {
      const sent = request(
        {
          host: '127.0.0.1',
          port,
          method: one.method ?? 'POST',
          path: one.path ?? '/v1/verifications',
          headers: { ...headers, ...one.headers },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('end', () => {
            const text = Buffer.concat(chunks).toString('utf8');
            const body = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
            settle({ status: response.statusCode ?? 0, headers: response.headers, text, body });
          });
        },
      );
      sent.on('error', fail);
      sent.end(content);
    });
  };

  return {
    server,
    redis,
    queues,
    keySet,
    events,
    waiting,
    answered,
    failed,
    url: opened.url,
    call,
    post: async (body, key, headers = {}) => await call({ body, key, headers }),
    get: async (id, headers = {}, query = '') =>
      await call({ method: 'GET', path: `/v1/verifications/${id}${query}`, headers }),
    publish: async (id, fields) => {
      const record = partitionKeys(partitionOf(id) ?? '').record(id);
      const replies = await redis
        .multi()
        .hincrby(record, 'sequence', 1)
        .hincrby(record, 'revision', 1)
        .hset(record, fields)
        .exec();
      await redis.publish(PUBLISHED_CHANNEL, `${id}.${replies?.[0]?.[1]}`);
    },
    jobs: async (partition = 'demo') => await queues.queue(partition).count(),
    [Symbol.asyncDispose]: async () => {
      await opened.close(0);
      await waiting.close();
      redis.disconnect();
      await queues.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

export const SETTLED = {
  state: 'settled',
  standing: '["accepted","succeeded",null,"none","00",null]',
};

export const AWAITING = {
  state: 'awaiting',
  standing: '["unknown","unknown","no_answer","wait",null,null]',
};

export async function eventually(is: () => boolean | Promise<boolean>, withinMs = 10_000): Promise<void> {
  const end = performance.now() + withinMs;
  while (!(await is())) {
    if (performance.now() > end) throw new Error(`it did not come to be within ${withinMs} ms: ${is}`);
    await new Promise((resume) => setTimeout(resume, 10));
  }
}
