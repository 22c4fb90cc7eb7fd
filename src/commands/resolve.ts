/** `otp resolve` and `otp inquire`: what a person knows, or wants to know, of a verification that awaits proof. */
import { userInfo } from 'node:os';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { loadConfig } from '../config.ts';
import { EVIDENCE_LENGTH, parseEvidence } from '../producers/evidence.ts';
import type { VerificationRecord } from '../producers/record.ts';
import { type Done, Operator } from '../workers/operator.ts';
import { journalSettings } from '../workers/worker.ts';
import { addExamples, CommandError, configOption, jsonOption, printJson, withRedis } from './command.ts';
import { readExisting, readResource, summaryLine } from './verification.ts';

interface InquireOptions {
  by: string;
  config?: string;
  json?: boolean;
}

interface ResolveOptions extends InquireOptions {
  as: 'succeeded' | 'failed';
  evidence: string;
}

export function defineResolve(command: Command): void {
  command
    .argument('<id>', 'the verification id')
    .addOption(
      new Option('--as <outcome>', 'what became of the money').choices(['succeeded', 'failed']).makeOptionMandatory(),
    )
    .requiredOption(
      '--evidence <text>',
      'what proves it, for whoever asks later: a statement, a case number',
      evidenceOption,
    )
    .option('--by <name>', 'who resolves it', userInfo().username)
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async (id: string, options: ResolveOptions) => {
      const { as, evidence, by } = options;
      await conclude(id, options, async (operator, record) => await operator.resolve(record, { as, evidence, by }));
    });
  addExamples(command, 'otp resolve beqelal_0197a3… --as succeeded --evidence "bank statement of 21 November, line 4"');
}

export function defineInquire(command: Command): void {
  command
    .argument('<id>', 'the verification id')
    .option('--by <name>', 'who asks', userInfo().username)
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async (id: string, options: InquireOptions) => {
      await conclude(id, options, async (operator, record) => await operator.inquire(record, options.by));
    });
  addExamples(command, 'otp inquire cepta_0197a3… --config otp.yaml');
}

async function conclude(
  id: string,
  { config: file, json }: { config?: string; json?: boolean },
  act: (operator: Operator, record: VerificationRecord) => Promise<Done>,
): Promise<void> {
  const config = loadConfig({ file });
  await withRedis(config, async (redis) => {
    const record = await readExisting(redis, id);
    const partitions = config.partitions.map((partition) => journalSettings({ ...partition, ...config.journal }));
    const done = await act(new Operator({ redis, partitions, name: `otp-cli-${process.pid}` }), record);
    if (done.is === 'refused') throw new CommandError(`${id}: ${done.because}`);
    const resource = await readResource(redis, id);
    if (json) printJson(resource);
    else console.log(summaryLine(resource));
  });
}

function evidenceOption(text: string): string {
  const evidence = parseEvidence(text);
  const { least, most } = EVIDENCE_LENGTH;
  if (evidence === null) throw new InvalidArgumentError(`must be ${least} to ${most} characters.`);
  return evidence;
}
