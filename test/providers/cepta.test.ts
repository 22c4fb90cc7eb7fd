import { describe, expect, it } from 'vitest';
import { cepta } from '../../src/providers/cepta.ts';
import { bind, loadFixture } from './fixture.ts';

const fixture = loadFixture('cepta');
const { accessKey: _, ...withoutAccessKey } = fixture.credentials;

describe('cepta', () => {
  it('does not start signing without an access key, and names the key to change', () => {
    const given = { ...fixture, credentials: withoutAccessKey };
    expect(() => bind(cepta, given, { options: { authScheme: 'hmac' } })).toThrow(
      'cepta: credentials.accessKey is required when options.authScheme is hmac',
    );
    expect(() => bind(cepta, given)).not.toThrow();
  });

  it('names its account by merchant, else access key, else a hash of the secret key', () => {
    const account = (credentials: Record<string, string>) => cepta.account(cepta.credentials.parse(credentials));
    expect(account(fixture.credentials)).toBe('example-merchant');
    expect(account({ secretKey: 'example-secret', accessKey: 'example-access-key' })).toBe('example-access-key');
    // printf '%s' example-secret | sha256sum
    expect(account({ secretKey: 'example-secret' })).toBe('key-7fccb1e7c6b6');
  });

  it('sends null for what the purchase did not give', () => {
    expect(cepta.operations.verify?.params.parse({ transactionRef: 'TX12345ABC' })).toEqual({
      transactionRef: 'TX12345ABC',
      paymentId: null,
      md: null,
    });
  });
});
