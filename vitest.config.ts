import { defineConfig } from 'vitest/config';

/**
 * Rooms whose tests change nothing in their own process: it is kept for the next file, which saves loading BullMQ, zod and
 * undici anew, half of the time of most files. All others have a process for each file: they replace modules or change
 * the environment.
 */
const SHARED = [
  'chaos',
  'config',
  'console',
  'flow',
  'fuzz',
  'metrics',
  'producers',
  'providers',
  'sandbox',
  'scale',
  'workers',
];
const shared = SHARED.map((room) => `test/${room}/**/*.test.ts`);

export default defineConfig({
  test: {
    // Processes, not threads: tests kill, stop and starve what they start.
    pool: 'forks',
    // More than the cores of a small machine, because most tests wait for Redis, sockets and other processes.
    maxWorkers: 4,
    testTimeout: 20_000,
    hookTimeout: 30_000,
    expect: { poll: { timeout: 10_000 } },
    // Of what runs in the tests' own processes; what only `otp` runs, in a process of its own, counts as not covered.
    coverage: { include: ['src/**/*.ts'], reporter: ['text', 'html'] },
    projects: [
      { extends: true, test: { name: 'apart', include: ['test/**/*.test.ts'], exclude: shared } },
      { extends: true, test: { name: 'shared', include: shared, isolate: false } },
    ],
  },
});
