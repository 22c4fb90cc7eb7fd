/** The control server: what a tour, a test in another process or a person asks the sandbox for, as JSON. */
import { jsonObject } from './checks.ts';
import { FaultSpecError } from './fault-plan.ts';
import type { Sandbox } from './index.ts';
import { type LedgerBook, type SandboxProvider, sandboxProviders } from './ledger.ts';
import { type Answer, type IncomingCall, json } from './server.ts';

type Steered = Omit<Sandbox, 'control' | 'close' | 'ledger' | typeof Symbol.asyncDispose> & { ledger: LedgerBook };

const providerFrom = (value: unknown): SandboxProvider | undefined => sandboxProviders.find((name) => name === value);
const wrong = (detail: string) => json(400, { error: detail });

export async function control(sandbox: Steered, call: IncomingCall): Promise<Answer> {
  switch (`${call.method} ${call.path}`) {
    case 'GET /healthz':
      return json(200, { status: 'ok' });
    case 'GET /providers':
      return json(200, sandbox.providers);
    case 'GET /ledger':
      return ledgerAnswer(sandbox.ledger, call);
    case 'GET /ledger/summary':
      return summaryAnswer(sandbox.ledger, call);
    case 'GET /invariants':
      return json(200, sandbox.ledger.invariants());
    case 'GET /callbacks':
      return json(200, sandbox.callbacks);
    case 'POST /callbacks':
      return callbackAnswer(sandbox, call);
    case 'GET /faults':
      return json(200, sandbox.faults);
    case 'POST /faults':
      return faultsAnswer(sandbox, call);
    case 'GET /transactions':
      return json(200, {
        transactions: sandbox.ledger.transactions().map((transaction) => ({
          ...transaction,
          expected: sandbox.ledger.expected(transaction.provider, transaction.reference),
        })),
      });
    case 'POST /down':
    case 'POST /up': {
      const body = jsonObject(call.body);
      const provider = providerFrom(body?.provider);
      if (!provider) return wrong(`provider must be one of ${sandboxProviders.join(', ')}`);
      if (call.path === '/up') {
        await sandbox.bringUp(provider);
        return json(200, { provider, up: true });
      }
      const forMs = body?.forMs;
      if (forMs !== undefined && !(typeof forMs === 'number' && forMs > 0))
        return wrong('forMs must be a positive number');
      await sandbox.takeDown(provider, forMs);
      return json(200, { provider, up: false });
    }
    default:
      return json(404, { error: `no ${call.method} ${call.path} here` });
  }
}

/** A line for each transaction, made while it is sent, so that thousands need not be held together. */
function summaryAnswer(ledger: LedgerBook, call: IncomingCall): Answer {
  const amountsAgree = call.query.get('amountsAgree') === 'true';
  function* lines() {
    for (const row of ledger.summary({ amountsAgree })) yield `${JSON.stringify(row)}\n`;
  }
  return { status: 200, contentType: 'application/x-ndjson', body: '', delivery: 'whole', lines: lines() };
}

function callbackAnswer(sandbox: Steered, call: IncomingCall): Answer {
  const body = jsonObject(call.body);
  const provider = providerFrom(body?.provider);
  const url = body?.url;
  if (!provider) return wrong(`provider must be one of ${sandboxProviders.join(', ')}`);
  if (url !== null && typeof url !== 'string') return wrong('url must be a URL, or null to send no callbacks');
  try {
    sandbox.setCallback(provider, url === '' ? null : url);
  } catch (error) {
    return wrong(String(error));
  }
  return json(200, sandbox.callbacks);
}

function faultsAnswer(sandbox: Steered, call: IncomingCall): Answer {
  const body = jsonObject(call.body);
  const seed = body?.seed;
  if (typeof body?.spec !== 'string') return wrong("spec must be a string; '' ends all faults");
  if (seed !== undefined && typeof seed !== 'number') return wrong('seed must be a number');
  try {
    sandbox.setFaults(body.spec, seed);
  } catch (error) {
    if (error instanceof FaultSpecError) return wrong(error.message);
    throw error;
  }
  return json(200, sandbox.faults);
}

function ledgerAnswer(ledger: LedgerBook, call: IncomingCall): Answer {
  const named = call.query.get('provider');
  const reference = call.query.get('reference') ?? undefined;
  const provider = providerFrom(named);
  if (named !== null && !provider) return wrong(`provider must be one of ${sandboxProviders.join(', ')}`);
  const entries = ledger.find({
    ...(provider === undefined ? {} : { provider }),
    ...(reference === undefined ? {} : { reference }),
  });
  if (provider === undefined || reference === undefined) return json(200, { entries });
  return json(200, {
    entries,
    transaction: ledger.transaction(provider, reference),
    expected: ledger.expected(provider, reference),
  });
}
