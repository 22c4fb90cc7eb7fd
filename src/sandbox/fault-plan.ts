/**
 * Faults that hit at random: 'commit_then_reset=0.05,html_502@cepta=0.02,slow=0.1:300,clock_skew=400'.
 *
 * Whether one hits follows from the seed, the provider, the call, its reference and how many such calls the reference
 * has had, and from nothing else: the same requests meet the same faults again, in whatever order a busy pipeline
 * sends them. At each place at most one fault hits, so the probabilities of a place are those that come out.
 */
import { createHash } from 'node:crypto';
import type { FaultName } from './faults.ts';
import { type LedgerCall, type SandboxProvider, sandboxProviders } from './ledger.ts';

const planPlaces = ['door', 'answer', 'time', 'callback', 'clock'] as const;
export type PlanPlace = (typeof planPlaces)[number];

export interface PlanFault {
  place: PlanPlace;
  wire: string;
  money: string;
  /** The magic values that do the same to one code. */
  magic: readonly string[];
  /** The entry of faults.ts that does it. */
  fault?: FaultName;
  /** What the number after the colon means, and what it is without one. */
  value?: { means: string; default: number };
  /** Where it can hit at all; everywhere when not said. */
  only?: Partial<Record<SandboxProvider, readonly LedgerCall[]>>;
}

const submissions: readonly LedgerCall[] = ['verify', 'send'];
const reporting: PlanFault['only'] = {
  'hello-clever': ['verify', 'callback'],
  ayoconnect: ['verify', 'callback'],
  beqelal: ['verify', 'callback'],
  cepta: ['verify', 'callback'],
};
const done = 'as without the fault: a right code is charged';
const untouched = 'none: the code is not looked at';
const callback = (fault: FaultName, wire: string, magic: readonly string[]): PlanFault => ({
  place: 'callback',
  wire,
  money: done,
  magic,
  fault,
  only: reporting,
});
const answer = (fault: FaultName, wire: string, magic: string): PlanFault => ({
  place: 'answer',
  wire,
  money: done,
  magic: [magic],
  fault,
});

export const planFaults = {
  reset_unread: {
    place: 'door',
    wire: 'RST as soon as the request is in, before anything of it is looked at',
    money: untouched,
    magic: ['600007'],
  },
  busy_503: {
    place: 'door',
    wire: '503 without a body, Retry-After: 1',
    money: untouched,
    magic: ['600008'],
    fault: 'busy_once',
  },
  storm_429: {
    place: 'door',
    wire: '429 with Retry-After to everybody who calls this provider while the storm lasts',
    money: untouched,
    magic: ['600009'],
    value: { means: 'ms that the storm lasts', default: 1000 },
  },
  token_expired: {
    place: 'door',
    wire: '401: the token presented has just expired, for everybody who shares it',
    money: untouched,
    magic: ['600004'],
    only: { 'lipa-later': submissions, ayoconnect: ['verify', 'inquiry', 'b2b2cToken'] },
  },
  customer_token_expired: {
    place: 'door',
    wire: '401: the customer token presented has just expired',
    money: untouched,
    magic: ['600005'],
    only: { ayoconnect: ['verify'] },
  },

  commit_then_reset: answer('reset', 'RST instead of the answer', '800002'),
  commit_then_silence: answer('silence', 'the socket is held, and no answer comes', '800003'),
  commit_then_503: answer('busy_503', '503 without a body, Retry-After: 1', '800010'),
  html_502: answer('html_502', '502 with HTML instead of the answer', '800001'),
  html_200: answer('html_200', '200 with an HTML page instead of the answer', '800011'),
  half_answer: answer('half_answer', 'headers and half of the body, then the connection closes', '800004'),
  half_json: answer('cut_json', 'the right status with half a JSON document', '800005'),
  other_content_type: answer('other_content_type', 'the right answer as text/html', '800012'),
  swapped_types: answer('swapped_types', 'numbers as strings, numeric strings as numbers', '800013'),
  null_object: answer('null_object', 'null where an object is documented; a flat body becomes null', '800014'),

  slow: {
    place: 'time',
    wire: 'the answer is held back',
    money: done,
    magic: ['800015'],
    fault: 'slow',
    value: { means: 'ms that it is held back', default: 1000 },
  },
  callback_first: {
    place: 'time',
    wire: 'the answer is held back until the callback was answered',
    money: done,
    magic: ['820001'],
    fault: 'callback_first',
    only: reporting,
  },

  duplicate_callback: callback('callback_duplicate', 'the callback comes two or three times at once', ['820002']),
  contradictory_callback: callback(
    'callback_contradictory',
    'the callback says failed where it was paid, and paid where it was not',
    ['820003', '820004', '820009'],
  ),
  stray_callback: callback('callback_unknown_reference', 'a second callback names a reference nobody knows', [
    '820005',
  ]),
  forged_callback: callback('callback_wrong_secret', 'the callback has a wrong secret; no right one follows', [
    '820006',
  ]),
  misspelled_callback: callback('callback_wrong_types', 'the callback has numbers as strings and back', ['820007']),
  withheld_callback: callback('callback_withheld', 'no callback comes', ['820008']),

  clock_skew: {
    place: 'clock',
    wire: 'the Date header, and the time that signatures are measured against, are off',
    money: 'none where a signature is too old or too new, else as without the fault',
    magic: [],
    value: { means: 'seconds, in place of a probability; may be negative', default: 0 },
  },
} as const satisfies Record<string, PlanFault>;

export type PlanFaultName = keyof typeof planFaults;

const planFaultOf = (name: PlanFaultName): PlanFault => planFaults[name];

/** The plan names something that is not there, or more than can happen. */
export class FaultSpecError extends Error {
  override readonly name = 'FaultSpecError';
}

interface Rule {
  name: PlanFaultName;
  fault: PlanFault;
  scope: string | undefined;
  probability: number;
  value: number;
}

export interface Hit {
  name: PlanFaultName;
  fault: PlanFault;
  value: number;
  /** From 0 to 1, for whatever else the fault leaves to chance. */
  luck: number;
}

export interface FaultPlan {
  readonly spec: string;
  readonly seed: number;
  readonly clockSkewMs: number;
  /** The fault that hits this call at this place, if any. Each question is answered for one call more. */
  draw(place: PlanPlace, provider: SandboxProvider, call: LedgerCall, reference: string | null): Hit | undefined;
}

export function faultPlan(spec: string, seed = 1): FaultPlan {
  if (!Number.isSafeInteger(seed)) throw new FaultSpecError('the seed must be a whole number');
  const rules = spec
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map(ruleFrom);
  refuseMoreThanCertain(rules);
  const counts = new Map<string, number>();
  return {
    spec,
    seed,
    clockSkewMs: rules.reduce((skew, rule) => (rule.name === 'clock_skew' ? rule.value * 1000 : skew), 0),
    draw(place, provider, call, reference) {
      const candidates = rules.filter((rule) => rule.fault.place === place && reaches(rule, provider, call));
      if (candidates.length === 0) return undefined;
      const asked = `${place} ${provider} ${call} ${reference ?? ''}`;
      const times = counts.get(asked) ?? 0;
      counts.set(asked, times + 1);
      const [chance, luck] = fractions(`${seed} ${asked} ${times}`);
      let reached = 0;
      for (const { name, fault, value, probability } of candidates) {
        reached += probability;
        if (chance < reached) return { name, fault, value, luck };
      }
      return undefined;
    },
  };
}

function ruleFrom(part: string): Rule {
  const match = /^([a-z0-9_]+)(?:@([A-Za-z0-9-]+))?=(-?[0-9.]+)(?::([0-9.]+))?$/.exec(part);
  if (!match) throw new FaultSpecError(`'${part}' is not name=probability, name@where=probability or …:value`);
  const [, name = '', scope, given, detail] = match;
  if (!isPlanFault(name)) {
    throw new FaultSpecError(`there is no fault '${name}'; there are ${Object.keys(planFaults).join(', ')}`);
  }
  const fault = planFaultOf(name);
  if (scope !== undefined && !scopes.has(scope)) {
    throw new FaultSpecError(`'@${scope}' is no provider and no call; there are ${[...scopes].join(', ')}`);
  }
  if (detail !== undefined && (fault.value === undefined || fault.place === 'clock')) {
    throw new FaultSpecError(`'${name}' takes no value after a colon`);
  }
  const number = Number(given);
  const value = fault.place === 'clock' ? number : Number(detail ?? fault.value?.default ?? 0);
  if (fault.place === 'clock') {
    if (Number.isNaN(number) || scope !== undefined) throw new FaultSpecError(`'${name}' is a number of seconds`);
    return { name, fault, scope, probability: 0, value };
  }
  if (!(number >= 0 && number <= 1)) throw new FaultSpecError(`'${part}': a probability is from 0 to 1`);
  if (Number.isNaN(value)) throw new FaultSpecError(`'${part}': the value must be a number`);
  return { name, fault, scope, probability: number, value };
}

const isPlanFault = (name: string): name is PlanFaultName => Object.hasOwn(planFaults, name);

const calls: readonly LedgerCall[] = ['verify', 'send', 'inquiry', 'token', 'b2bToken', 'b2b2cToken', 'callback'];
const scopes: ReadonlySet<string> = new Set([...sandboxProviders, ...calls]);

function reaches({ fault, scope }: Rule, provider: SandboxProvider, call: LedgerCall): boolean {
  if (call === 'unknown' || (scope !== undefined && scope !== provider && scope !== call)) return false;
  return fault.only === undefined ? call !== 'callback' : (fault.only[provider]?.includes(call) ?? false);
}

function refuseMoreThanCertain(rules: readonly Rule[]): void {
  for (const place of planPlaces) {
    for (const provider of sandboxProviders) {
      for (const call of calls) {
        const together = rules
          .filter((rule) => rule.fault.place === place && reaches(rule, provider, call))
          .reduce((sum, { probability }) => sum + probability, 0);
        if (together > 1 + 1e-9) {
          throw new FaultSpecError(`the faults of the ${place} add up to more than 1 (${call} at ${provider})`);
        }
      }
    }
  }
}

/** Two numbers from 0 to 1 that follow from the text alone. */
function fractions(text: string): [number, number] {
  const digest = createHash('sha256').update(text).digest();
  return [digest.readUIntBE(0, 6) / 2 ** 48, digest.readUIntBE(6, 6) / 2 ** 48];
}
