/** `otp keys api-key` and `otp keys password`: secrets for the configuration, and the hashes that may stand there instead. */
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { Command } from 'commander';
import { apiKeyHash, hashPassword, newApiKey } from '../secret-hashes.ts';
import { addExamples, CommandError, jsonOption, printJson } from './command.ts';

export function addSecretCommands(keys: Command): void {
  const apiKey = keys
    .command('api-key')
    .description('a fresh API key for a client, with the hash that clients[].apiKey may hold in its place')
    .option('--stdin', 'the hash of the key on standard input, instead of a fresh key')
    .addOption(jsonOption())
    .addHelpText('after', '\nThe key is the only thing that opens the door, and is shown this once.')
    .action(async ({ stdin, json }: { stdin?: boolean; json?: boolean }) => {
      const given = stdin ? await secretFromStdin('API key') : null;
      const key = given ?? newApiKey();
      const hash = apiKeyHash(key);
      if (json) printJson(given === null ? { apiKey: key, hash } : { hash });
      else if (given !== null) console.log(hash);
      else console.log(`for the client         ${key}\nfor clients[].apiKey   ${hash}`);
    });
  addExamples(apiKey, 'otp keys api-key', 'printf %s "$SHOP_API_KEY" | otp keys api-key --stdin');
  const password = keys
    .command('password')
    .description('the hash of a password, for console.users[].password; the password is read from standard input')
    .addOption(jsonOption())
    .action(async ({ json }: { json?: boolean }) => {
      const hash = await hashPassword(await secretFromStdin('Password'));
      if (json) printJson({ hash });
      else console.log(hash);
    });
  addExamples(password, 'OTP_CONSOLE_USERS="ops:$(otp keys password)" otp serve --config otp.yaml');
}

/** Never an argument: those are in the process list and in the shell's history. On a terminal nothing is shown of it. */
async function secretFromStdin(what: string): Promise<string> {
  const secret = process.stdin.isTTY ? await ask(what) : (await text(process.stdin)).replace(/\r?\n$/, '');
  if (secret !== '') return secret;
  throw new CommandError(`${what}: nothing came on standard input`);
}

async function ask(what: string): Promise<string> {
  process.stderr.write(`${what} (not shown): `);
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const terminal = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  try {
    return await terminal.question('');
  } finally {
    terminal.close();
    process.stderr.write('\n');
  }
}
