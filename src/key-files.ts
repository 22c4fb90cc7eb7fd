/** The files that hold keys. Private keys are read here and nowhere else, and written readable by their owner only. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { generateSealingKey, type SealingKeySet, sealingKeySetSchema } from './producers/sealing.ts';

export class KeyFileError extends Error {
  override readonly name = 'KeyFileError';
}

/** @throws KeyFileError naming the file and the configuration key; never a word of what the file holds. */
export function readKeySet(file: string, configurationKey: string): SealingKeySet {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'it cannot be read';
    throw new KeyFileError(
      `${configurationKey}: ${file}: ${code === 'ENOENT' ? 'there is no such file; `otp keys generate` makes one' : code}`,
    );
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new KeyFileError(`${configurationKey}: ${file}: must be a JWK set as JSON, and is no JSON`);
  }
  const parsed = sealingKeySetSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const where = parsed.error.issues.map((issue) => issue.path.join('.') || '(whole file)').join(', ');
  throw new KeyFileError(
    `${configurationKey}: ${file}: must be a JWK set with keys of kty OKP, crv X25519, x and kid; at fault: ${where}`,
  );
}

/** Never overwrites: a key that is gone is a code that nobody can open. */
export function writeKeySet(file: string, keySet: SealingKeySet): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  try {
    writeFileSync(file, `${JSON.stringify(keySet, null, 2)}\n`, { mode: 0o600, flag: 'wx' });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') {
      throw new KeyFileError(`${file} exists already and is not overwritten: old codes would stay closed for ever`);
    }
    throw error;
  }
}

/** The key to which details for GET are sealed; made when missing. */
export async function readOrMakeKeySet(file: string, configurationKey: string): Promise<SealingKeySet> {
  if (!existsSync(file)) {
    try {
      writeKeySet(file, { keys: [await newKey('details')] });
    } catch (error) {
      if (!(error instanceof KeyFileError)) throw error; // another process made it in this very moment
    }
  }
  return readKeySet(file, configurationKey);
}

/** `kid` says what it is for and when it was made: `otp-2026-11-21T22-05-00`. */
export async function newKey(purpose: 'otp' | 'details'): Promise<SealingKeySet['keys'][number]> {
  const kid = `${purpose}-${new Date().toISOString().slice(0, 19).replaceAll(':', '-')}`;
  return (await generateSealingKey(kid)) as SealingKeySet['keys'][number];
}
