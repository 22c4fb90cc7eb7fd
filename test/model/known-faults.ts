/**
 * Faults that the model has found, each with its shortest trace. Where it meets one that is not mended it goes no further,
 * so that it finds the next; `known-faults.test.ts` follows every trace, and tells when one is mended.
 */
import type { Event } from './events.ts';
import { callback, everything, everythingRolledBack, rollback } from './models.ts';
import { INVARIANTS, type Violation } from './oracle.ts';
import type { Model } from './step.ts';

export interface KnownFault {
  readonly says: string;
  readonly model: Model;
  readonly trace: readonly Event[];
  readonly mended: boolean;
  is(violation: Violation): boolean;
}

export const KNOWN_FAULTS: readonly KnownFault[] = [
  {
    says: 'an amount that differs changes what a verification under review says, and nobody is told',
    mended: true,
    model: callback,
    trace: [
      { do: 'begin', worker: 0, of: 0 },
      { do: 'answer', of: 0, attempt: 1, as: 'pending' },
      { do: 'callback', of: 0, as: 'paid_unsaid' },
      { do: 'callback', of: 0, as: 'paid_less' },
    ],
    is: ({ invariant, message }) =>
      invariant === INVARIANTS.sequence && /says "[^"]* amount_mismatch [^"]*" and has published/.test(message),
  },
  {
    says: 'how many codes the provider will still take is forgotten at the next inquiry, and nobody is told',
    mended: true,
    model: { ...everything('inquiry'), alphabet: { ...everything('inquiry').alphabet, split: false } },
    trace: [
      { do: 'begin', worker: 0, of: 0 },
      { do: 'answer', of: 0, attempt: 1, as: 'pending_last' },
      { do: 'inquiry', of: 0, as: 'nothing' },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.sequence && / left and has published /.test(message),
  },
  {
    says: 'after a rollback, who writes back an attempt that has ended takes the transaction from one on its way',
    mended: true,
    model: rollback('same'),
    trace: [
      { do: 'begin', worker: 1, of: 0 },
      { do: 'answer', of: 0, attempt: 1, as: 'not_sent' },
      { do: 'begin', worker: 0, of: 1 },
      { do: 'rollback' },
      { do: 'beat', worker: 0 },
      { do: 'recover' },
      { do: 'begin', worker: 1, of: 0 },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.holder && message.includes('after a rollback'),
  },
  {
    says: 'after a rollback, who writes back an attempt that has not left makes a code forgotten that has',
    mended: true,
    model: rollback('same'),
    trace: [
      { do: 'begin', worker: 1, of: 1 },
      { do: 'answer', of: 1, attempt: 1, as: 'not_sent' },
      { do: 'begin', worker: 0, of: 0 },
      { do: 'answer', of: 0, attempt: 1, as: 'wrong' },
      { do: 'rollback' },
      { do: 'recover' },
      { do: 'beat', worker: 0 },
      { do: 'recover' },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.remembered && message.includes('after a rollback'),
  },
  {
    says: 'of two that are unresolved after a rollback only one holds the transaction, and its end frees it',
    mended: true,
    model: rollback('other'),
    trace: [
      { do: 'begin', worker: 1, of: 1 },
      { do: 'wait' },
      { do: 'rollback' },
      { do: 'recover' },
      { do: 'recover' },
      { do: 'answer', of: 1, attempt: 1, as: 'wrong' },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.holder && message.includes('while a suspect is in hand'),
  },
  {
    says: 'after a rollback, who writes back an attempt on its way takes the transaction from one that is unresolved',
    mended: true,
    model: rollback('other'),
    trace: [
      { do: 'begin', worker: 0, of: 1 },
      { do: 'stall', worker: 0 },
      { do: 'rollback' },
      { do: 'begin', worker: 1, of: 0 },
      { do: 'recover' },
      { do: 'answer', of: 1, attempt: 1, as: 'not_sent' },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.holder && message.includes('while a suspect is in hand'),
  },
  {
    says: 'after a rollback, a budget that was written back hides that another code was sent before',
    mended: true,
    model: rollback('other'),
    trace: [
      { do: 'begin', worker: 0, of: 0 },
      { do: 'answer', of: 0, attempt: 1, as: 'wrong' },
      { do: 'wait' },
      { do: 'begin', worker: 1, of: 1 },
      { do: 'rollback' },
      { do: 'recover' },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.remembered && message.includes('after a rollback'),
  },
  {
    says: 'after a rollback, an attempt whose answer was lost does not hold its transaction beside one that was refused',
    mended: true,
    model: rollback('other'),
    trace: [
      { do: 'wait' },
      { do: 'begin', worker: 0, of: 0 },
      { do: 'answer', of: 0, attempt: 1, as: 'wrong' },
      { do: 'begin', worker: 0, of: 1 },
      { do: 'answer', of: 1, attempt: 1, as: 'lost' },
      { do: 'rollback' },
      { do: 'recover' },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.holder && message.includes('after a rollback'),
  },
  {
    says: 'after a rollback, who comes back late gives an attempt back to the queue that another worker has begun anew',
    mended: true,
    model: everythingRolledBack(),
    trace: [
      { do: 'begin', worker: 0, of: 0 },
      { do: 'stall', worker: 0 },
      { do: 'save' },
      { do: 'answer', of: 0, attempt: 1, as: 'refused' },
      { do: 'begin', worker: 1, of: 0 },
      { do: 'crash', worker: 1 },
      { do: 'rollback' },
      { do: 'begin', worker: 0, of: 0 },
      { do: 'recover' },
      { do: 'beat', worker: 0 },
      { do: 'sweep', worker: 0 },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.proof && message.includes('it may have reached'),
  },
  {
    says: 'after a rollback, an attempt that was to be tried again and is unresolved now does not hold its transaction',
    mended: true,
    model: everythingRolledBack(),
    trace: [
      { do: 'begin', worker: 0, of: 0 },
      { do: 'answer', of: 0, attempt: 1, as: 'refused' },
      { do: 'begin', worker: 0, of: 1 },
      { do: 'rollback' },
      { do: 'beat', worker: 1 },
      { do: 'answer', of: 1, attempt: 1, as: 'pending' },
      { do: 'resolve', of: 1, as: 'succeeded' },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.holder && message.includes('after a rollback'),
  },
  {
    says: 'after a rollback, what a person proves while the journal recovers hides that another code was sent before',
    mended: true,
    model: everythingRolledBack(),
    trace: [
      { do: 'begin', worker: 0, of: 1 },
      { do: 'answer', of: 1, attempt: 1, as: 'unknown' },
      { do: 'inquiry', of: 1, as: 'not_paid' },
      { do: 'save' },
      { do: 'inquiry', of: 1, as: 'untouched' },
      { do: 'begin', worker: 0, of: 0 },
      { do: 'answer', of: 0, attempt: 1, as: 'pending' },
      { do: 'inquiry', of: 0, as: 'not_paid' },
      { do: 'rollback' },
      { do: 'resolve', of: 1, as: 'succeeded' },
      { do: 'begin', worker: 0, of: 0 },
      { do: 'recover' },
      { do: 'begin', worker: 0, of: 0 },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.proof && message.includes('it may have reached'),
  },
  {
    says: 'after a rollback, who is suspected to have brought a code takes it from whom is known to have, and gives it back',
    mended: true,
    model: everythingRolledBack(),
    trace: [
      { do: 'wait' },
      { do: 'begin', worker: 0, of: 1 },
      { do: 'answer', of: 1, attempt: 1, as: 'succeeded' },
      { do: 'rollback' },
      { do: 'beat', worker: 1 },
      { do: 'deadline' },
      { do: 'inquiry', of: 0, as: 'untouched', late: true },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.remembered && message.includes('after a rollback'),
  },
  {
    says: 'after a rollback, of two that are suspected to have brought a code the first that is found untouched forgets it',
    mended: true,
    model: everythingRolledBack(),
    trace: [
      { do: 'begin', worker: 0, of: 1 },
      { do: 'begin', worker: 0, of: 0 },
      { do: 'crash', worker: 0 },
      { do: 'rollback' },
      { do: 'begin', worker: 0, of: 0 },
      { do: 'begin', worker: 0, of: 0 },
      { do: 'begin', worker: 0, of: 0 },
      { do: 'begin', worker: 0, of: 0 },
      { do: 'inquiry', of: 1, as: 'not_paid' },
      { do: 'inquiry', of: 0, as: 'untouched', late: true },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.remembered && message.includes('after a rollback'),
  },
  {
    says: 'after a rollback, who comes back past the deadline calls not submitted what another worker has begun anew',
    mended: true,
    model: everythingRolledBack(),
    trace: [
      { do: 'begin', worker: 0, of: 0 },
      { do: 'stall', worker: 0 },
      { do: 'answer', of: 0, attempt: 1, as: 'refused' },
      { do: 'begin', worker: 1, of: 0 },
      { do: 'answer', of: 0, attempt: 2, as: 'succeeded_less' },
      { do: 'deadline' },
      { do: 'rollback' },
      { do: 'begin', worker: 0, of: 0 },
      { do: 'beat', worker: 0 },
    ],
    is: ({ invariant, message }) => invariant === INVARIANTS.proof && message.includes('it may have reached'),
  },
  {
    says: 'after a payment of another amount an inquiry that knows of none frees a code that was accepted',
    mended: true,
    model: { ...everything('inquiry'), alphabet: { ...everything('inquiry').alphabet, split: false } },
    trace: [
      { do: 'begin', worker: 0, of: 0 },
      { do: 'answer', of: 0, attempt: 1, as: 'pending' },
      { do: 'inquiry', of: 0, as: 'paid_less' },
      { do: 'callback', of: 0, as: 'paid' },
      { do: 'inquiry', of: 0, as: 'untouched' },
    ],
    is: ({ invariant, message }) =>
      invariant === INVARIANTS.proof && /says "unknown pending amount_mismatch /.test(message),
  },
];

export function isKnown(violation: Violation): boolean {
  return KNOWN_FAULTS.some((fault) => !fault.mended && fault.is(violation));
}
