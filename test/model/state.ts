/** One point of the model: what stands in Redis, what each worker has in hand and in mind, and what the oracle knows. */
import { createHash } from 'node:crypto';
import type { VerificationRecord } from '../../src/producers/record.ts';
import type { Evidence } from '../../src/workers/decide.ts';
import type { Side } from './events.ts';
import type { Content, Fields, Of, OutboxEntry } from './lane.ts';
import type { Oracle } from './oracle.ts';

/** The right to send, as a worker was given it; what became of it is not known yet. */
export interface Held {
  readonly worker: Side;
  readonly of: Of;
  readonly attempt: number;
  readonly record: VerificationRecord;
}

/** Evidence that somebody has and has not written down yet. `attempt` 0: it is not about a submission. */
export interface Undelivered extends Held {
  readonly evidence: Evidence;
}

/** What a worker did that its memory is made of, and what Redis said to it; rehearsed, it has that memory again. */
export type Memory = { readonly at: number; readonly replies: readonly unknown[] } & (
  | { readonly do: 'begin'; readonly id: string }
  | { readonly do: 'apply'; readonly record: VerificationRecord; readonly evidence: Evidence }
  | { readonly do: 'beat' }
  | { readonly do: 'assert' }
);

export interface WorkerState {
  readonly name: string;
  readonly stalled: boolean;
  readonly memory: readonly Memory[];
  readonly lastBeat: number;
}

export interface State {
  readonly content: Content;
  readonly clock: number;
  readonly server: string;
  readonly serverStartedAt: number;
  readonly workers: readonly [WorkerState, WorkerState];
  readonly held: readonly Held[];
  readonly undelivered: readonly Undelivered[];
  readonly lastAnswer: Undelivered | null;
  readonly outbox: readonly OutboxEntry[];
  readonly oracle: Oracle;
  /** Null where Redis never loses anything. */
  readonly rollback: {
    readonly saved: { readonly content: Content; readonly outbox: readonly OutboxEntry[] } | null;
    readonly done: boolean;
    readonly recovering: boolean;
  } | null;
}

/** Compared with the time now, and with nothing else: how long ago they were does not matter. */
const DEADLINES = new Set(['expiresAt', 'notBefore', 'nextInquiryAt']);
const SINCE = new Set(['inFlightUntil', 'awaitingSince', 'notPaidAt', 'beganAt', 'createdAt']);
/** Does not tell two states apart: it only grows, or is never read. */
const IDLE = new Set(['history', 'revision', 'updatedAt', 'head', 'claim', 'client', 'v', 'operation', 'codePrint']);
/** Nothing that is compared with the past reaches back further than this. */
const LONG_AGO_MS = 120_000;

/** Equal for states from which the same may follow. */
export function digestOf(state: State): string {
  const { content, clock, workers, held, undelivered, lastAnswer, oracle, rollback } = state;
  const ago = (at: number): number => (at === 0 ? 1 : Math.max(at - clock, -LONG_AGO_MS));
  const ahead = (at: number): number => (at === 0 ? -1 : Math.max(at - clock, 0));
  const sideOf = (name: string): string => {
    const side = workers.findIndex((worker) => worker.name === name);
    return side === -1 ? 'dead' : String(side);
  };
  const bare = ({ revision: _, ...record }: VerificationRecord): string => `${record.state} ${record.attempts}`;
  const hold = ({ worker, of, attempt, record }: Held): unknown[] => {
    const now = content.records[of];
    return [worker, of, attempt, bare(record), now?.revision === String(record.revision), now?.token === record.token];
  };
  const ofRecord = (record: Fields | null): unknown[] =>
    Object.entries(record ?? {})
      .filter(([name]) => !IDLE.has(name) && (rollback !== null || name !== 'createdAt'))
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([name, value]) => {
        if (DEADLINES.has(name)) return [name, ahead(Number(value))];
        if (name === 'beganAt' && record?.state !== 'sending') return [name];
        if (name === 'inFlightUntil') {
          return [name, undelivered.length > 0 ? ago(Number(value)) : ahead(Number(value))];
        }
        if (SINCE.has(name)) return [name, ago(Number(value))];
        if (name === 'owner') return [name, sideOf(value)];
        return name === 'token' ? [name] : [name, value];
      });
  const ofContent = (content: Content): unknown[] => [
    content.records.map(ofRecord),
    Object.entries(content.reference).sort(([one], [other]) => (one < other ? -1 : 1)),
    Object.entries(content.due).map(([id, at]) => [id, ahead(Number(at))]),
    content.review,
    workers.map(({ name }) => content.alive.includes(name)),
    content.alive.length,
  ];
  const parts: unknown[] = [
    ofContent(content),
    workers.map(({ stalled }) => stalled),
    held.map(hold),
    undelivered.map((one) => [...hold(one), evidenceOf(one.evidence, ago)]),
    lastAnswer && [...hold(lastAnswer), evidenceOf(lastAnswer.evidence, ago)],
    oracle.codes,
    oracle.final,
    oracle.contradicted,
    oracle.heard.map(({ firstNotPaidAt, ...more }) => [more, ago(firstNotPaidAt)]),
    oracle.submissions.map(({ beganAt, answeredAt, ...more }) => [
      ...Object.values(more),
      Math.max(ahead(beganAt + 12_000), 0),
      answeredAt > 0,
    ]),
  ];
  if (rollback !== null) {
    parts.push(
      rollback.done,
      rollback.recovering,
      rollback.saved === null ? null : ofContent(rollback.saved.content),
      rollback.saved === null ? null : epochOf(rollback.saved.content, ago, sideOf),
      epochOf(content, ago, sideOf),
      ago(state.serverStartedAt),
      workers.map(({ memory, lastBeat }) => [
        ago(lastBeat),
        memory.map((one) => [one.do, ago(one.at), 'id' in one ? one.id : 'record' in one ? bare(one.record) : null]),
      ]),
    );
  }
  return createHash('sha1').update(JSON.stringify(parts)).digest('base64');
}

function epochOf(content: Content, ago: (at: number) => number, sideOf: (name: string) => string): unknown[] {
  const { server, seenAt, recovering, recoverUntil } = content.epoch;
  return [
    server,
    ago(Number(seenAt ?? 0)),
    recovering,
    ago(Number(recoverUntil ?? 0)),
    Object.entries(content.workers).map(([name, at]) => [sideOf(name), ago(Number(at))]),
    Object.entries(content.asserted).map(([name, at]) => [sideOf(name), ago(Number(at))]),
  ];
}

function evidenceOf(evidence: Evidence, ago: (at: number) => number): unknown[] {
  return Object.entries(evidence).map(([name, value]) =>
    name === 'askedAt' || name === 'receivedAt' ? ago(Number(value)) : value,
  );
}
