/**
 * From a request to the route that it is for. A handful of routes need no framework, and the framework's own way there
 * costs more than all the rest of an answer (docs/decisions/0007): it gives every request and response another prototype,
 * after which Node's own work on them is slow.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { parse as parseQuery } from 'node:querystring';
import { type Answer, problem } from './problem.ts';

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** New each time, told to the caller and to the log. */
  readonly requestId: string;
  /** What stood in the place of the path's `:names`. */
  readonly parameters: Readonly<Record<string, string>>;
}

export type Route = (exchange: Exchange) => Promise<Answer> | Answer;
export type Method = 'GET' | 'POST';

/** By path (`/v1/verifications/:id`) and method. HEAD is answered like GET, without the body. */
export type Routes = Readonly<Record<string, Partial<Record<Method, Route>>>>;

export interface Found {
  readonly route: Route;
  readonly parameters: Readonly<Record<string, string>>;
}

interface Place {
  readonly segments: readonly string[];
  readonly methods: Partial<Record<Method, Route>>;
}

/** What answers a request: its route, or the one that says what is wrong with its path or its method. */
export function router(routes: Routes): (request: IncomingMessage) => Found {
  const exact = new Map(Object.entries(routes));
  const places: Place[] = Object.entries(routes)
    .filter(([path]) => path.includes(':'))
    .map(([path, methods]) => ({ segments: path.split('/'), methods }));

  return (request) => {
    const path = pathOf(request.url ?? '');
    const methods = exact.get(path);
    if (methods !== undefined && !path.includes(':')) return found(methods, request.method ?? '', {});
    const given = path.split('/');
    for (const { segments, methods } of places) {
      const parameters = matched(segments, given);
      if (parameters === undefined) continue;
      return parameters === null ? NOWHERE : found(methods, request.method ?? '', parameters);
    }
    return NOWHERE;
  };
}

const NOWHERE: Found = { route: () => problem('not-found', 'No route has this path.'), parameters: {} };

function found(methods: Place['methods'], method: string, parameters: Found['parameters']): Found {
  const asked = method === 'HEAD' ? 'GET' : method;
  const route = Object.hasOwn(methods, asked) ? methods[asked as Method] : undefined;
  if (route !== undefined) return { route, parameters };
  const allow = Object.keys(methods)
    .flatMap((known) => (known === 'GET' ? ['GET', 'HEAD'] : [known]))
    .join(', ');
  const answer = problem('method-not-allowed', `Only ${allow} is allowed here.`, { headers: { Allow: allow } });
  return { route: () => answer, parameters };
}

/** Undefined: another path. Null: it is this one, but a name in it is no UTF-8 and so names nothing. */
function matched(segments: readonly string[], given: readonly string[]): Record<string, string> | null | undefined {
  if (segments.length !== given.length) return undefined;
  const parameters: Record<string, string> = {};
  for (const [index, segment] of segments.entries()) {
    const value = given[index] as string;
    if (!segment.startsWith(':')) {
      if (segment !== value) return undefined;
    } else if (value === '') {
      return undefined;
    } else {
      try {
        parameters[segment.slice(1)] = decodeURIComponent(value);
      } catch {
        return null;
      }
    }
  }
  return parameters;
}

/** Without a slash at its end, whether it came with one or not. */
function pathOf(url: string): string {
  const path = url.startsWith('/') ? url.slice(0, endOfPath(url)) : pathOfAbsolute(url);
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
}

function endOfPath(url: string): number {
  const end = url.indexOf('?');
  return end === -1 ? url.length : end;
}

/** RFC 9112 §3.2.2: as a proxy would be asked. */
function pathOfAbsolute(url: string): string {
  return URL.canParse(url) ? new URL(url).pathname : '';
}

export function queryOf({ url = '' }: IncomingMessage): NodeJS.Dict<string | string[]> {
  return parseQuery(url.slice(endOfPath(url) + 1));
}
