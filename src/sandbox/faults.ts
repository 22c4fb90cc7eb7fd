/**
 * Everything that can be made to go wrong, one fault an entry. A fault bites at one place on the way of a code:
 *
 *   door     after signature, token and fields were found right, before the business layer sees the code
 *   desk     the business layer's ruling on the code
 *   money    what becomes of the payment once the code is accepted
 *   inquiry  the answer to the first question about it
 *   wire     what becomes of the answer, after everything else has happened
 *   time     when the answer leaves
 *   callback what becomes of the report that follows the end of the payment
 *
 * Faults of different places combine: magic.ts names them in lists. fault-plan.ts draws them at random.
 */

import type { Answer } from './server.ts';
import { nullObjects, swapTypes } from './type-faults.ts';

/** What a provider's business layer can say of a code. A provider file has a phrase for each that it documents. */
export type Ruling =
  | 'wrong_code'
  | 'wrong_code_as_403'
  | 'expired_code'
  | 'attempts_used_up'
  | 'unknown_reference'
  | 'declined'
  | 'invalid_request'
  | 'request_failed'
  | 'server_error'
  | 'bad_gateway'
  | 'unavailable'
  | 'gateway_timeout';

export type DoorPhrase =
  | 'credentials_refused'
  | 'app_refused'
  | 'token_refused'
  | 'customer_token_refused'
  | 'rate_limited';

/** What can happen to a callback that is due. */
export type CallbackTrick =
  | 'duplicate'
  | 'contradictory'
  | 'unknown_reference'
  | 'wrong_secret'
  | 'wrong_types'
  | 'withheld';

export interface MoneyCourse {
  ends: 'paid' | 'failed' | 'reversed' | 'never';
  /** What is charged, as a share of what was asked. */
  share?: number;
  /** The answers and inquiries name no amount. */
  withoutAmount?: true;
}

export type Fault = { meaning: string } & (
  | { place: 'door'; phrase: DoorPhrase; lasts: 'always' | 'once' | 'until_another_token' }
  | { place: 'door'; phrase: 'reset'; lasts: 'always' }
  | { place: 'door'; phrase: 'busy' | 'storm'; lasts: 'once' }
  | { place: 'desk'; ruling: Ruling }
  | { place: 'money'; course: MoneyCourse }
  | { place: 'inquiry'; phrase: 'server_error' | 'rate_limited' }
  | { place: 'wire'; spoil: (answer: Answer, strange: () => Answer) => Answer }
  | { place: 'time'; hold: 'slow' | 'callback_first' }
  | { place: 'callback'; trick: CallbackTrick }
);

const lost = (answer: Answer): Answer => ({ ...answer, told: 'nothing' });

const html = (status: number, title: string): Answer => ({
  status,
  contentType: 'text/html; charset=utf-8',
  body: `<html><head><title>${title}</title></head><body><h1>${title}</h1></body></html>\n`,
  delivery: 'whole',
  told: 'nothing',
});

/** What a load balancer says on its own, whoever stands behind it. No provider documents it as a refusal. */
export const busy = (): Answer => ({
  status: 503,
  contentType: 'text/plain; charset=utf-8',
  body: '',
  headers: { 'retry-after': '1' },
  delivery: 'whole',
  told: 'nothing',
});

const desk = (ruling: Ruling, meaning: string) => ({ place: 'desk', ruling, meaning }) as const;

export const faults = {
  credentials_refused: {
    place: 'door',
    phrase: 'credentials_refused',
    lasts: 'always',
    meaning: 'credentials or caller refused, every time',
  },
  app_refused: { place: 'door', phrase: 'app_refused', lasts: 'always', meaning: 'the application keys refused' },
  refused_once: {
    place: 'door',
    phrase: 'credentials_refused',
    lasts: 'once',
    meaning: 'credentials or caller refused the first time',
  },
  token_expired: {
    place: 'door',
    phrase: 'token_refused',
    lasts: 'until_another_token',
    meaning: 'the token presented has expired; another one is taken',
  },
  customer_token_expired: {
    place: 'door',
    phrase: 'customer_token_refused',
    lasts: 'until_another_token',
    meaning: 'the customer token presented has expired; another one is taken',
  },
  rate_limited_once: {
    place: 'door',
    phrase: 'rate_limited',
    lasts: 'once',
    meaning: '429 with Retry-After: 1 the first time',
  },
  reset_unseen: {
    place: 'door',
    phrase: 'reset',
    lasts: 'always',
    meaning: 'RST before the business layer saw the code',
  },

  wrong_code: desk('wrong_code', 'the code is wrong; three tries a reference'),
  wrong_code_as_403: desk('wrong_code_as_403', 'the code is wrong, said with HTTP 403'),
  expired_code: desk('expired_code', 'the code has expired'),
  attempts_used_up: desk('attempts_used_up', 'the code is wrong and no try is left'),
  unknown_reference: desk('unknown_reference', 'no transaction for this reference'),
  declined: desk('declined', 'the code is right and the bank says no'),
  invalid_request: desk('invalid_request', 'the request does not validate'),
  request_failed: desk('request_failed', 'valid parameters, but the request failed'),
  server_error: desk('server_error', 'HTTP 500 as JSON, the code not used, nothing charged'),
  bad_gateway: desk('bad_gateway', 'HTTP 502, the code not used, nothing charged'),
  unavailable: desk('unavailable', 'HTTP 503, the code not used, nothing charged'),
  gateway_timeout: desk('gateway_timeout', 'HTTP 504, the code not used, nothing charged'),

  payment_fails: { place: 'money', course: { ends: 'failed' }, meaning: 'the payment fails after the code was taken' },
  payment_waits: { place: 'money', course: { ends: 'never' }, meaning: 'the payment stays pending for ever' },
  payment_reversed: { place: 'money', course: { ends: 'reversed' }, meaning: 'the payment is made and goes back' },
  other_amount: { place: 'money', course: { ends: 'paid', share: 1.5 }, meaning: 'half as much again is charged' },
  underpaid: { place: 'money', course: { ends: 'paid', share: 0.6 }, meaning: 'six tenths of the amount are paid' },
  no_amount: {
    place: 'money',
    course: { ends: 'paid', withoutAmount: true },
    meaning: 'the inquiry names no amount',
  },

  inquiry_fails_once: { place: 'inquiry', phrase: 'server_error', meaning: 'the first inquiry is answered with 500' },
  inquiry_limited_once: {
    place: 'inquiry',
    phrase: 'rate_limited',
    meaning: 'the first inquiry is answered with 429 and Retry-After: 1',
  },

  html_502: {
    place: 'wire',
    meaning: 'a proxy answers 502 with HTML instead',
    spoil: () => html(502, '502 Bad Gateway'),
  },
  reset: { place: 'wire', meaning: 'RST instead of the answer', spoil: (it) => ({ ...lost(it), delivery: 'reset' }) },
  silence: { place: 'wire', meaning: 'the socket is held', spoil: (it) => ({ ...lost(it), delivery: 'silence' }) },
  half_answer: {
    place: 'wire',
    meaning: 'headers and half of the body, then the connection closes',
    spoil: (it) => ({ ...lost(it), delivery: 'half' }),
  },
  cut_json: {
    place: 'wire',
    meaning: 'a whole HTTP answer with half a JSON document in it',
    spoil: (it) => ({ ...lost(it), body: it.body.slice(0, Math.floor(it.body.length / 2)) }),
  },
  strange_word: {
    place: 'wire',
    meaning: 'HTTP 200 with a word nobody documents',
    spoil: (_, strange) => lost(strange()),
  },
  busy_503: { place: 'wire', meaning: 'HTTP 503 with Retry-After: 1 instead', spoil: busy },
  html_200: {
    place: 'wire',
    meaning: 'HTTP 200 with an HTML page instead',
    spoil: () => html(200, 'Scheduled maintenance'),
  },
  other_content_type: {
    place: 'wire',
    meaning: 'the right answer under the content type text/html',
    spoil: (it) => ({ ...it, contentType: 'text/html; charset=utf-8', unclear: true }),
  },
  swapped_types: {
    place: 'wire',
    meaning: 'numbers as strings, and numeric strings as numbers',
    spoil: (it) => respelled(it, swapTypes(it.body)),
  },
  null_object: {
    place: 'wire',
    meaning: 'null where an object is documented',
    spoil: (it) => respelled(it, nullObjects(it.body)),
  },

  busy_once: { place: 'door', phrase: 'busy', lasts: 'once', meaning: '503 with Retry-After: 1 the first time' },
  storm_begins: {
    place: 'door',
    phrase: 'storm',
    lasts: 'once',
    meaning: '429 with Retry-After, the first time, and for everybody who calls within the second',
  },

  slow: { place: 'time', hold: 'slow', meaning: 'the answer is held back' },
  callback_first: {
    place: 'time',
    hold: 'callback_first',
    meaning: 'the answer is held back until the payment has ended and its callback was answered',
  },

  callback_duplicate: { place: 'callback', trick: 'duplicate', meaning: 'the callback comes two or three times' },
  callback_contradictory: {
    place: 'callback',
    trick: 'contradictory',
    meaning: 'the callback says failed of a payment that was made, and paid of one that was not',
  },
  callback_unknown_reference: {
    place: 'callback',
    trick: 'unknown_reference',
    meaning: 'a second callback names a reference nobody knows',
  },
  callback_wrong_secret: {
    place: 'callback',
    trick: 'wrong_secret',
    meaning: 'the callback comes with a wrong secret, and never with the right one',
  },
  callback_wrong_types: {
    place: 'callback',
    trick: 'wrong_types',
    meaning: 'the callback has its numbers as strings, and its numeric strings as numbers',
  },
  callback_withheld: { place: 'callback', trick: 'withheld', meaning: 'no callback comes' },
} as const satisfies Record<string, Fault>;

export type FaultName = keyof typeof faults;

export const faultOf = (name: FaultName): Fault => faults[name];

/** An answer whose JSON was spelled another way. When nothing of it is left, nothing can be read. */
function respelled(answer: Answer, body: string): Answer {
  if (body === answer.body) return answer;
  return body === 'null' ? { ...lost(answer), body } : { ...answer, body, unclear: true };
}
