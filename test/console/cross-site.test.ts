import { request } from 'node:http';
import express from 'express';
import { describe, expect, it } from 'vitest';
import { sameOrigin } from '../../src/console/access.ts';
import { unreadPage } from '../../src/console/server.ts';
import { openPort } from '../../src/main-http.ts';
import { AUTHORIZED, createWorld } from './world.ts';

/** A page of some later day that changes something, behind the guard that every page is behind. */
async function laterPage() {
  const done: string[] = [];
  const app = express();
  app.use(sameOrigin(() => 'refused'));
  app.use('/change', (request, response) => {
    done.push(request.method);
    response.send('done');
  });
  const port = await openPort('console', { host: '127.0.0.1', port: 0 }, { app, unread: unreadPage });
  return { url: port.url, done, [Symbol.asyncDispose]: () => port.close(0) };
}

type Case = readonly [what: string, headers: (own: string) => Record<string, string>];

const FOREIGN: readonly Case[] = [
  ['a form of a foreign page', () => ({ origin: 'https://evil.example', 'content-type': 'text/plain' })],
  ['a page that hides where it is', () => ({ origin: 'null' })],
  ['a page of another port of this host', (own) => ({ origin: own.replace(/:\d+$/, ':1') })],
  ['a host that begins like ours', (own) => ({ origin: `${own}.evil.example` })],
  ['a host that ends like ours', (own) => ({ origin: own.replace('//', '//evil.example@') })],
  ['an origin that is none', () => ({ origin: 'evil' })],
  ['a program that says nothing', () => ({})],
  ['a page that the browser calls foreign', (own) => ({ origin: own, 'sec-fetch-site': 'cross-site' })],
  ['a neighbour of the same site', (own) => ({ origin: own, 'sec-fetch-site': 'same-site' })],
  ['nobody, as the browser says', (own) => ({ origin: own, 'sec-fetch-site': 'none' })],
  ['a referrer of ours alone', (own) => ({ referer: `${own}/` })],
  ['a proof that it overrides the method', () => ({ 'x-http-method-override': 'GET', 'x-method-override': 'GET' })],
];
const OWN: readonly Case[] = [
  ['a page of ours', (own) => ({ origin: own })],
  ['a page of ours, as the browser says', (own) => ({ origin: own, 'sec-fetch-site': 'same-origin' })],
  [
    'a page of ours behind a proxy that names us otherwise',
    () => ({ origin: 'https://console.example', 'sec-fetch-site': 'same-origin' }),
  ],
];

describe('what may change something', () => {
  it('is refused to everybody who is not a page of the console', async () => {
    await using page = await laterPage();
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
      for (const [what, headers] of FOREIGN) {
        const response = await fetch(`${page.url}/change`, {
          method,
          headers: { ...AUTHORIZED, ...headers(page.url) },
        });
        expect([method, what, response.status, await response.text()]).toEqual([method, what, 403, 'refused']);
      }
    }
    expect(page.done).toEqual([]);
  });

  it('is open to a page of the console, and looking to everybody', async () => {
    await using page = await laterPage();
    for (const [what, headers] of OWN) {
      const response = await fetch(`${page.url}/change`, { method: 'POST', headers: headers(page.url) });
      expect([what, await response.text()]).toEqual([what, 'done']);
    }
    for (const method of ['GET', 'HEAD']) {
      const headers = { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' };
      expect((await fetch(`${page.url}/change`, { method, headers })).status).toBe(200);
    }
    expect(page.done).toEqual(['POST', 'POST', 'POST', 'GET', 'HEAD']);
  });
});

it('is asked by the whole of our name, however it is written', async () => {
  await using page = await laterPage();
  const statusFor = async (host: string, origin: string): Promise<number | undefined> =>
    await new Promise((resolve, reject) => {
      const sent = request(`${page.url}/change`, { method: 'POST', headers: { host, origin } }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      sent.on('error', reject).end();
    });
  expect(await statusFor('Console.example', 'https://console.example')).toBe(200);
  expect(await statusFor('console.example', 'https://console.example.evil.example')).toBe(403);
  expect(await statusFor('console.example', 'https://evil-console.example')).toBe(403);
  expect(await statusFor('console.example', 'https://example')).toBe(403);
});

it('on every path of the console that comes before the password, and before what is open to all', async () => {
  await using world = await createWorld();
  const paths = [
    '/',
    '/board',
    '/board/api/queues/otp-cepta/add',
    '/verifications/x',
    '/nowhere',
    '/metrics',
    '/healthz',
  ];
  for (const path of paths) {
    for (const headers of [{}, AUTHORIZED]) {
      const foreign = { ...headers, origin: 'https://evil.example', 'content-type': 'text/plain' };
      const response = await world.get(path, { method: 'POST', headers: foreign, body: 'x=1' });
      expect([path, response.status]).toEqual([path, 403]);
      expect(response.headers.get('content-security-policy')).toContain("frame-ancestors 'none'");
      expect(response.headers.get('access-control-allow-origin')).toBeNull();
    }
  }
  expect(world.logins).toEqual([]);
  const own = { ...AUTHORIZED, origin: world.url };
  expect((await world.get('/', { method: 'POST', headers: own })).status).toBe(405);
});
