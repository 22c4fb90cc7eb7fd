/** What every command has in common: help with examples that run, exit codes, output that a program can read. */
import { readFileSync } from 'node:fs';
import { type Command, CommanderError } from 'commander';
import { describe, expect, test } from 'vitest';
import { EXIT_CODES, programFor } from '../../src/commands/index.ts';
import { otp } from '../support/service.ts';
import { otpCommandsIn } from './shell.ts';

const program = await programFor(null);
const all = descendants(program);
const documentation = readFileSync(new URL('../../docs/command-line.md', import.meta.url), 'utf8');

function descendants(command: Command): Command[] {
  return command.commands.flatMap((each) => [each, ...descendants(each)]);
}

/** `otp keys rotate` */
function nameOf(command: Command): string {
  return command.parent === null ? command.name() : `${nameOf(command.parent)} ${command.name()}`;
}

function helpOf(command: Command): string {
  let help = '';
  command.configureOutput({ writeOut: (text) => (help += text) });
  command.outputHelp();
  return help;
}

function examplesIn(help: string): string[] {
  const [, block = ''] = /^Examples?:\n((?: {2}.*\n)+)/m.exec(help) ?? [];
  return block.trimEnd().split('\n').filter(Boolean);
}

/** Parses as the program would, and does nothing. @throws CommanderError */
async function parse(words: readonly string[]): Promise<void> {
  const fresh = await programFor(null);
  for (const command of [fresh, ...descendants(fresh)]) {
    command.configureOutput({ writeOut: () => {}, writeErr: () => {} });
    if (command.commands.length === 0) command.action(() => {});
  }
  await fresh.parseAsync(words, { from: 'user' }).catch((error: unknown) => {
    if (!(error instanceof CommanderError && error.exitCode === 0)) throw error;
  });
}

describe.each([program, ...all].map((command) => [nameOf(command), command] as const))('%s', (name, command) => {
  test('has help with an example that runs, and its exit codes', async () => {
    const help = helpOf(command);
    const examples = examplesIn(help);
    expect(examples, help).not.toEqual([]);
    expect(examples.some((line) => otpCommandsIn(line).length > 0)).toBe(true);
    for (const words of examples.flatMap(otpCommandsIn)) {
      await expect(parse(words), words.join(' ')).resolves.toBeUndefined();
    }
    if (command !== program) expect(examples.join('\n')).toContain(name);
    expect(help).toContain(EXIT_CODES);
    expect(help).toMatch(/-h, --help/);
  });

  // The tour draws a table, and a group has no output of its own.
  test.runIf(command.commands.length === 0 && name !== 'otp tour')('prints JSON when it is asked to', () => {
    expect(command.options.map(({ long }) => long)).toContain('--json');
  });
});

test('an example with a word that is wrong would be noticed', async () => {
  const lines = ['otp serve --konfig otp.yaml', 'otp serv', 'otp show', 'otp show a b', 'otp resolve a --as maybe'];
  for (const words of lines.flatMap(otpCommandsIn)) await expect(parse(words)).rejects.toThrow(CommanderError);
  expect(otpCommandsIn('A="x:$(otp keys password)" otp serve --by "a b" > f | jq \'otp\'')).toEqual([
    ['keys', 'password'],
    ['serve', '--by', 'a b'],
  ]);
});

describe('docs/command-line.md', () => {
  const sections = [...documentation.matchAll(/^### (otp .*)\n([\s\S]*?)(?=^##|$(?![\s\S]))/gm)];

  test('has every command, and no other', () => {
    expect(sections.map(([, name]) => name).sort()).toEqual(all.map(nameOf).sort());
  });

  test('has an example for each, which runs', async () => {
    for (const [, name, text = ''] of sections) {
      const lines = [...text.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, block = '']) => block.trim().split('\n'));
      expect(lines.join('\n'), name).toContain(name);
      for (const words of lines.flatMap(otpCommandsIn)) {
        await expect(parse(words), words.join(' ')).resolves.toBeUndefined();
      }
    }
  });
});

test('0 is done, 1 is a fault that can be mended, 2 a command line that is wrong', async () => {
  const missing = ['--config', '/nowhere/otp.yaml'];
  const cases: [args: string[], code: number, faults: RegExp][] = [
    [['help', 'keys'], 0, /^$/],
    [['serve', ...missing], 1, /nowhere\/otp\.yaml/],
    [['keys', 'list', '--file', '/nowhere/keys.json'], 1, /there is no such file/],
    [[], 2, /Usage: otp/],
    [['nonsense'], 2, /unknown command 'nonsense'/],
    [['show'], 2, /missing required argument 'id'/],
    [['keys', 'rotate', '--now', '--activate'], 2, /cannot be used with/],
    [['enqueue', '--provider', 'cepta', '--param', '00254'], 2, /^otp: --param: must be name=value\n$/],
    [['outbox', ...missing], 2, /--database: is required/],
    [['sandbox', '--faults', 'earthquake=1'], 2, /earthquake/],
  ];
  const ended = await Promise.all(cases.map(async ([args]) => await otp(args)));
  for (const [index, [args, code, faults]] of cases.entries()) {
    expect(ended[index]?.faults, args.join(' ')).toMatch(faults);
    expect(ended[index]?.code, args.join(' ')).toBe(code);
    expect(ended[index]?.faults, args.join(' ')).not.toMatch(/\n {4}at /);
  }
}, 60_000);

test('a word that is refused is not repeated where it may be a code or a password', async () => {
  const enqueue = ['enqueue', '--provider', 'cepta'];
  const cases: [args: string[], faults: RegExp][] = [
    [[...enqueue, '--opt=918273'], /unknown option '--opt'\n\(Did you mean --otp\?\)/],
    [[...enqueue, '--otp918273'], /option '--otp <code>': a space or = must stand before its value/],
    [[...enqueue, '-o918273'], /unknown option '-o'/],
    [[...enqueue, '--json=918273'], /option '--json': it takes no value/],
    [[...enqueue, '--wait', '918273'], /option '--wait <seconds>': must be a number of seconds, 3600 at most/],
    [[...enqueue, '--otp', '9182', '918273'], /too many arguments/],
    [['outbox', '--databse=postgres://otp:918273@host/payments'], /'--databse'\n\(Did you mean --database\?\)/],
    [['resolve', 'id', '--as', '918273'], /option '--as <outcome>': Allowed choices are succeeded, failed/],
    [['keys', 'password=918273'], /unknown command 'password'/],
    [['--otp=918273', ...enqueue], /unknown option '--otp'/],
    [['918273'], /unknown command ''/],
  ];
  const ended = await Promise.all(cases.map(async ([args]) => await otp(args)));
  for (const [index, [args, faults]] of cases.entries()) {
    const { code, output, faults: said } = ended[index] ?? {};
    expect(code, args.join(' ')).toBe(2);
    expect(said, args.join(' ')).toMatch(faults);
    expect(`${output}${said}`, args.join(' ')).not.toContain('918273');
  }
}, 60_000);

test('what is no terminal gets no colours, also in a CI', async () => {
  for (const args of [['doctor', '--config', '/nowhere'], ['keys', 'api-key'], ['nonsense']]) {
    const { output, faults } = await otp(args, { environment: { CI: 'true' } });
    expect(`${output}${faults}`).not.toBe('');
    expect(`${output}${faults}`).not.toContain('\u001b');
  }
}, 60_000);

test('--help loads none of what the commands need', async () => {
  const loaded = await otp(['--help'], { environment: { NODE_OPTIONS: `--import=${REPORTS_WHAT_IS_LOADED}` } });
  expect(loaded.faults).toMatch(/commands\/index\.js/);
  expect(loaded.faults).not.toMatch(/node_modules\/(?!commander|picocolors)/);
}, 60_000);

const LOADER = 'export async function load(url, context, next) { process._rawDebug(url); return next(url, context); }';
const REPORTS_WHAT_IS_LOADED = `data:text/javascript,${encodeURIComponent(
  `import { register } from 'node:module'; register('data:text/javascript,${encodeURIComponent(LOADER)}');`,
).replaceAll("'", '%27')}`;
