import { inspect } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { z } from 'zod';
import { providers } from '../../src/providers/index.ts';
import type { HttpResponse, Provider } from '../../src/providers/provider.ts';
import { bind, build, type Fixture, loadFixture, SCENARIOS, stampOf, tokenOf } from './fixture.ts';

const HTML = '<!DOCTYPE html><html><head><title>Service</title></head><body>Please try again</body></html>';

/** A whole answer that lost its end, its body, or came from somebody in between. */
function damaged(response: HttpResponse): HttpResponse[] {
  const { body } = response;
  return [body.slice(0, Math.floor(body.length / 2)), body.slice(0, -1), '', HTML].map((part) => ({
    ...response,
    body: part,
  }));
}

describe.each(Object.entries(providers))('%s', (adapter, provider: Provider) => {
  const fixture = loadFixture(adapter);
  const bound = bind(provider, fixture);
  const stamp = stampOf(fixture);
  const reference = referenceOf(fixture);
  const interpret = (given: Fixture['responses'][number], response: HttpResponse) => {
    const switched = Object.keys(given.options).length > 0 ? bind(provider, fixture, given) : bound;
    return switched.operations[given.operation]?.interpret(response, reference);
  };

  it('is registered under its own name', () => {
    expect(provider.adapter).toBe(adapter);
    expect(bound.adapter).toBe(adapter);
  });

  it('shows the common scenarios and every call it can make', () => {
    const shown = new Set(fixture.responses.map(({ scenario }) => scenario).filter((scenario) => scenario));
    expect([...SCENARIOS].filter((scenario) => !shown.has(scenario))).toEqual([]);
    const calls = [
      ...Object.keys(bound.operations),
      ...(bound.inquiry ? ['inquiry'] : []),
      ...Object.keys(bound.tokens),
    ];
    expect(new Set(fixture.requests.map(({ call }) => call))).toEqual(new Set(calls));
    expect(fixture.inquiries.length > 0).toBe(bound.inquiry !== null);
    expect(new Set(fixture.tokenAnswers.map(({ call }) => call))).toEqual(new Set(Object.keys(bound.tokens)));
  });

  it('names its account without a secret', () => {
    expect(provider.account(provider.credentials.parse(fixture.credentials))).toBe(fixture.account);
  });

  it('has a configuration with defaults, in which an unknown key is a fault', () => {
    expect(provider.options.parse(undefined)).toEqual(provider.options.parse({}));
    expect(provider.options.safeParse({ paths: { verfiy: '/x' } }).success).toBe(false);
    expect(provider.options.safeParse({ unheardOf: true }).success).toBe(false);
    expect(provider.credentials.safeParse({ ...fixture.credentials, unheardOf: 'x' }).success).toBe(false);
    expect(provider.options.safeParse({ paths: { verify: 'no/slash' } }).success).toBe(false);
  });

  it('can be described by JSON Schema', () => {
    const schemas = [
      provider.options,
      provider.credentials,
      ...Object.values(bound.operations).map((one) => one.params),
    ];
    for (const schema of schemas) {
      expect(z.toJSONSchema(schema, { io: 'input' })).toMatchObject({ additionalProperties: false });
    }
  });

  it.each(fixture.requests)('request: $name', (given) => {
    const request = build(bind(provider, fixture, given), given, stamp);
    expect(request).toEqual(given.expect);
    expect(build(bind(provider, fixture, given), given, stampOf(fixture))).toEqual(request);
  });

  it.each(fixture.requests.filter(({ call }) => call === 'verify' || call === 'send'))('params: $name', (given) => {
    const operation = provider.operations[given.call as 'verify' | 'send'];
    if (operation === undefined) throw new Error(`no ${given.call}`);
    const params = operation.params.parse(given.params);
    expect(operation.params.parse(params)).toEqual(params);
    expect(operation.reference(params)).toEqual(given.reference);
    expect(operation.takesOtp).toBe(given.otp !== undefined);
    expect(operation.params.safeParse({ ...given.params, unheardOf: 'x' }).success).toBe(false);
    expect(operation.params.safeParse({}).success).toBe(false);
    expect(operation.params.safeParse(null).success).toBe(false);
    for (const name of operation.plainParams) {
      for (const bad of ['', 'x'.repeat(5000), 'a\nb', 'a\u0000b', 7, null]) {
        expect(operation.params.safeParse({ ...given.params, [name]: bad }).success, `${name}: ${bad}`).toBe(false);
      }
    }
    if (given.tokens) expect(bound.operations[given.call as 'verify']?.tokens(params)).toEqual(given.tokens);
  });

  const signed = fixture.requests.filter(({ call, signature }) => call === 'verify' && signature !== undefined);
  it.each(signed)('one changed byte of the body changes the signature: $name', (given) => {
    const changed = { ...given, otp: given.otp?.replace(/.$/, (last) => (last === '9' ? '8' : '9')) };
    const [one, other] = [given, changed].map((each) => build(bind(provider, fixture, each), each, stamp));
    expect(other?.body).not.toBe(one?.body);
    expect(other?.body?.length).toBe(one?.body?.length);
    expect(other?.headers[given.signature ?? '']).not.toBe(one?.headers[given.signature ?? '']);
  });

  it.each(fixture.tokenAnswers)('token answer: $name', (given) => {
    const answer = tokenOf(bound, given.call).interpret(given.response);
    expect(answer.kind === 'token' ? { ...answer, token: answer.token.reveal() } : answer).toEqual(given.answer);
    for (const response of damaged(given.response)) {
      expect(tokenOf(bound, given.call).interpret(response).kind).toBe('unreadable');
    }
  });

  it('gives the same token the same key, and no token a telling one', () => {
    for (const given of fixture.requests.filter(({ cacheKey }) => cacheKey !== undefined)) {
      expect(tokenOf(bound, given.call).cacheKey(given.params ?? null)).toBe(given.cacheKey);
    }
  });

  it.each(fixture.responses)('answer: $name', (given) => {
    expect(interpret(given, given.response)).toEqual(given.outcome);
  });

  it.each(fixture.responses.filter(({ anyBody }) => !anyBody))('a damaged answer proves nothing: $name', (given) => {
    for (const response of damaged(given.response))
      expect(interpret(given, response)).toMatchObject({ kind: 'unknown' });
  });

  it.each(fixture.responses.filter(({ anyBody }) => anyBody))('the body does not matter: $name', (given) => {
    for (const response of damaged(given.response)) {
      expect(interpret(given, response)).toMatchObject({ kind: given.outcome.kind });
    }
  });

  it('leaves out what an answer does not say', () => {
    const said = [
      ...fixture.responses.map((given) => interpret(given, given.response)),
      ...fixture.inquiries.map((given) =>
        bound.inquiry?.interpret(given.response, given.subject ?? { reference, params: {} }),
      ),
      ...fixture.tokenAnswers.map((given) => tokenOf(bound, given.call).interpret(given.response)),
    ];
    for (const one of said) expect(Object.values(one ?? {})).not.toContain(undefined);
  });

  it('believes no words under an HTTP status that its documents do not give them', () => {
    const elsewhere = (response: HttpResponse): HttpResponse => ({ ...response, status: 299 });
    for (const given of fixture.responses) {
      expect(interpret(given, elsewhere(given.response)), given.name).toMatchObject({
        kind: 'unknown',
        reason: 'unexpected_answer',
        documented: false,
      });
    }
    for (const given of fixture.inquiries) {
      const subject = given.subject ?? { reference, params: {} };
      expect(bound.inquiry?.interpret(elsewhere(given.response), subject), given.name).toMatchObject({
        kind: 'nothing',
        documented: false,
      });
    }
    for (const given of fixture.tokenAnswers) {
      const answer = tokenOf(bound, given.call).interpret(elsewhere(given.response));
      expect(answer, given.name).toMatchObject({ kind: 'unreadable' });
    }
  });

  it.each(fixture.inquiries)('inquiry: $name', (given) => {
    const { inquiry } = bind(provider, fixture, given);
    const subject = given.subject ?? { reference, params: {} };
    expect(inquiry?.interpret(given.response, subject)).toEqual(given.finding);
    for (const response of damaged(given.response)) {
      expect(inquiry?.interpret(response, subject)).toMatchObject({ kind: 'nothing' });
    }
    if (given.response.body.includes(`"${subject.reference}"`)) {
      expect(inquiry?.interpret(given.response, { ...subject, reference: 'another' })).toMatchObject({
        kind: 'nothing',
      });
    }
  });

  it('has an answer for every scenario that its name promises', () => {
    const kinds = { accepted: 'accepted', 'refused code': 'rejected', garbled: 'unknown', undocumented: 'unknown' };
    for (const { scenario, outcome } of fixture.responses) {
      if (scenario !== undefined && scenario in kinds) expect(outcome.kind).toBe(kinds[scenario as keyof typeof kinds]);
      if (scenario === 'server error') expect(outcome.kind).toBe('unknown');
      if (scenario === 'throttled') expect(['refused', 'unknown']).toContain(outcome.kind);
      if (scenario === 'undocumented') expect(outcome).toMatchObject({ documented: false });
    }
  });

  it('keeps its secrets and the code out of everything that may be looked at', () => {
    const secrets = secretsOf(fixture, provider);
    const seen = [
      JSON.stringify(bound),
      inspect(bound, { depth: 10 }),
      JSON.stringify(provider.credentials.parse(fixture.credentials)),
      inspect(provider.credentials.parse(fixture.credentials), { depth: 10 }),
      ...fixture.responses.flatMap((given) =>
        [given.response, ...damaged(given.response)].map((response) => JSON.stringify(interpret(given, response))),
      ),
      ...fixture.inquiries.map((given) =>
        JSON.stringify(bound.inquiry?.interpret(given.response, given.subject ?? { reference, params: {} })),
      ),
      ...fixture.tokenAnswers.map((given) => JSON.stringify(tokenOf(bound, given.call).interpret(given.response))),
      ...fixture.requests.flatMap((given) => errorsOf(() => build(bound, given, { ...stamp, tokens: {} }))),
      ...fixture.requests.flatMap((given) => errorsOf(() => build(bound, { ...given, otp: '' }, stamp))),
      ...Object.keys(fixture.credentials).flatMap((name) =>
        errorsOf(() => provider.credentials.parse({ ...fixture.credentials, [name]: '', extra: 1 })),
      ),
    ];
    for (const text of seen) {
      for (const secret of secrets) expect(text).not.toContain(secret);
    }
  });

  it('names answers by short words', () => {
    const codes = [
      ...fixture.responses.map((given) => interpret(given, given.response)?.providerCode),
      ...fixture.inquiries.map((given) => given.finding.providerCode),
    ];
    for (const code of codes) expect(code).toMatch(/^[A-Za-z0-9_. -]{1,64}$/);
  });

  test('whatever comes, nothing throws and nothing is taken for a yes', () => {
    const statuses = fc.oneof(fc.constantFrom(200, 201, 202, 400, 401, 403, 404, 429, 479, 500), fc.nat(999));
    const bodies = fc.oneof(
      fc.string(),
      fc.json(),
      fc
        .constantFrom(...fixture.responses.map(({ response }) => response.body))
        .chain((body) => fc.nat(Math.max(0, body.length - 1)).map((cut) => body.slice(0, cut))),
    );
    const headers = fc.dictionary(fc.constantFrom('retry-after', 'date', 'content-type'), fc.string());
    fc.assert(
      fc.property(statuses, headers, bodies, (status, some, body) => {
        const response = { status, headers: some, body };
        for (const operation of Object.values(bound.operations)) {
          const outcome = operation.interpret(response, reference);
          expect(outcome.kind).not.toBe('accepted');
          JSON.stringify(outcome);
        }
        const finding = bound.inquiry?.interpret(response, { reference, params: {} });
        expect(finding?.kind ?? 'nothing').not.toBe('paid');
        for (const token of Object.values(bound.tokens)) expect(token.interpret(response).kind).not.toBe('token');
      }),
      { numRuns: 200 },
    );
  });

  test('a documented yes whose words are changed is no yes', () => {
    const yes = fixture.responses.filter(({ outcome }) => outcome.kind === 'accepted');
    const changes = fc
      .constantFrom(...yes)
      .chain((given) =>
        fc.tuple(fc.constant(given), fc.nat(given.response.body.length - 1), fc.constantFrom('\u0000', '{', '"', ']')),
      );
    fc.assert(
      fc.property(changes, ([given, at, byte]) => {
        const body = `${given.response.body.slice(0, at)}${byte}${given.response.body.slice(at + 1)}`;
        const outcome = interpret(given, { ...given.response, body });
        // A byte may fall into a text that means nothing; then the answer still reads, and only then.
        if (!isJson(body)) expect(outcome?.kind).toBe('unknown');
        else expect(['accepted', 'unknown']).toContain(outcome?.kind);
      }),
      { numRuns: 200 },
    );
  });
});

test('a provider without a fixture is named', () => {
  expect(() => loadFixture('sixth')).toThrow('sixth is registered and has no test/providers/sixth.fixture.json');
});

function referenceOf(fixture: Fixture): string {
  const given = fixture.requests.find(({ call }) => call === 'verify');
  return given?.reference?.value ?? '';
}

/** Whatever the credentials' schema turns into a secret, the tokens, and the codes of the requests. */
function secretsOf(fixture: Fixture, provider: Provider): string[] {
  const parsed = provider.credentials.parse(fixture.credentials) as Record<string, unknown>;
  const credentials = Object.entries(fixture.credentials).filter(([name]) => typeof parsed[name] !== 'string');
  expect(credentials.length).toBeGreaterThan(0);
  const otps = fixture.requests.flatMap(({ otp }) => (otp ? [otp] : []));
  return [...credentials.map(([, value]) => value), ...Object.values(fixture.stamp.tokens), ...otps];
}

function errorsOf(run: () => unknown): string[] {
  try {
    run();
    return [];
  } catch (error) {
    return [inspect(error), String(error)];
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
