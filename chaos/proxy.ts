/**
 * A TCP proxy on loopback that can be told to misbehave like a network: the two ends know nothing of each other's
 * misfortune but what their sockets say.
 */

import type { AddressInfo } from 'node:net';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { LONGEST_DELAY_MS, type ProxyTrouble } from './plan.ts';

export interface ProxyOptions {
  readonly target: { readonly port: number };
  /** Every chunk that a client hands to the network, when it comes, whatever becomes of it. */
  readonly onClientBytes?: (chunk: Buffer, atMs: number) => void;
}

const LOOPBACK = '127.0.0.1';
/** So many bytes of an answer come through before `cut_answers` cuts it. */
const HALF_AN_ANSWER_BYTES = 20;

/**
 * - `refuse`        nobody listens: new connections are refused, open ones reset
 * - `blackhole`     what is sent is taken and never arrives, in both directions; reset when it is over
 * - `stall`         nothing moves; when it is over everything is delivered late, also what its sender has given up
 * - `cut`           open connections are reset in this moment, new ones live
 * - `latency`       each chunk comes 50 to 700 ms late
 * - `lose_answers`  what is asked is delivered, what is answered is not; reset when it is over
 * - `cut_answers`   what is asked is delivered, the answer breaks off after its first bytes
 */
export class NetworkProxy {
  readonly #options: ProxyOptions;
  readonly #links = new Set<Link>();
  #server: Server | null = null;
  #port = 0;
  #trouble: ProxyTrouble | null = null;

  private constructor(options: ProxyOptions) {
    this.#options = options;
  }

  static async start(options: ProxyOptions): Promise<NetworkProxy> {
    const proxy = new NetworkProxy(options);
    await proxy.#listen();
    return proxy;
  }

  get port(): number {
    return this.#port;
  }

  get trouble(): ProxyTrouble | null {
    return this.#trouble;
  }

  /** Ends by itself after `forMs`. */
  async misbehave(trouble: ProxyTrouble, forMs: number): Promise<void> {
    await this.#change(trouble);
    await delay(trouble === 'cut' ? 0 : forMs);
    await this.#change(null);
  }

  async close(): Promise<void> {
    for (const link of this.#links) link.reset();
    await this.#unlisten();
  }

  async #change(trouble: ProxyTrouble | null): Promise<void> {
    const before = this.#trouble;
    this.#trouble = trouble;
    // A connection that has lost bytes cannot go on, and one that is stalled goes on where it stood.
    for (const link of [...this.#links]) {
      if (trouble === 'cut' || trouble === 'refuse' || (trouble === null && link.lostBytes)) link.reset();
      else link.moveOn();
    }
    if (trouble === 'refuse') await this.#unlisten();
    if (before === 'refuse' && trouble !== 'refuse') await this.#listen();
  }

  async #listen(): Promise<void> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#accept(client));
    await new Promise<void>((ready, failed) => {
      server.once('error', failed);
      server.listen(this.#port, LOOPBACK, ready);
    });
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
  }

  async #unlisten(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server) await new Promise<void>((closed) => server.close(() => closed()));
  }

  #accept(client: Socket): void {
    const link = new Link(client, this.#options, () => this.#trouble);
    this.#links.add(link);
    link.ended.then(() => this.#links.delete(link));
  }
}

type Direction = 'up' | 'down';

/** One client's connection and the one made on its behalf. */
class Link {
  readonly ended: Promise<void>;
  /** Something was swallowed, so the two ends no longer agree on what was said. */
  lostBytes = false;
  readonly #client: Socket;
  readonly #upstream: Socket;
  readonly #trouble: () => ProxyTrouble | null;
  /** What stands still, in order, until `moveOn`. */
  #held: { readonly direction: Direction; readonly deliver: () => void }[] = [];
  /** The answer has broken off: whatever comes after it would make other bytes of it. */
  #brokenOff = false;
  /** The end of the queue of delayed chunks, in each direction. */
  readonly #tail = { up: Promise.resolve(), down: Promise.resolve() };

  constructor(client: Socket, { target, onClientBytes }: ProxyOptions, trouble: () => ProxyTrouble | null) {
    this.#client = client;
    this.#trouble = trouble;
    this.#upstream = connect({ host: LOOPBACK, port: target.port, allowHalfOpen: true, noDelay: true });
    let open = 2;
    this.ended = new Promise((ended) => {
      for (const socket of [client, this.#upstream]) {
        socket.on('error', () => this.reset());
        socket.once('close', () => {
          open -= 1;
          if (open === 0) ended();
        });
      }
    });
    client.on('data', (chunk: Buffer) => {
      onClientBytes?.(chunk, Date.now());
      this.#carry('up', chunk, this.#upstream);
    });
    this.#upstream.on('data', (chunk: Buffer) => this.#carry('down', chunk, client));
    client.on('end', () => this.#carry('up', null, this.#upstream));
    this.#upstream.on('end', () => this.#carry('down', null, client));
  }

  reset(): void {
    this.#held = [];
    for (const socket of [this.#client, this.#upstream]) socket.resetAndDestroy();
  }

  moveOn(): void {
    if (this.#trouble() === 'stall') return;
    // Behind what was on its way before: no network lets bytes of one connection overtake each other.
    for (const { direction, deliver } of this.#held.splice(0)) this.#inOrder(direction, deliver, 0);
  }

  /** Null is the end of what this side has to say. */
  #carry(direction: Direction, chunk: Buffer | null, to: Socket): void {
    const deliver = (): void => {
      if (to.destroyed || (this.#brokenOff && direction === 'down')) return;
      if (chunk === null) to.end();
      else to.write(chunk);
    };
    const trouble = this.#trouble();
    switch (trouble) {
      case 'stall':
        this.#held.push({ direction, deliver });
        return;
      case 'blackhole':
        this.lostBytes = true;
        return;
      case 'lose_answers':
        if (direction === 'up') this.#inOrder(direction, deliver, 0);
        else this.lostBytes = true;
        return;
      case 'cut_answers':
        if (direction === 'up' || chunk === null) this.#inOrder(direction, deliver, 0);
        else this.#inOrder(direction, () => this.#breakOff(chunk, to), 0);
        return;
      case 'latency':
        this.#inOrder(direction, deliver, Math.min(LONGEST_DELAY_MS, 50 + Math.random() * 650));
        return;
      default:
        this.#inOrder(direction, deliver, 0);
    }
  }

  #breakOff(chunk: Buffer, to: Socket): void {
    if (to.destroyed || this.#brokenOff) return;
    this.#brokenOff = true;
    to.write(chunk.subarray(0, HALF_AN_ANSWER_BYTES), () => this.reset());
  }

  /** Bytes never overtake each other, also not when the delay before them is longer than their own. */
  #inOrder(direction: Direction, deliver: () => void, afterMs: number): void {
    const earlier = this.#tail[direction];
    const turn = afterMs === 0 ? earlier : Promise.all([earlier, delay(afterMs)]).then(() => {});
    this.#tail[direction] = turn.then(deliver);
  }
}
