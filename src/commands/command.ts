/** What the commands share: options, how they speak, how they reach Redis, and the faults that a person can mend. */
import { type Command, Option } from 'commander';
import pc from 'picocolors';
import type { Config } from '../config.ts';
import type { RedisConnection, RedisSettings } from '../redis/connections.ts';

/** A fault that the person at the terminal can mend, or a no; shown without a stack. */
export class CommandError extends Error {
  override readonly name: string = 'CommandError';
}

/** A command line that is wrong by itself, whatever the configuration and Redis say. */
export class UsageError extends CommandError {
  override readonly name = 'UsageError';
}

/** Exit codes of faults, by name, so that a command loads only what it needs: the service alone is half a second of modules. */
export const KNOWN_FAULTS: Readonly<Record<string, 1 | 2>> = {
  CommandError: 1,
  UsageError: 2,
  ConfigError: 1,
  KeyFileError: 1,
  OutboxError: 1,
  StartError: 1,
  InvalidRequestError: 1,
  FaultSpecError: 2,
};

export const configOption = (): Option =>
  new Option('-c, --config <file>', 'configuration file (YAML or JSON)').env('OTP_CONFIG');

export const jsonOption = (description = 'one JSON document per line instead of text'): Option =>
  new Option('--json', description);

/** What --help shows at its end. Each is a whole line for a shell; a test parses every one. */
export function addExamples(command: Command, ...lines: readonly string[]): Command {
  return command.addHelpText('after', `\n${lines.length === 1 ? 'Example' : 'Examples'}:\n  ${lines.join('\n  ')}`);
}

/** Where standard output is no terminal nothing is coloured, also not in a CI that calls itself one. */
export const colors = pc.createColors(process.stdout.isTTY === true && pc.isColorSupported);

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** @throws CommandError when Redis does not answer, or refuses the login. */
export async function withRedis(
  config: Config,
  work: (redis: RedisConnection, settings: RedisSettings) => Promise<void>,
): Promise<void> {
  const [{ connectRedis }, { findEmbeddedRedis }, { firstAnswer }] = await Promise.all([
    import('../redis/connections.ts'),
    import('../redis/embedded.ts'),
    import('../redis/first-answer.ts'),
  ]);
  const embeddedSettings = async (dataDir: string): Promise<RedisSettings> => {
    const url = await findEmbeddedRedis(dataDir);
    if (url !== null) return { url };
    throw new CommandError(
      `embedded.dataDir: no server runs on ${dataDir}; start \`otp serve\` first, or set redis.url`,
    );
  };
  const settings = config.redis ?? (await embeddedSettings(config.embedded.dataDir));
  const redis = connectRedis(settings, 'console', { onError: () => {} });
  try {
    await firstAnswer(
      redis,
      () => redis.ping(),
      (why) => new CommandError(`redis: ${why}`),
    );
    await work(redis, settings);
  } finally {
    redis.disconnect();
  }
}

const STOPS = ['SIGINT', 'SIGTERM'] as const;

/** The first signal closes in order, a second one, whichever of them it is, ends at once. */
export async function untilStopped(close: (signal: (typeof STOPS)[number]) => Promise<void>): Promise<void> {
  const signal = await new Promise<(typeof STOPS)[number]>((stopped) => {
    let signals = 0;
    for (const name of STOPS) {
      process.on(name, () => {
        signals += 1;
        if (signals === 1) stopped(name);
        else process.exit(1);
      });
    }
  });
  await close(signal);
}
