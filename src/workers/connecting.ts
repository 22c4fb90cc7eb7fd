/**
 * How a connection to another house comes to be: with TLS that nothing in the environment can weaken, and through a
 * proxy only where the configuration names one.
 *
 * A proxy is asked for a tunnel (CONNECT) and sees no more than the name of the host: TLS is spoken with the provider
 * itself. The tunnel is opened by node:http, not by undici, so that undici's `sendHeaders` goes on announcing our own
 * requests and nothing else; whatever fails before the tunnel and the TLS in it stand was not sent. undici's ProxyAgent
 * would announce its CONNECT there too, and it comes back without a pause to a proxy that closes: 1,457 connections in
 * 1.5 s (7.30.2).
 */
import { request } from 'node:http';
import { isIPv6, type LookupFunction } from 'node:net';
import { urlToHttpOptions } from 'node:url';
import { buildConnector } from 'undici';
import { asError } from '../events.ts';
import type { Secret } from '../secret.ts';

export interface ConnectSettings {
  /** For the connection with its TLS; a tunnel may take the same time before it. */
  readonly timeoutMs: number;
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
  /** `http://host:port`, with a user name and a password where the proxy asks for them. */
  readonly proxy?: Secret<string>;
  readonly lookup?: LookupFunction;
}

/** Said explicitly, these win over NODE_TLS_REJECT_UNAUTHORIZED and over `--tls-min-v1.0` in NODE_OPTIONS. */
const STRICT = { rejectUnauthorized: true, minVersion: 'TLSv1.2' } as const;

class TunnelError extends Error {
  override readonly name = 'TunnelError';
  readonly code: string;

  constructor(code: string) {
    super(`no tunnel through the proxy: ${code}`);
    this.code = code;
  }
}

/** What an undici Pool takes as `connect`. */
export function connector({ timeoutMs, tls, proxy, lookup }: ConnectSettings): buildConnector.connector {
  const connect = buildConnector({ timeout: timeoutMs, ...tls, ...STRICT, ...(lookup ? { lookup } : {}) });
  return proxy === undefined ? connect : throughTunnel(new URL(proxy.reveal()), timeoutMs, connect);
}

function throughTunnel(proxy: URL, timeoutMs: number, connect: buildConnector.connector): buildConnector.connector {
  const { hostname, port, auth } = urlToHttpOptions(proxy);
  const authorization = auth ? { 'proxy-authorization': `Basic ${Buffer.from(auth).toString('base64')}` } : {};

  return (options, callback) => {
    // Without TLS in it the proxy would read the code.
    if (options.protocol !== 'https:') return process.nextTick(callback, new TunnelError('PROXY_NEEDS_TLS'), null);
    const host = isIPv6(options.hostname) ? `[${options.hostname}]` : options.hostname;
    const authority = `${host}:${options.port || 443}`;
    const asking = request({
      ...{ hostname, port: port || 80, method: 'CONNECT', path: authority, agent: false },
      headers: { host: authority, ...authorization },
    });
    const timer = setTimeout(() => asking.destroy(new TunnelError('PROXY_TIMEOUT')), timeoutMs);
    asking.once('connect', ({ statusCode }, socket, early) => {
      clearTimeout(timer);
      try {
        if (statusCode !== 200) throw new TunnelError(`PROXY_ANSWERED_${statusCode}`);
        // No server speaks first in TLS: these bytes are the proxy's own.
        if (early.length > 0) throw new TunnelError('PROXY_SPOKE');
        connect({ ...options, httpSocket: socket }, callback);
      } catch (error) {
        socket.on('error', () => {}).destroy();
        callback(asError(error), null);
      }
    });
    asking.once('error', (error) => {
      clearTimeout(timer);
      callback(error, null);
    });
    asking.end();
  };
}
