/**
 * Where a configuration comes from: one YAML or JSON file (or an object in its place), the texts that its
 * `${env:NAME}` and `${file:PATH}` stand for, and the environment variables that win over it. What comes out is plain
 * data that no schema has seen yet, with everything that went wrong on the way.
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { isCollection, LineCounter, parseDocument, visit } from 'yaml';

export type Environment = Readonly<Record<string, string | undefined>>;
export type Path = readonly PropertyKey[];

/** One thing to mend. Neither part ever repeats a secret. */
export interface Fault {
  /** The key as a person writes it: `providers.cepta.rateLimit.max`, `clients[0].apiKey`. */
  readonly key: string;
  readonly message: string;
}

/** Everything that is wrong with a configuration, a line for each fault. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly faults: readonly Fault[];

  constructor(faults: readonly Fault[], file: string | null) {
    const count = faults.length === 1 ? 'one fault' : `${faults.length} faults`;
    const lines = faults.map(({ key, message }) => `  ${key}: ${message.replace(/\s+/g, ' ')}`);
    super(`the configuration${file === null ? '' : ` ${file}`} has ${count}:\n${lines.join('\n')}`);
    this.faults = faults;
  }
}

/** In the place of a text that could not be had. Its fault is known, so what a schema says of it is not reported. */
const UNRESOLVED = Symbol('unresolved');

export interface Sources {
  readonly data: unknown;
  /** Where relative paths start. */
  readonly folder: string;
  /** Null when an object was given. */
  readonly file: string | null;
  readonly faults: readonly Fault[];
  /** Keys whose text is not in the file, and the words for where it is. */
  readonly origins: ReadonlyMap<string, string>;
}

export interface SourceOptions {
  readonly file?: string | undefined;
  /** An object in the place of a file. */
  readonly data?: unknown;
  /** Where relative paths of `data` start; the working directory by default. */
  readonly baseDir?: string | undefined;
  readonly environment: Environment;
}

export function readSources({ file: named, data, baseDir, environment }: SourceOptions): Sources {
  if (data !== undefined) return new Gathering(resolve(baseDir ?? '.'), null, environment).gather(data);
  const file = named ?? environment.OTP_CONFIG;
  if (!file) {
    throw new ConfigError([{ key: 'OTP_CONFIG', message: 'no file is named: give --config FILE or OTP_CONFIG' }], null);
  }
  const path = resolve(file);
  return new Gathering(dirname(path), path, environment).gather(parse(readConfiguration(path), path));
}

function readConfiguration(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError([{ key: path, message: `cannot be read: ${readFault(error)}` }], null);
  }
}

/** Why a file cannot be read, in words. */
export function readFault(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
  const words: Readonly<Record<string, string>> = {
    ENOENT: 'there is no such file',
    EACCES: 'reading it is not permitted',
    EISDIR: 'it is a folder',
    ENOTDIR: 'a part of its path is not a folder',
  };
  return words[code] ?? code;
}

/**
 * In `{ password: ${env:NAME} }` the braces would end the value: YAML gives them a meaning there. So the characters of
 * a reference stand in Unicode's private use area, one for one (lines and columns stay true), while YAML is parsed.
 */
const MASK = 0xe000;
const shifted = (text: string, by: number): string =>
  text.replace(/[!-~\ue021-\ue07e]/g, (character) => String.fromCharCode(character.charCodeAt(0) + by));
const mask = (text: string): string => text.replace(/(?<=\$)\{[^{}"'\n]*\}/g, (reference) => shifted(reference, MASK));
const unmask = (text: string): string =>
  text.replace(/(?<=\$)\ue07b.*?\ue07d/g, (reference) => shifted(reference, -MASK));

/** The parser's own messages may quote the text, and the text may hold a secret; these cannot. */
const SYNTAX: Readonly<Record<string, string>> = {
  BAD_ALIAS: 'this alias is not well formed',
  BAD_DQ_ESCAPE: 'this escape is not known in a double-quoted text',
  BAD_INDENT: 'the indentation does not fit, or a bracket is not closed',
  BAD_SCALAR_START: 'a text that begins with this character must be quoted',
  BLOCK_AS_IMPLICIT_KEY: 'a nested mapping cannot stand on this line; is a quote or a line break missing?',
  BLOCK_IN_FLOW: 'a block cannot stand inside brackets',
  DUPLICATE_KEY: 'this key stands here a second time',
  MISSING_CHAR: 'a character is missing: a closing quote or bracket, a comma, a colon or a space',
  MULTILINE_IMPLICIT_KEY: 'a key must stand on one line; is a colon missing?',
  MULTIPLE_DOCS: 'a second document begins here; one file holds one configuration',
  TAB_AS_INDENT: 'tabs do not indent in YAML',
  TAG_RESOLVE_FAILED: 'this tag is not known',
  UNEXPECTED_TOKEN: 'this is not expected here; is a quote, a comma or a bracket missing?',
};

/** JSON is YAML, so one parser reads both. */
function parse(text: string, file: string): unknown {
  const lines = new LineCounter();
  // `logLevel`: what the parser warns of by itself, on standard error, quotes the text as well.
  const document = parseDocument(mask(text), { prettyErrors: false, lineCounter: lines, logLevel: 'error' });
  const fault = (position: number, message: string): Fault => {
    const { line, col } = lines.linePos(position);
    return { key: `line ${line}, column ${col}`, message };
  };
  // A warning is a value that would be read as something else than it says.
  const faults = [...document.errors, ...document.warnings].map(({ code, pos }) =>
    fault(pos[0], SYNTAX[code] ?? 'this is not valid YAML'),
  );
  visit(document, {
    Pair: (_, { key }) => {
      if (isCollection(key)) faults.push(fault(key.range?.[0] ?? 0, 'a list or a mapping cannot be the name of a key'));
    },
    Alias: (_, alias) => {
      if (alias.resolve(document) === undefined)
        faults.push(fault(alias.range?.[0] ?? 0, 'this alias names no anchor'));
    },
  });
  if (faults.length > 0) throw new ConfigError(faults, file);
  try {
    return document.toJS();
  } catch {
    throw new ConfigError([{ key: 'the whole file', message: 'its aliases unfold without measure' }], file);
  }
}

class Gathering {
  readonly #folder: string;
  readonly #file: string | null;
  readonly #environment: Environment;
  readonly #faults = new Map<string, string>();
  readonly #origins = new Map<string, string>();

  constructor(folder: string, file: string | null, environment: Environment) {
    this.#folder = folder;
    this.#file = file;
    this.#environment = environment;
  }

  gather(given: unknown): Sources {
    const data = this.#resolve(given, [], []);
    if (isMapping(data)) this.#override(data);
    const faults = [...this.#faults].map(([key, message]) => ({ key, message }));
    return { data, folder: this.#folder, file: this.#file, faults, origins: this.#origins };
  }

  #resolve(value: unknown, path: Path, around: readonly unknown[]): unknown {
    if (typeof value === 'string') return this.#expand(unmask(value), path);
    if (around.includes(value)) return this.#unresolved(path, 'its alias names something that it stands in');
    if (Array.isArray(value)) return value.map((entry, at) => this.#resolve(entry, [...path, at], [...around, value]));
    if (!isMapping(value)) return value;
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, member]) => member !== undefined)
        .map(([name, member]) => {
          const key = unmask(name);
          return [key, this.#resolve(member, [...path, key], [...around, value])];
        }),
    );
  }

  /** What a reference stands for is taken as it is: a `${` inside it means nothing. */
  #expand(text: string, path: Path): unknown {
    if (!text.includes('${')) return text;
    this.#origins.set(
      keyOf(path),
      text.match(/^\$\{env:\w+\}$/) ? `text from ${text}` : 'text that is not in the file',
    );
    let whole = true;
    const expanded = text.replace(/\$\{(?:(env):([A-Za-z_]\w*)\}|(file):([^{}]+)\}|)/g, (_, env, name, file, named) => {
      const found = env ? this.#variable(name, path) : file ? this.#text(named, path) : this.#unknown(path);
      if (typeof found === 'string') return found;
      whole = false;
      return '';
    });
    return whole ? expanded : UNRESOLVED;
  }

  #variable(name: string, path: Path): unknown {
    const value = this.#environment[name];
    if (value) return value;
    return this.#unresolved(path, `the environment variable ${name} is ${value === '' ? 'empty' : 'not set'}`);
  }

  #text(named: string, path: Path): unknown {
    const file = resolve(this.#folder, named.trim());
    try {
      return readFileSync(file, 'utf8').replace(/\r?\n$/, '');
    } catch (error) {
      return this.#unresolved(path, `the file ${file} cannot be read: ${readFault(error)}`);
    }
  }

  #unknown(path: Path): unknown {
    const message =
      // biome-ignore lint/suspicious/noTemplateCurlyInString: these are the references themselves
      'it has a ${...} that is neither ${env:NAME} nor ${file:PATH}; a text with ${ in it must come from one of them';
    return this.#unresolved(path, message);
  }

  #unresolved(path: Path, message: string): typeof UNRESOLVED {
    const key = keyOf(path);
    const before = this.#faults.get(key);
    this.#faults.set(key, before === undefined ? message : `${before}; ${message}`);
    return UNRESOLVED;
  }

  /** An empty variable is one that is not set: compose files pass on what they do not have as empty. */
  #override(data: Record<string, unknown>): void {
    const { REDIS_URL, PORT, CONSOLE_PORT, LOG_LEVEL, OTP_API_KEYS, OTP_CONSOLE_USERS } = this.#environment;
    if (REDIS_URL) {
      // Another address of the same installation: what its names begin with stays.
      const namePrefix = isMapping(data.redis) ? data.redis.namePrefix : undefined;
      this.#forget('redis');
      data.redis = namePrefix === undefined ? {} : { namePrefix };
      this.#place(data, ['redis', 'url'], REDIS_URL, 'REDIS_URL');
    }
    if (PORT) this.#place(data, ['intake', 'port'], PORT, 'PORT');
    if (CONSOLE_PORT) this.#place(data, ['console', 'port'], CONSOLE_PORT, 'CONSOLE_PORT');
    if (LOG_LEVEL) this.#place(data, ['log', 'level'], LOG_LEVEL, 'LOG_LEVEL');
    if (OTP_API_KEYS) {
      data.clients ??= [];
      this.#merge(data.clients, ['clients'], ['id', 'apiKey'], OTP_API_KEYS, 'OTP_API_KEYS');
    }
    if (OTP_CONSOLE_USERS) {
      data.console ??= {};
      if (!isMapping(data.console)) return;
      data.console.users ??= [];
      const names = ['name', 'password'] as const;
      this.#merge(data.console.users, ['console', 'users'], names, OTP_CONSOLE_USERS, 'OTP_CONSOLE_USERS');
    }
  }

  #place(data: Record<string, unknown>, path: readonly [string, string], value: string, variable: string): void {
    const [section, name] = path;
    data[section] ??= {};
    const parent = data[section];
    if (!isMapping(parent)) return; // the schema says so
    parent[name] = value;
    this.#forget(keyOf(path));
    this.#origins.set(keyOf(path), `${JSON.stringify(value)} from the environment variable ${variable}`);
  }

  /** `name:secret,name:secret`, where a secret may hold a colon and neither a comma. */
  #merge(
    entries: unknown,
    path: Path,
    [nameKey, secretKey]: readonly [string, string],
    value: string,
    variable: string,
  ): void {
    if (!Array.isArray(entries)) return; // the schema says so
    const seen = new Set<string>();
    value.split(',').forEach((part, at) => {
      const [, name, secret] = /^([^:]+):(.+)$/s.exec(part.trim()) ?? [];
      if (name === undefined || secret === undefined || seen.has(name)) {
        const wrong =
          name !== undefined && seen.has(name)
            ? `has the ${nameKey} of an entry before it`
            : `is not ${nameKey}:${secretKey}`;
        this.#unresolved([variable], `entry ${at + 1} ${wrong}`);
        return;
      }
      seen.add(name);
      const known = entries.findIndex((entry) => isMapping(entry) && entry[nameKey] === name);
      const index = known === -1 ? entries.push({ [nameKey]: name }) - 1 : known;
      entries[index][secretKey] = secret;
      const words = `text from the environment variable ${variable}`;
      if (known === -1) this.#origins.set(keyOf([...path, index, nameKey]), words);
      this.#origins.set(keyOf([...path, index, secretKey]), words);
      this.#forget(keyOf([...path, index, secretKey]));
    });
  }

  /** What the environment replaces cannot be at fault in the file. */
  #forget(key: string): void {
    for (const other of [...this.#faults.keys()]) if (isWithin(other, key)) this.#faults.delete(other);
  }
}

export function isMapping(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** A path as a person writes it. A name that does not look like one may be a secret that lost its place: not shown. */
export function keyOf(path: Path): string {
  const key = path
    .map((part, at) => {
      if (typeof part === 'number') return `[${part}]`;
      const name = String(part);
      const isPartition = at === 1 && path[0] === 'providers';
      const digits = name.replace(/\D/g, '').length;
      const isName = /^[\w-]{1,32}$/.test(name) && (digits <= 3 || isPartition);
      return isName ? `.${name}` : `.(a key of ${name.length} characters)`;
    })
    .join('');
  return key.replace(/^\./, '') || 'the whole configuration';
}

/** Whether a key is another one or stands inside it. */
export function isWithin(key: string, outer: string): boolean {
  return key.startsWith(outer) && (key.length === outer.length || /^[.[]/.test(key.slice(outer.length)));
}

/** What stands there; undefined where nothing does. */
export function at(value: unknown, ...path: Path): unknown {
  let here = value;
  for (const part of path) {
    if (Array.isArray(here) && typeof part === 'number') here = here[part];
    else if (isMapping(here) && Object.hasOwn(here, part)) here = here[String(part)];
    else return undefined;
  }
  return here;
}

export const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
export const mapping = (value: unknown): Record<string, unknown> => (isMapping(value) ? value : {});
