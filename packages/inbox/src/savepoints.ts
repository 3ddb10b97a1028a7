import { isContention, isTransactionLost, isUnavailable, savepoint, type Transaction } from '@oncebox/mysql';
import { isDeadline } from './deadline.ts';
import type { Work } from './handling.ts';
import { DUPLICATE, record } from './record.ts';
import { signal } from './signals.ts';
import { type Failure, failed } from './verdicts.ts';

/** What failed is the transaction, and not the one message whose handler met it. */
export const concernsAll = (error: unknown): boolean =>
  isContention(error) || isUnavailable(error) || isDeadline(error) || isTransactionLost(error);

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
): Promise<{ readonly kind: 'handled' | 'duplicate' } | Failure> {
  try {
    await savepoint(tx, async (scope) => {
      await record(scope, consumer, messageId);
      signal('oncebox:inbox:recorded', { consumer, messageId });
      await work(scope);
    });
    return { kind: 'handled' };
  } catch (error) {
    if (concernsAll(error)) throw error;
    return error === DUPLICATE ? { kind: 'duplicate' } : failed(error);
  }
}
