/**
 * `npm start`: the whole pipeline against the five sandboxes. The sandboxes and their money ledger run in a process of
 * their own; the service runs here, from a configuration written for it; the tour is only one more client of its HTTP
 * intake. Each result is compared with what the ledger says must have come of it.
 */
import { spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { extname, join, relative, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import pc from 'picocolors';
import { request } from 'undici';
import { stringify } from 'yaml';
import { loadConfig } from '../config.ts';
import { newKey, writeKeySet } from '../key-files.ts';
import { startService } from '../main.ts';
import type { VerificationResource } from '../producers/resource.ts';
import type { SandboxEntry, SandboxProvider, TransactionView, Verdict } from '../sandbox/index.ts';
import { DOWN, tourScenarios } from './scenarios.ts';
import { type LedgerVerdict, type Row, TourTable } from './table.ts';

export interface TourOptions {
  /** Exit when the tour is over instead of staying up. */
  readonly once: boolean;
}

const STOP_LIMIT_MS = 45_000;

interface SandboxProcess {
  readonly controlUrl: string;
  readonly providers: Readonly<Record<SandboxProvider, SandboxEntry>>;
  stop(): void;
}

/** @returns the exit code: 0 when every stop ended as the ledger says it must, 1 when one did not. */
export async function tour({ once }: TourOptions): Promise<number> {
  const say = (text: string): void => console.log(text);
  const sandbox = await startSandboxProcess();
  const password = randomBytes(9).toString('base64url');
  const apiKey = randomBytes(24).toString('base64url');
  const folder = freshFolder();
  const file = await writeConfiguration(folder, sandbox, { password, apiKey });
  const logFile = join(folder, 'service.log');
  const service = await startService(loadConfig({ file }), { logTo: logFile });
  try {
    const intake = service.intakeUrl;
    if (intake === null) throw new Error('the tour needs the intake');
    say(`${pc.bold('otp-pipeline')}: one tour through five sandboxed providers\n`);

    const ended = await takeTour(intake, apiKey, sandbox.controlUrl);
    const wrong = ended.filter((row) => row.fault !== null || row.verdict?.agrees !== true).length;
    say(
      wrong === 0
        ? `\n${pc.green('✓')} ${ended.length} verifications, and the money ledger agrees with every one of them`
        : `\n${pc.red('✗')} ${wrong} of ${ended.length} verifications are not what the money ledger says they must be`,
    );
    if (once) return wrong === 0 ? 0 : 1;

    say(`\nStill running, until Ctrl-C:
  ${pc.bold('console')}   ${service.consoleUrl}/        user ops, password ${pc.bold(password)}
  board     ${service.consoleUrl}/board   (the same password)
  metrics   ${service.consoleUrl}/metrics
  intake    ${intake}/v1/verifications
  ledger    ${sandbox.controlUrl}/ledger
  log       ${relative('.', logFile)}
  show      npx otp show ID --config ${relative('.', file)}

Try one yourself:
  curl -s ${intake}/v1/verifications -H 'authorization: Bearer ${apiKey}' -H 'content-type: application/json' \\
    -H "idempotency-key: $RANDOM$RANDOM" -H 'prefer: wait=10' \\
    -d '{"provider":"beqelal","otp":"123456","params":{"reference":"ORDER'$RANDOM'"}}'`);
    await untilInterrupted();
    say('\nstopping …');
    return 0;
  } finally {
    await service.close();
    sandbox.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Each tour has its own Redis and its own keys: its sandboxes know nothing of an earlier tour's verifications. */
function freshFolder(): string {
  const tours = resolve('.data/tours');
  mkdirSync(tours, { recursive: true, mode: 0o700 });
  for (const name of readdirSync(tours)) {
    if (!isRunning(Number(name))) rmSync(join(tours, name), { recursive: true, force: true });
  }
  const folder = join(tours, String(process.pid));
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return folder;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function takeTour(intake: string, apiKey: string, controlUrl: string): Promise<Row[]> {
  const rows: Row[] = tourScenarios(Date.now()).map((scenario) => ({
    scenario,
    resource: null,
    tookMs: null,
    verdict: null,
    fault: null,
  }));
  const table = new TourTable(rows);
  await call('POST', `${controlUrl}/down`, {}, DOWN);
  table.show();
  let previous: Promise<void> = Promise.resolve();
  await Promise.all(
    rows.map((row) => {
      const start = row.scenario.afterPrevious ? previous : Promise.resolve();
      previous = start.then(async () => {
        try {
          await travel(row, intake, apiKey, () => table.show());
          row.verdict = await judge(row, controlUrl);
        } catch (error) {
          row.fault = error instanceof Error ? error.message : String(error);
        }
        table.show(row);
      });
      return previous;
    }),
  );
  table.end();
  return rows;
}

/** Enqueues one verification and follows it until it is final. */
async function travel(row: Row, intake: string, apiKey: string, changed: () => void): Promise<void> {
  const startedAt = performance.now();
  const authorization = `Bearer ${apiKey}`;
  const accepted = await call(
    'POST',
    `${intake}/v1/verifications`,
    { authorization, 'idempotency-key': randomUUID() },
    row.scenario.body,
  );
  if (accepted.status !== 202) throw new Error(`the intake answered ${accepted.status}: ${accepted.text}`);
  row.resource = accepted.json as VerificationResource;
  changed();
  while (!row.resource.final && performance.now() - startedAt < STOP_LIMIT_MS) {
    const url = `${intake}/v1/verifications/${row.resource.id}?after=${row.resource.sequence}`;
    row.resource = (await call('GET', url, { authorization, prefer: 'wait=5' })).json as VerificationResource;
    changed();
  }
  if (!row.resource.final) throw new Error(`not final after ${STOP_LIMIT_MS / 1_000} s`);
  row.tookMs = performance.now() - startedAt;
}

/** Compares a final result with the ledger: its words, that nothing was charged twice, and that a dead code never came. */
async function judge({ scenario, resource }: Row, controlUrl: string): Promise<LedgerVerdict> {
  const query = new URLSearchParams({ provider: scenario.partition, reference: scenario.reference });
  const { transaction, expected } = (await call('GET', `${controlUrl}/ledger?${query}`, {})).json as {
    transaction: TransactionView;
    expected: Verdict;
  };
  const { codesReceived, charges, chargedAmount } = transaction;
  const money =
    charges === 0 ? 'nothing charged' : charges === 1 ? `charged once, ${chargedAmount}` : `CHARGED ${charges} TIMES`;
  const otp = String(scenario.body.otp ?? '');
  const words = scenario.unsent
    ? { otp: 'not_submitted', transaction: codesReceived.length === 0 ? 'pending' : expected.transaction }
    : expected;
  const faults = [
    charges > 1 ? money : '',
    new Set(codesReceived).size < codesReceived.length ? 'a code came twice' : '',
    scenario.unsent && codesReceived.includes(otp) ? 'the code was sent' : '',
    `${resource?.otp} / ${resource?.transaction}` !== scenario.ends ? `the story ends ${scenario.ends}` : '',
    resource?.otp !== words.otp || resource.transaction !== words.transaction
      ? `must be ${words.otp} / ${words.transaction}`
      : '',
  ].filter((fault) => fault !== '');
  return faults.length > 0
    ? { agrees: false, says: faults.join('; ') }
    : { agrees: true, says: scenario.unsent ? `code never came; ${money}` : money };
}

async function writeConfiguration(
  folder: string,
  sandbox: SandboxProcess,
  { password, apiKey }: { password: string; apiKey: string },
): Promise<string> {
  writeKeySet(join(folder, 'sealing-keys.json'), { keys: [await newKey('otp')] });
  const file = join(folder, 'otp.yaml');
  const configuration = {
    embedded: { dataDir: 'redis' },
    intake: { port: 0 },
    console: { port: 0, users: [{ name: 'ops', password }] },
    clients: [{ id: 'tour', apiKey }],
    sealing: { keyFile: 'sealing-keys.json', detailsKeyFile: 'details-keys.json' },
    providers: Object.fromEntries(
      Object.entries(sandbox.providers).map(([name, entry]) => [
        name,
        // Impatient, so that the tour is over soon: a bank is given 30 s and asked again after 10.
        {
          ...entry,
          timeoutMs: 2_000,
          rateLimit: { max: 50, perMs: 1_000 },
          inquiry: { delaysMs: [500, 1_000, 2_000] },
        },
      ]),
    ),
  };
  writeFileSync(file, stringify(configuration), { mode: 0o600 });
  return file;
}

async function startSandboxProcess(): Promise<SandboxProcess> {
  // Built or from its sources (`npm run dev`), as this process runs itself.
  const cli = fileURLToPath(new URL(`../cli${extname(import.meta.url)}`, import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, cli, 'sandbox', '--json', '--ends-with-stdin'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const line = await new Promise<string>((found, failed) => {
    createInterface({ input: child.stdout }).once('line', found);
    child.once('error', failed);
    child.once('exit', (code) => failed(new Error(`the sandbox ended with exit code ${code} before it was ready`)));
  });
  const { control, providers } = JSON.parse(line) as {
    control: { url: string };
    providers: SandboxProcess['providers'];
  };
  return { controlUrl: control.url, providers, stop: () => void child.stdin.end() };
}

async function call(
  method: 'GET' | 'POST',
  url: string,
  headers: Record<string, string>,
  body?: unknown,
): Promise<{ status: number; text: string; json: unknown }> {
  const response = await request(url, {
    method,
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.body.text();
  return { status: response.statusCode, text, json: text.startsWith('{') ? JSON.parse(text) : null };
}

async function untilInterrupted(): Promise<void> {
  await new Promise<void>((done) => {
    process.once('SIGINT', () => done());
    process.once('SIGTERM', () => done());
  });
}
