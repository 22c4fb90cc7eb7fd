/** The first page: whether something is bad, said in words; then every partition, and where results go, at a glance. */
import type { BreakerDepth, Depths, PartitionDepth, QueueDepth } from '../metrics/depths.ts';
import { queueNames } from '../producers/job.ts';
import type { Activity } from './activity.ts';
import { type Html, html, type Piece } from './html.ts';
import { page, table } from './layout.ts';
import { OUTCOME_MINUTES, OUTCOMES, type Outcome } from './outcomes.ts';
import { searchForm } from './search.ts';
import { duration, partitionQueues, queueLink, timeOfDay } from './words.ts';

/** The thresholds of ops/prometheus/rules, so that the page and the alerts call the same thing bad. */
const OVERDUE_MS = 30_000;
const CODE_LIFE_USED = 0.5;
const RESULTS_UNREAD_MS = 300_000;
/** One that was refused once is nothing to speak of: it is tried again within seconds. */
const RESULTS_RETRIED = 10;

export interface Overview {
  readonly partitions: readonly string[];
  /** Names of all queues, and what people call them. */
  readonly queues: readonly string[];
  readonly titles: ReadonlyMap<string, string>;
  readonly depths: Depths;
  readonly activity: ReadonlyMap<string, Activity>;
  readonly now: number;
}

export interface Notice {
  readonly tone: 'bad' | 'open';
  readonly text: Html;
}

export function overviewPage(overview: Overview): string {
  const { partitions, depths, activity, now } = overview;
  const others = otherQueues(overview);
  const notices = [
    ...(depths.complete
      ? []
      : [
          {
            tone: 'bad',
            text: html`<b>Redis did not answer in time.</b> What is missing is shown as a dash.`,
          } as const,
        ]),
    ...partitions.flatMap((name) => partitionNotices(name, depths)),
    ...others.flatMap((name) => queueNotices(name, overview)),
  ];
  return page({
    title: 'Overview',
    at: '/',
    live: true,
    content: html`<h1>Overview</h1>
<p class="quiet small">As of ${timeOfDay(now)}</p>
${noticeList(notices)}
${searchForm(partitions)}
<h2>Partitions</h2>
${table(
  'Partitions',
  [
    { name: 'Partition' },
    { name: 'Waiting' },
    { name: 'Age of the next code' },
    { name: 'Rate' },
    { name: `Answers, last ${OUTCOME_MINUTES} min`, whole: true },
    { name: 'Awaiting proof' },
    { name: 'Needs review' },
    { name: 'Workers' },
  ],
  partitions.map((name) => [partitionName(name, depths), ...partitionCells(name, depths, activity.get(name))]),
)}
${
  others.length === 0
    ? null
    : html`<h2>Results</h2>
${table(
  'Results',
  [
    { name: 'Queue' },
    { name: 'Waiting' },
    { name: 'To be tried again' },
    { name: 'Set aside' },
    { name: 'Oldest waiting' },
  ],
  others.map((name) => resultsRow(name, overview)),
)}`
}`,
  });
}

/** Where results are fetched, and what endpoints are told. */
function otherQueues({ partitions, queues }: Overview): string[] {
  const ofPartitions = partitionQueues(partitions);
  return queues.filter((name) => !ofPartitions.has(name));
}

function noticeList(notices: readonly Notice[]): Html {
  if (notices.length === 0) {
    return html`<p class="notice good"><b>All is well.</b> Nothing is held up, and nothing needs a person.</p>`;
  }
  const sorted = [...notices].sort((a, b) => Number(b.tone === 'bad') - Number(a.tone === 'bad'));
  return html`<ul class="notices">${sorted.map(({ tone, text }) => html`<li class="notice ${tone}">${text}</li>\n`)}</ul>`;
}

/** What is bad about a partition, worst first. */
export function partitionNotices(name: string, { partitions, queues }: Depths): Notice[] {
  const depth = partitions.get(name);
  const keys = queueNames(name);
  const partition = html`<a href="/partitions/${name}"><b>${name}</b></a>`;
  const notices: Notice[] = [];
  if (depth !== undefined) {
    const { workers, overdueMs, codeLifeUsed, needsReview, oldestReviewAgeMs, breaker } = depth;
    if (workers === 0)
      notices.push({ tone: 'bad', text: html`${partition}: no worker is alive, nothing is carried out.` });
    if (breaker.is !== 'closed')
      notices.push({
        tone: 'bad',
        text: html`${partition}: its breaker has been open for ${duration(breaker.forMs)}, because the provider fails (${breaker.because}). ${breakerNow(breaker)}`,
      });
    if (overdueMs > OVERDUE_MS)
      notices.push({
        tone: 'bad',
        text: html`${partition}: something should have happened ${duration(overdueMs)} ago and has not.`,
      });
    if (codeLifeUsed > CODE_LIFE_USED)
      notices.push({
        tone: 'bad',
        text: html`${partition}: the next code has waited for ${percent(codeLifeUsed)} of its life; codes begin to die unsent.`,
      });
    if (needsReview > 0)
      notices.push({
        tone: 'open',
        text: html`${partition}: ${counted(needsReview, 'verification waits', 'verifications wait')} for a person, the oldest for ${duration(oldestReviewAgeMs)}. <a href="/review">Review</a>`,
      });
  }
  if (queues.get(keys.queue)?.paused === true)
    notices.push({
      tone: 'bad',
      text: html`${partition}: paused by a person. No code is submitted; codes die at their deadline.`,
    });
  for (const queue of [keys.queue, keys.inquiryQueue, keys.callbackQueue]) {
    const failed = queues.get(queue)?.jobs.failed ?? 0;
    if (failed > 0)
      notices.push({
        tone: 'open',
        text: html`${partition}: ${queueLink(queue, counted(failed, 'job', 'jobs'))} set aside, which nobody could read or run.`,
      });
  }
  return notices;
}

function queueNotices(name: string, { depths, titles, queues }: Overview): Notice[] {
  const depth = depths.queues.get(name);
  if (depth === undefined || !queues.includes(name)) return [];
  const title = queueLink(name, titles.get(name) ?? name);
  const failed = depth.jobs.failed ?? 0;
  const notices: Notice[] = [];
  if (failed > 0)
    notices.push({ tone: 'open', text: html`${title}: ${counted(failed, 'result was', 'results were')} given up.` });
  const retried = depth.jobs.delayed ?? 0;
  if (retried >= RESULTS_RETRIED)
    notices.push({ tone: 'open', text: html`${title}: ${retried} results were not taken and are tried again.` });
  if (depth.paused) notices.push({ tone: 'bad', text: html`${title}: switched off; nothing is delivered.` });
  else if (depth.oldestJobAgeMs > RESULTS_UNREAD_MS)
    notices.push({
      tone: 'bad',
      text: html`${title}: nobody has fetched the oldest for ${duration(depth.oldestJobAgeMs)}.`,
    });
  return notices;
}

function partitionName(name: string, depths: Depths): Html {
  const paused = depths.queues.get(queueNames(name).queue)?.paused === true;
  const breaker = depths.partitions.get(name)?.breaker.is ?? 'closed';
  return html`<a href="/partitions/${name}">${name}</a>${paused ? html` <span class="word bad">paused</span>` : null}${
    breaker === 'closed'
      ? null
      : html` <span class="word bad">${breaker === 'open' ? 'breaker open' : 'on trial'}</span>`
  }`;
}

/** What passes now, and what comes next. */
export function breakerNow({ is, probeInMs }: BreakerDepth): string {
  if (is === 'closed') return 'Everything passes.';
  if (is === 'half_open') return 'It answers again: one verification at a time passes until one is answered.';
  const next = probeInMs === 0 ? 'now' : `in ${duration(probeInMs)}`;
  return `Nothing is submitted; the next probe is ${next}, and it is no customer's code.`;
}

/** In the order of the table: waiting, age, rate, answers, awaiting, review, workers. */
export function partitionCells(name: string, { queues, partitions }: Depths, activity: Activity | undefined): Piece[] {
  const queue = queues.get(queueNames(name).queue);
  const depth = partitions.get(name);
  return [
    queue === undefined ? '–' : waitingCell(queue),
    queue === undefined || depth === undefined ? '–' : ageCell(queue, depth),
    activity === undefined ? '–' : rateCell(activity),
    activity === undefined ? '–' : answersCell(activity),
    depth === undefined ? '–' : sinceCell(depth.unresolved, depth.oldestUnresolvedAgeMs),
    depth === undefined ? '–' : reviewCell(depth),
    depth === undefined ? '–' : depth.workers === 0 ? html`<span class="word bad">none</span>` : depth.workers,
  ];
}

function waitingCell({ jobs }: QueueDepth): Html {
  const [delayed, active] = [jobs.delayed ?? 0, jobs.active ?? 0];
  const more = [delayed > 0 ? `${delayed} for later` : '', active > 0 ? `${active} on its way` : ''];
  return html`${sum(jobs, ['waiting', 'prioritized', 'paused'])}${sub(more.filter((text) => text !== '').join(', '))}`;
}

function ageCell({ oldestJobAgeMs }: QueueDepth, { codeLifeUsed }: PartitionDepth): Html {
  if (oldestJobAgeMs === 0 && codeLifeUsed === 0) return html`<span class="quiet">none waits</span>`;
  const tone = codeLifeUsed > CODE_LIFE_USED ? 'bad' : codeLifeUsed > CODE_LIFE_USED / 2 ? 'open' : '';
  return html`${oldestJobAgeMs === 0 ? 'for later' : duration(oldestJobAgeMs)}${bar(codeLifeUsed, tone)}${sub(`${percent(codeLifeUsed)} of its life`)}`;
}

function rateCell({ rateUsed, rateLimit: { max, perMs } }: Activity): Html {
  const full = rateUsed >= max;
  const unit = perMs === 1_000 ? 's' : perMs < 1_000 ? `${perMs} ms` : duration(perMs);
  return html`${rateUsed} of ${max} / ${unit}${bar(rateUsed / max, full ? 'open' : '')}${full ? sub('at its limit') : null}`;
}

const TONES: Readonly<Record<Outcome, string>> = {
  accepted: 'good',
  rejected: '',
  not_submitted: 'open',
  unknown: 'bad',
};
const SAID: Readonly<Record<Outcome, string>> = {
  accepted: 'accepted',
  rejected: 'refused',
  not_submitted: 'not submitted',
  unknown: 'unknown',
};

function answersCell({ outcomes }: Activity): Html {
  const some = OUTCOMES.filter((outcome) => outcomes[outcome] > 0);
  if (some.length === 0) return html`<span class="quiet">none</span>`;
  return html`<span class="words">${some.map((outcome) => html`<span class="word ${TONES[outcome]}">${outcomes[outcome]} ${SAID[outcome]}</span>`)}</span>`;
}

function sinceCell(count: number, oldestMs: number): Html {
  return html`${count}${count === 0 ? null : sub(`oldest ${duration(oldestMs)}`)}`;
}

function reviewCell({ needsReview, oldestReviewAgeMs }: PartitionDepth): Piece {
  if (needsReview === 0) return 0;
  return html`<a class="word open" href="/review">${needsReview}</a>${sub(`oldest ${duration(oldestReviewAgeMs)}`)}`;
}

function resultsRow(name: string, { depths, titles }: Overview): Piece[] {
  const depth = depths.queues.get(name);
  const title = queueLink(name, titles.get(name) ?? name);
  if (depth === undefined) return [title, '–', '–', '–', '–'];
  const { jobs, oldestJobAgeMs, paused } = depth;
  const failed = jobs.failed ?? 0;
  return [
    html`${title}${paused ? html` <span class="word bad">switched off</span>` : null}`,
    sum(jobs, ['waiting', 'prioritized', 'active']),
    jobs.delayed ?? 0,
    failed === 0 ? 0 : html`<span class="word open">${failed}</span>`,
    oldestJobAgeMs === 0 ? html`<span class="quiet">none waits</span>` : duration(oldestJobAgeMs),
  ];
}

/** A share as a bar; the number stands beside it, so it is told to nobody who cannot see it. */
function bar(share: number, tone: string): Html {
  const width = Math.round(Math.min(1, Math.max(0, share)) * 100);
  return html`<svg class="bar ${tone}" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect width="${width}" height="4"></rect></svg>`;
}

function sub(text: string): Html | null {
  return text === '' ? null : html`<span class="sub">${text}</span>`;
}

function sum(jobs: Readonly<Record<string, number>>, states: readonly string[]): number {
  return states.reduce((total, state) => total + (jobs[state] ?? 0), 0);
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

function counted(count: number, one: string, many: string): string {
  return `${count} ${count === 1 ? one : many}`;
}
