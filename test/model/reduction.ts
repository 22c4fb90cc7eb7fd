/** Is it so that of states that count as one the same follows? Looked at one by one, as far as that goes. */
import { digestOf, exactDigestOf } from './digest.ts';
import { type Event, told } from './events.ts';
import { explore, type Found } from './explore.ts';
import type { State } from './state.ts';
import type { Model } from './step.ts';

export interface Compared {
  /** Every state to the letter. */
  readonly exact: Found;
  readonly reduced: Found;
  /** Of two states that count as one, what follows from the first only, and from the second only. */
  readonly differences: readonly { readonly states: readonly [State, State]; readonly follows: readonly string[][] }[];
  /** Reached in one enumeration and not in the other. */
  readonly missed: readonly string[];
}

export async function compareReduction(model: Model, depth: number): Promise<Compared> {
  const limits = { depth, states: Number.POSITIVE_INFINITY };
  const [exactly, briefly] = [once(exactDigestOf), once(digestOf)];
  /** To the letter, and what follows from each. */
  const states = new Map<string, State>();
  const follows = new Map<string, Set<string>>();
  /** The first of all that count as one. */
  const known = new Map<string, { state: State; exact: string }>();
  const reached = { exact: new Set<string>(), reduced: new Set<string>() };
  const exact = await explore(model, limits, {
    digest: exactly,
    onStep: (from, by, to) => {
      const name = exactly(from);
      const after = briefly(to);
      reached.exact.add(after);
      states.set(name, from);
      const all = follows.get(name) ?? new Set();
      follows.set(name, all.add(`${kindOf(by)}: ${after}`));
    },
  });
  const reduced = await explore(model, limits, {
    digest: briefly,
    onStep: (_from, _by, to) => reached.reduced.add(briefly(to)),
  });
  const differences: Compared['differences'][number][] = [];
  for (const [name, state] of states) {
    const first = known.get(briefly(state));
    if (!first) {
      known.set(briefly(state), { state, exact: name });
      continue;
    }
    const [one, two] = [follows.get(first.exact), follows.get(name)] as [Set<string>, Set<string>];
    const only = [[...one].filter((it) => !two.has(it)), [...two].filter((it) => !one.has(it))];
    if (only.some((all) => all.length > 0)) differences.push({ states: [first.state, state], follows: only });
  }
  const missed = [
    ...[...reached.exact].filter((name) => !reached.reduced.has(name)),
    ...[...reached.reduced].filter((name) => !reached.exact.has(name)),
  ];
  return { exact, reduced, differences, missed };
}

function once(digest: (state: State) => string): (state: State) => string {
  const known = new WeakMap<State, string>();
  return (state) => {
    const name = known.get(state) ?? digest(state);
    known.set(state, name);
    return name;
  };
}

/** Without regard to whom it happens. */
function kindOf(event: Event): string {
  return told(event).replace(/ (verification |worker |attempt )?\d+/g, '');
}
