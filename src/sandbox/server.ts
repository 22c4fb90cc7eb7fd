/**
 * The plumbing under every sandbox server: the request with its body exactly as it came, the answer with every way in
 * which an answer can fail to arrive, and a listening socket that can be taken down and brought back on the same port.
 */
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

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
          if (answerDelayMs <= 0) return deliver(response, answer);
          const timer = setTimeout(() => {
            delayed.delete(timer);
            deliver(response, answer);
          }, answerDelayMs);
          delayed.add(timer);
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

function deliver(response: ServerResponse, answer: Answer): void {
  const socket = response.socket;
  if (response.destroyed || !socket) return;
  if (answer.delivery === 'silence') return; // held until the client gives up or the sandbox closes
  if (answer.delivery === 'reset') {
    socket.resetAndDestroy();
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
