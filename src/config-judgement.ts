/**
 * The judgement over a configuration: what its schema says, and the rules that hold between its parts. It tells every fault
 * at once, each by its key, and repeats no secret.
 */
import { accessSync, constants } from 'node:fs';
import { resolve } from 'node:path';
import type { z } from 'zod';
import { baseUrl, isLoopback, numberOfDigits, PARTITION_NAME, pathProblem, RATE_LIMIT } from './config-schema.ts';
import {
  at,
  type Fault,
  isMapping,
  isWithin,
  keyOf,
  list,
  mapping,
  type Path,
  readFault,
  type Sources,
} from './config-sources.ts';
import { isAmongSecrets, isHarmless, knownKeys, NO_ALTERNATIVE, nameToShow, unknownKey } from './config-wording.ts';
import type { BoundProvider, Provider } from './providers/provider.ts';
import { API_KEY_MIN_LENGTH, apiKeyHash, isApiKeyHash, isPasswordHash, PASSWORD_MIN_LENGTH } from './secret-hashes.ts';

export interface Bound {
  readonly provider: BoundProvider;
  readonly definition: Provider;
  readonly account: string;
}

/** A partition has queues with these endings, too: `queueNames` of the producers. */
const FURTHER_QUEUES: readonly string[] = ['-inquiry', '-callback'];

/** Its queue would be that of the results. */
const RESERVED_PARTITIONS: readonly string[] = ['results'];

/**
 * Collects faults. It looks at the data as it was given, not as it was parsed, so that it can judge every part that
 * is sound while another is not.
 */
export class Judgement {
  readonly #sources: Sources;
  readonly #faults = new Map<string, Set<string>>();
  readonly #secrets: readonly string[];

  constructor(sources: Sources) {
    this.#sources = sources;
    this.#secrets = textsOf(
      Object.values(mapping(at(sources.data, 'providers'))).map((given) => at(given, 'credentials')),
    );
    for (const { key, message } of sources.faults) this.#faults.set(key, new Set([message]));
  }

  /** In the order of the keys, each said once. */
  faults(): Fault[] {
    return [...this.#faults]
      .flatMap(([key, messages]) => [...messages].map((message) => ({ key, message })))
      .sort((a, b) => a.key.localeCompare(b.key, 'en', { numeric: true }));
  }

  #add(path: Path, message: string): void {
    const key = keyOf(path);
    // What could not be had is already reported; that it also has the wrong type is no news.
    if (this.#sources.faults.some((fault) => isWithin(key, fault.key))) return;
    const known = this.#faults.get(key) ?? new Set();
    this.#faults.set(key, known.add(message));
  }

  addIssues(issues: readonly z.core.$ZodIssue[], schema: z.ZodType): void {
    for (const issue of issues) {
      if (issue.code === 'unrecognized_keys') {
        const known = knownKeys(schema, issue.path);
        for (const name of issue.keys) {
          this.#add([...issue.path, nameToShow(name, issue.path, known)], unknownKey(name, known));
        }
      } else if (issue.code === 'invalid_union' && issue.errors.length > 0 && issue.message === NO_ALTERNATIVE) {
        // The alternative that comes nearest is the one that was meant.
        const [nearest = []] = [...issue.errors].sort((a, b) => a.length - b.length);
        this.addIssues(
          nearest.map((inner) => ({ ...inner, path: [...issue.path, ...inner.path] })),
          schema,
        );
      } else {
        this.#add(issue.path, this.#withGiven(issue, schema));
      }
    }
  }

  #withGiven({ message, path, code }: z.core.$ZodIssue, schema: z.ZodType): string {
    const text = this.#withoutSecrets(message);
    const value = at(this.#sources.data, ...path);
    if (value === undefined) return `${text}, but is missing`;
    const mapped = typeof value === 'object' && value !== null && code === 'custom';
    return mapped ? text : `${text}, got ${this.#describe(path, value, isHarmless(schema, path, value))}`;
  }

  /** What came. It is repeated only where nothing but the harmless belongs; of everything else the type is told. */
  #describe(path: Path, value: unknown, mayBeShown: boolean): string {
    if (value === null) return 'nothing';
    if (Array.isArray(value)) return 'a list';
    if (typeof value === 'object') return 'a mapping';
    if (value === '') return 'an empty text';
    const type = typeof value === 'string' ? 'text' : `a ${typeof value}`;
    if (!mayBeShown && isAmongSecrets(path)) return type;
    const origin = this.#sources.origins.get(keyOf(path));
    if (origin !== undefined) return origin;
    const shown = JSON.stringify(value) ?? type;
    // Several words may be several lines of the file, run together by a sign that is missing.
    return !mayBeShown || shown.length > 80 || /[@?#\s\\{}\p{Cc}]|(?<!^)"(?!$)/u.test(shown) ? type : shown;
  }

  /** One of the names that are known there, misspelt; whatever else stands in its place may be a secret. */
  #describeName(path: Path, name: string, known: readonly string[]): string {
    return this.#describe(path, name, nameToShow(name, path, known) === name);
  }

  /** An adapter writes its own messages; whatever they say, no text of the credentials leaves with them. */
  #withoutSecrets(message: string): string {
    return this.#secrets.reduce((text, secret) => text.replaceAll(secret, '[secret]'), message);
  }

  /** Binds every partition whose own parts are sound, and compares who they are. */
  bindPartitions(
    adapters: Readonly<Record<string, Provider | undefined>>,
    knownAdapters: readonly string[],
  ): ReadonlyMap<string, Bound> {
    const bound = new Map<string, Bound>();
    const accounts = new Map<string, string>();
    const names = Object.keys(adapters);
    const given = at(this.#sources.data, 'providers');
    if (names.length === 0 && (given === undefined || isMapping(given))) {
      this.#add(['providers'], 'must name at least one partition');
    }
    for (const name of names) {
      const path = ['providers', name];
      if (!PARTITION_NAME.test(name)) {
        this.#add(path, 'a partition is named by 1 to 40 of a-z, 0-9 and -, and begins with a letter or a digit');
      } else if (RESERVED_PARTITIONS.includes(name) || name.startsWith('webhook-')) {
        this.#add(path, `cannot be the name of a partition: the queue otp-${name} is in use for something else`);
      }
      const owner = names.find((other) => FURTHER_QUEUES.some((suffix) => name === `${other}${suffix}`));
      if (owner !== undefined) this.#queueBelongsTo(name, `otp-${name}`, ['providers', owner]);
      const settings = at(given, name);
      if (!isMapping(settings)) continue;
      this.#checkFiles([...path, 'tls'], settings.tls);
      if (settings.proxy !== undefined && /^\s*http:/i.test(String(settings.baseUrl))) {
        this.#add([...path, 'proxy'], 'must go with an https:// baseUrl: the proxy would read the codes');
      }
      const definition = adapters[name];
      if (definition === undefined) {
        this.#unknownAdapter(path, settings, knownAdapters);
        continue;
      }
      const context = contextOf(definition, settings);
      if (context === null) continue;
      try {
        const account = definition.account(context.credentials);
        bound.set(name, { definition, account, provider: definition.bind(context) });
        const whoAndWhere = JSON.stringify([definition.adapter, context.baseUrl, account]);
        const other = accounts.get(whoAndWhere);
        accounts.set(whoAndWhere, other ?? name);
        if (other !== undefined && context.baseUrl !== NO_ADDRESS) {
          this.#add(path, `is the adapter, baseUrl and account of ${keyOf(['providers', other])} again`);
        }
      } catch (error) {
        this.#add(path, this.#withoutSecrets(error instanceof Error ? error.message : 'its adapter refuses it'));
      }
    }
    return bound;
  }

  #queueBelongsTo(partition: string, queue: string, owner: Path): void {
    const path = ['providers', partition];
    this.#add(path, `cannot be the name of a partition: the queue ${queue} belongs to ${keyOf(owner)}`);
  }

  #unknownAdapter(path: Path, settings: Record<string, unknown>, known: readonly string[]): void {
    const adapter = settings.adapter ?? path.at(-1);
    if (typeof adapter !== 'string') return; // the schema says so
    if (settings.adapter === undefined && !PARTITION_NAME.test(adapter)) return; // its name is the fault
    const what = this.#describeName([...path, 'adapter'], adapter, known);
    const why = settings.adapter === undefined ? ' (the name of the partition)' : '';
    this.#add([...path, 'adapter'], `must be one of ${known.join(', ')}; got ${what}${why}`);
  }

  #checkFiles(path: Path, tls: unknown): void {
    for (const name of ['caFile', 'certFile', 'keyFile']) {
      const file = at(tls, name);
      if (typeof file !== 'string' || file === '' || pathProblem(file) !== null) continue; // the schema says so
      try {
        accessSync(resolve(this.#sources.folder, file), constants.R_OK);
      } catch (error) {
        const filePath = [...path, name];
        this.#add(
          filePath,
          `must be a readable file: ${readFault(error)}, got ${this.#describe(filePath, file, true)}`,
        );
      }
    }
  }

  /** The rules that hold between two keys, wherever both are there. */
  compareParts(): void {
    const { data } = this.#sources;
    const clients = list(at(data, 'clients'));
    const named = Object.keys(mapping(at(data, 'providers')));
    const partitions = named.filter((name) => PARTITION_NAME.test(name));
    const ids = clients.map((given) => at(given, 'id'));

    this.#repeated(ids, 'clients', 'id');
    this.#repeated(
      // A key and its hash are one key.
      clients.map((given) => at(given, 'apiKey')).map((key) => (typeof key === 'string' ? apiKeyHash(key) : key)),
      'clients',
      'apiKey',
    );
    this.#repeated(
      list(at(data, 'console', 'users')).map((given) => at(given, 'name')),
      'console.users',
      'name',
    );

    clients.forEach((given, index) => {
      list(at(given, 'providers')).forEach((name, position) => {
        if (typeof name !== 'string' || named.includes(name)) return;
        const path = ['clients', index, 'providers', position];
        const got = this.#describeName(path, name, partitions);
        this.#add(path, `must be a partition (${partitions.join(', ')}), got ${got}`);
      });
      const queue = at(given, 'resultsQueue');
      const taken = typeof queue === 'string' && takenBy(queue, partitions);
      if (taken) this.#add(['clients', index, 'resultsQueue'], `must be a queue of its own, but ${taken}`);
    });

    this.#repeated(
      list(at(data, 'results', 'webhooks')).map((given) => at(given, 'client')),
      'results.webhooks',
      'client',
    );
    list(at(data, 'results', 'webhooks')).forEach((given, index) => {
      const id = at(given, 'client');
      if (named.includes('webhook') && FURTHER_QUEUES.includes(`-${id}`)) {
        this.#queueBelongsTo('webhook', `otp-webhook-${id}`, ['results', 'webhooks', index, 'client']);
      }
      if (typeof id !== 'string' || id === '' || ids.includes(id)) return;
      const path = ['results', 'webhooks', index, 'client'];
      this.#add(path, `must be the id of a client, got ${this.#describeName(path, id, texts(ids))}`);
    });

    for (const room of ['redis', 'intake', 'console']) this.#checkFiles([room, 'tls'], at(data, room, 'tls'));

    // Every process listens on console.port, so an intake cannot share it, whichever roles run where.
    const [intake, operator] = [mapping(at(data, 'intake')), mapping(at(data, 'console'))];
    const ports = [numberOfDigits(intake.port ?? 3000), numberOfDigits(operator.port ?? 3001)];
    const hosts = [intake.host ?? '127.0.0.1', operator.host ?? '127.0.0.1'];
    const everywhere = hosts.some((host) => host === '0.0.0.0' || host === '::');
    if (ports[0] !== 0 && ports[0] === ports[1] && (everywhere || hosts[0] === hosts[1])) {
      this.#add(['console', 'port'], 'must be another port than intake.port');
    }
  }

  /** Of a configuration without a fault. */
  warnings(): string[] {
    const { data } = this.#sources;
    const short = (text: unknown, least: number, isHash: (text: string) => boolean): boolean =>
      typeof text === 'string' && text.length < least && !isHash(text);
    const keys = list(at(data, 'clients')).flatMap((given, index) =>
      short(at(given, 'apiKey'), API_KEY_MIN_LENGTH, isApiKeyHash)
        ? [
            `${keyOf(['clients', index, 'apiKey'])}: has fewer than ${API_KEY_MIN_LENGTH} characters and can be guessed; ` +
              '`otp keys api-key` makes a good one',
          ]
        : [],
    );
    const passwords = list(at(data, 'console', 'users')).flatMap((given, index) =>
      short(at(given, 'password'), PASSWORD_MIN_LENGTH, isPasswordHash)
        ? [
            `${keyOf(['console', 'users', index, 'password'])}: has fewer than ${PASSWORD_MIN_LENGTH} characters and can be guessed`,
          ]
        : [],
    );
    return [...keys, ...passwords, ...this.#shortTimes(), ...this.#shortWindows(), ...this.#headersInTheClear()];
  }

  /** A time that somebody gave in seconds is a thousandth of what was meant, and works until a provider is slow. */
  #shortTimes(): string[] {
    const { data } = this.#sources;
    const names = Object.keys(mapping(at(data, 'providers')));
    const usual: [path: Path, leastMs: number][] = [
      [['journal', 'retentionMs'], 60_000],
      ...names.flatMap((name): [Path, number][] => [
        [['providers', name, 'timeoutMs'], 1_000],
        [['providers', name, 'otpLifetimeMs'], 10_000],
      ]),
    ];
    return usual.flatMap(([path, leastMs]) => {
      const ms = numberOfDigits(at(data, ...path));
      if (typeof ms !== 'number' || ms >= leastMs) return [];
      return [`${keyOf(path)}: ${ms} milliseconds is very short (is it in seconds?); ${ms} seconds are ${ms * 1_000}`];
    });
  }

  /** Measured in docs/rates.md: of 10 in 100 ms a provider saw up to 19. */
  #shortWindows(): string[] {
    const { data } = this.#sources;
    return Object.keys(mapping(at(data, 'providers'))).flatMap((name) => {
      const { max: given, perMs: window } = mapping(at(data, 'providers', name, 'rateLimit'));
      const [max, perMs] = [numberOfDigits(given ?? RATE_LIMIT.max), numberOfDigits(window ?? RATE_LIMIT.perMs)];
      if (typeof max !== 'number' || typeof perMs !== 'number' || perMs >= 1_000) return [];
      const aSecond = Math.max(1, Math.floor((max * 1_000) / perMs));
      return [
        `${keyOf(['providers', name, 'rateLimit', 'perMs'])}: in ${perMs} milliseconds the provider may see more than ${max}, ` +
          `because a network delays for as long; max: ${aSecond} with perMs: 1000 is the same rate and is kept`,
      ];
    });
  }

  #headersInTheClear(): string[] {
    const { endpoint, headers } = mapping(at(this.#sources.data, 'tracing'));
    if (typeof endpoint !== 'string' || Object.keys(mapping(headers)).length === 0) return [];
    const { protocol, hostname } = new URL(endpoint);
    if (protocol !== 'http:' || isLoopback(hostname)) return [];
    return [
      'tracing.endpoint: is plain http to another machine, where tracing.headers cross the network in the clear; ' +
        'use https://, or a collector on this machine',
    ];
  }

  #repeated(values: readonly unknown[], section: string, name: string): void {
    values.forEach((value, index) => {
      const first = values.indexOf(value);
      if (typeof value !== 'string' || first === index) return;
      this.#add([...section.split('.'), index, name], `must differ from ${section}[${first}].${name}`);
    });
  }
}

const texts = (values: readonly unknown[]): string[] => values.filter((value) => typeof value === 'string');

function takenBy(queue: string, partitions: readonly string[]): string | null {
  if (queue === 'otp-results') return 'otp-results is where the results of all clients go';
  if (queue.startsWith('otp-webhook-')) return 'names that begin with otp-webhook- belong to the webhooks';
  const owner = partitions.find((name) => queue.startsWith(`otp-${name}`));
  return owner === undefined ? null : `names that begin with otp-${owner} belong to the partition ${owner}`;
}

/** In the place of an address that is at fault, so that what else is wrong is found in the same pass. */
const NO_ADDRESS = 'https://address.invalid';

/** What `bind` may be given: only what has passed the schemas. */
function contextOf(definition: Provider, settings: Record<string, unknown>) {
  const address = baseUrl.safeParse(settings.baseUrl);
  const credentials = definition.credentials.safeParse(settings.credentials ?? {});
  const options = definition.options.safeParse(settings.options ?? {});
  if (!credentials.success || !options.success) return null;
  return { baseUrl: address.success ? address.data : NO_ADDRESS, credentials: credentials.data, options: options.data };
}

/** Every text inside a value, if it is long enough to be a secret; the longest first, for one may hold another. */
function textsOf(value: unknown): string[] {
  const texts = (inner: unknown): string[] =>
    typeof inner === 'string'
      ? [inner]
      : Array.isArray(inner)
        ? inner.flatMap(texts)
        : Object.values(mapping(inner)).flatMap(texts);
  return texts(value)
    .filter((text) => text.length >= 4)
    .sort((a, b) => b.length - a.length);
}
