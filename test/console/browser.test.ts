/** The console as an operator has it: real pages of a real service in a real Chromium. */
import axe from 'axe-core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { partitionKeys } from '../../src/producers/job.ts';
import type { VerificationResource } from '../../src/producers/resource.ts';
import { bodyFor } from '../support/pipeline.ts';
import { type Look, openWindow, skipsChromium, startChromium } from './chromium.ts';
import { LOGIN, openStage, type Stage } from './stage.ts';

const CODE = '918273';
const EVIDENCE = 'settlement report of 21 November, line 4';

const DRAWN = ['color-contrast', 'target-size', 'scrollable-region-focusable', 'link-in-text-block'];

let stage: Stage;
let browser: Browser;
/** Of Beqelal, which cannot be asked: the code was taken, the answer lost. */
let lost: VerificationResource;
let pending: VerificationResource;
let paid: VerificationResource;

describe.skipIf(skipsChromium())('the console in a browser', () => {
  beforeAll(async () => {
    [stage, browser] = await Promise.all([
      openStage(),
      // A name for which Chromium says no Sec-Fetch-Site, as for every plain address that is not this machine.
      startChromium({ args: ['--host-resolver-rules=MAP console.test 127.0.0.1'] }),
    ]);
    const amount = { amount: { value: '100.00', currency: 'ETB' } };
    [lost, pending, paid] = await Promise.all([
      stage.verify({ ...bodyFor('beqelal', '800002'), ...amount }),
      stage.verify({ ...bodyFor('cepta', '500002'), metadata: { orderId: 'A-17' } }),
      stage.verify(bodyFor('cepta', CODE)),
    ]);
    await stage.until(paid.id, ({ final }) => final);
    await stage.until(lost.id, ({ needsReview }) => needsReview);
  });

  afterAll(async () => {
    await browser?.close();
    await stage?.[Symbol.asyncDispose]();
  });

  async function inWindow(
    options: Parameters<typeof openWindow>[3],
    work: (page: Page, look: Look) => Promise<void>,
    url = stage.consoleUrl,
  ): Promise<void> {
    const look = await openWindow(browser, url, LOGIN, options);
    try {
      await work(await look.context.newPage(), look);
      expect(look.foreign).toEqual([]);
    } finally {
      await look.context.close();
    }
  }

  const pages = (): [path: string, heading: string][] => [
    ['/', 'Overview'],
    ['/review', 'Review'],
    [`/search?q=${paid.reference}`, '1 found'],
    [`/verifications/${lost.id}`, 'Outcome unknown: a person must look'],
    [`/verifications/${lost.id}/resolve`, 'Resolve with evidence'],
    ['/partitions/cepta', 'cepta'],
    // These are drawn as those before them.
    ['/audit', 'Audit'],
    ['/search?q=nothing', 'Nothing found'],
    [`/verifications/${paid.id}`, 'Code accepted, payment succeeded'],
    [`/verifications/${pending.id}`, 'Code accepted, payment not confirmed yet'],
    ['/nowhere', 'Nothing here'],
  ];

  it.each([
    ['wide and light', { viewport: { width: 1280, height: 800 }, colorScheme: 'light' }, null],
    // What is marked up does not change with the window; what is drawn does.
    ['on a phone in the dark', { viewport: { width: 390, height: 844 }, colorScheme: 'dark' }, DRAWN],
  ] as const)('is whole, quiet and open to everybody, %s', { timeout: 60_000 }, async (_what, options, rules) => {
    await inWindow(options, async (page, { complaints }) => {
      for (const [path, heading] of pages().slice(0, rules === null ? undefined : 6)) {
        await page.goto(path);
        expect([path, await page.locator('h1').textContent()]).toEqual([path, heading]);
        expect([path, await page.content()]).toEqual([path, expect.not.stringContaining(CODE)]);
        expect([path, await faultsOf(page, rules)]).toEqual([path, []]);
        const width = await page.evaluate('document.documentElement.scrollWidth');
        expect([path, width]).toEqual([path, options.viewport.width]);
        const hidden = `[...document.querySelectorAll('.wide')].filter((one) => one.scrollWidth > one.clientWidth).length`;
        expect([path, await page.evaluate(hidden)]).toEqual([path, 0]);
      }
      // A page that is not there, and a search that finds nothing, are told by their status; nothing else was said.
      expect(complaints.filter((text) => !/status of 404/.test(text))).toEqual([]);
    });
  });

  it('has Bull Board in the same frame, with names that people have for queues, and nothing to press', {
    timeout: 40_000,
  }, async () => {
    await inWindow({}, async (page, { complaints }) => {
      await page.goto('/board/queue/otp-cepta');
      await page.locator('h1', { hasText: 'cepta · verifications' }).waitFor();
      const named = await page.evaluate<string[]>(
        `[...document.querySelectorAll('#bull-board-sidebar li a')].map((link) => getComputedStyle(link, '::before').content)`,
      );
      expect(named).toContain('"webhooks of shop"');
      expect(named).toContain('"results"');
      expect(named).not.toContain('none');
      const [bar, header] = [
        await page.locator('.console-bar').boundingBox(),
        await page.locator('#root > header').boundingBox(),
      ];
      expect(header?.y).toBeCloseTo((bar?.y ?? 0) + (bar?.height ?? 0), 0);
      for (const verb of ['Retry', 'Pause', 'Clean', 'Empty', 'Add job', 'Promote']) {
        expect([verb, await page.getByRole('button', { name: verb }).count()]).toEqual([verb, 0]);
      }
      await page.getByRole('button', { name: 'Settings of this board' }).waitFor();
      expect(await faultsOf(page)).toEqual([]);
      await page.goto('/board/');
      await page.getByRole('button', { name: 'More' }).waitFor();
      expect(await faultsOf(page)).toEqual([]);
      await page.locator('.console-bar').getByRole('link', { name: 'Overview' }).click();
      await page.locator('h1', { hasText: 'Overview' }).waitFor();
      expect(complaints).toEqual([]);
    });
  });

  it('refreshes itself, and never under the hands of somebody', { timeout: 40_000 }, async () => {
    const keys = partitionKeys('ayoconnect');
    const paused = async (yes: boolean): Promise<unknown> =>
      yes
        ? await stage.redis.hset(`${keys.prefix}:${keys.queue}:meta`, 'paused', '1')
        : await stage.redis.hdel(`${keys.prefix}:${keys.queue}:meta`, 'paused');
    await inWindow({}, async (page) => {
      // Time stands still but for `runFor`, which also ends what is still being asked: each answer is awaited before.
      await page.clock.install({ time: 0 });
      await page.clock.pauseAt(1_000);
      await page.goto('/');
      const notice = page.locator('.notice', { hasText: 'ayoconnect: paused by a person' });
      const answerTo = async (deed: () => Promise<void>): Promise<void> => {
        const [response] = await Promise.all([page.waitForResponse(`${stage.consoleUrl}/`), deed()]);
        await response.finished();
      };
      const soon = async (): Promise<void> => {
        // The service itself reads no more than once a second.
        await expect
          .poll(
            async () => {
              await answerTo(() => page.clock.runFor(5_000));
              return await notice.count();
            },
            { timeout: 5_000 },
          )
          .toBe(1);
      };
      expect(await notice.count()).toBe(0);
      await paused(true);
      await soon();

      const asked: string[] = [];
      page.on('request', (request) => asked.push(request.url()));
      const search = page.getByRole('textbox');
      await search.fill('TX1');
      await page.getByRole('button', { name: 'Refresh: on' }).focus();
      await page.clock.runFor(20_000);
      expect(asked).toEqual([]);
      expect(await search.inputValue()).toBe('TX1');
      await search.fill('');
      await page.clock.runFor(20_000); // the cursor is still in it
      expect(asked).toEqual([]);

      await page.getByRole('button', { name: 'Refresh: on' }).click();
      await page.getByRole('button', { name: 'Refresh: off' }).waitFor();
      await page.clock.runFor(20_000);
      expect(asked).toEqual([]);
      await answerTo(() => page.getByRole('button', { name: 'Refresh: off' }).click());
      await page.getByRole('button', { name: 'Refresh: on' }).waitFor();
    });
    await paused(false);
    await inWindow({ reducedMotion: 'reduce' }, async (page) => {
      await page.goto('/');
      await page.getByRole('button', { name: 'Refresh: off' }).waitFor();
    });
  });

  it('asks the provider now, also without JavaScript and over plain HTTP', { timeout: 40_000 }, async () => {
    const { port } = new URL(stage.consoleUrl);
    const inquiries = (): number => stage.sandbox.ledger.transaction('cepta', pending.reference).inquiries;
    const before = inquiries();
    await inWindow(
      { javaScriptEnabled: false },
      async (page) => {
        await page.goto('/');
        await page.getByRole('textbox', { name: 'Verification id' }).fill(` ${pending.reference} `);
        await page.getByRole('combobox').selectOption('cepta');
        await page.getByRole('button', { name: 'Find' }).click();
        await page.getByRole('link', { name: pending.id }).click();
        await page.getByRole('button', { name: 'Ask the provider now' }).click();
        await page.locator('#latest').waitFor();
        expect(await page.locator('.timeline').textContent()).toContain('A person asked to ask now');
        expect(await page.getByRole('button', { name: /Refresh/ }).count()).toBe(0);
        await page.goto('/board');
        expect(await page.locator('noscript').textContent()).toContain('Bull Board needs JavaScript');
      },
      `http://console.test:${port}`,
    );
    await expect.poll(inquiries, { timeout: 10_000 }).toBe(before + 1);
  });

  it('resolves by keyboard what waits, and the ledger, the client and the audit agree', {
    timeout: 40_000,
  }, async () => {
    await inWindow({}, async (page, { complaints }) => {
      await page.goto('/review');
      await page.keyboard.press('Tab');
      expect(await page.evaluate('document.activeElement.textContent')).toBe('To the content');
      await page.keyboard.press('Enter');
      const resolve = page.getByRole('link', { name: 'Resolve with evidence' });
      await tabTo(page, 'Resolve with evidence …');
      await page.keyboard.press('Enter');
      await page.locator('h1', { hasText: 'Resolve with evidence' }).waitFor();

      await page.getByRole('radio', { name: 'Succeeded' }).focus();
      await page.keyboard.press('Space');
      await page.keyboard.press('Tab');
      await page.keyboard.type(EVIDENCE);
      await page.keyboard.press('Tab');
      await page.keyboard.type('abcdef');
      await page.keyboard.press('Enter');
      await page.getByText('These are not the last six characters of the id.').waitFor();
      expect(await faultsOf(page)).toEqual([]);
      expect(await page.getByRole('textbox', { name: 'Evidence' }).inputValue()).toBe(EVIDENCE);
      expect(await page.getByRole('radio', { name: 'Succeeded' }).isChecked()).toBe(true);

      await page.getByRole('textbox', { name: 'To confirm' }).focus();
      await page.keyboard.type(lost.id.slice(-6));
      await page.keyboard.press('Enter');
      await page.locator('h1', { hasText: 'Code accepted, payment succeeded' }).waitFor();
      expect(page.url()).toBe(`${stage.consoleUrl}/verifications/${lost.id}#latest`);
      expect(await page.getByRole('region', { name: 'Resolved by a person' }).textContent()).toContain(EVIDENCE);
      expect(await resolve.count()).toBe(0);
      await page.reload();
      await page.goto('/audit');
      expect(await page.getByRole('row').filter({ hasText: lost.id }).count()).toBe(1);
      expect(await page.getByRole('row').filter({ hasText: lost.id }).textContent()).toContain(LOGIN.username);
      expect(complaints.filter((text) => !/status of 422/.test(text))).toEqual([]);
    });
    const { final, otp, transaction } = await stage.until(lost.id, (resource) => resource.final);
    expect({ final, otp, transaction }).toEqual({ final: true, otp: 'accepted', transaction: 'succeeded' });
    expect(stage.sandbox.ledger.transaction('beqelal', lost.reference)).toMatchObject({
      charges: 1,
      codesReceived: ['800002'],
    });
  });

  async function tabTo(page: Page, text: string): Promise<void> {
    for (let step = 0; step < 40; step += 1) {
      await page.keyboard.press('Tab');
      if ((await page.evaluate('document.activeElement.textContent')) === text) return;
    }
    throw new Error(`no Tab leads to ${text}`);
  }

  /** What axe finds serious or critical. Its source goes in by the debugger: the page's policy would refuse a script. */
  async function faultsOf(page: Page, rules: readonly string[] | null = null): Promise<string[]> {
    const options = { resultTypes: ['violations'], ...(rules === null ? {} : { runOnly: rules }) };
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate<axe.AxeResults>(`axe.run(document, ${JSON.stringify(options)})`);
    return violations
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`);
  }
});
