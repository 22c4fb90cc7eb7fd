/**
 * The gate is worth what its search is worth. So a value is planted in every place in every form, by the means by which
 * it would really get there, and must be found; and a place that cannot be read must not pass for a clean one.
 */
import { spawn } from 'node:child_process';
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { ExpressAdapter } from '@bull-board/express';
import { Queue, Worker } from 'bullmq';
import express from 'express';
import { Redis } from 'ioredis';
import { Counter, Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { createConsole } from '../../src/console/server.ts';
import { EventBus } from '../../src/events.ts';
import { newVerificationId, partitionKeys } from '../../src/producers/job.ts';
import { connectRedis } from '../../src/redis/connections.ts';
import { Secret } from '../../src/secret.ts';
import { Operator } from '../../src/workers/operator.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { runCli } from '../support/service.ts';
import { Canaries, type Canary, type Kind } from './canaries.ts';
import {
  answerOf,
  appendOnlyFile,
  bullBoard,
  Capture,
  collected,
  Eavesdropper,
  eventStreams,
  everyKey,
  file,
  type Inspection,
  inspectPlaces,
  makeReadable,
  output,
  type Part,
  type Place,
  pages,
  rdbFile,
  wordsOf,
} from './places.ts';

type Make = (canaries: Canaries, name: string) => string;
const code: Make = (canaries, name) => canaries.code(name);
const digits: Make = (canaries, name) => canaries.digits(name);
const zero: Make = (canaries, name) => canaries.withLeadingZero(name);
const markup: Make = (canaries, name) => canaries.text('md', name);
/** Whatever stands before it, its base64 has a character that base64url writes in another way. */
const slashed: Make = (canaries, name) =>
  canaries.add('md', name, `${randomBytes(4).toString('hex')}?????${randomBytes(4).toString('hex')}`);
/** One digit more than Lua writes of a number, and the last is rounded up. */
const long: Make = (canaries, name) => canaries.add('phone', name, `2547${randomInt(1e9, 1e10)}${randomInt(5, 10)}`);
const key: Make = (canaries, name) => canaries.token('credential', name, 40);

const escaped = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
const eachOf = (text: string, write: (character: string, at: number) => string): string =>
  [...text].map(write).join('');
const within = (text: string, before: number): string => `${'x'.repeat(before)}${text}yz`;
const digest = (algorithm: string, text: string) => createHash(algorithm).update(text).digest();

/** How a value may be written, each by other means than those that look for it where there are any. */
const FORMS: Readonly<Record<string, readonly [make: Make, write: (value: string) => string]>> = {
  plain: [code, (value) => value],
  'in the middle of a word': [code, (value) => `Abc123${value}456dEf`],
  'in the other case': [
    key,
    (value) => eachOf(value, (each) => (each === each.toLowerCase() ? each.toUpperCase() : each.toLowerCase())),
  ],
  'with all that is escaped': [markup, (value) => value],
  'as JSON in JSON in JSON': [markup, (value) => JSON.stringify(JSON.stringify(JSON.stringify({ value })))],
  'split by JSON escapes': [code, (value) => eachOf(value, (each, at) => (at % 3 === 1 ? escaped(each) : each))],
  'all in JSON escapes': [code, (value) => eachOf(value, (each) => escaped(each).toUpperCase().replace('U', 'u'))],
  'escaped twice': [
    code,
    (value) => JSON.stringify(eachOf(value, (each, at) => (at % 2 === 0 ? escaped(each) : each))),
  ],
  'split by hex escapes': [
    code,
    (value) => eachOf(value, (each, at) => (at === 4 ? `\\x${each.charCodeAt(0).toString(16)}` : each)),
  ],
  'percent signs': [code, (value) => eachOf(value, (each) => `%${each.charCodeAt(0).toString(16)}`)],
  'as a query': [markup, (value) => encodeURIComponent(value)],
  'as HTML': [markup, (value) => value.replaceAll(/[&<>"']/g, (each) => `&#${each.charCodeAt(0)};`)],
  'in HTML references': [
    code,
    (value) => eachOf(value, (each, at) => (at % 2 ? each : `&#x${each.charCodeAt(0).toString(16)};`)),
  ],
  reversed: [code, (value) => [...value].reverse().join('')],
  hex: [code, (value) => Buffer.from(value).toString('hex')],
  'hex in capitals': [code, (value) => Buffer.from(value).toString('hex').toUpperCase()],
  'as Node shows a Buffer': [code, (value) => String(Buffer.from(value).toString('hex').match(/../g)?.join(' '))],
  ...Object.fromEntries(
    [0, 1, 2, 3, 4, 5].flatMap((before): [string, readonly [Make, (value: string) => string]][] => [
      [`base64 behind ${before} bytes`, [code, (value) => Buffer.from(within(value, before)).toString('base64')]],
      [
        `base64url behind ${before} bytes`,
        [slashed, (value) => Buffer.from(within(value, before)).toString('base64url')],
      ],
    ]),
  ),
  'base64 of JSON': [markup, (value) => Buffer.from(JSON.stringify({ value })).toString('base64')],
  'a number': [digits, (value) => JSON.stringify({ otp: Number(value) })],
  'a number that has lost its zero': [zero, (value) => JSON.stringify({ otp: Number(value) })],
  'a number in a float': [digits, (value) => `${value}.0`],
  'a number with an exponent': [digits, (value) => Number(value).toExponential()],
  'a long number with an exponent': [long, (value) => Number(value).toExponential()],
  'a long number as Lua writes it': [long, (value) => Number(value).toPrecision(14)],
  'a number as C writes it': [digits, (value) => `${Number(value).toExponential(12).replace('e+', 'e+0')}`],
  ...Object.fromEntries(
    ['md5', 'sha1', 'sha256', 'sha512'].flatMap((algorithm): [string, readonly [Make, (value: string) => string]][] => [
      [`${algorithm} in hex`, [code, (value) => digest(algorithm, value).toString('hex')]],
      [`${algorithm} in base64`, [code, (value) => digest(algorithm, value).toString('base64')]],
      [`${algorithm} in base64url`, [code, (value) => digest(algorithm, value).toString('base64url')]],
    ]),
  ),
};

const canaries = new Canaries();
const planted = new Map<string, string[]>();

/** One text with every form in it, of values that are planted nowhere else. `into` names the places that must find it. */
function plant(spot: string, into: readonly string[], only?: (form: string) => boolean): string {
  const lines = Object.entries(FORMS)
    .filter(([form]) => only?.(form) ?? true)
    .map(([form, [make, write]]) => {
      const name = `${spot}, ${form}`;
      for (const place of into) planted.set(place, [...(planted.get(place) ?? []), name]);
      return write(make(canaries, name));
    });
  return lines.join(' ');
}

/** One value in one form of its own. */
function plantOne(spot: string, into: readonly string[], make: Make): string {
  for (const place of into) planted.set(place, [...(planted.get(place) ?? []), spot]);
  return make(canaries, spot);
}

const closers: (() => unknown)[] = [];
let server: TestRedis;
let folder: string;
let places: Place[];
let inspection: Inspection;
let board: { url: string; headers: Record<string, string> };

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'otp-planted-'));
  closers.push(() => rmSync(folder, { recursive: true, force: true }));
  server = await startTestRedis({ appendonly: true });
  closers.push(() => server[Symbol.asyncDispose]());
  await makeReadable(server.url);
  const commands = new Eavesdropper();
  closers.push(() => commands[Symbol.asyncDispose]());
  await commands.listen(server.url);
  places = [
    ...(await plantInRedis(commands)),
    ...(await plantInProcesses()),
    ...(await plantInConsole()),
    ...(await plantInAnswers()),
    ...plantInErrors(),
    plantInLedger(),
  ];
  inspection = await inspectPlaces(places, canaries.all);
}, 120_000);

afterAll(async () => {
  for (const close of closers.reverse()) await close();
});

const PLACES = [
  'Redis keys',
  'Redis RDB',
  'Redis AOF',
  'Redis commands',
  'BullMQ events streams',
  'stdout of a process',
  'stderr of a process',
  'stdout of otp',
  'stderr of otp',
  'metrics',
  'the console',
  'Bull Board',
  'problem+json',
  'thrown errors',
  'traces',
  "the sandbox's ledger",
];

test('every place was read', () => {
  expect(places.map(({ name }) => name).sort()).toEqual([...PLACES].sort());
  expect(inspection.unread).toEqual([]);
});

test.each(PLACES)('whatever is planted in %s is found there, in every form', (place) => {
  const wanted = planted.get(place) ?? [];
  const found = new Set(inspection.leaks.filter((leak) => leak.place === place).map(({ canary }) => nameOf(canary)));
  expect(wanted.length).toBeGreaterThanOrEqual(Object.keys(FORMS).length);
  expect(wanted.filter((name) => !found.has(name))).toEqual([]);
});

test('a value that is planted nowhere is found nowhere', async () => {
  const others = new Canaries();
  for (let count = 0; count < 1_000; count += 1) {
    others.code(`code ${count}`);
    others.digits(`digits ${count}`);
    others.phone(`phone ${count}`);
  }
  expect((await inspectPlaces(places, others.all)).leaks).toEqual([]);
});

/** A part of a canary, such as the beginning of a text, counts as its whole. */
function nameOf({ name }: Canary): string {
  return name.replace(/, its (beginning|end)$/, '');
}

async function plantInRedis(commands: Eavesdropper): Promise<Place[]> {
  const everywhere = ['Redis keys', 'Redis RDB', 'Redis AOF', 'Redis commands'];
  const redis = new Redis(server.url);
  closers.push(() => redis.disconnect());
  await redis.set('a string', plant('a string', everywhere));
  await redis.set(plant('the name of a key', everywhere), '1');
  await redis.set('a long string', `${'a'.repeat(5_000)}${plant('a long string', everywhere)}${'a'.repeat(5_000)}`);
  await redis.hset('a hash', plant('the name of a field', everywhere), plant('a field', everywhere));
  await redis.rpush('a list', plant('a list', everywhere));
  await redis.sadd('a set', plant('a set', everywhere));
  await redis.zadd('a sorted set', 1, plant('a sorted set', everywhere));
  await redis.xadd('a stream', '*', plant('the name in an entry', everywhere), plant('an entry', everywhere));
  await redis.select(3);
  await redis.set('elsewhere', plant('another database', everywhere));
  await redis.select(0);
  // Redis keeps numbers as numbers, each structure in its own way.
  await redis.set('a number', plantOne('a string that is a number', everywhere, digits));
  await redis.hset('numbers', 'otp', plantOne('a field that is a number', everywhere, digits));
  await redis.rpush('list of numbers', plantOne('an entry that is a number', everywhere, digits));
  await redis.sadd('set of numbers', plantOne('a member that is a number', everywhere, digits));
  await redis.zadd('scores', plantOne('a score', everywhere, digits), 'member');
  await redis.zadd('many scores', ...Array.from({ length: 200 }, (_, at) => [at, `member ${at}`]).flat());
  await redis.zadd('many scores', plantOne('a score among many', everywhere, digits), 'member');
  // What is gone from the keys has been in the file, and what is only said has been heard.
  await redis.set('gone', plant('a key that is gone', ['Redis AOF', 'Redis commands']));
  await redis.del('gone');
  await redis.publish('a channel', plant('a message', ['Redis commands']));

  const connection = { url: server.url };
  const queue = new Queue('planted', { connection });
  closers.push(() => queue.close());
  const worker = new Worker('planted', async (job) => job.data, { connection });
  const done = once(worker, 'completed');
  const text = plant('what a job returned', ['BullMQ events streams', 'Bull Board', ...everywhere]);
  await queue.add(plant('the name of a job', ['Bull Board', ...everywhere]), text);
  await done;
  await worker.close();
  const app = express();
  const adapter = new ExpressAdapter();
  adapter.setBasePath('/board');
  createBullBoard({ queues: [new BullMQAdapter(queue)], serverAdapter: adapter });
  app.use('/board', adapter.getRouter() as express.RequestHandler);
  board = { url: `${await listening(createServer(app))}/board`, headers: {} };

  return [
    commands.place(['a channel']),
    rdbFile(server.url, ['a sorted set']),
    appendOnlyFile(server.url, ['a sorted set']),
    everyKey(server.url, ['a sorted set']),
    eventStreams(server.url, ['planted']),
    bullBoard(board.url, board.headers, ['planted']),
  ];
}

/** A process with the service's own logger; and the `otp` command, which shows references and repeats the names of clients. */
async function plantInProcesses(): Promise<Place[]> {
  const log = pathToFileURL(join(import.meta.dirname, '../../dist/log.js'));
  const script = `import { createLogger } from ${JSON.stringify(log)};
    createLogger({ level: 'trace' }).trace({ said: process.argv[1] }, 'planted'); console.error(process.argv[2]);`;
  const logged = [plant('a log line', ['stdout of a process']), plant('an error', ['stderr of a process'])];
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, '--', ...logged]);
  const process_ = { planted: new Capture(child) };

  const id = newVerificationId('cepta');
  const redis = new Redis(server.url);
  const reference = plant('a reference', ['stdout of otp']);
  await redis.hset(partitionKeys('cepta').record(id), {
    state: 'queued',
    operation: 'verify',
    reference,
    head: '{"metadata":{}}',
  });
  redis.disconnect();
  const configuration = join(folder, 'otp.yaml');
  const cepta = { baseUrl: 'https://cepta.example', credentials: { secretKey: 'k' } };
  writeFileSync(configuration, stringify({ redis: { url: server.url }, providers: { cepta } }));
  const show = runCli(['show', id], { OTP_CONFIG: configuration });
  const unknown = runCli(['webhooks', 'replay', plant('an unknown client', ['stderr of otp'])], {
    OTP_CONFIG: configuration,
  });
  const otp = { show: new Capture(show), unknown: new Capture(unknown) };
  await Promise.all([child, show, unknown].map((each) => once(each, 'close')));
  return [
    output('a process', 'stdout', process_, { proof: ['planted'] }),
    output('a process', 'stderr', process_),
    output('otp', 'stdout', otp, { proof: [id] }),
    output('otp', 'stderr', otp, { proof: ['results.webhooks'] }),
  ];
}

/** The console shows metadata, as it should; and a metric has a label that it should not have. */
async function plantInConsole(): Promise<Place[]> {
  const registry = new Registry();
  new Counter({ name: 'planted_total', help: 'Planted.', labelNames: ['phone'], registers: [registry] }).inc({
    phone: plant('a label', ['metrics']),
  });
  const id = newVerificationId('cepta');
  const redis = connectRedis(server.url, 'console', { onError: () => {} });
  closers.push(() => redis.disconnect());
  const head = JSON.stringify({ metadata: { note: plant('metadata', ['the console']) } });
  await redis.hset(partitionKeys('cepta').record(id), { state: 'queued', operation: 'verify', reference: 'TX', head });
  const app = createConsole({
    registry,
    events: new EventBus(),
    readiness: { redis: () => true, workers: () => true, configuration: () => true, staying: () => true },
    pages: {
      users: [{ name: 'ops', password: new Secret('a password') }],
      redis,
      partitions: [{ name: 'cepta', rateLimit: { max: 1, perMs: 1_000 } }],
      clients: [],
      operator: new Operator({ redis, partitions: [], name: 'otp-console-of-the-test' }),
      queues: [],
      depths: { read: async () => ({ complete: true, queues: new Map(), partitions: new Map(), server: null }) },
    },
  });
  const url = await listening(createServer(app));
  const authorization = `Basic ${Buffer.from('ops:a password').toString('base64')}`;
  const story = { url: `${url}/verifications/${id}`, status: 200, init: { headers: { authorization } } };
  return [
    pages('metrics', [{ url: `${url}/metrics`, status: 200 }], ['planted_total']),
    pages('the console', [story], [id]),
  ];
}

async function plantInAnswers(): Promise<Place[]> {
  const detail = plant('a detail', ['problem+json']);
  const received: Part[] = [];
  const url = await listening(
    createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      received.push({ where: String(request.url), bytes: Buffer.concat(chunks) });
      response.writeHead(400, { 'content-type': 'application/problem+json' });
      response.end(JSON.stringify({ type: 'urn:otp-pipeline:problem:invalid-request', detail }));
    }),
  );
  const span = JSON.stringify({ attributes: [{ key: 'job.data', value: plant('a span', ['traces']) }] });
  const answer = await answerOf(`${url}/v1/traces`, { method: 'POST', body: span });
  return [
    collected('problem+json', () => [answer], ['invalid-request']),
    collected('traces', () => received, ['job.data']),
  ];
}

function plantInErrors(): Place[] {
  const own = (spot: string): string => plant(spot, ['thrown errors']);
  const stacked = new Error('of a stack');
  stacked.stack = `Error: of a stack\n  at ${own('a stack')}`;
  const errors: unknown[] = [
    new Error(own('a message')),
    stacked,
    new Error('of a cause', {
      cause: new Error('of a cause of a cause', { cause: new Error(own('a cause of a cause')) }),
    }),
    new Error('of a cause that is no error', { cause: { sent: own('a cause that is no error') } }),
    new AggregateError([new Error(own('one of several errors'))], 'several'),
    Object.assign(new Error('of a command'), { command: { args: [own('an argument')] } }),
    Object.defineProperty(new Error('hidden'), 'request', {
      value: { body: own('a hidden member') },
      enumerable: false,
    }),
    own('a text that was thrown'),
    Object.assign(new Error('bytes'), { sent: Buffer.from(plantOne('a Buffer', ['thrown errors'], code)) }),
  ];
  return [collected('thrown errors', () => errors.flatMap((error, at) => wordsOf(error, `error ${at}`)), ['several'])];
}

function plantInLedger(): Place {
  const path = join(folder, 'ledger.jsonl');
  const name = "the sandbox's ledger";
  writeFileSync(path, JSON.stringify({ event: 'code_received', code: plant('an entry of the ledger', [name]) }));
  return file(name, path, ['code_received']);
}

async function listening(http: Server): Promise<string> {
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  closers.push(() => {
    http.closeAllConnections();
    http.close();
  });
  return `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
}

describe('a place that cannot be searched is said to be so', () => {
  const away = 'redis://:nobody@127.0.0.1:9';
  const nowhere = 'http://127.0.0.1:9';
  const silent = () => new Capture(spawn(process.execPath, ['-e', ''], { stdio: 'ignore' }));
  const quiet = async () => {
    const child = spawn(process.execPath, ['-e', '']);
    const capture = new Capture(child);
    await once(child, 'close');
    return capture;
  };

  const broken: Record<string, () => Place | Promise<Place>> = {
    'the RDB of a server that is away': () => rdbFile(away, []),
    'the AOF of a server that is away': () => appendOnlyFile(away, []),
    'the keys of a server that is away': () => everyKey(away, []),
    'the events of a server that is away': () => eventStreams(away, ['planted']),
    'the commands that nobody listened to': () => new Eavesdropper().place([]),
    'an RDB that lacks what must be in it': () => rdbFile(server.url, ['what was never written']),
    'the events of a queue that has none': () => eventStreams(server.url, ['another queue']),
    'the output of a process that nobody listens to': () => output('silence', 'stdout', { silent: silent() }),
    'the output of a process that says nothing': async () => output('silence', 'stdout', { quiet: await quiet() }),
    'output before its beginning': async () =>
      output('silence', 'stdout', { quiet: await quiet() }, { after: /ready/, mayBeEmpty: 'it says nothing' }),
    'a file that is not there': () => file('a file', join(folder, 'nothing'), []),
    'an empty file': () => {
      writeFileSync(join(folder, 'empty'), '');
      return file('a file', join(folder, 'empty'), []);
    },
    'a page that nobody serves': () => pages('a page', [{ url: `${nowhere}/`, status: 200 }], []),
    'a page with another status': () => pages('a page', [{ url: `${board.url}/nothing/here`, status: 200 }], []),
    'a board that nobody serves': () => bullBoard(`${nowhere}/board`, {}, []),
    'a board in the wrong place': () => bullBoard(`${board.url}/queue`, {}, []),
    'nothing collected': () => collected('nothing', () => [], []),
  };

  test.each(Object.keys(broken))('%s', async (name) => {
    const place = await (broken[name] as () => Place | Promise<Place>)();
    const { unread } = await inspectPlaces([place], []);
    expect(unread.map(({ place }) => place)).toContain(place.name);
  });

  test('an RDB that is compressed, and an AOF with a part that may be', async () => {
    await using other = await startTestRedis({ appendonly: true });
    const { unread } = await inspectPlaces([rdbFile(other.url, []), appendOnlyFile(other.url, [])], []);
    expect(unread.map(({ why }) => why)).toEqual([
      'its texts are compressed',
      expect.stringContaining('is in the binary form, which may be compressed'),
    ]);
  });

  test('a server without an AOF', async () => {
    await using other = await startTestRedis();
    const { unread } = await inspectPlaces([appendOnlyFile(other.url, [])], []);
    expect(unread).toEqual([{ place: 'Redis AOF', why: 'the server keeps none' }]);
  });
});

test('what a place holds by design is let pass, and nothing else of it', async () => {
  const own = new Canaries();
  const lines = (['code', 'md'] as Kind[]).map((kind) => own.token(kind, `the ${kind}`));
  writeFileSync(join(folder, 'designed'), lines.join('\n'));
  const place = file('designed', join(folder, 'designed'), [], { kinds: ['code'], because: 'it says so' });
  const { leaks } = await inspectPlaces([place], own.all);
  expect(leaks.map(({ canary }) => canary.name)).toEqual(['the md']);
});
