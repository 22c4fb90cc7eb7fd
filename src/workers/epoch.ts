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
import type { VerificationRecord } from '../producers/record.ts';
import type { Evidence } from './decide.ts';
import { BEAT_MS, type Beat, type Journal } from './journal.ts';

/** The uptime of a server is known in whole seconds. */
const UPTIME_ERROR_MS = 1_000;
const RECOVERER_MS = 30_000;

export interface EpochDependencies {
  readonly partition: string;
  readonly journal: Journal;
  readonly lossWindowMs: number;
  readonly events: EventBus;
  conclude(record: VerificationRecord, evidence: Evidence): Promise<void>;
}

export class Epoch {
  readonly #deps: EpochDependencies;
  /** The server to which this process has asserted what it knows. */
  #assertedTo: string | null = null;

  constructor(deps: EpochDependencies) {
    this.#deps = deps;
  }

  /** One beat. False while the journal is recovering: then nothing may be concluded from what is not in it. */
  async beat(): Promise<boolean> {
    const { journal, events, partition } = this.#deps;
    const beat = await journal.beat();
    if (beat.is === 'open') {
      this.#assertedTo = null;
      return true;
    }
    if (this.#assertedTo !== beat.server) {
      await journal.assertKnown();
      this.#assertedTo = beat.server;
    }
    if (journal.now() < beat.until || !(await journal.mayOneRecover(RECOVERER_MS))) return false;
    try {
      await this.#recover(beat);
    } catch (error) {
      events.emit('machinery:failed', { where: `recovery of ${partition}`, error: asError(error) });
    }
    return false;
  }

  async #recover(beat: Extract<Beat, { is: 'recovering' }>): Promise<void> {
    const { journal, lossWindowMs, events, partition } = this.#deps;
    const { lastBeat, missing } = await journal.witnesses(beat.lostFrom);
    const lostMs = lastBeat > 0 ? lastBeat - beat.lostFrom : beat.serverStartedAt - beat.lostFrom;
    // A beat a second, so what was lost is known to within one; without a witness the outage itself counts as lost.
    const uncertaintyMs = BEAT_MS + (lastBeat > 0 ? 0 : UPTIME_ERROR_MS);
    const bounded = (lastBeat === 0 && missing.length === 0) || lostMs <= lossWindowMs + uncertaintyMs;
    let suspected = 0;
    for (const id of await journal.unfinished()) {
      const record = await journal.read(id);
      if (!record || record.state === 'settled') continue;
      if (bounded ? !mayHaveBegun(record, beat, lossWindowMs, missing) : await isKnown(record, journal)) continue;
      suspected += 1;
      await this.#deps.conclude(record, { from: 'rolled_back', bounded });
    }
    await journal.open(beat.server, missing);
    events.emit('journal:recovered', { partition, bounded, missing: missing.length, suspected });
  }
}

/** Could a worker of which nothing is known have begun this one in the last moments of the old server? */
function mayHaveBegun(
  record: VerificationRecord,
  { lostFrom, serverStartedAt }: Extract<Beat, { is: 'recovering' }>,
  lossWindowMs: number,
  missing: readonly string[],
): boolean {
  if (missing.length === 0 || lossWindowMs === 0 || record.state !== 'queued') return false;
  const untouched =
    record.createdAt > serverStartedAt + UPTIME_ERROR_MS || // accepted by this server
    record.notBefore > serverStartedAt + UPTIME_ERROR_MS || // not yet due when the old one ended
    record.expiresAt < lostFrom - lossWindowMs; // dead before the lost window began
  return !untouched;
}

/** A live worker has it in hand and will say what became of it. */
async function isKnown(record: VerificationRecord, journal: Journal): Promise<boolean> {
  return record.state === 'sending' && (await journal.ownerLives(record));
}
