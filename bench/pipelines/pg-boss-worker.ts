import PgBoss from 'pg-boss';
import { callerOf, type RawJob, ready, settingsFromEnvironment } from './job.ts';
import { RESULTS, VERIFY } from './postgres.ts';

const { store, provider, concurrency } = settingsFromEnvironment();
const call = callerOf(provider, concurrency);
const boss = new PgBoss({ connectionString: store, supervise: false, schedule: false, max: 10 });
boss.on('error', () => {});
await boss.start();
// It hands over a batch at a time and takes the next one after that; results of a batch are put in together.
await boss.work<RawJob>(VERIFY, { batchSize: concurrency, pollingIntervalSeconds: 0.5 }, async (jobs) => {
  const answers = await Promise.all(
    jobs.map(async ({ data }) => ({
      transactionRef: data.transactionRef,
      answer: await call(JSON.stringify(data), { authorization: 'key' }),
    })),
  );
  await boss.insert(answers.map((data) => ({ name: RESULTS, data })));
});
ready();
