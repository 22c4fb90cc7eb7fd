import { freshBytes } from '../producers/fresh-bytes.ts';
import type { Stamp } from '../providers/provider.ts';

/** What this very call needs: the time, a nonce, its tokens. Signatures carry this time, so one stamp serves one call. */
export function newStamp(tokens: Stamp['tokens']): Stamp {
  return { now: new Date(), nonce: freshBytes(16).toString('hex'), tokens };
}
