/** How far a provider's clock is ahead of this process's, as its answers tell it: requests are signed with a time. */
import type { Registry } from 'prom-client';
import type { EventBus } from '../events.ts';
import { declareGauge } from './registry.ts';

/** An answer of longer ago says nothing of now: either clock may have been corrected since. */
const TRUE_FOR_MS = 3_600_000;
/** A Date header has whole seconds, so its middle is compared. */
const HALF_A_SECOND_MS = 500;

export function collectClocks(registry: Registry, events: EventBus): void {
  const told = new Map<string, { skewMs: number; at: number }>();
  events.on('clock:told', ({ partition, at }) => {
    told.set(partition, { skewMs: at + HALF_A_SECOND_MS - Date.now(), at: performance.now() });
  });
  declareGauge(registry, 'providerClockSkew', async (gauge) => {
    gauge.reset();
    for (const [provider, { skewMs, at }] of told) {
      if (performance.now() - at < TRUE_FOR_MS) gauge.set({ provider }, skewMs / 1_000);
    }
  });
}
