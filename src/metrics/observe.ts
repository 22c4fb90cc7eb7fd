/**
 * What happens, counted: the only place where an event becomes a metric. Nothing else in the house knows a counter, and
 * no payload's id gets past this file.
 */
import type { EventBus } from '../events.ts';
import type { Operation, TokenCall } from '../providers/provider.ts';
import type { Metrics } from './registry.ts';

/** A partition whose series exist from the start, so that `rate()` and `increase()` see the first event of each. */
export interface ObservedPartition {
  readonly name: string;
  readonly operations: readonly Operation[];
  /** Whether the operations move money. */
  readonly effect: 'money' | 'none';
  /** Whether the money can be asked about later. */
  readonly inquires: boolean;
  /** The calls that ask for its tokens. */
  readonly tokenCalls?: readonly TokenCall[];
  /** The queues whose jobs are put back when they are gone. */
  readonly queues?: readonly string[];
}

const OTP_WORDS = ['accepted', 'rejected', 'not_submitted', 'unknown'];
const TRANSACTION_WORDS = ['succeeded', 'failed', 'pending', 'unknown', 'none'];
const WIRES = ['answered', 'not_sent', 'lost'];
const TOKEN_CAUSES = ['refused', 'unavailable'] as const;
/** Why a submission became unknown; what an inquiry or a callback leaves unknown has been so before. */
const UNKNOWN_BECAUSE = ['answered', 'lost', 'owner_dead', 'rolled_back'];
const CALLBACK_OUTCOMES = ['matched', 'duplicate', 'unmatched', 'unreadable', 'refused'] as const;
const RESULT_TYPES = ['awaiting', 'settled', 'review'];
const INTAKE_CODES = [200, 202, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 500, 503];
const INTAKE_LIMITS = ['rate', 'in_flight', 'backlog'] as const;
const WEBHOOK_OUTCOMES = ['delivered', 'failed', 'given_up', 'gone'] as const;
const LOGIN_OUTCOMES = ['accepted', 'refused', 'throttled'] as const;
const RESULT_TYPE_PREFIX = 'otp.verification.';
/** Finals of every operation that somebody may want an alert on; all combinations there are would be hundreds. */
const WATCHED_FINALS = [
  ['not_submitted', 'deadline_passed'],
  ['not_submitted', 'misconfigured'],
  ['not_submitted', 'provider_unavailable'],
] as const;

/** What is configured: each has its series from the start, and nothing else gets a label of its own. */
export interface Observed {
  readonly partitions?: readonly ObservedPartition[];
  /** Ids of the clients. */
  readonly clients?: readonly string[];
  /** Ids of those that have a webhook. */
  readonly webhooks?: readonly string[];
}

/** @returns a function that ends the observation. */
export function observe(events: EventBus, metrics: Metrics, observed: Observed = {}): () => void {
  const { clients = [], webhooks = [] } = observed;
  startAtZero(metrics, observed);
  const endings: (() => void)[] = [];
  const on: EventBus['on'] = (name, listener) => {
    events.on(name, listener);
    endings.push(() => events.off(name, listener));
  };

  on('intake:answered', ({ status, durationMs }) => {
    metrics.intakeRequests.inc({ code: isStatus(status) ? String(status) : 'other' });
    if (durationMs !== null) metrics.intakeDuration.observe(durationMs / 1_000);
  });
  on('intake:limited', ({ client, limit }) => metrics.intakeLimited.inc({ client: wordOf(clients, client), limit }));
  on('console:login', ({ outcome }) => metrics.consoleLogins.inc({ outcome }));
  on('attempt:begun', ({ partition, attempt, queueWaitMs }) => {
    metrics.attempts.inc({ provider: partition });
    // A later attempt also waited for its backoff, which is no fault of the queue.
    if (attempt === 1) metrics.queueWait.observe({ provider: partition }, queueWaitMs / 1_000);
  });
  on('call:ended', ({ partition, call, wire, durationMs }) => {
    metrics.providerRequests.inc({ provider: partition, call, wire });
    // A refused connection "takes" no time: it would make a provider that is down look fast.
    if (wire !== 'not_sent') {
      metrics.providerRequestDuration.observe({ provider: partition, call }, durationMs / 1_000);
    }
  });
  on('token:failed', ({ partition, call, cause }) => metrics.tokenFailures.inc({ provider: partition, call, cause }));
  on('format:newer', ({ partition }) => metrics.newerFormats.inc({ provider: partition }));
  on('answer:unexpected', ({ partition }) => metrics.unexpectedAnswers.inc({ provider: partition }));
  on('verification:moved', ({ partition, operation, final, otp, transaction, reason, because }) => {
    if (otp === 'unknown' && UNKNOWN_BECAUSE.includes(because)) {
      metrics.unknownOutcomes.inc({ provider: partition, because });
    }
    if (!final) return;
    metrics.verifications.inc({
      provider: partition,
      operation,
      otp: wordOf(OTP_WORDS, otp),
      transaction: wordOf(TRANSACTION_WORDS, transaction),
      reason: reason ?? 'none',
    });
    if (reason === 'budget_spent') metrics.budgetSpent.inc({ provider: partition });
  });
  on('result:published', ({ partition, type, sinceAcceptedMs }) => {
    metrics.resultsPublished.inc({ type: wordOf(RESULT_TYPES, type.replace(RESULT_TYPE_PREFIX, '')) });
    if (sinceAcceptedMs !== null) {
      metrics.verificationDuration.observe({ provider: partition }, sinceAcceptedMs / 1_000);
    }
  });
  on('proof:contradicted', ({ partition }) => metrics.proofsContradicted.inc({ provider: partition }));
  on('journal:recovered', ({ partition, bounded }) =>
    metrics.journalRecoveries.inc({ provider: partition, bounded: String(bounded) }),
  );
  on('replicas:missed', ({ partition, of }) => metrics.replicasMissed.inc({ provider: partition, of }));
  on('job:recreated', ({ queue }) => metrics.jobsRecreated.inc({ queue }));
  on('seal:unopened', ({ partition }) => metrics.sealsUnopened.inc({ provider: partition }));
  const countCallback = (provider: string, outcome: (typeof CALLBACK_OUTCOMES)[number]): void =>
    metrics.callbacks.inc({ provider, outcome });
  on('callback:received', ({ partition, repeated }) => {
    if (repeated) countCallback(partition, 'duplicate'); // any other is counted when it is known what became of it
  });
  on('callback:refused', ({ partition }) => countCallback(partition, 'refused'));
  on('callback:matched', ({ partition }) => countCallback(partition, 'matched'));
  on('callback:unmatched', ({ partition }) => countCallback(partition, 'unmatched'));
  on('callback:unreadable', ({ partition }) => countCallback(partition, 'unreadable'));
  on('webhook:ended', ({ client, outcome }) =>
    metrics.webhookDeliveries.inc({ client: wordOf(webhooks, client), outcome }),
  );
  on('partition:slowed', ({ partition }) => metrics.rateLimited.inc({ provider: partition }));
  on('breaker:opened', ({ partition, again }) => {
    if (!again) metrics.breakerOpened.inc({ provider: partition });
  });
  on('resend:prevented', ({ partition }) => metrics.resendsPrevented.inc({ provider: partition }));
  on('send:late', ({ partition }) => metrics.sendsAfterDeadline.inc({ provider: partition }));

  return () => {
    for (const end of endings) end();
  };
}

function startAtZero(metrics: Metrics, { partitions = [], clients = [], webhooks = [] }: Observed): void {
  for (const code of INTAKE_CODES) metrics.intakeRequests.inc({ code: String(code) }, 0);
  for (const client of clients) for (const limit of INTAKE_LIMITS) metrics.intakeLimited.inc({ client, limit }, 0);
  for (const client of webhooks)
    for (const outcome of WEBHOOK_OUTCOMES) metrics.webhookDeliveries.inc({ client, outcome }, 0);
  for (const outcome of LOGIN_OUTCOMES) metrics.consoleLogins.inc({ outcome }, 0);
  for (const type of RESULT_TYPES) metrics.resultsPublished.inc({ type }, 0);
  for (const { name: provider, operations, effect, inquires, tokenCalls = [], queues = [] } of partitions) {
    for (const counter of [
      metrics.attempts,
      metrics.proofsContradicted,
      metrics.rateLimited,
      metrics.breakerOpened,
      metrics.sendsAfterDeadline,
      metrics.resendsPrevented,
      metrics.newerFormats,
      metrics.unexpectedAnswers,
      metrics.budgetSpent,
      metrics.sealsUnopened,
    ]) {
      counter.inc({ provider }, 0);
    }
    for (const outcome of CALLBACK_OUTCOMES) metrics.callbacks.inc({ provider, outcome }, 0);
    for (const because of UNKNOWN_BECAUSE) metrics.unknownOutcomes.inc({ provider, because }, 0);
    for (const of of ['begin', 'results']) metrics.replicasMissed.inc({ provider, of }, 0);
    for (const bounded of ['true', 'false']) metrics.journalRecoveries.inc({ provider, bounded }, 0);
    for (const queue of queues) metrics.jobsRecreated.inc({ queue }, 0);
    for (const call of tokenCalls) {
      for (const cause of TOKEN_CAUSES) metrics.tokenFailures.inc({ provider, call, cause }, 0);
      for (const wire of WIRES) metrics.providerRequests.inc({ provider, call, wire }, 0);
    }
    metrics.queueWait.zero({ provider });
    metrics.verificationDuration.zero({ provider });
    for (const call of inquires ? [...operations, 'inquiry'] : operations) {
      metrics.providerRequestDuration.zero({ provider, call });
      for (const wire of WIRES) metrics.providerRequests.inc({ provider, call, wire }, 0);
    }
    for (const operation of operations) {
      for (const [otp, reason] of WATCHED_FINALS) {
        const transaction = effect === 'money' ? 'pending' : 'none';
        metrics.verifications.inc({ provider, operation, otp, transaction, reason }, 0);
      }
    }
  }
}

/** Keeps the set of labels closed, whatever an event says. */
function wordOf(words: readonly string[], word: string | null): string {
  if (word === null) return 'none';
  return words.includes(word) ? word : 'other';
}

function isStatus(status: number): boolean {
  return Number.isInteger(status) && status >= 100 && status <= 599;
}
