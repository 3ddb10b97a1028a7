import type { Pool } from '@oncebox/mysql';
import { momentBefore } from '@oncebox/outbox';
import type { Moment } from './arguments.ts';

/** With microseconds, as the databases give times: with milliseconds, they would not compare as text. */
export const isoOf = (time: Date): string => time.toISOString().replace('Z', '000Z');

/** By the clock of this database. */
export const resolveMoment = async (pool: Pool, moment: Moment): Promise<string> =>
  'at' in moment ? isoOf(moment.at) : await momentBefore(pool, moment.ago);
