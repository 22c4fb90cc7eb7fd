/** The API's descriptions: valid by the judgement of a linter, and true to what the service accepts. */
import { createConfig, lintFromString } from '@redocly/openapi-core';
import { expect, test } from 'vitest';
import { asyncApi } from '../../src/producers/asyncapi.ts';
import { openApi } from '../../src/producers/openapi.ts';
import type { PartitionProfile } from '../../src/producers/request.ts';
import { providers } from '../../src/providers/index.ts';

const partitions: PartitionProfile[] = Object.entries(providers).map(([name, definition]) => ({
  name,
  definition,
  otpLifetimeMs: 300_000,
}));

async function faultsOf(document: unknown): Promise<string[]> {
  const config = await createConfig({ extends: ['recommended'], rules: { 'operation-4xx-response': 'off' } });
  const found = await lintFromString({ source: JSON.stringify(document), config });
  return found.map(({ ruleId, message, location }) => `${ruleId} ${location[0]?.pointer ?? ''}: ${message}`);
}

test('the OpenAPI document of all providers has no fault', async () => {
  expect(await faultsOf(openApi(partitions, '1.0.0'))).toEqual([]);
});

test('partitions whose names differ by a dash are described apart', () => {
  const [first] = partitions as [PartitionProfile];
  const named = ['kenya-1', 'kenya1', 'ken-ya1', '1-kenya'].map((name) => ({ ...first, name }));
  const bodies = (given: PartitionProfile[]): number => {
    const { components } = openApi(given, '1.0.0') as { components: { schemas: object } };
    return Object.keys(components.schemas).length;
  };
  const shared = bodies([]);
  expect(bodies(named) - shared).toBe(4 * (bodies([first]) - shared));
});

test('the AsyncAPI document has no fault', async () => {
  expect(
    await faultsOf(
      asyncApi(
        partitions.map(({ name }) => name),
        '1.0.0',
      ),
    ),
  ).toEqual([]);
});

test('the linter finds a fault where there is one', async () => {
  const { paths: _, ...broken } = openApi(partitions, '1.0.0') as Record<string, unknown>;
  expect(await faultsOf({ ...broken, pathz: {} })).not.toEqual([]);
  const { channels: __, ...silent } = asyncApi([], '1.0.0') as Record<string, unknown>;
  expect(await faultsOf({ ...silent, channels: [] })).not.toEqual([]);
});
