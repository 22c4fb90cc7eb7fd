import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { observe } from '../../src/metrics/observe.ts';
import { createMetrics } from '../../src/metrics/registry.ts';
import { startSandbox } from '../../src/sandbox/index.ts';
import { startPipeline } from '../support/pipeline.ts';

it('whoever guesses codes spends the budget of the transaction, and is counted for whoever watches', async () => {
  await using sandbox = await startSandbox({ settleAfterMs: 0 });
  const { baseUrl, credentials } = sandbox.providers.cepta;
  await using pipeline = await startPipeline({ cepta: { baseUrl, credentials, settings: { maxAttempts: 2 } } });
  const registry = new Registry();
  const partition = { name: 'cepta', operations: ['verify'], effect: 'money', inquires: true } as const;
  observe(pipeline.events, createMetrics(registry, { ofTheProcess: false }), { partitions: [partition] });
  const spent = async (): Promise<string | undefined> =>
    (await registry.metrics()).match(/^otp_attempt_budget_spent_total\{provider="cepta"\} (\d+)$/m)?.[1];
  expect(await spent()).toBe('0');

  const reasons: (string | null)[] = [];
  for (const otp of WRONG) {
    const params = { transactionRef: 'TXGUESSED', paymentId: 'PAY1', md: 'data' };
    const { reason } = await pipeline.final(await pipeline.enqueue({ provider: 'cepta', otp, params }));
    reasons.push(reason);
  }
  expect(reasons).toEqual(['wrong_code', 'wrong_code', 'budget_spent', 'budget_spent', 'budget_spent']);
  expect(await spent()).toBe('3');
  expect(sandbox.ledger.transactions()).toMatchObject([{ codesReceived: WRONG.slice(0, 2), charges: 0 }]);
});

// The first two are wrong to the sandbox; the right one comes too late.
const WRONG = ['400001', '400007', '123001', '123002', '123456'];
