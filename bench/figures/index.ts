import type { Figure, Sizes } from '../figure.ts';
import { api } from './api.ts';
import { endToEnd } from './end-to-end.ts';
import { idle } from './idle.ts';
import { log } from './log.ts';
import { relay } from './relay.ts';
import { scale } from './scale.ts';
import { worker } from './worker.ts';

export const figuresOf = (sizes: Sizes): readonly Figure[] => [relay, worker, api, endToEnd, idle, scale(sizes), log];
