/** Each dashboard can be loaded, and each of its questions has the true answer of a real run. */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Dashboard, Panel } from '@grafana/grafana-foundation-sdk/dashboard';
import { afterAll, beforeAll, describe, expect, it, test, vi } from 'vitest';
import { parse, stringify } from 'yaml';
import { screens } from '../../ops/grafana/source/index.ts';
import { counted } from '../../ops/grafana/source/queries.ts';
import { build } from '../../ops/grafana/source/screen.ts';
import { METRICS } from '../../src/metrics/registry.ts';
import { onPath } from '../../src/redis/server.ts';
import type { LedgerEntry, SandboxProvider } from '../../src/sandbox/index.ts';
import { dashboards, type Filling, fill, legendOf, panelsOf, queriesOf } from './dashboards.ts';
import { startWorld, type World } from './dashboards-world.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string): string => readFileSync(join(root, file), 'utf8');
const uids = dashboards.map(({ uid }) => uid);

describe.each(dashboards.map((dashboard) => [dashboard.uid ?? '', dashboard] as const))('%s.json', (uid, dashboard) => {
  const panels = panelsOf(dashboard);

  it('is what its source builds, by the types of Grafana', () => {
    const screen = screens.find((each) => each.uid === uid);
    if (screen === undefined) throw new Error(`ops/grafana/source has no ${uid}`);
    expect(dashboard, 'npm run dashboards').toEqual(JSON.parse(JSON.stringify(build(screen, ''))));
  });

  it('gives each panel an id, a title, a unit, a meaning and the chosen data source', () => {
    const all = dashboard.panels ?? [];
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
    expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length);
    for (const { title, description, datasource, fieldConfig, targets } of panels) {
      expect([title, fieldConfig?.defaults.unit]).toEqual([title, expect.stringMatching(/^\w+$/)]);
      expect([title, description]).toEqual([title, expect.stringMatching(/^.{30,}/)]);
      for (const source of [datasource, ...queriesOf({ targets } as Panel).map((query) => query.datasource)])
        expect([title, source]).toEqual([title, { type: 'prometheus', uid: `$${'{datasource}'}` }]);
    }
    expect(dashboard.templating?.list?.[0]).toMatchObject({
      name: 'datasource',
      type: 'datasource',
      query: 'prometheus',
    });
  });

  it('lays its panels side by side, without a gap and without one on another', () => {
    const lines = new Map<number, Panel[]>();
    for (const panel of panels)
      lines.set(panel.gridPos?.y ?? -1, [...(lines.get(panel.gridPos?.y ?? -1) ?? []), panel]);
    for (const line of lines.values()) {
      let next = 0;
      for (const { title, gridPos } of line) {
        expect([title, gridPos?.x]).toEqual([title, next]);
        next += gridPos?.w ?? 0;
      }
      expect([line.map(({ title }) => title), next]).toEqual([expect.anything(), 24]);
    }
  });

  it('leads to dashboards and runbooks that exist, and names no variable that it does not have', () => {
    const text = JSON.stringify(dashboard);
    for (const [, linked] of text.matchAll(/\/d\/([\w-]+)/g)) expect(uids).toContain(linked);
    for (const [page] of text.matchAll(/docs\/[\w/-]+\.md/g))
      expect([page, existsSync(join(root, page))]).toEqual([page, true]);
    const known = (dashboard.templating?.list ?? []).map(({ name }) => name);
    for (const { expr } of panels.flatMap(queriesOf)) {
      for (const [, name = ''] of expr.matchAll(/\$\{?(\w+)/g))
        expect([expr, name.startsWith('__') || known.includes(name)]).toEqual([expr, true]);
    }
  });
});

test('every panel that turns red says what to do then', () => {
  for (const panel of dashboards.flatMap(panelsOf)) {
    const red = panel.fieldConfig?.defaults.thresholds?.steps.some(({ color }) => color === 'red') ?? false;
    if (red)
      expect([panel.title, panel.description]).toEqual([panel.title, expect.stringContaining('What to do: docs/')]);
  }
});

test('every metric is shown somewhere, or is left out for a reason', () => {
  const leftOut = {
    otp_breaker_opened_total: 'an alert counts it; the panel shows the breaker as it stands',
    otp_inquiry_schedule_seconds: 'an alert compares with it',
    otp_newer_formats_total: 'counts only while two versions run side by side; the log says which',
    otp_resends_prevented_total: 'counts what did not happen',
  };
  const shown = dashboards
    .flatMap(panelsOf)
    .flatMap(queriesOf)
    .map(({ expr }) => expr);
  const unseen = Object.values(METRICS).filter(({ name }) => !shown.some((expr) => expr.includes(name)));
  expect(unseen.map(({ name }) => name).toSorted()).toEqual(Object.keys(leftOut));
});

test('with an address for the files of this repository, runbooks are links', () => {
  const [overview] = screens;
  if (overview === undefined) throw new Error('there is no dashboard');
  const [first] = panelsOf(build(overview, 'https://git.example/otp/'));
  expect(first?.links).toMatchObject([
    { title: 'needs-review', url: 'https://git.example/otp/docs/runbooks/needs-review.md' },
  ]);
  expect(first?.description).toContain('[needs-review](https://git.example/otp/docs/runbooks/needs-review.md)');
});

test('Grafana is started with the dashboards, and with the Prometheus beside it', () => {
  const { services } = parse(read('docker-compose.yml'));
  const [provided] = parse(read('ops/grafana/provisioning/dashboards/otp.yml')).providers;
  const [source] = parse(read('ops/grafana/provisioning/datasources/prometheus.yml')).datasources;
  expect(services.grafana.volumes).toContain('./ops/grafana/provisioning:/etc/grafana/provisioning:ro');
  expect(services.grafana.volumes).toContain(`./ops/grafana/dashboards:${provided.options.path}:ro`);
  const [, port] = services.prometheus.ports[0].split(':').slice(1);
  expect(source.url).toBe(`http://prometheus:${port}`);
  const { global } = parse(read('ops/prometheus/prometheus.yml'));
  expect(source.jsonData.timeInterval).toBe(global.scrape_interval);
});

/** Longer than the run, so that all of it is counted. */
const RATE_SECONDS = 120;
const PROVIDERS = ['beqelal', 'cepta', 'lipa-later', 'lipa-later-misconfigured'] as const;

const prometheus = findPrometheus();
describe.skipIf(prometheus === null)('asked of a Prometheus that watched a real run', () => {
  let world: World;

  beforeAll(async () => {
    world = await startWorld(prometheus ?? '', { scrapeMs: 250 });
    await vi.waitFor(async () => expect(await world.now('up{job="otp"} == 1')).toHaveLength(2), { timeout: 40_000 });
    await liveThrough(world);
  }, 90_000);
  afterAll(async () => await world?.[Symbol.asyncDispose]());

  /** What a panel shows, by the names of its series, in whole numbers: of a rate what it comes to in the run, of a share per cent. */
  async function shown({ panel, provider }: Place): Promise<Record<string, number>> {
    const found: Record<string, number> = {};
    const times = timesOf(panel.fieldConfig?.defaults.unit);
    for (const query of queriesOf(panel)) {
      for (const { labels, value } of await world.now(fill(query.expr, filling(provider))))
        found[legendOf(query, labels)] = Math.round(value * times);
    }
    return found;
  }

  it('what counts is what the providers, the callers and the endpoint saw', async () => {
    const places = Object.keys(expectations(world)).map(placeOf);
    await vi.waitFor(
      async () => {
        const expected = expectations(world);
        const finals = expected['otp-overview | Final words about codes, a minute'];
        expect(finals).toEqual({ accepted: 11, rejected: 2, not_submitted: 1 });
        const found = await Promise.all(places.map(async (place) => [place.name, await shown(place)] as const));
        expect(Object.fromEntries(found)).toEqual(expected);
      },
      { timeout: 25_000, interval: 250 },
    );
  }, 30_000);

  it('every query has a value; where a provider gives none, the panel says so', async () => {
    const faults = async (): Promise<string[]> => {
      const found: string[] = [];
      for (const { uid, templating, panels } of dashboards) {
        const ofOneProvider = templating?.list?.some(({ name }) => name === 'provider') ?? false;
        const asked = ofOneProvider ? PROVIDERS : ['no provider'];
        for (const panel of panelsOf({ panels } as Dashboard)) {
          for (const { expr } of queriesOf(panel)) {
            const samples = await Promise.all(asked.map((provider) => world.now(fill(expr, filling(provider)))));
            const empty = samples.filter((each) => !each.some(({ value }) => Number.isFinite(value))).length;
            const told = /\b[Ee]mpty|missing/.test(panel.description ?? '');
            if (empty === asked.length) found.push(`${uid} | ${panel.title}: nothing to see of ${expr}`);
            else if (empty > 0 && !told) found.push(`${uid} | ${panel.title}: may be empty, and does not say when`);
          }
        }
      }
      return found;
    };
    await vi.waitFor(async () => expect(await faults()).toEqual([]), { timeout: 15_000, interval: 500 });
  }, 20_000);

  it('the providers to choose from are those of the configuration', async () => {
    const [variable] = dashboards.flatMap(
      ({ templating }) => templating?.list?.filter(({ name }) => name === 'provider') ?? [],
    );
    const [, metric = '', label = ''] = /^label_values\((\w+), (\w+)\)$/.exec(String(variable?.query)) ?? [];
    const choices = async () => [...new Set((await world.now(metric)).map(({ labels }) => labels[label]))].toSorted();
    await vi.waitFor(async () => expect(await choices()).toEqual(PROVIDERS), { timeout: 10_000 });
  });
});

const promtool = prometheus === null ? null : onPath('promtool');
test.skipIf(promtool === null)('a first event counts, unless nobody knows when it happened', async () => {
  const series = (name: string, instance: string, values: string, more = '') => ({
    series: `${name}{job="otp",instance="${instance}"${more}}`,
    values,
  });
  const final = (instance: string, otp: string, values: string) =>
    series('otp_verifications_total', instance, values, `,otp="${otp}"`);
  const cases = {
    rule_files: [],
    tests: [
      {
        interval: '1m',
        input_series: [
          series('up', 'watched', '1x20'),
          series('process_start_time_seconds', 'watched', '-3600x20'),
          final('watched', 'older', '5x12 7x8'),
          final('watched', 'born while it was watched', '_x12 1 1 3x6'),
          series('up', 'young', '_x12 1x8'),
          series('process_start_time_seconds', 'young', '_x12 660x8'),
          final('young', 'born with its process', '_x12 4x8'),
          series('up', 'found', '_x12 1x8'),
          series('process_start_time_seconds', 'found', '_x12 -3600x8'),
          final('found', 'nobody knows since when', '_x12 9 9 10x6'),
        ],
        promql_expr_test: [
          {
            expr: `round(${counted('otp_verifications_total', 'otp', '', { range: '10m', seconds: '600' })})`,
            eval_time: '20m',
            exp_samples: [
              { labels: '{otp="older"}', value: 2 },
              { labels: '{otp="born while it was watched"}', value: 3 },
              { labels: '{otp="born with its process"}', value: 4 },
              { labels: '{otp="nobody knows since when"}', value: 1 },
            ],
          },
        ],
      },
    ],
  };
  const folder = mkdtempSync(join(tmpdir(), 'otp-counted-'));
  try {
    const file = join(folder, 'counted.yml');
    writeFileSync(file, stringify(cases));
    await promisify(execFile)(promtool ?? '', ['test', 'rules', file]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

/** A bit of everything, each with an end that is known: by provider, the codes and what they mean to the sandbox. */
async function liveThrough(world: World): Promise<void> {
  const codes: [(typeof PROVIDERS)[number], string, number][] = [
    ['cepta', '123456', 3], // right
    ['cepta', '400001', 2], // wrong
    ['cepta', '800002', 1], // charged, and the answer is lost
    ['cepta', '800006', 1], // charged, and said in a word that no document knows
    ['cepta', '600003', 1], // told to come later, and right
    ['cepta', '500002', 1], // pending for ever
    ['beqelal', '123456', 2],
    ['beqelal', '800002', 1], // there is no inquiry, and the callback proves no amount: for a person
    ['beqelal', '820006', 1], // right, and its callback is forged
    ['lipa-later', '123456', 1],
    ['lipa-later-misconfigured', '123456', 1], // gets no token
  ];
  for (const [provider, otp, times] of codes)
    for (let time = 0; time < times; time += 1) expect(await world.submit(provider, otp)).toBe(202);
  expect(await world.submit('cepta', '123456', { key: 'a-key-that-nobody-has-been-given' })).toBe(401);
  expect(await world.submit('cepta', '123456', { params: { transactionRef: '' } })).toBe(400);
  expect(await world.submit('lipa-later', '123456', { client: 'hasty' })).toBe(202);
  expect(await world.submit('lipa-later', '123456', { client: 'hasty' })).toBe(429);
  expect(await world.login('console-password-of-the-test')).toBe(200);
  expect(await world.login('another password')).toBe(401);
}

/** By dashboard, panel and provider: what must be seen there, from what the others saw. */
function expectations({ sandbox: { ledger }, answered, hooked }: World): Record<string, Record<string, number>> {
  const happened = (event: LedgerEntry['event'], is: Partial<LedgerEntry> = {}): LedgerEntry[] =>
    ledger.entries.filter(
      (entry) => entry.event === event && Object.entries(is).every(([key, value]) => Reflect.get(entry, key) === value),
    );
  const verifies = (is: Partial<LedgerEntry> = {}): number => happened('request', { call: 'verify', ...is }).length;
  const inquiries = happened('request', { call: 'inquiry', provider: 'cepta' }).length;
  /** What told nothing: with an answer, or without. */
  const vague = (is: Partial<LedgerEntry>, withAnswer: boolean): number =>
    happened('answered', { call: 'verify', told: 'nothing', ...is }).filter(
      ({ detail = '' }) => /^\d+$/.test(detail) === withAnswer,
    ).length;

  const ends = ledger
    .transactions()
    .map(({ provider, reference }) => ({ provider, ...ledger.expected(provider, reference) }));
  // A callback without an amount is no proof, so that a person is asked; and one payment never ends.
  const forPerson = ends.filter(({ certain }) => !certain);
  const pending = ends.filter(({ otp, transaction }) => otp === 'accepted' && transaction === 'pending');
  const final = [
    ...ends.filter((end) => !forPerson.includes(end) && !pending.includes(end)),
    // It had no token, so that no code of it ever came to its provider.
    { provider: 'lipa-later-misconfigured', otp: 'not_submitted', transaction: 'none' },
  ].map((end) => ({ ...end, reason: REASONS[end.otp] ?? 'none' }));
  const unresolved = tally([...forPerson, ...pending].map(({ provider }) => provider));
  const taken = answered.get('202') ?? 0;
  // Beqelal and LipaLater say at once how it ended; at Cepta an accepted code is only the beginning of a payment.
  const awaiting =
    forPerson.length + ends.filter(({ provider, otp }) => provider === 'cepta' && otp === 'accepted').length;
  const published = { awaiting, review: forPerson.length, settled: final.length };
  const owed = hooked.get('503') ?? 0;
  const results = awaiting + forPerson.length + final.length;
  const called = (provider: SandboxProvider): Record<string, number> => {
    const proofs = happened('callback_answered', { provider });
    const refused = proofs.filter(({ trick }) => trick === 'wrong_secret').length;
    return { matched: proofs.length - refused, refused, duplicate: 0, unmatched: 0, unreadable: 0 };
  };
  const statuses = tally([
    ...happened('callback_answered').map(({ detail = '' }) => detail),
    ...[...answered].flatMap(([status, times]) => Array<string>(times).fill(status)),
  ]);
  const each = <Value>(names: readonly string[], value: (name: string) => Value): Record<string, Value> =>
    Object.fromEntries(names.map((name) => [name, value(name)]));
  const queueNames = [
    ...PROVIDERS.flatMap((name) => [`otp-${name}`, `otp-${name}-inquiry`]),
    ...['otp-beqelal-callback', 'otp-cepta-callback', 'otp-results', 'otp-webhook-shop'],
  ];
  const ofFinals = (is: (end: (typeof final)[number]) => boolean, word: (end: (typeof final)[number]) => string) =>
    tally(final.filter(is).map(word));

  return {
    'otp-overview | Waiting for a person': { waiting: forPerson.length },
    'otp-overview | Unresolved': { unresolved: forPerson.length + pending.length },
    'otp-overview | Must be 0': { contradicted: 0, late: 0, 'without right': 0, 'rolled back': 0 },
    'otp-overview | Alerts that fire': { OtpNeedsReview: forPerson.length },
    'otp-overview | Unresolved by provider': each(PROVIDERS, (name) => unresolved[name] ?? 0),
    'otp-overview | New unknown outcomes, a minute': {
      answered: vague({}, true),
      lost: vague({}, false),
      owner_dead: 0,
      rolled_back: 0,
    },
    'otp-overview | Verifications a second': {
      submissions: verifies(),
      'first results': taken,
      settled: final.length,
    },
    'otp-overview | Final words about codes, a minute': ofFinals(
      () => true,
      ({ otp }) => otp,
    ),
    'otp-overview | Final words in this time': ofFinals(
      () => true,
      ({ provider, otp, transaction, reason }) => `${provider} ${otp} ${transaction} ${reason}`,
    ),

    'otp-provider | Workers alive | cepta': { alive: 1 },
    'otp-provider | Waiting for a person | beqelal': { waiting: forPerson.length },
    'otp-provider | Unresolved | cepta': { unresolved: pending.length },
    'otp-provider | Calls by how they ended | cepta': {
      'verify answered': verifies({ provider: 'cepta' }) - vague({ provider: 'cepta' }, false),
      'verify lost': vague({ provider: 'cepta' }, false),
      'verify not_sent': 0,
      'inquiry answered': inquiries,
      'inquiry lost': 0,
      'inquiry not_sent': 0,
    },
    'otp-provider | Submissions that failed | cepta': {
      failed: percent(
        vague({ provider: 'cepta' }, false) + vague({ provider: 'cepta' }, true),
        verifies({ provider: 'cepta' }),
      ),
    },
    'otp-provider | Final words, a minute | cepta': {
      // One of the finals that are watched from the start: docs/metrics.md.
      'not_submitted / pending': 0,
      ...ofFinals(
        ({ provider }) => provider === 'cepta',
        ({ otp, transaction }) => `${otp} / ${transaction}`,
      ),
    },
    'otp-provider | Why, in this time | cepta': ofFinals(
      ({ provider, reason }) => provider === 'cepta' && reason !== 'none',
      ({ otp, transaction, reason }) => `${otp} ${transaction} ${reason}`,
    ),
    'otp-provider | Why, in this time | lipa-later-misconfigured': { 'not_submitted none misconfigured': 1 },
    'otp-provider | Out of the ordinary, a minute | cepta': {
      unexpected: vague({ provider: 'cepta' }, true),
      slowed: happened('refused', { provider: 'cepta', call: 'verify' }).length,
      unknown: vague({ provider: 'cepta' }, false) + vague({ provider: 'cepta' }, true),
      budget: 0,
      unopened: 0,
    },
    'otp-provider | Inquiries a second | cepta': { answered: inquiries, lost: 0, not_sent: 0 },
    'otp-provider | Callbacks, a minute | cepta': called('cepta'),
    'otp-provider | Callbacks, a minute | beqelal': called('beqelal'),
    'otp-provider | Tokens not had, a minute | lipa-later-misconfigured': {
      'token refused': happened('refused', { provider: 'lipa-later', call: 'token' }).length,
      'token unavailable': 0,
    },

    'otp-queues | Waiting': each(queueNames, (name) => (name === 'otp-results' ? results : 0)),
    'otp-queues | At work': each(queueNames, () => 0),
    'otp-queues | For later': each(queueNames, (name) => {
      if (name === 'otp-cepta-inquiry') return pending.length;
      return name === 'otp-webhook-shop' ? owed : 0;
    }),
    'otp-queues | Set aside': each(queueNames, () => 0),
    'otp-queues | Workers alive': each(PROVIDERS, () => 1),
    'otp-queues | Queues paused': { paused: 0 },
    'otp-queues | Processes': { up: 2, silent: 0, incomplete: 0 },
    'otp-queues | Redis is reachable': { reachable: 1 },
    'otp-queues | Keeps what it is told': {
      master: 1,
      'evicts nothing': 1,
      'append-only': 1,
      'last append': 1,
      'last snapshot': 1,
    },
    'otp-queues | Replicas': { connected: 0, wanted: 0, 'waited for': 0, 'too late, 5 min': 0 },

    'otp-intake | Accepted in this time': { accepted: taken },
    'otp-intake | Failed': { failed: 0 },
    // The other 401 is that of a callback without its proof.
    'otp-intake | Unknown keys, 10 minutes': { '401': (statuses['401'] ?? 0) - 1 },
    'otp-intake | Told to come later, in this time': { rate: statuses['429'] ?? 0, in_flight: 0, backlog: 0 },
    'otp-intake | Console logins, in this time': { accepted: 1, refused: 1, throttled: 0 },
    'otp-intake | Requests by status': statuses,
    'otp-intake | Published, a minute': published,
    'otp-intake | Not fetched yet': { 'otp-results': results },
    'otp-intake | Deliveries, a minute': {
      'shop: delivered': hooked.get('204') ?? 0,
      'shop: failed': owed,
      'shop: given_up': 0,
      'shop: gone': 0,
    },
    'otp-intake | Owed to webhooks': { 'otp-webhook-shop': owed },
    'otp-intake | Switched off': { 'otp-webhook-shop': 0 },
    'otp-intake | Given up or dead-lettered': { results: 0, webhooks: 0 },
  };
}

/** Of the codes of this run; any other end has none. */
const REASONS: Readonly<Record<string, string>> = { rejected: 'wrong_code', not_submitted: 'misconfigured' };

function percent(part: number, whole: number): number {
  return Math.round((100 * part) / whole);
}

function tally(words: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}

interface Place {
  readonly name: string;
  readonly panel: Panel;
  readonly provider: string;
}

/** Of `dashboard | panel | provider`. */
function placeOf(name: string): Place {
  const [uid, title, provider = ''] = name.split(' | ');
  const dashboard = dashboards.find((each) => each.uid === uid);
  const panel = dashboard && panelsOf(dashboard).find((each) => each.title === title);
  if (panel === undefined) throw new Error(`${uid} has no panel "${title}"`);
  return { name, panel, provider };
}

function timesOf(unit: string | undefined): number {
  if (unit === 'percentunit') return 100;
  if (unit === 'cpm') return RATE_SECONDS / 60;
  return unit === 'ops' || unit === 'reqps' ? RATE_SECONDS : 1;
}

function filling(provider: string): Filling {
  return { provider, rangeSeconds: 600, rateSeconds: RATE_SECONDS };
}

/** Null, said aloud, where it is missing; in CI that is a failure. */
function findPrometheus(): string | null {
  const found = onPath('prometheus');
  if (found !== null) return found;
  const why = 'prometheus not installed (scripts/install-prometheus.sh)';
  if (process.env.CI) throw new Error(why);
  console.warn(`SKIPPED: what the dashboards ask: ${why}`);
  return null;
}
