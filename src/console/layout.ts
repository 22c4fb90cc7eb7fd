/** The frame that every page of the console stands in: one style sheet in the page, one script of our own, no other. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Html, html, type Piece } from './html.ts';

const STYLE = readFileSync(new URL('./console.css', import.meta.url), 'utf8');

/** Keeps a page fresh; a file, because a page may not hold a script. */
export const REFRESH_SCRIPT = readFileSync(new URL('./refresh.js', import.meta.url), 'utf8');
/** Gives the buttons of Bull Board's page their names. */
export const NAMES_ADDRESS = '/board-names.js';
export const NAMES_SCRIPT = readFileSync(new URL('./board-names.js', import.meta.url), 'utf8');

/** The only style a page of ours may have, for the Content-Security-Policy. */
export const STYLE_SOURCE = `'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`;

export const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<rect width="32" height="32" rx="7" fill="#0b5cad"/>
<path d="M9 16.5l5 5 9-11" fill="none" stroke="#fff" stroke-width="3.5" stroke-linecap="round" stroke-linejoin="round"/>
</svg>`;

const PLACES = [
  ['/', 'Overview'],
  ['/review', 'Review'],
  ['/audit', 'Audit'],
  ['/board', 'Queues'],
  ['/metrics', 'Metrics'],
] as const;

export interface PageOptions {
  readonly title: string;
  readonly content: Piece;
  /** The page's own address, where the navigation names it. */
  readonly at?: (typeof PLACES)[number][0];
  /** Shows how things stand now, so the script may fetch it anew. */
  readonly live?: boolean;
}

/** The name, and where one can go. */
export function navigation(at?: PageOptions['at']): Html {
  const links = PLACES.map(
    ([href, name]) => html` <a href="${href}"${href === at ? html` aria-current="page"` : null}>${name}</a>`,
  );
  return html`<a class="name" href="/">otp-pipeline</a><span class="places">${links}</span>`;
}

export function page({ title, content, at, live = false }: PageOptions): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>${title} · otp-pipeline</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<style>${new Html(STYLE)}</style>
${live ? html`<script src="/refresh.js" type="module"></script>` : null}
</head>
<body>
<a class="skip" href="#main">To the content</a>
<header><nav aria-label="Console">${navigation(at)}</nav></header>
<main id="main"${live ? html` data-refresh` : null}>
${content}
</main>
</body>
</html>
`.markup;
}

/** A page that says one thing: why there is no other. */
export function messagePage(heading: string, text: Piece): string {
  return page({ title: heading, content: html`<h1>${heading}</h1>\n<p>${text}</p>` });
}

/** The first cell names its row; every other says, where rows are cards, what it is. */
export interface Column {
  readonly name: string;
  /** On a narrow screen it takes the whole width of the card. */
  readonly whole?: boolean;
}

/** Roles are said aloud, because a table that is laid out as cards is no table to a screen reader otherwise. */
export function table(caption: string, columns: readonly Column[], rows: readonly (readonly Piece[])[]): Html {
  const [first, ...others] = columns;
  const heads = columns.map(({ name }) => html`<th scope="col" role="columnheader">${name}</th>`);
  const body = rows.map(
    ([
      head,
      ...cells
    ]) => html`<tr role="row"><th scope="row" role="rowheader" data-label="${first?.name ?? ''}">${head ?? null}</th>
${others.map(
  ({ name, whole = false }, index) =>
    html`<td role="cell" data-label="${name}"${whole ? html` class="whole"` : null}>${cells[index] ?? null}</td>`,
)}</tr>
`,
  );
  return html`<div class="wide"><table class="cards" role="table" aria-label="${caption}">
<thead role="rowgroup"><tr role="row">${heads}</tr></thead>
<tbody role="rowgroup">
${body}</tbody>
</table></div>`;
}
