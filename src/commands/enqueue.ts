import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type Command, InvalidArgumentError } from 'commander';
import { loadConfig } from '../config.ts';
import { EventBus } from '../events.ts';
import { readKeySet } from '../key-files.ts';
import { accept } from '../producers/accept.ts';
import { producerQueues } from '../producers/queues.ts';
import { publicKeySet, Sealer } from '../producers/sealing.ts';
import { Waiting } from '../producers/waiting.ts';
import { Held } from '../redis/held.ts';
import { addExamples, CommandError, configOption, jsonOption, printJson, UsageError, withRedis } from './command.ts';
import { readResource, summaryLine } from './verification.ts';

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

export function define(command: Command): void {
  command
    .addOption(configOption())
    .requiredOption('--provider <partition>', 'the partition')
    .option('--operation <operation>', 'verify, or send where the provider has it', 'verify')
    .option('--client <id>', 'which configured client enqueues; the first by default')
    .option('--otp <code>', 'the code; - reads it from standard input, which keeps it out of the process list')
    .option('--param <name=value...>', "a parameter by the provider's own name; may be repeated", collectParams, {})
    .option('--amount <value currency>', 'for instance "100.00 NGN"')
    .option('--idempotency-key <key>', 'the same key again gives the same verification; random by default')
    .option('--wait <seconds>', 'waits until it is final or awaits proof', parseSeconds)
    .addOption(jsonOption())
    .action(enqueue);
  addExamples(
    command,
    'echo 123456 | otp enqueue --config otp.yaml --provider beqelal --otp - --param reference=ORDER17 --wait 20',
  );
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
  const { providers } = client;
  // A name that no partition has is refused with the rest of the request.
  const configured = config.partitions.some(({ name }) => name === options.provider);
  if (configured && providers && !providers.includes(options.provider)) {
    throw new CommandError(
      `clients[].providers: ${client.id} may not use ${options.provider}, only ${providers.join(', ') || 'no partition'}`,
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
    const { waitReplicas, waitMs } = config.journal;
    const held = new Held({ redis, waitReplicas, waitMs, onError: () => {} });
    try {
      const acceptance = await accept(client, options.idempotencyKey ?? randomUUID(), body, {
        redis,
        sealer: await Sealer.create(publicKeySet(readKeySet(config.sealing.keyFile, 'sealing.keyFile'))),
        events,
        partitions: new Map(config.partitions.map((partition) => [partition.name, partition])),
        queue: queues.queue,
        held,
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
      held.close();
      await queues.close();
    }
  });
}

function collectParams(text: string, params: Record<string, string>): Record<string, string> {
  const at = text.indexOf('=');
  // Commander's own error would repeat the text, which may be a customer's.
  if (at < 1) throw new UsageError('--param: must be name=value');
  return { ...params, [text.slice(0, at)]: text.slice(at + 1) };
}

function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (!(seconds > 0 && seconds <= 3_600)) throw new InvalidArgumentError('must be a number of seconds, 3600 at most.');
  return seconds;
}
