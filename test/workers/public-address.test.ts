/** What a webhook may reach: every range by table, and every way around it on real sockets. */
import type { LookupAddress } from 'node:dns';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Agent, Pool } from 'undici';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { AddressGuard, type AddressGuardSettings, kindOf } from '../../src/workers/public-address.ts';

describe('an address is', () => {
  /** The first and the last of each range, and its neighbours outside where they are of another kind. */
  test.each([
    ['loopback', '127.0.0.0', '127.0.0.1', '127.255.255.255', '::1', '0:0:0:0:0:0:0:1'],
    ['private', '10.0.0.0', '10.255.255.255', '172.16.0.0', '172.31.255.255', '192.168.0.0', '192.168.255.255'],
    ['private', '100.64.0.0', '100.127.255.255', 'fc00::', 'fd00:ec2::254', 'fdff:ffff:ffff:ffff::1'],
    ['link-local', '169.254.0.0', '169.254.169.254', '169.254.255.255', 'fe80::', 'fe80::1%lo', 'febf:ffff::'],
    ['reserved', '0.0.0.0', '0.255.255.255', '192.0.0.0', '192.0.0.255', '192.88.99.0', '192.88.99.255'],
    ['reserved', '192.0.2.0', '192.0.2.255', '198.51.100.0', '198.51.100.255', '203.0.113.0', '203.0.113.255'],
    ['reserved', '198.18.0.0', '198.19.255.255', '224.0.0.0', '239.255.255.255', '240.0.0.0', '255.255.255.255'],
    ['reserved', '::', '::2', '100::1', '1fff:ffff::', '4000::', '5f00::1', 'fbff::1', 'fec0::1', 'ff02::1'],
    ['reserved', '2001::', '2001:0:7f00:1::', '2001:2::1', '2001:20::1', '2001:1ff:ffff::', '2001:db8::1', '3fff::1'],
    ['reserved', '2002::', '2002:7f00:1::', '2002:a9fe:a9fe::1', '2002:808:808::1', '2002:ffff:ffff::'],
    ['reserved', '64:ff9b:1::a00:1', '64:ff9a:ffff::', '::127.0.0.1', '::ffff:0:127.0.0.1', '::8.8.8.8'],
    ['reserved', '', 'localhost', '127.1', '0x7f000001', '2130706433', '1.2.3.4.5', '[::1]', '10.0.0.0/8'],
    ['public', '1.0.0.0', '9.255.255.255', '11.0.0.0', '100.63.255.255', '100.128.0.0', '126.255.255.255', '128.0.0.0'],
    ['public', '169.253.255.255', '169.255.0.0', '172.15.255.255', '172.32.0.0', '192.167.255.255', '192.169.0.0'],
    ['public', '192.0.1.0', '192.0.3.0', '192.88.98.255', '192.88.100.0', '198.17.255.255', '198.20.0.0'],
    ['public', '198.51.99.255', '198.51.101.0', '203.0.112.255', '203.0.114.0', '223.255.255.255', '8.8.8.8'],
    ['public', '2000::', '2001:200::1', '2001:db7:ffff::', '2001:db9::', '2003::', '2606:4700::1111', '3ffe:ffff::'],
    ['public', '::ffff:8.8.8.8', '::ffff:808:808', '64:ff9b::8.8.8.8', '64:ff9b::808:808'],
  ])('%s: %s %s %s %s', (kind, ...addresses) => {
    expect(addresses.map((address) => `${address} ${kindOf(address)}`)).toEqual(
      addresses.map((address) => `${address} ${kind}`),
    );
  });

  test.each(['::ffff:', '64:ff9b::', '0:0:0:0:0:FFFF:', '64:FF9B:0:0:0:0:'])('what it is behind %s too', (prefix) => {
    const inside = [
      ...['127.0.0.1', '10.1.2.3', '172.16.0.1', '192.168.1.1', '100.64.0.1', '169.254.169.254', '0.0.0.0'],
      ...[
        '192.0.0.1',
        '192.0.2.1',
        '192.88.99.1',
        '198.18.0.1',
        '198.51.100.1',
        '203.0.113.1',
        '224.0.0.1',
        '240.0.0.1',
      ],
    ];
    for (const address of inside) {
      expect([address, kindOf(`${prefix}${address}`)]).toEqual([address, kindOf(address)]);
      expect(kindOf(address)).not.toBe('public');
    }
  });
});

/** Listens on every address of this machine and keeps by which one it was reached. */
let server: Server;
let port: number;
const reached: string[] = [];
const pools: { destroy(): Promise<unknown> }[] = [];

beforeAll(async () => {
  server = createServer((_, response) => response.setHeader('connection', 'close').end('inside'));
  server.on('connection', (socket) => reached.push(socket.localAddress ?? ''));
  await new Promise<void>((resolve) => server.listen(0, '0.0.0.0', resolve));
  ({ port } = server.address() as AddressInfo);
});
afterEach(async () => {
  reached.length = 0;
  for (const pool of pools.splice(0)) await pool.destroy();
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

/** A guard whose names lead to what the test says, one answer after the other; the last one stays. */
function guarded(settings: AddressGuardSettings, ...answers: (readonly string[])[]) {
  const asked: string[] = [];
  const guard = new AddressGuard({
    resolve: (hostname, _, callback) => {
      const answer = answers[Math.min(asked.length, answers.length - 1)] ?? [];
      asked.push(hostname);
      callback(
        null,
        answer.map((address): LookupAddress => ({ address, family: address.includes(':') ? 6 : 4 })),
      );
    },
    ...settings,
  });
  return { guard, asked };
}

/** The status of the answer, or the code of what prevented it. */
async function outcomeOf(guard: AddressGuard, host: string, scheme = 'http'): Promise<number | string> {
  const pool = new Pool(`${scheme}://${host}:${port}`, { connect: guard.connector({ timeoutMs: 1_000 }) });
  pools.push(pool);
  try {
    const { statusCode, body } = await pool.request({ path: '/', method: 'POST', body: '{}' });
    await body.dump();
    return statusCode;
  } catch (error) {
    return (error as { code: string }).code;
  }
}

describe('a connection', () => {
  test.each([
    ['this machine', '127.0.0.1'],
    ['this machine by another number', '127.0.0.2'],
    ['this machine as 0.0.0.0', '0.0.0.0'],
    ['this machine in IPv6', '::1'],
    ['this machine, mapped into IPv6', '::ffff:127.0.0.1'],
    ['a private network', '10.0.0.1'],
    ['a metadata service', '169.254.169.254'],
  ])('is not made where a public name leads to %s', async (_, address) => {
    const { guard, asked } = guarded({}, [address]);
    expect(await outcomeOf(guard, 'hooks.example')).toBe('ADDRESS_REFUSED');
    expect(await outcomeOf(guard, 'hooks.example', 'https')).toBe('ADDRESS_REFUSED');
    expect(asked).toEqual(['hooks.example', 'hooks.example']);
    expect(reached).toEqual([]);
  });

  test('is not made where only one of several addresses is inside', async () => {
    for (const answer of [
      ['192.0.46.9', '127.0.0.1'],
      ['127.0.0.1', '192.0.46.9'],
      ['2606:4700::1111', '::1'],
    ]) {
      expect(await outcomeOf(guarded({}, answer).guard, 'hooks.example')).toBe('ADDRESS_REFUSED');
    }
    expect(reached).toEqual([]);
  });

  test('goes where its one resolution said, and each further one is judged anew', async () => {
    // 127.0.0.1 stands for the world outside, 127.0.0.2 for what is inside.
    const { guard, asked } = guarded({ allow: ['127.0.0.1'] }, ['127.0.0.1'], ['127.0.0.2']);
    const pool = new Pool(`http://hooks.example:${port}`, { connect: guard.connector(), connections: 1 });
    pools.push(pool);
    const { body } = await pool.request({ path: '/', method: 'POST' });
    await body.dump();
    expect([asked.length, reached]).toEqual([1, ['127.0.0.1']]);
    await expect(pool.request({ path: '/', method: 'POST' })).rejects.toMatchObject({ code: 'ADDRESS_REFUSED' });
    expect([asked.length, reached]).toEqual([2, ['127.0.0.1']]);
  });

  test.each([
    ...['127.0.0.1', '127.1', '2130706433', '0x7f000001', '0x7f.0.0.1', '0177.0.0.1', '017700000001', '127.0.0.1.'],
    ...['0', '0.0.0.0', '[::1]', '[::]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[0:0:0:0:0:ffff:127.0.0.1]'],
    ...['１２７.0.0.1', '①②⑦.⓪.⓪.①', '%31%32%37.0.0.1', '169.254.169.254', '0xa9fea9fe', '[64:ff9b::a9fe:a9fe]'],
  ])('is not made to the address %s, and no name is asked for', async (host) => {
    const { guard, asked } = guarded({}, ['8.8.8.8']);
    expect(await outcomeOf(guard, new URL(`http://${host}/`).hostname)).toBe('ADDRESS_REFUSED');
    expect(await outcomeOf(guard, new URL(`https://${host}/`).hostname, 'https')).toBe('ADDRESS_REFUSED');
    expect([asked, reached]).toEqual([[], []]);
  });

  test('is not made to localhost and its like, resolved as the system does', async () => {
    for (const host of ['localhost', 'LOCALHOST']) {
      expect(await outcomeOf(new AddressGuard(), host)).toBe('ADDRESS_REFUSED');
    }
    expect(reached).toEqual([]);
  });

  test('fails as it would without a guard where a name leads nowhere', async () => {
    expect(await outcomeOf(new AddressGuard(), 'no-such-host.invalid')).toMatch(/^(ENOTFOUND|EAI_AGAIN)$/);
  });

  test('of an agent that is redirected inside is not made', async () => {
    const { guard } = guarded({ allow: ['127.0.0.1'] }, ['127.0.0.1']);
    const agent = new Agent({ connect: guard.connector() });
    pools.push(agent);
    const ask = async (host: string) =>
      await agent.request({ origin: `http://${host}:${port}`, path: '/', method: 'GET' });
    await (await ask('hooks.example')).body.dump();
    await expect(ask('127.0.0.2')).rejects.toMatchObject({ code: 'ADDRESS_REFUSED' });
    expect(reached).toEqual(['127.0.0.1']);
  });
});

describe('the configuration', () => {
  test.each([
    ['an address', '127.0.0.1'],
    ['a range', '127.0.0.0/8'],
    ['everything', '0.0.0.0/0'],
  ])('allows %s, by name and by number', async (_, entry) => {
    for (const host of ['hooks.example', '127.0.0.1', '[::ffff:127.0.0.1]']) {
      expect(await outcomeOf(guarded({ allow: [entry] }, ['127.0.0.1']).guard, host)).toBe(200);
    }
    const { guard } = guarded({ allow: [entry] }, ['10.0.0.1']);
    if (entry !== '0.0.0.0/0') expect(await outcomeOf(guard, 'hooks.example')).toBe('ADDRESS_REFUSED');
  });

  test('allows IPv6 addresses and ranges', () => {
    const { guard } = guarded({ allow: ['fd00:1::/32', 'fd00:2::2'] });
    const refused = ['fd00:1::1', 'fd00:2::2', 'fd00:2::3', '::1'].map((each) => guard.refusal(each, each));
    expect(refused).toEqual([null, null, 'fd00:2::3 is private', '::1 is loopback']);
  });

  test('lets a host it names be in a private network, and nowhere else that is not public', () => {
    const { guard } = guarded({ allow: ['Hooks.Internal'] });
    for (const address of ['10.0.0.1', '100.64.0.1', 'fd00::1', '::ffff:192.168.0.1', '8.8.8.8']) {
      expect([address, guard.refusal('hooks.internal', address)]).toEqual([address, null]);
    }
    for (const address of ['127.0.0.1', '::1', '169.254.169.254', '0.0.0.0', '224.0.0.1']) {
      expect([address, guard.refusal('hooks.internal', address)]).not.toEqual([address, null]);
    }
    for (const host of ['other.internal', 'a.hooks.internal', 'hooks.internal.', 'internal', '10.0.0.1']) {
      expect(guard.refusal(host, '10.0.0.1')).toContain('private');
    }
  });

  test('lets its own URLs name this machine outright', async () => {
    const urls = [`http://127.0.0.1:${port}/hook`, `http://localhost:${port}/hook`];
    const { guard } = guarded({ configuredUrls: urls }, ['127.0.0.1']);
    expect(await outcomeOf(guard, '127.0.0.1')).toBe(200);
    expect(await outcomeOf(guard, 'localhost')).toBe(200);
    expect(await outcomeOf(guard, '127.0.0.2')).toBe('ADDRESS_REFUSED');
    expect(await outcomeOf(guard, 'hooks.example')).toBe('ADDRESS_REFUSED');
    const v6 = new AddressGuard({ configuredUrls: ['http://[::1]/'] });
    expect([v6.refusal('::1', '::1'), v6.refusal('127.0.0.1', '127.0.0.1')]).toEqual([null, '127.0.0.1 is loopback']);
  });

  test('does not let its own URLs reach this machine by a name, or anything else inside by its address', async () => {
    const urls = [`http://hooks.example:${port}/`, 'https://10.0.0.1/', 'https://169.254.169.254/'];
    const { guard } = guarded({ configuredUrls: urls }, ['127.0.0.1']);
    expect(await outcomeOf(guard, 'hooks.example')).toBe('ADDRESS_REFUSED');
    expect(await outcomeOf(guard, '10.0.0.1')).toBe('ADDRESS_REFUSED');
    expect(await outcomeOf(guard, '169.254.169.254')).toBe('ADDRESS_REFUSED');
    const local = guarded({ configuredUrls: ['http://localhost/'] }, ['10.0.0.1']);
    expect(await outcomeOf(local.guard, 'localhost')).toBe('ADDRESS_REFUSED');
    expect(reached).toEqual([]);
  });
});

test('a refusal says what leads where, for whoever has to allow it', () => {
  const guard = new AddressGuard();
  expect(guard.refusal('hooks.example', '10.0.0.1')).toBe('hooks.example leads to 10.0.0.1, which is private');
  expect(guard.refusal('169.254.169.254', '169.254.169.254')).toBe('169.254.169.254 is link-local');
});
