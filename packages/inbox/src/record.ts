import { asBytes, isDuplicateKey, type Transaction, withOwnOptions } from '@oncebox/mysql';

/** Thrown for a message that is recorded already. Only at these inserts is 1062 a duplicate: in a handler it is a failure. */
export const DUPLICATE = Symbol('duplicate');

/**
 * First of all, so that of two copies of a message the second waits here for the first to end. Looking first and inserting
 * later would let both pass, and INSERT IGNORE would take any other error for a duplicate.
 *
 * @throws DUPLICATE
 */
export const record = (tx: Transaction, consumer: string, messageId: string): Promise<void> =>
  told(
    withOwnOptions(tx).execute('INSERT INTO processed_messages (consumer, message_id) VALUES (?, ?)', [
      consumer,
      asBytes(messageId),
    ]),
  );

/**
 * The same for several messages with one statement; one that is recorded already undoes it for all. In the order of the primary key, so
 * that two batches which hold some of the same messages wait for each other in one direction only.
 *
 * @throws DUPLICATE when at least one of them is recorded already, or is among them twice.
 */
export const recordAll = (tx: Transaction, consumer: string, messageIds: readonly string[]): Promise<void> =>
  told(
    // A query: as a prepared statement, each number of rows would be another.
    withOwnOptions(tx).query('INSERT INTO processed_messages (consumer, message_id) VALUES ?', [
      messageIds
        .map(asBytes)
        .sort(Buffer.compare)
        .map((id) => [consumer, id]),
    ]),
  );

async function told(insert: Promise<unknown>): Promise<void> {
  try {
    await insert;
  } catch (error) {
    throw isDuplicateKey(error) ? DUPLICATE : error;
  }
}
