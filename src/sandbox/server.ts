/**
 * The plumbing under every sandbox server: the request with its body exactly as it came, the answer with every way in
 * which an answer can fail to arrive, and a listening socket that can be taken down and brought back on the same port.
 */
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';

export interface IncomingCall {
  method: string;
  /** The path with its query, byte for byte as it came: some providers sign it. */
  url: string;
  path: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
  /** The body as it came. Signatures are over these characters, never over a parsed and printed copy. */
  body: string;
}

/** What an answer says of the code, so that the ledger can be judged without reading five formats. */
export type Told =
  | 'accepted'
  | 'rejected'
  /** An explicit no, of which the documentation leaves open whether it is about the code or about the money. */
  | 'unclear'
  /** Refused before the business layer, by an answer the provider documents. */
  | 'refused'
  /** Nothing that can be relied upon: no answer, an unreadable one, a 5xx, an undocumented word. */
  | 'nothing';

export interface Answer {
  status: number;
  contentType: string;
  body: string;
  headers?: Record<string, string>;
  /** Left out where the call is not about a code (inquiries, tokens). */
  told?: Told;
  /** `half` promises the whole length and closes in the middle; `reset` is an RST instead of an answer. */
  delivery: 'whole' | 'half' | 'reset' | 'silence';
  /** No page says how a client reads such an answer, so `told` is no proof of what it understood. */
  unclear?: true;
  /** A fault asks to hold the answer back; whoever knows clocks and callbacks turns it into `until`. */
  hold?: 'slow' | 'callback_first';
  /** Held back until this resolves, or until the client gives up. */
  until?: Promise<unknown>;
  /** Called in place of the delivery when the client gave up first. */
  undelivered?: () => void;
  /** Called once, when the answer was handed to the socket or never can be. */
  afterwards?: () => void;
  /** Sent one after the other in place of `body`, for answers too long to be put together first. */
  lines?: Iterable<string>;
}

export function json(status: number, body: unknown, told?: Told, headers?: Record<string, string>): Answer {
  return {
    status,
    contentType: 'application/json; charset=utf-8',
    body: JSON.stringify(body),
    delivery: 'whole',
    ...(told === undefined ? {} : { told }),
    ...(headers === undefined ? {} : { headers }),
  };
}

export interface Listener {
  readonly port: number;
  readonly url: string;
  takeDown(): Promise<void>;
  bringUp(): Promise<void>;
}

const bodyLimitBytes = 1024 * 1024;

/** Starts listening; port 0 takes a free port and keeps it over takeDown and bringUp. */
export async function listen(
  host: string,
  port: number,
  decide: (call: IncomingCall) => Answer | Promise<Answer>,
  answerDelayMs = 0,
): Promise<Listener> {
  let server: Server | undefined;
  const delayed = new Set<NodeJS.Timeout>();

  /** A fault of the sandbox itself is no simulated one, and says so. */
  const decided = async (call: IncomingCall): Promise<Answer> => {
    try {
      return await decide(call);
    } catch (error) {
      return { status: 500, contentType: 'text/plain', body: `fault of the sandbox: ${error}`, delivery: 'whole' };
    }
  };

  const open = (atPort: number) =>
    new Promise<Server>((resolve, reject) => {
      // A client's pooled connection outlives a pause between two tests, so no request meets a socket just closed.
      const opened = createServer({ keepAliveTimeout: 65_000 }, (request, response) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        request.on('error', () => response.destroy());
        request.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > bodyLimitBytes) request.destroy();
          else chunks.push(chunk);
        });
        request.on('end', async () => {
          const url = request.url ?? '/';
          const queryAt = url.indexOf('?');
          const answer = await decided({
            method: request.method ?? 'GET',
            url,
            path: queryAt < 0 ? url : url.slice(0, queryAt),
            query: new URLSearchParams(queryAt < 0 ? '' : url.slice(queryAt + 1)),
            headers: request.headers,
            body: Buffer.concat(chunks).toString('utf8'),
          });
          if (answerDelayMs <= 0 && !answer.until) return handOver(response, answer);
          const delay = new Promise<void>((resolve) => {
            const timer = setTimeout(() => {
              delayed.delete(timer);
              resolve();
            }, answerDelayMs);
            delayed.add(timer);
          });
          handOver(response, answer, Promise.all([delay, answer.until]));
        });
      });
      opened.once('error', reject);
      opened.listen(atPort, host, () => {
        opened.removeListener('error', reject);
        resolve(opened);
      });
    });

  /** Down and up one after the other, in the order they were asked for. */
  let turn: Promise<void> = Promise.resolve();
  const inTurn = (work: () => Promise<void>) => {
    turn = turn.then(work, work);
    return turn;
  };

  server = await open(port);
  const boundPort = (server.address() as AddressInfo).port;

  return {
    port: boundPort,
    url: `http://${host.includes(':') ? `[${host}]` : host}:${boundPort}`,
    takeDown: () => inTurn(takeDown),
    bringUp: () =>
      inTurn(async () => {
        server ??= await open(boundPort);
      }),
  };

  async function takeDown(): Promise<void> {
    const closing = server;
    server = undefined;
    for (const timer of delayed) clearTimeout(timer);
    delayed.clear();
    if (!closing) return;
    const closed = new Promise<void>((resolve) => closing.close(() => resolve()));
    closing.closeAllConnections();
    await closed;
  }
}

/** Delivers the answer once it may go, unless the client has gone before. */
function handOver(response: ServerResponse, answer: Answer, mayGo?: Promise<unknown>): void {
  let over = false;
  const end = (work?: () => void) => {
    if (over) return;
    over = true;
    work?.();
    answer.afterwards?.();
  };
  const go = () => end(response.destroyed ? answer.undelivered : () => deliver(response, answer));
  if (mayGo) {
    response.once('close', () => end(answer.undelivered));
    mayGo.then(go, go);
  } else go();
}

function deliver(response: ServerResponse, answer: Answer): void {
  const socket = response.socket;
  if (response.destroyed || !socket) return;
  if (answer.delivery === 'silence') return; // held until the client gives up or the sandbox closes
  if (answer.delivery === 'reset') {
    socket.resetAndDestroy();
    return;
  }
  if (answer.lines) {
    response.writeHead(answer.status, { 'content-type': answer.contentType, ...answer.headers });
    Readable.from(answer.lines).pipe(response);
    return;
  }
  const body = Buffer.from(answer.body, 'utf8');
  response.writeHead(answer.status, {
    'content-type': answer.contentType,
    'content-length': body.length,
    ...answer.headers,
  });
  if (answer.delivery === 'whole') response.end(body);
  else response.write(body.subarray(0, Math.floor(body.length / 2)), () => socket.destroy());
}
