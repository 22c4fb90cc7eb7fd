/** Text that is HTML already. Everything else is escaped on its way into a page. */
export class Html {
  readonly markup: string;

  constructor(markup: string) {
    this.markup = markup;
  }
}

export type Piece = Html | string | number | null | readonly Piece[];

/**
 * Every value between the parts is escaped, in text and in quoted attributes alike; only `Html` goes in as it is.
 *
 * @example html`<td title="${stranger}">${stranger}</td>`
 */
export function html(parts: TemplateStringsArray, ...pieces: readonly Piece[]): Html {
  return new Html(String.raw({ raw: parts }, ...pieces.map(markupOf)));
}

function markupOf(piece: Piece): string {
  if (piece === null) return '';
  if (piece instanceof Html) return piece.markup;
  if (typeof piece === 'object') return piece.map(markupOf).join('');
  return String(piece).replaceAll(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
