/** The body of a request, in full or not at all: no more bytes than allowed, and no longer than allowed. */
import type { IncomingMessage } from 'node:http';

export type Body =
  | { readonly kind: 'read'; readonly bytes: Buffer }
  /** `gone`: the caller closed the connection in the middle. */
  | { readonly kind: 'too_large' | 'too_slow' | 'encoded' | 'gone' };

export interface BodyLimits {
  readonly bytes: number;
  /** From now to its last byte, however steadily it drips. */
  readonly ms: number;
}

export async function readBody(request: IncomingMessage, limits: BodyLimits): Promise<Body> {
  if (!/^(identity)?$/i.test(request.headers['content-encoding'] ?? '')) return { kind: 'encoded' };
  if (Number(request.headers['content-length'] ?? 0) > limits.bytes) return { kind: 'too_large' };
  return await new Promise((settle) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const timer = setTimeout(() => end({ kind: 'too_slow' }), limits.ms);
    const end = (body: Body): void => {
      clearTimeout(timer);
      request.off('data', take); // what still comes is thrown away
      settle(body);
    };
    const take = (chunk: Buffer): void => {
      size += chunk.length;
      chunks.push(chunk);
      if (size > limits.bytes) end({ kind: 'too_large' });
    };
    request.on('data', take);
    request.once('end', () => end({ kind: 'read', bytes: Buffer.concat(chunks, size) }));
    request.on('error', () => end({ kind: 'gone' }));
    request.once('close', () => end({ kind: 'gone' }));
  });
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true });

/** RFC 8259: JSON is UTF-8. Nothing at all is undefined. Throws what is no JSON, and what a decoder would have to guess. */
export function jsonOf(bytes: Buffer): unknown {
  return bytes.length === 0 ? undefined : JSON.parse(strictUtf8.decode(bytes));
}
