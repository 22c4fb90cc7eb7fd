/** The tools of Prometheus that this machine has; scripts/install-prometheus.sh installs them. */
import { onPath } from '../../src/redis/server.ts';

export interface Tools {
  readonly promtool: string;
  readonly amtool: string;
  readonly prometheus: string;
  readonly alertmanager: string;
}

/** Null, said aloud, where one is missing; in CI that is a failure. */
export function findTools(what: string): Tools | null {
  const found = {
    promtool: onPath('promtool'),
    amtool: onPath('amtool'),
    prometheus: onPath('prometheus'),
    alertmanager: onPath('alertmanager') ?? onPath('prometheus-alertmanager'),
  };
  const missing = Object.entries(found).flatMap(([name, file]) => (file === null ? [name] : []));
  if (missing.length === 0) return found as Tools;
  const why = `${missing.join(', ')} not installed (scripts/install-prometheus.sh)`;
  if (process.env.CI) throw new Error(why);
  console.warn(`SKIPPED: ${what}: ${why}`);
  return null;
}
