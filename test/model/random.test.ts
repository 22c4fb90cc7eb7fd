/** Long lives at random: everything there is may happen, read and written at different times, and said twice. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Event, eventsAt, told } from './events.ts';
import { reportOf, withLanes } from './explore.ts';
import { isKnown } from './known-faults.ts';
import type { Lane } from './lane.ts';
import { everything, everythingRolledBack } from './models.ts';
import { Violation } from './oracle.ts';
import type { State } from './state.ts';
import { begin, type Model, stepOf } from './step.ts';

/** Where a life stands; the commands of one life share it. */
interface Life {
  state: State;
  readonly trace: Event[];
  /** It came upon a known fault, and what follows from that is known too. */
  over: boolean;
}

interface Reality {
  readonly lane: Lane;
  readonly model: Model;
}

/** Which of all that may happen next, by a number, so that a life that is made shorter is still a life. */
class Happens implements fc.AsyncCommand<Life, Reality> {
  readonly #number: number;

  constructor(number: number) {
    this.#number = number;
  }

  check(): boolean {
    return true;
  }

  async run(life: Life, { lane, model }: Reality): Promise<void> {
    if (life.over) return;
    const events = eventsAt(life.state, model.world, model.alphabet);
    await happen(life, { lane, model }, events[this.#number % events.length] as Event);
  }

  toString(): string {
    return String(this.#number);
  }
}

async function happen(life: Life, { lane, model }: Reality, event: Event): Promise<void> {
  life.trace.push(event);
  try {
    life.state = await stepOf(lane, model, life.state, event);
  } catch (error) {
    if (!(error instanceof Violation)) throw error;
    if (!isKnown(error)) throw new Error(await reportOf(error, life.trace, lane));
    life.over = true;
  }
}

/** When nothing more is heard of anyone, the sweeper brings each to its end, or to a person. */
async function endOf(life: Life, { lane, model }: Reality): Promise<void> {
  for (let turn = 0; turn < 40; turn += 1) {
    const waiting = life.state.content.records.find(
      (record) => record && record.state !== 'settled' && !(record.state === 'awaiting' && record.needsReview === '1'),
    );
    if (!waiting) return;
    const of = life.state.content.records.indexOf(waiting) as 0 | 1;
    if (life.state.rollback?.recovering) {
      // Somebody is heard of again, and the journal is looked through.
      await happen(life, { lane, model }, { do: 'beat', worker: 0 });
      if (!life.over && life.state.rollback?.recovering) await happen(life, { lane, model }, { do: 'recover' });
      continue;
    }
    const asked = waiting.state === 'awaiting' && Number(waiting.nextInquiryAt ?? 0) > 0;
    const event: Event = asked ? { do: 'inquiry', of, as: 'nothing' } : { do: 'sweep', worker: 0 };
    await happen(life, { lane, model: { ...model, alphabet: { ...model.alphabet, split: false } } }, event);
    if (life.over) return;
  }
  throw new Error(`no end in sight after\n${life.trace.map(told).join('\n')}\n${JSON.stringify(life.state.content)}`);
}

/** On a machine that has nothing else to do all of them are lived in less. */
const LIVES_FOR_MS = 4_500;

test.each([
  ['inquiry', everything('inquiry')],
  ['callback', everything('callback')],
  ['noMoney', everything('noMoney')],
  ['inquiry, and Redis loses its last writes', everythingRolledBack('inquiry')],
  ['callback, and Redis loses its last writes', everythingRolledBack('callback')],
] as const)(
  'every rule holds in long lives at random, and each comes to an end: %s',
  async (world, model) => {
    let steps = 0;
    const until = Date.now() + LIVES_FOR_MS;
    await withLanes(undefined, 1, async ([lane]) => {
      if (!lane) throw new Error('no lane');
      const lives = fc.commands([fc.nat({ max: 10_000 }).map((number) => new Happens(number))], {
        maxCommands: 40,
        size: 'max',
      });
      await fc.assert(
        fc.asyncProperty(lives, async (commands) => {
          if (Date.now() > until) return; // as many as there is time for; one that was begun is lived to its end
          const life = { state: await begin(lane, model), trace: [] as Event[], over: false };
          await fc.asyncModelRun(() => ({ model: life, real: { lane, model } }), commands);
          steps += life.trace.length;
          if (!life.over) await endOf(life, { lane, model });
        }),
        { numRuns: 150 },
      );
    });
    console.log(`${world}: ${steps} events in lives at random`);
    expect(steps).toBeGreaterThan(20);
  },
  60_000,
);
