/** How the fields of a record that hold more than one thing are written and read. */
import { describe, expect, test } from 'vitest';
import { type HistoryEntry, headText, historyLine, readRecord, standingText } from '../../src/producers/record.ts';

const RECORD = {
  ...{ v: '1', state: 'queued', operation: 'verify', client: 'shop', reference: 'TX1', revision: '1', sequence: '0' },
  ...{ createdAt: '1795291200000', updatedAt: '1795291200000', expiresAt: '1795291500000' },
};
const read = (fields: Record<string, string>) => readRecord('cepta_1', 'cepta', { ...RECORD, ...fields });

describe('the history', () => {
  test('is read as it was written, whatever a person has put into it', () => {
    const entries: HistoryEntry[] = [
      { at: 1_795_291_200_000, event: 'accepted' },
      { at: 1_795_291_200_012, event: 'begun', attempt: 1 },
      { at: 1_795_291_202_000, event: 'answered', attempt: 1, status: 200, code: 'say "no"', reason: null },
      { at: 1_795_291_203_000, event: 'resolved', by: 'अ ✓', note: 'a line\nand\u2028another\u2029{"at":1} 2 begun' },
    ];
    const history = entries
      .map(({ at, event, attempt = null, ...facts }) => historyLine(at, event, attempt, facts))
      .join('');
    expect(read({ history })?.history).toEqual(entries);
  });

  test('keeps its time, its event and its attempt, whatever a fact is called', () => {
    const history = historyLine(1_795_291_200_000, 'answered', 2, { at: 'never', event: 7, attempt: 'x', code: 'C' });
    expect(read({ history })?.history).toEqual([{ at: 1_795_291_200_000, event: 'answered', attempt: 2, code: 'C' }]);
  });
});

test('the head is read as it was written, and what a client left empty is not kept', () => {
  const full = {
    metadata: { orderId: 'A-17' },
    amount: { value: '100.00', currency: 'NGN' },
    plainParams: { transactionRef: 'TX1' },
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
  };
  expect(read({ head: headText(full) })).toMatchObject(full);
  const empty = { metadata: {}, amount: null, plainParams: {}, traceparent: null };
  expect(headText(empty)).toBe('{}');
  expect(read({ head: headText(empty) })).toMatchObject(empty);
});

test.each([
  [{ otp: 'accepted', transaction: 'succeeded', reason: null, nextStep: 'none', providerCode: '00' }, null],
  [{ otp: 'rejected', transaction: 'pending', reason: 'wrong_code', nextStep: 'reenter_code', providerCode: 'A B' }, 2],
  [{ otp: 'unknown', transaction: 'unknown', reason: 'no_answer', nextStep: 'wait', providerCode: null }, 0],
] as const)('the standing %j is read as it was written', (standing, attemptsRemaining) => {
  const record = read({ state: 'settled', standing: standingText(standing, attemptsRemaining) });
  expect(record).toMatchObject({ standing, attemptsRemaining, final: true });
});

test.each([
  ['standing', '{"otp":"accepted"}', 'its standing must be a list'],
  ['standing', 'canary', 'its standing must be JSON'],
  ['standing', '["canary","none",null,"none",null,null]', 'its standing.otp must be one of'],
  ['standing', '["accepted","none",null,"none",17,null]', 'its standing.providerCode must be a text'],
  ['standing', '["accepted","none",null,"none",null,"canary"]', 'its standing.attemptsRemaining must be a number'],
  ['history', 'canary\n', 'its history must be lines of'],
  ['history', '1795291200000 answered 1 {"canary"}\n', 'its history must be JSON'],
  ['history', '99999999999999999 accepted\n', 'its history must be lines of'],
  ['head', '[]', 'its head must be a JSON object'],
])('a %s that reads %s is refused, and its words go no further', (field, text, expected) => {
  const reading = (): unknown => read({ [field]: text });
  expect(reading).toThrow(expected);
  expect(reading).not.toThrow('canary');
});
