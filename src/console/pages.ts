/** The console's own pages: HTML made here, one style sheet in it, no script. */
import { createHash } from 'node:crypto';
import type { Depths, QueueDepth } from '../metrics/depths.ts';
import { partitionKeys, partitionOf } from '../producers/job.ts';
import type { VerificationResource } from '../producers/record.ts';
import { Html, html, type Piece } from './html.ts';

const STYLE = `
:root {
  color-scheme: light dark;
  --ground: #fff; --raised: #f6f7f9; --line: #dfe3e8; --text: #1a1f26; --quiet: #5b6572; --link: #0b5cad;
  --good: #17693a; --good-ground: #e3f4e9; --bad: #a11d1d; --bad-ground: #fbe6e6; --open: #855000;
  --open-ground: #fdf0d9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14181d; --raised: #1c2229; --line: #303841; --text: #e6e9ed; --quiet: #9aa5b1; --link: #7db7f5;
    --good: #7fd6a0; --good-ground: #173324; --bad: #f59a9a; --bad-ground: #3b1c1e; --open: #f0c174;
    --open-ground: #382b14;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif;
}
a { color: var(--link); text-underline-offset: 0.15em; }
a:hover { text-decoration-thickness: 2px; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
header { border-bottom: 1px solid var(--line); background: var(--raised); }
header nav, main { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; align-items: baseline; padding-block: 0.75rem; }
header a { text-decoration: none; }
header .name { color: var(--text); font-weight: 650; margin-right: auto; }
main { padding-block: 1.75rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 0.25rem; }
h2 { font-size: 1.05rem; margin: 2.25rem 0 0.6rem; }
p { margin: 0 0 1rem; max-width: 46rem; }
.quiet { color: var(--quiet); }
.id {
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 0.9em; overflow-wrap: anywhere;
}
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.5rem 0.75rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { font-size: 0.8rem; font-weight: 600; color: var(--quiet); vertical-align: bottom; }
th:first-child, td:first-child { padding-left: 0; }
.number { text-align: right; }
.word {
  display: inline-block; padding: 0.05rem 0.55rem; border-radius: 1rem; background: var(--raised);
  color: var(--quiet); font-size: 0.85rem; font-weight: 550;
}
.good { background: var(--good-ground); color: var(--good); }
.bad { background: var(--bad-ground); color: var(--bad); }
.open { background: var(--open-ground); color: var(--open); }
.words { display: flex; flex-wrap: wrap; gap: 0.4rem; margin: 0.75rem 0 0; }
form { display: flex; flex-wrap: wrap; gap: 0.5rem; align-items: end; margin: 1.5rem 0 0; }
form input, form button { font-size: 0.95rem; line-height: 1.5; font-weight: 400; }
label { flex: 1 1 18rem; max-width: 34rem; font-size: 0.8rem; font-weight: 600; color: var(--quiet); }
input { display: block; width: 100%; margin-top: 0.25rem; }
input, button {
  font-family: inherit; padding: 0.45rem 0.75rem; border: 1px solid var(--line); border-radius: 0.4rem;
  background: var(--ground); color: var(--text);
}
button { background: var(--raised); cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.4rem 1.5rem; margin: 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
ol { list-style: none; margin: 0; padding: 0; }
ol li {
  display: grid; grid-template-columns: 7rem 1fr; gap: 0 1.5rem; padding: 0.6rem 0;
  border-bottom: 1px solid var(--line);
}
ol .when { color: var(--quiet); font-variant-numeric: tabular-nums; text-align: right; }
ol .what { font-weight: 550; }
ol .facts { grid-column: 2; color: var(--quiet); font-size: 0.9rem; overflow-wrap: anywhere; }
pre {
  margin: 0; padding: 0.75rem 1rem; background: var(--raised); border-radius: 0.4rem; overflow-x: auto;
  font-size: 0.85rem;
}
@media (max-width: 36rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 0.6rem; }
  ol li { grid-template-columns: 5rem 1fr; gap: 0 1rem; }
}
`;

/** The only style a page of ours may have, for the Content-Security-Policy. */
export const STYLE_SOURCE = `'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`;

export const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<rect width="32" height="32" rx="7" fill="#0b5cad"/>
<path d="M9 16.5l5 5 9-11" fill="none" stroke="#fff" stroke-width="3.5" stroke-linecap="round" stroke-linejoin="round"/>
</svg>`;

function page(title: string, content: Piece): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>${title}</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<style>${new Html(STYLE)}</style>
</head>
<body>
<header><nav aria-label="Console"><a class="name" href="/">otp-pipeline</a>
<a href="/">Overview</a> <a href="/board">Queues</a> <a href="/metrics">Metrics</a></nav></header>
<main>
${content}
</main>
</body>
</html>
`.markup;
}

/** A page that says one thing: why there is no other. */
export function messagePage(heading: string, text: Piece): string {
  return page(`${heading} · otp-pipeline`, html`<h1>${heading}</h1>\n<p>${text}</p>`);
}

export interface Overview {
  readonly partitions: readonly string[];
  readonly queues: readonly string[];
  readonly depths: Depths;
}

export function overviewPage({ partitions, queues, depths }: Overview): string {
  const ofPartitions = new Set(
    partitions.flatMap((name) => {
      const { queue, inquiryQueue, callbackQueue } = partitionKeys(name);
      return [queue, inquiryQueue, callbackQueue];
    }),
  );
  const others = queues.filter((name) => !ofPartitions.has(name));
  return page(
    'Overview · otp-pipeline',
    html`<h1>Overview</h1>
<p class="quiet">What waits, what is on its way, and what needs a look.</p>
${depths.complete ? null : REDIS_SILENT}
<form action="/verifications" method="get" role="search">
<label>Verification id
<input name="id" required autocomplete="off" spellcheck="false" placeholder="${partitions[0] ?? 'partition'}_019f…">
</label>
<button>Show its story</button>
</form>
<h2>Partitions</h2>
${table(
  ['Partition', 'Needs review', 'Awaiting proof', 'Oldest awaiting', ...QUEUE_COLUMNS, 'Queues'],
  partitions.map((name) => partitionRow(name, queues, depths)),
)}
${others.length === 0 ? null : html`<h2>Results</h2>`}
${
  others.length === 0
    ? null
    : table(
        ['Queue', ...QUEUE_COLUMNS],
        others.map((name) => resultsRow(name, depths)),
      )
}`,
  );
}

const QUEUE_COLUMNS = ['Waiting', 'Delayed', 'Active', 'Oldest waiting'];
const REDIS_SILENT = html`<p><span class="word bad">Redis did not answer in time</span>
Numbers that are missing are shown as a dash.</p>`;

/** The first column names the row, a last one called Queues links to them; what is between is numbers. */
function table(columns: readonly string[], rows: readonly Html[]): Html {
  const heads = columns.map((column, index) => {
    const kind = index === 0 || column === 'Queues' ? '' : 'number';
    return html`<th scope="col" class="${kind}">${column.split(' ').map((part) => html`${part}<br>`)}</th>`;
  });
  return html`<div class="wide"><table>
<thead><tr>${heads}</tr></thead>
<tbody>
${rows}</tbody>
</table></div>`;
}

function resultsRow(name: string, { queues }: Depths): Html {
  return html`<tr><td>${queueLink(name, name)}</td>${queueCells(queues.get(name))}</tr>\n`;
}

function partitionRow(name: string, queues: readonly string[], { queues: counted, partitions }: Depths): Html {
  const keys = partitionKeys(name);
  const depth = partitions.get(name);
  const links = [
    queues.includes(keys.queue) ? queueLink(keys.queue, 'verifications') : null,
    queues.includes(keys.inquiryQueue) ? html` · ${queueLink(keys.inquiryQueue, 'inquiries')}` : null,
    queues.includes(keys.callbackQueue) ? html` · ${queueLink(keys.callbackQueue, 'callbacks')}` : null,
  ];
  const review = depth?.needsReview ?? '–';
  const cells = [
    review === 0 || review === '–' ? review : html`<span class="word open">${review}</span>`,
    depth?.unresolved ?? '–',
    depth === undefined ? '–' : ageText(depth.oldestUnresolvedAgeMs),
  ];
  return html`<tr><td>${name}</td>${numberCells(cells)}${queueCells(counted.get(keys.queue))}<td>${links}</td></tr>\n`;
}

function queueCells(depth: QueueDepth | undefined): Html {
  const cells = [
    depth === undefined ? '–' : sum(depth.jobs, ['waiting', 'prioritized', 'paused']),
    depth === undefined ? '–' : sum(depth.jobs, ['delayed']),
    depth === undefined ? '–' : sum(depth.jobs, ['active']),
    depth === undefined ? '–' : ageText(depth.oldestJobAgeMs),
  ];
  return numberCells(cells);
}

function numberCells(cells: readonly Piece[]): Html {
  return html`${cells.map((cell) => html`<td class="number">${cell}</td>`)}`;
}

function sum(jobs: Readonly<Record<string, number>>, states: readonly string[]): number {
  return states.reduce((total, state) => total + (jobs[state] ?? 0), 0);
}

function queueLink(queue: string, text: string): Html {
  return html`<a href="/board/queue/${encodeURIComponent(queue)}">${text}</a>`;
}

/** 0 reads as "none", because that is what it is. */
function ageText(ms: number): string {
  if (ms === 0) return 'none';
  if (ms < 1_000) return '< 1 s';
  if (ms < 120_000) return `${Math.floor(ms / 1_000)} s`;
  if (ms < 7_200_000) return `${Math.floor(ms / 60_000)} min`;
  return `${Math.floor(ms / 3_600_000)} h`;
}

/** `details` belong to the client alone and are no part of what is given here. */
export function storyPage(verification: Omit<VerificationResource, 'details'>): string {
  const { id, provider, operation, reference, history = [], amount, metadata } = verification;
  const facts: [string, Piece][] = [
    ['Partition', provider],
    ['Operation', operation],
    ['Reference', html`<span class="id">${reference}</span>`],
    ['Code', words(verification.otp)],
    [
      'Money',
      verification.transaction === 'none' ? 'none is moved by this operation' : words(verification.transaction),
    ],
    ['Reason', words(verification.reason)],
    ['Next step', words(verification.nextStep)],
    ["Provider's word", verification.providerCode ?? '–'],
    ['Attempts remaining', verification.attemptsRemaining ?? '–'],
    ...(amount === undefined ? [] : [['Amount', `${amount.value} ${amount.currency}`] as [string, Piece]]),
    ['Accepted', time(verification.createdAt)],
    ['Last change', time(verification.updatedAt)],
    ['Code is valid until', time(verification.expiresAt)],
    ['Published revisions', verification.sequence],
  ];
  const beganAt = Date.parse(verification.createdAt);
  return page(
    `${id} · otp-pipeline`,
    html`<h1>${headlineOf(verification)}</h1>
<p class="id quiet">${id}</p>
<p class="words">${badgesOf(verification)}</p>
<h2>What is known</h2>
<dl>
${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>\n`)}</dl>
<h2>What happened</h2>
<ol>
${history.map((entry) => historyItem(entry, beganAt))}</ol>
${Object.keys(metadata).length === 0 ? null : html`<h2>Metadata</h2>`}
${Object.keys(metadata).length === 0 ? null : html`<pre>${JSON.stringify(metadata, null, 2)}</pre>`}`,
  );
}

type HistoryItem = NonNullable<VerificationResource['history']>[number];

function historyItem({ at, event, ...rest }: HistoryItem, beganAt: number): Html {
  const told = Object.entries(rest).filter(([, value]) => value !== null && value !== undefined);
  const facts = told.map(([name, value], index) => html`${index === 0 ? '' : ' · '}${words(name)}: ${factText(value)}`);
  return html`<li><time class="when" datetime="${at}" title="${at}">${sinceText(Date.parse(at) - beganAt)}</time>
<span class="what">${words(event)}</span>
${facts.length === 0 ? null : html`<span class="facts">${facts}</span>`}</li>
`;
}

type Told = Omit<VerificationResource, 'details'>;

function headlineOf({ state, otp, transaction, reason }: Told): string {
  switch (state) {
    case 'queued':
      return 'Waiting to be submitted';
    case 'sending':
      return 'On its way to the provider';
    case 'awaiting':
      return otp === 'accepted' ? 'Code accepted, payment not confirmed yet' : 'Outcome unknown: awaiting proof';
    case 'settled':
      return `${codeWords(otp)}${moneyWords(transaction)}${reason === null ? '' : ` (${words(reason)})`}`;
    default:
      return state satisfies never;
  }
}

function codeWords(otp: Told['otp']): string {
  switch (otp) {
    case 'accepted':
      return 'Code accepted';
    case 'rejected':
      return 'Code refused';
    case 'not_submitted':
      return 'Code not submitted';
    case 'unknown':
    case null:
      return 'What became of the code is unknown';
    default:
      return otp satisfies never;
  }
}

function moneyWords(transaction: Told['transaction']): string {
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
    case null:
      return '';
    default:
      return transaction satisfies never;
  }
}

function badgesOf({ state, final, otp, transaction, needsReview }: Told): Html[] {
  const paid = transaction === 'succeeded' || (transaction === 'none' && otp === 'accepted');
  const lost = transaction === 'failed' || otp === 'rejected';
  const tone = paid ? 'good' : lost ? 'bad' : final ? '' : 'open';
  return [
    html`<span class="word ${tone}">${state}</span>`,
    final ? html`<span class="word">final</span>` : html`<span class="word">not final</span>`,
    ...(needsReview ? [html`<span class="word open">needs a person</span>`] : []),
  ];
}

function words(word: string | null): string {
  if (word === null) return '–';
  const spaced = word.replaceAll('_', ' ');
  // camelCase comes from the history's facts.
  return spaced.replaceAll(
    /([a-z])([A-Z])/g,
    (_match, before: string, after: string) => `${before} ${after.toLowerCase()}`,
  );
}

function factText(value: unknown): Piece {
  if (typeof value === 'string' && partitionOf(value) !== null)
    return html`<a href="/verifications/${value}">${value}</a>`;
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'string' || typeof value === 'number') return String(value);
  return JSON.stringify(value) ?? '';
}

function time(iso: string): Html {
  return html`<time datetime="${iso}">${iso.replace('T', ' ').replace('Z', ' UTC')}</time>`;
}

function sinceText(ms: number): string {
  if (ms < 1_000) return `+${ms} ms`;
  if (ms < 60_000) return `+${(ms / 1_000).toFixed(1)} s`;
  if (ms < 3_600_000) return `+${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1_000)} s`;
  return `+${Math.floor(ms / 3_600_000)} h ${Math.floor((ms % 3_600_000) / 60_000)} min`;
}
