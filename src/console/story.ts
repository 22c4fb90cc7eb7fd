/** The story of one verification: what is known, what is awaited, what a person may do, and what happened when. */
import { awaitedNext } from '../producers/awaited.ts';
import type { HistoryEntry, VerificationRecord } from '../producers/record.ts';
import { type Html, html, type Piece } from './html.ts';
import { page } from './layout.ts';
import { badgesOf, duration, headlineOf, isVerification, sinceText, storyLink, time, words } from './words.ts';

/** Why a verb cannot be used; null when it can. */
export interface Verbs {
  readonly inquire: string | null;
  readonly resolve: string | null;
}

export interface StoryJob {
  readonly queue: string;
  readonly title: string;
  readonly id: string;
}

export interface Story {
  readonly record: VerificationRecord;
  readonly verbs: Verbs;
  /** Those that exist at this moment. */
  readonly jobs: readonly StoryJob[];
  readonly now: number;
}

/** `details` belong to the client alone, the code to nobody: neither is looked at here. */
export function storyPage({ record, verbs, jobs, now }: Story): string {
  const { id, history, metadata } = record;
  return page({
    title: id,
    live: true,
    content: html`<h1>${headlineOf(record)}</h1>
<p class="id quiet">${id}</p>
<p class="words">${badgesOf(record)}</p>
${resolvedPanel(record)}
${awaitedPanel(record, verbs, now)}
<h2>What is known</h2>
<dl class="pairs">
${factsOf(record).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>\n`)}</dl>
<h2>What happened</h2>
<ol class="timeline">
${history.map((entry, index) => historyItem(entry, record.createdAt, index === history.length - 1))}</ol>
<h2>Its jobs</h2>
${
  jobs.length === 0
    ? html`<p class="quiet">None at this moment: a job is gone when it is done. The journal above is what counts.</p>`
    : html`<p>${jobs.map(({ queue, title, id: job }, index) => html`${index === 0 ? '' : ' · '}<a href="/board/queue/${encodeURIComponent(queue)}/${encodeURIComponent(job)}">${title}</a>`)}</p>`
}
${Object.keys(metadata).length === 0 ? null : html`<h2>Metadata</h2>\n<pre tabindex="0">${JSON.stringify(metadata, null, 2)}</pre>`}`,
  });
}

function factsOf(record: VerificationRecord): [string, Piece][] {
  const { partition, client, operation, reference, amount, standing } = record;
  const others = new URLSearchParams({ q: reference, partition });
  return [
    ['Partition', html`<a href="/partitions/${partition}">${partition}</a>`],
    ['Client', client],
    ['Operation', operation],
    ['Reference', html`<a class="id" href="/search?${others.toString()}">${reference}</a>`],
    ...(amount === null ? [] : [['Amount', `${amount.value} ${amount.currency}`] as [string, Piece]]),
    ['Code', words(standing?.otp ?? null)],
    [
      'Money',
      standing?.transaction === 'none' ? 'none is moved by this operation' : words(standing?.transaction ?? null),
    ],
    ['Reason', words(standing?.reason ?? null)],
    ['Next step', words(standing?.nextStep ?? null)],
    ["Provider's word", standing?.providerCode ?? '–'],
    ['Attempts begun', record.attempts],
    ['Attempts remaining', record.attemptsRemaining ?? '–'],
    ['Inquiries so far', record.inquiries],
    ['Accepted', time(record.createdAt)],
    ['Last change', time(record.updatedAt)],
    ['Code is valid until', time(record.expiresAt)],
    ['Published revisions', record.sequence],
  ];
}

function resolvedPanel({ history, standing }: VerificationRecord): Html | null {
  const resolved = history.findLast(({ event }) => event === 'resolved');
  if (resolved === undefined) return null;
  return html`<section class="panel" aria-labelledby="resolved"><h2 id="resolved">Resolved by a person</h2>
<p><b>${String(resolved.by ?? 'somebody')}</b> resolved it as <b>${String(resolved.as ?? '')}</b> at ${time(resolved.at)}, on this evidence:</p>
<p>“${String(resolved.evidence ?? '')}”</p>${
    resolved.as === standing?.transaction
      ? null
      : html`\n<p>What the client had been told before stays as it was said: ${words(standing?.transaction ?? null)}.</p>`
  }</section>`;
}

function awaitedPanel(record: VerificationRecord, verbs: Verbs, now: number): Html | null {
  const awaited = awaitedNext(record, '');
  if (awaited === null) return null;
  return html`<section class="panel" aria-labelledby="awaited"><h2 id="awaited">What is awaited</h2>
<p>${withTimes(awaited, now)}.</p>
${verbActions(record.id, verbs)}
${record.state === 'awaiting' && verbs.inquire !== null && verbs.resolve === null ? html`<p class="quiet small">It cannot be asked: ${verbs.inquire}.</p>` : null}</section>`;
}

/** Only what can be done; a verification that is not to be touched shows none. */
export function verbActions(id: string, { inquire, resolve }: Verbs): Html | null {
  if (inquire !== null && resolve !== null) return null;
  return html`<div class="actions">${
    inquire === null
      ? html`<form method="post" action="/verifications/${id}/inquire"><button>Ask the provider now</button></form>`
      : null
  }${resolve === null ? html`<a class="button" href="/verifications/${id}/resolve">Resolve with evidence …</a>` : null}</div>`;
}

/** Every time in a sentence, with how far away it is. */
function withTimes(sentence: string, now: number): Html[] {
  return sentence.split(/(\d{4}-\d\d-\d\dT[\d:.]+Z)/).map((part, index) => {
    if (index % 2 === 0) return html`${index === 0 ? capital(part) : part}`;
    const at = Date.parse(part);
    return html`${time(at)} (${at >= now ? `in ${duration(at - now)}` : `${duration(now - at)} ago`})`;
  });
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** What an entry of the history says, for a person who has not written it. */
const EVENTS: Readonly<Record<string, string>> = {
  accepted: 'Accepted from the client',
  begun: 'Submission begun',
  answered: 'The provider answered',
  not_sent: 'Proved not to have left',
  lost: 'The answer was lost',
  owner_dead: 'The worker that was sending is gone',
  patience_over: 'Nothing has brought proof in time',
  deadline_passed: "The code's deadline passed",
  set_aside: 'Set aside: no key opens the code',
  attempt_in_flight: 'Not submitted: another code is in flight',
  already_used: 'Not submitted: the payment has its outcome',
  budget_spent: 'Not submitted: no attempts are left',
  rolled_back: 'Redis had lost its last writes',
  inquired: 'The provider was asked',
  called_back: 'A callback came',
  asked_to_inquire: 'A person asked to ask now',
  resolved: 'Resolved by a person',
};

const FACTS: Readonly<Record<string, string>> = {
  otp: 'code',
  transaction: 'money',
  status: 'HTTP status',
  inquiryAt: 'next inquiry at',
  againAt: 'again at',
  ownedBy: 'it is held by',
  kid: 'key',
};

/** Where nothing was heard of the provider, a code is that of an error of ours. */
const OUR_ERRORS = ['not_sent', 'lost'];

/** What an entry proves by itself; what is counted of it, its other facts say. */
function proofOf({ event, found, outcome }: HistoryEntry): Html | null {
  if (found === 'paid') return html`<span class="word good">says paid</span>`;
  if (found === 'not_paid') return html`<span class="word bad">says not paid</span>`;
  if (event === 'answered' && outcome === 'accepted') return html`<span class="word good">an explicit yes</span>`;
  if (event === 'answered' && outcome === 'rejected') return html`<span class="word bad">an explicit no</span>`;
  if (event === 'resolved') return html`<span class="word">a person's proof</span>`;
  return null;
}

function historyItem(entry: HistoryEntry, beganAt: number, last: boolean): Html {
  const { at, event, ...rest } = entry;
  const codeName = OUR_ERRORS.includes(event) ? 'error' : "provider's word";
  const told = Object.entries(rest).filter(([, value]) => value !== null && value !== undefined);
  const facts = told.map(
    ([name, value], index) =>
      html`${index === 0 ? '' : ' · '}${name === 'code' ? codeName : (FACTS[name] ?? words(name))} <b>${factText(name, value)}</b>`,
  );
  const iso = new Date(at).toISOString();
  return html`<li${last ? html` id="latest"` : null}><time class="when" datetime="${iso}">${sinceText(at - beganAt)} · ${iso.slice(11, 23)}</time>
<span class="what">${EVENTS[event] ?? words(event)}${proofOf(entry)}</span>
${facts.length === 0 ? null : html`<span class="facts">${facts}</span>`}</li>
`;
}

function factText(name: string, value: unknown): Piece {
  if (isVerification(value)) return storyLink(value);
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'string' && /At$/.test(name) && !Number.isNaN(Date.parse(value))) return time(Date.parse(value));
  if (name === 'otp' || name === 'transaction' || name === 'reason' || name === 'found') return words(String(value));
  if (typeof value === 'string' || typeof value === 'number') return String(value);
  return JSON.stringify(value) ?? '';
}
