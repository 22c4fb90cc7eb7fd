/**
 * The reports that providers send when a payment has ended: written to the ledger before they go out, sent over real
 * HTTP to the URL that was set, and repeated where a provider is known to repeat them.
 */
import { createHash } from 'node:crypto';
import { Agent, request } from 'undici';
import type { CallbackLetter, ProviderSide, Transaction } from './desk.ts';
import type { FaultPlan } from './fault-plan.ts';
import { type CallbackTrick, faultOf } from './faults.ts';
import type { LedgerBook, LedgerEntry, Said, SandboxProvider } from './ledger.ts';
import { swapTypes } from './type-faults.ts';

/** Hello Clever and Ayoconnect repeat what is not answered with 2xx; of the others no page says so. */
const repeating: ReadonlySet<SandboxProvider> = new Set(['hello-clever', 'ayoconnect']);

const answerTimeoutMs = 5000;

/** What a callback that is not the plain truth says instead. */
const opposite = { paid: 'failed', failed: 'paid', reversed: 'paid' } as const satisfies Record<Said, Said>;

export interface CallbackOffice {
  /** Null sends none. Throws for a provider that has no callbacks. */
  setUrl(provider: SandboxProvider, url: string | null): void;
  urls(): Partial<Record<SandboxProvider, string>>;
  /** The payment has ended. Sent at once, or when the answer of the call that ended it has gone. */
  ended(transaction: Transaction, as: Said): void;
  /** Runs this; what ended meanwhile is reported when `release` is called. */
  collecting<Result>(work: () => Result): { result: Result; due: boolean; release: () => void };
  /** Resolves with the next answer to a callback of this payment; null when none can come. */
  nextAnswer(transaction: Transaction): Promise<void> | null;
  close(): Promise<void>;
}

export interface OfficeParts {
  ledger: LedgerBook;
  plan: () => FaultPlan;
  sideOf: (provider: SandboxProvider) => ProviderSide;
  /** Runs later unless the sandbox is closed by then. */
  after: (ms: number, work: () => void) => void;
  retryMs: readonly number[];
}

export function callbackOffice({ ledger, plan, sideOf, after, retryMs }: OfficeParts): CallbackOffice {
  const urls = new Map<SandboxProvider, string>();
  const waiting = new Map<string, (() => void)[]>();
  const agent = new Agent({ headersTimeout: answerTimeoutMs, bodyTimeout: answerTimeoutMs });
  let collected: (() => void)[] | undefined;
  let closed = false;

  const keyOf = ({ provider, reference }: Transaction) => `${provider} ${reference}`;

  /** One sending of one callback, and its repetitions, which are the same to the byte. */
  function send(letter: Written, attempt = 1): void {
    const { of, says, about, trick, written } = letter;
    const { provider, reference } = of;
    const url = urls.get(provider);
    if (closed || url === undefined) return;
    const facts = {
      provider,
      call: 'callback',
      reference,
      says,
      attempt,
      ...(trick ? { trick } : {}),
      ...(about.reference === reference ? {} : { names: about.reference }),
    } as const;
    ledger.write({ ...facts, event: 'callback_sent' });
    deliver(`${url.replace(/\/$/, '')}${written.path}`, written.headers, written.body).then((outcome) => {
      if (closed) return;
      const acknowledged = typeof outcome === 'number' && outcome >= 200 && outcome < 300;
      ledger.write({ ...facts, event: 'callback_answered', acknowledged, detail: String(outcome) });
      for (const heard of waiting.get(keyOf(of)) ?? []) heard();
      waiting.delete(keyOf(of));
      const pause = retryMs[attempt - 1];
      // What proves nothing, or is about nobody, is not insisted on.
      const insists = repeating.has(provider) && trick !== 'wrong_secret' && about.reference === reference;
      if (acknowledged || pause === undefined || !insists) return;
      after(pause, () => send(letter, attempt + 1));
    });
  }

  async function deliver(url: string, headers: Record<string, string>, body: string): Promise<number | string> {
    try {
      const answer = await request(url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body,
        dispatcher: agent,
      });
      await answer.body.dump();
      return answer.statusCode;
    } catch (error) {
      const { code, name } = error as { code?: string; name: string };
      return code ?? name;
    }
  }

  function report(transaction: Transaction, as: Said): void {
    const { provider, reference } = transaction;
    if (!urls.has(provider) || !sideOf(provider).callback) return;
    const hit = plan().draw('callback', provider, 'callback', reference);
    const trick = trickOf(hit) ?? transaction.callbackTrick;
    const letters = lettersFor(transaction, as, trick).flatMap(written);
    if (hit) ledger.write({ provider, call: 'callback', reference, event: 'fault', detail: hit.name });
    // Three by magic value; two or three as the plan's luck has it.
    const times = trick !== 'duplicate' ? 1 : hit && hit.luck < 0.5 ? 2 : 3;
    for (let time = 0; time < times; time += 1) for (const letter of letters) send(letter);
  }

  /** The letter with what goes over the wire, or nothing where the provider has no such callback. */
  function written(letter: Letter): Written[] {
    const { of, says, about, trick } = letter;
    const secret = trick === 'wrong_secret' ? 'wrong' : 'right';
    const respell = trick === 'wrong_types' ? swapTypes : (body: string) => body;
    const text = sideOf(of.provider).callback?.(about, says, secret, respell);
    return text ? [{ ...letter, written: text }] : [];
  }

  return {
    setUrl(provider, url) {
      if (!sideOf(provider).callback) throw new TypeError(`${provider} is not known to send callbacks`);
      if (url === null) urls.delete(provider);
      else urls.set(provider, new URL(url).href);
    },
    urls: () => Object.fromEntries(urls),
    ended(transaction, as) {
      if (collected) collected.push(() => report(transaction, as));
      else report(transaction, as);
    },
    collecting(work) {
      const own: (() => void)[] = [];
      collected = own;
      try {
        const result = work();
        const release = () => {
          for (const go of own.splice(0)) go();
        };
        return { result, due: own.length > 0, release };
      } finally {
        collected = undefined;
      }
    },
    nextAnswer(transaction) {
      if (!urls.has(transaction.provider) || transaction.callbackTrick === 'withheld') return null;
      return new Promise((resolve) => {
        const key = keyOf(transaction);
        waiting.set(key, [...(waiting.get(key) ?? []), resolve]);
      });
    },
    async close() {
      closed = true;
      await agent.destroy();
    },
  };
}

interface Letter {
  of: Transaction;
  says: Said;
  /** What the body is made of: the transaction itself, or what it is made out to be. */
  about: Transaction;
  trick?: NonNullable<LedgerEntry['trick']>;
}

type Written = Letter & { written: CallbackLetter };

function lettersFor(of: Transaction, says: Said, trick: CallbackTrick | undefined): Letter[] {
  const truth: Letter = { of, says, about: of };
  switch (trick) {
    case undefined:
    case 'duplicate':
      return [truth];
    case 'contradictory':
      return [{ ...truth, says: contradiction(of, says), about: frank(of), trick: 'untrue' }];
    case 'unknown_reference':
      return [{ ...truth, about: { ...of, reference: strange(of.reference) } }, truth];
    case 'wrong_secret':
    case 'wrong_types':
      return [{ ...truth, trick }];
    case 'withheld':
      return [];
    default:
      return trick satisfies never;
  }
}

function trickOf(hit: ReturnType<FaultPlan['draw']>): CallbackTrick | undefined {
  const fault = hit?.fault.fault && faultOf(hit.fault.fault);
  return fault?.place === 'callback' ? fault.trick : undefined;
}

/** Hello Clever has no word for a payment that failed; that it went back is the worst it can say. */
const contradiction = ({ provider }: Transaction, as: Said): Said =>
  provider === 'hello-clever' && as === 'paid' ? 'reversed' : opposite[as];

/** The same transaction without the word that its inquiries are bound to. */
function frank(transaction: Transaction): Transaction {
  const { word: _, ...rest } = transaction;
  return rest;
}

/** 32 characters that no reference of anybody is likely to be, the same each time. */
const strange = (reference: string) => createHash('md5').update(`nobody knows ${reference}`).digest('hex');
