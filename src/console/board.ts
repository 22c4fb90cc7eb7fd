/**
 * Bull Board over every queue, to look at and not to touch. Its retry button would be a second submission of a code, so
 * every queue is read-only to it, and the console's own guard lets no request through that could change something.
 */
import { readFileSync } from 'node:fs';
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import type { AppViewRoute, ControllerHandlerReturnType } from '@bull-board/api/typings/app';
import { ExpressAdapter } from '@bull-board/express';
import type { Queue } from 'bullmq';
import type { RequestHandler } from 'express';
import { partitionOf } from '../producers/job.ts';
import { Html, html } from './html.ts';
import { NAMES_ADDRESS, navigation } from './layout.ts';
import { type BodyMask, createBodyMask, STORY } from './masking.ts';

const SYSTEM_FONTS = {
  'font-sans': "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif",
  'font-mono': "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace",
};

export interface BoardDependencies {
  readonly basePath: string;
  readonly queues: readonly Queue[];
  readonly partitions: readonly string[];
  /** What people call a queue, by its name. */
  readonly titles: ReadonlyMap<string, string>;
}

export function createBoard({ basePath, queues, partitions, titles }: BoardDependencies): RequestHandler {
  const mask = createBodyMask({ queues: queues.map(({ name }) => name), partitions });
  const server = new MaskingServer(mask, titles);
  server.setBasePath(basePath);
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
        boardTitle: 'Queues',
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
  readonly #style: Html;

  constructor(mask: BodyMask, titles: ReadonlyMap<string, string>) {
    super();
    this.#mask = mask;
    this.#style = new Html(`${BAR_STYLE}${menuStyle(titles)}`);
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
        const ours = page.replaceAll(/<link[^>]*\bhref="https?:[^>]*>/g, '');
        response.send(
          ours
            .replace(
              '</head>',
              () =>
                html`<style>${this.#style}</style><script src="${NAMES_ADDRESS}" type="module"></script></head>`.markup,
            )
            .replace(/<body[^>]*>/, (body) => html`${new Html(body)}${BAR}`.markup),
        );
      });
    });
    return this;
  }
}

const BAR_STYLE = readFileSync(new URL('./board.css', import.meta.url), 'utf8');

const BAR = html`<nav class="console-bar" aria-label="Console">${navigation('/board')}</nav>
<noscript><p>Bull Board needs JavaScript. Every other page of the console does without.</p></noscript>`;

/** The menu can show nothing but the names that queues have in Redis, so the style sheet says what people call them. */
function menuStyle(titles: ReadonlyMap<string, string>): string {
  const plain = (text: string): boolean => /^[\w.· -]+$/.test(text);
  return [...titles]
    .filter(([name, title]) => plain(name) && plain(title))
    .map(([name, title]) => {
      const link = `#bull-board-sidebar a[title="${name}"]`;
      return `${link} > span:first-child { display: none } ${link}::before { content: "${title}" }\n`;
    })
    .join('');
}

function shown(mask: BodyMask, route: string, result: ControllerHandlerReturnType): ControllerHandlerReturnType {
  return { ...result, body: mask(route, result.status ?? 200, result.body) as ControllerHandlerReturnType['body'] };
}

/** A job is named after its verification, a result after its verification and revision. */
function storyOf(jobId: string): { displayText: string; href: string } {
  const verification = jobId.replace(/\.\d+$/, '');
  return { displayText: STORY, href: partitionOf(verification) === null ? '' : `/verifications/${verification}` };
}
