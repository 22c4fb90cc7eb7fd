/**
 * docs/getting-started.md as its reader goes through it: its commands, in their order, in a copy of this project. A
 * command that is for another terminal goes on running, and the page says by which word one sees that it is up. Only the
 * ports are others, because those of the page may be taken here.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test, vi } from 'vitest';
import { freePort } from '../../src/redis/process.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const page = readFileSync(join(root, 'docs', 'getting-started.md'), 'utf8');

interface Step {
  readonly commands: string;
  /** For another terminal: what it prints once it is up. Null: it ends by itself. */
  readonly isUpWhen: string | null;
}

/** Each block of commands; the paragraph before it says whether it is for another terminal. */
const steps: readonly Step[] = [...page.matchAll(/([^\n]+(?:\n[^\n]+)*)\n\n```sh\n([\s\S]*?)```/g)].map(
  ([, before = '', commands = '']) => {
    const [, word = null] = /In an? \w+ terminal\*\*, and it is up\s+when it\s+prints `([^`]+)`/.exec(before) ?? [];
    return { commands, isUpWhen: word };
  },
);

/** What a reader types into, line by line; `said` is all that came back. */
class Terminal {
  readonly #shell: ChildProcess;
  #said = '';
  #count = 0;

  constructor(folder: string) {
    const { PATH = '', HOME = '' } = process.env;
    // A group of its own, so that ending it ends what was started in it.
    this.#shell = spawn('bash', [], { cwd: folder, env: { PATH, HOME }, stdio: 'pipe', detached: true });
    for (const stream of [this.#shell.stdout, this.#shell.stderr]) {
      stream?.on('data', (chunk) => {
        this.#said += chunk;
      });
    }
  }

  type(text: string): void {
    this.#shell.stdin?.write(text);
  }

  async until(word: string, timeout = 60_000): Promise<string> {
    await vi.waitFor(() => expect(this.#said).toContain(word), { timeout, interval: 25 });
    return this.#said;
  }

  /** What the commands print; each of them must succeed. */
  async run(commands: string): Promise<string> {
    const from = this.#said.length;
    this.#count += 1;
    this.type(`set -o pipefail\n${commands}\necho "done ${this.#count}: $?"\n`);
    const end = (await this.until(`done ${this.#count}: `)).slice(from);
    const [said = '', code] = end.split(`done ${this.#count}: `);
    expect(code?.trim(), said).toBe('0');
    return said;
  }

  [Symbol.dispose](): void {
    if (this.#shell.pid !== undefined) process.kill(-this.#shell.pid, 'SIGKILL');
  }
}

test('from nothing to a verified webhook, by the commands of the page alone', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'otp-getting-started-'));
  for (const part of ['package.json', 'package-lock.json', '.npmrc', 'tsconfig.json', 'scripts', 'src', 'dist'])
    cpSync(join(root, part), join(folder, part), { recursive: true });
  // What `npm run setup` has fetched before; the copy finds it there, as a second run does.
  for (const fetched of ['node_modules', '.cache']) {
    if (existsSync(join(root, fetched))) symlinkSync(join(root, fetched), join(folder, fetched));
  }

  const ports = new Map<string, string>();
  for (const port of ['3000', '3001', '8080']) ports.set(port, String(await freePort()));
  const here = (text: string): string => text.replace(/\b(3000|3001|8080)\b/g, (port) => ports.get(port) ?? port);

  const others: Terminal[] = [];
  const [first, printed] = [new Terminal(folder), [] as string[]];
  try {
    for (const { commands, isUpWhen } of steps) {
      if (isUpWhen === null) {
        printed.push(await first.run(here(commands)));
        continue;
      }
      const terminal = new Terminal(folder);
      others.push(terminal);
      terminal.type(here(commands));
      await terminal.until(isUpWhen);
    }

    const [setUp, , answer, outcome, wrong, lost, story, ledger] = printed;
    expect(setUp).toContain('set-up');
    expect(others).toHaveLength(3);
    expect(JSON.parse(answer ?? '')).toMatchObject({ otp: 'accepted', transaction: 'pending', final: false });
    expect(JSON.parse(outcome ?? '')).toMatchObject({ otp: 'accepted', transaction: 'succeeded', final: true });
    expect(JSON.parse(wrong ?? '')).toMatchObject({ otp: 'rejected', reason: 'wrong_code', attemptsRemaining: 2 });
    expect(lost).toContain('"otp":"unknown"');
    expect(lost).toContain('"transaction":"succeeded"');
    for (const event of ['begun  attempt 1', 'lost  attempt 1', 'inquired  attempt 1, found paid'])
      expect(story).toContain(event);
    expect(
      (ledger ?? '')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toMatchObject([
      { reference: 'TX-1', codesReceived: ['012345'], charges: 1 },
      { reference: 'TX-2', codesReceived: ['400001'], charges: 0 },
      { reference: 'TX-3', codesReceived: ['800002'], charges: 1 },
    ]);

    const shown = await (await fetch(here('http://127.0.0.1:3000/docs'))).text();
    expect(shown).toContain('<title>otp-pipeline: the HTTP API</title>');

    const { id } = JSON.parse(answer ?? '') as { id: string };
    const heard = await others[1]?.until(`verified ${id}.2 accepted succeeded final`);
    expect(heard).toContain(`verified ${id}.1 accepted pending not yet final`);
  } finally {
    for (const terminal of [...others.reverse(), first]) terminal[Symbol.dispose]();
    await vi.waitFor(() => rmSync(folder, { recursive: true, force: true }), { timeout: 5_000 });
  }
}, 240_000);
