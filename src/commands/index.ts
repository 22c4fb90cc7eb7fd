/** Every command, one line each. The module of a command is loaded when it is the one that is asked for. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { DiscreetCommand } from './discreet-command.ts';

interface Entry {
  readonly name: string;
  readonly description: string;
  /** Not listed by --help. */
  readonly hidden?: boolean;
  /** Gives the command its arguments, options, sub-commands, examples and action. */
  load(): Promise<{ define(command: Command): void }>;
}

const COMMANDS: readonly Entry[] = [
  {
    name: 'serve',
    description: 'runs the service from a configuration: never against a sandbox by itself',
    load: () => import('./serve.ts'),
  },
  {
    name: 'doctor',
    description: 'checks everything that the service stands on, and says what to mend; it submits nothing',
    load: () => import('./doctor.ts'),
  },
  {
    name: 'enqueue',
    description: 'enqueues one verification as a configured client, straight into Redis',
    load: () => import('./enqueue.ts'),
  },
  {
    name: 'show',
    description: 'one verification: how it stands and what has happened to it',
    load: () => import('./show.ts'),
  },
  {
    name: 'resolve',
    description: 'settles one that awaits proof, on evidence that you have: the last way out of an unknown',
    load: async () => ({ define: (await import('./resolve.ts')).defineResolve }),
  },
  {
    name: 'inquire',
    description: 'asks the provider now what became of one that awaits proof',
    load: async () => ({ define: (await import('./resolve.ts')).defineInquire }),
  },
  { name: 'watch', description: 'results as they are published, until Ctrl-C', load: () => import('./watch.ts') },
  {
    name: 'keys',
    description: 'the keys that seal codes, and secrets for the configuration',
    load: () => import('./keys.ts'),
  },
  { name: 'results', description: 'results that no handler could take', load: () => import('./results.ts') },
  { name: 'webhooks', description: "results at the clients' own endpoints", load: () => import('./webhooks.ts') },
  {
    name: 'outbox',
    description: 'relays the rows of a transactional outbox in PostgreSQL, until SIGTERM; it holds no keys',
    load: () => import('./outbox.ts'),
  },
  {
    name: 'sandbox',
    description: 'the five providers, simulated over HTTP on this machine, with a money ledger (docs/sandbox.md)',
    load: () => import('./sandbox.ts'),
  },
  {
    name: 'tour',
    description: 'what `npm start` runs: the whole pipeline against the sandboxes',
    hidden: true,
    load: () => import('./tour.ts'),
  },
];

export const EXIT_CODES = 'Exit codes: 0 done; 1 a fault that can be mended, or a no; 2 the command line is wrong.';

/** The program, able to run what `args` ask for; with `args` null, every command is defined. */
export async function programFor(args: readonly string[] | null): Promise<Command> {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  const program = new DiscreetCommand('otp')
    .description('Carries OTP verifications to payment providers: no code is submitted twice, no outcome is guessed.')
    .version(version)
    .showHelpAfterError('(add --help for what is expected)')
    .addHelpText(
      'after',
      '\nExamples:\n  otp doctor --config otp.yaml\n  otp serve --config otp.yaml\n  otp keys rotate --help',
    )
    .addHelpText('afterAll', `\n${EXIT_CODES}`)
    .exitOverride();
  const asked = args?.[0] === 'help' ? args[1] : args?.[0];
  for (const { name, description, hidden = false, load } of COMMANDS) {
    const command = program.command(name, { hidden }).description(description);
    if (args === null || name === asked) (await load()).define(command);
  }
  return program;
}
