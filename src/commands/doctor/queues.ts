/** What waits, what was given up, and whether anybody works on it: read as /metrics and the console read it. */
import type { Config, Partition } from '../../config.ts';
import { queuesOf } from '../../main-settings.ts';
import { DepthReader, type Depths, type PartitionDepth, type QueueDepth, watchingQueue } from '../../metrics/depths.ts';
import { namesOf, queueNames, webhookQueueName } from '../../producers/job.ts';
import type { RedisConnection } from '../../redis/connections.ts';
import { counted, duration, type Finding, fault, ok, warning } from './finding.ts';

/** Results are read by a program that runs; what lies longer is read by none. */
const UNDRAINED_AFTER_MS = 300_000;

/** Workers look at what is due every second, and at what they could not read every minute. */
const OVERDUE_AFTER_MS = 120_000;

const READINGS = 5;

const BOARD = 'look at them on the console, /board';

export interface Traffic {
  readonly depths: Depths;
  /** Of each partition, some that wait for a person, the oldest first. */
  readonly inReview: ReadonlyMap<string, readonly string[]>;
}

export async function readTraffic(redis: RedisConnection, config: Config): Promise<Traffic> {
  // BullMQ would print its own words about the server, once for each queue.
  Object.assign(redis.options, { skipVersionCheck: true });
  const queues = queuesOf(config).map(({ name, prefix }) => watchingQueue(name, prefix, redis, () => {}));
  const partitions = config.partitions.map(({ name }) => ({ name, keys: namesOf(redis).partitionKeys(name) }));
  try {
    let depths = await new DepthReader({ redis, queues, partitions }).read();
    // A scrape has a second, a person has more.
    for (let read = 1; !depths.complete && read < READINGS; read += 1) {
      depths = await new DepthReader({ redis, queues, partitions }).read();
    }
    const inReview = partitions.map(async ({ name, keys }) => {
      return [name, await redis.zrange(keys.review, '0', '1')] as const;
    });
    return { depths, inReview: new Map(await Promise.all(inReview)) };
  } finally {
    await Promise.all(queues.map((queue) => queue.close()));
  }
}

export function checkPartitionQueues(
  partition: Partition,
  { file, redis }: Pick<Config, 'file' | 'redis'>,
  { depths, inReview }: Traffic,
): Finding[] {
  const { name, otpLifetimeMs, inquiry } = partition;
  const keys = namesOf(redis).partitionKeys(name);
  const depth = depths.queues.get(keys.queue);
  const work = depth === undefined ? 0 : open(depth);
  const proof = depths.partitions.get(name);
  const found: (Finding | null)[] = [
    proof ? workersFinding(proof, work, file) : null,
    proof ? breakerFinding(proof) : null,
    ...[keys.queue, keys.inquiryQueue, keys.callbackQueue].map((queue) =>
      depths.queues.get(queue)?.paused
        ? warning(
            `queues.${queue}`,
            `it is paused: nothing is taken from it, and codes in it die at their deadline`,
            `resume it as it was paused: queue.resume() of BullMQ, prefix ${keys.prefix}`,
          )
        : null,
    ),
    depth && depth.oldestJobAgeMs > otpLifetimeMs / 2
      ? warning(
          `queues.${keys.queue}`,
          `the oldest code has waited for ${duration(depth.oldestJobAgeMs)}, and lives for ${duration(otpLifetimeMs)}`,
          `start more workers, or see whether providers.${name}.rateLimit may be higher`,
        )
      : null,
    ...[keys.queue, keys.inquiryQueue, keys.callbackQueue].map((queue) => setAside(queue, depths.queues.get(queue))),
    ...(proof === undefined ? [] : [awaitingFinding(proof, inquiry.giveUpAfterMs)]),
    proof && proof.needsReview > 0 ? reviewFinding(name, proof.needsReview, inReview.get(name) ?? []) : null,
  ];
  const findings = found.filter((finding) => finding !== null);
  const quiet = !findings.some(({ about, level }) => about.startsWith('queues.') && level !== 'ok');
  return quiet && depth ? [ok(`queues.${keys.queue}`, inWords(depth)), ...findings] : findings;
}

/** `work`: jobs that are to be taken, or have been. */
function workersFinding({ name, workers, overdueMs }: PartitionDepth, work: number, file: string | null): Finding {
  const about = `workers.${name}`;
  const overdue = overdueMs > OVERDUE_AFTER_MS && `a verification is overdue for ${duration(overdueMs)}`;
  if (workers > 0) {
    const alive = `${counted(workers, 'worker is', 'workers are')} alive`;
    if (!overdue) return ok(about, alive);
    return warning(about, `${alive}, and ${overdue}`, "look for errors in the workers' log");
  }
  const remedy = `start one: otp serve --config ${file} --roles worker`;
  const waits = work > 0 && `${counted(work, 'job waits or is', 'jobs wait or are')} under way`;
  if (waits || overdue) return fault(about, `no worker is alive, and ${waits || overdue}`, remedy);
  return warning(about, 'no worker is alive', remedy);
}

function breakerFinding({ name, breaker }: PartitionDepth): Finding | null {
  if (breaker.is === 'closed') return null;
  const since = `for ${duration(breaker.forMs)}, because of ${breaker.because}`;
  return warning(
    `breaker.${name}`,
    breaker.is === 'open'
      ? `it has been open ${since}: nothing is submitted, and codes die at their deadline`
      : `it has been half open or open ${since}: one verification at a time is let through`,
    'it closes by itself when the provider answers; docs/runbooks/breaker-open.md says what to look at',
  );
}

function setAside(queue: string, depth: QueueDepth | undefined): Finding | null {
  const failed = depth?.jobs.failed ?? 0;
  if (failed === 0) return null;
  return warning(
    `queues.${queue}`,
    `${counted(failed, 'job was', 'jobs were')} set aside: nobody could read or use them`,
    BOARD,
  );
}

function awaitingFinding(depth: PartitionDepth, patienceMs: number): Finding {
  const { name, unresolved, oldestUnresolvedAgeMs: age } = depth;
  const about = `unresolved.${name}`;
  if (unresolved === 0) return ok(about, 'nothing awaits proof');
  const said = `${counted(unresolved, 'verification awaits', 'verifications await')} proof, the oldest for ${duration(age)}`;
  if (age <= patienceMs) return ok(about, said);
  return warning(about, said, 'otp inquire ID asks the provider now; otp resolve ID settles on evidence');
}

function reviewFinding(name: string, count: number, ids: readonly string[]): Finding {
  return warning(
    `review.${name}`,
    `${counted(count, 'verification waits', 'verifications wait')} for a person: ${ids.join(', ')}${count > ids.length ? ', …' : ''}`,
    'otp show ID tells its story; otp resolve ID ends it on evidence',
  );
}

export function checkResultQueues(config: Config, { depths }: Traffic): Finding[] {
  const webhooks = new Map(config.results.webhooks.map(({ client }) => [webhookQueueName(client), client]));
  const ofPartitions = new Set(
    config.partitions.flatMap(({ name }) => {
      const { queue, inquiryQueue, callbackQueue } = queueNames(name);
      return [queue, inquiryQueue, callbackQueue];
    }),
  );
  const missing = depths.complete
    ? []
    : [
        warning(
          'queues',
          'Redis does not tell of every queue within a second',
          'see what keeps it busy: redis-cli --latency',
        ),
      ];
  const results = [...depths.queues.values()].filter(({ name }) => !ofPartitions.has(name));
  return [
    ...missing,
    ...results.flatMap((depth) => {
      const client = webhooks.get(depth.name);
      return client === undefined ? resultsFindings(depth) : webhookFindings(client, depth);
    }),
  ];
}

function resultsFindings(depth: QueueDepth): Finding[] {
  const about = `queues.${depth.name}`;
  const waiting = depth.jobs.waiting ?? 0;
  const failed = depth.jobs.failed ?? 0;
  const undrained = waiting > 0 && depth.oldestJobAgeMs > UNDRAINED_AFTER_MS;
  const findings = [
    depth.paused
      ? warning(
          about,
          'it is paused: no consumer gets a result',
          'resume it as it was paused: queue.resume() of BullMQ',
        )
      : null,
    undrained
      ? warning(
          about,
          `${counted(waiting, 'result is', 'results are')} not drained, the oldest for ${duration(depth.oldestJobAgeMs)}`,
          'run the program that consumes them (docs/results.md); they are kept for results.retentionMs and no longer',
        )
      : null,
    failed > 0
      ? warning(
          about,
          `the consumer could not handle ${counted(failed, 'result')}`,
          'mend its handler, then retry them (docs/results.md)',
        )
      : null,
  ].filter((finding) => finding !== null);
  return findings.length > 0 ? findings : [ok(about, inWords(depth))];
}

function webhookFindings(client: string, depth: QueueDepth): Finding[] {
  const about = `webhooks.${client}`;
  const failed = depth.jobs.failed ?? 0;
  const findings = [
    depth.paused
      ? warning(
          about,
          `it is switched off (its endpoint answered 410, or somebody paused it); ${counted(open(depth), 'result is', 'results are')} owed to it`,
          `otp webhooks enable ${client}, when the endpoint is there again`,
        )
      : null,
    failed > 0
      ? warning(
          about,
          `${counted(failed, 'result was', 'results were')} given up`,
          `otp webhooks replay ${client}, when the endpoint takes them`,
        )
      : null,
  ].filter((finding) => finding !== null);
  return findings.length > 0 ? findings : [ok(about, inWords(depth))];
}

/** Jobs that somebody is to take or has taken. */
function open({ jobs }: QueueDepth): number {
  return (jobs.waiting ?? 0) + (jobs.prioritized ?? 0) + (jobs.active ?? 0) + (jobs.delayed ?? 0);
}

function inWords({ jobs, oldestJobAgeMs }: QueueDepth): string {
  const waiting = (jobs.waiting ?? 0) + (jobs.prioritized ?? 0);
  const since = waiting > 0 && oldestJobAgeMs > 0 ? ` (the oldest for ${duration(oldestJobAgeMs)})` : '';
  return `${waiting} waiting${since}, ${jobs.active ?? 0} active, ${jobs.delayed ?? 0} delayed`;
}
