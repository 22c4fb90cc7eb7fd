/** Where a sealed code is while it may be sent, and that it is nowhere afterwards. */
import { Redis } from 'ioredis';
import { describe, expect, test, vi } from 'vitest';
import { partitionKeys } from '../../src/producers/job.ts';
import { everyKey } from '../support/every-key.ts';
import { bodyFor, type Pipeline, startPipeline } from '../support/pipeline.ts';
import { type Behaviour, behaviours, type ProviderServer, startProviderServer } from '../support/provider-server.ts';

const says = (data: Record<string, unknown>, status: boolean): Behaviour => behaviours.saysJson(200, { status, data });

interface House extends AsyncDisposable {
  readonly server: ProviderServer;
  readonly pipeline: Pipeline;
  /** Everything that Redis was told, also by scripts. */
  readonly commands: readonly (readonly string[])[];
}

/** A pipeline whose workers have not started yet. */
async function startHouse(behaviour: Behaviour): Promise<House> {
  const server = await startProviderServer(behaviour);
  const settings = { timeoutMs: 400, inquiry: { delaysMs: [600_000], giveUpAfterMs: 3_600_000 } };
  const cepta = { baseUrl: server.url, credentials: { secretKey: 'key' }, settings };
  const pipeline = await startPipeline({ cepta }, { workers: false });
  const commands: string[][] = [];
  const connection = new Redis(pipeline.server.url);
  const monitor = await connection.monitor();
  monitor.on('monitor', (_time: string, command: string[]) => commands.push(command));
  return {
    ...{ server, pipeline, commands },
    [Symbol.asyncDispose]: async () => {
      monitor.disconnect();
      connection.disconnect();
      await pipeline[Symbol.asyncDispose]();
      await server.close();
    },
  };
}

describe('a sealed code', () => {
  test.each([
    ['settled by an answer', says({ responseCode: '01', errors: [{ errorCode: 'INVALID_OTP' }] }, false), 'rejected'],
    ['accepted and pending', says({ responseCode: '00' }, true), 'accepted'],
    ['lost', behaviours.isSilent, 'unknown'],
    ['dead', null, 'not_submitted'],
  ] as const)(
    'stands in the journal alone, and nowhere once it is %s',
    async (_, behaviour, otp) => {
      await using house = await startHouse(behaviour ?? behaviours.isSilent);
      const { pipeline, commands } = house;
      const { redis } = pipeline;
      const expiresAt = new Date(Date.now() + (behaviour === null ? 700 : 60_000)).toISOString();
      const id = await pipeline.enqueue({ ...bodyFor('cepta', '123456'), expiresAt });
      const record = partitionKeys('cepta').record(id);
      const sealed = (await redis.hget(record, 'code')) ?? '';
      expect(sealed.split('.')).toHaveLength(5);
      const holders = async () => (await everyKey(redis)).filter(({ content }) => holds(content, sealed));
      expect((await holders()).map(({ key }) => key)).toEqual([record]);
      const job = (await everyKey(redis)).find(({ key }) => key.endsWith(`otp-cepta:${id}`));
      expect(JSON.parse(JSON.parse(job?.content ?? '').data)).toEqual({ v: 1, id });

      if (behaviour === null) await vi.waitUntil(() => Date.now() > Date.parse(expiresAt) + 50, 10_000);
      await pipeline.restartWorkers();
      // Read in one step, as often as possible: there is no moment in which it is kept and cannot be sent.
      const seen = new Set<string>();
      await vi.waitUntil(
        async () => {
          const [state, code] = await redis.hmget(record, 'state', 'code');
          seen.add(`${state} ${code === null ? 'without' : 'with'} the code`);
          return state === 'settled' || state === 'awaiting';
        },
        { timeout: 10_000, interval: 0 },
      );
      expect([...seen].filter((moment) => /^(settled|awaiting) with |^(queued|sending) without /.test(moment))).toEqual(
        [],
      );
      expect(await pipeline.read(id)).toMatchObject({ otp });
      await vi.waitUntil(async () => (await pipeline.result(`${id}.1`)) !== null, { timeout: 5_000 });
      expect(await holders()).toEqual([]);

      // Whatever wrote it, wrote it into the record: no job, no queue, no result has ever had it.
      const carriers = commands.filter((command) => command.some((part) => holds(part, sealed)));
      expect(carriers.length).toBeGreaterThanOrEqual(2);
      for (const command of carriers) expect(command.join(' ')).not.toMatch(/:otp-cepta|otp-results/);
      expect(carriers.filter(([name]) => name?.toLowerCase() === 'hset').map(([, key]) => key)).toEqual([record]);
    },
    30_000,
  );
});

/** Whole, or its ciphertext alone. */
function holds(text: string, sealed: string): boolean {
  return text.includes(sealed) || text.includes(sealed.split('.')[3] ?? sealed);
}
