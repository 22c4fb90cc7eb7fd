import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { STATES } from '../src/producers/record.ts';

/**
 * Who may know whom. A room is a folder of src/ or a file at its top, with its helpers (`config-sources.ts` belongs to
 * `config`). Every room knows itself. An entry may also be a single file: `redis/script`.
 */
interface Room {
  readonly knows: readonly string[];
  /** Known by `import type` alone, which leaves no trace at run time. */
  readonly knowsTypesOf?: readonly string[];
  /** Packages it may import; any when not said. Node's own modules are always allowed. */
  readonly packages?: readonly string[];
  readonly because: string;
}

const ROOMS: Record<string, Room> = {
  secret: { knows: [], because: 'everybody holds secrets, so it can depend on nobody' },
  events: {
    knows: ['secret'],
    knowsTypesOf: ['providers', 'producers'],
    because: 'events leave sideways: what is told must not pull in who tells it or who listens',
  },
  'time-limit': { knows: [], because: 'everybody waits for something, and nobody for ever' },
  bullmq: { knows: [], packages: ['bullmq'], because: 'it is how a package is loaded, and nothing else' },
  redis: {
    knows: ['secret'],
    because: 'connections are below every room and know nothing of verifications',
  },
  providers: {
    knows: ['secret'],
    packages: ['zod'],
    because: 'a provider is pure functions over its wire; whoever sends, retries and records is behind it',
  },
  producers: {
    knows: [
      'bullmq',
      'providers',
      'secret',
      'events',
      'time-limit',
      'redis/script',
      'redis/together',
      'redis/cluster',
      'redis/held',
    ],
    knowsTypesOf: ['redis'],
    because: 'a verification is put in without knowing who carries it out: the producers run where no worker is',
  },
  workers: {
    knows: ['bullmq', 'producers', 'providers', 'secret', 'events', 'time-limit', 'redis'],
    because: 'the spine must not wait for, or fail by, anything that only watches it',
  },
  outbox: {
    knows: ['producers', 'providers', 'secret', 'events', 'time-limit', 'redis/held'],
    knowsTypesOf: ['redis'],
    because: 'it carries a table into the queues and opens nothing: whoever relays needs no worker',
  },
  metrics: {
    knows: ['bullmq', 'events', 'secret', 'time-limit', 'redis/cluster'],
    knowsTypesOf: ['workers', 'producers', 'providers', 'redis'],
    because: 'metrics listen to events; what they import they could change',
  },
  console: {
    knows: ['events', 'secret', 'time-limit', 'producers', 'metrics'],
    knowsTypesOf: ['workers', 'providers', 'redis'],
    because: 'the console shows; carrying out is for the workers alone',
  },
  sandbox: {
    knows: ['secret'],
    because:
      'it is the other side of the wire, written from the documents alone: ' +
      'what it shares with our providers it would agree with for no reason',
  },
  config: {
    knows: ['providers', 'secret', 'redis'],
    knowsTypesOf: ['producers', 'workers', 'metrics', 'console', 'events'],
    because: 'configuration is read before anything is built',
  },
  'key-files': {
    knows: ['producers', 'secret'],
    because: 'private keys are read for those who put the parts together, and handed on as secrets',
  },
  index: {
    knows: ['producers', 'providers', 'redis', 'secret', 'events', 'outbox/row'],
    because: 'the library must not bring workers, a console or a sandbox into the program of whoever enqueues',
  },
  log: {
    knows: ['events'],
    packages: ['pino', 'pino-pretty'],
    because: 'it listens like metrics; take it and its line in main.ts away and all still compiles',
  },
  main: {
    knows: [
      'bullmq',
      'config',
      'key-files',
      'log',
      'redis',
      'providers',
      'producers',
      'workers',
      'metrics',
      'console',
      'events',
      'secret',
    ],
    because:
      'the service never falls back to a sandbox, and its composition root is entered from the command line alone',
  },
  tour: {
    knows: [
      'main',
      'config',
      'key-files',
      'sandbox',
      'redis',
      'providers',
      'producers',
      'workers',
      'metrics',
      'console',
      'events',
      'secret',
    ],
    because: 'the tour shows everything and is started by the command line',
  },
  commands: {
    knows: [
      'bullmq',
      'main',
      'tour',
      'config',
      'key-files',
      'sandbox',
      'redis',
      'providers',
      'producers',
      'outbox',
      'workers',
      'metrics',
      'console',
      'events',
      'secret',
    ],
    because: 'the command line knows every room, and no room knows it',
  },
  cli: {
    knows: ['commands'],
    packages: ['commander'],
    because: 'it finds the command that is asked for and says what went wrong: whatever is done is done by a command',
  },
};

/** The configuration reads the environment once, for everybody; a server is looked for on PATH before there is one. */
const READS_THE_ENVIRONMENT = ['config', 'redis/server.ts'];

interface Import {
  readonly specifier: string;
  readonly typeOnly: boolean;
}

const source = fileURLToPath(new URL('../src/', import.meta.url));

function importsOf(code: string): Import[] {
  const statements = code.matchAll(
    /^[ \t]*(?:import|export)\s+(type\s)?(?:[\w$*{][^;'"]*?\sfrom\s*)?['"]([^'"]+)['"]/gm,
  );
  const calls = code.matchAll(/(?<![\w.])(typeof\s+)?import\(\s*['"]([^'"]+)['"]\s*\)/g);
  return [...statements, ...calls].map(([, type, specifier = '']) => ({ specifier, typeOnly: type !== undefined }));
}

/** `workers/attempt.ts` is in `workers`, `config-sources.ts` in `config`. */
function roomOf(file: string): string {
  const [first = ''] = file.split('/');
  if (!first.endsWith('.ts')) return first;
  const stem = first.slice(0, -'.ts'.length);
  return stem in ROOMS ? stem : (stem.split('-')[0] ?? stem);
}

function faultsOf(file: string, code: string): string[] {
  const name = roomOf(file);
  const room = ROOMS[name];
  if (room === undefined) return [`src/${file} is in no room: give ${name} a line in the table of this test`];
  return [
    ...importsOf(code).flatMap(({ specifier, typeOnly }) => {
      const fault = faultOf(file, name, room, specifier, typeOnly);
      return fault === null ? [] : [`src/${file} imports ${specifier}: ${fault}`];
    }),
    ...environmentFaults(file, name, code),
  ];
}

function faultOf(file: string, name: string, room: Room, specifier: string, typeOnly: boolean): string | null {
  if (specifier.startsWith('node:')) return null;
  if (specifier.startsWith('/') || specifier.includes(':')) return 'only relative files, packages and node: modules';
  if (!specifier.startsWith('.')) {
    const packageName = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
    if (room.packages === undefined || room.packages.includes(packageName)) return null;
    return `${name} may use ${room.packages.join(', ')} only, because ${room.because}`;
  }
  if (!specifier.endsWith('.ts')) return 'a relative import ends in .ts';
  const target = normalize(join(dirname(file), specifier));
  if (target.startsWith('..')) return 'src/ imports nothing from outside of src/';
  const targetRoom = roomOf(target);
  if (targetRoom === name) return null;
  const matches = (entry: string) => entry === targetRoom || `${entry}.ts` === target;
  if (room.knows.some(matches)) return null;
  if (room.knowsTypesOf?.some(matches)) {
    if (typeOnly) return null;
    return `${name} may know only the types of ${targetRoom} (import type), because ${room.because}`;
  }
  return `the arrow ${name} -> ${targetRoom} is reversed or not drawn, because ${room.because}`;
}

function environmentFaults(file: string, name: string, code: string): string[] {
  if (READS_THE_ENVIRONMENT.some((allowed) => allowed === name || allowed === file)) return [];
  const reads =
    /\bprocess\s*(?:\.\s*env\b|\[\s*['"]env['"]\s*\])/.test(code) || /\{[^}]*\benv\b[^}]*\}\s*=\s*process\b/.test(code);
  if (!reads && !/import\s*\{[^}]*\benv\b[^}]*\}\s*from\s*['"]node:process['"]/.test(code)) return [];
  return [
    `src/${file} reads process.env: only config.ts may, because a setting that is read elsewhere is never checked`,
  ];
}

describe('the rooms of src/', () => {
  const files = existsSync(source)
    ? readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
    : [];

  it.each(files)('%s knows only whom it may know', (file) => {
    expect(faultsOf(file, readFileSync(join(source, file), 'utf8'))).toEqual([]);
  });
});

/** Names without an installation's prefix, which job.ts exports for tests and tools alone. */
const UNPREFIXED = [
  'partitionKeys',
  'resultsPrefix',
  'webhookQueuePrefix',
  'claimKey',
  'clientRateKey',
  'PUBLISHED_CHANNEL',
];

describe('docs/architecture.md', () => {
  const page = readFileSync(new URL('../docs/architecture.md', import.meta.url), 'utf8');

  it('has the table of who may import whom as it stands here', () => {
    const [, table = ''] =
      /\n\| room \| may import \| for types alone \|\n\| -+ \| -+ \| -+ \|\n((?:\|.*\n)+)/.exec(page) ?? [];
    const list = (names: readonly string[] = []) => names.map((name) => `\`${name}\``).join(', ') || '-';
    const rows = Object.entries(ROOMS).map(
      ([name, { knows, knowsTypesOf }]) => `| \`${name}\` | ${list(knows)} | ${list(knowsTypesOf)} |\n`,
    );
    expect(table).toBe(rows.join(''));
  });

  it('draws the states that a record has, with a way in and a way on for each', () => {
    const [, drawing = ''] = /```mermaid\nstateDiagram-v2\n([\s\S]*?)```/.exec(page) ?? [];
    const arrows = [...drawing.matchAll(/^ {4}(\S+) --> ([^\s:]+)/gm)].map(([, from = '', to = '']) => ({ from, to }));
    const ends = (side: 'from' | 'to') =>
      new Set(arrows.map((arrow) => arrow[side]).filter((state) => state !== '[*]'));
    expect(ends('from')).toEqual(new Set(STATES));
    expect(ends('to')).toEqual(new Set(STATES));
    expect(arrows.filter(({ from }) => from === 'settled')).toEqual([{ from: 'settled', to: '[*]' }]);
  });

  it('names a test for each step at which something may be killed', () => {
    const [, table = ''] = /\n\| killed \|.*\n\|[ -|]+\n((?:\|.*\n)+)/.exec(page) ?? [];
    const rows = [...table.matchAll(/\| `(test\/\S+)`: ([^|]+) \|$/gm)];
    expect(rows).toHaveLength(table.trim().split('\n').length);
    expect(rows.length).toBeGreaterThan(10);
    const missing = rows.filter(([, file = '', behaviour = '']) => {
      const url = new URL(`../${file}`, import.meta.url);
      return !existsSync(url) || !readFileSync(url, 'utf8').includes(behaviour.trim());
    });
    expect(missing.map(([row]) => row)).toEqual([]);
  });
});

describe('the keys in Redis', () => {
  it('are made for an installation: nothing in src/ imports names that have no prefix', () => {
    const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
    const importing = files.flatMap((file) => {
      const statements = readFileSync(join(source, file), 'utf8').matchAll(
        /import\s*\{([^}]*)\}\s*from\s*'[^']*job\.ts'/g,
      );
      const names = [...statements].flatMap(([, list = '']) =>
        list.split(',').map((name) => name.trim().split(' ')[0]),
      );
      return names.filter((name) => UNPREFIXED.includes(name ?? '')).map((name) => `src/${file}: ${name}`);
    });
    expect(importing).toEqual([]);
  });
});

describe('the rules themselves', () => {
  it.each([
    ['providers/a.ts', "import { x } from '../workers/y.ts';", 'the arrow providers -> workers is reversed'],
    ['providers/a.ts', "import { Queue } from 'bullmq';", 'providers may use zod only'],
    ['producers/a.ts', "import {\n  x,\n  y,\n} from '../workers/y.ts';", 'the arrow producers -> workers is reversed'],
    ['producers/a.ts', "import { connectRedis } from '../redis/connections.ts';", 'only the types of redis'],
    ['workers/a.ts', "import '../metrics/y.ts';", 'the arrow workers -> metrics'],
    ['workers/a.ts', "const x = await import('../console/y.ts');", 'the arrow workers -> console'],
    ['metrics/a.ts', "import { x } from '../workers/y.ts';", 'only the types of workers'],
    ['metrics/a.ts', "export { x } from '../producers/y.ts';", 'only the types of producers'],
    ['sandbox/a.ts', "import type { X } from '../providers/y.ts';", 'the arrow sandbox -> providers'],
    ['redis/a.ts', "import type { X } from '../workers/y.ts';", 'the arrow redis -> workers'],
    ['main.ts', "import { x } from './sandbox/y.ts';", 'never falls back to a sandbox'],
    ['workers/a.ts', "import { x } from '../main.ts';", 'the arrow workers -> main'],
    ['index.ts', "export * from './workers/y.ts';", 'the arrow index -> workers'],
    ['workers/a.ts', "import { x } from './b.js';", 'ends in .ts'],
    ['workers/a.ts', "import { x } from '../../test/b.ts';", 'nothing from outside'],
    ['workers/a.ts', 'const level = process.env.LOG_LEVEL;', 'reads process.env'],
    ['workers/a.ts', 'const { env } = process;', 'reads process.env'],
    ['cli.ts', "import { main } from './main.ts';", 'the arrow cli -> main'],
    ['workers/a.ts', "import { x } from '../commands/y.ts';", 'the arrow workers -> commands'],
    ['cellar/a.ts', '', 'is in no room'],
  ])('%s with `%s` is a fault', (file, code, said) => {
    expect(faultsOf(file, code)).toEqual([expect.stringContaining(said)]);
  });

  it.each([
    ['providers/a.ts', "import { z } from 'zod';\nimport { createHmac } from 'node:crypto';"],
    ['providers/a.ts', "import { Secret } from '../secret.ts';\nimport type { X } from './provider.ts';"],
    [
      'producers/a.ts',
      "import { Script } from '../redis/script.ts';\nimport type { X } from '../redis/connections.ts';",
    ],
    ['workers/a.ts', "import { x } from '../producers/y.ts';\nimport { Queue } from 'bullmq';"],
    ['metrics/a.ts', "import type { X } from '../workers/y.ts';\nimport { register } from 'prom-client';"],
    ['tour/a.ts', "import { x } from '../sandbox/y.ts';\nimport { y } from '../main.ts';"],
    ['commands/a.ts', "const { main } = await import('../main.ts');\nimport { tour } from '../tour/tour.ts';"],
    ['cli.ts', "import { x } from './commands/index.ts';"],
    ['config-sources.ts', "import type { X } from './config.ts';\nconst { env } = process;"],
    ['redis/server.ts', 'process.env.PATH'],
  ])('%s with `%s` is none', (file, code) => {
    expect(faultsOf(file, code)).toEqual([]);
  });
});
