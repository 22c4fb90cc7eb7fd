/** A partition with a proxy: its codes go through the tunnel, and what failed before the tunnel was there is sent again. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { Secret } from '../../src/secret.ts';
import { authority, hasOpenssl } from '../support/certificates.ts';
import { type Pipeline, startPipeline } from '../support/pipeline.ts';
import { answer, behaviours, type ProviderServer, startProviderServer } from '../support/provider-server.ts';
import { tunnels } from '../support/tunnel.ts';

let provider: ProviderServer;
let proxy: ProviderServer;
let pipeline: Pipeline;

beforeAll(async () => {
  if (!hasOpenssl) return;
  const ours = authority('the one that the configuration names');
  provider = await startProviderServer(
    (socket) => void socket.write(answer(200, '{"status":"PROCESSED","status_code":"200","error":null}')),
    { tls: ours.issue('provider', 'IP:127.0.0.1') },
  );
  proxy = await startProviderServer(tunnels());
  pipeline = await startPipeline({
    beqelal: {
      baseUrl: provider.url,
      credentials: { appId: 'app', apiKey: 'key-of-the-test' },
      settings: { tls: { ca: ours.cert }, proxy: new Secret(proxy.url) },
    },
  });
});
afterAll(async () => {
  await pipeline?.[Symbol.asyncDispose]();
  await Promise.all([provider?.close(), proxy?.close()]);
});

const verification = (reference: string) => ({ provider: 'beqelal', otp: '123456', params: { reference } });

test.skipIf(!hasOpenssl)('a code goes through the tunnel, and only there', async () => {
  const settled = await pipeline.final(await pipeline.enqueue(verification('REF-1')));
  expect(settled).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
  expect(proxy.requests.map(({ method, path }) => `${method} ${path}`)).toEqual([`CONNECT 127.0.0.1:${provider.port}`]);
  expect([provider.connections, provider.requests.length]).toEqual([1, 1]);
});

test.skipIf(!hasOpenssl)('a code is sent once although the proxy refused it before', async () => {
  for (const socket of proxy.sockets) socket.destroy();
  await vi.waitUntil(() => provider.sockets.size === 0, 10_000);
  proxy.behave((socket, request) => {
    proxy.behave(tunnels());
    behaviours.says(503)(socket, request);
  });
  const settled = await pipeline.final(await pipeline.enqueue(verification('REF-2')));
  expect(settled).toMatchObject({ otp: 'accepted', transaction: 'succeeded' });
  expect(settled.history?.filter(({ event }) => event === 'not_sent')).toHaveLength(1);
  expect(provider.requests.filter(({ body }) => body.includes('REF-2'))).toHaveLength(1);
});
