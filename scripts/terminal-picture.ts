/** A picture of a command in a real terminal: tmux is the terminal, and Chromium draws what stands in it. */
import { execFileSync } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import type { Browser } from 'playwright-core';

const COLUMNS = 92;
const ROWS = 60;
const LONGEST_MS = 60_000;

/** Of SGR only what our own output uses; but for the background, which it never sets, all else ends what was before. */
const STYLES: Readonly<Record<string, string>> = {
  '1': 'font-weight:700',
  '2': 'opacity:.6',
  '31': 'color:#ff7b72',
  '32': 'color:#7ee787',
  '33': 'color:#e3b341',
  '36': 'color:#79c0ff',
};

const BACKGROUND_ENDS = '49';

/** @param until stands in the terminal when the picture may be taken */
export async function takeTerminal(
  browser: Browser,
  { command, until, file }: { readonly command: string; readonly until: RegExp; readonly file: string },
): Promise<void> {
  const shown = await inTerminal(command, until);
  const page = await browser.newPage({ viewport: { width: 1_000, height: 800 } });
  await page.setContent(
    `<pre style="display:inline-block;margin:0;padding:16px 24px;background:#0d1117;color:#e6edf3;font:13px/1.4 monospace">${htmlOf(shown)}</pre>`,
  );
  await page.locator('pre').screenshot({ path: file });
  await page.close();
}

async function inTerminal(command: string, until: RegExp): Promise<string> {
  const tmux = (...args: string[]): string => {
    try {
      return execFileSync('tmux', ['-L', `otp-pictures-${process.pid}`, ...args], { encoding: 'utf8' });
    } catch (error) {
      throw new Error('a picture of a terminal is taken in tmux, which must be installed', { cause: error });
    }
  };
  tmux('new-session', '-d', '-x', String(COLUMNS), '-y', String(ROWS), `${command}; sleep ${LONGEST_MS / 1_000}`);
  try {
    const giveUpAt = performance.now() + LONGEST_MS;
    while (!until.test(tmux('capture-pane', '-p'))) {
      if (performance.now() > giveUpAt) throw new Error(`${command} has not shown ${until}`);
      await delay(200);
    }
    return tmux('capture-pane', '-p', '-e').trimEnd();
  } finally {
    tmux('kill-server');
  }
}

function htmlOf(text: string): string {
  const escaped = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  let open = 0;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: this is how a terminal is told of colours
  const html = escaped.replace(/\x1b\[([\d;]*)m/g, (_, codes: string) => {
    const style = codes.split(';').flatMap((code) => STYLES[code] ?? []);
    if (style.length > 0) {
      open += 1;
      return `<span style="${style.join(';')}">`;
    }
    if (codes === BACKGROUND_ENDS) return '';
    const closed = '</span>'.repeat(open);
    open = 0;
    return closed;
  });
  return html + '</span>'.repeat(open);
}
