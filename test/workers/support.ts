/** Journals on a pipeline without workers, and the one check that must hold whenever nobody is writing. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { expect } from 'vitest';
import { EventBus } from '../../src/events.ts';
import { newRecords } from '../../src/producers/accept.ts';
import { newVerificationId, partitionKeys } from '../../src/producers/job.ts';
import { readRecord, type VerificationRecord } from '../../src/producers/record.ts';
import type { RedisConnection } from '../../src/redis/connections.ts';
import { Journal, type JournalSettings } from '../../src/workers/journal.ts';
import { Witness } from '../../src/workers/witness.ts';

/** `policy` is taken over by its parts. */
export type JournalChanges = Partial<Omit<JournalSettings, 'policy'>> & {
  readonly policy?: Partial<JournalSettings['policy']>;
};

export function journalOf(
  { redis }: { readonly redis: RedisConnection },
  changes: JournalChanges = {},
  worker: string = randomUUID(),
  events: EventBus = new EventBus(),
): Journal {
  const settings: JournalSettings = {
    partition: 'cepta',
    rateLimit: { max: 10_000, perMs: 1_000 },
    inquiryRateLimit: { max: 10_000, perMs: 1_000 },
    timeoutMs: 2_000,
    retentionMs: 3_600_000,
    lossWindowMs: 2_000,
    recoverMs: 500,
    ...changes,
    policy: {
      effect: 'money',
      canInquire: () => true,
      maxAttempts: 3,
      inquiry: { delaysMs: [10_000, 20_000, 30_000], giveUpAfterMs: 3_600_000 },
      ...changes.policy,
    },
  };
  return new Journal(redis, settings, new Witness(redis, settings, worker, events), events);
}

/** What waits to be forwarded: the fields of each entry, and those of the record that it carries. */
export async function outboxOf(redis: RedisConnection, partition = 'cepta'): Promise<Record<string, string>[]> {
  return (await redis.xrange(partitionKeys(partition).outbox, '-', '+')).map(([, flat]) => {
    const fields: Record<string, string> = {};
    for (let at = 0; at + 1 < flat.length; at += 2) fields[flat[at] as string] = flat[at + 1] as string;
    const { record = '{}', ...entry } = fields;
    return { ...entry, ...(JSON.parse(record) as Record<string, string>) };
  });
}

async function recordsOf(redis: RedisConnection, partition = 'cepta'): Promise<VerificationRecord[]> {
  const { prefix } = partitionKeys(partition);
  const found = await redis.keys(`${prefix}:v:*`);
  const records = await Promise.all(
    found.map(async (key) => readRecord(key.slice(`${prefix}:v:`.length), partition, await redis.hgetall(key))),
  );
  return records.filter((record) => record !== null);
}

/** Due, awaiting and review say exactly what the records say, and a code that cannot be sent any more is gone. */
export async function expectSetsToAgree(redis: RedisConnection, partition = 'cepta'): Promise<void> {
  const keys = partitionKeys(partition);
  const records = await recordsOf(redis, partition);
  const idsOf = (is: (record: VerificationRecord) => boolean): string[] =>
    records
      .filter(is)
      .map(({ id }) => id)
      .sort();
  const membersOf = async (key: string): Promise<string[]> => (await redis.zrange(key, '0', '-1')).sort();
  expect(await membersOf(keys.due)).toEqual(idsOf(({ state }) => state !== 'settled'));
  expect(await membersOf(keys.awaiting)).toEqual(idsOf(({ state }) => state === 'awaiting'));
  expect(await membersOf(keys.review)).toEqual(idsOf(({ needsReview }) => needsReview));
  for (const record of records) {
    const sendable = record.state === 'queued' || record.state === 'sending';
    expect(record.sealedCode === null, `the sealed code of a record that is ${record.state}`).toBe(!sendable);
    expect(record.final).toBe(record.state === 'settled');
    expect(record.token === null && record.owner === null).toBe(record.state !== 'sending');
  }
}

export interface Seed {
  readonly id?: string;
  readonly reference?: string;
  /** Equal codes have equal prints; '' for an operation that takes no code. */
  readonly codePrint?: string;
  readonly lifetimeMs?: number;
  readonly operation?: string;
  readonly partition?: string;
}

/** A queued verification as acceptance writes it, without a job and with something sealed that nobody opens. */
export async function seed(redis: RedisConnection, given: Seed = {}): Promise<string> {
  const {
    reference = randomUUID(),
    codePrint = 'print',
    lifetimeMs = 60_000,
    operation = 'verify',
    partition = 'cepta',
    id = newVerificationId(partition),
  } = given;
  const fields = {
    v: '1',
    operation,
    client: 'shop',
    reference,
    head: JSON.stringify({ metadata: { orderId: 'A-17' }, amount: null, plainParams: { transactionRef: reference } }),
    code: 'sealed',
    codePrint,
    claim: '{idem-shop}:claim',
  };
  await newRecords(redis, partition).ask({ id, lifetimeMs, expiresAt: null, fields });
  return id;
}

export const BEGIN_SCRIPT = new URL('../../src/workers/begin.lua', import.meta.url);

/** What begin.lua, or `script` in its place, says to a worker of the test's own that asks with this token. */
export async function askToBegin(
  redis: RedisConnection,
  id: string,
  token: string,
  script = readFileSync(BEGIN_SCRIPT, 'utf8'),
): Promise<unknown[]> {
  const { due, rate, heartbeat, epoch, workers, breaker, slowed, prefix, record } = partitionKeys('cepta');
  const shared = ['server', 'hash', 'each'].map((name) =>
    readFileSync(new URL(`../../src/redis/${name}.lua`, import.meta.url), 'utf8'),
  );
  const keys = [due, rate, heartbeat('me'), epoch, workers, breaker, slowed, record(id)];
  const args = [prefix, 'me', 4_000, 12_000, 10, 1_000, 3, 6_000, '', '', id, token];
  const reply = await redis.eval([...shared, script].join('\n'), keys.length, ...keys, ...args);
  return JSON.parse(String(reply))[0];
}
