/** One event: a state is put into Redis, the production code does what it does, and what stands there then is judged. */

import { EventBus } from '../../src/events.ts';
import { newRecords } from '../../src/producers/accept.ts';
import type { VerificationRecord } from '../../src/producers/record.ts';
import { conclude } from '../../src/workers/attempt.ts';
import type { Facts } from '../../src/workers/change.ts';
import type { Evidence } from '../../src/workers/decide.ts';
import { Epoch } from '../../src/workers/epoch.ts';
import { type Applied, type Asking, type Beginning, Journal, type JournalSettings } from '../../src/workers/journal.ts';
import { Sweeper, type SweeperDependencies } from '../../src/workers/sweeper.ts';
import { type Beat, Witness } from '../../src/workers/witness.ts';
import { type Alphabet, ANSWERS, type Event, FINDINGS, type Side, sweepAt } from './events.ts';
import { type Lane, type Of, ownTime, REFERENCE } from './lane.ts';
import {
  AMOUNT,
  begun,
  demandPassed,
  heard,
  INVARIANTS,
  judge,
  newOracle,
  TIMEOUT_MS,
  Violation,
  type World,
} from './oracle.ts';
import { ReplyLost } from './seam.ts';
import type { Held, Memory, State, Undelivered, WorkerState } from './state.ts';

export interface Model {
  readonly world: World;
  readonly alphabet: Alphabet;
}

const EPOCH_MS = 1_800_000_000_000;
const LIFETIME_MS = 120_000;
const RETENTION_MS = 3_600_000;
const LOSS_WINDOW_MS = 2_000;
const RECOVER_MS = 500;
/** Where Redis may lose what it was told, it matters in what order things were: every event takes so long. */
const EVENT_MS = 400;
const BEAT_EVERY_MS = 1_000;
/** What moves it is an event of its own, so that it may stand as it likes at any time. */
const BREAKER = {
  ...{ enabled: true, failures: 1_000, share: 1, windowMs: 60_000, openMs: 5_000, maxOpenMs: 60_000, rampMs: 1_000 },
};
const SERVERS = ['aa:00', 'bb:11', 'cc:22'] as const;

/** The production witness, by the clock of the model, and with a memory that can be rebuilt. */
class ModelWitness extends Witness {
  memory: Memory[] = [];
  readonly #lane: Lane;
  /** Inside of something that is remembered as a whole. */
  #within = false;

  constructor(lane: Lane, settings: JournalSettings, worker: string, events: EventBus) {
    super(lane.seam.connection, settings, worker, events);
    this.#lane = lane;
  }

  override now(): number {
    return this.#lane.clock;
  }

  override async beat(): Promise<Beat> {
    const from = this.#lane.seam.replies.length;
    const beat = await super.beat();
    if (this.#lane.seam.rehearsed !== null) return beat;
    // The last of several beats on one server says it all.
    const last = this.memory.at(-1);
    const said = (reply: unknown): unknown => [(reply as unknown[])[0], (reply as unknown[]).at(-2)].join();
    if (last?.do === 'beat' && said(last.replies[0]) === said(this.#lane.seam.replies[from])) this.memory.pop();
    this.note(from, { do: 'beat' });
    return beat;
  }

  override async assertKnown(): Promise<void> {
    const from = this.#lane.seam.replies.length;
    this.#within = true;
    await super.assertKnown();
    this.#within = false;
    this.note(from, { do: 'assert' });
  }

  /** @param from of the replies that it has heard: those of this one */
  note(
    from: number,
    memory:
      | { do: 'begin'; id: string }
      | { do: 'apply'; record: VerificationRecord; evidence: Evidence }
      | { do: 'beat' | 'assert' },
  ): void {
    const { seam, clock } = this.#lane;
    if (seam.rehearsed !== null || this.#within) return;
    this.memory.push({ ...memory, at: clock, replies: seam.replies.slice(from) } as Memory);
  }
}

/** The production journal, of which its witness remembers what it does. */
class ModelJournal extends Journal {
  override readonly witness: ModelWitness;
  readonly #lane: Lane;

  constructor(lane: Lane, { world, alphabet }: Model, worker: string, events: EventBus) {
    const settings: JournalSettings = {
      partition: lane.partition,
      policy: {
        effect: world.effect,
        canInquire: () => world.canInquire,
        maxAttempts: world.maxAttempts,
        inquiry: { delaysMs: world.delaysMs, giveUpAfterMs: world.giveUpAfterMs },
      },
      rateLimit: { max: 10_000, perMs: 1_000 },
      inquiryRateLimit: { max: 10_000, perMs: 1_000 },
      timeoutMs: TIMEOUT_MS,
      ...(alphabet.breaker ? { breaker: BREAKER } : {}),
      retentionMs: RETENTION_MS,
      lossWindowMs: LOSS_WINDOW_MS,
      recoverMs: RECOVER_MS,
    };
    const witness = new ModelWitness(lane, settings, worker, events);
    super(lane.seam.connection, settings, witness, events);
    this.witness = witness;
    this.#lane = lane;
  }

  override async begin(id: string): Promise<Beginning> {
    const from = this.#lane.seam.replies.length;
    const beginning = await super.begin(id);
    if (beginning.is === 'begun') this.witness.note(from, { do: 'begin', id });
    return beginning;
  }

  override async apply(
    record: VerificationRecord,
    evidence: Evidence,
    facts: Facts,
    seal: (client: string, details: unknown) => Promise<string>,
  ): Promise<Applied> {
    const from = this.#lane.seam.replies.length;
    let isNoted = record.state === 'sending';
    try {
      const applied = await super.apply(record, evidence, facts, seal);
      isNoted &&= applied.verdict !== null;
      return applied;
    } finally {
      if (isNoted) this.witness.note(from, { do: 'apply', record, evidence });
    }
  }
}

interface Worker {
  readonly journal: ModelJournal;
  readonly epoch: Epoch;
}

function unlessLost(error: unknown): void {
  if (!(error instanceof ReplyLost)) throw error;
}

/** Where everything begins: one verification is queued, two workers live. */
export async function begin(lane: Lane, { world, alphabet }: Model): Promise<State> {
  const worker = (name: string): WorkerState => ({ name, stalled: false, memory: [], lastBeat: 0 });
  const nothing: State = {
    content: {
      records: [null, null],
      ...{ reference: {}, due: {}, awaiting: {}, review: {}, workers: {}, asserted: {}, breaker: {} },
      epoch: { server: SERVERS[0], seenAt: String(EPOCH_MS) },
      alive: ['a0', 'b0'],
    },
    clock: EPOCH_MS,
    server: SERVERS[0],
    serverStartedAt: EPOCH_MS - 3_600_000,
    workers: [worker('a0'), worker('b0')],
    held: [],
    undelivered: [],
    lastAnswer: null,
    outbox: [],
    oracle: newOracle(['a', null]),
    rollback: alphabet.rollbacks > 0 ? { saved: null, times: 0, recovering: false } : null,
  };
  const step = new Step(lane, { world, alphabet }, nothing);
  return await step.run(async () => {
    await step.accept(0, 'a');
    if (alphabet.rollbacks === 0) return;
    // A verification whose acceptance was lost is another matter: both are accepted before anything can be lost.
    await step.accept(1, alphabet.seconds[0] === 'same' ? 'a' : 'b');
    await step.beatAll(true);
    await step.take({ do: 'save' });
  });
}

/** What stands after the event. Throws a Violation when something is not as it must be. */
export async function stepOf(lane: Lane, model: Model, state: State, event: Event): Promise<State> {
  const step = new Step(lane, model, state);
  return await step.run(async () => await step.take(event));
}

class Step {
  readonly #lane: Lane;
  readonly #model: Model;
  #state: State;
  readonly #workers: (Worker | null)[] = [null, null];
  readonly #events = new EventBus();
  #failure: Error | null = null;

  constructor(lane: Lane, model: Model, state: State) {
    this.#lane = lane;
    this.#model = model;
    this.#state = state;
    this.#events.on('machinery:failed', ({ where, error }) => {
      this.#failure ??=
        error instanceof Violation ? error : new Violation(INVARIANTS.machinery, `${where}: ${error.stack}`);
    });
  }

  async run(act: () => Promise<void>): Promise<State> {
    if (this.#state.rollback === null) return await this.#run(act);
    return await ownTime.run(this.#lane, async () => await this.#run(act));
  }

  async #run(act: () => Promise<void>): Promise<State> {
    const { clock, server, serverStartedAt } = this.#state;
    const loading = this.#lane.load(this.#state.content, clock, server, serverStartedAt);
    await Promise.all([act(), loading]);
    const { content, published } = await this.#lane.save(this.#state.workers.map(({ name }) => name));
    if (this.#failure) throw this.#failure;
    const outbox = published.length === 0 ? this.#state.outbox : [...this.#state.outbox, ...published];
    const at = this.#lane.clock;
    const recovering = content.epoch.server !== this.#state.server;
    const oracle = judge(this.#state.oracle, content, outbox, at, this.#model.world, recovering);
    const workers = this.#state.workers.map((worker, side) => {
      const journal = this.#workers[side]?.journal;
      return journal && this.#state.rollback ? { ...worker, memory: journal.witness.memory } : worker;
    }) as [WorkerState, WorkerState];
    const { rollback } = this.#state;
    this.#state = {
      ...this.#state,
      ...{ content, outbox, oracle, workers, clock: at },
      rollback: rollback && { ...rollback, recovering },
    };
    return this.#state;
  }

  async take(event: Event): Promise<void> {
    const lane = this.#lane;
    if (this.#state.rollback) await this.#pass(EVENT_MS);
    const state = this.#state;
    switch (event.do) {
      case 'accept':
        return await this.accept(1, event.code === 'same' ? 'a' : 'b');
      case 'begin': {
        // A delayed job comes when its time has come.
        const record = state.content.records[event.of];
        if (record?.state === 'queued') await this.#passUntil(Number(record.notBefore ?? 0));
        return await this.#begin(event.worker, event.of);
      }
      case 'answer': {
        const held = state.held.find(({ of, attempt }) => of === event.of && attempt === event.attempt) as Held;
        const answer = ANSWERS[event.as];
        const evidence: Evidence =
          'outcome' in answer
            ? { from: 'answer', outcome: answer.outcome }
            : 'lost' in answer
              ? { from: 'lost', code: 'ECONNRESET' }
              : 'noKey' in answer
                ? { from: 'no_key' }
                : { from: 'not_sent', code: 'ECONNREFUSED', remediable: answer.notSent };
        this.#change({ held: state.held.filter((one) => one !== held) });
        if (this.#model.alphabet.again || event.unheard) this.#change({ lastAnswer: { ...held, evidence } });
        lane.seam.losesReply = event.unheard === true;
        await this.#conclude({ ...held, evidence }).catch(unlessLost);
        lane.seam.losesReply = false;
        return;
      }
      case 'again':
        if (!this.#model.alphabet.again) this.#change({ lastAnswer: null });
        return await this.#conclude(state.lastAnswer as Held & Undelivered);
      case 'deliver': {
        const undelivered = state.undelivered[event.which] as Undelivered;
        this.#change({ undelivered: state.undelivered.filter((one) => one !== undelivered) });
        // Whoever read it and is gone might as well not have read it; so it matters not who has.
        return await this.#conclude({ ...undelivered, worker: this.#awake() });
      }
      case 'crash': {
        const { name } = state.workers[event.worker];
        await lane.redis.del(lane.keys.heartbeat(name));
        this.#workers[event.worker] = null;
        const next = `${name[0]}${Number(name.slice(1)) + 1}`;
        this.#worker(event.worker, { name: next, stalled: false, memory: [], lastBeat: 0 });
        this.#change({
          held: state.held.filter(({ worker }) => worker !== event.worker),
          lastAnswer: state.lastAnswer?.worker === event.worker ? null : state.lastAnswer,
        });
        // Its successor beats before it does anything else.
        if (state.rollback) await this.#beat(event.worker);
        return;
      }
      case 'stall':
        await lane.redis.del(lane.keys.heartbeat(state.workers[event.worker].name));
        return this.#worker(event.worker, { stalled: true });
      case 'callback': {
        const record = await this.#read(event.of);
        if (event.late) await this.#passUntil(record.inFlightUntil + 1);
        const evidence: Evidence = { from: 'callback', finding: FINDINGS[event.as], receivedAt: lane.clock };
        return await this.#have(this.#awake(), event.of, record, evidence);
      }
      case 'inquiry': {
        const worker = this.#awake();
        const { nextInquiryAt, inFlightUntil } = state.content.records[event.of] ?? {};
        await this.#passUntil(Number(nextInquiryAt));
        if (event.late) await this.#passUntil(Number(inFlightUntil) + 1);
        const asking: Asking = await (await this.#journal(worker)).ask(
          lane.ids[event.of],
          0,
          state.content.breaker.state === 'open',
        );
        if (asking.is !== 'ask')
          throw new Violation(INVARIANTS.nextStep, `an inquiry is due and is answered ${asking.is}`);
        const evidence: Evidence = { from: 'inquiry', finding: FINDINGS[event.as], askedAt: asking.askedAt };
        return await this.#have(worker, event.of, asking.record, evidence);
      }
      case 'resolve': {
        const record = await this.#read(event.of);
        return await this.#have(this.#awake(), event.of, record, { from: 'operator', as: event.as });
      }
      case 'no_token': {
        const record = await this.#read(event.of);
        if (record.state !== 'queued') return; // as attempt.ts: what is further on is left alone
        const evidence: Evidence = { from: 'not_sent', code: 'NO_TOKEN', remediable: true };
        return await this.#have(this.#awake(), event.of, record, evidence);
      }
      case 'deadline': {
        const open = state.content.records.filter(
          (record) => record?.state === 'queued' || record?.state === 'sending',
        );
        return await this.#passUntil(Math.max(...open.map((record) => Number(record?.expiresAt))));
      }
      case 'sweep':
        await this.#passUntil(sweepAt(state) ?? 0);
        this.#worker(event.worker, { stalled: false });
        return await this.#sweep(event.worker);
      case 'wait':
        for (let ms = 0; ms < 5_000; ms += BEAT_EVERY_MS) await this.#pass(BEAT_EVERY_MS);
        return;
      case 'save': {
        const { content } = await lane.save(state.workers.map(({ name }) => name));
        return this.#rollback({ saved: { content, outbox: state.outbox } });
      }
      case 'rollback': {
        const { content } = await lane.save(state.workers.map(({ name }) => name));
        const saved = state.rollback?.saved?.content ?? content;
        const times = (state.rollback?.times ?? 0) + 1;
        const server = SERVERS[times] as string;
        const back = { ...saved, alive: saved.alive.filter((name) => content.alive.includes(name)) };
        this.#change({
          server,
          serverStartedAt: lane.clock,
          oracle: { ...state.oracle, rolledBack: true },
        });
        this.#rollback({ times, saved: null });
        await lane.load(back, lane.clock, server, lane.clock);
        return;
      }
      case 'breaker': {
        // Whoever moves it forgets who was on trial.
        await lane.redis.del(lane.keys.breaker);
        const at = String(lane.clock);
        if (event.is === 'closed') return;
        await lane.redis.hset(lane.keys.breaker, { state: event.is, since: at, until: at, version: 'v' });
        return;
      }
      case 'beat':
        this.#worker(event.worker, { stalled: false });
        return await this.#beat(event.worker);
      case 'recover':
        await this.#pass(RECOVER_MS);
        return await this.beatAll(true);
    }
    return event satisfies never;
  }

  async accept(of: Of, code: string): Promise<void> {
    const { partition, ids, seam } = this.#lane;
    const fields = {
      v: '1',
      operation: 'verify',
      client: 'shop',
      reference: REFERENCE,
      head: JSON.stringify({ amount: AMOUNT }),
      code: 'sealed',
      codePrint: code,
      claim: '{idem-shop}:claim',
    };
    const id = ids[of];
    await newRecords(seam.connection, partition).ask({ id, lifetimeMs: LIFETIME_MS, expiresAt: null, fields });
    const { codes } = this.#state.oracle;
    this.#change({ oracle: { ...this.#state.oracle, codes: of === 0 ? [code, codes[1]] : [codes[0], code] } });
  }

  async #begin(side: Side, of: Of): Promise<void> {
    const id = this.#lane.ids[of];
    const beginning = await (await this.#journal(side)).begin(id);
    if (beginning.is === 'begun') {
      const { record } = beginning;
      const { oracle, held, content } = this.#state;
      demandPassed(content, of, this.#lane.clock);
      const fields = { attempts: String(record.attempts), expiresAt: String(record.expiresAt) };
      this.#change({
        oracle: begun(oracle, of, fields, this.#lane.clock, this.#model.world),
        held: [...held, { worker: side, of, attempt: record.attempts, record }],
      });
      // To begin is also to say that one lives.
      this.#worker(side, { stalled: false });
    }
    if (beginning.is === 'evidence') await this.#have(side, of, beginning.record, beginning.evidence);
  }

  /** Evidence that is about no submission of the worker's own. */
  async #have(worker: Side, of: Of, record: VerificationRecord, evidence: Evidence): Promise<void> {
    const undelivered: Undelivered = { of, attempt: 0, record, evidence };
    if (!this.#model.alphabet.split) return await this.#conclude({ ...undelivered, worker });
    this.#change({ undelivered: [...this.#state.undelivered, undelivered] });
  }

  async #conclude({ worker, of, attempt, record, evidence }: Held & Undelivered): Promise<void> {
    const { oracle } = this.#state;
    this.#change({ oracle: heard(oracle, of, attempt, evidence, this.#lane.clock, this.#model.world) });
    await conclude(record, evidence, {}, {}, this.#dependencies(await this.#journal(worker)));
  }

  #dependencies(journal: Journal): Parameters<typeof conclude>[4] {
    return {
      journal,
      sessions: { drop: async () => {} } as unknown as Parameters<typeof conclude>[4]['sessions'],
      sealDetails: async () => 'sealed',
      slowDown: async () => {},
      published: () => {},
    };
  }

  async #read(of: Of): Promise<VerificationRecord> {
    const record = await (await this.#journal(this.#awake())).read(this.#lane.ids[of]);
    if (record === null) throw new Error('an event speaks of a record that is not there');
    return record;
  }

  /** The production sweeper, one tick of it; its timer is ours. */
  async #sweep(side: Side): Promise<void> {
    const { journal, epoch } = await this.#ready(side);
    const jobs = { getJob: async () => undefined, add: async () => {} } as unknown as SweeperDependencies['inquiries'];
    const sweeper = new Sweeper({
      partition: this.#lane.partition,
      journal,
      verifications: jobs,
      inquiries: jobs,
      events: this.#events,
      giveUpAfterMs: this.#model.world.giveUpAfterMs,
      beat: async () => await epoch.beat(),
      conclude: async (record, evidence) =>
        void (await conclude(record, evidence, {}, {}, this.#dependencies(journal))),
    });
    const { setInterval: timer } = globalThis;
    let tick = (): void => {};
    globalThis.setInterval = ((act: () => void) => {
      tick = act;
    }) as unknown as typeof setInterval;
    sweeper.start();
    globalThis.setInterval = timer;
    tick();
    await sweeper.close();
  }

  async #journal(side: Side): Promise<ModelJournal> {
    return (await this.#ready(side)).journal;
  }

  #made(side: Side): Worker {
    const known = this.#workers[side];
    if (known) return known;
    const { name, memory } = this.#state.workers[side];
    const journal = new ModelJournal(this.#lane, this.#model, name, this.#events);
    const epoch = new Epoch({
      partition: this.#lane.partition,
      journal,
      lossWindowMs: LOSS_WINDOW_MS,
      events: this.#events,
      conclude: async (record, evidence) =>
        void (await conclude(record, evidence, {}, {}, this.#dependencies(journal))),
    });
    const made = { journal, epoch };
    journal.witness.memory = [...memory];
    this.#workers[side] = made;
    return made;
  }

  /** As `#made`, and with all that this worker remembers. */
  async #ready(side: Side): Promise<Worker> {
    const isNew = this.#workers[side] === null;
    const worker = this.#made(side);
    if (isNew && this.#state.rollback) await this.#rehearse(worker.journal, this.#state.workers[side].memory);
    return worker;
  }

  async #rehearse(journal: ModelJournal, memory: readonly Memory[]): Promise<void> {
    const { seam } = this.#lane;
    const lane = this.#lane;
    const now = lane.clock;
    for (const one of memory) {
      lane.clock = one.at;
      seam.rehearsed = [...one.replies];
      seam.rehearsesTurns = one.do === 'assert';
      switch (one.do) {
        case 'begin':
          await journal.begin(one.id);
          break;
        case 'apply':
          await journal.apply(one.record, one.evidence, {}, async () => 'sealed').catch(unlessLost);
          break;
        case 'beat':
          await journal.witness.beat();
          break;
        case 'assert':
          await journal.witness.assertKnown();
          break;
      }
    }
    seam.rehearsed = null;
    lane.clock = now;
  }

  async #beat(side: Side): Promise<void> {
    const { epoch } = await this.#ready(side);
    this.#worker(side, { lastBeat: this.#lane.clock });
    await epoch.beat();
  }

  /** Every worker that is not stalled says that it lives. */
  async beatAll(now: boolean): Promise<void> {
    for (const side of [0, 1] as const) {
      const { stalled, lastBeat } = this.#state.workers[side];
      if (!stalled && (now || this.#lane.clock - lastBeat >= BEAT_EVERY_MS)) await this.#beat(side);
    }
  }

  async #pass(ms: number): Promise<void> {
    await this.#passUntil(this.#lane.clock + ms);
  }

  async #passUntil(time: number): Promise<void> {
    const { rollback } = this.#state;
    await this.#lane.setClock(time);
    if (rollback) await this.beatAll(false);
  }

  #awake(): Side {
    const [first, second] = this.#state.workers;
    return first.stalled && !second.stalled ? 1 : 0;
  }

  #change(change: Partial<State>): void {
    this.#state = { ...this.#state, ...change };
  }

  #worker(side: Side, change: Partial<WorkerState>): void {
    const [first, second] = this.#state.workers;
    this.#change({ workers: side === 0 ? [{ ...first, ...change }, second] : [first, { ...second, ...change }] });
  }

  #rollback(change: Partial<NonNullable<State['rollback']>>): void {
    const { rollback } = this.#state;
    this.#change({ rollback: rollback && { ...rollback, ...change } });
  }
}
