/** Every verification that waits for a person, over all partitions, the one that has waited longest first. */
import { namesOf } from '../producers/job.ts';
import { readVerification } from '../producers/reading.ts';
import { RecordError, type VerificationRecord } from '../producers/record.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { type Html, html, type Piece } from './html.ts';
import { page, table } from './layout.ts';
import { type Verbs, verbActions } from './story.ts';
import { duration, storyLink, words } from './words.ts';

const PAGE_SIZE = 25;
/** Whoever has ten thousand of them needs another tool than a list. */
const MOST_PAGES = 400;

interface Waiting {
  readonly id: string;
  readonly since: number;
  /** Null when its retention is over; a fault when what is written there cannot be read. */
  readonly record: VerificationRecord | 'unreadable' | null;
}

export interface Reviews {
  readonly total: number;
  /** From 1. */
  readonly page: number;
  readonly pages: number;
  readonly waiting: readonly Waiting[];
}

export async function readReviews(
  redis: RedisConnection,
  partitions: readonly string[],
  wanted: number,
): Promise<Reviews> {
  const sets = partitions.map((partition) => namesOf(redis).partitionKeys(partition).review);
  const counts = await Promise.all(sets.map(async (set) => await redis.zcard(set)));
  const total = counts.reduce((sum, count) => sum + count, 0);
  const pages = Math.max(1, Math.min(MOST_PAGES, Math.ceil(total / PAGE_SIZE)));
  const page = Math.min(Math.max(1, wanted), pages);
  // Each partition may hold all of the page, so of each as many are read as lie before its end.
  const heads = await Promise.all(
    sets.map(async (set) => await redis.zrange(set, '0', String(page * PAGE_SIZE - 1), 'WITHSCORES')),
  );
  const listed = heads.flatMap(pairs).sort((a, b) => a.since - b.since || (a.id < b.id ? -1 : 1));
  const waiting = listed.slice((page - 1) * PAGE_SIZE, page * PAGE_SIZE).map(async ({ id, since }) => ({
    id,
    since,
    record: await readSafely(redis, id),
  }));
  return { total, page, pages, waiting: await Promise.all(waiting) };
}

function pairs(flat: readonly string[]): { id: string; since: number }[] {
  return flat.flatMap((id, index) => (index % 2 === 0 ? [{ id, since: Number(flat[index + 1]) }] : []));
}

/** One that was tampered with hides no other. */
async function readSafely(redis: RedisConnection, id: string): Promise<Waiting['record']> {
  try {
    return await readVerification(redis, id);
  } catch (error) {
    if (error instanceof RecordError) return 'unreadable';
    throw error;
  }
}

export function reviewPage(
  { total, page: shown, pages, waiting }: Reviews,
  verbsOf: (record: VerificationRecord) => Verbs,
  now: number,
): string {
  return page({
    title: 'Review',
    at: '/review',
    live: true,
    content: html`<h1>Review</h1>
${
  total === 0
    ? html`<p class="notice good"><b>Nothing waits for a person.</b> What awaits proof is being asked about by itself.</p>`
    : html`<p class="quiet">${total === 1 ? 'One verification waits' : `${total} verifications wait`} for a person, the oldest first.
Until somebody has evidence, tell the customer that the payment is being checked, and let nobody pay again.</p>
${table(
  'Verifications that wait for a person',
  [
    { name: 'Verification' },
    { name: 'Waits for' },
    { name: 'Partition' },
    { name: 'Amount' },
    { name: 'Why', whole: true },
    { name: 'What can be done', whole: true },
  ],
  waiting.map((one) => row(one, verbsOf, now)),
)}
${pages > 1 ? pageLinks(shown, pages) : null}`
}`,
  });
}

function row({ id, since, record }: Waiting, verbsOf: (record: VerificationRecord) => Verbs, now: number): Piece[] {
  const age = duration(Math.max(0, now - since));
  if (record === null)
    return [
      html`<span class="id">${id}</span>`,
      age,
      '',
      '',
      'its retention is over; the list forgets it within the hour',
      '',
    ];
  if (record === 'unreadable')
    return [storyLink(id), age, '', '', html`<span class="word bad">its record cannot be read</span>`, ''];
  const { partition, reference, amount } = record;
  const verbs = verbsOf(record);
  return [
    html`${storyLink(id)}<span class="sub">reference <span class="id">${reference}</span></span>`,
    age,
    partition,
    amount === null ? 'not said' : html`<span class="amount">${amount.value} ${amount.currency}</span>`,
    html`${whyOf(record)}${providerSaid(record)}`,
    verbActions(id, verbs) ?? html`<span class="quiet">${verbs.resolve}</span>`,
  ];
}

/** The latest event that asks for a person. */
function whyOf({ state, standing, history }: VerificationRecord): string {
  if (state === 'settled') return 'Two proofs disagree; what was published stays';
  if (standing?.reason === 'amount_mismatch') return 'The provider reports another amount';
  const asked = history.findLast(({ event }) => ['patience_over', 'rolled_back', 'called_back'].includes(event));
  switch (asked?.event) {
    case 'patience_over':
      return 'Nothing has brought proof in time';
    case 'rolled_back':
      return 'Redis had lost its last writes: it may have been submitted';
    case 'called_back':
      return 'A callback came that proves nothing by itself';
    default:
      return 'Its outcome is unknown';
  }
}

function providerSaid({ standing }: VerificationRecord): Html | null {
  if (standing === null) return null;
  const { otp, transaction, providerCode } = standing;
  const said = providerCode === null ? '' : ` · provider's word ${providerCode}`;
  return html`<span class="sub">code ${words(otp)}, payment ${words(transaction)}${said}</span>`;
}

function pageLinks(shown: number, pages: number): Html {
  return html`<nav class="pages" aria-label="Pages">${
    shown > 1 ? html`<a href="/review?page=${shown - 1}" rel="prev">Older</a>` : null
  }<span class="quiet">Page ${shown} of ${pages}</span>${
    shown < pages ? html`<a href="/review?page=${shown + 1}" rel="next">Newer</a>` : null
  }</nav>`;
}
