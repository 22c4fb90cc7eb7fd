/**
 * The end of a turn of the event loop, when all sockets that had something have been read. First whoever has gathered
 * questions meanwhile puts them, then what was put leaves.
 */
let questions: (() => void)[] = [];
let departures: (() => void)[] = [];
let isAwaited = false;

/** Puts a question at the end of this turn. */
export function whenTurnEnds(question: () => void): void {
  questions.push(question);
  awaitEnd();
}

/** Runs behind all questions, and behind what whoever waited for one to be put does at once. */
export function whenAllIsSaid(departure: () => void): void {
  departures.push(departure);
  awaitEnd();
}

function awaitEnd(): void {
  if (isAwaited) return;
  isAwaited = true;
  setImmediate(() => {
    const asked = questions;
    questions = [];
    for (const question of asked) question();
    // Ticks come before promises: this one is set behind the promises, so that it comes when they have run dry.
    queueMicrotask(() => process.nextTick(leave));
  });
}

function leave(): void {
  isAwaited = false;
  const leaving = departures;
  departures = [];
  for (const departure of leaving) departure();
  if (questions.length > 0) awaitEnd();
}
