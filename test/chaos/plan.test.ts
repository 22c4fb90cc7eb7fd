import { describe, expect, it } from 'vitest';
import { PROVIDERS, planOf, randomOf } from '../../chaos/plan.ts';
import { magicValues } from '../../src/sandbox/magic.ts';

const options = { seed: 42, durationMs: 60_000, ratePerSecond: 30, workers: 3 };

describe('the plan of a run', () => {
  it('is the same for the same seed, and another for another', () => {
    expect(planOf(options)).toEqual(planOf(options));
    expect(planOf({ ...options, seed: 43 })).not.toEqual(planOf(options));
  });

  it('has figures that a second machine has as well', () => {
    const random = randomOf(42);
    expect([random(), random(), random()].map((number) => number.toFixed(9))).toEqual([
      '0.601103752',
      '0.448290559',
      '0.852465793',
    ]);
  });

  it('submits at the rate it was given, through all providers', () => {
    const { stories } = planOf(options);
    const submissions = stories.flatMap((story) => story.submissions);
    expect(submissions.length).toBeGreaterThan(1_795);
    expect(submissions.length).toBeLessThan(1_810);
    for (const provider of PROVIDERS) {
      expect(stories.filter((story) => story.provider === provider).length).toBeGreaterThan(250);
    }
  });

  it('names every transaction and every key once', () => {
    const { stories } = planOf({ ...options, durationMs: 600_000 });
    expect(new Set(stories.map(({ provider, reference }) => `${provider} ${reference}`)).size).toBe(stories.length);
    const keys = stories.flatMap(({ submissions }) => submissions.map(({ key }) => key));
    expect(new Set(keys).size).toBe(keys.length);
  });

  it('types one code twice, another code, and never the code of a story in which a new one is sent', () => {
    const { stories } = planOf(options);
    const codes = stories.map(({ submissions }) => submissions.map(({ otp }) => otp));
    expect(codes.some(([first, second]) => second !== undefined && first === second)).toBe(true);
    expect(codes.some(([first, second]) => second !== undefined && first !== second && first !== null)).toBe(true);
    const sent = stories.filter(({ submissions }) => submissions.some(({ operation }) => operation === 'send'));
    expect(sent.length).toBeGreaterThan(10);
    for (const { submissions } of sent)
      expect(submissions.map(({ operation }) => operation)).toEqual(['send', 'verify']);
  });

  it('gives each provider only the magic values that it knows', () => {
    for (const { provider, submissions } of planOf(options).stories) {
      for (const { otp } of submissions) {
        const magic = magicValues.find(({ where, value }) => where === 'otp' && value === otp);
        if (magic) expect(Object.keys(magic.answers), `${otp} at ${provider}`).toContain(provider);
        else if (otp !== null) expect(otp).toMatch(/^[0-3]\d{5}$/);
      }
    }
  });

  it('kills a worker and Redis whatever the dice say, and nothing before there is something to disturb', () => {
    for (let seed = 0; seed < 50; seed += 1) {
      const { faults } = planOf({ ...options, seed, durationMs: 20_000 });
      expect(faults.map(({ kind }) => kind)).toEqual(expect.arrayContaining(['kill_worker', 'kill_redis', 'mischief']));
      expect(faults[0]?.atMs).toBeGreaterThanOrEqual(1_000);
    }
  });
});
