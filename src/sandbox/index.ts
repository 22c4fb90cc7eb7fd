/**
 * The five providers over real HTTP on loopback, one server and one port each, with one ledger of what they did.
 *
 * Written from the providers' public documentation, apart from the adapters that talk to it, so that agreement of the
 * two means something. docs/sandbox.md says what is simulated and what is not.
 */
import { ayoconnect } from './ayoconnect.ts';
import { type BeqelalCallback, beqelal } from './beqelal.ts';
import { callbackOffice } from './callbacks.ts';
import { type CeptaCallback, cepta } from './cepta.ts';
import { control } from './control.ts';
import { openTransaction, type ProviderSide, type Transaction, type World } from './desk.ts';
import { type FaultPlan, faultPlan } from './fault-plan.ts';
import { helloClever } from './hello-clever.ts';
import { type Ledger, openLedger, type SandboxProvider, sandboxProviders } from './ledger.ts';
import { lipaLater } from './lipa-later.ts';
import { receive, stormWatch } from './reception.ts';
import { type Listener, listen } from './server.ts';

export { FaultSpecError, type PlanFaultName, planFaults } from './fault-plan.ts';
export type { FaultName } from './faults.ts';
export {
  type Ledger,
  type LedgerEntry,
  type SandboxProvider,
  sandboxProviders,
  type TransactionView,
} from './ledger.ts';
export { magicValues } from './magic.ts';
export type { Verdict } from './verdict.ts';

export interface SandboxOptions {
  /** 127.0.0.1 */
  host?: string;
  /** 0, the default, takes a free port. */
  ports?: Partial<Record<SandboxProvider, number>>;
  controlPort?: number;
  /** JSON lines, appended synchronously before each answer. Codes stand in it as they came: never feed it real ones. */
  ledgerFile?: string;
  /** From the accepted code to the end of the payment; 300. With 0 it ends before the answer. */
  settleAfterMs?: number;
  /** How long each provider takes to answer, after everything is decided and written; 0. */
  answerDelayMs?: number;
  /** secret */
  ceptaAuthScheme?: 'secret' | 'hmac';
  /** hex */
  ayoconnectSignatureEncoding?: 'hex' | 'base64';
  /** PKCS#8 PEM; a fresh RSA key of 2048 bits. Making one takes some 200 ms, which many starts in a row may save. */
  ayoconnectPrivateKey?: string;
  /** Where each provider reports; none is sent to a provider's client without a URL. */
  callbacks?: Partial<Record<SandboxProvider, { url: string }>>;
  /** Pauses before an unacknowledged callback is repeated, scaled down from 1, 2 and 5 minutes; 1000, 2000, 5000. */
  callbackRetryMs?: readonly number[];
  beqelalCallback?: BeqelalCallback;
  ceptaCallback?: CeptaCallback;
  /** Faults that hit at random, such as 'commit_then_reset=0.05,slow=0.1:300'; none. docs/sandbox.md lists them. */
  faults?: string;
  /** The same seed and the same requests give the same faults; 1. */
  seed?: number;
  /** How long the magic value for a slow answer holds it back; 1000. */
  slowMs?: number;
}

/** What a configuration file's entry for this provider needs. */
export interface SandboxEntry {
  baseUrl: string;
  credentials: Record<string, string>;
  options: Record<string, unknown>;
}

export interface Sandbox extends AsyncDisposable {
  readonly host: string;
  readonly control: { readonly url: string };
  readonly providers: Readonly<Record<SandboxProvider, SandboxEntry>>;
  readonly ledger: Ledger;
  /** Connections to this provider are refused, open ones closed; with `forMs` it comes back by itself. */
  takeDown(provider: SandboxProvider, forMs?: number): Promise<void>;
  /** The provider listens on its port again; nothing happens when it does already. */
  bringUp(provider: SandboxProvider): Promise<void>;
  /** Where this provider reports from now on; null for nowhere. */
  setCallback(provider: SandboxProvider, url: string | null): void;
  readonly callbacks: Partial<Record<SandboxProvider, string>>;
  /** Replaces the running plan of faults; '' ends it. Throws a FaultSpecError and leaves all as it was. */
  setFaults(spec: string, seed?: number): void;
  readonly faults: { spec: string; seed: number };
  close(): Promise<void>;
}

export async function startSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  const host = options.host ?? '127.0.0.1';
  const settleAfterMs = options.settleAfterMs ?? 300;
  let plan: FaultPlan = faultPlan(options.faults ?? '', options.seed);
  const ledger = openLedger(options.ledgerFile);
  const timers = new Set<NodeJS.Timeout>();
  const transactions = new Map<string, Transaction>();
  let closed = false;

  const after = (ms: number, work: () => void) => {
    if (closed) return;
    const timer = setTimeout(() => {
      timers.delete(timer);
      work();
    }, ms);
    timers.add(timer);
  };

  const world: World = {
    ledger,
    transaction(provider, reference) {
      const key = `${provider} ${reference}`;
      const known = transactions.get(key) ?? openTransaction(provider, reference);
      transactions.set(key, known);
      return known;
    },
    later: (work) => (settleAfterMs <= 0 ? work() : after(settleAfterMs, work)),
    now: () => Date.now() + plan.clockSkewMs,
    ended: (transaction, as) => callbacks.ended(transaction, as),
    storm: (provider) => storms.begin(provider, 1000),
  };

  const storms = stormWatch();
  const callbacks = callbackOffice({
    ledger,
    plan: () => plan,
    sideOf: (provider) => sides[provider],
    after,
    retryMs: options.callbackRetryMs ?? [1000, 2000, 5000],
  });

  const sides: Record<SandboxProvider, ProviderSide> = {
    'hello-clever': helloClever(world),
    'lipa-later': lipaLater(world),
    ayoconnect: await ayoconnect(world, options.ayoconnectSignatureEncoding ?? 'hex', options.ayoconnectPrivateKey),
    beqelal: beqelal(world, options.beqelalCallback),
    cepta: cepta(world, options.ceptaAuthScheme ?? 'secret', options.ceptaCallback),
  };
  const house = {
    world,
    plan: () => plan,
    callbacks,
    storms,
    pause: (ms: number) => new Promise<void>((resolve) => after(ms, resolve)),
    slowMs: options.slowMs ?? 1000,
    patienceMs: settleAfterMs + 1000,
  };

  const listeners = new Map<SandboxProvider, Listener>();
  const listenerOf = (provider: SandboxProvider): Listener => {
    const listener = listeners.get(provider);
    if (!listener) throw new Error(`no sandbox for ${provider}; there are ${sandboxProviders.join(', ')}`);
    return listener;
  };

  const comingBack = new Map<SandboxProvider, NodeJS.Timeout>();
  const stayAsItIs = (provider: SandboxProvider) => {
    clearTimeout(comingBack.get(provider));
    comingBack.delete(provider);
  };
  const bringUp = async (provider: SandboxProvider) => {
    stayAsItIs(provider);
    if (!closed) await listenerOf(provider).bringUp();
  };
  const takeDown = async (provider: SandboxProvider, forMs?: number) => {
    stayAsItIs(provider);
    await listenerOf(provider).takeDown();
    if (forMs === undefined || closed) return;
    comingBack.set(
      provider,
      setTimeout(() => {
        bringUp(provider).catch((error) => console.error(`the ${provider} sandbox stays down: ${error}`));
      }, forMs),
    );
  };

  const providers: Partial<Record<SandboxProvider, SandboxEntry>> = {};
  let controlListener: Listener | undefined;

  const close = async () => {
    closed = true;
    for (const timer of timers) clearTimeout(timer);
    for (const provider of comingBack.keys()) stayAsItIs(provider);
    await Promise.all([...listeners.values(), controlListener].map((listener) => listener?.takeDown()));
    await callbacks.close();
    ledger.close();
  };

  try {
    for (const provider of sandboxProviders) {
      const side = sides[provider];
      const listener = await listen(
        host,
        options.ports?.[provider] ?? 0,
        (call) => receive(house, side, call),
        options.answerDelayMs,
      );
      listeners.set(provider, listener);
      providers[provider] = { baseUrl: listener.url, credentials: side.credentials, options: side.options };
    }
    for (const [provider, { url }] of Object.entries(options.callbacks ?? {})) {
      callbacks.setUrl(provider as SandboxProvider, url);
    }
    const started = {
      host,
      providers: providers as Record<SandboxProvider, SandboxEntry>,
      ledger,
      takeDown,
      bringUp,
      setCallback: callbacks.setUrl,
      get callbacks() {
        return callbacks.urls();
      },
      setFaults(spec: string, seed?: number) {
        plan = faultPlan(spec, seed);
        storms.calm();
      },
      get faults() {
        return { spec: plan.spec, seed: plan.seed };
      },
    };
    controlListener = await listen(host, options.controlPort ?? 0, (call) => control(started, call));
    return Object.assign(started, { control: { url: controlListener.url }, close, [Symbol.asyncDispose]: close });
  } catch (error) {
    await close(); // a port that was taken leaves nothing listening
    throw error;
  }
}
