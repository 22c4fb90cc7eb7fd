/** Events as log lines: one line per change of state, with ids, never with what a customer typed. */
import { destination, type Logger, pino } from 'pino';
import pretty from 'pino-pretty';
import type { EventBus } from './events.ts';

export interface LogOptions {
  readonly level: string;
  /** A file; standard output without it, and there for people when it is a terminal. */
  readonly file?: string | undefined;
}

export function createLogger({ level, file }: LogOptions): Logger {
  const options = { level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime };
  if (file !== undefined) return pino(options, destination({ dest: file, mkdir: true, append: true }));
  return process.stdout.isTTY ? pino(options, pretty({ sync: true })) : pino(options);
}

export function logEvents(events: EventBus, log: Logger): void {
  events.on('verification:accepted', ({ id, partition, operation }) =>
    log.info({ id, partition, operation }, 'accepted'),
  );
  events.on('attempt:begun', ({ id, partition, attempt, queueWaitMs }) =>
    log.info({ id, partition, attempt, queueWaitMs }, 'attempt begun'),
  );
  events.on('verification:moved', ({ id, partition, state, otp, transaction, reason, because, needsReview }) => {
    const line = { id, partition, otp, transaction, reason, because, needsReview };
    if (needsReview) log.warn(line, 'waits for a person');
    else if (reason === 'budget_spent')
      log.warn(line, 'a code beyond what its transaction allows: is somebody guessing?');
    else log.info(line, state);
  });
  events.on('call:ended', (call) => log.debug(call, 'provider call ended'));
  events.on('callback:received', (callback) => log.debug(callback, 'callback stored'));
  events.on('callback:matched', (callback) => log.info(callback, 'callback matched'));
  events.on('callback:refused', (callback) => log.warn(callback, 'a callback without a right proof'));
  events.on('callback:unmatched', (callback) => log.warn(callback, 'a callback about nothing of ours was set aside'));
  events.on('callback:unreadable', (callback) => log.warn(callback, 'a callback that cannot be read was set aside'));
  events.on('result:published', ({ id, type, sequence }) => log.debug({ id, type, sequence }, 'result published'));
  events.on('answer:unexpected', (answer) => log.warn(answer, 'an answer that the documents do not know'));
  events.on('proof:contradicted', (proof) => log.error(proof, 'two proofs disagree: look at once'));
  events.on('webhook:ended', (delivery) => {
    if (delivery.outcome === 'delivered') log.debug(delivery, 'webhook delivered');
    else if (delivery.outcome === 'failed') log.warn(delivery, 'webhook not delivered, will be tried again');
    else log.error(delivery, 'webhook not delivered, and not tried again');
  });
  events.on('partition:slowed', (slowed) => log.warn(slowed, 'slowed'));
  events.on('resend:prevented', (prevented) => log.info(prevented, 'not submitted again'));
  events.on('send:late', (late) => log.error(late, 'a code left after its deadline'));
  events.on('journal:recovered', (recovered) =>
    log.warn(recovered, 'Redis was another server; the journal is whole again'),
  );
  events.on('job:malformed', ({ queue, jobId, fault }) =>
    log.warn({ queue, jobId: isOurs(jobId, queue) ? jobId : '[masked]', fault }, "somebody else's job was set aside"),
  );
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

/** What a stranger calls a job may be anything, a code or a phone as well. */
function isOurs(jobId: string, queue: string): boolean {
  const [, partition] = /^([a-z0-9-]+)_[0-9a-f]{32}$/.exec(jobId) ?? [];
  return partition !== undefined && queue.startsWith(`otp-${partition}`);
}
