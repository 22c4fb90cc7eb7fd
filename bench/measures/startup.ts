/** From the start of `otp serve`, all roles, to its word that it is ready; Redis is there already. */
import { startTestRedis } from '../../test/support/redis.ts';
import { install } from '../../test/support/service.ts';
import { startService } from '../pipelines/ours.ts';
import { peakMemoryOf } from '../support/parts.ts';

export async function startupOnce(): Promise<{ readonly seconds: number; readonly memoryMib: number }> {
  await using server = await startTestRedis({ appendonly: true });
  await using installation = await install({
    redis: { url: server.url },
    providers: { cepta: { baseUrl: 'http://127.0.0.1:9', credentials: { secretKey: 'key' } } },
  });
  const began = performance.now();
  await using service = await startService(installation, 'intake,worker,console');
  return { seconds: (performance.now() - began) / 1_000, memoryMib: peakMemoryOf(service.pid) };
}
