/** Which bodies are requests, said once more from docs/http-api.md and the providers' parameters, without a schema. */

export const PARTITIONS = {
  'hello-clever': ['verify'],
  'lipa-later': ['verify', 'send'],
  ayoconnect: ['verify'],
  beqelal: ['verify'],
  cepta: ['verify'],
} as const satisfies Record<string, readonly string[]>;

const TOP = ['provider', 'operation', 'otp', 'params', 'amount', 'expiresAt', 'metadata'];

type Mapping = Record<string, unknown>;

function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const has = (given: Mapping, name: string): boolean => Object.hasOwn(given, name);
const own = (given: Mapping, name: string): unknown => (has(given, name) ? given[name] : undefined);
const onlyHas = (given: Mapping, names: readonly string[]): boolean =>
  Object.keys(given).every((name) => names.includes(name));
const absentOr = (given: Mapping, name: string, fits: (value: unknown) => boolean): boolean =>
  !has(given, name) || fits(given[name]);

/** Printable means: no control character, no half of a pair. */
function isText(value: unknown, most: number, least = 1): value is string {
  if (typeof value !== 'string' || value.length < least || value.length > most) return false;
  for (const character of value) {
    const code = character.codePointAt(0) ?? 0;
    if (code < 0x20 || (code >= 0x7f && code <= 0x9f) || (code >= 0xd800 && code <= 0xdfff)) return false;
  }
  return true;
}

function isHeaderText(value: unknown, most: number, least = 1): boolean {
  if (typeof value !== 'string' || value.length < least || value.length > most) return false;
  const visible = [...value].every((character) => character >= ' ' && character <= '~');
  return visible && !value.startsWith(' ') && !value.endsWith(' ');
}

const isPhone = (value: unknown): boolean => typeof value === 'string' && /^\+?[1-9][0-9]{6,14}$/.test(value);
const isNullOr = (value: unknown, most: number): boolean => value === null || isText(value, most);

function nesting(value: unknown): number {
  let level: unknown[] = [value];
  for (let depth = 0; ; depth += 1) {
    level = level.flatMap((one) => (typeof one === 'object' && one !== null ? Object.values(one) : []));
    if (level.length === 0) return depth;
  }
}

/** JSON allows the name, and JavaScript makes something else of it. */
function namesProto(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Object.keys(value).includes('__proto__') || Object.values(value).some(namesProto);
}

/** `1e400` is JSON, and what is read from it is not. */
function namesInfinity(value: unknown): boolean {
  if (typeof value === 'number') return !Number.isFinite(value);
  return typeof value === 'object' && value !== null && Object.values(value).some(namesInfinity);
}

/** How many mappings and lists stand in one another. */
function containers(value: unknown): number {
  let level: unknown[] = [value];
  for (let depth = 0; ; depth += 1) {
    const inner = level.filter((one) => typeof one === 'object' && one !== null);
    if (inner.length === 0) return depth;
    level = inner.flatMap((one) => Object.values(one as object));
  }
}

function fitsParams(provider: keyof typeof PARTITIONS, operation: string, given: Mapping): boolean {
  switch (provider) {
    case 'hello-clever':
      return onlyHas(given, ['uuid']) && isText(own(given, 'uuid'), 128);
    case 'beqelal':
      return onlyHas(given, ['reference']) && isText(own(given, 'reference'), 128);
    case 'cepta':
      return (
        onlyHas(given, ['transactionRef', 'paymentId', 'md']) &&
        isText(own(given, 'transactionRef'), 128) &&
        absentOr(given, 'paymentId', (value) => isNullOr(value, 128)) &&
        absentOr(given, 'md', (value) => isNullOr(value, 4096))
      );
    case 'lipa-later': {
      const who = isText(own(given, 'id_number'), 128) && isPhone(own(given, 'phone_number'));
      if (operation === 'verify') {
        const value = own(given, 'item_value');
        const isValue = typeof value === 'string' && /^[0-9]{1,15}(\.[0-9]{1,4})?$/.test(value);
        return who && isValue && onlyHas(given, ['id_number', 'item_value', 'phone_number']);
      }
      const more: readonly (readonly [string, number])[] = [
        ['first_name', 128],
        ['last_name', 128],
        ['country_code', 8],
        ['date_of_birth', 32],
      ];
      const named = more.filter(([name]) => has(given, name));
      return (
        who &&
        onlyHas(given, ['id_number', 'phone_number', ...more.map(([name]) => name)]) &&
        (named.length === 0 || named.length === more.length) &&
        named.every(([name, most]) => isText(given[name], most))
      );
    }
    case 'ayoconnect': {
      const names = ['originalPartnerReferenceNo', 'originalReferenceNo', 'action', 'externalId'];
      const info = own(given, 'additionalInfo');
      const externalId = own(given, 'externalId');
      return (
        onlyHas(given, [...names, 'authCode', 'customerAccessToken', 'additionalInfo']) &&
        isText(own(given, 'originalPartnerReferenceNo'), 32, 32) &&
        isText(own(given, 'originalReferenceNo'), 32, 32) &&
        ['payment', 'unbinding'].includes(own(given, 'action') as string) &&
        typeof externalId === 'string' &&
        /^[0-9A-Za-z]{32}$/.test(externalId) &&
        has(given, 'authCode') !== has(given, 'customerAccessToken') &&
        absentOr(given, 'authCode', (value) => isHeaderText(value, 32, 32)) &&
        absentOr(given, 'customerAccessToken', (value) => isHeaderText(value, 4096)) &&
        absentOr(
          given,
          'additionalInfo',
          () => isMapping(info) && containers(info) <= 8 && JSON.stringify(info).length <= 4096 && !namesInfinity(info),
        )
      );
    }
  }
  return provider satisfies never;
}

/** A day that exists, a time that exists, and how far it is from UTC, as RFC 3339 writes it. */
function isTimestamp(value: unknown): boolean {
  if (typeof value !== 'string') return false;
  const parts = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:Z|[+-](\d\d):(\d\d))$/.exec(value);
  if (parts === null) return false;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, hours = 0, minutes = 0] = parts
    .slice(1)
    .map((part) => Number(part ?? 0));
  const days = [31, isLeap(year) ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1] ?? 0;
  return day >= 1 && day <= days && hour < 24 && minute < 60 && second < 60 && hours < 24 && minutes < 60;
}

function isLeap(year: number): boolean {
  return (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
}

/** `body` as JSON.parse gives it. */
export function isRequest(body: unknown): boolean {
  if (!isMapping(body) || nesting(body) > 32 || namesProto(body) || !onlyHas(body, TOP)) return false;
  const provider = own(body, 'provider');
  if (typeof provider !== 'string' || !Object.hasOwn(PARTITIONS, provider)) return false;
  const partition = provider as keyof typeof PARTITIONS;
  const operation = has(body, 'operation') ? body.operation : 'verify';
  if (typeof operation !== 'string' || !(PARTITIONS[partition] as readonly string[]).includes(operation)) return false;
  const otp = own(body, 'otp');
  const fitsOtp = operation === 'send' ? !has(body, 'otp') : typeof otp === 'string' && /^[0-9A-Za-z]{4,10}$/.test(otp);
  const params = own(body, 'params');
  return (
    fitsOtp &&
    isMapping(params) &&
    fitsParams(partition, operation, params) &&
    absentOr(body, 'expiresAt', isTimestamp) &&
    absentOr(body, 'amount', isAmount) &&
    absentOr(body, 'metadata', (value) => isMapping(value) && Buffer.byteLength(JSON.stringify(value)) <= 4096)
  );
}

function isAmount(value: unknown): boolean {
  if (!isMapping(value) || !onlyHas(value, ['value', 'currency'])) return false;
  const [amount, currency] = [own(value, 'value'), own(value, 'currency')];
  return (
    typeof amount === 'string' &&
    /^[0-9]{1,15}(\.[0-9]{1,8})?$/.test(amount) &&
    typeof currency === 'string' &&
    /^[A-Z]{3}$/.test(currency)
  );
}

/** Visible ASCII, 1 to 255 of it. */
export function isIdempotencyKey(key: string): boolean {
  return key.length >= 1 && key.length <= 255 && [...key].every((character) => character > ' ' && character <= '~');
}
