/** Which call a request is and which reference it names, before anybody has looked whether it is a good one. */
import { isObject, jsonObject } from './checks.ts';
import type { LedgerCall, SandboxProvider } from './ledger.ts';
import type { IncomingCall } from './server.ts';

interface Route {
  method: string;
  path: string;
  call: LedgerCall;
  /** The member of the body, or of the query of a GET, that holds the reference. */
  names?: string;
}

const post = (path: string, call: LedgerCall, names?: string): Route => ({
  method: 'POST',
  path,
  call,
  ...(names ? { names } : {}),
});
const snap = '/dd/api/v3.0';

const routes: Record<SandboxProvider, readonly Route[]> = {
  'hello-clever': [
    post('/api/v2/payins/confirm_otp', 'verify', 'uuid'),
    { method: 'GET', path: '/api/v2/payins/detail', call: 'inquiry', names: 'uuid' },
  ],
  'lipa-later': [
    post('/api/v2/oauth/token', 'token'),
    post('/api/v2/otp/send', 'send', 'phone_number'),
    post('/api/v2/otp/verify', 'verify', 'phone_number'),
  ],
  ayoconnect: [
    post(`${snap}/access-token/b2b`, 'b2bToken'),
    post(`${snap}/access-token/b2b2c`, 'b2b2cToken'),
    post(`${snap}/otp-verification`, 'verify', 'originalReferenceNo'),
    post(`${snap}/debit/status`, 'inquiry', 'originalReferenceNo'),
  ],
  beqelal: [post('/api/v1/payment/authorize', 'verify', 'reference')],
  cepta: [
    post('/api/v1/pay/validate-otp', 'verify', 'transactionRef'),
    { method: 'GET', path: '/api/v1/pay/confirm-status', call: 'inquiry', names: 'TransactionRef' },
  ],
};

export function routeOf(
  provider: SandboxProvider,
  incoming: IncomingCall,
): { call: LedgerCall; reference: string | null } {
  const route = routes[provider].find(({ method, path }) => method === incoming.method && path === incoming.path);
  if (!route) return { call: 'unknown', reference: null };
  const named = route.names === undefined ? undefined : member(incoming, route.method, route.names);
  if (typeof named !== 'string' || named === '') return { call: route.call, reference: null };
  // The ledger keeps phone numbers in one form, with their plus.
  return { call: route.call, reference: provider === 'lipa-later' ? `+${named.replace(/^\+/, '')}` : named };
}

function member(incoming: IncomingCall, method: string, name: string): unknown {
  if (method === 'GET') return incoming.query.get(name);
  const body = jsonObject(incoming.body);
  return isObject(body) ? body[name] : undefined;
}
