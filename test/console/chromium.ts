/** A real Chromium, as an operator has one. Where there is none its tests are skipped, aloud; in CI that is a failure. */
import { existsSync } from 'node:fs';
import {
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  chromium,
  type LaunchOptions,
} from 'playwright-core';

const PLACES = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/usr/bin/google-chrome-stable',
];

const chromiumPath = process.env.CHROMIUM_PATH ?? PLACES.find((place) => existsSync(place)) ?? null;

/** True where tests with a browser cannot be run and need not be. */
export function skipsChromium(): boolean {
  if (chromiumPath !== null || process.env.CI !== undefined) return false;
  console.warn('No Chromium was found: scripts/install-chromium.sh brings one. The tests with a browser are skipped.');
  return true;
}

export async function startChromium({ args = [], env }: Pick<LaunchOptions, 'args' | 'env'> = {}): Promise<Browser> {
  if (chromiumPath === null) throw new Error('no Chromium was found: run scripts/install-chromium.sh');
  return await chromium.launch({
    executablePath: chromiumPath,
    // Root may not use Chromium's own sandbox, and containers have a small /dev/shm.
    args: ['--no-sandbox', '--disable-dev-shm-usage', ...args],
    ...(env === undefined ? {} : { env }),
  });
}

export interface Look {
  readonly context: BrowserContext;
  /** Addresses that anything asked for which are not the console's. */
  readonly foreign: string[];
  /** What the browser itself complained of: a script, a policy that was broken. */
  readonly complaints: string[];
}

/** A window of one operator, with everything written down that leaves it. */
export async function openWindow(
  browser: Browser,
  consoleUrl: string,
  login: { readonly username: string; readonly password: string },
  options: BrowserContextOptions = {},
): Promise<Look> {
  const context = await browser.newContext({ baseURL: consoleUrl, httpCredentials: login, ...options });
  context.setDefaultTimeout(10_000);
  const [foreign, complaints]: [string[], string[]] = [[], []];
  context.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(`${consoleUrl}/`) && !url.startsWith('data:')) foreign.push(url);
  });
  context.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  context.on('weberror', (error) => complaints.push(String(error.error())));
  return { context, foreign, complaints };
}
