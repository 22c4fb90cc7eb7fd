/** Certificates for servers and clients of the tests, made by openssl; each authority vouches for its own alone. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Pair {
  readonly key: string;
  readonly cert: string;
}

export interface Authority {
  readonly cert: string;
  /** `name` is the common name, `names` the subject's alternative names as openssl has them: `IP:127.0.0.1`. */
  issue(name: string, names: string): Pair;
}

export const hasOpenssl = ((): boolean => {
  try {
    execFileSync('openssl', ['version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

/** Where there is no openssl its certificates are empty, and tests that need them are skipped. */
export function authority(name: string): Authority {
  if (!hasOpenssl) return { cert: '', issue: () => ({ key: '', cert: '' }) };
  const own = withFolder((file) => {
    openssl(['req', '-x509', ...newKey(file('key')), '-out', file('cert'), '-subj', `/CN=${name}`, '-days', '1']);
    return { key: readFileSync(file('key'), 'utf8'), cert: readFileSync(file('cert'), 'utf8') };
  });
  return {
    cert: own.cert,
    issue: (subject, names) =>
      withFolder((file) => {
        writeFileSync(file('ca-key'), own.key);
        writeFileSync(file('ca'), own.cert);
        writeFileSync(file('names'), `subjectAltName=${names}\n`);
        openssl(['req', ...newKey(file('key')), '-out', file('request'), '-subj', `/CN=${subject}`]);
        const by = ['-CA', file('ca'), '-CAkey', file('ca-key'), '-CAcreateserial', '-extfile', file('names')];
        openssl(['x509', '-req', '-in', file('request'), '-out', file('cert'), '-days', '1', ...by]);
        return { key: readFileSync(file('key'), 'utf8'), cert: readFileSync(file('cert'), 'utf8') };
      }),
  };
}

const newKey = (file: string): string[] => [
  ...['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', file],
];

function openssl(args: readonly string[]): void {
  execFileSync('openssl', args, { stdio: 'ignore' });
}

function withFolder<T>(work: (file: (name: string) => string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'otp-tls-'));
  try {
    return work((name) => join(folder, name));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
