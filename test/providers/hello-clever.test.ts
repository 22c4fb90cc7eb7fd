import { describe, expect, it } from 'vitest';
import { helloClever } from '../../src/providers/hello-clever.ts';
import { bind, loadFixture } from './fixture.ts';

const fixture = loadFixture('hello-clever');
const subject = { reference: 'P-1', params: {} };
const asked = (status: number, json: unknown) =>
  bind(helloClever, fixture).inquiry?.interpret({ status, headers: {}, body: JSON.stringify(json) }, subject);

describe('hello-clever', () => {
  it.each([
    ['no amount paid', { total: '100.00' }],
    ['no total', { paid_amount: '100.00' }],
    ['neither', {}],
    ['an amount paid that is no decimal', { paid_amount: '1,000', total: '100.00' }],
    ['a total that is no decimal', { paid_amount: '100.00', total: 'one hundred' }],
  ])('takes "received" with %s for no proof of payment', (_, amounts) => {
    const finding = asked(200, { uuid: 'P-1', status: 'received', ...amounts });
    expect(finding).toEqual({ kind: 'nothing', documented: false, providerCode: 'received' });
  });

  it('knows a 401 to an inquiry only by REQUIRE_LOGIN', () => {
    const finding = asked(401, { errors: { code: 'TOKEN_EXPIRED' } });
    expect(finding).toEqual({ kind: 'nothing', documented: false, providerCode: 'HTTP_401' });
  });
});
