/** One partition: how it stands, and the switch that holds it. */
import type { BreakerDepth, Depths } from '../metrics/depths.ts';
import { EVIDENCE_LENGTH } from '../producers/evidence.ts';
import { queueNames } from '../producers/job.ts';
import type { Activity } from './activity.ts';
import { type AuditEntry, auditTable } from './audit.ts';
import { html, type Piece } from './html.ts';
import { page } from './layout.ts';
import { OUTCOME_MINUTES } from './outcomes.ts';
import { breakerNow, partitionCells, partitionNotices } from './overview.ts';
import { duration, queueLink, timeOfDay } from './words.ts';

export interface PartitionView {
  readonly name: string;
  readonly depths: Depths;
  readonly activity: Activity | undefined;
  readonly audit: readonly AuditEntry[];
  readonly titles: ReadonlyMap<string, string>;
  readonly queues: readonly string[];
  readonly now: number;
}

const FACTS = [
  'Waiting',
  'Age of the next code',
  'Rate',
  `Answers, last ${OUTCOME_MINUTES} min`,
  'Awaiting proof',
  'Needs review',
  'Workers',
];

export function partitionPage({ name, depths, activity, audit, titles, queues, now }: PartitionView): string {
  const keys = queueNames(name);
  const paused = depths.queues.get(keys.queue)?.paused;
  const cells = partitionCells(name, depths, activity);
  const links = [keys.queue, keys.inquiryQueue, keys.callbackQueue].filter((queue) => queues.includes(queue));
  return page({
    title: name,
    live: true,
    content: html`<h1>${name}</h1>
<p class="quiet small">As of ${timeOfDay(now)}</p>
<ul class="notices">${partitionNotices(name, depths).map(({ tone, text }) => html`<li class="notice ${tone}">${text}</li>\n`)}</ul>
<h2>How it stands</h2>
<dl>
${FACTS.map((fact, index) => html`<dt>${fact}</dt><dd>${cells[index] ?? null}</dd>\n`)}<dt>Queues</dt><dd>${links.map(
      (queue, index) =>
        html`${index === 0 ? '' : ' · '}${queueLink(queue, (titles.get(queue) ?? queue).replace(`${name} · `, ''))}`,
    )}</dd>
<dt>Breaker</dt><dd>${breakerCell(depths.partitions.get(name)?.breaker)}</dd>
</dl>
${paused === undefined ? null : holdForm(name, paused)}
<h2>What persons did here</h2>
${auditTable(audit)}`,
  });
}

function breakerCell(breaker: BreakerDepth | undefined): Piece {
  if (breaker === undefined) return '–';
  const { is, because, forMs, row } = breaker;
  if (is === 'closed') return 'closed';
  const times = row > 1 ? `, ${row} times in a row` : '';
  return html`<span class="word bad">${is === 'open' ? 'open' : 'half open'}</span> for ${duration(forMs)}${times}, because of ${because}. ${breakerNow(breaker)}`;
}

function holdForm(name: string, paused: boolean): Piece {
  const verb = paused ? 'resume' : 'pause';
  const means = paused
    ? html`<p>Resuming lets the workers begin again, with those codes that are still alive.</p>`
    : html`<p>Pausing lets no further code of ${name} be submitted. What is on its way ends, inquiries and callbacks go on, and
the intake still accepts. A code that is not submitted before its deadline settles as
<b>not submitted / deadline passed</b>: nothing was charged, and the customer asks for a new code.</p>`;
  return html`<section class="panel" aria-labelledby="hold"><h2 id="hold">${paused ? 'It is paused' : 'Pause'}</h2>
${means}
<form class="row" method="post" action="/partitions/${name}/${verb}">
<label>Why, for whoever asks later
<input name="because" required minlength="${EVIDENCE_LENGTH.least}" maxlength="${EVIDENCE_LENGTH.most}" autocomplete="off"></label>
<button${paused ? html` class="main"` : null}>${paused ? 'Resume' : 'Pause'} ${name}</button>
</form></section>`;
}
