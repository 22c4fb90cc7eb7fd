/** The files that hold keys: whether they are there, who else may read them, and whether they open what they seal. */
import { existsSync, statSync } from 'node:fs';
import type { Config } from '../../config.ts';
import { KeyFileError, readKeySet, stagedKey } from '../../key-files.ts';
import { Opener, Sealer, type SealingKeySet } from '../../producers/sealing.ts';
import { counted, type Finding, fault, ok, warning } from './finding.ts';

const READABLE_BY_ALL = 0o004;
const OPEN_TO_OTHERS = 0o077;
/** Where Docker mounts secrets: their mode is the mount's, and whoever is in the container has them anyway. */
const MOUNTED_SECRETS = '/run/secrets/';

export async function checkKeyFiles({ sealing }: Config): Promise<Finding[]> {
  const details = existsSync(sealing.detailsKeyFile)
    ? await checkFile('sealing.detailsKeyFile', sealing.detailsKeyFile, 'details')
    : [ok('sealing.detailsKeyFile', `${sealing.detailsKeyFile} is not there yet: \`otp serve\` makes it`)];
  return [...(await checkFile('sealing.keyFile', sealing.keyFile, 'codes')), ...details];
}

async function checkFile(about: string, file: string, what: 'codes' | 'details'): Promise<Finding[]> {
  let keySet: SealingKeySet;
  try {
    keySet = readKeySet(file, about);
  } catch (error) {
    if (!(error instanceof KeyFileError)) throw error;
    const remedy = existsSync(file)
      ? 'give this user the file that `otp keys generate` made'
      : `\`otp keys generate --file ${file}\` makes one; where codes are sealed already, bring the one that they are sealed to`;
    return [fault(about, error.message.replace(`${about}: `, '').split('; `otp keys')[0] ?? '', remedy)];
  }
  return [await opensWhatItSeals(about, file, keySet, what), ...openToOthers(about, file, keySet, statSync(file).mode)];
}

async function opensWhatItSeals(
  about: string,
  file: string,
  keySet: SealingKeySet,
  what: 'codes' | 'details',
): Promise<Finding> {
  const opening = keySet.keys.filter(({ d }) => d !== undefined);
  const seals = keySet.keys[0]?.kid ?? '';
  if (opening.length === 0) {
    return warning(
      about,
      `${file} has public keys alone: ${seals} seals, and nothing is opened`,
      what === 'codes'
        ? 'right for an intake; a worker needs the file that `otp keys generate` made'
        : 'right for a worker; an intake needs the private half',
    );
  }
  try {
    const sealed = await (await Sealer.create(keySet)).seal('otp doctor');
    await (await Opener.create(keySet)).open(sealed);
  } catch {
    return fault(
      about,
      `${file}: what ${seals} seals cannot be opened again`,
      'its private part is of another key: bring the file as `otp keys generate` made it',
    );
  }
  const staged = stagedKey(keySet);
  const waiting = staged === null ? '' : `, ${staged.kid} is staged`;
  return ok(about, `${seals} seals, ${counted(opening.length, 'key opens', 'keys open')}${waiting}`);
}

/** What is said of a file with private keys that others than its owner can read or change. */
export function openToOthers(about: string, file: string, keySet: SealingKeySet, fileMode: number): Finding[] {
  const hasSecrets = keySet.keys.some(({ d }) => d !== undefined);
  const mode = fileMode & 0o777;
  if (process.platform === 'win32' || file.startsWith(MOUNTED_SECRETS) || !hasSecrets || (mode & OPEN_TO_OTHERS) === 0)
    return [];
  const said = `${file} has private keys, and its mode is ${mode.toString(8).padStart(3, '0')}`;
  const remedy = `chmod 600 ${file}`;
  if (mode & READABLE_BY_ALL) return [fault(about, `${said}: every user of this machine can open codes`, remedy)];
  return [warning(about, `${said}: its owner should be alone with it`, remedy)];
}
