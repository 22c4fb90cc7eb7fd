/**
 * The pictures of docs/images, taken of a real console in Chromium and of the tour in a terminal: `npm run screenshots`.
 * They show a made-up day at a shop: every verification in them went through the sandboxes.
 */
import { mkdtempSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { partitionKeys } from '../src/producers/job.ts';
import { startChromium } from '../test/console/chromium.ts';
import { LOGIN, openStage, type Stage } from '../test/console/stage.ts';
import { bodyFor } from '../test/support/pipeline.ts';
import { takeTerminal } from './terminal-picture.ts';

const FOLDER = process.argv[2] ?? fileURLToPath(new URL('../docs/images/', import.meta.url));
const LARGEST_BYTES = 180_000;
const WIDE = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844 };

interface Picture {
  readonly name: string;
  readonly path: string;
  readonly viewport: { readonly width: number; readonly height: number };
  readonly colorScheme?: 'light' | 'dark';
  /** By default the window: a phone's page is long. */
  readonly whole?: boolean;
}

const stage = await openStage({ inquiryDelaysMs: [50, 30_000, 60_000, 120_000] });
const browser = await startChromium({
  args: ['--disable-lcd-text'],
  env: { ...process.env, FONTCONFIG_FILE: fonts() },
});
try {
  const { story, waiting } = await aDay(stage);
  const pictures: Picture[] = [
    { name: 'overview', path: '/', viewport: WIDE, whole: true },
    { name: 'overview-dark', path: '/', viewport: WIDE, colorScheme: 'dark', whole: true },
    { name: 'overview-phone', path: '/', viewport: PHONE },
    { name: 'overview-phone-dark', path: '/', viewport: PHONE, colorScheme: 'dark' },
    { name: 'story', path: `/verifications/${story}`, viewport: WIDE },
    { name: 'story-phone', path: `/verifications/${story}`, viewport: PHONE },
    { name: 'review', path: '/review', viewport: WIDE },
    { name: 'review-phone', path: '/review', viewport: PHONE },
    { name: 'resolve', path: `/verifications/${waiting}/resolve`, viewport: WIDE, whole: true },
    { name: 'board', path: `/board/queue/${partitionKeys('cepta').inquiryQueue}?status=delayed`, viewport: WIDE },
    {
      name: 'board-phone',
      path: `/board/queue/${partitionKeys('cepta').inquiryQueue}?status=delayed`,
      viewport: PHONE,
    },
  ];
  for (const picture of pictures) await take(browser, picture);
  await takeTerminal(browser, {
    command: `${process.execPath} ${fileURLToPath(new URL('../dist/cli.js', import.meta.url))} tour --once`,
    until: /money ledger agrees/,
    file: `${FOLDER}/tour.png`,
  });
  demandSmall('tour.png');
} finally {
  await browser.close();
  await stage[Symbol.asyncDispose]();
}

/** What `system-ui` is on a machine with a desktop; without the package fonts-inter it stays what it is. */
function fonts(): string {
  const file = join(mkdtempSync(join(tmpdir(), 'otp-fonts-')), 'fonts.conf');
  const prefer = (family: string): string =>
    `<match target="pattern"><test name="family"><string>${family}</string></test>
<edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>`;
  writeFileSync(
    file,
    `<fontconfig><include>/etc/fonts/fonts.conf</include>${prefer('system-ui')}${prefer('sans-serif')}</fontconfig>`,
  );
  return file;
}

/** Some of everything: paid, refused, pending, lost, another amount, resolved by hand. */
async function aDay({ verify, until, consoleUrl }: Stage): Promise<{ story: string; waiting: string }> {
  const amount = (value: string, currency: string): object => ({ amount: { value, currency } });
  const right = ['hello-clever', 'lipa-later', 'ayoconnect', 'beqelal', 'cepta'].flatMap((provider) =>
    Array.from({ length: 4 }, async () => await verify({ ...bodyFor(provider, '246810') })),
  );
  const others = ['hello-clever', 'ayoconnect', 'beqelal', 'cepta'].map(
    async (provider) => await verify(bodyFor(provider, '400001')),
  );
  await Promise.all([...right, ...others]);
  const day = { metadata: { orderId: 'A-1017', channel: 'web' } };
  const [pending, otherAmount, lost, settledByHand] = await Promise.all([
    verify({ ...bodyFor('cepta', '500002'), ...amount('48.50', 'NGN'), ...day }),
    verify({ ...bodyFor('cepta', '500003'), ...amount('100.00', 'NGN'), ...day }),
    verify({ ...bodyFor('beqelal', '800002'), ...amount('1250.00', 'ETB'), ...day }),
    verify({ ...bodyFor('beqelal', '800002'), ...amount('320.00', 'ETB'), ...day }),
  ]);
  for (const { id } of [otherAmount, lost, settledByHand]) await until(id, ({ needsReview }) => needsReview);
  const headers = {
    authorization: `Basic ${Buffer.from(`${LOGIN.username}:${LOGIN.password}`).toString('base64')}`,
    origin: consoleUrl,
  };
  const send = async (path: string, fields: Record<string, string>): Promise<void> => {
    const { status } = await fetch(`${consoleUrl}${path}`, {
      ...{ method: 'POST', headers, redirect: 'manual' },
      body: new URLSearchParams(fields),
    });
    if (status !== 303) throw new Error(`${path} answered ${status}`);
  };
  await send(`/verifications/${pending.id}/inquire`, {});
  await send(`/verifications/${settledByHand.id}/resolve`, {
    as: 'succeeded',
    evidence: "Beqelal's settlement report of 21 November, line 4: ETB 320.00 for this reference",
    confirmation: settledByHand.id.slice(-6),
  });
  await send('/partitions/lipa-later/pause', { because: 'LipaLater announced maintenance from 22:00 to 22:30' });
  return { story: settledByHand.id, waiting: lost.id };
}

async function take(
  browser: Browser,
  { name, path, viewport, colorScheme = 'light', whole = false }: Picture,
): Promise<void> {
  const context = await browser.newContext({
    ...{ baseURL: stage.consoleUrl, httpCredentials: LOGIN, viewport, colorScheme },
  });
  const page = await context.newPage();
  await page.goto(path);
  await settled(page);
  await page.screenshot({ path: `${FOLDER}/${name}.png`, fullPage: whole });
  await context.close();
  demandSmall(`${name}.png`);
}

function demandSmall(name: string): void {
  const { size } = statSync(`${FOLDER}/${name}`);
  console.log(`${name}  ${Math.round(size / 1_000)} kB`);
  if (size > LARGEST_BYTES) throw new Error(`${name} is larger than ${LARGEST_BYTES} bytes`);
}

/** Bull Board draws itself after it has asked for what to draw. */
async function settled(page: Page): Promise<void> {
  await page.waitForLoadState('networkidle');
  await page.evaluate('document.fonts.ready.then(() => null)');
}
