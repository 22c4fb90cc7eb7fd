/**
 * What is kept of a secret that only has to be recognised. An API key is long and random, so its SHA-256 gives nothing
 * away; a password is chosen by a person, so guessing it must cost something: scrypt (RFC 7914). Both have a written
 * form without a comma and without a `$`, which may stand in a configuration in the place of the secret.
 */
import { createHash, randomBytes, scrypt, timingSafeEqual } from 'node:crypto';

const API_KEY_PREFIX = 'sha256:';
const API_KEY_HASH = /^sha256:[0-9a-f]{64}$/;
/** Shorter ones can be guessed from their hash, and from the fingerprints that are made with it. */
export const API_KEY_MIN_LENGTH = 20;
/** Of a password that stands in the configuration as it is; of a hash nobody can tell. */
export const PASSWORD_MIN_LENGTH = 12;

/** 256 random bits; the prefix lets a scanner find one that was left in a repository. */
export function newApiKey(): string {
  return `otpk_${randomBytes(32).toString('base64url')}`;
}

/** `sha256:<64 hex digits>` of a key; what is such a hash already stays what it is. */
export function apiKeyHash(keyOrHash: string): string {
  return API_KEY_HASH.test(keyOrHash) ? keyOrHash : API_KEY_PREFIX + digestOf(keyOrHash).toString('hex');
}

/** The 32 bytes of that hash: what keys are compared by, and what fingerprints are keyed with. */
export function apiKeyDigest(keyOrHash: string): Buffer {
  return Buffer.from(apiKeyHash(keyOrHash).slice(API_KEY_PREFIX.length), 'hex');
}

/** The bytes to compare with `apiKeyDigest`, of what a caller has sent: a hash that was sent is no key. */
export function digestOf(sent: string): Buffer {
  return createHash('sha256').update(sent).digest();
}

/** What is wrong with the form of an API key, or null. */
export function apiKeyFormProblem(text: string): string | null {
  if (!text.startsWith(API_KEY_PREFIX) || API_KEY_HASH.test(text)) return null;
  return 'must be sha256: and then 64 of 0-9 and a-f, as `otp keys api-key` prints it, or a key that begins otherwise';
}

export function isApiKeyHash(text: string): boolean {
  return API_KEY_HASH.test(text);
}

// ---- passwords ------------------------------------------------------------------------------------------------------

export interface ScryptCost {
  /** A power of two; memory is 128 * N * r bytes. */
  readonly N: number;
  readonly r: number;
  readonly p: number;
}

export interface PasswordHash extends ScryptCost {
  readonly salt: Buffer;
  readonly hash: Buffer;
}

/** 32 MiB and about a fifth of a second: what OWASP asks of scrypt where memory is dear. */
export const SCRYPT_COST: ScryptCost = { N: 2 ** 15, r: 8, p: 3 };

const PASSWORD_PREFIX = 'scrypt:';
const MOST_MEMORY_BYTES = 256 * 1024 * 1024;
const HASH_BYTES = 32;

/** `scrypt:N:r:p:salt:hash`, the last two in base64url. */
export async function hashPassword(password: string, cost: ScryptCost = SCRYPT_COST): Promise<string> {
  const salt = randomBytes(16);
  const hash = await derive(password, { ...cost, salt }, HASH_BYTES);
  const { N, r, p } = cost;
  return [`scrypt:${N}:${r}:${p}`, salt.toString('base64url'), hash.toString('base64url')].join(':');
}

export function isPasswordHash(text: string): boolean {
  return text.startsWith(PASSWORD_PREFIX);
}

/** What is wrong with a password that says it is a hash, or null. */
export function passwordHashProblem(text: string): string | null {
  if (!isPasswordHash(text)) return null;
  const parsed = parsePasswordHash(text);
  const cheapest = 2 ** 14 * 8;
  if (parsed !== null && parsed.N * parsed.r * parsed.p >= cheapest) return null;
  return 'must be scrypt:N:r:p:salt:hash as `otp keys password` prints it, and no cheaper than 16384:8:1';
}

/** Null when it is no hash of this form, or one that would cost more memory than any should. */
export function parsePasswordHash(text: string): PasswordHash | null {
  const [, N, r, p, salt = '', hash = ''] =
    /^scrypt:(\d{1,8}):(\d{1,3}):(\d{1,3}):([\w-]{11,88}):([\w-]{43})$/.exec(text) ?? [];
  const cost = { N: Number(N), r: Number(r), p: Number(p) };
  const isPowerOfTwo = Number.isInteger(Math.log2(cost.N)) && cost.N >= 2;
  if (!isPowerOfTwo || cost.r < 1 || cost.p < 1 || cost.p > 64 || memoryOf(cost) > MOST_MEMORY_BYTES) return null;
  return { ...cost, salt: Buffer.from(salt, 'base64url'), hash: Buffer.from(hash, 'base64url') };
}

/** Off the event loop; equal times for equal costs, whatever the password is. */
export async function passwordMatches(password: string, expected: PasswordHash): Promise<boolean> {
  return timingSafeEqual(await derive(password, expected, expected.hash.length), expected.hash);
}

async function derive(
  password: string,
  { N, r, p, salt }: ScryptCost & { readonly salt: Buffer },
  bytes: number,
): Promise<Buffer> {
  const options = { N, r, p, maxmem: memoryOf({ N, r, p }) + 1024 * 1024 };
  return await new Promise((resolve, reject) => {
    // A keyboard may write ë as one character or as two; both are the same password (RFC 8265).
    scrypt(password.normalize('NFC'), salt, bytes, options, (error, key) => (error ? reject(error) : resolve(key)));
  });
}

function memoryOf({ N, r, p }: ScryptCost): number {
  return 128 * r * (N + p);
}
