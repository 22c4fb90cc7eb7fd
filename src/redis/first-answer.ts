/** The first question to a Redis, whose answer may be that nothing can be asked of it. */
import type { RedisConnection } from './connections.ts';

/**
 * What `ask` finds.
 * @throws what `faultOf` makes of why there is no answer: one line for a person, without password or stack.
 */
export async function firstAnswer<Answer>(
  connection: RedisConnection,
  ask: () => Promise<Answer>,
  faultOf: (why: string) => Error,
): Promise<Answer> {
  // What is asked fails because there is no connection; why there is none, the connection says.
  const heard = new Set<string>();
  const hear = (error: Error, node?: string): void => {
    heard.add(node === undefined ? messageOf(error) : `${node}: ${messageOf(error)}`);
  };
  connection.on('error', hear);
  connection.on('node error', hear);
  try {
    return await ask();
  } catch (error) {
    throw faultOf(whyUnusable(heard, error));
  } finally {
    connection.off('error', hear);
    connection.off('node error', hear);
  }
}

function whyUnusable(heard: ReadonlySet<string>, error: unknown): string {
  const refused = error instanceof Error ? messageOf(error) : 'something that is no Error was thrown';
  const login = [...heard, refused].find((text) => /\b(?:WRONGPASS|NOAUTH|ERR invalid password)\b/.test(text));
  if (login !== undefined) return `it refuses the login (${login})`;
  if (error instanceof Error && error.name === 'ReplyError') return `it refuses what is asked of it (${refused})`;
  return `it does not answer (${[...heard].join('; ') || refused})`;
}

/** Where a name has several addresses there is an error for each, and the one that holds them says nothing. */
function messageOf(error: Error): string {
  const told = error instanceof AggregateError ? error.errors.map((each: Error) => each.message).join(', ') : '';
  const [line = ''] = (error.message || told || error.name).split('\n', 1);
  return line;
}
