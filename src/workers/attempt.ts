/**
 * The spine: one attempt at one verification, read top to bottom.
 *
 *   tokens -> begin -> open -> build -> send -> interpret -> decide and settle
 *
 * From begin until settle nothing may throw past this file: the call may have been made. Only what comes next goes
 * back to the caller, and worker.ts alone tells BullMQ.
 */
import { asError, type EventBus } from '../events.ts';
import type { VerificationRecord } from '../producers/record.ts';
import { type Opener, openCode, SealError, type SealedCode } from '../producers/sealing.ts';
import type {
  BoundOperation,
  BoundProvider,
  Call,
  Finding,
  Outcome,
  Stamp,
  Verification,
} from '../providers/provider.ts';
import { Secret } from '../secret.ts';
import type { Heard, ProbeReply } from './breaker.ts';
import type { Facts } from './change.ts';
import type { Evidence } from './decide.ts';
import { type Journal, type Published, RECOVERING_AGAIN_MS } from './journal.ts';
import type { Sessions, Tokens } from './sessions.ts';
import { newStamp } from './stamp.ts';
import { probeReplyOf, type Reply, type Transport, timeToldIn } from './transport.ts';

/** A refused write of an outcome is tried again after this. */
const SETTLE_AGAIN_MS = 200;

/** What the queue must do next. `at` in Unix ms by the clock of Redis. */
export type Next =
  | { readonly do: 'finish' }
  /** `unwritten`: what became known could not be written, because the journal is recovering. */
  | { readonly do: 'later'; readonly at: number; readonly unwritten?: true }
  | { readonly do: 'inquire'; readonly at: number };

export interface AttemptDependencies {
  readonly partition: string;
  readonly provider: BoundProvider;
  readonly journal: Journal;
  readonly transport: Transport;
  readonly sessions: Sessions;
  readonly opener: Opener;
  readonly events: EventBus;
  /** Seals what only the client may read. */
  sealDetails(client: string, details: unknown): Promise<string>;
  /** Holds back the partition's queue (or its inquiries) for a while. */
  slowDown(queue: 'verification' | 'inquiry', forMs: number): Promise<void>;
  /** Nothing of the partition passes for so long: its rate is used up, or its breaker is not closed. */
  hold?(forMs: number): Promise<void>;
  /** An attempt said something of the provider that its breaker must know. */
  heard?(heard: Heard): Promise<void>;
  /** A result stands in the outbox, put there by this process. */
  published(result: Published): void;
  /** The provider has other names for this transaction, by which a callback may come. */
  remember?(identifiers: readonly string[], reference: string): Promise<void>;
}

export async function attempt(id: string, deps: AttemptDependencies): Promise<Next> {
  const { journal, events, partition } = deps;

  const tokens = await tokensFor(id, deps);
  if (tokens.kind === 'unavailable') return await withoutTokens(id, tokens, deps);
  if (tokens.kind === 'no_key') return await setAside(tokens.record, tokens.kid, deps);

  const beginning = await journal.begin(id);
  switch (beginning.is) {
    case 'begun': {
      const { record } = beginning;
      const queueWaitMs = record.beganAt - record.createdAt;
      const { operation, traceparent, attempts } = record;
      events.emit('attempt:begun', { id, traceparent, partition, operation, attempt: attempts, queueWaitMs });
      const [evidence, facts] = await submit(record, tokens.tokens, beginning.sendBefore, deps);
      return await concludeSurely(record, evidence, facts, tokens.tokens, deps);
    }
    case 'evidence':
      if (beginning.evidence.from === 'owner_dead')
        events.emit('resend:prevented', { id, partition, because: 'owner_dead' });
      // What was begun and may not be sent is written down as surely as an answer.
      return await (beginning.evidence.from === 'not_sent' ? concludeSurely : conclude)(
        beginning.record,
        beginning.evidence,
        {},
        {},
        deps,
      );
    case 'later':
      if (beginning.heldUntil > 0) await deps.hold?.(beginning.heldUntil - journal.now());
      return { do: 'later', at: beginning.at };
    case 'awaiting':
      events.emit('resend:prevented', { id, partition, because: 'awaiting' });
      return beginning.nextInquiryAt > 0 ? { do: 'inquire', at: beginning.nextInquiryAt } : { do: 'finish' };
    case 'in_flight':
    case 'settled':
      events.emit('resend:prevented', { id, partition, because: beginning.is });
      return { do: 'finish' };
    case 'missing':
      return { do: 'finish' }; // its retention is over, or it never was ours
  }
  return beginning satisfies never;
}

/**
 * Asks what became of the money, and settles when the answer proves it. `graceMs`: how early it may ask.
 * `probe`: asked on behalf of an open breaker, which is told how the call ended.
 */
export async function inquire(
  id: string,
  graceMs: number,
  deps: AttemptDependencies,
  probe?: (reply: ProbeReply) => void,
): Promise<Next> {
  const { journal, provider, sessions, events, partition } = deps;
  const { inquiry } = provider;
  if (!inquiry) return { do: 'finish' };

  const asking = await journal.ask(id, graceMs, probe !== undefined);
  if (asking.is === 'idle') return { do: 'finish' };
  if (asking.is === 'later') return { do: 'later', at: asking.at };
  const { record, askedAt } = asking;

  const tokens = await sessions.tokens(inquiry.tokens, null);
  if (tokens.kind === 'unavailable') {
    probe?.({ answered: tokens.atProvider !== true, code: tokens.code });
    const finding = { kind: 'nothing', documented: true, providerCode: tokens.code } as const;
    return await conclude(
      record,
      { from: 'inquiry', finding, askedAt },
      { found: 'nothing', code: tokens.code },
      {},
      deps,
    );
  }
  const subject = { reference: record.reference, params: record.plainParams };
  const startedAt = performance.now();
  const reply = await deps.transport.send(inquiry.buildRequest(subject, newStamp(tokens.tokens)));
  tellCall(record, 'inquiry', reply, startedAt, deps);
  probe?.(probeReplyOf(reply));
  const finding: Finding =
    reply.kind === 'answered'
      ? readSafely(() => inquiry.interpret(reply.response, subject), UNREADABLE_FINDING)
      : { kind: 'nothing', documented: true, providerCode: reply.code };
  if (finding.kind === 'nothing' && !finding.documented) {
    events.emit('answer:unexpected', { id, partition, call: 'inquiry', providerCode: finding.providerCode });
  }
  const facts = { found: finding.kind, code: finding.providerCode };
  return await conclude(record, { from: 'inquiry', finding, askedAt }, facts, tokens.tokens, deps);
}

/**
 * The call was made, so what became of it must be written: a Redis that refuses the write (out of memory, read-only after
 * a failover), or whose journal is recovering, is asked again until the attempt counts as unknown anyway.
 */
async function concludeSurely(
  record: VerificationRecord,
  evidence: Evidence,
  facts: Facts,
  tokens: Stamp['tokens'],
  deps: AttemptDependencies,
): Promise<Next> {
  for (;;) {
    try {
      const next = await conclude(record, evidence, facts, tokens, deps);
      if (next.do !== 'later' || !next.unwritten || deps.journal.now() > record.inFlightUntil) return next;
    } catch (error) {
      deps.events.emit('machinery:failed', { where: `settling ${record.id}`, error: asError(error) });
      if (deps.journal.now() > record.inFlightUntil) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, SETTLE_AGAIN_MS));
  }
}

/** Writes down what became known, whatever else has happened to the record meanwhile, and says what comes next. */
export async function conclude(
  record: VerificationRecord,
  evidence: Evidence,
  facts: Facts,
  tokens: Stamp['tokens'],
  deps: Pick<
    AttemptDependencies,
    'journal' | 'sessions' | 'sealDetails' | 'slowDown' | 'heard' | 'published' | 'remember'
  >,
): Promise<Next> {
  const { verdict, published, heard } = await deps.journal.apply(record, evidence, facts, deps.sealDetails);
  if (published !== null) deps.published(published);
  if (heard !== null) await deps.heard?.(heard);
  if (verdict === null) return { do: 'later', at: deps.journal.now() + RECOVERING_AGAIN_MS, unwritten: true };
  if (verdict.do === 'nothing' || verdict.do === 'contradict' || verdict.do === 'end_review') return { do: 'finish' };
  if (verdict.identifiers) await deps.remember?.(verdict.identifiers, record.reference);
  if (verdict.dropTokens) await deps.sessions.drop(verdict.dropTokens, tokens);
  if (verdict.slowDownMs)
    await deps.slowDown(evidence.from === 'inquiry' ? 'inquiry' : 'verification', verdict.slowDownMs);
  switch (verdict.do) {
    case 'settle':
      return { do: 'finish' };
    case 'await':
      return verdict.inquireInMs === null
        ? { do: 'finish' }
        : { do: 'inquire', at: deps.journal.now() + verdict.inquireInMs };
    case 'retry':
      return { do: 'later', at: deps.journal.now() + verdict.inMs };
    case 'note':
      return verdict.againAt === null ? { do: 'finish' } : { do: 'later', at: verdict.againAt };
  }
  return verdict satisfies never;
}

/** Open, build, send, interpret. Whatever goes wrong before `send` has provably left nothing behind. Never throws. */
async function submit(
  record: VerificationRecord,
  tokens: Stamp['tokens'],
  sendBefore: number,
  deps: AttemptDependencies,
): Promise<[Evidence, Facts]> {
  const { id, operation: name, reference } = record;
  const { provider, partition, events } = deps;
  const operation = provider.operations[name];
  if (!operation || record.sealedCode === null) return notSent('NO_OPERATION_OR_CODE', false);

  let code: SealedCode;
  try {
    code = await openCode(deps.opener, record.sealedCode, id, partition);
  } catch (error) {
    tellUnopened(id, error, deps);
    const kid = error instanceof SealError ? error.missingKid : null;
    return kid === null ? notSent('CANNOT_OPEN', true) : [{ from: 'no_key' }, { kid }];
  }

  let reply: Reply;
  const startedAt = performance.now();
  const deadline = startedAt + (record.expiresAt - deps.journal.now());
  try {
    const otp = code.otp === null ? null : new Secret(code.otp);
    const verification: Verification = { id, operation: name, reference, otp, params: code.params };
    reply = await deps.transport.send(operation.buildRequest(verification, newStamp(tokens)), sendBefore);
  } catch {
    return notSent('CANNOT_BUILD', false); // buildRequest threw: the transport itself never does
  }
  tellCall(record, name, reply, startedAt, deps);
  if (reply.kind !== 'not_sent' && reply.sentAt > Math.max(sendBefore, deadline))
    events.emit('send:late', { id, partition });
  switch (reply.kind) {
    case 'not_sent':
      return notSent(reply.code, true, !OUR_FAULTS.has(reply.code));
    case 'lost':
      return [{ from: 'lost', code: reply.code }, { code: reply.code }];
    case 'answered': {
      const { response } = reply;
      const outcome = mendable(
        readSafely(() => operation.interpret(response, reference), UNREADABLE_OUTCOME),
        tokens,
      );
      if (outcome.kind === 'unknown' && !outcome.documented) {
        events.emit('answer:unexpected', { id, partition, call: name, providerCode: outcome.providerCode });
      }
      return [
        { from: 'answer', outcome },
        { outcome: outcome.kind, code: outcome.providerCode, status: response.status },
      ];
    }
  }
  return reply satisfies never;
}

const UNREADABLE_OUTCOME: Outcome = {
  kind: 'unknown',
  reason: 'unexpected_answer',
  documented: false,
  providerCode: null,
};
const UNREADABLE_FINDING: Finding = { kind: 'nothing', documented: false, providerCode: null };

/** An answer that a provider's reading stumbles over proves nothing; the call has been made all the same. */
function readSafely<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

/** A token that the caller brought along cannot be renewed by us: sending again would only be refused again. */
function mendable(outcome: Outcome, tokens: Stamp['tokens']): Outcome {
  if (outcome.kind !== 'refused' || outcome.remedy.do !== 'new_token') return outcome;
  const ours = outcome.remedy.tokens.some((call) => tokens[call] !== undefined);
  return ours ? outcome : { ...outcome, remedy: { do: 'none' } };
}

/** Codes of the transport that say nothing of the provider: the request itself was at fault. */
const OUR_FAULTS = new Set(['FOREIGN_ORIGIN', 'UND_ERR_INVALID_ARG', 'UND_ERR_NOT_SUPPORTED']);

function notSent(code: string, remediable: boolean, atProvider = false): [Evidence, Facts] {
  return [{ from: 'not_sent', code, remediable, ...(atProvider ? { atProvider } : {}) }, { code }];
}

type Beforehand = Tokens | { readonly kind: 'no_key'; readonly record: VerificationRecord; readonly kid: string };

/**
 * Provider tokens are fetched before begin. Only a token per customer needs a look into the sealed parameters first; and
 * a worker that is known to lack a key looks first, so that what it cannot open costs no attempt and no rate token.
 */
async function tokensFor(id: string, deps: AttemptDependencies): Promise<Beforehand> {
  const { provider, journal, sessions, opener, partition } = deps;
  const operation = provider.operations.verify;
  const needed = operation && Object.keys(provider.tokens).length > 0 ? operation : null;
  if (!needed?.tokensNeedParams && !opener.lacksKeys) return await plainTokens(needed, sessions);

  const record = await journal.read(id);
  const sealed = record?.state === 'queued' ? record.sealedCode : null;
  const kid = sealed === null ? null : opener.missingKid(sealed);
  if (record && kid !== null) return { kind: 'no_key', record, kid };
  if (!needed?.tokensNeedParams) return await plainTokens(needed, sessions);
  if (sealed === null) return { kind: 'unavailable', code: 'NOT_QUEUED', remediable: true };
  try {
    const { params } = await openCode(opener, sealed, id, partition);
    return await sessions.tokens(needed.tokens(params), params);
  } catch (error) {
    if (!(error instanceof SealError)) throw error;
    tellUnopened(id, error, deps);
    return { kind: 'unavailable', code: 'CANNOT_OPEN', remediable: true };
  }
}

async function plainTokens(operation: BoundOperation | null, sessions: Sessions): Promise<Tokens> {
  return operation ? await sessions.tokens(operation.tokens(null), null) : { kind: 'ready', tokens: {} };
}

/** Another worker may have the key, or it may yet come; the deadline still holds. */
async function setAside(record: VerificationRecord, kid: string, deps: AttemptDependencies): Promise<Next> {
  if (record.notBefore > deps.journal.now()) return { do: 'later', at: record.notBefore }; // a doubled job
  tellUnopened(record.id, new SealError(`no key with kid ${kid}`, kid), deps);
  return await conclude(record, { from: 'no_key' }, { kid }, {}, deps);
}

function tellUnopened(id: string, error: unknown, { events, partition }: AttemptDependencies): void {
  const fault = error instanceof SealError ? error.message : 'not a SealError';
  events.emit('seal:unopened', { id, partition, fault });
}

/** No token, so nothing can be submitted: what is still queued waits or ends, what is further on is left alone. */
async function withoutTokens(
  id: string,
  tokens: Extract<Tokens, { kind: 'unavailable' }>,
  deps: AttemptDependencies,
): Promise<Next> {
  const record = await deps.journal.read(id);
  if (record?.state === 'awaiting' && record.nextInquiryAt > 0) return { do: 'inquire', at: record.nextInquiryAt };
  if (record?.state !== 'queued') return { do: 'finish' };
  const { code, remediable, retryAfterMs, atProvider } = tokens;
  const evidence: Evidence = {
    from: 'not_sent',
    code,
    remediable,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(atProvider ? { atProvider } : {}),
  };
  return await conclude(record, evidence, { code }, {}, deps);
}

function tellCall(
  { id, traceparent }: VerificationRecord,
  call: Call,
  reply: Reply,
  startedAt: number,
  { events, partition }: AttemptDependencies,
): void {
  const detail = reply.kind === 'answered' ? String(reply.response.status) : reply.code;
  const durationMs = performance.now() - startedAt;
  events.emit('call:ended', { of: { id, traceparent }, partition, call, wire: reply.kind, durationMs, detail });
  const at = timeToldIn(reply);
  if (at !== null) events.emit('clock:told', { partition, at });
}
