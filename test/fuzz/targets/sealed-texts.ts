/**
 * Sealed texts, altered, put together of others, sealed by strangers in other ways, or with other things inside: opened
 * only as they were made, refused in words that show nothing of what is inside. Every single bit is flipped.
 */
import {
  createCipheriv,
  createHash,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { CompactEncrypt, importJWK } from 'jose';
import { openCallback } from '../../../src/producers/callbacks.ts';
import {
  Opener,
  openCode,
  publicKeySet,
  Sealer,
  type SealingKeySet,
  sealCode,
  sealingKeySetSchema,
} from '../../../src/producers/sealing.ts';
import { mutatedJson, mutateText, textMutation, words } from '../mutate.ts';
import { demand, demandNoLeak, printed, type Target } from '../target.ts';

const CANARY = 'c4n4ry-0815-inside';
const ID = `cepta_${'0'.repeat(32)}`;
const CODE = { id: ID, partition: 'cepta', otp: '012345', params: { md: CANARY, transactionRef: 'TX12345ABC' } };

/** Made for these tests, and of no use elsewhere. The first seals, both open. */
export const KEYS: SealingKeySet = sealingKeySetSchema.parse({
  keys: [
    {
      ...{ kty: 'OKP', crv: 'X25519', kid: 'fuzz-1' },
      x: 'Ja7MzZHI1VTCWNwNc9Kg8vgGXsH0ZKw0AKDab5WqUSo',
      d: 'iG6QbensqsuCKCnjuseEbGi8pktrTDpGWTxtiffOgWQ',
    },
    {
      ...{ kty: 'OKP', crv: 'X25519', kid: 'fuzz-2' },
      x: 'a5CL7ud3QRPX7PcXGVBTM5dyJn6O9aRKWe2Ly90gXnc',
      d: 'wEtHipZljlZ9TLKtCEFLuNvqrACmOt9rsU9iW4PXhkQ',
    },
  ],
});

type SealCase =
  /** `text` must not open, unless it is one that was made here. */
  | { readonly kind: 'altered'; readonly text: string }
  /** Sealed as it should be; what is inside is anything. */
  | { readonly kind: 'content'; readonly content: string }
  /** Sealed correctly to our key and under this header, whatever it says. */
  | { readonly kind: 'header'; readonly header: string }
  | { readonly kind: 'other way'; readonly way: Way };

export interface SealSubject {
  openers(keySet: SealingKeySet): Promise<Readonly<Record<string, Opener>>>;
}

const REAL: SealSubject = {
  openers: async (keySet) => ({
    'the opener': await Opener.create(keySet),
    'the opener that remembers': await Opener.create(keySet, { rememberDerivedKeys: true }),
  }),
};

export async function sealedTexts(subject: SealSubject = REAL): Promise<Target<SealCase>> {
  const openers = Object.entries(await subject.openers(KEYS));
  const sealers = await Promise.all(
    [{}, { reuseEphemeralKey: { forMs: 3_600_000, messages: 100_000 } }].map(
      async (options) => await Sealer.create(publicKeySet(KEYS), options),
    ),
  );
  // Of all three lengths that base64url treats differently.
  const contents = [CODE, { ...CODE, otp: '0123456' }, { ...CODE, otp: null }];
  const made = (await Promise.all(
    sealers.flatMap((sealer) => contents.map(async (content) => await sealCode(sealer, content))),
  )) as [string, ...string[]];
  // Short ones, to be tried in every bit: by each sealer one.
  const short = await Promise.all(sealers.map(async (sealer) => await sealer.seal({})));
  const good = new Set([...made, ...short]);
  // The remembering one has met them all: what it remembers must not make it believe more.
  for (const [, opener] of openers) for (const text of good) await opener.open(text);

  const ephemeral = generateKeyPairSync('x25519');
  const attack = { header: headerOf(ephemeral.publicKey), keyFor: contentKey(ephemeral.privateKey) };

  /** What the opener makes of it; undefined where it refuses, as it should. */
  async function tried<T>(name: string, canaries: readonly string[], open: () => Promise<T>): Promise<T | undefined> {
    try {
      return await open();
    } catch (error) {
      demandRefusal(name, error, canaries);
      return undefined;
    }
  }

  async function refused(text: string): Promise<string> {
    for (const [name, opener] of openers) {
      const content = await tried(name, [CANARY], async () => await opener.open(text));
      demand(content === undefined || good.has(text), `${name} has opened what was altered`);
    }
    return good.has(text) ? 'opened as it was made' : 'refused';
  }

  return {
    name: 'sealed-texts',
    batch: 200,
    sweep: () => short.flatMap((text) => [...flips(text)]),
    cases: fc.oneof(
      { weight: 6, arbitrary: alteredCases(made) },
      {
        weight: 2,
        arbitrary: mutatedJson([JSON.stringify(CODE), JSON.stringify({ partition: 'cepta', body: CANARY })], {
          canaries: [CANARY],
        }).map((content) => ({ kind: 'content' as const, content })),
      },
      {
        weight: 2,
        arbitrary: mutatedJson([attack.header], HEADER_WORDS).map((header) => ({ kind: 'header' as const, header })),
      },
      { weight: 1, arbitrary: fc.constantFrom(...WAYS).map((way) => ({ kind: 'other way' as const, way })) },
    ),
    async check(given) {
      switch (given.kind) {
        case 'altered':
          return await refused(given.text);
        case 'content':
          return await judgeContent(given.content);
        case 'header':
          return await judgeHeader(given.header);
        case 'other way':
          return await judgeWay(given.way);
      }
      return given satisfies never;
    },
  };

  async function judgeContent(text: string): Promise<string> {
    let content: unknown;
    try {
      content = JSON.parse(text);
    } catch {
      content = text;
    }
    if (nestsDeeperThan(content, 1_000)) return 'content: nobody can write it down';
    // A schema passes over the name; no request with it is let in.
    if (text.includes('__proto__')) return 'content: not asked';
    content = JSON.parse(JSON.stringify(content)); // what is sealed: JSON has no infinity
    const canaries = text.includes(CANARY) ? [CANARY] : [];
    let word = 'refused';
    for (const sealer of sealers) {
      const sealed = await sealer.seal(content);
      for (const [name, opener] of openers) {
        const code = await tried(name, canaries, async () => await openCode(opener, sealed, ID, 'cepta'));
        demand(
          (code !== undefined) === isCode(content),
          `${name} has ${code ? 'taken something else for' : 'refused'} a code`,
        );
        demand(!code || isDeepStrictEqual(code, content), `${name} has opened another code than was sealed`);
        const body = await tried(name, canaries, async () => await openCallback(opener, sealed, 'cepta'));
        word = code ? 'a code' : body !== undefined ? 'a callback' : word;
      }
    }
    return `content: ${word}`;
  }

  async function judgeHeader(header: string): Promise<string> {
    const ours = createPublicKey({ format: 'jwk', key: publicKeySet(KEYS).keys[0] as never });
    const text = seal(header, attack.keyFor(ours));
    let word = 'refused';
    for (const [name, opener] of openers) {
      const content = await tried(name, [CANARY], async () => await opener.open(text));
      demand(
        content === undefined || isOurs(header, attack.header),
        `${name} has opened what is sealed in another way`,
      );
      if (content !== undefined) word = 'opened';
    }
    return `header: ${word}`;
  }

  async function judgeWay(way: Way): Promise<string> {
    const text = await sealedIn(way);
    return text === null ? 'other way: not made' : `other way: ${await refused(text)}`;
  }
}

function demandRefusal(name: string, error: unknown, canaries: readonly string[]): void {
  demand(error instanceof Error && error.name === 'SealError', `${name} has stumbled: ${printed(error)}`);
  demand(error.message.length <= 400 && !/[\p{Cc}\p{Cs}]/u.test(error.message), `${name} says what nobody can print`);
  demand(error.cause === undefined, `${name} names a cause, which may quote`);
  demandNoLeak(`the refusal of ${name}`, printed(error), canaries);
}

function isCode(content: unknown): boolean {
  if (typeof content !== 'object' || content === null || Array.isArray(content)) return false;
  const { id, partition, otp, params } = content as Record<string, unknown>;
  return (
    Object.keys(content).sort().join() === 'id,otp,params,partition' &&
    id === ID &&
    partition === 'cepta' &&
    (otp === null || typeof otp === 'string') &&
    typeof params === 'object' &&
    params !== null &&
    !Array.isArray(params)
  );
}

function nestsDeeperThan(value: unknown, levels: number): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > levels) return true;
    level = level.flatMap((one) => (typeof one === 'object' && one !== null ? Object.values(one) : []));
  }
  return false;
}

// ---- altered --------------------------------------------------------------------------------------------------------

/** Every bit of the text, and every bit of what it encodes. */
function* flips(text: string): Generator<SealCase> {
  for (let at = 0; at < text.length; at += 1) {
    for (let bit = 0; bit < 8; bit += 1)
      yield { kind: 'altered', text: mutateText(text, { do: 'flip', place: at, bit }) };
  }
  const parts = text.split('.');
  for (const [index, part] of parts.entries()) {
    const bytes = Buffer.from(part, 'base64url');
    for (let at = 0; at < bytes.length; at += 1) {
      for (let bit = 0; bit < 8; bit += 1) {
        const flipped = Buffer.from(bytes);
        flipped[at] = (flipped[at] ?? 0) ^ (1 << bit);
        yield { kind: 'altered', text: parts.with(index, flipped.toString('base64url')).join('.') };
      }
    }
  }
}

/** Two of them, their parts exchanged; or one, written a little differently. */
function alteredCases(made: readonly [string, ...string[]]): fc.Arbitrary<SealCase> {
  const sample = fc.constantFrom(...made);
  const part = fc.nat({ max: 4 });
  const partsOf = (text: string): string[] => text.split('.');
  const spliced = fc.record({ one: sample, other: sample, part, from: part }).map(({ one, other, part, from }) => {
    return partsOf(one)
      .with(part, partsOf(other)[from] ?? '')
      .join('.');
  });
  const rewritten = fc
    .record({
      text: sample,
      part,
      how: fc.constantFrom(
        (one: string) => `${one}=`,
        (one: string) => `${one} `,
        (one: string) => `\n${one}`,
        (one: string) => `${one}A`,
        (one: string) => one.replaceAll('-', '+').replaceAll('_', '/'),
        (one: string) => Buffer.from(one, 'base64url').toString('base64'),
        (one: string) => Buffer.from(one, 'base64url').toString('hex'),
        (one: string) => `${Buffer.from(one, 'base64url').toString('base64url')}.`,
        (one: string) => encodeURIComponent(one),
        () => '',
      ),
    })
    .map(({ text, part, how }) =>
      partsOf(text)
        .with(part, how(partsOf(text)[part] ?? ''))
        .join('.'),
    );
  const shortened = fc.record({ text: sample, part, length: fc.nat({ max: 20 }) }).map(({ text, part, length }) => {
    const bytes = Buffer.from(partsOf(text)[part] ?? '', 'base64url');
    return partsOf(text).with(part, bytes.subarray(0, length).toString('base64url')).join('.');
  });
  const garbled = fc
    .record({ text: sample, mutations: fc.array(textMutation, { minLength: 1, maxLength: 2 }) })
    .map(({ text, mutations }) => mutations.reduce(mutateText, text));
  return fc
    .oneof(spliced, rewritten, shortened, { weight: 2, arbitrary: garbled })
    .map((text) => ({ kind: 'altered' as const, text }));
}

// ---- sealed by strangers --------------------------------------------------------------------------------------------

const HEADER_WORDS = {
  tokens: [
    ...words('"dir" "ECDH-ES" "ECDH-ES+A256KW" "A256GCM" "A128GCM" "A128CBC-HS256" "none" "DEF" "fuzz-2" "fuzz-3"'),
    ...[
      '["exp"]',
      '"X448"',
      '"P-256"',
      '"EC"',
      `"${'A'.repeat(43)}"`,
      '"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"',
      '"QWxpY2U"',
    ],
  ],
  names: [
    'alg',
    'enc',
    'kid',
    'epk',
    'zip',
    'crit',
    'apu',
    'apv',
    'b64',
    'jku',
    'jwk',
    'x5u',
    'typ',
    'cty',
    'iv',
    'tag',
    'p2c',
  ],
};

function headerOf(publicKey: KeyObject): string {
  const { kty, crv, x } = publicKey.export({ format: 'jwk' });
  return JSON.stringify({ alg: 'ECDH-ES', enc: 'A256GCM', kid: 'fuzz-1', epk: { kty, crv, x } });
}

/** RFC 7518 §4.6.2 for one key of 256 bits, once more. */
function contentKey(privateKey: KeyObject): (publicKey: KeyObject) => Buffer {
  return (publicKey) => {
    const number = (value: number): Buffer => Buffer.from([0, 0, value >> 8, value & 255]);
    const info = [number(7), Buffer.from('A256GCM'), number(0), number(0), number(256)];
    return createHash('sha256')
      .update(Buffer.concat([number(1), diffieHellman({ privateKey, publicKey }), ...info]))
      .digest();
  };
}

function seal(header: string, key: Buffer): string {
  const encoded = Buffer.from(header, 'utf8').toString('base64url');
  const iv = Buffer.alloc(12, 7);
  const cipher = createCipheriv('aes-256-gcm', key, iv);
  cipher.setAAD(Buffer.from(encoded));
  const ciphertext = Buffer.concat([cipher.update(JSON.stringify(CODE)), cipher.final()]);
  return [encoded, '', ...[iv, ciphertext, cipher.getAuthTag()].map((part) => part.toString('base64url'))].join('.');
}

/**
 * Everything that is sealed must say so in these very words; whatever else a header says must mean nothing. How the
 * ephemeral key is written does not matter: with another one no key agrees.
 */
function isOurs(header: string, wanted: string): boolean {
  const given = JSON.parse(header) as Record<string, unknown>;
  const right = JSON.parse(wanted) as Record<string, unknown>;
  const { kty, crv } = (given.epk ?? {}) as Record<string, unknown>;
  const words = given.alg === right.alg && given.enc === right.enc && given.kid === right.kid;
  const epk = right.epk as Record<string, unknown>;
  return words && kty === epk.kty && crv === epk.crv && !('zip' in given) && !('crit' in given);
}

interface Way {
  readonly alg: string;
  readonly enc: string;
  readonly more: Readonly<Record<string, unknown>>;
}

const WAYS: readonly Way[] = [
  ...['A128GCM', 'A192GCM', 'A128CBC-HS256', 'A192CBC-HS384', 'A256CBC-HS512'].map((enc) => ({
    alg: 'ECDH-ES',
    enc,
    more: {},
  })),
  ...['ECDH-ES+A128KW', 'ECDH-ES+A192KW', 'ECDH-ES+A256KW'].map((alg) => ({ alg, enc: 'A256GCM', more: {} })),
  ...['dir', 'A256KW', 'A256GCMKW', 'PBES2-HS256+A128KW'].map((alg) => ({ alg, enc: 'A256GCM', more: {} })),
  ...[
    { zip: 'DEF' },
    { kid: 'fuzz-2' },
    { kid: 'fuzz-3' },
    { kid: '' },
    { kid: '__proto__' },
    { crit: ['b64'], b64: true },
  ].map((more) => {
    return { alg: 'ECDH-ES', enc: 'A256GCM', more };
  }),
];

/** By jose; null where jose itself refuses to make it. */
async function sealedIn({ alg, enc, more }: Way): Promise<string | null> {
  const { d: _, ...publicKey } = KEYS.keys[0] as Record<string, unknown>;
  const symmetric = ['dir', 'A256KW', 'A256GCMKW', 'PBES2-HS256+A128KW'].includes(alg);
  // Whoever knows our public key may try what else it could be taken for.
  const key = symmetric ? Buffer.from(String(publicKey.x), 'base64url') : await importJWK(publicKey, alg);
  try {
    return await new CompactEncrypt(new TextEncoder().encode(JSON.stringify(CODE)))
      .setProtectedHeader({ alg, enc, kid: 'fuzz-1', ...more })
      .encrypt(key, { crit: { b64: true } });
  } catch {
    return null;
  }
}
