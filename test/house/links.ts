/** Where the links of a page lead. */
import { readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

export interface Link {
  readonly page: string;
  readonly link: string;
  /** From the root of the pages; the page itself for `#anchor`. */
  readonly target: string;
  readonly anchor: string | null;
}

/** Those that stay among the pages. `page` is relative to `root`. */
export function linksOf(root: string, page: string): Link[] {
  const inText = /\]\(([^()\s]+)\)|<(?:img|a|source)\b[^>]*?\b(?:src|srcset|href)="([^"]+)"/g;
  return [...prose(root, page).matchAll(inText)]
    .map(([, markdown, html]) => markdown ?? html ?? '')
    .filter((link) => !/^[a-z]+:/.test(link))
    .map((link) => {
      const [path = '', anchor = null] = link.split('#');
      return { page, link, target: path === '' ? page : relative(root, join(root, dirname(page), path)), anchor };
    });
}

/** As GitHub makes them of headings. */
export function anchorsOf(root: string, page: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, heading = ''] of prose(root, page).matchAll(/^#{1,6} +(.*)$/gm)) {
    const words = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .trim()
      .toLowerCase();
    const anchor = words.replace(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-');
    let name = anchor;
    for (let again = 1; anchors.has(name); again += 1) name = `${anchor}-${again}`;
    anchors.add(name);
  }
  return anchors;
}

/** Without what is code, which shows links that are not meant to be followed. */
function prose(root: string, page: string): string {
  return readFileSync(join(root, page), 'utf8').replace(/^```[\s\S]*?^```/gm, '');
}
