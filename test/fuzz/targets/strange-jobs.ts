/**
 * A real worker on a real Redis, into whose queues and journal strangers write: jobs of any shape, hashes that are no
 * jobs, ids of nothing, records with fields that are gone or garbled. What is not ours is set aside where a person sees
 * it, nothing is submitted twice, and the worker does its own work behind it as before.
 */
import { randomUUID } from 'node:crypto';
import type { Job } from 'bullmq';
import { Queue } from 'bullmq';
import fc from 'fast-check';
import type { EventName, Events } from '../../../src/events.ts';
import {
  callbackJobSchema,
  jobSchema,
  type PartitionKeys,
  partitionKeys,
  partitionOf,
} from '../../../src/producers/job.ts';
import type { RawRecord } from '../../../src/producers/record.ts';
import { Sealer } from '../../../src/producers/sealing.ts';
import { type Pipeline, startPipeline } from '../../support/pipeline.ts';
import { answer, type ProviderServer, startProviderServer, type WireRequest } from '../../support/provider-server.ts';
import { anyText, mutatedJson, words } from '../mutate.ts';
import { demand, demandNoLeak, printed, type Target } from '../target.ts';
import { garbledRecord } from './journal-records.ts';

const PARTITION = 'hello-clever';
const CANARY = 'c4n4ry-of-a-stranger-4711';
const OURS = `${PARTITION}_019f3c5a7b1e7d3a9c4e5f60718293a4`;
const ELSEWHERE = 'cepta_019f3c5a7b1e7d3a9c4e5f60718293a4';

type QueueName = 'verifications' | 'inquiries' | 'callbacks';

type Stranger =
  /** Put in as anybody does who has BullMQ. */
  | {
      readonly kind: 'job';
      readonly queue: QueueName;
      readonly name: string;
      readonly data: string;
      readonly lifo: boolean;
      readonly attempts: number;
    }
  /** A hash of a job, as somebody writes it by hand; without fields there is only its id. */
  | {
      readonly kind: 'hash';
      readonly queue: QueueName;
      readonly fields: Readonly<Record<string, string>>;
      readonly list: 'wait' | 'delayed' | 'prioritized';
    }
  /** A verification of ours, in whose record fields are garbled before a worker sees it. */
  | { readonly kind: 'record'; readonly fields: RawRecord; readonly without: readonly string[] };

interface JobsCase {
  readonly strangers: readonly Stranger[];
}

export interface JobsSubject {
  /** Tests watch how a worse worker is condemned; a real one changes nothing here. */
  afterwards?(pipeline: Pipeline): Promise<void>;
  /** For a worker that is known to be stopped. */
  readonly patienceMs?: number;
}

const queue = fc.constantFrom('verifications' as const, 'inquiries' as const, 'callbacks' as const);
const data = fc.oneof(
  {
    weight: 3,
    arbitrary: mutatedJson(
      [
        ...[
          `{"v":1,"id":"${OURS}"}`,
          `{"v":1,"id":"${ELSEWHERE}"}`,
          '{"v":1,"receivedAt":1795291200000,"sealed":"a.b.c.d.e"}',
        ],
        ...[`{"otp":"${CANARY}","provider":"cepta"}`, '{"v":2,"id":"x"}'],
      ],
      { canaries: [CANARY] },
    ).filter((text) => text.length < 20_000 && isJson(text)),
  },
  { weight: 1, arbitrary: fc.json() },
);

const HASH_FIELDS = [
  ...words('data opts name timestamp delay priority atm ats stc parentKey rjk deid nrjid processedOn finishedOn'),
];
const hashFields = fc.dictionary(
  fc.constantFrom(...HASH_FIELDS),
  fc.oneof(
    fc.constantFrom(
      '',
      '{',
      'null',
      '[]',
      '{}',
      '0',
      '-1',
      'NaN',
      '"x"',
      `{"v":1,"id":"${OURS}"}`,
      '{"attempts":0}',
      '{"backoff":{"type":"x"}}',
    ),
    fc.constantFrom(
      '{"repeat":{"every":1}}',
      '{"removeOnFail":null}',
      '{"delay":1e400}',
      `"${CANARY}"`,
      `{"${CANARY}`,
      CANARY,
    ),
    anyText(12),
  ),
  { maxKeys: 6, noNullPrototype: true },
);
/** Nested deeper than some parsers go. Not as a parent's key: on a long one BullMQ's own scripts would be at it for half a minute. */
const DEEP = { data: `${'['.repeat(20_000)}${']'.repeat(20_000)}`, opts: `{"a":${'['.repeat(20_000)}` };

const GARBLED = [
  ...words('state revision sequence expiresAt head history code operation reference codePrint client attempts'),
  ...words('notBefore'),
];
const stranger: fc.Arbitrary<Stranger> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('job' as const),
      queue,
      name: fc.constantFrom('verify', 'callback', 'inquiry', '', '__proto__', 'x'.repeat(300)),
      data,
      lifo: fc.boolean(),
      attempts: fc.constantFrom(0, 1, 2),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('hash' as const),
      queue,
      fields: fc.oneof({ weight: 9, arbitrary: hashFields }, { weight: 1, arbitrary: fc.constant(DEEP) }),
      list: fc.constantFrom('wait' as const, 'wait' as const, 'delayed' as const, 'prioritized' as const),
    }),
  },
  {
    weight: 2,
    arbitrary: garbledRecord.chain((fields) =>
      fc.record({
        kind: fc.constant('record' as const),
        fields: fc
          .subarray(
            Object.keys(fields).filter((name) => GARBLED.includes(name)),
            { maxLength: 3 },
          )
          .map((names) => Object.fromEntries(names.map((name) => [name, fields[name] ?? '']))),
        without: fc.subarray(GARBLED, { maxLength: 2 }),
      }),
    ),
  },
);

export async function strangeJobs(subject: JobsSubject = {}): Promise<Target<JobsCase>> {
  const world = await startWorker(subject.patienceMs ?? PATIENCE_MS);
  return {
    name: 'strange-jobs',
    batch: 5,
    cases: fc.record({ strangers: fc.array(stranger, { minLength: 1, maxLength: 8 }) }),
    async check({ strangers }) {
      const { pipeline, provider } = world;
      (pipeline.seen as unknown[]).length = 0;
      const jobs: Job[] = [];
      const unreadable: { readonly queue: QueueName; readonly jobId: string }[] = [];
      for (const one of strangers) {
        if (one.kind === 'job') jobs.push(await world.add(one));
        else if (one.kind === 'record') await world.garble(one);
        else {
          const jobId = await world.write(one);
          if (!isReadable(one)) unreadable.push({ queue: one.queue, jobId });
        }
      }
      await subject.afterwards?.(pipeline);
      await world.probe();
      const ends = await Promise.all(jobs.map((job) => world.endOf(job)));
      for (const [index, end] of ends.entries()) demandSetAside(strangers, jobs[index] as Job, end, pipeline.seen);
      for (const one of unreadable) {
        const lies = await within(PATIENCE_MS, async () => await world.liesAmongFailed(one.queue, one.jobId));
        demand(lies, 'what BullMQ cannot read is not set aside');
      }
      const longest = await world.longestAtWorkMs();
      demand(longest < ENDLESS_MS, `a worker has been at one job for ${Math.round(longest / 1_000)} s`);
      demandHidden(pipeline.seen, ends);
      demandOnce(provider.requests, world.codes);
      return [...new Set(strangers.map(({ kind }) => kind))].sort().join(' and ');
    },
    close: async () => await world[Symbol.asyncDispose](),
  };
}

interface End {
  readonly state: string;
  readonly reason: string;
}

interface WorkerWorld extends AsyncDisposable {
  readonly pipeline: Pipeline;
  readonly provider: ProviderServer;
  add(stranger: Extract<Stranger, { kind: 'job' }>): Promise<Job>;
  /** Gives the id that it was put under. */
  write(stranger: Extract<Stranger, { kind: 'hash' }>): Promise<string>;
  liesAmongFailed(queue: QueueName, jobId: string): Promise<boolean>;
  /** How long the worker has been at the verification that it took first. */
  longestAtWorkMs(): Promise<number>;
  garble(stranger: Extract<Stranger, { kind: 'record' }>): Promise<void>;
  /** Something of ours, through all three queues; throws Condemned when it does not come to its end. */
  probe(): Promise<void>;
  /** Every code that was ever handed in: what a record says later may bring one up again much later. */
  readonly codes: ReadonlySet<string>;
  endOf(job: Job): Promise<End>;
}

const PATIENCE_MS = 15_000;
/** An attempt, its time-out and its grace, and a job may be taken up again as stalled; twice that. */
const ENDLESS_MS = 40_000;

async function startWorker(patienceMs: number): Promise<WorkerWorld> {
  const eventually = async (is: () => Promise<boolean>): Promise<boolean> => await within(patienceMs, is);
  const provider = await startProviderServer((socket, { path }) => {
    const uuid = new URL(path, 'http://x').searchParams.get('uuid') ?? '';
    const paid = { uuid, status: 'received', amount: '1', total: '1', paid_amount: '1' };
    socket.write(answer(200, JSON.stringify(uuid === '' ? { status: 'Ok' } : paid)));
  });
  const pipeline = await startPipeline({
    [PARTITION]: {
      baseUrl: provider.url,
      credentials: { appId: 'a', secretKey: 'k', callbackSecret: 's' },
      settings: {
        inquiry: { delaysMs: [1, 20, 200], giveUpAfterMs: 60_000 },
        rateLimit: { max: 100_000, perMs: 1_000 },
        inquiryRateLimit: { max: 100_000, perMs: 1_000 },
      },
    },
  });
  const keys: PartitionKeys = partitionKeys(PARTITION);
  const names: Record<QueueName, string> = {
    verifications: keys.queue,
    inquiries: keys.inquiryQueue,
    callbacks: keys.callbackQueue,
  };
  const queues = Object.fromEntries(
    Object.entries(names).map(([name, of]) => [
      name,
      new Queue(of, { connection: pipeline.redis, prefix: keys.prefix }),
    ]),
  ) as Record<QueueName, Queue>;
  for (const one of Object.values(queues)) one.on('error', () => {});
  const sealer = await Sealer.create(pipeline.keySet);
  const codes = new Set<string>();
  const newCode = (): string => {
    const code = randomUUID().replaceAll('-', '').slice(0, 10);
    codes.add(code);
    return code;
  };
  const body = (otp: string, uuid: string) => ({ provider: PARTITION, otp, params: { uuid } });

  return {
    pipeline,
    provider,
    codes,
    add: async ({ queue: to, name, data: text, lifo, attempts }) =>
      await queues[to].add(name, JSON.parse(text), {
        jobId: randomUUID(),
        lifo,
        attempts,
        removeOnComplete: true,
        stackTraceLimit: 5,
      }),
    write: async ({ queue: to, fields, list }) => {
      const [base, jobId] = [`${keys.prefix}:${names[to]}`, randomUUID()];
      if (Object.keys(fields).length > 0) await pipeline.redis.hset(`${base}:${jobId}`, fields);
      if (list === 'wait') await pipeline.redis.lpush(`${base}:wait`, jobId);
      else await pipeline.redis.zadd(`${base}:${list}`, list === 'delayed' ? 4_096 : 1, jobId);
      await pipeline.redis.zadd(`${base}:marker`, 0, '0');
      return jobId;
    },
    liesAmongFailed: async (of, jobId) => {
      const base = `${keys.prefix}:${names[of]}`;
      const [at, reason] = await Promise.all([
        pipeline.redis.zscore(`${base}:failed`, jobId),
        pipeline.redis.hget(`${base}:${jobId}`, 'failedReason'),
      ]);
      return at !== null && (reason ?? '') !== '';
    },
    garble: async ({ fields, without }) => {
      await queues.verifications.pause();
      try {
        const id = await pipeline.enqueue(body(newCode(), randomUUID()));
        if (Object.keys(fields).length > 0) await pipeline.redis.hset(keys.record(id), fields);
        if (without.length > 0) await pipeline.redis.hdel(keys.record(id), ...without);
      } finally {
        await queues.verifications.resume();
      }
    },
    longestAtWorkMs: async () => {
      const base = `${keys.prefix}:${names.verifications}`;
      const active = await pipeline.redis.lrange(`${base}:active`, 0, -1);
      const since = await Promise.all(
        active.map(async (id) => Number(await pipeline.redis.hget(`${base}:${id}`, 'processedOn'))),
      );
      return Math.max(0, ...since.filter((at) => at > 0).map((at) => Date.now() - at));
    },
    probe: async () => {
      const uuid = randomUUID();
      const id = await pipeline.enqueue(body(newCode(), uuid));
      const settled = await eventually(async () => (await pipeline.read(id)).final);
      demand(
        settled,
        `the worker is stopped: a good verification did not end: ${JSON.stringify(await pipeline.read(id))}`,
      );
      const sealed = await sealer.seal({ partition: PARTITION, body: JSON.stringify({ uuid, status: 'received' }) });
      await queues.callbacks.add(
        'callback',
        { v: 1, receivedAt: Date.now(), sealed },
        { jobId: randomUUID(), removeOnComplete: true },
      );
      const matched = await eventually(async () =>
        pipeline.seen.some(
          ({ name, payload }) => name === 'callback:matched' && (payload as Events['callback:matched']).id === id,
        ),
      );
      demand(matched, 'the worker is stopped: a good callback was not read');
      demand(pipeline.workers.get(PARTITION)?.running === true, 'the worker says that it does not run');
    },
    endOf: async (job) => {
      let state = '';
      await eventually(async () => {
        state = await job.getState();
        return !['waiting', 'active', 'prioritized'].includes(state);
      });
      const [failedReason, stacktrace] = await pipeline.redis.hmget(
        job.queueQualifiedName.concat(`:${job.id}`),
        'failedReason',
        'stacktrace',
      );
      return { state, reason: `${failedReason ?? ''} ${stacktrace ?? ''}` };
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(Object.values(queues).map((one) => one.close()));
      await pipeline[Symbol.asyncDispose]();
      await provider.close();
    },
  };
}

async function within(patienceMs: number, is: () => Promise<boolean>): Promise<boolean> {
  const giveUpAt = performance.now() + patienceMs;
  while (!(await is())) {
    if (performance.now() > giveUpAt) return false;
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
  return true;
}

// ---- verdicts -------------------------------------------------------------------------------------------------------

type Seen = readonly { readonly name: EventName; readonly payload: Events[EventName] }[];

/** What is no job of ours lies among the failed ones, with a reason, and was told. */
function demandSetAside(strangers: readonly Stranger[], job: Job, { state, reason }: End, seen: Seen): void {
  const isCallback = job.queueName.endsWith('-callback');
  const told = (name: EventName): boolean => seen.some((one) => one.name === name && isAbout(one.payload, job));
  if (isCallback) {
    if (callbackJobSchema.safeParse(job.data).success) return;
    demand(state === 'failed' && reason.includes('set aside'), `a stranger's callback is ${state}: ${reason}`);
    demand(
      seen.some(({ name }) => name === 'callback:unreadable'),
      "nobody was told of a stranger's callback",
    );
    return;
  }
  const parsed = jobSchema.safeParse(job.data);
  if (parsed.success && partitionOf(parsed.data.id) === PARTITION) {
    demand(['unknown', 'completed', 'delayed'].includes(state), `a job of nothing is ${state}: ${reason}`);
    return;
  }
  demand(state === 'failed' && reason.includes('not a job of this queue'), `a stranger's job is ${state}: ${reason}`);
  demand(told('job:malformed'), `nobody was told of a stranger's job (${strangers.length} of them)`);
}

function isAbout(payload: Events[EventName], job: Job): boolean {
  return 'jobId' in payload && payload.jobId === job.id && 'queue' in payload && payload.queue === job.queueName;
}

function demandHidden(seen: Seen, ends: readonly End[]): void {
  for (const { name, payload } of seen) {
    const { jobId: _, ...rest } = payload as Record<string, unknown>;
    demandNoLeak(`the event ${name}`, printed(rest) + ('error' in payload ? printed(payload.error) : ''), [CANARY]);
  }
  for (const { reason } of ends) demandNoLeak('the reason of a failed job', reason, [CANARY]);
}

/** Over all cases: no code of ours more than once, and no other one at all. */
function demandOnce(requests: readonly WireRequest[], codes: ReadonlySet<string>): void {
  const sent = new Map<string, number>();
  for (const { body } of requests.filter(({ method }) => method === 'POST')) {
    const [, code = ''] = /"code":"([^"]*)"/.exec(body) ?? [];
    demand(codes.has(code), 'something was submitted that nobody asked for');
    sent.set(code, (sent.get(code) ?? 0) + 1);
    demand(sent.get(code) === 1, 'a code was submitted twice');
  }
}

/** As far as that is sure: some fields stop BullMQ only where a job is retried, and an id alone may be dropped as stalled. */
function isReadable({ fields, list }: Extract<Stranger, { kind: 'hash' }>): boolean {
  const { data = '{}', opts = '{}', ...others } = fields;
  const sure =
    list === 'wait' &&
    data !== '' &&
    opts !== '' &&
    !['ats', 'atm', 'stc', 'rjk', 'parentKey'].some((name) => name in others);
  return !sure || (isJson(data) && isJson(opts));
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
