/**
 * What authentic callbacks say, garbled: never "paid" where the words for it do not stand there, never about a
 * transaction that is not named, and nothing throws.
 */
import fc from 'fast-check';
import type { BoundCallback } from '../../../src/providers/provider.ts';
import { anyText, mutatedJson } from '../mutate.ts';
import { type Gate, gates } from '../oracles/proofs.ts';
import { oracles } from '../oracles/providers.ts';
import { demand, demandNoLeak, type Target } from '../target.ts';
import { callbackOf } from './callback-proofs.ts';
import { CANARY, demandFinding } from './provider-answers.ts';

interface BodyCase {
  readonly adapter: string;
  readonly body: string;
}

export interface BodySubject {
  callbackOf(gate: Gate): BoundCallback;
}

/** Good ones of each provider, with every word that it has. */
const CALLBACK_BODIES: Readonly<Record<string, readonly unknown[]>> = {
  'hello-clever': ['received', 'pending', 'expired', 'return_received', 'something'].flatMap((status) => [
    { uuid: 'APU221YS', status, amount: '100.0', total: '100.0', paid_amount: '100.0', currency: 'ghs' },
    { uuid: 'APU221YS', status, amount: 100, total: 100, paid_amount: 40.5, fee: 1, metadata: { otp: CANARY } },
  ]),
  ayoconnect: ['SUCCESS', 'FAILED', '00', '06', 'PROCESSING', 'PENDING_USER_VERIFICATION', 'CANCELLED'].map(
    (status) => ({
      originalPartnerReferenceNo: 'p'.repeat(32),
      originalReferenceNo: 'r'.repeat(32),
      latestTransactionStatus: status,
      amount: { value: '10000.00', currency: 'IDR' },
      additionalInfo: { otp: CANARY },
    }),
  ),
  beqelal: ['PROCESSED', 'FAILED', 'PENDING'].flatMap((status) => [
    {
      id: 'S-9',
      reference: 'BQ7T2M9K1X',
      status,
      status_code: 200,
      amount: '100.00',
      total_amount: '102.50',
      phone: CANARY,
    },
    { id: 'S-9', status, amount: 100, fee: 2.5, error: null },
  ]),
  cepta: ['Successful', 'completed', 'paid', 'failed', 'reversed', 'pending', 'strange'].flatMap((status) => [
    { transactionRef: 'TX12345ABC', status, amount: '5000.00', customer: { otp: CANARY } },
    { status: true, data: { transactionReference: 'TX12345ABC', status, amount: 5000, TransactionRef: 'TX12345ABC' } },
  ]),
};

export function callbackBodies(subject: BodySubject = { callbackOf }): Target<BodyCase> {
  const adapters = Object.keys(CALLBACK_BODIES);
  const bound = new Map(adapters.map((adapter) => [adapter, subject.callbackOf(gates[adapter] as Gate)]));
  return {
    name: 'callback-bodies',
    batch: 1_000,
    cases: fc.oneof(...adapters.map((adapter) => callbackBody(adapter).map((body) => ({ adapter, body })))),
    check({ adapter, body }) {
      const where = `${adapter} callback`;
      const reading = bound.get(adapter)?.read(body);
      demand(reading !== undefined, `${where}: read gave nothing at all`);
      if (reading === null) return 'nobody named';
      const allowed = oracles[adapter]?.callback?.(body) ?? { references: [] };
      demandFinding(where, reading.finding, allowed);
      demand(/^[A-Za-z0-9_. -]{1,64}$/.test(reading.providerCode), `${where}: providerCode is no short word`);
      demandNoLeak(`${where}: providerCode`, reading.providerCode, [CANARY]);
      demand(reading.references.length > 0, `${where}: it names no transaction and is not called so`);
      for (const reference of reading.references) {
        demand(allowed.references.includes(reference), `${where}: a reference that does not stand there`);
        demand(/^[^\p{Cc}\p{Cs}]{1,128}$/u.test(reference), `${where}: a reference that is none`);
      }
      return reading.finding.kind;
    },
  };
}

export function callbackBody(adapter: string): fc.Arbitrary<string> {
  const documents = CALLBACK_BODIES[adapter] ?? [];
  const words = documents
    .flatMap((document) => Object.values(document as object))
    .filter((one) => typeof one === 'string');
  const tokens = [...new Set(words)].map((word) => JSON.stringify(word));
  const garbled = mutatedJson(
    documents.map((document) => JSON.stringify(document)),
    { tokens, names: ['status', 'amount', 'data', 'reference', 'id', 'error'], canaries: [CANARY] },
  );
  return fc.oneof(
    { weight: 9, arbitrary: garbled },
    { weight: 1, arbitrary: fc.oneof(anyText(60), fc.json(), fc.constantFrom('', 'null', '[]', '0', '""')) },
  );
}
