import { setTimeout as delay } from 'node:timers/promises';
import { type Command, InvalidArgumentError } from 'commander';
import { loadConfig, ROLES, type Role } from '../config.ts';
import { addExamples, configOption, jsonOption, printJson, untilStopped } from './command.ts';

export function define(command: Command): void {
  command
    .addOption(configOption())
    .option('--roles <roles>', `any of ${ROLES.join(',')}`, parseRoles, [...ROLES])
    .addOption(jsonOption())
    .action(serve);
  addExamples(command, 'otp serve --config otp.yaml', 'otp serve --config otp.yaml --roles worker');
}

async function serve({ config: file, roles, json }: { config?: string; roles: Role[]; json?: boolean }): Promise<void> {
  const config = loadConfig({ file });
  const { startService } = await import('../main.ts'); // a configuration at fault is told without half a second of modules
  const service = await startService(config, { roles });
  const stopped = untilStopped(async (signal) => {
    service.leave();
    // A load balancer needs a moment to see it; a person at the keyboard is none.
    if (signal === 'SIGTERM' && roles.includes('intake')) await delay(config.shutdown.drainMs);
    await service.close();
  });
  if (json) printJson({ ready: true, intakeUrl: service.intakeUrl, consoleUrl: service.consoleUrl });
  await stopped;
  process.exit(0); // what did not end in time must not keep the process either
}

function parseRoles(text: string): Role[] {
  const roles = text.split(',').map((role) => role.trim());
  const unknown = roles.filter((role) => !(ROLES as readonly string[]).includes(role));
  if (unknown.length > 0) throw new InvalidArgumentError(`must be any of ${ROLES.join(', ')}, separated by commas.`);
  return roles as Role[];
}
