/** `npx tsx bench/scale.ts`: writes the figures of docs/scale.md anew, from bench/results/latest.json. */
import { readLatest } from './report.ts';
import { fillScalePage } from './scale-page.ts';

fillScalePage(readLatest());
