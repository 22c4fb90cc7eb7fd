/**
 * One worker is stopped by the kernel in the middle of five things at once, longer than its right to send and its
 * heartbeat last; another one takes over; then the first is continued. What each partition's provider received, and
 * what became of each verification, is judged test by test.
 */
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { request } from 'undici';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { readKeySet } from '../../src/key-files.ts';
import { partitionKeys, partitionOf } from '../../src/producers/job.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { type HeldProvider, selfSigned, startShutDoor, startSilentTls } from '../support/held-provider.ts';
import { type Pipeline, startPipeline } from '../support/pipeline.ts';
import { answer, type Behaviour, type ProviderServer, startProviderServer } from '../support/provider-server.ts';
import { startTestRedis } from '../support/redis.ts';
import { install, type ServiceProcess, serve } from '../support/service.ts';

const SOON = { timeout: 20_000, interval: 20 };
const CODE = '246810';
const CEPTA = { adapter: 'cepta', credentials: { secretKey: 'sk_of_the_test' } };
const BEQELAL = { adapter: 'beqelal', credentials: { appId: 'app', apiKey: 'key-of-the-test' } };
/** The other worker asks for none of those that the stopped one must bring an end to. */
const NEVER_ASKED = { timeoutMs: 60_000, inquiry: { delaysMs: [3_600_000] } };

const json = (body: unknown): string => answer(200, JSON.stringify(body), { 'content-type': 'application/json' });
const PROCESSED = json({ status: 'PROCESSED', status_code: '200', error: null });
const COMPLETED = (reference: string): string =>
  json({ status: true, data: { transactionReference: reference, status: 'Completed' } });
const WRONG_CODE = json({ status: false, data: { responseCode: '01', errors: [{ errorCode: 'INVALID_OTP' }] } });

/** Takes submissions and answers them when the test says so; says of every transaction that it is paid. */
class Holding {
  #answers: (() => void)[] = [];

  behave(reply: string): Behaviour {
    return (socket, { method, path }) => {
      if (method === 'GET') socket.write(COMPLETED(path.split('TransactionRef=')[1] ?? ''));
      else this.#answers.push(() => void socket.write(reply));
    };
  }

  answer(): void {
    for (const write of this.#answers.splice(0)) write();
  }
}

const opened: AsyncDisposable[] = [];
const closing = <T extends AsyncDisposable>(part: T): T => {
  opened.push(part);
  return part;
};
let door: HeldProvider;
let tls: HeldProvider;
let answering: ProviderServer;
let asked: ProviderServer;
let idle: ProviderServer;
let pipeline: Pipeline;
let stopped: ServiceProcess;
let heir: ServiceProcess;

type Case = 'connecting' | 'shaking-hands' | 'answered' | 'inquired' | 'idle';
const ids = {} as Record<Case, string>;
/** As they stood at the end of the stop, and at the end of everything. */
const meanwhile = {} as Record<Case, VerificationResource>;
const finally_ = {} as Record<Case, VerificationResource>;
/** Whether the connection was there before the worker was continued, so that only its own clock held it back. */
let wasConnected: Record<'connecting' | 'shaking-hands', boolean>;
let settledByInquiry: Record<string, string>;

beforeAll(async () => {
  const server = closing(await startTestRedis());
  const pair = selfSigned();
  const [late, contradicting] = [new Holding(), new Holding()];
  door = closing(await startShutDoor());
  tls = closing(await startSilentTls(pair));
  answering = closing(await startProviderServer(late.behave(PROCESSED)));
  asked = closing(await startProviderServer(contradicting.behave(WRONG_CODE)));
  idle = closing(await startProviderServer((socket) => void socket.write(PROCESSED)));

  const providers = {
    connecting: { ...CEPTA, ...NEVER_ASKED, baseUrl: door.url },
    'shaking-hands': { ...CEPTA, ...NEVER_ASKED, baseUrl: tls.url, tls: { caFile: 'ca.pem' } },
    answered: { ...BEQELAL, timeoutMs: 60_000, baseUrl: answering.url },
    inquired: { ...CEPTA, ...NEVER_ASKED, baseUrl: asked.url, inquiry: { delaysMs: [100] } },
    idle: { ...BEQELAL, baseUrl: idle.url },
  };
  const installation = closing(await install({ redis: { url: server.url }, providers }));
  writeFileSync(join(installation.folder, 'ca.pem'), pair.cert);
  const keySet = readKeySet(join(installation.folder, 'keys.json'), 'sealing.keyFile');
  pipeline = closing(await startPipeline(providers, { workers: false, server, keySet }));
  const enqueue = async (partition: Case): Promise<void> => {
    const reference = randomUUID().slice(0, 8);
    const params =
      providers[partition].adapter === 'cepta'
        ? { transactionRef: reference, paymentId: 'PAY1', md: 'merchant_data' }
        : { reference };
    ids[partition] = await pipeline.enqueue({ provider: partition, otp: CODE, params });
  };

  // Alone, so that everything is begun by it.
  stopped = closing(await serve(installation.file, 'worker'));
  for (const partition of ['connecting', 'shaking-hands', 'answered', 'inquired'] as const) await enqueue(partition);
  await vi.waitUntil(async () => {
    const states = await Promise.all(Object.values(ids).map(async (id) => (await pipeline.read(id)).state));
    const sent = answering.requests.length === 1 && asked.requests.length === 1;
    return states.every((state) => state === 'sending') && sent && tls.connections === 1;
  }, SOON);
  process.kill(stopped.pid, 'SIGSTOP');
  heir = closing(await serve(installation.file, 'worker'));
  await enqueue('idle');
  door.release();
  tls.release();
  late.answer();

  await vi.waitUntil(async () => {
    for (const partition of Object.keys(ids) as Case[]) meanwhile[partition] = await pipeline.read(ids[partition]);
    const { idle, inquired, ...unknown } = meanwhile;
    return idle.final && inquired.final && Object.values(unknown).every(({ state }) => state === 'awaiting');
  }, SOON);
  await vi.waitUntil(() => door.connections === 1, SOON);
  wasConnected = { connecting: door.connections === 1, 'shaking-hands': tls.connections === 1 };
  settledByInquiry = await recordOf(ids.inquired);
  contradicting.answer();
  process.kill(stopped.pid, 'SIGCONT');

  await vi.waitUntil(async () => {
    for (const partition of Object.keys(ids) as Case[]) finally_[partition] = await pipeline.read(ids[partition]);
    const heard = await endings(stopped);
    return Object.values(finally_).every(({ final }) => final) && heard.length === 4;
  }, SOON);
}, 90_000);

afterAll(async () => {
  for (const part of opened.reverse()) await part[Symbol.asyncDispose]();
});

const recordOf = async (id: string): Promise<Record<string, string>> =>
  await pipeline.redis.hgetall(partitionKeys(partitionOf(id) ?? '').record(id));

/** How the submissions of a worker have ended, by its own account: `<partition> answered | not_sent | lost`. */
async function endings({ consoleUrl }: ServiceProcess): Promise<string[]> {
  const metrics = await (await request(`${consoleUrl}/metrics`)).body.text();
  const counted = /^otp_provider_requests_total\{(.*call="verify".*)\} ([1-9]\d*)$/gm;
  return [...metrics.matchAll(counted)]
    .map(([, labels = '', times]) => {
      const label = (name: string): string => new RegExp(`${name}="([^"]*)"`).exec(labels)?.[1] ?? '';
      return `${label('provider')} ${label('wire')}${times === '1' ? '' : ` ${times} times`}`;
    })
    .sort();
}

/** Everything that was published of it: as many results as it has revisions, and none beyond. */
async function resultsOf(partition: Case): Promise<string[]> {
  const { id, sequence } = finally_[partition];
  await vi.waitUntil(async () => await pipeline.result(`${id}.${sequence}`), SOON);
  const results = (await pipeline.results()).filter(({ data }) => data.id === id);
  return results.map(({ data }) => `${data.sequence} ${data.otp}${data.final ? ' final' : ''}`).sort();
}

const eventsOf = ({ history }: VerificationResource): string[] => (history ?? []).map(({ event }) => event);

describe('a worker that is continued after its time', () => {
  test.each([
    ['connecting', () => door],
    ['shaking-hands', () => tls],
  ] as const)('and was stopped while %s sends nothing, and proves that it has not', async (partition, provider) => {
    expect(meanwhile[partition]).toMatchObject({ state: 'awaiting', otp: 'unknown', transaction: 'unknown' });
    expect(wasConnected[partition]).toBe(true);
    expect(provider().bytes).toBe(0);
    expect(finally_[partition]).toMatchObject({
      otp: 'not_submitted',
      reason: 'provider_unavailable',
      nextStep: 'reenter_code',
      sequence: 2,
    });
    expect(eventsOf(finally_[partition])).toEqual(['accepted', 'begun', 'owner_dead', 'not_sent']);
    expect(await resultsOf(partition)).toEqual(['1 unknown', '2 not_submitted final']);
  });

  test('and had sent brings the answer: one submission, and accepted once', async () => {
    expect(meanwhile.answered).toMatchObject({ state: 'awaiting', otp: 'unknown', sequence: 1 });
    expect(finally_.answered).toMatchObject({ otp: 'accepted', transaction: 'succeeded', sequence: 2 });
    expect(eventsOf(finally_.answered)).toEqual(['accepted', 'begun', 'owner_dead', 'answered']);
    expect(await resultsOf('answered')).toEqual(['1 unknown', '2 accepted final']);
    expect(answering.requests).toHaveLength(1);
    expect(answering.requests[0]?.body).toContain(CODE);
  });

  test('and had sent overwrites nothing that the inquiry has proved, whatever its answer says', async () => {
    expect(meanwhile.inquired).toMatchObject({ final: true, otp: 'accepted', transaction: 'succeeded', sequence: 2 });
    expect(eventsOf(meanwhile.inquired)).toEqual(['accepted', 'begun', 'owner_dead', 'inquired']);
    expect(await recordOf(ids.inquired)).toEqual(settledByInquiry);
    expect(await resultsOf('inquired')).toEqual(['1 unknown', '2 accepted final']);
    expect(asked.requests.filter(({ method }) => method === 'POST')).toHaveLength(1);
  });

  test('and was idle submits nothing of what another one has taken meanwhile', async () => {
    expect(meanwhile.idle).toMatchObject({ final: true, otp: 'accepted', sequence: 1 });
    expect(finally_.idle).toEqual(meanwhile.idle);
    expect(await resultsOf('idle')).toEqual(['1 accepted final']);
    expect(idle.requests).toHaveLength(1);
  });

  test('has begun all of them but the last, and the other one has sent the last alone', async () => {
    expect(await endings(stopped)).toEqual([
      'answered answered',
      'connecting not_sent',
      'inquired answered',
      'shaking-hands not_sent',
    ]);
    expect(await endings(heir)).toEqual(['idle answered']);
  });
});
