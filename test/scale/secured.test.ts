/** A server that speaks TLS alone, asks for a client's certificate, and gives its user nothing but what the service needs. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { connectRedis, type RedisSettings } from '../../src/redis/connections.ts';
import { freePort, startRedisProcess } from '../../src/redis/process.ts';
import { startSandbox } from '../../src/sandbox/index.ts';
import { authority, hasOpenssl } from '../support/certificates.ts';
import { startHouse } from './house.ts';
import { journey } from './journey.ts';

/** As docs/redis.md has it. */
const ACL = 'user otp on >password-of-the-test ~{otp-* ~{idem-* ~otp-partitions &otp-published +@all -@dangerous +info';

test.skipIf(!hasOpenssl)(
  'TLS with an own authority and a client certificate, and a user by ACL',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'otp-secured-'));
    const file = (name: string, text: string): string => {
      writeFileSync(join(folder, name), text);
      return join(folder, name);
    };
    const ours = authority('ours');
    const caFile = file('ca.pem', ours.cert);
    const server = ours.issue('redis', 'IP:127.0.0.1');
    const client = ours.issue('otp', 'DNS:otp');
    const port = await freePort();
    const redis = await startRedisProcess({
      dir: folder,
      appendonly: true,
      configuration: [
        ...[`tls-port ${port}`, `tls-ca-cert-file ${caFile}`, 'tls-auth-clients yes'],
        ...[`tls-cert-file ${file('server.pem', server.cert)}`, `tls-key-file ${file('server.key', server.key)}`],
        ACL,
      ],
    });
    const tls = { caFile, certFile: file('otp.pem', client.cert), keyFile: file('otp.key', client.key) };
    const settings = { url: `rediss://127.0.0.1:${port}`, username: 'otp', password: 'password-of-the-test', tls };
    try {
      await using sandbox = await startSandbox({ settleAfterMs: 0 });
      await using house = await startHouse(settings, sandbox);
      await journey(house);
      expect(house.errors()).toEqual([]);

      expect(await refused({ ...settings, tls: { caFile } })).toMatch(
        /certificate required|closed|hang up|ECONNRESET/i,
      );
      const stranger = file('stranger.pem', authority('a stranger').cert);
      expect(await refused({ ...settings, tls: { ...tls, caFile: stranger } })).toMatch(/self-signed|unable to verify/);
      const wrong = await refused({ ...settings, password: 'another-password' });
      expect(wrong).toContain('WRONGPASS');
      expect(wrong).not.toContain('another-password');
    } finally {
      await redis.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  },
  60_000,
);

/** The first thing that such a connection complains of. */
async function refused(settings: RedisSettings): Promise<string> {
  return await new Promise((resolve) => {
    const connection = connectRedis(settings, 'console', {
      onError: (error) => {
        connection.disconnect();
        resolve(error.message);
      },
    });
  });
}
