/** Every target by its name, opened when it is asked for: some start servers of their own. */
import type { Target, TargetName } from '../target.ts';
import { callbackBodies } from './callback-bodies.ts';
import { callbackProofs } from './callback-proofs.ts';
import { configuration } from './configuration.ts';
import { intakeHttp } from './intake-http.ts';
import { intakeRequests } from './intake-requests.ts';
import { journalRecords } from './journal-records.ts';
import { providerAnswers } from './provider-answers.ts';
import { providerWire } from './provider-wire.ts';
import { sealedTexts } from './sealed-texts.ts';
import { strangeJobs } from './strange-jobs.ts';
import { strangeResults } from './strange-results.ts';

const OPEN: Readonly<Record<TargetName, () => unknown>> = {
  'intake-requests': () => intakeRequests(),
  'intake-http': () => intakeHttp(),
  'callback-proofs': () => callbackProofs(),
  'callback-bodies': () => callbackBodies(),
  'provider-answers': () => providerAnswers(),
  'provider-wire': () => providerWire(),
  configuration: () => configuration(),
  'journal-records': () => journalRecords(),
  'strange-jobs': () => strangeJobs(),
  'strange-results': () => strangeResults(),
  'sealed-texts': () => sealedTexts(),
};

/** Its cases are its own: whoever has opened it gives it nothing but what it has made, or what was kept of it. */
export async function openTarget(name: TargetName): Promise<Target> {
  return (await OPEN[name]()) as Target;
}
