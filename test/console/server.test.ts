import { Gauge } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newVerificationId, partitionKeys } from '../../src/producers/job.ts';
import { historyLine } from '../../src/producers/record.ts';
import { BEST_OF_THREE } from '../support/timing.ts';
import { plant } from './records.ts';
import { AUTHORIZED, basic, createWorld, PATIENT, USER, user, type World } from './world.ts';

const CODE = 'canary-sealed-code';
const DETAILS = 'canary-sealed-details';
const id = newVerificationId('cepta');
const acceptedAt = Date.parse('2026-11-21T20:00:00Z');

let world: World;

beforeAll(async () => {
  world = await createWorld({ throttle: PATIENT });
  await world.redis.hset(partitionKeys('cepta').record(id), {
    state: 'settled',
    operation: 'verify',
    client: 'shop',
    reference: '<b>TX</b>',
    createdAt: acceptedAt,
    updatedAt: acceptedAt + 2_500,
    expiresAt: acceptedAt + 300_000,
    revision: '3',
    sequence: '1',
    standing: '["rejected","pending","wrong_code","reenter_code","INVALID_OTP",2]',
    code: CODE,
    details: DETAILS,
    codePrint: 'canary-print',
    claim: 'canary-claim',
    head: JSON.stringify({
      metadata: { note: '<script>alert("x")</script>' },
      amount: { value: '100.00', currency: 'NGN' },
      plainParams: { paymentId: 'canary-params' },
    }),
    history: [
      { at: acceptedAt, event: 'accepted' },
      { at: acceptedAt + 12, event: 'begun', attempt: 1 },
      { at: acceptedAt + 2_500, event: 'answered', attempt: 1, detail: '<img src=x>' },
    ]
      .map(({ at, event, attempt = null, ...facts }) => historyLine(at, event, attempt, facts))
      .join(''),
  });
});

afterAll(() => world[Symbol.asyncDispose]());

describe('what is open to everybody', () => {
  it('is alive', async () => {
    const response = await fetch(`${world.url}/healthz`);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ alive: true });
  });

  it('is ready when every check passes', async () => {
    const response = await fetch(`${world.url}/readyz`);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({
      ready: true,
      checks: { redis: true, workers: true, configuration: true, staying: true },
    });
  });

  it('gives metrics to Prometheus', async () => {
    const response = await fetch(`${world.url}/metrics`);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    const text = await response.text();
    expect(text).toContain('otp_scrape_incomplete 0\n');
    expect(text).toContain('otp_queue_jobs{queue="otp-results",state="waiting"} 0');
    expect(text).toContain('process_cpu_seconds_total');
  });
});

describe('readiness', () => {
  it('is refused by a check that says no, throws, or hangs, within about a second', BEST_OF_THREE, async () => {
    await using unready = await createWorld({
      pages: false,
      readiness: {
        redis: () => new Promise(() => {}),
        workers: () => Promise.reject(new Error('canary')),
        configuration: () => false,
        staying: () => true,
      },
    });
    const began = performance.now();
    const response = await fetch(`${unready.url}/readyz`);
    expect(performance.now() - began).toBeLessThan(1_900);
    expect(response.status).toBe(503);
    expect(await response.json()).toEqual({
      ready: false,
      checks: { redis: false, workers: false, configuration: false, staying: true },
    });
    expect((await fetch(`${unready.url}/healthz`)).status).toBe(200);
  });
});

const closedPaths = [
  '/',
  '/board',
  '/board/',
  '/board/api/queues',
  '/board/static/favicon.ico',
  `/verifications/${id}`,
  `/verifications/${id}/resolve`,
  '/review',
  '/audit',
  '/search?q=TX',
  '/partitions/cepta',
  '/refresh.js',
  '/x',
];

describe('the password', () => {
  const wrong: [string, string | undefined][] = [
    ['none', undefined],
    ['a wrong password', basic(USER.name, 'wrong')],
    ['an empty password', basic(USER.name, '')],
    ['a wrong name', basic('root', USER.password)],
    ['another scheme', `Bearer ${USER.password}`],
    ['no base64', 'Basic %%%'],
    ['nothing at all', 'Basic '],
    ['a prefix of it', basic(USER.name, USER.password.slice(0, -1))],
  ];

  it.each(wrong)('with %s every page is closed', async (_what, authorization) => {
    for (const path of closedPaths) {
      const response = await world.get(path, { headers: authorization === undefined ? {} : { authorization } });
      expect([path, response.status]).toEqual([path, 401]);
      expect(response.headers.get('www-authenticate')).toBe('Basic realm="otp-pipeline", charset="UTF-8"');
      expect(await response.text()).toContain('console.users');
    }
  });

  it('opens with the right one', async () => {
    for (const path of ['/', '/board/', '/board/api/queues', `/verifications/${id}`]) {
      expect([path, (await world.get(path)).status]).toEqual([path, 200]);
    }
  });

  it('lets every user in, whatever is in a name or a password', async () => {
    const users = [await user('a', 'one'), await user('zoë', 'pä:ss')];
    await using shared = await createWorld({ users });
    const statusOf = async (authorization: string) => (await shared.get('/', { headers: { authorization } })).status;
    expect(await statusOf(basic('a', 'one'))).toBe(200);
    expect(await statusOf(basic('zoë', 'pä:ss'))).toBe(200);
    expect(await statusOf(basic('zoe\u0308', 'pa\u0308:ss'))).toBe(401); // a name is what the configuration says
    expect(await statusOf(basic('zoë', 'pa\u0308:ss'))).toBe(200); // a password is what a keyboard makes of it
    expect(await statusOf(basic('a', 'pä:ss'))).toBe(401);
  });

  it('does not exist without users: the pages are closed and name the key', async () => {
    await using closed = await createWorld({ users: [] });
    for (const path of closedPaths) {
      for (const headers of [{}, AUTHORIZED]) {
        const response = await closed.get(path, { headers });
        expect([path, response.status]).toEqual([path, 403]);
        expect(await response.text()).toContain('console.users');
      }
    }
    for (const path of ['/healthz', '/readyz', '/metrics']) expect((await fetch(closed.url + path)).status).toBe(200);
  });

  it('is not asked for in a process without pages: there are none', async () => {
    await using bare = await createWorld({ pages: false });
    for (const path of closedPaths) expect([path, (await bare.get(path)).status]).toEqual([path, 404]);
    expect((await fetch(`${bare.url}/metrics`)).status).toBe(200);
  });
});

describe('every response', () => {
  it('is safe to show in a browser', async () => {
    const open = ['/healthz', '/readyz', '/metrics', '/nowhere', '/%E0%A4%A'];
    for (const path of [...open, ...closedPaths]) {
      for (const headers of [{}, AUTHORIZED]) {
        const response = await world.get(path, { headers });
        await response.arrayBuffer();
        const policy = response.headers.get('content-security-policy') ?? '';
        expect(policy).toContain("default-src 'self'");
        expect(policy).toContain("frame-ancestors 'none'");
        expect(policy).not.toMatch(/https?:|\*|unsafe-eval/);
        expect(policy.replace("style-src 'self' 'unsafe-inline'", '')).not.toContain('unsafe-inline');
        expect(response.headers.get('x-frame-options')).toBe('DENY');
        expect(response.headers.get('x-content-type-options')).toBe('nosniff');
        expect(response.headers.get('referrer-policy')).toBe('same-origin');
        expect(response.headers.get('cache-control')).toBe('no-store');
        expect(response.headers.get('x-powered-by')).toBeNull();
      }
    }
  });

  it('tells nothing of an error but that there was one; the events tell the rest', async () => {
    await using failing = await createWorld({ pages: false });
    const heard: { where: string; error: Error }[] = [];
    failing.events.on('machinery:failed', (failure) => heard.push(failure));
    const collect = () => Promise.reject(new Error('canary'));
    new Gauge({ name: 'broken', help: 'broken', registers: [failing.registry], collect });
    const response = await fetch(`${failing.url}/metrics`);
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain('canary');
    expect(heard).toEqual([{ where: 'console GET /metrics', error: new Error('canary') }]);
  });

  it("refuses an address that is no text, which is nobody's failure", async () => {
    const heard: unknown[] = [];
    world.events.on('machinery:failed', (failure) => heard.push(failure));
    const response = await world.get('/verifications/%E0%A4%A');
    expect(response.status).toBe(400);
    expect(await response.text()).not.toContain('URIError');
    expect(heard).toEqual([]);
  });
});

describe('the overview', () => {
  it('lists the partitions with links to their queues, and asks for one script, its own', async () => {
    const page = await (await world.get('/')).text();
    const ofCepta = await (await world.get('/partitions/cepta')).text();
    for (const queue of ['otp-cepta', 'otp-cepta-inquiry', 'otp-results']) {
      expect(page + ofCepta).toContain(`href="/board/queue/${queue}"`);
      expect((await world.get(`/board/queue/${queue}`)).status).toBe(200);
    }
    expect(page.match(/<script[^>]*>/g)).toEqual(['<script src="/refresh.js" type="module">']);
    expect((await world.get('/refresh.js')).headers.get('content-type')).toContain('text/javascript');
    expect((await world.get('/icon.svg')).headers.get('content-type')).toContain('image/svg+xml');
  });

  it('says that all is well, and plainly when something is not', async () => {
    await using quiet = await createWorld();
    const cepta = partitionKeys('cepta');
    const soon = () => quiet.redis.zadd(cepta.workers, Date.now() + 60_000, 'a-worker');
    const said = async (): Promise<string> => await (await quiet.get('/')).text();
    expect(await said()).toContain('no worker is alive');

    await soon();
    await quiet.redis.zadd(partitionKeys('lipa-later').workers, Date.now() + 60_000, 'a-worker');
    await expect.poll(said, { timeout: 5_000 }).toContain('All is well.');

    await quiet.redis.zadd(cepta.due, Date.now() - 45_000, id);
    await quiet.redis.zadd(cepta.review, Date.now() - 180_000, id);
    await quiet.redis.lpush(cepta.rate, Date.now(), Date.now() + 60_000, Date.now() + 60_000);
    await quiet.redis.hset(`${cepta.prefix}:outcomes:${Math.floor(Date.now() / 60_000)}`, 'accepted', 7, 'unknown', 2);
    await expect.poll(said, { timeout: 5_000 }).toContain('something should have happened');
    const page = await said();
    expect(page).toContain('1 verification waits for a person, the oldest for 3 min');
    expect(page).toMatch(/[23] of 20 \/ s/);
    expect(page).toContain('7 accepted');
    expect(page).toContain('2 unknown');
    expect(page).not.toContain('All is well');
  });

  it('finds a verification by its id', async () => {
    const response = await world.get(`/verifications?id=%20${id}`);
    expect(response.status).toBe(303);
    expect(response.headers.get('location')).toBe(`/verifications/${id}`);
    expect((await world.get('/verifications?id=//evil.example')).headers.get('location')).toBe(
      '/verifications/%2F%2Fevil.example',
    );
  });
});

describe('the story of a verification', () => {
  it('is readable, and escapes what others wrote', async () => {
    const page = await (await world.get(`/verifications/${id}`)).text();
    expect(page).toContain('<h1>Code refused, payment still open (wrong code)</h1>');
    expect(page).toContain('&#60;b&#62;TX&#60;/b&#62;');
    expect(page).toContain('INVALID_OTP');
    expect(page).toContain('100.00 NGN');
    expect(page).toContain('2026-11-21 20:00:00.000 UTC');
    expect(page).toContain('+12 ms');
    expect(page).toContain('+2.5 s');
    expect(page).not.toMatch(/<script>|<img|<b>TX/);
  });

  it('says what is awaited, when and from whom, and leads to the jobs that there are', async () => {
    const nextInquiryAt = String(Date.now() + 90_500);
    const awaiting = await plant(world.redis, { reference: 'TX-AWAITS', fields: { nextInquiryAt, inquiries: '2' } });
    const { inquiryQueue, prefix } = partitionKeys('cepta');
    const story = async (): Promise<string> => await (await world.get(`/verifications/${awaiting}`)).text();
    const before = await story();
    expect(before).toContain('The provider&#39;s word: inquiry 3 at ');
    expect(before).toMatch(/\((in 90 s|in 89 s)\)/);
    expect(before).toContain('Ask the provider now');
    expect(before).toContain('None at this moment');
    await world.writingQueue(inquiryQueue, prefix).add('inquiry', { v: 1, id: awaiting }, { jobId: awaiting });
    const link = `/board/queue/${inquiryQueue}/${awaiting}`;
    expect(await story()).toContain(`href="${link}"`);
    expect((await world.get(link)).status).toBe(200);
  });

  it('never shows the code, the details or what the client keeps to itself', async () => {
    const page = await (await world.get(`/verifications/${id}`)).text();
    expect(page).not.toContain('canary');
  });

  it.each([
    ['an id that nobody gave', newVerificationId('cepta')],
    ['an unknown partition', newVerificationId('elsewhere')],
    ['no id at all', 'hello'],
    ['a script', '<script>alert(1)</script>'],
  ])('is a plain 404 for %s', async (_what, unknown) => {
    const response = await world.get(`/verifications/${encodeURIComponent(unknown)}`);
    expect(response.status).toBe(404);
    const page = await response.text();
    expect(page).toContain('No such verification');
    expect(page).not.toContain('<script');
  });
});

describe('when Redis stands still', () => {
  it('scrapes answer in time all the same, pages say what is missing', BEST_OF_THREE, async () => {
    await using still = await createWorld();
    await still.redis.ping(); // connected, and nothing has been read yet that could be shown again
    still.server.freeze();
    try {
      const began = performance.now();
      const [scrape, overview] = await Promise.all([fetch(`${still.url}/metrics`), still.get('/')]);
      expect(performance.now() - began).toBeLessThan(1_900);
      const text = await scrape.text();
      expect(text).toContain('otp_scrape_incomplete 1\n');
      expect(text).not.toMatch(/^otp_(queue_jobs|unresolved)\{/m);
      expect(await overview.text()).toContain('Redis did not answer in time');
      expect((await fetch(`${still.url}/healthz`)).status).toBe(200);
    } finally {
      still.server.thaw();
    }
  });

  it('a story says that Redis is away', async () => {
    await using gone = await createWorld();
    await gone.get('/');
    await gone.server.kill();
    const response = await gone.get(`/verifications/${id}`);
    expect(response.status).toBe(503);
    expect(await response.text()).toContain('Redis is away');
  });
});
