/**
 * A port and what HTTP may do on it, the same for the intake and the console: how slowly a request may come, how large
 * its headers may be, over TLS or not, and what is answered to what is no request at all.
 */
import { readFileSync } from 'node:fs';
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';

/** What no application gets to see, because it is not a request, or not yet one. */
export type UnreadStatus = 400 | 408 | 413 | 431;

export interface Unread {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface Site {
  readonly app: RequestListener;
  unread(status: UnreadStatus, request: { readonly encrypted: boolean }): Unread;
  onUnread?(status: UnreadStatus): void;
}

export interface PortSettings {
  readonly host: string;
  readonly port: number;
  readonly tls?: { readonly certFile: string; readonly keyFile: string };
}

export interface HttpLimits {
  /** From the first byte of a connection, or of its next request, to the end of the headers. */
  readonly headersMs: number;
  /** To the end of the body. An application that wants a body sooner says so itself. */
  readonly requestMs: number;
  /** A connection without a request. Longer than the minute after which load balancers let go of theirs. */
  readonly idleMs: number;
  /** Of a request that was answered before it was complete, the rest is read for so long: a reset might overtake the answer. */
  readonly lingerMs: number;
  readonly headersBytes: number;
  readonly headersCount: number;
}

export const HTTP_LIMITS: HttpLimits = {
  headersMs: 10_000,
  requestMs: 25_000,
  idleMs: 65_000,
  lingerMs: 2_000,
  headersBytes: 16 * 1024,
  headersCount: 100,
};

export class StartError extends Error {
  override readonly name = 'StartError';
}

export interface Port {
  readonly url: string;
  /** From now on every answer says that its connection ends with it, so that callers come back elsewhere. */
  leave(): void;
  /** Answers what is under way, for two seconds by default; connections that only wait are cut. */
  close(patienceMs?: number): Promise<void>;
}

/** `key` is the section of the configuration that a fault names. @throws StartError */
export async function openPort(
  key: 'intake' | 'console',
  { host, port, tls }: PortSettings,
  site: Site,
  limits: HttpLimits = HTTP_LIMITS,
): Promise<Port> {
  const reception = new Reception(site, limits, tls !== undefined);
  const options = {
    headersTimeout: limits.headersMs,
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.idleMs,
    connectionsCheckingInterval: Math.min(1_000, Math.ceil(limits.headersMs / 4)),
    maxHeaderSize: limits.headersBytes,
    requireHostHeader: false, // Node would answer by itself, without a header of ours
  };
  const receive: RequestListener = (request, response) => reception.receive(request, response);
  const server: Server = tls
    ? createTlsServer({ ...options, ...identity(key, tls), minVersion: 'TLSv1.2', handshakeTimeout: 10_000 }, receive)
    : createServer(options, receive);
  server.maxHeadersCount = 0; // more than some number would be left out in silence: `receive` counts them instead
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => reception.refuse(error, socket));
  server.on('checkExpectation', receive); // an expectation that nobody knows is no reason to refuse

  await new Promise<void>((ready, failed) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      failed(new StartError(`${key}.port: cannot listen on ${host}:${port} (${error.code ?? error.message})`)),
    );
    server.listen(port, host, ready);
  });
  const { port: taken } = server.address() as AddressInfo;
  return {
    url: `${tls ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${taken}`,
    leave: () => reception.leave(),
    close: async (patienceMs = 2_000) => {
      reception.leave();
      await closeServer(server, patienceMs);
    },
  };
}

/** Why it is unwise to open this port like this, or null. */
export function portWarning(key: 'intake' | 'console', { host, tls }: PortSettings): string | null {
  if (tls || host === 'localhost' || host === '::1' || /^127(\.\d+){3}$/.test(host)) return null;
  const what = key === 'intake' ? 'API keys and codes' : 'passwords and what the console shows';
  return (
    `${key}.host: ${host} is open beyond this machine and nothing is encrypted: ${what} cross the network in the clear. ` +
    `Set ${key}.tls.certFile and ${key}.tls.keyFile, or listen on 127.0.0.1 behind something that speaks TLS`
  );
}

function identity(key: string, { certFile, keyFile }: NonNullable<PortSettings['tls']>): { cert: Buffer; key: Buffer } {
  try {
    const [cert, privateKey] = [readFileSync(certFile), readFileSync(keyFile)];
    createTlsServer({ cert, key: privateKey }).close(); // says what is wrong with them; never listened
    return { cert, key: privateKey };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'they cannot be read';
    throw new StartError(`${key}.tls: ${certFile} and ${keyFile} must be a certificate and its private key (${code})`);
  }
}

/** What stands between the sockets and the application. */
class Reception {
  readonly #site: Site;
  readonly #limits: HttpLimits;
  readonly #encrypted: boolean;
  /** The answers that a connection is still owed. */
  readonly #owed = new WeakMap<Duplex, Set<ServerResponse>>();
  readonly #refused = new WeakSet<Duplex>();
  #leaving = false;

  constructor(site: Site, limits: HttpLimits, encrypted: boolean) {
    this.#site = site;
    this.#limits = limits;
    this.#encrypted = encrypted;
  }

  leave(): void {
    this.#leaving = true;
  }

  receive(request: IncomingMessage, response: ServerResponse): void {
    this.#remember(request, response);
    // A connection that is kept would bring its next request to a server that is closing.
    if (this.#leaving) response.setHeader('Connection', 'close');
    const nameless = request.httpVersion === '1.1' && request.headers.host === undefined;
    const status = request.rawHeaders.length > 2 * this.#limits.headersCount ? 431 : nameless ? 400 : null;
    if (status === null) return void this.#site.app(request, response);
    const { headers, body } = this.#unread(status);
    response.writeHead(status, { ...headers, 'Content-Length': Buffer.byteLength(body) }).end(body);
    this.#site.onUnread?.(status);
  }

  /** What Node could not read: no request has come of it, so there is no response to write it with. */
  refuse(error: NodeJS.ErrnoException, socket: Duplex): void {
    if (this.#refused.has(socket)) return; // the rest of what was refused
    const owed = [...(this.#owed.get(socket) ?? [])];
    const status = statusOf(error);
    // An answer out of its turn would be taken for that of an earlier request, which may well have been accepted.
    const inTurn = owed.length === 0 || (owed.length === 1 && owed[0]?.headersSent === false && !owed[0].req.complete);
    if (status === null || !inTurn || !socket.writable) return void socket.destroy();
    this.#refused.add(socket);
    const { headers, body } = this.#unread(status);
    const lines = Object.entries({ ...headers, 'Content-Length': Buffer.byteLength(body) });
    const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, ...lines.map(([name, value]) => `${name}: ${value}`)];
    socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
    setTimeout(() => socket.destroy(), this.#limits.lingerMs).unref();
    if (owed.length === 0) this.#site.onUnread?.(status); // else the application has seen it begin, and sees it end
  }

  #unread(status: UnreadStatus): Unread {
    const { headers, body } = this.#site.unread(status, { encrypted: this.#encrypted });
    return { headers: { ...headers, Connection: 'close' }, body };
  }

  #remember(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    const owed = this.#owed.get(socket) ?? new Set();
    this.#owed.set(socket, owed.add(response));
    response.once('close', () => owed.delete(response));
    response.once('finish', () => {
      if (request.complete) return;
      setTimeout(() => {
        if (!request.complete) socket.destroy();
      }, this.#limits.lingerMs).unref();
    });
  }
}

/** Null: a connection that broke, or never was one. */
function statusOf({ code = '' }: NodeJS.ErrnoException): UnreadStatus | null {
  switch (code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return 408;
    case 'HPE_HEADER_OVERFLOW':
      return 431;
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return 413;
    default:
      return code.startsWith('HPE_') ? 400 : null;
  }
}

async function closeServer(server: Server, patienceMs: number): Promise<void> {
  const closed = new Promise((done) => server.close(done));
  server.closeIdleConnections();
  const impatience = setTimeout(() => server.closeAllConnections(), patienceMs);
  await closed;
  clearTimeout(impatience);
}
