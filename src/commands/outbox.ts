/** `otp outbox`: relays a table of the user's own PostgreSQL into the queues; docs/outbox.md tells of it. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { loadConfig } from '../config.ts';
import { connectRedis } from '../redis/connections.ts';
import { addExamples, configOption, jsonOption, printJson, UsageError, untilStopped, withRedis } from './command.ts';

interface Options {
  database?: string;
  config?: string;
  pollMs: number;
  batch: number;
  json?: boolean;
  printTable?: boolean;
}

export function define(outbox: Command): void {
  outbox
    .addOption(
      new Option('--database <url>', 'postgres://…, the database that has the table otp_outbox').env(
        'OTP_OUTBOX_DATABASE_URL',
      ),
    )
    .addOption(configOption())
    .option('--print-table', 'prints the SQL that makes the table, and ends')
    .option('--poll-ms <ms>', 'how long to wait when there is nothing to relay', parseCount, 200)
    .option('--batch <rows>', 'rows in one transaction', parseCount, 50)
    .addOption(jsonOption('one JSON document per line, and one for each row'))
    .action(async (options: Options) => {
      if (options.printTable) {
        const { OUTBOX_TABLE } = await import('../outbox/table.ts');
        process.stdout.write(OUTBOX_TABLE);
      } else await relay(options);
    });
  addExamples(
    outbox,
    'otp outbox --print-table | psql "$OTP_OUTBOX_DATABASE_URL"',
    'otp outbox --config otp.yaml --json',
  );
}

async function relay({ database, config: file, pollMs, batch, json }: Options): Promise<void> {
  const databaseUrl = checkedUrl(database);
  const config = loadConfig({ file });
  const { relayOutbox } = await import('../outbox/relay.ts');
  const said = new Set<string>();
  await withRedis(config, async (_, settings) => {
    const redis = connectRedis(settings, 'producer', { onError: () => {}, name: 'otp-outbox' });
    const stop = new AbortController();
    let count = 0;
    const relaying = relayOutbox(
      {
        ...{ databaseUrl, redis, pollMs, batchSize: batch },
        ...{ waitReplicas: config.journal.waitReplicas, waitMs: config.journal.waitMs },
        partitions: new Map(config.partitions.map(({ name, definition }) => [name, definition])),
        clients: new Map(config.clients.map(({ id, providers }) => [id, providers])),
        onRelayed: (row, verification) => {
          count += 1;
          said.clear();
          if (json) printJson({ row, verification });
        },
        onRefused: (row, problem) => {
          if (json) printJson({ row, problem });
          else console.error(`otp: row ${row} is refused: ${problem}`);
        },
        onError: ({ message }) => {
          if (!said.has(message)) console.error(`otp: it is tried again: ${message}`); // once until something is relayed
          said.add(message);
        },
      },
      stop.signal,
    );
    if (json) printJson({ ready: true });
    try {
      const stopped = untilStopped(async () => stop.abort());
      await Promise.race([relaying, stopped.then(async () => await relaying)]);
      if (!json) console.log(`${count} ${count === 1 ? 'row was' : 'rows were'} relayed`);
    } finally {
      redis.disconnect();
    }
  });
}

/** The URL has a password in it, so no fault repeats it. */
function checkedUrl(database: string | undefined): string {
  if (database === undefined || database === '') {
    throw new UsageError('--database: is required (or OTP_OUTBOX_DATABASE_URL)');
  }
  if (!/^postgres(ql)?:\/\//.test(database) || !URL.canParse(database)) {
    throw new UsageError('--database: must be a URL like postgres://user:password@host:5432/database');
  }
  return database;
}

function parseCount(text: string): number {
  const count = Number(text);
  if (!(Number.isInteger(count) && count > 0)) throw new InvalidArgumentError('must be a whole number above 0.');
  return count;
}
