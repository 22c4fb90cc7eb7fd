/** What persons did, latest first: from the audit streams, which outlive the verifications. */
import { namesOf } from '../producers/job.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { type Html, html, type Piece } from './html.ts';
import { page, table } from './layout.ts';
import { isVerification, storyLink, timeOfDay } from './words.ts';

const PAGE_SIZE = 50;

export interface AuditEntry {
  /** Of the stream: Unix ms, a dash, a number. */
  readonly key: string;
  readonly at: number;
  readonly partition: string;
  readonly facts: Readonly<Record<string, string>>;
}

export interface AuditPage {
  readonly entries: readonly AuditEntry[];
  /** Where older ones begin, as `isAuditKey` knows it; null when there are none. */
  readonly older: string | null;
}

export function isAuditKey(text: unknown): text is string {
  return typeof text === 'string' && /^\d{1,15}-\d{1,15}$/.test(text);
}

/** @param before a key, the entries before which are wanted; null for the latest */
export async function readAudit(
  redis: RedisConnection,
  partitions: readonly string[],
  before: string | null,
): Promise<AuditPage> {
  const from = before === null ? '+' : `(${before}`;
  const streams = await Promise.all(
    partitions.map(async (partition) => {
      const found = await redis.xrevrange(
        namesOf(redis).partitionKeys(partition).audit,
        from,
        '-',
        'COUNT',
        PAGE_SIZE + 1,
      );
      return found.map(([key, fields]) => entryOf(partition, key, fields));
    }),
  );
  const entries = streams
    .flat()
    .sort((a, b) => orderOf(b.key).at - orderOf(a.key).at || orderOf(b.key).place - orderOf(a.key).place);
  // Two streams may give the same key in the same millisecond: a page never ends between two of them.
  const last = entries[PAGE_SIZE - 1]?.key;
  const shown = entries.filter(({ key }, index) => index < PAGE_SIZE || key === last);
  return { entries: shown, older: entries.length > shown.length ? (last ?? null) : null };
}

function orderOf(key: string): { at: number; place: number } {
  const [at, place] = key.split('-').map(Number);
  return { at: at ?? 0, place: place ?? 0 };
}

function entryOf(partition: string, key: string, fields: readonly string[]): AuditEntry {
  const facts = fields.flatMap((name, index) => (index % 2 === 0 ? [[name, fields[index + 1] ?? ''] as const] : []));
  return { key, at: orderOf(key).at, partition, facts: Object.fromEntries(facts) };
}

export function auditPage({ entries, older }: AuditPage, before: string | null): string {
  return page({
    title: 'Audit',
    at: '/audit',
    content: html`<h1>Audit</h1>
<p class="quiet">What persons settled, asked for and held, here and by the command line, latest first.</p>
${auditTable(entries)}
<nav class="pages" aria-label="Pages">${before === null ? null : html`<a href="/audit">Latest</a>`}${
      older === null ? null : html`<a href="/audit?before=${older}" rel="next">Older</a>`
    }</nav>`,
  });
}

export function auditTable(entries: readonly AuditEntry[]): Html {
  if (entries.length === 0) return html`<p class="quiet">Nothing yet.</p>`;
  return table(
    'What persons did',
    [
      { name: 'When' },
      { name: 'Who' },
      { name: 'What' },
      { name: 'To what', whole: true },
      { name: 'On what evidence', whole: true },
    ],
    entries.map(({ at, partition, facts }): Piece[] => [
      html`<span class="when">${timeOfDay(at)}</span>`,
      facts.by ?? 'somebody',
      deedOf(facts),
      isVerification(facts.id) ? storyLink(facts.id) : html`<a href="/partitions/${partition}">${partition}</a>`,
      facts.evidence ?? '–',
    ]),
  );
}

/** Entries from before `action` was written name what was resolved, or nothing. */
function deedOf({ action, as }: AuditEntry['facts']): Html | string {
  const deed = action ?? (as === undefined ? 'inquire' : 'resolve');
  switch (deed) {
    case 'inquire':
      return 'asked the provider';
    case 'resolve':
      return html`resolved as <span class="word ${as === 'succeeded' ? 'good' : 'bad'}">${as ?? ''}</span>`;
    case 'pause':
      return html`<span class="word open">paused</span>`;
    case 'resume':
      return 'resumed';
    default:
      return deed;
  }
}
