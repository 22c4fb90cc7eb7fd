/**
 * Records of the journal into which somebody else has written: read as what they say, or refused in words that name the
 * field and show nothing of it. And the data of jobs and results, as far as their schemas go.
 */
import fc from 'fast-check';
import { callbackJobSchema, jobSchema, partitionOf } from '../../../src/producers/job.ts';
import { type RawRecord, readRecord } from '../../../src/producers/record.ts';
import { acceptedResourceOf, resourceOf } from '../../../src/producers/resource.ts';
import { RESULT_TYPES, resultEventOf, resultEventSchema } from '../../../src/producers/result.ts';
import { anyText, mutatedJson, mutateText, type TextMutation, textMutation, words } from '../mutate.ts';
import { demand, demandNoLeak, printed, type Target } from '../target.ts';

const ID = 'cepta_019f3c5a7b1e7d3a9c4e5f60718293a4';
/** In what a client or a customer has given. */
const CANARY = 'c4n4ry-of-the-customer-0815';
/** What stands for the sealed code: closed, and still nobody's business. */
const SEALED = 'eyJhbGciOiJFQ0RILUVTIn0..c4n4ry-sealed.x.y';

type RecordCase =
  | { readonly kind: 'record'; readonly raw: RawRecord }
  | { readonly kind: 'job' | 'callback job' | 'result'; readonly text: string };

export interface RecordSubject {
  readRecord: typeof readRecord;
}

const QUEUED: RawRecord = {
  ...{
    v: '1',
    operation: 'verify',
    client: 'shop',
    reference: 'TX12345ABC',
    claim: '{idem-shop}:0a1b',
    codePrint: 'print',
  },
  head: JSON.stringify({
    metadata: { note: CANARY },
    amount: { value: '100.00', currency: 'NGN' },
    plainParams: { transactionRef: CANARY },
  }),
  ...{
    code: SEALED,
    state: 'queued',
    revision: '1',
    sequence: '0',
    createdAt: '1795291200000',
    updatedAt: '1795291200000',
  },
  ...{ expiresAt: '1795291500000', history: '1795291200000 accepted\n' },
};
const { code: _, ...WITHOUT_CODE } = QUEUED;
const SENDING: RawRecord = {
  ...QUEUED,
  ...{ state: 'sending', token: 'f'.repeat(32), owner: 'worker-1', attempts: '1', used: '1', beganAt: '1795291201000' },
  ...{ inFlightUntil: '1795291241000', history: `${QUEUED.history}1795291201000 begun 1\n` },
};
const AWAITING: RawRecord = {
  ...WITHOUT_CODE,
  ...{ state: 'awaiting', standing: '["unknown","unknown","no_answer","wait","TIMEOUT",null]', sequence: '1' },
  history: `${SENDING.history}1795291202000 lost 1 {"code":"TIMEOUT"}\n`,
  ...{ awaitingSince: '1795291202000', nextInquiryAt: '1795291212000', inquiries: '2', needsReview: '1', hinted: '1' },
  ...{ identifiers: '["S-9"]', notPaidAt: '1795291203000' },
};
const SETTLED: RawRecord = {
  ...WITHOUT_CODE,
  ...{ state: 'settled', standing: '["rejected","pending","wrong_code","reenter_code","INVALID_OTP",2]' },
  ...{ sequence: '2', details: SEALED, refusals: '1', notSent: '1' },
};
const RECORDS = [QUEUED, SENDING, AWAITING, SETTLED];
const FIELDS = [...new Set(RECORDS.flatMap((record) => Object.keys(record))), '__proto__', 'constructor'];

const VALUES = fc.oneof(
  fc.constantFrom(
    '',
    '0',
    '-1',
    '1',
    'NaN',
    'Infinity',
    '1e400',
    '-0',
    '1.5',
    '0x10',
    ' 1 ',
    '8640000000000001',
    '253402300800000000',
  ),
  fc.constantFrom(
    ...words('null [] {} "x" [null] {"metadata":null} {"metadata":[]} {"amount":1} {"plainParams":null} {"at":1}'),
  ),
  fc.constantFrom(
    ...words('{"at":"x","event":"y"} {"at":1e300,"event":"y"} {"__proto__":{"at":1,"event":"x"}} queued settled'),
    ...words('constructor'),
  ),
  fc.constantFrom(
    CANARY,
    JSON.stringify(CANARY),
    `{"${CANARY}`,
    `[${'['.repeat(20_000)}`,
    `${'['.repeat(20_000)}${']'.repeat(20_000)}`,
  ),
  anyText(20),
);

type FieldMutation =
  | { readonly do: 'set'; readonly field: string; readonly value: string }
  | { readonly do: 'delete'; readonly field: string }
  | { readonly do: 'garble'; readonly field: string; readonly mutation: TextMutation }
  | { readonly do: 'swap'; readonly field: string; readonly other: string };

const field = fc.constantFrom(...FIELDS);
const fieldMutation: fc.Arbitrary<FieldMutation> = fc.oneof(
  fc.record({ do: fc.constant('set' as const), field, value: VALUES }),
  fc.record({ do: fc.constant('delete' as const), field }),
  fc.record({ do: fc.constant('garble' as const), field, mutation: textMutation }),
  fc.record({ do: fc.constant('swap' as const), field, other: field }),
);

function mutateRecord(raw: RawRecord, mutation: FieldMutation): RawRecord {
  const own = raw[mutation.field];
  switch (mutation.do) {
    case 'set':
      return { ...raw, [mutation.field]: mutation.value };
    case 'delete': {
      const { [mutation.field]: _, ...rest } = raw;
      return rest;
    }
    case 'garble':
      return typeof own === 'string' ? { ...raw, [mutation.field]: mutateText(own, mutation.mutation) } : raw;
    case 'swap': {
      const other = raw[mutation.other];
      return typeof own === 'string' && typeof other === 'string'
        ? { ...raw, [mutation.field]: other, [mutation.other]: own }
        : raw;
    }
  }
  return mutation satisfies never;
}

/** What somebody writes into a hash of the journal. */
export const garbledRecord: fc.Arbitrary<RawRecord> = fc
  .record({ from: fc.constantFrom(...RECORDS), mutations: fc.array(fieldMutation, { minLength: 0, maxLength: 4 }) })
  .map(({ from, mutations }) => mutations.reduce(mutateRecord, from));

export const RESULT = {
  ...{ specversion: '1.0', id: `${ID}.2`, source: '/otp/cepta', type: 'otp.verification.settled', subject: ID },
  ...{ time: '2026-11-21T20:00:01.000Z', client: 'shop', datacontenttype: 'application/json' },
  data: {
    id: ID,
    provider: 'cepta',
    state: 'settled',
    sequence: 2,
    final: true,
    otp: 'accepted',
    metadata: { note: CANARY },
  },
};

export function journalRecords(subject: RecordSubject = { readRecord }): Target<RecordCase> {
  return {
    name: 'journal-records',
    batch: 1_000,
    cases: fc.oneof(
      { weight: 4, arbitrary: garbledRecord.map((raw) => ({ kind: 'record' as const, raw })) },
      { weight: 1, arbitrary: mutatedJson([`{"v":1,"id":"${ID}"}`]).map((text) => ({ kind: 'job' as const, text })) },
      {
        weight: 1,
        arbitrary: mutatedJson([`{"v":1,"receivedAt":1795291200000,"sealed":"${SEALED}"}`]).map((text) => {
          return { kind: 'callback job' as const, text };
        }),
      },
      {
        weight: 1,
        arbitrary: mutatedJson([JSON.stringify(RESULT)], {
          tokens: RESULT_TYPES.map((type) => JSON.stringify(type)),
        }).map((text) => ({ kind: 'result' as const, text })),
      },
    ),
    check: (given) => (given.kind === 'record' ? judgeRecord(subject, given.raw) : judgeData(given.kind, given.text)),
  };
}

function judgeRecord(subject: RecordSubject, raw: RawRecord): string {
  let record: ReturnType<typeof readRecord>;
  try {
    record = subject.readRecord(ID, 'cepta', raw);
  } catch (error) {
    demand(
      error instanceof Error && (error.name === 'RecordError' || (error.name === 'NewerFormatError' && raw.v !== '1')),
      `a record was refused by accident: ${printed(error)}`,
    );
    demand(error.message.length < 400 && error.message.includes(ID), 'the refusal does not say of what');
    demandNoLeak('the refusal', printed(error), [CANARY, SEALED]);
    return 'refused';
  }
  if (record === null) {
    demand(!Object.hasOwn(raw, 'state'), 'a record with a state is called none');
    return 'none';
  }
  demand(['queued', 'sending', 'awaiting', 'settled'].includes(record.state), 'a state that there is not');
  demand(['verify', 'send'].includes(record.operation), 'an operation that there is not');
  for (const [name, value] of Object.entries(record)) {
    demand(typeof value !== 'number' || Number.isFinite(value), `${name} is no number`);
  }
  // Whoever shows it must be able to: a client that asks for it would be told that Redis is away.
  for (const resource of [resourceOf(record), acceptedResourceOf(record)]) {
    JSON.stringify(resource);
    for (const time of [resource.createdAt, resource.updatedAt, resource.expiresAt]) {
      demand(/^[+-]?\d{4,6}-\d\d-\d\dT/.test(time), 'a time that is none');
    }
  }
  JSON.stringify(resultEventOf(record, 'otp.verification.settled', record.client, false));
  return record.state;
}

function judgeData(kind: 'job' | 'callback job' | 'result', text: string): string {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    return `${kind}: no JSON`;
  }
  const is = (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  const has = (names: readonly string[]): boolean =>
    is(data) && Object.keys(data).sort().join() === [...names].sort().join();
  const own = is(data) ? data : {};
  switch (kind) {
    case 'job': {
      const taken = jobSchema.safeParse(data).success;
      demand(taken === (has(['v', 'id']) && own.v === 1 && typeof own.id === 'string'), 'a job was misread');
      const partition = taken ? partitionOf(String(own.id)) : null;
      demand(
        partition === null || String(own.id).startsWith(`${partition}_`),
        'an id names a partition that it does not begin with',
      );
      return `${kind}: ${taken ? 'taken' : 'refused'}`;
    }
    case 'callback job': {
      const right = own.v === 1 && Number.isSafeInteger(own.receivedAt) && typeof own.sealed === 'string';
      const taken = callbackJobSchema.safeParse(data).success;
      demand(taken === (has(['v', 'receivedAt', 'sealed']) && right), "a callback's job was misread");
      return `${kind}: ${taken ? 'taken' : 'refused'}`;
    }
    case 'result': {
      const parsed = resultEventSchema.safeParse(data);
      if (!parsed.success) return `${kind}: refused`;
      demand(isResult(own), 'taken for a result, and it is none');
      return `${kind}: taken`;
    }
  }
  return kind satisfies never;
}

/** What a handler may rely on. */
export function isResult(event: Readonly<Record<string, unknown>>): boolean {
  const { id, subject, source, type, client, specversion, time } = event;
  const data = event.data as Record<string, unknown> | null;
  return (
    specversion === '1.0' &&
    typeof subject === 'string' &&
    subject !== '' &&
    typeof client === 'string' &&
    client !== '' &&
    typeof source === 'string' &&
    source.startsWith('/otp/') &&
    (RESULT_TYPES as readonly unknown[]).includes(type) &&
    typeof time === 'string' &&
    !Number.isNaN(Date.parse(time)) &&
    typeof data === 'object' &&
    data !== null &&
    data.id === subject &&
    Number.isSafeInteger(data.sequence) &&
    (data.sequence as number) >= 1 &&
    typeof data.state === 'string' &&
    typeof data.final === 'boolean' &&
    id === `${subject}.${data.sequence}`
  );
}
