/**
 * The callers: each submission goes out at its time whatever became of the ones before it, is repeated with its key,
 * and now and then its caller hangs up. What the harness knows of a verification is what these callers were told.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Agent, request } from 'undici';
import type { VerificationResource } from '../src/producers/resource.ts';
import type { Story, Submission } from './plan.ts';
import { API_KEY } from './world.ts';

export interface Post {
  readonly atMs: number;
  /** The status; or what kept the caller from learning it. */
  readonly answer: number | 'hung_up' | 'no_answer';
  readonly id: string | null;
}

/** One idempotency key and everything that came of it. */
export interface Enquiry {
  readonly story: Story;
  readonly submission: Submission;
  readonly body: Readonly<Record<string, unknown>>;
  readonly posts: Post[];
  resource: VerificationResource | null;
}

const ANSWER_WITHIN_MS = 8_000;
const AT_ONCE = 300;

export class Load {
  readonly enquiries: Enquiry[] = [];
  readonly #intakeUrl: string;
  readonly #agent = new Agent({ connections: AT_ONCE, pipelining: 1 });
  #underway = 0;
  /** Callers that found too many others under way and went home. */
  turnedAway = 0;

  constructor(intakeUrl: string) {
    this.#intakeUrl = intakeUrl;
  }

  get underway(): number {
    return this.#underway;
  }

  /** Resolves when every caller has been answered or has given up. */
  async run(stories: readonly Story[], signal: AbortSignal): Promise<void> {
    const startedAt = performance.now();
    const turns = stories
      .flatMap((story) => story.submissions.map((submission) => ({ story, submission })))
      .sort((one, other) => one.submission.atMs - other.submission.atMs);
    const callers: Promise<void>[] = [];
    for (const { story, submission } of turns) {
      const waitMs = submission.atMs - (performance.now() - startedAt);
      if (waitMs > 1) await delay(waitMs);
      if (signal.aborted) break;
      callers.push(this.#submit(story, submission, signal));
    }
    await Promise.all(callers);
  }

  async #submit(story: Story, submission: Submission, signal: AbortSignal): Promise<void> {
    const { operation, otp, params, amount, lifetimeMs } = submission;
    const body = {
      provider: story.provider,
      operation,
      ...(otp === null ? {} : { otp }),
      params,
      ...(amount === null ? {} : { amount }),
      // Written once: the same key must come with the same body.
      ...(lifetimeMs === null ? {} : { expiresAt: new Date(Date.now() + lifetimeMs).toISOString() }),
      metadata: { key: submission.key },
    };
    const enquiry: Enquiry = { story, submission, body, posts: [], resource: null };
    this.enquiries.push(enquiry);
    await Promise.all([
      this.post(enquiry, submission.hangUpAfterMs, submission.waitSeconds),
      ...submission.repeats.map(async ({ afterMs, hangUpAfterMs }) => {
        await delay(afterMs);
        if (!signal.aborted) await this.post(enquiry, hangUpAfterMs, null);
      }),
    ]);
  }

  async post(enquiry: Enquiry, hangUpAfterMs: number | null, waitSeconds: number | null): Promise<Post | null> {
    if (this.#underway >= AT_ONCE) {
      this.turnedAway += 1;
      return null;
    }
    this.#underway += 1;
    const atMs = Date.now();
    const patienceMs = hangUpAfterMs ?? ANSWER_WITHIN_MS + (waitSeconds ?? 0) * 1_000;
    let post: Post;
    try {
      const response = await request(`${this.#intakeUrl}/v1/verifications`, {
        method: 'POST',
        dispatcher: this.#agent,
        signal: AbortSignal.timeout(patienceMs),
        headers: {
          authorization: `Bearer ${API_KEY}`,
          'content-type': 'application/json',
          'idempotency-key': enquiry.submission.key,
          ...(waitSeconds === null ? {} : { prefer: `wait=${waitSeconds}` }),
        },
        body: JSON.stringify(enquiry.body),
      });
      const answer = (await response.body.json()) as { id?: string };
      post = { atMs, answer: response.statusCode, id: response.statusCode < 300 ? (answer.id ?? null) : null };
    } catch {
      post = { atMs, answer: hangUpAfterMs === null ? 'no_answer' : 'hung_up', id: null };
    } finally {
      this.#underway -= 1;
    }
    enquiry.posts.push(post);
    return post;
  }

  /** The verification as it stands; null when the intake could not say. */
  async look(enquiry: Enquiry): Promise<VerificationResource | null> {
    const id = idOf(enquiry);
    if (id === null) return null;
    try {
      const response = await request(`${this.#intakeUrl}/v1/verifications/${id}`, {
        dispatcher: this.#agent,
        signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
        headers: { authorization: `Bearer ${API_KEY}` },
      });
      const answer = await response.body.json();
      if (response.statusCode !== 200) return null;
      enquiry.resource = answer as VerificationResource;
      return enquiry.resource;
    } catch {
      return null;
    }
  }

  /** Until the key has a readable answer: what was accepted without a word is found, what was not is accepted now. */
  async insist(enquiry: Enquiry, giveUpAt: number): Promise<void> {
    for (;;) {
      const post = await this.post(enquiry, null, null);
      if (post !== null && typeof post.answer === 'number' && post.answer < 500 && ![409, 429].includes(post.answer)) {
        return;
      }
      if (performance.now() > giveUpAt) return;
      await delay(500);
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

export function idOf(enquiry: Enquiry): string | null {
  return enquiry.posts.find(({ id }) => id !== null)?.id ?? null;
}
