/**
 * Writes the dashboards as Grafana reads them: `npm run dashboards`, and with `-- --runbooks-at URL` where the files of
 * this repository are read in a browser (`https://git.example/otp-pipeline/blob/main`), which makes every runbook a link.
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { screens } from './source/index.ts';
import { build } from './source/screen.ts';

const { values } = parseArgs({ options: { 'runbooks-at': { type: 'string', default: '' } } });
const at = values['runbooks-at'];
const runbooksAt = at === '' ? '' : new URL('./', `${at}/`).href;
const folder = fileURLToPath(new URL('dashboards', import.meta.url));
for (const screen of screens)
  writeFileSync(`${folder}/${screen.uid}.json`, JSON.stringify(build(screen, runbooksAt), null, 2));

const biome = fileURLToPath(new URL('../../node_modules/@biomejs/biome/bin/biome', import.meta.url));
execFileSync(process.execPath, [biome, 'format', '--write', folder]);
