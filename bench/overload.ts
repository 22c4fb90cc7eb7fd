/**
 * What happens when ten times as much is offered as the provider takes: an intake, a worker and the simulated provider in
 * processes of their own, codes with a short life, and callers who come at their time whatever became of those before
 * them. The provider's ledger says what reached it and when.
 *
 *   npm run overload
 */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Pool } from 'undici';
import { createResultsConsumer } from '../dist/index.js';
import type { LedgerEntry } from '../src/sandbox/index.ts';
import { startTestRedis } from '../test/support/redis.ts';
import { install } from '../test/support/service.ts';
import { CLIENT, startService, UNLIMITED } from './pipelines/ours.ts';
import { machine, rounded } from './report.ts';
import { Cleanup } from './support/cleanup.ts';
import { drawLines } from './support/lines.ts';
import { quantile } from './support/measure.ts';
import { offer } from './support/offer.ts';
import { inProject, writeMeasured } from './support/page.ts';
import { cpuSecondsOf } from './support/parts.ts';
import { postVerification } from './support/post.ts';

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    rate: { type: 'string', default: '100' },
    times: { type: 'string', default: '10' },
    'max-queue-ms': { type: 'string', default: '2000' },
  },
});
/** What the provider takes in a second. */
const RATE = Number(values.rate);
const TIMES = Number(values.times);
/** As `maxQueueMs` of the partition; 0 for none. */
const MAX_QUEUE_MS = Number(values['max-queue-ms']);
const LIFETIME_MS = 20_000;
const [BEFORE_S, OVERLOAD_S, AFTER_S, CALIBRATION_S] = values.quick ? [10, 30, 20, 5] : [20, 120, 40, 10];
const FALLS_AT_S = BEFORE_S + OVERLOAD_S;
const GOODPUT_AT_LEAST = 0.8;
const BODY = { otp: '012345', metadata: { orderId: 'A-17' } };

type Phase = 'before' | 'overload' | 'after';

interface Answered {
  readonly phase: Phase;
  readonly status: number;
  /** The end of the problem's type; null where it was accepted. */
  readonly problem: string | null;
  readonly tookMs: number;
}

/** One that was accepted; times in Unix ms. */
interface Accepted {
  readonly phase: Phase;
  readonly dueAt: number;
  readonly expiresAt: number;
}

/** The first word on it, in Unix ms. */
interface Result {
  readonly at: number;
  readonly otp: string | null;
}

interface House extends AsyncDisposable {
  readonly redisUrl: string;
  readonly intakePid: number;
  readonly ledger: () => LedgerEntry[];
  /** The status, and of an acceptance its body. */
  post(reference: string): Promise<{ status: number; body: { type?: string; expiresAt?: string } }>;
  startWorker(): Promise<void>;
}

async function open(rateLimit: { max: number; perMs: number }): Promise<House> {
  const cleanup = new Cleanup();
  const folder = mkdtempSync(join(tmpdir(), 'otp-overload-'));
  cleanup.defer(() => rmSync(folder, { recursive: true, force: true }));
  const server = cleanup.use(await startTestRedis({ appendonly: true }));
  const ledgerFile = join(folder, 'ledger.jsonl');
  const sandbox = spawn(
    process.execPath,
    [
      inProject('dist/cli.js'),
      'sandbox',
      '--json',
      '--ends-with-stdin',
      '--settle-after-ms',
      '0',
      '--ledger',
      ledgerFile,
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  cleanup.defer(() => sandbox.kill('SIGKILL'));
  const { providers } = await new Promise<{ providers: Record<string, object> }>((found, failed) => {
    createInterface({ input: sandbox.stdout }).once('line', (line) => found(JSON.parse(line)));
    sandbox.once('exit', (code) => failed(new Error(`the sandbox ended with ${code}`)));
  });
  const installation = cleanup.use(
    await install({
      redis: { url: server.url },
      clients: [{ ...CLIENT, maxInFlight: 100_000 }],
      log: { level: 'warn' },
      providers: {
        beqelal: {
          ...providers.beqelal,
          ...{ rateLimit, otpLifetimeMs: LIFETIME_MS },
          ...(MAX_QUEUE_MS === 0 ? {} : { maxQueueMs: MAX_QUEUE_MS }),
        },
      },
    }),
  );
  const intake = cleanup.use(await startService(installation, 'intake'));
  const pool = new Pool(String(intake.ready.intakeUrl), { connections: 256, pipelining: 1 });
  cleanup.defer(async () => await pool.destroy());
  return {
    redisUrl: server.url,
    intakePid: intake.pid,
    ledger: () =>
      readFileSync(ledgerFile, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as LedgerEntry),
    post: async (reference) => {
      const body = { ...BODY, provider: 'beqelal', params: { reference } };
      const { status, text } = await postVerification(pool, reference, body);
      return { status, body: JSON.parse(text) as { type?: string; expiresAt?: string } };
    },
    startWorker: async () => void cleanup.use(await startService(installation, 'worker')),
    [Symbol.asyncDispose]: async () => await cleanup.run(),
  };
}

/** Seconds of the intake's processor for a 202, where nothing is turned away. */
async function costOfAccepting(): Promise<number> {
  await using house = await open(UNLIMITED);
  let accepted = 0;
  const accept = async (): Promise<void> => {
    const { status } = await house.post(`TX${randomUUID()}`);
    if (status === 202) accepted += 1;
  };
  await offer(3 * RATE, CALIBRATION_S / 2, accept);
  accepted = 0;
  const before = cpuSecondsOf(house.intakePid);
  await offer(3 * RATE, CALIBRATION_S, accept);
  return (cpuSecondsOf(house.intakePid) - before) / accepted;
}

interface Run {
  readonly beganAt: number;
  readonly answered: readonly Answered[];
  readonly accepted: ReadonlyMap<string, Accepted>;
  /** Also of what is not known to be accepted yet: a result may be there before the answer to its request. */
  readonly results: ReadonlyMap<string, Result>;
  readonly ledger: readonly LedgerEntry[];
  readonly cpuOverload: number;
  readonly loads: readonly number[];
  readonly perSecond: readonly { readonly at: number; readonly accepted: number; readonly turnedAway: number }[];
}

async function run(): Promise<Run> {
  await using house = await open({ max: RATE, perMs: 1_000 });
  await house.startWorker();
  const answered: Answered[] = [];
  const accepted = new Map<string, Accepted>();
  const results = new Map<string, Result>();
  await using _ = createResultsConsumer({
    redis: house.redisUrl,
    concurrency: 100,
    handler: async ({ data: { reference, otp } }) => {
      results.set(reference, { at: results.get(reference)?.at ?? Date.now(), otp });
    },
  });
  await offer(RATE / 2, 5, async () => void (await house.post(`WARM${randomUUID()}`)));

  const beganAt = Date.now();
  const perSecond = Array.from({ length: FALLS_AT_S + AFTER_S }, (_, at) => ({ at, accepted: 0, turnedAway: 0 }));
  const ask = (phase: Phase) => async (due: number) => {
    const reference = `TX${randomUUID()}`;
    const dueAt = Math.round(performance.timeOrigin + due);
    const { status, body } = await house.post(reference);
    const tookMs = performance.now() - due;
    answered.push({ phase, status, problem: status === 202 ? null : (body.type?.split(':').at(-1) ?? ''), tookMs });
    const second = perSecond[Math.floor((dueAt - beganAt) / 1_000)];
    if (second) second[status === 202 ? 'accepted' : 'turnedAway'] += 1;
    if (status !== 202) return;
    accepted.set(reference, { phase, dueAt, expiresAt: Date.parse(String(body.expiresAt)) });
  };
  const loads: number[] = [];
  const watching = setInterval(() => loads.push(loadavg()[0] ?? 0), 5_000);
  console.log(`overload: ${BEFORE_S} s at ${RATE / 2}/s`);
  await offer(RATE / 2, BEFORE_S, ask('before'));
  console.log(`overload: ${OVERLOAD_S} s at ${TIMES * RATE}/s`);
  const cpuBefore = cpuSecondsOf(house.intakePid);
  await offer(TIMES * RATE, OVERLOAD_S, ask('overload'));
  const cpuOverload = cpuSecondsOf(house.intakePid) - cpuBefore;
  console.log(`overload: ${AFTER_S} s at ${RATE / 2}/s`);
  await offer(RATE / 2, AFTER_S, ask('after'));
  clearInterval(watching);
  const giveUpAt = performance.now() + LIFETIME_MS + 10_000;
  while ([...accepted.keys()].some((reference) => !results.has(reference)) && performance.now() < giveUpAt)
    await delay(100);
  return { beganAt, answered, accepted, results, ledger: house.ledger(), cpuOverload, loads, perSecond };
}

function tell(cpuOf202: number, told: Run): boolean {
  const { beganAt, answered, accepted, results, ledger, cpuOverload, perSecond } = told;
  const received = ledger.filter(({ event, reference }) => event === 'code_received' && accepted.has(reference ?? ''));
  const late = received.filter(
    ({ at, reference }) => Date.parse(at) >= (accepted.get(reference ?? '')?.expiresAt ?? 0),
  );
  const twice = received.length - new Set(received.map(({ reference }) => reference)).size;
  const charged = ledger.filter(({ event, reference }) => event === 'charged' && accepted.has(reference ?? ''));
  const inTime = charged.filter(
    ({ at, reference }) => Date.parse(at) < (accepted.get(reference ?? '')?.expiresAt ?? 0),
  );
  const secondOf = ({ at }: LedgerEntry): number => (Date.parse(at) - beganAt) / 1_000;
  const settledPerSecond = perSecond.map(({ at }) => inTime.filter((one) => Math.floor(secondOf(one)) === at).length);
  const goodput = inTime.filter((one) => secondOf(one) >= BEFORE_S && secondOf(one) < FALLS_AT_S).length / OVERLOAD_S;

  const ofOverload = answered.filter(({ phase }) => phase === 'overload');
  const [taken, turned] = [
    ofOverload.filter(({ status }) => status === 202),
    ofOverload.filter(({ status }) => status === 429),
  ];
  const others = answered.filter(({ status }) => status !== 202 && status !== 429);
  const cpuOf429 = (cpuOverload - taken.length * cpuOf202) / turned.length;
  const tookOf = (list: readonly Answered[], share: number): number =>
    rounded(
      quantile(
        list.map(({ tookMs }) => tookMs),
        share,
      ),
    );

  const waits = [...accepted].flatMap(([reference, one]) => {
    const result = results.get(reference);
    if (result === undefined) return [];
    return [{ ...one, otp: result.otp, waitedMs: result.at - one.dueAt, at: (one.dueAt - beganAt) / 1_000 }];
  });
  const without = accepted.size - waits.length;
  const waitOf = (phase: Phase, share: number): number =>
    rounded(
      quantile(
        waits.filter((one) => one.phase === phase).map(({ waitedMs }) => waitedMs),
        share,
      ),
    );
  const dead = waits.filter(({ otp }) => otp === 'not_submitted');
  // Normal is what nine of ten had before, doubled; back to it when the median of a second is.
  const normalMs =
    2 *
    quantile(
      waits.filter(({ phase }) => phase === 'before').map(({ waitedMs }) => waitedMs),
      0.9,
    );
  const backAt = Array.from({ length: AFTER_S }, (_, index) => FALLS_AT_S + index).find((from) => {
    const some = waits.filter(({ at }) => at >= from && at < from + 1).map(({ waitedMs }) => waitedMs);
    return some.length > 0 && quantile(some, 0.5) <= normalMs;
  });
  const lastTurnedAway = perSecond.findLast(({ turnedAway }) => turnedAway > 0)?.at ?? 0;

  const share = goodput / RATE;
  const given = [
    ...(values.quick ? ['--quick'] : []),
    ...(RATE === 100 ? [] : [`--rate ${RATE}`]),
    ...(TIMES === 10 ? [] : [`--times ${TIMES}`]),
    ...(MAX_QUEUE_MS === 2_000 ? [] : [`--max-queue-ms ${MAX_QUEUE_MS}`]),
  ];
  const command = ['npm run overload', ...(given.length > 0 ? ['--', ...given] : [])].join(' ');
  const kinds = new Map<string, number>();
  for (const { problem } of ofOverload) if (problem !== null) kinds.set(problem, (kinds.get(problem) ?? 0) + 1);
  const lines = [
    `Measured ${new Date().toISOString().slice(0, 10)} by \`${command}\` on ${machine()}, callers, Redis and provider on the`,
    `same machine, whose load was ${rounded(quantile(told.loads, 0.5))} in the median. ${OVERLOAD_S} s at ${TIMES * RATE}/s before a rate of ` +
      `${RATE}/s; codes live for ${LIFETIME_MS / 1_000} s, ` +
      (MAX_QUEUE_MS === 0 ? 'no `maxQueueMs`.' : `\`maxQueueMs\` is ${MAX_QUEUE_MS}.`),
    '',
    '| what | measured | mark | |',
    '| --- | --- | --- | --- |',
    `| codes that reached the provider after their deadline | ${late.length} of ${received.length} | 0 | ${late.length === 0 ? 'kept' : 'missed'} |`,
    `| codes that reached it twice | ${twice} | 0 | ${twice === 0 ? 'kept' : 'missed'} |`,
    `| settled by the provider in time, a second | ${rounded(goodput)} (${rounded(share * 100)} %) | ${GOODPUT_AT_LEAST * 100} % of ${RATE} | ${share >= GOODPUT_AT_LEAST ? 'kept' : 'missed'} |`,
    `| accepted, and too old when its turn came | ${dead.length} of ${waits.length} | told | |`,
    `| accepted and without a result | ${without} | 0 | ${without === 0 ? 'kept' : 'missed'} |`,
    `| answers that are neither 202 nor 429 | ${others.length} | 0 | ${others.length === 0 ? 'kept' : 'missed'} |`,
    `| a 429, from the time at which it was due | p50 ${tookOf(turned, 0.5)} ms, p99 ${tookOf(turned, 0.99)} ms | told | |`,
    `| a 202 beside them | p50 ${tookOf(taken, 0.5)} ms, p99 ${tookOf(taken, 0.99)} ms | told | |`,
    `| the intake's processor for a 429, and for a 202 | ${Math.round(cpuOf429 * 1e6)} µs, ${Math.round(cpuOf202 * 1e6)} µs | told | |`,
    `| from the request to its result before, p50 and p99 | ${waitOf('before', 0.5)} ms, ${waitOf('before', 0.99)} ms | told | |`,
    `| the same in overload | ${waitOf('overload', 0.5)} ms, ${waitOf('overload', 0.99)} ms | told | |`,
    `| last 429 after the load has fallen | ${lastTurnedAway < FALLS_AT_S ? 'none' : `${lastTurnedAway - FALLS_AT_S + 1} s`} | told | |`,
    `| until a result comes as fast as before | ${backAt === undefined ? `not within ${AFTER_S} s` : `${backAt - FALLS_AT_S} s`} | told | |`,
    '',
    `The 429s were ${[...kinds].map(([kind, count]) => `${count} \`${kind}\``).join(', ')}. "As fast as before" is within twice of`,
    `what nine of ten waited before (${rounded(normalMs)} ms), in the median of a second.`,
  ];
  console.log(lines.join('\n'));
  if (!values.quick && MAX_QUEUE_MS > 0) {
    const bySecond = (of: (waitedMs: readonly number[]) => number): [number, number][] =>
      perSecond.flatMap(({ at }): [number, number][] => {
        const some = waits.filter((one) => Math.floor(one.at) === at).map(({ waitedMs }) => waitedMs);
        return some.length === 0 ? [] : [[at, rounded(of(some))]];
      });
    const drawing = drawLines({
      title: `${TIMES} times the rate for ${OVERLOAD_S} s`,
      seconds: FALLS_AT_S + AFTER_S,
      moments: [
        { name: `${TIMES * RATE}/s`, at: BEFORE_S },
        { name: `${RATE / 2}/s`, at: FALLS_AT_S },
      ],
      panels: [
        {
          title: 'Answers of the intake',
          unit: 'a second',
          lines: [
            { name: '429', points: perSecond.map(({ at, turnedAway }) => [at, turnedAway]) },
            { name: '202', points: perSecond.map(({ at, accepted: count }) => [at, count]) },
          ],
        },
        {
          title: 'Settled by the provider before the deadline',
          unit: 'a second',
          mark: { name: `the rate, ${RATE}/s`, at: RATE },
          lines: [{ name: 'settled in time', points: settledPerSecond.map((count, at) => [at, count]) }],
        },
        {
          title: 'From the request to its result, of those accepted',
          unit: 'ms',
          mark: { name: 'the code dies', at: LIFETIME_MS },
          logarithmic: true,
          lines: [
            { name: 'median', points: bySecond((some) => quantile(some, 0.5)) },
            { name: 'p99', points: bySecond((some) => quantile(some, 0.99)) },
          ],
        },
      ],
    });
    writeFileSync(inProject('docs/images/overload.svg'), drawing);
    writeMeasured('docs/overload.md', [...lines, '', '![Answers, goodput and waiting over time](images/overload.svg)']);
  }
  return late.length + twice + without + others.length === 0 && share >= GOODPUT_AT_LEAST;
}

const cpuOf202 = await costOfAccepting();
process.exitCode = tell(cpuOf202, await run()) ? 0 : 1;
process.exit();
