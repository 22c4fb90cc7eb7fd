/** One verification for the commands that are about one: read, and in words. */
import { partitionOf } from '../producers/job.ts';
import { readVerification } from '../producers/reading.ts';
import type { VerificationRecord } from '../producers/record.ts';
import { resourceOf, type VerificationResource } from '../producers/resource.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { CommandError, UsageError } from './command.ts';

/** @throws UsageError of what is no id, CommandError of one that is not there. */
export async function readExisting(redis: RedisConnection, id: string): Promise<VerificationRecord> {
  if (partitionOf(id) === null)
    throw new UsageError('an id looks like cepta_0197a3…: the partition, _ and 32 hex digits');
  const record = await readVerification(redis, id);
  if (!record) throw new CommandError(`${id}: there is no such verification, or its retention is over`);
  return record;
}

export async function readResource(redis: RedisConnection, id: string): Promise<VerificationResource> {
  return resourceOf(await readExisting(redis, id));
}

export function summaryLine({ id, state, otp, transaction, reason, nextStep }: VerificationResource): string {
  const words = [otp, transaction, reason, nextStep].filter((word) => word !== null).join(' / ');
  return `${id}  ${state}${words === '' ? '' : `  ${words}`}`;
}
