/**
 * The pictures of docs/dashboards.md: `npm run pictures` lives through two minutes of a shop, with a provider that falters in the
 * midst of it, asks a real Prometheus what the dashboards ask, and draws the answers. Takes three minutes.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Panel } from '@grafana/grafana-foundation-sdk/dashboard';
import { createResultsConsumer } from '../../src/index.ts';
import { onPath } from '../../src/redis/server.ts';
import { dashboards, type Filling, fill, legendOf, panelsOf, queriesOf } from '../../test/ops/dashboards.ts';
import { startWorld, type World } from '../../test/ops/dashboards-world.ts';
import { type Drawn, draw } from './draw.ts';

const SECONDS = Number(process.argv[2] ?? 150);
/** Shown of the one that stands for all. */
const PROVIDER = 'cepta';
const STEP_SECONDS = 2;

const prometheus = onPath('prometheus');
if (prometheus === null) throw new Error('prometheus is not installed (scripts/install-prometheus.sh)');
await using world = await startWorld(prometheus, {
  scrapeMs: 1_000,
  settleAfterMs: 300,
  answerDelayMs: 60,
  inquiryDelaysMs: [1_000, 2_000, 5_000, 10_000, 20_000],
});
const consumer = createResultsConsumer({ redis: world.redisUrl, handler: async () => {} });
const from = Date.now() / 1_000;
await live(world);
const to = Date.now() / 1_000;
await delay(1_500);

const folder = fileURLToPath(new URL('../../docs/images', import.meta.url));
mkdirSync(folder, { recursive: true });
for (const dashboard of dashboards) {
  const told = new Map<Panel, readonly Drawn[]>();
  for (const panel of panelsOf(dashboard)) told.set(panel, await ask(panel));
  const ofOne = dashboard.templating?.list?.some(({ name }) => name === 'provider') ?? false;
  const title = `${dashboard.title}${ofOne ? `: ${PROVIDER}` : ''}`;
  const svg = draw(dashboard, { title, seconds: Math.round(to - from), told });
  const file = `${folder}/dashboards-${dashboard.uid?.replace('otp-', '')}.svg`;
  writeFileSync(file, `${svg}\n`);
  console.log(`${file}: ${Math.round(svg.length / 1_024)} KiB`);
}
await consumer.close();

async function ask(panel: Panel): Promise<Drawn[]> {
  const filling: Filling = { provider: PROVIDER, rangeSeconds: Math.round(to - from), rateSeconds: 10 };
  const drawn: Drawn[] = [];
  for (const query of queriesOf(panel)) {
    const expr = fill(query.expr, filling);
    if (query.instant === true) {
      for (const { labels, value } of await world.now(expr))
        drawn.push({ name: legendOf(query, labels), labels, points: [[0, value]] });
    } else {
      for (const { labels, points } of await world.over(expr, from, to, STEP_SECONDS)) {
        const finite = points.filter(([, value]) => Number.isFinite(value));
        if (finite.length > 0)
          drawn.push({
            name: legendOf(query, labels),
            labels,
            points: finite.map(([at, value]) => [at - from, value]),
          });
      }
    }
  }
  return drawn;
}

/** Ever more customers; from a third to a half of the time Cepta charges some of them and does not say so. */
async function live(world: World): Promise<void> {
  const underway: Promise<unknown>[] = [];
  const began = performance.now();
  for (let count = 0; ; count += 1) {
    const part = (performance.now() - began) / 1_000 / SECONDS;
    if (part >= 1) break;
    const faltering = part > 0.33 && part < 0.55;
    const spec = faltering ? 'commit_then_reset@cepta=0.35,html_502@cepta=0.1,slow@cepta=0.3:900' : '';
    if (world.sandbox.faults.spec !== spec) world.sandbox.setFaults(spec, 7);
    underway.push(world.submit(count % 4 === 3 ? 'beqelal' : PROVIDER, codeOf(count)));
    if (count % 9 === 5) underway.push(world.submit('lipa-later', '123456'));
    if (count % 130 === 20) underway.push(world.submit('lipa-later', '123456', { client: 'hasty' }));
    if (count % 190 === 30) underway.push(world.submit('cepta', '123456', { key: 'a-key-that-nobody-has-been-given' }));
    if (count === 40) underway.push(world.login('console-password-of-the-test'), world.login('another password'));
    await delay(1_000 / (3 + 4 * Math.sin(Math.PI * part)));
  }
  await Promise.all(underway);
}

function codeOf(count: number): string {
  if (count % 11 === 4) return '400001'; // wrong
  if (count % 97 === 50) return '800006'; // charged, and said in a word that no document knows
  if (count % 83 === 63) return '800002'; // charged, and the answer is lost
  if (count % 61 === 21) return '600003'; // told to come later
  return '123456';
}
