/** ioredis by `require`, for the reason that bullmq.ts has: BullMQ loads it in the same way. */
import { createRequire } from 'node:module';
import type * as IORedis from 'ioredis';

const require = createRequire(import.meta.url);

export const { Cluster, Redis } = require('ioredis') as typeof IORedis;
export type Cluster = IORedis.Cluster;
export type Redis = IORedis.Redis;
