import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Queue } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { createProducer, createResultsConsumer, type ResultsConsumer } from '../../src/index.ts';
import { RESULT_JOB_OPTIONS, RESULTS_QUEUE, resultsPrefix } from '../../src/producers/job.ts';
import { readVerification } from '../../src/producers/reading.ts';
import type { PartitionProfile } from '../../src/producers/request.ts';
import { resultEventOf, resultEventSchema } from '../../src/producers/result.ts';
import { publicKeySet } from '../../src/producers/sealing.ts';
import { providers } from '../../src/providers/index.ts';
import { SETTLED, startWorld } from './world.ts';

const PARTITIONS: ReadonlyMap<string, PartitionProfile> = new Map(
  Object.entries(providers).map(([name, definition]) => [name, { name, definition, otpLifetimeMs: 300_000 }]),
);

const docs = { http: documentOf('http-api.md'), results: documentOf('results.md') };

function documentOf(name: string): string {
  return readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8');
}

/** The contents of the code blocks in one language, in order. */
function blocks(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'gms'))].map(([, content = '']) => content);
}

function json(text: string, index: number): Record<string, unknown> {
  return JSON.parse(blocks(text, 'json')[index] ?? 'null') as Record<string, unknown>;
}

/** A curl command as a request: its headers, path and body. */
function curl(command: string): { path: string; headers: Record<string, string>; raw?: string } {
  const headers = [...command.matchAll(/-H '([^:]+): ([^']*)'/g)].map(([, name = '', value = '']) => [
    name.toLowerCase(),
    value,
  ]);
  const raw = /-d '([^']*)'/s.exec(command)?.[1];
  const path = /http:\/\/127\.0\.0\.1:3000(\S+)/.exec(command)?.[1] ?? '';
  return { path, headers: Object.fromEntries(headers), ...(raw === undefined ? {} : { raw }) };
}

describe('docs/http-api.md', () => {
  it('shows commands that work', async () => {
    await using world = await startWorld({ partitions: PARTITIONS });
    const [enqueue = '', read = ''] = blocks(docs.http, 'sh');
    const first = curl(enqueue);
    const reply = world.call({ ...first, apiKey: null });
    for (;;) {
      const [job] = await world.queues.queue('cepta').getPrioritized();
      if (!job) continue;
      await world.publish(job.data.id, SETTLED);
      break;
    }
    expect(await reply).toMatchObject({ status: 200, body: { provider: 'cepta', metadata: { orderId: 'A-17' } } });
    const second = curl(read.replace('$ID', String((await reply).body.id)));
    expect(await world.call({ ...second, method: 'GET', apiKey: null })).toMatchObject({
      status: 200,
      body: { final: true },
    });
  });

  it('shows a send that is accepted, and takes no code', async () => {
    await using world = await startWorld({ partitions: PARTITIONS });
    const body = json(docs.http, 0);
    const reply = await world.post(body, 'k-1');
    expect(reply.status, reply.text).toBe(202);
    expect(reply.text).not.toContain('254712345678');
    expect((await world.post({ ...body, otp: '123456' }, 'k-2')).body.errors).toMatchObject([{ field: 'otp' }]);
  });

  it('shows the resource with the fields it has', async () => {
    await using world = await startWorld({ partitions: PARTITIONS });
    const { body } = await world.call({ ...curl(blocks(docs.http, 'sh')[0] ?? ''), apiKey: null, headers: PLAIN });
    expect(Object.keys(json(docs.http, 1)).sort()).toEqual(Object.keys(body).sort());
  });

  it('shows an error as it is', async () => {
    await using world = await startWorld({ partitions: PARTITIONS });
    const { body } = await world.post({ provider: 'beqelal', params: { reference: 'R-1' } }, 'k-1');
    expect(body).toEqual(json(docs.http, 2));
  });

  it('names every problem type there is', async () => {
    const source = readFileSync(new URL('../../src/producers/problem.ts', import.meta.url), 'utf8');
    const names = [...source.matchAll(/^ {2}'?([a-z-]+)'?: \{ status: (\d+)/gm)].map(([, name = '']) => name);
    expect(names.length).toBeGreaterThan(10);
    for (const name of names.filter((one) => one !== 'internal-error')) expect(docs.http).toContain(`\`${name}\``);
  });

  it('shows a program that enqueues', async () => {
    await using world = await startWorld();
    const keyFile = join(world.server.dataDir, 'sealing-public.json');
    await writeFile(keyFile, JSON.stringify(publicKeySet(world.keySet)));
    const shown = await run(blocks(docs.http, 'ts')[0] ?? '', { createProducer }, 'id, repeated, verification', {
      'redis://127.0.0.1:6379': world.server.url,
      'sealing-public.json': keyFile,
    });
    expect(shown).toMatchObject({ repeated: false, verification: { provider: 'cepta', state: 'queued' } });
  });
});

const PLAIN = {
  authorization: 'Bearer key-of-the-shop',
  'idempotency-key': 'k-1',
  'content-type': 'application/json',
};

describe('docs/results.md', () => {
  it('shows a result as it is', async () => {
    await using world = await startWorld({ partitions: PARTITIONS });
    const shown = json(docs.results, 0);
    expect(resultEventSchema.safeParse(shown).error).toBeUndefined();
    const request = JSON.parse(curl(blocks(docs.http, 'sh')[0] ?? '').raw ?? '') as Record<string, unknown>;
    const { body } = await world.post({ ...request, amount: undefined }, 'k-1');
    await world.publish(String(body.id), SETTLED);
    const record = await readVerification(world.redis, String(body.id));
    if (!record) throw new Error('it was accepted');
    const event = resultEventOf(record, 'otp.verification.settled', 'shop', false);
    const times = { createdAt: '', updatedAt: '', expiresAt: '', id: '' };
    const masked = (one: unknown) => {
      const result = one as typeof event;
      return { ...result, id: '', subject: '', time: '', data: { ...result.data, ...times } };
    };
    expect(masked(event)).toEqual(masked(shown));
  });

  it('shows a program that consumes', async () => {
    await using world = await startWorld();
    const queue = new Queue(RESULTS_QUEUE, { connection: world.redis, prefix: resultsPrefix(RESULTS_QUEUE) });
    const event = json(docs.results, 0);
    await queue.add('otp.verification.settled', event, { ...RESULT_JOB_OPTIONS, jobId: String(event.id) });
    const lines: unknown[][] = [];
    let heard = (): void => {};
    const handled = new Promise<void>((settle) => {
      heard = settle;
    });
    const console = {
      log: (...line: unknown[]): void => {
        lines.push(line);
        heard();
      },
    };
    // The page's last line is said by the test, once there was a result.
    const page = (blocks(docs.results, 'ts')[0] ?? '').replace('await consumer.close();', '');
    const { consumer } = await run(page, { createResultsConsumer, console }, 'consumer', {
      'redis://127.0.0.1:6379': world.server.url,
    });
    await handled;
    await (consumer as ResultsConsumer).close();
    expect(lines).toEqual([[event.subject, 'accepted', 'succeeded']]);
    await queue.close();
  });
});

/** Runs a program of a page with what it imports, and gives the named values. */
async function run(
  program: string,
  imports: Record<string, unknown>,
  values: string,
  places: Record<string, string>,
): Promise<Record<string, unknown>> {
  let body = program.replace(/^import .*$/gm, '');
  for (const [shown, real] of Object.entries(places)) body = body.replaceAll(`'${shown}'`, JSON.stringify(real));
  const AsyncFunction = (async () => {}).constructor as new (
    ...parts: string[]
  ) => (...given: unknown[]) => Promise<never>;
  return await new AsyncFunction(...Object.keys(imports), `${body}\nreturn { ${values} };`)(...Object.values(imports));
}
