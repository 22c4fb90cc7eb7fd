/**
 * The magic values, as data: docs/sandbox.md prints this table, a test holds the two together, and a tour can read it.
 * Any value that is not here is a right code for a known reference.
 */
import type { FaultName } from './faults.ts';
import type { SandboxProvider } from './ledger.ts';

export interface MagicValue {
  /** The value itself, or a pattern whose letters stand for digits where `where` says so. */
  value: string;
  where: 'otp' | 'phone_number' | 'originalReferenceNo' | 'authCode' | 'reference';
  name: string;
  faults: readonly FaultName[];
  meaning: string;
  /** What goes over the wire, by provider. A provider that is not named here takes the value for an ordinary one. */
  answers: Partial<Record<SandboxProvider, string>>;
  /** The inquiry answers with this word from the moment the code is accepted, for ever. */
  inquiryWord?: string;
  /** The documentation does not settle which words a verification must end with. */
  unclear?: true;
}

const otp = (
  value: string,
  name: string,
  faults: readonly FaultName[],
  meaning: string,
  answers: MagicValue['answers'],
): MagicValue => ({ value, where: 'otp', name, faults, meaning, answers });

/** An inquiry word. What it means for the money is a fault of the money's place, or none when it is paid. */
const word = (
  provider: SandboxProvider,
  value: string,
  inquiryWord: string,
  money: FaultName | 'paid',
  unclear?: true,
): MagicValue => ({
  value,
  where: 'otp',
  name: `inquiry_${inquiryWord.toLowerCase().replaceAll(/\W+/g, '_')}`,
  faults: money === 'paid' ? [] : [money],
  meaning: `accepted; the inquiry says ${inquiryWord} for ever`,
  answers: { [provider]: inquiryWord },
  inquiryWord,
  ...(unclear ? { unclear } : {}),
});

const everyone = (text: string): MagicValue['answers'] => ({
  'hello-clever': text,
  'lipa-later': text,
  ayoconnect: text,
  beqelal: text,
  cepta: text,
});
const paying = (text: string): MagicValue['answers'] => ({
  'hello-clever': text,
  ayoconnect: text,
  beqelal: text,
  cepta: text,
});
/** All that report the end of a payment. */
const reporting = paying;
const asked = (text: string): MagicValue['answers'] => ({ 'hello-clever': text, ayoconnect: text, cepta: text });

export const magicValues: readonly MagicValue[] = [
  otp('400001', 'wrong_code', ['wrong_code'], 'wrong code; the third wrong one is the last', {
    'hello-clever': '400 with the error envelope',
    'lipa-later': '400 problem',
    ayoconnect: '4040415, the third time 4030405',
    beqelal: '400, 450 INVALID_OTP',
    cepta: '200, status false, 01, INVALID_OTP, otpRetryCount counting down',
  }),
  otp('400002', 'expired_code', ['expired_code'], 'expired code', {
    'hello-clever': '400 without a body',
    ayoconnect: '4030412',
  }),
  otp('400003', 'attempts_used_up', ['attempts_used_up'], 'wrong code, and no try is left', {
    'hello-clever': '400 with the error envelope',
    'lipa-later': '400 problem',
    ayoconnect: '4030405',
    beqelal: '400, 450 INVALID_OTP',
    cepta: '200, status false, 01, INVALID_OTP, otpRetryCount 0',
  }),
  otp('400004', 'unknown_reference', ['unknown_reference'], 'no such transaction', {
    'lipa-later': '404 problem',
    ayoconnect: '4040401',
    beqelal: '400, 442 TRANSACTION_NOT_FOUND',
    cepta: '404 TRANSACTION_NOT_FOUND',
  }),
  otp('400005', 'declined', ['declined'], 'right code, and the bank or the lender says no', {
    'lipa-later': '403 problem, "You do not have enough credit"',
    ayoconnect: '4030414',
    beqelal: '200, status FAILED',
    cepta: '200, status false, responseCode 51, no errorCode',
  }),
  otp('400006', 'server_error', ['server_error'], 'server error; the code is not used, nothing is charged', {
    'hello-clever': '500 JSON',
    'lipa-later': '500 problem',
    ayoconnect: '5000400',
    beqelal: '500 JSON',
    cepta: '500 INTERNAL_SERVER_ERROR',
  }),
  otp('400007', 'wrong_code_as_403', ['wrong_code_as_403'], 'wrong code, in the other documented form', {
    cepta: '403 INVALID_OTP',
  }),
  otp('400008', 'invalid_request', ['invalid_request'], 'the request does not validate', {
    'lipa-later': '400 problem with a list of reasons',
    cepta: '400 INVALID_REQUEST',
  }),
  otp('400009', 'request_failed', ['request_failed'], 'valid parameters, but the request failed', {
    'lipa-later': '402 problem',
  }),
  otp('400502', 'bad_gateway', ['bad_gateway'], 'gateway fault; the code is not used', {
    ...paying('502 without a body'),
    'lipa-later': '502 problem',
  }),
  otp('400503', 'unavailable', ['unavailable'], 'gateway fault; the code is not used', {
    ...paying('503 without a body'),
    'lipa-later': '503 problem',
  }),
  otp('400504', 'gateway_timeout', ['gateway_timeout'], 'gateway fault; the code is not used', {
    ...paying('504 without a body'),
    ayoconnect: '5040400',
    'lipa-later': '504 problem',
  }),

  otp('500001', 'payment_fails', ['payment_fails'], 'accepted, then the payment fails', {
    'hello-clever': 'Ok; detail expired',
    ayoconnect: '2000400; status 06',
    cepta: '00; confirm-status failed',
  }),
  otp('500002', 'payment_waits', ['payment_waits'], 'accepted, and pending for ever', {
    'hello-clever': 'Ok; detail pending',
    ayoconnect: '2000400; status 03',
    cepta: '00; confirm-status pending',
  }),
  otp('500003', 'other_amount', ['other_amount'], 'accepted, and half as much again is charged', paying('150 for 100')),
  otp('500004', 'underpaid', ['underpaid'], 'accepted, and six tenths are paid', {
    'hello-clever': 'Ok; detail received, paid_amount below total',
  }),
  otp('500005', 'no_amount', ['no_amount'], 'accepted and paid; the inquiry names no amount', {
    ayoconnect: '2000400; status 00 without transAmount',
  }),
  otp(
    '500006',
    'inquiry_fails_once',
    ['inquiry_fails_once'],
    'accepted; the first inquiry fails',
    asked('500, then as usual'),
  ),
  otp(
    '500007',
    'inquiry_limited_once',
    ['inquiry_limited_once'],
    'accepted; the first inquiry is limited',
    asked('429, then as usual'),
  ),
  otp('500008', 'payment_reversed', ['payment_reversed'], 'accepted, charged, and the money goes back', {
    'hello-clever': 'Ok; detail return_received',
    cepta: '00; confirm-status reversed',
  }),

  word('hello-clever', '510101', 'pending', 'payment_waits'),
  word('hello-clever', '510102', 'received', 'paid'),
  word('hello-clever', '510103', 'expired', 'payment_fails'),
  word('hello-clever', '510104', 'return_pending', 'payment_reversed', true),
  word('hello-clever', '510105', 'return_received', 'payment_reversed'),
  word('hello-clever', '510106', 'return_expired', 'payment_reversed', true),
  word('hello-clever', '510109', 'on_hold', 'payment_waits', true),
  word('ayoconnect', '510200', '00', 'paid'),
  word('ayoconnect', '510201', '01', 'payment_waits'),
  word('ayoconnect', '510202', '02', 'payment_waits'),
  word('ayoconnect', '510203', '03', 'payment_waits'),
  word('ayoconnect', '510204', '04', 'payment_waits', true),
  word('ayoconnect', '510205', '05', 'payment_waits', true),
  word('ayoconnect', '510206', '06', 'payment_fails'),
  word('ayoconnect', '510207', '07', 'payment_waits', true),
  word('ayoconnect', '510211', 'SUCCESS', 'paid'),
  word('ayoconnect', '510212', 'INITIATED', 'payment_waits'),
  word('ayoconnect', '510213', 'PENDING_USER_VERIFICATION', 'payment_waits', true),
  word('ayoconnect', '510214', 'PENDING_USER_VERIFICATION WITH URL', 'payment_waits', true),
  word('ayoconnect', '510215', 'FAILED', 'payment_fails', true),
  word('ayoconnect', '510216', 'PROCESSING', 'payment_waits'),
  word('ayoconnect', '510217', 'TIMEOUT', 'payment_waits'),
  word('ayoconnect', '510218', '4045501', 'payment_fails'),
  word('ayoconnect', '510219', 'ON_HOLD', 'payment_waits', true),
  word('cepta', '510301', 'pending', 'payment_waits'),
  word('cepta', '510302', 'successful', 'paid'),
  word('cepta', '510303', 'failed', 'payment_fails'),
  word('cepta', '510304', 'reversed', 'payment_reversed'),
  word('cepta', '510305', 'Completed', 'paid'),
  word('cepta', '510306', 'Paid', 'paid'),
  word('cepta', '510307', 'Successful', 'paid'),
  word('cepta', '510308', 'Failed', 'payment_fails'),
  word('cepta', '510309', 'on_hold', 'payment_waits', true),

  otp('600001', 'credentials_refused', ['credentials_refused'], 'credentials refused, every time', {
    'hello-clever': '401 REQUIRE_LOGIN',
    'lipa-later': '401 problem',
    ayoconnect: '4010400',
    beqelal: '479 UNAUTHORIZED_IP_ACCESS',
    cepta: '401 UNAUTHORIZED',
  }),
  otp('600002', 'refused_once', ['refused_once'], 'credentials refused once, then accepted', {
    'hello-clever': '401 REQUIRE_LOGIN',
    ayoconnect: '4010400',
    beqelal: '479 UNAUTHORIZED_IP_ACCESS',
    cepta: '401 UNAUTHORIZED',
  }),
  otp('600003', 'rate_limited_once', ['rate_limited_once'], '429 with Retry-After: 1 once, then accepted', {
    'hello-clever': '429, not documented',
    'lipa-later': '429 problem',
    ayoconnect: '4290400',
    beqelal: '429, not documented',
    cepta: '429 TOO MANY REQUESTS',
  }),
  otp('600004', 'token_expired', ['token_expired'], 'the token has expired: refused until another one comes', {
    'lipa-later': '401 problem',
    ayoconnect: '4010401',
  }),
  otp('600005', 'customer_token_expired', ['customer_token_expired'], 'the customer token has expired', {
    ayoconnect: '4010402',
  }),
  otp('600006', 'app_refused', ['app_refused'], 'the application keys refused, every time', {
    beqelal: '401 UNAUTHORIZED',
  }),
  otp('600007', 'reset_unseen', ['reset_unseen'], 'reset before the business layer saw the code', everyone('RST')),

  otp(
    '600008',
    'busy_once',
    ['busy_once'],
    '503 with Retry-After: 1 once, then accepted',
    everyone('503 without a body'),
  ),
  otp(
    '600009',
    'storm_begins',
    ['storm_begins'],
    'for a second everybody gets 429 with Retry-After, then it is accepted',
    everyone('429 as for 600003'),
  ),

  otp('800001', 'committed_then_html_502', ['html_502'], 'accepted, then 502', everyone('502 with HTML')),
  otp('800002', 'committed_then_reset', ['reset'], 'accepted, then the answer is lost', everyone('RST')),
  otp('800003', 'committed_then_silence', ['silence'], 'accepted, then nothing', everyone('the socket is held')),
  otp(
    '800004',
    'committed_then_half_answer',
    ['half_answer'],
    'accepted, the answer breaks off',
    everyone('half a body'),
  ),
  otp(
    '800005',
    'committed_then_cut_json',
    ['cut_json'],
    'accepted, the answer is unreadable',
    everyone('half a JSON, 200'),
  ),
  otp('800006', 'committed_then_strange_word', ['strange_word'], 'accepted, said in an undocumented word', {
    'hello-clever': '200 {"status":"Queued"}',
    'lipa-later': '200 with body status 299',
    ayoconnect: '2000477',
    beqelal: '200, status PONDERING',
    cepta: '200, status true, responseCode 77',
  }),
  otp(
    '800007',
    'lost_and_payment_fails',
    ['payment_fails', 'reset'],
    'answer lost, and the payment fails',
    asked('RST'),
  ),
  otp('800008', 'lost_wrong_code', ['wrong_code', 'reset'], 'wrong code, and the answer is lost', everyone('RST')),
  otp('800009', 'lost_and_payment_waits', ['payment_waits', 'reset'], 'answer lost, pending for ever', asked('RST')),
  otp('800010', 'committed_then_503', ['busy_503'], 'accepted, then 503', everyone('503 with Retry-After: 1')),
  otp('800011', 'committed_then_html_200', ['html_200'], 'accepted, then a page', everyone('200 with HTML')),
  otp(
    '800012',
    'committed_then_other_content_type',
    ['other_content_type'],
    'accepted, the answer mislabelled',
    everyone('200, the usual body as text/html'),
  ),
  otp('800013', 'committed_then_swapped_types', ['swapped_types'], 'accepted, numbers as strings and back', {
    'hello-clever': 'as usual, it has no number',
    'lipa-later': 'data.id a string, payment_terms numbers',
    ayoconnect: 'responseCode a number',
    beqelal: 'amounts numbers, status_code a string',
    cepta: 'amount a number, otpRetryCount a string',
  }),
  otp('800014', 'committed_then_null_object', ['null_object'], 'accepted, null where an object belongs', {
    'hello-clever': '200 null',
    'lipa-later': 'data null',
    ayoconnect: '200 null',
    beqelal: '200 null',
    cepta: 'data null',
  }),
  otp('800015', 'slow_answer', ['slow'], 'accepted, the answer is held back for slowMs', everyone('as usual, late')),
  otp('800016', 'lost_and_declined', ['declined', 'reset'], 'right code, the bank says no, and the answer is lost', {
    beqelal: 'RST',
  }),

  otp(
    '820001',
    'callback_first',
    ['callback_first'],
    'accepted, the callback comes before the answer',
    reporting('as usual, after the callback was answered'),
  ),
  otp(
    '820002',
    'duplicate_callbacks',
    ['callback_duplicate'],
    'accepted, the callback comes three times at once',
    reporting('as usual'),
  ),
  otp('820003', 'contradictory_callback', ['callback_contradictory'], 'accepted and paid, the callback says failed', {
    ...reporting('as usual'),
    'hello-clever': 'as usual; the callback says return_received',
  }),
  otp(
    '820004',
    'contradictory_callback_after_failure',
    ['payment_fails', 'callback_contradictory'],
    'accepted, the payment fails, the callback says paid',
    asked('as usual'),
  ),
  otp(
    '820005',
    'stray_callback',
    ['callback_unknown_reference'],
    'accepted; beside the right callback comes one for a reference nobody knows',
    reporting('as usual'),
  ),
  otp(
    '820006',
    'forged_callback',
    ['callback_wrong_secret'],
    'accepted; the callback has a wrong secret, no right one follows',
    reporting('as usual'),
  ),
  otp(
    '820007',
    'misspelled_callback',
    ['callback_wrong_types'],
    'accepted; the callback has numbers as strings and back',
    reporting('as usual'),
  ),
  otp('820008', 'withheld_callback', ['callback_withheld'], 'accepted; no callback comes', reporting('as usual')),
  otp(
    '820009',
    'contradictory_callback_after_decline',
    ['declined', 'callback_contradictory'],
    'the bank says no, the callback says paid',
    { beqelal: '200, status FAILED' },
  ),

  {
    value: '7HHHCC',
    where: 'otp',
    name: 'snap_verify_code',
    faults: [],
    meaning:
      'HHH and CC the status and case of a SNAP code: that very answer of service 04. Only 2xx and 409-01 charge',
    answers: { ayoconnect: 'HHH04CC, so 740415 gives 4040415' },
    unclear: true,
  },
  {
    value: '…SHHH55CC',
    where: 'originalReferenceNo',
    name: 'snap_status_code',
    faults: [],
    meaning:
      'the ending of the reference: that very answer of service 55, every time; 4045501 goes with a failed payment',
    answers: { ayoconnect: 'HHH55CC, so …S5005500 gives 5005500' },
    unclear: true,
  },
  {
    value: '…SHHH74CC',
    where: 'authCode',
    name: 'snap_customer_token_code',
    faults: [],
    meaning: 'the ending of the authCode: that very answer of service 74, every time; no token is issued',
    answers: { ayoconnect: 'HHH74CC, so …S4037400 gives 4037400' },
    unclear: true,
  },
  {
    value: '…777777',
    where: 'phone_number',
    name: 'test_shape',
    faults: [],
    meaning: 'send answers in the shape of the test environment, which discloses the code',
    answers: { 'lipa-later': 'data as an object {message, otp}' },
  },
  {
    value: '…VVVVVV',
    where: 'phone_number',
    name: 'send_by_otp_value',
    faults: [],
    meaning: 'send has no code: the last six digits of phone_number are looked up as otp values of this table',
    answers: { 'lipa-later': 'as that value says' },
  },
  {
    value: '…A<minor units>Z',
    where: 'reference',
    name: 'amount_in_reference',
    faults: [],
    meaning: 'the ending of any reference sets its amount: …A12550Z is 125.50',
    answers: paying('amount 125.50'),
  },
];

const byOtp = new Map(magicValues.filter(({ where }) => where === 'otp').map((magic) => [magic.value, magic]));

/** The magic that this provider sees in a code, if any. */
export function magicOtp(provider: SandboxProvider, code: string): MagicValue | undefined {
  const magic = byOtp.get(code);
  return magic && provider in magic.answers ? magic : undefined;
}
