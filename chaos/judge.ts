/**
 * The judge: pure. It is given what callers were told, what was published, what crossed the wire and the money ledger,
 * and says what contradicts what. The ledger is right by definition: it was written before anything was answered.
 */
import type { VerificationResource } from '../src/producers/resource.ts';
import type { ResultEvent } from '../src/producers/result.ts';
import type { LedgerEntry, SandboxProvider } from '../src/sandbox/index.ts';

/** With this code the sandbox's provider reports the payment without an amount. What is not said contradicts none. */
const NAMES_NO_AMOUNT = '500005';

/** One verification as its callers know it. */
export interface Case {
  readonly key: string;
  readonly provider: SandboxProvider;
  readonly operation: 'verify' | 'send';
  /** By which the ledger knows the transaction. */
  readonly reference: string;
  readonly otp: string | null;
  readonly amount: string | null;
  /** Every id that any answer to this key named. */
  readonly ids: readonly string[];
  /** Every status that any answer to this key had. */
  readonly statuses: readonly number[];
  /** As GET gave it last; null when it never did. */
  readonly resource: VerificationResource | null;
}

/** A request with a code in it, as a worker handed it to the network. */
export interface WireEntry {
  readonly provider: SandboxProvider;
  readonly reference: string;
  readonly otp: string;
  readonly atMs: number;
}

export interface Evidence {
  readonly cases: readonly Case[];
  readonly ledger: readonly LedgerEntry[];
  /** In the order in which they came; the same one may come again. */
  readonly results: readonly ResultEvent[];
  readonly wire: readonly WireEntry[];
  /** `otp_sends_after_deadline_total` over all workers that ever were. */
  readonly sendsAfterDeadline: number;
  /** How late the harness may have seen what crossed the wire. */
  readonly wireLagMs: number;
  /** How late the network may have delivered it. */
  readonly networkDelayMs: number;
}

/** The gravest first. */
export const VIOLATIONS = {
  charged_twice: 'a transaction was charged more than once',
  code_received_twice: "a provider's business layer received one code twice for one transaction",
  sent_more_often_than_begun: 'more submissions crossed the wire than attempts were begun',
  two_ids_for_one_key: 'one idempotency key was answered with two ids',
  wrong_answer: 'the intake answered what it must not answer',
  no_answer: 'a key has no readable answer, even at the end',
  lost: 'an accepted verification cannot be read',
  unfinished: 'a verification is neither final nor waiting for anything',
  unresolved: 'a verification waits although the provider could prove how it ended',
  gap: 'the sequence of the published results has a gap',
  two_finals: 'a verification has more than one final result, or something after it',
  result_changed: 'the same result was published with different words',
  result_differs: 'the last result and GET do not say the same',
  result_of_nobody: 'a result speaks of a verification that nobody asked for',
  said_paid: 'said to be paid, and the ledger has not exactly one charge',
  said_not_paid: 'said not to be paid, and the ledger has a charge',
  said_not_submitted: 'said not to be submitted, and the provider received the code',
  said_accepted: 'said to be accepted, and the provider accepted nothing',
  said_rejected: 'said to be rejected, and the provider did not reject the code',
  said_unknown: 'ends as unknown where it must not',
  impossible_words: 'ends in words that no verification may end with',
  sent_after_deadline: 'a code was sent after its deadline',
} as const;
export type ViolationKind = keyof typeof VIOLATIONS;

export interface Violation {
  readonly kind: ViolationKind;
  readonly says: string;
  readonly provider: SandboxProvider | null;
  readonly reference: string | null;
  readonly id: string | null;
}

/** What the ledger says of one transaction. */
export interface Books {
  readonly entries: readonly LedgerEntry[];
  /** How often each code reached the business layer. */
  readonly received: ReadonlyMap<string, number>;
  readonly accepted: ReadonlySet<string>;
  readonly rejected: ReadonlySet<string>;
  readonly charges: number;
  readonly reversals: number;
  /** The payment was said to end without money. */
  readonly notCharged: boolean;
  readonly asked: string | null;
  readonly paid: string | null;
  readonly sends: number;
  /** An inquiry said that a code is still awaited. */
  readonly untouched: boolean;
  /** The truth about the end of the payment was reported by callback, and the intake said that it has it. */
  readonly reported: boolean;
  /** An answer had null in the place of an object, which may be that of the amount. */
  readonly hidAmount: boolean;
}

const UNTOUCHED = 'PENDING_USER_VERIFICATION';

function booksOf(entries: readonly LedgerEntry[]): Books {
  const received = new Map<string, number>();
  const accepted = new Set<string>();
  const rejected = new Set<string>();
  const of = (event: LedgerEntry['event']): LedgerEntry[] => entries.filter((entry) => entry.event === event);
  // The ruling on a code is written in the same turn as its arrival, so the code before it is the one it speaks of.
  let latest = '';
  for (const { event, code } of entries) {
    if (event === 'code_received') {
      latest = code ?? '';
      received.set(latest, (received.get(latest) ?? 0) + 1);
    }
    if (event === 'code_accepted') accepted.add(latest);
    if (event === 'code_rejected') rejected.add(latest);
  }
  return {
    entries,
    received,
    accepted,
    rejected,
    charges: of('charged').length,
    reversals: of('reversed').length,
    notCharged: of('not_charged').length > 0,
    asked: of('code_accepted').at(-1)?.amount?.value ?? null,
    paid: of('charged').at(-1)?.amount?.value ?? null,
    sends: of('otp_sent').length,
    untouched: of('inquiry').some(({ detail }) => detail === UNTOUCHED),
    reported: of('callback_answered').some(
      ({ acknowledged, trick, names }) => acknowledged === true && trick === undefined && names === undefined,
    ),
    hidAmount: of('fault').some(({ detail }) => detail === 'null_object'),
  };
}

/** The ledger's entries by transaction. */
export function booksByTransaction(
  ledger: readonly LedgerEntry[],
): (one: Pick<Case, 'provider' | 'reference'>) => Books {
  const grouped = new Map<string, LedgerEntry[]>();
  for (const entry of ledger) {
    if (entry.reference === null) continue;
    const key = `${entry.provider} ${entry.reference}`;
    const group = grouped.get(key);
    if (group) group.push(entry);
    else grouped.set(key, [entry]);
  }
  const known = new Map<string, Books>();
  return ({ provider, reference }) => {
    const key = `${provider} ${reference}`;
    const books = known.get(key) ?? booksOf(grouped.get(key) ?? []);
    known.set(key, books);
    return books;
  };
}

/**
 * Whether a verification that is not final has a reason to wait: nobody can prove how it ended, or a person must look.
 * `null` when it has; else what is wrong with its waiting.
 */
export function impatience(one: Case, books: Books): 'unfinished' | 'unresolved' | null {
  const { resource, provider } = one;
  if (resource === null || resource.final) return null;
  if (resource.state !== 'awaiting') return 'unfinished';
  if (resource.needsReview && resource.reason === 'amount_mismatch') {
    return books.paid !== null && one.amount !== null && books.paid !== one.amount ? null : 'unresolved';
  }
  switch (provider) {
    case 'lipa-later':
      return 'unresolved'; // no money moves, so there is nothing to wait for
    case 'beqelal':
      // No inquiry: a callback settles it where both name the same amount, and else a person.
      if (resource.otp !== 'unknown') return 'unresolved';
      return books.reported && one.amount !== null && one.amount === books.paid ? 'unresolved' : null;
    case 'ayoconnect':
      if (!books.accepted.size && books.charges === 0) return 'unresolved'; // its status says that the code is awaited
      return ended(books) ? 'unresolved' : null;
    case 'hello-clever':
    case 'cepta':
      return ended(books) ? 'unresolved' : null;
  }
  return provider satisfies never;
}

/** The provider can say how it ended. Paid in part is not ended. */
function ended(books: Books): boolean {
  if (books.notCharged || books.reversals > 0) return true;
  return books.charges > 0 && Number(books.paid) >= Number(books.asked);
}

export function judge(evidence: Evidence): Violation[] {
  const violations: Violation[] = [];
  const booksFor = booksByTransaction(evidence.ledger);
  const accuse = (kind: ViolationKind, one: Case | null, says: string): void => {
    const id = one?.ids[0] ?? null;
    violations.push({ kind, says, provider: one?.provider ?? null, reference: one?.reference ?? null, id });
  };

  const byTransaction = new Map<string, Case[]>();
  const resultsById = groupBy(evidence.results, ({ subject }) => subject);
  const known = new Set<string>();
  for (const one of evidence.cases) {
    const key = `${one.provider} ${one.reference}`;
    byTransaction.set(key, [...(byTransaction.get(key) ?? []), one]);
    for (const id of one.ids) known.add(id);
    judgeAnswers(one, accuse);
    judgeWaiting(one, booksFor(one), accuse);
    judgeResults(one, resultsById, accuse);
    judgeWords(one, booksFor(one), accuse);
  }
  const crossings = groupBy(evidence.wire, crossingOf);
  for (const cases of byTransaction.values()) {
    judgeTransaction(cases, booksFor(cases[0] as Case), crossings, accuse);
  }
  judgeDeadlines(evidence, accuse);
  for (const subject of resultsById.keys()) {
    if (!known.has(subject)) accuse('result_of_nobody', null, subject);
  }
  const gravity = Object.keys(VIOLATIONS);
  return violations.sort((one, other) => gravity.indexOf(one.kind) - gravity.indexOf(other.kind));
}

type Accuse = (kind: ViolationKind, one: Case | null, says: string) => void;

/** What a well-formed request of an allowed client may be answered with. */
const FITTING = new Set([200, 202, 409, 429, 503]);

function judgeAnswers(one: Case, accuse: Accuse): void {
  const strange = one.statuses.filter((status) => !FITTING.has(status));
  if (strange.length > 0) accuse('wrong_answer', one, `answered ${[...new Set(strange)].join(', ')}`);
  if (new Set(one.ids).size > 1) accuse('two_ids_for_one_key', one, [...new Set(one.ids)].join(' and '));
  if (one.ids.length === 0) accuse('no_answer', one, `key ${one.key}`);
  else if (one.resource === null) accuse('lost', one, `GET never gave ${one.ids[0]}`);
}

function judgeWaiting(one: Case, books: Books, accuse: Accuse): void {
  const why = impatience(one, books);
  if (why === null) return;
  const { state, otp, transaction, needsReview } = one.resource as VerificationResource;
  accuse(why, one, `it is ${state}, ${otp} / ${transaction}${needsReview ? ', needs review' : ''}`);
}

const WORDS = [
  'state',
  'sequence',
  'final',
  'otp',
  'transaction',
  'reason',
  'nextStep',
  'attemptsRemaining',
  'needsReview',
  'providerCode',
] as const satisfies readonly (keyof VerificationResource)[];

/** What a final result says of the code and the money; asking a person to look leaves it as it is. */
const FINAL_WORDS = ['state', 'final', 'otp', 'transaction', 'reason', 'nextStep', 'providerCode'] as const;

function judgeResults(one: Case, resultsById: ReadonlyMap<string, readonly ResultEvent[]>, accuse: Accuse): void {
  const { resource } = one;
  if (resource === null) return;
  const bySequence = new Map<number, ResultEvent>();
  for (const result of resultsById.get(resource.id) ?? []) {
    const { sequence } = result.data;
    const earlier = bySequence.get(sequence);
    if (earlier === undefined) bySequence.set(sequence, result);
    else if (JSON.stringify(earlier) !== JSON.stringify(result)) accuse('result_changed', one, `result ${result.id}`);
  }
  const sequences = [...bySequence.keys()].sort((left, right) => left - right);
  const complete = sequences.every((sequence, index) => sequence === index + 1);
  if (!complete || sequences.length !== resource.sequence) {
    accuse('gap', one, `published ${sequences.join(', ') || 'nothing'}, and GET is at ${resource.sequence}`);
  }
  const last = sequences.at(-1);
  const [first] = sequences.filter((sequence) => bySequence.get(sequence)?.data.final);
  // A person may be asked to look at what is final, when something contradicts it; its words stay what they were.
  const finals = sequences.filter((sequence) => {
    const result = bySequence.get(sequence);
    const repeats = FINAL_WORDS.every((word) => result?.data[word] === bySequence.get(first ?? 0)?.data[word]);
    const asksAPerson = result?.type === 'otp.verification.review' && result.data.needsReview && repeats;
    return first !== undefined && sequence >= first && (sequence === first || !asksAPerson);
  });
  if (finals.length > 1) accuse('two_finals', one, `final are ${finals.join(', ')} of ${sequences.join(', ')}`);
  const published = last === undefined ? undefined : bySequence.get(last)?.data;
  if (published === undefined || last !== resource.sequence) return; // a gap, which is said already
  const differing = WORDS.filter((word) => published[word] !== resource[word]);
  if (differing.length > 0) {
    const said = differing.map((word) => `${word} ${published[word]} and ${resource[word]}`).join(', ');
    accuse('result_differs', one, `result ${last} and GET: ${said}`);
  }
}

/** Final words against the ledger; and what is not final may not claim what is not so either. */
function judgeWords(one: Case, books: Books, accuse: Accuse): void {
  const { resource, provider, otp: code } = one;
  if (resource === null || resource.otp === null) return;
  const { otp, transaction, final, reason } = resource;
  const unsaid = code === NAMES_NO_AMOUNT || books.hidAmount;
  const money = `the ledger has ${books.charges} charges and ${books.reversals} reversals`;
  if (transaction === 'succeeded') {
    if (books.charges !== 1 || books.reversals > 0) accuse('said_paid', one, money);
    else if (otp === 'accepted' && one.amount !== null && books.paid !== one.amount && !unsaid) {
      accuse('said_paid', one, `${one.amount} was asked for and ${books.paid} was charged`);
    }
  }
  if (!final) return;
  if (transaction === 'failed' && books.charges > books.reversals) accuse('said_not_paid', one, money);

  switch (otp) {
    case 'accepted': {
      const accepted = one.operation === 'send' ? books.sends > 0 : code !== null && books.accepted.has(code);
      if (!accepted) accuse('said_accepted', one, `${otp} / ${transaction}`);
      const words = provider === 'lipa-later' ? ['none'] : ['succeeded', 'failed'];
      if (!words.includes(transaction ?? '')) accuse('impossible_words', one, `${otp} / ${transaction}`);
      return;
    }
    case 'rejected': {
      const rejected = code === null || books.rejected.has(code);
      if (!rejected) accuse('said_rejected', one, `${otp} / ${transaction} / ${reason}`);
      const words = provider === 'lipa-later' ? ['none'] : ['pending', 'failed'];
      if (!words.includes(transaction ?? '')) accuse('impossible_words', one, `${otp} / ${transaction}`);
      return;
    }
    case 'not_submitted': {
      // What belongs to the transaction's own state is said of the one that owns it, and judged there.
      const ofReference = ['attempt_in_flight', 'already_used', 'budget_spent'].includes(reason ?? '');
      const words = provider === 'lipa-later' ? ['none'] : ofReference ? null : ['pending'];
      if (words !== null && !words.includes(transaction ?? '')) {
        accuse('impossible_words', one, `${otp} / ${transaction} / ${reason}`);
      }
      return;
    }
    case 'unknown': {
      const allowed =
        provider === 'lipa-later'
          ? transaction === 'none'
          : transaction === 'succeeded'
            ? code !== null // one charge, as said above, and nobody knows by which of the transaction's codes
            : transaction === 'failed'
              ? provider !== 'beqelal' || (books.reported && books.notCharged)
              : transaction === 'pending' && provider === 'ayoconnect' && books.untouched;
      if (!allowed) accuse('said_unknown', one, `${otp} / ${transaction} / ${reason}`);
      return;
    }
  }
  otp satisfies never;
}

/** What a code for a transaction is known by on the wire. */
export function crossingOf({ provider, reference, otp }: Pick<Case, 'provider' | 'reference' | 'otp'>): string {
  return `${provider} ${reference} ${otp}`;
}

/** What is true of a transaction as a whole, over everything that was submitted for it. */
function judgeTransaction(
  cases: readonly Case[],
  books: Books,
  crossings: ReadonlyMap<string, readonly WireEntry[]>,
  accuse: Accuse,
): void {
  const [first] = cases as [Case];
  if (books.charges > 1) accuse('charged_twice', first, `${books.charges} charges`);
  for (const [code, times] of books.received) {
    const own = cases.filter(({ otp }) => otp === code);
    // A code that the provider itself says it never used may be typed and submitted anew: once for each such end.
    const freed = own.filter(
      ({ resource }) => resource?.final && resource.otp === 'unknown' && resource.transaction === 'pending',
    );
    if (times > 1 + (books.untouched ? freed.length : 0)) {
      accuse('code_received_twice', own[0] ?? first, `${code} came ${times} times`);
    }
    if (books.accepted.has(code) && freed.length === own.length) {
      accuse('said_unknown', freed[0] ?? first, 'untouched, and the code was accepted');
    }
    const submitted = own.filter(({ resource }) => resource?.otp !== 'not_submitted').length;
    if (times > submitted) {
      const denied = own.find(({ resource }) => resource?.otp === 'not_submitted');
      accuse(
        'said_not_submitted',
        denied ?? first,
        `${code} came ${times} times, ${submitted} verifications admit to it`,
      );
    }
  }
  const sends = cases.filter(({ operation }) => operation === 'send').length;
  if (books.sends > sends)
    accuse('code_received_twice', first, `${books.sends} codes were sent out for ${sends} requests`);

  for (const code of new Set(cases.map(({ otp }) => otp))) {
    if (code === null) continue;
    const own = cases.filter(({ otp }) => otp === code);
    const begun = own
      .flatMap(({ resource }) => resource?.history ?? [])
      .filter(({ event }) => event === 'begun').length;
    const crossed = crossings.get(crossingOf({ ...first, otp: code }))?.length ?? 0;
    if (crossed > begun) {
      accuse('sent_more_often_than_begun', own[0] as Case, `${code} left ${crossed} times, begun ${begun} times`);
    }
  }
}

function judgeDeadlines(
  { cases, wire, ledger, sendsAfterDeadline, wireLagMs, networkDelayMs }: Evidence,
  accuse: Accuse,
): void {
  if (sendsAfterDeadline > 0) accuse('sent_after_deadline', null, `the workers themselves count ${sendsAfterDeadline}`);
  const byCode = groupBy(cases, crossingOf);
  // Of two verifications with one code the later deadline counts: which of them was submitted, the wire does not say.
  const check = (provider: SandboxProvider, reference: string, otp: string, atMs: number, where: string): void => {
    const own = byCode.get(crossingOf({ provider, reference, otp })) ?? [];
    const deadline = Math.max(...own.map(({ resource }) => (resource ? Date.parse(resource.expiresAt) : Infinity)));
    if (own.length > 0 && atMs > deadline) {
      accuse('sent_after_deadline', own[0] as Case, `${where} ${atMs - deadline} ms after it`);
    }
  };
  for (const { provider, reference, otp, atMs } of wire) {
    check(provider, reference, otp, atMs - wireLagMs, 'it left (lag of the harness taken off)');
  }
  for (const { provider, reference, event, code, at } of ledger) {
    if (event !== 'code_received' || reference === null || code === undefined) continue;
    check(provider, reference, code, Date.parse(at) - networkDelayMs, 'it arrived (delay of the network taken off)');
  }
}

/** As Map.groupBy, which the oldest Node that is supported does not have. */
export function groupBy<T, K>(all: readonly T[], keyOf: (one: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const one of all) {
    const key = keyOf(one);
    const group = groups.get(key);
    if (group) group.push(one);
    else groups.set(key, [one]);
  }
  return groups;
}
