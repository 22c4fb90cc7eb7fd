/** What every request is built of: the code, the tokens and the address. */
import type { Stamp, TokenCall, Verification } from './provider.ts';

/** The code in the clear. It may go into the request's body and nowhere else. */
export function codeOf(verification: Pick<Verification, 'otp'>): string {
  if (verification.otp === null) throw new Error('this operation needs a code and was given none');
  return verification.otp.reveal();
}

/** A token in the clear. It may go into the request's headers and into what is signed. */
export function tokenOf(stamp: Stamp, call: TokenCall): string {
  const token = stamp.tokens[call];
  if (token === undefined) throw new Error(`the stamp must bring a token of ${call} and brings none`);
  return token.reveal();
}

/** `/detail?uuid=` and `/detail` both lead to `/detail?uuid=<value>`, so either may stand in the configuration. */
export function withQuery(path: string, name: string, value: string): string {
  const encoded = encodeURIComponent(value);
  if (path.endsWith(`${name}=`)) return `${path}${encoded}`;
  return `${path}${path.includes('?') ? '&' : '?'}${name}=${encoded}`;
}

/** The path that the server sees, without the query: a prefix that belongs to `baseUrl` is a part of it. */
export function pathOf(url: string): string {
  return new URL(url).pathname;
}

/** The same with the query, as it stands in the request line. */
export function pathWithQueryOf(url: string): string {
  const { pathname, search } = new URL(url);
  return `${pathname}${search}`;
}
