import { intake } from './intake.ts';
import { overview } from './overview.ts';
import { provider } from './provider.ts';
import { queues } from './queues.ts';
import type { Screen } from './screen.ts';

export const screens: readonly Screen[] = [overview, provider, queues, intake];
