/**
 * Which states count as one.
 *
 * What is left out of the digest must decide nothing of what may follow, or else the enumeration would pass over it:
 * - The two workers differ by name only, and so do the two verifications. What is known of each stands together, and of
 *   two the lesser comes first.
 * - Times are distances from now, and once they are over it does not matter since when.
 * - What a record carries along from where it stood before, until it is written anew; and words that are said and at most
 *   passed on, such as a provider's code.
 * - Of what is settled nothing is asked but what a proof can contradict: begin looks at the state alone, the policy at
 *   the transaction. Of a transaction with two that are settled, nothing.
 * - Whether a worker is heard of is asked only of the owner of what is being sent.
 *
 * `model.test.ts` and `deep.ts --reduction` look at every state one by one, whether that is so. Where Redis may lose
 * something all may still matter, and everybody has a name: workers beat in turn, and the first to come may recover.
 */
import { createHash } from 'node:crypto';
import type { VerificationRecord } from '../../src/producers/record.ts';
import { codeUseIn } from '../../src/workers/change.ts';
import type { Side } from './events.ts';
import { type Content, type Fields, IDS, type Of, standingIn } from './lane.ts';
import { IN_FLIGHT_MS } from './oracle.ts';
import type { Held, State, Undelivered, WorkerState } from './state.ts';

/** Compared with the time now, and with nothing else: how long ago they were does not matter. */
const DEADLINES = new Set(['expiresAt', 'notBefore', 'nextInquiryAt']);
const SINCE = new Set(['awaitingSince', 'notPaidAt', 'beganAt', 'createdAt']);
/** Does not tell two states apart: it only grows, or is the same in all of them, or nothing is decided by it. */
const IDLE = new Set(['history', 'revision', 'updatedAt', 'head', 'claim', 'client', 'v', 'operation', 'codePrint']);
/** Nothing that is compared with the past reaches back further than this. */
const LONG_AGO_MS = 120_000;

/**
 * By what of a record nothing is decided any more, by where it stands. What is not named tells states apart, also a field
 * that a record will only have tomorrow.
 */
const OVER: Readonly<Record<string, ReadonlySet<string>>> = {
  queued: passedOver('beganAt', 'inFlightUntil', 'used'),
  sending: passedOver('notBefore'),
  awaiting: passedOver(
    ...['expiresAt', 'notBefore', 'beganAt', 'refusals', 'notSent', 'used'],
    ...['nextStep', 'providerCode', 'attemptsRemaining'],
  ),
  settled: passedOver(
    ...['expiresAt', 'notBefore', 'beganAt', 'refusals', 'notSent', 'used', 'attempts', 'hinted', 'inFlightUntil'],
    ...['awaitingSince', 'nextInquiryAt', 'inquiries', 'notPaidAt', 'otp', 'reason', 'nextStep'],
    ...['providerCode', 'attemptsRemaining', 'identifiers', 'details'],
  ),
};

/** Besides what is idle everywhere; and who owns it stands with the worker. */
function passedOver(...names: string[]): ReadonlySet<string> {
  return new Set([...IDLE, 'owner', 'createdAt', 'sequence', ...names]);
}

export function digestOf(state: State): string {
  const { rollback } = state;
  if (rollback !== null) return shortened(JSON.stringify(withRollback(state, rollback)));
  const [one, two] = [JSON.stringify(verificationOf(state, 0)), JSON.stringify(verificationOf(state, 1))];
  const told = (first: Of, second: Of): string =>
    state.workers
      .map((worker, side) => JSON.stringify([first, second].map((of) => inHandOf(state, worker, side as Side, of))))
      .sort()
      .join();
  // Two that are alike may still be in different hands.
  const ofWorkers = one < two ? told(0, 1) : two < one ? told(1, 0) : [told(0, 1), told(1, 0)].sort()[0];
  return shortened([...[one, two].sort(), ofWorkers, JSON.stringify([transactionOf(state), breakerOf(state)])].join());
}

function shortened(text: string): string {
  return createHash('sha1').update(text).digest('base64');
}

const ago = ({ clock }: State, at: number): number | null => (at === 0 ? null : Math.max(at - clock, -LONG_AGO_MS));
const ahead = ({ clock }: State, at: number): number | null => (at === 0 ? null : Math.max(at - clock, 0));
/** Compared with the time now, or with that of evidence on its way: to come after it is to be later by however little. */
const until = (state: State, at: number): number | null =>
  at === 0 ? null : Math.max(at, oldestOf(state) - 1) - state.clock;

/** Since when evidence has been on its way; now, when there is none. */
function oldestOf({ clock, undelivered }: State): number {
  const times = undelivered.map(({ evidence }) => {
    if (evidence.from === 'inquiry') return evidence.askedAt;
    return evidence.from === 'callback' ? evidence.receivedAt : clock;
  });
  return Math.min(clock, ...times);
}

const isSettled = ({ content }: State, of: Of): boolean => content.records[of]?.state === 'settled';
const isOver = (state: State): boolean => isSettled(state, 0) && isSettled(state, 1);

/** All that is known of one of the verifications, but for who has it in hand. */
function verificationOf(state: State, of: Of): unknown {
  const { content, oracle, undelivered } = state;
  const record = content.records[of];
  if (record === null) return null;
  const over = OVER[record.state ?? ''] ?? IDLE;
  // An inquiry may have been put before it was settled.
  const asked = undelivered.some((one) => one.of === of && one.evidence.from === 'inquiry');
  const { standing: _, ...apart } = { ...record, ...standingIn(record) };
  const fields = Object.entries(apart).filter(([name]) => !over.has(name) || (asked && name === 'inFlightUntil'));
  const { firstNotPaidAt, ...heard } = oracle.heard[of];
  return [
    fields.map(([name, value]) => ofField(state, name, value)).sort(),
    Object.entries(content.due).flatMap(([id, at]) => (id.endsWith(String(of + 1)) ? [ahead(state, Number(at))] : [])),
    record.state === 'sending' && content.alive.includes(record.owner ?? ''),
    undelivered
      .filter((one) => one.of === of)
      .map((one) => JSON.stringify(ofUndelivered(state, one)))
      .sort(),
    oracle.contradicted[of],
    oracle.heard[of].resolvedAs,
    !isSettled(state, of) && lastEventOf(record) === 'set_aside',
    isSettled(state, of) ? null : [heard, ago(state, firstNotPaidAt)],
    isOver(state) ? null : submissionsOf(state, of),
    isOver(state) ? null : placeOf(state, of),
  ];
}

function lastEventOf({ history = '' }: Fields): string | undefined {
  return /^\d+ (\w+)/.exec(history)?.[1];
}

function ofField(state: State, name: string, value: string): string {
  if (name === 'token') return name;
  // Whether the amount differs is asked again; else a reason is only passed on.
  if (name === 'reason') return `${name} ${value === 'amount_mismatch'}`;
  if (DEADLINES.has(name)) return `${name} ${ahead(state, Number(value))}`;
  if (name === 'inFlightUntil') return `${name} ${until(state, Number(value))}`;
  if (SINCE.has(name)) return `${name} ${ago(state, Number(value))}`;
  return `${name} ${value}`;
}

/** Those of its submissions that count, or may have reached the provider, or are on their way; while it goes on, all. */
function submissionsOf(state: State, of: Of): unknown[] {
  const { oracle, held } = state;
  return oracle.submissions.flatMap((one) => {
    if (one.of !== of) return [];
    const { attempt, beganAt, fate, counted, answeredAt } = one;
    const inFlight = until(state, beganAt + IN_FLIGHT_MS);
    if (!isSettled(state, of)) return [[attempt, fate, counted, inFlight, until(state, answeredAt)]];
    const isHeld = held.some((hold) => hold.of === of && hold.attempt === attempt);
    const matters = isHeld || counted || fate === 'open' || fate === 'reached';
    return matters ? [[isHeld ? attempt : null, fate, counted]] : [];
  });
}

/** Whether anybody can still meet its code. */
function usesCode(state: State, of: Of): boolean {
  return state.content.records[of] !== null && (!isSettled(state, of) || submissionsOf(state, of).length > 0);
}

/** Where it and its code stand in the record of the transaction. */
function placeOf(state: State, of: Of): unknown[] {
  const { reference } = state.content;
  const id = IDS[of];
  const entry = usesCode(state, of) ? reference[`code:${state.oracle.codes[of]}`] : undefined;
  const code = entry === undefined ? null : codeUseIn(entry);
  return [
    reference.holder === id,
    reference.provedBy === id,
    reference.next?.split(' ').includes(id) === true,
    code && [code.id === id, code.outcome],
  ];
}

/** How the breaker stands, and for how long who is on trial keeps others out. */
function breakerOf(state: State): unknown {
  const { state: is, trial, trialUntil } = state.content.breaker;
  if (is !== 'half_open' || trial === undefined) return is ?? null;
  return [is, isSettled(state, IDS.indexOf(trial as (typeof IDS)[number]) as Of), ahead(state, Number(trialUntil))];
}

/** What is known of the transaction without regard to whose it is. */
function transactionOf(state: State): unknown {
  if (isOver(state)) return null;
  const { content, oracle } = state;
  const [one, two] = oracle.codes;
  return [
    usesCode(state, 0) && usesCode(state, 1) && one === two,
    Object.entries(content.reference)
      .filter(([name]) => !/^(holder|last|provedBy|next|code:.*|of:.*)$/.test(name))
      .sort(),
  ];
}

/** What this worker has in its hands of this verification. */
function inHandOf(state: State, { name }: WorkerState, side: Side, of: Of): unknown {
  const { content, held, lastAnswer } = state;
  const record = content.records[of];
  const inHand = held.filter((one) => one.worker === side && one.of === of);
  const again = lastAnswer?.worker === side && lastAnswer.of === of ? ofUndelivered(state, lastAnswer) : null;
  return [record?.state === 'sending' && record.owner === name, inHand.map((one) => ofHeld(state, one)).sort(), again];
}

function ofHeld(state: State, { of, attempt, record }: Omit<Held, 'worker'>): unknown[] {
  if (isSettled(state, of)) return [attempt];
  const now = state.content.records[of];
  return [
    ...[attempt, record.state, record.attempts],
    ...[now?.revision === String(record.revision), now?.token === record.token],
  ];
}

function ofUndelivered(state: State, undelivered: Undelivered): unknown[] {
  const evidence = Object.entries(undelivered.evidence).map(([name, value]) => {
    if (name === 'ownedBy') return value === '' ? value : value === IDS[undelivered.of];
    return name === 'askedAt' || name === 'receivedAt' ? ago(state, Number(value)) : value;
  });
  return [...ofHeld(state, undelivered), ...evidence];
}

/** Where Redis may lose something. */
function withRollback(state: State, { saved, times, recovering }: NonNullable<State['rollback']>): unknown {
  const { content, workers, held, lastAnswer, oracle } = state;
  const sideOf = (name: string): number => workers.findIndex((worker) => worker.name === name);
  const sorted = (fields: Fields): [string, string][] =>
    Object.entries(fields).sort(([one], [other]) => (one < other ? -1 : 1));
  const ofRecord = (record: Fields | null): unknown[] =>
    sorted(record ?? {})
      .filter(([name]) => !IDLE.has(name))
      .map(([name, value]) => {
        if (name === 'beganAt' && record?.state !== 'sending') return [name];
        if (DEADLINES.has(name)) return [name, ahead(state, Number(value))];
        if (name === 'inFlightUntil') return [name, until(state, Number(value))];
        if (SINCE.has(name)) return [name, ago(state, Number(value))];
        if (name === 'owner') return [name, sideOf(value)];
        return name === 'token' ? [name] : [name, value];
      });
  const ofContent = (content: Content): unknown[] => {
    const { server, seenAt, recovering, recoverUntil } = content.epoch;
    const bySide = (times: Fields): unknown =>
      Object.entries(times).map(([name, at]) => [sideOf(name), ago(state, Number(at))]);
    return [
      content.records.map(ofRecord),
      sorted(content.reference),
      Object.entries(content.due).map(([id, at]) => [id, ahead(state, Number(at))]),
      content.review,
      workers.map(({ name }) => content.alive.includes(name)),
      [server, ago(state, Number(seenAt ?? 0)), recovering, ago(state, Number(recoverUntil ?? 0))],
      [bySide(content.workers), bySide(content.asserted)],
    ];
  };
  const bare = ({ state, attempts }: VerificationRecord): string => `${state} ${attempts}`;
  return [
    ...[times, recovering, ofContent(content), saved && ofContent(saved.content), ago(state, state.serverStartedAt)],
    workers.map(({ stalled, memory, lastBeat }) => [
      stalled,
      ago(state, lastBeat),
      memory.map((one) => [
        ...[one.do, ago(state, one.at)],
        'id' in one ? one.id : 'record' in one ? bare(one.record) : null,
      ]),
    ]),
    held.map((one) => {
      const now = content.records[one.of];
      const { worker, of, attempt, record } = one;
      return [worker, of, attempt, now?.revision === String(record.revision), now?.token === record.token];
    }),
    lastAnswer && [lastAnswer.worker, lastAnswer.of, ofUndelivered(state, lastAnswer)],
    ...[oracle.codes, oracle.final, oracle.contradicted],
    oracle.heard.map(({ firstNotPaidAt, ...more }) => [more, ago(state, firstNotPaidAt)]),
    oracle.submissions.map(({ beganAt, answeredAt, ...more }) => [
      ...Object.values(more),
      until(state, beganAt + IN_FLIGHT_MS),
      until(state, answeredAt),
    ]),
  ];
}

const TIMES = new Set([
  ...[...DEADLINES, ...SINCE, 'inFlightUntil', 'updatedAt'],
  ...['answeredAt', 'firstNotPaidAt', 'askedAt', 'receivedAt'],
]);

/** Tells apart whatever is not the same to the letter, but for the time of day and names made at random. */
export function exactDigestOf(state: State): string {
  const { content, clock, workers, held, undelivered, lastAnswer, outbox, oracle } = state;
  const names = new Map<unknown, string>(workers.map(({ name }, side) => [name, `worker ${side}`]));
  for (const { of, attempt, record } of held) names.set(record.token, `token of ${of}, ${attempt}`);
  const due = Object.entries(content.due).map(([id, at]) => [id, Number(at) - clock]);
  const stalled = workers.map((worker) => worker.stalled);
  const stands = { ...content, due, awaiting: Object.keys(content.awaiting), review: Object.keys(content.review) };
  const all = [stands, stalled, held, undelivered, lastAnswer, outbox, oracle];
  const text = JSON.stringify(all, (name, value: unknown) => {
    if (name === 'history') return Array.isArray(value) ? undefined : lastEventOf({ history: String(value) });
    if (name === 'partition' || name === 'epoch' || name === 'workers') return undefined;
    if (TIMES.has(name)) return Number(value) === 0 ? 'never' : Number(value) - clock;
    if (name === 'token' || name === 'owner') return names.get(value) ?? 'another';
    if (name === 'alive') return workers.map((worker) => content.alive.includes(worker.name));
    const isFields = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isFields ? Object.fromEntries(Object.entries(value).sort()) : value;
  });
  return shortened(text);
}
