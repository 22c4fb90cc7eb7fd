/** Who may look, and what a browser may do with what it is shown. */
import type { IncomingMessage } from 'node:http';
import type { RequestHandler, Response } from 'express';
import type { Logins } from './logins.ts';

/** HTTP Basic. Whoever gives no name and password is asked for them; that is no failed login. */
export function askForPassword(logins: Logins, refuse: (status: 401 | 429) => string): RequestHandler {
  return async (request, response, next) => {
    const given = credentialsOf(request);
    if (given === null) return void ask();
    const login = await logins.check(given.name, given.password, request.socket.remoteAddress ?? '');
    switch (login.outcome) {
      case 'accepted':
        response.locals.user = given.name;
        return next();
      case 'refused':
        return void ask();
      case 'throttled':
        response.set('Retry-After', String(Math.max(1, Math.ceil(login.retryAfterMs / 1_000))));
        return void response.status(429).send(refuse(429));
    }
    login satisfies never;

    function ask(): void {
      response.set('WWW-Authenticate', 'Basic realm="otp-pipeline", charset="UTF-8"');
      response.status(401).send(refuse(401));
    }
  };
}

/** Who has given the right password: behind `askForPassword` somebody always has. */
export function userOf({ locals }: Response): string {
  if (typeof locals.user !== 'string') throw new Error('nobody was asked for a password');
  return locals.user;
}

/** RFC 7617: everything after the first colon is the password. */
function credentialsOf({ headers }: IncomingMessage): { name: string; password: string } | null {
  const [, encoded] = /^Basic +([A-Za-z0-9+/]+={0,2})$/i.exec(headers.authorization ?? '') ?? [];
  if (encoded === undefined) return null;
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon === -1 ? null : { name: text.slice(0, colon), password: text.slice(colon + 1) };
}

/**
 * On every response. `styles` is what may style the page beside the console's own files; scripts come from the console
 * itself or not at all. Nothing says that the whole host must be spoken to over TLS: other ports of it are not ours.
 */
export function secure(styles: string): RequestHandler {
  const headers = pageHeaders(styles);
  return (_request, response, next) => {
    response.set(headers);
    next();
  };
}

export function pageHeaders(styles: string): Record<string, string> {
  return {
    'Content-Security-Policy': [
      "default-src 'self'",
      `style-src ${styles}`,
      "img-src 'self' data:",
      "object-src 'none'",
      "base-uri 'self'",
      "form-action 'self'",
      "frame-ancestors 'none'",
    ].join('; '),
    'X-Frame-Options': 'DENY',
    'X-Content-Type-Options': 'nosniff',
    // Not `no-referrer`: then a form of our own would name its origin `null`, and over plain HTTP a browser says no more.
    'Referrer-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cache-Control': 'no-store',
  };
}

/**
 * A browser sends its user's password along with whatever a foreign page makes it post. So what might change something
 * must carry a browser's own word that a page of ours asked for it; a program says `Origin` itself. Before every route
 * and every password: no later route can forget it.
 */
export function sameOrigin(refuse: (status: 403) => string): RequestHandler {
  return (request, response, next) => {
    if (request.method === 'GET' || request.method === 'HEAD' || comesFromHere(request)) return next();
    response.status(403).send(refuse(403));
  };
}

function comesFromHere({ headers }: IncomingMessage): boolean {
  const { origin, host } = headers;
  const site = headers['sec-fetch-site'];
  // No page can write this header, and it holds behind a proxy that renames us.
  if (site !== undefined) return site === 'same-origin';
  if (origin === undefined || host === undefined || !URL.canParse(origin)) return false;
  const asked = new URL(origin);
  return asked.origin === origin && asked.host === host.toLowerCase();
}

/**
 * Looking changes nothing, so nothing but looking is let through, whatever other headers say of the method; what stands
 * behind this guard never sees the rest. The verbs stand before it.
 */
export function onlyLooking(refuse: (status: 405) => string): RequestHandler {
  return (request, response, next) => {
    if (request.method === 'GET' || request.method === 'HEAD') return next();
    response.set('Allow', 'GET, HEAD').status(405).send(refuse(405));
  };
}
