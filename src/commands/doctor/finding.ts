/** What a check has found. What is not well always says what to do about it. */

interface Found {
  /** What it is about, in words that stay the same from version to version: `redis.persistence`, `providers.cepta.clock`. */
  readonly about: string;
  /** One sentence, without a secret. */
  readonly finding: string;
}

export type Finding = Found &
  ({ readonly level: 'ok'; readonly remedy: null } | { readonly level: 'warning' | 'fault'; readonly remedy: string });

export type Level = Finding['level'];

export function ok(about: string, finding: string): Finding {
  return { level: 'ok', about, finding, remedy: null };
}

/** It works now, and may not tomorrow; or somebody should know of it. */
export function warning(about: string, finding: string, remedy: string): Finding {
  return { level: 'warning', about, finding, remedy };
}

/** Codes are not carried out, or not as they must be. */
export function fault(about: string, finding: string, remedy: string): Finding {
  return { level: 'fault', about, finding, remedy };
}

/** A code's deadline is reckoned, and a request is signed, by a clock that the other side compares with its own. */
const WARNING_SKEW_MS = 30_000;
const FAULT_SKEW_MS = 120_000;

/** `skewMs`: how far the other clock is ahead of this machine's. */
export function clockFinding(about: string, skewMs: number, harm: string): Finding {
  const distance = Math.round(Math.abs(skewMs) / 1_000) * 1_000;
  const where = `${duration(distance)} ${skewMs > 0 ? 'ahead of' : 'behind'} this machine`;
  const remedy = 'compare this machine with a time server (timedatectl, chronyc tracking), and correct what is wrong';
  if (distance > FAULT_SKEW_MS) return fault(about, `${where}: ${harm}`, remedy);
  if (distance > WARNING_SKEW_MS) return warning(about, `${where}: ${harm}`, remedy);
  return ok(about, distance <= 1_000 ? 'agrees with this machine' : where);
}

/** `90 s`, `12 min`, `3 h`, `2 days`: as exact as a person needs it. */
export function duration(ms: number): string {
  const [seconds, minutes, hours] = [ms / 1_000, ms / 60_000, ms / 3_600_000];
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (minutes < 100) return `${Math.round(minutes)} min`;
  if (hours < 48) return `${Math.round(hours)} h`;
  return `${Math.round(hours / 24)} days`;
}

export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
