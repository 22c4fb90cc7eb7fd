import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from 'vitest';
import { problem } from '../../src/producers/problem.ts';
import { type Exchange, queryOf, router } from '../../src/producers/routing.ts';

const said = (word: string) => () => ({ status: 200, headers: {}, body: word });
const find = router({
  '/v1/things': { GET: said('list'), POST: said('add') },
  '/v1/things/:id': { GET: said('show') },
  '/v1/calls/:partition': { POST: said('call') },
  '/v1/calls/:partition/:token': { POST: said('call with token') },
});

async function asked(method: string, url: string): Promise<[answer: unknown, parameters: object]> {
  const { route, parameters } = find({ method, url } as IncomingMessage);
  const { status, headers, body } = await route({ parameters } as Exchange);
  return [status === 200 ? body : { status, headers, body }, parameters];
}

describe('a request finds its route', () => {
  it.each([
    ['GET', '/v1/things', 'list', {}],
    ['HEAD', '/v1/things', 'list', {}],
    ['POST', '/v1/things', 'add', {}],
    ['GET', '/v1/things/', 'list', {}],
    ['GET', '/v1/things?a=/b', 'list', {}],
    ['GET', 'http://localhost:3000/v1/things?a=b', 'list', {}],
    ['GET', '/v1/things/17', 'show', { id: '17' }],
    ['GET', '/v1/things/a%2Fb%20c', 'show', { id: 'a/b c' }],
    ['GET', '/v1/things/:id', 'show', { id: ':id' }],
    ['POST', '/v1/calls/cepta', 'call', { partition: 'cepta' }],
    ['POST', '/v1/calls/cepta/t?x', 'call with token', { partition: 'cepta', token: 't' }],
  ])('%s %s', async (method, url, answer, parameters) => {
    expect(await asked(method, url)).toEqual([answer, parameters]);
  });

  it.each([
    '',
    '/',
    '*',
    '/v1',
    '/v1//things',
    '/v1/things/1/2',
    '/V1/things',
    '/v1/calls//t',
    '/v1/things/%zz',
    'things',
    '//v1/things',
  ])('and %j has none', async (url) => {
    expect(await asked('GET', url)).toEqual([problem('not-found', 'No route has this path.'), {}]);
  });

  it.each([
    ['DELETE', '/v1/things', 'GET, HEAD, POST'],
    ['constructor', '/v1/things', 'GET, HEAD, POST'],
    ['POST', '/v1/things/17', 'GET, HEAD'],
    ['GET', '/v1/calls/cepta/t', 'POST'],
    ['HEAD', '/v1/calls/cepta', 'POST'],
  ])('%s %s is told that only %s is allowed', async (method, url, allow) => {
    const [answer] = await asked(method, url);
    expect(answer).toMatchObject({ status: 405, headers: { Allow: allow } });
  });
});

it('a query is read as forms are: what stands twice is a list', () => {
  expect(queryOf({ url: '/v1/things?a=1&b=x%20y&a=2' } as IncomingMessage)).toEqual({ a: ['1', '2'], b: 'x y' });
  expect(queryOf({ url: '/v1/things' } as IncomingMessage)).toEqual({});
});
