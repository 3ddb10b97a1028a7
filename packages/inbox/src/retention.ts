import { type ForgetSettings, keepDeleting, type Pool } from '@oncebox/mysql';

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
