/**
 * How often a wrong password may be tried. Three counts, each in the memory of this process: of a name at an address,
 * of an address, and of everybody together. The first two make one wait ever longer, and only there: nobody can lock
 * an operator out from elsewhere. The third bounds what guessing from many addresses costs and gains; where somebody
 * has logged in before, it does not hold.
 */
import { isIPv6 } from 'node:net';

export interface ThrottleLimits {
  /** Tries without a wait, of one name at one address. */
  readonly perName: number;
  /** Tries without a wait, of all names at one address. */
  readonly perAddress: number;
  /** Failures of everybody in a minute, after which only addresses that are known are heard. */
  readonly perMinute: number;
  /** The wait after the first try too many; twice as long after each further one. */
  readonly firstWaitMs: number;
  readonly longestWaitMs: number;
  /** Without a try for so long, all is forgotten. */
  readonly memoryMs: number;
}

export const THROTTLE_LIMITS: ThrottleLimits = {
  perName: 5,
  perAddress: 20,
  perMinute: 30,
  firstWaitMs: 1_000,
  longestWaitMs: 300_000,
  memoryMs: 900_000,
};

/** So many names and addresses are remembered at most; the ones that tried longest ago are forgotten first. */
const MOST_ENTRIES = 10_000;
const KNOWN_FOR_MS = 24 * 3600 * 1_000;

export type Admission = { readonly waitMs: number } | Try;

/** A try counts as a failure from its beginning, so that many at once are not all the first. */
export interface Try {
  succeeded(): void;
}

interface Count {
  tries: number;
  until: number;
  forgottenAt: number;
}

export class LoginThrottle {
  readonly #limits: ThrottleLimits;
  readonly #now: () => number;
  readonly #names = new Map<string, Count>();
  readonly #addresses = new Map<string, Count>();
  readonly #known = new Map<string, { until: number }>();
  #minute = { beganAt: 0, failures: 0 };

  constructor(limits: ThrottleLimits = THROTTLE_LIMITS, now: () => number = () => performance.now()) {
    this.#limits = limits;
    this.#now = now;
  }

  admit(name: string, remoteAddress: string): Admission {
    const now = this.#now();
    const address = networkOf(remoteAddress);
    const nameThere = `${address} ${name}`;
    const { perName, perAddress, perMinute } = this.#limits;
    if (now - this.#minute.beganAt >= 60_000) this.#minute = { beganAt: now, failures: 0 };
    const minute = this.#minute;
    const crowded = minute.failures >= perMinute && !this.#isKnown(address, now);
    const waitMs = Math.max(
      this.#waitOf(this.#names, nameThere, now),
      this.#waitOf(this.#addresses, address, now),
      crowded ? minute.beganAt + 60_000 - now : 0,
    );
    if (waitMs > 0) return { waitMs };

    this.#count(this.#names, nameThere, perName, now);
    this.#count(this.#addresses, address, perAddress, now);
    minute.failures += 1;
    return {
      succeeded: () => {
        this.#names.delete(nameThere);
        this.#addresses.delete(address);
        minute.failures -= 1;
        remember(this.#known, address, { until: this.#now() + KNOWN_FOR_MS });
      },
    };
  }

  #isKnown(address: string, now: number): boolean {
    return (this.#known.get(address)?.until ?? 0) > now;
  }

  #waitOf(counts: ReadonlyMap<string, Count>, key: string, now: number): number {
    return Math.max(0, (counts.get(key)?.until ?? 0) - now);
  }

  #count(counts: Map<string, Count>, key: string, free: number, now: number): void {
    const before = counts.get(key);
    const tries = before && before.forgottenAt > now ? before.tries + 1 : 1;
    const { firstWaitMs, longestWaitMs, memoryMs } = this.#limits;
    const waitMs = tries < free ? 0 : Math.min(longestWaitMs, firstWaitMs * 2 ** (tries - free));
    remember(counts, key, { tries, until: now + waitMs, forgottenAt: now + waitMs + memoryMs });
  }
}

function remember<Value>(map: Map<string, Value>, key: string, value: Value): void {
  map.delete(key); // so that the order is that of the latest try
  map.set(key, value);
  if (map.size > MOST_ENTRIES) map.delete(map.keys().next().value as string);
}

/** Whoever has one address of IPv6 has all 2^64 of its network, so those are one. */
export function networkOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '');
  if (!isIPv6(plain)) return plain;
  const [head = '', tail] = plain.replace(/%.*$/, '').toLowerCase().split('::');
  const [before, after] = [head, tail ?? ''].map((part) => part.split(':').filter((group) => group !== '')) as [
    string[],
    string[],
  ];
  const zeros = tail === undefined ? [] : Array<string>(Math.max(0, 8 - before.length - after.length)).fill('0');
  const groups = [...before, ...zeros, ...after].slice(0, 4).map((group) => group.replace(/^0+(?=.)/, ''));
  return `${groups.join(':')}::/64`;
}
