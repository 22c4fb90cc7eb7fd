/**
 * How a verification must end, judged from the ledger alone: what the provider was sent, what it did with the money,
 * and what its answers let the other side know. The words are those of the pipeline's public contract.
 */
import type { LedgerEntry, SandboxProvider } from './ledger.ts';

export interface Verdict {
  otp: 'accepted' | 'rejected' | 'not_submitted' | 'unknown';
  transaction: 'succeeded' | 'failed' | 'pending' | 'unknown' | 'none';
  /** False where the provider's documentation does not settle the words, so a difference is no proof of a fault. */
  certain: boolean;
  because: string;
}

/** Providers that can be asked afterwards. Beqelal documents no inquiry, LipaLater moves no money. */
const canBeAsked: ReadonlySet<SandboxProvider> = new Set(['hello-clever', 'ayoconnect', 'cepta']);

/**
 * The only words by which Ayoconnect lets a payment be called failed.
 * https://docs.payments.of.ayoconnect.id/reference/dd-v3-debit-status
 */
const ayoconnectFailed: ReadonlySet<string> = new Set(['06', 'FAILED', '4045501']);

export function expectedOutcome(
  provider: SandboxProvider,
  entries: readonly LedgerEntry[],
  call?: 'verify' | 'send',
): Verdict {
  const about = call ?? (entries.some((entry) => entry.call === 'verify') ? 'verify' : 'send');
  const own = entries.filter((entry) => entry.call === about);
  const told = own.findLast((entry) => entry.event === 'answered')?.told;
  const unclear = own.some((entry) => entry.unclear);
  const say = (
    otp: Verdict['otp'],
    transaction: Verdict['transaction'],
    because: string,
    certain = !unclear,
  ): Verdict => ({ otp, transaction: provider === 'lipa-later' ? 'none' : transaction, certain, because });

  const money = moneyOf(provider, own);
  // Where it can be asked, a payment that was made ends as a success, whatever became of the answer.
  if (money.word === 'succeeded' && (told === 'accepted' || canBeAsked.has(provider))) {
    return say('accepted', 'succeeded', money.because);
  }
  switch (told) {
    case undefined:
      return say('not_submitted', 'pending', 'no submission came');
    case 'refused':
      return say('not_submitted', 'pending', 'every submission was refused before the business layer');
    case 'accepted':
      return say('accepted', money.word, money.because, money.word !== 'unknown' && !unclear);
    case 'rejected':
    case 'unclear': {
      const last = own.findLast((entry) => entry.event === 'code_rejected');
      const certain = told === 'rejected' && !unclear;
      if (provider === 'ayoconnect') {
        const failed = entries.some(
          (entry) =>
            entry.event === 'inquiry' && entry.seq > (last?.seq ?? 0) && ayoconnectFailed.has(entry.detail ?? ''),
        );
        return failed
          ? say('rejected', 'failed', 'the code was refused, and the inquiry said that the payment failed', certain)
          : say('rejected', 'pending', 'the code was refused; only an inquiry may call the payment failed', certain);
      }
      if (told === 'unclear') return say('rejected', money.word, `an explicit no, and ${money.because}`, false);
      // Only Cepta's answer says that no try is left; elsewhere it depends on who counts.
      const said = provider === 'cepta' || last?.detail === 'unknown_reference';
      return last?.triesLeft === 0
        ? say('rejected', 'failed', 'the code was refused and no try is left', certain && said)
        : say('rejected', 'pending', 'the code was refused and another may be tried', certain);
    }
    case 'nothing': {
      if (!canBeAsked.has(provider)) return say('unknown', 'unknown', 'no readable answer, and no inquiry to ask');
      if (money.word === 'failed') return say('unknown', 'failed', money.because);
      if (provider === 'ayoconnect' && !own.some((entry) => entry.event === 'code_accepted')) {
        return say('unknown', 'pending', 'no readable answer; the inquiry says that a code is still awaited');
      }
      return say('unknown', 'unknown', 'no readable answer, and the inquiry proves nothing');
    }
    default:
      return told satisfies never;
  }
}

function moneyOf(provider: SandboxProvider, own: readonly LedgerEntry[]) {
  const asked = own.findLast((entry) => entry.event === 'code_accepted')?.amount;
  const charged = own.filter((entry) => entry.event === 'charged');
  const paid = charged.at(-1)?.amount;
  if (own.some((entry) => entry.event === 'reversed')) {
    return { word: 'failed', because: 'the payment was made and went back' } as const;
  }
  if (asked && paid && Number(paid.value) < Number(asked.value) && provider === 'hello-clever') {
    return { word: 'pending', because: 'paid in part' } as const;
  }
  if (asked && paid && paid.value !== asked.value) {
    return { word: 'unknown', because: 'another amount was charged than the one asked for' } as const;
  }
  if (paid) return { word: 'succeeded', because: 'the payment was charged' } as const;
  if (own.some((entry) => entry.event === 'not_charged')) {
    return { word: 'failed', because: 'the payment ended without money' } as const;
  }
  return { word: 'pending', because: 'the payment has not ended' } as const;
}
