import type { Command } from 'commander';
import { loadConfig } from '../config.ts';
import { awaitedNext } from '../producers/awaited.ts';
import { resourceOf, type VerificationResource } from '../producers/resource.ts';
import { addExamples, colors, configOption, jsonOption, printJson, withRedis } from './command.ts';
import { readExisting } from './verification.ts';

export function define(command: Command): void {
  command.argument('<id>', 'the verification id').addOption(configOption()).addOption(jsonOption()).action(show);
  addExamples(command, 'otp show beqelal_0197a3… --config otp.yaml');
}

async function show(id: string, { config, json }: { config?: string; json?: boolean }): Promise<void> {
  await withRedis(loadConfig({ file: config }), async (redis) => {
    const record = await readExisting(redis, id);
    const awaits = awaitedNext(record);
    if (json) printJson({ ...resourceOf(record), awaits });
    else printStory(resourceOf(record), awaits);
  });
}

function printStory(resource: VerificationResource, awaits: string | null): void {
  const { history = [], metadata: _, ...facts } = resource;
  for (const [name, fact] of Object.entries(facts)) {
    if (fact !== null)
      console.log(`${colors.dim(name.padEnd(18))} ${typeof fact === 'object' ? JSON.stringify(fact) : fact}`);
  }
  if (awaits !== null) console.log(`${colors.dim('awaits'.padEnd(18))} ${awaits}`);
  console.log('');
  for (const { at, event, ...more } of history) {
    const said = Object.entries(more).map(([name, fact]) => `${name} ${fact}`);
    console.log(`${colors.dim(at)}  ${colors.bold(event)}${said.length > 0 ? `  ${said.join(', ')}` : ''}`);
  }
}
