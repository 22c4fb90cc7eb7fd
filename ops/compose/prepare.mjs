#!/usr/bin/env node
// Makes what docker-compose.yml and ops/kubernetes expect and cannot bring: a configuration to edit, keys, passwords.
// Nothing that is there is made again. After `npm run setup`:    node ops/compose/prepare.mjs [FOLDER, config by default]
//
// A container reads a mounted file under its own user, so the files can be read by everybody and their folder by you alone.

import { randomBytes } from 'node:crypto';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { newKey, readKeySet, writeKeySet } from '../../dist/key-files.js';
import { publicKeySet } from '../../dist/producers/sealing.js';
import { apiKeyHash, hashPassword } from '../../dist/secret-hashes.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = process.argv[2] ?? join(root, 'config');
const secrets = join(folder, 'secrets');
const secret = (name) => join(secrets, name);
const text = (name) => readFileSync(secret(name), 'utf8');

mkdirSync(secrets, { recursive: true });
for (const each of [folder, secrets]) chmodSync(each, 0o700);
if (!existsSync(join(folder, 'otp.yaml'))) {
  copyFileSync(fileURLToPath(new URL('otp.yaml', import.meta.url)), join(folder, 'otp.yaml'));
}

// Workers open codes; intakes only seal them. With the details of results it is the other way round.
for (const [name, purpose] of [
  ['sealing', 'otp'],
  ['details', 'details'],
]) {
  const file = secret(`${name}-keys.json`);
  if (!existsSync(file)) writeKeySet(file, { keys: [await newKey(purpose)] });
  chmodSync(file, 0o644);
  const publicHalf = publicKeySet(readKeySet(file, `sealing of ${name}`));
  write(`${name}-public-keys.json`, `${JSON.stringify(publicHalf, null, 2)}\n`);
}

// The service gets the hashes. The key is for the shop, the password for the operators.
for (const name of ['redis-password', 'shop-api-key', 'console-password']) {
  if (!existsSync(secret(name))) write(name, randomBytes(24).toString('hex'));
}
write('redis-auth.conf', `requirepass ${text('redis-password')}\n`);
write('shop-api-key.hash', apiKeyHash(text('shop-api-key')));
if (!existsSync(secret('console-password.hash')))
  write('console-password.hash', await hashPassword(text('console-password')));

console.log(
  `${join(folder, 'otp.yaml')} is yours to edit; the console's password and the shop's key are in ${secrets}`,
);
if (!existsSync(secret('cepta-secret-key'))) {
  console.log(
    `missing: ${secret('cepta-secret-key')}, which Cepta gave you; put it there, with mode 644 as the others`,
  );
}

function write(name, content) {
  writeFileSync(secret(name), content, { mode: 0o644 });
  chmodSync(secret(name), 0o644); // whatever the umask says
}
