/**
 * What does sealing and opening one code cost, by jose, by node:crypto, and with an ephemeral key that is reused?
 * `npx tsx bench/sealing.ts [rounds]`: the ways take turns, A B C A B C, so that a machine that is busy for a while is busy
 * for all of them; each number is the median over the rounds. The processor's time is counted beside the clock's, because
 * jose works on other threads too, and because it says more on a machine that others use.
 */
import { createPrivateKey } from 'node:crypto';
import { cpus } from 'node:os';
import Table from 'cli-table3';
import { RememberingDecrypter, ReusingEncrypter } from '../src/producers/ecdh-es.ts';
import { generateSealingKey, Opener, Sealer, type SealingKey, type SealingKeySet } from '../src/producers/sealing.ts';

const ROUNDS = Number(process.argv[2] ?? 15);
const PER_ROUND = 1_000;

const key = (await generateSealingKey('bench')) as SealingKey;
const keySet: SealingKeySet = { keys: [key] };
const privateKey = createPrivateKey({ format: 'jwk', key: { kty: key.kty, crv: key.crv, x: key.x, d: key.d ?? '' } });
const code = {
  id: 'cepta_019f3c5a7b1e7d3a9c4e5f60718293a4',
  partition: 'cepta',
  otp: '012345',
  params: { transactionRef: 'TX12345ABC', paymentId: 'PAY12345XYZ', md: 'merchant_data' },
};

type Way = (texts: readonly string[]) => Promise<unknown>;

const jose = await Sealer.create(keySet);
const fresh = new ReusingEncrypter(key, { forMs: 3_600_000, messages: 1 });
const reused = await Sealer.create(keySet, { reuseEphemeralKey: { forMs: 60_000, messages: 2 ** 20 } });
const joseOpener = await Opener.create(keySet);

const seal: Record<string, Way> = {
  'jose, a new key each': async (texts) => {
    for (const _ of texts) await jose.seal(code);
  },
  'node:crypto, a new key each': async (texts) => {
    for (const _ of texts) fresh.encrypt(new TextEncoder().encode(JSON.stringify(code)));
  },
  'reused ephemeral key': async (texts) => {
    for (const _ of texts) await reused.seal(code);
  },
};
const open: Record<string, Way> = {
  'jose, a new key each': async (texts) => {
    for (const text of texts) await joseOpener.open(text);
  },
  'node:crypto, a new key each': async (texts) => {
    const decrypter = new RememberingDecrypter(new Map([['bench', privateKey]]), 1);
    for (const text of texts) JSON.parse(decrypter.decrypt(text).toString());
  },
  'reused ephemeral key, remembered': async (texts) => {
    const opener = await Opener.create(keySet, { rememberDerivedKeys: true });
    for (const text of texts) await opener.open(text);
  },
  'reused ephemeral key, by jose': async (texts) => {
    for (const text of texts) await joseOpener.open(text);
  },
};

const many = async (one: () => Promise<string>): Promise<string[]> =>
  await Promise.all(Array.from({ length: PER_ROUND }, one));
const freshTexts = await many(async () => await jose.seal(code));
const reusedTexts = await many(async () => await reused.seal(code));

const sealed = await compare(seal, () => freshTexts);
const opened = await compare(open, (name) => (name.startsWith('reused') ? reusedTexts : freshTexts));

const table = new Table({
  head: ['', 'µs each', 'µs of processor', 'jose / this'],
  style: { head: [], border: [], compact: true },
});
for (const [what, costs] of [['seal', sealed] as const, ['open', opened] as const]) {
  const ofJose = median(costs[0]?.cpu ?? []);
  for (const { name, wall, cpu } of costs) {
    const shown = [median(wall), median(cpu), ofJose / median(cpu)].map((value) => value.toFixed(1));
    table.push([`${what}: ${name}`, ...shown]);
  }
}
console.log(table.toString());
console.log(
  `${ROUNDS} rounds of ${PER_ROUND}, one at a time; Node ${process.version}, ${cpus()[0]?.model}; ` +
    `a sealed code is ${freshTexts[0]?.length} characters`,
);

interface Costs {
  readonly name: string;
  /** µs per text, one number a round. */
  readonly wall: number[];
  readonly cpu: number[];
}

async function compare(
  ways: Readonly<Record<string, Way>>,
  textsFor: (name: string) => readonly string[],
): Promise<Costs[]> {
  const costs = Object.keys(ways).map((name): Costs => ({ name, wall: [], cpu: [] }));
  for (let round = -1; round < ROUNDS; round += 1) {
    for (const { name, wall, cpu } of costs) {
      const texts = textsFor(name);
      const [startedAt, used] = [performance.now(), process.cpuUsage()];
      await ways[name]?.(texts);
      const { user, system } = process.cpuUsage(used);
      if (round < 0) continue; // the first one warms up
      wall.push(((performance.now() - startedAt) * 1_000) / texts.length);
      cpu.push((user + system) / texts.length);
    }
  }
  return costs;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
