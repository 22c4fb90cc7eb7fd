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

/** What whoever reads the ledger knows beside it. */
export interface Knowing {
  /** Each verification was made with the amount of its payment, so that a callback alone may settle it. */
  amountsAgree?: boolean;
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
  knowing: Knowing = {},
): Verdict {
  const about = call ?? (entries.some((entry) => entry.call === 'verify') ? 'verify' : 'send');
  const own = entries.filter((entry) => entry.call === about);
  const last = own.findLast(({ event }) => event === 'answered' || event === 'undelivered');
  const told = last?.event === 'undelivered' ? 'nothing' : last?.told;
  const callback = canBeAsked.has(provider) ? 'none' : heardOf(entries);
  const unclear = own.some((entry) => entry.unclear) || callback === 'doubtful';
  const say = (
    otp: Verdict['otp'],
    transaction: Verdict['transaction'],
    because: string,
    certain = !unclear,
  ): Verdict => ({ otp, transaction: provider === 'lipa-later' ? 'none' : transaction, certain, because });

  const money = moneyOf(provider, own);
  // Where it can be asked, a payment that was made ends as a success, whatever became of the answer.
  if (money.word === 'succeeded' && canBeAsked.has(provider)) {
    const course = own.some((entry) => entry.unclear && entry.event !== 'answered');
    return say('accepted', 'succeeded', money.because, !course);
  }
  if (money.word === 'succeeded' && told === 'accepted') return say('accepted', 'succeeded', money.because);
  const unbound = provider === 'ayoconnect' && own.some((it) => it.event === 'code_accepted' && !it.amount);
  if (unbound && heardOf(entries) !== 'none') {
    return say('accepted', 'succeeded', 'the callback said so, and there is no inquiry to ask', false);
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
      const rejection = own.findLast((entry) => entry.event === 'code_rejected');
      const certain = told === 'rejected' && !unclear;
      if (provider === 'ayoconnect') {
        const failed = entries.some(
          (entry, index) =>
            entry.event === 'inquiry' &&
            entry.seq > (rejection?.seq ?? 0) &&
            ayoconnectFailed.has(entry.detail ?? '') &&
            wasReadable(entries, index),
        );
        return failed
          ? say('rejected', 'failed', 'the code was refused, and the inquiry said that the payment failed', certain)
          : say('rejected', 'pending', 'the code was refused; only an inquiry may call the payment failed', certain);
      }
      if (told === 'unclear') return say('rejected', money.word, `an explicit no, and ${money.because}`, false);
      // Only Cepta's answer says that no try is left; elsewhere it depends on who counts.
      const said = provider === 'cepta' || rejection?.detail === 'unknown_reference';
      return rejection?.triesLeft === 0
        ? say('rejected', 'failed', 'the code was refused and no try is left', certain && said)
        : say('rejected', 'pending', 'the code was refused and another may be tried', certain);
    }
    case 'nothing': {
      if (callback === 'true') return byCallback(money, knowing, say);
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

/** Acknowledged callbacks that prove who sent them: none, true ones, or also such as say what did not happen. */
function heardOf(entries: readonly LedgerEntry[]): 'none' | 'true' | 'doubtful' {
  const heard = entries.filter((it) => it.acknowledged && !it.names && it.trick !== 'wrong_secret');
  if (heard.length === 0) return 'none';
  return heard.some(({ trick }) => trick) ? 'doubtful' : 'true';
}

/**
 * A lost answer of a provider without an inquiry, and a callback that says what became of the payment. It settles a
 * verification that carries the same amount, and the ledger never sees what the verification carried.
 */
function byCallback(
  money: ReturnType<typeof moneyOf>,
  { amountsAgree = false }: Knowing,
  say: (otp: Verdict['otp'], transaction: Verdict['transaction'], because: string, certain?: boolean) => Verdict,
): Verdict {
  const because = `no readable answer; by callback, ${money.because}`;
  if (money.word === 'succeeded') return say('accepted', 'succeeded', because, amountsAgree);
  return say('unknown', money.word === 'failed' ? 'failed' : 'unknown', because, false);
}

/** Whether the answer to the inquiry at this index arrived and could be read. */
function wasReadable(entries: readonly LedgerEntry[], index: number): boolean {
  const later = entries.slice(index + 1).filter(({ call }) => call === 'inquiry');
  const next = later.findIndex(({ event }) => event === 'request');
  const own = next < 0 ? later : later.slice(0, next);
  return !own.some(({ event, told, unclear }) => told === 'nothing' || unclear || event === 'undelivered');
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
