import { Logger, run } from 'graphile-worker';
import { callerOf, type RawJob, ready, settingsFromEnvironment } from './job.ts';
import { RESULTS, VERIFY } from './postgres.ts';

const { store, provider, concurrency } = settingsFromEnvironment();
const call = callerOf(provider, concurrency);
await run({
  connectionString: store,
  concurrency,
  maxPoolSize: 10,
  pollInterval: 500,
  noHandleSignals: true,
  logger: new Logger(() => () => {}),
  preset: { worker: { localQueue: { size: 500 }, completeJobBatchDelay: 0 } },
  taskList: {
    [VERIFY]: async (payload, { addJob }) => {
      const { transactionRef } = payload as RawJob;
      const answer = await call(JSON.stringify(payload), { authorization: 'key' });
      await addJob(RESULTS, { transactionRef, answer });
    },
  },
});
ready();
