#!/usr/bin/env -S node --max-semi-space-size=32
/** The `otp` command: runs what is asked for. Faults go to stderr; docs/command-line.md has the exit codes. */
import { CommanderError } from 'commander';
import { KNOWN_FAULTS } from './commands/command.ts';
import { programFor } from './commands/index.ts';

/**
 * Where an error comes from, without its other members: a refused command of Redis has its arguments there, and they
 * may be a password.
 */
function traceOf(error: unknown): string {
  if (!(error instanceof Error)) return 'otp: something that is no Error was thrown';
  const trace = error.stack ?? `${error.name}: ${error.message}`;
  return error.cause === undefined ? trace : `${trace}\ncaused by ${traceOf(error.cause)}`;
}

/** Says what is wrong, unless commander has said it already, and gives the exit code. */
function told(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const exitCode = error instanceof Error ? KNOWN_FAULTS[error.name] : undefined;
  console.error(error instanceof Error && exitCode !== undefined ? `otp: ${error.message}` : traceOf(error));
  return exitCode ?? 1;
}

process.on('uncaughtException', (error) => {
  console.error(traceOf(error));
  process.exit(1);
});

try {
  const args = process.argv.slice(2);
  const program = await programFor(args);
  await program.parseAsync(args, { from: 'user' });
} catch (error) {
  process.exitCode = told(error);
}
