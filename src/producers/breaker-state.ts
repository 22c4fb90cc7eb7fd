/** How a partition's breaker stands: a hash in its slot, written by workers, read by whoever shows it. */
export interface BreakerState {
  readonly is: 'closed' | 'open' | 'half_open';
  /** Random, another one with every change: nobody changes a state that he has not seen. '' before the first. */
  readonly version: string;
  /** Since when it is so, in Unix ms by the clock of Redis; 0 when it has always been. */
  readonly since: number;
  /** Since when it has not been closed; 0 when it is. */
  readonly troubleSince: number;
  /** Of `open`: when the next probe is made. */
  readonly until: number;
  /** How often it has opened in a row; goes on from there when it opens again soon after it has closed. */
  readonly row: number;
  /** The code of the failure that opened it. */
  readonly because: string;
}

export const CLOSED: BreakerState = {
  ...{ is: 'closed', version: '', since: 0, troubleSince: 0, until: 0, row: 0, because: '' },
};

/** As it stands in Redis: a hash; nothing there is a breaker that has not opened of late. */
export function readBreaker(fields: Readonly<Record<string, string>>): BreakerState {
  const { state, version, since, troubleSince, until, row, because } = fields;
  if (state !== 'open' && state !== 'half_open' && state !== 'closed') return CLOSED;
  return {
    is: state,
    version: version ?? '',
    since: Number(since ?? 0),
    troubleSince: Number(troubleSince ?? 0),
    until: Number(until ?? 0),
    row: Number(row ?? 0),
    because: because ?? '',
  };
}
