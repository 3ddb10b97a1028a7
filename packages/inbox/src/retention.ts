import { type ForgetSettings, keepDeleting, type Pool, type Retained, type Transaction } from '@oncebox/mysql';
import type { RowDataPacket } from 'mysql2/promise';

/** The table to `deleteExpired`. */
export const PROCESSED_MESSAGES = {
  table: 'processed_messages',
  key: ['consumer', 'message_id'],
  age: 'processed_at',
} as const;

/**
 * Deletes the ids of messages that were processed more than `keepHours` ago, now and from time to time, once for all consumers of a
 * schema. A copy of a message that comes later than that would take effect again: keep them for longer than a message may take,
 * dead letters included. Never rejects: a pass that failed is logged.
 */
export const forgetProcessed = (pool: Pool, settings: ForgetSettings): Promise<void> =>
  keepDeleting(pool, PROCESSED_MESSAGES, settings);

/**
 * The dead letters to `deleteExpired`, a state at a time, as dead_letters_handled has them in the order of their age. Never those
 * that wait for a person or for their worker. A key of an ordered consumer that a letter still holds goes on without the letter, as
 * `letGo` takes a letter that is gone for one that was discarded.
 */
export const DEAD_LETTERS: readonly Retained[] = (['replayed', 'discarded'] as const).map((state) => ({
  table: 'dead_letters',
  key: ['id'],
  age: 'updated_at',
  condition: `state = '${state}'`,
}));

/**
 * Deletes the dead letters that were replayed or discarded more than `keepHours` ago, now and from time to time. Never rejects: a
 * pass that failed is logged.
 *
 * @param keepHours 0 keeps them for ever.
 */
export async function forgetDeadLetters(pool: Pool, settings: ForgetSettings): Promise<void> {
  if (settings.keepHours === 0) return;
  await keepDeleting(pool, DEAD_LETTERS, settings);
}

/** Seconds since the first of those was replayed or discarded; null while none is kept. A probe of the index for each state. */
export async function oldestHandledLetterSeconds(db: Pick<Transaction, 'query'>): Promise<number | null> {
  const firsts = DEAD_LETTERS.map(
    ({ condition }) => `SELECT MIN(updated_at) AS at FROM dead_letters WHERE ${condition}`,
  );
  const [[row]] = await db.query<(RowDataPacket & { seconds: number | null })[]>(
    `SELECT TIMESTAMPDIFF(SECOND, MIN(at), UTC_TIMESTAMP(6)) AS seconds FROM (${firsts.join(' UNION ALL ')}) AS firsts`,
  );
  return row?.seconds ?? null;
}
