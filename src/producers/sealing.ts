/**
 * Sealing: a producer encrypts the code to the workers' public key and cannot open it again. Compact JWE (RFC 7516),
 * ECDH-ES on X25519 (RFC 8037) with A256GCM, by the jose package; by ecdh-es.ts where reusing an ephemeral key is
 * configured. The sealed text repeats the verification's id and partition, and opening refuses a mismatch, so a sealed
 * code cannot be moved to another verification.
 */
import { createPrivateKey } from 'node:crypto';
import {
  CompactEncrypt,
  type CryptoKey,
  compactDecrypt,
  decodeProtectedHeader,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWK,
} from 'jose';
import { z } from 'zod';
import {
  ALGORITHM,
  ENCRYPTION,
  fromBase64Url,
  RememberingDecrypter,
  type ReuseBounds,
  ReusingEncrypter,
} from './ecdh-es.ts';

/** One key of a set: OKP on X25519 with a `kid`; `d` only in the set that opens. */
export const sealingKeySchema = z.looseObject({
  kty: z.literal('OKP'),
  crv: z.literal('X25519'),
  x: z.string().min(1),
  d: z.string().min(1).optional(),
  kid: z.string().min(1),
  /** When it was made, in Unix seconds. */
  iat: z.number().optional(),
});

/**
 * A JWK set (RFC 7517). The first key seals, every key that has its private part opens. `retired` remembers keys whose
 * private part was destroyed.
 */
export const sealingKeySetSchema = z.looseObject({
  keys: z
    .array(sealingKeySchema)
    .min(1)
    .refine((keys) => new Set(keys.map(({ kid }) => kid)).size === keys.length, 'each key must have a kid of its own'),
  retired: z.array(z.looseObject({ kid: z.string(), retiredAt: z.string() })).optional(),
});
export type SealingKey = z.infer<typeof sealingKeySchema>;
export type SealingKeySet = z.infer<typeof sealingKeySetSchema>;

export async function generateSealingKey(kid: string): Promise<JWK> {
  const { privateKey } = await generateKeyPair(ALGORITHM, { crv: 'X25519', extractable: true });
  return { ...(await exportJWK(privateKey)), kid, alg: ALGORITHM, use: 'enc' };
}

/** What producers may hold: the same set without any private part. */
export function publicKeySet(keySet: SealingKeySet): SealingKeySet {
  return { keys: keySet.keys.map(({ d: _, iat: __, ...publicPart }) => publicPart) };
}

export interface SealerOptions {
  /** Without it every sealed text has an ephemeral key of its own, as RFC 7518 asks. */
  readonly reuseEphemeralKey?: ReuseBounds | undefined;
}

/** Seals to one public key. */
export class Sealer {
  readonly #encrypt: (plaintext: Uint8Array) => string | Promise<string>;

  private constructor(encrypt: (plaintext: Uint8Array) => string | Promise<string>) {
    this.#encrypt = encrypt;
  }

  static async create(keySet: SealingKeySet, { reuseEphemeralKey }: SealerOptions = {}): Promise<Sealer> {
    const { d: _, ...publicKey } = keySet.keys[0] as SealingKey;
    if (reuseEphemeralKey) {
      const encrypter = new ReusingEncrypter(publicKey, reuseEphemeralKey);
      return new Sealer((plaintext) => encrypter.encrypt(plaintext));
    }
    const key = (await importJWK(publicKey as JWK, ALGORITHM)) as CryptoKey;
    const header = { alg: ALGORITHM, enc: ENCRYPTION, kid: publicKey.kid };
    return new Sealer((plaintext) => new CompactEncrypt(plaintext).setProtectedHeader(header).encrypt(key));
  }

  async seal(content: unknown): Promise<string> {
    return await this.#encrypt(Buffer.from(JSON.stringify(content)));
  }
}

/** What cannot be opened, and why, without a word of what was inside. */
export class SealError extends Error {
  override readonly name = 'SealError';
  /** The `kid` of the key that would open it and is not here; null when the fault is another one. */
  readonly missingKid: string | null;

  constructor(message: string, missingKid: string | null = null) {
    super(message);
    this.missingKid = missingKid;
  }
}

export interface OpenerOptions {
  /** For texts whose sealer reuses its ephemeral key: what was derived from one is kept for the next, within a bound. */
  readonly rememberDerivedKeys?: boolean;
}

/** Opens what was sealed to any key of the set. */
export class Opener {
  readonly #kids: ReadonlySet<string>;
  readonly #decrypt: (sealed: string) => Uint8Array | Promise<Uint8Array>;
  #lacksKeys = false;

  private constructor(kids: Iterable<string>, decrypt: (sealed: string) => Uint8Array | Promise<Uint8Array>) {
    this.#kids = new Set(kids);
    this.#decrypt = decrypt;
  }

  static async create(keySet: SealingKeySet, { rememberDerivedKeys = false }: OpenerOptions = {}): Promise<Opener> {
    const keys = keySet.keys.filter(({ d }) => d !== undefined);
    if (keys.length === 0) throw new SealError('the key set has no private key (a member `d`), so it opens nothing');
    const kids = keys.map(({ kid }) => kid);
    if (rememberDerivedKeys) {
      const privateKeys = keys.map(({ kid, kty, crv, x, d }) => {
        return [kid, createPrivateKey({ format: 'jwk', key: { kty, crv, x, d: d ?? '' } })] as const;
      });
      const decrypter = new RememberingDecrypter(new Map(privateKeys));
      return new Opener(kids, (sealed) => decrypter.decrypt(sealed));
    }
    const imported = new Map<string, CryptoKey>();
    for (const key of keys) imported.set(key.kid, (await importJWK(key as JWK, ALGORITHM)) as CryptoKey);
    return new Opener(kids, async (sealed) => await decryptByJose(sealed, imported));
  }

  /** It has met a text that is sealed to a key it has not: keys are read at the start, so it will meet more. */
  get lacksKeys(): boolean {
    return this.#lacksKeys;
  }

  /** The `kid` of the key that is missing here to open this; null when it is here, or when this is no sealed text. */
  missingKid(sealed: string): string | null {
    const kid = kidOf(sealed);
    if (kid === null || this.#kids.has(kid)) return null;
    this.#lacksKeys = true;
    return kid;
  }

  async open(sealed: string): Promise<unknown> {
    try {
      return JSON.parse(new TextDecoder().decode(await this.#decrypt(sealed)));
    } catch {
      // The cause is left out on purpose: a parser's message may quote what it could not parse.
      const missing = this.missingKid(sealed);
      throw missing === null
        ? new SealError('the sealed text was altered or is no compact JWE')
        : new SealError(`no key with kid ${missing}`, missing);
    }
  }
}

async function decryptByJose(sealed: string, keys: ReadonlyMap<string, CryptoKey>): Promise<Uint8Array> {
  for (const part of sealed.split('.')) fromBase64Url(part); // jose passes over spaces, padding and bits that say nothing
  const keyOf = ({ kid, zip }: { kid?: string; zip?: string }): CryptoKey => {
    const key = keys.get(kid ?? '');
    // Nobody who seals for us compresses; what a stranger has would have to be unpacked to be judged.
    if (!key || zip !== undefined) throw new SealError('no key, or compressed');
    return key;
  };
  const { plaintext } = await compactDecrypt(sealed, keyOf, {
    keyManagementAlgorithms: [ALGORITHM],
    contentEncryptionAlgorithms: [ENCRYPTION],
  });
  return plaintext;
}

/** To which key a text is sealed, by its own word: authentic only once it is open. Null when it does not say. */
export function kidOf(sealed: string): string | null {
  try {
    const { kid } = decodeProtectedHeader(sealed);
    return typeof kid === 'string' && /^\P{C}{1,200}$/u.test(kid) ? kid : null; // it is shown to people
  } catch {
    return null;
  }
}

const sealedCodeSchema = z.strictObject({
  id: z.string(),
  partition: z.string(),
  otp: z.string().nullable(),
  params: z.record(z.string(), z.unknown()),
});
export type SealedCode = z.infer<typeof sealedCodeSchema>;

export function sealCode(sealer: Sealer, content: SealedCode): Promise<string> {
  return sealer.seal(content);
}

export async function openCode(opener: Opener, sealed: string, id: string, partition: string): Promise<SealedCode> {
  const content = sealedCodeSchema.safeParse(await opener.open(sealed));
  if (!content.success) throw new SealError('the sealed text has another shape than a sealed code');
  if (content.data.id !== id || content.data.partition !== partition) {
    throw new SealError('the sealed code belongs to another verification');
  }
  return content.data;
}
