import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { PUBLISHED_CHANNEL, partitionKeys } from '../../src/producers/job.ts';
import { freePort } from '../../src/redis/process.ts';
import { type Sandbox, startSandbox } from '../../src/sandbox/index.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import {
  type CliRun,
  type Installation,
  install,
  runCli,
  otp as runOtp,
  type ServiceProcess,
  serve,
} from '../support/service.ts';

const world = {} as { redis: TestRedis; sandbox: Sandbox; installation: Installation; service: ServiceProcess };

beforeAll(async () => {
  world.redis = await startTestRedis();
  world.sandbox = await startSandbox({ settleAfterMs: 0 });
  const { cepta, beqelal, 'lipa-later': lipaLater } = world.sandbox.providers;
  world.installation = await install({
    redis: { url: world.redis.url },
    clients: [
      { id: 'shop', apiKey: 'api-key-of-the-shop-in-the-test' },
      { id: 'kiosk', apiKey: 'api-key-of-the-kiosk-in-the-test', providers: ['beqelal', 'lipa-later'] },
    ],
    providers: { cepta: { ...cepta, inquiry: { delaysMs: [50, 600_000] } }, 'lipa-later': lipaLater, beqelal },
  });
  world.service = await serve(world.installation.file, 'worker');
});

afterAll(async () => {
  await world.service?.[Symbol.asyncDispose]();
  await world.installation?.[Symbol.asyncDispose]();
  await world.sandbox?.[Symbol.asyncDispose]();
  await world.redis?.[Symbol.asyncDispose]();
});

const CEPTA = ['--param', 'transactionRef=TXCLI1', '--param', 'paymentId=PAY1', '--param', 'md=data'];

test('enqueue waits for the outcome, show tells the story, watch sees it published, and the code is nowhere', async () => {
  const watching = runCli(['watch', '--json'], { OTP_CONFIG: world.installation.file });
  const published = new Promise<{ id: string }>((found) => {
    createInterface({ input: watching.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const result = JSON.parse(line) as { id: string; final: boolean };
      if (result.final) found(result);
    });
  });
  const redis = new Redis(world.redis.url);
  await vi.waitUntil(async () => ((await redis.pubsub('NUMSUB', PUBLISHED_CHANNEL))[1] as number) > 0, {
    timeout: 20_000,
  });
  redis.disconnect();

  const enqueued = await otp(
    ['enqueue', '--provider', 'cepta', '--otp', '-', ...CEPTA, '--wait', '20', '--json'],
    '918273\n',
  );
  expect(enqueued).toMatchObject({ code: 0, faults: '' });
  const resource = JSON.parse(enqueued.output);
  expect(resource).toMatchObject({ provider: 'cepta', otp: 'accepted', reference: 'TXCLI1' });

  const story = await otp(['show', resource.id]);
  expect(story.output).toMatch(/reference +TXCLI1/);
  expect(story.output).toMatch(/accepted[\s\S]+begun[\s\S]+answered/);
  for (const { output } of [enqueued, story]) expect(output).not.toContain('918273');

  expect((await published).id).toBe(resource.id);
  watching.kill('SIGINT');
}, 60_000);

test('the same --idempotency-key gives the same verification, with another code it is refused', async () => {
  const command = (code: string) => [
    ...['enqueue', '--provider', 'cepta', '--otp', code, '--idempotency-key', 'k-1', '--json'],
    ...['--param', 'transactionRef=TXCLI3', '--param', 'paymentId=PAY1', '--param', 'md=data'],
  ];
  const [first, again, other] = [
    await otp(command('111222')),
    await otp(command('111222')),
    await otp(command('333444')),
  ];
  expect(JSON.parse(again.output).id).toBe(JSON.parse(first.output).id);
  expect(other).toMatchObject({ code: 1, faults: 'otp: --idempotency-key: was used for another request\n' });
}, 60_000);

test('a person with evidence settles what no inquiry can, once, and the audit says who and on what', async () => {
  const lost = ['enqueue', '--provider', 'beqelal', '--otp', '800002', '--param', 'reference=ORDERLOST'];
  const { id } = JSON.parse((await otp([...lost, '--wait', '20', '--json'])).output);
  const waiting = await otp(['show', id]);
  expect(waiting.output).toMatch(/awaits +a callback of the provider/);

  const inquired = await otp(['inquire', id]);
  expect(inquired).toMatchObject({ code: 1, faults: expect.stringContaining('beqelal has no inquiry for it') });
  const evidence = 'bank statement of 21 November, line 4';
  const resolve = ['resolve', id, '--as', 'succeeded', '--evidence', evidence, '--by', 'ada', '--json'];
  expect(JSON.parse((await otp(resolve)).output)).toMatchObject({
    final: true,
    otp: 'accepted',
    transaction: 'succeeded',
  });
  const again = await otp(['resolve', id, '--as', 'failed', '--evidence', evidence]);
  expect(again).toMatchObject({ code: 1, faults: expect.stringContaining('it is final, accepted / succeeded') });

  const story = JSON.parse((await otp(['show', id, '--json'])).output);
  expect(story).toMatchObject({ awaits: null });
  expect(story.history.at(-1)).toMatchObject({ event: 'resolved', by: 'ada', evidence, as: 'succeeded' });
  const redis = new Redis(world.redis.url);
  const audit = await redis.xrange(partitionKeys('beqelal').audit, '-', '+');
  redis.disconnect();
  expect(audit.map(([, fields]) => fields)).toEqual([expect.arrayContaining([id, 'ada', evidence])]);
}, 60_000);

test('asking now does not wait for the schedule', async () => {
  const pending = ['enqueue', '--provider', 'cepta', '--otp', '500002', '--param', 'transactionRef=TXWAITS'];
  const { id } = JSON.parse(
    (await otp([...pending, '--param', 'paymentId=P', '--param', 'md=d', '--wait', '20', '--json'])).output,
  );
  const inquiries = () => world.sandbox.ledger.transaction('cepta', 'TXWAITS').inquiries;
  await vi.waitUntil(() => inquiries() === 1, { timeout: 10_000 });
  await vi.waitUntil(async () => (await otp(['show', id])).output.includes('inquiry 2 at'), { timeout: 10_000 });
  expect((await otp(['inquire', id])).code).toBe(0);
  await vi.waitUntil(() => inquiries() === 2, { timeout: 10_000 });
}, 60_000);

test('what cannot be done says which option or key to change, and never the code', async () => {
  const id = `cepta_${'0'.repeat(32)}`;
  const cases: [args: string[], code: number, faults: RegExp][] = [
    [['show', 'nonsense'], 2, /an id looks like cepta_/],
    [['show', id], 1, new RegExp(`${id}: there is no such verification`)],
    [['enqueue', '--provider', 'cepta', '--otp', '98', ...CEPTA], 1, /otp: must be a string of 4 to 10/],
    [
      ['enqueue', '--provider', 'nobody', '--otp', '998877'],
      1,
      /provider: must name a partition: cepta, lipa-later, beqelal/,
    ],
    [
      ['enqueue', '--provider', 'cepta', '--client', 'who', '--otp', '998877'],
      1,
      /--client: must be one of the configured clients \(shop, kiosk\)/,
    ],
    [
      ['enqueue', '--provider', 'cepta', '--client', 'kiosk', '--otp', '998877', ...CEPTA],
      1,
      /^otp: clients\[\]\.providers: kiosk may not use cepta, only beqelal, lipa-later\n$/,
    ],
    [['watch', '--provider', 'ceptaa'], 1, /^otp: --provider: must name a partition: cepta, lipa-later, beqelal\n$/],
    [['serve', '--roles', 'cook'], 2, /must be any of intake, worker, console/],
  ];
  const ended = await Promise.all(cases.map(([args]) => otp(args)));
  for (const [index, [args, code, faults]] of cases.entries()) {
    expect(ended[index]?.faults, args.join(' ')).toMatch(faults);
    expect(ended[index]?.code, args.join(' ')).toBe(code);
    expect(ended[index]?.faults).not.toContain('998877');
  }
}, 60_000);

test('serve starts nothing from a bad configuration and lists every fault', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'otp-bad-'));
  try {
    const file = join(folder, 'otp.yaml');
    writeFileSync(
      file,
      'intake: { port: banana }\nclients: [{ id: shop, apiKey: "" }]\nproviders: { cepta: { baseUrl: "http://example.org" } }\n',
    );
    const { code, faults } = await otp(['serve', '--config', file]);
    expect(code).toBe(1);
    for (const key of [
      'intake.port',
      'clients[0].apiKey',
      'providers.cepta.baseUrl',
      'providers.cepta.credentials.secretKey',
    ]) {
      expect(faults).toContain(key);
    }
    expect(faults).not.toMatch(/\n\s+at /); // no stack: a person reads this
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 30_000);

test('without a Redis that can be used serve and show say why, in one line without its password', async () => {
  const { port } = new URL(world.redis.url);
  for (const [address, why] of [
    [`127.0.0.1:${await freePort()}`, /^otp: redis: it does not answer \(connect ECONNREFUSED .*\)\n$/],
    [`localhost:${await freePort()}`, /^otp: redis: it does not answer \(connect ECONNREFUSED .*\)\n$/],
    [`127.0.0.1:${port}`, /^otp: redis: it refuses the login \(WRONGPASS .*\)\n$/],
  ] as const) {
    const { beqelal } = world.sandbox.providers;
    await using installation = await install({
      redis: { url: `redis://:password-of-nobody@${address}` },
      providers: { beqelal },
    });
    for (const args of [['serve'], ['show', `beqelal_${'0'.repeat(32)}`]]) {
      const run = await runOtp([...args, '--config', installation.file]);
      expect(run, `${args[0]} ${address}`).toMatchObject({ code: 1, faults: expect.stringMatching(why) });
      expect(run.output + run.faults).not.toContain('password-of-nobody');
    }
  }
}, 60_000);

test('serve without its sealing keys says how to make them', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'otp-keyless-'));
  try {
    const file = join(folder, 'otp.yaml');
    writeFileSync(file, readFileSync(world.installation.file, 'utf8'));
    const missing = await otp(['serve', '--config', file]);
    expect(missing.faults).toMatch(
      /sealing\.keyFile: .*keys\.json: there is no such file; `otp keys generate` makes one/,
    );
    expect((await otp(['keys', 'generate', '--config', file])).code).toBe(0);
    const overwriting = await otp(['keys', 'generate', '--config', file]);
    expect(overwriting).toMatchObject({ code: 1, faults: expect.stringContaining('is not overwritten') });
    const { output } = await otp(['keys', 'public', '--config', file]);
    expect(JSON.parse(output).keys[0]).not.toHaveProperty('d');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 60_000);

async function otp(args: string[], input = ''): Promise<CliRun> {
  return await runOtp(args, { input, environment: { OTP_CONFIG: world.installation.file } });
}
