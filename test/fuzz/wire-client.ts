/** A caller that sends exactly these bytes and reads the answers as they come: no HTTP library mends what it sends. */
import { connect, type Socket } from 'node:net';

export interface RawAnswer {
  readonly status: number;
  /** Lower-cased; the last one of a name. */
  readonly headers: Readonly<Record<string, string>>;
  readonly head: string;
  readonly body: string;
}

const GIVE_UP_AFTER_MS = 8_000;

export class WireClient {
  readonly #port: number;
  #kept: Socket | null = null;

  constructor(port: number) {
    this.#port = port;
  }

  /**
   * Every whole answer to these bytes. `end`: the sending side is closed behind them, so whoever waits for more knows
   * that none will come; else the connection is kept for the next.
   */
  async send(bytes: Buffer, { end, method }: { readonly end: boolean; readonly method: string }): Promise<RawAnswer[]> {
    const socket = (end ? null : this.#kept) ?? connect({ port: this.#port, host: '127.0.0.1', allowHalfOpen: true });
    if (!end) this.#kept = null;
    socket.setNoDelay(true);
    return await new Promise<RawAnswer[]>((settle, fail) => {
      const answers: RawAnswer[] = [];
      let unread = '';
      const done = (): void => {
        clearTimeout(timer);
        socket.removeAllListeners();
        socket.on('error', () => {});
        settle(answers);
      };
      const timer = setTimeout(() => {
        socket.destroy();
        fail(new Error(`no end of the answers within ${GIVE_UP_AFTER_MS} ms; so far ${answers.length}`));
      }, GIVE_UP_AFTER_MS);
      socket.setEncoding('latin1');
      socket.on('data', (chunk: string) => {
        unread += chunk;
        for (let read = readAnswer(unread, method); read !== null; read = readAnswer(unread, method)) {
          unread = unread.slice(read.length);
          if (read.answer.status >= 200) answers.push(read.answer);
        }
        if (end || answers.length === 0) return;
        const keeps = answers[0]?.headers.connection !== 'close' && unread === '';
        if (keeps) this.#kept = socket;
        else socket.destroy();
        done();
      });
      socket.on('error', done);
      socket.on('end', () => {
        socket.destroy();
        done();
      });
      socket.on('close', done);
      socket.write(bytes);
      if (end) socket.end();
    });
  }

  close(): void {
    this.#kept?.destroy();
  }
}

function readAnswer(text: string, method: string): { answer: RawAnswer; length: number } | null {
  const headEnd = text.indexOf('\r\n\r\n');
  const [, status = ''] = /^HTTP\/1\.1 (\d{3}) [^\r\n]*\r\n/.exec(text) ?? [];
  if (headEnd === -1 || status === '') return null;
  const head = text.slice(0, headEnd);
  const headers = Object.fromEntries(
    head
      .split('\r\n')
      .slice(1)
      .map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
  );
  const bodyLength = method === 'HEAD' || Number(status) < 200 ? 0 : Number(headers['content-length'] ?? 0);
  const length = headEnd + 4 + bodyLength;
  if (text.length < length) return null;
  const body = Buffer.from(text.slice(headEnd + 4, length), 'latin1').toString('utf8');
  return { answer: { status: Number(status), headers, head, body }, length };
}
