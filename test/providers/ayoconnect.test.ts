import { generateKeyPairSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { ayoconnect, transactionSignature } from '../../src/providers/ayoconnect.ts';
import { Secret } from '../../src/secret.ts';
import { bind, build, loadFixture, type RequestCase, stampOf, tokenOf } from './fixture.ts';

const fixture = loadFixture('ayoconnect');
const bound = bind(ayoconnect, fixture);
const [ordinary] = fixture.requests as [RequestCase];
const params = ordinary.params as Record<string, unknown>;
const verify = ayoconnect.operations.verify;

describe('ayoconnect', () => {
  // Ayoconnect's own example, with its dummy values, from the specification of its e-wallet; it is printed in hex.
  // printf '%s' "POST:/api/v2/registration-account-binding:$token:$hash:$timestamp" | openssl dgst -sha512 -hmac $secret
  it('signs the published example as published', () => {
    const signed = {
      method: 'POST',
      path: '/api/v2/registration-account-binding',
      accessToken: 'ed8f7f42a6d741fbb891bae654e81678',
      timestamp: '2023-03-28T22:13:27+07:00',
      body: '{"partnerReferenceNo":"qic5taezfgta7yhn74u7cppr47wan027","authCode":"8ecx3bnfk9bu2o4y0z8ur8pfhH12eltF","merchantId":"AYOPOP"}',
    };
    const secret = new Secret('fceda4da-ae95-4d14-8cb6-eef392139a2c');
    expect(transactionSignature(secret, 'hex', signed)).toBe(
      '2e955289baf7f297dda75b830c00f15b81a71710c2d0a0bbdf5884ae15bf47bb46e627a0b25cff1c1da16c42682ec69945950a1b120b6be490a53b7d613cf7e4',
    );
    expect(transactionSignature(secret, 'base64', signed)).toBe(
      'LpVSibr38pfdp1uDDADxW4GnFxDC0KC731iErhW/R7tG5iegslz/HB2hbEJoLsaZRZUKGxILa+SQpTt9YTz35A==',
    );
  });

  it('writes the time in Jakarta, 25 characters, across midnight and at a full second', () => {
    for (const [now, timestamp] of [
      ['2025-12-31T17:00:00.000Z', '2026-01-01T00:00:00+07:00'],
      ['2025-12-31T16:59:59.999Z', '2025-12-31T23:59:59+07:00'],
    ] as const) {
      const { headers } = build(bound, ordinary, { ...stampOf(fixture), now: new Date(now) });
      expect(headers['X-TIMESTAMP']).toBe(timestamp);
    }
  });

  it('takes exactly one of authCode and customerAccessToken', () => {
    const { authCode, ...neither } = params;
    expect(verify?.params.safeParse({ ...neither, authCode }).success).toBe(true);
    expect(verify?.params.safeParse({ ...neither, customerAccessToken: 'x' }).success).toBe(true);
    expect(verify?.params.safeParse(neither).success).toBe(false);
    expect(verify?.params.safeParse({ ...neither, authCode, customerAccessToken: 'x' }).success).toBe(false);
  });

  it.each([
    ['originalReferenceNo', '0f1e2d3c4b5a69788796a5b4c3d2e1f'],
    ['originalReferenceNo', '0f1e2d3c4b5a69788796a5b4c3d2e1f00'],
    ['externalId', '0f1e2d3c-4b5a69788796a5b4c3d2e1f'],
    ['action', 'Payment'],
    ['authCode', 'short'],
    ['customerAccessToken', 'two\r\nlines'],
    ['additionalInfo', []],
    ['additionalInfo', { when: new Date(0) }],
    ['additionalInfo', { amount: Number.NaN }],
    ['additionalInfo', { a: { b: { c: { d: { e: { f: { g: { h: { i: 1 } } } } } } } } }],
    ['additionalInfo', { long: 'x'.repeat(4096) }],
  ])('refuses %s %j', (name, value) => {
    expect(verify?.params.safeParse({ ...params, [name]: value }).success).toBe(false);
  });

  it.each([
    ['originalReferenceNo', 'short', 'must be exactly 32 characters long'],
    ['authCode', 'short', 'must be exactly 32 characters long'],
    ['externalId', '0f1e2d3c-4b5a69788796a5b4c3d2e1f', 'must be exactly 32 letters and digits'],
    ['customerAccessToken', 'x', 'exactly one of authCode and customerAccessToken must be given'],
  ])('says of %s %j what is wanted', (name, value, wanted) => {
    const refused = verify?.params.safeParse({ ...params, [name]: value }).error;
    expect(refused?.issues.map(({ message }) => message)).toEqual([wanted]);
  });

  it('signs the path that the gateway checks, also where it has nothing in common with the one that is called', () => {
    const signaturePath = '/gateway/otp';
    const stamp = stampOf(fixture);
    const { headers, body = '' } = build(bind(ayoconnect, fixture, { options: { signaturePath } }), ordinary, stamp);
    const timestamp = headers['X-TIMESTAMP'] ?? '';
    const accessToken = stamp.tokens.b2bToken?.reveal() ?? '';
    const secret = new Secret(fixture.credentials.clientSecret ?? '');
    expect(headers['X-SIGNATURE']).toBe(
      transactionSignature(secret, 'hex', { method: 'POST', path: signaturePath, accessToken, timestamp, body }),
    );
  });

  it('takes a response code of another length for none', () => {
    const response = { status: 200, headers: {}, body: '{"responseCode":"20004000"}' };
    expect(bound.operations.verify?.interpret(response, 'x')).toMatchObject({
      kind: 'unknown',
      providerCode: 'HTTP_200',
    });
  });

  it.each([
    [401, '4010400', 'refused'],
    [500, '5000400', 'unknown'],
  ])('asks no Retry-After of %i %s, which throttles nobody', (status, responseCode, kind) => {
    const response = { status, headers: { 'retry-after': '7' }, body: JSON.stringify({ responseCode }) };
    const outcome = bound.operations.verify?.interpret(response, 'x');
    expect(outcome).toMatchObject({ kind, providerCode: responseCode });
    expect(outcome).not.toHaveProperty('retryAfterMs');
  });

  it.each(['0812345678', 'told to 99', '06 0812345678'])('shows nobody the status %j', (latestTransactionStatus) => {
    const body = JSON.stringify({ responseCode: '2005500', latestTransactionStatus });
    const subject = { reference: 'x', params: {} };
    expect(bound.inquiry?.interpret({ status: 200, headers: {}, body }, subject)).toEqual({
      kind: 'nothing',
      documented: false,
      providerCode: 'HTTP_200',
    });
  });

  it('asks for a customer token only where there is an authCode to ask with', () => {
    const { authCode: _, ...own } = params;
    expect(bound.operations.verify?.tokensNeedParams).toBe(true);
    expect(bound.operations.verify?.tokens(null)).toEqual(['b2bToken']);
    expect(bound.operations.verify?.tokens(params)).toEqual(['b2bToken', 'b2b2cToken']);
    expect(bound.operations.verify?.tokens({ ...own, customerAccessToken: 'x' })).toEqual(['b2bToken']);
    expect(tokenOf(bound, 'b2b2cToken').needs).toEqual(['b2bToken']);
    expect(bound.inquiry?.tokens).toEqual(['b2bToken']);
  });

  it('names a customer token by a hash, so that no key in Redis tells an authCode', () => {
    const { cacheKey } = tokenOf(bound, 'b2b2cToken');
    expect(cacheKey(params)).not.toContain(params.authCode);
    expect(cacheKey(params)).not.toBe(cacheKey({ ...params, authCode: 'x'.repeat(32) }));
  });

  it('has no inquiry for an unbinding', () => {
    const reference = ordinary.reference?.value ?? '';
    expect(bound.inquiry?.applies({ reference, params: { ...params, action: 'unbinding' } })).toBe(false);
    expect(bound.inquiry?.applies({ reference, params })).toBe(true);
  });

  it('checks the private key when the configuration is read', () => {
    const parse = (privateKey: string) => ayoconnect.credentials.safeParse({ ...fixture.credentials, privateKey });
    expect(parse(fixture.credentials.privateKey?.replaceAll('\n', '\\n') ?? '').success).toBe(true);
    expect(parse('').success).toBe(false);
    const elliptic = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    const refused = parse(elliptic.export({ type: 'pkcs8', format: 'pem' }).toString());
    expect(refused.success).toBe(false);
    expect(JSON.stringify(refused.error)).toContain('must be an unencrypted RSA private key in PEM form');
  });
});
