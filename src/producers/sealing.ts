/**
 * Sealing: a producer encrypts the code to the workers' public key and cannot open it again. Compact JWE (RFC 7516),
 * ECDH-ES on X25519 (RFC 8037) with A256GCM, by the jose package. The sealed text repeats the verification's id and
 * partition, and opening refuses a mismatch, so a sealed code cannot be moved to another verification.
 */
import { CompactEncrypt, type CryptoKey, compactDecrypt, exportJWK, generateKeyPair, importJWK, type JWK } from 'jose';
import { z } from 'zod';

const ALGORITHM = 'ECDH-ES';
const ENCRYPTION = 'A256GCM';

/** One key of a set: OKP on X25519 with a `kid`; `d` only in the set that opens. */
export const sealingKeySchema = z.looseObject({
  kty: z.literal('OKP'),
  crv: z.literal('X25519'),
  x: z.string().min(1),
  d: z.string().min(1).optional(),
  kid: z.string().min(1),
});

/** A JWK set (RFC 7517). The first key seals, every key that has its private part opens. */
export const sealingKeySetSchema = z.looseObject({ keys: z.array(sealingKeySchema).min(1) });
export type SealingKeySet = z.infer<typeof sealingKeySetSchema>;

export async function generateSealingKey(kid: string): Promise<JWK> {
  const { privateKey } = await generateKeyPair(ALGORITHM, { crv: 'X25519', extractable: true });
  return { ...(await exportJWK(privateKey)), kid, alg: ALGORITHM, use: 'enc' };
}

/** What producers may hold: the same set without any private part. */
export function publicKeySet(keySet: SealingKeySet): SealingKeySet {
  return { keys: keySet.keys.map(({ d: _, ...publicPart }) => publicPart) };
}

/** Seals to one public key. */
export class Sealer {
  readonly #key: CryptoKey;
  readonly #header: { alg: string; enc: string; kid: string };

  private constructor(key: CryptoKey, kid: string) {
    this.#key = key;
    this.#header = { alg: ALGORITHM, enc: ENCRYPTION, kid };
  }

  static async create(keySet: SealingKeySet): Promise<Sealer> {
    const { d: _, ...publicKey } = keySet.keys[0] as z.infer<typeof sealingKeySchema>;
    return new Sealer((await importJWK(publicKey as JWK, ALGORITHM)) as CryptoKey, publicKey.kid);
  }

  async seal(content: unknown): Promise<string> {
    return await new CompactEncrypt(new TextEncoder().encode(JSON.stringify(content)))
      .setProtectedHeader(this.#header)
      .encrypt(this.#key);
  }
}

/** What cannot be opened, and why, without a word of what was inside. */
export class SealError extends Error {
  override readonly name = 'SealError';
}

/** Opens what was sealed to any key of the set. */
export class Opener {
  readonly #keys: ReadonlyMap<string, CryptoKey>;

  private constructor(keys: ReadonlyMap<string, CryptoKey>) {
    this.#keys = keys;
  }

  static async create(keySet: SealingKeySet): Promise<Opener> {
    const keys = new Map<string, CryptoKey>();
    for (const key of keySet.keys) {
      if (key.d !== undefined) keys.set(key.kid, (await importJWK(key as JWK, ALGORITHM)) as CryptoKey);
    }
    if (keys.size === 0) throw new SealError('the key set has no private key (a member `d`), so it opens nothing');
    return new Opener(keys);
  }

  async open(sealed: string): Promise<unknown> {
    let missing: string | null = null;
    try {
      const { plaintext } = await compactDecrypt(
        sealed,
        (header) => {
          const key = this.#keys.get(header.kid ?? '');
          if (key) return key;
          missing = header.kid ?? '(none)';
          throw new SealError('no key');
        },
        { keyManagementAlgorithms: [ALGORITHM], contentEncryptionAlgorithms: [ENCRYPTION] },
      );
      return JSON.parse(new TextDecoder().decode(plaintext));
    } catch {
      // The cause is left out on purpose: a parser's message may quote what it could not parse.
      throw new SealError(
        missing === null ? 'the sealed text was altered or is no compact JWE' : `no key with kid ${missing}`,
      );
    }
  }
}

const sealedCodeSchema = z.strictObject({
  id: z.string(),
  partition: z.string(),
  otp: z.string().nullable(),
  params: z.record(z.string(), z.unknown()),
});
export type SealedCode = z.infer<typeof sealedCodeSchema>;

export async function sealCode(sealer: Sealer, content: SealedCode): Promise<string> {
  return await sealer.seal(content);
}

export async function openCode(opener: Opener, sealed: string, id: string, partition: string): Promise<SealedCode> {
  const content = sealedCodeSchema.safeParse(await opener.open(sealed));
  if (!content.success) throw new SealError('the sealed text has another shape than a sealed code');
  if (content.data.id !== id || content.data.partition !== partition) {
    throw new SealError('the sealed code belongs to another verification');
  }
  return content.data;
}
