import { handle, type Transaction, transactionLost } from './transaction.ts';

/**
 * Runs `work` in a savepoint of the transaction and, when it rejects, takes back what it did and rethrows. `work` gets a handle that
 * ends with it: a query that it failed to await would otherwise run in whatever comes next, and be committed or taken back with that.
 * Savepoints within one another are not meant: they have one name, so that setting the next drops the one before without asking.
 *
 * @throws DatabaseError ONCEBOX_TRANSACTION_LOST when a deadlock has rolled back the whole transaction, whatever error `work` made of that.
 */
export async function savepoint<T>(tx: Transaction, work: (tx: Transaction) => Promise<T>): Promise<T> {
  await tx.query('SAVEPOINT oncebox');
  const scope = handle(tx);
  try {
    return await work(scope.tx);
  } catch (error) {
    scope.end();
    await tx.query('ROLLBACK TO SAVEPOINT oncebox').catch((cause: unknown) => {
      throw transactionLost(cause);
    });
    throw error;
  } finally {
    scope.end();
  }
}
