/**
 * `npm run fuzz -- --seconds 60 --seed 7`: garbled input into everything that reads what others have written, for as
 * long as it may, and then what became of it. Exits 1 where an oracle has condemned something.
 */
import { randomInt } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { Command, Option } from 'commander';
import { createLogUpdate } from 'log-update';
import pc from 'picocolors';
import { numberFrom } from '../../chaos/number-option.ts';
import { readCorpus, readKept } from './corpus.ts';
import { type Failure, type Figures, type RunSettings, replay, run } from './engine.ts';
import { TARGETS, type Target, type TargetName } from './target.ts';
import { openTarget } from './targets/index.ts';

interface Options {
  readonly seconds?: number;
  readonly cases?: number;
  readonly seed?: number;
  readonly skip: number;
  readonly target?: TargetName;
  readonly case?: string;
}

const DEFAULT_SECONDS = 60;
const LEFT_BEHIND = fileURLToPath(new URL('../../.data/fuzz/', import.meta.url));
const PLAIN = { head: [], border: [], compact: true };
const BAR = 24;
const PLAIN_EVERY_MS = 10_000;
const LIVE_EVERY_MS = 200;

/** Of the time. Pure functions do thousands of cases in a second, those with a server some dozen. */
const SHARES: NonNullable<RunSettings['shares']> = {
  'intake-http': 2,
  'provider-answers': 3,
  'sealed-texts': 2,
  configuration: 2,
  'strange-jobs': 2,
};

async function fuzz(options: Options): Promise<number> {
  if (options.case !== undefined) return await again(options.case);
  const seed = options.seed ?? randomInt(1, 1_000_000_000);
  const seconds = options.seconds ?? (options.cases === undefined ? DEFAULT_SECONDS : undefined);
  const names = options.target ? [options.target] : TARGETS;
  const much = [
    seconds === undefined ? '' : `${seconds} s`,
    options.cases === undefined ? '' : `${options.cases} cases for each`,
  ];
  console.log(`fuzz: seed ${seed}, ${much.filter((part) => part !== '').join(', at most ')}, ${names.join(', ')}`);

  const interrupted = new AbortController();
  const onSignal = (): void => interrupted.abort();
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  const targets: Target[] = [];
  try {
    for (const name of names) targets.push(await openTarget(name));
    const broken = await replayCorpus(targets);
    const progress = new Progress(seconds, options.cases);
    const figures = await run(targets, {
      ...{ seed, seconds, cases: options.cases, skip: options.skip, shares: SHARES },
      // What is passed over has been tried in full before.
      sweep: options.skip === 0,
      onProgress: (so) => progress.show(so),
      stop: () => interrupted.signal.aborted,
    });
    progress.end();
    return report(figures, broken, seed);
  } finally {
    for (const target of targets) await target.close?.();
  }
}

/** What was found before comes first. */
async function replayCorpus(targets: readonly Target[]): Promise<string[]> {
  const kept = readCorpus().filter(({ target: name }) => targets.some((target) => target.name === name));
  const broken: string[] = [];
  for (const one of kept) {
    const target = targets.find(({ name }) => name === one.target) as Target;
    const says = await replay(target, one.case);
    if (says !== null) broken.push(`${one.file}: ${says}`);
  }
  console.log(`fuzz: ${kept.length - broken.length} of ${kept.length} kept cases are well`);
  return broken;
}

/** One case out of a file. */
async function again(file: string): Promise<number> {
  const kept = readKept(file);
  const target = await openTarget(kept.target);
  try {
    const says = await replay(target, kept.case);
    console.log(
      says === null ? `${pc.green('✓')} ${kept.target}: all is well` : `${pc.red('✗')} ${kept.target}: ${says}`,
    );
    return says === null ? 0 : 1;
  } finally {
    await target.close?.();
  }
}

function report(figures: readonly Figures[], broken: readonly string[], seed: number): number {
  const table = new Table({ head: ['target', 'cases', 'a second', 'wrong', 'what became of them'], style: PLAIN });
  for (const { target, cases, ms, failures, outcomes } of figures) {
    table.push([
      target,
      thousands(cases),
      thousands(Math.round((cases * 1_000) / Math.max(1, ms))),
      failures.length,
      told(outcomes),
    ]);
  }
  console.log(`\n${table.toString()}`);
  const cases = figures.reduce((sum, one) => sum + one.cases, 0);
  const failures = figures.flatMap((one) => one.failures);
  for (const says of broken) console.log(`\n${pc.red('✗')} a kept case, ${cutShort(says, 1_500)}`);
  for (const [index, failure] of failures.entries()) console.log(`\n${fileOn(failure, seed, index)}`);
  const wrong = failures.length + broken.length;
  if (wrong === 0) console.log(`\n${pc.green('✓')} ${thousands(cases)} cases: no crash, no accepted garbage, no leak`);
  else console.log(`\n${pc.red('✗')} ${wrong} wrong in ${thousands(cases)} cases`);
  return wrong === 0 ? 0 : 1;
}

/** Everything that is known about one failure, and how to see it again. */
function fileOn({ target, case: given, says, from, batch }: Failure, seed: number, index: number): string {
  const lines = [`${pc.red('✗')} ${pc.bold(target)}: ${cutShort(says, 1_500)}`];
  if (given !== null) {
    mkdirSync(LEFT_BEHIND, { recursive: true, mode: 0o700 });
    const file = join(LEFT_BEHIND, `${target}-${seed}-${index + 1}.json`);
    writeFileSync(file, `${JSON.stringify({ target, says: cutShort(says, 300), case: given }, null, 2)}\n`);
    lines.push(`  the smallest such case: ${cutShort(JSON.stringify(given), 800)}`);
    lines.push(`  it again:      ${pc.bold(`npm run fuzz -- --case ${relative(process.cwd(), file)}`)}`);
  }
  const where = from === null ? '' : `--skip ${from} --cases ${batch} `;
  lines.push(`  how it came:   ${pc.bold(`npm run fuzz -- --target ${target} ${where}--seed ${seed}`)}`);
  return lines.join('\n');
}

function cutShort(text: string, most: number): string {
  return text.length <= most ? text : `${text.slice(0, most)}… (${text.length} characters)`;
}

/** The most frequent ones. */
function told(outcomes: ReadonlyMap<string, number>): string {
  const most = [...outcomes].sort(([, one], [, other]) => other - one).slice(0, 6);
  const lines = most.map(([outcome, count]) => `${outcome} ${thousands(count)}`);
  const half = Math.ceil(lines.length / 2);
  return [lines.slice(0, half), lines.slice(half)]
    .map((some) => some.join(', '))
    .join('\n')
    .trim();
}

function thousands(count: number): string {
  return count.toLocaleString('en');
}

/** A live line on a terminal, a plain one every ten seconds elsewhere. */
class Progress {
  readonly #update: ReturnType<typeof createLogUpdate> | null;
  readonly #startedAt = performance.now();
  readonly #seconds: number | undefined;
  readonly #cases: number | undefined;
  #shownAt = performance.now();

  constructor(seconds: number | undefined, cases: number | undefined, stream: NodeJS.WriteStream = process.stdout) {
    this.#update = stream.isTTY ? createLogUpdate(stream) : null;
    this.#seconds = seconds;
    this.#cases = cases;
  }

  show(figures: readonly Figures[]): void {
    if (performance.now() - this.#shownAt < (this.#update ? LIVE_EVERY_MS : PLAIN_EVERY_MS)) return;
    this.#shownAt = performance.now();
    const elapsed = (performance.now() - this.#startedAt) / 1_000;
    const cases = figures.reduce((sum, one) => sum + one.cases, 0);
    const byTime = this.#seconds === undefined ? 0 : elapsed / this.#seconds;
    const byCases = this.#cases === undefined ? 0 : cases / (this.#cases * figures.length);
    const share = Math.min(1, Math.max(byTime, byCases));
    const bar = `${'█'.repeat(Math.round(share * BAR))}${'░'.repeat(BAR - Math.round(share * BAR))}`;
    const wrong = figures.reduce((sum, one) => sum + one.failures.length, 0);
    const line = `${bar} ${`${Math.round(elapsed)} s`.padStart(5)}  ${thousands(cases)} cases, ${wrong} wrong`;
    if (this.#update) this.#update(line);
    else console.log(line);
  }

  end(): void {
    this.#update?.clear();
  }
}

const program = new Command('fuzz')
  .description('Garbled input into everything that reads what others have written, judged by independent oracles.')
  .option(
    '--seconds <seconds>',
    `how long; ${DEFAULT_SECONDS} without --cases`,
    numberFrom(1, 86_400, { whole: false }),
  )
  .option('--cases <count>', 'how many for each target', numberFrom(1, 100_000_000))
  .option('--seed <seed>', 'what is tried; random without it', numberFrom(0, 4_294_967_295))
  .addOption(new Option('--target <name>', 'only one').choices(TARGETS))
  .option('--skip <count>', 'cases of each target that are passed over', numberFrom(0, 100_000_000), 0)
  .option('--case <file>', 'only this one case, out of a file that a run has left behind')
  .action(async (options: Options) => {
    process.exitCode = await fuzz(options);
  });

await program.parseAsync();
// A connection of BullMQ's that was cut in its last moment may go on looking for a server that is gone.
process.exit();
