/** The form by which a person says with evidence what became of the money, and what that does. */
import { EVIDENCE_LENGTH } from '../producers/evidence.ts';
import type { VerificationRecord } from '../producers/record.ts';
import { html, type Piece } from './html.ts';
import { page } from './layout.ts';
import { headlineOf, words } from './words.ts';

/** As it was sent, so that nothing has to be typed again; and what is wrong with it. */
export interface ResolveForm {
  readonly as: string;
  readonly evidence: string;
  readonly faults: { readonly as?: string; readonly evidence?: string; readonly confirmation?: string };
}

export const EMPTY_FORM: ResolveForm = { as: '', evidence: '', faults: {} };

/** What a person types to say that it is this one that is meant. */
export function confirmationOf(id: string): string {
  return id.slice(-6);
}

/** What the form says and does, where it settles; and of a final one, where it ends the review of two proofs that disagree. */
const WORDS = {
  settle: {
    heading: 'Resolve with evidence',
    meaning:
      'The client is told at once, and it is final: no later proof, and nobody here, takes it back. The provider itself is told nothing.',
    succeeded: 'The provider has the money. The client will hand out what was paid for.',
    failed:
      'No money has moved, and none will. The client may let the customer pay again: if this is wrong, they pay twice.',
    button: 'Resolve for good',
  },
  endReview: {
    heading: 'End the review with evidence',
    meaning:
      'Two proofs disagree. What the client was told stays as it was said, and the client is told nothing by this: tell them yourself what is true, and deliver or refund with them. This writes down what was found, and takes it off the list.',
    succeeded: "The provider has the money, by the provider's own statement.",
    failed: "No money has moved, by the provider's own statement.",
    button: 'End the review',
  },
} as const;

export function resolvePage(record: VerificationRecord, { as, evidence, faults }: ResolveForm): string {
  const { id, partition, reference, amount, standing, state } = record;
  const say = state === 'settled' ? WORDS.endReview : WORDS.settle;
  const { least, most } = EVIDENCE_LENGTH;
  const facts: [string, Piece][] = [
    ['Verification', html`<a class="id" href="/verifications/${id}">${id}</a>`],
    ['How it stands', headlineOf(record)],
    ['Partition', partition],
    ['Reference', html`<span class="id">${reference}</span>`],
    ['Amount', amount === null ? 'not said by the client' : `${amount.value} ${amount.currency}`],
    ["Provider's word", standing?.providerCode ?? '–'],
    ['Reason', words(standing?.reason ?? null)],
  ];
  const choice = (value: 'succeeded' | 'failed', name: string, hint: string): Piece =>
    html`<label class="choice"><input type="radio" name="as" value="${value}" required${as === value ? html` checked` : null}>
<b>${name}</b><span class="hint">${hint}</span></label>`;
  return page({
    title: 'Resolve',
    content: html`<h1>${say.heading}</h1>
<p>${say.meaning}</p>
<dl>
${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>\n`)}</dl>
<form class="stack" method="post" action="/verifications/${id}/resolve">
<fieldset><legend>What became of the money</legend>
${choice('succeeded', 'Succeeded', say.succeeded)}
${choice('failed', 'Failed', say.failed)}
${fault('as', faults.as)}</fieldset>
<label>Evidence
<span class="hint">What proves it, for whoever asks later: a statement and its line, a case number. ${least} to ${most} characters.
The client can read it in the history; no code and no card number belongs here.</span>
<textarea name="evidence" required minlength="${least}" maxlength="${most}"${faults.evidence ? html` aria-invalid="true" aria-describedby="fault-evidence"` : null}>${evidence}</textarea>
${fault('evidence', faults.evidence)}</label>
<label>To confirm, type the last six characters of the id: <b class="id">${confirmationOf(id)}</b>
<input name="confirmation" required autocomplete="off" spellcheck="false" autocapitalize="none" maxlength="6"${
      faults.confirmation ? html` aria-invalid="true" aria-describedby="fault-confirmation"` : null
    }>
${fault('confirmation', faults.confirmation)}</label>
<div class="actions"><button class="main">${say.button}</button> <a class="button" href="/verifications/${id}">Leave it as it is</a></div>
</form>`,
  });
}

function fault(field: string, text: string | undefined): Piece {
  return text === undefined ? null : html`<span class="fault" id="fault-${field}">${text}</span>`;
}
