/**
 * The way in, the same for the library, the HTTP intake and the command line:
 * claim the idempotency key -> seal -> journal: queued, due -> job into the partition's queue -> mark the claim done.
 * Every step repeats harmlessly; whoever finds a claim older than ten seconds finishes it under the same id.
 */
import { createHmac, hkdfSync } from 'node:crypto';
import type { Queue } from 'bullmq';
import stringify from 'safe-stable-stringify';
import type { EventBus } from '../events.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { Script } from '../redis/script.ts';
import type { Secret } from '../secret.ts';
import { claimKey, JOB_OPTIONS, newVerificationId, partitionKeys, type VerificationJob } from './job.ts';
import { type PartitionProfile, parseRequest, type VerificationRequest } from './request.ts';
import { type Sealer, sealCode } from './sealing.ts';

/** A claim is taken over after this; a 409 therefore ends within 30 s even if the accepting process died. */
const CLAIM_STALE_MS = 10_000;
/** A claim whose verification never came to be is forgotten after this; a finished one lives as long as its verification. */
const CLAIM_UNFINISHED_MS = 7 * 24 * 3600 * 1_000;
/** A job that no worker has seen by then is looked for by the sweeper. */
export const JOB_SEEN_WITHIN_MS = 5_000;

export interface AcceptingClient {
  readonly id: string;
  /** Fingerprints are keyed with it: a plain hash of a six-digit code would be the code. */
  readonly apiKey: Secret<string>;
}

export type Acceptance =
  | { readonly kind: 'accepted'; readonly id: string; readonly partition: string; readonly repeated: boolean }
  /** The same key with the same body is being accepted right now by somebody else. */
  | { readonly kind: 'in_progress' }
  /** The key was used for another body. */
  | { readonly kind: 'mismatch' }
  /** New work that could not be carried out before its deadline; nothing was kept of it. */
  | { readonly kind: 'backlogged'; readonly retryAfterMs: number };

export interface AcceptDependencies {
  readonly redis: RedisConnection;
  readonly sealer: Sealer;
  readonly events: EventBus;
  readonly partitions: ReadonlyMap<string, PartitionProfile>;
  /** The verification queue of a partition, on a connection that fails fast. */
  queue(partition: string): Queue<VerificationJob>;
  /** Why new work is turned away, or null. A repeated key gets its answer all the same. */
  turnAway?(request: VerificationRequest): Promise<{ readonly retryAfterMs: number } | null>;
}

const claimScript = Script.fromFiles(new URL('./claim.lua', import.meta.url));
const acceptScript = Script.fromFiles(new URL('./accept.lua', import.meta.url));

/**
 * @param body the request as parsed JSON; `idempotencyKey` 1 to 255 visible ASCII characters.
 * @throws InvalidRequestError when the body does not fit; Redis errors when it is not known whether it was accepted:
 * the same key repeated gives the one answer.
 */
export async function accept(
  client: AcceptingClient,
  idempotencyKey: string,
  body: unknown,
  deps: AcceptDependencies,
): Promise<Acceptance> {
  return await acceptParsed(client, idempotencyKey, body, parseRequest(body, deps.partitions), deps);
}

/** For a caller that has parsed the body already, to ask whether the partition is allowed and the backlog bearable. */
export async function acceptParsed(
  client: AcceptingClient,
  idempotencyKey: string,
  body: unknown,
  request: VerificationRequest,
  deps: AcceptDependencies,
): Promise<Acceptance> {
  const claim = claimKey(client.id, idempotencyKey);
  const turnedAway = (await deps.turnAway?.(request)) ?? null;
  if (turnedAway !== null && (await deps.redis.exists(claim)) === 0) {
    return { kind: 'backlogged', retryAfterMs: turnedAway.retryAfterMs };
  }
  const fingerprint = keyedHash(client.apiKey, 'request', stringify(body) ?? '');
  const [outcome, id] = (await claimScript.run(
    deps.redis,
    [claim],
    [fingerprint, newVerificationId(request.partition.name), CLAIM_STALE_MS, CLAIM_UNFINISHED_MS],
  )) as ['new' | 'resume' | 'in_progress' | 'done' | 'mismatch', string];
  switch (outcome) {
    case 'mismatch':
    case 'in_progress':
      return { kind: outcome };
    case 'done':
      return { kind: 'accepted', id, partition: request.partition.name, repeated: true };
    case 'new':
    case 'resume':
      await journal(client, claim, id, request, deps);
      return { kind: 'accepted', id, partition: request.partition.name, repeated: outcome === 'resume' };
  }
  outcome satisfies never;
  throw new Error('claim.lua answered with an outcome that is none of its own');
}

async function journal(
  client: AcceptingClient,
  claim: string,
  id: string,
  request: VerificationRequest,
  deps: AcceptDependencies,
): Promise<void> {
  const { name: partition, definition, otpLifetimeMs } = request.partition;
  const operation = definition.operations[request.operation];
  if (!operation) throw new Error(`${partition} has no operation ${request.operation}`); // parseRequest has asked already
  const keys = partitionKeys(partition);
  const reference = operation.reference(request.params);
  const plainParams = Object.fromEntries(operation.plainParams.map((name) => [name, request.params[name]]));
  const otp = request.otp?.reveal() ?? null;

  const fields = {
    v: '1',
    operation: request.operation,
    client: client.id,
    reference: reference.personal ? keyedHash(client.apiKey, 'reference', reference.value) : reference.value,
    head: JSON.stringify({ metadata: request.metadata, amount: request.amount, plainParams }),
    code: await sealCode(deps.sealer, { id, partition, otp, params: { ...request.params } }),
    // Bound to the reference, so that equal codes of two customers do not look equal.
    codePrint: otp === null ? '' : keyedHash(client.apiKey, 'code', `${reference.value}|${otp}`),
    claim,
  };
  const [created] = (await acceptScript.run(
    deps.redis,
    [keys.record(id), keys.due],
    [id, otpLifetimeMs, request.expiresAt ?? '', JOB_SEEN_WITHIN_MS, ...Object.entries(fields).flat()],
  )) as [number, number];
  await deps.queue(partition).add(request.operation, { v: 1, id }, { ...JOB_OPTIONS, jobId: id });
  await deps.redis.persist(claim);
  await deps.redis.hset(claim, 'done', '1');
  if (created === 1) deps.events.emit('verification:accepted', { id, partition, operation: request.operation });
}

/** HMAC-SHA256 in base64url, 128 bits kept, under a key of its own per purpose, derived from the client's API key (RFC 5869). */
function keyedHash(apiKey: Secret<string>, purpose: 'request' | 'code' | 'reference', text: string): string {
  const key = Buffer.from(hkdfSync('sha256', apiKey.reveal(), '', `otp-pipeline ${purpose}`, 32));
  return createHmac('sha256', key).update(text).digest().subarray(0, 16).toString('base64url');
}
