/** What the benchmark is at, and how much of it is done, on one line of the terminal. */
const WIDTH = 30;

export class Progress {
  readonly #steps: number;
  readonly #began = performance.now();
  #done = -1;

  constructor(steps: number) {
    this.#steps = Math.max(1, steps);
  }

  step(what: string): void {
    this.#done += 1;
    const share = Math.min(1, this.#done / this.#steps);
    const bar = '█'.repeat(Math.round(share * WIDTH)).padEnd(WIDTH, '░');
    const seconds = Math.round((performance.now() - this.#began) / 1_000);
    const line = `${bar} ${String(Math.round(share * 100)).padStart(3)} %  ${String(seconds).padStart(4)} s  ${what}`;
    if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${line.slice(0, (process.stderr.columns ?? 80) - 1)}`);
    else process.stderr.write(`${line}\n`);
  }

  end(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  }
}
