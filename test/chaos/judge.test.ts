/** The judge is worth what it detects: one hand-made world without a fault, and each fault put into it. */
import { describe, expect, it } from 'vitest';
import { type Case, type Evidence, judge, VIOLATIONS, type ViolationKind } from '../../chaos/judge.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import type { ResultEvent } from '../../src/producers/result.ts';
import type { LedgerEntry, SandboxProvider } from '../../src/sandbox/index.ts';

const EXPIRES_AT = Date.parse('2026-11-21T20:05:00.000Z');

type Words = Partial<VerificationResource>;

function resource(provider: SandboxProvider, words: Words = {}): VerificationResource {
  return {
    id: `${provider}_1`,
    provider,
    operation: 'verify',
    reference: 'R1',
    state: 'settled',
    sequence: 1,
    final: true,
    otp: 'accepted',
    transaction: 'succeeded',
    reason: null,
    nextStep: 'none',
    attemptsRemaining: 2,
    needsReview: false,
    providerCode: null,
    createdAt: '2026-11-21T20:00:00.000Z',
    updatedAt: '2026-11-21T20:00:01.000Z',
    expiresAt: new Date(EXPIRES_AT).toISOString(),
    metadata: {},
    history: [
      { at: '2026-11-21T20:00:00.000Z', event: 'accepted' },
      { at: '2026-11-21T20:00:00.100Z', event: 'begun', attempt: 1 },
    ],
    ...words,
  };
}

function caseOf(provider: SandboxProvider, words: Words = {}, more: Partial<Case> = {}): Case {
  const its = resource(provider, words);
  return {
    key: 'key-1',
    provider,
    operation: 'verify',
    reference: 'R1',
    otp: '123456',
    amount: null,
    ids: [its.id],
    statuses: [202],
    resource: its,
    ...more,
  };
}

/** The results of a case whose earlier revisions all said that it awaits. */
function resultsOf({ resource: its }: Case): ResultEvent[] {
  if (its === null) return [];
  const { history: _, ...data } = its;
  return Array.from({ length: its.sequence }, (_unused, index) => {
    const sequence = index + 1;
    const last = sequence === its.sequence;
    return {
      specversion: '1.0',
      id: `${its.id}.${sequence}`,
      source: `/otp/${its.provider}`,
      type: last && its.final ? 'otp.verification.settled' : 'otp.verification.awaiting',
      subject: its.id,
      time: its.updatedAt,
      client: 'shop',
      datacontenttype: 'application/json',
      data: last ? data : { ...data, state: 'awaiting', final: false, sequence },
    };
  });
}

function ledgerOf(provider: SandboxProvider, ...events: Partial<LedgerEntry>[]): LedgerEntry[] {
  return events.map((entry, index) => ({
    seq: index + 1,
    at: '2026-11-21T20:00:00.500Z',
    provider,
    call: 'verify',
    reference: 'R1',
    event: 'request',
    ...entry,
  }));
}

const AMOUNT = { value: '100.00', currency: 'NGN' };
const received = (code = '123456'): Partial<LedgerEntry> => ({ event: 'code_received', code });
const ACCEPTED: Partial<LedgerEntry> = { event: 'code_accepted', amount: AMOUNT };
const CHARGED: Partial<LedgerEntry> = { event: 'charged', amount: AMOUNT };
const REJECTED: Partial<LedgerEntry> = { event: 'code_rejected', triesLeft: 2 };
const REPORTED: Partial<LedgerEntry> = {
  call: 'callback',
  event: 'callback_answered',
  says: 'paid',
  acknowledged: true,
};
const NOT_CHARGED: Partial<LedgerEntry> = { event: 'not_charged' };

function world(cases: readonly Case[], ledger: readonly LedgerEntry[], more: Partial<Evidence> = {}): Evidence {
  return {
    cases,
    ledger,
    results: cases.flatMap(resultsOf),
    wire: [],
    sendsAfterDeadline: 0,
    wireLagMs: 0,
    networkDelayMs: 1_000,
    ...more,
  };
}

const kindsIn = (evidence: Evidence): ViolationKind[] => [...new Set(judge(evidence).map(({ kind }) => kind))].sort();

const paid = (): LedgerEntry[] => ledgerOf('cepta', {}, received(), ACCEPTED, CHARGED);
const awaiting: Words = { state: 'awaiting', final: false, otp: 'unknown', transaction: 'unknown', nextStep: 'wait' };
const notSubmitted: Words = { otp: 'not_submitted', transaction: 'pending', reason: 'deadline_passed' };

describe('the judge finds nothing wrong with', () => {
  const clean: [string, Evidence][] = [
    ['a paid verification', world([caseOf('cepta')], paid())],
    ['one that awaited its proof first', world([caseOf('cepta', { sequence: 2 })], paid())],
    [
      'the same result published again',
      (() => {
        const one = caseOf('cepta');
        return world([one], paid(), { results: [...resultsOf(one), ...resultsOf(one)] });
      })(),
    ],
    [
      'a code that was never sent',
      world([caseOf('cepta', notSubmitted)], ledgerOf('cepta', { event: 'refused' }, { event: 'dropped' })),
    ],
    [
      'a lost answer at Beqelal',
      world([caseOf('beqelal', awaiting)], ledgerOf('beqelal', received(), ACCEPTED, CHARGED)),
    ],
    [
      'a callback of Beqelal for a verification without an amount',
      world([caseOf('beqelal', awaiting)], ledgerOf('beqelal', received(), ACCEPTED, CHARGED, REPORTED)),
    ],
    [
      'a payment that Beqelal reported to have failed',
      world(
        [caseOf('beqelal', { otp: 'unknown', transaction: 'failed' })],
        ledgerOf('beqelal', received(), REJECTED, NOT_CHARGED, { ...REPORTED, says: 'failed' }),
      ),
    ],
    [
      'a forged callback of Beqelal',
      world(
        [caseOf('beqelal', awaiting, { amount: '100.00' })],
        ledgerOf('beqelal', received(), ACCEPTED, CHARGED, { ...REPORTED, trick: 'wrong_secret' }),
      ),
    ],
    ['a payment that never ends', world([caseOf('cepta', awaiting)], ledgerOf('cepta', received(), ACCEPTED))],
    [
      'another amount, with a person asked',
      world(
        [caseOf('cepta', { ...awaiting, needsReview: true, reason: 'amount_mismatch' }, { amount: '99.00' })],
        paid(),
      ),
    ],
    [
      'another amount, of which the provider never spoke',
      world([{ ...one, amount: '99.00', otp: '500005' }], ledgerOf('cepta', received('500005'), ACCEPTED, CHARGED)),
    ],
    [
      'another amount, in the place of which null was told',
      world(
        [{ ...one, amount: '99.00' }],
        [...paid(), ...ledgerOf('cepta', { event: 'fault', call: 'inquiry', detail: 'null_object' })],
      ),
    ],
    [
      'a wrong code and then the right one',
      world(
        [
          caseOf(
            'cepta',
            { id: 'cepta_0', otp: 'rejected', transaction: 'pending' },
            { otp: '400001', ids: ['cepta_0'] },
          ),
          caseOf('cepta'),
        ],
        ledgerOf('cepta', received('400001'), REJECTED, received(), ACCEPTED, CHARGED),
      ),
    ],
    [
      'the same code again, not sent because it is used',
      world(
        [
          caseOf('cepta'),
          caseOf(
            'cepta',
            { id: 'cepta_2', ...notSubmitted, transaction: 'succeeded', reason: 'already_used' },
            { ids: ['cepta_2'] },
          ),
        ],
        paid(),
      ),
    ],
    [
      'a code that Ayoconnect says is still awaited, typed and sent again',
      world(
        [
          caseOf(
            'ayoconnect',
            { id: 'ayoconnect_0', otp: 'unknown', transaction: 'pending' },
            { ids: ['ayoconnect_0'] },
          ),
          caseOf('ayoconnect'),
        ],
        ledgerOf(
          'ayoconnect',
          received(),
          { event: 'not_processed' },
          { event: 'inquiry', detail: 'PENDING_USER_VERIFICATION' },
          received(),
          ACCEPTED,
          CHARGED,
        ),
      ),
    ],
    [
      'the same, and the payment of the second one failed with its answer lost',
      world(
        [
          caseOf(
            'ayoconnect',
            { id: 'ayoconnect_0', otp: 'unknown', transaction: 'pending' },
            { ids: ['ayoconnect_0'] },
          ),
          caseOf('ayoconnect', { otp: 'unknown', transaction: 'failed' }),
        ],
        ledgerOf(
          'ayoconnect',
          { event: 'inquiry', detail: 'PENDING_USER_VERIFICATION' },
          received(),
          ACCEPTED,
          NOT_CHARGED,
        ),
      ),
    ],
    [
      'a lost answer at LipaLater',
      world(
        [caseOf('lipa-later', { otp: 'unknown', transaction: 'none' })],
        ledgerOf('lipa-later', received(), ACCEPTED),
      ),
    ],
  ];
  it.each(clean)('%s', (_name, evidence) => {
    expect(judge(evidence)).toEqual([]);
  });
});

const one = caseOf('cepta');
const published = resultsOf(caseOf('cepta', { sequence: 3 }));
const withResults = (results: ResultEvent[], words: Words = {}): Evidence =>
  world([caseOf('cepta', words)], paid(), { results });
const changed = (result: ResultEvent | undefined, words: Words): ResultEvent => {
  const its = result as ResultEvent;
  return { ...its, data: { ...its.data, ...words } };
};

const GUILTY: Record<ViolationKind, [string, Evidence][]> = {
  charged_twice: [['two charges', world([one], [...paid(), ...ledgerOf('cepta', CHARGED)])]],
  code_received_twice: [
    ['one code at the business layer twice', world([one], [...paid(), ...ledgerOf('cepta', received())])],
    [
      'a rejected code once more, by another verification',
      world(
        [
          caseOf('cepta', { otp: 'rejected', transaction: 'pending' }),
          caseOf('cepta', { id: 'cepta_2', otp: 'rejected', transaction: 'pending' }, { ids: ['cepta_2'] }),
        ],
        ledgerOf('cepta', received(), REJECTED, received(), REJECTED),
      ),
    ],
    [
      'a second code sent out for one request',
      world(
        [caseOf('lipa-later', { operation: 'send', transaction: 'none' }, { operation: 'send', otp: null })],
        ledgerOf('lipa-later', { event: 'otp_sent' }, { event: 'otp_sent' }),
      ),
    ],
  ],
  sent_more_often_than_begun: [
    [
      'two requests and one attempt',
      world([one], paid(), {
        wire: [1, 2].map((atMs) => ({ provider: 'cepta', reference: 'R1', otp: '123456', atMs })),
      }),
    ],
  ],
  two_ids_for_one_key: [['a repeat with an id of its own', world([{ ...one, ids: ['cepta_1', 'cepta_9'] }], paid())]],
  wrong_answer: [
    ['a 500', world([{ ...one, statuses: [202, 500] }], paid())],
    ['a repeat taken for another body', world([{ ...one, statuses: [202, 422] }], paid())],
  ],
  no_answer: [['a key that nobody answers', world([{ ...one, ids: [], resource: null }], [])]],
  lost: [['an id that GET does not know', world([{ ...one, resource: null }], [])]],
  unfinished: [
    [
      'still queued',
      world([caseOf('cepta', { state: 'queued', final: false, otp: null, transaction: null, sequence: 0 })], []),
    ],
    [
      'still sending',
      world([caseOf('cepta', { state: 'sending', final: false, otp: null, transaction: null, sequence: 0 })], []),
    ],
  ],
  unresolved: [
    ['a payment that was charged', world([caseOf('cepta', awaiting)], paid())],
    [
      'a payment that failed',
      world([caseOf('hello-clever', awaiting)], ledgerOf('hello-clever', received(), ACCEPTED, NOT_CHARGED)),
    ],
    ['a code that Ayoconnect never saw', world([caseOf('ayoconnect', awaiting)], [])],
    ['anything at LipaLater', world([caseOf('lipa-later', awaiting)], [])],
    [
      'an accepted code at Beqelal',
      world(
        [caseOf('beqelal', { ...awaiting, otp: 'accepted', transaction: 'pending' })],
        ledgerOf('beqelal', received(), ACCEPTED),
      ),
    ],
    [
      'a payment that Beqelal reported',
      world(
        [caseOf('beqelal', awaiting, { amount: '100.00' })],
        ledgerOf('beqelal', received(), ACCEPTED, CHARGED, REPORTED),
      ),
    ],
    [
      'a person asked about an amount that agrees',
      world(
        [caseOf('cepta', { ...awaiting, needsReview: true, reason: 'amount_mismatch' }, { amount: '100.00' })],
        paid(),
      ),
    ],
  ],
  gap: [
    ['nothing published', withResults([])],
    ['the first missing', withResults(published.slice(1), { sequence: 3 })],
    ['the middle missing', withResults([published[0] as ResultEvent, published[2] as ResultEvent], { sequence: 3 })],
    ['the last missing', withResults(published.slice(0, 2), { sequence: 3 })],
  ],
  two_finals: [
    [
      'two final results',
      withResults([changed(published[0], { final: true }), ...published.slice(1)], { sequence: 3 }),
    ],
    [
      'something after the final one',
      withResults([changed(published[0], { final: true }), changed(published[1], { sequence: 2 })], {
        sequence: 2,
        final: false,
        ...awaiting,
      }),
    ],
  ],
  result_changed: [
    [
      'other words under the same id',
      withResults([changed(resultsOf(one)[0], { otp: 'rejected' }), ...resultsOf(one)]),
    ],
  ],
  result_differs: [
    ['a result that says less than GET', withResults([changed(resultsOf(one)[0], { nextStep: 'wait' })])],
  ],
  result_of_nobody: [
    [
      'a result without a verification',
      withResults([...resultsOf(one), ...resultsOf(caseOf('beqelal', { id: 'beqelal_9' }))]),
    ],
  ],
  said_paid: [
    ['no charge', world([one], ledgerOf('cepta', received(), ACCEPTED))],
    ['a charge that went back', world([one], [...paid(), ...ledgerOf('cepta', { event: 'reversed' })])],
    ['another amount', world([{ ...one, amount: '99.00' }], paid())],
    [
      'already used, and nothing was paid',
      world([caseOf('cepta', { ...notSubmitted, reason: 'already_used', transaction: 'succeeded' })], []),
    ],
  ],
  said_not_paid: [
    ['accepted and failed', world([caseOf('cepta', { transaction: 'failed' })], paid())],
    ['unknown and failed', world([caseOf('cepta', { otp: 'unknown', transaction: 'failed' })], paid())],
  ],
  said_not_submitted: [['a code that came', world([caseOf('cepta', notSubmitted)], paid())]],
  said_accepted: [
    [
      'a code that was rejected',
      world([caseOf('lipa-later', { transaction: 'none' })], ledgerOf('lipa-later', received(), REJECTED)),
    ],
    ['a code that never came', world([caseOf('lipa-later', { transaction: 'none' })], [])],
    [
      'a send that was not',
      world([caseOf('lipa-later', { transaction: 'none' }, { operation: 'send', otp: null })], []),
    ],
  ],
  said_rejected: [
    ['a code that was accepted', world([caseOf('cepta', { otp: 'rejected', transaction: 'pending' })], paid())],
  ],
  said_unknown: [
    [
      'without proof, at a provider that moves money',
      world([caseOf('beqelal', { otp: 'unknown', transaction: 'unknown' })], []),
    ],
    ['untouched, though nobody said so', world([caseOf('ayoconnect', { otp: 'unknown', transaction: 'pending' })], [])],
    [
      'untouched, though the code was accepted',
      world(
        [caseOf('ayoconnect', { otp: 'unknown', transaction: 'pending' })],
        ledgerOf('ayoconnect', { event: 'inquiry', detail: 'PENDING_USER_VERIFICATION' }, received(), ACCEPTED),
      ),
    ],
    [
      'failed at Beqelal, which nobody can ask',
      world([caseOf('beqelal', { otp: 'unknown', transaction: 'failed' })], []),
    ],
  ],
  impossible_words: [
    [
      'accepted and pending for ever',
      world([caseOf('cepta', { transaction: 'pending' })], ledgerOf('cepta', received(), ACCEPTED)),
    ],
    [
      'rejected and paid',
      world([caseOf('cepta', { otp: 'rejected' })], ledgerOf('cepta', received(), REJECTED, CHARGED)),
    ],
    ['dead before it was sent, and unknown', world([caseOf('cepta', { ...notSubmitted, transaction: 'unknown' })], [])],
  ],
  sent_after_deadline: [
    ['by the count of the workers', world([one], paid(), { sendsAfterDeadline: 1 })],
    [
      'by what crossed the wire',
      world([one], paid(), { wire: [{ provider: 'cepta', reference: 'R1', otp: '123456', atMs: EXPIRES_AT + 1 }] }),
    ],
    [
      'by the time of the ledger',
      world(
        [one],
        paid().map((entry) => ({ ...entry, at: new Date(EXPIRES_AT + 1_001).toISOString() })),
      ),
    ],
  ],
};

describe('the judge condemns', () => {
  const guilty = Object.entries(GUILTY).flatMap(([kind, worlds]) =>
    worlds.map(([name, evidence]) => [kind as ViolationKind, name, evidence] as const),
  );
  it.each(guilty)('%s: %s', (kind, _name, evidence) => {
    expect(kindsIn(evidence)).toContain(kind);
  });

  it('whatever it has a word for', () => {
    expect(Object.keys(GUILTY).sort()).toEqual(Object.keys(VIOLATIONS).sort());
  });
});

describe('a final result that something contradicts later', () => {
  const [first] = resultsOf(one);
  const review = (words: Words = {}): ResultEvent => {
    const again = changed(first, { sequence: 2, needsReview: true, ...words });
    return { ...again, id: `${again.subject}.2`, type: 'otp.verification.review' };
  };

  it('stays one final result when a person is asked to look at it', () => {
    expect(kindsIn(withResults([first as ResultEvent, review()], { sequence: 2, needsReview: true }))).not.toContain(
      'two_finals',
    );
  });

  it('is two when the words change with it', () => {
    const differing = review({ transaction: 'failed' });
    expect(kindsIn(withResults([first as ResultEvent, differing], { sequence: 2, needsReview: true }))).toContain(
      'two_finals',
    );
  });
});
