/** The life of a sealing key: made, staged, activated, retired; in files, on the command line and in running processes. */
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { describe, expect, test, vi } from 'vitest';
import { define } from '../../src/commands/keys.ts';
import {
  changeKeySet,
  KeyFileError,
  madeAt,
  newKey,
  readKeySet,
  readOrMakeKeySet,
  withActivated,
  withStaged,
  writeKeySet,
} from '../../src/key-files.ts';
import { callbackQueues } from '../../src/producers/callbacks.ts';
import { Opener, publicKeySet, Sealer, type SealingKeySet } from '../../src/producers/sealing.ts';
import { bodyFor, startPipeline } from '../support/pipeline.ts';
import { startTestRedis } from '../support/redis.ts';
import { otp } from '../support/service.ts';

interface Folder extends Disposable {
  readonly path: string;
  /** A key set with one key. */
  readonly file: string;
  read(): SealingKeySet;
}

async function folderWithKeys(): Promise<Folder> {
  const path = mkdtempSync(join(tmpdir(), 'otp-keys-'));
  const file = join(path, 'keys.json');
  writeKeySet(file, { keys: [await newKey('otp')] });
  return {
    ...{ path, file },
    read: () => readKeySet(file, 'sealing.keyFile'),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  };
}

/** `otp keys …` in this process, with what it printed. Without a URL no Redis is there, and asking it would be a fault. */
async function otpKeys(args: readonly string[], redisUrl = 'redis://127.0.0.1:1'): Promise<string> {
  const said: string[] = [];
  const log = vi.spyOn(console, 'log').mockImplementation((text: string) => said.push(text));
  vi.stubEnv('REDIS_URL', redisUrl);
  const keys = new Command('keys').exitOverride().configureOutput({ writeErr: () => {} });
  define(keys);
  try {
    await keys.parseAsync(args, { from: 'user' });
    return said.join('\n');
  } finally {
    log.mockRestore();
    vi.unstubAllEnvs();
  }
}

const kids = (keySet: SealingKeySet): string[] => keySet.keys.map(({ kid }) => kid);

test('a key set that cannot be made is told by its key and a code, not in the words of the file system', async () => {
  using folder = await folderWithKeys();
  const cannot = (file: string) => expect(readOrMakeKeySet(file, 'sealing.detailsKeyFile')).rejects;
  const inAFile = join(folder.file, 'details.json');
  await cannot(inAFile).toThrow(
    new KeyFileError(`sealing.detailsKeyFile: ${inAFile}: its folder cannot be made: EEXIST`),
  );
  const tooLong = join(folder.path, 'x'.repeat(300));
  await cannot(tooLong).toThrow(new KeyFileError(`sealing.detailsKeyFile: ${tooLong}: cannot be made: ENAMETOOLONG`));
});

describe('otp keys', () => {
  test('rotates in two steps: the new key opens everywhere before it seals anywhere', async () => {
    using folder = await folderWithKeys();
    const [old = ''] = kids(folder.read());
    const before = await (await Sealer.create(folder.read())).seal('before');

    const staged = JSON.parse(await otpKeys(['rotate', '--file', folder.file, '--json']));
    expect(staged).toEqual({ file: folder.file, added: expect.any(String), seals: old, opens: [old, staged.added] });
    expect(kids(folder.read())).toEqual([old, staged.added]);
    expect(JSON.parse(await otpKeys(['list', '--file', folder.file, '--json']))).toEqual([
      { kid: old, madeAt: expect.any(String), seals: true, opens: true, staged: false, retiredAt: null },
      { kid: staged.added, madeAt: expect.any(String), seals: false, opens: true, staged: true, retiredAt: null },
    ]);
    await expect(otpKeys(['rotate', '--file', folder.file])).rejects.toThrow(`${staged.added} is staged already`);

    const said = await otpKeys(['rotate', '--activate', '--file', folder.file]);
    expect(said).toContain(`otp keys retire ${old}`);
    expect(kids(folder.read())).toEqual([staged.added, old]);
    await expect(otpKeys(['rotate', '--activate', '--file', folder.file])).rejects.toThrow('no key is staged');

    const opener = await Opener.create(folder.read());
    const after = await (await Sealer.create(folder.read())).seal('after');
    expect([await opener.open(before), await opener.open(after)]).toEqual(['before', 'after']);
    const published = JSON.parse(await otpKeys(['public', '--file', folder.file])) as SealingKeySet;
    expect(kids(published)).toEqual([staged.added, old]);
    // As it may stand in a configuration, too: no private part, and nothing that a JWK elsewhere has not.
    for (const key of published.keys) expect(Object.keys(key).sort()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x']);
    await expect(otpKeys(['rotate', '--file', publicFile(folder)])).rejects.toThrow('this set has no private keys');
  });

  test('says who needs the file: of the details of results intakes open, and workers seal', async () => {
    using folder = await folderWithKeys();
    expect(await otpKeys(['rotate', '--file', folder.file])).toContain('this file to every worker');
    expect(await otpKeys(['rotate', '--activate', '--file', folder.file])).toContain('Give every producer');
    const details = `${folder.file}.details`;
    writeKeySet(details, { keys: [await newKey('details')] });
    expect(await otpKeys(['rotate', '--file', details])).toContain('this file to every intake');
    expect(await otpKeys(['rotate', '--activate', '--file', details])).toContain('Give every worker');
  });

  test('rotates at once where that was asked for, twice in a second too', async () => {
    using folder = await folderWithKeys();
    const [old = ''] = kids(folder.read());
    const first = JSON.parse(await otpKeys(['rotate', '--now', '--file', folder.file, '--json']));
    const second = JSON.parse(await otpKeys(['rotate', '--now', '--file', folder.file, '--json']));
    expect(kids(folder.read())).toEqual([second.added, first.added, old]);
    expect(new Set(kids(folder.read())).size).toBe(3);
    await expect(otpKeys(['rotate', '--now', '--activate', '--file', folder.file])).rejects.toThrow(
      'cannot be used with',
    );
  });

  test('rotates by a clock that is behind the one by which the key that seals was made', async () => {
    using folder = await folderWithKeys();
    const keySet = folder.read();
    const [key] = keySet.keys;
    const tomorrow = (Date.now() + 86_400_000) / 1_000;
    writeFileSync(folder.file, JSON.stringify({ ...keySet, keys: [{ ...key, iat: tomorrow }] }));
    const staged = JSON.parse(await otpKeys(['rotate', '--file', folder.file, '--json']));
    await otpKeys(['rotate', '--activate', '--file', folder.file]);
    expect(kids(folder.read())).toEqual([staged.added, key?.kid]);
  });

  test('retires a key: its private part is destroyed, also where the old file was, and its name is remembered', async () => {
    using folder = await folderWithKeys();
    const [oldKey] = folder.read().keys;
    const { kid: old = '', d = '' } = oldKey ?? {};
    const sealed = await (await Sealer.create(folder.read())).seal('code');
    await expect(otpKeys(['retire', old, '--file', folder.file])).rejects.toThrow(`${old} is the key that seals`);
    await expect(otpKeys(['retire', old, '--file', folder.file, '--force'])).rejects.toThrow('is the key that seals');
    await otpKeys(['rotate', '--now', '--file', folder.file]);

    const held = openSync(folder.file, 'r'); // what the disk keeps of the file that is replaced
    const { size } = statSync(folder.file);
    const said = await otpKeys(['retire', old, '--file', folder.file]);
    expect(said).toContain('What is still sealed to it was not looked for');
    const bytes = Buffer.alloc(size, 1);
    expect(readSync(held, bytes, 0, size, 0)).toBe(size);
    closeSync(held);
    expect(bytes.equals(Buffer.alloc(size))).toBe(true);

    expect(readFileSync(folder.file, 'utf8')).not.toContain(d);
    expect(statSync(folder.file).mode & 0o777).toBe(0o600);
    await expect((await Opener.create(folder.read())).open(sealed)).rejects.toThrow(`no key with kid ${old}`);
    expect(JSON.parse(await otpKeys(['list', '--file', folder.file, '--json']))[1]).toMatchObject({
      ...{ kid: old, seals: false, opens: false, staged: false },
      retiredAt: expect.stringMatching(/^\d{4}-/),
    });
    expect(await otpKeys(['list', '--file', folder.file])).toContain(' retired ');
    await expect(otpKeys(['retire', old, '--file', folder.file])).rejects.toThrow(`${old} was retired already`);
    await expect(otpKeys(['retire', 'nobody', '--file', folder.file])).rejects.toThrow('there is no key nobody here');
    expect(kids(JSON.parse(await otpKeys(['public', '--file', folder.file])))).not.toContain(old);
  });

  test('retires no key that alone opens a code or a callback, unless it is told to', async () => {
    using folder = await folderWithKeys();
    const keySet = folder.read();
    const [old = ''] = kids(keySet);
    await using pipeline = await startPipeline(
      { cepta: { baseUrl: 'http://127.0.0.1:1', credentials: { secretKey: 'key' } } },
      { workers: false, keySet },
    );
    const url = pipeline.server.url;
    const config = join(folder.path, 'otp.yaml');
    const cepta = { baseUrl: 'http://127.0.0.1:1', credentials: { secretKey: 'key' } };
    writeFileSync(config, JSON.stringify({ sealing: { keyFile: 'keys.json' }, providers: { cepta } }));
    const id = await pipeline.enqueue(bodyFor('cepta', '123456'));
    const callbacks = callbackQueues(pipeline.redis);
    const sealed = await pipeline.accepting.sealer.seal({ partition: 'cepta', body: '{}' });
    const job = await callbacks.queue('cepta').add('callback', { v: 1, receivedAt: 1, sealed }, { delay: 60_000 });
    await otpKeys(['rotate', '--now', '--config', config]);

    const retire = async (...more: string[]) => await otpKeys(['retire', old, '--config', config, ...more], url);
    await expect(retire()).rejects.toThrow(`${old} alone opens 1 codes that may yet be sent and 1 callbacks`);
    await job.remove();
    await expect(retire()).rejects.toThrow('1 codes that may yet be sent and 0 callbacks');
    expect(kids(folder.read())).toContain(old);

    // Its code is gone as soon as it cannot be sent any more.
    await pipeline.redis.hdel(`{otp-cepta}:v:${id}`, 'code');
    expect(JSON.parse(await retire('--json'))).toEqual({ file: folder.file, retired: old, searched: true });
    expect(kids(folder.read())).not.toContain(old);

    const [lost = ''] = kids(folder.read());
    await pipeline.redis.hset(`{otp-cepta}:v:${id}`, 'code', await (await Sealer.create(folder.read())).seal(1));
    await otpKeys(['rotate', '--now', '--config', config]);
    await expect(otpKeys(['retire', lost, '--config', config], url)).rejects.toThrow('1 codes');
    await otpKeys(['retire', lost, '--force', '--config', config]); // and Redis is not asked
    await callbacks.close();
  }, 30_000);

  test('says that nothing was looked for where another file than sealing.keyFile has the key', async () => {
    using folder = await folderWithKeys();
    await using server = await startTestRedis();
    const config = join(folder.path, 'otp.yaml');
    const cepta = { baseUrl: 'http://127.0.0.1:1', credentials: { secretKey: 'key' } };
    writeFileSync(config, JSON.stringify({ sealing: { keyFile: 'keys.json' }, providers: { cepta } }));
    const details = join(folder.path, 'details.json');
    const made = await Promise.all([0, 1, 2].map(async () => await newKey('details')));
    writeKeySet(details, { keys: made.map((key, index) => ({ ...key, kid: `details-${index}` })) });
    const retire = async (kid: string, ...more: string[]) =>
      await otpKeys(['retire', kid, '--config', config, ...more], server.url);

    expect(await retire('details-1', '--file', details)).toContain(
      'What is still sealed to it was not looked for: the configuration has another file as sealing.keyFile',
    );
    expect(JSON.parse(await retire('details-2', '--file', details, '--json'))).toMatchObject({ searched: false });

    const [old = ''] = kids(folder.read());
    await otpKeys(['rotate', '--now', '--config', config]);
    const link = join(folder.path, 'link.json');
    symlinkSync(folder.file, link);
    expect(JSON.parse(await retire(old, '--file', link, '--json'))).toMatchObject({ searched: true });
  }, 30_000);

  test('has --help and --json for each', async () => {
    const { output } = await otp(['keys', 'rotate', '--help']);
    expect(output).toMatch(/--activate[\s\S]*--json[\s\S]*In order, so that nobody seals to a key/);
    const keys = new Command('keys');
    define(keys);
    expect(keys.commands.map((command) => command.name())).toEqual([
      ...['generate', 'public', 'rotate', 'list', 'retire'],
      ...['api-key', 'password'],
    ]);
    for (const command of keys.commands) expect(command.helpInformation()).toContain('--json');
  }, 20_000);
});

function publicFile(folder: Folder): string {
  const file = join(folder.path, 'public.json');
  writeFileSync(file, JSON.stringify(publicKeySet(folder.read())));
  return file;
}

describe('a key file', () => {
  const KEY = 'sealing.keyFile';

  test('is changed by one command at a time, whole or not at all', async () => {
    using folder = await folderWithKeys();
    const untouched = readFileSync(folder.file, 'utf8');
    let release = (): void => {};
    const slow = changeKeySet(folder.file, KEY, async (keySet) => {
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      return withStaged(keySet, await newKey('otp'));
    });
    await expect(changeKeySet(folder.file, KEY, withActivated)).rejects.toThrow('another command is changing the keys');
    expect(readFileSync(folder.file, 'utf8')).toBe(untouched);
    expect(statSync(`${folder.file}.new`).mode & 0o777).toBe(0o600);
    release();
    await slow;
    expect(folder.read().keys).toHaveLength(2);
    expect(existsSync(`${folder.file}.new`)).toBe(false);

    const fails = (): never => {
      throw new Error('no');
    };
    await expect(changeKeySet(folder.file, KEY, fails)).rejects.toThrow('no');
    expect(existsSync(`${folder.file}.new`)).toBe(false);
    expect(folder.read().keys).toHaveLength(2);
  });

  test('that is a link stays one', async () => {
    using folder = await folderWithKeys();
    const link = join(folder.path, 'link.json');
    symlinkSync(folder.file, link);
    await changeKeySet(link, KEY, async (keySet) => withStaged(keySet, await newKey('otp')));
    expect(folder.read().keys).toHaveLength(2);
    expect(readKeySet(link, KEY).keys).toHaveLength(2);
  });

  test('says when each key was made, by its own word or by its name', async () => {
    const key = await newKey('otp');
    expect(Math.abs((madeAt(key) ?? 0) - Date.now())).toBeLessThan(60_000);
    expect(madeAt({ kid: 'otp-2026-11-21T22-05-00' })).toBe(Date.UTC(2026, 10, 21, 22, 5, 0));
    expect(madeAt({ kid: 'from-elsewhere' })).toBeNull();
  });
});
