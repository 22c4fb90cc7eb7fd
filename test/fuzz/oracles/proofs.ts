/** Who may report: each provider's proof, worked out once more with node:crypto and plain comparisons. */
import { createHash, createHmac } from 'node:crypto';
import { asciiLowerCase } from '../json-tree.ts';

export interface Proof {
  /** Names are lower-cased; values one character a byte. */
  readonly headers: Readonly<Record<string, string>>;
  readonly pathToken: string | null;
  readonly rawBody: Buffer;
}

/** Where the configuration says how callbacks prove themselves; the secrets are of this test alone. */
export interface Gate {
  readonly adapter: string;
  readonly credentials: Readonly<Record<string, string>>;
  readonly options: Readonly<Record<string, unknown>>;
  /** A right proof for this body. */
  prove(rawBody: Buffer): { readonly headers: Record<string, string>; readonly pathToken: string | null };
  isProved(proof: Proof): boolean;
}

const SECRET = 'callback-secret-0f7c41e6';
/** Its bytes in a header are not its characters. */
const FOREIGN_SECRET = 'clé-secrète-β';
const KEY = 'secret-key-7d20b5';
const MERCHANT = 'M-0042';

const latin1 = (text: string): string => Buffer.from(text, 'utf8').toString('latin1');
const sha512 = (text: string): string => createHash('sha512').update(text).digest('hex');

function helloClever(secret: string): Gate {
  return {
    adapter: 'hello-clever',
    credentials: { callbackSecret: secret },
    options: {},
    prove: () => ({ headers: { authorization: latin1(secret) }, pathToken: null }),
    isProved: ({ headers }) => headers.authorization === latin1(secret),
  };
}

function ayoconnect(secret: string): Gate {
  return {
    adapter: 'ayoconnect',
    credentials: { callbackToken: secret },
    options: {},
    prove: () => ({ headers: { authorization: `Bearer ${latin1(secret)}` }, pathToken: null }),
    isProved: ({ headers }) => {
      const [scheme = '', ...rest] = (headers.authorization ?? '').split(' ');
      return (
        scheme.length === 6 &&
        /^[Bb][Ee][Aa][Rr][Ee][Rr]$/.test(scheme) &&
        rest.join(' ').replace(/^ */, '') === latin1(secret)
      );
    },
  };
}

const beqelal: Gate = {
  adapter: 'beqelal',
  credentials: { callbackSecret: SECRET },
  options: {},
  prove: () => ({ headers: {}, pathToken: SECRET }),
  isProved: ({ pathToken }) => pathToken === SECRET,
};

function signedBeqelal(header: string, algorithm: 'sha256' | 'sha512' | 'sha1'): Gate {
  const digest = (rawBody: Buffer, form: 'hex' | 'base64') =>
    createHmac(algorithm, SECRET).update(rawBody).digest(form);
  return {
    adapter: 'beqelal',
    credentials: { callbackSecret: SECRET },
    options: { callbackHmac: { header, algorithm } },
    prove: (rawBody) => ({ headers: { [header.toLowerCase()]: digest(rawBody, 'hex') }, pathToken: null }),
    isProved: ({ headers, rawBody }) => {
      const said = headers[header.toLowerCase()] ?? '';
      const bare =
        said.slice(0, algorithm.length + 1).toLowerCase() === `${algorithm}=` ? said.slice(algorithm.length + 1) : said;
      return asciiLowerCase(bare) === digest(rawBody, 'hex') || bare === digest(rawBody, 'base64');
    },
  };
}

const cepta: Gate = {
  adapter: 'cepta',
  credentials: { secretKey: KEY, merchantId: MERCHANT },
  options: {},
  prove: () => ({ headers: { 'hash-key': sha512(`${KEY} | ${MERCHANT}`) }, pathToken: null }),
  isProved: ({ headers }) => {
    const said = asciiLowerCase(headers['hash-key'] ?? '');
    return said === sha512(`${KEY}${MERCHANT}`) || said === sha512(`${KEY} | ${MERCHANT}`);
  },
};

export const gates: Readonly<Record<string, Gate>> = {
  'hello-clever': helloClever(SECRET),
  'hello-clever-foreign': helloClever(FOREIGN_SECRET),
  ayoconnect: ayoconnect(SECRET),
  'ayoconnect-foreign': ayoconnect(FOREIGN_SECRET),
  beqelal,
  'beqelal-signed': signedBeqelal('X-Signature', 'sha256'),
  'beqelal-signed-long': signedBeqelal('hash', 'sha512'),
  cepta,
};

/** What must not be shown to whoever was turned away. */
export const GATE_SECRETS: readonly string[] = [
  SECRET,
  FOREIGN_SECRET,
  latin1(FOREIGN_SECRET),
  KEY,
  sha512(`${KEY} | ${MERCHANT}`),
];
