import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inspect, promisify } from 'node:util';
import { decodeProtectedHeader } from 'jose';
import { describe, expect, it } from 'vitest';
import * as library from '../../src/index.ts';
import {
  AcceptanceUnknownError,
  AcceptInProgressError,
  createProducer,
  IdempotencyMismatchError,
  InvalidRequestError,
  type ProducerOptions,
} from '../../src/index.ts';
import { claimKey, partitionKeys } from '../../src/producers/job.ts';
import { readVerification } from '../../src/producers/reading.ts';
import { Opener, openCode, publicKeySet } from '../../src/producers/sealing.ts';
import { BEST_OF_THREE } from '../support/timing.ts';
import { CANARY, eventually, SHOP, startWorld, type World } from './world.ts';

const CLIENT = { id: SHOP.id, apiKey: SHOP.apiKey.reveal() };
const PARTITIONS = { cepta: {}, kenya: { adapter: 'lipa-later', otpLifetimeMs: 60_000 } };

function request(more: Record<string, unknown> = {}): Record<string, unknown> {
  return { provider: 'cepta', otp: CANARY, params: { transactionRef: 'TX-1', paymentId: 'P-1', md: 'm' }, ...more };
}

function optionsFor(world: World, more: Partial<ProducerOptions> = {}): ProducerOptions {
  return { client: CLIENT, redis: world.server.url, sealingKeys: world.keySet, partitions: PARTITIONS, ...more };
}

describe('createProducer', () => {
  it('enqueues, gives the first answer again, and reads', async () => {
    await using world = await startWorld();
    await using producer = createProducer(optionsFor(world));
    const first = await producer.enqueue(request(), { idempotencyKey: 'k-1' });
    expect(first).toEqual({ id: expect.stringMatching(/^cepta_/), repeated: false });
    expect(await producer.enqueue(request(), { idempotencyKey: 'k-1' })).toEqual({ id: first.id, repeated: true });
    expect(await world.jobs('cepta')).toBe(1);
    expect(await producer.read(first.id)).toMatchObject({
      id: first.id,
      provider: 'cepta',
      state: 'queued',
      sequence: 0,
    });
  });

  it('takes `undefined` and dates for what JSON makes of them, so one body is one request whichever way it comes', async () => {
    await using world = await startWorld();
    await using producer = createProducer(optionsFor(world));
    const at = new Date(Date.now() + 60_000);
    const { id } = await producer.enqueue(request({ expiresAt: at, amount: undefined }), { idempotencyKey: 'k-1' });
    const again = await producer.enqueue(request({ expiresAt: at.toISOString() }), { idempotencyKey: 'k-1' });
    expect(again).toEqual({ id, repeated: true });
  });

  it('shows nobody another client’s verification', async () => {
    await using world = await startWorld();
    await using producer = createProducer(optionsFor(world));
    await using other = createProducer(optionsFor(world, { client: { id: 'kiosk', apiKey: 'another-key' } }));
    const { id } = await producer.enqueue(request(), { idempotencyKey: 'k-1' });
    expect(await other.read(id)).toBeNull();
    expect(await producer.read('cepta_00000000000000000000000000000000')).toBeNull();
    expect(await producer.read('nonsense')).toBeNull();
  });

  it('says in its own words what is wrong, and never a code', async () => {
    await using world = await startWorld();
    await using producer = createProducer(optionsFor(world));
    const refusals = {
      'another body': [IdempotencyMismatchError, request({ otp: '999999' }), 'k-1'],
      'a bad field': [InvalidRequestError, request({ otp: `${CANARY}!` }), 'k-2'],
      'a bad key': [InvalidRequestError, request(), 'k 3'],
      'a body that is no JSON': [InvalidRequestError, { self: 1n, otp: CANARY }, 'k-4'],
      nothing: [InvalidRequestError, undefined, 'k-5'],
    } as const;
    await producer.enqueue(request(), { idempotencyKey: 'k-1' });
    for (const [what, [kind, body, idempotencyKey]] of Object.entries(refusals)) {
      const error = await producer.enqueue(body, { idempotencyKey }).catch((thrown: unknown) => thrown);
      expect(error, what).toBeInstanceOf(kind);
      expect((error as Error).name).toBe(kind.name);
      expect(inspect(error, { depth: 9 })).not.toContain(CANARY);
    }
    await world.redis.hset(claimKey(CLIENT.id, 'k-1'), 'at', Date.now());
    await expect(producer.enqueue(request(), { idempotencyKey: 'k-1' })).rejects.toBeInstanceOf(AcceptInProgressError);
  });

  it('cannot open what it has sealed, and keeps no private key', async () => {
    await using world = await startWorld();
    const keyFile = join(world.server.dataDir, 'keys.json');
    await writeFile(keyFile, JSON.stringify(world.keySet));
    await using producer = createProducer(optionsFor(world, { sealingKeys: keyFile }));
    const { id } = await producer.enqueue(request(), { idempotencyKey: 'k-1' });

    const record = await world.redis.hgetall(partitionKeys('cepta').record(id));
    expect(JSON.stringify(record)).not.toContain(CANARY);
    const sealed = (await readVerification(world.redis, id))?.sealedCode ?? '';
    await expect(Opener.create(publicKeySet(world.keySet))).rejects.toThrow('opens nothing');
    const workers = await Opener.create(world.keySet);
    expect(await openCode(workers, sealed, id, 'cepta')).toMatchObject({ otp: CANARY, params: { md: 'm' } });
    // Another verification's code is refused even by those who can open it.
    await expect(openCode(workers, sealed, `${id}x`, 'cepta')).rejects.toThrow('another verification');
    expect(inspect(producer, { depth: 9, showHidden: true })).not.toContain(world.keySet.keys[0]?.d);
  });

  it.each([
    ['a new ephemeral key for each code', {}, 2],
    [
      'one ephemeral key for many codes, where that is asked for',
      { reuseEphemeralKey: { forMs: 60_000, messages: 9 } },
      1,
    ],
  ])('takes %s', async (_what, more, keys) => {
    await using world = await startWorld();
    await using producer = createProducer(optionsFor(world, more));
    const ephemeral = new Set<string>();
    for (const idempotencyKey of ['k-1', 'k-2']) {
      const { id } = await producer.enqueue(request(), { idempotencyKey });
      const sealed = (await readVerification(world.redis, id))?.sealedCode ?? '';
      ephemeral.add(JSON.stringify(decodeProtectedHeader(sealed).epk));
    }
    expect(ephemeral.size).toBe(keys);
    const beyond = { reuseEphemeralKey: { forMs: 3_600_001, messages: 1 } };
    expect(() => createProducer(optionsFor(world, beyond))).toThrow('reuseEphemeralKey.forMs');
  });

  it('asks LipaLater for a code without one, and keeps the customer’s numbers as a keyed hash', async () => {
    await using world = await startWorld();
    await using producer = createProducer(optionsFor(world));
    const params = { id_number: '12345678', phone_number: '+254712345678' };
    const send = { provider: 'kenya', operation: 'send', params };
    const { id } = await producer.enqueue(send, { idempotencyKey: 'k-1' });
    const record = await producer.read(id);
    expect(record).toMatchObject({ operation: 'send', provider: 'kenya' });
    expect(Date.parse(record?.expiresAt ?? '') - Date.parse(record?.createdAt ?? '')).toBe(60_000);
    expect(JSON.stringify(await world.redis.hgetall(partitionKeys('kenya').record(id)))).not.toMatch(
      /12345678|712345678/,
    );
    const withCode = producer.enqueue({ ...send, otp: CANARY }, { idempotencyKey: 'k-2' });
    await expect(withCode).rejects.toMatchObject({ faults: [{ field: 'otp' }] });
  });

  it(
    'fails within a second while Redis is away, says that the key may be repeated, and is well again with it',
    BEST_OF_THREE,
    async () => {
      await using world = await startWorld({ redisOptions: { appendonly: true, appendfsync: 'always' } });
      await world.server.stop();
      // From its very first word to Redis: there has never been one.
      await using producer = createProducer(optionsFor(world));
      for (const key of ['k-1', 'k-2']) {
        const began = performance.now();
        const error: unknown = await producer
          .enqueue(request(), { idempotencyKey: key })
          .catch((thrown: unknown) => thrown);
        expect(performance.now() - began).toBeLessThan(1_100);
        expect(error).toBeInstanceOf(AcceptanceUnknownError);
        expect((error as Error).message).toContain('same idempotencyKey is safe');
        expect(inspect(error, { depth: 9 })).not.toContain(CANARY);
      }
      await world.server.start();
      let id = '';
      await eventually(async () => {
        id = await producer.enqueue(request(), { idempotencyKey: 'k-1' }).then(
          (enqueued) => enqueued.id,
          () => '',
        );
        return id !== '';
      });
      expect(await producer.enqueue(request(), { idempotencyKey: 'k-1' })).toEqual({ id, repeated: true });

      await world.server.kill();
      const began = performance.now();
      await expect(producer.enqueue(request(), { idempotencyKey: 'k-3' })).rejects.toBeInstanceOf(
        AcceptanceUnknownError,
      );
      expect(performance.now() - began).toBeLessThan(1_100);
      await expect(producer.read(id)).rejects.toThrow();
      await producer.close();
      expect(performance.now() - began).toBeLessThan(3_000);
    },
  );

  it('fails within a second of a Redis that hangs', BEST_OF_THREE, async () => {
    await using world = await startWorld();
    const producer = createProducer(optionsFor(world));
    await producer.enqueue(request(), { idempotencyKey: 'k-1' });
    world.server.freeze();
    const began = performance.now();
    await expect(producer.enqueue(request(), { idempotencyKey: 'k-2' })).rejects.toBeInstanceOf(AcceptanceUnknownError);
    expect(performance.now() - began).toBeLessThan(1_500);
    await producer.close();
    world.server.thaw();
  });

  it.each([
    ['client', { client: { id: 'shop', apiKey: '' } }, 'client.apiKey'],
    ['partitions', { partitions: { Cepta: {} } }, 'partitions.Cepta'],
    ['an adapter', { partitions: { nigeria: { adapter: 'constructor' } } }, 'partitions.nigeria.adapter'],
    ['a key set', { sealingKeys: { keys: [] } }, 'sealingKeys'],
    ['a key file', { sealingKeys: '/nowhere/keys.json' }, 'ENOENT'],
  ])('refuses a faulty option at once, before there is a connection: %s', (_what, more, named) => {
    const options = { client: CLIENT, redis: 'redis://127.0.0.1:1', sealingKeys: { keys: [] }, partitions: PARTITIONS };
    const given = { ...options, ...more } as unknown as ProducerOptions;
    expect(() => createProducer(given)).toThrow(named);
  });
});

describe('the package', () => {
  it('has three functions, and the errors that they throw', () => {
    expect(Object.keys(library).sort()).toEqual([
      'AcceptInProgressError',
      'AcceptanceUnknownError',
      'IdempotencyMismatchError',
      'InvalidRequestError',
      'createOutboxSealer',
      'createProducer',
      'createResultsConsumer',
    ]);
  });

  it('opens nothing when it is imported, and brings no web framework along', async () => {
    const root = fileURLToPath(new URL('../../', import.meta.url));
    const program = `
      import { createRequire } from 'node:module';
      await import('./src/index.ts');
      const files = Object.keys(createRequire(import.meta.url).cache);
      const loaded = ['bullmq', 'express'].filter((name) => files.some((file) => file.includes('/node_modules/' + name + '/')));
      const open = process.getActiveResourcesInfo().filter((kind) => /TCP|Timeout/.test(kind));
      console.log(JSON.stringify({ loaded, open }));`;
    const args = ['--import', 'tsx', '--input-type=module', '--eval', program];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root, timeout: 15_000 });
    expect(JSON.parse(stdout)).toEqual({ loaded: ['bullmq'], open: [] }); // and it ended by itself
    expect(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).exports['.'].default).toBe('./dist/index.js');
  });
});
