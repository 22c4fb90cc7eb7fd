/** Answers of the providers, good ones gone bad: whatever is garbled is unknown, and nothing throws. */
import fc from 'fast-check';
import { providers } from '../../../src/providers/index.ts';
import type { BoundProvider, Finding, HttpResponse, Outcome, TokenAnswer } from '../../../src/providers/provider.ts';
import { bind, type Fixture, loadFixture } from '../../providers/fixture.ts';
import { anyText, mutatedOneOf, seldom, type Vocabulary } from '../mutate.ts';
import { type Oracle, oracles } from '../oracles/providers.ts';
import { demand, demandNoLeak, type Target } from '../target.ts';

/** What a provider might repeat of what it was sent, and must go no further than to the client. */
export const CANARY = 'C4n4ry-5566-0tp';

interface AnswerCase {
  readonly adapter: string;
  readonly ask: 'verify' | 'send' | 'inquiry' | 'token' | 'b2bToken' | 'b2b2cToken';
  readonly options: Readonly<Record<string, unknown>>;
  readonly reference: string;
  readonly response: HttpResponse;
}

/** Wrong ones are given by tests. */
export interface AnswerSubject {
  bind(adapter: string, options: Readonly<Record<string, unknown>>): BoundProvider;
}

const bound = new Map<string, BoundProvider>();
const REAL: AnswerSubject = {
  bind(adapter, options) {
    const key = `${adapter} ${JSON.stringify(options)}`;
    const known = bound.get(key) ?? bind(providers[adapter] as never, loadFixture(adapter), { options });
    bound.set(key, known);
    return known;
  },
};

const STATUSES = [200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 405, 409, 422, 429, 479, 500, 502, 503, 504];
const HEADERS = fc.dictionary(
  fc.constantFrom('retry-after', 'date', 'content-type', '__proto__'),
  fc.oneof(
    fc.constantFrom(
      '0',
      '-1',
      '1e9',
      '99999999999',
      'Fri, 31 Dec 1999 23:59:59 GMT',
      'GMT',
      'text/html',
      'application/json',
    ),
    anyText(30),
  ),
  { maxKeys: 2, noNullPrototype: true },
);

export function providerAnswers(subject: AnswerSubject = REAL): Target<AnswerCase> {
  return {
    name: 'provider-answers',
    batch: 500,
    // Whatever is registered is garbled by the conformance suite; here it is judged by a second reading of the documents.
    cases: fc.oneof(...Object.keys(oracles).map(casesOf)),
    check: ({ adapter, ask, options, reference, response }) => {
      const provider = subject.bind(adapter, options);
      const oracle = oracles[adapter];
      if (oracle === undefined) throw new Error(`there is no oracle for ${adapter}`);
      switch (ask) {
        case 'verify':
        case 'send': {
          const outcome = provider.operations[ask]?.interpret(response, reference) as Outcome;
          return judgeOutcome(adapter, oracle, ask, { options, reference, response }, outcome);
        }
        case 'inquiry': {
          const finding = provider.inquiry?.interpret(response, { reference, params: {} }) as Finding;
          return judgeFinding(adapter, oracle, { reference, response }, finding);
        }
        case 'token':
        case 'b2bToken':
        case 'b2b2cToken':
          return judgeToken(adapter, oracle, response, provider.tokens[ask]?.interpret(response) as TokenAnswer);
      }
      return ask satisfies never;
    },
  };
}

function casesOf(adapter: string): fc.Arbitrary<AnswerCase> {
  const fixture = loadFixture(adapter);
  const ownReference = fixture.requests.find(({ call }) => call === 'verify')?.reference?.value ?? '';
  const known = [
    ...fixture.responses.map(({ operation, options, response }) => ({
      ask: operation,
      options,
      response,
      reference: ownReference,
    })),
    ...fixture.inquiries.map(({ options, response, subject }) => ({
      ask: 'inquiry' as const,
      options,
      response,
      reference: subject?.reference ?? ownReference,
    })),
    ...fixture.tokenAnswers.map(({ call, response }) => ({
      ask: call as 'token',
      options: {},
      response,
      reference: ownReference,
    })),
  ];
  const words = { ...wordsOf(fixture), canaries: [CANARY] };
  const garbled = fc
    .record({
      document: mutatedOneOf(
        known.map(({ response }) => response.body),
        words,
      ),
      status: seldom(fc.constantFrom(...STATUSES), 7),
      headers: seldom(HEADERS, 5),
      // An answer may also be read as one to another question.
      asked: seldom(fc.nat({ max: known.length - 1 }), 10),
    })
    .map(({ document, status, headers, asked }): AnswerCase => {
      const from = known[document.from] as (typeof known)[number];
      const to = asked === null ? from : (known[asked] as (typeof known)[number]);
      const response = {
        status: status ?? from.response.status,
        headers: headers ?? from.response.headers,
        body: document.text,
      };
      return { adapter, ask: to.ask, options: to.options, reference: to.reference, response };
    });
  const nonsense = fc
    .record({
      known: fc.constantFrom(...known),
      status: fc.oneof(fc.constantFrom(...STATUSES), fc.nat({ max: 999 })),
      headers: HEADERS,
      body: fc.oneof(anyText(60), fc.json(), fc.constantFrom('', 'null', '"', '{', '[]', '<html></html>')),
    })
    .map(({ known: { ask, options, reference }, status, headers, body }): AnswerCase => {
      return { adapter, ask, options, reference, response: { status, headers, body } };
    });
  return fc.oneof({ weight: 9, arbitrary: garbled }, { weight: 1, arbitrary: nonsense });
}

/** Every value and every name in the fixture's answers: so a mutation can turn a no into half a yes. */
function wordsOf(fixture: Pick<Fixture, 'responses' | 'inquiries' | 'tokenAnswers'>): Vocabulary {
  const tokens = new Set<string>();
  const names = new Set<string>();
  const take = (value: unknown): void => {
    if (typeof value === 'object' && value !== null) {
      for (const [name, inner] of Object.entries(value)) {
        if (!Array.isArray(value)) names.add(name);
        take(inner);
      }
    } else tokens.add(JSON.stringify(value));
  };
  for (const { response } of [...fixture.responses, ...fixture.inquiries, ...fixture.tokenAnswers]) {
    try {
      take(JSON.parse(response.body));
    } catch {} // some are no JSON on purpose
  }
  return { tokens: [...tokens], names: [...names] };
}

// ---- verdicts -------------------------------------------------------------------------------------------------------

/** Where a provider's word goes: logs, metrics' neighbours, the history, the client. */
const SHOWN_WORD = /^[A-Za-z0-9_. -]{1,64}$/;

function demandWord(where: string, providerCode: unknown): void {
  if (providerCode === null) return;
  demand(typeof providerCode === 'string' && SHOWN_WORD.test(providerCode), `${where}: providerCode is no short word`);
  demandNoLeak(`${where}: providerCode`, providerCode as string, [CANARY]);
}

function judgeOutcome(
  adapter: string,
  oracle: Oracle,
  ask: 'verify' | 'send',
  { options, reference, response }: Pick<AnswerCase, 'options' | 'reference' | 'response'>,
  outcome: Outcome,
): string {
  const where = `${adapter} ${ask}`;
  const allowed = oracle.answer(ask, response, reference, options);
  demandWord(where, outcome.providerCode);
  demandSayable(where, outcome);
  switch (outcome.kind) {
    case 'accepted':
      demand(allowed.accepted === true, `${where}: accepted, and the words for it do not stand there`);
      demandNoLeak(where, JSON.stringify({ ...outcome, details: null, identifiers: null }), [CANARY]);
      for (const { value } of outcome.amounts ?? [])
        demand(/^\d+(\.\d+)?$/.test(value), `${where}: an amount is no decimal`);
      break;
    case 'rejected':
      demand(allowed.rejected === true, `${where}: rejected, and the words for it do not stand there`);
      demandCount(where, outcome.attemptsRemaining);
      break;
    case 'refused':
      demand(allowed.refused === true, `${where}: refused, and the words for it do not stand there`);
      demandWait(where, outcome.retryAfterMs);
      break;
    case 'unknown':
      demandWait(where, outcome.slowDownMs);
      break;
    default:
      outcome satisfies never;
      demand(false, `${where}: an outcome of no known kind`);
  }
  return outcome.kind;
}

function judgeFinding(
  adapter: string,
  oracle: Oracle,
  { reference, response }: Pick<AnswerCase, 'reference' | 'response'>,
  finding: Finding,
): string {
  const where = `${adapter} inquiry`;
  const allowed = oracle.inquiry?.(response, reference) ?? {};
  demandFinding(where, finding, allowed);
  return `inquiry ${finding.kind}`;
}

/** Also what a callback says is a finding. */
export function demandFinding(
  where: string,
  finding: Finding,
  allowed: {
    readonly paid?: boolean;
    readonly notPaid?: boolean;
    readonly untouched?: boolean;
    readonly pending?: boolean;
  },
): void {
  demandWord(where, finding.providerCode);
  demandSayable(where, finding);
  switch (finding.kind) {
    case 'paid':
    case 'not_paid': {
      const may = finding.kind === 'paid' ? allowed.paid : allowed.notPaid;
      demand(may === true, `${where}: ${finding.kind}, and the words for it do not stand there`);
      for (const { value } of finding.amounts ?? [])
        demand(/^\d+(\.\d+)?$/.test(value), `${where}: an amount is no decimal`);
      return;
    }
    case 'untouched':
      demand(allowed.untouched === true, `${where}: untouched, and the words for it do not stand there`);
      return;
    case 'pending':
      demand(allowed.pending === true, `${where}: pending, and the words for it do not stand there`);
      return;
    case 'nothing':
      demandWait(where, finding.slowDownMs);
      return;
  }
  finding satisfies never;
  demand(false, `${where}: a finding of no known kind`);
}

function judgeToken(adapter: string, oracle: Oracle, response: HttpResponse, answer: TokenAnswer): string {
  const where = `${adapter} token`;
  const allowed = oracle.token?.(response) ?? { token: false, refused: false };
  switch (answer.kind) {
    case 'token': {
      demand(allowed.token, `${where}: taken for a token, and none stands there`);
      demand(/^[\x20-\x7e]+$/.test(answer.token.reveal()), `${where}: a token that no header can carry`);
      demand(answer.token.reveal().length <= 16_384, `${where}: a token that is longer than headers may be`);
      const life = answer.expiresInMs;
      demand(Number.isInteger(life) && life > 0 && life <= 1e12, `${where}: a lifetime that is no whole number of ms`);
      demand(JSON.stringify(answer.token) === '"[secret]"', `${where}: a token that shows itself`);
      break;
    }
    case 'refused':
      demand(allowed.refused, `${where}: refused, and the words for it do not stand there`);
      demandWord(where, answer.providerCode);
      demandWait(where, answer.retryAfterMs);
      break;
    case 'unreadable':
      demandWord(where, answer.providerCode);
      break;
    default:
      answer satisfies never;
      demand(false, `${where}: an answer of no known kind`);
  }
  return `token ${answer.kind}`;
}

/** It is written into the journal as JSON, some of it sealed: whatever cannot be said would be lost after the call. */
function demandSayable(where: string, value: unknown): void {
  try {
    JSON.stringify(value);
  } catch (error) {
    demand(false, `${where}: what was read cannot be written down: ${error instanceof Error ? error.message : error}`);
  }
}

function demandWait(where: string, ms: number | undefined): void {
  demand(ms === undefined || (ms >= 0 && ms <= 3_600_000), `${where}: waits ${ms} ms`);
}

function demandCount(where: string, count: number | undefined): void {
  demand(
    count === undefined || (Number.isInteger(count) && count >= 0 && count < 1_000),
    `${where}: ${count} attempts remain`,
  );
}
