/**
 * The only place that touches the providers' network, and the only judge of the question "did it leave?".
 *
 * One undici pool per partition (a bulkhead), HTTP/1.1 without pipelining, no redirect, no retry: one call of `send`
 * puts at most one request on the wire. `not_sent` is claimed only when it is proved: undici announces on the
 * diagnostics channel `undici:client:sendHeaders` that it hands the headers of a request to a socket, and for this
 * request it never did. Whatever has no answer after that is `lost`.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { type buildConnector, type Dispatcher, Pool } from 'undici';
import { errorCodeOf } from '../events.ts';
import type { HttpRequest, HttpResponse } from '../providers/provider.ts';
import type { ProbeReply } from './breaker.ts';
import { type ConnectSettings, connector } from './connecting.ts';

export type Reply =
  /** `sentAt`: when the headers were handed to the socket, on the monotonic clock. */
  | { readonly kind: 'answered'; readonly response: HttpResponse; readonly sentAt: number }
  | { readonly kind: 'not_sent'; readonly code: string }
  | { readonly kind: 'lost'; readonly code: string; readonly sentAt: number };

export interface TransportSettings {
  /** Requests to any other origin are refused. */
  readonly baseUrl: string;
  /** Sockets at most; as many calls as may run at once, so that none waits behind another. */
  readonly connections: number;
  /** From the call to the last byte of the answer. */
  readonly timeoutMs: number;
  readonly tls?: NonNullable<ConnectSettings['tls']>;
  readonly proxy?: NonNullable<ConnectSettings['proxy']>;
}

const CONNECT_TIMEOUT_MS = 5_000;
const RESPONSE_MAX_BYTES = 1_048_576;
/** Of all header lines of an answer and of its trailers. Node's own default, which NODE_OPTIONS could raise. */
const HEADERS_MAX_BYTES = 16_384;
const SEND_HEADERS = 'undici:client:sendHeaders';

export class Transport {
  readonly #pool: Pool;
  readonly #connect: buildConnector.connector;
  readonly #origin: string;
  readonly #timeoutMs: number;

  constructor({ baseUrl, connections, timeoutMs, ...connecting }: TransportSettings) {
    this.#origin = new URL(baseUrl).origin;
    this.#timeoutMs = timeoutMs;
    this.#connect = connector({ timeoutMs: CONNECT_TIMEOUT_MS, ...connecting });
    this.#pool = new Pool(this.#origin, {
      connections,
      pipelining: 1,
      headersTimeout: 0, // one time-out over the whole call, below
      bodyTimeout: 0,
      maxHeaderSize: HEADERS_MAX_BYTES,
      connect: this.#connect,
    });
    subscribe(SEND_HEADERS, onSendHeaders);
  }

  /** `sendBefore` on the monotonic clock (`performance.now()`): headers that have not left by then never leave. Never throws. */
  async send(request: HttpRequest, sendBefore: number = Number.POSITIVE_INFINITY): Promise<Reply> {
    const url = URL.canParse(request.url) ? new URL(request.url) : null;
    if (url?.origin !== this.#origin || namesHost(request)) return { kind: 'not_sent', code: 'FOREIGN_ORIGIN' };
    return await new Promise<Reply>((resolve) => {
      const exchange = new Exchange(sendBefore, this.#timeoutMs, resolve);
      try {
        this.#pool.dispatch(
          {
            path: url.pathname + url.search,
            method: request.method,
            headers: { ...request.headers },
            body: request.body === undefined ? null : Buffer.from(request.body, 'utf8'),
          },
          exchange,
        );
      } catch (error) {
        exchange.fail(error); // undici refused the request itself, for instance an invalid header
      }
    });
  }

  /** A connection of its own, with its TLS, on which nothing is sent: can the provider be reached? */
  async reach(): Promise<ProbeReply> {
    const { protocol, hostname, host, port } = new URL(this.#origin);
    return await new Promise<ProbeReply>((resolve) => {
      this.#connect({ protocol, hostname, host, port }, (error, socket) => {
        socket?.on('error', () => {}).destroy();
        resolve(error === null ? { answered: true, code: 'connected' } : { answered: false, code: errorCodeOf(error) });
      });
    });
  }

  /** Ends every exchange now; one whose headers have left is lost. */
  async cutOff(): Promise<void> {
    await this.#pool.destroy();
  }

  async close(): Promise<void> {
    await this.cutOff();
    unsubscribe(SEND_HEADERS, onSendHeaders);
  }
}

/**
 * The exchange whose request undici is about to write. undici calls `onRequestStart`, then announces `sendHeaders`, then
 * writes, all in one synchronous turn; so whoever was started last is the one that is announced.
 */
let starting: Exchange | null = null;

function onSendHeaders(): void {
  starting?.headersLeave();
  starting = null;
}

/** One request and its one reply. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #sendBefore: number;
  readonly #resolve: (reply: Reply) => void;
  readonly #timers: NodeJS.Timeout[] = [];
  #controller: Dispatcher.DispatchController | null = null;
  #sentAt: number | null = null;
  #ended = false;
  #status = 0;
  #headers: Record<string, string> = {};
  #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(sendBefore: number, timeoutMs: number, resolve: (reply: Reply) => void) {
    this.#sendBefore = sendBefore;
    this.#resolve = resolve;
    this.#timers.push(setTimeout(() => this.#end('TIMEOUT'), timeoutMs));
    if (Number.isFinite(sendBefore)) {
      this.#timers.push(
        setTimeout(
          () => {
            if (this.#sentAt === null) this.#end('SEND_BEFORE_PASSED');
          },
          Math.max(0, sendBefore - performance.now()),
        ),
      );
    }
  }

  /** The last moment at which nothing has left: what aborts here was provably not sent. */
  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (!this.#ended && performance.now() >= this.#sendBefore) this.#end('SEND_BEFORE_PASSED');
    if (this.#ended) controller.abort(new Error('given up before anything was sent'));
    else starting = this;
  }

  headersLeave(): void {
    this.#sentAt = performance.now();
  }

  onResponseStart(_: unknown, status: number, headers: Record<string, string | string[] | undefined>): void {
    if (status < 200) return; // 100 Continue and its like announce an answer, they are none
    this.#status = status;
    for (const [name, value] of Object.entries(headers)) {
      if (value !== undefined) this.#headers[name.toLowerCase()] = Array.isArray(value) ? value.join(', ') : value;
    }
  }

  onResponseData(_: unknown, chunk: Buffer): void {
    this.#bytes += chunk.length;
    if (this.#bytes > RESPONSE_MAX_BYTES) this.#end('RESPONSE_TOO_LARGE');
    else this.#chunks.push(chunk);
  }

  onResponseEnd(): void {
    if (this.#ended) return;
    const body = Buffer.concat(this.#chunks).toString('utf8');
    this.#finish({
      kind: 'answered',
      response: { status: this.#status, headers: this.#headers, body },
      sentAt: this.#sentAt ?? performance.now(),
    });
  }

  onResponseError(_: unknown, error: Error): void {
    this.fail(error);
  }

  fail(error: unknown): void {
    this.#end(errorCodeOf(error));
  }

  #end(code: string): void {
    if (this.#ended) return;
    this.#finish(this.#sentAt === null ? { kind: 'not_sent', code } : { kind: 'lost', code, sentAt: this.#sentAt });
    this.#controller?.abort(new Error(code));
  }

  #finish(reply: Reply): void {
    this.#ended = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#resolve(reply);
  }
}

/** Does this reply say that the provider works? Whatever it answers, unless it is an error of its own. */
export function probeReplyOf(reply: Reply): ProbeReply {
  if (reply.kind !== 'answered') return { answered: false, code: reply.code };
  const { status } = reply.response;
  return { answered: status < 500, code: String(status) };
}

/** What the other side's clock said, by its Date header, in Unix ms; null when nothing was answered, or no time that can be read. */
export function timeToldIn(reply: Reply): number | null {
  const at = reply.kind === 'answered' ? Date.parse(reply.response.headers.date ?? '') : Number.NaN;
  return Number.isNaN(at) ? null : at;
}

/** undici would take a Host header for the name that the certificate must have. */
const namesHost = ({ headers }: HttpRequest): boolean =>
  Object.keys(headers).some((name) => name.toLowerCase() === 'host');
