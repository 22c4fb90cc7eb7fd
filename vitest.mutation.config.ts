import { defineConfig } from 'vitest/config';

/** What mutation testing runs for every change that it makes: the tests of pure functions, which start nothing. */
export default defineConfig({
  test: {
    include: ['test/workers/{backoff,decide}.test.ts', 'test/providers/*.test.ts'],
    // Compares the comment at the head of each provider's file, which does not survive the changes.
    exclude: ['test/providers/pages.test.ts'],
  },
});
