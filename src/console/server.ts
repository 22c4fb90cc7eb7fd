/**
 * The operator's port. `/healthz`, `/readyz` and `/metrics` are for machines and are there in every process; all the
 * rest is for people and asks for a password. It shows, and but for the verbs of verbs.ts it changes nothing.
 */
import type { Queue } from 'bullmq';
import express, { type ErrorRequestHandler, type Express, type RequestHandler, type Router } from 'express';
import type { Registry } from 'prom-client';
import { asError, type EventBus } from '../events.ts';
import type { DepthReader } from '../metrics/depths.ts';
import { queueNames as namesOfQueues, partitionOf } from '../producers/job.ts';
import { readVerification } from '../producers/reading.ts';
import { RecordError, type VerificationRecord } from '../producers/record.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { withinOr } from '../time-limit.ts';
import type { Operator } from '../workers/operator.ts';
import { askForPassword, onlyLooking, pageHeaders, sameOrigin, secure } from './access.ts';
import { readActivity, type WatchedPartition } from './activity.ts';
import { auditPage, isAuditKey, readAudit } from './audit.ts';
import { ICON, messagePage, NAMES_ADDRESS, NAMES_SCRIPT, REFRESH_SCRIPT, STYLE_SOURCE } from './layout.ts';
import { type ConsoleUser, Logins } from './logins.ts';
import { overviewPage } from './overview.ts';
import { partitionPage } from './partition.ts';
import { readReviews, reviewPage } from './review.ts';
import { findByReference, searchPage } from './search.ts';
import { type StoryJob, storyPage } from './story.ts';
import type { LoginThrottle } from './throttle.ts';
import { resolveForm, verbRoutes, verbsOf } from './verbs.ts';
import { type KnownClient, partitionQueues, queueTitles } from './words.ts';

/** A check that takes longer has failed. */
const CHECK_LIMIT_MS = 1_000;
/** A person who waits longer than this for a page reloads it. */
const PAGE_LIMIT_MS = 3_000;

const BOARD = '/board';

export type Check = () => boolean | Promise<boolean>;

export interface ConsoleDependencies {
  readonly registry: Registry;
  readonly readiness: {
    readonly redis: Check;
    readonly workers: Check;
    readonly configuration: Check;
    /** False from the moment at which the process was told to end. */
    readonly staying: Check;
  };
  readonly events: EventBus;
  /** Null in a process without the console role: then there is nothing but health and metrics. */
  readonly pages: PagesDependencies | null;
}

export interface PagesDependencies {
  readonly users: readonly ConsoleUser[];
  /** One with the usual limits when it is not given. */
  readonly throttle?: LoginThrottle;
  /** Must fail fast: the `console` profile. */
  readonly redis: RedisConnection;
  readonly partitions: readonly WatchedPartition[];
  /** Whose verifications may be looked for by reference. */
  readonly clients: readonly KnownClient[];
  /** What a person may do. */
  readonly operator: Operator;
  /** Every queue to show, made by `watchingQueue`; one name each. */
  readonly queues: readonly Queue[];
  readonly depths: Pick<DepthReader, 'read'>;
}

export function createConsole({ registry, readiness, events, pages }: ConsoleDependencies): Express {
  const app = express();
  app.disable('x-powered-by');
  app.use(secure(STYLE_SOURCE));
  app.use(sameOrigin(() => messagePage('Not from elsewhere', 'Only a page of the console itself may ask for this.')));

  app.get('/healthz', (_request, response) => {
    response.json({ alive: true });
  });
  app.get('/readyz', async (_request, response) => {
    const names = ['redis', 'workers', 'configuration', 'staying'] as const;
    const results = await Promise.all(names.map(async (name) => [name, await passes(readiness[name])] as const));
    const ready = results.every(([, passed]) => passed);
    response.status(ready ? 200 : 503).json({ ready, checks: Object.fromEntries(results) });
  });
  app.get('/metrics', async (_request, response) => {
    const text = await registry.metrics();
    response.set('Content-Type', registry.contentType).send(text);
  });

  if (pages !== null) app.use(pagesOf(pages, events));
  app.use((_request, response) => {
    response.status(404).send(messagePage('Nothing here', 'There is no such page.'));
  });
  const onError: ErrorRequestHandler = (error, request, response, next) => {
    if (error instanceof RedisAwayError && !response.headersSent) {
      return void response.status(503).send(messagePage('Redis is away', 'It did not answer. Reload in a moment.'));
    }
    const malformed = isMalformed(error);
    if (!malformed) {
      events.emit('machinery:failed', {
        where: `console ${request.method} ${routeOf(request.path)}`,
        error: asError(error),
      });
    }
    if (response.headersSent) return next(error);
    // What an error says may quote what it failed on, so the browser is told nothing of it.
    if (malformed) response.status(400).send(messagePage('This cannot be asked', 'The request is malformed.'));
    else if (request.method === 'POST') response.status(500).send(messagePage('This failed', MAYBE_DONE));
    else response.status(500).send(messagePage('This failed', 'The log says why.'));
  };
  app.use(onError);
  return app;
}

/** The answer to what could not be read as a request. */
export function unreadPage(status: 400 | 408 | 413 | 431): { headers: Record<string, string>; body: string } {
  const body = messagePage('This cannot be read', `It is no request that the console could answer (${status}).`);
  return { headers: { ...pageHeaders(STYLE_SOURCE), 'Content-Type': 'text/html; charset=utf-8' }, body };
}

/** What takes longer to load than all the rest takes to start is made when somebody asks for it. */
function whenAsked(make: () => Promise<RequestHandler>): RequestHandler {
  let made: Promise<RequestHandler> | null = null;
  return async (request, response, next) => {
    made ??= make();
    (await made)(request, response, next);
  };
}

function pagesOf(pages: PagesDependencies, events: EventBus): Router {
  const { users, redis, queues, depths, throttle, operator, clients } = pages;
  const partitions = pages.partitions.map(({ name }) => name);
  const queueNames = queues.map(({ name }) => name);
  const titles = queueTitles(partitions, clients);
  const ofPartitions = partitionQueues(partitions);
  const router = express.Router();
  const logins = new Logins(users, { events, ...(throttle ? { throttle } : {}) });
  const refuse = (status: 401 | 429): string =>
    status === 401
      ? messagePage('Who are you?', PASSWORD_NEEDED)
      : messagePage(
          'Not so fast',
          'Too many wrong passwords came from your address, or from everywhere. Wait a little.',
        );
  router.use(users.length === 0 ? refuseAll : askForPassword(logins, refuse));
  router.use(verbRoutes({ redis, partitions, operator, noSuchPage }));
  router.use(onlyLooking(() => messagePage('Only to look at', 'What can be changed here has a form of its own.')));

  router.get('/', async (_request, response) => {
    const [read, activity] = await Promise.all([depths.read(), readActivity(redis, pages.partitions)]);
    response.send(overviewPage({ partitions, queues: queueNames, titles, depths: read, activity, now: Date.now() }));
  });
  router.get('/icon.svg', (_request, response) => {
    response.type('image/svg+xml').send(ICON);
  });
  router.get('/refresh.js', (_request, response) => {
    response.type('text/javascript').send(REFRESH_SCRIPT);
  });

  router.get(NAMES_ADDRESS, (_request, response) => {
    response.type('text/javascript').send(NAMES_SCRIPT);
  });

  router.get('/search', async (request, response) => {
    const { q, partition } = request.query;
    const wanted = typeof q === 'string' ? q.trim() : '';
    if (wanted === '') return response.redirect(303, '/');
    if (partitionOf(wanted) !== null) return response.redirect(303, `/verifications/${wanted}`);
    const chosen = partitions.find((name) => name === partition) ?? '';
    const found = await fromRedis(findByReference(redis, chosen === '' ? partitions : [chosen], clients, wanted));
    response.status(found.records.length === 0 ? 404 : 200).send(searchPage(partitions, chosen, found));
  });
  router.get('/verifications', (request, response) => {
    const { id } = request.query;
    response.redirect(303, typeof id === 'string' ? `/verifications/${encodeURIComponent(id.trim())}` : '/');
  });
  router.get('/verifications/:id', async (request, response) => {
    const record = await recordOf(request.params.id);
    if (record === null) return void response.status(404).send(noSuchPage());
    const jobs = await fromRedis(jobsOf(record));
    response.send(storyPage({ record, verbs: verbsOf(operator, record), jobs, now: Date.now() }));
  });
  router.get('/verifications/:id/resolve', async (request, response) => {
    const record = await recordOf(request.params.id);
    if (record === null) return void response.status(404).send(noSuchPage());
    const form = resolveForm(operator, record);
    response.status(form.status).send(form.page);
  });
  // Where a form was refused, its address stays in the browser: who asks for it again is shown the story.
  router.get('/verifications/:id/inquire', (request, response) => {
    response.redirect(303, `/verifications/${encodeURIComponent(request.params.id)}`);
  });

  router.get('/review', async (request, response) => {
    const wanted = Number(request.query.page ?? 1);
    const reviews = await fromRedis(readReviews(redis, partitions, Number.isSafeInteger(wanted) ? wanted : 1));
    response.send(reviewPage(reviews, (record) => verbsOf(operator, record), Date.now()));
  });
  router.get('/audit', async (request, response) => {
    const before = isAuditKey(request.query.before) ? request.query.before : null;
    response.send(auditPage(await fromRedis(readAudit(redis, partitions, before)), before));
  });
  router.get('/partitions/:name', async (request, response) => {
    const watched = pages.partitions.find(({ name }) => name === request.params.name);
    if (watched === undefined) return void response.status(404).send(noSuchPage());
    const { name } = watched;
    const [read, activity, { entries }] = await Promise.all([
      depths.read(),
      readActivity(redis, [watched]),
      fromRedis(readAudit(redis, [name], null)),
    ]);
    const seen = { depths: read, activity: activity.get(name), audit: entries.slice(0, 10) };
    response.send(partitionPage({ name, ...seen, titles, queues: queueNames, now: Date.now() }));
  });
  router.get('/partitions/:name/:verb', (request, response) => {
    response.redirect(303, `/partitions/${encodeURIComponent(request.params.name)}`);
  });

  // Bull Board's components set styles on elements, which no hash can name; scripts it has in files only.
  const board = whenAsked(async () => {
    const { createBoard } = await import('./board.ts');
    return createBoard({ basePath: BOARD, queues, partitions, titles });
  });
  router.use(BOARD, secure("'self' 'unsafe-inline'"), board);
  return router;

  async function recordOf(id: string): Promise<VerificationRecord | null> {
    if (!partitions.includes(partitionOf(id) ?? '')) return null;
    return await fromRedis(readVerification(redis, id));
  }

  /** The jobs that a verification may have, by the queues that there are. */
  async function jobsOf({ id, partition, sequence }: VerificationRecord): Promise<StoryJob[]> {
    const { queue, inquiryQueue } = namesOfQueues(partition);
    const places = queues.flatMap((place) => {
      if (place.name === queue || place.name === inquiryQueue) return [{ place, job: id }];
      if (sequence === 0 || ofPartitions.has(place.name)) return [];
      return [{ place, job: `${id}.${sequence}` }];
    });
    const found = await Promise.all(places.map(async ({ place, job }) => await redis.exists(place.toKey(job))));
    return places.flatMap(({ place, job }, index) =>
      found[index] === 1 ? [{ queue: place.name, title: titles.get(place.name) ?? place.name, id: job }] : [],
    );
  }
}

/** Redis does not answer, or not in time. */
class RedisAwayError extends Error {
  override readonly name = 'RedisAwayError';
}

/** @throws RedisAwayError; what was read and cannot be understood is thrown as it is */
async function fromRedis<T>(reading: Promise<T>): Promise<T> {
  const read = await withinOr(
    PAGE_LIMIT_MS,
    reading.catch((error: unknown) => {
      if (error instanceof RecordError) throw error;
      return AWAY;
    }),
    AWAY,
  );
  if (read === AWAY) throw new RedisAwayError('it did not answer');
  return read as T;
}

const AWAY = Symbol('Redis is away');

const MAYBE_DONE =
  'It is not known whether it was done: look at the story or the audit before you try again. The log says why.';
const PASSWORD_NEEDED = 'This page asks for a user and a password, as console.users of the configuration names them.';

const refuseAll: RequestHandler = (_request, response) => {
  response
    .status(403)
    .send(
      messagePage(
        'Closed',
        'Nobody may open this page yet: the configuration names no users. Add a name and a password to console.users.',
      ),
    );
};

function noSuchPage(): string {
  return messagePage('No such verification', 'No partition holds a verification of this id, or its retention is over.');
}

/** A check that throws or hangs has failed; why is nobody's business on an open port. */
async function passes(check: Check): Promise<boolean> {
  try {
    return await withinOr(CHECK_LIMIT_MS, Promise.resolve(check()), false);
  } catch {
    return false;
  }
}

/** The first step of a path is ours; what follows may be anything. */
function routeOf(path: string): string {
  return /^\/[a-z]*/.exec(path)?.[0] ?? '/';
}

/** The router's own refusals, of an address that is no text, say a status in the four hundreds. */
function isMalformed(error: unknown): boolean {
  return error instanceof Error && 'status' in error && Number(error.status) >= 400 && Number(error.status) <= 499;
}
