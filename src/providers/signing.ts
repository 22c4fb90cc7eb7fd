/** Digests and signatures over exactly the bytes that are sent. All text is UTF-8. */
import { createHash, createHmac, createPrivateKey, sign, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import { Secret } from '../secret.ts';

export type SignatureEncoding = 'hex' | 'base64';

/** Lower-case hex. */
export function sha256Hex(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Lower-case hex. */
export function sha512Hex(text: string): string {
  return createHash('sha512').update(text).digest('hex');
}

/** Hex is lower-case, base64 is padded. */
export function hmac(
  algorithm: 'sha256' | 'sha512',
  secret: Secret<string>,
  text: string,
  encoding: SignatureEncoding,
): string {
  return createHmac(algorithm, secret.reveal()).update(text).digest(encoding);
}

/** SHA256withRSA, that is RSASSA-PKCS1-v1_5: the same text always has the same signature. */
export function rsaSha256(privateKey: Secret<string>, text: string): string {
  return sign('sha256', Buffer.from(text), privateKey.reveal()).toString('base64');
}

/**
 * Whether somebody presented this secret. Digests are compared, so neither the length nor the first difference of what
 * came shows in the time; nothing presented takes as long as something wrong.
 */
export function isSecret(presented: string | Buffer | null | undefined, expected: string | Buffer): boolean {
  const [given, wanted] = [presented ?? '', expected].map((text) => createHash('sha256').update(text).digest());
  return timingSafeEqual(given as Buffer, wanted as Buffer) && expected.length > 0; // what is not configured fits nobody
}

/** The bytes of a header's value: Node reads each as one character, so a secret beyond ASCII looks different as text. */
export function headerBytes(value: string | undefined): Buffer {
  return Buffer.from(value ?? '', 'latin1');
}

/**
 * An RSA private key in PEM, checked when the configuration is read, so that signing cannot fail later.
 * Line breaks written as `\n` are taken for line breaks: many environments allow no others.
 */
export const rsaPrivateKey = z
  .string()
  .transform((pem) => pem.replaceAll('\\n', '\n'))
  .refine(isRsaPrivateKey, 'must be an unencrypted RSA private key in PEM form')
  .transform((pem) => new Secret(pem));

function isRsaPrivateKey(pem: string): boolean {
  try {
    return createPrivateKey(pem).asymmetricKeyType === 'rsa';
  } catch {
    return false;
  }
}
