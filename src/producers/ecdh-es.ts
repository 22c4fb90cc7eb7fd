/**
 * The sealed text of sealing.ts by node:crypto, for those who have configured `sealing.reuseEphemeralKey`: one ephemeral
 * key seals for a bounded while, and whoever opens remembers what was derived from it. Both leave out the key agreement,
 * which is most of the work. What comes out is an ordinary compact JWE that any JOSE library opens; that RFC 7518 §4.6
 * asks for a new ephemeral key each time is the deviation, and docs/decisions/0006 says what it costs.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPublicKey,
  createSecretKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';
import { z } from 'zod';
import { freshBytes } from './fresh-bytes.ts';

export const ALGORITHM = 'ECDH-ES';
export const ENCRYPTION = 'A256GCM';
const KEY_BITS = 256;
const IV_BYTES = 12;
const TAG_BYTES = 16;

/** Random IVs of 96 bits: among so many messages two are the same with a probability of 2^-57. */
export const MOST_MESSAGES = 2 ** 20;
export const LONGEST_REUSE_MS = 3_600_000;
/** Of which as many ephemeral keys as there are producers are in use at a time, where they are reused. */
const MOST_REMEMBERED = 1_000;

/** Whichever comes first ends the life of an ephemeral key. */
export interface ReuseBounds {
  readonly forMs: number;
  readonly messages: number;
}

/** What one ephemeral key is good for: the header that names it, and the content key that was agreed with it. */
interface Agreement {
  readonly header: string;
  readonly contentKey: KeyObject;
  readonly endsAt: number;
  messagesLeft: number;
}

/** Seals to one public key. The ephemeral private key is gone as soon as it has been used; the content key stays a while. */
export class ReusingEncrypter {
  readonly #publicKey: KeyObject;
  readonly #kid: string;
  readonly #bounds: ReuseBounds;
  readonly #now: () => number;
  #agreement: Agreement | null = null;

  /** @param now in ms, of a clock that only goes forward */
  constructor(key: PublicJwk & { kid: string }, bounds: ReuseBounds, now = (): number => performance.now()) {
    const { forMs, messages } = bounds;
    if (!(forMs > 0 && forMs <= LONGEST_REUSE_MS && messages >= 1 && messages <= MOST_MESSAGES))
      throw new RangeError(
        `an ephemeral key is used for ${LONGEST_REUSE_MS} ms and ${MOST_MESSAGES} messages at the most`,
      );
    this.#publicKey = publicKeyOf(key);
    this.#kid = key.kid;
    this.#bounds = bounds;
    this.#now = now;
  }

  encrypt(plaintext: Uint8Array): string {
    const now = this.#now();
    let agreement = this.#agreement;
    if (agreement === null || now >= agreement.endsAt || agreement.messagesLeft === 0) {
      agreement = this.#agree(now);
    }
    agreement.messagesLeft -= 1;
    const { header, contentKey } = agreement;
    const iv = freshBytes(IV_BYTES);
    const cipher = createCipheriv('aes-256-gcm', contentKey, iv, { authTagLength: TAG_BYTES });
    cipher.setAAD(Buffer.from(header, 'ascii'));
    const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final()]);
    return [header, '', ...[iv, ciphertext, cipher.getAuthTag()].map((part) => part.toString('base64url'))].join('.');
  }

  #agree(now: number): Agreement {
    const { forMs, messages } = this.#bounds;
    const ephemeral = generateKeyPairSync('x25519');
    const { kty, crv, x } = ephemeral.publicKey.export({ format: 'jwk' });
    const header = { alg: ALGORITHM, enc: ENCRYPTION, kid: this.#kid, epk: { kty, crv, x } };
    const agreement: Agreement = {
      header: Buffer.from(JSON.stringify(header)).toString('base64url'),
      contentKey: contentKeyOf(ephemeral.privateKey, this.#publicKey),
      endsAt: now + forMs,
      messagesLeft: messages,
    };
    this.#agreement = agreement;
    // A producer with nothing to seal must not keep for longer what opens the codes that it has sealed.
    setTimeout(() => {
      if (this.#agreement === agreement) this.#agreement = null;
    }, forMs).unref();
    return agreement;
  }
}

const headerSchema = z.looseObject({
  alg: z.literal(ALGORITHM),
  enc: z.literal(ENCRYPTION),
  kid: z.string(),
  epk: z.looseObject({ kty: z.literal('OKP'), crv: z.literal('X25519'), x: z.string() }),
  apu: z.string().optional(),
  apv: z.string().optional(),
  // Both would change what the rest means; nobody who seals for us uses them.
  crit: z.never().optional(),
  zip: z.never().optional(),
});

/** Opens, and remembers by the whole header, which is authenticated, what was derived from it. */
export class RememberingDecrypter {
  readonly #keys: ReadonlyMap<string, KeyObject>;
  /** The least lately used first. */
  readonly #derived = new Map<string, KeyObject>();
  readonly #most: number;

  /** @param keys private keys by `kid`; `most` content keys are remembered */
  constructor(keys: ReadonlyMap<string, KeyObject>, most = MOST_REMEMBERED) {
    this.#keys = keys;
    this.#most = most;
  }

  /** @throws whatever is wrong: altered, sealed to another key, or no sealed text at all. */
  decrypt(sealed: string): Buffer {
    const [header = '', encryptedKey, ...parts] = sealed.split('.');
    if (encryptedKey !== '' || parts.length !== 3) throw new Error('no compact JWE of a directly agreed key');
    const [iv, ciphertext, tag] = parts.map(fromBase64Url) as [Buffer, Buffer, Buffer];
    if (iv.length !== IV_BYTES || tag.length !== TAG_BYTES) throw new Error('an IV or a tag of the wrong length');
    const contentKey = this.#derived.get(header) ?? this.#derive(header);
    const decipher = createDecipheriv('aes-256-gcm', contentKey, iv, { authTagLength: TAG_BYTES });
    decipher.setAAD(Buffer.from(header, 'ascii'));
    decipher.setAuthTag(tag);
    const plaintext = Buffer.concat([decipher.update(ciphertext), decipher.final()]);
    this.#remember(header, contentKey); // only now: what is not authentic takes nobody's place
    return plaintext;
  }

  #derive(encodedHeader: string): KeyObject {
    const header = headerSchema.parse(JSON.parse(fromBase64Url(encodedHeader).toString('utf8')));
    const privateKey = this.#keys.get(header.kid);
    if (!privateKey) throw new Error('no such key');
    const { apu = '', apv = '' } = header;
    return contentKeyOf(privateKey, publicKeyOf(header.epk), fromBase64Url(apu), fromBase64Url(apv));
  }

  #remember(header: string, contentKey: KeyObject): void {
    this.#derived.delete(header);
    this.#derived.set(header, contentKey);
    if (this.#derived.size <= this.#most) return;
    const [oldest = ''] = this.#derived.keys();
    this.#derived.delete(oldest);
  }
}

type PublicJwk = { readonly kty: string; readonly crv: string; readonly x: string };

function publicKeyOf({ kty, crv, x }: PublicJwk): KeyObject {
  return createPublicKey({ format: 'jwk', key: { kty, crv, x } });
}

/** Throws when the other side's key is one of the few that agree on zero with everybody (RFC 7748 §6.1). */
function contentKeyOf(
  privateKey: KeyObject,
  publicKey: KeyObject,
  apu: Buffer = NOBODY,
  apv: Buffer = NOBODY,
): KeyObject {
  const secret = diffieHellman({ privateKey, publicKey });
  const derived = concatKdf(secret, ENCRYPTION, KEY_BITS, apu, apv);
  secret.fill(0);
  const contentKey = createSecretKey(derived);
  derived.fill(0);
  return contentKey;
}

const NOBODY = Buffer.alloc(0);

/** The Concat KDF of RFC 7518 §4.6.2 for keys of 256 bits at the most, which is one round of SHA-256. */
export function concatKdf(secret: Buffer, algorithm: string, keyBits: number, apu: Buffer, apv: Buffer): Buffer {
  const hash = createHash('sha256').update(uint32(1)).update(secret);
  for (const part of [Buffer.from(algorithm, 'ascii'), apu, apv]) hash.update(uint32(part.length)).update(part);
  return hash
    .update(uint32(keyBits))
    .digest()
    .subarray(0, keyBits / 8);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** Strict, because decoders pass over what does not belong there, and an altered text would be opened. */
export function fromBase64Url(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64url');
  if (bytes.toString('base64url') !== text) throw new Error('no base64url');
  return bytes;
}
