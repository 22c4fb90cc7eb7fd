import { setTimeout as delay } from 'node:timers/promises';
import PgBoss from 'pg-boss';
import { callerOf, type RawJob, ready, settingsFromEnvironment } from './job.ts';
import { RESULTS, VERIFY } from './postgres.ts';

const { store, provider, concurrency } = settingsFromEnvironment();
const call = callerOf(provider, concurrency);
const boss = new PgBoss({ connectionString: store, supervise: false, schedule: false, max: 10 });
boss.on('error', () => {});
await boss.start();

/** Two loops by hand: its own `work` rests after each batch until half a second has passed, so that 100 at a time are 200 a second. */
async function takeTurns(): Promise<never> {
  for (;;) {
    const jobs = await boss.fetch<RawJob>(VERIFY, { batchSize: concurrency });
    if (jobs.length === 0) {
      await delay(100);
      continue;
    }
    const answers = await Promise.all(
      jobs.map(async ({ data }) => ({
        transactionRef: data.transactionRef,
        answer: await call(JSON.stringify(data), { authorization: 'key' }),
      })),
    );
    await boss.insert(answers.map((data) => ({ name: RESULTS, data })));
    await boss.complete(
      VERIFY,
      jobs.map(({ id }) => id),
    );
  }
}
for (let loop = 0; loop < 2; loop += 1) {
  takeTurns().catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
}
ready();
