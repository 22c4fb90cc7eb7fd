/**
 * The provider, as cheap as Node can be: it answers every POST with the same words after `STUB_DELAY_MS`, and remembers
 * how often it has received each transaction. In a process of its own; it is asked by messages.
 */
import { type AddressInfo, createServer, type Socket } from 'node:net';
import type { StubReport } from './parts.ts';

const DELAY_MS = Number(process.env.STUB_DELAY_MS ?? 0);
const BODY = JSON.stringify({ status: false, data: { errors: [{ errorCode: 'INVALID_OTP' }], otpRetryCount: '2' } });
const ANSWER = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`;

let received = 0;
const transactions = new Set<string>();

function serve(socket: Socket): void {
  let waiting = '';
  socket.setNoDelay(true);
  socket.on('error', () => {});
  socket.on('data', (chunk) => {
    waiting += chunk.toString('latin1');
    for (;;) {
      const headersEnd = waiting.indexOf('\r\n\r\n');
      if (headersEnd === -1) return;
      const length = Number(/content-length: (\d+)/i.exec(waiting.slice(0, headersEnd))?.[1] ?? 0);
      const end = headersEnd + 4 + length;
      if (waiting.length < end) return;
      const body = waiting.slice(headersEnd + 4, end);
      waiting = waiting.slice(end);
      received += 1;
      const from = body.indexOf('"transactionRef":"') + 18;
      transactions.add(body.slice(from, body.indexOf('"', from)));
      if (DELAY_MS === 0) socket.write(ANSWER);
      else setTimeout(() => socket.write(ANSWER), DELAY_MS);
    }
  });
}

const server = createServer(serve).listen(0, '127.0.0.1', 4096, () => {
  process.send?.({ port: (server.address() as AddressInfo).port });
});
process.on('message', () => {
  process.send?.({ received, distinct: transactions.size } satisfies StubReport);
});
process.on('disconnect', () => process.exit());
