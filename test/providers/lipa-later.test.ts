import { describe, expect, it } from 'vitest';
import { lipaLater } from '../../src/providers/lipa-later.ts';
import { bind, loadFixture } from './fixture.ts';

const bound = bind(lipaLater, loadFixture('lipa-later'));
const { verify, send } = lipaLater.operations;
const known = { id_number: '28374650', phone_number: '+254712000111' };
const person = { first_name: 'Ada', last_name: 'Wanjiru', country_code: 'KE', date_of_birth: '11/08/1990' };

describe('lipa-later', () => {
  it('moves no money, so it has nothing to inquire about', () => {
    expect(bound.effect).toBe('none');
    expect(bound.inquiry).toBeNull();
    expect(bound.operations.verify?.tokens(null)).toEqual(['token']);
    expect(bound.operations.send?.tokens(null)).toEqual(['token']);
  });

  it('gives send and verify of one customer one reference, however the phone is written', () => {
    const references = ['+254712000111', '254712000111'].flatMap((phone_number) => [
      send?.reference({ ...known, phone_number }),
      verify?.reference({ ...known, phone_number, item_value: '10000' }),
    ]);
    expect(new Set(references.map((one) => JSON.stringify(one))).size).toBe(1);
    expect(references[0]?.personal).toBe(true);
  });

  it.each(['0712000111', '+0712000111', '+254 712 000111', '254-712', '+', '', '2547120001112223'])(
    'refuses the phone %j',
    (phone_number) => {
      expect(send?.params.safeParse({ ...known, phone_number }).success).toBe(false);
    },
  );

  it('says of a parameter what is wanted', () => {
    const said = (operation: typeof send | typeof verify, params: Record<string, unknown>) =>
      operation?.params.safeParse(params).error?.issues.map(({ message }) => message);
    expect(said(send, { ...known, phone_number: '0712000111' })).toEqual(['must be in E.164, like +254712345678']);
    expect(said(verify, { ...known, item_value: '1,000' })).toEqual(['must be a decimal number written as a string']);
    expect(said(send, { ...known, first_name: 'Ada' })).toEqual([
      'a new customer needs all of first_name, last_name, country_code, date_of_birth, a known one none of them',
    ]);
  });

  it('takes no word about credit for a refusal of the lender, except at 402 and 403', () => {
    for (const status of [400, 404]) {
      const body = JSON.stringify({ title: 'Not enough credit', status });
      expect(bound.operations.verify?.interpret({ status, headers: {}, body }, '')).toMatchObject({
        kind: 'rejected',
        reason: null,
      });
    }
  });

  it('takes a code for sent only where the answer says so in words', () => {
    const body = JSON.stringify({ status: 200, data: { otp: '123456' } });
    expect(bound.operations.send?.interpret({ status: 200, headers: {}, body }, '')).toMatchObject({
      kind: 'unknown',
      documented: false,
    });
  });

  it('knows a new customer by all four fields, a known one by none', () => {
    expect(send?.params.safeParse(known).success).toBe(true);
    expect(send?.params.safeParse({ ...known, ...person }).success).toBe(true);
    const { last_name: _, ...incomplete } = person;
    expect(send?.params.safeParse({ ...known, ...incomplete }).success).toBe(false);
  });

  it.each(['10000', '10000.50'])('takes the item value %j', (item_value) => {
    expect(verify?.params.safeParse({ ...known, item_value }).success).toBe(true);
  });

  it.each([10000, '', '-1', '1,000', '1e3', 'NaN'])('refuses the item value %j', (item_value) => {
    expect(verify?.params.safeParse({ ...known, item_value }).success).toBe(false);
  });
});
