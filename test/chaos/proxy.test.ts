import type { AddressInfo } from 'node:net';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NetworkProxy } from '../../chaos/proxy.ts';

/** Answers every chunk with its echo, and remembers what came. */
let server: Server;
let received: string;
let proxy: NetworkProxy;
const clients: Client[] = [];

beforeEach(async () => {
  received = '';
  server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      received += chunk;
      socket.write(`echo of ${chunk}`);
    });
  });
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  proxy = await NetworkProxy.start({ target: { port: (server.address() as AddressInfo).port } });
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.socket.destroy();
  await proxy.close();
  server.close();
});

interface Client {
  readonly socket: Socket;
  heard: string;
  closed: boolean;
  error: string;
}

async function dial(): Promise<Client> {
  const socket = connect({ host: '127.0.0.1', port: proxy.port });
  const client: Client = { socket, heard: '', closed: false, error: '' };
  clients.push(client);
  socket.on('data', (chunk) => {
    client.heard += chunk;
  });
  socket.on('close', () => {
    client.closed = true;
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    client.error = error.code ?? '';
  });
  await Promise.race([
    new Promise<void>((ready) => socket.once('connect', ready)),
    new Promise<void>((ready) => socket.once('close', () => ready())),
  ]);
  return client;
}

async function until(is: () => boolean): Promise<void> {
  const giveUpAt = performance.now() + 5_000;
  while (!is()) {
    if (performance.now() > giveUpAt) throw new Error('not within 5 s');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe('the proxy', () => {
  it('carries what is said, and tells what a client said', async () => {
    const seen: string[] = [];
    const watching = await NetworkProxy.start({
      target: { port: (server.address() as AddressInfo).port },
      onClientBytes: (chunk) => seen.push(chunk.toString()),
    });
    const first = proxy;
    proxy = watching;
    const client = await dial();
    client.socket.write('hello');
    await until(() => client.heard === 'echo of hello');
    expect(seen).toEqual(['hello']);
    await first.close();
  });

  it('refuses connections and resets open ones, then listens on the same port again', async () => {
    const { port } = proxy;
    const open = await dial();
    const over = proxy.misbehave('refuse', 100);
    await until(() => open.closed);
    const refused = await dial();
    await until(() => refused.closed);
    expect(refused.error).toBe('ECONNREFUSED');
    await over;
    expect(proxy.port).toBe(port);
    const client = await dial();
    client.socket.write('again');
    await until(() => client.heard === 'echo of again');
  });

  it('swallows everything in a black hole, and resets what lost bytes', async () => {
    const client = await dial();
    const over = proxy.misbehave('blackhole', 100);
    client.socket.write('into the hole');
    await over;
    await until(() => client.closed);
    expect(received).toBe('');
    expect(client.heard).toBe('');
  });

  it('delivers late what was stalled, in order', async () => {
    const client = await dial();
    const over = proxy.misbehave('stall', 100);
    client.socket.write('one ');
    await new Promise((resolve) => setTimeout(resolve, 20));
    client.socket.write('two');
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(received).toBe('');
    await over;
    await until(() => received === 'one two');
    await until(() => client.heard.endsWith('two'));
    expect(client.closed).toBe(false);
  });

  it('delivers what is asked and loses the answer', async () => {
    const client = await dial();
    const over = proxy.misbehave('lose_answers', 100);
    client.socket.write('pay');
    await until(() => received === 'pay');
    await over;
    await until(() => client.closed);
    expect(client.heard).toBe('');
  });

  it('breaks an answer off in the middle', async () => {
    const client = await dial();
    const over = proxy.misbehave('cut_answers', 100);
    client.socket.write('a question with a long answer');
    await until(() => client.closed);
    await over;
    expect(received).toBe('a question with a long answer');
    expect('echo of a question with a long answer'.startsWith(client.heard)).toBe(true);
    expect(client.heard.length).toBeLessThanOrEqual(20);
  });

  it('makes no other bytes of what was said: what comes through is always its beginning', async () => {
    const client = await dial();
    const said = Array.from({ length: 40 }, (_, number) => `<${number}>`);
    let wanted = '';
    let step = 0;
    const troubles = (async () => {
      for (const trouble of ['latency', 'stall', 'latency', 'cut_answers'] as const) {
        await proxy.misbehave(trouble, 60);
        step += 1;
      }
    })();
    for (const word of said) {
      if (client.closed) break;
      client.socket.write(word);
      wanted += `echo of ${word}`;
      await new Promise((resolve) => setTimeout(resolve, 8));
    }
    await troubles;
    expect(step).toBe(4);
    await until(() => client.closed || client.heard.length > 0);
    const heard = client.heard.replaceAll('echo of ', '');
    expect(wanted.replaceAll('echo of ', '').startsWith(heard.slice(0, heard.lastIndexOf('>') + 1))).toBe(true);
    expect(said.join('').startsWith(received)).toBe(true);
  });

  it('cuts open connections in one moment and lets new ones live', async () => {
    const client = await dial();
    client.socket.write('x');
    await until(() => client.heard !== '');
    await proxy.misbehave('cut', 10_000);
    await until(() => client.closed);
    const next = await dial();
    next.socket.write('y');
    await until(() => next.heard === 'echo of y');
  });

  it('never lets bytes overtake each other, however slow they are', async () => {
    const client = await dial();
    const over = proxy.misbehave('latency', 100);
    for (const digit of '0123456789') {
      client.socket.write(digit);
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
    await over;
    await until(() => received === '0123456789');
  });
});
