import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { createOutboxSealer, type OutboxRow } from '../../src/index.ts';
import { type RelayOptions, relayOutbox } from '../../src/outbox/relay.ts';
import { OUTBOX_TABLE } from '../../src/outbox/table.ts';
import { accept } from '../../src/producers/accept.ts';
import { claimKey, partitionKeys } from '../../src/producers/job.ts';
import { Opener, openCode, publicKeySet } from '../../src/producers/sealing.ts';
import { connectRedis } from '../../src/redis/connections.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { bodyFor, CLIENT, type Pipeline, startPipeline } from '../support/pipeline.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { type CliRun, install, otp, runCli } from '../support/service.ts';
import { startTestPostgres, type TestPostgres } from './postgres.ts';

const SHOP = fileURLToPath(new URL('../../examples/checkout/shop.mjs', import.meta.url));
const SCHEMA = readFileSync(new URL('../../examples/checkout/schema.sql', import.meta.url), 'utf8');
const UNTIL = { timeout: 30_000, interval: 10 };
const CODE = '918273';

const postgres: TestPostgres | null = await startTestPostgres().catch((error: unknown) => {
  if (process.env.CI) throw error;
  console.warn(`\n*** THE TESTS OF THE OUTBOX ARE SKIPPED: ${error instanceof Error ? error.message : error} ***\n`);
  return null;
});

interface World {
  readonly server: TestRedis;
  readonly sandbox: Sandbox;
  readonly pipeline: Pipeline;
  seal(body: unknown, payment?: string, idempotencyKey?: string): Promise<OutboxRow>;
}
let world: World;

describe.skipIf(postgres === null)('a payment and its verification', { timeout: 120_000 }, () => {
  const { client: sql, url } = postgres ?? ({} as TestPostgres);

  beforeAll(async () => {
    await sql.query(OUTBOX_TABLE + OUTBOX_TABLE + SCHEMA); // twice: it may be run again
  });
  beforeEach(async () => {
    await sql.query('TRUNCATE payments, otp_outbox');
    const server = await startTestRedis({ appendonly: true });
    const sandbox = await startSandbox({ settleAfterMs: 0 });
    const pipeline = await startPipeline({ cepta: sandbox.providers.cepta as never }, { server });
    const sealer = createOutboxSealer({
      client: { id: CLIENT.id, apiKey: CLIENT.apiKey.reveal() },
      sealingKeys: publicKeySet(pipeline.keySet),
      partitions: { cepta: {}, beqelal: {} },
    });
    world = {
      ...{ server, sandbox, pipeline },
      seal: async (body, payment = randomUUID(), idempotencyKey = randomUUID()) =>
        await sealer.sealForOutbox(body, { idempotencyKey, payment }),
    };
  });
  afterEach(async () => {
    await world.pipeline[Symbol.asyncDispose]();
    await world.sandbox[Symbol.asyncDispose]();
    await world.server[Symbol.asyncDispose]();
  });
  afterAll(async () => await postgres?.[Symbol.asyncDispose]());

  async function insert(row: OutboxRow): Promise<string> {
    const { rows } = await sql.query(
      'INSERT INTO otp_outbox (client, idempotency_key, payment, request, sealed) VALUES ($1, $2, $3, $4, $5) RETURNING id',
      [row.client, row.idempotencyKey, row.payment, row.request, row.sealed],
    );
    return rows[0].id;
  }

  async function stored(id: string) {
    return (await sql.query('SELECT *, otp_outbox::text AS whole FROM otp_outbox WHERE id = $1', [id])).rows[0];
  }

  async function undone(): Promise<number> {
    const { rows } = await sql.query('SELECT FROM otp_outbox WHERE done_at IS NULL AND problem IS NULL');
    return rows.length;
  }

  async function records(): Promise<string[]> {
    const prefix = partitionKeys('cepta').record('');
    return (await world.pipeline.redis.keys(`${prefix}*`)).map((key) => key.slice(prefix.length));
  }

  /** A relay in this process. */
  function relay(given: Partial<RelayOptions> = {}): AsyncDisposable {
    const redis = connectRedis(world.server.url, 'producer', { onError: () => {} });
    const { partitions } = world.pipeline.accepting;
    const stop = new AbortController();
    const relaying = relayOutbox(
      {
        ...{ databaseUrl: url, redis, pollMs: 20, batchSize: 10, clients: new Map([[CLIENT.id, undefined]]) },
        ...{ waitReplicas: 0, waitMs: 200 },
        partitions: new Map([...partitions].map(([name, { definition }]) => [name, definition])),
        ...given,
      },
      stop.signal,
    );
    relaying.catch(() => {});
    return {
      [Symbol.asyncDispose]: async () => {
        stop.abort();
        await relaying;
        redis.disconnect();
      },
    };
  }

  async function startShop(): Promise<{ child: ChildProcess; address: string }> {
    const keyFile = join(world.server.dataDir, 'public-keys.json');
    writeFileSync(keyFile, JSON.stringify(publicKeySet(world.pipeline.keySet)));
    const child = spawn(process.execPath, [SHOP], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: {
        ...{ PATH: process.env.PATH, DATABASE_URL: url, SHOP_API_KEY: CLIENT.apiKey.reveal() },
        ...{ OTP_PUBLIC_KEYS: keyFile, OTP_REDIS_URL: world.server.url },
      },
    });
    const [address] = await once(createInterface({ input: child.stdout }), 'line');
    return { child, address };
  }

  const order = (name: string) => ({
    ...{ order: name, submission: '1', amount: '100.00', currency: 'NGN', otp: CODE },
    params: bodyFor('cepta', CODE).params,
  });
  const post = async (address: string, body: unknown): Promise<Response> =>
    await fetch(`${address}/checkout`, { method: 'POST', body: JSON.stringify(body) });

  test('a shop that dies between its two statements leaves neither, and one that lives leaves both, paid', async () => {
    await using _ = relay();
    const [dying, shop] = await Promise.all([startShop(), startShop()]);
    // Its second statement waits for this lock, so it dies with the payment written and the outbox not.
    await sql.query('BEGIN; LOCK TABLE otp_outbox IN SHARE MODE');
    const cut = post(dying.address, order('A-17')).catch((error: Error) => error.name);
    await vi.waitUntil(async () => {
      const { rows } = await sql.query(
        `SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND query LIKE 'INSERT INTO otp_outbox%'`,
      );
      return rows.length === 1;
    }, UNTIL);
    dying.child.kill('SIGKILL');
    expect(await cut).toBe('TypeError');
    await sql.query('COMMIT');

    try {
      expect(await fetch(`${shop.address}/payments/A-17`)).toMatchObject({ status: 404 });
      expect((await sql.query('SELECT FROM otp_outbox')).rowCount).toBe(0);
      const answers = await Promise.all([post(shop.address, order('A-18')), post(shop.address, order('A-18'))]);
      expect(answers.map(({ status }) => status)).toEqual([202, 202]);

      await vi.waitUntil(async () => {
        const payment = await fetch(`${shop.address}/payments/A-18`);
        return ((await payment.json()) as { state: string }).state === 'paid';
      }, UNTIL);
      const { rows } = await sql.query(
        'SELECT payments.verification_id, otp_outbox.verification_id AS relayed FROM payments JOIN otp_outbox ON payment = order_id',
      );
      expect(rows).toEqual([{ verification_id: rows[0].relayed, relayed: rows[0].relayed }]);
      expect(await records()).toEqual([rows[0].relayed]);
    } finally {
      shop.child.kill('SIGKILL');
    }
  });

  test('the table holds no readable code, and its seal opens for the private key alone', async () => {
    const body = { ...bodyFor('cepta', CODE), metadata: { order: 'A-17' } };
    const row = await world.seal(body);
    const whole: string = (await stored(await insert(row))).whole;
    expect(whole).toContain('A-17');
    for (const form of [CODE, Buffer.from(CODE).toString('base64').slice(0, 7), Buffer.from(CODE).toString('hex')]) {
      expect(whole).not.toContain(form);
    }
    const { id } = row.request;
    const opened = await openCode(await Opener.create(world.pipeline.keySet), row.sealed, id, 'cepta');
    expect(opened).toMatchObject({ id, otp: CODE });
    await expect(Opener.create(publicKeySet(world.pipeline.keySet))).rejects.toThrow('no private key');
  });

  test('relays killed at any time lose no row, double none, and keep the order of each payment', async () => {
    for (const worker of world.pipeline.workers.values()) await worker.close(); // what is queued stays to be looked at
    await using installation = await install({
      redis: { url: world.server.url },
      clients: [{ id: CLIENT.id, apiKey: CLIENT.apiKey.reveal() }],
      providers: { cepta: world.sandbox.providers.cepta },
    });
    rmSync(join(installation.folder, 'keys.json')); // a relay needs none, so it can open nothing
    // Every commit is preceded by this lock; as long as the test has it, rows are admitted and not marked.
    await sql.query(`CREATE OR REPLACE FUNCTION before_marking() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN PERFORM pg_advisory_xact_lock_shared(17); PERFORM pg_sleep(0.03); RETURN NULL; END $$;
      CREATE OR REPLACE TRIGGER before_marking BEFORE UPDATE ON otp_outbox EXECUTE FUNCTION before_marking()`);
    const PAYMENTS = 50;
    const ROWS_EACH = 3;
    for (let row = 0; row < PAYMENTS * ROWS_EACH; row += 1) {
      await insert(await world.seal(bodyFor('cepta', CODE), `payment-${row % PAYMENTS}`));
    }

    const living = new Set<ChildProcess>();
    let kills = 0;
    const start = (diesAfter: number): ChildProcess => {
      const args = ['outbox', '--config', installation.file, '--batch', '5', '--poll-ms', '20', '--json'];
      const child = runCli(args, { OTP_OUTBOX_DATABASE_URL: url });
      living.add(child);
      child.once('exit', () => living.delete(child));
      child.stderr?.pipe(process.stderr);
      let relayed = 0;
      createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
        if (!line.includes('"verification"')) return;
        relayed += 1;
        if (relayed === diesAfter) killAndReplace(child);
      });
      return child;
    };
    const killAndReplace = (child: ChildProcess): void => {
      kills += 1;
      child.kill('SIGKILL');
      start(Number.POSITIVE_INFINITY);
    };
    const atRandom = (): number => 1 + Math.floor(Math.random() * 10);
    try {
      await sql.query('SELECT pg_advisory_lock(17)');
      const [first] = [start(Number.POSITIVE_INFINITY), start(atRandom()), start(atRandom())];
      // Each has rows of its own in hand, admitted and not marked: here the first one dies.
      await vi.waitUntil(async () => (await records()).length === 15, UNTIL);
      killAndReplace(first as ChildProcess);
      expect(await undone()).toBe(PAYMENTS * ROWS_EACH);
      await sql.query('SELECT pg_advisory_unlock(17)');

      await vi.waitUntil(async () => (await undone()) === 0, UNTIL);
      expect(kills).toBe(3);

      const [last] = living;
      last?.kill('SIGTERM');
      if (last) expect((await once(last, 'exit'))[0]).toBe(0);
    } finally {
      for (const child of living) child.kill('SIGKILL');
      await vi.waitUntil(() => living.size === 0, UNTIL);
      await sql.query('SELECT pg_advisory_unlock_all(); DROP TRIGGER before_marking ON otp_outbox');
    }

    const { rows } = await sql.query('SELECT payment, verification_id, request, problem FROM otp_outbox ORDER BY id');
    expect(rows.map(({ verification_id, problem }) => [verification_id, problem])).toEqual(
      rows.map(({ request }) => [request.id, null]),
    );
    const ids = rows.map(({ verification_id }) => verification_id);
    expect((await records()).sort()).toEqual([...ids].sort());
    const waiting = (await world.pipeline.queue('cepta').getJobs(['prioritized'], 0, -1, true)).map(
      ({ data }) => data.id,
    );
    expect([...waiting].sort()).toEqual([...ids].sort());
    for (let payment = 0; payment < PAYMENTS; payment += 1) {
      const ofPayment = rows.filter((row) => row.payment === `payment-${payment}`).map((row) => row.verification_id);
      expect(waiting.filter((id) => ofPayment.includes(id))).toEqual(ofPayment);
    }
  });

  test('a row that is refused for good says which key to change and holds back its own payment only', async () => {
    const refused = await insert(await world.seal(bodyFor('beqelal', CODE), 'A-17'));
    const behind = await insert(await world.seal(bodyFor('cepta', CODE), 'A-17'));
    const stranger = await insert({ ...(await world.seal(bodyFor('cepta', CODE))), client: 'nobody' });
    const readable = await insert({ ...(await world.seal(bodyFor('cepta', CODE))), sealed: CODE });
    const { request, ...printed } = await world.seal(bodyFor('cepta', CODE));
    const unprinted = await insert({ ...printed, request: { ...request, codePrint: '' } });
    const other = await insert(await world.seal(bodyFor('cepta', CODE)));
    await using _ = relay();
    await vi.waitUntil(async () => (await stored(other)).done_at !== null, UNTIL);
    await vi.waitUntil(async () => (await undone()) === 1, UNTIL);
    expect((await stored(refused)).problem).toBe('providers.beqelal: is not configured; there are cepta');
    expect((await stored(stranger)).problem).toBe('clients: has none with the id in the column client');
    expect((await stored(readable)).problem).toBe('sealed: is no compact JWE with a kid');
    expect((await stored(unprinted)).problem).toBe('request.codePrint: is missing: verify takes a code');
    expect(await stored(behind)).toMatchObject({ done_at: null, problem: null });

    await sql.query('DELETE FROM otp_outbox WHERE id = $1', [refused]);
    await vi.waitUntil(async () => (await stored(behind)).done_at !== null, UNTIL);
  });

  test.each(['a\u0000b', 'a\ud800b'])(
    'metadata that the column would refuse is refused before it is written: %j',
    async (text) => {
      const sealing = world.seal({ ...bodyFor('cepta', CODE), metadata: { order: { [text]: 1 } } });
      await expect(sealing).rejects.toThrow('metadata');
    },
  );

  test('a key that was used another way gives that answer, and no code is ever journaled under a foreign id', async () => {
    const body = bodyFor('cepta', CODE);
    const { accepting, redis } = world.pipeline;
    const earlier = await accept(CLIENT, 'used', body, accepting);
    const same = await insert(await world.seal(body, 'A', 'used'));
    const acceptedBefore = await accept(CLIENT, 'used-for-another', bodyFor('cepta', CODE), accepting);
    const mismatch = await insert(await world.seal(bodyFor('cepta', CODE), 'B', 'used-for-another'));
    const half = await world.seal(bodyFor('cepta', CODE), 'C', 'half');
    const foreign = `cepta_${'0'.repeat(32)}`;
    await redis.hset(claimKey(CLIENT.id, 'half'), { fingerprint: half.request.fingerprint, id: foreign, at: 1 });
    const unfinished = await insert(half);

    await using _ = relay();
    await vi.waitUntil(async () => (await undone()) === 0, UNTIL);
    expect(await stored(same)).toMatchObject({ verification_id: 'id' in earlier && earlier.id, problem: null });
    expect((await stored(mismatch)).problem).toBe('idempotency_key: was used for another request');
    expect((await stored(unfinished)).problem).toContain(foreign);
    expect(await records()).toEqual(
      expect.arrayContaining([earlier, acceptedBefore].map((one) => 'id' in one && one.id)),
    );
    expect(await records()).toHaveLength(2);
  });

  test('a Redis that is away delays and loses nothing; a code that died meanwhile is settled and not sent', async () => {
    await world.server.stop();
    const dead = await insert(
      await world.seal({ ...bodyFor('cepta', CODE), expiresAt: new Date(Date.now() + 1).toISOString() }),
    );
    const faults: string[] = [];
    await using _ = relay({ onError: ({ message }) => faults.push(message) });
    await vi.waitUntil(() => faults.length >= 2, UNTIL);
    expect(await stored(dead)).toMatchObject({ done_at: null, problem: null });
    await world.server.start();
    await vi.waitUntil(async () => (await stored(dead)).done_at !== null, UNTIL);
    const final = await world.pipeline.final((await stored(dead)).verification_id, 20_000);
    expect(final).toMatchObject({ otp: 'not_submitted', reason: 'deadline_passed' });
  });

  test('a database without the table ends the command with the way to make it, and never shows the password', async () => {
    await using installation = await install({
      redis: { url: world.server.url },
      providers: { cepta: world.sandbox.providers.cepta },
    });
    await sql.query('DROP TABLE otp_outbox');
    const run = async (args: string[]): Promise<CliRun> => await otp(['outbox', ...args]);
    const [without, misspelt, table] = await Promise.all([
      run(['--config', installation.file, '--database', url]),
      run(['--config', installation.file, '--database', 'mysql://shop:password-of-the-shop@127.0.0.1/shop']),
      run(['--print-table']),
    ]);
    expect(without).toMatchObject({
      code: 1,
      faults: expect.stringContaining('"otp_outbox" does not exist; `otp outbox --print-table` prints it'),
    });
    expect(misspelt).toMatchObject({ code: 2, faults: expect.stringContaining('--database: must be a URL like') });
    expect(without.faults + misspelt.faults).not.toContain('password-of-the-shop');
    await sql.query(table.output);
    expect(await undone()).toBe(0);
  });
});
