import type { VerificationRecord } from './record.ts';
import { isoTime } from './resource.ts';

/** What is awaited next, when, and by whom: one sentence for a person, null once nothing is. `how` a person gives evidence. */
export function awaitedNext(
  record: VerificationRecord,
  how = `: otp resolve ${record.id} --as succeeded|failed --evidence TEXT`,
): string | null {
  const { state, needsReview, nextInquiryAt } = record;
  switch (state) {
    case 'queued':
      return record.notBefore > 0
        ? `it is tried again at ${isoTime(record.notBefore)}; it is not sent after ${isoTime(record.expiresAt)}`
        : `its turn; it is not sent after ${isoTime(record.expiresAt)}`;
    case 'sending':
      return `the provider's answer to attempt ${record.attempts}, until ${isoTime(record.inFlightUntil)} at the latest`;
    case 'awaiting': {
      const person = `a person who has evidence${how}`;
      if (nextInquiryAt > 0) {
        const inquiry = `the provider's word: inquiry ${record.inquiries + 1} at ${isoTime(nextInquiryAt)}`;
        return needsReview ? `${inquiry}; or ${person}` : inquiry;
      }
      return needsReview ? person : 'a callback of the provider; after giveUpAfterMs a person';
    }
    case 'settled':
      return needsReview ? `a person who has evidence, for two proofs disagree${how}` : null;
  }
  return state satisfies never;
}
