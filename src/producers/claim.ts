/**
 * The claim on an idempotency key: who holds it, for which verification, and for how long. It is made before anything is
 * kept of a request, is done when the verification can be carried out, and ends some time after its verification has.
 */
import type { RedisConnection } from '../redis/connections.ts';
import type { Held } from '../redis/held.ts';
import { Script } from '../redis/script.ts';
import { answersIn, togetherOf } from '../redis/together.ts';
import { namesOf } from './job.ts';

/** A claim is taken over after this; a 409 therefore ends within 30 s even if the accepting process died. */
export const STALE_MS = 10_000;
/** A claim whose verification never came to be is forgotten after this. */
const UNFINISHED_MS = 7 * 24 * 3600 * 1_000;
/** An idempotency key outlives its verification's record by as long again, and by no more than this. */
const LONGEST_MARGIN_MS = 24 * 3600 * 1_000;

/** No window of `perMs` sees more than `max`. */
export interface RateLimit {
  readonly max: number;
  readonly perMs: number;
}

export interface Claim {
  readonly key: string;
  readonly client: string;
  /** What tells the same request from another one under the same key. */
  readonly fingerprint: string;
  /** The verification that it is for, if it is new. */
  readonly id: string;
  /** What the client may bring of new work; null: any number. */
  readonly rate: RateLimit | null;
}

/**
 * With the id of the verification that holds the key; with `limited`, the ms until a new claim may be made; with `resume`,
 * when it was claimed first, in Unix ms.
 */
export type Claimed =
  | [outcome: 'new' | 'in_progress' | 'done' | 'mismatch' | 'limited', id: string]
  | [outcome: 'resume', id: string, claimedAt: number];

/** A claim that was made, and the verification that it was made for. */
export interface ClaimMade {
  readonly key: string;
  readonly id: string;
}

const claimScript = Script.fromFiles(
  new URL('../redis/each.lua', import.meta.url),
  new URL('./claim.lua', import.meta.url),
);
const doneScript = Script.fromFiles(new URL('./claim-done.lua', import.meta.url));
const endsScript = Script.fromFiles(new URL('./claim-ends.lua', import.meta.url));

/**
 * Where replicas are waited for, a claim that they have not got is none: a failover would forget it, and the next request
 * under the key would claim it for another verification.
 * @throws Error when a claim was made and may not stay
 */
export async function claimIt(claim: Claim, { redis, held }: ClaimDependencies): Promise<Claimed> {
  const { client } = claim;
  const { max, perMs } = claim.rate ?? { max: 0, perMs: 0 };
  const claims = togetherOf<Claim, { claimed: Claimed; replicasMissing: number }>(
    held ?? redis,
    `claims of ${client}, ${max} in ${perMs} ms`,
    async (all) => {
      const keys: [string, ...string[]] = [namesOf(redis).clientRateKey(client), ...all.map(({ key }) => key)];
      const args = [STALE_MS, UNFINISHED_MS, max, perMs, ...all.flatMap(({ fingerprint, id }) => [fingerprint, id])];
      const { reply, replicasMissing } = held
        ? await held.write(claimScript, keys, args)
        : { reply: await claimScript.run(redis, keys, args), replicasMissing: 0 };
      return answersIn<Claimed>(reply).map((claimed) =>
        claimed instanceof Error ? claimed : { claimed, replicasMissing },
      );
    },
  );
  const { claimed, replicasMissing } = await claims.ask(claim);
  if (replicasMissing > 0 && (claimed[0] === 'new' || claimed[0] === 'resume'))
    throw new Error('too few replicas have the claim on the idempotency key');
  return claimed;
}

interface ClaimDependencies {
  readonly redis: RedisConnection;
  readonly held?: Pick<Held, 'write'> | undefined;
}

/** The verification is in the journal and its job in the queue: whoever repeats the request gets its answer. */
export async function claimDone(
  { key, id, client }: Pick<Claim, 'key' | 'id' | 'client'>,
  redis: RedisConnection,
): Promise<void> {
  const done = togetherOf<ClaimMade, true>(redis, `done by ${client}`, async (all) => {
    await claimsDone(all, redis);
    return all.map(() => true);
  });
  await done.ask({ key, id });
}

/** The same of several claims of one client. */
export async function claimsDone(all: readonly ClaimMade[], redis: RedisConnection): Promise<void> {
  await doneScript.run(
    redis,
    all.map(({ key }) => key),
    all.map(({ id }) => id),
  );
}

/** Their verifications, all of one client, have ended and are kept for `retentionMs`. */
export async function claimsEnd(all: readonly ClaimMade[], retentionMs: number, redis: RedisConnection): Promise<void> {
  const keptMs = retentionMs + Math.min(retentionMs, LONGEST_MARGIN_MS);
  await endsScript.run(
    redis,
    all.map(({ key }) => key),
    [keptMs, ...all.map(({ id }) => id)],
  );
}
