#!/usr/bin/env node
/** The `otp` command: a thin face over the rooms. Every command has --help and --json; faults go to stderr, exit code 1 or 2. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { Queue } from 'bullmq';
import { Command, InvalidArgumentError, Option } from 'commander';
import pc from 'picocolors';
import { addKeyCommands } from './cli-keys.ts';
import { addOutboxCommand } from './cli-outbox.ts';
import { addSecretCommands } from './cli-secrets.ts';
import { addWebhookCommands } from './cli-webhooks.ts';
import { type Config, loadConfig, ROLES, type Role } from './config.ts';
import { EventBus } from './events.ts';
import { readKeySet } from './key-files.ts';
import { accept } from './producers/accept.ts';
import { awaitedNext } from './producers/awaited.ts';
import { PUBLISHED_CHANNEL, partitionKeys, partitionOf, type VerificationJob } from './producers/job.ts';
import { producerQueues } from './producers/queues.ts';
import { readVerification } from './producers/reading.ts';
import { resourceOf, type VerificationRecord, type VerificationResource } from './producers/record.ts';
import { publicKeySet, Sealer } from './producers/sealing.ts';
import { Waiting } from './producers/waiting.ts';
import { connectRedis, type RedisConnection, type RedisSettings } from './redis/connections.ts';
import { findEmbeddedRedis } from './redis/embedded.ts';
import type { Facts } from './workers/change.ts';
import type { Evidence } from './workers/decide.ts';
import { Journal } from './workers/journal.ts';
import { journalSettings, scheduleInquiry } from './workers/worker.ts';

/** A fault that the person at the terminal can mend; shown without a stack. */
class CommandError extends Error {
  override readonly name = 'CommandError';
}

/** By name, so that a command loads only what it needs: the service alone is half a second of modules. */
const KNOWN_FAULTS = [
  'CommandError',
  'ConfigError',
  'KeyFileError',
  'OutboxError',
  'StartError',
  'InvalidRequestError',
  'FaultSpecError',
];

/** Kept of what persons did, per partition. */
const AUDIT_ENTRIES = 100_000;

const configOption = new Option('-c, --config <file>', 'configuration file (YAML or JSON)').env('OTP_CONFIG');
const jsonOption = new Option('--json', 'one JSON document per line instead of text');

const program = new Command('otp')
  .description('Carries OTP verifications to payment providers: no code is submitted twice, no outcome is guessed.')
  .version(
    (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }).version,
  )
  .showHelpAfterError('(add --help for what is expected)');

program
  .command('serve')
  .description('runs the service from a configuration: never against a sandbox by itself')
  .addOption(configOption)
  .option('--roles <roles>', `any of ${ROLES.join(',')}`, parseRoles, [...ROLES])
  .addOption(jsonOption)
  .addHelpText('after', '\nExamples:\n  otp serve --config otp.yaml\n  otp serve --config otp.yaml --roles worker')
  .action(async ({ config, roles, json }: { config?: string; roles: Role[]; json?: boolean }) => {
    const { startService } = await import('./main.ts');
    const service = await startService(loadConfig({ file: config }), { roles });
    if (json) printJson({ ready: true, intakeUrl: service.intakeUrl, consoleUrl: service.consoleUrl });
    await untilStopped(() => service.close());
    process.exit(0); // what did not end in time must not keep the process either
  });

program
  .command('enqueue')
  .description('enqueues one verification as a configured client, straight into Redis')
  .addOption(configOption)
  .requiredOption('--provider <partition>', 'the partition')
  .option('--operation <operation>', 'verify, or send where the provider has it', 'verify')
  .option('--client <id>', 'which configured client enqueues; the first by default')
  .option('--otp <code>', 'the code; - reads it from standard input, which keeps it out of the process list')
  .option('--param <name=value...>', "a parameter by the provider's own name; may be repeated", collectParams, {})
  .option('--amount <value currency>', 'for instance "100.00 NGN"')
  .option('--idempotency-key <key>', 'the same key again gives the same verification; random by default')
  .option('--wait <seconds>', 'waits until it is final or awaits proof', parseSeconds)
  .addOption(jsonOption)
  .addHelpText(
    'after',
    '\nExample:\n  echo 123456 | otp enqueue --config otp.yaml --provider beqelal --otp - --param reference=ORDER17 --wait 20',
  )
  .action(async (options: EnqueueOptions) => {
    await enqueue(options);
  });

program
  .command('show')
  .description('one verification: how it stands and what has happened to it')
  .argument('<id>', 'the verification id')
  .addOption(configOption)
  .addOption(jsonOption)
  .action(async (id: string, { config, json }: { config?: string; json?: boolean }) => {
    await withRedis(loadConfig({ file: config }), async (redis) => {
      const record = await readExisting(redis, id);
      const awaits = awaitedNext(record);
      if (json) printJson({ ...resourceOf(record), awaits });
      else printStory(resourceOf(record), awaits);
    });
  });

program
  .command('resolve')
  .description('settles one that awaits proof, on evidence that you have: the last way out of an unknown')
  .argument('<id>', 'the verification id')
  .addOption(
    new Option('--as <outcome>', 'what became of the money').choices(['succeeded', 'failed']).makeOptionMandatory(),
  )
  .requiredOption(
    '--evidence <text>',
    'what proves it, for whoever asks later: a statement, a case number',
    parseEvidence,
  )
  .option('--by <name>', 'who resolves it', userInfo().username)
  .addOption(configOption)
  .addOption(jsonOption)
  .addHelpText(
    'after',
    '\nExample:\n  otp resolve beqelal_0197a3… --as succeeded --evidence "bank statement of 21 November, line 4"',
  )
  .action(async (id: string, options: ResolveOptions) => {
    await conclude(
      id,
      options,
      { from: 'operator', as: options.as },
      { as: options.as, evidence: options.evidence, by: options.by },
    );
  });

program
  .command('inquire')
  .description('asks the provider now what became of one that awaits proof')
  .argument('<id>', 'the verification id')
  .option('--by <name>', 'who asks', userInfo().username)
  .addOption(configOption)
  .addOption(jsonOption)
  .action(async (id: string, options: { by: string; config?: string; json?: boolean }) => {
    await conclude(id, options, { from: 'nudge' }, { by: options.by });
  });

program
  .command('watch')
  .description('results as they are published, until Ctrl-C')
  .addOption(configOption)
  .option('--provider <partition>', 'only this partition')
  .addOption(jsonOption)
  .action(async ({ config, provider, json }: { config?: string; provider?: string; json?: boolean }) => {
    await withRedis(loadConfig({ file: config }), async (redis, settings) => {
      // Subscribed again by itself whenever Redis comes back.
      const subscriber = connectRedis(settings, 'worker', {
        onError: (error) => console.error(`redis: ${error.message}`),
      });
      subscriber.on('message', async (_channel: string, message: string) => {
        const id = message.slice(0, message.lastIndexOf('.'));
        if (provider !== undefined && partitionOf(id) !== provider) return;
        try {
          const resource = await readResource(redis, id);
          if (json) printJson(resource);
          else console.log(summaryLine(resource));
        } catch (error) {
          console.error(error instanceof Error ? error.message : error);
        }
      });
      await subscriber.subscribe(PUBLISHED_CHANNEL);
      if (!json) console.error(pc.dim('watching for results, until Ctrl-C'));
      await untilStopped(async () => subscriber.disconnect());
    });
  });

const keys = program.command('keys').description('the keys that seal codes');
addKeyCommands(keys, withRedis);
addSecretCommands(keys);
addWebhookCommands(program.command('webhooks').description("results at the clients' own endpoints"), withRedis);
addOutboxCommand(program.command('outbox'), withRedis, untilStopped);

program
  .command('sandbox')
  .description('the five providers, simulated over HTTP on this machine, with a money ledger (docs/sandbox.md)')
  .option('--ledger <file>', 'appends every entry to this file as a JSON line')
  .option('--settle-after-ms <ms>', 'from an accepted code to the end of the payment', parseMs)
  .option('--faults <spec>', 'faults that hit at random, for instance commit_then_reset=0.05,slow=0.1:300')
  .option('--seed <number>', 'the same seed and the same requests give the same faults; 1 by default', Number)
  .addOption(jsonOption)
  .addOption(new Option('--ends-with-stdin', 'ends when standard input does, as a child of another process').hideHelp())
  .action(async (options: SandboxCommandOptions) => {
    const { startSandbox } = await import('./sandbox/index.ts');
    const sandbox = await startSandbox({
      ...(options.ledger === undefined ? {} : { ledgerFile: options.ledger }),
      ...(options.settleAfterMs === undefined ? {} : { settleAfterMs: options.settleAfterMs }),
      ...(options.faults === undefined ? {} : { faults: options.faults }),
      ...(options.seed === undefined ? {} : { seed: options.seed }),
    });
    if (options.json) printJson({ control: sandbox.control, providers: sandbox.providers });
    else {
      console.log('Five providers that are none. For a configuration: GET /providers of the control address.\n');
      for (const [name, { baseUrl }] of Object.entries(sandbox.providers))
        console.log(`  ${name.padEnd(13)} ${baseUrl}`);
      console.log(
        `  ${'control'.padEnd(13)} ${sandbox.control.url}   (/providers, /ledger, /transactions)\n\nUntil Ctrl-C.`,
      );
    }
    if (options.endsWithStdin) process.stdin.resume().once('end', () => process.kill(process.pid, 'SIGTERM'));
    await untilStopped(() => sandbox.close());
  });

program
  .command('tour', { hidden: true })
  .description('what `npm start` runs: the whole pipeline against the sandboxes')
  .option('--once', 'exits when the tour is over: 0 when the ledger agrees with every result, else 1')
  .action(async ({ once = false }: { once?: boolean }) => {
    const { tour } = await import('./tour/tour.ts');
    process.exitCode = await tour({ once });
  });

interface ResolveOptions {
  as: 'succeeded' | 'failed';
  evidence: string;
  by: string;
  config?: string;
  json?: boolean;
}

/** A person's evidence goes the way of all evidence: decided by the policy, written to the revision it was decided on. */
async function conclude(
  id: string,
  { config: file, json }: { config?: string; json?: boolean },
  evidence: Evidence,
  facts: Facts,
): Promise<void> {
  const config = loadConfig({ file });
  await withRedis(config, async (redis) => {
    const record = await readExisting(redis, id);
    const partition = config.partitions.find(({ name }) => name === record.partition);
    if (!partition) throw new CommandError(`providers: ${record.partition} is not configured here`);
    const journal = new Journal(redis, journalSettings({ ...partition, ...config.journal }), `otp-cli-${process.pid}`);
    const { verdict } = await journal.apply(record, evidence, facts, async () => {
      throw new Error('a person brings no details of the provider');
    });
    if (verdict === null || verdict.do === 'nothing') throw new CommandError(refusal(record, evidence));
    const keys = partitionKeys(partition.name);
    const audited = Object.entries({ id, ...facts, verdict: verdict.do }).flatMap(([name, fact]) => [
      name,
      String(fact),
    ]);
    await redis.xadd(keys.audit, 'MAXLEN', '~', AUDIT_ENTRIES, '*', ...audited);
    if (verdict.do === 'await' && verdict.inquireInMs !== null) {
      const queue = new Queue<VerificationJob>(keys.inquiryQueue, {
        connection: redis,
        prefix: keys.prefix,
        skipMetasUpdate: true,
      });
      await scheduleInquiry(queue, id, verdict.inquireInMs);
      await queue.close();
    }
    const resource = await readResource(redis, id);
    if (json) printJson(resource);
    else console.log(summaryLine(resource));
  });
}

function refusal(record: VerificationRecord, evidence: Evidence): string {
  if (record.state === 'settled')
    return `${record.id}: it is final, ${record.standing?.otp} / ${record.standing?.transaction}, and that is never taken back`;
  if (record.state !== 'awaiting') return `${record.id}: it is ${record.state}, so there is nothing to prove yet`;
  if (evidence.from === 'nudge')
    return `${record.id}: ${record.partition} has no inquiry for it; it waits for a callback, or for otp resolve`;
  return `${record.id}: it has just moved on; look again with otp show`;
}

interface SandboxCommandOptions {
  ledger?: string;
  settleAfterMs?: number;
  faults?: string;
  seed?: number;
  json?: boolean;
  endsWithStdin?: boolean;
}

interface EnqueueOptions {
  config?: string;
  provider: string;
  operation: string;
  client?: string;
  otp?: string;
  param: Record<string, string>;
  amount?: string;
  idempotencyKey?: string;
  wait?: number;
  json?: boolean;
}

async function enqueue(options: EnqueueOptions): Promise<void> {
  const config = loadConfig({ file: options.config });
  const client =
    options.client === undefined ? config.clients[0] : config.clients.find(({ id }) => id === options.client);
  if (!client) {
    throw new CommandError(
      `--client: must be one of the configured clients (${config.clients.map(({ id }) => id).join(', ') || 'there is none'})`,
    );
  }
  const otp = options.otp === '-' ? readFileSync(0, 'utf8').trim() : options.otp;
  const [value, currency] = options.amount?.split(' ') ?? [];
  const body = {
    provider: options.provider,
    operation: options.operation,
    ...(otp === undefined ? {} : { otp }),
    params: options.param,
    ...(options.amount === undefined ? {} : { amount: { value, currency } }),
  };
  await withRedis(config, async (redis) => {
    const queues = producerQueues(redis);
    const events = new EventBus();
    const waiting = new Waiting(redis, events);
    try {
      const acceptance = await accept(client, options.idempotencyKey ?? randomUUID(), body, {
        redis,
        sealer: await Sealer.create(publicKeySet(readKeySet(config.sealing.keyFile, 'sealing.keyFile'))),
        events,
        partitions: new Map(config.partitions.map((partition) => [partition.name, partition])),
        queue: queues.queue,
      });
      if (acceptance.kind !== 'accepted') {
        throw new CommandError(
          acceptance.kind === 'mismatch'
            ? '--idempotency-key: was used for another request'
            : 'the same request is being accepted right now: try again with the same --idempotency-key',
        );
      }
      const { id } = acceptance;
      const resource =
        options.wait === undefined
          ? await readResource(redis, id)
          : await waiting.until(
              id,
              () => readResource(redis, id),
              ({ sequence }) => sequence > 0,
              { limitMs: options.wait * 1_000 },
            );
      if (options.json) printJson(resource);
      else console.log(summaryLine(resource));
    } finally {
      await waiting.close();
      await queues.close();
    }
  });
}

async function withRedis(
  config: Config,
  work: (redis: RedisConnection, settings: RedisSettings) => Promise<void>,
): Promise<void> {
  const settings = config.redis ?? (await embeddedSettings(config.embedded.dataDir));
  const faults = new Set<string>();
  const redis = connectRedis(settings, 'console', { onError: (error) => void faults.add(error.message) });
  try {
    await redis.ping().catch((error: Error) => {
      throw new CommandError(`redis: it does not answer (${[...faults].join('; ') || error.message})`);
    });
    await work(redis, settings);
  } finally {
    redis.disconnect();
  }
}

async function embeddedSettings(dataDir: string): Promise<{ url: string }> {
  const url = await findEmbeddedRedis(dataDir);
  if (url !== null) return { url };
  throw new CommandError(`embedded.dataDir: no server runs on ${dataDir}; start \`otp serve\` first, or set redis.url`);
}

async function readResource(redis: RedisConnection, id: string): Promise<VerificationResource> {
  return resourceOf(await readExisting(redis, id));
}

async function readExisting(redis: RedisConnection, id: string): Promise<VerificationRecord> {
  if (partitionOf(id) === null)
    throw new CommandError('an id looks like cepta_0197a3…: the partition, _ and 32 hex digits');
  const record = await readVerification(redis, id);
  if (!record) throw new CommandError(`${id}: there is no such verification, or its retention is over`);
  return record;
}

function summaryLine({ id, state, otp, transaction, reason, nextStep }: VerificationResource): string {
  const words = [otp, transaction, reason, nextStep].filter((word) => word !== null).join(' / ');
  return `${id}  ${state}${words === '' ? '' : `  ${words}`}`;
}

function printStory(resource: VerificationResource, awaits: string | null): void {
  const { history = [], metadata: _, ...facts } = resource;
  for (const [name, fact] of Object.entries(facts)) {
    if (fact !== null)
      console.log(`${pc.dim(name.padEnd(18))} ${typeof fact === 'object' ? JSON.stringify(fact) : fact}`);
  }
  if (awaits !== null) console.log(`${pc.dim('awaits'.padEnd(18))} ${awaits}`);
  console.log('');
  for (const { at, event, ...more } of history) {
    const said = Object.entries(more).map(([name, fact]) => `${name} ${fact}`);
    console.log(`${pc.dim(at)}  ${pc.bold(event)}${said.length > 0 ? `  ${said.join(', ')}` : ''}`);
  }
}

function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** The first signal closes in order, the second one at once. */
async function untilStopped(close: () => Promise<void>): Promise<void> {
  await new Promise<void>((stopped) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => {
        process.once(signal, () => process.exit(1));
        stopped();
      });
    }
  });
  await close();
}

function parseRoles(text: string): Role[] {
  const roles = text.split(',').map((role) => role.trim());
  const unknown = roles.filter((role) => !(ROLES as readonly string[]).includes(role));
  if (unknown.length > 0) throw new InvalidArgumentError(`must be any of ${ROLES.join(', ')}, separated by commas.`);
  return roles as Role[];
}

function collectParams(text: string, params: Record<string, string>): Record<string, string> {
  const at = text.indexOf('=');
  // Commander's own error would repeat the text, which may be a customer's.
  if (at < 1) throw new CommandError('--param: must be name=value');
  return { ...params, [text.slice(0, at)]: text.slice(at + 1) };
}

function parseEvidence(text: string): string {
  const evidence = text.trim();
  if (evidence.length < 5 || evidence.length > 500) throw new InvalidArgumentError('must be 5 to 500 characters.');
  return evidence;
}

function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (!(seconds > 0 && seconds <= 3_600)) throw new InvalidArgumentError('must be a number of seconds, 3600 at most.');
  return seconds;
}

function parseMs(text: string): number {
  const ms = Number(text);
  if (!(Number.isInteger(ms) && ms >= 0))
    throw new InvalidArgumentError('must be a number of milliseconds, 0 or more.');
  return ms;
}

/**
 * Where an error comes from, without its other members: a refused command of Redis has its arguments there, and they
 * may be a password.
 */
function traceOf(error: unknown): string {
  if (!(error instanceof Error)) return 'otp: something that is no Error was thrown';
  const trace = error.stack ?? `${error.name}: ${error.message}`;
  return error.cause === undefined ? trace : `${trace}\ncaused by ${traceOf(error.cause)}`;
}

process.on('uncaughtException', (error) => {
  console.error(traceOf(error));
  process.exit(1);
});

try {
  await program.parseAsync();
} catch (error) {
  const known = error instanceof Error && KNOWN_FAULTS.includes(error.name);
  console.error(known ? `otp: ${error.message}` : traceOf(error));
  process.exitCode = 1;
}
