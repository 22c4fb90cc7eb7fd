/**
 * What a person may change, and nothing else does: four forms, each sent by a page of ours, done by the operator's own
 * room, and answered by a redirect, so that a reload repeats nothing.
 */
import express, { type Request, type Response, type Router } from 'express';
import { EVIDENCE_LENGTH, parseEvidence } from '../producers/evidence.ts';
import { partitionOf } from '../producers/job.ts';
import { readVerification } from '../producers/reading.ts';
import type { VerificationRecord } from '../producers/record.ts';
import type { RedisConnection } from '../redis/connections.ts';
import type { Done, Operator } from '../workers/operator.ts';
import { userOf } from './access.ts';
import { html } from './html.ts';
import { messagePage } from './layout.ts';
import { confirmationOf, EMPTY_FORM, resolvePage } from './resolve.ts';
import type { Verbs } from './story.ts';
import { storyLink } from './words.ts';

/** Evidence of 500 characters, each of several bytes, each of them escaped. */
const FORM_BYTES = 16 * 1024;
const LENGTH = `${EVIDENCE_LENGTH.least} to ${EVIDENCE_LENGTH.most}`;

export interface VerbsDependencies {
  readonly redis: RedisConnection;
  readonly partitions: readonly string[];
  readonly operator: Operator;
  noSuchPage(): string;
}

export function verbsOf(operator: Pick<Operator, 'refusal'>, record: VerificationRecord): Verbs {
  return { inquire: operator.refusal(record, 'inquire'), resolve: operator.refusal(record, 'resolve') };
}

/** To be mounted before the guard that lets nothing but looking through: these are its only exceptions. */
export function verbRoutes({ redis, partitions, operator, noSuchPage }: VerbsDependencies): Router {
  const router = express.Router();
  const form = express.urlencoded({ extended: false, limit: FORM_BYTES, parameterLimit: 10 });

  router.post('/verifications/:id/inquire', async (request, response) => {
    const record = await existing(request, response);
    if (record === null) return;
    answer(response, await operator.inquire(record, userOf(response)), record);
  });

  router.post('/verifications/:id/resolve', form, async (request, response) => {
    const record = await existing(request, response);
    if (record === null) return;
    const as = field(request, 'as');
    const evidence = parseEvidence(field(request, 'evidence'));
    const confirmed = field(request, 'confirmation').trim().toLowerCase() === confirmationOf(record.id);
    if (confirmed && evidence !== null && (as === 'succeeded' || as === 'failed')) {
      return answer(response, await operator.resolve(record, { as, evidence, by: userOf(response) }), record);
    }
    const faults = {
      ...(as === 'succeeded' || as === 'failed' ? {} : { as: 'Choose one of the two.' }),
      ...(evidence === null ? { evidence: `It must be ${LENGTH} characters.` } : {}),
      ...(confirmed ? {} : { confirmation: 'These are not the last six characters of the id.' }),
    };
    const refused = operator.refusal(record, 'resolve');
    if (refused !== null) return answer(response, { is: 'refused', because: refused }, record);
    response.status(422).send(resolvePage(record, { as, evidence: field(request, 'evidence'), faults }));
  });

  for (const verb of ['pause', 'resume'] as const) {
    router.post(`/partitions/:name/${verb}`, form, async (request, response) => {
      const { name } = request.params;
      if (name === undefined || !partitions.includes(name)) return void response.status(404).send(noSuchPage());
      const because = parseEvidence(field(request, 'because'));
      if (because === null) {
        return void response
          .status(422)
          .send(
            messagePage(
              'Say why',
              html`The audit needs ${LENGTH} characters. <a href="/partitions/${name}">Back to ${name}</a>`,
            ),
          );
      }
      const done = await operator[verb](name, userOf(response), because);
      if (done.is === 'refused') return void response.status(409).send(messagePage('Not possible', done.because));
      response.redirect(303, `/partitions/${name}`);
    });
  }
  return router;

  async function existing(request: Request, response: Response): Promise<VerificationRecord | null> {
    const id = String(request.params.id);
    const known = partitions.includes(partitionOf(id) ?? '');
    const record = known ? await readVerification(redis, id) : null;
    if (record === null) response.status(404).send(noSuchPage());
    return record;
  }
}

/** The form itself, which changes nothing; or why there is none. */
export function resolveForm(operator: Operator, record: VerificationRecord): { status: number; page: string } {
  const refused = operator.refusal(record, 'resolve');
  if (refused === null) return { status: 200, page: resolvePage(record, EMPTY_FORM) };
  return { status: 409, page: refusedPage(refused, record) };
}

function answer(response: Response, done: Done, { id }: VerificationRecord): void {
  switch (done.is) {
    case 'done':
      return void response.redirect(303, `/verifications/${id}#latest`);
    case 'refused':
      return void response.status(409).send(refusedPage(done.because, { id }));
  }
  done satisfies never;
}

function refusedPage(because: string, { id }: Pick<VerificationRecord, 'id'>): string {
  return messagePage('Not possible', html`${storyLink(id)}: ${because}. Nothing was changed.`);
}

/** A field that came twice, or not at all, is empty. */
function field(request: Request, name: string): string {
  const body: unknown = request.body;
  const value = typeof body === 'object' && body !== null ? (body as Record<string, unknown>)[name] : undefined;
  return typeof value === 'string' ? value : '';
}
