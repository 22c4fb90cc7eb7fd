/**
 * The HTTP intake: the same way in as the library's, for everybody else. It makes the listener and listens to no port.
 * Each route is a function from a request to an Answer; one place writes answers, so none leaves without its headers and
 * none repeats what came in.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, RequestListener } from 'node:http';
import { asError } from '../events.ts';
import type { Secret } from '../secret.ts';
import { within } from '../time-limit.ts';
import { type Acceptance, type AcceptDependencies, acceptParsed, personalReference } from './accept.ts';
import { apiPage } from './api-page.ts';
import { jsonOf, readBody } from './body.ts';
import { type CallbackEntrance, type Receipt, receiveCallback } from './callbacks.ts';
import { answerHeaders, authentication, isEncrypted, OpenRequests, repeatedHeaders } from './guard.ts';
import { partitionOf } from './job.ts';
import { type Answer, problem } from './problem.ts';
import { readByReference, readVerification } from './reading.ts';
import type { VerificationRecord } from './record.ts';
import {
  type FieldFault,
  InvalidRequestError,
  idempotencyKeyProblem,
  parseRequest,
  traceparentIn,
  type VerificationRequest,
} from './request.ts';
import { acceptedResourceOf, resourceOf, type VerificationResource } from './resource.ts';
import { type Exchange, queryOf, type Route, type Routes, router } from './routing.ts';
import type { Waiting } from './waiting.ts';

export interface IntakeClient {
  readonly id: string;
  /** Or its hash. */
  readonly apiKey: Secret<string>;
  /** Partitions it may use; all without it. */
  readonly providers?: readonly string[] | undefined;
  /** Details are sealed to this key and handed out as they are; without it the intake opens them itself. */
  readonly resultsKey?: unknown;
  /** Requests that this process has open for it at a time; any number without it. */
  readonly maxInFlight?: number | undefined;
}

/** `redis` and the queues are of the `producer` profile: they fail fast. */
export interface IntakeDependencies extends AcceptDependencies {
  readonly clients: readonly IntakeClient[];
  readonly waiting: Waiting;
  /** Without it no partition takes callbacks. */
  readonly callbacks?: CallbackEntrance;
  /** Where traces are made: the context in which a request is accepted, of what its caller gave. */
  readonly enterTrace?: (received: string | null) => string;
  /** Documents that describe the API, by their path. */
  readonly descriptions?: Readonly<Record<string, unknown>>;
  /** Opens details that were sealed for GET, under the key that opens no codes. */
  openDetails?(sealed: string): Promise<unknown>;
  /** After this a Redis that does not answer counts as away. */
  readonly timeLimitMs?: number;
  /** A body that is not complete after this is waited for no longer. */
  readonly bodyTimeLimitMs?: number;
}

const BODY_LIMIT_BYTES = 64 * 1024;
const TIME_LIMIT_MS = 4_000;
const BODY_TIME_LIMIT_MS = 10_000;
/** Without a parameter, or with the one that says what JSON is anyway. */
const JSON_TYPE = /^application\/json[ \t]*(?:;[ \t]*charset=(?:utf-8|"utf-8")[ \t]*)?$/i;
const LONGEST_WAIT_S = 30;
const LONGEST_REFERENCE = 256;
const UNKNOWN_FATE =
  'It is not known whether the request was accepted. Repeat it with the same Idempotency-Key: it gives one answer.';
/** What nginx calls it when the caller did not wait for the answer. */
const CALLER_GONE = 499;

type ClientRoute = (client: IntakeClient, exchange: Exchange) => Promise<Answer>;

export function createIntake(deps: IntakeDependencies): RequestListener {
  const { events, redis, waiting, timeLimitMs = TIME_LIMIT_MS, bodyTimeLimitMs = BODY_TIME_LIMIT_MS } = deps;
  const clientOf = authentication(deps.clients);
  const open = new OpenRequests();

  const routeOf = router({
    '/v1/verifications': { GET: ofClient(list), POST: ofClient(enqueue) },
    '/v1/verifications/:id': { GET: ofClient(show) },
    '/v1/callbacks/:partition': { POST: callback },
    '/v1/callbacks/:partition/:token': { POST: callback },
    ...documentRoutes(deps.descriptions ?? {}),
  });

  return (request, response) => {
    const began = performance.now();
    const requestId = randomUUID();
    response.once('close', () => {
      const status = response.writableFinished ? response.statusCode : CALLER_GONE;
      events.emit('intake:answered', { status, durationMs: performance.now() - began });
    });
    const { route, parameters } = routeOf(request);
    answer({ request, response, requestId, parameters }, route);
  };

  async function answer(exchange: Exchange, route: Route): Promise<void> {
    try {
      write(exchange, await route(exchange));
    } catch (error) {
      // A fault of ours, and it says so without a word of its text.
      failed('intake', error, exchange);
      write(exchange, problem('internal-error', UNKNOWN_FATE));
    }
  }

  /** A route for those who hold an API key, and have not too much open already. */
  function ofClient(route: ClientRoute): Route {
    return async (exchange) => {
      const { request, response } = exchange;
      const repeated = repeatedHeaders(request);
      if (repeated.length > 0) return invalid(repeated);
      const client = clientOf(request);
      if (!client) return unauthorized();
      if (!open.enter(client.id, client.maxInFlight ?? Number.POSITIVE_INFINITY, response)) {
        events.emit('intake:limited', { client: client.id, limit: 'in_flight' });
        return problem('too-many-in-flight', 'Nothing was read of this request: repeat it.', retryAfter(1_000));
      }
      return await route(client, exchange);
    };
  }

  async function enqueue(client: IntakeClient, exchange: Exchange): Promise<Answer> {
    const { request } = exchange;
    const read = await readJson(request);
    if ('unreadable' in read) return read.unreadable;
    const { body } = read;
    const idempotencyKey = headerOf(request, 'idempotency-key');
    const parsed = parseAll(body, idempotencyKey);
    if (Array.isArray(parsed)) return invalid(parsed);
    const partition = parsed.partition.name;
    if (client.providers && !client.providers.includes(partition)) {
      return problem(
        'partition-not-allowed',
        'The provider of the request names a partition that this key may not use.',
      );
    }

    const began = performance.now();
    const received = traceparentIn(headerOf(request, 'traceparent'));
    let acceptance: Acceptance;
    let accepted: VerificationRecord | null = null;
    try {
      const traced = { ...parsed, traceparent: deps.enterTrace?.(received) ?? received };
      [acceptance, accepted] = await within(timeLimitMs, acceptAndRead(client, idempotencyKey, body, traced));
    } catch (error) {
      failed('intake: accepting', error, exchange);
      return unavailable(UNKNOWN_FATE);
    }
    switch (acceptance.kind) {
      case 'mismatch':
        return problem('idempotency-mismatch', 'A new request needs a new Idempotency-Key.');
      case 'in_progress':
        return problem('in-progress', 'Repeat the request: it will get the answer of the first.', retryAfter(1_000));
      case 'limited':
        events.emit('intake:limited', { client: client.id, limit: 'rate' });
        return problem('rate-limited', 'Nothing was kept of this request.', retryAfter(acceptance.retryAfterMs));
      case 'backlogged':
        events.emit('intake:limited', { client: client.id, limit: 'backlog' });
        return problem('backlogged', 'Nothing was kept of this request.', retryAfter(acceptance.retryAfterMs));
      case 'accepted':
        if (accepted === null)
          return problem('gone', 'The verification of this Idempotency-Key is past its retention.');
        if (!acceptance.repeated) tellAccepted(accepted, received, performance.now() - began);
        return await acceptedAnswer(client, accepted, exchange);
    }
    return acceptance satisfies never;
  }

  function tellAccepted(
    { id, partition, traceparent }: VerificationRecord,
    received: string | null,
    durationMs: number,
  ): void {
    events.emit('intake:accepted', { id, traceparent, partition, received, durationMs });
  }

  async function acceptAndRead(
    client: IntakeClient,
    idempotencyKey: string,
    body: unknown,
    request: VerificationRequest,
  ): Promise<[Acceptance, VerificationRecord | null]> {
    const acceptance = await acceptParsed(client, idempotencyKey, body, request, deps);
    if (acceptance.kind !== 'accepted') return [acceptance, null];
    return [acceptance, acceptance.record() ?? (await readVerification(redis, acceptance.id))];
  }

  /** From here on the verification is in the journal: whatever fails now, the answer is at least a 202. */
  async function acceptedAnswer(
    client: IntakeClient,
    accepted: VerificationRecord,
    exchange: Exchange,
  ): Promise<Answer> {
    const location = { Location: `/v1/verifications/${accepted.id}` };
    const waitS = preferredWait(exchange.request);
    const inTheMeantime = (headers: Record<string, string>): Answer => {
      return { status: 202, headers: { ...location, ...headers }, body: acceptedResourceOf(accepted) };
    };
    if (waitS === null) return inTheMeantime({});
    const applied = { 'Preference-Applied': `wait=${waitS}` };
    try {
      const record = await watch(accepted.id, isDecided, waitS, exchange);
      if (record === null || !isDecided(record)) return inTheMeantime(applied);
      return { status: 200, headers: { ...location, ...applied }, body: await shown(record, client, exchange) };
    } catch (error) {
      failed('intake: waiting', error, exchange);
      return inTheMeantime(applied);
    }
  }

  async function show(client: IntakeClient, exchange: Exchange): Promise<Answer> {
    const { request, parameters } = exchange;
    const { after } = queryOf(request);
    if (after !== undefined && !(typeof after === 'string' && /^\d{1,9}$/.test(after))) {
      return invalid([{ field: 'after', problem: 'must be a sequence: 0 or a positive integer' }]);
    }
    const { id = '' } = parameters;
    const waitS = preferredWait(request);
    const isNews = (record: VerificationRecord): boolean =>
      after === undefined ? isDecided(record) : record.sequence > Number(after) || record.final;
    try {
      let record = await within(timeLimitMs, readVerification(redis, id));
      // Somebody else's is not there, and nobody waits for it.
      if (record?.client === client.id && waitS !== null) record = await watch(id, isNews, waitS, exchange);
      if (record?.client !== client.id) return problem('not-found', 'No verification of yours has this id.');
      const applied: Record<string, string> = waitS === null ? {} : { 'Preference-Applied': `wait=${waitS}` };
      return { status: 200, headers: applied, body: await shown(record, client, exchange) };
    } catch (error) {
      failed('intake: reading', error, exchange);
      return unavailable('The verification cannot be read now. Repeat the request.');
    }
  }

  async function list(client: IntakeClient, exchange: Exchange): Promise<Answer> {
    const { provider, reference, after = '' } = queryOf(exchange.request);
    const faults: FieldFault[] = [];
    const partition = typeof provider === 'string' ? deps.partitions.get(provider)?.name : undefined;
    if (partition === undefined) faults.push({ field: 'provider', problem: 'must name a partition' });
    if (typeof reference !== 'string' || reference === '' || reference.length > LONGEST_REFERENCE) {
      faults.push({ field: 'reference', problem: `must be one of 1 to ${LONGEST_REFERENCE} characters` });
    }
    if (typeof after !== 'string' || (after !== '' && partitionOf(after) !== partition)) {
      faults.push({ field: 'after', problem: 'must be the `next` of the page before' });
    }
    if (faults.length > 0 || partition === undefined) return invalid(faults);
    if (client.providers && !client.providers.includes(partition)) {
      return problem('partition-not-allowed', 'The provider names a partition that this key may not use.');
    }
    const asked = String(reference);
    try {
      const page = await within(
        timeLimitMs,
        readByReference(redis, {
          partition,
          client: client.id,
          references: [asked, personalReference(client.apiKey, asked)],
          after: String(after),
        }),
      );
      const verifications = await Promise.all(
        page.records.map(async (record) => await shown(record, client, exchange)),
      );
      return { status: 200, headers: {}, body: { verifications, next: page.next } };
    } catch (error) {
      failed('intake: listing', error, exchange);
      return unavailable('The verifications cannot be read now. Repeat the request.');
    }
  }

  /** Needs no API key: the provider proves itself in its own way, over the bytes as they came. */
  async function callback(exchange: Exchange): Promise<Answer> {
    const { request, parameters } = exchange;
    const { partition = '', token = null } = parameters;
    const { callbacks } = deps;
    const bound = callbacks?.of(partition) ?? null;
    if (!callbacks || !bound) return problem('not-found', 'No partition that takes callbacks has this name.');
    const read = await readBytes(request);
    if ('unreadable' in read) return read.unreadable;

    const proof = {
      headers: Object.fromEntries(
        Object.entries(request.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : value]),
      ) as Record<string, string>,
      pathToken: token,
      rawBody: read.bytes,
    };
    let receipt: Receipt;
    try {
      receipt = await within(timeLimitMs, receiveCallback(partition, bound, proof, { ...deps, callbacks }));
    } catch (error) {
      failed('intake: storing a callback', error, exchange);
      return unavailable('It is not known whether the callback was stored. Repeat it.');
    }
    switch (receipt.kind) {
      case 'refused':
        return problem('unauthorized', 'The callback does not carry the proof that this partition asks for.');
      case 'full':
        return unavailable('Too many callbacks wait to be read. Nothing was kept of this one: repeat it.', 60_000);
      case 'stored':
        return { status: 200, headers: {}, body: receipt.acknowledgement };
    }
    return receipt satisfies never;
  }

  async function watch(
    id: string,
    enough: (record: VerificationRecord) => boolean,
    waitS: number,
    { response }: Exchange,
  ): Promise<VerificationRecord | null> {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    return await waiting.until(
      id,
      async () => await within(timeLimitMs, readVerification(redis, id)),
      (record) => record === null || enough(record),
      { limitMs: waitS * 1_000, signal: gone.signal },
    );
  }

  async function shown(
    record: VerificationRecord,
    client: IntakeClient,
    exchange: Exchange,
  ): Promise<VerificationResource> {
    const resource = resourceOf(record);
    if (record.sealedDetails === null) return resource;
    if (client.resultsKey !== undefined) return { ...resource, details: record.sealedDetails };
    try {
      return { ...resource, details: (await deps.openDetails?.(record.sealedDetails)) ?? null };
    } catch (error) {
      // What became of the code is worth showing without them; null says that there are some.
      failed('intake: opening details', error, exchange);
      return { ...resource, details: null };
    }
  }

  async function readJson(request: IncomingMessage): Promise<{ body: unknown } | { unreadable: Answer }> {
    if (!JSON_TYPE.test(headerOf(request, 'content-type'))) {
      return { unreadable: problem('unsupported-media-type', 'The Content-Type must be application/json, in UTF-8.') };
    }
    const read = await readBytes(request);
    if ('unreadable' in read) return read;
    try {
      return { body: jsonOf(read.bytes) };
    } catch {
      return { unreadable: problem('malformed-json', 'The body must be one JSON object, in UTF-8.') };
    }
  }

  async function readBytes(request: IncomingMessage): Promise<{ bytes: Buffer } | { unreadable: Answer }> {
    const body = await readBody(request, { bytes: BODY_LIMIT_BYTES, ms: bodyTimeLimitMs });
    switch (body.kind) {
      case 'read':
        return body;
      case 'too_large':
        return { unreadable: problem('body-too-large', `The body must have at most ${BODY_LIMIT_BYTES} bytes.`) };
      case 'encoded':
        return { unreadable: problem('unsupported-media-type', 'The body must have no Content-Encoding.') };
      case 'too_slow':
        return {
          unreadable: problem('request-timeout', `The body must be here within ${bodyTimeLimitMs / 1_000} seconds.`, {
            headers: { Connection: 'close' },
          }),
        };
      case 'gone': // nobody will hear it
        return { unreadable: problem('malformed-request', 'The body must be complete.') };
    }
    return body satisfies never;
  }

  /** The request's id is the only thing that the log and its caller both know. */
  function failed(where: string, error: unknown, { requestId }: Exchange): void {
    events.emit('machinery:failed', { where, error: asError(error), requestId });
  }

  /** The request, or every fault of it, that of its key among them. */
  function parseAll(body: unknown, idempotencyKey: string): VerificationRequest | FieldFault[] {
    const keyProblem = idempotencyKeyProblem(idempotencyKey);
    const faults: FieldFault[] = keyProblem === null ? [] : [{ field: 'Idempotency-Key', problem: keyProblem }];
    try {
      const request = parseRequest(body, deps.partitions);
      return faults.length === 0 ? request : faults;
    } catch (error) {
      if (!(error instanceof InvalidRequestError)) throw error;
      return [...faults, ...error.faults];
    }
  }
}

/** Something a waiting caller came for: an outcome, be it final or not. */
function isDecided(record: VerificationRecord): boolean {
  return record.sequence >= 1 && (record.final || record.state === 'awaiting');
}

/** RFC 7240: `Prefer: wait=10`, alone or among others. What is no number of seconds is ignored, more than 30 is 30. */
function preferredWait(request: IncomingMessage): number | null {
  for (const preference of headerOf(request, 'prefer').split(',')) {
    const [, seconds] = /^\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:;|$)/i.exec(preference) ?? [];
    if (seconds !== undefined && Number(seconds) >= 1) return Math.min(Number(seconds), LONGEST_WAIT_S);
  }
  return null;
}

/** Documents that describe the API, and the page that shows them. */
function documentRoutes(descriptions: Readonly<Record<string, unknown>>): Routes {
  const documents = Object.entries(descriptions).map(
    ([path, body]) => [path, { status: 200, headers: {}, body }] as const,
  );
  return {
    ...Object.fromEntries(documents.map(([path, answer]) => [path, { GET: () => answer }])),
    ...('/openapi.json' in descriptions
      ? Object.fromEntries([...apiPage].map(([path, file]) => [path, { GET: file }]))
      : {}),
  };
}

function write({ request, response, requestId }: Exchange, { status, headers, body }: Answer): void {
  if (response.headersSent || response.destroyed) return;
  // A text leaves together with the headers, in one system call.
  const content = Buffer.isBuffer(body) ? body : JSON.stringify(body);
  response.writeHead(status, {
    ...answerHeaders({ encrypted: isEncrypted(request), requestId }),
    'Content-Type': 'application/json',
    ...headers,
    'Content-Length': Buffer.byteLength(content),
  });
  response.end(content);
}

/** Of those that have one value; '' without it. */
function headerOf({ headers }: IncomingMessage, name: string): string {
  const value = headers[name];
  return typeof value === 'string' ? value : '';
}

function unauthorized(): Answer {
  return problem('unauthorized', 'Send the API key of a client as Authorization: Bearer <apiKey>.', {
    headers: { 'WWW-Authenticate': 'Bearer realm="otp-pipeline"' },
  });
}

function invalid(errors: readonly FieldFault[]): Answer {
  return problem(
    'invalid-request',
    `${errors.length === 1 ? 'One field does' : `${errors.length} fields do`} not fit.`,
    {
      errors,
    },
  );
}

function unavailable(detail: string, retryAfterMs = 1_000): Answer {
  return problem('unavailable', detail, retryAfter(retryAfterMs));
}

function retryAfter(ms: number): { headers: Record<string, string> } {
  return { headers: { 'Retry-After': String(Math.max(1, Math.ceil(ms / 1_000))) } };
}
