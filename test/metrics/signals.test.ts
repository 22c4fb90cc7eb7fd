/** What only the wire can tell, on its way into a metric: real workers against providers that are simulated over HTTP. */
import { Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { collectClocks } from '../../src/metrics/clocks.ts';
import { observe } from '../../src/metrics/observe.ts';
import { createMetrics } from '../../src/metrics/registry.ts';
import { startSandbox } from '../../src/sandbox/index.ts';
import { bodyFor, type PartitionEntry, startPipeline } from '../support/pipeline.ts';

async function startObserved(partitions: Record<string, PartitionEntry>) {
  const pipeline = await startPipeline(partitions);
  const registry = new Registry();
  observe(pipeline.events, createMetrics(registry, { ofTheProcess: false }));
  collectClocks(registry, pipeline.events);
  return Object.assign(pipeline, {
    sample: async (series: string): Promise<number> =>
      Number(
        (await registry.metrics())
          .split('\n')
          .find((line) => line.startsWith(`${series} `))
          ?.slice(series.length),
      ),
  });
}

test('a provider whose clock is four minutes ahead is seen from its answers and from those of its token call', async () => {
  await using sandbox = await startSandbox({ settleAfterMs: 0, faults: 'clock_skew=240' });
  const { beqelal, 'lipa-later': lipaLater } = sandbox.providers;
  await using pipeline = await startObserved({ beqelal, 'lipa-later': lipaLater });
  const skewOf = async (provider: string) =>
    await pipeline.sample(`otp_provider_clock_skew_seconds{provider="${provider}"}`);

  await pipeline.final(await pipeline.enqueue(bodyFor('beqelal', '123456')));
  expect(await skewOf('beqelal')).toBeGreaterThan(235);
  expect(await skewOf('beqelal')).toBeLessThan(245);
  await pipeline.final(await pipeline.enqueue(bodyFor('lipa-later', '123456')));
  expect(pipeline.seen.filter(({ name }) => name === 'clock:told')).toHaveLength(3);
});

test('credentials that are not taken, and a token call that nobody answers', async () => {
  await using sandbox = await startSandbox({ settleAfterMs: 0 });
  const { baseUrl, credentials } = sandbox.providers['lipa-later'];
  await using pipeline = await startObserved({
    wrong: { adapter: 'lipa-later', baseUrl, credentials: { ...credentials, clientSecret: 'not the secret' } },
    'lipa-later': { baseUrl, credentials },
  });
  const failures = async (provider: string, cause: string) =>
    await pipeline.sample(`otp_token_failures_total{provider="${provider}",call="token",cause="${cause}"}`);

  const body = bodyFor('lipa-later', '123456');
  await pipeline.final(await pipeline.enqueue({ ...body, provider: 'wrong' }));
  expect(await failures('wrong', 'refused')).toBe(1);
  expect(
    await pipeline.sample(
      'otp_verifications_total{provider="wrong",operation="verify",otp="not_submitted",transaction="none",reason="misconfigured"}',
    ),
  ).toBe(1);

  await sandbox.takeDown('lipa-later');
  await pipeline.enqueue(body);
  await expect.poll(() => failures('lipa-later', 'unavailable'), { timeout: 10_000 }).toBeGreaterThanOrEqual(1);
  expect(await failures('lipa-later', 'refused')).toBeNaN();
});
