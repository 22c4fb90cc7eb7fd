/**
 * One request on its way through one provider's server: the running plan's faults at the door, the provider itself,
 * the faults of the answer, and the entry that ends the call.
 */
import type { CallbackOffice } from './callbacks.ts';
import { type Handled, type ProviderSide, retryAfter, type World } from './desk.ts';
import type { FaultPlan, Hit } from './fault-plan.ts';
import { busy, faultOf } from './faults.ts';
import type { LedgerEvent, SandboxProvider } from './ledger.ts';
import { routeOf } from './routes.ts';
import type { Answer, IncomingCall } from './server.ts';

export interface House {
  world: World;
  plan: () => FaultPlan;
  callbacks: CallbackOffice;
  storms: Storms;
  /** Resolves after so many ms, never once the sandbox is closed. */
  pause: (ms: number) => Promise<void>;
  slowMs: number;
  /** How long an answer waits for a callback that does not come. */
  patienceMs: number;
}

/** Providers that answer everybody with 429 for a while. */
export interface Storms {
  /** Begins or prolongs one; answers for how many seconds to stay away. */
  begin(provider: SandboxProvider, ms: number): number;
  /** Seconds to stay away; 0 in calm weather. */
  left(provider: SandboxProvider): number;
  calm(): void;
}

export function stormWatch(): Storms {
  const ends = new Map<SandboxProvider, number>();
  const left = (provider: SandboxProvider) =>
    Math.max(0, Math.ceil(((ends.get(provider) ?? 0) - performance.now()) / 1000));
  return {
    begin(provider, ms) {
      ends.set(provider, Math.max(ends.get(provider) ?? 0, performance.now() + ms));
      return left(provider);
    },
    left,
    calm: () => ends.clear(),
  };
}

export function receive(house: House, side: ProviderSide, incoming: IncomingCall): Answer {
  const { world, callbacks } = house;
  const plan = house.plan();
  const { provider } = side;
  const at = routeOf(provider, incoming);
  const book = (handled: Omit<Handled, 'answer'>, event: LedgerEvent, more: object = {}) =>
    world.ledger.write({ provider, call: handled.call, reference: handled.reference, event, ...more });

  const turnedAway = atTheDoor();
  const { result: handled, due, release } = callbacks.collecting(() => turnedAway ?? side.handle(incoming));
  let { answer } = handled;

  const spoilt = turnedAway ? undefined : plan.draw('answer', provider, at.call, at.reference);
  if (spoilt?.fault.fault && answer.delivery === 'whole') {
    const fault = faultOf(spoilt.fault.fault);
    book(handled, 'fault', { detail: spoilt.name });
    if (fault.place === 'wire') answer = fault.spoil(answer, () => handled.answer);
  }
  const late = turnedAway ? undefined : plan.draw('time', provider, at.call, at.reference);
  const until = holdBack(late);

  if (plan.clockSkewMs !== 0) {
    answer = { ...answer, headers: { ...answer.headers, date: new Date(world.now()).toUTCString() } };
  }
  const { told, unclear } = answer;
  book(handled, 'answered', {
    detail: answer.delivery === 'whole' ? String(answer.status) : answer.delivery,
    ...(told === undefined ? {} : { told }),
    ...(unclear === undefined ? {} : { unclear }),
  });
  return {
    ...answer,
    ...(until ? { until } : {}),
    undelivered: () => book(handled, 'undelivered'),
    afterwards: release,
  };

  function atTheDoor(): Handled | undefined {
    if (at.call === 'unknown') return undefined;
    const hit = plan.draw('door', provider, at.call, at.reference);
    if (hit?.name === 'storm_429') house.storms.begin(provider, hit.value);
    if (hit) {
      // An expired token is met by the provider's own check, where one was presented.
      const which = hit.name === 'customer_token_expired' ? 'customer' : 'application';
      const expires = hit.name === 'token_expired' || hit.name === 'customer_token_expired';
      if (!expires || side.expireToken?.(incoming, which)) book(at, 'fault', { detail: hit.name });
    }
    const seconds = house.storms.left(provider);
    if (hit?.name === 'reset_unread') {
      return away('dropped', { status: 0, contentType: '', body: '', delivery: 'reset', told: 'nothing' });
    }
    if (seconds > 0) return away('refused', retryAfter(side.rateLimited(at.call), seconds), 'a storm of 429');
    if (hit?.name === 'busy_503') return away('refused', busy(), 'busy_503');
    return undefined;
  }

  function away(event: 'dropped' | 'refused', with_: Answer, detail?: string): Handled {
    book(at, 'request');
    book(at, event, detail === undefined ? {} : { detail });
    return { ...at, answer: with_ };
  }

  function holdBack(hit: Hit | undefined): Promise<unknown> | undefined {
    if (hit?.name === 'slow' || (!hit && answer.hold === 'slow')) {
      if (hit) book(handled, 'fault', { detail: hit.name });
      return house.pause(hit?.value ?? house.slowMs);
    }
    if (!hit && answer.hold !== 'callback_first') return undefined;
    const { reference } = handled;
    const transaction = reference === null ? undefined : world.transaction(provider, reference);
    // What this call neither ended nor left under way is not reported, so there is nothing to wait for.
    if (!transaction || !(due || transaction.stage === 'processing')) return undefined;
    const answered = callbacks.nextAnswer(transaction);
    if (!answered) return undefined;
    if (hit) book(handled, 'fault', { detail: hit.name });
    release();
    return Promise.race([answered, house.pause(house.patienceMs)]);
  }
}
