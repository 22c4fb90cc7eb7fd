/**
 * What the five providers saw and did, in order, written when it is decided and before anything is answered: so a call
 * whose answer was lost stands here all the same. Views and verdicts are read from these entries and nothing else.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { Told } from './server.ts';
import { expectedOutcome, type Verdict } from './verdict.ts';

export const sandboxProviders = ['hello-clever', 'lipa-later', 'ayoconnect', 'beqelal', 'cepta'] as const;
export type SandboxProvider = (typeof sandboxProviders)[number];

export type LedgerCall = 'verify' | 'send' | 'inquiry' | 'token' | 'b2bToken' | 'b2b2cToken' | 'unknown';

export type LedgerEvent =
  /** A request arrived and could be read. */
  | 'request'
  /** Refused before the business layer: signature, token, header, field, rate. */
  | 'refused'
  /** The connection was reset before the business layer saw the code. */
  | 'dropped'
  | 'code_received'
  | 'code_accepted'
  | 'code_rejected'
  /** The business layer had the code and broke down without using it. */
  | 'not_processed'
  | 'charged'
  /** The payment ended, and no money moved. */
  | 'not_charged'
  /** Charged money went back. */
  | 'reversed'
  | 'otp_sent'
  | 'inquiry'
  | 'token_issued'
  /** The last entry of a call, written before the first byte of its answer; `told` is what the client can learn. */
  | 'answered';

export interface Amount {
  /** Decimal, two places. */
  value: string;
  currency: string;
}

export interface LedgerEntry {
  seq: number;
  at: string;
  provider: SandboxProvider;
  call: LedgerCall;
  /** The provider's own transaction reference; LipaLater has none, there it is the phone number with its +. */
  reference: string | null;
  event: LedgerEvent;
  /** The code as received. A JSON number is written with its digits. */
  code?: string;
  amount?: Amount;
  told?: Told;
  /** Tries the reference has left after a refused code. */
  triesLeft?: number;
  /** The documentation does not settle which words this must end with. */
  unclear?: true;
  detail?: string;
}

export interface TransactionView {
  provider: SandboxProvider;
  reference: string;
  /** Submissions (verify and send), refused ones included. Never more than the pipeline's journal has attempts. */
  requests: number;
  inquiries: number;
  /** Each code that reached the business layer, in order. The same code twice is a code submitted twice. */
  codesReceived: string[];
  charges: number;
  chargedAmount: string;
  state: 'untouched' | 'awaiting_code' | 'accepted' | 'paid' | 'failed' | 'reversed';
}

export interface Ledger {
  readonly entries: readonly LedgerEntry[];
  find(filter: { provider?: SandboxProvider; reference?: string }): readonly LedgerEntry[];
  transaction(provider: SandboxProvider, reference: string): TransactionView;
  transactions(): TransactionView[];
  /** The words the last verification of this reference must end with. For LipaLater, `call` picks send or verify. */
  expected(provider: SandboxProvider, reference: string, call?: 'verify' | 'send'): Verdict;
}

export interface LedgerBook extends Ledger {
  write(entry: Omit<LedgerEntry, 'seq' | 'at'>): void;
  close(): void;
}

export function openLedger(file?: string): LedgerBook {
  const entries: LedgerEntry[] = [];
  const byReference = new Map<string, LedgerEntry[]>();
  let descriptor = file === undefined ? undefined : openSync(file, 'a', 0o600);
  const keyOf = (provider: SandboxProvider, reference: string) => `${provider} ${reference}`;
  const of = (provider: SandboxProvider, reference: string) => byReference.get(keyOf(provider, reference)) ?? [];

  return {
    entries,
    write(fields) {
      const entry: LedgerEntry = { seq: entries.length + 1, at: new Date().toISOString(), ...fields };
      entries.push(entry);
      if (entry.reference !== null) {
        const key = keyOf(entry.provider, entry.reference);
        const known = byReference.get(key);
        if (known) known.push(entry);
        else byReference.set(key, [entry]);
      }
      // Synchronous on purpose: the line is with the kernel before the answer is with the socket.
      if (descriptor !== undefined) writeSync(descriptor, `${JSON.stringify(entry)}\n`);
    },
    find({ provider, reference }) {
      if (provider !== undefined && reference !== undefined) return of(provider, reference);
      return entries.filter(
        (entry) =>
          (provider === undefined || entry.provider === provider) &&
          (reference === undefined || entry.reference === reference),
      );
    },
    transaction: (provider, reference) => view(provider, reference, of(provider, reference)),
    transactions: () =>
      [...byReference.values()].flatMap((known) => {
        const first = known[0];
        return first?.reference ? [view(first.provider, first.reference, known)] : [];
      }),
    expected: (provider, reference, call) => expectedOutcome(provider, of(provider, reference), call),
    close() {
      if (descriptor !== undefined) closeSync(descriptor);
      descriptor = undefined;
    },
  };
}

function view(provider: SandboxProvider, reference: string, entries: readonly LedgerEntry[]): TransactionView {
  const charges = entries.filter((entry) => entry.event === 'charged');
  const minorUnits = charges.reduce((sum, entry) => sum + Math.round(Number(entry.amount?.value ?? 0) * 100), 0);
  return {
    provider,
    reference,
    requests: entries.filter(({ event, call }) => event === 'request' && (call === 'verify' || call === 'send')).length,
    inquiries: entries.filter(({ event, call }) => event === 'request' && call === 'inquiry').length,
    codesReceived: entries.flatMap((entry) => (entry.event === 'code_received' ? [entry.code ?? ''] : [])),
    charges: charges.length,
    chargedAmount: (minorUnits / 100).toFixed(2),
    state: stateAfter(entries),
  };
}

function stateAfter(entries: readonly LedgerEntry[]): TransactionView['state'] {
  let state: TransactionView['state'] = entries.length === 0 ? 'untouched' : 'awaiting_code';
  for (const { event } of entries) {
    if (event === 'code_accepted' && state === 'awaiting_code') state = 'accepted';
    if (event === 'charged') state = 'paid';
    if (event === 'not_charged' && state !== 'paid') state = 'failed';
    if (event === 'reversed') state = 'reversed';
  }
  return state;
}
