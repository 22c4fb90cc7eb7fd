/**
 * The business layer all five providers share: transactions that come into being when they are first named, codes that
 * are ruled upon, money that moves when its provider moves it. Each provider file brings only its phrases.
 *
 * No provider documents that submitting a code twice is harmless, so here it is not: every accepted submission charges.
 */
import {
  busy,
  type CallbackTrick,
  type DoorPhrase,
  type Fault,
  type FaultName,
  faultOf,
  type MoneyCourse,
  type Ruling,
} from './faults.ts';
import type { Amount, LedgerBook, LedgerCall, Said, SandboxProvider } from './ledger.ts';
import { type MagicValue, magicOtp } from './magic.ts';
import type { Answer, IncomingCall } from './server.ts';

export interface Transaction {
  provider: SandboxProvider;
  reference: string;
  /** What the payment was opened for. */
  asked: Amount;
  /** What inquiries and answers report; null when they name none. */
  reported: Amount | null;
  paid: Amount | null;
  stage: 'awaiting_code' | 'processing' | 'paid' | 'failed' | 'reversed';
  /** What an inquiry says instead of the stage's own word. */
  word?: string;
  inquiryFault?: FaultName;
  wrongTries: number;
  /** What the provider's answers repeat of the request. */
  echo: Record<string, string>;
  /** Door faults this reference has met, each with the token that met it. */
  met: Map<FaultName, string>;
  /** What happens to its callback, by magic value. */
  callbackTrick?: CallbackTrick;
}

/** When a provider moves the money of an accepted code. */
export type Charging =
  /** Hello Clever: the customer approves a prompt on the phone, some time after the answer. */
  | 'on_approval'
  /** Ayoconnect, Cepta: at acceptance, and the inquiry says pending for a while longer. */
  | 'on_acceptance'
  /** Beqelal: inside the call, and the answer says so. */
  | 'inside_the_call'
  | 'never';

export interface World {
  ledger: LedgerBook;
  /** The transaction of this reference, opened on first sight. */
  transaction(provider: SandboxProvider, reference: string): Transaction;
  /** Runs after settleAfterMs, at once when that is 0, never once the sandbox is closed. */
  later(work: () => void): void;
  /** The provider's clock, which may be off. */
  now(): number;
  /** The payment has ended: time for a callback. */
  ended(transaction: Transaction, as: Said): void;
  /** From now on everybody who calls this provider is told to wait; answers for how many seconds. */
  storm(provider: SandboxProvider): number;
}

/** A callback as its provider writes it; `path` follows the URL it was given. */
export interface CallbackLetter {
  path: string;
  headers: Record<string, string>;
  body: string;
}

export interface ProviderSide {
  provider: SandboxProvider;
  credentials: Record<string, string>;
  options: Record<string, unknown>;
  handle(call: IncomingCall): Handled;
  /** 429 for any call, with what it lets the client know. */
  rateLimited(call: LedgerCall): Answer;
  /** The token this call presents is taken no more; false when it presents none. */
  expireToken?(call: IncomingCall, which: 'application' | 'customer'): boolean;
  /**
   * The callback that says so, proved by this secret; null where the provider sends none. `respell` changes the body
   * before it is signed.
   */
  callback?(transaction: Transaction, says: Said, secret: 'right' | 'wrong', respell: Respell): CallbackLetter | null;
}

export type Respell = (body: string) => string;

/** An answer with what the ledger needs to know of the call it ends. */
export interface Handled {
  call: LedgerCall;
  reference: string | null;
  answer: Answer;
}

/** How a provider's side turns a request away before any money is spoken of; the ledger has why. */
export function refusing(world: World, provider: SandboxProvider) {
  return (
    call: LedgerCall,
    reference: string | null,
    { answer, detail }: { answer: Answer; detail: string },
  ): Handled => {
    world.ledger.write({ provider, call, reference, event: 'refused', detail });
    return { call, reference, answer };
  };
}

export interface Phrases {
  accepted(transaction: Transaction): Answer;
  strange(transaction: Transaction): Answer;
  rulings: Partial<Record<Ruling, (transaction: Transaction, triesLeft: number) => Answer>>;
  doors: Partial<Record<DoorPhrase, () => Answer>>;
}

export interface Submission {
  provider: SandboxProvider;
  call: 'verify' | 'send';
  reference: string;
  /** Undefined for a call that carries no code. */
  code: string | undefined;
  /** What is looked up among the magic values; the code where there is one. */
  magicValue: string;
  charging: Charging;
  /** The tokens presented, so that an expired one can be told from its successor. */
  tokens?: Partial<Record<DoorPhrase, string>>;
  /** What becomes of the payment when no magic value says otherwise. */
  course?: MoneyCourse;
  /** An answer fixed by the provider's own magic, with what the business layer does beside it. */
  fixed?: { answer: Answer; effect: 'unseen' | 'commit' | 'reject' | 'ignore' | 'fail' };
}

const triesPerReference = 3;

const currencies = {
  'hello-clever': 'GHS',
  'lipa-later': 'KES',
  ayoconnect: 'IDR',
  beqelal: 'ETB',
  cepta: 'NGN',
} as const;

export function openTransaction(provider: SandboxProvider, reference: string): Transaction {
  const minorUnits = Number(/A(\d{3,9})Z$/.exec(reference)?.[1] ?? 100_00);
  const asked = { value: (minorUnits / 100).toFixed(2), currency: currencies[provider] };
  return {
    provider,
    reference,
    asked,
    reported: asked,
    paid: null,
    stage: 'awaiting_code',
    wrongTries: 0,
    echo: {},
    met: new Map(),
  };
}

/** A code at the business layer's door, from the door to the wire. */
export function attend(world: World, phrases: Phrases, submission: Submission): Answer {
  const { provider, call, reference, code } = submission;
  const transaction = world.transaction(provider, reference);
  const magic = magicOtp(provider, submission.magicValue);
  const book = (event: Parameters<LedgerBook['write']>[0]['event'], more: object = {}) =>
    world.ledger.write({ provider, call, reference, event, ...more });

  let answer: Answer | undefined;
  for (const name of magic?.faults ?? []) {
    answer ??= atTheDoor(world, faultOf(name), name, transaction, submission, phrases, book);
  }
  if (!answer && submission.fixed?.effect === 'unseen') {
    book('refused', { detail: 'magic: the answer was asked for' });
    answer = submission.fixed.answer;
  }
  if (answer) return answer;

  if (code !== undefined) book('code_received', { code });
  answer = atTheDesk(world, phrases, submission, transaction, magic, book);

  for (const name of magic?.faults ?? []) {
    const fault = faultOf(name);
    if (fault.place === 'wire') answer = fault.spoil(answer, () => phrases.strange(transaction));
    if (fault.place === 'time') answer = { ...answer, hold: fault.hold };
  }
  return answer;
}

type Book = (event: Parameters<LedgerBook['write']>[0]['event'], more?: object) => void;

function atTheDoor(
  world: World,
  fault: Fault,
  name: FaultName,
  transaction: Transaction,
  submission: Submission,
  phrases: Phrases,
  book: Book,
): Answer | undefined {
  if (fault.place !== 'door') return undefined;
  if (fault.phrase === 'reset') {
    book('dropped', { detail: `magic: ${name}` });
    return { status: 0, contentType: '', body: '', delivery: 'reset', told: 'nothing' };
  }
  const { phrase } = fault;
  const token = phrase === 'busy' || phrase === 'storm' ? '' : (submission.tokens?.[phrase] ?? '');
  const metBefore = transaction.met.get(name);
  if (fault.lasts === 'once' && metBefore !== undefined) return undefined;
  if (fault.lasts === 'until_another_token' && metBefore !== undefined && metBefore !== token) return undefined;
  if (metBefore === undefined) transaction.met.set(name, token);
  book('refused', { detail: `magic: ${name}` });
  if (phrase === 'busy') return busy();
  if (phrase !== 'storm') return phraseFor(phrases.doors, phrase, transaction)();
  return retryAfter(phraseFor(phrases.doors, 'rate_limited', transaction)(), world.storm(submission.provider));
}

export const retryAfter = (answer: Answer, seconds: number): Answer => ({
  ...answer,
  headers: { ...answer.headers, 'retry-after': String(seconds) },
});

function atTheDesk(
  world: World,
  phrases: Phrases,
  submission: Submission,
  transaction: Transaction,
  magic: MagicValue | undefined,
  book: Book,
): Answer {
  const found = magic?.faults.map(faultOf) ?? [];
  const unclear = magic?.unclear ? { unclear: true as const } : {};
  const say = (ruling: Ruling, triesLeft = triesPerReference - transaction.wrongTries) =>
    phraseFor(phrases.rulings, ruling, transaction)(transaction, triesLeft);
  const reject = (ruling: Ruling, triesLeft: number, detail: string) => {
    const left = Math.max(0, triesLeft);
    if (submission.code !== undefined) book('code_rejected', { triesLeft: left, detail });
    // Without a try left nothing can be paid any more; an unknown reference never was a payment.
    if (left === 0 && transaction.stage === 'awaiting_code' && ruling !== 'unknown_reference') {
      endWithoutMoney(world, submission, transaction, book);
    }
    return say(ruling, left);
  };

  if (submission.fixed) {
    const { answer, effect } = submission.fixed;
    if (effect === 'commit') accept(world, submission, transaction, { ends: 'paid' }, unclear, book);
    else if (effect === 'reject') {
      transaction.wrongTries += 1;
      book('code_rejected', { triesLeft: Math.max(0, triesPerReference - transaction.wrongTries), ...unclear });
    } else if (effect === 'fail') {
      book('code_rejected', { detail: 'declined', ...unclear });
      endWithoutMoney(world, submission, transaction, book);
    } else book('not_processed', unclear);
    return answer;
  }

  const trick = found.find((fault) => fault.place === 'callback')?.trick;
  if (trick) transaction.callbackTrick = trick;
  const ruling = found.find((fault) => fault.place === 'desk')?.ruling;
  // A reference without tries takes no code any more, not even the right one.
  if (transaction.wrongTries >= triesPerReference && submission.code !== undefined) {
    return reject('attempts_used_up', 0, 'no try was left');
  }
  switch (ruling) {
    case undefined:
      break;
    case 'wrong_code':
    case 'wrong_code_as_403': {
      transaction.wrongTries += 1;
      const left = triesPerReference - transaction.wrongTries;
      return reject(left > 0 ? ruling : 'attempts_used_up', left, ruling);
    }
    case 'attempts_used_up':
      transaction.wrongTries = triesPerReference;
      return reject(ruling, 0, ruling);
    case 'expired_code':
      return reject(ruling, triesPerReference - transaction.wrongTries, ruling);
    case 'unknown_reference':
      return reject(ruling, 0, ruling);
    case 'invalid_request':
    case 'request_failed':
      if (submission.code !== undefined) book('code_rejected', { detail: ruling, unclear: true });
      return say(ruling);
    case 'declined':
      // The code was right; the ledger calls it refused because that is what the other side can know.
      if (submission.code !== undefined) book('code_rejected', { detail: ruling });
      endWithoutMoney(world, submission, transaction, book);
      return say(ruling);
    case 'server_error':
    case 'bad_gateway':
    case 'unavailable':
    case 'gateway_timeout':
      book('not_processed', { detail: ruling });
      return say(ruling);
    default:
      ruling satisfies never;
  }

  if (magic?.inquiryWord !== undefined) transaction.word = magic.inquiryWord;
  const inquiryFault = magic?.faults.find((name) => faultOf(name).place === 'inquiry');
  if (inquiryFault) transaction.inquiryFault = inquiryFault;
  const course = found.find((fault) => fault.place === 'money')?.course ?? submission.course ?? { ends: 'paid' };
  accept(world, submission, transaction, course, unclear, book);
  return phrases.accepted(transaction);
}

function accept(
  world: World,
  submission: Submission,
  transaction: Transaction,
  course: MoneyCourse,
  unclear: object,
  book: Book,
): void {
  if (submission.code === undefined) {
    book('otp_sent');
    transaction.wrongTries = 0; // a new code comes with new tries
    return;
  }
  if (submission.charging === 'never') {
    book('code_accepted', unclear);
    world.later(() => world.ended(transaction, 'paid'));
    return;
  }
  const { asked } = transaction;
  book('code_accepted', { amount: asked, ...unclear });
  const amount = { ...asked, value: (Number(asked.value) * (course.share ?? 1)).toFixed(2) };
  const charge = () => {
    transaction.paid = amount;
    book('charged', { amount });
  };
  if (course.withoutAmount) transaction.reported = null;
  // Hello Clever's total stays what was asked, so that paid_amount can fall short of it.
  else if (submission.charging !== 'on_approval' || (course.share ?? 1) > 1) transaction.reported = amount;
  transaction.stage = 'processing';

  if (course.ends === 'never') return;
  if (course.ends === 'failed') {
    endWithoutMoney(world, submission, transaction, book);
    return;
  }
  const end = () => {
    if (submission.charging === 'on_approval') charge();
    if (course.ends === 'reversed') book('reversed', { amount });
    transaction.stage = course.ends === 'reversed' ? 'reversed' : 'paid';
    world.ended(transaction, transaction.stage);
  };
  if (submission.charging !== 'on_approval') charge();
  if (submission.charging === 'inside_the_call') end();
  else world.later(end);
}

function endWithoutMoney(world: World, submission: Submission, transaction: Transaction, book: Book): void {
  if (submission.charging === 'never') return;
  const end = () => {
    if (transaction.stage === 'paid' || transaction.stage === 'reversed') return; // another code was taken meanwhile
    transaction.stage = 'failed';
    book('not_charged');
    world.ended(transaction, 'failed');
  };
  if (submission.charging === 'inside_the_call') end();
  else world.later(end);
}

function phraseFor<Name extends string, Phrase>(
  phrases: Partial<Record<Name, Phrase>>,
  name: Name,
  transaction: Transaction,
): Phrase {
  const phrase = phrases[name];
  if (!phrase) throw new Error(`${transaction.provider} has no phrase for ${name}, yet magic.ts offers it`);
  return phrase;
}

export interface InquiryPhrases {
  /** The word for a transaction in this stage. */
  word(transaction: Transaction): string;
  answer(transaction: Transaction, word: string): Answer;
  server_error(): Answer;
  rate_limited(): Answer;
}

/** A question about a transaction: asked once more after its fault, if it has one, then answered with its word. */
export function inquire(world: World, provider: SandboxProvider, reference: string, phrases: InquiryPhrases): Answer {
  const transaction = world.transaction(provider, reference);
  const fault = transaction.inquiryFault && faultOf(transaction.inquiryFault);
  if (fault?.place === 'inquiry') {
    delete transaction.inquiryFault;
    world.ledger.write({ provider, call: 'inquiry', reference, event: 'refused', detail: `magic: ${fault.phrase}` });
    return phrases[fault.phrase]();
  }
  const word = transaction.word ?? phrases.word(transaction);
  world.ledger.write({ provider, call: 'inquiry', reference, event: 'inquiry', detail: word });
  return phrases.answer(transaction, word);
}
