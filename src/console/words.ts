/** How a verification, a time and a queue are said to a person. */
import { partitionOf, queueNames, RESULTS_QUEUE, webhookQueueName } from '../producers/job.ts';
import type { VerificationRecord } from '../producers/record.ts';
import { type Html, html } from './html.ts';

type Told = Pick<VerificationRecord, 'state' | 'final' | 'standing' | 'needsReview'>;
type Otp = NonNullable<Told['standing']>['otp'];
type Transaction = NonNullable<Told['standing']>['transaction'];

export function headlineOf({ state, standing, needsReview }: Told): string {
  switch (state) {
    case 'queued':
      return 'Waiting to be submitted';
    case 'sending':
      return 'On its way to the provider';
    case 'awaiting':
      if (standing?.reason === 'amount_mismatch') return 'Another amount was reported: a person must look';
      if (standing?.otp === 'accepted') return 'Code accepted, payment not confirmed yet';
      return needsReview ? 'Outcome unknown: a person must look' : 'Outcome unknown: awaiting proof';
    case 'settled': {
      if (standing === null) return 'Settled';
      const { otp, transaction, reason } = standing;
      return `${codeWords(otp)}${moneyWords(transaction)}${reason === null ? '' : ` (${words(reason)})`}`;
    }
    default:
      return state satisfies never;
  }
}

function codeWords(otp: Otp): string {
  switch (otp) {
    case 'accepted':
      return 'Code accepted';
    case 'rejected':
      return 'Code refused';
    case 'not_submitted':
      return 'Code not submitted';
    case 'unknown':
      return 'What became of the code is unknown';
    default:
      return otp satisfies never;
  }
}

function moneyWords(transaction: Transaction): string {
  switch (transaction) {
    case 'succeeded':
      return ', payment succeeded';
    case 'failed':
      return ', payment failed';
    case 'pending':
      return ', payment still open';
    case 'unknown':
      return ', payment unknown';
    case 'none':
      return '';
    default:
      return transaction satisfies never;
  }
}

export function badgesOf({ state, final, standing, needsReview }: Told): Html[] {
  const paid =
    standing?.transaction === 'succeeded' || (standing?.transaction === 'none' && standing.otp === 'accepted');
  const lost = standing?.transaction === 'failed' || standing?.otp === 'rejected';
  const tone = paid ? 'good' : lost ? 'bad' : final ? '' : 'open';
  return [
    html`<span class="word ${tone}">${state}</span>`,
    final ? html`<span class="word">final</span>` : html`<span class="word">not final</span>`,
    ...(needsReview ? [html`<span class="word open">needs review</span>`] : []),
  ];
}

export function words(word: string | null): string {
  if (word === null) return '–';
  const spaced = word.replaceAll('_', ' ');
  // camelCase comes from the history's facts.
  return spaced.replaceAll(
    /([a-z])([A-Z])/g,
    (_match, before: string, after: string) => `${before} ${after.toLowerCase()}`,
  );
}

export function storyLink(id: string): Html {
  return html`<a class="id" href="/verifications/${id}">${id}</a>`;
}

export function time(unixMs: number): Html {
  const iso = new Date(unixMs).toISOString();
  return html`<time datetime="${iso}">${iso.replace('T', ' ').replace('Z', ' UTC')}</time>`;
}

/** Where milliseconds tell nothing. */
export function timeOfDay(unixMs: number): Html {
  const iso = new Date(unixMs).toISOString();
  return html`<time datetime="${iso}">${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC</time>`;
}

/** As short as can be told at a glance. */
export function duration(ms: number): string {
  if (ms < 1_000) return '< 1 s';
  if (ms < 120_000) return `${Math.floor(ms / 1_000)} s`;
  if (ms < 7_200_000) return `${Math.floor(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.floor(ms / 3_600_000)} h`;
  return `${Math.floor(ms / 86_400_000)} days`;
}

/** Milliseconds matter between the steps of an attempt. */
export function sinceText(ms: number): string {
  if (ms < 1_000) return `+${ms} ms`;
  if (ms < 60_000) return `+${(ms / 1_000).toFixed(1)} s`;
  if (ms < 3_600_000) return `+${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1_000)} s`;
  return `+${Math.floor(ms / 3_600_000)} h ${Math.floor((ms % 3_600_000) / 60_000)} min`;
}

export interface KnownClient {
  readonly id: string;
  readonly resultsQueue?: string | undefined;
}

/** Names of the queues of partitions; whatever else there is holds results. */
export function partitionQueues(partitions: readonly string[]): ReadonlySet<string> {
  return new Set(
    partitions.flatMap((name) => {
      const { queue, inquiryQueue, callbackQueue } = queueNames(name);
      return [queue, inquiryQueue, callbackQueue];
    }),
  );
}

/** What stands in a queue, by its name: `otp-cepta` is cepta's verifications. */
export function queueTitles(partitions: readonly string[], clients: readonly KnownClient[]): Map<string, string> {
  const ofPartitions = partitions.flatMap((partition): [string, string][] => {
    const { queue, inquiryQueue, callbackQueue } = queueNames(partition);
    return [
      [queue, `${partition} · verifications`],
      [inquiryQueue, `${partition} · inquiries`],
      [callbackQueue, `${partition} · callbacks`],
    ];
  });
  const ofClients = clients.flatMap(({ id, resultsQueue }): [string, string][] => [
    ...(resultsQueue === undefined ? [] : [[resultsQueue, `results of ${id}`] as [string, string]]),
    [webhookQueueName(id), `webhooks of ${id}`],
  ]);
  return new Map([...ofPartitions, ...ofClients, [RESULTS_QUEUE, 'results']]);
}

export function queueLink(queue: string, text: string): Html {
  return html`<a href="/board/queue/${encodeURIComponent(queue)}">${text}</a>`;
}

/** Where a fact of the history may be followed. */
export function isVerification(value: unknown): value is string {
  return typeof value === 'string' && partitionOf(value) !== null;
}
