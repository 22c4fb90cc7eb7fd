/** Events as log lines: one line per change of state, with ids, never with what a customer typed. */
import { type DestinationStream, destination, type Logger, pino } from 'pino';
import type { EventBus, Traced } from './events.ts';

export interface LogOptions {
  readonly level: string;
  /** A file; standard output without it, and there for people when it is a terminal. */
  readonly file?: string | undefined;
}

/** Only a person at a terminal waits for it to load. */
const pretty = process.stdout.isTTY ? (await import('pino-pretty')).default : null;

export function createLogger({ level, file }: LogOptions): Logger {
  const options = { level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime };
  if (file === undefined && pretty !== null) return pino(options, pretty({ sync: true }));
  return pino(options, linesTo(file ?? 1));
}

/**
 * Lines that come while others are being written leave with the next ones, in one system call. They are given as bytes: given
 * text, the stream looks through all that it holds for each line that comes.
 */
function linesTo(dest: string | number): DestinationStream {
  const stream = destination({ dest, mkdir: true, append: true, sync: false, contentMode: 'buffer' });
  return { write: (line) => stream.write(Buffer.from(line) as never) };
}

export function logEvents(events: EventBus, log: Logger): void {
  if (log.isLevelEnabled('debug')) logDetails(events, log);
  events.on('verification:accepted', (accepted) => {
    const { partition, operation } = accepted;
    log.info({ ...idsOf(accepted), partition, operation }, 'accepted');
  });
  events.on('attempt:begun', (begun) => {
    const { partition, attempt, queueWaitMs } = begun;
    log.info({ ...idsOf(begun), partition, attempt, queueWaitMs }, 'attempt begun');
  });
  events.on('verification:moved', (moved) => {
    const { partition, attempt, state, otp, transaction, reason, because, needsReview } = moved;
    const line = { ...idsOf(moved), partition, attempt, otp, transaction, reason, because, needsReview };
    if (needsReview) log.warn(line, 'waits for a person');
    else if (reason === 'budget_spent')
      log.warn(line, 'a code beyond what its transaction allows: is somebody guessing?');
    else log.info(line, state);
  });
  events.on('callback:matched', (callback) => log.info(callback, 'callback matched'));
  events.on('callback:refused', (callback) => log.warn(callback, 'a callback without a right proof'));
  events.on('callback:unmatched', (callback) => log.warn(callback, 'a callback about nothing of ours was set aside'));
  events.on('callback:unreadable', (callback) => log.warn(callback, 'a callback that cannot be read was set aside'));
  events.on('token:failed', (failure) => log.warn(failure, 'no token of the provider, so nothing can be submitted'));
  events.on('answer:unexpected', (answer) => log.warn(answer, 'an answer that the documents do not know'));
  events.on('proof:contradicted', (proof) => log.error(proof, 'two proofs disagree: look at once'));
  events.on('webhook:ended', ({ client, resultId, attempt, outcome, durationMs, detail, ...traced }) => {
    const line = { ...idsOf(traced), client, resultId, attempt, outcome, durationMs, detail };
    if (outcome === 'delivered') log.debug(line, 'webhook delivered');
    else if (outcome === 'failed') log.warn(line, 'webhook not delivered, will be tried again');
    else log.error(line, 'webhook not delivered, and not tried again');
  });
  events.on('partition:slowed', (slowed) => log.warn(slowed, 'slowed'));
  events.on('breaker:opened', (opened) => log.error(opened, 'the breaker is open: nothing is submitted'));
  events.on('breaker:probed', (probed) => log.info(probed, 'the provider was probed'));
  events.on('breaker:half-opened', (halfOpened) => log.warn(halfOpened, 'the breaker lets one verification through'));
  events.on('breaker:closed', (closed) => log.warn(closed, 'the breaker is closed'));
  events.on('resend:prevented', (prevented) => log.info(prevented, 'not submitted again'));
  events.on('send:late', (late) => log.error(late, 'a code left after its deadline'));
  events.on('journal:recovered', (recovered) =>
    log.warn(recovered, 'Redis was another server; the journal is whole again'),
  );
  events.on('replicas:awaited', (awaited) => {
    if (awaited.replicas > 0) log.info(awaited, 'no code is sent before replicas have the record of it');
    else log.info(awaited, 'codes are sent without waiting for a replica');
  });
  events.on('replicas:missed', (missed) =>
    log.warn(missed, 'too few replicas had it in time: what was begun goes back unsent, results wait'),
  );
  events.on('job:malformed', ({ queue, jobId, fault }) =>
    log.warn({ queue, jobId: isOurs(jobId, queue) ? jobId : '[masked]', fault }, "somebody else's job was set aside"),
  );
  events.on('format:newer', (newer) => log.warn(newer, 'of a newer version: left alone'));
  events.on('job:recreated', (job) => log.warn(job, 'a job was gone from its queue and is back'));
  events.on('seal:unopened', (seal) => log.error(seal, 'a sealed code cannot be opened'));
  events.on('intake:limited', (limited) => log.debug(limited, 'a client was told to come later'));
  events.on('console:login', (login) => {
    if (login.outcome === 'refused') log.warn(login, 'a wrong name or password for the console');
    else log.debug(login, 'a login to the console');
  });
  events.on('machinery:failed', ({ where, error, ...more }) =>
    log.warn({ where, error: error.message, ...more }, 'failed, will be tried again'),
  );
}

/** What comes with every verification and is most often not wanted: then not even its lines are made. */
function logDetails(events: EventBus, log: Logger): void {
  events.on('call:ended', ({ of, ...call }) =>
    log.debug({ ...(of === null ? {} : idsOf(of)), ...call }, 'provider call ended'),
  );
  events.on('callback:received', (callback) => log.debug(callback, 'callback stored'));
  events.on('result:published', ({ queue, type, sequence, ...traced }) =>
    log.debug({ ...idsOf(traced), queue, type, sequence }, 'result published'),
  );
}

/** The trace is its caller's, or named after the verification: 32 hex digits, with which its id ends. */
function idsOf({ id, traceparent }: Traced): { id: string; traceId: string } {
  return { id, traceId: traceparent?.split('-')[1] ?? id.slice(-32) };
}

/** What a stranger calls a job may be anything, a code or a phone as well. */
function isOurs(jobId: string, queue: string): boolean {
  const [, partition] = /^([a-z0-9-]+)_[0-9a-f]{32}$/.exec(jobId) ?? [];
  return partition !== undefined && queue.startsWith(`otp-${partition}`);
}
