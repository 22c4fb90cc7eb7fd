import { connect } from 'node:net';
import type { Behaviour } from './provider-server.ts';

/** What a proxy does that was asked for a tunnel (CONNECT); what then passes from its client is kept in `overheard`. */
export function tunnels(overheard: Buffer[] = []): Behaviour {
  return (socket, { path }) => {
    const [host = '', port] = path.split(':');
    const far = connect({ host, port: Number(port) }, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.pipe(far).pipe(socket);
    });
    socket.removeAllListeners('data').on('data', (chunk: Buffer) => overheard.push(chunk));
    far.on('error', () => socket.destroy()).on('close', () => socket.destroy());
    socket.on('close', () => far.destroy());
  };
}
