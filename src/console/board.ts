/**
 * Bull Board over every queue, to look at and not to touch. Its retry button would be a second submission of a code, so
 * every queue is read-only to it, and the console's own guard lets no request through that could change something.
 */
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import type { AppViewRoute, ControllerHandlerReturnType } from '@bull-board/api/typings/app';
import { ExpressAdapter } from '@bull-board/express';
import type { Queue } from 'bullmq';
import type { RequestHandler } from 'express';
import { partitionKeys, partitionOf } from '../producers/job.ts';
import { type BodyMask, createBodyMask, STORY } from './masking.ts';

const SYSTEM_FONTS = {
  'font-sans': "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif",
  'font-mono': "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace",
};

export interface BoardDependencies {
  readonly basePath: string;
  readonly queues: readonly Queue[];
  readonly partitions: readonly string[];
}

export function createBoard({ basePath, queues, partitions }: BoardDependencies): RequestHandler {
  const mask = createBodyMask({ queues: queues.map(({ name }) => name), partitions });
  const server = new MaskingServer(mask);
  server.setBasePath(basePath);
  const titles = titlesOf(partitions);
  createBullBoard({
    queues: queues.map(
      (queue) =>
        new BullMQAdapter(queue, {
          readOnlyMode: true,
          allowRetries: false,
          displayName: titles.get(queue.name) ?? queue.name,
          externalJobUrl: ({ id }) => storyOf(String(id ?? '')),
        }),
    ),
    serverAdapter: server,
    options: {
      handlerHooks: {
        after: ({ route }, result) => shown(mask, route, result),
      },
      uiConfig: {
        boardTitle: 'otp-pipeline',
        miscLinks: [{ text: 'Console', url: '/' }],
        hideDocsLink: true,
        hideRedisDetails: true,
        showWorkers: false,
        showMetrics: false,
        locale: { lng: 'en-US' },
        theme: { light: SYSTEM_FONTS, dark: SYSTEM_FONTS },
      },
    },
  });
  return server.getRouter() as RequestHandler;
}

/** Two things that the hooks do not reach: what a thrown error says, and the page itself. */
class MaskingServer extends ExpressAdapter {
  readonly #mask: BodyMask;

  constructor(mask: BodyMask) {
    super();
    this.#mask = mask;
    this.app.disable('x-powered-by');
  }

  override setErrorHandler(handler: (error: Error) => ControllerHandlerReturnType): this {
    return super.setErrorHandler((error) => shown(this.#mask, '', handler(error)));
  }

  override setEntryRoute({ route, handler }: AppViewRoute): ExpressAdapter {
    this.app.get(route, (_request, response, next) => {
      const { name, params } = handler({ basePath: this.basePath, uiConfig: this.uiConfig });
      response.render(name, params, (error: Error | null, page?: string) => {
        if (error !== null || page === undefined) return next(error);
        // The page asks Google for its fonts. The browser would refuse by our policy; it need not even be asked.
        response.send(page.replaceAll(/<link[^>]*\bhref="https?:[^>]*>/g, ''));
      });
    });
    return this;
  }
}

function shown(mask: BodyMask, route: string, result: ControllerHandlerReturnType): ControllerHandlerReturnType {
  return { ...result, body: mask(route, result.status ?? 200, result.body) as ControllerHandlerReturnType['body'] };
}

/** `otp-cepta` is cepta's verifications; the board's list is read by people. */
function titlesOf(partitions: readonly string[]): Map<string, string> {
  return new Map(
    partitions.flatMap((partition): [string, string][] => {
      const { queue, inquiryQueue, callbackQueue } = partitionKeys(partition);
      return [
        [queue, `${partition} · verifications`],
        [inquiryQueue, `${partition} · inquiries`],
        [callbackQueue, `${partition} · callbacks`],
      ];
    }),
  );
}

/** A job is named after its verification, a result after its verification and revision. */
function storyOf(jobId: string): { displayText: string; href: string } {
  const verification = jobId.replace(/\.\d+$/, '');
  return { displayText: STORY, href: partitionOf(verification) === null ? '' : `/verifications/${verification}` };
}
