/** What happens in the world before it is searched: every journey, every misuse, crashes of workers and of Redis. */
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { loadConfig } from '../../src/config.ts';
import { createOutboxSealer, createProducer, createResultsConsumer, type ProducerOptions } from '../../src/index.ts';
import { partitionKeys } from '../../src/producers/job.ts';
import { readVerification } from '../../src/producers/reading.ts';
import type { VerificationRecord } from '../../src/producers/record.ts';
import { connectRedis, type RedisConnection } from '../../src/redis/connections.ts';
import type { SandboxProvider } from '../../src/sandbox/index.ts';
import { badConfigurations, badRequests } from './bad-input.ts';
import type { Canaries } from './canaries.ts';
import type { Journey, Journeys } from './journeys.ts';
import { answerOf, type Capture, makeReadable, type Part, wordsOf } from './places.ts';
import type { Client, CommandOptions, Serving, World } from './world.ts';

export interface Travelled {
  readonly services: Readonly<Record<'service' | 'the killed worker', Serving>>;
  readonly records: readonly VerificationRecord[];
  /** Codes that had to reach a provider and did not. */
  readonly missed: readonly string[];
  /** Every answer of the intake that was none of the two hundreds. */
  readonly problems: readonly Part[];
  readonly thrown: readonly Part[];
  /** What a program would write into the table of its outbox. */
  readonly outboxRows: readonly Part[];
  /** Of the `otp` command, by its arguments. */
  readonly commandLines: Readonly<Record<string, Capture>>;
}

const PATIENCE_MS = 90_000;

export async function travel(world: World, journeys: Journeys, canaries: Canaries): Promise<Travelled> {
  const problems: Part[] = [];
  const thrown: Part[] = [];
  const commandLines: Record<string, Capture> = {};
  const redis = connectRedis(world.redis.url, 'worker', { onError: () => {} });
  try {
    const doomed = await world.serve('worker');
    const held = journeys.held();
    const ids = await putInByTheLibrary(world, held, canaries);
    await until('the requests to be held', () => [...world.gateways.values()].every((gateway) => gateway.held > 0));
    await doomed.end('SIGKILL');

    const service = await world.serve('intake,console,worker');
    await world.callbacksTo(service.intakeUrl);
    const watching = watchUntilItCrashes(world, canaries);
    commandLines.watch = watching.capture;
    const first = journeys.first();
    const [firstIds] = await Promise.all([
      putIn(world, service, first, canaries),
      sendBadRequests(world, service, canaries, problems),
      misuseTheLibrary(world, canaries, thrown),
      misconfigure(world, canaries, thrown),
      putStrangersJobs(world, canaries),
      reportUnreadably(world, service, canaries),
    ]);
    const records = await outcomesOf([...ids, ...firstIds], redis);
    const [second, last] = [journeys.second(first), journeys.last()];
    for (const later of [second, last]) {
      records.push(...(await outcomesOf(await putIn(world, service, later, canaries), redis)));
    }
    await until('the callbacks to be read', async () => (await callbacksWaiting(world)) === 0);
    await Promise.all([consumeResults(world), useTheCommand(world, records, canaries, commandLines)]);
    await watching.crash();
    await loseRedis(world, service, canaries, problems, thrown);

    const arrived = new Set([...world.gateways.values()].flatMap((gateway) => [...gateway.arrived]));
    const missed = [...held, ...first, ...second, ...last].filter(({ code }) => code !== null && !arrived.has(code));
    return {
      services: { service, 'the killed worker': doomed },
      records,
      missed: missed.map(({ name }) => name),
      problems,
      thrown,
      outboxRows: await sealForOutbox(world, held),
      commandLines,
    };
  } finally {
    redis.disconnect();
  }
}

/** Through the intake, a few at a time, in turn as either client; gives the ids in no certain order. */
async function putIn(world: World, service: Serving, all: readonly Journey[], canaries: Canaries): Promise<string[]> {
  const ids: string[] = [];
  const left = all.map((journey, index) => ({ journey, client: world.clients[index % 2] as Client })).reverse();
  const sendOn = async (): Promise<void> => {
    for (let next = left.pop(); next !== undefined; next = left.pop()) {
      const { journey, client } = next;
      const request = {
        method: 'POST',
        headers: {
          authorization: `Bearer ${client.apiKey}`,
          'content-type': 'application/json',
          'idempotency-key': canaries.token('customer data', 'an idempotency key'),
        },
        body: JSON.stringify({ ...journey.body, ...expiry(journey) }),
      };
      // A busy machine may be told that Redis is away; then the same key is sent again, as the documents say.
      await until(`${journey.name} to be accepted`, async () => {
        const answer = await fetch(`${service.intakeUrl}/v1/verifications`, request);
        const text = await answer.text();
        if (answer.status === 503 || answer.status === 409) return text; // repeated, it gives the one answer
        if (answer.status !== 202) throw new Error(`${journey.name}: ${answer.status} ${text}`);
        return ids.push((JSON.parse(text) as { id: string }).id) > 0;
      });
    }
  };
  await Promise.all(Array.from({ length: 8 }, sendOn));
  return ids;
}

async function putInByTheLibrary(world: World, all: readonly Journey[], canaries: Canaries): Promise<string[]> {
  await using producer = createProducer(producerOptions(world, { partitions: allPartitions(world) }));
  const enqueued = all.map(({ body }) =>
    producer.enqueue(body, { idempotencyKey: canaries.token('customer data', 'an idempotency key of the library') }),
  );
  return (await Promise.all(enqueued)).map(({ id }) => id);
}

async function sealForOutbox(world: World, all: readonly Journey[]): Promise<Part[]> {
  const sealer = createOutboxSealer(producerOptions(world, { partitions: allPartitions(world) }));
  const rows = all.map(async ({ name, body }, index) => {
    const row = await sealer.sealForOutbox(body, { idempotencyKey: `row-${index}`, payment: 'payment' });
    return { where: name, bytes: Buffer.from(JSON.stringify(row)) };
  });
  return await Promise.all(rows);
}

function allPartitions(world: World): ProducerOptions['partitions'] {
  return Object.fromEntries([...world.gateways.keys()].map((name) => [name, {}]));
}

async function sendBadRequests(world: World, service: Serving, canaries: Canaries, problems: Part[]): Promise<void> {
  for (const { path, init, name } of badRequests(canaries, world.clients[1].apiKey)) {
    const answer = await answerOf(`${service.intakeUrl}${path}`, init);
    if (answer.status < 400) throw new Error(`${name} was answered with ${answer.status}`);
    problems.push(answer);
  }
}

/** Until each is settled or waits for proof. */
async function outcomesOf(ids: readonly string[], redis: RedisConnection): Promise<VerificationRecord[]> {
  const pending = new Set(ids);
  const records: VerificationRecord[] = [];
  await until('every verification to have an outcome', async () => {
    const open: string[] = [];
    for (const record of await Promise.all([...pending].map((id) => readVerification(redis, id)))) {
      if (record?.state === 'settled' || record?.state === 'awaiting') {
        records.push(record);
        pending.delete(record.id);
      } else open.push(`${record?.id} is ${record?.state}, ${JSON.stringify(record?.history)}`);
    }
    return open.length === 0 || open.join('\n');
  });
  return records;
}

/** `otp watch`, made to throw an error that carries more than it says, as those of clients and parsers do. */
function watchUntilItCrashes(world: World, canaries: Canaries): { capture: Capture; crash: () => Promise<void> } {
  const file = join(world.folder, 'crash.mjs');
  const [own, cause] = [canaries.code('a member of an error'), canaries.code('a member of a cause')];
  const error = `Object.assign(new Error('made to crash', { cause: { otp: '${cause}' } }), { otp: '${own}' })`;
  writeFileSync(file, `process.on('SIGUSR2', () => { throw ${error}; });`);
  const { child, capture } = world.otp(['watch'], { environment: { NODE_OPTIONS: `--import ${file}` } });
  const crash = async (): Promise<void> => {
    await until('otp watch', () => capture.text('stderr').includes('watching'));
    child.kill('SIGUSR2');
    await once(child, 'close');
  };
  return { capture, crash };
}

function expiry({ expiresInMs }: Journey): { expiresAt?: string } {
  return expiresInMs === undefined ? {} : { expiresAt: new Date(Date.now() + expiresInMs).toISOString() };
}

/** `is` may also give what is still missing, in words. */
async function until(what: string, is: () => boolean | string | Promise<boolean | string>): Promise<void> {
  const giveUpAt = Date.now() + PATIENCE_MS;
  for (let found = await is(); found !== true; found = await is()) {
    if (Date.now() > giveUpAt) throw new Error(`waited ${PATIENCE_MS} ms in vain for ${what}: ${found}`);
    await delay(50);
  }
}

/** Jobs of callbacks that nobody has looked at. */
async function callbacksWaiting(world: World): Promise<number> {
  const connection = { url: world.redis.url };
  let waiting = 0;
  for (const provider of world.gateways.keys()) {
    const { callbackQueue, prefix } = partitionKeys(provider);
    const queue = new Queue(callbackQueue, { connection, prefix });
    waiting += await queue.getJobCountByTypes('waiting', 'active');
    await queue.close();
  }
  return waiting;
}

/** Whatever it throws is kept, with all its causes; that it throws is what was wanted. */
async function failing(where: string, thrown: Part[], work: () => unknown): Promise<void> {
  try {
    await work();
  } catch (error) {
    thrown.push(...wordsOf(error, where));
    return;
  }
  throw new Error(`${where}: it should have been refused`);
}

function producerOptions(world: World, more: Partial<ProducerOptions> = {}): ProducerOptions {
  const [{ id, apiKey }] = world.clients;
  return {
    client: { id, apiKey },
    redis: world.redis.url,
    sealingKeys: world.sealingKeys,
    partitions: { cepta: {}, 'lipa-later': {} },
    timeLimitMs: 10_000, // the machine may be busy
    ...more,
  };
}

async function misuseTheLibrary(world: World, canaries: Canaries, thrown: Part[]): Promise<void> {
  const secret = (name: string): string => canaries.token('credential', `library: ${name}`, 40);
  const code = (name: string): string => canaries.code(`library: ${name}`);
  const { port } = new URL(world.redis.url);
  const bad: Record<string, unknown>[] = [
    { client: { id: '', apiKey: secret('a client without an id') } },
    { client: { id: 'shop', apiKey: [secret('an API key in a list')] } },
    { client: secret('in place of the client') },
    { partitions: { [secret('a partition')]: {} } },
    { partitions: { cepta: { adapter: secret('an adapter') } } },
    { partitions: { cepta: { [secret('an option')]: secret('its value') } } },
    { sealingKeys: secret('a path') },
    { sealingKeys: { keys: [{ kty: 'OKP', crv: secret('a curve'), x: 'x', d: secret('a private key'), kid: 'k' }] } },
    { sealingKeys: { keys: [secret('a key')] } },
    { redis: `redis://:${secret('a port that is none')}@127.0.0.1:port` },
    { redis: `redis//:${secret('a URL that is none')}@127.0.0.1` },
    { redis: { sentinels: [secret('a sentinel')], name: 'otp' } },
  ];
  for (const [index, options] of bad.entries()) {
    await failing(`createProducer, ${index}`, thrown, async () => {
      await using producer = createProducer(
        producerOptions(world, { timeLimitMs: 500, ...(options as Partial<ProducerOptions>) }),
      );
      await producer.enqueue({ provider: 'cepta' }, { idempotencyKey: 'k' });
    });
  }

  await using producer = createProducer(producerOptions(world));
  const good = { provider: 'cepta', otp: code('good'), params: { transactionRef: 'library', paymentId: 'P', md: 'm' } };
  await producer.enqueue(good, { idempotencyKey: 'library' });
  const unreadable = {
    toJSON: () => {
      throw new Error(`cannot say ${code('toJSON')}`);
    },
  };
  const bodies: [unknown, string][] = [
    [{ ...good, otp: `${code('too long')}${code('too long')}` }, 'k'],
    [{ ...good, otp: 12n, [code('an unknown field')]: 1 }, 'k'],
    [unreadable, 'k'],
    [code('no object'), 'k'],
    [{ ...good, params: { [code('a param')]: canaries.phone('library: a param') } }, 'k'],
    [good, `${canaries.phone('library: a key')} with spaces`],
    [{ ...good, otp: code('another body') }, 'library'],
  ];
  for (const [index, [body, idempotencyKey]] of bodies.entries()) {
    await failing(`enqueue, ${index}`, thrown, () => producer.enqueue(body, { idempotencyKey }));
  }

  const sealer = createOutboxSealer(producerOptions(world));
  for (const [index, [body, idempotencyKey]] of bodies.slice(0, -1).entries()) {
    await failing(`sealForOutbox, ${index}`, thrown, () =>
      sealer.sealForOutbox(body, { idempotencyKey, payment: 'p' }),
    );
  }

  await using locked = createProducer(
    producerOptions(world, {
      redis: `redis://:${secret('a wrong password')}@127.0.0.1:${port}`,
      onError: (error) => thrown.push(...wordsOf(error, 'onError of a producer with a wrong password')),
    }),
  );
  await failing('enqueue with a wrong password', thrown, () =>
    locked.enqueue({ ...good, otp: code('never') }, { idempotencyKey: canaries.phone('library: never') }),
  );
  let refused = false;
  const consumer = createResultsConsumer({
    redis: `redis://:${secret('a wrong password of a consumer')}@127.0.0.1:${port}`,
    handler: async () => {},
    onError: (error) => {
      refused = true;
      thrown.push(...wordsOf(error, 'onError of a consumer with a wrong password'));
    },
  });
  await until('the consumer to be refused', () => refused);
  await consumer.close(true);
  await failing('createResultsConsumer with half a key', thrown, () =>
    createResultsConsumer({
      redis: world.redis.url,
      handler: async () => {},
      openDetailsWith: { kty: 'OKP', d: secret('half a key') },
    }),
  );
}

async function misconfigure(world: World, canaries: Canaries, thrown: Part[]): Promise<void> {
  const file = join(world.folder, 'bad.yaml');
  for (const { name, text } of badConfigurations(canaries)) {
    writeFileSync(file, text);
    await failing(`the configuration, ${name}`, thrown, () => loadConfig({ file }));
  }
}

/** Whoever reaches Redis can write into a queue; what is in such a job is nobody's business either. */
async function putStrangersJobs(world: World, canaries: Canaries): Promise<void> {
  const mark = (name: string): string => canaries.token("stranger's job", name);
  const { queue, inquiryQueue, callbackQueue, prefix } = partitionKeys('cepta');
  for (const name of [queue, inquiryQueue, callbackQueue]) {
    const into = new Queue(name, { connection: { url: world.redis.url }, prefix });
    await into.add(mark('name'), { v: 1, id: mark('id'), [mark('field')]: mark('value') }, { jobId: mark('job id') });
    await into.add('verify', mark('text'), { jobId: mark('job id'), delay: 3_600_000 });
    await into.close();
  }
}

/** Callbacks whose proof is right and whose body nobody can read. */
async function reportUnreadably(world: World, service: Serving, canaries: Canaries): Promise<void> {
  const secret = (provider: SandboxProvider, name: string): string => world.providers[provider].credentials[name] ?? '';
  const proofs: [path: string, headers: Record<string, string>][] = [
    ['hello-clever', { authorization: secret('hello-clever', 'callbackSecret') }],
    ['ayoconnect', { authorization: `Bearer ${secret('ayoconnect', 'callbackToken')}` }],
    [`beqelal/${secret('beqelal', 'callbackSecret')}`, {}],
  ];
  for (const [path, headers] of proofs) {
    for (const body of [
      canaries.text('customer data', 'an unreadable callback'),
      `{"otp":"${canaries.code('an unreadable callback')}`,
      JSON.stringify({
        uuid: [canaries.phone('a callback')],
        reference: { id: canaries.code('a callback') },
        status: {},
      }),
    ]) {
      const { status } = await answerOf(`${service.intakeUrl}/v1/callbacks/${path}`, { method: 'POST', headers, body });
      if (status !== 200) throw new Error(`an authentic callback was answered with ${status}`);
    }
  }
}

/** A handler that quotes all it was given in the error that it fails with. */
async function consumeResults(world: World): Promise<void> {
  const [{ resultsQueue, resultsKey }] = world.clients;
  let failed = 0;
  await using _consumer = createResultsConsumer({
    redis: world.redis.url,
    queue: resultsQueue,
    openDetailsWith: resultsKey,
    handler: async ({ data }) => {
      if (data.details === undefined || failed >= 5) return;
      failed += 1;
      throw new Error(`cannot take ${JSON.stringify(data.details)}`, { cause: data.details });
    },
  });
  await until('results to be handled', () => failed >= 5);
}

async function useTheCommand(
  world: World,
  records: readonly VerificationRecord[],
  canaries: Canaries,
  commandLines: Record<string, Capture>,
): Promise<void> {
  const otp = async (name: string, args: string[], options?: CommandOptions): Promise<void> => {
    const { child, capture } = world.otp(args, options);
    commandLines[name] = capture;
    await once(child, 'close');
  };
  const code = (name: string): string => canaries.code(`otp: ${name}`);
  const cepta = [
    '--provider',
    'cepta',
    '--param',
    'transactionRef=COMMAND',
    'paymentId=P',
    `md=${canaries.text('md', 'otp')}`,
  ];
  const awaiting = records.find(({ state, partition }) => state === 'awaiting' && partition === 'beqelal');
  const id = awaiting?.id ?? '';
  const locked = join(world.folder, 'locked.yaml');
  const { port } = new URL(world.redis.url);
  writeFileSync(
    locked,
    `redis: { url: "redis://:${canaries.token('credential', 'otp: a wrong password', 40)}@127.0.0.1:${port}" }
sealing: { keyFile: keys.json, detailsKeyFile: details.json }
providers: { cepta: { baseUrl: "https://cepta.example", credentials: { secretKey: ${canaries.token('credential', 'otp: a key')} } } }
`,
  );
  // Each takes a second of a processor, so few of them do much.
  const lines: (() => Promise<void>)[] = [
    () =>
      otp('enqueue', ['enqueue', ...cepta, '--otp', '-', '--wait', '10', '--json'], {
        input: `${code('standard input')}\n`,
      }),
    () => otp('enqueue, no name', ['enqueue', ...cepta, '--otp', code('no name'), '--param', canaries.phone('otp')]),
    () => otp('enqueue, misspelt', ['enqueue', ...cepta, `--opt=${code('misspelt')}`]),
    () => otp('enqueue, a wait that is a code', ['enqueue', ...cepta, '--wait', code('wait')]),
    () => otp('show', ['show', id]),
    () =>
      otp('resolve', ['resolve', id, '--as', 'failed', '--evidence', 'statement of the bank', '--by', 'ada', '--json']),
    () => otp('serve, a wrong password', ['serve', '--roles', 'worker'], { file: locked }),
  ];
  const take = async (): Promise<void> => {
    for (let next = lines.shift(); next !== undefined; next = lines.shift()) await next();
  };
  await Promise.all([take(), take()]);
}

/** Redis dies; who sends now, and who was at work, must not tell what they hold while they complain. */
async function loseRedis(
  world: World,
  service: Serving,
  canaries: Canaries,
  problems: Part[],
  thrown: Part[],
): Promise<void> {
  const [{ apiKey }] = world.clients;
  const body = (name: string) => ({
    provider: 'cepta',
    otp: canaries.code(`without Redis: ${name}`),
    params: { transactionRef: name, paymentId: 'P', md: canaries.text('md', 'without Redis') },
  });
  await using producer = createProducer(
    producerOptions(world, {
      onError: (error) => thrown.push(...wordsOf(error, 'onError of a producer without Redis')),
    }),
  );
  await producer.enqueue(body('BEFORE'), { idempotencyKey: 'before' });
  await world.redis.kill();
  const headers = {
    authorization: `Bearer ${apiKey}`,
    'content-type': 'application/json',
    'idempotency-key': 'without',
  };
  const sent = { method: 'POST', headers, body: JSON.stringify(body('INTAKE')) };
  const asked = { '/v1/verifications': sent, [`/v1/verifications/cepta_${'0'.repeat(32)}`]: { headers } };
  await Promise.all([
    failing('enqueue without Redis', thrown, () => producer.enqueue(body('LIBRARY'), { idempotencyKey: 'without' })),
    ...Object.entries(asked).map(async ([path, init]) => {
      const answer = await answerOf(`${service.intakeUrl}${path}`, init);
      if (answer.status !== 503) throw new Error(`without Redis ${path} was answered with ${answer.status}`);
      problems.push(answer);
    }),
  ]);
  await world.redis.start();
  await makeReadable(world.redis.url);
  await world.commands.listen(world.redis.url);
  await until(
    'the service to be ready again',
    async () => (await fetch(`${service.consoleUrl}/readyz`)).status === 200,
  );
}
