/**
 * BullMQ's classes, by `require`: it is CommonJS of some three hundred files, and to `import` it Node reads each of them
 * once to learn what it exports and once more to run it, which takes two to three times as long.
 */
import { createRequire } from 'node:module';
import type * as BullMQ from 'bullmq';

const require = createRequire(import.meta.url);

export const { DelayedError, Queue, UnrecoverableError, Worker } = require('bullmq') as typeof BullMQ;
// biome-ignore lint/suspicious/noExplicitAny: as BullMQ has it, for queues of which it does not matter what is in them
export type Queue<Data = any> = BullMQ.Queue<Data>;
// biome-ignore lint/suspicious/noExplicitAny: the same
export type Worker<Data = any> = BullMQ.Worker<Data>;
