/**
 * The relay: take rows under a lock -> admit each -> mark them done -> commit. Whatever ends a relay before the commit, the rows
 * are free again in that moment, and the next relay admits them once more under the ids they have had from the start.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Client, DatabaseError } from 'pg';
import { EventBus } from '../events.ts';
import { admit, type Draft } from '../producers/accept.ts';
import { producerQueues } from '../producers/queues.ts';
import type { Provider } from '../providers/provider.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { Held } from '../redis/held.ts';
import { within } from '../time-limit.ts';
import { draftIn, type StoredRow } from './row.ts';
import { MARK_DONE, MARK_REFUSED, TAKE } from './table.ts';

export interface RelayOptions {
  /** Has a password in it, so it is never shown. */
  readonly databaseUrl: string;
  /** Of the `producer` profile; it belongs to the caller. */
  readonly redis: RedisConnection;
  /** As `journal.waitReplicas` and `journal.waitMs`. */
  readonly waitReplicas: number | 'auto';
  readonly waitMs: number;
  /** The partitions that workers carry out, and what each offers. */
  readonly partitions: ReadonlyMap<string, Pick<Provider, 'operations'>>;
  /** The clients that may ask, with the partitions they may use; all of them when undefined. */
  readonly clients: ReadonlyMap<string, readonly string[] | undefined>;
  /** How long to wait when there was nothing to do. */
  readonly pollMs: number;
  readonly batchSize: number;
  readonly onRelayed?: (row: string, verification: string) => void;
  readonly onRefused?: (row: string, problem: string) => void;
  /** What delays the relay and mends itself: the database or Redis is away. */
  readonly onError?: (error: Error) => void;
}

/** What waiting does not mend: a table that is not there, rights that are missing. */
export class OutboxError extends Error {
  override readonly name = 'OutboxError';
}

const REDIS_LIMIT_MS = 5_000;
const CONNECT_LIMIT_MS = 5_000;
const STATEMENT_LIMIT_MS = 10_000;
/** A relay that was stopped by its machine lets go of its rows after this. */
const HELD_LIMIT_MS = 30_000;
const LONGEST_BACKOFF_MS = 5_000;

type Decision =
  | { readonly row: string; readonly verification: string }
  | { readonly row: string; readonly problem: string }
  /** To be tried again: somebody else is accepting it, or it is not known what became of it. */
  | { readonly row: string; readonly later: Error | null };

/**
 * Relays until the signal is given, and ends the batch it has in hand.
 * @throws OutboxError
 */
export async function relayOutbox(options: RelayOptions, signal: AbortSignal): Promise<void> {
  const queues = producerQueues(options.redis);
  const { redis, waitReplicas, waitMs } = options;
  const held = new Held({ redis, waitReplicas, waitMs, onError: () => {} });
  const admitting = { redis, events: new EventBus(), queue: queues.queue, held };
  let failures = 0;
  try {
    while (!signal.aborted) {
      try {
        const database = await connectTo(options.databaseUrl);
        try {
          while (!signal.aborted) {
            const decisions = await relayBatch(database, admitting, options);
            const failed = decisions.find((one) => 'later' in one && one.later !== null);
            if (failed && 'later' in failed && failed.later) throw failed.later;
            failures = 0;
            if (decisions.every((one) => 'later' in one)) await pause(options.pollMs, signal);
          }
        } finally {
          // A batch that failed half-way is rolled back by the end of its connection.
          await within(CONNECT_LIMIT_MS, database.end()).catch(() => {});
        }
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        const fatal = faultOf(error);
        if (fatal) throw fatal;
        options.onError?.(error);
        failures += 1;
        await pause(Math.min(LONGEST_BACKOFF_MS, 100 * 2 ** failures) * (0.5 + Math.random() / 2), signal);
      }
    }
  } finally {
    held.close();
    await queues.close().catch(() => {});
  }
}

async function connectTo(connectionString: string): Promise<Client> {
  const database = new Client({
    connectionString,
    application_name: 'otp-outbox',
    connectionTimeoutMillis: CONNECT_LIMIT_MS,
    query_timeout: STATEMENT_LIMIT_MS,
    idle_in_transaction_session_timeout: HELD_LIMIT_MS,
    keepAlive: true,
  });
  database.on('error', () => {}); // the next statement says it
  await database.connect();
  return database;
}

async function relayBatch(
  database: Client,
  admitting: Parameters<typeof admit>[3],
  options: RelayOptions,
): Promise<readonly Decision[]> {
  await database.query('BEGIN');
  const { rows } = await database.query<StoredRow>(TAKE, [options.batchSize]);
  const decisions = await Promise.all(rows.map(async (row) => await relayRow(row, admitting, options)));
  const done = decisions.filter((one) => 'verification' in one);
  const refused = decisions.filter((one) => 'problem' in one);
  if (done.length > 0) {
    await database.query(MARK_DONE, [done.map(({ row }) => row), done.map(({ verification }) => verification)]);
  }
  if (refused.length > 0) {
    await database.query(MARK_REFUSED, [refused.map(({ row }) => row), refused.map(({ problem }) => problem)]);
  }
  await database.query('COMMIT');
  for (const { row, verification } of done) options.onRelayed?.(row, verification);
  for (const { row, problem } of refused) options.onRefused?.(row, problem);
  return decisions;
}

async function relayRow(
  row: StoredRow,
  admitting: Parameters<typeof admit>[3],
  { partitions, clients }: RelayOptions,
): Promise<Decision> {
  const asked = draftIn(row);
  if ('problem' in asked) return { row: row.id, problem: asked.problem };
  const { draft, fingerprint } = asked;
  const problem = refusalOf(draft, partitions, clients);
  if (problem !== null) return { row: row.id, problem };
  try {
    const admission = await within(REDIS_LIMIT_MS, admit(draft, row.idempotency_key, fingerprint, admitting));
    switch (admission.kind) {
      case 'accepted':
        return { row: row.id, verification: admission.id };
      case 'in_progress':
        return { row: row.id, later: null };
      case 'mismatch':
        return { row: row.id, problem: 'idempotency_key: was used for another request' };
      case 'unfinished':
        return {
          row: row.id,
          problem: `idempotency_key: was used for ${admission.id} in another way than this table, which did not finish; repeat it there`,
        };
    }
    return admission satisfies never;
  } catch (error) {
    return { row: row.id, later: error instanceof Error ? error : new Error('what was thrown is no Error') };
  }
}

/** Why the service carries this out never, as it is configured; it names the key to change. */
function refusalOf(
  { client, partition, operation, codePrint }: Pick<Draft, 'client' | 'partition' | 'operation' | 'codePrint'>,
  partitions: RelayOptions['partitions'],
  clients: RelayOptions['clients'],
): string | null {
  const offered = partitions.get(partition);
  if (!offered) return `providers.${partition}: is not configured; there are ${[...partitions.keys()].join(', ')}`;
  if (!Object.hasOwn(offered.operations, operation)) {
    return `request.operation: ${partition} offers only ${Object.keys(offered.operations).join(', ')}`;
  }
  // Without it nobody would know which code it is, nor that it takes one.
  if (offered.operations[operation]?.takesOtp !== (codePrint !== '')) {
    return `request.codePrint: ${codePrint === '' ? `is missing: ${operation} takes a code` : `${operation} takes no code`}`;
  }
  if (!clients.has(client)) return 'clients: has none with the id in the column client';
  if (clients.get(client)?.includes(partition) === false) return `clients: ${client} may not use ${partition}`;
  return null;
}

/** By SQLSTATE: rights and passwords (28), a database that is not there (3D), a table or column that is not there (42). */
function faultOf(error: Error): OutboxError | null {
  if (error instanceof OutboxError) return error;
  if (!(error instanceof DatabaseError) || !/^(28|3D|42)/.test(error.code ?? '')) return null;
  const hint = error.code === '42P01' ? '; `otp outbox --print-table` prints it' : '';
  return new OutboxError(`--database: ${error.message}${hint}`);
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => {});
}
