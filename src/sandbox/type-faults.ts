/** JSON as a careless serialiser would have written it. What is no JSON stays as it is. */

/** Longer numerals would lose digits on the way, and name something else. */
const numeral = /^-?(0|[1-9]\d{0,14})(\.\d{1,6})?$/;

/** Numbers become strings, and strings that spell a number become that number. */
export function swapTypes(body: string): string {
  return respell(body, (value) => {
    if (typeof value === 'number') return String(value);
    return typeof value === 'string' && numeral.test(value) ? Number(value) : value;
  });
}

/** Members that are objects or arrays become null; of a document without one nothing but null is left. */
export function nullObjects(body: string): string {
  const document = read(body);
  if (!isNested(document)) return body;
  const members = Object.entries(document);
  if (!members.some(([, value]) => isNested(value))) return 'null';
  return JSON.stringify(Object.fromEntries(members.map(([name, value]) => [name, isNested(value) ? null : value])));
}

const isNested = (value: unknown): value is object => typeof value === 'object' && value !== null;

function respell(body: string, change: (value: unknown) => unknown): string {
  const document = read(body);
  return document === undefined ? body : JSON.stringify(document, (_, value) => change(value));
}

function read(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
