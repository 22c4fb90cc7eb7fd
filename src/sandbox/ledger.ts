/**
 * What the five providers saw and did, in order, written when it is decided and before anything is answered: so a call
 * whose answer was lost stands here all the same. Views and verdicts are read from these entries and nothing else.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { Told } from './server.ts';
import { expectedOutcome, type Knowing, type Verdict } from './verdict.ts';

export const sandboxProviders = ['hello-clever', 'lipa-later', 'ayoconnect', 'beqelal', 'cepta'] as const;
export type SandboxProvider = (typeof sandboxProviders)[number];

export type LedgerCall = 'verify' | 'send' | 'inquiry' | 'token' | 'b2bToken' | 'b2b2cToken' | 'callback' | 'unknown';

/** What a callback says of its payment. */
export type Said = 'paid' | 'failed' | 'reversed';

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
  /** A fault of the running plan hits; `detail` is its name. */
  | 'fault'
  /** A callback is about to be sent. */
  | 'callback_sent'
  /** What it was answered with: `detail` is the HTTP status, or why none came. */
  | 'callback_answered'
  /** The last entry of a call, written before the first byte of its answer; `told` is what the client can learn. */
  | 'answered'
  /** The client had gone before its answer could leave: it knows nothing of what `answered` says. */
  | 'undelivered';

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
  /** Of a callback: what it says. */
  says?: Said;
  /** Of a callback: it does not say what happened (untrue), proves nothing (wrong_secret), or is misspelled. */
  trick?: 'untrue' | 'wrong_secret' | 'wrong_types';
  /** Of a callback: the reference it names, when that is not the payment's own. */
  names?: string;
  /** Of a callback: the first sending is 1, each repetition after a refusal one more. */
  attempt?: number;
  /** Of an answered callback: the answer was a 2xx. */
  acknowledged?: boolean;
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

/** One line of a run's account. */
export interface SummaryRow
  extends Pick<TransactionView, 'provider' | 'reference' | 'codesReceived' | 'charges' | 'state'> {
  expected: Verdict;
}

/** What must be empty whatever happened, when no two verifications of a run share reference and code. */
export interface Invariants {
  doubleCharges: { provider: SandboxProvider; reference: string; charges: number; chargedAmount: string }[];
  codesReceivedTwice: { provider: SandboxProvider; reference: string; code: string; times: number }[];
}

export interface Ledger {
  readonly entries: readonly LedgerEntry[];
  find(filter: { provider?: SandboxProvider; reference?: string }): readonly LedgerEntry[];
  transaction(provider: SandboxProvider, reference: string): TransactionView;
  transactions(): TransactionView[];
  /** The words the last verification of this reference must end with. For LipaLater, `call` picks send or verify. */
  expected(provider: SandboxProvider, reference: string, call?: 'verify' | 'send', knowing?: Knowing): Verdict;
  /** A row for each transaction, in the order they were first named, made one by one as they are taken. */
  summary(knowing?: Knowing): Iterable<SummaryRow>;
  invariants(): Invariants;
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

  function* views(): Generator<TransactionView> {
    // The list is taken at once: what is first named while somebody reads belongs to the next reading.
    for (const known of [...byReference.values()]) {
      const first = known[0];
      if (first?.reference) yield view(first.provider, first.reference, known);
    }
  }

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
    transactions: () => [...views()],
    expected: (provider, reference, call, knowing) => expectedOutcome(provider, of(provider, reference), call, knowing),
    *summary(knowing) {
      for (const { provider, reference, codesReceived, charges, state } of views()) {
        const expected = expectedOutcome(provider, of(provider, reference), undefined, knowing);
        yield { provider, reference, codesReceived, charges, state, expected };
      }
    },
    invariants: () => invariantsOf(views()),
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

function invariantsOf(views: Iterable<TransactionView>): Invariants {
  const found: Invariants = { doubleCharges: [], codesReceivedTwice: [] };
  for (const { provider, reference, codesReceived, charges, chargedAmount } of views) {
    if (charges > 1) found.doubleCharges.push({ provider, reference, charges, chargedAmount });
    for (const code of new Set(codesReceived)) {
      const times = codesReceived.filter((received) => received === code).length;
      if (times > 1) found.codesReceivedTwice.push({ provider, reference, code, times });
    }
  }
  return found;
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
