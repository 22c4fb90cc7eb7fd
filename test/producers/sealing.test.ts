import {
  createCipheriv,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';
import { CompactEncrypt, compactDecrypt, importJWK, type JWK } from 'jose';
import { beforeAll, describe, expect, it } from 'vitest';
import { configSchema } from '../../src/config-schema.ts';
import {
  concatKdf,
  LONGEST_REUSE_MS,
  MOST_MESSAGES,
  RememberingDecrypter,
  ReusingEncrypter,
} from '../../src/producers/ecdh-es.ts';
import {
  Opener,
  openCode,
  publicKeySet,
  SealError,
  Sealer,
  type SealingKey,
  type SealingKeySet,
  sealCode,
  sealingKeySetSchema,
} from '../../src/producers/sealing.ts';
import { CANARY, sealingKeys } from './world.ts';

const ID = `cepta_${'0'.repeat(32)}`;
const CODE = { id: ID, partition: 'cepta', otp: CANARY, params: { md: 'merchant data, ü' } };
const REUSE = { forMs: 60_000, messages: 1_000 };

const keys = {} as { set: SealingKeySet; key: SealingKey; jose: Awaited<ReturnType<typeof importJWK>> };

beforeAll(async () => {
  keys.set = await sealingKeys('workers-1');
  keys.key = keys.set.keys[0] as SealingKey;
  keys.jose = await importJWK(keys.key as JWK, 'ECDH-ES');
});

const headerOf = (sealed: string) => JSON.parse(Buffer.from(sealed.split('.')[0] ?? '', 'base64url').toString());
const epkOf = (sealed: string): string => headerOf(sealed).epk.x;
const ivOf = (sealed: string): string => sealed.split('.')[2] ?? '';
const openedByJose = async (sealed: string) =>
  JSON.parse(new TextDecoder().decode((await compactDecrypt(sealed, keys.jose)).plaintext));
const sealedByJose = async (
  content: unknown,
  header: object = {},
  parties: { apu?: Uint8Array; apv?: Uint8Array } = {},
) =>
  await new CompactEncrypt(new TextEncoder().encode(JSON.stringify(content)))
    .setProtectedHeader({ alg: 'ECDH-ES', enc: 'A256GCM', kid: 'workers-1', ...header })
    .setKeyManagementParameters(parties)
    .encrypt(await importJWK(publicKeySet(keys.set).keys[0] as JWK, 'ECDH-ES'));

function privateKey(): KeyObject {
  const { kty, crv, x, d = '' } = keys.key;
  return createPrivateKey({ format: 'jwk', key: { kty, crv, x, d } });
}

/** Sealed correctly in everything but what its header says. */
function crafted(more: Record<string, unknown>, secret?: Buffer): string {
  const ephemeral = generateKeyPairSync('x25519');
  const { kty, crv, x = '' } = ephemeral.publicKey.export({ format: 'jwk' });
  const header = { alg: 'ECDH-ES', enc: 'A256GCM', kid: 'workers-1', epk: { kty, crv, x }, ...more };
  const encoded = Buffer.from(JSON.stringify(header)).toString('base64url');
  const { d: _, ...publicPart } = keys.key;
  const publicKey = createPublicKey({ format: 'jwk', key: publicPart });
  const agreed = secret ?? diffieHellman({ privateKey: ephemeral.privateKey, publicKey });
  const iv = Buffer.alloc(12, 7);
  const cipher = createCipheriv('aes-256-gcm', concatKdf(agreed, 'A256GCM', 256, Buffer.alloc(0), Buffer.alloc(0)), iv);
  cipher.setAAD(Buffer.from(encoded));
  const ciphertext = Buffer.concat([cipher.update('code'), cipher.final()]);
  return [encoded, '', ...[iv, ciphertext, cipher.getAuthTag()].map((part) => part.toString('base64url'))].join('.');
}

/** With a new ephemeral key for each text, and with one that is reused; opened the plain way and by remembering. */
const SEALERS = { 'a new ephemeral key': {}, 'a reused ephemeral key': { reuseEphemeralKey: REUSE } };
const OPENERS = { 'an opener': {}, 'an opener that remembers': { rememberDerivedKeys: true } };

describe.each(Object.entries(SEALERS))('sealed with %s', (_, options) => {
  it('is a compact JWE that jose opens, and names the key', async () => {
    const sealer = await Sealer.create(publicKeySet(keys.set), options);
    const texts = [await sealCode(sealer, CODE), await sealCode(sealer, CODE)];
    for (const sealed of texts) {
      expect(headerOf(sealed)).toMatchObject({ alg: 'ECDH-ES', enc: 'A256GCM', kid: 'workers-1' });
      expect(await openedByJose(sealed)).toEqual(CODE);
      expect(sealed.split('.')[1]).toBe('');
    }
    expect(ivOf(texts[0] as string)).not.toBe(ivOf(texts[1] as string));
  });

  it.each(Object.entries(OPENERS))('is opened by %s, for its own verification alone', async (__, opening) => {
    const sealed = await sealCode(await Sealer.create(keys.set, options), CODE);
    const opener = await Opener.create(keys.set, opening);
    for (let time = 1; time <= 2; time += 1) {
      expect(await openCode(opener, sealed, ID, 'cepta')).toEqual(CODE);
      await expect(openCode(opener, sealed, ID.replace('0', '1'), 'cepta')).rejects.toThrow('another verification');
      await expect(openCode(opener, sealed, ID, 'beqelal')).rejects.toThrow('another verification');
    }
  });

  it.each(Object.entries(OPENERS))('is refused by %s when one bit of any part is another', async (__, opening) => {
    const sealed = await sealCode(await Sealer.create(keys.set, options), CODE);
    const opener = await Opener.create(keys.set, opening);
    await opener.open(sealed);
    for (const part of [0, 2, 3, 4]) {
      const parts = sealed.split('.');
      const bytes = Buffer.from(parts[part] ?? '', 'base64url');
      for (const at of [0, bytes.length >> 1, bytes.length - 1]) {
        const flipped = Buffer.from(bytes);
        flipped[at] = (flipped[at] ?? 0) ^ 1;
        const altered = parts.with(part, flipped.toString('base64url')).join('.');
        await expect(opener.open(altered), `part ${part}, byte ${at}`).rejects.toThrow(SealError);
      }
    }
  });

  it('is not opened by the public half, nor by another key of the same name', async () => {
    const sealed = await sealCode(await Sealer.create(keys.set, options), CODE);
    await expect(Opener.create(publicKeySet(keys.set))).rejects.toThrow('opens nothing');
    for (const opening of Object.values(OPENERS)) {
      const other = await Opener.create(await sealingKeys('workers-1'), opening);
      await expect(other.open(sealed)).rejects.toThrow('the sealed text was altered');
    }
  });
});

describe('the ephemeral key', () => {
  it('is another one for each text, unless reuse is configured', async () => {
    const sealer = await Sealer.create(keys.set);
    expect(epkOf(await sealer.seal(1))).not.toBe(epkOf(await sealer.seal(1)));
    const schema = configSchema({}).shape.sealing;
    expect(schema.parse({})).not.toHaveProperty('reuseEphemeralKey');
    expect(schema.parse({ reuseEphemeralKey: {} }).reuseEphemeralKey).toEqual({
      forMs: 60_000,
      messages: MOST_MESSAGES,
    });
    for (const beyond of [{ messages: MOST_MESSAGES + 1 }, { forMs: LONGEST_REUSE_MS + 1 }]) {
      expect(schema.safeParse({ reuseEphemeralKey: beyond }).success).toBe(false);
    }
  });

  it('ends with its time or with its messages, and each text has an IV of its own', () => {
    const clock = { now: 0 };
    const encrypter = new ReusingEncrypter(keys.key, { forMs: 1_000, messages: 3 }, () => clock.now);
    const seal = (count: number) => Array.from({ length: count }, () => encrypter.encrypt(Buffer.from('code')));
    const first = seal(3);
    expect(new Set(first.map(epkOf)).size).toBe(1);
    expect(new Set(first.map(ivOf)).size).toBe(3);
    clock.now = 999;
    const second = seal(1);
    expect(epkOf(second[0] as string)).not.toBe(epkOf(first[0] as string));
    clock.now = 1_998;
    expect(epkOf(seal(1)[0] as string)).toBe(epkOf(second[0] as string));
    clock.now = 1_999;
    expect(epkOf(seal(1)[0] as string)).not.toBe(epkOf(second[0] as string));
  });

  it('is not kept longer by a producer that has nothing more to seal', async () => {
    // A clock that stands still: only the timer can end it.
    const encrypter = new ReusingEncrypter(keys.key, { forMs: 20, messages: 3 }, () => 0);
    const first = epkOf(encrypter.encrypt(Buffer.from('code')));
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(epkOf(encrypter.encrypt(Buffer.from('code')))).not.toBe(first);
  });

  it.each([
    { forMs: 0, messages: 1 },
    { forMs: LONGEST_REUSE_MS + 1, messages: 1 },
    { forMs: 1, messages: 0 },
    { forMs: 1, messages: MOST_MESSAGES + 1 },
    { forMs: Number.NaN, messages: 1 },
  ])('is not used without bounds: %o', (bounds) => {
    expect(() => new ReusingEncrypter(keys.key, bounds)).toThrow(RangeError);
  });
});

describe('an opener that remembers', () => {
  const remembering = async () => await Opener.create(keys.set, { rememberDerivedKeys: true });

  it('opens what jose sealed, also with the names of the two parties', async () => {
    const opener = await remembering();
    expect(await opener.open(await sealedByJose(CODE))).toEqual(CODE);
    const parties = { apu: Buffer.from('Alice'), apv: Buffer.from('Bob') };
    expect(await opener.open(await sealedByJose(CODE, {}, parties))).toEqual(CODE);
  });

  it('has the key derivation of RFC 7518, appendix C', () => {
    const secret = Buffer.from([
      158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49, 110, 163, 218, 128, 106, 72,
      246, 218, 167, 121, 140, 254, 144, 196,
    ]);
    const derived = concatKdf(secret, 'A128GCM', 128, Buffer.from('Alice'), Buffer.from('Bob'));
    expect(derived.toString('base64url')).toBe('VqqN6vgjbSBcIijNcacQGg');
  });

  it('derives once for each ephemeral key, and forgets those that were used least lately', () => {
    let derivations = 0;
    class CountingKeys extends Map<string, KeyObject> {
      override get(kid: string) {
        derivations += 1;
        return super.get(kid);
      }
    }
    const decrypter = new RememberingDecrypter(new CountingKeys([['workers-1', privateKey()]]), 10);
    const reused = new ReusingEncrypter(keys.key, REUSE);
    const fresh = new ReusingEncrypter(keys.key, { forMs: 1_000, messages: 1 });
    const opens = (encrypter: ReusingEncrypter, times: number) => {
      for (let time = 1; time <= times; time += 1) decrypter.decrypt(encrypter.encrypt(Buffer.from('code')));
      return derivations;
    };
    expect(opens(reused, 3)).toBe(1);
    expect(opens(fresh, 9)).toBe(10);
    expect(opens(reused, 1)).toBe(10);
    expect(opens(fresh, 9)).toBe(19);
    expect(opens(reused, 1)).toBe(19);
    expect(opens(fresh, 10)).toBe(29);
    expect(opens(reused, 1)).toBe(30);

    // What is not authentic takes nobody's place.
    for (let time = 1; time <= 20; time += 1) {
      const [header = '', ...rest] = fresh.encrypt(Buffer.from('code')).split('.');
      expect(() => decrypter.decrypt([header, ...rest.slice(0, 3), 'A'.repeat(22)].join('.'))).toThrow();
    }
    expect(opens(reused, 1)).toBe(50);
  });

  it.each([
    ['another algorithm', { alg: 'ECDH-ES+A256KW' }],
    ['another encryption', { enc: 'A128GCM' }],
    ['a critical extension', { crit: ['exp'], exp: 1 }],
    ['compression', { zip: 'DEF' }],
    ['no key id', { kid: undefined }],
  ])('refuses a header with %s, although the tag is right', (_, more) => {
    const decrypter = new RememberingDecrypter(new Map([['workers-1', privateKey()]]));
    expect(decrypter.decrypt(crafted({})).toString()).toBe('code');
    expect(() => decrypter.decrypt(crafted(more))).toThrow();
  });

  it('refuses an ephemeral key that agrees on zero with everybody', async () => {
    const zero = { kty: 'OKP', crv: 'X25519', x: 'A'.repeat(43) };
    const sealed = crafted({ epk: zero }, Buffer.alloc(32));
    await expect((await remembering()).open(sealed)).rejects.toThrow(SealError);
    await expect(compactDecrypt(sealed, keys.jose)).rejects.toThrow();
  });

  it('refuses a shortened tag, a text of other characters, and what is no JWE', async () => {
    const opener = await remembering();
    const sealed = await sealedByJose(CODE);
    const parts = sealed.split('.');
    const shortTag = Buffer.from(parts[4] ?? '', 'base64url')
      .subarray(0, 12)
      .toString('base64url');
    const spareBits = `${parts[4]?.slice(0, -1)}${parts[4]?.endsWith('A') ? 'B' : 'A'}`;
    for (const altered of [
      parts.with(4, shortTag).join('.'),
      parts.with(4, spareBits).join('.'),
      parts.with(3, `${parts[3]}!`).join('.'),
      parts.with(1, 'AA').join('.'),
      `${sealed}.`,
      '....',
      '',
    ]) {
      await expect(opener.open(altered), altered).rejects.toThrow(SealError);
    }
  });
});

describe('a key that is missing', () => {
  it.each(Object.entries(OPENERS))('is named by %s, which from then on knows that it lacks one', async (_, opening) => {
    const opener = await Opener.create(await sealingKeys('workers-0'), opening);
    const sealed = await (await Sealer.create(keys.set)).seal(CODE);
    expect(opener.lacksKeys).toBe(false);
    const fault = await opener.open(sealed).catch((error: unknown) => error);
    expect(fault).toMatchObject({ name: 'SealError', message: 'no key with kid workers-1', missingKid: 'workers-1' });
    expect(opener.lacksKeys).toBe(true);
    expect(opener.missingKid(sealed)).toBe('workers-1');
    expect(opener.missingKid('no sealed text')).toBeNull();
  });

  it('is one among several: every key that has its private part opens, the first one seals', async () => {
    const [older, newer] = [await sealingKeys('older'), await sealingKeys('newer')];
    const both: SealingKeySet = { keys: [...newer.keys, ...older.keys] };
    for (const opening of Object.values(OPENERS)) {
      const opener = await Opener.create(both, opening);
      for (const set of [older, newer]) expect(await opener.open(await (await Sealer.create(set)).seal('x'))).toBe('x');
    }
    expect(headerOf(await (await Sealer.create(both)).seal('x')).kid).toBe('newer');
  });

  it('cannot share its name with another one of the set', () => {
    const { success } = sealingKeySetSchema.safeParse({ keys: [keys.key, keys.key] });
    expect(success).toBe(false);
  });
});
