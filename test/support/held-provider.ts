/**
 * Providers that keep a connection from coming to be for as long as a test wants: a door that nobody opens, and a TLS
 * handshake that nobody answers. Then they let it happen, and count what arrives.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';

export interface HeldProvider extends AsyncDisposable {
  readonly url: string;
  /** Connections that came to be, those left out that only hold the door. */
  readonly connections: number;
  /** What was received over them: of TLS, what was readable after the handshake. */
  readonly bytes: number;
  release(): void;
}

/** It accepts, and tells of every connection and of everything it receives, by the port of the other side. */
const DOOR = `
  const server = require('net').createServer((socket) => {
    const tell = (bytes) => console.log(JSON.stringify({ port: socket.remotePort, bytes }));
    tell(0);
    socket.on('data', (chunk) => tell(chunk.length)).on('error', () => {});
  });
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(server.address().port));
`;

/** A listening socket of a stopped process with a full backlog: a connection comes to be after `release()` only. */
export async function startShutDoor(): Promise<HeldProvider> {
  const child = spawn(process.execPath, ['-e', DOOR], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  const [port] = (await once(lines, 'line')) as [string];
  const received = new Map<number, number>();
  const fillers: Socket[] = [];
  const ours = new Set<number>();
  lines.on('line', (line) => {
    const { port: from, bytes } = JSON.parse(line) as { port: number; bytes: number };
    received.set(from, (received.get(from) ?? 0) + bytes);
  });

  child.kill('SIGSTOP');
  // The kernel takes connections until the backlog is full; the first that it does not take shows that it is.
  for (let full = false; !full && fillers.length < 64; ) {
    const socket = connect({ host: '127.0.0.1', port: Number(port) });
    socket.on('error', () => {});
    fillers.push(socket);
    full = await new Promise<boolean>((resolve) => {
      const patience = setTimeout(() => resolve(true), 300);
      socket.once('connect', () => {
        ours.add(socket.localPort ?? 0);
        clearTimeout(patience);
        resolve(false);
      });
    });
  }
  const others = (): number[] => [...received].filter(([from]) => !ours.has(from)).map(([, bytes]) => bytes);
  return {
    url: `http://127.0.0.1:${port}`,
    get connections() {
      return others().length;
    },
    get bytes() {
      return others().reduce((sum, bytes) => sum + bytes, 0);
    },
    release: () => {
      fillers.at(-1)?.destroy(); // the one that has not been let in, and has told nobody its port
      child.kill('SIGCONT');
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of fillers) socket.destroy();
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** It has accepted and heard the client's first words; it answers them after `release()` only. */
export async function startSilentTls(pair: { readonly key: string; readonly cert: string }): Promise<HeldProvider> {
  const held: Socket[] = [];
  const sockets = new Set<Socket | TLSSocket>();
  let bytes = 0;
  let greeted = 0;
  let released = false;
  const secure = createTlsServer(pair, (socket) => {
    sockets.add(socket);
    socket.on('data', (chunk) => {
      bytes += chunk.length;
    });
    socket.on('error', () => {});
  });
  secure.on('tlsClientError', () => {});
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    if (released) {
      secure.emit('connection', socket);
      return;
    }
    socket.once('readable', () => {
      greeted += 1;
    });
    held.push(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  return {
    url: `https://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`,
    get connections() {
      return greeted;
    },
    get bytes() {
      return bytes;
    },
    release: () => {
      released = true;
      for (const socket of held.splice(0)) secure.emit('connection', socket);
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((closed) => server.close(closed));
    },
  };
}

/** A certificate for 127.0.0.1 that is its own authority. */
export function selfSigned(): { readonly key: string; readonly cert: string } {
  const folder = mkdtempSync(join(tmpdir(), 'otp-tls-'));
  try {
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
    const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '1'];
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    execFileSync('openssl', ['req', '-x509', ...curve, '-keyout', key, '-out', cert, ...subject], { stdio: 'ignore' });
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
