/** The composition root: configuration -> Redis -> roles started in order -> closed in the opposite order. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { Registry } from 'prom-client';
import { Queue } from './bullmq.ts';
import { type Config, type Partition, ROLES, type Role } from './config.ts';
import { OutcomeCounter } from './console/outcomes.ts';
import { createConsole, unreadPage } from './console/server.ts';
import { EventBus } from './events.ts';
import { readKeySet, readOrMakeKeySet } from './key-files.ts';
import { createLogger, logEvents } from './log.ts';
import { openPort, type Port, portWarning, StartError } from './main-http.ts';
import { waitNoLongerThanNeeded } from './main-redis-away.ts';
import { meansOf, queuesOf, resultsQueuesOf, tlsOf } from './main-settings.ts';
import { collectClocks } from './metrics/clocks.ts';
import { collectDepths, DepthReader, watchingQueue } from './metrics/depths.ts';
import { type ObservedPartition, observe } from './metrics/observe.ts';
import { collectAwaitedReplicas } from './metrics/redis-server.ts';
import { createMetrics } from './metrics/registry.ts';
import { declareSettings } from './metrics/settings.ts';
import type { Tracing } from './metrics/tracing.ts';
import { asyncApi } from './producers/asyncapi.ts';
import { backlogGuard } from './producers/backlog.ts';
import { callbackQueues } from './producers/callbacks.ts';
import { unreadAnswer } from './producers/guard.ts';
import { createIntake } from './producers/intake.ts';
import { namesOf, queueNames, webhookQueueName } from './producers/job.ts';
import { openApi } from './producers/openapi.ts';
import { producerQueues } from './producers/queues.ts';
import type { PartitionProfile } from './producers/request.ts';
import { Opener, publicKeySet, Sealer, type SealingKeySet } from './producers/sealing.ts';
import { Waiting } from './producers/waiting.ts';
import type { Operation, TokenCall } from './providers/provider.ts';
import {
  type ConnectionProfile,
  checkRedis,
  connectRedis,
  type RedisConnection,
  type RedisSettings,
  redisWarnings,
  replicaWarnings,
} from './redis/connections.ts';
import { startEmbeddedRedis } from './redis/embedded.ts';
import { firstAnswer } from './redis/first-answer.ts';
import { Held } from './redis/held.ts';
import { Secret } from './secret.ts';
import { Operator } from './workers/operator.ts';
import { refuseForgottenPartitions } from './workers/partitions.ts';
import { AddressGuard } from './workers/public-address.ts';
import { Retention } from './workers/retention.ts';
import { WebhookSender } from './workers/webhooks.ts';
import { journalSettings, PartitionWorker } from './workers/worker.ts';

/** Longer than an intake waits for a Redis that does not answer, so that its callers hear at least that. */
const INTAKE_PATIENCE_MS = 5_000;

const { version: VERSION } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

export interface ServiceOptions {
  /** All of them by default. */
  readonly roles?: readonly Role[];
  /** A file for the log instead of standard output. */
  readonly logTo?: string;
}

export interface Service {
  /** Null where this process has not the role. */
  readonly intakeUrl: string | null;
  /** Every process serves /healthz, /readyz and /metrics there, whatever its roles. */
  readonly consoleUrl: string;
  /** From now on /readyz is 503, and the intake ends every connection with its next answer; all the rest goes on. */
  leave(): void;
  /**
   * In order: nothing new comes in and what is under way is answered; workers take no more jobs and let attempts in flight
   * settle; the operator's port, and what all of it stands on.
   */
  close(): Promise<void>;
}

export { StartError };

/** Starts everything or nothing: what was started before a fault is closed again. */
export async function startService(config: Config, options: ServiceOptions = {}): Promise<Service> {
  const roles = new Set(options.roles ?? ROLES);
  const log = createLogger({ level: config.log.level, file: options.logTo });
  const events = new EventBus();
  logEvents(events, log);
  const tracing = await startTracing(config, events);
  for (const warning of config.warnings) log.warn(warning);
  for (const port of roles.has('intake') ? (['intake', 'console'] as const) : (['console'] as const)) {
    const warning = portWarning(port, config[port]);
    if (warning !== null) log.warn(warning);
  }

  const closers: (() => Promise<unknown>)[] = tracing ? [() => tracing.close()] : [];
  let leaving = false;
  const ports: { intake?: Port; console?: Port } = {};
  const leave = (): void => {
    leaving = true;
    ports.intake?.leave();
  };
  const close = async (): Promise<void> => {
    leave();
    for (const step of closers.splice(0).reverse()) {
      await step().catch((error: Error) => log.error({ error: error.message }, 'a part did not close in order'));
    }
  };

  try {
    if (config.partitions.length === 0) throw new StartError('providers: there must be at least one');
    // Keys first: a start that cannot work should not have started a server.
    const codeKeys = codeKeysFor(roles, config.sealing.keyFile, (text) => log.warn(text));
    const detailsKeys = await readOrMakeKeySet(config.sealing.detailsKeyFile, 'sealing.detailsKeyFile');
    if (roles.has('intake') && !opensSomething(detailsKeys))
      throw new StartError('sealing.detailsKeyFile: it has no private key, so no GET could show details');

    const redisSettings = await whereRedisIs(config, closers, (error) =>
      log.error({ error: error.message }, 'Redis ended'),
    );
    const connect = (profile: ConnectionProfile): RedisConnection => {
      const onError = (error: Error): void => events.emit('machinery:failed', { where: `Redis (${profile})`, error });
      const connection = connectRedis(redisSettings, profile, { onError });
      closers.push(async () => connection.disconnect());
      return connection;
    };
    const watching = connect('console');
    const faults = await firstAnswer(
      watching,
      () => checkRedis(watching),
      (why) => new StartError(`redis: ${why}`),
    );
    if (faults.length > 0) throw new StartError(`redis: ${faults.join('; ')}`);
    for (const warning of await redisWarnings(watching)) log.warn(warning);
    for (const warning of await replicaWarnings(watching, config.journal)) log.warn(warning);

    const registry = new Registry();
    observe(events, createMetrics(registry), {
      partitions: config.partitions.map(observedPartition),
      clients: config.clients.map(({ id }) => id),
      webhooks: config.results.webhooks.map(({ client }) => client),
    });
    collectClocks(registry, events);
    collectAwaitedReplicas(registry, events);
    declareSettings(registry, meansOf(config));
    const onQueueError = (error: Error): void => events.emit('machinery:failed', { where: 'a watched queue', error });
    const queues = queuesOf(config).map(({ name, prefix }) => watchingQueue(name, prefix, watching, onQueueError));
    closers.push(async () => await Promise.all(queues.map((queue) => queue.close())));
    const partitions = config.partitions.map(({ name }) => ({ name, keys: namesOf(watching).partitionKeys(name) }));
    const depths = new DepthReader({ redis: watching, queues, partitions });
    collectDepths(registry, depths);
    // It opens last and closes after all work has ended: until then health and metrics are asked for.
    closers.push(async () => await ports.console?.close());

    const workers = roles.has('worker')
      ? await startWorkers(config, codeKeys, detailsKeys, connect('worker'), events, closers)
      : [];
    if (roles.has('intake')) {
      const told = { events, tracing };
      ports.intake = await startIntake(config, codeKeys, detailsKeys, connect('producer'), told, closers);
    }
    const seen = { registry, depths, queues, redis: watching, workers, events };
    ports.console = await startConsole(config, roles, seen, () => !leaving);
    const [intakeUrl, consoleUrl] = [ports.intake?.url ?? null, ports.console.url];
    log.info({ roles: [...roles], intakeUrl, consoleUrl, partitions: partitions.map(({ name }) => name) }, 'ready');
    return { intakeUrl, consoleUrl, leave, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Who carries out must open. Who does not has no use for what opens, and keeps none of it. */
function codeKeysFor(roles: ReadonlySet<Role>, file: string, warn: (text: string) => void): SealingKeySet {
  const keySet = readKeySet(file, 'sealing.keyFile');
  if (roles.has('worker')) {
    if (opensSomething(keySet)) return keySet;
    throw new StartError(
      `sealing.keyFile: ${file}: has no private key (a member d), so a worker could open nothing; ` +
        'it needs the file that `otp keys generate` made',
    );
  }
  if (opensSomething(keySet)) {
    warn(
      'sealing.keyFile: it has private keys, for which this process has no use: give it what `otp keys public` prints',
    );
  }
  return publicKeySet(keySet);
}

function opensSomething({ keys }: SealingKeySet): boolean {
  return keys.some(({ d }) => d !== undefined);
}

async function startWorkers(
  config: Config,
  codeKeys: SealingKeySet,
  detailsKeys: SealingKeySet,
  redis: RedisConnection,
  events: EventBus,
  closers: (() => Promise<unknown>)[],
): Promise<PartitionWorker[]> {
  await refuseForgottenPartitions(
    redis,
    config.partitions.map(({ name }) => name),
  );
  const [sealer, opener, detailsSealer] = [
    await Sealer.create(codeKeys),
    await Opener.create(codeKeys, { rememberDerivedKeys: config.sealing.reuseEphemeralKey !== undefined }),
    await Sealer.create(detailsKeys),
  ];
  const clientSealers = new Map<string, Sealer>();
  for (const { id, resultsKey } of config.clients) {
    if (resultsKey) clientSealers.set(id, await Sealer.create({ keys: [resultsKey] }));
  }
  const clientQueues = new Map(config.clients.map(({ id, resultsQueue }) => [id, resultsQueue]));
  const names = namesOf(redis);
  const resultQueues = new Map<string, Queue>();
  const queueOf = (name: string, prefix: string): Queue => {
    const known = resultQueues.get(name);
    if (known) return known;
    const queue = new Queue(name, { connection: redis, prefix });
    queue.on('error', (error) => events.emit('machinery:failed', { where: `queue ${name}`, error }));
    resultQueues.set(name, queue);
    return queue;
  };
  closers.push(async () => await Promise.all([...resultQueues.values()].map((queue) => queue.close())));
  const senders = config.results.webhooks.map((webhook) => {
    const guard = new AddressGuard({ allow: config.results.webhookAllow, configuredUrls: [webhook.url] });
    return new WebhookSender(webhook, { redis, events, connect: guard.connector() });
  });
  closers.push(async () => await Promise.all(senders.map((sender) => sender.close())));
  const held = heldFor(config, redis, events, closers);
  const withWebhook = new Set(config.results.webhooks.map(({ client }) => client));

  // Names the process for people, and can never be another one's.
  const worker = `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`;
  const workers = config.partitions.map((partition) => {
    const { tls, ...settings } = partition;
    return new PartitionWorker(
      { ...settings, ...tlsOf(tls), ...config.journal, closeLimitMs: config.shutdown.attemptsMs },
      {
        redis,
        worker,
        held,
        sealer,
        opener,
        events,
        sealDetails: async (client, details) => await (clientSealers.get(client) ?? detailsSealer).seal(details),
        client: (id) => ({
          resultsQueue: clientQueues.get(id),
          sealedToClient: clientSealers.has(id),
          hasWebhook: withWebhook.has(id),
        }),
        resultsQueue: (name) => queueOf(name, names.resultsPrefix(name)),
        webhookQueue: (client) => queueOf(webhookQueueName(client), names.webhookQueuePrefix(client)),
      },
    );
  });
  const outcomes = new OutcomeCounter({ redis, events });
  closers.push(() => outcomes.close());
  const { results, journal } = config;
  const retention = new Retention(
    { ...journal, resultsMs: results.retentionMs },
    {
      redis,
      partitions: config.partitions.map(({ name }) => name),
      resultsQueues: resultsQueuesOf(config),
      webhookClients: results.webhooks.map(({ client }) => client),
      events,
    },
  );
  closers.push(() => retention.close());
  closers.push(async () => await Promise.all(workers.map((each) => each.close())));
  closers.push(async () => waitNoLongerThanNeeded(redis, workers));
  await Promise.all(workers.map((each) => each.start()));
  for (const sender of senders) sender.start();
  retention.start();
  return workers;
}

function heldFor(
  { journal: { waitReplicas, waitMs } }: Config,
  redis: RedisConnection,
  events: EventBus,
  closers: (() => Promise<unknown>)[],
): Held {
  const onError = (error: Error): void => events.emit('machinery:failed', { where: 'Redis (held)', error });
  const held = new Held({ redis, waitReplicas, waitMs, onError });
  closers.push(async () => held.close());
  return held;
}

/** Its modules are many: they are loaded only where they are asked for. */
async function startTracing({ tracing: { endpoint, ...settings } }: Config, events: EventBus): Promise<Tracing | null> {
  if (endpoint === undefined) return null;
  const { Tracing } = await import('./metrics/tracing.ts');
  const tracing = new Tracing({ endpoint, ...settings }, VERSION);
  tracing.listen(events);
  return tracing;
}

async function startIntake(
  config: Config,
  codeKeys: SealingKeySet,
  detailsKeys: SealingKeySet,
  redis: RedisConnection,
  { events, tracing }: { events: EventBus; tracing: Tracing | null },
  closers: (() => Promise<unknown>)[],
): Promise<Port> {
  const { queue, close } = producerQueues(redis);
  closers.push(close);
  const callbacks = callbackQueues(redis);
  closers.push(callbacks.close);
  const bound = new Map(config.partitions.map(({ name, provider }) => [name, provider.callback]));
  const waiting = new Waiting(redis, events);
  const detailsOpener = await Opener.create(detailsKeys);
  const profiles = new Map<string, PartitionProfile>(config.partitions.map((partition) => [partition.name, partition]));
  const rates = new Map(config.partitions.map(({ name, rateLimit }) => [name, rateLimit]));
  const clientRates = new Map(config.clients.map(({ id, rateLimit }) => [id, rateLimit]));
  const held = heldFor(config, redis, events, closers);
  const app = createIntake({
    redis,
    held,
    sealer: await Sealer.create(codeKeys, { reuseEphemeralKey: config.sealing.reuseEphemeralKey }),
    events,
    partitions: profiles,
    queue,
    turnAway: backlogGuard({ queue, rateLimit: (partition) => rates.get(partition) }),
    rateLimit: (client) => clientRates.get(client) ?? null,
    clients: config.clients,
    waiting,
    callbacks: { of: (partition) => bound.get(partition) ?? null, queue: callbacks.queue },
    openDetails: async (sealed) => await detailsOpener.open(sealed),
    ...(tracing === null ? {} : { enterTrace: (received) => tracing.enter(received) }),
    descriptions: {
      '/openapi.json': openApi([...profiles.values()], VERSION),
      '/asyncapi.json': asyncApi([...profiles.keys()], VERSION, namesOf(config.redis)),
    },
  });
  const port = await openPort('intake', config.intake, {
    app,
    unread: unreadAnswer,
    onUnread: (status) => events.emit('intake:answered', { status, durationMs: null }),
  });
  closers.push(() => port.close(INTAKE_PATIENCE_MS));
  closers.push(() => waiting.close()); // first of all, so that whoever waits gets an answer before the server ends
  return port;
}

async function startConsole(
  config: Config,
  roles: ReadonlySet<Role>,
  seen: {
    registry: Registry;
    depths: DepthReader;
    queues: readonly Queue[];
    redis: RedisConnection;
    workers: readonly PartitionWorker[];
    events: EventBus;
  },
  staying: () => boolean,
): Promise<Port> {
  const { registry, depths, queues, redis, workers, events } = seen;
  const app = createConsole({
    registry,
    events,
    readiness: {
      redis: async () => (await redis.ping()) === 'PONG',
      workers: () => workers.every((worker) => worker.running),
      configuration: () => true, // a process with a faulty one has not come this far
      staying,
    },
    pages: roles.has('console')
      ? {
          users: config.console.users,
          redis,
          partitions: config.partitions,
          clients: config.clients,
          operator: operatorFor(config, redis, events),
          queues,
          depths,
        }
      : null,
  });
  return await openPort('console', config.console, { app, unread: unreadPage });
}

function operatorFor(config: Config, redis: RedisConnection, events: EventBus): Operator {
  const partitions = config.partitions.map((partition) => journalSettings({ ...partition, ...config.journal }));
  return new Operator({ redis, partitions, name: `otp-console-${process.pid}`, events });
}

async function whereRedisIs(
  config: Config,
  closers: (() => Promise<unknown>)[],
  onUnexpectedExit: (error: Error) => void,
): Promise<RedisSettings> {
  const { redis } = config;
  if (redis !== undefined) return redis;
  const embedded = await startEmbeddedRedis({ dataDir: config.embedded.dataDir, onUnexpectedExit });
  closers.push(() => embedded.stop());
  return { url: new Secret(embedded.url) };
}

function observedPartition({ name, provider }: Partition): ObservedPartition {
  const { queue, inquiryQueue } = queueNames(name);
  return {
    name,
    operations: Object.keys(provider.operations) as Operation[],
    effect: provider.effect,
    inquires: provider.inquiry !== null,
    tokenCalls: Object.keys(provider.tokens) as TokenCall[],
    queues: [queue, inquiryQueue],
  };
}
