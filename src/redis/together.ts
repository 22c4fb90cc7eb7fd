/**
 * What is asked of one script in one turn of the event loop goes to Redis as one command: under load a command costs both
 * sides more than most of what it asks for, and much of what a script looks at is the same for all of them. Each is answered
 * by itself.
 */

import { whenTurnEnds } from './turn.ts';

/** Measured: more of them cost Redis no less, and keep it from others meanwhile. */
const AT_MOST = 16;

/** An answer, or why there is none. */
export type Answered<Answer> = Answer | Error;

interface Asked<Item, Answer> {
  readonly item: Item;
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

export class Together<Item, Answer> {
  readonly #tell: (items: readonly Item[]) => Promise<readonly Answered<Answer>[]>;
  #asked: Asked<Item, Answer>[] = [];
  #left: Promise<void> = Promise.resolve();
  #hasLeft = (): void => {};
  #isEndAwaited = false;

  /** `tell` sends before it waits for anything, and answers in the order of the items. */
  constructor(tell: (items: readonly Item[]) => Promise<readonly Answered<Answer>[]>) {
    this.#tell = tell;
  }

  ask(item: Item): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#asked.length === 0) this.#gather();
      if (this.#asked.push({ item, resolve, reject }) === AT_MOST) this.#send();
    });
  }

  /** What was asked last is on its way: what is sent now comes behind it. */
  get left(): Promise<void> {
    return this.#left;
  }

  #gather(): void {
    this.#left = new Promise((hasLeft) => {
      this.#hasLeft = hasLeft;
    });
    if (this.#isEndAwaited) return;
    this.#isEndAwaited = true;
    whenTurnEnds(() => {
      this.#isEndAwaited = false;
      if (this.#asked.length > 0) this.#send();
    });
  }

  #send(): void {
    const asked = this.#asked;
    this.#asked = [];
    void this.#sendSome(asked);
    this.#hasLeft();
  }

  async #sendSome(asked: readonly Asked<Item, Answer>[]): Promise<void> {
    try {
      const answers = await this.#tell(asked.map(({ item }) => item));
      asked.forEach(({ resolve, reject }, index) => {
        const answer = answers[index] ?? new Error('the script has no answer for it');
        if (answer instanceof Error) reject(answer);
        else resolve(answer);
      });
    } catch (error) {
      for (const { reject } of asked) reject(error as Error);
    }
  }
}

const shared = new WeakMap<object, Map<string, unknown>>();

/** One for each name, for as long as its owner lives: who asks under the same name asks together. */
export function togetherOf<Item, Answer>(
  owner: object,
  name: string,
  tell: (items: readonly Item[]) => Promise<readonly Answered<Answer>[]>,
): Together<Item, Answer> {
  const ofOwner = shared.get(owner) ?? new Map<string, unknown>();
  shared.set(owner, ofOwner);
  const known = ofOwner.get(name) as Together<Item, Answer> | undefined;
  if (known) return known;
  const together = new Together(tell);
  ofOwner.set(name, together);
  return together;
}

/** What a script has said by `each` of each.lua. */
export function answersIn<Answer>(reply: unknown): Answered<Answer>[] {
  return (JSON.parse(String(reply)) as (Answer | { readonly err: string })[]).map((answer) =>
    isRefusal(answer) ? Object.assign(new Error(answer.err), { name: 'ReplyError' }) : answer,
  );
}

function isRefusal(answer: unknown): answer is { readonly err: string } {
  return typeof answer === 'object' && answer !== null && 'err' in answer;
}

/**
 * For a script that reads it by cjson, which knows no half of a surrogate pair: what is no text of Unicode becomes it, as
 * it does in every other argument of a command.
 */
export function jsonFor(items: unknown): string {
  const text = JSON.stringify(items);
  if (!text.includes('\\ud')) return text;
  return JSON.stringify(items, (_, value) => (typeof value === 'string' ? Buffer.from(value).toString() : value));
}
