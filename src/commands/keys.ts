/** `otp keys generate | public | rotate | list | retire`: the key set of sealing.keyFile; docs/keys.md is the drill. */
import { statSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { type Config, loadConfig } from '../config.ts';
import {
  changeKeySet,
  KeyFileError,
  madeAt,
  newKey,
  readKeySet,
  stagedKey,
  withActivated,
  withoutKey,
  withStaged,
  writeKeySet,
} from '../key-files.ts';
import { sealedTo } from '../producers/sealed-to.ts';
import { publicKeySet, type SealingKeySet } from '../producers/sealing.ts';
import { addExamples, configOption, jsonOption, withRedis } from './command.ts';
import { addSecretCommands } from './secrets.ts';

const CONFIGURATION_KEY = 'sealing.keyFile';

interface FileOptions {
  config?: string;
  file?: string;
  json?: boolean;
}

export function define(keys: Command): void {
  addExamples(keys, 'otp keys generate --config otp.yaml', 'otp keys list --file .data/sealing-keys.json');
  addKeyCommands(keys);
  addSecretCommands(keys);
}

function addKeyCommands(keys: Command): void {
  const command = (name: string, description: string, ...examples: string[]): Command =>
    addExamples(
      keys
        .command(name)
        .description(description)
        .addOption(configOption())
        .option('--file <file>', 'the key set, instead of what the configuration says')
        .addOption(jsonOption()),
      ...examples,
    );

  command(
    'generate',
    'makes the key set of sealing.keyFile; never overwrites one',
    'otp keys generate --config otp.yaml',
  ).action(async ({ json, ...where }: FileOptions) => {
    const file = fileOf(where);
    const key = await newKey('otp');
    writeKeySet(file, { keys: [key] });
    tell(json, { file, kid: key.kid }, [
      `${file}: one key, ${key.kid}. Workers need this file; producers only \`otp keys public\`.`,
    ]);
  });

  command(
    'public',
    'prints the public half of the key set: all that a producer may hold',
    'otp keys public --config otp.yaml > public-keys.json',
  ).action(({ json, ...where }: FileOptions) => {
    const keySet = publicKeySet(readKeySet(fileOf(where), CONFIGURATION_KEY));
    console.log(JSON.stringify(keySet, null, json ? 0 : 2));
  });

  command(
    'rotate',
    'adds a key that only opens; --activate then makes it the one that seals',
    'otp keys rotate --config otp.yaml',
    'otp keys rotate --activate --config otp.yaml',
  )
    .option('--activate', 'the staged key seals from now on: every worker must have it by then')
    .addOption(
      new Option('--now', 'both at once, for a service that is one process or stands still').conflicts('activate'),
    )
    .addHelpText(
      'after',
      `
In order, so that nobody seals to a key that a worker has not got (docs/keys.md):
  otp keys rotate              then give the file to every worker and restart them
  otp keys rotate --activate   then give \`otp keys public\` to every producer and restart them
  otp keys retire KID          of the old key, when nothing is sealed to it any more
With the details' key workers and intakes change places: intakes open, workers seal.`,
    )
    .action(async ({ json, activate, now, ...where }: FileOptions & { activate?: boolean; now?: boolean }) => {
      await rotate(fileOf(where), json, activate ? 'activate' : now ? 'both' : 'stage');
    });

  command(
    'list',
    'the keys of the set: when each was made, which one seals, which open, which are retired',
    'otp keys list --config otp.yaml',
  ).action(({ json, ...where }: FileOptions) => {
    const rows = rowsOf(readKeySet(fileOf(where), CONFIGURATION_KEY));
    const width = Math.max(...rows.map(({ kid }) => kid.length));
    const does = (row: Row): string =>
      [row.seals && 'seals', row.opens && 'opens', row.staged && 'staged', row.retiredAt && `retired ${row.retiredAt}`]
        .filter(Boolean)
        .join(', ') || 'public half only';
    const lines = rows.map((row) => `${row.kid.padEnd(width)}  ${row.madeAt ?? '-'.padEnd(24)}  ${does(row)}`);
    tell(json, rows, lines);
  });

  command(
    'retire',
    'destroys the private part of a key that no longer seals: what is sealed to it stays closed',
    'otp keys retire otp-2026-08-01T09-00-00 --config otp.yaml',
  )
    .argument('<kid>', 'the key id, as `otp keys list` shows it')
    .option('--force', 'although codes or callbacks that are sealed to it would be lost, or without looking for them')
    .addHelpText(
      'after',
      `
With a configuration Redis is searched for codes and callbacks that are still sealed to the key, and any refuses it.
Details are not searched for: of the details' key, docs/keys.md says how long to wait.
With --file alone nothing is searched. Copies and backups of the file must be destroyed as well (docs/keys.md).`,
    )
    .action(async (kid: string, { json, force, ...where }: FileOptions & { force?: boolean }) => {
      const file = fileOf(where);
      withoutKey(readKeySet(file, CONFIGURATION_KEY), kid, new Date()); // refused before anything is searched
      const config = force || where.config === undefined ? null : loadConfig({ file: where.config });
      if (config !== null) await refuseWhileNeeded(kid, config);
      // What another key set has sealed is not looked for: of the details' key, the details in records.
      const searched = config !== null && isSameFile(file, config.sealing.keyFile);
      await changeKeySet(file, CONFIGURATION_KEY, (keySet) => withoutKey(keySet, kid, new Date()));
      tell(json, { file, retired: kid, searched }, [
        `${file}: ${kid} is retired, its private key is destroyed here.`,
        ...(searched || force ? [] : [`What is still sealed to it was not looked for: ${whyNot(config)}.`]),
        `Give this file to every ${rolesOf(file).opener}, restart them, and destroy every other copy of the old one.`,
      ]);
    });
}

/** Workers open codes, which others seal; intakes open the details of results, which workers seal. */
function rolesOf(file: string) {
  const isOfDetails = readKeySet(file, CONFIGURATION_KEY).keys[0]?.kid.startsWith('details-') ?? false;
  return isOfDetails
    ? ({ purpose: 'details', opener: 'intake', sealer: 'worker' } as const)
    : ({ purpose: 'otp', opener: 'worker', sealer: 'producer' } as const);
}

async function rotate(file: string, json: boolean | undefined, step: 'stage' | 'activate' | 'both'): Promise<void> {
  const { purpose, opener, sealer } = rolesOf(file);
  const keySet = await changeKeySet(file, CONFIGURATION_KEY, async (before) => {
    const staged = step === 'activate' ? before : withStaged(before, await newKey(purpose));
    return step === 'stage' ? staged : withActivated(staged);
  });
  const [sealing = '', ...others] = keySet.keys.map(({ kid }) => kid);
  const added = step === 'activate' ? null : step === 'stage' ? (others.at(-1) ?? null) : sealing;
  const next = {
    stage: [
      `${file}: added ${added}. It opens; ${sealing} still seals.`,
      `Give this file to every ${opener} and restart them. Then: otp keys rotate --activate`,
    ],
    activate: [
      `${file}: ${sealing} seals from now on; ${others.join(', ')} still opens.`,
      `Give every ${sealer} what \`otp keys public\` prints, and restart them.`,
      `When nothing is sealed to the old key any more: otp keys retire ${others[0]}`,
    ],
    both: [
      `${file}: added ${sealing}, and it seals from now on; ${others.join(', ')} still opens.`,
      `Restart every ${opener} with this file before any ${sealer} that seals to it.`,
    ],
  };
  tell(json, { file, added, seals: sealing, opens: [sealing, ...others] }, next[step]);
}

interface Row {
  readonly kid: string;
  readonly madeAt: string | null;
  readonly seals: boolean;
  readonly opens: boolean;
  /** It opens, and waits to be activated. */
  readonly staged: boolean;
  readonly retiredAt: string | null;
}

function rowsOf(keySet: SealingKeySet): Row[] {
  const isoTime = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());
  const staged = stagedKey(keySet);
  return [
    ...keySet.keys.map((key, index) => ({
      kid: key.kid,
      madeAt: isoTime(madeAt(key)),
      seals: index === 0,
      opens: key.d !== undefined,
      staged: key === staged,
      retiredAt: null,
    })),
    ...(keySet.retired ?? []).map(({ kid, retiredAt }) => {
      return { kid, madeAt: isoTime(madeAt({ kid })), seals: false, opens: false, staged: false, retiredAt };
    }),
  ];
}

async function refuseWhileNeeded(kid: string, config: Config): Promise<void> {
  const partitions = config.partitions.map(({ name }) => name);
  await withRedis(config, async (redis) => {
    const { codes, callbacks } = await sealedTo(kid, partitions, redis);
    if (codes === 0 && callbacks === 0) return;
    throw new KeyFileError(
      `${kid} alone opens ${codes} codes that may yet be sent and ${callbacks} callbacks: ` +
        'wait until they are dealt with, or lose them with --force',
    );
  });
}

function whyNot(config: Config | null): string {
  return config === null
    ? 'no configuration was given'
    : `the configuration has another file as ${CONFIGURATION_KEY}, and details are not searched for`;
}

/** By whatever path or link. What cannot be looked at is taken for another one. */
function isSameFile(one: string, other: string): boolean {
  try {
    const [first, second] = [statSync(one, { bigint: true }), statSync(other, { bigint: true })];
    return first.ino === second.ino && first.dev === second.dev;
  } catch {
    return false;
  }
}

function fileOf({ config, file }: FileOptions): string {
  return file ?? loadConfig({ file: config }).sealing.keyFile;
}

function tell(json: boolean | undefined, document: unknown, lines: readonly string[]): void {
  console.log(json ? JSON.stringify(document) : lines.join('\n'));
}
