/**
 * What the world outside knows: which submissions may have reached a provider, and what has been proved. Written from the
 * rules, not from the code under test, and asked after every step whether Redis still says the truth.
 */
import type { Evidence } from '../../src/workers/decide.ts';
import { type Content, type Fields, IDS, type Of, type OutboxEntry, standingIn, wordsOf } from './lane.ts';

export const AMOUNT = { value: '100.00', currency: 'NGN' };
/** The time-out of a call, and what its answer may need to come back to us. */
export const TIMEOUT_MS = 2_000;
export const IN_FLIGHT_MS = TIMEOUT_MS + 10_000;

export interface World {
  readonly name: string;
  readonly effect: 'money' | 'none';
  readonly canInquire: boolean;
  readonly maxAttempts: number;
  readonly delaysMs: readonly number[];
  readonly giveUpAfterMs: number;
}

export interface Submission {
  readonly of: Of;
  readonly attempt: number;
  readonly code: string;
  readonly beganAt: number;
  /**
   * `open`: nobody has said what became of it. `reached`: an answer, or a loss: it may have got there. The other three
   * prove that its code was not used.
   */
  readonly fate: 'open' | 'reached' | 'not_sent' | 'refused' | 'untouched';
  /** Counts against the transaction's budget. */
  readonly counted: boolean;
  /** When the provider itself answered, else 0. */
  readonly answeredAt: number;
}

interface Heard {
  /** A proof of payment. */
  readonly paid: boolean;
  /** It was said that another amount was paid: a person must look, and nothing that is said of the code ends that. */
  readonly otherAmount: boolean;
  /** Proof enough that nothing was paid. */
  readonly notPaid: boolean;
  readonly accepted: boolean;
  readonly rejected: boolean;
  /** What a person has said became of the money. */
  readonly resolvedAs: 'succeeded' | 'failed' | null;
  /** When a first inquiry, put late enough, said that nothing was paid; 0 when none has. */
  readonly firstNotPaidAt: number;
}

export interface Oracle {
  readonly codes: readonly [string, string | null];
  readonly submissions: readonly Submission[];
  readonly heard: readonly [Heard, Heard];
  /** The words of the final result, as first seen. */
  readonly final: readonly [string | null, string | null];
  /** Paid was proved after another final word, and no person has looked since. */
  readonly contradicted: readonly [boolean, boolean];
  /** Redis was put back to an older state: what was said and counted before may be forgotten, what was sent may not. */
  readonly rolledBack: boolean;
}

const NOTHING: Heard = {
  paid: false,
  otherAmount: false,
  notPaid: false,
  accepted: false,
  rejected: false,
  resolvedAs: null,
  firstNotPaidAt: 0,
};

export function newOracle(codes: readonly [string, string | null]): Oracle {
  return {
    codes,
    submissions: [],
    heard: [NOTHING, NOTHING],
    final: [null, null],
    contradicted: [false, false],
    rolledBack: false,
  };
}

/** What must hold after every step. The number is the rule's number in the test's report. */
export class Violation extends Error {
  readonly invariant: string;

  constructor(invariant: string, message: string) {
    super(`${invariant}: ${message}`);
    this.invariant = invariant;
  }
}

function demand(holds: boolean, invariant: string, message: string): void {
  if (!holds) throw new Violation(invariant, message);
}

export const INVARIANTS = {
  once: '1 a code is submitted once, one attempt at a time, none while another is unresolved',
  final: '2 final is said once and never taken back',
  sequence: '3 sequences have no gap, and the outbox says what the record says',
  nextStep: '4 whatever is not final has a next step',
  proof: '5 what is final was proved',
  code: '6 the sealed code is gone from what cannot be sent',
  budget: '7 the budget is what was used of it',
  contradiction: '8 a payment proved after another final word is shown to a person',
  holder: '9 the transaction is held exactly while one of its verifications is sending or unresolved',
  remembered: '10 a code that may have reached the provider is remembered',
  breaker: '12 nothing begins while the breaker is open, or beside the one on trial',
  machinery: '11 the machinery does not fail',
} as const;

/** Nothing begins while the breaker is open, and nothing beside the one that is on trial. */
export function demandPassed({ breaker, records }: Content, of: Of, now: number): void {
  const name = `verification ${of + 1}`;
  demand(breaker.state !== 'open', INVARIANTS.breaker, `${name} begins while the breaker is open`);
  const onTrial = IDS.indexOf(breaker.trial as (typeof IDS)[number]);
  const sending = onTrial >= 0 && onTrial !== of && records[onTrial]?.state === 'sending';
  const alone = !sending || now > Number(records[onTrial]?.inFlightUntil);
  demand(breaker.state !== 'half_open' || alone, INVARIANTS.breaker, `${name} begins beside the one on trial`);
}

/** An attempt was granted: was it right to send this code now? */
export function begun(oracle: Oracle, of: Of, record: Fields, now: number, world: World): Oracle {
  const code = oracle.codes[of] ?? '';
  const attempt = Number(record.attempts);
  const name = `verification ${of + 1}, attempt ${attempt}`;
  const mine = oracle.submissions.filter((submission) => submission.of === of);
  for (const earlier of oracle.submissions) {
    const mayHaveReached = earlier.fate === 'open' || earlier.fate === 'reached';
    if (!mayHaveReached) continue;
    const first = `verification ${earlier.of + 1}, attempt ${earlier.attempt}`;
    demand(earlier.code !== code, INVARIANTS.once, `${name} sends the code that ${first} may have brought already`);
    // A result that Redis has lost is still known to who brought it, and written back in this very step.
    const { rejected, paid, notPaid } = oracle.heard[earlier.of];
    const resolved = oracle.final[earlier.of] !== null || (oracle.rolledBack && (rejected || paid || notPaid));
    demand(resolved, INVARIANTS.once, `${name} begins while ${first} is not resolved`);
    // Where money moves a person or a proof has ended it, and no answer may come any more; where none moves, one may.
    const over = earlier.fate === 'reached' || world.effect === 'none';
    demand(over || oracle.rolledBack, INVARIANTS.once, `${name} begins while ${first} may still be on its way`);
  }
  const refusals = mine.filter(({ fate }) => fate === 'refused').length;
  demand(refusals <= 1, INVARIANTS.once, `${name} comes after ${refusals} documented refusals`);
  demand(now < Number(record.expiresAt), INVARIANTS.once, `${name} begins after the code's deadline`);
  const used = oracle.submissions.filter(({ counted }) => counted).length;
  demand(used < world.maxAttempts, INVARIANTS.budget, `${name} begins although ${used} were used`);
  const submission: Submission = { of, attempt, code, beganAt: now, fate: 'open', counted: true, answeredAt: 0 };
  return { ...oracle, submissions: [...oracle.submissions, submission] };
}

/** Something was heard and is about to be written down. `attempt`: of which submission, 0 for none. */
export function heard(oracle: Oracle, of: Of, attempt: number, evidence: Evidence, now: number, world: World): Oracle {
  const final = oracle.final[of];
  let { submissions } = oracle;
  const tell = (change: Partial<Submission>): void => {
    submissions = submissions.map((one) => {
      // An inquiry has proved that this code was not used; an answer that says otherwise is one word against another.
      if (one.of !== of || one.attempt !== attempt || one.fate === 'untouched') return one;
      return { ...one, ...change };
    });
  };
  let mine = oracle.heard[of];
  const learn = (change: Partial<Heard>): void => {
    mine = { ...mine, ...change };
  };
  const latest = submissions.findLast((submission) => submission.of === of);
  const lateEnough = (askedAt: number): boolean =>
    latest !== undefined &&
    (askedAt > latest.beganAt + IN_FLIGHT_MS || (latest.answeredAt > 0 && askedAt > latest.answeredAt));
  // What was counted when it became final, or when a person was asked to look, stays counted: nothing was taken back from
  // what was said.
  const givenBack = final === null && !mine.otherAmount;
  let proved = false;

  switch (evidence.from) {
    case 'not_sent':
    case 'no_key':
      tell({ fate: 'not_sent', ...(givenBack ? { counted: false } : {}) });
      break;
    case 'lost':
      tell({ fate: 'reached' });
      break;
    case 'answer': {
      const { outcome } = evidence;
      if (outcome.kind === 'refused') {
        tell({ fate: 'refused', ...(givenBack ? { counted: false } : {}) });
        break;
      }
      tell({ fate: 'reached', ...(outcome.kind === 'accepted' && !mine.otherAmount ? { answeredAt: now } : {}) });
      if (outcome.kind === 'accepted') {
        learn({ accepted: true, firstNotPaidAt: 0 });
        if (outcome.transaction === 'succeeded' && agrees(outcome.amounts)) learn({ paid: true });
        proved = outcome.transaction === 'succeeded';
      }
      if (outcome.kind === 'rejected')
        learn({ rejected: true, notPaid: mine.notPaid || outcome.transaction === 'failed' });
      break;
    }
    case 'inquiry': {
      const { finding, askedAt } = evidence;
      if (finding.kind === 'paid') {
        if (agrees(finding.amounts)) learn({ paid: true });
        else learn({ firstNotPaidAt: 0 });
        proved = true;
      } else if (finding.kind === 'not_paid') {
        if (!lateEnough(askedAt)) break;
        if (mine.firstNotPaidAt === 0) learn({ firstNotPaidAt: now });
        else if (askedAt >= mine.firstNotPaidAt + Math.min(...world.delaysMs) - 100) learn({ notPaid: true });
      } else if (finding.kind !== 'nothing') {
        learn({ firstNotPaidAt: 0 });
        // What had been heard before Redis lost it is known to nobody.
        const isDoubted = (mine.accepted || mine.otherAmount) && !oracle.rolledBack;
        const believed = final === null && !isDoubted && lateEnough(askedAt);
        if (finding.kind === 'untouched' && believed) {
          submissions = submissions.map((one) =>
            one === latest && (one.fate === 'open' || one.fate === 'reached')
              ? { ...one, fate: 'untouched', counted: false }
              : one,
          );
        }
      }
      break;
    }
    case 'callback': {
      const { finding, receivedAt } = evidence;
      proved = finding.kind === 'paid';
      if (world.canInquire || (finding.kind !== 'paid' && finding.kind !== 'not_paid')) break;
      if (!finding.amounts || !agrees(finding.amounts)) break;
      if (finding.kind === 'paid') learn({ paid: true });
      else if (lateEnough(receivedAt)) learn({ notPaid: true });
      break;
    }
    case 'operator':
      // Of what is final and waits for nobody a person is asked nothing.
      if (final !== null && !oracle.contradicted[of]) break;
      learn({ resolvedAs: evidence.as, ...(evidence.as === 'succeeded' ? { paid: true } : { notPaid: true }) });
      break;
    default:
  }
  const others = oracle.heard[1 - of] as Heard;
  const said = final?.split(' ')[1];
  const isNews = said !== undefined && said !== 'succeeded' && said !== 'none' && mine.resolvedAs !== 'succeeded';
  const isSeen = evidence.from === 'operator';
  const contradicted = (other: Of): boolean =>
    other === of ? (oracle.contradicted[of] && !isSeen) || (proved && isNews) : oracle.contradicted[other];
  return {
    ...oracle,
    submissions,
    heard: of === 0 ? [mine, others] : [others, mine],
    contradicted: [contradicted(0), contradicted(1)],
  };
}

/** Takes in what is final now, and demands everything that must hold between two steps. */
export function judge(
  before: Oracle,
  content: Content,
  outbox: readonly OutboxEntry[],
  now: number,
  world: World,
  recovering: boolean,
): Oracle {
  const final = ([0, 1] as const).map((of) => {
    const record = content.records[of];
    const known = before.final[of] ?? null;
    if (record === null) return before.rolledBack ? null : known;
    const words = record.state === 'settled' ? wordsOf(record) : null;
    if (before.rolledBack) return words;
    demand(
      known === null || known === words,
      INVARIANTS.final,
      `verification ${of + 1} said "${known}", now "${words}"`,
    );
    return words;
  }) as [string | null, string | null];
  const heardOf = (of: Of): Heard => {
    const record = content.records[of];
    const said = record?.state === 'awaiting' && standingIn(record).reason === 'amount_mismatch';
    return said ? { ...before.heard[of], otherAmount: true } : before.heard[of];
  };
  const oracle: Oracle = { ...before, final, heard: [heardOf(0), heardOf(1)] };
  for (const of of [0, 1] as const) {
    const record = content.records[of];
    if (record === null) {
      const accepted = oracle.codes[of] !== null;
      demand(!accepted || oracle.rolledBack, INVARIANTS.nextStep, `verification ${of + 1} is gone`);
      continue;
    }
    judgeResults(oracle, of, record, outbox);
    judgeNextStep(of, record, content, now, world, oracle.rolledBack);
    judgeProof(oracle, of, record);
    const sendable = record.state === 'queued' || record.state === 'sending';
    demand(
      (record.code !== undefined) === sendable,
      INVARIANTS.code,
      `verification ${of + 1} is ${record.state} and its code is ${record.code === undefined ? 'gone' : 'there'}`,
    );
    if (oracle.contradicted[of] && !oracle.rolledBack) {
      demand(record.needsReview === '1', INVARIANTS.contradiction, `verification ${of + 1} does not need a person`);
      const told = outbox.some((entry) => entry.of === of && entry.type === 'review');
      demand(told, INVARIANTS.contradiction, `nobody was told of verification ${of + 1}`);
    }
  }
  // While it is recovering nothing begins, and who knows better has not said so yet.
  if (!recovering) judgeReference(oracle, content, world);
  return oracle;
}

function judgeResults(oracle: Oracle, of: Of, record: Fields, outbox: readonly OutboxEntry[]): void {
  const own = outbox.filter((entry) => entry.of === of);
  const settled = own.filter(({ type }) => type === 'settled').length;
  if (oracle.rolledBack) return; // what was published is not taken back with Redis, and consumers drop what they know
  demand(
    own.every(({ sequence }, index) => sequence === index + 1) && Number(record.sequence) === own.length,
    INVARIANTS.sequence,
    `verification ${of + 1} is at ${record.sequence} and has published ${own.map(({ sequence }) => sequence)}`,
  );
  const said = own.at(-1);
  demand(
    said === undefined ? record.standing === undefined : said.words === wordsOf(record),
    INVARIANTS.sequence,
    `verification ${of + 1} says "${wordsOf(record)}" and has published "${said?.words}"`,
  );
  const { attemptsRemaining = '' } = standingIn(record);
  demand(
    said === undefined || said.attemptsRemaining === attemptsRemaining,
    INVARIANTS.sequence,
    `verification ${of + 1} has ${attemptsRemaining} left and has published ${said?.attemptsRemaining}`,
  );
  demand(
    settled === (oracle.final[of] === null ? 0 : 1),
    INVARIANTS.final,
    `verification ${of + 1} was told settled ${settled} times`,
  );
}

function judgeNextStep(
  of: Of,
  record: Fields,
  { due, awaiting, review, alive }: Content,
  now: number,
  world: World,
  rolledBack: boolean,
): void {
  const id = Object.keys(due).find((member) => member.endsWith(String(of + 1)));
  const at = Number(id === undefined ? 0 : due[id]);
  const stands = (set: Fields): boolean => Object.keys(set).some((member) => member.endsWith(String(of + 1)));
  const say = (what: string): string => `verification ${of + 1} is ${record.state} and ${what}`;
  const settled = record.state === 'settled';
  // A final record may be looked at for as long as a person has not.
  const mayStand = !settled || record.needsReview === '1';
  demand(stands(due) || settled, INVARIANTS.nextStep, say('does not stand in due'));
  demand(!stands(due) || mayStand, INVARIANTS.nextStep, say('stands in due'));
  demand(settled || at > 0, INVARIANTS.nextStep, say('is due at no time'));
  const awaits = record.state === 'awaiting';
  demand(stands(awaiting) === awaits, INVARIANTS.nextStep, say(`awaiting has it: ${stands(awaiting)}`));
  const reviewed = record.needsReview === '1';
  demand(
    stands(review) === reviewed,
    INVARIANTS.nextStep,
    say(`needsReview ${reviewed}, review has it: ${stands(review)}`),
  );
  const latest: Record<string, number> = {
    queued: Number(record.expiresAt),
    sending: alive.includes(record.owner ?? '') ? Math.max(now, Number(record.inFlightUntil)) + 1_000 : now + 6_000,
    awaiting:
      Number(record.nextInquiryAt ?? 0) > 0
        ? Math.max(now, Number(record.nextInquiryAt)) + 5_000
        : now + Math.max(world.giveUpAfterMs, reviewed ? 3_600_000 : 0),
  };
  if (!settled && !rolledBack) {
    demand(
      at <= (latest[record.state ?? ''] ?? 0),
      INVARIANTS.nextStep,
      say(`is looked at only ${at - now} ms from now`),
    );
  }
  if (awaits) {
    demand(Number(record.awaitingSince) > 0, INVARIANTS.nextStep, say('nobody knows since when'));
    const asked = Number(record.nextInquiryAt ?? 0) > 0;
    demand(asked || reviewed || at > 0, INVARIANTS.nextStep, say('waits for nothing'));
    demand(!asked || world.canInquire, INVARIANTS.nextStep, say('waits for an inquiry that nobody can make'));
  }
}

function judgeProof({ heard: all, submissions, final, rolledBack }: Oracle, of: Of, record: Fields): void {
  const mine = all[of];
  const { otp, transaction } = standingIn(record);
  const say = (what: string): string => `verification ${of + 1} says "${wordsOf(record)}" ${what}`;
  const may = (): boolean =>
    submissions.some((one) => one.of === of && (one.fate === 'open' || one.fate === 'reached'));
  if (otp === 'accepted') demand(mine.accepted || mine.paid, INVARIANTS.proof, say('and nobody has said yes'));
  if (otp === 'rejected') demand(mine.rejected, INVARIANTS.proof, say('and nobody has said no'));
  if (final[of] === null) return;
  const looked = !mine.otherAmount || mine.paid || mine.resolvedAs !== null || rolledBack;
  demand(looked, INVARIANTS.proof, say('and another amount was paid'));
  if (otp === 'not_submitted') {
    demand(!may(), INVARIANTS.proof, say('and it may have reached the provider'));
    // The words of the transaction are then those of the verification that owns it.
    const theirs = all[1 - of];
    if (transaction === 'succeeded') demand(theirs?.paid === true, INVARIANTS.proof, say('and nobody has proved it'));
    if (transaction === 'failed') demand(theirs?.notPaid === true, INVARIANTS.proof, say('and nobody has proved it'));
    return;
  }
  if (transaction === 'succeeded') demand(mine.paid, INVARIANTS.proof, say('and nobody has proved it'));
  if (transaction === 'failed') demand(mine.notPaid || rolledBack, INVARIANTS.proof, say('and nobody has proved it'));
  demand(transaction !== 'unknown', INVARIANTS.proof, say('and that is no end'));
  if (otp === 'unknown' && transaction === 'pending') demand(!may(), INVARIANTS.proof, say('and nobody has proved it'));
}

function judgeReference({ submissions, rolledBack }: Oracle, content: Content, world: World): void {
  const used = Number(content.reference.used ?? 0);
  const counted = submissions.filter((submission) => submission.counted).length;
  if (!rolledBack)
    demand(used === counted, INVARIANTS.budget, `${used} attempts are said to be used, and ${counted} are`);
  demand(used <= world.maxAttempts || rolledBack, INVARIANTS.budget, `${used} attempts were used`);
  const when = rolledBack ? 'after a rollback ' : '';
  for (const { of, attempt, fate, code } of submissions) {
    demand(
      (fate !== 'open' && fate !== 'reached') || content.reference[`code:${code}`] !== undefined,
      INVARIANTS.remembered,
      `${when}the code of verification ${of + 1}, attempt ${attempt}, is forgotten`,
    );
  }
  const { holder } = content.reference;
  const inHand = content.records.flatMap((record, of) =>
    record?.state === 'sending' || record?.state === 'awaiting' ? [String(of + 1)] : [],
  );
  // Nobody knows of an attempt for it, but there may have been one in what Redis has lost.
  const suspect = content.records.some((record) => record?.state === 'awaiting' && record.attempts === undefined);
  const which = inHand.length === 1 && suspect ? 'a suspect' : `verification ${inHand}`;
  // After a rollback two may be unknown at once; one of them holds it.
  demand(inHand.length <= 1 || rolledBack, INVARIANTS.holder, 'both verifications are in hand');
  demand(
    holder === undefined ? inHand.length === 0 : inHand.includes(holder.at(-1) ?? ''),
    INVARIANTS.holder,
    `${when}the transaction is held by ${holder?.at(-1) ?? 'nobody'} while ${which} is in hand`,
  );
}

function agrees(amounts: readonly { value: string }[] | undefined): boolean {
  return amounts === undefined || amounts.length === 0 || amounts.some(({ value }) => value === AMOUNT.value);
}
