import { DatabaseError, errnoOf } from './errors.ts';
import { handle, type Transaction } from './handle.ts';
import { handleIn } from './not-a-transaction.ts';
import { transactionLost } from './transaction-statements.ts';

/**
 * Runs `work` in a savepoint of the transaction and, when it rejects, takes back what it did and
 * rethrows. `work` gets a handle that ends with it: a query that it failed to await would otherwise
 * run in whatever comes next, and be committed or taken back with that.
 *
 * Savepoints may be set within one another, by the handle that the outer work was given. Two side
 * by side are refused: the server keeps them in a row, and to go back to the first is to take back
 * the second.
 *
 * @throws DatabaseError ONCEBOX_NOT_A_TRANSACTION; ONCEBOX_SAVEPOINT_OPEN while another savepoint
 *   of this handle is open; ONCEBOX_TRANSACTION_LOST when the server has rolled back the whole
 *   transaction, whatever error `work` made of that.
 */
export async function savepoint<T>(tx: Transaction, work: (tx: Transaction) => Promise<T>): Promise<T> {
  const outer = handleIn('savepoint()', tx);
  if (outer.savepoint) {
    throw new DatabaseError(
      'ONCEBOX_SAVEPOINT_OPEN',
      'savepoint() was called on a handle whose last savepoint is still open: await that one first, or, inside its work, use the handle ' +
        'that the work was given.',
    );
  }
  outer.savepoint = true;
  try {
    const { statements, depth } = outer;
    // A name for each depth: one that is set again replaces the last of its depth, so that a long
    // batch does not collect them.
    const name = `${statements.prefix}_${depth}`;
    await tx.query(`SAVEPOINT ${name}`);
    const scope = handle(statements, depth + 1);
    try {
      const result = await work(scope.tx);
      scope.end();
      return result;
    } catch (error) {
      scope.end();
      await rollBackTo(tx, name);
      throw error;
    }
  } finally {
    outer.savepoint = false;
  }
}

async function rollBackTo(tx: Transaction, name: string): Promise<void> {
  try {
    await tx.query(`ROLLBACK TO SAVEPOINT ${name}`);
  } catch (cause) {
    if (errnoOf(cause) === undefined) throw cause; // it says what it is: an ended handle, a broken connection
    throw transactionLost(
      'The transaction of this savepoint is open no more: pass its error on, so that the whole is repeated',
      cause,
    );
  }
}
