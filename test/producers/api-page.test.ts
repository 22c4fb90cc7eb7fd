/** The page that shows the API, over HTTP as a browser would ask for it. */
import { request } from 'node:http';
import { expect, test } from 'vitest';
import { openApi } from '../../src/producers/openapi.ts';
import { verificationResourceSchema } from '../../src/producers/resource-schema.ts';
import { PARTITIONS, startWorld, type World } from './world.ts';

const DOCUMENT = openApi([...PARTITIONS.values()], '1.0.0');

const start = async (): Promise<World> => await startWorld({ descriptions: { '/openapi.json': DOCUMENT } });

interface Page {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly text: string;
}

async function get(url: string): Promise<Page> {
  const response = await fetch(url);
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    text: await response.text(),
  };
}

/** Everything that a document makes a browser fetch. */
const namedBy = (html: string): string[] =>
  [...html.matchAll(/<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)="([^"]*)"/g)].map(([, url = '']) => url);

test('the page comes with its script, its styles and the description, all of them from here', async () => {
  await using world = await start();
  const page = await get(`${world.url}/docs`);
  expect(page).toMatchObject({ status: 200, headers: { 'content-type': 'text/html; charset=utf-8' } });

  const named = namedBy(page.text).filter((url) => url !== 'data:,');
  expect(named).toEqual(['/docs/swagger-ui.css', '/docs/page.css', '/docs/swagger-ui-bundle.js', '/docs/page.js']);
  for (const path of named) {
    const { status, headers, text } = await get(`${world.url}${path}`);
    expect(status, path).toBe(200);
    expect(headers['content-type'], path).toBe(`text/${path.endsWith('.js') ? 'javascript' : 'css'}; charset=utf-8`);
    // A stylesheet fetches by itself what it names; `url(data:…)` stays where it is.
    if (path.endsWith('.css')) expect(text.match(/@import|url\((?!["']?data:)[^)]*\)/g) ?? [], path).toEqual([]);
  }
  const script = (await get(`${world.url}/docs/page.js`)).text;
  const [, described = ''] = /url: '([^']*)'/.exec(script) ?? [];
  expect(JSON.parse((await get(`${world.url}${described}`)).text)).toEqual(DOCUMENT);
});

test('and may reach nothing else, send nothing, and stand in no frame', async () => {
  await using world = await start();
  const { headers } = await get(`${world.url}/docs`);
  expect(headers['content-security-policy']?.split('; ')).toEqual([
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    'img-src data:',
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ]);
  expect(headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'cache-control': 'no-store' });
  const script = (await get(`${world.url}/docs/page.js`)).text;
  expect(script).toContain('supportedSubmitMethods: []');
  expect(script).toContain('validatorUrl: null'); // else it would show the description to a service on the net
  expect(script).not.toMatch(/https?:/);
});

test('its files are at their own paths and no other, for those who read', async () => {
  await using world = await start();
  const raw = (path: string, method = 'GET'): Promise<number> =>
    new Promise((settle, fail) => {
      const { hostname, port } = new URL(world.url);
      request({ hostname, port, path, method }, (response) => {
        response.resume().once('end', () => settle(response.statusCode ?? 0));
      })
        .once('error', fail)
        .end();
    });
  for (const path of ['/docs/package.json', '/docs/../package.json', '/docs/..%2fpackage.json', '/docs/index.html'])
    expect(await raw(path), path).toBe(404);
  expect(await raw('/docs', 'POST')).toBe(405);
  expect(await raw('/docs', 'HEAD')).toBe(200);
});

test('where the API is not described there is no page of it', async () => {
  await using world = await startWorld();
  expect((await get(`${world.url}/docs`)).status).toBe(404);
});

test('what it shows as an example of a verification is one', () => {
  const { examples } = (DOCUMENT.components as { schemas: { Verification: { examples: unknown[] } } }).schemas
    .Verification;
  expect(examples).toHaveLength(1);
  expect(verificationResourceSchema.strict().safeParse(examples[0]).error).toBeUndefined();
});
