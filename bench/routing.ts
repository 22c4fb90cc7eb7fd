/**
 * What does finding the route of a request cost? `npx tsx bench/routing.ts`: the same small answer by node:http alone, by
 * the intake's own router, and by express, each in a process of its own, in turns. Microseconds of the server's processor for
 * each request; the clock says less on a machine that others use.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import express from 'express';
import { Pool } from 'undici';
import { router } from '../src/producers/routing.ts';

const ROUNDS = 3;
const SECONDS = 3;
const IN_FLIGHT = 64;
const PATH = '/v1/verifications';

function echo(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    const text = JSON.stringify(JSON.parse(Buffer.concat(chunks).toString()));
    response.writeHead(202, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) });
    response.end(text);
  });
}

const WAYS: Record<string, () => RequestListener> = {
  'node:http alone': () => echo,
  'our router': () => {
    const answer = { status: 202, headers: {}, body: {} };
    const routeOf = router({ [PATH]: { POST: () => answer }, [`${PATH}/:id`]: { GET: () => answer } });
    return (request, response) => {
      routeOf(request);
      echo(request, response);
    };
  },
  express: () => express().post(PATH, echo),
};

function beServer(way: string): void {
  const server = createServer(WAYS[way]?.()).listen(0, '127.0.0.1', () => {
    process.send?.((server.address() as AddressInfo).port);
  });
  process.on('message', () => {
    const { user, system } = process.cpuUsage();
    process.send?.(user + system);
  });
}

async function answerOf(child: ChildProcess): Promise<number> {
  return await new Promise((resolve) => child.once('message', (value) => resolve(Number(value))));
}

/** Microseconds of the server's processor for each request. */
async function measure(way: string): Promise<number> {
  const child = fork(fileURLToPath(import.meta.url), [way], { execArgv: process.execArgv });
  const pool = new Pool(`http://127.0.0.1:${await answerOf(child)}`, { connections: IN_FLIGHT, pipelining: 1 });
  const body = JSON.stringify({ provider: 'cepta', otp: '012345', params: { transactionRef: 'TX1', paymentId: 'P' } });
  let count = 0;
  const load = async (seconds: number): Promise<void> => {
    const endsAt = performance.now() + seconds * 1_000;
    const ask = async (): Promise<void> => {
      while (performance.now() < endsAt) {
        count += 1;
        const answer = await pool.request({
          ...{ path: PATH, method: 'POST', body },
          headers: { 'content-type': 'application/json', authorization: 'Bearer somebody' },
        });
        await answer.body.text();
      }
    };
    await Promise.all(Array.from({ length: IN_FLIGHT }, ask));
  };
  const cpuMicros = async (): Promise<number> => {
    child.send('cpu');
    return await answerOf(child);
  };
  await load(2); // until the compiler has seen it all
  const [cpuBefore, before] = [await cpuMicros(), count];
  await load(SECONDS);
  const each = ((await cpuMicros()) - cpuBefore) / (count - before);
  await pool.close();
  child.kill();
  return each;
}

const [, , way] = process.argv;
if (way !== undefined) beServer(way);
else {
  const measured = new Map<string, number[]>(Object.keys(WAYS).map((name) => [name, []]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, values] of measured) values.push(await measure(name));
  }
  const table = new Table({ style: { head: [], border: [] }, head: ['', 'µs of processor each', 'least', 'most'] });
  for (const [name, values] of measured) {
    const sorted = values.toSorted((a, b) => a - b).map((value) => value.toFixed(0));
    table.push([name, sorted[Math.floor(ROUNDS / 2)], sorted[0], sorted.at(-1)]);
  }
  console.log(table.toString());
}
