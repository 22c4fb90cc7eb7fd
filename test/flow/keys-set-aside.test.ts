/** A worker that has not the key: the code is set aside, visibly, and a worker that has it sends it in time. */
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { describe, expect, test, vi } from 'vitest';
import { accept } from '../../src/producers/accept.ts';
import { Sealer, type SealingKeySet } from '../../src/producers/sealing.ts';
import { sealingKeys } from '../producers/world.ts';
import { bodyFor, CLIENT, type PartitionEntry, type Pipeline, startPipeline } from '../support/pipeline.ts';
import { behaviours, type ProviderServer, startProviderServer } from '../support/provider-server.ts';
import { BEST_OF_THREE } from '../support/timing.ts';

const PAID = { status: true, data: { responseCode: '00' } };

const ceptaAt = (server: ProviderServer): Record<string, PartitionEntry> => ({
  cepta: { baseUrl: server.url, credentials: { secretKey: 'key' } },
});

/** As a producer does that has a newer public set than the workers. */
async function enqueueSealedTo(
  keys: SealingKeySet,
  pipeline: Pipeline,
  body: Record<string, unknown>,
): Promise<string> {
  const sealer = await Sealer.create(keys);
  const acceptance = await accept(CLIENT, randomUUID(), body, { ...pipeline.accepting, sealer });
  if (acceptance.kind !== 'accepted') throw new Error(acceptance.kind);
  return acceptance.id;
}

const eventsOf = async (pipeline: Pipeline, id: string): Promise<string[]> =>
  (await pipeline.read(id)).history?.map(({ event }) => event) ?? [];

const timesSetAside = async (pipeline: Pipeline, id: string): Promise<number> =>
  (await eventsOf(pipeline, id)).filter((event) => event === 'set_aside').length;

describe('a code that is sealed to a key that the worker has not', () => {
  test('is set aside and said to be, and sent once when a worker with the key comes', async () => {
    await using server = await startProviderServer(behaviours.saysJson(200, PAID));
    const [older, newer] = [await sealingKeys('older'), await sealingKeys('newer')];
    await using without = await startPipeline(ceptaAt(server), { keySet: older });
    const id = await enqueueSealedTo(newer, without, bodyFor('cepta', '123456'));
    await vi.waitUntil(async () => (await timesSetAside(without, id)) >= 2, { timeout: 10_000 });

    const aside = await without.read(id);
    expect(aside).toMatchObject({ state: 'queued', otp: null, sequence: 0 });
    const [first, ...again] = aside.history?.slice(2) ?? [];
    expect((await eventsOf(without, id)).slice(0, 2)).toEqual(['accepted', 'begun']);
    for (const entry of [first, ...again])
      expect(entry).toMatchObject({ event: 'set_aside', kid: 'newer', againAt: expect.any(String) });
    const said = without.seen.filter(({ name }) => name === 'seal:unopened');
    expect(said[0]?.payload).toEqual({ id, partition: 'cepta', fault: 'no key with kid newer' });
    expect(server.requests).toHaveLength(0);

    // The drill: workers are restarted with the newer set. In between nobody is there, and nothing is lost.
    for (const worker of without.workers.values()) await worker.close();
    await using _ = await startPipeline(ceptaAt(server), {
      server: without.server,
      keySet: { keys: [...older.keys, ...newer.keys] },
    });
    await without.until(id, ({ otp }) => otp === 'accepted', 15_000);
    expect(server.requests.filter(({ method }) => method === 'POST')).toHaveLength(1);
  }, 40_000);

  test('costs no attempt and no rate token, once the worker knows that it lacks a key', async () => {
    await using server = await startProviderServer(behaviours.saysJson(200, PAID));
    const [older, newer] = [await sealingKeys('older'), await sealingKeys('newer')];
    await using pipeline = await startPipeline(ceptaAt(server), { keySet: older });
    const first = await enqueueSealedTo(newer, pipeline, bodyFor('cepta', '123456'));
    await vi.waitUntil(async () => (await timesSetAside(pipeline, first)) >= 2, { timeout: 10_000 });
    const second = await enqueueSealedTo(newer, pipeline, bodyFor('cepta', '123456'));
    await vi.waitUntil(async () => (await timesSetAside(pipeline, second)) >= 1, { timeout: 10_000 });
    expect(await eventsOf(pipeline, first)).toEqual(expect.arrayContaining(['accepted', 'begun', 'set_aside']));
    expect((await eventsOf(pipeline, first)).filter((event) => event === 'begun')).toHaveLength(1);
    expect(await eventsOf(pipeline, second)).not.toContain('begun');
    // And what it can open goes on as before.
    const mine = await pipeline.enqueue(bodyFor('cepta', '123456'));
    await pipeline.until(mine, ({ otp }) => otp === 'accepted');
  }, 30_000);

  test.each(['working', 'paused'])(
    'ends at its deadline, not before, while the queue is %s',
    { ...BEST_OF_THREE, timeout: 30_000 },
    async (queue) => {
      await using server = await startProviderServer(behaviours.saysJson(200, PAID));
      await using pipeline = await startPipeline(ceptaAt(server));
      const expiresAt = new Date(Date.now() + 2_500).toISOString();
      const body = { ...bodyFor('cepta', '123456'), expiresAt };
      const id = await enqueueSealedTo(await sealingKeys('never-came'), pipeline, body);
      await vi.waitUntil(async () => (await timesSetAside(pipeline, id)) >= 1, { timeout: 2_000 });
      if (queue === 'paused') await pipeline.queue('cepta').pause();

      const final = await pipeline.final(id, 10_000);
      expect(final).toMatchObject({
        otp: 'not_submitted',
        transaction: 'pending',
        reason: 'misconfigured',
        nextStep: 'contact_support',
        sequence: 1,
      });
      expect(Date.parse(final.updatedAt)).toBeGreaterThanOrEqual(Date.parse(expiresAt));
      expect(Date.parse(final.updatedAt)).toBeLessThan(Date.parse(expiresAt) + 3_000);
      expect(server.requests).toHaveLength(0);
    },
  );

  test('is set aside before a token is asked for in its name', async () => {
    await using server = await startProviderServer(behaviours.saysJson(500, {}));
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 });
    const credentials = {
      ...{ clientId: 'c', clientSecret: 's', merchantId: 'm', channelId: 'ch' },
      privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    };
    await using pipeline = await startPipeline({ ayoconnect: { baseUrl: server.url, credentials } });
    const newer = await sealingKeys('newer');
    const id = await enqueueSealedTo(newer, pipeline, bodyFor('ayoconnect', '123456'));
    await vi.waitUntil(async () => (await timesSetAside(pipeline, id)) >= 1, { timeout: 10_000 });
    expect(await eventsOf(pipeline, id)).not.toContain('begun');
    expect(server.requests).toHaveLength(0);
  }, 30_000);
});
