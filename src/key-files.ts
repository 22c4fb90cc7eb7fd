/**
 * The files that hold keys. Private keys are read here and nowhere else, and written readable by their owner only.
 *
 * The life of a key: staged (last in the set: it opens) -> activated (first: it seals, and all others still open)
 * -> retired (its private part destroyed, its name remembered). docs/keys.md is the drill.
 */
import {
  closeSync,
  existsSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { generateSealingKey, type SealingKey, type SealingKeySet, sealingKeySetSchema } from './producers/sealing.ts';

export class KeyFileError extends Error {
  override readonly name = 'KeyFileError';
}

/** @throws KeyFileError naming the file and the configuration key; never a word of what the file holds. */
export function readKeySet(file: string, configurationKey: string): SealingKeySet {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const code = codeOf(error);
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

/** What the file system says of a file, without its words: they repeat what was given for the path. */
function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'it cannot be used';
}

/** Never overwrites: a key that is gone is a code that nobody can open. */
export function writeKeySet(file: string, keySet: SealingKeySet): void {
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new KeyFileError(`${file}: its folder cannot be made: ${codeOf(error)}`);
  }
  try {
    writeFileSync(file, textOf(keySet), { mode: 0o600, flag: 'wx' });
  } catch (error) {
    const code = codeOf(error);
    if (code !== 'EEXIST') throw new KeyFileError(`${file}: cannot be made: ${code}`);
    throw new KeyFileError(`${file} exists already and is not overwritten: old codes would stay closed for ever`);
  }
}

/** The key to which details for GET are sealed; made when missing. */
export async function readOrMakeKeySet(file: string, configurationKey: string): Promise<SealingKeySet> {
  if (!existsSync(file)) {
    try {
      writeKeySet(file, { keys: [await newKey('details')] });
    } catch (error) {
      if (!(error instanceof KeyFileError)) throw error;
      // Unless another process made it in this very moment, nobody did.
      if (!existsSync(file)) throw new KeyFileError(`${configurationKey}: ${error.message}`);
    }
  }
  return readKeySet(file, configurationKey);
}

/** `kid` says what it is for and when it was made: `otp-2026-11-21T22-05-00`. */
export async function newKey(purpose: 'otp' | 'details'): Promise<SealingKey> {
  const now = new Date();
  const kid = `${purpose}-${now.toISOString().slice(0, 19).replaceAll(':', '-')}`;
  return { ...(await generateSealingKey(kid)), iat: now.getTime() / 1_000 } as SealingKey;
}

/** When it was made, in Unix ms: by its own word, else by its name; null when neither says. */
export function madeAt({ iat, kid }: Pick<SealingKey, 'iat' | 'kid'>): number | null {
  if (iat !== undefined) return Math.round(iat * 1_000);
  const [, day, time] = /-(\d{4}-\d{2}-\d{2})T(\d{2}-\d{2}-\d{2})$/.exec(kid) ?? [];
  return day === undefined || time === undefined ? null : Date.parse(`${day}T${time.replaceAll('-', ':')}Z`);
}

/** The key that is newer than the one that seals: it opens, and waits to be activated. Null when there is none. */
export function stagedKey({ keys: [first, ...others] }: SealingKeySet): SealingKey | null {
  const since = first === undefined ? 0 : (madeAt(first) ?? 0);
  const newer = others.filter((key) => key.d !== undefined && (madeAt(key) ?? 0) > since);
  return newer.sort((a, b) => (madeAt(b) ?? 0) - (madeAt(a) ?? 0))[0] ?? null;
}

/** A new key as the last one: from now on whoever has this set opens what will be sealed to it. */
export function withStaged(keySet: SealingKeySet, key: SealingKey): SealingKeySet {
  const [first] = keySet.keys;
  if (first?.d === undefined) {
    throw new KeyFileError('this set has no private keys: rotate the one that the workers have');
  }
  const staged = stagedKey(keySet);
  if (staged) throw new KeyFileError(`${staged.kid} is staged already; \`otp keys rotate --activate\` makes it seal`);
  const taken = new Set([...keySet.keys, ...(keySet.retired ?? [])].map(({ kid }) => kid));
  let { kid } = key;
  for (let next = 2; taken.has(kid); next += 1) kid = `${key.kid}-${next}`;
  // The newest is the staged one, whatever the clock says: it may be behind that of the machine where another was made.
  const newestAt = Math.max(...keySet.keys.map((one) => madeAt(one) ?? 0));
  const iat = Math.max(madeAt(key) ?? 0, newestAt + 1) / 1_000;
  return { ...keySet, keys: [...keySet.keys, { ...key, kid, iat }] };
}

/** The staged key as the first one: from now on whoever has this set seals to it. */
export function withActivated(keySet: SealingKeySet): SealingKeySet {
  const staged = stagedKey(keySet);
  if (!staged) throw new KeyFileError('no key is staged; `otp keys rotate` adds one');
  return { ...keySet, keys: [staged, ...keySet.keys.filter((key) => key !== staged)] };
}

/** The set without a key, whose name is remembered. What is still sealed to it can be opened by nobody. */
export function withoutKey(keySet: SealingKeySet, kid: string, now: Date): SealingKeySet {
  const { keys, retired = [] } = keySet;
  if (keys[0]?.kid === kid) {
    throw new KeyFileError(
      `${kid} is the key that seals: \`otp keys rotate\`, and then --activate, puts another in its place`,
    );
  }
  const before = retired.find((one) => one.kid === kid);
  if (before) throw new KeyFileError(`${kid} was retired already, ${before.retiredAt}`);
  if (!keys.some((key) => key.kid === kid)) {
    throw new KeyFileError(`there is no key ${kid} here; there are ${keys.map((key) => key.kid).join(', ')}`);
  }
  return {
    ...keySet,
    keys: keys.filter((key) => key.kid !== kid),
    retired: [...retired, { kid, retiredAt: now.toISOString() }],
  };
}

/**
 * Puts a changed set in the place of the one in the file, whole or not at all, and one command at a time: the new file is
 * written beside the old one under a name that also keeps others out, and takes its place by a rename. What the old
 * file held is overwritten, as far as a program can know where a disk keeps it.
 */
export async function changeKeySet(
  file: string,
  configurationKey: string,
  change: (keySet: SealingKeySet) => SealingKeySet | Promise<SealingKeySet>,
): Promise<SealingKeySet> {
  readKeySet(file, configurationKey); // a file that is not there, or no set, is told before anything is made
  const target = realpathSync(file); // a link stays a link
  const beside = `${target}.new`;
  const written = openBeside(beside);
  try {
    const changed = await change(readKeySet(target, configurationKey));
    const old = openSync(target, 'r+');
    try {
      const { uid, gid, size } = fstatSync(old);
      const made = fstatSync(written);
      if (made.uid !== uid || made.gid !== gid) fchownSync(written, uid, gid); // root may rotate what a service reads
      writeFileSync(written, textOf(changed));
      fsyncSync(written);
      renameSync(beside, target);
      syncFolder(dirname(target));
      writeSync(old, Buffer.alloc(size), 0, size, 0);
      fsyncSync(old);
    } finally {
      closeSync(old);
    }
    return changed;
  } catch (error) {
    rmSync(beside, { force: true });
    if (error instanceof Error && 'code' in error) throw new KeyFileError(`${file}: ${codeOf(error)}`);
    throw error;
  } finally {
    closeSync(written);
  }
}

function openBeside(file: string): number {
  try {
    return openSync(file, 'wx', 0o600);
  } catch (error) {
    const code = codeOf(error);
    if (code !== 'EEXIST') throw new KeyFileError(`${file}: ${code}`);
    throw new KeyFileError(
      `${file} is there: another command is changing the keys, or one was interrupted; in that case remove it`,
    );
  }
}

function syncFolder(folder: string): void {
  const opened = openSync(folder, 'r');
  try {
    fsyncSync(opened);
  } finally {
    closeSync(opened);
  }
}

function textOf(keySet: SealingKeySet): string {
  return `${JSON.stringify(keySet, null, 2)}\n`;
}
