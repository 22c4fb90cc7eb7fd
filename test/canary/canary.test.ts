/**
 * The gate: codes, phones, id numbers, tokens and keys go through success, every failure, crashes and bad input; then
 * every place that keeps or shows anything is searched for them, byte by byte and in every form.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { REASONS } from '../../src/providers/provider.ts';
import { sandboxProviders } from '../../src/sandbox/index.ts';
import { Canaries, KINDS } from './canaries.ts';
import { TOLD_BY_TEST_ENVIRONMENT } from './gateway.ts';
import { Journeys, VISIBLE } from './journeys.ts';
import {
  appendOnlyFile,
  bullBoard,
  collected,
  eventStreams,
  everyKey,
  file,
  type Inspection,
  inspectPlaces,
  output,
  type Page,
  type Place,
  pages,
  rdbFile,
  report,
} from './places.ts';
import { type Travelled, travel } from './travel.ts';
import { startWorld, type World } from './world.ts';

let world: World;
let travelled: Travelled;
let places: Place[];
let inspection: Inspection;
const canaries = new Canaries();

beforeAll(async () => {
  const journeys = new Journeys(canaries);
  world = await startWorld(canaries, journeys.meanings);
  travelled = await travel(world, journeys, canaries);
  places = placesOf(world, travelled);
  inspection = await inspectPlaces(places, canaries.all);
}, 240_000);

afterAll(() => world?.[Symbol.asyncDispose]());

test('nothing secret is readable anywhere, and every place could be searched', () => {
  expect(report(inspection)).toEqual([]);
});

test('every code that was to be submitted reached its provider', () => {
  expect(travelled.missed).toEqual([]);
});

test('every reason that a verification can end with was met', () => {
  const met = new Set(travelled.records.map(({ standing }) => standing?.reason));
  expect(REASONS.filter((reason) => !met.has(reason))).toEqual([]);
});

test('canaries of every kind were sent, and a test environment told one of its own', () => {
  const sent = new Set(canaries.all.map(({ kind }) => kind));
  expect(KINDS.filter((kind) => !sent.has(kind))).toEqual([]);
  expect(canaries.all.map(({ name }) => name)).toContain(TOLD_BY_TEST_ENVIRONMENT);
});

test('a worker was killed over a code of each provider', () => {
  const orphans = travelled.records.filter(({ history }) => history.some(({ event }) => event === 'owner_dead'));
  expect(orphans.map(({ partition }) => partition).sort()).toEqual([...sandboxProviders].sort());
});

function placesOf(world: World, { services, records, problems, thrown, outboxRows, commandLines }: Travelled): Place[] {
  const { url } = world.redis;
  const { service } = services;
  const ids = records.map(({ id }) => id);
  const someId = ids[0] as string;
  const strangers = { kinds: ["stranger's job"], because: 'a stranger has put it there, not the pipeline' } as const;
  const captures = Object.fromEntries(Object.entries(services).map(([name, { capture }]) => [name, capture]));
  const authorized = { headers: { authorization: world.consoleAuthorization } };
  const code = (name: string): string => canaries.code(`console: ${name}`);

  const consolePages: Page[] = [
    { url: `${service.consoleUrl}/`, status: 200, init: authorized },
    ...ids.map((id) => ({ url: `${service.consoleUrl}/verifications/${id}`, status: 200, init: authorized })),
    ...['review', 'audit', 'partitions/cepta', 'refresh.js'].map((path) => ({
      url: `${service.consoleUrl}/${path}`,
      status: 200,
      init: authorized,
    })),
    ...ids.map((id) => ({
      url: `${service.consoleUrl}/verifications/${id}/resolve`,
      status: [200, 409],
      init: authorized,
    })),
    { url: `${service.consoleUrl}/search?q=${code('a search')}`, status: 404, init: authorized },
    { url: `${service.consoleUrl}/search?q=${VISIBLE}`, status: [200, 404], init: authorized },
    {
      url: `${service.consoleUrl}/verifications/${someId}/resolve`,
      status: [409, 422],
      init: {
        ...authorized,
        method: 'POST',
        headers: { ...authorized.headers, origin: new URL(service.consoleUrl).origin },
        body: new URLSearchParams({ as: code('an outcome'), confirmation: code('a confirmation') }),
      },
    },
    { url: `${service.consoleUrl}/verifications/${code('an id')}`, status: 404, init: authorized },
    { url: `${service.consoleUrl}/verifications/%ZZ${code('no text')}`, status: 400, init: authorized },
    { url: `${service.consoleUrl}/${code('a path')}?otp=${code('a query')}`, status: 404, init: authorized },
    {
      url: `${service.consoleUrl}/`,
      status: [403, 405],
      init: { ...authorized, method: 'POST', body: code('a body') },
    },
    {
      url: `${service.consoleUrl}/`,
      status: 401,
      init: { headers: { authorization: `Basic ${code('no password')}` } },
    },
    { url: `${service.consoleUrl}/board/queue/${code('a queue')}`, status: 200, init: authorized },
    {
      url: `${service.consoleUrl}/board/api/queues/${code('a queue')}/${code('a job')}`,
      status: 404,
      init: authorized,
    },
    { url: `${service.consoleUrl}/board/api/queues/otp-cepta/${code('a job')}`, status: 404, init: authorized },
  ];
  return [
    // First, for it hears what is asked of the server by those that follow.
    { ...world.commands.place([VISIBLE, ...ids, 'publish', 'otp-published']), holds: strangers },
    { ...rdbFile(url, [VISIBLE, someId]), holds: strangers },
    { ...appendOnlyFile(url, [VISIBLE, ...ids]), holds: strangers },
    { ...everyKey(url, [VISIBLE, ...ids]), holds: strangers },
    {
      ...eventStreams(url, ['otp-cepta', 'otp-beqelal', 'otp-cepta-inquiry', 'otp-cepta-callback', 'otp-results']),
      holds: strangers,
    },
    output('the service', 'stdout', captures, {
      proof: [...ids, '"level":20', 'attempt begun', 'provider call ended'],
    }),
    output('the service', 'stderr', captures, { mayBeEmpty: 'what goes wrong is told by the log' }),
    output('otp', 'stdout', commandLines, { proof: [VISIBLE, 'beqelal_'] }),
    output('otp', 'stderr', commandLines, { proof: ['must be', 'made to crash', 'WRONGPASS'] }),
    output(
      'otp sandbox',
      'stdout',
      { sandbox: world.sandbox.capture },
      {
        after: /^\{"control".*\n/m,
        mayBeEmpty: 'after the addresses and keys that it is asked for it says nothing',
      },
    ),
    output('otp sandbox', 'stderr', { sandbox: world.sandbox.capture }, { mayBeEmpty: 'it says nothing' }),
    file("the sandbox's ledger", world.sandbox.ledgerFile, ['code_received', 'token_issued', 'callback_sent'], {
      kinds: ['code', 'phone'],
      because: 'docs/sandbox.md: codes stand in it in clear, and a phone number is what LipaLater has for a reference',
    }),
    pages(
      'metrics',
      [{ url: `${service.consoleUrl}/metrics`, status: 200 }],
      ['otp_verifications_total{', 'otp_intake_requests_total{'],
    ),
    pages('the console', consolePages, [VISIBLE, 'Nothing here', 'No such verification', ...ids]),
    bullBoard(`${service.consoleUrl}/board`, authorized.headers, ['otp-cepta', 'otp-results-shop', '[masked]']),
    collected('problem+json', () => problems, [
      ...['malformed-json', 'invalid-request', 'unauthorized', 'not-found', 'method-not-allowed', 'body-too-large'],
      ...['unsupported-media-type', 'unavailable'],
    ]),
    collected('thrown errors', () => thrown, [
      'InvalidRequestError',
      'IdempotencyMismatchError',
      'AcceptanceUnknownError',
      'ConfigError',
    ]),
    collected('rows of an outbox', () => outboxRows, [VISIBLE, 'fingerprint', 'sealed']),
    collected('traces', () => world.collector.received, [
      ...['send otp-cepta', 'process otp-cepta', 'verify beqelal', 'inquiry ayoconnect', 'POST webhook'],
      ...['send otp-results-shop', 'otp.verification.id'],
    ]),
  ];
}
