/** The package as a stranger gets it: what is in it, where its pages lead, what its types say, what importing it costs. */
import { execFile } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { linksOf } from './links.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

let consumer: string;
let installed: string;
let files: string[];

/** A folder of somebody's, in which the package is installed: packed, unpacked, with its dependencies beside it. */
beforeAll(async () => {
  consumer = mkdtempSync(join(tmpdir(), 'otp-consumer-'));
  const modules = join(consumer, 'node_modules');
  mkdirSync(modules);
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', consumer], { cwd: root });
  const [{ filename, files: packed }] = JSON.parse(stdout) as [{ filename: string; files: { path: string }[] }];
  files = packed.map(({ path }) => path);
  await run('tar', ['xzf', filename], { cwd: consumer });
  installed = join(modules, 'otp-pipeline');
  await run('mv', [join(consumer, 'package'), installed]);
  const { dependencies } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
  for (const name of [...Object.keys(dependencies), '@types/node']) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(root, 'node_modules', name), join(modules, name));
  }
  writeFileSync(join(consumer, 'package.json'), '{ "type": "module" }');
}, 60_000);

afterAll(() => rmSync(consumer, { recursive: true, force: true }));

describe('the package', () => {
  it('has what its users need, and nothing of what only its makers do', () => {
    const first = new Set(files.map((file) => file.split('/')[0]));
    expect([...first].sort()).toEqual([
      ...['CHANGELOG.md', 'CODE_OF_CONDUCT.md', 'CONTRIBUTING.md', 'LICENSE', 'README.md', 'SECURITY.md'],
      ...['dist', 'docs', 'examples', 'ops', 'package.json'],
    ]);
    const strays = files.filter((file) => /\.map$|(^|\/)\.|node_modules|\.test\.|\.tgz$/.test(file));
    expect(strays).toEqual([]);
    const sources = files.filter((file) => file.startsWith('dist/') && /(?<!\.d)\.ts$/.test(file));
    expect(sources).toEqual([]);
    for (const file of ['dist/index.js', 'dist/index.d.ts', 'dist/cli.js', 'dist/workers/begin.lua']) {
      expect(files).toContain(file);
    }
  });

  it('has no page with a link that leads nowhere', () => {
    const pages = readdirSync(installed, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.md'));
    const links = pages.flatMap((page) => linksOf(installed, page));
    expect(links.length).toBeGreaterThan(200);
    const broken = links.filter(({ target }) => !existsSync(join(installed, target)));
    expect(broken.map(({ page, link }) => `${page}: ${link}`)).toEqual([]);
  });

  it.each([
    ['node16', 'node16'],
    ['esnext', 'bundler'],
  ])(
    'has types for a program in modules (%s, %s)',
    async (module, resolution) => {
      const program = join(consumer, `program-${resolution}.ts`);
      writeFileSync(program, PROGRAM);
      const compiler = join(root, 'node_modules/typescript/bin/tsc');
      const options = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', '--target', 'es2022', '--types', 'node'];
      const how = ['--module', module, '--moduleResolution', resolution, '--skipLibCheck'];
      const compiled = await run(process.execPath, [compiler, ...options, ...how, program], { cwd: consumer }).then(
        () => '',
        ({ stdout }) => stdout,
      );
      expect(compiled).toBe('');
    },
    60_000,
  );

  it('opens nothing when it is imported, and brings neither a web server nor a worker', async () => {
    const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', IMPORTER], { cwd: consumer });
    const { resources, packages, own } = JSON.parse(stdout) as Record<string, string[]>;
    expect(resources).toEqual([]);
    expect(packages).toContain('bullmq');
    const unwanted = /^(express|@bull-board|@fastify|@opentelemetry|prom-client|pino|commander|pg|undici)/;
    expect(packages?.filter((name) => unwanted.test(name))).toEqual([]);
    expect(own).toContain('producers');
    for (const room of ['workers', 'console', 'metrics', 'sandbox', 'tour', 'commands', 'main.js']) {
      expect(own).not.toContain(room);
    }
  }, 60_000);
});

/** Uses everything once; the line with the comment must be a fault, or the types say nothing. */
const PROGRAM = `
import {
  AcceptanceUnknownError, AcceptInProgressError, createOutboxSealer, createProducer, createResultsConsumer,
  IdempotencyMismatchError, InvalidRequestError,
  type EnqueueOptions, type Enqueued, type FieldFault, type OutboxRow, type Producer, type RedisSettings,
  type ResultEvent, type ResultsConsumer, type VerificationResource,
} from 'otp-pipeline';
const redis: RedisSettings = { cluster: ['redis-1.example:7000'], password: 'a password' };
const client = { id: 'shop', apiKey: 'a key' };
const producer: Producer = createProducer({ client, redis, sealingKeys: 'keys.json', partitions: { cepta: {} } });
const options: EnqueueOptions = { idempotencyKey: 'order-17-code-1' };
try {
  const { id, repeated }: Enqueued = await producer.enqueue({ provider: 'cepta', otp: '012345', params: {} }, options);
  const found: VerificationResource | null = await producer.read(id);
  if (found?.transaction === 'succeeded' && !repeated) console.log(found.nextStep);
  // @ts-expect-error
  if (found?.transaction === 'success') console.log(found);
} catch (error) {
  if (error instanceof InvalidRequestError) error.faults.map(({ field, problem }: FieldFault) => field + problem);
  for (const kind of [AcceptanceUnknownError, AcceptInProgressError, IdempotencyMismatchError]) {
    if (error instanceof kind) console.log(error.message);
  }
}
const consumer: ResultsConsumer = createResultsConsumer({
  redis: 'redis://127.0.0.1:6379',
  handler: async ({ subject, data }: ResultEvent) => console.log(subject, data.otp, data.sequence + 1),
});
await Promise.all([consumer.close(), producer.close()]);
const row: OutboxRow = await createOutboxSealer({ client, sealingKeys: {}, partitions: {} })
  .sealForOutbox({}, { idempotencyKey: 'k', payment: 'p' });
console.log(row.request.id);
`;

/** Packages by the folder they were loaded from, whichever loader did it; our own modules by their first folder. */
const IMPORTER = `
import { readFileSync } from 'node:fs';
import { createRequire, register } from 'node:module';
const hooks = \`
  import { appendFileSync } from 'node:fs';
  export function load(url, context, next) {
    appendFileSync('loaded.txt', url + '\\\\n');
    return next(url, context);
  }
\`;
register('data:text/javascript,' + encodeURIComponent(hooks));
const { createProducer } = await import('otp-pipeline');
if (typeof createProducer !== 'function') throw new Error('no library');
const resources = process.getActiveResourcesInfo().filter((name) => /TCP|TLS|UDP|Server|Timeout|Immediate/.test(name));
const all = [...readFileSync('loaded.txt', 'utf8').split('\\n'), ...Object.keys(createRequire(import.meta.url).cache)];
const packageOf = (url) => /.*node_modules\\/((?:@[^/]+\\/)?[^/]+)/.exec(url)?.[1];
const ownOf = (url) => /otp-pipeline\\/dist\\/([^/]+)/.exec(url)?.[1];
const unique = (list) => [...new Set(list.filter(Boolean))].sort();
console.log(JSON.stringify({ resources, packages: unique(all.map(packageOf)), own: unique(all.map(ownOf)) }));
`;
