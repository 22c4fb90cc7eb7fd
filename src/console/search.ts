/** Looking for a verification by what a person has in hand: its id, or the provider's reference. */
import { readByReference } from '../producers/reading.ts';
import { RecordError, type VerificationRecord } from '../producers/record.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { type Html, html } from './html.ts';
import { page, table } from './layout.ts';
import { headlineOf, type KnownClient, storyLink, timeOfDay } from './words.ts';

export interface Found {
  readonly records: readonly VerificationRecord[];
  /** There are more of one client than are shown. */
  readonly more: boolean;
  /** Somebody has written into the journal what cannot be read. */
  readonly unreadable: boolean;
}

/** What was searched for is not repeated: in a hurry a person types a code or a phone number there. */
export function searchForm(partitions: readonly string[], chosen = ''): Html {
  const option = (value: string, text: string): Html =>
    html`<option value="${value}"${value === chosen ? html` selected` : null}>${text}</option>`;
  return html`<form class="row" action="/search" method="get" role="search">
<label>Verification id, or the provider's reference
<input name="q" required maxlength="256" autocomplete="off" spellcheck="false" autocapitalize="none">
</label>
<label class="narrow">Partition
<select name="partition">${option('', 'every partition')}${partitions.map((name) => option(name, name))}</select>
</label>
<button>Find</button>
</form>`;
}

/** Of every client that is configured, in the partitions that are given, newest first. */
export async function findByReference(
  redis: RedisConnection,
  partitions: readonly string[],
  clients: readonly KnownClient[],
  reference: string,
): Promise<Found> {
  const places = partitions.flatMap((partition) => clients.map(({ id }) => ({ partition, client: id })));
  let unreadable = false;
  const pages = await Promise.all(
    places.map(async ({ partition, client }) => {
      try {
        return await readByReference(redis, { partition, client, references: [reference], after: '' });
      } catch (error) {
        if (!(error instanceof RecordError)) throw error;
        unreadable = true;
        return { records: [], next: null };
      }
    }),
  );
  return {
    records: pages.flatMap(({ records }) => records).sort((a, b) => b.createdAt - a.createdAt),
    more: pages.some(({ next }) => next !== null),
    unreadable,
  };
}

export function searchPage(
  partitions: readonly string[],
  chosen: string,
  { records, more, unreadable }: Found,
): string {
  return page({
    title: 'Search',
    content: html`<h1>${records.length === 0 ? 'Nothing found' : `${records.length} found`}</h1>
${
  records.length > 0
    ? html`<p class="quiet">Verifications of this reference, newest first.${more ? ' There are more than are shown.' : ''}</p>`
    : html`<p>No client that is configured has a verification of this reference, or its retention is over.</p>
<p class="quiet">LipaLater's reference is a keyed hash, as a story shows it: a phone number or an id number finds nothing.
References are compared to the letter.</p>`
}
${unreadable ? html`<p class="notice bad">A record could not be read; the log names it.</p>` : null}
${searchForm(partitions, chosen)}
${
  records.length === 0
    ? null
    : html`<h2>Verifications</h2>
${table(
  'Verifications',
  [
    { name: 'Verification' },
    { name: 'How it stands', whole: true },
    { name: 'Partition' },
    { name: 'Client' },
    { name: 'Accepted' },
  ],
  records.map((record) => [
    storyLink(record.id),
    headlineOf(record),
    record.partition,
    record.client,
    timeOfDay(record.createdAt),
  ]),
)}`
}`,
  });
}
