import { Registry } from 'prom-client';
import { describe, expect, it, vi } from 'vitest';
import { EventBus } from '../../src/events.ts';
import { collectClocks } from '../../src/metrics/clocks.ts';
import { timeToldIn } from '../../src/workers/transport.ts';

const HOUR_MS = 3_600_000;
const answer = (headers: Record<string, string>) =>
  ({ kind: 'answered', response: { status: 200, headers, body: '' }, sentAt: 0 }) as const;

describe('the clocks of providers', () => {
  it('are read from the Date of an answer, and from nothing else', () => {
    expect(timeToldIn(answer({ date: 'Sun, 22 Nov 2026 04:34:00 GMT' }))).toBe(Date.UTC(2026, 10, 22, 4, 34));
    expect(timeToldIn(answer({}))).toBeNull();
    expect(timeToldIn(answer({ date: 'yesterday' }))).toBeNull();
    expect(timeToldIn({ kind: 'lost', code: 'TIMEOUT', sentAt: 0 })).toBeNull();
  });

  it('are compared with that of this process at their latest answer, until it is an hour old', async () => {
    const [registry, events] = [new Registry(), new EventBus()];
    collectClocks(registry, events);
    const skew = async () =>
      Number(/otp_provider_clock_skew_seconds\{provider="ayoconnect"\} (\S+)/.exec(await registry.metrics())?.[1]);
    expect(await skew()).toBeNaN();
    events.emit('clock:told', { partition: 'ayoconnect', at: Date.now() - 90_000 });
    expect(await skew()).toBeCloseTo(-89.5, 0);
    events.emit('clock:told', { partition: 'ayoconnect', at: Date.now() + 240_000 });
    expect(await skew()).toBeCloseTo(240.5, 0);

    const now = performance.now();
    vi.spyOn(performance, 'now').mockReturnValue(now + HOUR_MS + 1_000);
    expect(await skew()).toBeNaN();
    vi.restoreAllMocks();
  });
});
