/**
 * Whether a provider can be reached the way the workers reach it, and whether its clock agrees with ours. The only
 * request is `HEAD /` of the base URL's host, without credentials, cookies or body: at none of the five is the root a
 * call of their API, so nothing is submitted, sent, charged or counted as an attempt. No redirect is followed.
 */
import { type Dispatcher, Pool } from 'undici';
import type { Partition } from '../../config.ts';
import { errorCodeOf } from '../../events.ts';
import { tlsOf } from '../../main-settings.ts';
import { connector } from '../../workers/connecting.ts';
import { clockFinding, type Finding, fault, ok, warning } from './finding.ts';

const CONNECT_TIMEOUT_MS = 5_000;
const ANSWER_TIMEOUT_MS = 5_000;

export async function checkProvider(partition: Partition): Promise<Finding[]> {
  const about = `providers.${partition.name}`;
  const credentials = ok(`${about}.credentials`, 'of the form that the adapter asks for; not tried');
  const asked = await ask(partition);
  switch (asked.kind) {
    case 'unreachable':
      return [credentials, unreachable(`${about}.reachable`, partition, asked.code)];
    case 'silent':
      return [
        credentials,
        warning(
          `${about}.reachable`,
          `${hostOf(partition)} takes connections and does not answer HEAD / (${asked.code})`,
          `look at the provider's status page; a firewall may be in between, or a certificate be missing (${about}.tls)`,
        ),
      ];
    case 'answered':
      return [
        credentials,
        ok(`${about}.reachable`, `${hostOf(partition)} answers${throughProxy(partition)} in ${asked.tookMs} ms`),
        asked.skewMs === null
          ? ok(`${about}.clock`, 'not told: its answer has no Date')
          : clockFinding(`${about}.clock`, asked.skewMs, SKEW_HARMS),
      ];
  }
  return asked satisfies never;
}

const SKEW_HARMS = 'signed timestamps are refused, and tokens end too soon or too late';

type Asked =
  /** `skewMs`: how far its clock is ahead of ours. */
  | { readonly kind: 'answered'; readonly tookMs: number; readonly skewMs: number | null }
  /** The connection stood. */
  | { readonly kind: 'silent'; readonly code: string }
  | { readonly kind: 'unreachable'; readonly code: string };

async function ask({ baseUrl, tls, proxy }: Partition): Promise<Asked> {
  const connect = connector({
    timeoutMs: CONNECT_TIMEOUT_MS,
    ...tlsOf(tls),
    ...(proxy === undefined ? {} : { proxy }),
  });
  let connectedAt: number | null = null;
  const startedAt = Date.now();
  const pool = new Pool(new URL(baseUrl).origin, {
    connections: 1,
    connect: (options, callback) =>
      connect(options, (...result) => {
        if (result[0] === null) connectedAt = Date.now();
        callback(...result);
      }),
  });
  try {
    const signal = AbortSignal.timeout(CONNECT_TIMEOUT_MS + ANSWER_TIMEOUT_MS);
    const { headers } = await pool.request({
      path: '/',
      method: 'HEAD',
      headers: { 'user-agent': 'otp-doctor' },
      signal,
    });
    const answeredAt = Date.now();
    return {
      kind: 'answered',
      tookMs: answeredAt - startedAt,
      skewMs: skewOf(headers, ((connectedAt ?? startedAt) + answeredAt) / 2),
    };
  } catch (error) {
    return { kind: connectedAt === null ? 'unreachable' : 'silent', code: errorCodeOf(error) };
  } finally {
    await pool.destroy();
  }
}

/** A Date has whole seconds, so its middle is compared; `meanwhile` is the middle between question and answer. */
function skewOf({ date }: Dispatcher.ResponseData['headers'], meanwhile: number): number | null {
  const theirs = typeof date === 'string' ? Date.parse(date) : Number.NaN;
  return Number.isNaN(theirs) ? null : theirs + 500 - meanwhile;
}

const OF_TLS = /CERT|^UNABLE_TO|SELF_SIGNED|^ERR_TLS|^ERR_SSL|EPROTO/;

function unreachable(about: string, partition: Partition, code: string): Finding {
  const key = `providers.${partition.name}`;
  const finding = `${hostOf(partition)} cannot be reached${throughProxy(partition)}: ${code}`;
  return fault(about, finding, remedyFor(code, key, partition.proxy !== undefined));
}

function remedyFor(code: string, key: string, proxied: boolean): string {
  if (OF_TLS.test(code)) {
    return `see that the files of ${key}.tls, if it is set, are the right ones, and ${key}.baseUrl the right host`;
  }
  if (proxied) return `see that ${key}.proxy is right, and that the proxy lets this host through`;
  if (code === 'ECONNREFUSED') return `nothing listens there: see that ${key}.baseUrl is right, and the provider up`;
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return `see that the host in ${key}.baseUrl is spelled right, and that this machine resolves names`;
  }
  return `see that ${key}.baseUrl is right, and that a firewall lets this machine connect there`;
}

function throughProxy({ proxy }: Partition): string {
  return proxy === undefined ? '' : ' through the proxy';
}

function hostOf({ baseUrl }: Partition): string {
  return new URL(baseUrl).host;
}
