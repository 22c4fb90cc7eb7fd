/**
 * When Redis is another server than before (restarted, failed over, restored), its journal may have lost its last writes,
 * and a code that was sent may stand there as queued. So nothing begins on a server that the journal is not known to be
 * whole on:
 *
 *   open -> another server answers -> recovering: live workers write back what they know (recoverMs)
 *        -> one worker calls unknown what nobody can vouch for -> open on this server
 *
 * What nobody can vouch for: if every worker of the old server has asserted, nothing. If one is missing, whatever stood
 * queued and could have been begun in the last `lossWindowMs`. If it cannot be told how much was lost, everything that is
 * not final, and a person looks at each.
 */
import { asError, type EventBus } from '../events.ts';
import { RecordError, type VerificationRecord } from '../producers/record.ts';
import type { Evidence } from './decide.ts';
import type { Journal } from './journal.ts';
import { BEAT_MS, type Beat } from './witness.ts';

/** The uptime of a server is known in whole seconds. */
const UPTIME_ERROR_MS = 1_000;
/** Kept up while there is something to do; a recoverer that was killed is followed after this. */
const RECOVERER_MS = 5_000;
const KEEP_RECOVERING_MS = 1_000;
const TOGETHER = 50;

export interface EpochDependencies {
  readonly partition: string;
  readonly journal: Journal;
  readonly lossWindowMs: number;
  readonly events: EventBus;
  conclude(record: VerificationRecord, evidence: Evidence): Promise<void>;
}

export class Epoch {
  readonly #deps: EpochDependencies;

  constructor(deps: EpochDependencies) {
    this.#deps = deps;
  }

  /** One beat. False while the journal is recovering: then nothing may be concluded from what is not in it. */
  async beat(): Promise<boolean> {
    const { journal, events, partition } = this.#deps;
    const { witness } = journal;
    const beat = await witness.beat();
    // Also when the others have opened it already: what was away all the while still knows what it knows.
    if (witness.mustAssert) await witness.assertKnown();
    if (beat.is === 'open') return true;
    if (journal.now() < beat.until || !(await witness.mayOneRecover(RECOVERER_MS))) return false;
    try {
      await this.#recover(beat);
    } catch (error) {
      events.emit('machinery:failed', { where: `recovery of ${partition}`, error: asError(error) });
      await witness.giveUpRecovery();
    }
    return false;
  }

  async #recover(beat: Extract<Beat, { is: 'recovering' }>): Promise<void> {
    const { journal, lossWindowMs, events, partition } = this.#deps;
    const { witness } = journal;
    const { lastBeat, present, missing } = await witness.others(beat.lostFrom);
    const lostMs = lastBeat > 0 ? lastBeat - beat.lostFrom : beat.serverStartedAt - beat.lostFrom;
    // A beat a second, so what was lost is known to within one; without a witness the outage itself counts as lost.
    const uncertaintyMs = BEAT_MS + (lastBeat > 0 ? 0 : UPTIME_ERROR_MS);
    const bounded = (lastBeat === 0 && missing.length === 0) || lostMs <= lossWindowMs + uncertaintyMs;
    const isSuspect = (record: VerificationRecord): boolean =>
      !acceptedHere(record, beat) && (bounded ? mayHaveBegun(record, beat) : !isKnown(record, present));
    // A backlog may be long: it is gone through only when there is something to find.
    const isWhole = bounded && (missing.length === 0 || lossWindowMs === 0);
    const suspects = isWhole ? [] : await journal.unfinished();
    const since = beat.serverStartedAt - UPTIME_ERROR_MS;
    let suspected = 0;
    let keptAt = performance.now();
    // The partition stands still meanwhile, so many are looked at together.
    for (let from = 0; from < suspects.length; from += TOGETHER) {
      if (performance.now() - keptAt > KEEP_RECOVERING_MS) {
        await witness.keepRecovering(RECOVERER_MS);
        keptAt = performance.now();
      }
      const concluded = suspects.slice(from, from + TOGETHER).map(async (id): Promise<boolean> => {
        const record = await this.#read(id);
        if (!record || record.state === 'settled' || !isSuspect(record)) return false;
        if (record.state === 'queued' && !(await journal.couldHaveBegun(record, since))) return false;
        await this.#deps.conclude(record, { from: 'rolled_back', bounded });
        return true;
      });
      suspected += (await Promise.all(concluded)).filter(Boolean).length;
    }
    if (!(await witness.open(beat.server, missing))) return; // another server again: its own recovery follows
    events.emit('journal:recovered', { partition, bounded, missing: missing.length, suspected });
  }

  /** One that was tampered with can be read by nobody, so nobody can send it: it keeps the partition from nothing. */
  async #read(id: string): Promise<VerificationRecord | null> {
    try {
      return await this.#deps.journal.read(id);
    } catch (error) {
      if (!(error instanceof RecordError)) throw error;
      this.#deps.events.emit('machinery:failed', { where: `recovery of ${this.#deps.partition}, at ${id}`, error });
      return null;
    }
  }
}

type Recovering = Extract<Beat, { is: 'recovering' }>;

/** Then no attempt for it can have been lost with the old server. */
function acceptedHere({ createdAt }: VerificationRecord, { serverStartedAt }: Recovering): boolean {
  return createdAt > serverStartedAt + UPTIME_ERROR_MS;
}

/** Could a worker of which nothing is known have begun this one in the last moments of the old server? */
function mayHaveBegun(record: VerificationRecord, { lostFrom, serverStartedAt }: Recovering): boolean {
  if (record.state !== 'queued') return false;
  // Not yet due when the old server ended; a time that was set since then says nothing of what was due before.
  const wasNotDue =
    record.notBefore > serverStartedAt + UPTIME_ERROR_MS && record.updatedAt < serverStartedAt - UPTIME_ERROR_MS;
  const wasDead = record.expiresAt < lostFrom; // before the first write that can be lost
  return !wasNotDue && !wasDead;
}

/** A live worker has it in hand and will say what became of it. */
function isKnown({ state, owner }: VerificationRecord, present: ReadonlySet<string>): boolean {
  return state === 'sending' && owner !== null && present.has(owner);
}
