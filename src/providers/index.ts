/** The registry: one line a provider. */
import { ayoconnect } from './ayoconnect.ts';
import { beqelal } from './beqelal.ts';
import { cepta } from './cepta.ts';
import { helloClever } from './hello-clever.ts';
import { lipaLater } from './lipa-later.ts';
import type { Provider } from './provider.ts';

export const providers: Readonly<Record<string, Provider>> = {
  'hello-clever': helloClever,
  'lipa-later': lipaLater,
  ayoconnect,
  beqelal,
  cepta,
};
