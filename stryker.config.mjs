// Mutation testing: one thing at a time is changed in what decides about money and in what reads answers, and each time a
// test must fail. A change that none notices shows a missing test or a condition that is not needed, or makes no difference.

/** @type {import('@stryker-mutator/api/core').PartialStrykerOptions} */
export default {
  mutate: [
    'src/workers/{backoff,decide}.ts',
    'src/providers/{ayoconnect,beqelal,cepta,hello-clever,lipa-later,fields,reading}.ts',
  ],
  testRunner: 'vitest',
  vitest: { configFile: 'vitest.mutation.config.ts' },
  coverageAnalysis: 'perTest',
  concurrency: 2,
  // A change that is found by time alone must be an endless loop, not a machine that is busy.
  timeoutMS: 120_000,
  thresholds: { high: 95, low: 90, break: 85 },
  // A copy of this is what is changed. Without tsconfig.json: Stryker would rewrite it with an API that TypeScript 7 lacks.
  ignorePatterns: ['/**', '!/package.json', '!/vitest.mutation.config.ts', '!/src/**', '!/test/{providers,workers}/**'],
  tempDirName: '.cache/mutation',
  incrementalFile: '.cache/mutation-before.json',
  reporters: ['progress', 'clear-text', 'html', 'json'],
  clearTextReporter: { reportTests: false },
  htmlReporter: { fileName: '.cache/mutation.html' },
  jsonReporter: { fileName: '.cache/mutation.json' },
};
