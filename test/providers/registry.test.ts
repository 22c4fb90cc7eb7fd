import { expect, test } from 'vitest';

test.each([
  ['hello-clever', 'Hello Clever', 'money', { verify: ['uuid'] }],
  ['lipa-later', 'LipaLater', 'none', { verify: [], send: [] }],
  [
    'ayoconnect',
    'Ayoconnect',
    'money',
    { verify: ['originalPartnerReferenceNo', 'originalReferenceNo', 'action', 'externalId'] },
  ],
  ['beqelal', 'Beqelal', 'money', { verify: ['reference'] }],
  ['cepta', 'Cepta', 'money', { verify: ['transactionRef'] }],
])(
  '%s is shown as %s, has the effect %s and leaves only identifiers readable',
  async (adapter, name, effect, plain) => {
    // Here and not at the top: so a provider that cannot even be loaded fails a test by its name.
    const { providers } = await import('../../src/providers/index.ts');
    const provider = providers[adapter];
    expect(provider).toMatchObject({ adapter, displayName: name, effect });
    const operations = Object.entries(provider?.operations ?? {});
    expect(Object.fromEntries(operations.map(([call, { plainParams }]) => [call, plainParams]))).toEqual(plain);
  },
);
