/**
 * Provider tokens: asked for once, refreshed before they expire, shared by all workers through Redis, sealed there.
 * The provider file says how to ask and how to read the answer; when to ask is decided here.
 */
import { randomBytes } from 'node:crypto';
import type { EventBus } from '../events.ts';
import type { PartitionKeys } from '../producers/job.ts';
import { type Opener, SealError, type Sealer } from '../producers/sealing.ts';
import type { BoundProvider, Params, Stamp, TokenCall } from '../providers/provider.ts';
import type { RedisConnection } from '../redis/connections.ts';
import { Secret } from '../secret.ts';
import type { ProbeReply } from './breaker.ts';
import { newStamp } from './stamp.ts';
import { type Transport, timeToldIn } from './transport.ts';

export type Tokens =
  | { readonly kind: 'ready'; readonly tokens: Stamp['tokens'] }
  /** `remediable` false: asking again will not help, our credentials are refused. Nothing was submitted. */
  | {
      readonly kind: 'unavailable';
      readonly code: string;
      readonly remediable: boolean;
      readonly retryAfterMs?: number;
      /** The provider did not answer this call, or with a 5xx. */
      readonly atProvider?: true;
    };

interface Token {
  readonly value: string;
  readonly expiresAt: number;
}

type Fetched =
  | { readonly kind: 'token'; readonly token: Token }
  /** `staleTokens`: it was refused because of these, with which it was asked for. */
  | (Extract<Tokens, { kind: 'unavailable' }> & { readonly staleTokens?: readonly TokenCall[] });

/** A token is not used in its last moments: it must outlive the call it is made for. */
const SPARE_LIFE_MS = 60_000;
/** Longer than a token call may take. */
const LOCK_MS = 40_000;
/** A customer waits: then two workers ask for a token rather than none. */
const WAIT_FOR_OTHER_MS = 5_000;
const LOCK_POLL_MS = 100;
const REFUSED_REMEMBERED = 1_000;

export interface SessionDependencies {
  readonly partition: string;
  /** Whose tokens they are: those of another account or another host must never be taken for ours. */
  readonly account: string;
  readonly provider: BoundProvider;
  readonly transport: Transport;
  readonly redis: RedisConnection;
  readonly keys: PartitionKeys;
  readonly sealer: Sealer;
  readonly opener: Opener;
  readonly events: EventBus;
}

export class Sessions {
  readonly #deps: SessionDependencies;
  readonly #known = new Map<string, Token>();
  /** Values that the provider refused: another call may still read one from Redis while it is being deleted there. */
  readonly #refused = new Set<string>();
  readonly #underway = new Map<string, Promise<Fetched>>();

  constructor(deps: SessionDependencies) {
    this.#deps = deps;
  }

  /** Tokens for these calls, in the order in which they must be asked for. `params` only where a token needs them. */
  async tokens(calls: readonly TokenCall[], params: Params | null): Promise<Tokens> {
    return await this.#tokens(calls, params, false);
  }

  async #tokens(calls: readonly TokenCall[], params: Params | null, renewed: boolean): Promise<Tokens> {
    const tokens: Partial<Record<TokenCall, Secret<string>>> = {};
    for (const call of calls) {
      const fetched = await this.#token(call, params, tokens);
      if (fetched.kind === 'unavailable') {
        const { staleTokens, ...unavailable } = fetched;
        if (staleTokens === undefined) return unavailable;
        await this.drop(staleTokens, tokens);
        if (!renewed) return await this.#tokens(calls, params, true);
        this.#tellFailure(call, unavailable);
        return unavailable;
      }
      tokens[call] = new Secret(fetched.token.value);
    }
    return { kind: 'ready', tokens };
  }

  /** Forgets tokens that the provider refused, unless somebody has fetched newer ones meanwhile. */
  async drop(calls: readonly TokenCall[], used: Stamp['tokens']): Promise<void> {
    for (const call of calls) {
      const value = used[call]?.reveal();
      if (value === undefined) continue;
      if (this.#refused.size >= REFUSED_REMEMBERED) this.#refused.clear();
      this.#refused.add(value);
      for (const [key, known] of this.#known) {
        if (known.value !== value) continue;
        this.#known.delete(key);
        if ((await this.#stored(key))?.value === value) await this.#deps.redis.del(key);
      }
    }
  }

  async #token(call: TokenCall, params: Params | null, earlier: Stamp['tokens']): Promise<Fetched> {
    const key = this.#key(call, params);
    if (key === null) return { kind: 'unavailable', code: `NO_${call.toUpperCase()}`, remediable: false };
    const known = this.#known.get(key);
    if (known && known.expiresAt > Date.now()) return { kind: 'token', token: known };
    this.#known.delete(key);
    const underway = this.#underway.get(key);
    if (underway) return ofAnotherCall(await underway);
    const obtaining = this.#obtain(key, call, params, earlier).finally(() => this.#underway.delete(key));
    this.#underway.set(key, obtaining);
    return await obtaining;
  }

  /** From Redis, where another worker may have put it, else from the provider, by one worker at a time. */
  async #obtain(key: string, call: TokenCall, params: Params | null, earlier: Stamp['tokens']): Promise<Fetched> {
    const { redis } = this.#deps;
    const lock = `${key}:lock`;
    const mine = randomBytes(8).toString('hex');
    const giveUpWaiting = Date.now() + WAIT_FOR_OTHER_MS;
    for (;;) {
      const shared = await this.#shared(key);
      if (shared) {
        this.#known.set(key, shared);
        return { kind: 'token', token: shared };
      }
      if ((await redis.set(lock, mine, 'PX', LOCK_MS, 'NX')) === 'OK' || Date.now() > giveUpWaiting) break;
      await new Promise((resolve) => setTimeout(resolve, LOCK_POLL_MS));
    }
    try {
      const fetched = await this.#fetch(call, params, earlier);
      if (fetched.kind === 'unavailable' && !fetched.staleTokens) this.#tellFailure(call, fetched);
      if (fetched.kind === 'token') await this.#keep(key, fetched.token);
      return fetched;
    } finally {
      // Between the two another may take it: then a token is fetched twice, which costs a call and no more.
      if ((await redis.get(lock)) === mine) await redis.del(lock);
    }
  }

  /** Asks for a token that no customer is needed for, whether or not there is one: does the provider answer? */
  async probe(call: TokenCall): Promise<ProbeReply> {
    const key = this.#key(call, null);
    const fetched = await this.#fetch(call, null, {});
    if (fetched.kind === 'unavailable') return { answered: fetched.atProvider !== true, code: fetched.code };
    if (key !== null) await this.#keep(key, fetched.token);
    return { answered: true, code: '200' };
  }

  async #keep(key: string, token: Token): Promise<void> {
    this.#known.set(key, token);
    const lifeMs = Math.max(1, token.expiresAt - Date.now());
    await this.#deps.redis.set(key, await this.#deps.sealer.seal(token), 'PX', lifeMs);
  }

  async #fetch(call: TokenCall, params: Params | null, earlier: Stamp['tokens']): Promise<Fetched> {
    const { provider, transport, events, partition } = this.#deps;
    const spec = provider.tokens[call];
    if (!spec) return { kind: 'unavailable', code: `NO_${call.toUpperCase()}`, remediable: false };
    const startedAt = performance.now();
    const reply = await transport.send(spec.buildRequest(params, newStamp(earlier)));
    const detail = reply.kind === 'answered' ? String(reply.response.status) : reply.code;
    const durationMs = performance.now() - startedAt;
    events.emit('call:ended', { of: null, partition, call, wire: reply.kind, durationMs, detail });
    const at = timeToldIn(reply);
    if (at !== null) events.emit('clock:told', { partition, at });
    if (reply.kind !== 'answered') {
      return { kind: 'unavailable', code: `TOKEN_${reply.code}`, remediable: true, atProvider: true };
    }
    const atProvider = reply.response.status >= 500 ? ({ atProvider: true } as const) : {};

    const answer = spec.interpret(reply.response);
    switch (answer.kind) {
      case 'token': {
        // Short-lived tokens (five minutes) keep most of their life; long ones end a minute early.
        const spare = Math.min(SPARE_LIFE_MS, answer.expiresInMs * 0.1);
        return {
          kind: 'token',
          token: { value: answer.token.reveal(), expiresAt: Date.now() + answer.expiresInMs - spare },
        };
      }
      case 'refused':
        return {
          kind: 'unavailable',
          code: `TOKEN_${answer.providerCode}`,
          remediable: answer.cause === 'throttled',
          ...atProvider,
          ...(answer.retryAfterMs === undefined ? {} : { retryAfterMs: answer.retryAfterMs }),
          ...(answer.staleTokens === undefined ? {} : { staleTokens: answer.staleTokens }),
        };
      case 'unreadable':
        return {
          ...{ kind: 'unavailable', code: `TOKEN_${answer.providerCode ?? 'UNREADABLE'}`, remediable: true },
          ...atProvider,
        };
    }
    return answer satisfies never;
  }

  #tellFailure(call: TokenCall, { remediable, code }: Extract<Tokens, { kind: 'unavailable' }>): void {
    const { events, partition } = this.#deps;
    events.emit('token:failed', { partition, call, cause: remediable ? 'unavailable' : 'refused', code });
  }

  async #shared(key: string): Promise<Token | null> {
    const token = await this.#stored(key);
    return token && token.expiresAt > Date.now() && !this.#refused.has(token.value) ? token : null;
  }

  async #stored(key: string): Promise<Token | null> {
    const sealed = await this.#deps.redis.get(key);
    if (sealed === null) return null;
    try {
      return (await this.#deps.opener.open(sealed)) as Token;
    } catch (error) {
      if (error instanceof SealError) return null; // sealed under a key that is gone: ask for a new one
      throw error;
    }
  }

  #key(call: TokenCall, params: Params | null): string | null {
    const spec = this.#deps.provider.tokens[call];
    return spec ? this.#deps.keys.token(call, `${this.#deps.account}:${spec.cacheKey(params)}`) : null;
  }
}

/** Fifty verifications may wait for one call: its failure is told once. */
function ofAnotherCall(fetched: Fetched): Fetched {
  if (fetched.kind === 'token') return fetched;
  const { atProvider: _, ...rest } = fetched;
  return rest;
}
