/**
 * `otp doctor`: everything that the service stands on, looked at from outside. It changes nothing, submits nothing,
 * spends no attempt and needs no running service; its folder has one file for each thing that is checked.
 */
import type { Command } from 'commander';
import type { Config } from '../config.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { findRedisServer } from '../redis/server.ts';
import { addExamples, CommandError, configOption, jsonOption, withRedis } from './command.ts';
import { checkConfiguration } from './doctor/configuration.ts';
import { type Finding, fault, warning } from './doctor/finding.ts';
import { checkKeyFiles } from './doctor/keys.ts';
import { checkProvider } from './doctor/providers.ts';
import { checkPartitionQueues, checkResultQueues, readTraffic } from './doctor/queues.ts';
import { checkRedisServer } from './doctor/redis.ts';
import { type Report, report } from './doctor/report.ts';

export function define(command: Command): void {
  command
    .addOption(configOption())
    .addOption(jsonOption('one JSON document per line, one for each finding'))
    .addHelpText(
      'after',
      `
Of a provider it asks one thing: HEAD / on the host of baseUrl, without credentials.
It exits 1 when something is at fault; a warning is none.`,
    )
    .action(doctor);
  addExamples(
    command,
    'otp doctor --config otp.yaml',
    'otp doctor --config otp.yaml --json | jq \'select(.level != "ok")\'',
  );
}

/** One thing that is checked. */
interface Check {
  readonly what: string;
  readonly findings: Promise<Finding[]>;
}

async function doctor({ config: file, json }: { config?: string; json?: boolean }): Promise<void> {
  const told = report({ json });
  const { config, findings } = checkConfiguration(file);
  told.show(findings);
  if (config !== null) {
    // The slow ones first: each provider may take seconds to say nothing.
    const providers = new Map(config.partitions.map((each) => [each.name, guarded(each.name, checkProvider(each))]));
    const keys = { what: 'keys', findings: guarded('sealing', checkKeyFiles(config)) };
    told.waitFor('Redis');
    let reached = false;
    try {
      await withRedis(config, async (redis) => {
        reached = true;
        await tell([keys, ...withRedisThere(config, redis, providers)], told);
      });
    } catch (error) {
      if (reached) throw error;
      const why = { what: 'Redis', findings: Promise.resolve([redisMissing(config, error)]) };
      const others = [...providers].map(([what, found]) => ({ what, findings: found }));
      await tell([keys, why, ...others], told);
    }
  }
  told.end();
  process.exitCode = told.faults > 0 ? 1 : 0;
}

function withRedisThere(
  config: Config,
  redis: RedisConnection,
  providers: ReadonlyMap<string, Promise<Finding[]>>,
): Check[] {
  const traffic = readTraffic(redis, config);
  return [
    { what: 'Redis', findings: guarded('redis', checkRedisServer(redis, config)) },
    ...config.partitions.map((partition) => {
      const queues = traffic.then((read) => checkPartitionQueues(partition, config, read));
      const both = Promise.all([providers.get(partition.name) ?? [], guarded(`queues.otp-${partition.name}`, queues)]);
      return { what: partition.name, findings: both.then((found) => found.flat()) };
    }),
    {
      what: 'results',
      findings: guarded(
        'queues',
        traffic.then((read) => checkResultQueues(config, read)),
      ),
    },
  ];
}

async function tell(checks: readonly Check[], told: Report): Promise<void> {
  for (const { what, findings } of checks) {
    told.waitFor(what);
    told.show(await findings);
  }
}

/** A check that broke off is a finding too: the others go on. */
async function guarded(about: string, findings: Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await findings;
  } catch (error) {
    const why = error instanceof Error ? error.message.split('\n', 1)[0] : 'something that is no Error was thrown';
    return [fault(about, `it could not be checked: ${why}`, 'mend what it says, and ask again')];
  }
}

function redisMissing({ redis }: Config, error: unknown): Finding {
  const message = error instanceof Error ? error.message : 'it cannot be reached';
  if (redis !== undefined) {
    const finding = message.replace(/^redis: /, '');
    return fault('redis', finding, 'see that the server runs, and that redis in the configuration is right');
  }
  if (!(error instanceof CommandError)) throw error;
  if (findRedisServer() === null) {
    return fault('redis', 'no Redis server is found on this machine', '`npm run setup` fetches one, or set redis.url');
  }
  return warning(
    'redis',
    'the embedded server is not running, so neither it nor the queues could be looked at',
    'start `otp serve`, and ask again beside it',
  );
}
