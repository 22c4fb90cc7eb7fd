/** Where a configuration lets calls and webhooks go. */
import { describe, expect, it } from 'vitest';
import { AddressGuard } from '../../src/workers/public-address.ts';
import { Transport } from '../../src/workers/transport.ts';
import { acme, faultsOf, load, minimal } from './world.ts';

describe('results.webhookAllow', () => {
  it('takes host names, addresses and ranges, and every one is understood by the guard', () => {
    const webhookAllow = [
      ...['hooks.internal', 'Hooks-2.Internal', 'hooks', 'localhost', '127.0.0.1', '10.0.0.0/8', '0.0.0.0/0'],
      ...['::1', 'fd00::/8', '2001:db8::1/128', '::ffff:10.0.0.1'],
    ];
    const { results } = load(minimal({ results: { webhookAllow } }));
    expect(results.webhookAllow).toEqual(webhookAllow);
    expect(new AddressGuard({ allow: results.webhookAllow }).refusal('fd00::1', 'fd00::1')).toBeNull();
  });

  it.each([
    ...['10.0.0.0/33', '10.0.0.0/', '10.0.0.0/8/8', '10.0.0/8', '10.0.0.256', '10.1', '0x7f000001', 'fd00::/129'],
    ...['[::1]', 'hooks.internal:443', 'https://hooks.internal', '*.internal', 'hooks internal', 'fe80::1%lo', ''],
  ])('does not take %j', (entry) => {
    const [fault] = faultsOf(minimal({ results: { webhookAllow: [entry] } }));
    expect(fault).toMatch(
      /^results\.webhookAllow\[0\]: must be a host name, an address or a range of addresses such as 10\.0\.0\.0\/8, got /,
    );
  });
});

describe('providers.<partition>.proxy', () => {
  const withProxy = (proxy: unknown, more: object = {}) => minimal({ providers: { acme: acme({ proxy, ...more }) } });

  it('is a secret, as it may hold a password', async () => {
    for (const url of ['http://proxy.internal:3128', 'http://otp:p%40ss@10.0.0.1:3128/', 'http://[fd00::1]']) {
      const [partition] = load(withProxy(url)).partitions;
      expect(partition?.proxy?.reveal()).toBe(url);
      expect(JSON.stringify(partition)).not.toContain('p%40ss');
      const proxy = partition?.proxy ? { proxy: partition.proxy } : {};
      await new Transport({ baseUrl: 'https://acme.example', connections: 1, timeoutMs: 1, ...proxy }).close();
    }
  });

  it.each([
    ...['proxy.internal:3128', 'https://proxy.internal', 'socks5://proxy.internal', 'http://canary%zz@proxy'],
    ...['http://proxy/canary', 'http://proxy?canary', 'http://proxy#canary', 'http://canary:canary@', ''],
  ])('does not take %j, nor repeat it', (proxy) => {
    const faults = faultsOf(withProxy(proxy));
    expect(faults).toEqual([
      expect.stringMatching(
        /^providers\.acme\.proxy: must be http:\/\/host:port, with user:password@ before the host where the proxy asks/,
      ),
    ]);
    expect(faults.join()).not.toMatch(/canary|internal/);
  });

  it.each(['http://127.0.0.1:8080', ' http://localhost'])('does not go with the base URL %j', (baseUrl) => {
    expect(faultsOf(withProxy('http://proxy:3128', { baseUrl }))).toEqual([
      'providers.acme.proxy: must go with an https:// baseUrl: the proxy would read the codes',
    ]);
  });
});
