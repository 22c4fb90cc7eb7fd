/** What ops/compose/prepare.mjs makes, and the secrets of one process as it finds them. */
import { execFile } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type Config, loadConfig } from '../../src/config.ts';
import { readKeySet } from '../../src/key-files.ts';

export const root = fileURLToPath(new URL('../..', import.meta.url));
export const SECRETS = '/run/secrets';

export interface Prepared {
  readonly folder: string;
  /** Its secrets, which the script puts into a folder of their own. */
  readonly secrets: string;
  remove(): void;
}

export async function prepare(): Promise<Prepared> {
  const folder = mkdtempSync(join(tmpdir(), 'otp-prepared-'));
  await promisify(execFile)(process.execPath, [join(root, 'ops/compose/prepare.mjs'), folder]);
  writeFileSync(join(folder, 'secrets/cepta-secret-key'), 'what-cepta-gave\n');
  return {
    folder,
    secrets: join(folder, 'secrets'),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

export interface Process {
  readonly config: Config;
  readonly opensCodes: boolean;
  readonly opensDetails: boolean;
}

/** Loads a configuration as a process would to which `files` (name under /run/secrets: file on disk) are mounted. */
export function loadAs(configuration: string, files: ReadonlyMap<string, string>): Process {
  const folder = mkdtempSync(join(tmpdir(), 'otp-process-'));
  try {
    for (const [name, file] of files) copyFileSync(file, join(folder, basename(name)));
    const file = join(folder, 'otp.yaml');
    writeFileSync(file, configuration.replaceAll(SECRETS, folder));
    const config = loadConfig({ file, environment: {} });
    const opens = (keyFile: string): boolean => readKeySet(keyFile, 'a key file').keys.some(({ d }) => d !== undefined);
    return {
      config,
      opensCodes: opens(config.sealing.keyFile),
      opensDetails: opens(config.sealing.detailsKeyFile),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
