// Receives results as webhooks, each exactly once. Any Node.js from 10 on, without a package.
//
//   node receiver.cjs PORT INBOX
//
// OTP_WEBHOOK_SECRET is the secret of the configuration, whsec_...; every result becomes a file in INBOX.
'use strict';
const { createHmac, randomBytes, timingSafeEqual } = require('crypto');
const { linkSync, mkdirSync, unlinkSync, writeFileSync } = require('fs');
const { createServer } = require('http');
const { join } = require('path');

const [port, inbox] = process.argv.slice(2);
const key = Buffer.from(process.env.OTP_WEBHOOK_SECRET.slice('whsec_'.length), 'base64');
const TOLERANCE_S = 300;

/** Standard Webhooks: HMAC-SHA256 over id, timestamp and the body as it came. */
function isAuthentic(headers, body) {
  const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures = '' } = headers;
  if (!/^\d+$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_S) return false;
  const signature = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64');
  const expected = Buffer.from(`v1,${signature}`);
  return signatures.split(' ').some((one) => {
    const given = Buffer.from(one);
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}

/** The effect and the memory of it in one step; in a shop, one transaction of its database. False: it was there. */
function keep(id, body) {
  const temporary = join(inbox, `.${id}.${randomBytes(8).toString('hex')}`);
  writeFileSync(temporary, body);
  try {
    linkSync(temporary, join(inbox, `${id}.json`));
    return true;
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  } finally {
    unlinkSync(temporary);
  }
}

mkdirSync(inbox, { recursive: true });
createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const body = Buffer.concat(chunks);
    const authentic = isAuthentic(request.headers, body);
    if (authentic && keep(request.headers['webhook-id'], body)) {
      const { subject, type, data } = JSON.parse(body.toString('utf8'));
      console.log(subject, type, data.otp, data.transaction);
    }
    // A repeat is answered like the first time: else it would come again.
    response.writeHead(authentic ? 204 : 401).end();
  });
}).listen(Number(port), '127.0.0.1');
