/**
 * What an answer may be taken for, said once more from the documents alone and as plainly as possible: which words must
 * literally stand there. It says what is allowed and not what must be: an answer that has the words and is called
 * unknown all the same is no fault.
 */
import type { HttpResponse } from '../../../src/providers/provider.ts';
import { asciiLowerCase, at, isNothing, parseTree, stringIn, type Tree, wordIn } from '../json-tree.ts';

/** What the very answer would allow, beside unknown. */
export interface Allowed {
  readonly accepted?: boolean;
  readonly rejected?: boolean;
  readonly refused?: boolean;
}

export interface AllowedFinding {
  readonly paid?: boolean;
  readonly notPaid?: boolean;
  readonly untouched?: boolean;
  readonly pending?: boolean;
}

export interface Oracle {
  answer(operation: 'verify' | 'send', response: HttpResponse, reference: string, options: Options): Allowed;
  /** Absent where there is none. */
  inquiry?(response: HttpResponse, reference: string): AllowedFinding;
  token?(response: HttpResponse): { readonly token: boolean; readonly refused: boolean };
  callback?(body: string): AllowedFinding & { readonly references: readonly string[] };
}

type Options = Readonly<Record<string, unknown>>;

const isObject = (tree: Tree | null): boolean => tree?.kind === 'object';
const oneOf = (word: string | null, ...words: readonly string[]): boolean => word !== null && words.includes(word);
const PLAIN_DECIMAL = /^\d+(\.\d+)?([eE][+-]?\d+)?$/;

/** Not told, or told so that it can be compared. */
function readable(amount: Tree | undefined): boolean {
  return isNothing(amount) || PLAIN_DECIMAL.test(wordIn(amount) ?? '');
}

/** Exact: -1, 0 or 1; null when one of the two is no plain decimal. */
function compare(one: string | null, other: string | null): number | null {
  const [left, right] = [one, other].map((text) => {
    const [, whole = '', fraction = '', exponent = '0'] =
      /^(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text ?? '') ?? [];
    return whole === '' ? null : { digits: BigInt(whole + fraction), power: Number(exponent) - fraction.length };
  });
  if (!left || !right || Math.abs(left.power) > 1_000 || Math.abs(right.power) > 1_000) return null;
  const lowest = Math.min(left.power, right.power);
  const [a, b] = [left, right].map(({ digits, power }) => digits * 10n ** BigInt(power - lowest)) as [bigint, bigint];
  return a < b ? -1 : a > b ? 1 : 0;
}

// ---- Hello Clever ---------------------------------------------------------------------------------------------------

const saysLogin = (tree: Tree | null): boolean => stringIn(at(tree, 'errors', 'code')) === 'REQUIRE_LOGIN';

function helloCleverFinding(tree: Tree | null): AllowedFinding {
  const status = wordIn(at(tree, 'status'));
  const [paid, total] = [wordIn(at(tree, 'paid_amount')), wordIn(at(tree, 'total'))];
  const order = compare(paid, total);
  const received = status === 'received' && order !== null && readable(at(tree, 'amount'));
  return {
    paid: received && order >= 0,
    pending: status === 'pending' || (received && order < 0),
    notPaid: oneOf(status, 'expired', 'return_pending', 'return_received', 'return_expired'),
  };
}

const helloClever: Oracle = {
  answer: (_, { status, body }, __, options) => {
    const tree = parseTree(body);
    return {
      accepted: status === 200 && asciiLowerCase(stringIn(at(tree, 'status')) ?? '') === 'ok',
      rejected: status === 400,
      refused: (status === 401 && saysLogin(tree)) || (status === 429 && options.trust429 === true),
    };
  },
  inquiry: ({ status, body }, reference) => {
    const tree = parseTree(body);
    return status === 200 && wordIn(at(tree, 'uuid')) === reference ? helloCleverFinding(tree) : {};
  },
  callback: (body) => {
    const tree = parseTree(body);
    return { ...helloCleverFinding(tree), references: [wordIn(at(tree, 'uuid'))].filter((one) => one !== null) };
  },
};

// ---- LipaLater ------------------------------------------------------------------------------------------------------

const lipaLater: Oracle = {
  answer: (operation, { status, body }) => {
    const tree = parseTree(body);
    const data = at(tree, 'data');
    const said = at(tree, 'status');
    const id = at(data, 'id');
    const isSaid = said?.kind === 'number' ? Number(said.raw) === 200 : stringIn(said) === '200';
    const shape =
      operation === 'verify'
        ? id?.kind === 'number' || (stringIn(id) ?? '') !== ''
        : data?.kind === 'string' || at(data, 'message')?.kind === 'string';
    return {
      accepted: status === 200 && isSaid && shape,
      rejected: [400, 402, 403, 404].includes(status) && isObject(tree),
      refused: [401, 429].includes(status) && isObject(tree),
    };
  },
  token: ({ status, body }) => {
    const tree = parseTree(body);
    return {
      token: status === 200 && (stringIn(at(tree, 'access_token')) ?? '') !== '' && isLifetime(at(tree, 'expires_in')),
      refused: [400, 401, 429].includes(status) && isObject(tree),
    };
  },
};

function isLifetime(tree: Tree | undefined): boolean {
  const seconds = Number(wordIn(tree) ?? Number.NaN);
  return seconds > 0 && seconds < 1e9;
}

// ---- Ayoconnect -----------------------------------------------------------------------------------------------------

/** The response code where it fits the HTTP status and the transaction; else null. */
function ayoconnectCode(tree: Tree | null, status: number, reference: string | null): string | null {
  const code = wordIn(at(tree, 'responseCode'));
  if (code === null || !/^[0-9]{7}$/.test(code) || Number(code.slice(0, 3)) !== status) return null;
  const about = at(tree, 'originalReferenceNo');
  const fits = reference === null || isNothing(about) || wordIn(about) === '' || wordIn(about) === reference;
  return fits ? code : null;
}

function ayoconnectFinding(tree: Tree | null): AllowedFinding {
  const word = wordIn(at(tree, 'latestTransactionStatus'));
  const status = word === null ? null : asciiLowerCase(word);
  const amounts = ['amount', 'transAmount'].map((name) => at(tree, name));
  return {
    paid:
      oneOf(status, '00', 'success') &&
      amounts.every((amount) => isNothing(amount) || PLAIN_DECIMAL.test(wordIn(at(amount, 'value')) ?? '')),
    notPaid: oneOf(status, '06', 'failed'),
    untouched: status === 'pending_user_verification',
    pending: oneOf(
      status,
      ...['01', '02', '03', 'initiated', 'processing', 'timeout', 'pending_user_verification with url'],
    ),
  };
}

const AYOCONNECT_REFUSALS = [
  ...['4000400', '4000401', '4000402', '4010400', '4010401', '4010402', '4010403', '4010404', '4030406', '4290400'],
];

const ayoconnect: Oracle = {
  answer: (_, { status, body }, reference) => {
    const code = ayoconnectCode(parseTree(body), status, reference);
    return {
      accepted: oneOf(code, '2000400', '2020400'),
      rejected: oneOf(code, '4040415', '4030412'),
      refused: oneOf(code, ...AYOCONNECT_REFUSALS),
    };
  },
  inquiry: ({ status, body }, reference) => {
    const tree = parseTree(body);
    const code = ayoconnectCode(tree, status, reference);
    if (code === '4045501') return { notPaid: true };
    return code === '2005500' ? ayoconnectFinding(tree) : {};
  },
  token: ({ status, body }) => {
    const tree = parseTree(body);
    return {
      token: status === 200 && (wordIn(at(tree, 'accessToken')) ?? '') !== '' && isLifetime(at(tree, 'expiresIn')),
      refused: [400, 401, 403, 404, 429].includes(status) && ayoconnectCode(tree, status, null) !== null,
    };
  },
  callback: (body) => {
    const tree = parseTree(body);
    const reference = wordIn(at(tree, 'originalReferenceNo'));
    return { ...ayoconnectFinding(tree), references: reference === null ? [] : [reference] };
  },
};

// ---- Beqelal --------------------------------------------------------------------------------------------------------

/** `PROCESSED` or `FAILED`, where nothing beside it says otherwise. */
function beqelalWord(tree: Tree | null): string | null {
  const code = at(tree, 'status_code');
  const calm = (code === undefined || wordIn(code) === '200') && isNothing(at(tree, 'error'));
  return calm ? stringIn(at(tree, 'status')) : null;
}

const beqelal: Oracle = {
  answer: (_, { status, body }, __, options) => {
    const tree = parseTree(body);
    const word = status === 200 ? beqelalWord(tree) : null;
    const code = wordIn(at(tree, 'error', 'status_code'));
    return {
      accepted: word === 'PROCESSED' && readable(at(tree, 'amount')) && readable(at(tree, 'total_amount')),
      rejected: word === 'FAILED' || (status === 400 && oneOf(code, '442', '450')),
      refused: (status === 479 && code === '479') || (status === 429 && options.trust429 === true),
    };
  },
  callback: (body) => {
    const tree = parseTree(body);
    const word = beqelalWord(tree);
    const references = [wordIn(at(tree, 'reference')), wordIn(at(tree, 'id'))].filter((one) => one !== null);
    return { paid: word === 'PROCESSED', notPaid: word === 'FAILED', references };
  },
};

// ---- Cepta ----------------------------------------------------------------------------------------------------------

const CEPTA_WORDS = [
  ...['INVALID_REQUEST', 'UNAUTHORIZED', 'INVALID_OTP', 'TRANSACTION_NOT_FOUND', 'NOT FOUND'],
  ...['TOO MANY REQUESTS', 'TOO_MANY_REQUESTS', 'INTERNAL_SERVER_ERROR'],
];

/** Every word for an error that stands in a place where one may stand. */
function ceptaErrors(tree: Tree | null): string[] {
  const lists = [at(tree, 'errors'), at(tree, 'data', 'errors')];
  const listed = lists.flatMap((list) =>
    list?.kind === 'array' ? list.items.map((one) => stringIn(at(one, 'errorCode'))) : [],
  );
  const spoken = ['errorCode', 'code', 'error', 'message'].map((name) => stringIn(at(tree, name)));
  return [...listed, ...spoken.filter((word) => oneOf(word, ...CEPTA_WORDS))].filter((word) => word !== null);
}

function ceptaFinding(status: string | null, amount: Tree | undefined): AllowedFinding {
  const word = status === null ? null : asciiLowerCase(status);
  return {
    paid: oneOf(word, 'successful', 'completed', 'paid', 'success') && readable(amount),
    notPaid: oneOf(word, 'failed', 'reversed'),
    pending: word === 'pending',
  };
}

const isTrue = (tree: Tree | undefined): boolean => tree?.kind === 'literal' && tree.raw === 'true';

const cepta: Oracle = {
  answer: (_, { status, body }) => {
    const tree = parseTree(body);
    const errors = ceptaErrors(tree);
    const says = (word: string): boolean => errors.includes(word);
    const saysNo = tree !== null && !isTrue(at(tree, 'status')) && stringIn(at(tree, 'data', 'responseCode')) !== '00';
    return {
      accepted:
        status === 200 &&
        isTrue(at(tree, 'status')) &&
        stringIn(at(tree, 'data', 'responseCode')) === '00' &&
        errors.length === 0,
      rejected:
        saysNo &&
        (((status === 200 || status === 403) && says('INVALID_OTP')) ||
          (status === 404 && says('TRANSACTION_NOT_FOUND'))),
      refused:
        saysNo &&
        ((status === 400 && says('INVALID_REQUEST')) ||
          (status === 401 && says('UNAUTHORIZED')) ||
          (status === 429 && (says('TOO MANY REQUESTS') || says('TOO_MANY_REQUESTS')))),
    };
  },
  inquiry: ({ status, body }, reference) => {
    const tree = parseTree(body);
    const data = at(tree, 'data');
    if (status !== 200 || !isTrue(at(tree, 'status')) || wordIn(at(data, 'transactionReference')) !== reference)
      return {};
    return ceptaFinding(wordIn(at(data, 'status')), at(data, 'amount'));
  },
  callback: (body) => {
    const tree = parseTree(body);
    const data = at(tree, 'data');
    // Either place may say it; what the inner one says goes before the outer one.
    const findings = [data, tree ?? undefined].flatMap((part) =>
      [data, tree ?? undefined].map((other) => ceptaFinding(wordIn(at(part, 'status')), at(other, 'amount'))),
    );
    const references = [tree ?? undefined, data].flatMap((part) =>
      ['transactionRef', 'TransactionRef', 'transactionReference'].map((name) => wordIn(at(part, name))),
    );
    return {
      paid: findings.some(({ paid }) => paid),
      notPaid: findings.some(({ notPaid }) => notPaid),
      pending: findings.some(({ pending }) => pending),
      references: references.filter((one) => one !== null),
    };
  },
};

export const oracles: Readonly<Record<string, Oracle>> = {
  'hello-clever': helloClever,
  'lipa-later': lipaLater,
  ayoconnect,
  beqelal,
  cepta,
};
