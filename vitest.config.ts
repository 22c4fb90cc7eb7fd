import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // A process per file: tests kill, stop and starve what they start, and none may take another's server along.
    pool: 'forks',
    // More than the cores of a small machine, because most tests wait for Redis, sockets and other processes.
    maxWorkers: 4,
    testTimeout: 20_000,
    hookTimeout: 30_000,
  },
});
