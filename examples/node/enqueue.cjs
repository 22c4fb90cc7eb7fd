// Hands one code to otp-pipeline and waits for the outcome. Any Node.js from 10 on, without a package.
//
//   node enqueue.cjs ORDER TRANSACTION_REF CODE
//
// OTP_URL is where the intake listens, OTP_API_KEY the key of this client.
'use strict';
const intake = `${process.env.OTP_URL}/v1/verifications`;
const { request } = intake.startsWith('https:') ? require('https') : require('http');

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

function once(method, url, headers, body) {
  return new Promise((resolve, reject) => {
    const own = { Authorization: `Bearer ${process.env.OTP_API_KEY}`, Prefer: 'wait=20' };
    const asked = request(url, { method, headers: { ...own, ...headers }, timeout: 35000 }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (chunk) => {
        text += chunk;
      });
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, text }));
      answer.on('error', reject);
    });
    asked.on('timeout', () => asked.destroy(new Error('timeout')));
    asked.on('error', reject);
    asked.end(body);
  });
}

/** The answer to a request that may be repeated: nobody knows what became of one that was cut off. */
async function ask(method, url, headers, body, giveUpAt) {
  for (;;) {
    let retryAfter = 1;
    try {
      const answer = await once(method, url, headers, body);
      if (answer.status === 200 || answer.status === 202) return JSON.parse(answer.text);
      const { status } = answer;
      const mayBeRepeated = (status === 409 || status === 429 || status >= 500) && Date.now() < giveUpAt;
      if (!mayBeRepeated) throw Object.assign(new Error(`${answer.status} ${answer.text}`), { isAnswer: true });
      retryAfter = Number(answer.headers['retry-after'] || 1);
    } catch (error) {
      if (error.isAnswer || Date.now() > giveUpAt) throw error;
    }
    await sleep(retryAfter);
  }
}

async function main([order, transactionRef, code]) {
  const body = JSON.stringify({
    provider: 'cepta',
    otp: code,
    params: { transactionRef, paymentId: `PAY-${order}`, md: 'merchant_data' },
    metadata: { order },
  });
  // One key for each code that a customer typed: a repeat is the same verification, another code is another one.
  const headers = { 'Idempotency-Key': `${order}-${transactionRef}-1`, 'Content-Type': 'application/json' };
  const giveUpAt = Date.now() + 60000;
  let verification = await ask('POST', intake, headers, body, giveUpAt);

  // Accepted is not paid: the provider is still asked for proof. The webhook will tell as well.
  while (!verification.final && Date.now() < giveUpAt) {
    const news = `${intake}/${verification.id}?after=${verification.sequence}`;
    verification = await ask('GET', news, {}, undefined, giveUpAt);
  }
  console.log(order, verification.otp, verification.transaction, verification.nextStep);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
