/**
 * Every metric, once: its name, kind, meaning, labels and buckets. Labels are only ever words of closed sets
 * (partitions, clients, operations, outcomes, status codes); an id, a URL or a phone would make a series each and tell what
 * nobody may read.
 * docs/metrics.md says the same for people, and a test compares the two.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, type Registry } from 'prom-client';

export interface MetricDefinition {
  readonly name: string;
  readonly type: 'counter' | 'histogram' | 'gauge';
  readonly help: string;
  /**
   * `per process`: each process counts what it did itself, so add them up.
   * `global`: read from Redis or the configuration, the same in every process, so never add them up.
   */
  readonly scope: 'per process' | 'global';
  readonly labels: readonly string[];
  /** Upper bounds in seconds. */
  readonly buckets?: readonly number[];
}

/** A call to a bank: tens of milliseconds when it is well, its time-out when it is not. */
const CALL_SECONDS = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60] as const;
/** What we add to it: a millisecond when idle; a backlog may last as long as a code lives. */
const WAIT_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300] as const;
/** Both together. */
const VERIFICATION_SECONDS = [
  0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 120, 300,
] as const;
/** Up to 30 seconds of an intake's answer may be time that the caller asked it to wait. */
const INTAKE_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60] as const;

export const METRICS = {
  verifications: {
    name: 'otp_verifications_total',
    type: 'counter',
    help: 'Verifications that reached their final result, each counted once.',
    scope: 'per process',
    labels: ['provider', 'operation', 'otp', 'transaction', 'reason'],
  },
  verificationDuration: {
    name: 'otp_verification_duration_seconds',
    type: 'histogram',
    help: 'Seconds from acceptance to the first result of a verification.',
    scope: 'per process',
    labels: ['provider'],
    buckets: VERIFICATION_SECONDS,
  },
  unknownOutcomes: {
    name: 'otp_unknown_outcomes_total',
    type: 'counter',
    help: 'Submissions of which nobody knew what had become, by why: answered, lost, owner_dead or rolled_back.',
    scope: 'per process',
    labels: ['provider', 'because'],
  },
  attempts: {
    name: 'otp_attempts_total',
    type: 'counter',
    help: 'Rights to submit that the journal gave; each allows one submission at most.',
    scope: 'per process',
    labels: ['provider'],
  },
  queueWait: {
    name: 'otp_queue_wait_seconds',
    type: 'histogram',
    help: 'Seconds from acceptance to the beginning of the first attempt.',
    scope: 'per process',
    labels: ['provider'],
    buckets: WAIT_SECONDS,
  },
  providerRequestDuration: {
    name: 'otp_provider_request_duration_seconds',
    type: 'histogram',
    help: 'Seconds that a call to a provider took to be answered or lost; what was not sent is not in it.',
    scope: 'per process',
    labels: ['provider', 'call'],
    buckets: CALL_SECONDS,
  },
  providerRequests: {
    name: 'otp_provider_requests_total',
    type: 'counter',
    help: 'Calls to a provider by how they ended: answered, not_sent (provably did not leave) or lost.',
    scope: 'per process',
    labels: ['provider', 'call', 'wire'],
  },
  tokenFailures: {
    name: 'otp_token_failures_total',
    type: 'counter',
    help: 'Tokens of a provider that were asked for and not had: refused (asking again will not help) or unavailable.',
    scope: 'per process',
    labels: ['provider', 'call', 'cause'],
  },
  providerClockSkew: {
    name: 'otp_provider_clock_skew_seconds',
    type: 'gauge',
    help: 'Seconds by which the clock of a provider was ahead of that of this process at its latest answer of the last hour.',
    scope: 'per process',
    labels: ['provider'],
  },
  queueJobs: {
    name: 'otp_queue_jobs',
    type: 'gauge',
    help: 'Jobs in a queue, by their state.',
    scope: 'global',
    labels: ['queue', 'state'],
  },
  queueOldestJobAge: {
    name: 'otp_queue_oldest_job_age_seconds',
    type: 'gauge',
    help: 'Age in seconds of the job that waits at the head of a queue; 0 when none waits.',
    scope: 'global',
    labels: ['queue'],
  },
  queuePaused: {
    name: 'otp_queue_paused',
    type: 'gauge',
    help: '1 while nothing is taken from a queue because somebody paused it; else 0.',
    scope: 'global',
    labels: ['queue'],
  },
  queueInfo: {
    name: 'otp_queue_info',
    type: 'gauge',
    help: '1 for each queue, with what it holds: verification, inquiry, callback, results or webhook.',
    scope: 'global',
    labels: ['queue', 'kind'],
  },
  codeLifeUsed: {
    name: 'otp_queue_code_life_used_ratio',
    type: 'gauge',
    help: 'How much of its life the code that is next in line has spent waiting, 1 being all; 0 when none waits.',
    scope: 'global',
    labels: ['provider'],
  },
  overdue: {
    name: 'otp_overdue_seconds',
    type: 'gauge',
    help: 'Seconds since which something should have happened to the verification that is most overdue; 0 when none is.',
    scope: 'global',
    labels: ['provider'],
  },
  workers: {
    name: 'otp_workers',
    type: 'gauge',
    help: 'Worker processes that have said within the last six seconds that they live.',
    scope: 'global',
    labels: ['provider'],
  },
  breakerOpen: {
    name: 'otp_breaker_open',
    type: 'gauge',
    help: '1 while the breaker of a partition is open: nothing is submitted, because its provider fails; else 0.',
    scope: 'global',
    labels: ['provider'],
  },
  breakerOpened: {
    name: 'otp_breaker_opened_total',
    type: 'counter',
    help: 'Times that the breaker of a partition opened after it had been closed.',
    scope: 'per process',
    labels: ['provider'],
  },
  jobsRecreated: {
    name: 'otp_jobs_recreated_total',
    type: 'counter',
    help: 'Jobs that were gone from their queue and were put back by the sweeper.',
    scope: 'per process',
    labels: ['queue'],
  },
  unresolved: {
    name: 'otp_unresolved',
    type: 'gauge',
    help: 'Verifications whose money is pending or unknown, those in review included.',
    scope: 'global',
    labels: ['provider'],
  },
  unresolvedOldestAge: {
    name: 'otp_unresolved_oldest_age_seconds',
    type: 'gauge',
    help: 'Seconds for which the oldest unresolved verification has been unresolved; 0 when there is none.',
    scope: 'global',
    labels: ['provider'],
  },
  needsReview: {
    name: 'otp_needs_review',
    type: 'gauge',
    help: 'Verifications that wait for a person.',
    scope: 'global',
    labels: ['provider'],
  },
  needsReviewOldestAge: {
    name: 'otp_needs_review_oldest_age_seconds',
    type: 'gauge',
    help: 'Seconds for which the oldest of them has waited for a person; 0 when there is none.',
    scope: 'global',
    labels: ['provider'],
  },
  inquirySchedule: {
    name: 'otp_inquiry_schedule_seconds',
    type: 'gauge',
    help: 'Seconds in which inquiries follow each other by their schedule, before the last delay repeats; from the configuration.',
    scope: 'global',
    labels: ['provider'],
  },
  inquiryGiveUp: {
    name: 'otp_inquiry_give_up_seconds',
    type: 'gauge',
    help: 'Seconds after which an unresolved verification is given to a person; from the configuration.',
    scope: 'global',
    labels: ['provider'],
  },
  proofsContradicted: {
    name: 'otp_proofs_contradicted_total',
    type: 'counter',
    help: 'Proofs that came after a final result and say otherwise: 0, or an incident.',
    scope: 'per process',
    labels: ['provider'],
  },
  journalRecoveries: {
    name: 'otp_journal_recoveries_total',
    type: 'counter',
    help: 'Times that Redis was another server and the journal was made whole; bounded false: nobody can say how much was lost.',
    scope: 'per process',
    labels: ['provider', 'bounded'],
  },
  replicasMissed: {
    name: 'otp_replicas_missed_total',
    type: 'counter',
    help: 'Times that too few replicas had a write within journal.waitMs: begin went back unsent, results waited.',
    scope: 'per process',
    labels: ['provider', 'of'],
  },
  replicasAwaited: {
    name: 'otp_replicas_awaited',
    type: 'gauge',
    help: 'Replicas that must have the beginning of an attempt before its code is sent.',
    scope: 'per process',
    labels: ['provider'],
  },
  rateLimit: {
    name: 'otp_rate_limit_per_second',
    type: 'gauge',
    help: 'Submissions a second that the configuration allows.',
    scope: 'global',
    labels: ['provider'],
  },
  inquiryRateLimit: {
    name: 'otp_inquiry_rate_limit_per_second',
    type: 'gauge',
    help: 'Inquiries a second that the configuration allows.',
    scope: 'global',
    labels: ['provider'],
  },
  rateLimited: {
    name: 'otp_rate_limited_total',
    type: 'counter',
    help: 'Times that a queue of the partition was slowed because the provider asked for it.',
    scope: 'per process',
    labels: ['provider'],
  },
  sendsAfterDeadline: {
    name: 'otp_sends_after_deadline_total',
    type: 'counter',
    help: "Submissions whose headers left after the code's deadline: 0, or an incident.",
    scope: 'per process',
    labels: ['provider'],
  },
  resendsPrevented: {
    name: 'otp_resends_prevented_total',
    type: 'counter',
    help: 'Submissions that a queue without a journal would have repeated.',
    scope: 'per process',
    labels: ['provider'],
  },
  newerFormats: {
    name: 'otp_newer_formats_total',
    type: 'counter',
    help: 'Times that a record or a job of a later version was met and left alone.',
    scope: 'per process',
    labels: ['provider'],
  },
  unexpectedAnswers: {
    name: 'otp_unexpected_answers_total',
    type: 'counter',
    help: "Answers that the provider's documents do not know.",
    scope: 'per process',
    labels: ['provider'],
  },
  budgetSpent: {
    name: 'otp_attempt_budget_spent_total',
    type: 'counter',
    help: 'Codes that were not submitted because their transaction had all the attempts that it may have.',
    scope: 'per process',
    labels: ['provider'],
  },
  sealsUnopened: {
    name: 'otp_seals_unopened_total',
    type: 'counter',
    help: 'Sealed codes and parameters that a worker could not open: it lacks the key, or somebody touched them.',
    scope: 'per process',
    labels: ['provider'],
  },
  callbacks: {
    name: 'otp_callbacks_total',
    type: 'counter',
    help: 'Callbacks of a provider by what became of them: matched, duplicate, unmatched, unreadable or refused.',
    scope: 'per process',
    labels: ['provider', 'outcome'],
  },
  resultsPublished: {
    name: 'otp_results_published_total',
    type: 'counter',
    help: 'Results published, repeats not counted, by type: awaiting, settled or review.',
    scope: 'per process',
    labels: ['type'],
  },
  webhookDeliveries: {
    name: 'otp_webhook_deliveries_total',
    type: 'counter',
    help: "Tries to tell a client's endpoint, by what became of them: delivered, failed, given_up or gone.",
    scope: 'per process',
    labels: ['client', 'outcome'],
  },
  intakeRequests: {
    name: 'otp_intake_requests_total',
    type: 'counter',
    help: 'Requests that the HTTP intake answered, by status code.',
    scope: 'per process',
    labels: ['code'],
  },
  intakeLimited: {
    name: 'otp_intake_limited_total',
    type: 'counter',
    help: 'Requests of a client that were told to come later (429), by the limit: rate, in_flight or backlog.',
    scope: 'per process',
    labels: ['client', 'limit'],
  },
  intakeDuration: {
    name: 'otp_intake_duration_seconds',
    type: 'histogram',
    help: 'Seconds that the HTTP intake took to answer, the waiting that a caller asked for included.',
    scope: 'per process',
    labels: [],
    buckets: INTAKE_SECONDS,
  },
  consoleLogins: {
    name: 'otp_console_logins_total',
    type: 'counter',
    help: 'Names and passwords given to the console: accepted, refused, or throttled (not looked at).',
    scope: 'per process',
    labels: ['outcome'],
  },
  redisUp: {
    name: 'otp_redis_up',
    type: 'gauge',
    help: '1 when Redis told how it is within a second; else 0.',
    scope: 'per process',
    labels: [],
  },
  redisMemoryUsed: {
    name: 'otp_redis_memory_used_bytes',
    type: 'gauge',
    help: 'Bytes of memory that Redis uses for its data.',
    scope: 'global',
    labels: [],
  },
  redisMemoryLimit: {
    name: 'otp_redis_memory_limit_bytes',
    type: 'gauge',
    help: 'Bytes at which Redis is full (maxmemory); 0 when it has no limit.',
    scope: 'global',
    labels: [],
  },
  redisNoEviction: {
    name: 'otp_redis_noeviction',
    type: 'gauge',
    help: '1 when Redis forgets nothing to make room (maxmemory-policy noeviction); else 0.',
    scope: 'global',
    labels: [],
  },
  redisAppendOnly: {
    name: 'otp_redis_append_only',
    type: 'gauge',
    help: '1 when Redis keeps an append-only file; else 0.',
    scope: 'global',
    labels: [],
  },
  redisLastAppendOk: {
    name: 'otp_redis_last_append_ok',
    type: 'gauge',
    help: '1 when the last write to the append-only file succeeded; else 0.',
    scope: 'global',
    labels: [],
  },
  redisLastSaveOk: {
    name: 'otp_redis_last_save_ok',
    type: 'gauge',
    help: '1 when the last snapshot succeeded; else 0.',
    scope: 'global',
    labels: [],
  },
  redisMaster: {
    name: 'otp_redis_master',
    type: 'gauge',
    help: '1 when the server is a master; 0 when it is a replica, which refuses every write.',
    scope: 'global',
    labels: [],
  },
  redisReplicas: {
    name: 'otp_redis_replicas',
    type: 'gauge',
    help: 'Replicas that are connected to Redis; on a Cluster, to the master that has fewest.',
    scope: 'global',
    labels: [],
  },
  redisReplicasWanted: {
    name: 'otp_redis_replicas_wanted',
    type: 'gauge',
    help: 'Replicas that journal.waitReplicas asks for; with auto 1 on a Cluster or under Sentinel, else 0.',
    scope: 'global',
    labels: [],
  },
  scrapeIncomplete: {
    name: 'otp_scrape_incomplete',
    type: 'gauge',
    help: '1 when Redis did not answer in time, so that global values are missing from this scrape; else 0.',
    scope: 'per process',
    labels: [],
  },
} as const satisfies Record<string, MetricDefinition>;

type Definitions = typeof METRICS;
type NamesOf<Type extends MetricDefinition['type']> = {
  [Name in keyof Definitions]: Definitions[Name]['type'] extends Type ? Name : never;
}[keyof Definitions];
type LabelsOf<Name extends keyof Definitions> = Definitions[Name]['labels'][number];

export type CounterName = NamesOf<'counter'>;
export type HistogramName = NamesOf<'histogram'>;
export type GaugeName = NamesOf<'gauge'>;

/** The metrics that events feed. Gauges belong to whoever reads their values; see `declareGauge`. */
export type Metrics = { readonly [Name in CounterName]: Counter<LabelsOf<Name>> } & {
  readonly [Name in HistogramName]: Histogram<LabelsOf<Name>>;
};

/** Declares counters and histograms in the registry, and the process's own metrics with them. */
export function createMetrics(registry: Registry, { ofTheProcess = true } = {}): Metrics {
  if (ofTheProcess) collectDefaultMetrics({ register: registry });
  const metrics: Record<string, Counter | Histogram> = {};
  for (const [name, definition] of Object.entries<MetricDefinition>(METRICS)) {
    const { buckets = [] } = definition;
    const configuration = { ...namesOf(definition), registers: [registry] };
    if (definition.type === 'counter') metrics[name] = new Counter(configuration);
    if (definition.type === 'histogram') metrics[name] = new Histogram({ ...configuration, buckets: [...buckets] });
  }
  return metrics as unknown as Metrics;
}

/** A gauge whose values are read when it is scraped: `fill` is given it without any value. */
export function declareGauge<Name extends GaugeName>(
  registry: Registry,
  name: Name,
  fill: (gauge: Gauge<LabelsOf<Name>>) => Promise<void>,
): void {
  new Gauge<LabelsOf<Name>>({
    ...namesOf<LabelsOf<Name>>(METRICS[name]),
    registers: [registry],
    async collect() {
      await fill(this);
    },
  });
}

function namesOf<Label extends string>({ name, help, scope, labels }: MetricDefinition) {
  const advice = scope === 'global' ? 'Global: the same in every process.' : 'Per process: add them up.';
  return { name, help: `${help} ${advice}`, labelNames: [...labels] as Label[] };
}
