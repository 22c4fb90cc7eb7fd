/**
 * The other side of the wire, raw: a socket that reads whole HTTP/1.1 requests and does with each what a test chose,
 * also what no HTTP server would do. It counts what arrived, because that is what a transport is judged by.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';

export interface WireRequest {
  readonly method: string;
  /** With its query, byte for byte. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** Everything as it came. */
  readonly raw: string;
}

/** What becomes of one request. */
export type Behaviour = (socket: Socket, request: WireRequest) => void;

export interface ProviderServer extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Connections accepted so far. */
  readonly connections: number;
  /** Bytes received so far, whole requests or not. */
  readonly bytes: number;
  /** Whole requests in the order in which they arrived. */
  readonly requests: readonly WireRequest[];
  /** Sockets that are open now. */
  readonly sockets: ReadonlySet<Socket>;
  behave(behaviour: Behaviour): void;
  /** What happens to a connection before anything is read. */
  onConnection(greet: (socket: Socket) => void): void;
  /** Resolves when so many requests have arrived. */
  arrived(count: number): Promise<void>;
  close(): Promise<void>;
}

export interface ProviderServerOptions {
  readonly tls?: { readonly key: string; readonly cert: string };
  /** The port of an earlier server that is closed now. */
  readonly port?: number;
}

export async function startProviderServer(
  behaviour: Behaviour,
  { tls, port: wanted = 0 }: ProviderServerOptions = {},
): Promise<ProviderServer> {
  const requests: WireRequest[] = [];
  const sockets = new Set<Socket>();
  const waiting = new Set<{ count: number; resolve: () => void }>();
  let current = behaviour;
  let greet: (socket: Socket) => void = () => {};
  let connections = 0;
  let bytes = 0;

  const serve = (socket: Socket): void => {
    connections += 1;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    greet(socket);
    let unread = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      bytes += chunk.length;
      unread = Buffer.concat([unread, chunk]);
      for (let read = readRequest(unread); read !== null; read = readRequest(unread)) {
        unread = unread.subarray(read.length);
        requests.push(read.request);
        current(socket, read.request);
        for (const each of waiting) {
          if (requests.length < each.count) continue;
          waiting.delete(each);
          each.resolve();
        }
      }
    });
  };
  const server: Server = tls ? createTlsServer(tls, serve) : createServer(serve);
  server.on('tlsClientError', () => {});
  server.listen(wanted, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;

  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  return {
    url: `${tls ? 'https' : 'http'}://127.0.0.1:${port}`,
    port,
    get connections() {
      return connections;
    },
    get bytes() {
      return bytes;
    },
    requests,
    sockets,
    behave: (next) => {
      current = next;
    },
    onConnection: (next) => {
      greet = next;
    },
    arrived: async (count) => {
      if (requests.length < count) await new Promise<void>((resolve) => waiting.add({ count, resolve }));
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** The first whole request in these bytes and its length, or null while it is not all there. */
function readRequest(bytes: Buffer): { request: WireRequest; length: number } | null {
  const headEnd = bytes.indexOf('\r\n\r\n');
  if (headEnd < 0) return null;
  const [first = '', ...lines] = bytes.subarray(0, headEnd).toString('latin1').split('\r\n');
  const [method = '', path = ''] = first.split(' ');
  const headers = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
  );
  const length = headEnd + 4 + Number(headers['content-length'] ?? 0);
  if (bytes.length < length) return null;
  const whole = bytes.subarray(0, length);
  const body = whole.subarray(headEnd + 4).toString('utf8');
  return { request: { method, path, headers, body, raw: whole.toString('utf8') }, length };
}

/** A whole answer that leaves the connection open. */
export function answer(status: number, body = '', headers: Readonly<Record<string, string>> = {}): string {
  const lines = Object.entries({ 'content-length': String(Buffer.byteLength(body)), ...headers });
  return `HTTP/1.1 ${status} Word\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${body}`;
}

export const behaviours = {
  says:
    (status: number, body = '', headers: Readonly<Record<string, string>> = {}): Behaviour =>
    (socket) =>
      void socket.write(answer(status, body, headers)),
  saysJson:
    (status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): Behaviour =>
    (socket) =>
      void socket.write(answer(status, JSON.stringify(body), { 'content-type': 'application/json', ...headers })),
  says200: (socket: Socket, request: WireRequest): void => void socket.write(answer(200, request.path)),
  isSilent: (): void => {},
  resets: (socket: Socket): void => void socket.resetAndDestroy(),
  closes: (socket: Socket): void => void socket.end(),
} as const satisfies Record<string, Behaviour | ((...given: never[]) => Behaviour)>;

export interface BlackHole extends AsyncDisposable {
  readonly url: string;
}

/** A listening socket whose process is stopped and whose backlog is full: a connection to it never comes to be. */
export async function startBlackHole(): Promise<BlackHole> {
  const child: ChildProcess = spawn(
    process.execPath,
    [
      '-e',
      `const s=require('net').createServer();s.listen({port:0,host:'127.0.0.1',backlog:1},()=>console.log(s.address().port))`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [line] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  const port = Number(line.toString());
  child.kill('SIGSTOP');
  const held: Socket[] = [];
  // The kernel takes connections until the backlog is full; the first that it does not take shows that it is.
  for (let full = false; !full && held.length < 64; ) {
    const socket = connect({ host: '127.0.0.1', port });
    socket.on('error', () => {});
    held.push(socket);
    full = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(false));
      setTimeout(() => resolve(true), 150).unref();
    });
  }
  return {
    url: `http://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      for (const socket of held) socket.destroy();
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    },
  };
}
