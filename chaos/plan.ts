/**
 * What a run does, decided before it begins and from the seed alone: which codes are submitted when, and what goes
 * wrong when. The same seed gives the same plan; what it meets differs from run to run, because processes and sockets
 * keep their own time.
 */
import type { SandboxProvider } from '../src/sandbox/index.ts';
import { magicOtp } from '../src/sandbox/magic.ts';

export interface PlanOptions {
  readonly seed: number;
  /** How long codes are submitted and things go wrong. */
  readonly durationMs: number;
  /** New verifications in a second, over all providers. */
  readonly ratePerSecond: number;
  readonly workers: number;
}

export interface Plan {
  readonly stories: readonly Story[];
  readonly faults: readonly PlannedFault[];
}

/** One transaction at one provider, and everything that is submitted for it. */
export interface Story {
  readonly provider: SandboxProvider;
  /** By which the ledger knows it; at LipaLater the phone number. */
  readonly reference: string;
  readonly submissions: readonly Submission[];
}

/** One idempotency key with its body, sent once or more often. */
export interface Submission {
  readonly atMs: number;
  readonly key: string;
  readonly operation: 'verify' | 'send';
  readonly otp: string | null;
  readonly params: Readonly<Record<string, unknown>>;
  readonly amount: { readonly value: string; readonly currency: string } | null;
  /** Null: what the partition gives. */
  readonly lifetimeMs: number | null;
  /** `Prefer: wait=N`. */
  readonly waitSeconds: number | null;
  /** The caller hangs up after so long and does not know what became of it. */
  readonly hangUpAfterMs: number | null;
  /** The same key and body again, so long after the first. */
  readonly repeats: readonly { readonly afterMs: number; readonly hangUpAfterMs: number | null }[];
}

export const PROXY_TROUBLES = [
  'refuse',
  'blackhole',
  'stall',
  'cut',
  'latency',
  'lose_answers',
  'cut_answers',
] as const;
export type ProxyTrouble = (typeof PROXY_TROUBLES)[number];

export const MISCHIEFS = ['run_again', 'duplicate', 'promote', 'remove', 'delete_queue'] as const;
export type Mischief = (typeof MISCHIEFS)[number];

export type Fault =
  | { readonly kind: 'kill_worker'; readonly worker: number; readonly restartAfterMs: number }
  | { readonly kind: 'stop_worker'; readonly worker: number; readonly forMs: number }
  | { readonly kind: 'rolling_restart' }
  | { readonly kind: 'kill_intake'; readonly restartAfterMs: number }
  | { readonly kind: 'kill_redis'; readonly restartAfterMs: number }
  | { readonly kind: 'cut_clients' }
  | { readonly kind: 'redis_network'; readonly worker: number; readonly trouble: ProxyTrouble; readonly forMs: number }
  | { readonly kind: 'intake_network'; readonly trouble: ProxyTrouble; readonly forMs: number }
  | {
      readonly kind: 'provider_network';
      readonly provider: SandboxProvider;
      readonly trouble: ProxyTrouble;
      readonly forMs: number;
    }
  | { readonly kind: 'provider_faults'; readonly spec: string; readonly forMs: number }
  | { readonly kind: 'provider_down'; readonly provider: SandboxProvider; readonly forMs: number }
  | {
      readonly kind: 'mischief';
      readonly provider: SandboxProvider;
      readonly mischief: Mischief;
      readonly pick: number;
    };

export type PlannedFault = Fault & { readonly atMs: number };

/** No trouble of a provider's network holds bytes back longer than this, and then lets them go. */
export const LONGEST_DELAY_MS = 3_000;

export const PROVIDERS: readonly SandboxProvider[] = ['hello-clever', 'lipa-later', 'ayoconnect', 'beqelal', 'cepta'];

/** What the sandbox opens every transaction for, unless its reference says otherwise. */
const OPENED_FOR: Readonly<Partial<Record<SandboxProvider, { value: string; currency: string }>>> = {
  'hello-clever': { value: '100.00', currency: 'GHS' },
  ayoconnect: { value: '100.00', currency: 'IDR' },
  beqelal: { value: '100.00', currency: 'ETB' },
  cepta: { value: '100.00', currency: 'NGN' },
};

/**
 * Null stands for a right code. The others are the sandbox's magic values with how often they come; where a provider
 * does not know one, it does not come there.
 */
const CODES: readonly (readonly [otp: string | null, weight: number])[] = [
  [null, 50],
  ['400001', 8], // wrong code
  ['400002', 1], // expired code
  ['400003', 2], // wrong code, no try left
  ['400004', 1], // unknown reference
  ['400005', 3], // declined
  ['400006', 3], // server error
  ['400007', 1], // wrong code, said with 403
  ['400502', 2],
  ['400504', 2],
  ['500001', 3], // accepted, then the payment fails
  ['500002', 1], // accepted, pending for ever
  ['500003', 1], // another amount is charged
  ['500004', 1], // paid in part
  ['500005', 1], // the inquiry names no amount
  ['500006', 2], // the first inquiry fails
  ['500007', 2], // the first inquiry is limited
  ['500008', 1], // charged, and the money goes back
  ['600001', 1], // credentials refused
  ['600002', 2], // refused once
  ['600003', 2], // 429 once
  ['600004', 2], // our token has expired
  ['600005', 2], // the customer's token has expired
  ['600006', 1], // application keys refused
  ['600007', 3], // reset before the code was seen
  ['800001', 4], // taken, then 502
  ['800002', 4], // taken, then reset
  ['800003', 6], // taken, then silence: an attempt that is in flight for as long as we wait
  ['800004', 3], // taken, then half an answer
  ['800005', 3], // taken, then half a JSON
  ['800006', 2], // taken, said in a strange word
  ['800007', 2], // lost, and the payment fails
  ['800008', 2], // wrong code, answer lost
  ['800009', 1], // lost, pending for ever
];
const codesOf = (provider: SandboxProvider) =>
  CODES.filter(([otp]) => otp === null || magicOtp(provider, otp) !== undefined);

/** mulberry32: 32 bits of state, good enough to shuffle mischief, and the same on every machine. In [0, 1). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

class Dice {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = randomOf(seed);
  }

  /** A whole number from `low` to `high`, both included. */
  between(low: number, high: number): number {
    return low + Math.floor(this.#random() * (high - low + 1));
  }

  chance(probability: number): boolean {
    return this.#random() < probability;
  }

  one<T>(choices: readonly T[]): T {
    return choices[this.between(0, choices.length - 1)] as T;
  }

  weighted<T>(choices: readonly (readonly [T, number])[]): T {
    let left = this.#random() * choices.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [choice, weight] of choices) {
      left -= weight;
      if (left < 0) return choice;
    }
    return (choices.at(-1) as readonly [T, number])[0];
  }

  text(alphabet: string, length: number): string {
    return Array.from({ length }, () => alphabet[this.between(0, alphabet.length - 1)]).join('');
  }
}

const DIGITS = '0123456789';
const HEX = '0123456789abcdef';
const CAPITALS = '0123456789ABCDEFGHJKLMNPQRTUVWXY'; // no S and no Z: neither magic ending can come about

export function planOf(options: PlanOptions): Plan {
  // Two streams, so that a change of the load leaves the faults of a seed as they are.
  return { stories: storiesOf(options), faults: faultsOf(options) };
}

function storiesOf({ seed, durationMs, ratePerSecond }: PlanOptions): Story[] {
  const dice = new Dice(seed);
  const stories: Story[] = [];
  const everyMs = 1_000 / ratePerSecond;
  let submissions = 0;
  for (let atMs = 0; atMs < durationMs; ) {
    const story = storyOf(dice, stories.length, Math.round(atMs));
    stories.push(story);
    submissions += story.submissions.length;
    atMs = submissions * everyMs;
  }
  return stories;
}

function storyOf(dice: Dice, index: number, atMs: number): Story {
  const provider = PROVIDERS[index % PROVIDERS.length] as SandboxProvider;
  const { reference, params } = transactionOf(dice, provider, index);
  const opened = OPENED_FOR[provider];
  let amount = opened !== undefined && dice.chance(0.5) ? opened : null;
  if (amount !== null && dice.chance(0.03)) amount = { ...amount, value: '99.00' };
  const part = { amount, index };

  const first = codeOf(dice, provider, []);
  const submissions: Submission[] = [];
  if (provider === 'lipa-later') {
    if (!dice.chance(0.2)) submissions.push(submissionOf(dice, { ...part, params, otp: first, atMs, part: 1 }));
    else {
      // What is sent anew forgets what was used up, so no code of such a story is typed twice.
      const { item_value: _, ...customer } = params;
      submissions.push(submissionOf(dice, { ...part, params: customer, otp: null, atMs, part: 1 }));
      submissions.push(
        submissionOf(dice, { ...part, params, otp: first, atMs: atMs + dice.between(500, 3_000), part: 2 }),
      );
      return { provider, reference, submissions };
    }
  } else submissions.push(submissionOf(dice, { ...part, params, otp: first, atMs, part: 1 }));

  const more = dice.weighted([
    ['nothing', 76],
    ['same_code', 12],
    ['other_code', 9],
    ['two_other_codes', 3],
  ] as const);
  let at = atMs;
  const another = (otp: string): void => {
    at += dice.chance(0.3) ? dice.between(0, 40) : dice.between(100, 9_000);
    submissions.push(submissionOf(dice, { ...part, params, otp, atMs: at, part: submissions.length + 1 }));
  };
  if (more === 'same_code') another(first);
  if (more === 'other_code' || more === 'two_other_codes') another(codeOf(dice, provider, [first]));
  if (more === 'two_other_codes') another(codeOf(dice, provider, [first, submissions.at(-1)?.otp ?? '']));
  return { provider, reference, submissions };
}

function submissionOf(
  dice: Dice,
  given: Pick<Submission, 'atMs' | 'otp' | 'params' | 'amount'> & { index: number; part: number },
): Submission {
  const { atMs, otp, params, amount, index, part } = given;
  const hangUp = (probability: number): number | null => (dice.chance(probability) ? dice.between(1, 60) : null);
  return {
    atMs,
    key: `chaos-${index}-${part}`,
    operation: otp === null ? 'send' : 'verify',
    otp,
    params,
    amount,
    lifetimeMs: dice.chance(0.15) ? dice.between(1_500, 9_000) : null,
    waitSeconds: dice.chance(0.1) ? dice.between(1, 4) : null,
    hangUpAfterMs: hangUp(0.08),
    repeats: dice.chance(0.12)
      ? Array.from({ length: dice.between(1, 2) }, () => ({
          afterMs: dice.chance(0.5) ? dice.between(0, 20) : dice.between(50, 12_000),
          hangUpAfterMs: hangUp(0.2),
        }))
      : [],
  };
}

function codeOf(dice: Dice, provider: SandboxProvider, taken: readonly string[]): string {
  for (;;) {
    // No magic value begins with 0, 1, 2 or 3; a code that begins with 0 must not lose it on the way.
    const code = dice.weighted(codesOf(provider)) ?? `${dice.one(['0', '1', '2', '3'])}${dice.text(DIGITS, 5)}`;
    if (!taken.includes(code)) return code;
  }
}

function transactionOf(
  dice: Dice,
  provider: SandboxProvider,
  index: number,
): { reference: string; params: Record<string, unknown> } {
  switch (provider) {
    case 'hello-clever': {
      const uuid = `H${index}${dice.text(CAPITALS, 6)}`;
      return { reference: uuid, params: { uuid } };
    }
    case 'lipa-later': {
      // The ending 000 keeps it clear of the magic phone numbers.
      const phone = `+2547${String(index).padStart(5, '0')}000`;
      return {
        reference: phone,
        params: { id_number: String(10_000_000 + index), phone_number: phone, item_value: '1000' },
      };
    }
    case 'ayoconnect': {
      const originalReferenceNo = `${dice.text(HEX, 24)}${String(index).padStart(8, '0')}`;
      return {
        reference: originalReferenceNo,
        params: {
          originalPartnerReferenceNo: dice.text(HEX, 32),
          originalReferenceNo,
          action: 'payment',
          externalId: dice.text(HEX, 32),
          authCode: dice.text(HEX, 32),
        },
      };
    }
    case 'beqelal': {
      const reference = `B${index}${dice.text(CAPITALS, 4)}`;
      return { reference, params: { reference } };
    }
    case 'cepta': {
      const transactionRef = `TX${index}${dice.text(CAPITALS, 6)}`;
      return { reference: transactionRef, params: { transactionRef, paymentId: `PAY${index}`, md: 'merchant_data' } };
    }
  }
  return provider satisfies never;
}

const FAULTS: readonly (readonly [Fault['kind'], number])[] = [
  ['kill_worker', 18],
  ['stop_worker', 12],
  ['rolling_restart', 3],
  ['kill_intake', 6],
  ['kill_redis', 7],
  ['cut_clients', 6],
  ['redis_network', 16],
  ['intake_network', 6],
  ['provider_network', 22],
  ['provider_down', 8],
  ['provider_faults', 10],
  ['mischief', 16],
];

/**
 * What the sandbox is told to do at random for a while. A provider that lies to us is only believed where it can be
 * asked again, so the callback that contradicts what happened is not told to Beqelal, which nobody can ask.
 */
const SPECS = [
  'commit_then_reset=0.3',
  'commit_then_silence@verify=0.3',
  'commit_then_503@verify=0.2,busy_503=0.2',
  'html_502=0.2,html_200=0.1',
  'half_answer=0.2,half_json=0.1',
  'null_object=0.15,swapped_types=0.15',
  'other_content_type=0.2,reset_unread=0.2',
  'slow=0.3:1500',
  'slow@inquiry=0.5:1900',
  'storm_429=0.02:1500',
  'token_expired=0.2,customer_token_expired=0.1',
  'callback_first=0.5',
  'duplicate_callback=0.5,stray_callback=0.3',
  'contradictory_callback@cepta=0.4,contradictory_callback@ayoconnect=0.4,contradictory_callback@hello-clever=0.4',
  'forged_callback=0.3,misspelled_callback=0.2,withheld_callback=0.3',
] as const;

/** A server that comes back is not believed for five seconds: killed more often, nothing but that would be seen. */
const BETWEEN_REDIS_KILLS_MS = 15_000;

/** The first second is quiet, so that there is something to disturb; then something every one to four seconds. */
function faultsOf({ seed, durationMs, workers }: PlanOptions): PlannedFault[] {
  const dice = new Dice(seed ^ 0x5eed_fa17);
  const faults: PlannedFault[] = [];
  // Whatever the dice say, no run goes without the two that the journal exists for.
  const first: Fault['kind'][] = ['kill_worker', 'mischief', 'kill_redis'];
  let redisKilledAt = Number.NEGATIVE_INFINITY;
  for (let atMs = 1_500; atMs < durationMs; atMs += dice.between(700, 3_500)) {
    let kind = first.shift() ?? dice.weighted(FAULTS);
    if (kind === 'kill_redis') {
      if (atMs - redisKilledAt < BETWEEN_REDIS_KILLS_MS) kind = 'cut_clients';
      else redisKilledAt = atMs;
    }
    faults.push({ atMs, ...faultOf(dice, kind, workers) });
  }
  return faults;
}

function faultOf(dice: Dice, kind: Fault['kind'], workers: number): Fault {
  const worker = dice.between(0, workers - 1);
  const provider = dice.one(PROVIDERS);
  const trouble = dice.one(PROXY_TROUBLES);
  switch (kind) {
    case 'kill_worker':
      return { kind, worker, restartAfterMs: dice.between(100, 3_000) };
    case 'stop_worker':
      return { kind, worker, forMs: dice.chance(0.3) ? dice.between(8_000, 15_000) : dice.between(1_000, 6_000) };
    case 'rolling_restart':
    case 'cut_clients':
      return { kind };
    case 'kill_intake':
      return { kind, restartAfterMs: dice.between(100, 1_500) };
    case 'kill_redis':
      return { kind, restartAfterMs: dice.between(50, 2_500) };
    case 'redis_network':
      return {
        kind,
        worker,
        trouble,
        forMs: dice.chance(0.2) ? dice.between(6_000, 14_000) : dice.between(300, 4_000),
      };
    case 'intake_network':
      return { kind, trouble, forMs: dice.between(200, 3_000) };
    case 'provider_network':
      return { kind, provider, trouble, forMs: troubleMs(dice, trouble) };
    case 'provider_down':
      return { kind, provider, forMs: dice.between(300, 6_000) };
    case 'provider_faults':
      return { kind, spec: dice.one(SPECS), forMs: dice.between(1_000, 6_000) };
    case 'mischief':
      return {
        kind,
        provider,
        mischief: dice.weighted(MISCHIEFS.map((each) => [each, each === 'delete_queue' ? 1 : 2] as const)),
        pick: dice.between(0, 1_000_000),
      };
  }
  return kind satisfies never;
}

/** What is held back is delivered late, so it is not held longer than an attempt may be in flight. */
function troubleMs(dice: Dice, trouble: ProxyTrouble): number {
  return trouble === 'stall' ? dice.between(300, LONGEST_DELAY_MS) : dice.between(300, 6_000);
}
