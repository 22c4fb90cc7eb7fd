/**
 * What Bull Board may show of a response. Our own jobs hold an id and nothing else, but a queue is open to whoever can
 * reach Redis, and what a stranger or an older program left there may be a code, a phone or a stack trace. So this is
 * a list of what is shown, by its place and its form, not of what is hidden: everything else becomes `[masked]`,
 * and a field that a later Bull Board adds stays away until it is listed here.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { partitionOf } from '../producers/job.ts';
import type { OtpOutcome, State, TransactionOutcome } from '../producers/record.ts';
import type { NextStep, Operation, Reason } from '../providers/provider.ts';

/** Gives what may be shown in place of a value. Undefined leaves the field out. */
type Mask = (value: unknown) => unknown;

export interface Shown {
  /** Names of the queues on the board. */
  readonly queues: readonly string[];
  readonly partitions: readonly string[];
}

/** Shows the body of one response of Bull Board's, by the route as Bull Board writes it. */
export type BodyMask = (route: string, status: number, body: unknown) => unknown;

const MASKED = '[masked]';

/** A code has at least four digits, so no number of three is one. */
const SMALL = 1_000;
/** Unix milliseconds have 13 digits, a code has ten at most. */
const FIRST_TIME = 1e12;
const DAY_MS = 24 * 3_600_000;

const STATES = wordsOf<State>({ queued: 1, sending: 1, awaiting: 1, settled: 1 });
const OPERATIONS = wordsOf<Operation>({ verify: 1, send: 1 });
const OTP = wordsOf<OtpOutcome>({ accepted: 1, rejected: 1, not_submitted: 1, unknown: 1 });
const TRANSACTION = wordsOf<TransactionOutcome>({ succeeded: 1, failed: 1, pending: 1, unknown: 1, none: 1 });
const NEXT_STEPS = wordsOf<NextStep>({
  none: 1,
  reenter_code: 1,
  request_new_code: 1,
  approve_on_phone: 1,
  new_transaction: 1,
  wait: 1,
  contact_support: 1,
});
const REASONS = wordsOf<Reason>({
  wrong_code: 1,
  code_expired: 1,
  already_used: 1,
  too_many_attempts: 1,
  unknown_reference: 1,
  declined: 1,
  deadline_passed: 1,
  provider_unavailable: 1,
  misconfigured: 1,
  attempt_in_flight: 1,
  budget_spent: 1,
  no_answer: 1,
  unexpected_answer: 1,
  amount_mismatch: 1,
});
const RESULT_TYPES = ['otp.verification.awaiting', 'otp.verification.settled', 'otp.verification.review'];
/** A callback's job is named after a digest of it. */
const OF_CALLBACK = /^callback-[0-9a-f]{32}$/;
const JOB_STATES = [
  'latest',
  'active',
  'waiting',
  'waiting-children',
  'prioritized',
  'completed',
  'failed',
  'delayed',
  'paused',
  'stuck',
  'unknown',
];

/** Written as an object so that the compiler misses no word of the union. */
function wordsOf<Word extends string>(words: Record<Word, 1>): readonly string[] {
  return Object.keys(words);
}

/** Anything at all, told only by being there. */
const masked: Mask = (value) => (value === null || value === undefined ? value : MASKED);
const boolean: Mask = (value) => (typeof value === 'boolean' ? value : masked(value));
const number: Mask = (value) => (typeof value === 'number' ? value : null);
const smallNumber: Mask = (value) => (typeof value === 'number' && Math.abs(value) < SMALL ? value : masked(value));
/** Past, or nearly so: a telephone number of thirteen digits is a time of many years from now. */
const unixTime: Mask = (value) =>
  typeof value === 'number' && value >= FIRST_TIME && value <= Date.now() + DAY_MS ? value : null;
const isoTime: Mask = (value) =>
  isText(value, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z$/) ? value : masked(value);

function word(words: readonly string[]): Mask {
  return (value) => (typeof value === 'string' && words.includes(value) ? value : masked(value));
}

function list(item: Mask): Mask {
  return (value) => (Array.isArray(value) ? value.map(item) : masked(value));
}

/**
 * Fields by name. What is not named is left out, or counted when `tell` says so: a name can tell as much as a value.
 */
function fields(named: Readonly<Record<string, Mask>>, tell: 'tell' | 'silent' = 'silent'): Mask {
  return (value) => {
    if (!isObject(value)) return masked(value);
    const shown: Record<string, unknown> = {};
    for (const [name, mask] of Object.entries(named)) {
      if (Object.hasOwn(value, name)) shown[name] = mask(value[name]);
    }
    const hidden = Object.keys(value).filter((name) => !Object.hasOwn(named, name)).length;
    if (tell === 'tell' && hidden > 0) shown[MASKED] = hidden === 1 ? '1 field' : `${hidden} fields`;
    return shown;
  };
}

export function createBodyMask({ queues, partitions }: Shown): BodyMask {
  const key = randomBytes(32);

  /** A stranger's id becomes another, the same each time, so that its rows can still be told apart. */
  const id: Mask = (value) => {
    if (value === null || value === undefined) return value;
    const text = String(value);
    const [, verification = ''] = /^(.+?)(?:\.\d{1,3})?$/.exec(text) ?? [];
    if (partitions.includes(partitionOf(verification) ?? '') || OF_CALLBACK.test(text)) return text;
    return `[masked ${createHmac('sha256', key).update(text).digest('hex').slice(0, 8)}]`;
  };

  const ofVerification = {
    id,
    provider: word(partitions),
    operation: word(OPERATIONS),
    state: word(STATES),
    sequence: smallNumber,
    final: boolean,
    otp: word(OTP),
    transaction: word(TRANSACTION),
    reason: word(REASONS),
    nextStep: word(NEXT_STEPS),
    attemptsRemaining: smallNumber,
    needsReview: boolean,
    createdAt: isoTime,
    updatedAt: isoTime,
    expiresAt: isoTime,
  };
  /** A job's data: `{ v, id }`, `{ v, receivedAt, sealed }` of a callback, or a result as a CloudEvent. */
  const payload = fields(
    {
      ...ofVerification,
      v: smallNumber,
      receivedAt: unixTime,
      specversion: word(['1.0']),
      datacontenttype: word(['application/json']),
      source: word(partitions.map((partition) => `/otp/${partition}`)),
      type: word(RESULT_TYPES),
      subject: id,
      time: isoTime,
      data: fields(ofVerification, 'tell'),
    },
    'tell',
  );
  const name = word([...OPERATIONS, 'inquiry', 'callback', ...RESULT_TYPES]);
  const progress: Mask = (value) => (typeof value === 'number' && value >= 0 && value <= 100 ? value : masked(value));
  const retention: Mask = (value) => (isObject(value) ? fields({ age: number, count: number })(value) : boolean(value));
  const options = fields(
    {
      attempts: number,
      delay: number,
      priority: number,
      lifo: boolean,
      backoff: fields({ type: word(['fixed', 'exponential']), delay: number }),
      removeOnComplete: retention,
      removeOnFail: retention,
      stackTraceLimit: number,
      jobId: id,
    },
    'tell',
  );
  const job = fields({
    id,
    name,
    timestamp: unixTime,
    processedOn: unixTime,
    processedBy: masked,
    finishedOn: unixTime,
    progress,
    attempts: number,
    delay: number,
    failedReason: masked,
    stacktrace: list(masked),
    opts: options,
    data: payload,
    returnValue: payload,
    isFailed: boolean,
    externalUrl: storyLink(partitions),
    groupId: masked,
    priority: number,
    attemptsStarted: number,
    stalledCounter: number,
    deduplicationId: id,
    deferredFailure: masked,
  });
  const queue = fields({
    name: word(queues),
    // Ours: board.ts gives them.
    displayName: asItIs,
    description: asItIs,
    delimiter: asItIs,
    statuses: list(word(JOB_STATES)),
    counts: fields(Object.fromEntries(JOB_STATES.map((state) => [state, number]))),
    jobs: list(job),
    pagination: fields({ pageCount: number, range: fields({ start: number, end: number }) }),
    readOnlyMode: boolean,
    allowRetries: boolean,
    allowCompletedRetries: boolean,
    isPaused: boolean,
    type: word(['bullmq']),
    globalConcurrency: number,
    activeRateLimitTtl: number,
    supportsGlobalRateLimit: boolean,
    jobSchedulerCount: number,
    hasWorkers: boolean,
  });
  const counted = fields({ processed: number, unprocessed: number, ignored: number, failed: number });
  const flowNode: Mask = fields({
    id,
    name,
    state: word(JOB_STATES),
    progress,
    queueName: word(queues),
    children: (children) => list(flowNode)(children),
    truncated: boolean,
    dependencies: counted,
  });
  const history = fields({
    meta: fields({ count: number, prevTS: number, prevCount: number }),
    data: list(number),
    count: number,
  });
  const scheduler = fields({
    id,
    queueName: word(queues),
    name,
    every: number,
    limit: number,
    startDate: unixTime,
    endDate: unixTime,
    next: unixTime,
    nextRunJobId: id,
    lastRun: unixTime,
    lastRunJobId: id,
    iterationCount: number,
  });
  const bodies: Readonly<Record<string, Mask>> = {
    '/api/queues': fields({ queues: list(queue) }),
    '/api/job-schedulers': fields({ schedulers: list(scheduler) }),
    '/api/queues/:queueName/metrics': fields({ completed: history, failed: history }),
    '/api/queues/:queueName/default-job-options': options,
    '/api/queues/:queueName/rate-limit': fields({
      supported: boolean,
      rateLimit: fields({ max: number, duration: number }),
    }),
    '/api/queues/:queueName/:jobId/logs': list(masked),
    '/api/queues/:queueName/:jobId/flow': fields({ nodeId: id, isFlowNode: boolean, flowRoot: flowNode }),
    '/api/queues/:queueName/:jobId': fields({ job, status: word(JOB_STATES) }),
  };
  const nothing = fields({});
  // A message of an error may quote what could not be read: "Unexpected token 'x', "x12345" is not valid JSON".
  const error = fields({
    error: fields({ key: (value) => (isText(value, /^ERRORS(\.[A-Z_]+)+$/) ? value : masked(value)) }),
    code: word(['JOB_BELONGS_TO_JOB_SCHEDULER']),
  });
  return (route, status, body) => (status >= 400 ? error(body) : (bodies[route] ?? nothing)(body));
}

/** The text of the link from a job to the page of its verification. */
export const STORY = 'Its story';

function storyLink(partitions: readonly string[]): Mask {
  return (value) => {
    const href = isObject(value) && typeof value.href === 'string' ? value.href : '';
    const [, id = ''] = /^\/verifications\/(.+)$/.exec(href) ?? [];
    return partitions.includes(partitionOf(id) ?? '') ? { displayText: STORY, href } : undefined;
  };
}

function asItIs(value: unknown): unknown {
  return value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isText(value: unknown, form: RegExp): value is string {
  return typeof value === 'string' && form.test(value);
}
