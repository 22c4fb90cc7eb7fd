/** Who may look, and what a browser may do with what it is shown. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { RequestHandler } from 'express';
import type { Secret } from '../secret.ts';

export interface ConsoleUser {
  /** Without a colon, as HTTP Basic wants it. */
  readonly name: string;
  readonly password: Secret<string>;
}

/** HTTP Basic. Comparing takes as long for a wrong name as for a wrong password, for the first user as for the last. */
export function askForPassword(users: readonly ConsoleUser[], refuse: (status: 401) => string): RequestHandler {
  const known = users.map(({ name, password }) => digest(Buffer.from(`${name}:${password.reveal()}`)));
  return (request, response, next) => {
    const [, encoded = ''] = /^Basic +([A-Za-z0-9+/]+={0,2})$/i.exec(request.headers.authorization ?? '') ?? [];
    const given = digest(Buffer.from(encoded, 'base64'));
    const matches = known.filter((credentials) => timingSafeEqual(credentials, given));
    if (matches.length > 0) return next();
    response.set('WWW-Authenticate', 'Basic realm="otp-pipeline", charset="UTF-8"');
    response.status(401).send(refuse(401));
  };
}

function digest(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/**
 * On every response. `styles` is what may style the page beside the console's own files; scripts come from the console
 * itself or not at all.
 */
export function secure(styles: string): RequestHandler {
  const headers = {
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
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cache-Control': 'no-store',
  };
  return (_request, response, next) => {
    response.set(headers);
    next();
  };
}

/**
 * Looking changes nothing, so nothing but looking is let through. A browser would send its user's password along with a
 * form that a foreign page posts; whatever stands behind this guard never sees it.
 */
export function onlyLooking(refuse: (status: 405) => string): RequestHandler {
  return (request, response, next) => {
    if (request.method === 'GET' || request.method === 'HEAD') return next();
    response.set('Allow', 'GET, HEAD').status(405).send(refuse(405));
  };
}
