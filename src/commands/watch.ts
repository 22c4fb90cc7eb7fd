import type { Command } from 'commander';
import { loadConfig } from '../config.ts';
import { namesOf, partitionOf } from '../producers/job.ts';
import { connectRedis } from '../redis/connections.ts';
import {
  addExamples,
  CommandError,
  colors,
  configOption,
  jsonOption,
  printJson,
  untilStopped,
  withRedis,
} from './command.ts';
import { readResource, summaryLine } from './verification.ts';

export function define(command: Command): void {
  command
    .addOption(configOption())
    .option('--provider <partition>', 'only this partition')
    .addOption(jsonOption())
    .action(watch);
  addExamples(command, 'otp watch --config otp.yaml --provider cepta', 'otp watch --config otp.yaml --json');
}

async function watch({ config: file, provider, json }: { config?: string; provider?: string; json?: boolean }) {
  const config = loadConfig({ file });
  const names = config.partitions.map(({ name }) => name);
  if (provider !== undefined && !names.includes(provider)) {
    throw new CommandError(`--provider: must name a partition: ${names.join(', ') || 'there is none'}`);
  }
  await withRedis(config, async (redis, settings) => {
    // Subscribed again by itself whenever Redis comes back.
    const subscriber = connectRedis(settings, 'worker', {
      onError: (error) => console.error(`redis: ${error.message}`),
    });
    const show = async (id: string): Promise<void> => {
      if (provider !== undefined && partitionOf(id) !== provider) return;
      try {
        const resource = await readResource(redis, id);
        if (json) printJson(resource);
        else console.log(summaryLine(resource));
      } catch (error) {
        console.error(error instanceof Error ? error.message : error);
      }
    };
    subscriber.on('message', async (_channel: string, message: string) => {
      for (const published of message.split(' ')) await show(published.slice(0, published.lastIndexOf('.')));
    });
    await subscriber.subscribe(namesOf(redis).publishedChannel);
    if (!json) console.error(colors.dim('watching for results, until Ctrl-C'));
    await untilStopped(async () => subscriber.disconnect());
  });
}
