/** Who else may read a file with private keys: what `otp doctor` says of its mode. */
import { expect, test } from 'vitest';
import { openToOthers } from '../../src/commands/doctor/keys.ts';
import { newKey } from '../../src/key-files.ts';
import { publicKeySet } from '../../src/producers/sealing.ts';

const keySet = { keys: [await newKey('otp')] };

test.each([
  ['of the owner alone', '/etc/otp/keys.json', 0o100600, []],
  ['of a group', '/etc/otp/keys.json', 0o100640, ['warning']],
  ['of everybody', '/etc/otp/keys.json', 0o100644, ['fault']],
  ['of everybody in a container, which Docker mounts so', '/run/secrets/sealing-keys.json', 0o100644, []],
])('a file %s', (_, file, mode, levels) => {
  expect(openToOthers('sealing.keyFile', file, keySet, mode).map(({ level }) => level)).toEqual(levels);
});

test('public keys may be read by everybody', () => {
  expect(openToOthers('sealing.keyFile', '/etc/otp/keys.json', publicKeySet(keySet), 0o100644)).toEqual([]);
});
