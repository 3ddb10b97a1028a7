import { type ForgetSettings, keepDeleting, type Pool } from '@oncebox/mysql';

/** `ended_at` is NULL until a saga has ended, so no other is ever old enough. Its history goes with it. */
export const SAGAS = { table: 'sagas', key: ['name', 'id'], age: 'ended_at' } as const;

/**
 * Deletes sagas that ended more than `keepHours` ago, now and from time to time. Keep them for as long as the ids of processed
 * messages: a start that is repeated after that starts the saga anew. Never rejects: a pass that failed is logged.
 */
export const forgetSagas = (pool: Pool, settings: ForgetSettings): Promise<void> => keepDeleting(pool, SAGAS, settings);
