/**
 * The page that shows `/openapi.json` to people: Swagger UI, told to show and not to send, because a code that is typed
 * into a page of documentation would be a real one. Everything comes from this origin, and nothing is read before the
 * page is asked for.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import type { Answer } from './problem.ts';

/** The build of Swagger UI without its maker's install-time tracker; its Fastify plugin is not loaded. */
const BUNDLE = '@fastify/swagger-ui/static';

const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  'img-src data:',
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>otp-pipeline: the HTTP API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/page.css">
</head>
<body>
<p class="beside">For programs: <a href="/openapi.json">openapi.json</a>, and for queues, results and webhooks
<a href="/asyncapi.json">asyncapi.json</a>.</p>
<div id="api"><noscript>This page needs JavaScript; openapi.json says the same.</noscript></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/page.js"></script>
</body>
</html>
`;

const SCRIPT = `SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#api',
  presets: [SwaggerUIBundle.presets.apis],
  plugins: [{ wrapComponents: { authorizeBtn: () => () => null, authorizeOperationBtn: () => () => null } }],
  layout: 'BaseLayout',
  validatorUrl: null,
  queryConfigEnabled: false,
  supportedSubmitMethods: [],
  deepLinking: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
});
`;

const STYLE = `body { margin: 0; background: #fff; }
.beside { margin: 0; padding: 12px 20px; font: 14px/1.4 sans-serif; color: #3b4151; background: #f3f4f6; }
.beside a { color: #2b5a97; }
.swagger-ui .scheme-container, .swagger-ui .response-col_links { display: none; }
.swagger-ui .info { margin: 24px 0; }
@media (max-width: 600px) {
  .swagger-ui .opblock .opblock-summary { flex-wrap: wrap; }
  .swagger-ui .opblock .opblock-summary-description { padding: 4px 10px; }
  .swagger-ui .opblock-body, .swagger-ui .model-box { overflow-x: auto; }
}
`;

/** The page and what it is made of, by path. */
export const apiPage: ReadonlyMap<string, () => Promise<Answer>> = new Map([
  ['/docs', async () => file(PAGE, 'text/html', { 'Content-Security-Policy': POLICY })],
  ['/docs/page.js', async () => file(SCRIPT, 'text/javascript')],
  ['/docs/page.css', async () => file(STYLE, 'text/css')],
  ['/docs/swagger-ui-bundle.js', async () => await bundled('swagger-ui-bundle.js', 'text/javascript')],
  ['/docs/swagger-ui.css', async () => await bundled('swagger-ui.css', 'text/css')],
]);

/** A megabyte and a half, so a browser may keep it for an hour. */
async function bundled(name: string, type: string): Promise<Answer> {
  const path = createRequire(import.meta.url).resolve(`${BUNDLE}/${name}`);
  return file(await readFile(path), type, { 'Cache-Control': 'public, max-age=3600' });
}

function file(content: string | Buffer, type: string, headers: Record<string, string> = {}): Answer {
  const body = Buffer.from(content);
  return { status: 200, headers: { 'Content-Type': `${type}; charset=utf-8`, ...headers }, body };
}
