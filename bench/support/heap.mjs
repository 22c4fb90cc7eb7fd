/** Loaded into a process that is to be asked how much it holds: `--expose-gc --import` of this file. */
import { writeHeapSnapshot } from 'node:v8';

process.on('message', (message) => {
  if (message.snapshot !== undefined) process.send(writeHeapSnapshot(message.snapshot));
  if (message !== 'heap') return;
  globalThis.gc();
  const { heapUsed, external, rss } = process.memoryUsage();
  process.send({ heapUsed, external, rss });
});
// However its asker ended, nobody is left to whom it matters.
process.on('disconnect', () => process.exit());
