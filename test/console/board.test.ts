import { readdirSync } from 'node:fs';
import { request } from 'node:http';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { appRoutes } from '@bull-board/api/dist/routes.js';
import { FlowProducer, Worker } from 'bullmq';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  newVerificationId,
  partitionKeys,
  RESULTS_QUEUE,
  resultsPrefix,
  VERIFICATION_JOB_OPTIONS,
} from '../../src/producers/job.ts';
import { AUTHORIZED, createWorld, type World } from './world.ts';

const CANARY = 'CANARY7391';
/** What a stranger may have written as a number; no time, count or size here contains it. */
const NUMBER = 739_158_264;
const keys = partitionKeys('cepta');
const ours = newVerificationId('cepta');
const result = `${newVerificationId('cepta')}.1`;

let world: World;
let planted: string[];

beforeAll(async () => {
  world = await createWorld();
  planted = await plant();
});

afterAll(() => world[Symbol.asyncDispose]());

/** A canary in every place that a job, a flow or a scheduler has, in every state; gives the ids of the jobs. */
async function plant(): Promise<string[]> {
  const connection = { url: world.server.url };
  const queue = world.writingQueue(keys.queue, keys.prefix);
  const inquiries = world.writingQueue(keys.inquiryQueue, keys.prefix);
  const results = world.writingQueue(RESULTS_QUEUE, resultsPrefix(RESULTS_QUEUE));
  const data = { otp: CANARY, code: NUMBER, sequence: NUMBER, [CANARY]: 1, deep: [{ [CANARY]: CANARY }], id: CANARY };

  const plantedIds: string[] = [];
  await results.add(CANARY, data, { jobId: `fails-${CANARY}`, attempts: 1, deduplication: { id: CANARY } });
  await results.add(CANARY, data, { jobId: `completes-${CANARY}`, backoff: { type: CANARY } });
  let finished = 0;
  const worker = new Worker(
    RESULTS_QUEUE,
    async (job) => {
      await job.log(`line of ${CANARY}`);
      await job.updateProgress({ [CANARY]: CANARY, value: NUMBER });
      if (job.id?.startsWith('fails')) throw new Error(`could not read ${CANARY}`);
      return { [CANARY]: CANARY, otp: NUMBER, transaction: CANARY };
    },
    { connection, prefix: resultsPrefix(RESULTS_QUEUE), name: CANARY },
  );
  await new Promise<void>((resolve) => {
    const one = () => {
      finished += 1;
      if (finished === 2) resolve();
    };
    worker.on('completed', one).on('failed', one);
  });
  await worker.close();
  plantedIds.push(`fails-${CANARY}`, `completes-${CANARY}`);

  await queue.add('verify', { v: 1, id: ours }, { ...VERIFICATION_JOB_OPTIONS, jobId: ours });
  await results.add(
    'otp.verification.settled',
    {
      specversion: '1.0',
      id: result,
      subject: result.replace('.1', ''),
      type: 'otp.verification.settled',
      time: '2026-11-21T20:05:00.000Z',
      client: CANARY,
      data: {
        id: result.replace('.1', ''),
        otp: 'rejected',
        reason: 'wrong_code',
        reference: CANARY,
        final: true,
        metadata: { CANARY },
      },
    },
    { jobId: result },
  );
  await queue.add(CANARY, CANARY, { jobId: `text-${CANARY}`, delay: 60_000, priority: 3 });
  await queue.upsertJobScheduler(
    `scheduler-${CANARY}`,
    { every: 3_600_000 },
    { name: CANARY, data, opts: { keepLogs: NUMBER } },
  );
  const flow = new FlowProducer({ connection, prefix: keys.prefix });
  await flow.add({
    name: CANARY,
    queueName: keys.queue,
    data,
    opts: { jobId: `parent-${CANARY}` },
    children: [{ name: CANARY, queueName: keys.inquiryQueue, data, opts: { jobId: `child-${CANARY}` } }],
  });
  await flow.close();
  plantedIds.push(`text-${CANARY}`, `parent-${CANARY}`, `child-${CANARY}`);

  // Not even JSON: what cannot be read is quoted by the error that says so.
  await inquiries.add('inquiry', {}, { jobId: `broken-${CANARY}` });
  await world.redis.hset(inquiries.toKey(`broken-${CANARY}`), 'data', `${CANARY} is no JSON`);
  plantedIds.push(`broken-${CANARY}`);
  return plantedIds;
}

const queueNames = [keys.queue, keys.inquiryQueue, RESULTS_QUEUE];
const METHODS = ['get', 'post', 'put', 'patch'];
const states = ['latest', 'active', 'waiting', 'waiting-children', 'prioritized', 'completed', 'failed', 'delayed'];

/** Every address that Bull Board's own table of routes has for a method, for every queue and for the jobs of these ids. */
function addressesOf(
  method: string,
  ids: readonly string[] = [ours],
  queues: readonly string[] = queueNames,
): string[] {
  const routes = appRoutes.api.filter((route) => [route.method].flat().includes(method as 'get'));
  const paths = routes.flatMap(({ route }) => [route].flat());
  const filled = paths.flatMap((path) => queues.map((queue) => path.replace(':queueName', queue)));
  const addresses = filled.flatMap((path) =>
    ids.map((id) =>
      path
        .replace(':jobId', encodeURIComponent(id))
        .replace(':queueStatus', 'failed')
        .replace(':schedulerId', encodeURIComponent(`scheduler-${CANARY}`)),
    ),
  );
  return [...new Set(addresses)].map((address) => `/board${address}`);
}

describe('Bull Board', () => {
  it('comes with its page and its files, and asks nobody else for anything', async () => {
    const pages = [
      '/board/',
      `/board/queue/${keys.queue}`,
      `/board/queue/${keys.queue}/${ours}`,
      '/board/job-schedulers',
    ];
    for (const address of pages) {
      const page = await (await world.get(address)).text();
      expect(page).not.toMatch(/(src|href)="(https?:)?\/\//);
      expect(page).not.toMatch(/fonts\.g|@import/);
      const files = [...page.matchAll(/(?:src|href)="(static\/[^"]+)"/g)].map(([, file]) => `/board/${file}`);
      expect(files.length).toBeGreaterThan(4);
      for (const file of files) expect([file, (await world.get(file)).status]).toEqual([file, 200]);
    }
  });

  it('lets no page and no file of it reach another origin, or stand in a foreign frame', async () => {
    const dist = join(dirname(createRequire(import.meta.url).resolve('@bull-board/ui/package.json')), 'dist', 'static');
    const files = readdirSync(dist, { recursive: true, withFileTypes: true })
      .filter((file) => file.isFile())
      .map((file) => `/board/static${join(file.parentPath, file.name).slice(dist.length)}`);
    expect(files.length).toBeGreaterThan(10);
    for (const address of ['/', '/icon.svg', '/board/', '/board/api/queues', `/verifications/${ours}`, ...files]) {
      const response = await world.get(address);
      const text = await response.text();
      const directives = (response.headers.get('content-security-policy') ?? '').split('; ');
      expect([address, response.status < 500, directives]).toEqual([
        address,
        true,
        [
          "default-src 'self'",
          expect.stringMatching(/^style-src ('sha256-[\w+/=]+'|'self' 'unsafe-inline')$/),
          "img-src 'self' data:",
          "object-src 'none'",
          "base-uri 'self'",
          "form-action 'self'",
          "frame-ancestors 'none'",
        ],
      ]);
      if (/html|css|svg/.test(response.headers.get('content-type') ?? '')) {
        expect([address, text.match(/(url\(|@import|src=|href=)\s*["']?(https?:)?\/\/[^"')]+/g)]).toEqual([
          address,
          null,
        ]);
      }
    }
  });

  it('shows our own jobs, because an id, a state and an outcome tell nothing', async () => {
    const job = (await (await world.get(`/board/api/queues/otp-cepta/${ours}`)).json()) as {
      job: Record<string, unknown>;
    };
    expect(job).toMatchObject({
      job: {
        id: ours,
        name: 'verify',
        data: { v: 1, id: ours },
        opts: { jobId: ours, priority: 2 },
        externalUrl: { href: `/verifications/${ours}` },
      },
      status: 'prioritized',
    });
    const event = await (await world.get(`/board/api/queues/otp-results/${result}`)).json();
    expect(event).toMatchObject({
      job: {
        id: result,
        name: 'otp.verification.settled',
        data: {
          id: result,
          type: 'otp.verification.settled',
          time: '2026-11-21T20:05:00.000Z',
          data: { otp: 'rejected', reason: 'wrong_code', final: true, '[masked]': '2 fields' },
        },
      },
    });
  });

  it('shows nothing else of what stands in a queue, in any of its answers', async () => {
    const lists = queueNames.flatMap((queue) =>
      states.map((status) => `/board/api/queues?activeQueue=${queue}&status=${status}&page=1&jobsPerPage=50`),
    );
    const addresses = [
      ...addressesOf('get', [...planted, ours, result, 'nobody']),
      ...lists,
      '/board/api/job-schedulers?queueName=otp-cepta',
    ];
    expect(addresses.length).toBeGreaterThan(60);
    const seen = { ok: 0, failed: 0 };
    for (const address of addresses) {
      const response = await world.get(address);
      const text = await response.text();
      // The name of a planted job is in what was asked for, never in what is answered.
      expect([address, text.includes(CANARY), text.includes(String(NUMBER))]).toEqual([address, false, false]);
      if (response.status === 200) seen.ok += 1;
      if (response.status === 500) seen.failed += 1;
    }
    expect(seen.ok).toBeGreaterThan(40);
    expect(seen.failed).toBeGreaterThan(0); // the job that is no JSON was among them
  });

  it('does show that strangers are there', async () => {
    const list = await (
      await world.get(`/board/api/queues?activeQueue=${RESULTS_QUEUE}&status=failed&page=1&jobsPerPage=9`)
    ).json();
    const { queues } = list as { queues: { name: string; jobs: Record<string, unknown>[] }[] };
    const [job] = queues.find(({ name }) => name === RESULTS_QUEUE)?.jobs ?? [];
    expect(job).toMatchObject({
      name: '[masked]',
      failedReason: '[masked]',
      stacktrace: ['[masked]'],
      progress: '[masked]',
      data: { '[masked]': '3 fields', otp: '[masked]', sequence: '[masked]' },
      isFailed: true,
    });
    expect(job?.id).toMatch(/^\[masked [0-9a-f]{8}\]$/);
    expect(await (await world.get(`/board/api/queues/${RESULTS_QUEUE}/fails-${CANARY}/logs`)).json()).toEqual([
      '[masked]',
    ]);
  });

  it('keeps Redis and its clients to itself', async () => {
    expect((await world.get('/board/api/redis/stats')).status).toBe(403);
    expect((await world.get('/board/api/queues/otp-cepta/workers')).status).toBe(403);
  });

  it('refuses whatever is not looking, on every route, from wherever it comes, before anything asks Redis', async () => {
    const commands = async (): Promise<number> =>
      Number(/total_commands_processed:(\d+)/.exec(await world.redis.info('stats'))?.[1]);
    const before = await commands();
    const own = { ...AUTHORIZED, origin: world.url, 'content-type': 'application/json' };
    const foreign = { ...AUTHORIZED, origin: 'https://evil.example', 'content-type': 'text/plain' };
    const overridden = { ...own, 'x-http-method-override': 'GET', 'x-method-override': 'GET', 'x-http-method': 'GET' };
    const changing = ['post', 'put', 'patch', 'delete'].flatMap((method) =>
      addressesOf(method).map((address) => ({ address, method })),
    );
    expect(changing.length).toBeGreaterThan(60);
    const anywhere = [
      '/board',
      '/board/',
      '/board/nowhere',
      ...METHODS.flatMap((one) => addressesOf(one, [ours], [keys.queue])),
    ];
    const requests = [
      ...changing.flatMap((one) => [own, foreign, overridden].map((headers) => ({ ...one, headers }))),
      ...['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'].flatMap((method) =>
        anywhere.map((address) => ({ address, method, headers: own })),
      ),
    ];
    const refuse = async ({ address, method, headers }: (typeof requests)[number]): Promise<void> => {
      const response = await world.get(`${address}?_method=GET`, { method: method.toUpperCase(), headers });
      await response.arrayBuffer();
      const [status, allow] = headers === foreign ? [403, null] : [405, 'GET, HEAD'];
      expect([method, address, response.status, response.headers.get('allow')]).toEqual([
        method,
        address,
        status,
        allow,
      ]);
    };
    while (requests.length > 0) await Promise.all(requests.splice(0, 16).map(refuse));
    expect(await trace(`${world.url}/board/api/queues`, own)).toBe(405); // which fetch does not speak
    expect((await commands()) - before).toBe(1); // this asking itself
  });

  it('takes a look for a look, whatever method its other headers name', async () => {
    const keysBefore = (await world.redis.keys('*')).toSorted();
    for (const address of METHODS.flatMap((method) => addressesOf(method, [ours], [keys.queue]))) {
      for (const method of ['GET', 'HEAD']) {
        const headers = { ...AUTHORIZED, 'x-http-method-override': 'PUT', 'x-method-override': 'PUT' };
        const response = await world.get(`${address}?_method=PUT`, { method, headers });
        await response.arrayBuffer();
        expect([200, 403, 404, 500]).toContain(response.status);
      }
    }
    expect((await world.redis.keys('*')).toSorted()).toEqual(keysBefore);
  });

  it('is read-only in its own eyes too', async () => {
    const { queues } = (await (await world.get('/board/api/queues')).json()) as { queues: Record<string, unknown>[] };
    expect(queues).toHaveLength(5);
    for (const queue of queues) {
      expect(queue).toMatchObject({
        readOnlyMode: true,
        allowRetries: false,
        allowCompletedRetries: false,
        hasWorkers: null,
      });
    }
  });
});

async function trace(url: string, headers: Record<string, string>): Promise<number | undefined> {
  return await new Promise((resolve, reject) => {
    request(url, { method: 'TRACE', headers }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .on('error', reject)
      .end();
  });
}
