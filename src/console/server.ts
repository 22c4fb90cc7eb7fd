/**
 * The operator's port. `/healthz`, `/readyz` and `/metrics` are for machines and are there in every process; all the
 * rest is for people, asks for a password and changes nothing.
 */
import type { Queue } from 'bullmq';
import express, { type ErrorRequestHandler, type Express, type RequestHandler, type Router } from 'express';
import type { Registry } from 'prom-client';
import { asError, type EventBus } from '../events.ts';
import type { DepthReader } from '../metrics/depths.ts';
import { within } from '../metrics/limit.ts';
import { partitionKeys, partitionOf } from '../producers/job.ts';
import { readRecord, resourceOf } from '../producers/record.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { askForPassword, onlyLooking, pageHeaders, sameOrigin, secure } from './access.ts';
import { createBoard } from './board.ts';
import { type ConsoleUser, Logins } from './logins.ts';
import { ICON, messagePage, overviewPage, STYLE_SOURCE, storyPage } from './pages.ts';
import type { LoginThrottle } from './throttle.ts';

/** A check that takes longer has failed. */
const CHECK_LIMIT_MS = 1_000;
/** A person who waits longer than this for a page reloads it. */
const PAGE_LIMIT_MS = 3_000;

const BOARD = '/board';

export type Check = () => boolean | Promise<boolean>;

export interface ConsoleDependencies {
  readonly registry: Registry;
  readonly readiness: { readonly redis: Check; readonly workers: Check; readonly configuration: Check };
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
  readonly partitions: readonly string[];
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
    const names = ['redis', 'workers', 'configuration'] as const;
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
    const malformed = isMalformed(error);
    if (!malformed) {
      events.emit('machinery:failed', {
        where: `console ${request.method} ${routeOf(request.path)}`,
        error: asError(error),
      });
    }
    if (response.headersSent) return next(error);
    // What an error says may quote what it failed on, so the browser is told nothing of it.
    if (malformed) response.status(400).send(messagePage('This cannot be asked', 'The address is malformed.'));
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

function pagesOf(pages: PagesDependencies, events: EventBus): Router {
  const { users, redis, partitions, queues, depths, throttle } = pages;
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
  router.use(onlyLooking(() => messagePage('Only to look at', 'The console shows and changes nothing.')));

  router.get('/', async (_request, response) => {
    const names = queues.map(({ name }) => name);
    response.send(overviewPage({ partitions, queues: names, depths: await depths.read() }));
  });
  router.get('/icon.svg', (_request, response) => {
    response.type('image/svg+xml').send(ICON);
  });
  router.get('/verifications', (request, response) => {
    const { id } = request.query;
    response.redirect(303, typeof id === 'string' ? `/verifications/${encodeURIComponent(id.trim())}` : '/');
  });
  router.get('/verifications/:id', async (request, response) => {
    const { id } = request.params;
    const partition = partitionOf(id);
    if (partition === null || !partitions.includes(partition)) return void response.status(404).send(noSuchPage());
    const reading = redis.hgetall(partitionKeys(partition).record(id)).catch(() => 'away' as const);
    const raw = await within(PAGE_LIMIT_MS, reading, 'away' as const);
    if (raw === 'away') {
      return void response.status(503).send(messagePage('Redis is away', 'It did not answer. Reload in a moment.'));
    }
    const record = readRecord(id, partition, raw);
    if (record === null) return void response.status(404).send(noSuchPage());
    response.send(storyPage(resourceOf(record)));
  });

  // Bull Board's components set styles on elements, which no hash can name; scripts it has in files only.
  router.use(BOARD, secure("'self' 'unsafe-inline'"), createBoard({ basePath: BOARD, queues, partitions }));
  return router;
}

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
    return await within(CHECK_LIMIT_MS, Promise.resolve(check()), false);
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
