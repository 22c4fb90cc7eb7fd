/** A merchant's callback endpoint on a free port, which keeps what came and answers as it is told. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Received {
  method: string;
  path: string;
  headers: Record<string, unknown>;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: bodies of four providers, looked into by the tests
  json: any;
}

export interface Receiver extends AsyncDisposable {
  url: string;
  received: Received[];
  /** Resolves when so many have come in all. */
  came(count: number): Promise<Received[]>;
}

export async function startReceiver(
  answer: (letter: Received, index: number) => number | Promise<number> = () => 200,
): Promise<Receiver> {
  const received: Received[] = [];
  const waiting: { count: number; resolve: () => void }[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', async () => {
      const text = Buffer.concat(chunks).toString('utf8');
      const { method = '', url = '', headers } = request;
      const letter = { method, path: url, headers, text, json: JSON.parse(text) };
      received.push(letter);
      for (const { count, resolve } of waiting) if (received.length >= count) resolve();
      response.writeHead(await answer(letter, received.length - 1), { 'content-type': 'application/json' });
      response.end('{}');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/callbacks/here`,
    received,
    async came(count) {
      if (received.length < count) await new Promise<void>((resolve) => waiting.push({ count, resolve }));
      return received;
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}
