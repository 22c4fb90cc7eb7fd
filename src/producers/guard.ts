/** What holds for every request and every answer of the intake, whichever route it is for. */
import { randomUUID, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Secret } from '../secret.ts';
import { apiKeyDigest, digestOf } from '../secret-hashes.ts';
import { type ProblemName, problem } from './problem.ts';
import type { FieldFault } from './request.ts';

/** A browser has nothing to do here, and whatever it is made to do with an answer, it must not read it as a page. */
const HEADERS = {
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cache-Control': 'no-store',
} as const;
const ONLY_TLS = { 'Strict-Transport-Security': 'max-age=31536000' } as const;

/** On every answer. The request id is new each time, and in the log beside whatever failed on the way. */
export function answerHeaders({
  encrypted,
  requestId = randomUUID(),
}: {
  readonly encrypted: boolean;
  readonly requestId?: string;
}): Record<string, string> {
  return { ...HEADERS, ...(encrypted ? ONLY_TLS : {}), 'X-Request-Id': requestId };
}

export function isEncrypted({ socket }: IncomingMessage): boolean {
  return 'encrypted' in socket && socket.encrypted === true;
}

/** Every key is compared, in the same time, whichever it is and however much of it fits. Only digests are kept. */
export function authentication<Client extends { readonly apiKey: Secret<string> }>(
  clients: readonly Client[],
): (request: IncomingMessage) => Client | null {
  const known = clients.map((client) => ({ client, digest: apiKeyDigest(client.apiKey.reveal()) }));
  return (request) => {
    const [, key = ''] = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? '') ?? [];
    const digest = digestOf(key);
    let found: Client | null = null;
    for (const { client, digest: expected } of known) if (timingSafeEqual(digest, expected)) found = client;
    return found;
  };
}

const ONCE = ['Authorization', 'Content-Type', 'Idempotency-Key'];

/** Of two such headers somebody on the way may have read the one and we the other. */
export function repeatedHeaders({ rawHeaders }: IncomingMessage): FieldFault[] {
  const names = rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
  return ONCE.filter((name) => names.filter((given) => given === name.toLowerCase()).length > 1).map((field) => ({
    field,
    problem: 'must be given once',
  }));
}

/** How many requests of each client are open at the moment, those that wait for an outcome among them. */
export class OpenRequests {
  readonly #open = new Map<string, number>();

  /** False, and nothing counted, when the client has as many as it may have. */
  enter(client: string, max: number, response: ServerResponse): boolean {
    const open = this.#open.get(client) ?? 0;
    if (open >= max) return false;
    this.#open.set(client, open + 1);
    response.once('close', () => this.#open.set(client, (this.#open.get(client) ?? 1) - 1));
    return true;
  }
}

const UNREAD = {
  400: { name: 'malformed-request', detail: 'This is no HTTP request as RFC 9112 describes one.' },
  408: { name: 'request-timeout', detail: 'The request was not complete in time.' },
  413: { name: 'body-too-large', detail: 'The body is larger than any that is taken here.' },
  431: { name: 'headers-too-large', detail: 'The headers are too many or too long.' },
} as const satisfies Record<number, { readonly name: ProblemName; readonly detail: string }>;

/** The answer to what could not be read as a request, so that no route has seen it. */
export function unreadAnswer(
  status: 400 | 408 | 413 | 431,
  request: { readonly encrypted: boolean },
): { headers: Record<string, string>; body: string } {
  const { name, detail } = UNREAD[status];
  const { headers, body } = problem(name, detail);
  return { headers: { ...answerHeaders(request), ...headers }, body: JSON.stringify(body) };
}
