/**
 * Whether a name and a password belong together. Finding out costs a fifth of a second on purpose, also for a name that
 * nobody has; HTTP Basic asks on every request, so what was found right is known again for a while.
 */
import { createHmac, randomBytes } from 'node:crypto';
import type { EventBus } from '../events.ts';
import type { Secret } from '../secret.ts';
import {
  hashPassword,
  isPasswordHash,
  type PasswordHash,
  parsePasswordHash,
  passwordMatches,
} from '../secret-hashes.ts';
import { LoginThrottle } from './throttle.ts';

export interface ConsoleUser {
  /** Without a colon, as HTTP Basic wants it. */
  readonly name: string;
  /** As it is, or its hash as `hashPassword` makes it. */
  readonly password: Secret<string>;
}

export type Login =
  | { readonly outcome: 'accepted' }
  | { readonly outcome: 'refused' }
  /** Not looked at: too many wrong ones came before it. */
  | { readonly outcome: 'throttled'; readonly retryAfterMs: number };

export interface LoginsOptions {
  readonly events: EventBus;
  readonly throttle?: LoginThrottle;
}

/** Since it was last used. */
const REMEMBERED_MS = 600_000;

export class Logins {
  readonly #users: ReadonlyMap<string, Secret<string>>;
  /** Made when somebody first asks: most processes of a service are never asked. */
  #hashes: Promise<Hashes> | null = null;
  readonly #events: EventBus;
  readonly #throttle: LoginThrottle;
  /** Names right credentials in memory, and is of no use to anybody else. */
  readonly #key = randomBytes(32);
  readonly #right = new Map<string, number>();
  readonly #underWay = new Map<string, Promise<Login>>();
  #lastCheck: Promise<unknown> = Promise.resolve();

  constructor(users: readonly ConsoleUser[], { events, throttle = new LoginThrottle() }: LoginsOptions) {
    this.#events = events;
    this.#throttle = throttle;
    this.#users = new Map(users.map(({ name, password }) => [name, password]));
  }

  async check(name: string, password: string, address: string): Promise<Login> {
    const credentials = this.#nameOf(name, password);
    if ((this.#right.get(credentials) ?? 0) > performance.now()) {
      this.#right.set(credentials, performance.now() + REMEMBERED_MS);
      return { outcome: 'accepted' };
    }
    // A page asks for its files all at once, with the same credentials: that is one login.
    const asking = `${credentials} ${address}`;
    const known = this.#underWay.get(asking);
    if (known) return await known;
    const login = this.#decide(name, password, address, credentials).finally(() => this.#underWay.delete(asking));
    this.#underWay.set(asking, login);
    return await login;
  }

  async #decide(name: string, password: string, address: string, credentials: string): Promise<Login> {
    const login = await this.#tryOnce(name, password, address);
    if (login.outcome === 'accepted') this.#right.set(credentials, performance.now() + REMEMBERED_MS);
    this.#events.emit('console:login', {
      outcome: login.outcome,
      address,
      user: this.#users.has(name) ? name : null, // a stranger's may be a password in the wrong field
    });
    return login;
  }

  async #tryOnce(name: string, password: string, address: string): Promise<Login> {
    const admission = this.#throttle.admit(name, address);
    if ('waitMs' in admission) return { outcome: 'throttled', retryAfterMs: admission.waitMs };
    this.#hashes ??= hashesOf(this.#users);
    const { ofUsers, ofNobody } = await this.#hashes;
    const hash = ofUsers.get(name);
    const matches = await this.#oneByOne(async () => await passwordMatches(password, hash ?? ofNobody));
    if (!matches || hash === undefined) return { outcome: 'refused' };
    admission.succeeded();
    return { outcome: 'accepted' };
  }

  /** Each takes a thread and 32 MiB: however many ask, the rest of the process keeps its own. */
  async #oneByOne<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#lastCheck.then(work);
    this.#lastCheck = turn.catch(() => {});
    return await turn;
  }

  #nameOf(name: string, password: string): string {
    return createHmac('sha256', this.#key).update(`${name}:${password}`).digest('base64');
  }
}

interface Hashes {
  readonly ofUsers: ReadonlyMap<string, PasswordHash>;
  /** Compared with where a name is nobody's. */
  readonly ofNobody: PasswordHash;
}

async function hashesOf(users: ReadonlyMap<string, Secret<string>>): Promise<Hashes> {
  const ofUsers = new Map<string, PasswordHash>();
  for (const [name, password] of users) ofUsers.set(name, await hashOf(password.reveal()));
  const [first = await hashOf(randomBytes(32).toString('base64url'))] = ofUsers.values();
  return { ofUsers, ofNobody: { ...first, hash: randomBytes(first.hash.length) } };
}

async function hashOf(password: string): Promise<PasswordHash> {
  const hash = parsePasswordHash(isPasswordHash(password) ? password : await hashPassword(password));
  if (hash === null) throw new Error('a password that begins with scrypt: is no hash that `otp keys password` made');
  return hash;
}
