import { describe, expect, it } from 'vitest';
import { cepta } from '../../src/providers/cepta.ts';
import { bind, loadFixture, stampOf } from './fixture.ts';

const fixture = loadFixture('cepta');
const bound = bind(cepta, fixture);
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

  it.each([
    [400, 'INVALID_REQUEST', { kind: 'refused', cause: 'request' }, true],
    [401, 'UNAUTHORIZED', { kind: 'refused', cause: 'credentials' }, true],
    [403, 'INVALID_OTP', { kind: 'rejected', reason: 'wrong_code' }, false],
    [404, 'TRANSACTION_NOT_FOUND', { kind: 'rejected', reason: 'unknown_reference' }, true],
    [404, 'NOT FOUND', { kind: 'unknown', reason: 'misconfigured', documented: true }, true],
    [429, 'TOO MANY REQUESTS', { kind: 'refused', cause: 'throttled' }, true],
    [429, 'TOO_MANY_REQUESTS', { kind: 'refused', cause: 'throttled' }, true],
    [500, 'INTERNAL_SERVER_ERROR', { kind: 'unknown', reason: 'no_answer', documented: true }, true],
  ])('knows %i %s wherever an answer may name its error', (status, word, outcome, inquiryToo) => {
    const errors = [{ errorCode: word }];
    const places = [{ errors }, { data: { errors } }, { errorCode: word }, { code: word }, { error: word }];
    for (const place of [...places, { message: word }]) {
      const response = { status, headers: {}, body: JSON.stringify({ status: false, ...place }) };
      expect(bound.operations.verify?.interpret(response, 'TX-1')).toMatchObject(outcome);
      expect(bound.inquiry?.interpret(response, { reference: 'TX-1', params: {} })).toMatchObject({
        kind: 'nothing',
        documented: inquiryToo,
      });
    }
  });

  it.each([
    ['a yes without its data', 200, { status: true }],
    ['a yes whose data say another code', 200, { status: true, data: { responseCode: '05' } }],
    ['a yes beside a wrong code', 403, { status: true, errors: [{ errorCode: 'INVALID_OTP' }] }],
    ['the code of success beside a wrong code', 403, { data: { responseCode: '00' }, code: 'INVALID_OTP' }],
    ['a wrong code with HTTP 200 and no status', 200, { errorCode: 'INVALID_OTP' }],
    ['two errors at once', 403, { errorCode: 'INVALID_OTP', code: 'UNAUTHORIZED' }],
  ])('takes %s for neither yes nor no', (_, status, json) => {
    const response = { status, headers: {}, body: JSON.stringify(json) };
    expect(bound.operations.verify?.interpret(response, 'TX-1')).toMatchObject({ kind: 'unknown', documented: false });
  });

  it.each([
    [12, { transaction: 'pending', attemptsRemaining: 12 }],
    ['0', { transaction: 'failed', attemptsRemaining: 0, nextStep: 'new_transaction' }],
    ['x0', { transaction: 'pending' }],
    ['0x', { transaction: 'pending' }],
    [-1, { transaction: 'pending' }],
    [1000, { transaction: 'pending' }],
    [null, { transaction: 'pending' }],
  ])('takes an otpRetryCount of %j for %j', (otpRetryCount, told) => {
    const body = JSON.stringify({ status: false, otpRetryCount, errorCode: 'INVALID_OTP' });
    expect(bound.operations.verify?.interpret({ status: 403, headers: {}, body }, 'TX-1')).toEqual({
      kind: 'rejected',
      reason: 'wrong_code',
      providerCode: 'INVALID_OTP',
      ...told,
    });
  });

  it('asks by TransactionRef at another path as well', () => {
    const { inquiry } = bind(cepta, fixture, { options: { paths: { inquiry: '/v2/status' } } });
    const request = inquiry?.buildRequest({ reference: 'TX 1', params: {} }, stampOf(fixture));
    expect(request?.url).toBe(`${fixture.baseUrl}/v2/status?TransactionRef=TX%201`);
  });

  it('takes either scheme of authentication and no other', () => {
    const parse = (authScheme: string) => cepta.options.safeParse({ authScheme }).success;
    expect(['secret', 'hmac', 'none', ''].map(parse)).toEqual([true, true, false, false]);
  });

  it('sends null for what the purchase did not give', () => {
    expect(cepta.operations.verify?.params.parse({ transactionRef: 'TX12345ABC' })).toEqual({
      transactionRef: 'TX12345ABC',
      paymentId: null,
      md: null,
    });
  });
});
