/** Loaded into a worker by `--import`: SIGUSR2 starts V8's profiler, and a second one writes what it saw to PROFILE_FILE. */
import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';

const SAMPLED_EVERY_MICROS = 200;

const session = new Session();
session.connect();
let underway = false;
process.on('SIGUSR2', async () => {
  underway = !underway;
  if (underway) {
    await session.post('Profiler.enable');
    await session.post('Profiler.setSamplingInterval', { interval: SAMPLED_EVERY_MICROS });
    await session.post('Profiler.start');
  } else {
    const { profile } = await session.post('Profiler.stop');
    writeFileSync(process.env.PROFILE_FILE, JSON.stringify(profile));
  }
});
