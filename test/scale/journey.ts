/** What a day brings, once through: every way in, every way out, and every page that somebody looks at meanwhile. */
import { expect, vi } from 'vitest';
import { bodyFor } from '../support/pipeline.ts';
import { otp } from '../support/service.ts';
import { CALLBACK_SECRET, type House } from './house.ts';

/** Verifies with all five providers and looks at everything; gives the ids. */
export async function journey(house: House): Promise<string[]> {
  const words = await Promise.all([
    house.verify(bodyFor('cepta', '123456')),
    house.verify(bodyFor('lipa-later', '123456')),
    house.verify(bodyFor('ayoconnect', '123456')),
    house.verify(bodyFor('hello-clever', '123456')),
    house.verify(bodyFor('beqelal', '123456')),
  ]);
  expect(words.map(({ otp }) => otp)).toEqual(Array.from(words, () => 'accepted'));

  // The library; the answer is lost, and an inquiry proves the payment.
  const byLibrary = await house.producer.enqueue(bodyFor('cepta', '800002'), { idempotencyKey: 'library-1' });
  const again = bodyFor('cepta', '123456');
  expect(await house.producer.enqueue(again, { idempotencyKey: 'library-2' })).toMatchObject({ repeated: false });
  const repeated = await house.producer.enqueue(again, { idempotencyKey: 'library-2' });
  expect(repeated).toMatchObject({ repeated: true });
  // An answer that is lost where nothing can be asked: a callback proves it.
  const amount = { value: '100.00', currency: 'ETB' };
  const lost = await house.verify({ ...bodyFor('beqelal', '800002'), amount });
  expect(lost).toMatchObject({ state: 'awaiting', otp: 'unknown' });
  const proof = { reference: lost.reference, status: 'PROCESSED', amount: amount.value, total_amount: amount.value };
  expect(await house.report(`beqelal/${CALLBACK_SECRET}`, proof)).toBe(200);

  const ids = [...words.map(({ id }) => id), byLibrary.id, repeated.id, lost.id];
  const last = await Promise.all(ids.map(async (id) => await house.until(id, ({ final }) => final)));
  const paid = last.filter(({ transaction }) => transaction === 'succeeded');
  expect(paid).toHaveLength(last.length - 1); // at LipaLater no money moves
  await vi.waitUntil(() => ids.every((id) => finalOf(house, id)), { timeout: 15_000 });

  const pages = ['/', '/review', '/audit', '/partitions/cepta', `/verifications/${ids[0]}`, '/board/', '/readyz'];
  for (const path of pages) expect(await house.page(path), path).toMatchObject({ status: 200 });
  const board = JSON.parse((await house.page('/board/api/queues')).text) as { queues: { name: string }[] };
  expect(board.queues.map(({ name }) => name)).toContain('otp-beqelal-callback');
  const whole = ['otp_redis_up 1', 'otp_scrape_incomplete 0', 'otp_workers{provider="cepta"} 1'];
  await vi.waitFor(
    async () => {
      const lines = (await house.page('/metrics')).text.split('\n');
      expect(lines).toEqual(expect.arrayContaining(whole));
    },
    { timeout: 15_000, interval: 200 },
  );
  return ids;
}

const finalOf = ({ results, webhooks }: House, id: string): boolean =>
  results.some(({ subject, data }) => subject === id && data.final) &&
  webhooks.some(({ json }) => json.subject === id && json.data.final);

/** What `otp doctor` finds, in a process of its own. */
export async function doctor({ file }: House): Promise<{ about: string; level: string; finding: string }[]> {
  const { output } = await otp(['doctor', '--config', file, '--json']);
  return output
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}
