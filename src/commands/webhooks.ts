/** `otp webhooks list | replay | enable`: what is owed to the clients' endpoints; docs/webhooks.md tells of them. */
import type { Queue } from 'bullmq';
import type { Command } from 'commander';
import { loadConfig } from '../config.ts';
import { namesOf, webhookQueueName } from '../producers/job.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { addExamples, CommandError, configOption, jsonOption, printJson, withRedis } from './command.ts';
import { withQueue } from './queue.ts';

/** Of what was given up, so many are read at a time. */
const PAGE = 1_000;

interface Options {
  config?: string;
  json?: boolean;
}

export function define(webhooks: Command): void {
  addExamples(webhooks, 'otp webhooks list --config otp.yaml');
  const command = (name: string, description: string, example: string): Command =>
    addExamples(
      webhooks.command(name).description(description).addOption(configOption()).addOption(jsonOption()),
      example,
    );

  command('list', 'each endpoint and what it is owed', 'otp webhooks list --config otp.yaml').action(
    async ({ config: file, json }: Options) => {
      const config = loadConfig({ file });
      await withRedis(config, async (redis) => {
        for (const { client } of config.results.webhooks) {
          await withQueue(redis, addressOf(client, redis), async (queue) => {
            const counts = await queue.getJobCounts('wait', 'active', 'delayed', 'failed');
            const { wait = 0, active = 0, delayed = 0, failed = 0 } = counts;
            const state = {
              client,
              enabled: !(await queue.isPaused()),
              waiting: wait + active,
              delayed,
              failed,
            };
            if (json) printJson(state);
            else
              console.log(
                `${client}  ${state.enabled ? 'enabled' : 'switched off'}  ${state.waiting} waiting, ` +
                  `${delayed} to be tried again, ${failed} given up`,
              );
          });
        }
      });
    },
  );

  command('replay', 'delivers what was given up once more, from the first try on', 'otp webhooks replay shop')
    .argument('<client>', 'whose endpoint')
    .action(async (client: string, { config, json }: Options) => {
      await ofClient(client, config, async (queue) => {
        const replayed = await replayFailed(queue);
        if (json) printJson({ client, replayed });
        else console.log(`${client}: ${replayed} ${replayed === 1 ? 'result is' : 'results are'} delivered once more`);
      });
    });

  command('enable', 'goes on after a 410: the endpoint is there again', 'otp webhooks enable shop')
    .argument('<client>', 'whose endpoint')
    .action(async (client: string, { config, json }: Options) => {
      await ofClient(client, config, async (queue) => {
        await queue.resume();
        if (json) printJson({ client, enabled: true });
        else console.log(`${client}: its results are delivered again`);
      });
    });
}

/** With all their tries: `queue.retryJobs` keeps those that were made, and each would have one. */
async function replayFailed(queue: Queue): Promise<number> {
  let replayed = 0;
  // As many as there are now: what fails meanwhile comes behind them.
  for (let left = await queue.getFailedCount(); left > 0; left -= PAGE) {
    for (const job of await queue.getJobs(['failed'], 0, Math.min(left, PAGE) - 1, true)) {
      if (!job || !(await job.isFailed())) continue;
      await job.retry('failed', { resetAttemptsMade: true });
      replayed += 1;
    }
  }
  return replayed;
}

async function ofClient(
  client: string,
  file: string | undefined,
  work: (queue: Queue) => Promise<void>,
): Promise<void> {
  const config = loadConfig({ file });
  const known = config.results.webhooks.map((webhook) => webhook.client);
  if (!known.includes(client)) {
    throw new CommandError(
      `results.webhooks: ${client} has none${known.length > 0 ? `; known are ${known.join(', ')}` : ''}`,
    );
  }
  await withRedis(config, async (redis) => await withQueue(redis, addressOf(client, redis), work));
}

const addressOf = (client: string, redis: RedisConnection): { name: string; prefix: string } => ({
  name: webhookQueueName(client),
  prefix: namesOf(redis).webhookQueuePrefix(client),
});
