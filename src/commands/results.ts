/** `otp results list | replay`: results that no handler could take; docs/results.md tells of them. */
import type { Queue } from 'bullmq';
import type { Command } from 'commander';
import { type Config, loadConfig } from '../config.ts';
import { resultsQueuesOf } from '../main-settings.ts';
import { deadResults, replayDeadResults } from '../producers/dead-results.ts';
import { namesOf } from '../producers/job.ts';
import { addExamples, CommandError, configOption, jsonOption, printJson, withRedis } from './command.ts';
import { withQueue } from './queue.ts';

interface Options {
  config?: string;
  queue?: string;
  json?: boolean;
}

/** Of each queue, the longest dead. */
const LISTED = 1_000;

export function define(results: Command): void {
  addExamples(results, 'otp results list --config otp.yaml');
  const command = (name: string, description: string, example: string): Command =>
    addExamples(
      results
        .command(name)
        .description(description)
        .option('--queue <name>', 'this results queue only; every one by default')
        .addOption(configOption())
        .addOption(jsonOption()),
      example,
    );

  command(
    'list',
    'results that no handler could take, longest dead first',
    'otp results list --config otp.yaml',
  ).action(async (options: Options) => {
    await ofQueues(options, async (queue) => {
      for (const dead of await deadResults(queue, LISTED)) {
        const since = new Date(dead.since).toISOString();
        if (options.json) printJson({ queue: queue.name, ...dead, since });
        else console.log(`${queue.name}  ${dead.id}  since ${since}, after ${dead.tries} tries: ${dead.reason}`);
      }
    });
  });

  command('replay', 'hands them over once more, each with all its tries', 'otp results replay --config otp.yaml')
    .argument('[id]', 'only this one, as list names it; all by default')
    .action(async (id: string | undefined, options: Options) => {
      let total = 0;
      await ofQueues(options, async (queue) => {
        const replayed = await replayDeadResults(queue, id);
        total += replayed;
        if (options.json) printJson({ queue: queue.name, replayed });
        else
          console.log(
            `${queue.name}: ${replayed} ${replayed === 1 ? 'result is' : 'results are'} handed over once more`,
          );
      });
      if (id !== undefined && total === 0) throw new CommandError(`${id}: no dead result has this id`);
    });
}

async function ofQueues({ config: file, queue }: Options, work: (queue: Queue) => Promise<void>): Promise<void> {
  const config = loadConfig({ file });
  await withRedis(config, async (redis) => {
    for (const name of named(queue, config))
      await withQueue(redis, { name, prefix: namesOf(redis).resultsPrefix(name) }, work);
  });
}

function named(queue: string | undefined, config: Config): string[] {
  const known = resultsQueuesOf(config);
  if (queue === undefined) return known;
  if (!known.includes(queue)) throw new CommandError(`--queue: must be one of ${known.join(', ')}`);
  return [queue];
}
