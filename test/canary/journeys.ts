/**
 * What is sent: each of the sandbox's magic values at every provider that knows it, each answer of the gateway's own,
 * and what follows a first code. Every code, every phone, every name is a canary of its own; references and metadata
 * are not, because they are there to be seen.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { type FaultName, magicValues, type SandboxProvider, sandboxProviders } from '../../src/sandbox/index.ts';
import { snapMessages } from '../../src/sandbox/snap-codes.ts';
import type { Canaries } from './canaries.ts';
import { BROKEN_ANSWERS, COME_BACK_LATER, HOLD, QUOTING_ANSWERS } from './gateway.ts';

export interface Journey {
  readonly name: string;
  readonly body: Readonly<Record<string, unknown>>;
  /** The code must reach the provider, or the gate has proved nothing. */
  readonly code: string | null;
  /** From when it is sent; the partition's own lifetime without it. */
  readonly expiresInMs?: number;
}

/** By what a person at the console knows a verification; proof, where it is found, that a place was read. */
export const VISIBLE = `visible-${randomUUID()}`;

/** Six digits that mean nothing to the sandbox, for providers that take no others. */
const RIGHT_CODE = '246810';
/** A partition whose provider is away. */
export const UNREACHABLE = 'cepta-unreachable';

export class Journeys {
  readonly #canaries: Canaries;
  /** What the gateways make of each code. */
  readonly meanings = new Map<string, string>();

  constructor(canaries: Canaries) {
    this.#canaries = canaries;
  }

  /** Those that a worker is killed over. */
  held(): Journey[] {
    return sandboxProviders.map((provider) => this.#verify(provider, 'held when its worker is killed', HOLD));
  }

  /** Everything that can be sent at once. */
  first(): Journey[] {
    const known = knownCodes().filter(({ disturbs }) => !disturbs);
    return [
      // Those that end at their deadline first, so that it has come when the rest is over.
      this.#late('cepta', -1_000),
      this.#late(UNREACHABLE, 6_000),
      ...['4007401', '4017400', '4047402', '5007400', '4297400'].map((code) =>
        this.#refusedToken(`customer token ${code}`, code),
      ),
      ...sandboxProviders.flatMap((provider) => this.#rightCodes(provider)),
      ...known.map(({ provider, value, name }) => this.#verify(provider, name, value)),
      ...SNAP_CODES.map((code) => this.#verify('ayoconnect', `SNAP ${code}`, `7${code}`)),
      // HTTP is read in one place, words by each provider.
      ...Object.keys(BROKEN_ANSWERS).map((name, index) => this.#verify(anyProvider(index), name, name)),
      ...Object.keys(QUOTING_ANSWERS).flatMap((name) => sandboxProviders.map((each) => this.#verify(each, name, name))),
      ...known.flatMap(({ provider, value, name }) => (provider === 'lipa-later' ? [this.#send(name, value)] : [])),
      this.#send('a new customer'),
      // One would do, were a busy machine never so late that its answer is not waited for.
      ...['first', 'second', 'third'].map((time) => this.#send(`the shape of the test environment, ${time}`, '777777')),
      ...['5005500', '4045501', '4015501', '4295500'].map((code) =>
        this.#verify('ayoconnect', `status ${code}`, RIGHT_CODE, { originalReferenceNo: `${hex(24)}S${code}` }),
      ),
      this.#brought(),
      this.#verify('ayoconnect', 'an unbinding', RIGHT_CODE, { action: 'unbinding' }),
    ];
  }

  /** Second codes for the transactions of first ones that have ended, or never will; and what would disturb others. */
  second(first: readonly Journey[]): Journey[] {
    const of = (name: string): Journey => {
      const found = first.find((journey) => journey.name === name);
      if (found === undefined) throw new Error(`no journey is called ${name}`);
      return found;
    };
    const another = (journey: Journey, name: string): Journey => ({
      name,
      code: null,
      body: { ...journey.body, otp: this.#canaries.code(name) },
    });
    const lost = of('cepta: lost_and_payment_waits');
    const refused = of('cepta: attempts_used_up');
    const wrong = of('hello-clever: wrong_code');
    return [
      another(lost, 'a code beside one that is unknown'),
      another(refused, 'a code where no try is left'),
      { ...wrong, name: 'the same code once more', code: null },
      ...knownCodes()
        .filter(({ disturbs }) => disturbs)
        .map(({ provider, value, name }) => this.#verify(provider, name, value)),
    ];
  }

  /** What nothing can follow, because its whole partition is told to wait. */
  last(): Journey[] {
    return [{ ...this.#verify('lipa-later', 'told to wait for too long', COME_BACK_LATER), expiresInMs: 30_000 }];
  }

  /** As it is, as digits, with a zero before: at providers that write numbers and at those that write texts. */
  #rightCodes(provider: SandboxProvider): Journey[] {
    return [
      this.#verify(provider, 'a right code', RIGHT_CODE),
      this.#submit(provider, 'digits', this.#canaries.digits(`${provider}: digits`), RIGHT_CODE),
      this.#submit(provider, 'a zero', this.#canaries.withLeadingZero(`${provider}: a zero`), '024681'),
    ];
  }

  #verify(provider: SandboxProvider, name: string, meaning: string, params: Record<string, unknown> = {}): Journey {
    const called = `${provider}: ${name}`;
    // A number is what Beqelal takes; and a number is one more thing that a code could be written as.
    const code = provider === 'beqelal' ? this.#canaries.digits(called) : this.#canaries.code(called);
    return this.#submit(provider, name, code, meaning, params);
  }

  #submit(
    provider: SandboxProvider,
    name: string,
    code: string,
    meaning: string,
    more: Record<string, unknown> = {},
  ): Journey {
    const called = `${provider}: ${name}`;
    this.meanings.set(code, meaning);
    const params = { ...this.#paramsOf(provider, called), ...more };
    return {
      name: called,
      code,
      body: { provider, otp: code, params, metadata: { order: VISIBLE }, ...AMOUNTS[provider] },
    };
  }

  /** Nothing is sent: it is too late, or nobody is there. */
  #late(partition: string, expiresInMs: number): Journey {
    const name = `${partition}: never sent`;
    const params = this.#paramsOf('cepta', name);
    return { name, code: null, expiresInMs, body: { provider: partition, otp: this.#canaries.code(name), params } };
  }

  #send(name: string, ending?: string): Journey {
    const called = `lipa-later: send, ${name}`;
    const params = {
      id_number: this.#canaries.idNumber(called),
      phone_number: this.#canaries.phone(called, ending),
      first_name: this.#canaries.token('name', `${called}, first`, 12),
      last_name: this.#canaries.token('name', `${called}, last`, 12),
      country_code: 'KE',
      date_of_birth: this.#canaries.dateOfBirth(called),
    };
    return { name: called, code: null, body: { provider: 'lipa-later', operation: 'send', params } };
  }

  /** The sandbox refuses a customer's token for this authCode, so the code stays at home. */
  #refusedToken(name: string, snapCode: string): Journey {
    const authCode = this.#canaries.add('customer token', name, `${this.#opaque(24)}S${snapCode}`);
    return { ...this.#verify('ayoconnect', name, RIGHT_CODE, { authCode }), code: null, expiresInMs: 6_000 };
  }

  /** A token that the customer's own program brings along; the sandbox does not know it. */
  #brought(): Journey {
    const customerAccessToken = this.#canaries.token('customer token', 'one that was brought along', 64);
    return this.#verify('ayoconnect', 'a token of their own', RIGHT_CODE, { customerAccessToken, authCode: undefined });
  }

  #opaque(length: number): string {
    return this.#canaries.token('customer token', 'its beginning', length);
  }

  #paramsOf(provider: SandboxProvider, name: string): Record<string, unknown> {
    switch (provider) {
      case 'hello-clever':
        return { uuid: hex(16) };
      case 'lipa-later':
        return {
          id_number: this.#canaries.idNumber(name),
          item_value: this.#canaries.price(name),
          phone_number: this.#canaries.phone(name),
        };
      case 'ayoconnect':
        return {
          originalPartnerReferenceNo: hex(32),
          originalReferenceNo: hex(32),
          action: 'payment',
          externalId: hex(32),
          authCode: this.#canaries.token('customer token', name, 32),
          additionalInfo: {
            [this.#canaries.token('customer data', `a name in additionalInfo, ${name}`, 12)]: this.#canaries.text(
              'customer data',
              `additionalInfo, ${name}`,
            ),
          },
        };
      case 'beqelal':
        return { reference: hex(16) };
      case 'cepta':
        return {
          transactionRef: hex(16),
          paymentId: this.#canaries.token('payment id', name),
          md: this.#canaries.text('md', name),
        };
    }
    return provider satisfies never;
  }
}

interface KnownCode {
  readonly provider: SandboxProvider;
  readonly value: string;
  readonly name: string;
  /** Whoever calls the provider in the next second is turned away as well. */
  readonly disturbs: boolean;
}

/**
 * Every magic code: at every provider that knows it where the provider's own file makes sense of the answer, else at two,
 * in turn. The words of an inquiry are entries of one table for each provider: every third of them.
 */
function knownCodes(): KnownCode[] {
  return magicValues.flatMap(({ value, where, name, answers, faults, inquiryWord }, index) => {
    if (where !== 'otp' || !/^\d+$/.test(value) || (inquiryWord !== undefined && index % 3 !== 0)) return [];
    const knowing = sandboxProviders.filter((provider) => provider in answers);
    const inTurn = faults.some((fault) => THE_SAME_FOR_ALL.includes(fault) || fault.startsWith('callback_'));
    const some = inTurn ? [knowing[index % knowing.length], knowing[(index + 1) % knowing.length]] : knowing;
    const disturbs = faults.includes('storm_begins');
    return [...new Set(some)].flatMap((provider) => (provider ? [{ provider, value, name, disturbs }] : []));
  });
}

/** Where there is no answer, or one without a body. */
const THE_SAME_FOR_ALL: readonly FaultName[] = [
  ...(['bad_gateway', 'unavailable', 'gateway_timeout', 'reset_unseen', 'busy_once', 'storm_begins'] as const),
  ...(['html_502', 'reset', 'silence', 'half_answer', 'busy_503', 'other_content_type', 'slow'] as const),
];

function anyProvider(index: number): SandboxProvider {
  return sandboxProviders[index % sandboxProviders.length] as SandboxProvider;
}

/** Every fifth of them: they are one table as well. */
const SNAP_CODES = Object.keys(snapMessages).filter((_, index) => index % 5 === 0);

/** What the sandbox's payments are opened for, so that callbacks have something to agree with. */
const AMOUNTS: Readonly<Partial<Record<SandboxProvider, { readonly amount: object }>>> = {
  'hello-clever': { amount: { value: '100.00', currency: 'GHS' } },
  beqelal: { amount: { value: '100.00', currency: 'ETB' } },
  cepta: { amount: { value: '100.00', currency: 'NGN' } },
};

/** Letters and digits that are nobody's secret, and no code: none of them is searched for. */
function hex(length: number): string {
  return randomBytes(length / 2).toString('hex');
}
