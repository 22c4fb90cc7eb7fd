import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { withoutBegin } from '../../chaos/world.ts';

it('the mutant still fits the script that it mutates', () => {
  const script = readFileSync(new URL('../../src/workers/begin.lua', import.meta.url), 'utf8');
  const mutated = withoutBegin(script);
  expect(script).toContain("if state == 'awaiting'");
  expect(mutated).not.toContain("if state == 'awaiting'");
  expect(mutated).not.toContain("owner_dead', now, redis");
  expect(mutated).toContain('Exact sliding window');
});
