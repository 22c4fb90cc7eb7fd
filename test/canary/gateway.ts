/**
 * Stands between the pipeline and the sandbox, because the sandbox knows a failure by its magic code and a magic code is
 * nothing to search for. Here every code of ten unmistakable characters has a meaning: the code arrives, its meaning
 * goes on, signed again where the provider signs. What the sandbox answers comes back with everything the request held
 * written into it, as careless providers do: so each way to read an answer is tried on an answer full of canaries.
 */
import { createHash, createHmac } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import type { SandboxEntry, SandboxProvider } from '../../src/sandbox/index.ts';
import { type ProviderServer, startProviderServer, type WireRequest } from '../support/provider-server.ts';
import type { Canaries } from './canaries.ts';

type OwnAnswer = (echo: string, code: string) => string;

/** Answers that no sandbox gives, in which HTTP itself is broken or says more than it should. */
export const BROKEN_ANSWERS: Readonly<Record<string, OwnAnswer>> = {
  'not HTTP': (echo) => `${echo} is no HTTP at all\r\n\r\n`,
  'a header too many': (echo) => whole(200, '{}', { 'x-many': `${echo}${'x'.repeat(20_000)}` }),
  'a redirect that quotes': (echo, code) => whole(302, echo, { location: `http://127.0.0.1:9/?otp=${code}` }),
  'a cookie that quotes': (echo, code) => whole(200, echo, { 'set-cookie': `otp=${code}` }),
  'a wrong length': (echo) => `HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n${echo}`,
  'a broken chunk': (echo, code) => `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n${code}\r\n${echo}`,
  'a compressed body that is none': (echo) => whole(200, echo, { 'content-encoding': 'gzip' }),
  'an endless body': (echo) => whole(200, echo.repeat(Math.ceil(1_100_000 / echo.length))),
  'another status line': (echo, code) =>
    `HTTP/1.1 200 ${code}\r\ncontent-length: ${Buffer.byteLength(echo)}\r\n\r\n${echo}`,
  'an undocumented status': (echo) => whole(777, echo),
  'a protocol to switch to': (_, code) => `HTTP/1.1 101 ${code}\r\nupgrade: ${code}\r\nconnection: upgrade\r\n\r\n`,
};

/** Whole answers that have the code for a word, wherever any of the five has a word. */
export const QUOTING_ANSWERS: Readonly<Record<string, OwnAnswer>> = {
  'text in place of JSON': (echo) => whole(200, `{"status": ${echo}`),
  'the code as the status': (_, code) => quoting(200, code),
  'the code as the error': (_, code) => quoting(400, code),
};

/** Any code will be dead by then; and the whole partition waits. */
export const COME_BACK_LATER = 'come back in a minute';

const OWN_ANSWERS: Readonly<Record<string, OwnAnswer>> = {
  ...BROKEN_ANSWERS,
  ...QUOTING_ANSWERS,
  [COME_BACK_LATER]: (echo) => whole(429, JSON.stringify({ title: echo }), { 'retry-after': '60' }),
};

export const TOLD_BY_TEST_ENVIRONMENT = 'the code that a test environment tells';

/** The request is held and never answered; `held` counts them. */
export const HOLD = 'hold';

export interface Gateway extends AsyncDisposable {
  readonly url: string;
  /** Requests that are held. */
  readonly held: number;
  /** Codes that arrived. */
  readonly arrived: ReadonlySet<string>;
}

export interface GatewayOptions {
  readonly provider: SandboxProvider;
  readonly sandbox: SandboxEntry;
  readonly canaries: Canaries;
  /** What a code stands for: a code of the sandbox's, an answer of the gateway's own, or `HOLD`. */
  readonly meanings: ReadonlyMap<string, string>;
  /** The base URL of the intake's callbacks, once it is known. */
  readonly callbacks: () => string;
}

/** Written where providers write what a person may read. */
const TALKATIVE = /^(message|detail|title|description|responseMessage|responseDescription|transactionStatusDesc)$/;

export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const { provider, sandbox, canaries, meanings } = options;
  const upstream = new URL(sandbox.baseUrl);
  const arrived = new Set<string>();
  /** What each reference was asked with, so that its inquiries and callbacks can quote it as well. */
  const asked = new Map<string, string>();
  let held = 0;

  const server: ProviderServer = await startProviderServer((socket, request) => {
    if (request.path.startsWith('/callback')) return void forwardCallback(socket, request);
    const code = [...meanings.keys()].find((each) => request.body.includes(each));
    if (code !== undefined) arrived.add(code);
    const reference = referenceIn(request);
    if (code !== undefined && reference !== null) asked.set(reference, request.body);
    const echo = `${request.body} ${request.headers.authorization ?? ''} ${asked.get(reference ?? '') ?? ''}`;

    const meaning = code === undefined ? undefined : meanings.get(code);
    if (meaning === HOLD) {
      held += 1;
      return;
    }
    const ownAnswer = OWN_ANSWERS[meaning ?? ''];
    if (code !== undefined && ownAnswer !== undefined) {
      const answer = ownAnswer(echo, code);
      socket.write(answer, () => {
        if (!answer.startsWith('HTTP/1.1 101')) socket.end();
      });
      return;
    }
    const body = code === undefined || meaning === undefined ? request.body : request.body.replace(code, meaning);
    forward(socket, { ...request, body, headers: signedAgain(request, body) }, echo);
  });

  /** One connection for each request, so that the end of the answer is the end of the connection, however it ends. */
  function forward(socket: Socket, request: WireRequest, echo: string): void {
    const chunks: Buffer[] = [];
    const toSandbox = connect({ host: upstream.hostname, port: Number(upstream.port) });
    socket.once('close', () => toSandbox.destroy());
    toSandbox.on('data', (chunk) => chunks.push(chunk));
    toSandbox.on('error', () => socket.resetAndDestroy());
    toSandbox.on('end', () => {
      const answer = Buffer.concat(chunks).toString('utf8');
      keepTokens(answer);
      socket.end(rewritten(answer, (body) => talking(disclosing(body), echo), echo));
    });
    const headers = {
      ...request.headers,
      connection: 'close',
      'content-length': String(Buffer.byteLength(request.body)),
    };
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    toSandbox.write(`${request.method} ${request.path} HTTP/1.1\r\n${lines.join('')}\r\n${request.body}`);
  }

  /** Ayoconnect signs the body it sends, so another body needs another signature. */
  function signedAgain({ method, path, headers, body: before }: WireRequest, body: string): WireRequest['headers'] {
    if (provider !== 'ayoconnect' || body === before) return headers;
    const token = headers.authorization?.replace('Bearer ', '');
    const hash = createHash('sha256').update(body).digest('hex');
    const signed = `${method}:${path}:${token}:${hash}:${headers['x-timestamp']}`;
    const secret = sandbox.credentials.clientSecret ?? '';
    return { ...headers, 'x-signature': createHmac('sha512', secret).update(signed).digest('hex') };
  }

  /** What the provider hands out to us and to nobody else. */
  function keepTokens(answer: string): void {
    for (const [, name, token] of answer.matchAll(/"(access_token|accessToken|token)":"([^"]{16,})"/g)) {
      canaries.add('provider token', `${name} of ${provider}`, token as string);
    }
  }

  /** In its test environment LipaLater tells the code that it would have sent to the customer. */
  function disclosing(body: string): string {
    if (provider !== 'lipa-later') return body;
    return body.replace(/"otp":"\d+"/, () => `"otp":"${canaries.digits(TOLD_BY_TEST_ENVIRONMENT)}"`);
  }

  async function forwardCallback(socket: Socket, { path, headers, body }: WireRequest): Promise<void> {
    const echo = [...asked].find(([reference]) => body.includes(reference))?.[1] ?? '';
    const { host: _, connection: __, 'content-length': ___, ...passedOn } = headers;
    const url = `${options.callbacks()}${path.slice('/callback'.length)}`;
    try {
      const answer = await fetch(url, { method: 'POST', headers: passedOn, body: talking(body, echo) });
      socket.end(whole(answer.status, await answer.text()));
    } catch {
      socket.destroy(); // the intake is away
    }
  }

  return {
    url: server.url,
    arrived,
    get held() {
      return held;
    },
    [Symbol.asyncDispose]: () => server.close(),
  };
}

function referenceIn({ path, body }: WireRequest): string | null {
  const inBody = /"(?:uuid|originalReferenceNo|reference|transactionRef|phone_number)":"([^"]+)"/.exec(body)?.[1];
  const inPath = /[?&](?:uuid|TransactionRef)=([^&]+)/.exec(path)?.[1];
  return inBody ?? (inPath === undefined ? null : decodeURIComponent(inPath));
}

/** The same answer with another body and one header more; one that is not whole stays as it is. */
function rewritten(answer: string, rewrite: (body: string) => string, echo: string): string {
  const at = answer.indexOf('\r\n\r\n');
  const [head, body] = [answer.slice(0, at), answer.slice(at + 4)];
  const promised = /^content-length: (\d+)$/im.exec(head)?.[1];
  if (at < 0 || promised === undefined || Number(promised) !== Buffer.byteLength(body)) return answer;
  const told = rewrite(body);
  const quoting = `x-echo: ${encodeURIComponent(echo).slice(0, 4_000)}`;
  return `${head.replace(/^content-length: .*$/im, `content-length: ${Buffer.byteLength(told)}`)}\r\n${quoting}\r\n\r\n${told}`;
}

/** JSON keeps its meaning: it has one member more, and says more in the members that are for people. */
function talking(body: string, echo: string): string {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    return body === '' ? '' : `${body}<!-- ${echo} -->`;
  }
  const tell = (value: unknown): unknown => {
    if (typeof value !== 'object' || value === null) return value;
    if (Array.isArray(value)) return value.map(tell);
    return Object.fromEntries(
      Object.entries(value).map(([name, member]) => [
        name,
        typeof member === 'string' && TALKATIVE.test(name) ? `${member} ${echo}` : tell(member),
      ]),
    );
  };
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return body;
  return JSON.stringify({ ...(tell(parsed) as object), echo });
}

function whole(status: number, body: string, headers: Readonly<Record<string, string>> = {}): string {
  const all = { connection: 'close', 'content-length': String(Buffer.byteLength(body)), ...headers };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} Word\r\n${lines.join('')}\r\n${body}`;
}

function quoting(status: number, code: string): string {
  const error = { code, errorCode: code, status_code: code, message: code, status: code };
  const body = {
    ...error,
    responseCode: code,
    latestTransactionStatus: code,
    title: code,
    errors: status === 400 ? error : [error],
    error,
    data: { ...error, responseCode: code, otpRetryCount: code, errors: [error] },
  };
  return whole(status, JSON.stringify(body), { 'content-type': 'application/json', 'x-request-id': code });
}
