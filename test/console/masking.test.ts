import { describe, expect, it } from 'vitest';
import { createBodyMask } from '../../src/console/masking.ts';
import { newVerificationId } from '../../src/producers/job.ts';

const id = newVerificationId('cepta');
const mask = createBodyMask({ queues: ['otp-cepta'], partitions: ['cepta'] });
const maskedJob = (job: object) =>
  (mask('/api/queues/:queueName/:jobId', 200, { job, status: 'waiting' }) as { job: Record<string, unknown> }).job;

describe('what a response may show', () => {
  it('is nothing of a route that is not known', () => {
    expect(mask('/api/something/new', 200, { secret: '123456' })).toEqual({});
    expect(mask('/api/something/new', 200, '123456')).toBe('[masked]');
  });

  it('is nothing of a field that is not known', () => {
    expect(maskedJob({ id, inventedLater: '123456' })).toEqual({ id });
  });

  it('is the key of an error, never its words', () => {
    const body = {
      error: { key: 'ERRORS.INTERNAL_SERVER_ERROR', options: { of: '123456' } },
      message: '123456',
      details: 'at x',
    };
    expect(mask('', 500, body)).toEqual({ error: { key: 'ERRORS.INTERNAL_SERVER_ERROR' } });
  });

  it.each([
    ['a code as text', { otp: '012345' }, { otp: '[masked]' }],
    ['a code as a number', { otp: 12345 }, { otp: '[masked]' }],
    ['a code as a sequence', { sequence: 123456 }, { sequence: '[masked]' }],
    ['a telephone number as a moment', { receivedAt: 2_348_012_345_678 }, { receivedAt: null }],
    ['a code as the time', { time: '123456' }, { time: '[masked]' }],
    ['a code as a name', { 123456: true }, { '[masked]': '1 field' }],
    ['a code in a list', ['123456'], '[masked]'],
    ['a code alone', 123456, '[masked]'],
    [
      'an id of another partition',
      { subject: newVerificationId('bank') },
      { subject: expect.stringMatching(/^\[masked/) },
    ],
    [
      'outcomes',
      { otp: 'accepted', transaction: 'none', reason: null },
      { otp: 'accepted', transaction: 'none', reason: null },
    ],
    ['our own id', { v: 1, id }, { v: 1, id }],
    ['the prototype', JSON.parse('{"__proto__":{"x":1},"constructor":"y"}'), { '[masked]': '2 fields' }],
  ])('of a job that holds %s', (_what, data, shown) => {
    expect(maskedJob({ data }).data).toEqual(shown);
  });

  it('tells strangers apart without telling who they are', () => {
    const [one, again, other] = ['123456', '123456', '654321'].map((stranger) => maskedJob({ id: stranger }).id);
    expect(one).toBe(again);
    expect(one).not.toBe(other);
    const restarted = createBodyMask({ queues: [], partitions: [] });
    expect(restarted('/api/queues/:queueName/:jobId', 200, { job: { id: '123456' } })).not.toEqual({
      job: { id: one },
    });
  });
});
