import { randomBytes } from 'node:crypto';

const AT_ONCE = 4_096;
let drawn = Buffer.alloc(0);

/** Random bytes, none of them given twice. Drawn many at a time, because a call for a few costs as much as one for all. */
export function freshBytes(size: number): Buffer {
  if (drawn.length < size) drawn = randomBytes(Math.max(size, AT_ONCE));
  const bytes = drawn.subarray(0, size);
  drawn = drawn.subarray(size);
  return bytes;
}
