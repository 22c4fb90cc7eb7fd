import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it, type MockInstance, vi } from 'vitest';
import { Logins } from '../../src/console/logins.ts';
import { LoginThrottle, networkOf, THROTTLE_LIMITS } from '../../src/console/throttle.ts';
import { EventBus, type Events } from '../../src/events.ts';
import { observe } from '../../src/metrics/observe.ts';
import { createMetrics } from '../../src/metrics/registry.ts';
import { Secret } from '../../src/secret.ts';
import { hashPassword, passwordHashProblem, SCRYPT_COST } from '../../src/secret-hashes.ts';
import { AUTHORIZED, basic, createWorld, USER, user } from './world.ts';

const { scrypt } = crypto;
const CHEAP = { N: 1024, r: 8, p: 1 };
/** Of `pleaseletmein`, as RFC 7914 has it; by Python's hashlib.scrypt(…, n=16384, r=8, p=1, dklen=32). */
const RFC_7914 = 'scrypt:16384:8:1:U29kaXVtQ2hsb3JpZGU:cCO9yzr9c0hGHAbNgf046_2o-7qQT44-qbVD9lRdofI';
const HOME = '192.0.2.1';
const ELSEWHERE = '198.51.100.7';

describe('the throttle', () => {
  /** Tries, each a failure unless it is said to succeed; gives how long each had to wait. */
  function setup() {
    let now = 1_000_000;
    const throttle = new LoginThrottle(THROTTLE_LIMITS, () => now);
    return {
      pass: (ms: number) => {
        now += ms;
      },
      fails: (name: string, address: string): number => waitOf(throttle, name, address),
      succeeds: (name: string, address: string): boolean => {
        const admission = throttle.admit(name, address);
        if ('waitMs' in admission) return false;
        admission.succeeded();
        return true;
      },
    };
  }

  it('makes a name at an address wait twice as long after each further try', () => {
    const { fails, pass } = setup();
    const waits: number[] = [];
    for (let attempt = 0; attempt < 16; attempt += 1) {
      expect(fails('ops', HOME)).toBe(0);
      const waitMs = fails('ops', HOME);
      if (waitMs > 0) waits.push(waitMs);
      pass(waitMs);
    }
    const seconds = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].map((one) => one * 1_000);
    expect(waits.slice(0, seconds.length)).toEqual(seconds);
  });

  it('counts a try from its beginning, so that a thousand at once are not all the first', () => {
    const throttle = new LoginThrottle();
    const admitted = Array.from({ length: 1_000 }, () => throttle.admit('ops', HOME)).filter(
      (one) => 'succeeded' in one,
    );
    expect(admitted).toHaveLength(5);
  });

  it('does not punish a waiting one for trying, and forgets after a quarter of an hour', () => {
    const { fails, pass } = setup();
    for (let attempt = 0; attempt < 6; attempt += 1) fails('ops', HOME);
    for (let attempt = 0; attempt < 50; attempt += 1) expect(fails('ops', HOME)).toBe(1_000);
    pass(1_000);
    expect(fails('ops', HOME)).toBe(0);
    expect(fails('ops', HOME)).toBe(2_000);
    pass(902_000);
    for (let attempt = 0; attempt < 5; attempt += 1) expect(fails('ops', HOME)).toBe(0);
    expect(fails('ops', HOME)).toBe(1_000);
  });

  it('lets nobody lock an operator out from elsewhere', () => {
    const { fails, succeeds, pass } = setup();
    for (let attempt = 0; attempt < 29; attempt += 1) {
      fails('ops', ELSEWHERE);
      pass(1_000);
    }
    expect(fails('ops', ELSEWHERE)).toBeGreaterThan(0);
    expect(succeeds('ops', HOME)).toBe(true);
  });

  it('counts the names of one address together, and all of one network of IPv6', () => {
    const { fails } = setup();
    const names = Array.from({ length: 20 }, (_, index) => `name-${index}`);
    for (const [index, name] of names.entries()) expect(fails(name, `2001:db8::${index}`)).toBe(0);
    expect(fails('another', '2001:db8::ffff')).toBe(1_000);
    expect(fails('another', HOME)).toBe(0);
  });

  it('hears only addresses that it knows when everybody guesses at once, until the minute is over', () => {
    const { fails, succeeds, pass } = setup();
    expect(succeeds('ops', HOME)).toBe(true);
    pass(3_600_000);
    const guess = (from: number) => Array.from({ length: 30 }, (_, index) => fails('ops', `203.0.113.${from + index}`));
    expect(guess(0)).toEqual(Array(30).fill(0));
    pass(10_000);
    expect(fails('ops', ELSEWHERE)).toBe(50_000);
    expect(succeeds('night', ELSEWHERE)).toBe(false);
    expect(succeeds('ops', HOME)).toBe(true);
    pass(50_000);
    expect(succeeds('ops', ELSEWHERE)).toBe(true);
  });

  it('forgets what a name and an address did when they turn out to be right', () => {
    const { fails, succeeds } = setup();
    for (let round = 0; round < 5; round += 1) {
      for (let attempt = 0; attempt < 4; attempt += 1) expect(fails('ops', HOME)).toBe(0);
      expect(succeeds('ops', HOME)).toBe(true);
    }
    for (let attempt = 0; attempt < 5; attempt += 1) expect(fails('ops', HOME)).toBe(0);
    expect(fails('ops', HOME)).toBe(1_000);
  });

  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::1', '0:0:0:0::/64'],
    ['2001:DB8:0:0001::5', '2001:db8:0:1::/64'],
    ['2001:db8:0:1:ffff:ffff:ffff:ffff', '2001:db8:0:1::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['', ''],
  ])('knows the network of %s', (address, network) => {
    expect(networkOf(address)).toBe(network);
  });
});

describe('finding out whether a password is right', () => {
  let scrypts: MockInstance<typeof crypto.scrypt>;
  let compared: MockInstance<typeof crypto.timingSafeEqual>;

  beforeEach(() => {
    scrypts = vi.spyOn(crypto, 'scrypt');
    compared = vi.spyOn(crypto, 'timingSafeEqual');
    syncBuiltinESMExports();
  });

  afterEach(() => {
    vi.restoreAllMocks();
    syncBuiltinESMExports();
  });

  async function setup() {
    const events = new EventBus();
    const heard: Events['console:login'][] = [];
    events.on('console:login', (login) => heard.push(login));
    const logins = new Logins([await user('ops', 'right'), await user('night', 'shift')], { events });
    const outcome = async (name: string, password: string, address = HOME) =>
      (await logins.check(name, password, address)).outcome;
    scrypts.mockClear();
    return { events, heard, logins, outcome };
  }
  const costs = () => scrypts.mock.calls.map(([, , bytes, { N, r, p }]) => ({ bytes, N, r, p }));

  it('costs the same for a name that nobody has', async () => {
    const { outcome } = await setup();
    expect(await outcome('ops', 'wrong')).toBe('refused');
    const ofUser = costs();
    expect(ofUser).toEqual([{ bytes: 32, N: 1024, r: 8, p: 1 }]);
    for (const [name, password] of [
      ['nobody', 'wrong'],
      ['nobody', 'right'],
      ['', ''],
    ] as const) {
      scrypts.mockClear();
      compared.mockClear();
      expect(await outcome(name, password)).toBe('refused');
      expect(costs()).toEqual(ofUser);
      expect(compared).toHaveBeenCalledTimes(1);
    }
  });

  it('costs nothing for a while after it was right, and is asked once of many requests at a time', async () => {
    const { outcome, heard } = await setup();
    const many = await Promise.all(Array.from({ length: 30 }, () => outcome('ops', 'right')));
    expect(new Set(many)).toEqual(new Set(['accepted']));
    expect(await outcome('ops', 'right', ELSEWHERE)).toBe('accepted');
    expect(scrypts).toHaveBeenCalledTimes(1);
    expect(heard).toEqual([{ outcome: 'accepted', address: HOME, user: 'ops' }]);
    expect(await outcome('ops', 'Right')).toBe('refused');
    expect(await outcome('night', 'right')).toBe('refused');
  });

  it('never looks at more than it must: one at a time, and none of those who have to wait', async () => {
    const { outcome, heard } = await setup();
    let running = 0;
    let most = 0;
    scrypts.mockImplementation((password, salt, bytes, cost, done) => {
      running += 1;
      most = Math.max(most, running);
      scrypt(password, salt, bytes, cost, (error, key) => {
        running -= 1;
        done(error, key);
      });
    });
    const guesses = await Promise.all(Array.from({ length: 40 }, (_, index) => outcome('ops', `guess ${index}`)));
    expect(guesses.filter((one) => one === 'refused')).toHaveLength(5);
    expect(guesses.filter((one) => one === 'throttled')).toHaveLength(35);
    expect(most).toBe(1);
    expect(heard).toHaveLength(40);
  });

  it('leaves the event loop alone', async () => {
    const { logins } = loginsOf(RFC_7914);
    let turns = 0;
    const ticking = setInterval(() => {
      turns += 1;
    }, 1);
    expect((await logins.check('ops', 'pleaseletmein', HOME)).outcome).toBe('accepted');
    clearInterval(ticking);
    expect(turns).toBeGreaterThan(3);
  });

  it('is as dear for a password that stands in the configuration as it is', async () => {
    scrypts.mockImplementation((password, salt, bytes, _cost, done) => scrypt(password, salt, bytes, CHEAP, done));
    const { logins } = loginsOf('as it is');
    expect((await logins.check('ops', 'as it is', HOME)).outcome).toBe('accepted');
    expect((await logins.check('ops', 'as it was', HOME)).outcome).toBe('refused');
    expect((await logins.check('nobody', 'as it is', HOME)).outcome).toBe('refused');
    const { N, r, p } = SCRYPT_COST;
    expect(costs()).toMatchObject(Array(4).fill({ N, r, p, bytes: 32 }));
  });

  it('is counted, and tells who it was only of names that are known', async () => {
    const { events, outcome, heard } = await setup();
    const registry = new Registry();
    observe(events, createMetrics(registry, { ofTheProcess: false }));
    await outcome('ops', 'right');
    for (let attempt = 0; attempt < 7; attempt += 1) await outcome('a password in the wrong field', `${attempt}`);
    expect(await registry.metrics()).toMatch(
      /logins_total\{outcome="accepted"\} 1\n.*\{outcome="refused"\} 5\n.*\{outcome="throttled"\} 2\n/,
    );
    expect(JSON.stringify(heard)).not.toContain('wrong field');
  });
});

describe('the written form of a password', () => {
  it('brings its salt and its cost, and is of nobody else', async () => {
    const [one, other] = [await hashPassword('same', CHEAP), await hashPassword('same', CHEAP)];
    expect(one).toMatch(/^scrypt:1024:8:1:[\w-]{22}:[\w-]{43}$/);
    expect(one).not.toBe(other);
  });

  it.each([
    'scrypt:',
    'scrypt:16384:8:1:U29kaXVtQ2hsb3JpZGU',
    'scrypt:16383:8:1:U29kaXVtQ2hsb3JpZGU:cCO9yzr9c0hGHAbNgf046_2o-7qQT44-qbVD9lRdofI',
    'scrypt:1048576:128:1:U29kaXVtQ2hsb3JpZGU:cCO9yzr9c0hGHAbNgf046_2o-7qQT44-qbVD9lRdofI',
    'scrypt:1024:8:1:U29kaXVtQ2hsb3JpZGU:cCO9yzr9c0hGHAbNgf046_2o-7qQT44-qbVD9lRdofI',
    'scrypt:16384:0:1:U29kaXVtQ2hsb3JpZGU:cCO9yzr9c0hGHAbNgf046_2o-7qQT44-qbVD9lRdofI',
  ])('is refused in a configuration when it is none, or costs nothing, or everything: %s', (text) => {
    expect(passwordHashProblem(text)).toContain('must be scrypt:N:r:p:salt:hash');
  });
});

describe('over HTTP', () => {
  it('too many wrong passwords are told to wait, right ones of who is there already are not', async () => {
    const throttle = new LoginThrottle({ ...THROTTLE_LIMITS, firstWaitMs: 60_000 });
    await using world = await createWorld({ throttle });
    const statusOf = async (authorization: string) => await world.get('/', { headers: { authorization } });
    expect((await world.get('/')).status).toBe(200);
    const statuses: number[] = [];
    for (let attempt = 0; attempt < 8; attempt += 1) {
      const response = await statusOf(basic(USER.name, `guess ${attempt}`));
      statuses.push(response.status);
      if (response.status !== 429) continue;
      expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(30);
      expect(response.headers.get('www-authenticate')).toBeNull();
      expect(await response.text()).toContain('Too many wrong passwords');
    }
    expect(statuses).toEqual([401, 401, 401, 401, 401, 429, 429, 429]);
    expect((await world.get('/', { headers: AUTHORIZED })).status).toBe(200);
    expect((await world.get('/board/api/queues')).status).toBe(200);
    expect(world.logins.map(({ outcome }) => outcome)).toEqual([
      'accepted',
      ...Array(5).fill('refused'),
      ...Array(3).fill('throttled'),
    ]);
    expect(world.logins.every(({ address }) => address === '127.0.0.1')).toBe(true);
  });

  it('whoever brings nothing has not failed', async () => {
    await using world = await createWorld();
    for (let attempt = 0; attempt < 30; attempt += 1) {
      const headers = attempt % 2 === 0 ? {} : { authorization: 'Bearer x' };
      expect((await world.get('/', { headers })).status).toBe(401);
    }
    expect(world.logins).toEqual([]);
    expect((await world.get('/')).status).toBe(200);
  });
});

function waitOf(throttle: LoginThrottle, name: string, address: string): number {
  const admission = throttle.admit(name, address);
  return 'waitMs' in admission ? admission.waitMs : 0;
}

function loginsOf(password: string): { logins: Logins } {
  return { logins: new Logins([{ name: 'ops', password: new Secret(password) }], { events: new EventBus() }) };
}
