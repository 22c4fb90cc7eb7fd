/** Proofs of callbacks, right ones gone wrong: whatever is not the proof opens nothing, and nothing throws. */
import fc from 'fast-check';
import { providers } from '../../../src/providers/index.ts';
import type { BoundCallback } from '../../../src/providers/provider.ts';
import { loadFixture } from '../../providers/fixture.ts';
import { anyBytes, mutateText, seldom, textMutation, twistedText } from '../mutate.ts';
import { type Gate, gates } from '../oracles/proofs.ts';
import { demand, type Target } from '../target.ts';

interface ProofCase {
  readonly gate: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly pathToken: string | null;
  /** One character a byte. */
  readonly body: string;
}

export interface ProofSubject {
  callbackOf(gate: Gate): BoundCallback;
}

/** The rest of the credentials is the fixture's. */
export function callbackOf({ adapter, credentials, options }: Gate): BoundCallback {
  const provider = providers[adapter];
  const { callbackSecret: _, callbackToken: __, ...others } = loadFixture(adapter).credentials;
  const callback = provider?.bind({
    baseUrl: 'https://provider.example',
    credentials: provider.credentials.parse({ ...others, ...credentials }),
    options: provider.options.parse(options),
  }).callback;
  if (!callback) throw new Error(`${adapter} takes no callbacks`);
  return callback;
}

const BODY = '{"reference":"R-1","status":"PROCESSED","amount":"100.00"}';

export function callbackProofs(subject: ProofSubject = { callbackOf }): Target<ProofCase> {
  const bound = new Map(Object.entries(gates).map(([name, gate]) => [name, subject.callbackOf(gate)]));
  return {
    name: 'callback-proofs',
    batch: 1_000,
    cases: proofCases(fc.constantFrom(...Object.keys(gates))),
    check({ gate: name, headers, pathToken, body }) {
      const gate = gates[name] as Gate;
      const proof = { headers, pathToken, rawBody: Buffer.from(body, 'latin1') };
      const authentic = bound.get(name)?.authenticate(proof);
      const proved = gate.isProved(proof);
      demand(typeof authentic === 'boolean', `${name}: neither authentic nor not`);
      demand(proved || !authentic, `${name}: taken for authentic, and the proof does not stand there`);
      demand(authentic || !proved, `${name}: a right proof was turned away`);
      return authentic ? 'authentic' : 'refused';
    },
  };
}

/** The right proof for one body, its parts changed, lost, moved to where another provider has them, or for another body. */
export function proofCases(names: fc.Arbitrary<string>): fc.Arbitrary<ProofCase> {
  const body = fc.oneof(
    { weight: 3, arbitrary: fc.constant(BODY) },
    { weight: 2, arbitrary: textMutation.map((mutation) => mutateText(BODY, mutation)) },
    anyBytes(60),
  );
  return fc.record({ gate: names, signed: body, sent: seldom(body, 4) }).chain(({ gate: name, signed, sent }) => {
    const proof = (gates[name] as Gate).prove(Buffer.from(signed, 'latin1'));
    const right = Object.values(proof.headers)[0] ?? proof.pathToken ?? '';
    const value = fc.oneof(
      { weight: 2, arbitrary: fc.constant(right) },
      { weight: 3, arbitrary: twistedText(right) },
      fc.constantFrom(
        right.toUpperCase(),
        `sha256=${right}`,
        `SHA512=${right}`,
        `Bearer ${right}`,
        `bearer  ${right}`,
        `${right}, ${right}`,
      ),
      fc.constantFrom('', ' ', 'null', 'undefined', '[object Object]', Buffer.from(right).toString('base64')),
      /^[0-9a-f]+$/.test(right) ? fc.constant(Buffer.from(right, 'hex').toString('base64')) : fc.constant(`${right}=`),
      anyBytes(30),
    );
    const header = fc.constantFrom(
      ...Object.keys(proof.headers),
      'authorization',
      'hash-key',
      'x-signature',
      'hash',
      '__proto__',
    );
    return fc
      .record({
        headers: fc.oneof(
          { weight: 3, arbitrary: fc.dictionary(header, value, { maxKeys: 2, noNullPrototype: true }) },
          {
            weight: 3,
            arbitrary: value.map((one) => Object.fromEntries(Object.keys(proof.headers).map((own) => [own, one]))),
          },
          { weight: 1, arbitrary: fc.constant(proof.headers) },
        ),
        pathToken: fc.oneof(
          { weight: 2, arbitrary: fc.constant(proof.pathToken) },
          { weight: 2, arbitrary: value },
          { weight: 1, arbitrary: fc.constant(null) },
        ),
      })
      .map((changed): ProofCase => ({ gate: name, ...changed, body: bytes(sent ?? signed) }));
  });
}

/** One character a byte, as Node reads headers and as a case keeps a body. */
function bytes(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}
