import {
  errnoOf,
  isContention,
  isRefusal,
  isTransactionLost,
  isUnavailable,
  savepoint,
  type Transaction,
} from '@oncebox/mysql';
import { isDeadline } from './deadline.ts';
import type { Work } from './handling.ts';
import { DUPLICATE, record } from './record.ts';
import { signal } from './signals.ts';
import { type Failure, failed, unavailable } from './verdicts.ts';

/**
 * What failed is the transaction, and not the one message whose handler met it. A server that is full, or otherwise cannot go on,
 * has refused one statement: it may be the one table of one handler that is full.
 */
export const concernsAll = (error: unknown): boolean =>
  isContention(error) || (isUnavailable(error) && !isRefused(error)) || isDeadline(error) || isTransactionLost(error);

const isRefused = (error: unknown): boolean => isRefusal(error) && errnoOf(error) !== undefined;

/**
 * Records and handles one message among others of a transaction; when it fails, its record is taken back with its effects.
 *
 * @throws what concerns the whole transaction, which must then be rolled back.
 */
export async function handleInSavepoint(
  tx: Transaction,
  consumer: string,
  messageId: string,
  work: Work,
): Promise<{ readonly kind: 'handled' | 'duplicate' } | Failure | ReturnType<typeof unavailable>> {
  try {
    await savepoint(tx, async (scope) => {
      await record(scope, consumer, messageId);
      signal('oncebox:inbox:recorded', { consumer, messageId });
      await work(scope);
    });
    return { kind: 'handled' };
  } catch (error) {
    if (concernsAll(error)) throw error;
    if (isRefused(error)) return unavailable(error);
    return error === DUPLICATE ? { kind: 'duplicate' } : failed(error);
  }
}
