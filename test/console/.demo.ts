import { createWorld } from '/work/main/test/console/world.ts';
import { newVerificationId, partitionKeys, JOB_OPTIONS } from '/work/main/src/producers/job.ts';
const world = await createWorld();
const keys = partitionKeys('cepta');
const q = world.writingQueue(keys.queue, keys.prefix);
const id = newVerificationId('cepta');
await q.add('verify', { v: 1, id }, { ...JOB_OPTIONS, jobId: id });
await q.add('CANARY', { phone: 'CANARY' }, { jobId: 'CANARY-x' });
const now = Date.now();
await world.redis.zadd(keys.awaiting, now - 90_000, id);
await world.redis.zadd(keys.review, now - 90_000, id);
const h = (at: number, event: string, rest = {}) => JSON.stringify({ at, event, ...rest }) + '\n';
await world.redis.hset(keys.record(id), { state: 'awaiting', operation: 'verify', client: 'shop', reference: 'TX12345ABC', createdAt: now - 95000, updatedAt: now - 80000, expiresAt: now + 200000,
 head: JSON.stringify({ metadata: { orderId: 'A-17', note: '<script>alert(1)</script>' }, amount: { value: '100.00', currency: 'NGN' }, plainParams: {} }),
 revision: '4', sequence: '2', attempts: '1', otp: 'unknown', transaction: 'unknown', reason: 'no_answer', nextStep: 'wait', providerCode: 'ECONNRESET', needsReview: '1', awaitingSince: now - 90000,
 history: h(now - 95000, 'accepted') + h(now - 94988, 'begun', { attempt: 1 }) + h(now - 90000, 'lost', { attempt: 1, detail: 'ECONNRESET', otp: 'unknown', transaction: 'unknown', reason: 'no_answer' }) + h(now-80000, 'inquired', { providerCode: 'pending', ownedBy: newVerificationId('cepta') }) });
console.log(JSON.stringify({ url: world.url, id }));
