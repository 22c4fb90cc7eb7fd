/** Would it be noticed? Each target is given an implementation that is wrong in one way, and must condemn it. */
import { afterEach, describe, expect, it } from 'vitest';
import { ConfigError, loadConfig } from '../../src/config.ts';
import { createResultsConsumer } from '../../src/index.ts';
import { readRecord } from '../../src/producers/record.ts';
import { InvalidRequestError, parseRequest } from '../../src/producers/request.ts';
import { Opener } from '../../src/producers/sealing.ts';
import { providers } from '../../src/providers/index.ts';
import type { BoundProvider, Finding, Outcome } from '../../src/providers/provider.ts';
import { bind, loadFixture } from '../providers/fixture.ts';
import { replay, run } from './engine.ts';
import type { Target } from './target.ts';
import { callbackBodies } from './targets/callback-bodies.ts';
import { callbackOf, callbackProofs } from './targets/callback-proofs.ts';
import { configuration } from './targets/configuration.ts';
import { intakeHttp } from './targets/intake-http.ts';
import { intakeRequests } from './targets/intake-requests.ts';
import { journalRecords } from './targets/journal-records.ts';
import { providerAnswers } from './targets/provider-answers.ts';
import { providerWire } from './targets/provider-wire.ts';
import { KEYS, sealedTexts } from './targets/sealed-texts.ts';
import { strangeJobs } from './targets/strange-jobs.ts';
import { strangeResults } from './targets/strange-results.ts';
import type { RawAnswer } from './wire-client.ts';

const open: { target: { close?: () => Promise<void> } | null } = { target: null };
afterEach(async () => {
  await open.target?.close?.();
  open.target = null;
});

/** What it says of the first wrong case among so many. */
async function verdictOn<Case>(target: Target<Case>, cases: number): Promise<string> {
  open.target = target as { close?: () => Promise<void> };
  const [figures] = await run([target as Target], { seed: 3, cases, sweep: false, shrink: false });
  return figures?.failures[0]?.says ?? 'all is well';
}

/** Of this one case. */
async function verdictOnOne<Case>(target: Target<Case>, given: Case): Promise<string> {
  open.target = target as { close?: () => Promise<void> };
  return (await replay(target as Target, given)) ?? 'all is well';
}

const YES: Outcome = { kind: 'accepted', transaction: 'pending', providerCode: 'Ok' };
const bound = (adapter: string, options = {}): BoundProvider =>
  bind(providers[adapter] as never, loadFixture(adapter), { options });

/** The real providers, but for what becomes of their outcomes and findings. */
function answering(change: {
  outcome?: (outcome: Outcome, body: string) => Outcome;
  finding?: (finding: Finding) => Finding;
}) {
  return {
    bind: (adapter: string, options: Readonly<Record<string, unknown>>): BoundProvider => {
      const { operations, inquiry, ...rest } = bound(adapter, options);
      const { outcome = (one) => one, finding = (one) => one } = change;
      return {
        ...rest,
        operations: Object.fromEntries(
          Object.entries(operations).map(([name, operation]) => [
            name,
            {
              ...operation,
              interpret: (response, reference) => outcome(operation.interpret(response, reference), response.body),
            },
          ]),
        ),
        inquiry: inquiry && {
          ...inquiry,
          applies: (subject) => inquiry.applies(subject),
          interpret: (response, subject) => finding(inquiry.interpret(response, subject)),
        },
      } satisfies BoundProvider;
    },
  };
}

describe('provider-answers condemns', () => {
  it('a yes for whatever has the word in it', async () => {
    const subject = answering({ outcome: (outcome, body) => (/PROCESSED|"ok"/i.test(body) ? YES : outcome) });
    expect(await verdictOn(providerAnswers(subject), 2_000)).toContain(
      'accepted, and the words for it do not stand there',
    );
  });

  it('silence that is taken for a no', async () => {
    const no: Outcome = { kind: 'rejected', reason: 'wrong_code', transaction: 'pending', providerCode: 'X' };
    const subject = answering({ outcome: (outcome) => (outcome.kind === 'unknown' ? no : outcome) });
    expect(await verdictOn(providerAnswers(subject), 500)).toContain(
      'rejected, and the words for it do not stand there',
    );
  });

  it('an unknown status that is taken for a payment', async () => {
    const subject = answering({
      finding: (finding) => (finding.kind === 'nothing' ? { kind: 'paid', providerCode: 'X' } : finding),
    });
    expect(await verdictOn(providerAnswers(subject), 500)).toContain('paid, and the words for it do not stand there');
  });

  it("a customer's text that is shown as the provider's word", async () => {
    const subject = answering({
      outcome: (outcome, body) =>
        outcome.kind === 'unknown' ? { ...outcome, providerCode: body.slice(0, 64) } : outcome,
    });
    expect(await verdictOn(providerAnswers(subject), 500)).toContain('providerCode');
  });

  it('a reader that stumbles', async () => {
    const subject = answering({ outcome: (_, body) => JSON.parse(body) });
    expect(await verdictOn(providerAnswers(subject), 500)).toMatch(/it threw|providerCode is no short word/);
  });
});

describe('provider-wire condemns', () => {
  it('"not sent" for whatever has no answer', async () => {
    const target = await providerWire({
      send: async (transport, request) => {
        const reply = await transport.send(request);
        return reply.kind === 'lost' ? { kind: 'not_sent', code: reply.code } : reply;
      },
    });
    expect(await verdictOn(target, 100)).toContain('called not sent');
  });

  it('a request that is sent again', async () => {
    const target = await providerWire({
      send: async (transport, request) => {
        const reply = await transport.send(request);
        return reply.kind === 'lost' ? await transport.send(request) : reply;
      },
    });
    expect(await verdictOn(target, 100)).toContain('2 requests of one call');
  });
});

describe('callback-proofs condemns', () => {
  it('a proof that need only begin rightly', async () => {
    const target = callbackProofs({
      callbackOf: (gate) => {
        const callback = callbackOf(gate);
        const right = Object.values(gate.prove(Buffer.alloc(0)).headers)[0]?.slice(0, 9) ?? '';
        const begins = (value: string): boolean => right !== '' && value.startsWith(right);
        return {
          ...callback,
          authenticate: (request) => callback.authenticate(request) || Object.values(request.headers).some(begins),
        };
      },
    });
    expect(await verdictOn(target, 2_000)).toContain('the proof does not stand there');
  });
});

describe('callback-bodies condemns', () => {
  it('a word that is recognised by its beginning', async () => {
    const target = callbackBodies({
      callbackOf: (gate) => {
        const callback = callbackOf(gate);
        return {
          ...callback,
          read: (body) => {
            const reading = callback.read(body);
            const paid = reading !== null && /"(status|latestTransactionStatus)":"(p|s|rec)/i.test(body);
            return paid ? { ...reading, finding: { kind: 'paid', providerCode: 'x' } } : reading;
          },
        };
      },
    });
    expect(await verdictOn(target, 2_000)).toContain('paid, and the words for it do not stand there');
  });
});

describe('intake-requests condemns', () => {
  it('a code that is trimmed', async () => {
    const target = intakeRequests({
      parseRequest: (body, partitions) => {
        const { otp } = (body ?? {}) as { otp?: unknown };
        const trimmed = typeof otp === 'string' ? { ...(body as object), otp: otp.trim() } : body;
        return parseRequest(trimmed, partitions);
      },
    });
    expect(
      await verdictOnOne(target, { text: '{"provider":"beqelal","otp":" 0123","params":{"reference":"R"}}' }),
    ).toContain('taken for a request, and it is none');
  });

  it('a fault that quotes', async () => {
    const target = intakeRequests({
      parseRequest: (body, partitions) => {
        try {
          return parseRequest(body, partitions);
        } catch (error) {
          if (!(error instanceof InvalidRequestError)) throw error;
          throw new InvalidRequestError([...error.faults, { field: 'otp', problem: `got ${JSON.stringify(body)}` }]);
        }
      },
    });
    expect(await verdictOn(target, 500)).toContain('shows the canary');
  });

  it('a good request that is refused', async () => {
    const target = intakeRequests({
      parseRequest: () => {
        throw new InvalidRequestError([{ field: '(body)', problem: 'must be another one' }]);
      },
    });
    expect(await verdictOn(target, 100)).toContain('a good request was refused');
  });
});

describe('intake-http condemns', () => {
  it.each([
    ['a 500', { status: 500 }, 'a 500'],
    ['an acceptance of what is no request', { status: 202, type: 'application/json' }, 'it is no good request'],
    ['an error that repeats the request', { body: '{"detail":"C4n4ry77"}' }, 'shows the canary'],
    ['an error without a type', { body: '{}' }, 'says undefined'],
  ])('%s', async (_, { type, ...wrong }: { status?: number; type?: string; body?: string }, says) => {
    const lie = (answer: RawAnswer): RawAnswer => {
      const { headers } = answer;
      return { ...answer, ...wrong, headers: { ...headers, 'content-type': type ?? headers['content-type'] ?? '' } };
    };
    const subject = { answered: (answers: RawAnswer[]) => answers.map(lie) };
    const given = {
      ...{ method: 'POST', path: '/v1/verifications', headers: [], framing: 'length' as const, garbled: [] },
      body: '{"provider":"beqelal","otp":"C4n4ry77","params":{"reference":"R"}}',
    };
    expect(await verdictOnOne(await intakeHttp(subject), given)).toContain(says);
  });
});

describe('configuration condemns', () => {
  const given = {
    text: 'providers: { cepta: { baseUrl: http://x, credentials: { secretKey: sk_live_4eC39HqLyjWDarjt } } }\n',
    environment: {},
  };

  it('a fault that quotes a secret', async () => {
    const target = configuration({
      loadConfig: () => {
        throw new ConfigError([{ key: 'providers.cepta', message: 'got sk_live_4eC39HqLyjWDarjt' }], null);
      },
    });
    expect(await verdictOnOne(target, given)).toContain('the error shows');
  });

  it('any other error', async () => {
    const target = configuration({
      loadConfig: () => {
        throw new TypeError('cannot read properties of undefined');
      },
    });
    expect(await verdictOnOne(target, given)).toContain('it threw');
  });

  it('an unsound configuration that is accepted', async () => {
    const target = configuration({
      loadConfig: (options) => {
        const config = loadConfig(options);
        return { ...config, intake: { ...config.intake, port: 70_000 } };
      },
    });
    const good = given.text.replace('http:', 'https:');
    expect(await verdictOnOne(target, { ...given, text: good })).toContain('accepted with the port 70000');
  });
});

describe('journal-records condemns', () => {
  it('a reader that believes what stands there', async () => {
    const target = journalRecords({
      readRecord: (id, partition, raw) => {
        JSON.parse(raw.head ?? '{}');
        return readRecord(id, partition, raw);
      },
    });
    expect(await verdictOn(target, 1_000)).toContain('refused by accident');
  });

  it('a time that is none', async () => {
    const target = journalRecords({
      readRecord: (id, partition, raw) => {
        const record = readRecord(id, partition, { ...raw, createdAt: '0' });
        return record && { ...record, createdAt: Number(raw.createdAt) };
      },
    });
    expect(await verdictOn(target, 1_000)).toMatch(/createdAt is no number|Invalid time value/);
  });
});

describe('strange-jobs condemns', () => {
  it('a worker that no longer works', async () => {
    const target = await strangeJobs({
      patienceMs: 300,
      afterwards: async (pipeline) => await pipeline.workers.get('hello-clever')?.close(),
    });
    expect(await verdictOnOne(target, { strangers: [] })).toContain('the worker is stopped');
  });

  it('an event that repeats what a stranger has written', async () => {
    const target = await strangeJobs({
      afterwards: async ({ events }) => {
        events.emit('machinery:failed', {
          where: 'a queue',
          error: new SyntaxError('"c4n4ry-of-a-stranger-4711" is not valid JSON'),
        });
      },
    });
    expect(await verdictOnOne(target, { strangers: [] })).toContain('shows the canary');
  });
});

describe('strange-results condemns', () => {
  it('a consumer that believes everything', async () => {
    const target = await strangeResults({
      consume: (options) => {
        const { handler } = options;
        void handler({ id: 'anything' } as never);
        return createResultsConsumer({
          ...options,
          handler: async (result) => await handler({ ...result, client: '' }),
        });
      },
    });
    expect(await verdictOnOne(target, { events: ['{}'], garbledDetails: null })).toContain('given what is no result');
  });
});

describe('sealed-texts condemns', () => {
  /** An opener that takes some other text for the one it should have been given. */
  const mending = (mend: (text: string) => string) => ({
    openers: async () => {
      const opener = await Opener.create(KEYS);
      const open = opener.open.bind(opener);
      return { 'an opener': Object.assign(opener, { open: async (text: string) => await open(mend(text)) }) };
    },
  });

  it('an opener that passes over a space', async () => {
    expect(await verdictOn(await sealedTexts(mending((text) => text.replaceAll(/\s/g, ''))), 300)).toContain(
      'has opened what was altered',
    );
  });

  it('an opener that tells what it could not read', async () => {
    const telling = {
      openers: async () => {
        const opener = await Opener.create(KEYS);
        const open = opener.open.bind(opener);
        const tell = async (text: string): Promise<unknown> => {
          const content = await open(text);
          if (Array.isArray(content)) throw new Error(`what is this? ${JSON.stringify(content)}`);
          return content;
        };
        return { 'an opener': Object.assign(opener, { open: tell }) };
      },
    };
    const target = await sealedTexts(telling);
    expect(await verdictOnOne(target, { kind: 'content', content: '[]' })).toContain('has stumbled');
  });
});
