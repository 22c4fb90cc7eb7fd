import { type Command, InvalidArgumentError, Option } from 'commander';
import { startSandbox } from '../sandbox/index.ts';
import { addExamples, jsonOption, printJson, untilStopped } from './command.ts';

interface SandboxCommandOptions {
  ledger?: string;
  settleAfterMs?: number;
  faults?: string;
  seed?: number;
  json?: boolean;
  endsWithStdin?: boolean;
}

export function define(command: Command): void {
  command
    .option('--ledger <file>', 'appends every entry to this file as a JSON line')
    .option('--settle-after-ms <ms>', 'from an accepted code to the end of the payment', parseMs)
    .option('--faults <spec>', 'faults that hit at random, for instance commit_then_reset=0.05,slow=0.1:300')
    .option('--seed <number>', 'the same seed and the same requests give the same faults; 1 by default', Number)
    .addOption(jsonOption())
    .addOption(
      new Option('--ends-with-stdin', 'ends when standard input does, as a child of another process').hideHelp(),
    )
    .action(sandbox);
  addExamples(
    command,
    'otp sandbox --ledger ledger.jsonl',
    'otp sandbox --faults commit_then_reset=0.05,slow=0.1:300 --seed 7',
  );
}

async function sandbox(options: SandboxCommandOptions): Promise<void> {
  const started = await startSandbox({
    ...(options.ledger === undefined ? {} : { ledgerFile: options.ledger }),
    ...(options.settleAfterMs === undefined ? {} : { settleAfterMs: options.settleAfterMs }),
    ...(options.faults === undefined ? {} : { faults: options.faults }),
    ...(options.seed === undefined ? {} : { seed: options.seed }),
  });
  if (options.json) printJson({ control: started.control, providers: started.providers });
  else {
    console.log('Five providers that are none. For a configuration: GET /providers of the control address.\n');
    for (const [name, { baseUrl }] of Object.entries(started.providers)) {
      console.log(`  ${name.padEnd(13)} ${baseUrl}`);
    }
    console.log(
      `  ${'control'.padEnd(13)} ${started.control.url}   (/providers, /ledger, /transactions)\n\nUntil Ctrl-C.`,
    );
  }
  if (options.endsWithStdin) process.stdin.resume().once('end', () => process.kill(process.pid, 'SIGTERM'));
  await untilStopped(() => started.close());
}

function parseMs(text: string): number {
  const ms = Number(text);
  if (!(Number.isInteger(ms) && ms >= 0)) {
    throw new InvalidArgumentError('must be a number of milliseconds, 0 or more.');
  }
  return ms;
}
