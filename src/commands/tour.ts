import type { Command } from 'commander';
import { tour } from '../tour/tour.ts';
import { addExamples } from './command.ts';

export function define(command: Command): void {
  command
    .option('--once', 'exits when the tour is over: 0 when the ledger agrees with every result, else 1')
    .action(async ({ once = false }: { once?: boolean }) => {
      process.exitCode = await tour({ once });
    });
  addExamples(command, 'otp tour --once');
}
